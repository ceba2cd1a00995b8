"""The perceptron, on data of any kind."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from gpu.train.data import Dataset


def mlp(sizes: Sequence[int], *, seed: int) -> nn.Sequential:
    """Linear layers sizes[0] → … → sizes[-1], (m, sizes[0]) → (m, sizes[-1]) logits, with ReLU between them.

    Initialised as torch does by default, from `seed` alone; the global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for d_in, d_out in pairwise(sizes):
            layers += [nn.Linear(d_in, d_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def on_data(model: nn.Module, data: Dataset) -> nn.Module:
    """A model of features (m, d) as one of the data's inputs: images are flattened, and a text is the mean of its
    words' vectors, which do not move."""
    if data.vectors is not None:
        words = nn.EmbeddingBag.from_pretrained(data.vectors, mode="mean", padding_idx=0)
        return nn.Sequential(words, model)
    return model if data.X_train.ndim == 2 else nn.Sequential(nn.Flatten(), model)
