"""Equilibrated SGD, in the two readings that the literature has."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gpu.optim.baselines.products import Closure, evaluated, gradients, gradients_and_product, trainable


class ESGD(Optimizer):
    r"""Equilibrated SGD: w ← w − η·g/D, D an estimate of the row norms of the Hessian, √(Σ_j H_ij²), from H·v.

        reading="dauphin"  D = √(mean of (Hv)²) + damping, v standard normal, a new v every `update_every` steps
                           (Dauphin, de Vries, Bengio 2015, "Equilibrated adaptive learning rates for non-convex
                           optimization", Algorithm 1)
        reading="li"       D = √(b/a), a and b running averages of v² and (Hv)² that forget by `decay`; an update g/D
                           whose norm over all parameters is above 1 is scaled to 1 (the ESGD that Li 2018,
                           arXiv:1809.10232, compares with; the implementation that the paper used)

    The L2 term is part of the loss: g = ∇J + wd·w, Hv = ∇²J·v + wd·v. v comes from torch's global generator of the
    CPU. State per parameter: `curvature`, in the second reading also `probe`.

    Args:
        params: parameters or groups; lr, weight_decay: ≥ 0.
        update_every: steps between two products, at least 1 (None: 20 in the first reading, 1 in the second).
        damping: ≥ 0, of the first reading. decay: in [0, 1), of the second.

    Raises ValueError for bad arguments; `step` TypeError without a closure.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        *,
        reading: Literal["dauphin", "li"] = "dauphin",
        weight_decay: float = 0.0,
        update_every: int | None = None,
        damping: float = 1e-4,
        decay: float = 0.99,
    ) -> None:
        if reading not in ("dauphin", "li"):
            raise ValueError(f"reading: expected 'dauphin' or 'li', got {reading!r}")
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("damping", damping)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected a number in [0, 1), got {decay!r}")
        every = (20 if reading == "dauphin" else 1) if update_every is None else update_every
        if every < 1:
            raise ValueError(f"update_every: expected an integer >= 1, got {update_every!r}")
        self.reading, self.every, self.damping, self.decay = reading, every, damping, decay
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "steps": 0, "products": 0})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step. `closure` returns the loss and does not call backward(); the loss is returned."""
        loss = evaluated(closure, "ESGD")
        params = trainable(self.param_groups)
        if self.param_groups[0]["steps"] % self.every == 0:
            v = [torch.randn(p.shape, dtype=p.dtype).to(p.device) for p in params]
            with torch.enable_grad():
                grads, products = gradients_and_product(loss, params, v)
            self._accumulate(params, v, products)
        else:
            grads = gradients(loss, params)
        updates = self._updates(dict(zip(params, grads, strict=True)))
        norm = math.sqrt(sum(float(u.square().sum()) for u in updates.values())) if self.reading == "li" else 0.0
        for group in self.param_groups:
            for p in group["params"]:
                if p in updates:
                    p.sub_(updates[p], alpha=group["lr"] / max(norm, 1.0))
            group["steps"] += 1
        return loss.detach()

    def _accumulate(self, params: list[Tensor], v: list[Tensor], products: list[Tensor]) -> None:
        """curvature: Σ(Hv)² of the first reading; of the second Σ over the past of decay^age·(Hv)², probe the same of
        v²: the weights cancel in their quotient."""
        decay = self.decay if self.reading == "li" else 1.0
        decays = {p: group["weight_decay"] for group in self.param_groups for p in group["params"]}
        for p, w, product in zip(params, v, products, strict=True):
            state, curved = self.state[p], product.add(w, alpha=decays[p])
            for name, value in (("curvature", curved), ("probe", w)):
                if name == "curvature" or self.reading == "li":
                    state.setdefault(name, torch.zeros_like(p)).mul_(decay).addcmul_(value, value)
        for group in self.param_groups:
            group["products"] += 1

    def _updates(self, grads: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """g/D; where D is 0, that is where nothing is known to be curved, Li's is 0 as well."""
        updates = {}
        for group in self.param_groups:
            for p in (p for p in group["params"] if p in grads):
                g, state = grads[p].add(p, alpha=group["weight_decay"]), self.state[p]
                if self.reading == "dauphin":
                    updates[p] = g / ((state["curvature"] / group["products"]).sqrt() + self.damping)
                else:
                    scale = (state["probe"] / state["curvature"]).sqrt()
                    updates[p] = torch.where(state["curvature"] > 0, g * scale, torch.zeros_like(g))
        return updates
