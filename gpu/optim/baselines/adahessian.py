"""AdaHessian (Yao et al. 2021, "ADAHESSIAN: An adaptive second order optimizer for machine learning", AAAI)."""

import math

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gpu.optim.baselines.products import Closure, evaluated, gradients_and_product, trainable


class AdaHessian(Optimizer):
    r"""Adam with Hutchinson's estimate of the Hessian's diagonal, |z ⊙ Hz|, z random signs, in place of the gradient.

        m ← β₁·m + (1 − β₁)·g,   s ← β₂·s + (1 − β₂)·d²,   d = |z ⊙ Hz|
        w ← w − η·(m/(1 − β₁ᵗ) / (√(s/(1 − β₂ᵗ)) + ε) + wd·w)

    d of a convolution is averaged over its kernel's positions. Weight decay is decoupled, as in its authors' code; H is
    the Hessian of the loss without it. z comes from torch's global generator of the CPU.

    Args:
        params: parameters or groups; lr, weight_decay, eps: ≥ 0; betas: in [0, 1).

    Raises ValueError for bad arguments; `step` TypeError without a closure.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("eps", eps)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {betas!r}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "steps": 0})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step. `closure` returns the loss and does not call backward(); the loss is returned."""
        loss = evaluated(closure, "AdaHessian")
        params = trainable(self.param_groups)
        z = [(2 * torch.randint(0, 2, p.shape) - 1).to(p) for p in params]
        with torch.enable_grad():
            grads, products = gradients_and_product(loss, params, z)
        curvature = {p: _averaged((w * product).abs()) for p, w, product in zip(params, z, products, strict=True)}
        gradient = dict(zip(params, grads, strict=True))
        for group in self.param_groups:
            group["steps"] += 1
            for p in (p for p in group["params"] if p in gradient):
                self._move(p, gradient[p], curvature[p], group)
        return loss.detach()

    def _move(self, p: Tensor, gradient: Tensor, curvature: Tensor, group: dict) -> None:  # type: ignore[type-arg]
        state, (beta1, beta2), t = self.state[p], group["betas"], group["steps"]
        m = state.setdefault("momentum", torch.zeros_like(p))
        s = state.setdefault("curvature", torch.zeros_like(p))
        m.mul_(beta1).add_(gradient, alpha=1 - beta1)
        s.mul_(beta2).addcmul_(curvature, curvature, value=1 - beta2)
        denominator = (s / (1 - beta2**t)).sqrt().add_(group["eps"])
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.addcdiv_(m, denominator, value=-group["lr"] / (1 - beta1**t))


def _averaged(d: Tensor) -> Tensor:
    """The mean over a convolution kernel's positions, in every position; anything else as it is."""
    positions = tuple(range(2, d.ndim))
    return d.mean(positions, keepdim=True).expand_as(d) if positions else d
