"""Eq. 3 and Eq. 4: SGD on the projected loss is SGD preconditioned by the inverse of the projection matrix."""

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from tests.reference.bounds import U, central_difference, loss_rounding, third_moment
from tests.support import strategies

Array = NDArray[np.float64]


class Problem(NamedTuple):
    """A last layer over a mini-batch, and the matrix Π that projects its weights."""

    W: Array
    Z: Array
    y: NDArray[np.integer]
    projection: Array

    def loss(self, W: Array) -> float:
        return float(reference.softmax_cross_entropy(self.Z @ W.T, self.y)[0])

    def gradient(self, W: Array) -> Array:
        return reference.weight_gradient(reference.softmax_cross_entropy(self.Z @ W.T, self.y)[1], self.Z)

    def rounding(self, lr: float) -> float:
        """How far, in the Frobenius norm, rounding may take a projected step from W − lr·∇J(W)·Π⁻¹.

        Π^½·Π^-½ is I but for O(u·√κ), Π^-½·Π^-½ is Π⁻¹ but for O(u·κ), relatively; the gradient, which follows W
        with a constant of at most ‖Z‖²/m, is taken at W·Π^½·Π^-½ and itself rounded.
        """
        m, d = self.Z.shape
        condition, smallest = np.linalg.cond(self.projection), np.linalg.eigvalsh(self.projection)[0]
        W, Z, G = (np.linalg.norm(A) for A in (self.W, self.Z, self.gradient(self.W)))
        gradient = condition * G + Z / np.sqrt(m) + np.sqrt(condition) * Z**2 * W / m
        return 30 * (m + d + len(self.W)) * U * (np.sqrt(condition) * W + lr / smallest * gradient)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    m, n_c, d = draw(strategies.INSTANCES), draw(strategies.CLASSES), draw(strategies.FEATURES)
    return Problem(
        draw(strategies.matrices(rows=n_c, columns=d)),
        draw(strategies.features(rows=m, columns=d)),
        draw(strategies.labels(m, n_c)),
        draw(strategies.projections(size=d)),
    )


@given(problems(), strategies.learning_rates())
def test_sgd_on_the_projected_loss_is_preconditioned_sgd(problem: Problem, lr: float) -> None:
    W, _, _, projection = problem
    there_and_back = reference.projected_sgd_step(W, problem.gradient, projection, lr)
    preconditioned = reference.kernel_sgd_step(W, problem.gradient(W), reference.inverse_gram(projection), lr)
    assert np.linalg.norm(there_and_back - preconditioned) <= problem.rounding(lr)


@given(problems())
def test_projected_step_descends_the_central_difference_of_the_projected_loss(problem: Problem) -> None:
    W, Z, y, projection = problem
    eigenvalues, V = np.linalg.eigh(projection)
    root, inverse_root = (V * eigenvalues**power @ V.T for power in (0.5, -0.5))
    gradient = (W - reference.projected_sgd_step(W, problem.gradient, projection, 1.0)) @ root
    error = problem.rounding(1.0) * np.linalg.norm(root, 2)

    reach = np.abs(Z @ inverse_root).max()  # logits follow an entry of the projected weights this fast
    h = 2.0**-12 / (reach or 1.0)
    for c, j in np.ndindex(W.shape):
        direction = np.zeros_like(W)
        direction[c] = h * inverse_root[j]
        above, below = problem.loss(W + direction), problem.loss(W - direction)
        size = (np.abs(Z) @ (np.abs(W) + np.abs(direction)).T).max()
        rounding = loss_rounding(Z @ W.T, y, max(above, below)) + 2 * (W.shape[1] + 2) * U * size
        difference, bound = central_difference(above, below, h, third_moment(reach), rounding)
        assert abs(difference - gradient[c, j]) <= bound + error
