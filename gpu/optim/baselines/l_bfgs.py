"""torch.optim.LBFGS with an L2 term in the loss, for closures that evaluate the loss alone."""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from gpu.optim.baselines import curvature
from gpu.optim.baselines.curvature import Closure


class LBFGS(torch.optim.LBFGS):
    """torch.optim.LBFGS, one iteration a step without a line search, of J = loss + wd/2 · Σ‖p‖².

    One evaluation of the loss a mini-batch, so that the gradient differences are those between mini-batches.

    Args:
        params: parameters, one group.
        lr: the length of a step, ≥ 0; the first is at most of length `lr` in the sum of its entries.
        weight_decay: wd ≥ 0.
        history: how many pairs of steps and gradient differences are kept, ≥ 1.

    Raises ValueError for bad arguments.
    """

    hessian_state = ("old_dirs", "old_stps", "ro", "H_diag")

    def __init__(self, params: ParamsT, lr: float = 0.1, *, weight_decay: float = 0.0, history: int = 10) -> None:
        curvature.require_finite(lr=lr, weight_decay=weight_decay)
        curvature.require_count(history=history)
        super().__init__(params, lr, max_iter=1, history_size=history)
        self.param_groups[0]["weight_decay"] = weight_decay

    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """One update; `closure` evaluates the loss, which is returned, and calls no backward()."""
        (group,) = self.param_groups
        params = curvature.trainable(group)

        def differentiated() -> Tensor:
            loss, gradient, _ = curvature.differentiate(closure, params, group["weight_decay"])
            for p, g in zip(params, gradient, strict=True):
                p.grad = g
            return loss

        return super().step(differentiated)  # type: ignore[no-any-return, no-untyped-call]
