"""Algorithm 1 step by step: torch's autograd, the kernel cache and KernelSGD against `reference.algorithm`.

Two correct programs drift apart along a trajectory, at a rate that says nothing of either being right. So every step
starts from the reference's own state and is held to what one step may differ by (`step_bound`). One test lets the two
run freely, where the drift itself can be bounded.
"""

from dataclasses import dataclass
from itertools import cycle, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from gpu.optim import KernelCache, KernelSGD
from reference import algorithm
from reference.algorithm import Settings, State
from reference.network import Layer, initial_layers
from tests.gpu.networks import backward, kernel_sgd, layers_of, network, tensor
from tests.gpu.step_bound import assert_close, step_bound
from tests.support import strategies

Array = NDArray[np.float64]

KERNELS: dict[str, dict[str, Any]] = {
    "rbf": {"gamma": 0.1},
    "linear": {},
    "polynomial": {"gamma": 0.5, "degree": 2, "coef0": 1.0},
}


@dataclass(frozen=True)
class Problem:
    """A training set, its mini-batches and a network for it."""

    X: Array
    y: NDArray[np.int64]
    batches: tuple[NDArray[np.int64], ...]
    layers: tuple[Layer, ...]


def problem(dtype: str, sizes: tuple[int, ...] = (6, 7, 4, 3), n: int = 23, m: int = 5, seed: int = 0) -> Problem:
    """Standard normal instances with labels that a network could learn, in mini-batches of m and one of n mod m."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, sizes[0])).astype(dtype).astype("float64")
    y = (X @ generator.standard_normal((sizes[0], sizes[-1]))).argmax(1)
    batches = tuple(np.split(generator.permutation(n), range(m, n, m)))
    return Problem(X, y, batches, initial_layers(sizes, seed))


def cache_of(p: Problem, X: torch.Tensor, s: Settings) -> KernelCache:
    kernel = {key: getattr(s, key) for key in ("kernel", "gamma", "degree", "coef0", "ridge", "singular")}
    return KernelCache(X, [torch.from_numpy(batch) for batch in p.batches], **kernel)


def rounded(state: State, dtype: str) -> State:
    def in_dtype(layer: Layer) -> Layer:
        return Layer(*(p.astype(dtype).astype("float64") for p in (layer.weight, layer.bias)))

    return State(*(tuple(map(in_dtype, part)) for part in (state.layers, state.velocity)))


def buffers(optimizer: KernelSGD, model: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The velocities of every layer's weight and bias, zero before the first step."""
    for p in model.parameters():
        optimizer.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return [tuple(optimizer.state[p]["momentum_buffer"] for p in (m.weight, m.bias)) for m in layers]


def load(optimizer: KernelSGD, model: nn.Module, state: State) -> None:
    """Put the reference's weights, biases and velocities in place."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for module, layer, velocity, (v, w) in zip(
            layers, state.layers, state.velocity, buffers(optimizer, model), strict=True
        ):
            for target, source in (
                (module.weight, layer.weight),
                (module.bias, layer.bias),
                (v, velocity.weight),
                (w, velocity.bias),
            ):
                target.copy_(tensor(source))


def assert_steps_agree(p: Problem, settings: Settings, epochs: int, dtype: str) -> None:
    """Every step of the reference's trajectory, taken by torch from the reference's state rounded to the dtype."""
    model = network(p.layers, getattr(torch, dtype))
    optimizer = kernel_sgd(model, settings)
    X, y = tensor(p.X, dtype), tensor(p.y, torch.int64)
    cache, state = cache_of(p, X, settings), algorithm.initial_state(p.layers)
    for _ in range(epochs):
        for (x, labels, entry), batch in zip(cache.batches(X, y), p.batches, strict=True):
            if any(abs(layer.weight).max() > 1e4 for layer in state.layers):
                return  # a run that diverges soon overflows
            state = rounded(state, dtype)
            load(optimizer, model, state)
            optimizer.zero_grad()
            loss = backward(model, x, labels).item()
            optimizer.step(inverse=entry)
            # The stored inverse for both: how well it was computed is the cache's affair.
            arguments = (state, p.X[batch], p.y[batch], entry.matrix.double().numpy(), settings)
            bound = step_bound(*arguments, dtype)
            state, exact_loss = algorithm.step(*arguments)
            assert abs(loss - exact_loss) <= bound.loss
            assert_close(layers_of(model), state.layers, bound.layers, "weights")
            if settings.momentum:
                velocity = tuple(Layer(*(v.double().numpy() for v in pair)) for pair in buffers(optimizer, model))
                assert_close(velocity, state.velocity, bound.velocity, "velocity")


# Every pair of choices, the kernels taking turns.
CHOICES = product(("last", "all"), ("l2", "decoupled"), ("plain", "augmented"), (0.0, 0.9))
CASES = [(kernel, *choice) for kernel, choice in zip(cycle(KERNELS), CHOICES, strict=False)]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("kernel", "layers", "decay", "bias", "momentum"), CASES)
def test_every_one_of_fifty_steps_is_that_of_the_reference(
    kernel: Any, layers: Any, decay: Any, bias: Any, momentum: float, dtype: str
) -> None:
    settings = Settings(
        lr=0.05,
        kernel=kernel,
        ridge=0.5,
        layers=layers,
        bias=bias,
        weight_decay=0.01,
        decay=decay,
        momentum=momentum,
        **KERNELS[kernel],
    )
    assert_steps_agree(problem(dtype), settings, 10, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_plain_sgd_is_algorithm_1_without_a_preconditioned_layer(dtype: str) -> None:
    settings = Settings(layers="none", momentum=0.9, weight_decay=0.01)
    assert_steps_agree(problem(dtype), settings, 10, dtype)


@given(
    sizes=strategies.network_sizes(),
    n=strategies.sizes(12),
    m=strategies.sizes(5),
    settings=st.builds(
        Settings,
        lr=strategies.learning_rates(),
        gamma=st.sampled_from((10.0, 1.0, *strategies.PAPER_GRID)),
        ridge=st.sampled_from((0.0, 1e-3, 1.0)),
        layers=st.sampled_from(("last", "all")),
        bias=st.sampled_from(("plain", "augmented")),
        weight_decay=st.sampled_from((0.0, 1e-4, 0.5)),
        decay=st.sampled_from(("l2", "decoupled")),
        momentum=st.sampled_from((0.0, 0.9)),
    ),
    dtype=strategies.dtypes(),
    seed=strategies.seeds(),
)
def test_steps_agree_whatever_the_network_the_mini_batches_and_the_settings(
    sizes: tuple[int, ...], n: int, m: int, settings: Settings, dtype: str, seed: int
) -> None:
    """Also from badly conditioned kernel matrices, with one class, one instance, or steps that diverge."""
    assert_steps_agree(problem(dtype, sizes, n, m, seed), settings, 2, dtype)


def test_free_running_training_drifts_no_further_than_its_step_bounds_allow() -> None:
    """Without hidden layers the loss is smooth in [W, b], its gradient L-Lipschitz with L = λ_max(Z'Z)/2m + λ for the
    features Z = [X, 1] of the mini-batch, as no softmax covariance has an eigenvalue above ½. A step therefore
    stretches differences by at most 1 + ηL·max(1, ‖P‖), and ε_k+1 ≤ (1 + ηL·max(1, ‖P‖))·ε_k + bound_k: every error
    since the start, the inverses' own included, adds up to something that can be said before the run.
    """
    p, s = problem("float64", sizes=(6, 3)), Settings(lr=0.05, gamma=0.1, ridge=1.0, weight_decay=0.01)
    model = network(p.layers)
    optimizer = kernel_sgd(model, s)
    X, y = tensor(p.X), tensor(p.y, torch.int64)
    cache, inverses = cache_of(p, X, s), algorithm.inverses(p.X, p.batches, s)
    state, drift = algorithm.initial_state(p.layers), 0.0
    for _ in range(12):
        for (x, labels, entry), batch, inverse in zip(cache.batches(X, y), p.batches, inverses, strict=True):
            optimizer.zero_grad()
            backward(model, x, labels)
            optimizer.step(inverse=entry)
            before = state
            bound = step_bound(state, p.X[batch], p.y[batch], inverse, s, "float64").layers[0]
            state, _ = algorithm.step(state, p.X[batch], p.y[batch], inverse, s)

            Z = np.column_stack((p.X[batch], np.ones(len(batch))))
            lipschitz = np.linalg.norm(Z, 2) ** 2 / (2 * len(batch)) + s.weight_decay
            off = np.linalg.norm(entry.matrix.numpy() - inverse, 2)
            # What P acts on, from the length of the step: no eigenvalue of (H + I)⁻¹ is below 1/(m + 1).
            gradient = (len(batch) + 1) * distance(before, state) / s.lr
            drift *= 1 + s.lr * lipschitz * max(1.0, np.linalg.norm(inverse, 2))
            drift += np.hypot(np.linalg.norm(bound.weight), np.linalg.norm(bound.bias)) + s.lr * gradient * off
            assert distance(State(layers_of(model), ()), state) <= drift
    assert drift < 1e-11


def distance(one: State, other: State) -> float:
    (a,), (b,) = one.layers, other.layers
    return float(np.hypot(np.linalg.norm(a.weight - b.weight), np.linalg.norm(a.bias - b.bias)))
