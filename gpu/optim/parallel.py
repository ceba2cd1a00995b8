"""Kernel SGD on several ranks of torch.distributed: which kernel matrix, what is averaged, and that all ranks agree.

Every rank runs the same loop on its own mini-batches, without DistributedDataParallel, which averages gradients before
anybody can precondition them: G·P_r of the mean gradient G is another step on every rank r, and their weights drift
apart. With m_r instances on rank r and M = Σ_r m_r,

    kernels="local"     D = Σ_r (m_r/M)·(G_r + wd·W)·P_r        each rank's own P_r, before the mean is taken
    kernels="global"    D = (Σ_r (m_r/M)·G_r + wd·W)·P          P of all M instances, gathered: `gathered_inverse`

Everything else moves by the mean gradient Σ_r (m_r/M)·G_r. Of these sums every entry is added up by one rank, in the
order of the ranks, and handed to the others: all ranks step with the same bits, whatever the backend, and so does one
process that adds up in that order (`accumulate`, with losses times m_r/M) where these weights are powers of two; else
each rounds them in its own way, and either mean is off by (R + 1)·u of Σ_r (m_r/M)·|D_r| at most. This file moves no
bytes itself, and knows nothing of data, files or launchers.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.distributed as dist
import xxhash
from torch import Tensor
from torch.optim import Optimizer

from gpu.optim.cache import CachedInverse, kernel_inverse, mini_batches
from gpu.optim.digests import content_digest
from gpu.optim.groups import with_gradient
from gpu.optim.kernel_sgd import KernelSGD

GATHERED = "gathered"
ProcessGroup = dist.ProcessGroup


class LostRankError(RuntimeError):
    """The ranks could not exchange their numbers: one of them has ended, or has not answered within the time limit."""


def distribute(
    optimizer: KernelSGD, *, kernels: Literal["local", "global"] = "local", group: ProcessGroup | None = None
) -> None:
    """From now on `optimizer.step(inverse=...)` takes one and the same step on all ranks; call it once on each of them
    (a deepcopied or unpickled optimizer steps alone, as long as it is not called with that one).

    Parameters become those of rank 0; the optimizer's state must be equal already, so load a checkpoint before, on
    every rank. A loop stays as it is: zero_grad, forward, backward, `step(inverse=...)` with the inverse of the rank's
    own mini-batch or, with kernels="global", what `gathered_inverse` gives. The weights m_r of the mean are the sizes
    of the mini-batches, which may differ: the loss must be a mean over instances. All ranks must take equally many
    steps, with gradients for the same parameters: no GradScaler, which skips steps on one rank alone. Buffers (of
    BatchNorm) stay each rank's own.

    Raises ValueError for unknown `kernels` and step_rule="monotone" (bounded by one mini-batch), RuntimeError where
    the ranks' parameters differ in number, shape or dtype, or their options, LostRankError. `step` then raises that,
    too, and ValueError for a closure, for an inverse of the other kind, and without one: gradients from `accumulate`
    are not taken.
    """
    if kernels not in ("local", "global"):
        raise ValueError(f"kernels: expected 'local' or 'global', got {kernels!r}")
    if any(g["step_rule"] == "monotone" for g in optimizer.param_groups):
        raise ValueError('step_rule: "monotone" bounds the step of one mini-batch, not that of several ranks')
    require_equal(_structure(optimizer), "the optimizers", group)
    with torch.no_grad(), _exchange(group):
        for p in _parameters(optimizer):
            dist.broadcast(p, group=group, group_src=0)

    @torch.no_grad()
    def before_step(_: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        inverse = _own_kind(kernels, args, kwargs)
        if kernels == "local":
            average(_preconditioned(optimizer, inverse), len(inverse.indices), group)
            return args, {**kwargs, "inverse": None}
        average(_gradients(optimizer), len(inverse.indices), group)
        return args, kwargs

    optimizer.register_step_pre_hook(before_step)


def gathered_inverse(
    x: Tensor, *, dtype: torch.dtype | None = None, group: ProcessGroup | None = None, **kernel: Any
) -> CachedInverse:
    """The inverse kernel matrix (M, M) of all ranks' mini-batches together, x (m_r, ...) being this rank's.

    Every rank computes it, from the same instances in the order of the ranks; `indices` (m_r,) are the places of its
    own among them. O(M²d + M³) a step on every rank, which sends m_r·d numbers. `kernel`, `dtype` and errors as for
    `kernel_inverse`; LostRankError.
    """
    x = x.detach()
    with _exchange(group):
        instances, start = _all_instances(x, group)
    found = kernel_inverse(instances, dtype=dtype, **kernel)
    own = torch.arange(start, start + len(x))
    return replace(found, indices=own, source=GATHERED, digest=content_digest(x))  # the model has seen x


def rank_batches(n: int, batch_size: int, *, seed: int | Sequence[int], rank: int, ranks: int) -> tuple[Tensor, ...]:
    """A rank's share of the mini-batches of n instances: for its `KernelCache`, so that each rank builds its own part.

    The permutation of `mini_batches` is cut into pieces of ranks·batch_size, and each piece is divided in order. All
    ranks get equally many mini-batches, and every instance is in one of them; the sizes are `batch_size` but in the
    last step, where they differ by at most 1: what is left, to which what is less than an instance a rank is added
    on top of a whole mini-batch. Raises ValueError for fewer instances than ranks, a rank that is none of them, and
    as `mini_batches`.
    """
    if not 0 <= rank < ranks <= n:
        raise ValueError(f"rank, ranks and n: expected 0 <= rank < ranks <= n, got {rank}, {ranks} and {n}")
    pieces = list(mini_batches(n, ranks * batch_size, seed=seed))
    if len(pieces[-1]) < ranks:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return tuple(piece.tensor_split(ranks)[rank].clone() for piece in pieces)


@torch.no_grad()
def average(tensors: Sequence[Tensor], instances: int, group: ProcessGroup | None = None) -> None:
    """Replace the tensors, on every rank, by Σ_r m_r·t_r / Σ_r m_r with m_r = `instances` of rank r, in place.

    The tensors are alike on all ranks, real and on one device; numbers and sum have their widest dtype, float32 at
    least. Each of R ranks sends 2·(R − 1)/R times as many numbers. Raises ValueError for no tensors, LostRankError.
    """
    if not tensors:
        raise ValueError("tensors: expected at least one, got none; run the backward pass before step()")
    numbers = torch.cat([torch.ones(1, device=tensors[0].device), *(t.reshape(-1) for t in tensors)]).mul_(instances)
    with _exchange(group):
        total = _sum(numbers, group)
    means = total[1:].div_(total[0])
    for t, mean in zip(tensors, torch.split(means, [t.numel() for t in tensors]), strict=True):
        t.copy_(mean.view_as(t))


def require_equal(tensors: Iterable[Tensor], what: str, group: ProcessGroup | None = None) -> None:
    """Raises RuntimeError, on every rank, where the tensors are not the same on all ranks, bit for bit."""
    digests = [content_digest(t) for t in tensors]
    own = torch.frombuffer(bytearray(xxhash.xxh3_128(b"".join(digests)).digest()), dtype=torch.uint8)
    with _exchange(group):
        first, *found = _all_gather(own.to(_device(group)), group)
    others = [rank for rank, digest in enumerate(found, 1) if not digest.equal(first)]
    if others:
        raise RuntimeError(
            f"{what}: expected the same on all ranks, bit for bit, but ranks {others} differ from rank 0; start all "
            "ranks with equal settings, from one checkpoint, and change nothing on one rank alone"
        )


def state_tensors(optimizer: Optimizer) -> list[Tensor]:
    """All parameters and their state: what `require_equal` is to look at now and then."""
    params = _parameters(optimizer)
    state = [value for p in params for value in optimizer.state.get(p, {}).values()]
    return [*params, *(value for value in state if isinstance(value, Tensor))]


def _own_kind(kernels: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CachedInverse:
    if any(closure is not None for closure in (*args[1:], kwargs.get("closure"))):  # args[0] is the optimizer
        raise ValueError("closure: expected none on several ranks; run the backward pass before step(inverse=...)")
    inverse = kwargs.get("inverse")
    if not isinstance(inverse, CachedInverse):
        raise ValueError(
            f"inverse: on several ranks every step needs one, got {type(inverse).__name__}; gradients accumulated over "
            "micro-batches are not taken: use smaller mini-batches, or more ranks"
        )
    if (inverse.source == GATHERED) != (kernels == "global"):
        raise ValueError(
            f"inverse: expected that of {'gathered_inverse' if kernels == 'global' else 'the own mini-batch'} with "
            f"kernels={kernels!r}, got one from {inverse.source!r}"
        )
    return inverse


def _preconditioned(optimizer: KernelSGD, inverse: CachedInverse) -> list[Tensor]:
    """`accumulate` for a backward pass that is done; all that the following `step()` takes from it: the gradients and,
    for the L2 term, W·P."""
    optimizer._accumulated([], inverse)  # refuses gradients that are preconditioned already
    gradients = {p: p.grad for p in _parameters(optimizer)}

    def put() -> None:
        for p, gradient in gradients.items():
            p.grad = gradient

    for p in gradients:
        p.grad = None
    try:
        with optimizer.accumulate(inverse):
            put()
    except BaseException:
        put()
        raise
    decayed = [part for gathered in optimizer._pending.values() for part in gathered.decayed.values()]
    return [*_gradients(optimizer), *decayed]


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    return with_gradient(_parameters(optimizer))[1]


def _structure(optimizer: Optimizer) -> Iterator[Tensor]:
    """What must be equal before parameters can be: options, shapes, dtypes."""
    for group in optimizer.param_groups:
        choices = group["maximize"], group["preconditioned"], group["decay"] == "l2", group["bias"] == "plain"
        numbers = (float(group[name]) for name in ("lr", "momentum", "weight_decay"))
        yield torch.tensor([*choices, *numbers], dtype=torch.float64)
        yield from (torch.tensor([*p.shape, p.dtype.itemsize]) for p in group["params"])


def _sum(numbers: Tensor, group: ProcessGroup | None) -> Tensor:
    """Σ_r numbers_r, ((0 + 1) + 2) + … as the ranks are numbered: rank r adds up the r-th part of it for all."""
    ranks = dist.get_world_size(group)
    padded = torch.nn.functional.pad(numbers, (0, -len(numbers) % ranks))
    parts = torch.empty_like(padded)
    dist.all_to_all_single(parts, padded, group=group)
    own, *others = parts.chunk(ranks)
    for other in others:
        own += other
    return torch.cat(_all_gather(own, group))[: len(numbers)]


def _all_instances(x: Tensor, group: ProcessGroup | None) -> tuple[Tensor, int]:
    """The mini-batches of all ranks, one after the other, and where this rank's begins."""
    sizes = torch.cat(_all_gather(torch.tensor([len(x)], device=x.device), group)).tolist()
    padded = x.new_zeros(max(sizes), *x.shape[1:])  # all_gather wants equal sizes
    padded[: len(x)] = x
    parts = zip(_all_gather(padded, group), sizes, strict=True)
    return torch.cat([part[:size] for part, size in parts]), sum(sizes[: dist.get_rank(group)])


def _all_gather(x: Tensor, group: ProcessGroup | None) -> list[Tensor]:
    """Every rank's x, all of one shape, in the order of the ranks."""
    found = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, x, group=group)
    return found


def _device(group: ProcessGroup | None) -> torch.device:
    return torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")


@contextmanager
def _exchange(group: ProcessGroup | None) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostRankError(
            f"rank {dist.get_rank(group)} of {dist.get_world_size(group)}: the exchange with the other ranks failed "
            f"({str(error).splitlines()[0]}); where one has ended, or has not answered within the time limit of "
            "the process group, start all of them again"
        ) from error
