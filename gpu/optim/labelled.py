"""torch's wrapper of an optimizer's step, where it is of use: its label takes as long as the product with P."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.optim import Optimizer, optimizer


def labelled_when_profiled(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` as torch wraps it, with label and hooks, while a profiler runs or where there are hooks; else alone."""
    labelled = Optimizer.profile_hook_step(step)

    @wraps(step)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        hooked = (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or optimizer._global_optimizer_pre_hooks
            or optimizer._global_optimizer_post_hooks
        )
        if hooked or torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            return labelled(self, *args, **kwargs)
        return step(self, *args, **kwargs)

    called.hooked = True  # type: ignore[attr-defined]  # or torch would wrap it again
    return called
