"""Convergence Theorem (Eq. 7) read for each instance of a mini-batch: its own loss does not rise either."""

from collections.abc import Iterator
from itertools import product

from flint import arb_mat

from proofs.certificates import instance_losses, kernel_step, less, reshaped_inverse
from proofs.claim import Certificate, Claim, Derivation, Line, Verdict
from proofs.claims.mini_batch import GRID, the_second_derivative_is_a_variance, the_step_moves_the_logits_by_the_kernel
from proofs.claims.symbolic import identity, sp


def a_falling_slope_is_necessary() -> Iterator[Line]:
    """J_k is convex in its logits, so it rises for every η > 0 where its slope along the step is positive."""
    own, cross, u, w = sp.symbols("K_kk K_kl u_k u_l", real=True)
    yield "Own loss after the step, by convexity: J_k(f_k − η(KR)_k) − J_k(f_k) ≥ −η·⟨r_k, (KR)_k⟩, for every η"
    # Two classes: r_k = u_k·(1, −1), with u_k < 0 for label 0 and u_k > 0 for label 1.
    residual, other = sp.Matrix([u, -u]), sp.Matrix([w, -w])
    inner = residual.dot(own * residual + cross * other)
    yield identity("Two classes: ⟨r_k, (KR)_k⟩, of instance k and one other, l", inner, 2 * u * (own * u + cross * w))
    yield "Let instance k be nearly sure and right (u_k → 0), and l wrong with a label that makes K_kl·u_k·u_l < 0"
    yield identity(
        "Then the sign is that of K_kl·u_k·u_l < 0: ⟨r_k, (KR)_k⟩/u_k tends to",
        sp.limit(inner / u, u, 0),
        2 * cross * w,
    )
    yield "W can be so: margins of k and l are free, or z_l = c·z_k, when K_kl = c·K_kk has the sign that is needed"
    yield "Each further instance can have the label with which its contribution hurts k as well"


def an_instance_gets_worse_everywhere_in_the_grid() -> Iterator[Line]:
    """For each of the 16 pairs (η, γ): two instances of one class, features the unit vectors; the surer one loses."""
    Z = arb_mat([[1, 0], [0, 1]])
    W, labels = arb_mat([[1, 0], [0, 0]]), [0, 0]
    yield "x₁ = (1, 0), x₂ = (0, 1), both of class 0, features = inputs, W = [[1, 0], [0, 0]]: x₁ is surer than x₂"
    before = instance_losses(W, Z, labels)[0]
    for gamma, lr in product(GRID, GRID):
        P = reshaped_inverse([[1, 0], [0, 1]], gamma, 2)
        after = instance_losses(kernel_step(W, Z, labels, P, lr), Z, labels)[0]
        yield less(f"η = {lr}, γ = {gamma}: J₁(W)", before, "J₁(W')", after)


CLAIMS = (
    Claim(
        name="each-instance-of-a-mini-batch",
        where="3.3, Eq. 7, with Algorithm 1",
        statement="The step does not raise the loss of any instance of its mini-batch.",
        verdict=Verdict.FAILS,
        condition=(
            "needs ⟨r_k, (KR)_k⟩ ≥ 0 for every k; for all W and labels that means ZPZᵀ diagonal with no negative "
            "entry, however small η"
        ),
        evidence=(
            Derivation(the_step_moves_the_logits_by_the_kernel),
            Derivation(the_second_derivative_is_a_variance),
            Derivation(a_falling_slope_is_necessary),
            Certificate(an_instance_gets_worse_everywhere_in_the_grid),
        ),
        reading=True,
    ),
)
