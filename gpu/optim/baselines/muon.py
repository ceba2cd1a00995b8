"""Muon as its author has it used: for matrices, with AdamW for all other parameters."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer


class MuonAdamW(Optimizer):
    """torch.optim.Muon moves the two-dimensional parameters, torch.optim.AdamW the others, in one optimizer.

    Muon's step is scaled to the size of AdamW's (`match_rms_adamw`), so that one learning rate serves both. Weight
    decay is decoupled. Convolutions are not two-dimensional, for torch: AdamW moves them.

    Args:
        params: parameters, no groups.
        lr, weight_decay: ≥ 0.

    Raises ValueError, as torch does, for bad arguments.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3, *, weight_decay: float = 0.0) -> None:
        params = list(params)
        matrices, others = ([p for p in params if (p.ndim == 2) is wanted] for wanted in (True, False))
        self._parts: list[Optimizer] = []
        if matrices:
            options: dict[str, Any] = {"weight_decay": weight_decay, "adjust_lr_fn": "match_rms_adamw"}
            self._parts.append(torch.optim.Muon(matrices, lr, **options))
        if others:
            self._parts.append(AdamW(others, lr, weight_decay=weight_decay))
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def __getstate__(self) -> dict[str, Any]:  # torch's own names what copies and pickles keep
        return {**super().__getstate__(), "_parts": self._parts}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # load_state_dict replaces groups and state, so the parts are given those of now.
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state
            part.step()
        return loss
