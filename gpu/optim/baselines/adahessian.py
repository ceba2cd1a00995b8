"""AdaHessian: Yao, Gholami, Shen, Mustafa, Keutzer and Mahoney, "ADAHESSIAN: an adaptive second order optimizer for
machine learning", AAAI 2021 (arXiv:2006.00719), Algorithm 1.

Written here because the libraries that have it draw from torch's generators without saving where they were.
"""

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gpu.optim.baselines import curvature
from gpu.optim.baselines.curvature import Closure


class AdaHessian(Optimizer):
    r"""Adam with an estimate d of the Hessian's diagonal in the place of the gradient in the second moment.

        d = |z ⊙ Hz|, z random signs; for a convolution the mean over its kernel, in every position
        m ← β₁·m + (1 − β₁)·∇J,   s ← β₂·s + (1 − β₂)·d²
        w ← w − η·(m/(1 − β₁ᵗ)) / ((s/(1 − β₂ᵏ))^(power/2) + ε)

    after t steps and k estimates: there is one every `update_every` steps, and s changes when there is one. |·| and the
    mean over kernels alone are those of the authors' code. J contains the L2 term: ∇J = ∇loss + wd·w, and H, the
    Hessian of J, has wd on its diagonal.

    Args:
        params: parameters, one group.
        lr: η ≥ 0.
        betas: β₁ and β₂, in [0, 1).
        eps: ε ≥ 0.
        weight_decay: wd ≥ 0.
        power: Hessian power, in [0, 1].
        update_every: ≥ 1.
        seed: of the random signs.

    Raises ValueError for bad arguments.
    """

    hessian_state = ("d_squared",)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        power: float = 1.0,
        update_every: int = 1,
        seed: int = 0,
    ) -> None:
        curvature.require_finite(lr=lr, eps=eps, weight_decay=weight_decay, seed=seed)
        curvature.require_below_one(beta1=betas[0], beta2=betas[1])
        curvature.require_count(update_every=update_every)
        if not 0 <= power <= 1:
            raise ValueError(f"power: expected a number in [0, 1], got {power!r}")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "power": power,
            "update_every": update_every,
            "seed": seed,
            "step": 0,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, object]) -> None:
        curvature.require_one_group(self.param_groups)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """One update; `closure` evaluates the loss, which is returned, and calls no backward()."""
        (group,) = self.param_groups
        params = curvature.trainable(group)
        beta1, beta2 = group["betas"]
        drawn, due = divmod(group["step"], group["update_every"])
        z = None if due else curvature.rademacher(params, group["seed"], drawn)
        loss, gradient, products = curvature.differentiate(closure, params, group["weight_decay"], z)
        group["step"] += 1
        for p, Hz in zip(params, products, strict=not due):
            d = _averaged(Hz.abs())  # |z ⊙ Hz|, as |z| = 1
            self.state[p].setdefault("d_squared", torch.zeros_like(p)).mul_(beta2).addcmul_(d, d, value=1 - beta2)
        for p, g in zip(params, gradient, strict=True):
            m = self.state[p].setdefault("momentum", torch.zeros_like(p)).lerp_(g, 1 - beta1)
            s = self.state[p]["d_squared"] / (1 - beta2 ** (drawn + 1))
            scale = s.pow_(group["power"] / 2).add_(group["eps"])
            p.addcdiv_(m, scale, value=-group["lr"] / (1 - beta1 ** group["step"]))
        return loss


def _averaged(d: Tensor) -> Tensor:
    """The mean over a convolution's kernel in each of its positions; a matrix or a vector as it is."""
    kernel = tuple(range(2, d.ndim))
    return d.mean(kernel, keepdim=True).expand_as(d) if kernel else d
