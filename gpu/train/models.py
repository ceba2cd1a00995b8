"""The paper's networks: the multilayer perceptron, ResNet-18 for 32 × 32 images, and an LSTM over word vectors.

Each is initialised as torch does by default, from `seed` alone; the global generator is left as it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.nn.utils.rnn import pack_padded_sequence

from gpu.train.data import Dataset
from gpu.train.errors import UsageError
from gpu.train.settings import Settings

PADDING = 0  # the token that fills texts up to one length
OF_KIND = {"features": "mlp", "image": "resnet18", "text": "lstm"}  # the paper's network for every kind of data


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed keeps a stack trace for every kind of device
        yield


def mlp(sizes: Sequence[int], *, seed: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers sizes[0] → … → sizes[-1], (m, sizes[0]) → (m, sizes[-1]) logits, with `activation` between them.

    nn.Identity makes the linear network of Figure 1.
    """
    with _seeded(seed):
        layers: list[nn.Module] = []
        for d_in, d_out in pairwise(sizes):
            layers += [nn.Linear(d_in, d_out), activation()]
    return nn.Sequential(*layers[:-1])


class BasicBlock(nn.Module):
    """relu(shortcut(x) + BN(conv(relu(BN(conv(x)))))), (m, d_in, h, w) → (m, d_out, h/stride, w/stride)."""

    def __init__(self, d_in: int, d_out: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(d_in, d_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(d_out),
            nn.ReLU(),
            nn.Conv2d(d_out, d_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(d_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or d_in != d_out:
            self.shortcut = nn.Sequential(nn.Conv2d(d_in, d_out, 1, stride, bias=False), nn.BatchNorm2d(d_out))

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.inner(x) + self.shortcut(x))


def resnet18(classes: int, *, seed: int, width: int = 64) -> nn.Sequential:
    """ResNet-18 (He et al. 2016) for 32 × 32 images, (m, 3, h, w) → (m, classes) logits: the first convolution is
    3 × 3 of stride 1 and no pooling follows it, as is usual for cifar10. Its last layer has 8 · `width` inputs."""
    with _seeded(seed):
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        d_in = width
        for stage in range(4):
            d_out = width * 2**stage
            layers += [BasicBlock(d_in, d_out, 2 if stage else 1), BasicBlock(d_out, d_out, 1)]
            d_in = d_out
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(d_in, classes))


class TextLSTM(nn.Module):
    """Word vectors (fixed) → LSTM → its state after the last word → a linear layer.

    (m, length) int64 tokens, filled up with PADDING at the end, → (m, classes) logits. `vectors` (words, d). Texts
    without a word are read as one of PADDING.
    """

    def __init__(self, vectors: Tensor, classes: int, *, hidden: int = 100, seed: int) -> None:
        super().__init__()
        with _seeded(seed):
            self.words = nn.Embedding.from_pretrained(vectors)  # type: ignore[no-untyped-call]
            self.lstm = nn.LSTM(vectors.shape[1], hidden, batch_first=True)
            self.output = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != PADDING).sum(1).clamp(min=1).cpu()
        words = pack_padded_sequence(self.words(tokens), lengths, batch_first=True, enforce_sorted=False)
        # cuDNN's recurrent layers have no second derivative, which ESGD and AdaHessian need; nor has oneDNN's, which
        # packed sequences do not take.
        with torch.backends.cudnn.flags(enabled=False):
            _, (state, _) = self.lstm(words)
        logits: Tensor = self.output(state[-1])
        return logits


def network_of(kind: str, settings: Settings) -> str:
    """The network's name; of "auto", the paper's for data of this kind. Raises UsageError where it cannot read them."""
    allowed = tuple(dict.fromkeys((OF_KIND[kind], "mlp")))
    if settings.network not in ("auto", *allowed):
        raise UsageError(f"network: expected {' or '.join(allowed)} for data of this kind, got {settings.network!r}")
    return allowed[0] if settings.network == "auto" else settings.network


def build_model(data: Dataset, settings: Settings) -> nn.Module:
    """The network that the settings describe, for data of this kind.

    The perceptron sees images flattened, and of a text the mean of its words' vectors, which do not move. Raises
    UsageError as `network_of` does.
    """
    classes, seed = len(data.classes), settings.seed
    name = network_of(data.kind, settings)
    if name == "resnet18":
        return resnet18(classes, seed=seed, width=settings.width)
    if name == "lstm":
        assert data.vectors is not None
        return TextLSTM(data.vectors, classes, hidden=settings.units, seed=seed)
    perceptron = mlp((data.features, *settings.hidden, classes), seed=seed)
    if data.vectors is not None:
        words = nn.EmbeddingBag.from_pretrained(data.vectors, mode="mean", padding_idx=PADDING)
        return nn.Sequential(words, perceptron)
    return perceptron if data.kind == "features" else nn.Sequential(nn.Flatten(), perceptron)


def described(kind: str, settings: Settings) -> str:
    """The network for data of this kind, in words."""
    return {
        "mlp": f"multilayer perceptron, hidden layers {', '.join(map(str, settings.hidden)) or 'none'}",
        "resnet18": f"ResNet-18 of {settings.width} channels in the first stage",
        "lstm": f"LSTM of {settings.units} units",
    }[network_of(kind, settings)]
