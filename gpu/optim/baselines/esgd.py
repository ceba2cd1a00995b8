"""Equilibrated SGD of Dauphin, de Vries and Bengio, "Equilibrated adaptive learning rates for non-convex optimization",
NIPS 2015 (arXiv:1502.04390), Algorithm 1."""

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gpu.optim.baselines import curvature
from gpu.optim.baselines.curvature import Closure


class ESGD(Optimizer):
    r"""w ← w − η·∇J / (√(D/k) + λ), D the sum of (Hv)² over the k random vectors v ~ N(0, I) so far.

    D/k → Σ_j H_ij², the squared norms of the Hessian's rows. A vector is drawn every `update_every` steps, 20 in the
    paper. J contains the L2 term: ∇J = ∇loss + wd·w, and H, the Hessian of J, has wd on its diagonal.

    Args:
        params: parameters, one group.
        lr: η ≥ 0.
        weight_decay: wd ≥ 0.
        damping: λ ≥ 0, tuned in the paper. The default is ours: with less, the steps that follow the first vector, from
            whose products alone D is then known, are too long for η = 0.1.
        update_every: ≥ 1.
        seed: of the random vectors.

    Raises ValueError for bad arguments.
    """

    hessian_state = ("D",)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        *,
        weight_decay: float = 0.0,
        damping: float = 0.1,
        update_every: int = 20,
        seed: int = 0,
    ) -> None:
        curvature.require_finite(lr=lr, weight_decay=weight_decay, damping=damping, seed=seed)
        curvature.require_count(update_every=update_every)
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "damping": damping,
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
        drawn, due = divmod(group["step"], group["update_every"])
        v = None if due else curvature.gaussian(params, group["seed"], drawn)
        loss, gradient, products = curvature.differentiate(closure, params, group["weight_decay"], v)
        for p, Hv in zip(params, products, strict=not due):
            self.state[p].setdefault("D", torch.zeros_like(p)).addcmul_(Hv, Hv)
        for p, g in zip(params, gradient, strict=True):
            row_norms = (self.state[p]["D"] / (drawn + 1)).sqrt_()
            p.addcdiv_(g, row_norms.add_(group["damping"]), value=-group["lr"])
        group["step"] += 1
        return loss
