"""Equilibrated SGD as Li implements it to compare with, "Preconditioner on matrix Lie group for SGD", ICLR 2019
(arXiv:1809.10232): the implementation that the Kernel SGD paper used."""

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gpu.optim.baselines import curvature
from gpu.optim.baselines.curvature import Closure


class LiESGD(Optimizer):
    r"""w ← w − η·min(1, c/‖u‖)·u,  u = ∇J·√(a / (b + ε)), with running averages a of v² and b of (Hv)².

    A vector v ~ N(0, I) is drawn in every step t. An average's past has the weight min(`decay`, 1 − 1/t): the plain
    mean at first, later one that forgets. ‖u‖ is the norm over all parameters. J contains the L2 term: ∇J = ∇loss +
    wd·w, and H, the Hessian of J, has wd on its diagonal.

    Args:
        params: parameters, one group.
        lr: η ≥ 0.
        weight_decay: wd ≥ 0.
        decay: in [0, 1).
        clip: c ≥ 0, the longest that u may be.
        eps: ε ≥ 0.
        seed: of the random vectors.

    Raises ValueError for bad arguments.
    """

    hessian_state = ("v_squared", "Hv_squared")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        *,
        weight_decay: float = 0.0,
        decay: float = 0.99,
        clip: float = 1.0,
        eps: float = 1e-9,
        seed: int = 0,
    ) -> None:
        curvature.require_finite(lr=lr, weight_decay=weight_decay, clip=clip, eps=eps, seed=seed)
        curvature.require_below_one(decay=decay)
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "decay": decay,
            "clip": clip,
            "eps": eps,
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
        v = curvature.gaussian(params, group["seed"], group["step"])
        loss, gradient, products = curvature.differentiate(closure, params, group["weight_decay"], v)
        group["step"] += 1
        past = min(group["decay"], 1 - 1 / group["step"])
        updates = []
        for p, g, *probed in zip(params, gradient, v, products, strict=True):
            averages = [self.state[p].setdefault(name, torch.zeros_like(p)) for name in self.hessian_state]
            for average, x in zip(averages, probed, strict=True):
                average.mul_(past).addcmul_(x, x, value=1 - past)
            a, b = averages
            updates.append((a / (b + group["eps"])).sqrt_().mul_(g))
        norm = torch.stack([u.norm() for u in updates]).norm()
        rate = group["lr"] * (group["clip"] / norm).clamp(max=1)
        for p, u in zip(params, updates, strict=True):
            p.sub_(u.mul_(rate))
        return loss
