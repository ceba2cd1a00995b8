"""What a change of names, of order or of units does to a whole step: data → Gram → inverse → reshape → step."""

from random import Random
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from tests.reference.bounds import U
from tests.support import strategies

Array = NDArray[np.float64]
Labels = NDArray[np.integer]

RIDGE = 0.01  # keeps the condition number of an RBF kernel below m/RIDGE + 1


class Problem(NamedTuple):
    """Raw inputs X of a mini-batch, their features Z and labels y, and the weight W of the last layer."""

    X: Array
    Z: Array
    y: Labels
    W: Array

    def gradient(self) -> Array:
        return reference.weight_gradient(reference.softmax_cross_entropy(self.Z @ self.W.T, self.y)[1], self.Z)

    def preconditioner(self) -> Array:
        H = reference.gram(self.X, gamma=0.1)
        return reference.reshape_inverse(reference.inverse_gram(H, ridge=RIDGE), self.Z.shape[1])

    def step(self) -> Array:
        return reference.kernel_sgd_step(self.W, self.gradient(), self.preconditioner(), 0.1)

    def rounding(self) -> Array:
        """How far rounding may move each entry of the step.

        The inverse is wrong by 30·m·u·κ·‖H⁻¹‖; a logit by d·u·size, which the gradient inherits, and with it the step.
        """
        m, d = self.Z.shape
        P = self.preconditioner()
        size = (np.abs(self.Z) @ np.abs(self.W).T).max()
        gradient = np.abs(self.Z).mean(axis=0)  # an entry of the gradient is not larger
        inverse = 30 * m * U * (m / RIDGE + 1) / RIDGE
        terms = 4 * (m + d + len(self.W) + 5) * U * (1 + size)
        return terms * (np.abs(self.W) + 0.1 * gradient @ np.abs(P)) + 0.1 * inverse * gradient.sum()


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """With m ≤ d_in: no instance is dropped by the reshaping."""
    m = draw(strategies.sizes(5))
    d, n_c = draw(st.integers(m, 6)), draw(strategies.CLASSES)
    X = draw(strategies.data_matrices(rows=m, kinds=("plain", "random", "duplicates")))
    Z, W = draw(strategies.features(rows=m, columns=d)), draw(strategies.matrices(rows=n_c, columns=d))
    return Problem(X, Z, draw(strategies.labels(m, n_c)), W / max(1.0, (np.abs(Z) @ np.abs(W).T).max() / 10))


@given(problems(), st.randoms(use_true_random=False))
def test_relabelling_the_classes_permutes_the_rows_of_the_weights(problem: Problem, random: Random) -> None:
    classes = random.sample(range(len(problem.W)), len(problem.W))
    relabelled = problem._replace(y=np.argsort(classes)[problem.y], W=problem.W[classes])
    assert np.all(np.abs(relabelled.step() - problem.step()[classes]) <= problem.rounding())


@given(problems(), st.randoms(use_true_random=False))
def test_permuting_instances_and_leading_features_alike_permutes_the_columns_of_the_weights(
    problem: Problem, random: Random
) -> None:
    X, Z, y, W = problem
    m, d = Z.shape
    instances = random.sample(range(m), m)
    columns = [*instances, *range(m, d)]
    permuted = Problem(X[instances], Z[np.ix_(instances, columns)], y[instances], W[:, columns])
    assert np.all(np.abs(permuted.step() - problem.step()[:, columns]) <= problem.rounding()[:, columns])


def test_permuting_the_instances_alone_changes_the_step() -> None:
    """The reshaping ties the k-th instance to the k-th feature: the order within a mini-batch is no convention."""
    X = np.array([[0.0], [1.0], [3.0]])
    problem = Problem(X, np.eye(3), np.array([0, 1, 0]), np.zeros((2, 3)))
    permuted = Problem(X[::-1], problem.Z[::-1], problem.y[::-1], problem.W)
    assert np.abs(permuted.step() - problem.step()).max() > 0.01 > problem.rounding().max()
