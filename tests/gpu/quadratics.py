"""Quadratic losses of six numbers, and an optimizer's way through them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gpu.optim.baselines import (
    TAKES_LOSS,
)
from tests.gpu.networks import parameter, tensor

STEPS, SIZE = 6, 6
FLAT, KERNEL = ((2, 2), (2,)), ((1, 1, 2, 2), (2,))


class Quadratics:
    """J_t(w) = ½ wᵀA_t w − b_tᵀw + wd/2 ‖w‖², one a step, as mini-batches are; A_t symmetric."""

    def __init__(self, seed: int, wd: float, definite: bool = False) -> None:
        rng = np.random.default_rng(seed)
        A = rng.integers(-2, 3, (STEPS, SIZE, SIZE)).astype(float)
        self.A = A @ A.swapaxes(1, 2) / SIZE + np.eye(SIZE) if definite else A + A.swapaxes(1, 2)
        self.b, self.start, self.wd = rng.standard_normal((STEPS, SIZE)), rng.standard_normal(SIZE), wd

    def gradient(self, t: int, w: np.ndarray) -> np.ndarray:
        return self.A[t] @ w - self.b[t] + self.wd * w

    def product(self, t: int, v: np.ndarray) -> np.ndarray:
        return self.A[t] @ v + self.wd * v

    def loss(self, t: int, params: list[nn.Parameter]) -> Tensor:
        """Without the L2 term."""
        w = torch.cat([p.flatten() for p in params])
        return w @ tensor(self.A[t]) @ w / 2 - tensor(self.b[t]) @ w

    def params(self, shapes: tuple[tuple[int, ...], ...] = FLAT) -> list[nn.Parameter]:
        parts = np.split(self.start, np.cumsum([np.prod(shape) for shape in shapes])[:-1])
        return [parameter(tensor(part.reshape(shape))) for part, shape in zip(parts, shapes, strict=True)]


def flat(tensors: list[Tensor]) -> np.ndarray:
    return torch.cat([t.detach().flatten() for t in tensors]).numpy()


def step(optimizer: Optimizer, loss: Callable[[], Tensor]) -> None:
    if isinstance(optimizer, TAKES_LOSS):
        optimizer.step(loss)
    else:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
