"""Algorithm 1 on top of the operations: a linear softmax layer over drawn features, step by step.

Two right programs drift apart along a trajectory, at a rate that says nothing of either. So every step starts from the
oracle's own weights and is held to what one step may be off by; one test lets the two run freely, where a Lipschitz
constant bounds the drift. What an operation may be off by, it may be by up to the threshold in every place: all bounds
are linear in that, so that the composed ones have the same threshold.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from numpy.typing import NDArray

from tests.conformance.about import about
from tests.conformance.subject import Subject
from tests.support import ratios, strategies

Array = NDArray[Any]

GAMMA, RIDGE = 0.1, 0.25  # the kernel matrix has eigenvalues from RIDGE to m + RIDGE


class Problem(NamedTuple):
    """Kernel inputs X, features Z and labels y of all instances, their mini-batches, the first weights, η."""

    X: Array
    Z: Array
    y: Array
    batches: tuple[Array, ...]
    W: Array
    lr: float

    def rounded(self, dtype: str) -> "Problem":
        return self._replace(**{name: getattr(self, name).astype(dtype) for name in ("X", "Z", "W")})


class Step(NamedTuple):
    """What a step computes on the way, from the Gram matrix to the new weights."""

    H: Array
    inverse: Array
    P: Array
    loss: Array
    dlogits: Array
    G: Array
    W: Array


@st.composite
def problems(draw: DrawFn) -> Problem:
    """Mini-batches of 1 to 5, the last one ragged; fewer, as many and more features than instances in them."""
    batches = draw(strategies.mini_batch_compositions())
    n, d, n_c = sum(map(len, batches)), draw(strategies.sizes(7)), draw(strategies.sizes(4))
    X = draw(strategies.data_matrices(rows=n, kinds=("plain", "random", "duplicates")))
    Z, W = draw(strategies.features(rows=n, columns=d)), draw(strategies.matrices(rows=n_c, columns=d))
    size = max(1.0, float(np.abs(Z).max()))
    y = draw(strategies.labels(n, n_c))
    return Problem(X, Z / size, y, batches, W / max(1.0, float(np.abs(W).max())), draw(strategies.learning_rates()))


def logits(Z: Array, W: Array, dtype: str) -> Array:
    """Z·Wᵀ, which is no operation of a backend, rounded once."""
    return (Z.astype(float) @ W.astype(float).T).astype(dtype)


def step(operations: Any, dtype: str, p: Problem, batch: Array, W: Array) -> Step:
    """One mini-batch by the operations of a subject or of an oracle, whose results count in `dtype`."""
    X, Z = p.X[batch], p.Z[batch]
    H = np.asarray(operations.gram(X, gamma=GAMMA), dtype)
    inverse = np.asarray(operations.inverse_gram(H, ridge=RIDGE), dtype)
    P = np.asarray(operations.reshape_inverse(inverse, d_in=W.shape[1]), dtype)
    loss, dlogits = operations.softmax_cross_entropy(logits(Z, W, str(p.W.dtype)), p.y[batch])
    dlogits = np.asarray(dlogits, dtype)
    G = np.asarray(operations.weight_gradient(dlogits, Z), dtype)
    return Step(H, inverse, P, loss, dlogits, G, np.asarray(operations.kernel_sgd_step(W, G, P, lr=p.lr), dtype))


def step_bound(u: float, p: Problem, batch: Array, W: Array, exact: Step) -> Array:
    """What W' may be off by, per entry and unit of the threshold, to first order in u: the bounds of the operations
    (DESIGN, section 6), each carried on through those that follow."""
    x, Z, m = p.X[batch].astype(float), np.abs(p.Z[batch].astype(float)), len(batch)
    spread = np.linalg.norm(x - x.mean(0), axis=1)
    gram = u * (x.shape[1] + 2) * exact.H * (1 + GAMMA * (spread[:, None] + spread) ** 2)
    norm = np.linalg.norm(exact.inverse, 1)
    kappa = norm * np.linalg.norm(exact.H + RIDGE * np.eye(m), 1)
    inverse = m * u * norm * kappa + norm**2 * np.linalg.norm(gram, 1)
    f = logits(p.Z[batch], W, "float64")
    softmax = np.abs(exact.dlogits) * m  # at the label 1 − softmax, where its own bound has a 1 for it
    dlogits = u * (softmax * (f.shape[1] + 3 + np.ptp(f, axis=1)[:, None]) + 2) / m
    gradient = dlogits.T @ Z + u * (m + 2) * np.abs(exact.dlogits).T @ Z
    size, P = np.abs(exact.G), np.abs(exact.P)
    moved = u * (W.shape[1] + 2) * (np.abs(W) + p.lr * size @ P)
    return moved + p.lr * (gradient @ P + size.sum(1, keepdims=True) * inverse) + np.finfo(float).tiny


def steps(p: Problem, epochs: int) -> Iterator[Array]:
    return (batch for _ in range(epochs) for batch in p.batches)


@about("kernel_sgd_step")
@given(problems())
def test_every_step_of_a_trajectory_is_the_oracles_from_the_same_weights(subject: Subject, problem: Problem) -> None:
    p = problem.rounded(subject.dtype)
    W = p.W
    for batch in steps(p, 3):
        found, exact = step(subject, subject.dtype, p, batch, W), step(subject.oracle, "float64", p, batch, W)
        bound = step_bound(subject.eps / 2, p, batch, W, exact)
        subject.judge(
            ratios.bounded("step of Algorithm 1", found.W, exact.W, bound),
            ratios.loss(np.asarray(found.loss), exact.loss, logits(p.Z[batch], W, subject.dtype), p.y[batch]),
        )
        W = exact.W.astype(subject.dtype)


@about("kernel_sgd_step")
@given(problems())
def test_free_trajectory_stays_within_the_drift_that_a_lipschitz_constant_allows(
    subject: Subject, problem: Problem
) -> None:
    p = problem.rounded(subject.dtype)
    u, free, exact, drift = subject.eps / 2, p.W, p.W.astype(float), 0.0
    for batch in steps(p, 2):
        Z, m = p.Z[batch].astype(float), len(batch)
        taken = step(subject.oracle, "float64", p, batch, exact)
        # The softmax has a Lipschitz constant of ½, and so the gradient one of ‖Z‖²/2m; logits are rounded once.
        size, bound = np.linalg.norm(Z, 2), np.linalg.norm(step_bound(u, p, batch, exact, taken))
        rounding = u * np.linalg.norm(logits(Z, exact, "float64")) * size / (2 * m)
        steepness = np.linalg.norm(taken.P, 2) * p.lr
        drift = (1 + steepness * size**2 / (2 * m)) * drift + bound + steepness * rounding
        free, exact = step(subject, subject.dtype, p, batch, free).W, taken.W
        subject.judge(
            ratios.bounded("drift of Algorithm 1", np.linalg.norm(free - exact), 0.0, drift + u * np.linalg.norm(exact))
        )
