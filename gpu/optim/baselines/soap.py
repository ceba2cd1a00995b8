"""SOAP, Shampoo with Adam in the preconditioner's eigenbasis: Vyas, Morwani, Zhao, Shapira, Brandfonbrener, Janson and
Kakade, ICLR 2025 (arXiv:2409.11321), Algorithm 3."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gpu.optim.baselines import curvature


class SOAP(Optimizer):
    r"""Adam in the eigenbases Q_L, Q_R of L ≈ E[GGᵀ] and R ≈ E[GᵀG], G the gradient of a matrix W.

        M ← β₁·M + (1 − β₁)·G,   V ← β₂·V + (1 − β₂)·(Q_LᵀGQ_R)²
        W ← (1 − η·wd)·W − η·Q_L·[Q_LᵀMQ_R/(1 − β₁ᵗ) / (√(V/(1 − β₂ᵗ)) + ε)]·Q_Rᵀ
        L ← β₂·L + (1 − β₂)·GGᵀ,   R ← β₂·R + (1 − β₂)·GᵀG
        every `update_every` steps Q ← qr(L·Q), one power iteration, and the same for R

    The first gradient makes L, R and the bases, and moves nothing, as in the authors' code: in its own bases it is
    diagonal, and Adam would make steps of the rounding errors beside the diagonal. A convolution is flattened to
    (out, in·k₁·k₂…). Vectors, and sides longer than `max_side`, have the identity for their basis.

    Args:
        params: parameters or groups.
        lr: η ≥ 0.
        betas: β₁ and β₂, in [0, 1).
        eps: ε ≥ 0.
        weight_decay: wd ≥ 0, decoupled.
        update_every, max_side: ≥ 1.

    Raises ValueError for bad arguments.
    """

    hessian_state = ("L", "R", "Q_L", "Q_R")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        update_every: int = 10,
        max_side: int = 2048,
    ) -> None:
        curvature.require_finite(lr=lr, eps=eps, weight_decay=weight_decay)
        curvature.require_below_one(beta1=betas[0], beta2=betas[1])
        curvature.require_count(update_every=update_every, max_side=max_side)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "update_every": update_every,
            "max_side": max_side,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group)
        return loss

    def _move(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[p], group["betas"]
        G = gradient.flatten(1) if p.ndim > 1 else gradient.reshape(-1, 1)
        sides = {"L": G, "R": G.T} if p.ndim > 1 else {}
        moments = {side: rows @ rows.T for side, rows in sides.items() if len(rows) <= group["max_side"]}
        if not state:
            state |= {"step": 0, "M": torch.zeros_like(G), "V": torch.zeros_like(G)}
            for side, moment in moments.items():
                basis = torch.linalg.eigh(moment).eigenvectors
                state |= {side: (1 - beta2) * moment, f"Q_{side}": basis.contiguous()}
            return
        state["step"] += 1
        t, Q_L, Q_R = state["step"], state.get("Q_L"), state.get("Q_R")
        rotated = _rotated(G, Q_L, Q_R)
        M, V = state["M"].lerp_(G, 1 - beta1), state["V"].mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
        scale = (V / (1 - beta2**t)).sqrt_().add_(group["eps"])
        step = _rotated(_rotated(M, Q_L, Q_R) / scale, *(None if Q is None else Q.T for Q in (Q_L, Q_R)))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(step.view_as(p), alpha=group["lr"] / (1 - beta1**t))
        for side, moment in moments.items():
            state[side].lerp_(moment, 1 - beta2)
            if t % group["update_every"] == 0:
                # LAPACK leaves columns; rows are what a file gives back, and the layout decides how products round.
                state[f"Q_{side}"] = torch.linalg.qr(state[side] @ state[f"Q_{side}"]).Q.contiguous()


def _rotated(matrix: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """leftᵀ · matrix · right, None for the identity."""
    matrix = matrix if left is None else left.T @ matrix
    return matrix if right is None else matrix @ right
