"""What the Convergence Theorem (Eq. 7) needs of H: a kernel matrix that rounding made indefinite raises the loss."""

from collections.abc import Iterator

from flint import arb, arb_mat, fmpq, fmpq_mat

from proofs.certificates import equal, kernel_step, less, mean_loss, positive_definite, rbf, require, semidefinite
from proofs.claim import Certificate, Claim, Derivation, Line, Property, Verdict
from proofs.claims.one_instance import residuals_of_one_label_never_oppose, slope_along_the_step

UNIT = fmpq(1, 2**24)  # between floats of 24 bits below 1


def float32_makes_an_rbf_matrix_indefinite() -> Iterator[Line]:
    """x = 0, 0.01, 0.02 and γ = 10⁻⁴: exp(−γ‖x−y‖²) rounded to float32 is no longer positive semi-definite."""
    exact_H = rbf([[0], ["0.01"], ["0.02"]], "0.0001")
    yield positive_definite("H of x = 0, 0.01, 0.02 with γ = 0.0001, exactly,", exact_H)
    yield less("1 − H₁₂, which rounds to 0 in float32,", 1 - exact_H[0, 1], "half a unit, 2⁻²⁵", UNIT / 2)
    distance = abs(exact_H[0, 2] - arb(1 - UNIT))
    yield less("|H₁₃ − (1 − 2⁻²⁴)|, the nearest float32,", distance, "half a unit, 2⁻²⁵", UNIT / 2)
    yield require("H in float32 is not positive semi-definite", not semidefinite(_rounded()))


def its_inverse_raises_the_loss() -> Iterator[Line]:
    """z = (1, 0, 1) for all three instances, one class: J rises at the smallest η of the grid."""
    P = arb_mat(_rounded().inv())
    z = fmpq_mat([[1, 0, 1]])
    form = (z * _rounded().inv() * z.transpose())[0, 0]
    yield f"P = H⁻¹ of the float32 matrix; z = (1, 0, 1): zᵀPz = {form}"
    yield less("zᵀPz", form, "0", 0)
    W, Z, labels = arb_mat(2, 3), arb_mat([[1, 0, 1]] * 3), [0, 0, 0]
    yield less(
        "J(W)",
        mean_loss(W, Z, labels),
        "J(W'), η = 0.0001",
        mean_loss(kernel_step(W, Z, labels, P, "0.0001"), Z, labels),
    )


def a_kernel_that_is_no_kernel() -> Iterator[Line]:
    """A polynomial of negative c₀: H is indefinite without any rounding."""
    H = fmpq_mat([[0, 1], [1, 3]])
    yield require("H of x = 1, 2 under ⟨x, y⟩ − 1 is not positive semi-definite", not semidefinite(H))
    P = arb_mat(H.inv())
    W, Z, labels = arb_mat(2, 2), arb_mat([[1, 0], [1, 0]]), [0, 0]
    yield less(
        "J(W)", mean_loss(W, Z, labels), "J(W'), η = 0.1", mean_loss(kernel_step(W, Z, labels, P, "0.1"), Z, labels)
    )


def a_cut_may_be_definite() -> Iterator[Line]:
    """H = diag(1, −1), m = 2, cut to d_in = 1: P = (1)."""
    H = fmpq_mat([[1, 0], [0, -1]])
    yield require("diag(1, −1) is not positive semi-definite", not semidefinite(H))
    yield equal("and its inverse cut to d_in = 1", H.inv()[0, 0], "1, so P ⪰ 0", 1)


def _rounded() -> fmpq_mat:
    return fmpq_mat([[1, 1, 1 - UNIT], [1, 1, 1], [1 - UNIT, 1, 1]])


CLAIMS = (
    Claim(
        name="rounded-or-indefinite-kernel",
        where="3.3, Eq. 7, with Hessians computed in floating point",
        statement="The theorem survives the rounding of H, and kernels that are not positive semi-definite.",
        verdict=Verdict.FAILS,
        condition=(
            "needs zᵀPz ≥ 0: where P, the reshaped inverse, is indefinite, some features z make the loss rise at every "
            "η > 0; an indefinite H can be cut to a P ⪰ 0"
        ),
        evidence=(
            Derivation(slope_along_the_step),
            Derivation(residuals_of_one_label_never_oppose),
            Certificate(float32_makes_an_rbf_matrix_indefinite),
            Certificate(its_inverse_raises_the_loss),
            Certificate(a_kernel_that_is_no_kernel),
            Certificate(a_cut_may_be_definite),
            Property("tests/reference/test_conditions.py::test_an_indefinite_p_has_no_safe_learning_rate"),
        ),
        reading=True,
    ),
)
