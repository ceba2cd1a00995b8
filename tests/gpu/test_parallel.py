"""Kernel SGD on several ranks: one step of all of them, bit for bit that of one process that averages the same way."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, islice
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gpu.optim import CachedInverse, KernelCache, KernelSGD, kernel_groups, kernel_inverse, mini_batches
from gpu.optim.parallel import average, distribute, gathered_inverse, rank_batches, require_equal, state_tensors
from tests.gpu.networks import backward, parameter, random
from tests.gpu.ranks import Found, group, on_ranks

STEPS, M, GAMMA = 100, 8, 0.5  # M and the numbers of ranks are powers of two: weighting then rounds nothing
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("local", {"weight_decay": 0.0}),
    "l2": ("local", {"weight_decay": 0.01}),
    "momentum": ("local", {"weight_decay": 0.01, "momentum": 0.9, "bias": "augmented"}),
    "decoupled": ("local", {"weight_decay": 0.01, "decay": "decoupled", "momentum": 0.5}),
    "ascent": ("local", {"weight_decay": 0.01, "maximize": True}),
    "global": ("global", {"weight_decay": 0.01}),
}


def network(seed: int) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 2)
    return model


def instances(n: int) -> tuple[Tensor, Tensor]:
    return random(n, 5, dtype=torch.float32), torch.arange(n) % 3


def optimizer_of(model: nn.Module, **options: Any) -> KernelSGD:
    return KernelSGD(kernel_groups(model), 0.05, model=model, **options)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def mini_batches_of(share: Sequence[Tensor], n: int, steps: int) -> Iterator[tuple[Tensor, Tensor, CachedInverse]]:
    """The first so many of them with their own inverses, epoch after epoch."""
    X, y = instances(n)
    cache = KernelCache(X, share, gamma=GAMMA)
    return islice(chain.from_iterable(cache.batches(X, y) for _ in count()), steps)


def trained() -> Found:
    """The weights after every step of every case, of a loop that is as on one rank; every rank begins elsewhere."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    n = 6 * ranks * M
    share = rank_batches(n, M, seed=0, rank=rank, ranks=ranks)
    paths = {}
    for case, (kernels, options) in CASES.items():
        model = network(seed=rank)
        optimizer = optimizer_of(model, **options)
        distribute(optimizer, kernels=kernels)  # type: ignore[arg-type]
        path = [flat(model)]
        for x, y, own in mini_batches_of(share, n, STEPS):
            optimizer.zero_grad()
            backward(model, x, y)
            optimizer.step(inverse=own if kernels == "local" else gathered_inverse(x, gamma=GAMMA))
            path.append(flat(model))
        require_equal(state_tensors(optimizer), "weights and momentum")
        paths[case] = torch.stack(path)
    return paths


@pytest.fixture(scope="module", params=[2, 4])
def on_so_many(request):
    return request.param, on_ranks(request.param, trained)


def trained_alone(ranks: int, kernels: str, options: dict[str, Any]) -> Tensor:
    """The same in one process: `accumulate` over the ranks' mini-batches, or one mini-batch of all their instances."""
    model = network(seed=0)
    optimizer = optimizer_of(model, **options)
    path = [flat(model)]
    n = 6 * ranks * M
    flow = mini_batches_of(mini_batches(n, M, seed=0), n, ranks * STEPS)
    for step in zip(*[flow] * ranks, strict=True):  # `ranks` mini-batches at a time
        optimizer.zero_grad()
        for x, y, inverse in step:
            loss = cross_entropy(model(x), y) / ranks
            if kernels == "local":
                with optimizer.accumulate(inverse):
                    loss.backward()
            else:
                loss.backward()
        whole = kernel_inverse(torch.cat([x for x, _, _ in step]), gamma=GAMMA)
        optimizer.step(inverse=None if kernels == "local" else CachedInverse.unchecked(whole.matrix))
        path.append(flat(model))
    return torch.stack(path)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_hundred_steps_of_all_ranks_are_bit_for_bit_those_of_one_process_with_the_same_mini_batches(on_so_many, case):
    ranks, found = on_so_many
    alone = trained_alone(ranks, *CASES[case])
    assert len(alone.unique(dim=0)) == STEPS + 1
    assert all(one[case].equal(alone) for one in found)


def unequal_step() -> Found:
    """One step whose numbers are all dyadic and small, so that nothing is rounded: 2 instances here, 6 there."""
    rank = dist.get_rank()
    x, target, P, W, b = exact_numbers(rank)
    weight, bias = parameter(W), parameter(b)
    optimizer = KernelSGD([{"params": [weight, bias], "preconditioned": True}], 0.25, weight_decay=0.5)
    distribute(optimizer)
    ((x @ weight.T + bias) * target).sum().div(len(x)).backward()
    optimizer.step(inverse=CachedInverse.unchecked(P))
    return {"weight": weight, "bias": bias}


def exact_numbers(rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    m, generator = (2, 6)[rank], torch.Generator().manual_seed(rank)

    def integers(*shape: int) -> Tensor:
        return torch.randint(-4, 5, shape, generator=generator).double()

    half = integers(m, m)
    return (
        integers(m, 3),
        6 * integers(m, 2),
        half + half.T,
        torch.arange(6.0).double().view(2, 3),
        torch.ones(2).double(),
    )


@pytest.mark.slow
def test_mini_batches_of_unequal_size_count_by_their_instances():
    expected_weight, expected_bias = torch.zeros(2, 3).double(), torch.zeros(2).double()
    for rank in range(2):
        x, target, P, W, b = exact_numbers(rank)
        k, share = min(len(x), 3), len(x) / 8
        G = target.T @ x / len(x)
        D = torch.zeros(2, 3).double()
        D[:, :k] = (G + 0.5 * W)[:, :k] @ P[:k, :k]
        expected_weight += share * (W - 0.25 * D)
        expected_bias += share * (b - 0.25 * (target.mean(0) + 0.5 * b))
    for found in on_ranks(2, unequal_step):
        assert found["weight"].equal(expected_weight)
        assert found["bias"].equal(expected_bias)


SIZES = (5, 6, 10)


def averaged() -> Found:
    rank = dist.get_rank()
    mean = random(1000, seed=rank, dtype=torch.float32)
    average([mean], SIZES[rank])
    return {"mean": mean}


@pytest.mark.slow
def test_a_mean_whose_weights_are_no_powers_of_two_is_within_its_roundings_and_the_same_on_all_ranks():
    found = on_ranks(3, averaged)
    terms = torch.stack([m / 21 * random(1000, seed=r, dtype=torch.float32).double() for r, m in enumerate(SIZES)])
    u, ranks = 2.0**-24, 3
    assert ((found[0]["mean"] - terms.sum(0)).abs() <= 1.001 * (ranks + 1) * u * terms.abs().sum(0)).all()
    assert all(one["mean"].equal(found[0]["mean"]) for one in found)


def averaged_before_preconditioning() -> Found:
    """The plausible mistake: what DistributedDataParallel and `step(inverse=own)` come to."""
    model = network(seed=0)
    optimizer = optimizer_of(model)
    x, y = (whole.chunk(2)[dist.get_rank()] for whole in instances(2 * M))
    own = kernel_inverse(x, gamma=GAMMA)
    backward(model, x, y)
    average([p.grad for p in model.parameters() if p.grad is not None], len(x))
    optimizer.step(inverse=own)
    drifted = ""
    try:
        require_equal(state_tensors(optimizer), "weights")
    except RuntimeError as error:
        drifted = str(error)
    assert "weights: expected the same on all ranks, bit for bit, but ranks [1] differ from rank 0" in drifted
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.slow
def test_averaging_first_and_preconditioning_with_the_own_inverse_makes_ranks_drift_apart_and_is_noticed():
    here, there = on_ranks(2, averaged_before_preconditioning)
    assert [name for name in here if not here[name].equal(there[name])] == ["4.weight"]


def gathered() -> Found:
    rank = dist.get_rank()
    x = instances(12)[0][(slice(0, 3), slice(3, 12))[rank]]
    inverse = gathered_inverse(x, gamma=GAMMA, dtype=torch.float64)
    own = kernel_inverse(x, gamma=GAMMA)
    assert inverse.digest == own.digest  # of what the model is run on
    return {"matrix": inverse.matrix, "indices": inverse.indices}


@pytest.mark.slow
def test_the_gathered_inverse_is_that_of_all_instances_in_the_order_of_the_ranks_however_many_each_has():
    found = on_ranks(2, gathered)
    X, _ = instances(12)
    expected = kernel_inverse(X, gamma=GAMMA, dtype=torch.float64)
    assert all(one["matrix"].equal(expected.matrix) for one in found)
    assert torch.cat([one["indices"] for one in found]).equal(torch.arange(12))


@given(n=st.integers(1, 300), m=st.integers(1, 20), ranks=st.integers(1, 6), seed=st.integers(0, 99))
def test_every_instance_is_in_one_mini_batch_of_one_rank_and_all_ranks_take_equally_many_steps(n, m, ranks, seed):
    n = max(n, ranks)
    shares = [rank_batches(n, m, seed=seed, rank=rank, ranks=ranks) for rank in range(ranks)]
    steps = list(zip(*shares, strict=True))
    in_order = torch.cat([batch for step in steps for batch in step])
    assert in_order.equal(torch.cat(mini_batches(n, m, seed=seed)))
    sizes = [[len(batch) for batch in step] for step in steps]
    assert all(step == [m] * ranks for step in sizes[:-1])
    assert 1 <= min(sizes[-1]) <= max(sizes[-1]) <= min(sizes[-1]) + 1 <= m + 2


def test_on_one_rank_the_mini_batches_are_those_without_ranks():
    alone = rank_batches(50, 8, seed=3, rank=0, ranks=1)
    assert [batch.tolist() for batch in alone] == [batch.tolist() for batch in mini_batches(50, 8, seed=3)]


def test_each_rank_builds_its_share_of_the_cache_and_nothing_else():
    X, _ = instances(96)
    shares = [rank_batches(96, M, seed=0, rank=rank, ranks=4) for rank in range(4)]
    caches = [KernelCache(X, share, gamma=GAMMA) for share in shares]
    assert [cache.nbytes for cache in caches] == [96 // 4 * M * 4] * 4
    assert len({cache.source for cache in caches}) == 4
    for cache, share in zip(caches, shares, strict=True):
        for (x, inverse), batch in zip(cache.batches(X), share, strict=True):
            assert x.equal(X[batch])
            assert inverse.matrix.equal(kernel_inverse(x, gamma=GAMMA).matrix)


@pytest.mark.parametrize(("n", "rank", "ranks"), [(3, 0, 4), (8, 4, 4), (8, -1, 4)])
def test_fewer_instances_than_ranks_and_a_rank_that_is_none_are_refused(n, rank, ranks):
    with pytest.raises(ValueError, match=f"expected 0 <= rank < ranks <= n, got {rank}, {ranks} and {n}"):
        rank_batches(n, 2, seed=0, rank=rank, ranks=ranks)


@pytest.fixture
def alone(tmp_path):
    with group(tmp_path):
        yield


def ready(kernels: str = "local", **options: Any) -> tuple[KernelSGD, Tensor, list[Tensor]]:
    """An optimizer on one rank after a backward pass over x, and the gradients."""
    model, (x, y) = network(seed=0), instances(M)
    optimizer = optimizer_of(model, **options)
    distribute(optimizer, kernels=kernels)  # type: ignore[arg-type]
    backward(model, x, y)
    return optimizer, x, [p.grad.clone() for p in model.parameters() if p.grad is not None]


REFUSED: dict[str, tuple[str, Callable[[KernelSGD, Tensor], Any], str]] = {
    "no inverse": ("local", lambda optimizer, _: optimizer.step(), "every step needs one, got NoneType"),
    "closure": (
        "local",
        lambda optimizer, x: optimizer.step(lambda: 0.0, inverse=kernel_inverse(x)),
        "closure: expected none",
    ),
    "named closure": (
        "local",
        lambda optimizer, x: optimizer.step(closure=lambda: 0.0, inverse=kernel_inverse(x)),
        "closure: expected none",
    ),
    "gathered": (
        "local",
        lambda optimizer, x: optimizer.step(inverse=gathered_inverse(x)),
        "expected that of the own mini-batch with kernels='local', got one from 'gathered'",
    ),
    "own": (
        "global",
        lambda optimizer, x: optimizer.step(inverse=kernel_inverse(x)),
        "expected that of gathered_inverse with kernels='global', got one from 'on the spot",
    ),
    "another's": ("local", lambda optimizer, x: optimizer.step(inverse=kernel_inverse(x + 1)), "is not what the model"),
    "another's, gathered": (
        "global",
        lambda optimizer, x: optimizer.step(inverse=gathered_inverse(x + 1)),
        "is not what the model",
    ),
}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("case", REFUSED)
def test_a_step_that_would_not_be_that_of_all_ranks_is_refused_and_leaves_weights_and_gradients(case):
    kernels, step, message = REFUSED[case]
    optimizer, x, gradients = ready(kernels)
    weights = [t.clone() for t in state_tensors(optimizer)]
    with pytest.raises(ValueError, match=message):
        step(optimizer, x)
    assert all(a.equal(b) for a, b in zip(state_tensors(optimizer), weights, strict=True))
    kept = sorted(p.grad.sum().item() for p in state_tensors(optimizer) if p.grad is not None)
    assert kept == sorted(gradient.sum().item() for gradient in gradients)


@pytest.mark.usefixtures("alone")
def test_gradients_that_are_accumulated_already_are_not_preconditioned_again():
    model, (x, y) = network(seed=0), instances(M)
    optimizer = optimizer_of(model)
    distribute(optimizer)
    with optimizer.accumulate(kernel_inverse(x)):
        backward(model, x, y)
    with pytest.raises(ValueError, match=r"for gradients that accumulate\(\) has preconditioned already"):
        optimizer.step(inverse=kernel_inverse(x))


@pytest.mark.usefixtures("alone")
def test_a_step_without_gradients_unknown_kernels_and_the_monotone_rule_are_refused():
    model, (x, _) = network(seed=0), instances(M)
    optimizer = optimizer_of(model)
    distribute(optimizer)
    model(x)
    with pytest.raises(ValueError, match="expected at least one, got none; run the backward pass"):
        optimizer.step(inverse=kernel_inverse(x))
    with pytest.raises(ValueError, match="kernels: expected 'local' or 'global', got 'own'"):
        distribute(optimizer, kernels="own")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="monotone"):
        distribute(optimizer_of(model, step_rule="monotone"))


UNEQUAL: dict[str, Callable[[nn.Module, int], KernelSGD]] = {
    "momentum": lambda model, rank: optimizer_of(model, momentum=0.5 * rank),
    "decay": lambda model, rank: optimizer_of(model, decay=("l2", "decoupled")[rank]),
    "order": lambda model, rank: KernelSGD(sorted(model.parameters(), key=lambda p: p.numel(), reverse=rank == 1)),
    "number": lambda model, rank: KernelSGD(list(model.parameters())[rank:]),
    "dtype": lambda model, rank: KernelSGD((model if rank else model.double()).parameters()),
}


def with_unequal_optimizers() -> Found:
    messages = {}
    for case, build in UNEQUAL.items():
        try:
            distribute(build(network(seed=0), dist.get_rank()))
        except RuntimeError as error:
            messages[case] = torch.tensor(list(str(error).encode()))
    return messages


@pytest.mark.slow
def test_ranks_with_other_options_or_parameters_are_refused_before_anything_is_exchanged():
    for found in on_ranks(2, with_unequal_optimizers):
        messages = {case: bytes(message.tolist()).decode() for case, message in found.items()}
        assert messages.keys() == UNEQUAL.keys()
        assert all("the optimizers: expected the same on all ranks" in message for message in messages.values())


def mesh_parameter() -> nn.Parameter:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return nn.Parameter(distribute_tensor(random(4, 3), mesh, [Shard(0)]))


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("preconditioned", [True, False])
def test_sharded_parameters_are_refused_with_what_to_do(preconditioned):
    with pytest.raises(ValueError, match=r"expected whole parameters, got sharded ones \(DTensor.*parallel.distribute"):
        KernelSGD([{"params": [mesh_parameter()], "preconditioned": preconditioned}])


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_a_network_under_fully_shard_is_refused():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network(seed=0)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match="keep the network whole on every rank"):
        KernelSGD(kernel_groups(model), model=model)
