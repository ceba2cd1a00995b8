"""The networks of the tabular experiments."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


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
