"""KernelSGD: plain SGD, except in preconditioned layers, which move by W ← W − η·G·P (Eq. 5).

P is the mini-batch's inverse kernel matrix, zero-padded or truncated to the layer's d_in columns. It is never formed:
only the leading k × k block, k = min(m, d_in), is multiplied, by the function that the checked operation uses too.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gpu import torch_ops
from gpu.optim.cache import CachedInverse
from gpu.optim.groups import SMALL, Group, check_group, is_layer, joint, learning_rate, require_held, with_gradient
from gpu.optim.labelled import labelled_when_profiled
from gpu.optim.monotone import monotone_learning_rate
from gpu.optim.update import Options, Update, preconditioned
from gpu.optim.watch import Watch

OUTSIDE = (
    "expected every backward pass since the last step or zero_grad within accumulate(); the gradient of one outside is "
    "not preconditioned"
)


@dataclass
class Gathered:
    """What `accumulate` has made of a layer: from how many micro-batches, Σ W·P of its parameters for the L2 term, and
    its weight's gradient, as it was left."""

    times: int = 0
    decayed: dict[Tensor, Tensor] = field(default_factory=dict)
    gradient: Tensor | None = None
    version: int = 0

    def leave(self, gradient: Tensor) -> None:
        self.gradient, self.version = gradient, gradient._version

    def left(self, gradient: Tensor | None) -> bool:
        """Whether this is the gradient as it was left."""
        return gradient is not None and gradient is self.gradient and gradient._version == self.version


class KernelSGD(Optimizer):
    r"""Kernel SGD (Chen et al., CIKM 2022) in the conventions of torch.optim.

    A preconditioned group is one layer, [weight] or [weight, bias], and moves by (wd: weight_decay, μ: momentum)

        D = (G + wd·W)·P          decay="l2": the L2 term is part of J
        D = G·P                   decay="decoupled", and W ← (1 − η·wd)·W first
        v ← μ·v + D,  W ← W − η·v

    Its bias moves by SGD (bias="plain") or as the last column of W (bias="augmented"; under zero padding it then never
    moves). All other groups move by SGD, bit for bit as torch.optim.SGD(fused=True) where torch can fuse it (not with
    an `lr` that is a tensor of a capturable group). Columns of W beyond m do not move.

    Args:
        params: parameters or groups, such as `kernel_groups(model)`.
        lr: η ≥ 0, a float or a one-element tensor.
        momentum, weight_decay: ≥ 0.
        decay, bias: see above.
        maximize: ascend instead of descend.
        capturable: whether `step` may be captured in a CUDA graph, see there.
        preconditioned: whether groups that do not say are preconditioned layers.
        step_rule: "constant", or "monotone": η of the preconditioned layer (weight and bias) is capped, mini-batch by
            mini-batch, by `monotone_learning_rate`, so that this layer's step, taken alone, does not raise the
            mini-batch's loss (L2 term included). The earlier layers move in the same step and are not covered by the
            promise. Mean softmax cross-entropy over one forward and backward pass; no momentum, no maximize, no loss
            scaling. Where rounding has cost P its definiteness the layer stays where it is, counted in the group's
            `stalled`.
        model: the network, watched by forward hooks, to see that an inverse is used with its own mini-batch; needed for
            that and for "monotone". `watch(model)` does the same later, also after deepcopy or unpickling.

    Raises ValueError for bad arguments.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        decay: Literal["l2", "decoupled"] = "l2",
        bias: Literal["plain", "augmented"] = "plain",
        maximize: bool = False,
        capturable: bool = False,
        preconditioned: bool = False,
        step_rule: Literal["constant", "monotone"] = "constant",
        model: nn.Module | None = None,
    ) -> None:
        self._watch: Watch | None = None
        self._pending: dict[Tensor, Gathered] = {}
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "decay": decay,
            "bias": bias,
            "capturable": capturable,
            "maximize": maximize,
            "preconditioned": preconditioned,
            "step_rule": step_rule,
            "source": None,
            "stalled": 0,
        }
        super().__init__(params, defaults)
        if model is not None:
            self.watch(model)

    def add_param_group(self, param_group: Group) -> None:
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_watch", None)
        self._pending = {}
        for group in self.param_groups:
            for option, default in self.defaults.items():
                group.setdefault(option, default)
            check_group(group)

    def watch(self, model: nn.Module) -> None:
        """Watch `model` from now on: its inputs in training, and the preconditioned layer of step_rule="monotone".

        torch.jit.script refuses the hooks: script a model before, or when its optimizer is gone. Raises ValueError
        where the layer to be bounded is no nn.Linear of the model.
        """
        bounded = [group for group in self._layers() if group["step_rule"] == "monotone"]
        layer = None
        if bounded:
            weight = bounded[0]["params"][0]
            owners = [m for m in model.modules() if any(p is weight for p in m.parameters(recurse=False))]
            if len(bounded) > 1 or len(owners) != 1 or not isinstance(owners[0], nn.Linear):
                raise ValueError(
                    'step_rule="monotone": expected one preconditioned group, the weight of one nn.Linear of the model '
                    f"and of no other layer, got {len(bounded)} groups and the layers {owners}"
                )
            layer = owners[0]
        self._watch = Watch(model, layer)  # the one before goes with its hooks

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch.optim.Optimizer; also forgets what `accumulate` has gathered and the forward passes seen."""
        if set_to_none:  # not super(): its label for the profiler takes longer than the work
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad = None
        else:
            super().zero_grad(set_to_none)
        self._forget()

    @contextmanager
    def accumulate(self, inverse: CachedInverse | None = None) -> Iterator[None]:
        """Gradient accumulation: `with optimizer.accumulate(inverse): loss.backward()`, once a micro-batch.

        Every micro-batch's gradient is preconditioned with its own inverse before it is added to `.grad`; a following
        `step()`, without an inverse, takes the sum. The L2 term enters with the mean of the micro-batches' P. Where the
        body raises, the gradients are as they were. Raises as `step` does, and ValueError where a layer has a gradient
        from outside, be it added to that of the micro-batches before. After the last, scaling and clipping may write to
        it; that a backward pass outside has, `step` sees where the model is watched.
        """
        layers = self._layers()
        if any(group["step_rule"] == "monotone" for group in layers):
            raise RuntimeError('accumulate: step_rule="monotone" bounds the step of one mini-batch; use "constant"')
        weights = [group["params"][0] for group in layers]
        self._pending = {weight: gathered for weight, gathered in self._pending.items() if gathered.left(weight.grad)}
        if any(w.grad is not None and w not in self._pending and w.grad.any() for w in weights):
            raise ValueError(f"accumulate: {OUTSIDE}; call zero_grad() before the first micro-batch")
        held = {p: p.grad for group in self.param_groups for p in group["params"]}
        watch = self._watch
        seen = (0, 0) if watch is None else (len(watch.inputs), len(watch.passes))
        for p in held:
            p.grad = None
        try:
            yield
            layers = [group for group in layers if group["params"][0].grad is not None]
            P = self._matrix(layers, inverse)
        except BaseException:
            for p, before in held.items():
                p.grad = before
            if watch is not None:
                watch.cut(*seen)
            raise
        if P is not None:
            with torch.no_grad(), torch_ops.full_precision(P.device.type):
                for group in layers:
                    self._gather(group, P)
        for p, before in held.items():
            if before is not None:
                p.grad = before if p.grad is None else before.add_(p.grad)
        for group in layers:
            weight = group["params"][0]
            self._pending[weight].leave(weight.grad)
        if inverse is not None:
            self._remember(inverse)
        if self._watch is not None:
            self._watch.clear()

    @labelled_when_profiled
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, inverse: CachedInverse | None = None) -> Any:
        """One update; the closure, if any, re-evaluates the loss first and its value is returned.

        `inverse` is the mini-batch's, from `KernelCache.batches`, `.lookup` or `kernel_inverse`. Nothing has moved
        when this raises: ValueError (no inverse for a preconditioned group with a gradient; an inverse of another
        mini-batch, data, dtype or device; not the gradient that "monotone" needs; gradients accumulated and not; an lr
        or weight_decay that the parameters' dtype cannot hold), RuntimeError (sparse gradients; an inverse of a
        mini-batch without a watched model).

        With capturable=True the host reads no number from the device here, so that a CUDA graph can hold the step. A
        graph does what it did again, with the memory that it did it with. So `lr`, where it is to change, is a tensor
        on the parameters' device (schedulers write into it); inputs, labels and inverse are fixed buffers, the latter
        `CachedInverse.unchecked(buffer)`, written to before every replay:

            x.copy_(batch), buffer.copy_(cache.lookup(batch).matrix), graph.replay()

        Here `lookup` sees to it that the two belong together: the step does not compare digests, for which it would
        have to read the inputs. A last mini-batch of another size needs a graph of its own, or none. Step a few times
        before the capture, as torch asks anyway: momentum buffers are made in the first step. Not for "monotone".
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        updates, P = self._updates(inverse)
        with torch_ops.full_precision(P.device.type) if P is not None else nullcontext():
            for options, update in updates.items():
                update.apply(options, P, self._buffer)
        if inverse is not None:
            self._remember(inverse)
        self._forget()
        return loss

    def _updates(self, inverse: CachedInverse | None) -> tuple[dict[Options, Update], Tensor | None]:
        """What is to move, by its options, and the P of the preconditioned layers; raises for all that `step` does."""
        moving = [(group, *with_gradient(group["params"])) for group in self.param_groups]
        layers = [group for group, params, _ in moving if params and is_layer(group, params)]
        accumulated = self._accumulated(layers, inverse)
        P = None if accumulated else self._matrix(layers, inverse)
        updates: defaultdict[Options, Update] = defaultdict(Update)
        for group, params, grads in moving:
            if not params:
                continue
            options = Options(
                learning_rate(group), group["weight_decay"], group["momentum"], group["decay"], group["maximize"]
            )
            if (not isinstance(options.lr, Tensor) and options.lr > SMALL) or options.weight_decay > SMALL:
                require_held(options.lr, options.weight_decay, params)
            if is_layer(group, params):
                if group["step_rule"] == "monotone":
                    assert P is not None  # `accumulate` refuses this rule
                    rate, directions = self._bounded(group, params, grads, P)
                    if rate != 0:  # 0 times a direction that overflowed would be NaN
                        updates[Options(rate, 0.0, 0.0, "l2", False)].add(params, directions)
                    continue
                k = joint(group, params)
                if accumulated:
                    updates[self._without_l2(options)].add(params[:k], self._gathered(group, params[:k], grads[:k]))
                else:
                    updates[options].layers.append((params[:k], grads[:k]))
                params, grads = params[k:], grads[k:]
            updates[options].add(params, grads)
        return updates, P

    def _layers(self) -> list[Group]:
        return [group for group in self.param_groups if group["preconditioned"]]

    def _forget(self) -> None:
        self._pending.clear()
        if self._watch is not None:
            self._watch.clear()

    def _remember(self, inverse: CachedInverse) -> None:
        if inverse.batch >= 0:
            for group in self.param_groups:
                if group["preconditioned"] and group["params"][0].grad is not None:
                    group["source"] = inverse.source

    def _accumulated(self, layers: list[Group], inverse: CachedInverse | None) -> bool:
        """Whether the layers' gradients are those that `accumulate` has preconditioned; ValueError where some are."""
        if inverse is not None:  # it is for gradients that came after those, which are gone
            self._pending = {weight: it for weight, it in self._pending.items() if weight.grad is it.gradient}
        if not self._pending:
            return False
        if inverse is not None:
            raise ValueError("inverse: given to step() for gradients that accumulate() has preconditioned already")
        outside = any(group["params"][0] not in self._pending for group in layers)
        if outside or (self._watch is not None and self._watch.inputs):
            raise ValueError(f"step: {OUTSIDE}")
        return True

    def _matrix(self, layers: list[Group], inverse: CachedInverse | None) -> Tensor | None:
        """The matrix of `inverse` once it is known to be that of the mini-batch in hand; None without layers."""
        if not layers:
            return None
        if not isinstance(inverse, CachedInverse):
            raise ValueError(
                "inverse: a preconditioned group needs its mini-batch's CachedInverse (KernelCache.batches, .lookup, "
                f"kernel_inverse), got {type(inverse).__name__}"
            )
        for group in layers:
            weight = group["params"][0]
            if inverse.matrix.dtype != weight.dtype or inverse.matrix.device != weight.device:
                raise ValueError(
                    f"inverse: expected {weight.dtype} on {weight.device} like the weights, got {inverse.matrix.dtype} "
                    f"on {inverse.matrix.device}"
                )
        self._require_own(layers, inverse)
        return inverse.matrix

    def _require_own(self, layers: list[Group], inverse: CachedInverse) -> None:
        if inverse.digest is None:
            return
        if any(group["capturable"] for group in layers):
            raise ValueError(
                "inverse: a capturable group takes CachedInverse.unchecked(buffer), the buffer written to before every "
                f"step, got mini-batch {inverse.batch} of a cache: to check it, the host would have to read the inputs"
            )
        if self._watch is None:
            raise RuntimeError(
                "inverse: to check that it belongs to the mini-batch, KernelSGD must see the model: pass model=, or "
                "call watch(model) (again after deepcopy or unpickling); CachedInverse.unchecked(matrix) goes without"
            )
        if not self._watch.inputs:
            raise ValueError("inverse: the model has not been run in training mode since the last step or zero_grad")
        if any(digest != inverse.digest for digest in self._watch.digests()):
            raise ValueError(
                f"inverse: mini-batch {inverse.batch} of {len(inverse.indices)} instances is not what the model was "
                "run on since the last step or zero_grad (bits, order, shape and dtype count)"
            )
        if inverse.batch < 0:
            return
        for group in layers:
            if group["source"] not in (None, inverse.source):
                raise ValueError(
                    f"inverse: from the cache {inverse.source}, but this group has been stepping with "
                    f"{group['source']}: other "
                    'data, mini-batches or kernel; set group["source"] = None if that is meant'
                )

    def _bounded(
        self, group: Group, params: list[Tensor], grads: list[Tensor], P: Tensor
    ) -> tuple[float, list[Tensor]]:
        """The layer's capped learning rate, and the directions, rounded as they will be used, that the cap is for."""
        watched = self._watch is not None and self._watch.weight is params[0]
        passes = self._watch.passes if self._watch is not None and watched else []
        if len(passes) != 1:
            raise ValueError(
                'step_rule="monotone": expected one backward pass through the watched layer since the last step, '
                f"got {len(passes)}; pass model= or call watch(model)"
            )
        k, wd = joint(group, params), group["weight_decay"]
        coupled = group["decay"] == "l2" and wd != 0
        G = list(torch._foreach_add(grads[:k], params[:k], alpha=wd)) if coupled else grads[:k]
        with torch_ops.full_precision(params[0].device.type):
            D = preconditioned(params[:k], G, P)
        if group["decay"] == "decoupled":
            torch._foreach_add_(D, params[:k], alpha=wd)
        directions = [*D, *(g.add(p, alpha=wd) for p, g in zip(params[k:], grads[k:], strict=True))]
        rate = monotone_learning_rate(passes[0], params, directions, wd)
        group["stalled"] += rate == 0
        return min(float(group["lr"]), rate), directions

    def _buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer: Tensor = state["momentum_buffer"]
        return buffer

    def _gather(self, group: Group, P: Tensor) -> None:
        """Precondition one micro-batch's gradient in place of `.grad`, and note W·P for the L2 term."""
        params, grads = with_gradient(group["params"])
        k = joint(group, params)
        for p, part in zip(params[:k], preconditioned(params[:k], grads[:k], P), strict=True):
            p.grad = part.clone()
        gathered = self._pending.setdefault(params[0], Gathered())
        gathered.times += 1
        if group["weight_decay"] != 0 and group["decay"] == "l2":
            for p, part in zip(params[:k], preconditioned(params[:k], params[:k], P), strict=True):
                gathered.decayed[p] = gathered.decayed[p] + part if p in gathered.decayed else part

    def _gathered(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """Σ_k G_k·P_k + wd·W·mean_k P_k of a layer's micro-batches."""
        gathered = self._pending[params[0]]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if gathered.decayed:
            decays = [gathered.decayed[p] for p in params]
            grads = list(torch._foreach_add(grads, decays, alpha=group["weight_decay"] / gathered.times))
        return grads

    @staticmethod
    def _without_l2(options: Options) -> Options:
        """The options of gradients that `_gathered` has given their L2 term and their sign."""
        return options._replace(
            weight_decay=options.weight_decay if options.decay == "decoupled" else 0.0, maximize=False
        )
