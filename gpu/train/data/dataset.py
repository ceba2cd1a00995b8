"""What a data set is to the trainer, whatever file it came from."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu.train.errors import DataError

TENSORS = ("X_train", "y_train", "X_test", "y_test", "kernel_train", "vectors", "X_valid", "y_valid")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs of the network and labels (n,) in int64, numbered in the order of `classes`.

    Inputs are features (n, d) or images (n, 3, 32, 32) in float32; of text, the numbers (n, length) in int64 of its
    words, whose vectors are the rows of `vectors` (words, d) in float32. Row 0 is zero: it fills up the end of shorter
    texts.

    kernel_train: what the kernel sees, (n, d) in float32, where that is not X_train itself (each instance flattened).
    X_valid, y_valid: the validation instances, where the data come with them.
    stand_in: what these data stand in for, where they are not what somebody asks a network about.
    """

    name: str
    X_train: Tensor
    y_train: Tensor
    X_test: Tensor
    y_test: Tensor
    classes: tuple[float, ...] | tuple[str, ...]
    stand_in: str = ""
    kernel_train: Tensor | None = None
    vectors: Tensor | None = None
    X_valid: Tensor | None = None
    y_valid: Tensor | None = None

    @property
    def kind(self) -> str:
        """What an input is: "features", "image" or "text"."""
        return "text" if self.vectors is not None else "features" if self.X_train.ndim == 2 else "image"

    @property
    def features(self) -> int:
        """Numbers an instance: of all channels; of a text, those of one word vector."""
        return self.X_train[0].numel() if self.vectors is None else self.vectors.shape[1]

    def to(self, device: str) -> "Dataset":
        """The same data on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return replace(self, **moved)

    def with_validation(self, fraction: float, *, seed: int) -> "Dataset":
        """These data with the validation instances they come with, or else with a `fraction` held out for that."""
        if self.X_valid is not None:
            return self
        train, held = (i.to(self.y_train.device) for i in hold_out(len(self.y_train), fraction, seed=seed))
        return replace(
            self,
            X_train=self.X_train[train],
            y_train=self.y_train[train],
            kernel_train=None if self.kernel_train is None else self.kernel_train[train],
            X_valid=self.X_train[held],
            y_valid=self.y_train[held],
        )

    def fingerprint(self) -> str:
        """A digest of every bit of inputs, labels, word vectors and what the kernel sees."""
        digest = hashlib.sha256()
        for name, part in self._tensors().items():
            if name not in TENSORS[:4]:  # those four are always there, and came without names
                digest.update(name.encode())
            digest.update(str(tuple(part.shape)).encode())
            digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        return {name: tensor for name in TENSORS if (tensor := getattr(self, name)) is not None}


def hold_out(n: int, fraction: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of a random split of n instances: (those left to train on, the fraction held out for validation)."""
    held = round(n * fraction)
    if not 0 < held < n:
        raise DataError(
            f"validation: {fraction} of {n} training instances leaves nothing to train on or nothing to hold out"
        )
    order = torch.from_numpy(np.random.default_rng((seed, 1)).permutation(n))
    return order[held:], order[:held]
