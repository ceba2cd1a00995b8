"""What the torch operations promise beyond the contract, to which tests/conformance holds them: the cores that training
calls, the same bits alone and among others, a polynomial kernel computed in float64, tensors and devices of torch's,
full precision whatever the caller has set, derivatives.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

import reference
from gpu import torch_ops
from tests.support import calls, ratios, strategies
from tests.support.bad_input import GOOD
from tests.support.calls import CALLS

Array = NDArray[Any]

FLOATS = pytest.mark.parametrize("dtype", ["float64", "float32"])
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": torch.clone,
    "transposed": lambda t: t.mT.contiguous().mT if t.ndim > 1 else t,
    "strided": lambda t: t.repeat_interleave(2, -1)[..., ::2],
}
layouts = st.sampled_from(sorted(LAYOUTS))
draws = st.data()
EVERY_OPERATION = pytest.mark.parametrize("operation", CALLS)
EVERY_ARRAY = [(operation, argument) for operation, (arrays, _) in GOOD.items() for argument in arrays]


def tensor(array: Array, layout: str = "contiguous") -> torch.Tensor:
    return LAYOUTS[layout](torch_ops.from_numpy(array, "float32" if array.dtype == np.float32 else "float64"))


def computed(result: torch.Tensor) -> Array:
    return torch_ops.to_numpy(result)


def results(operation: str, arguments: tuple[torch.Tensor, ...], options: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    found = getattr(torch_ops, operation)(*arguments, **options)
    return found if isinstance(found, tuple) else (found,)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one, other))


# The block step, members


@FLOATS
@given(draws, layouts)
def test_block_step_is_the_step_by_the_padded_inverse_and_writes_nothing_else(
    dtype: str, data: DataObject, layout: str
) -> None:
    W, grad, inverse, lr = data.draw(strategies.preconditioned_gradients(dtype))
    P = reference.reshape_inverse(inverse, W.shape[1]).astype(dtype)
    around = torch.full((W.shape[0] + 2, W.shape[1] + 2), torch.nan, dtype=getattr(torch, dtype))
    stepped = around[1:-1, 1:-1] if layout == "contiguous" else tensor(W, layout)
    stepped.copy_(tensor(W))
    torch_ops.step_block_(stepped, tensor(grad, layout), tensor(inverse, layout), lr)
    found = computed(stepped)
    ratios.assert_within(ratios.step(found, reference.kernel_sgd_step(W, grad, P, lr), W, grad, P, lr))
    assert np.array_equal(found[:, len(inverse) :], W[:, len(inverse) :])
    assert int(around.isnan().sum()) >= around.numel() - W.size


@FLOATS
@given(strategies.sizes(12), st.lists(st.booleans(), min_size=1, max_size=4), strategies.seeds())
def test_every_inverse_is_bit_for_bit_what_its_member_has_alone(
    dtype: str, m: int, singular: list[bool], seed: int
) -> None:
    A = np.random.default_rng(seed).standard_normal((len(singular), m, m))
    H = A @ A.swapaxes(1, 2) + np.eye(m)
    H[singular] = 1
    members = tensor(((H + H.swapaxes(1, 2)) / 2).astype(dtype))
    together = torch_ops.inverse_gram(members, singular="pinv")
    for member, inverse in zip(members, together, strict=True):
        assert same_bits(inverse, torch_ops.inverse_gram(member, singular="pinv"))


@FLOATS
@given(draws)
def test_singular_members_and_only_they_take_the_pseudoinverse(dtype: str, data: DataObject) -> None:
    m = data.draw(strategies.INSTANCES)
    regular, singular = strategies.gram_matrices(dtype, m), strategies.singular_gram_matrices(dtype, m)
    which = data.draw(st.lists(st.booleans(), min_size=1, max_size=4))
    H = np.stack([data.draw(singular if chosen else regular) for chosen in which])
    _, took_pseudoinverse = torch_ops.invert_members(tensor(H), 0.0, "pinv")
    assert took_pseudoinverse.tolist() == which


def in_place(X: torch.Tensor, gamma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """RBF matrices as a cache builds them, and which may have overflowed."""
    products = torch.full((*X.shape[:-1], X.shape[-2]), torch.nan, dtype=X.dtype)
    with np.errstate(all="raise", under="ignore"):
        torch_ops.centred_products_(X, gamma, products)
    return torch_ops.rbf_of_products(products, gamma)


@FLOATS
@given(draws)
def test_gram_in_place_is_as_near_the_references_as_without(dtype: str, data: DataObject) -> None:
    call = data.draw(calls.gram_calls(dtype, "rbf"))
    (X,), gamma = call.arrays, call.options["gamma"]
    H, overflowing = in_place(tensor(X), gamma)
    assert not overflowing.numpy()[np.abs(X).max((-2, -1)) < 1e15].any()
    H[overflowing] = torch_ops.gram(tensor(X), gamma=gamma)[overflowing]
    ratios.assert_within(ratios.gram_rbf(computed(H), reference.gram(X, gamma=gamma), X, gamma=gamma))
    assert same_bits(H, H.mT)


@FLOATS
def test_a_feature_that_is_large_and_the_same_for_all_takes_no_accuracy(dtype: str) -> None:
    """The mean of equal numbers may be rounded by more than all distances; one member is free of such a feature."""
    X = np.random.default_rng(0).random((8, 7, 4)).astype(dtype)
    X[1:, :, 0] = np.linspace(1.0, 2.0, 7)[:, None] * 1e3 / np.finfo(dtype).eps
    expected = reference.gram(X, gamma=1.0)
    for H in (torch_ops.gram(tensor(X), gamma=1.0), in_place(tensor(X), 1.0)[0]):
        ratios.assert_within(ratios.gram_rbf(computed(H), expected, X, gamma=1.0))


def test_products_that_overflow_are_said_to() -> None:
    sound = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    H, overflowing = in_place(torch.stack([sound, 1e200 * sound, sound]), 1.0)
    assert overflowing.tolist() == [False, True, False]
    assert same_bits(H[0], H[2])


@pytest.mark.parametrize("exponent", [-300, 0, 300])
@pytest.mark.parametrize("others", [[1.0], [1.0] + 6 * [1e-3]], ids=["2", "8"])
def test_eigenvalue_at_the_threshold_is_zero_and_one_at_minus_the_threshold_too(
    others: list[float], exponent: int
) -> None:
    m = len(others) + 1
    for sign in (1, -1):
        member = np.diag([*others, sign * m * np.finfo("float64").eps])
        H = tensor(np.ldexp(np.stack([np.eye(m), np.eye(m), member]), exponent))
        with pytest.raises(np.linalg.LinAlgError, match=r"numerically singular in member \(2,\)"):
            torch_ops.inverse_gram(H)
        inverse, took_pseudoinverse = torch_ops.invert_members(H, 0.0, "pinv")
        expected = np.ldexp(np.diag([*(1 / np.array(others)), 0]), -exponent)
        assert np.allclose(computed(inverse)[2], expected, rtol=4e-16, atol=0)
        assert took_pseudoinverse.tolist() == [False, False, True]


# The polynomial kernel, which is computed in float64


@pytest.mark.parametrize(
    ("dtype", "tiny", "huge", "gamma"),
    [("float32", 1e-30, 1e15, 1e-20), ("float64", 1e-250, 1e150, 1e-150), ("float64", 1.1e-300, 1.3e300, 1e-300)],
)
def test_polynomial_gram_of_a_tiny_and_a_huge_row_has_the_precision_of_its_dtype(
    dtype: str, tiny: float, huge: float, gamma: float
) -> None:
    X = np.array([[tiny], [huge]], dtype)
    exact = Fraction(gamma) * Fraction(float(X[0, 0])) * Fraction(float(X[1, 0]))
    H = torch_ops.gram(tensor(X), "polynomial", gamma=gamma, degree=1, coef0=0.0)
    assert abs(Fraction(H[0, 1].item()) / exact - 1) < 2 * np.finfo(dtype).eps


def test_polynomial_gram_of_powers_of_two_is_exact_and_of_many_features_no_overflow() -> None:
    X = torch.tensor([[1.0, 0.5], [2.0, 0.0], [8.0, -4.0]], dtype=torch.float64)
    H = torch_ops.gram(X, "polynomial", gamma=0.5, degree=1, coef0=0.0)
    assert same_bits(H, 0.5 * X @ X.mT)
    ones = torch.ones(1, 1, 4096, dtype=torch.float64)
    assert torch_ops.gram(ones, "polynomial", gamma=2.0**-12, degree=1, coef0=0.0).item() == 1


def test_polynomial_gram_keeps_the_small_entries_of_a_row_that_spans_430_decimal_orders() -> None:
    X = np.ldexp([[1.0, 1 / 3], [0.0, 1 / 3]], [[500, -940], [0, 100]])
    H = torch_ops.gram(tensor(X), "polynomial", gamma=1.0, degree=1, coef0=0.0)
    assert H[0, 1].item() == np.ldexp(np.float64(1 / 3) ** 2, -840) > 0


# Tensors, devices, messages


def test_backend_on_a_device_has_the_names_of_the_contract() -> None:
    backend = torch_ops.on("cpu")
    assert (backend.name, backend.dtypes) == (torch_ops.name, torch_ops.dtypes)
    assert all(getattr(backend, operation) is getattr(torch_ops, operation) for operation in CALLS)
    assert backend.device(backend.from_numpy(np.eye(2), "float32")) == "cpu"


def call_with(operation: str, **changes: Any) -> Any:
    """The good call of the table of bad input, some arguments changed."""
    arrays, scalars = GOOD[operation]
    return getattr(torch_ops, operation)(**{name: torch.tensor(a) for name, a in arrays.items()} | scalars | changes)


@pytest.mark.parametrize("change", ["float16", "list", "numpy", "sparse"])
@pytest.mark.parametrize(("operation", "argument"), EVERY_ARRAY)
def test_dense_tensors_of_the_claimed_precisions_alone_are_taken(operation: str, argument: str, change: str) -> None:
    good = GOOD[operation][0][argument]
    changed = {
        "float16": torch.tensor(good).half(),
        "list": good.tolist(),
        "numpy": good,
        "sparse": torch.tensor(good).to_sparse(),
    }
    with pytest.raises(TypeError, match=rf"\b{argument}\b"):
        call_with(operation, **{argument: changed[change]})


@pytest.mark.parametrize(("operation", "argument"), [pair for pair in EVERY_ARRAY if len(GOOD[pair[0]][0]) > 1])
def test_tensors_on_one_device_alone_are_taken(operation: str, argument: str) -> None:
    elsewhere = torch.tensor(GOOD[operation][0][argument], device="meta")
    with pytest.raises(ValueError, match=rf"'{argument}': 'meta'"):
        call_with(operation, **{argument: elsewhere})


@pytest.mark.parametrize(
    ("operation", "changes", "message"),
    [
        ("gram", {"X": [[1.0, 2.0], [np.nan, 3.0]]}, r"X holds nan at \(1, 0\)"),
        ("gram", {"X": [[1e200]], "kernel": "linear"}, r"linear Gram matrix overflows torch\.float64"),
        ("softmax_cross_entropy", {"logits": [[1e308, -1e308]] * 3, "labels": [1, 1, 1]}, "^the loss overflows torch"),
        ("weight_gradient", {"dlogits": [[1e200] * 2] * 3, "features": [[1e200] * 4] * 3}, "^the weight gradient over"),
        ("kernel_sgd_step", {"grad": [[1e308] * 4] * 2, "lr": 10.0}, "^the stepped weight overflows"),
        ("inverse_gram", {"H": [np.eye(2), [[1.0, 0.5], [0.0, 1.0]]]}, r"H differs .* by 0\.5 in member \(1,\)"),
        ("inverse_gram", {"H": [[1.0, 2.0], [2.0, 1.0]]}, r"indefinite in member \(\): .* from -1 to 3"),
        ("inverse_gram", {"H": [[2.0, 0.0], [0.0, 0.0]]}, r"singular in member \(\): .* from 0 to 2"),
        ("softmax_cross_entropy", {"labels": [0, -1, 1]}, r"labels\[1\] is -1: expected one of \[0, 2\)"),
    ],
    ids=["entry", "overflow", "loss", "gradient", "step", "asymmetry", "indefinite", "singular", "label"],
)
def test_message_says_what_was_found_and_where(operation: str, changes: dict[str, Any], message: str) -> None:
    tensors = {name: torch.tensor(np.array(value)) for name, value in changes.items() if isinstance(value, list)}
    with pytest.raises((ValueError, FloatingPointError), match=message):
        call_with(operation, **changes | tensors)


SHAPES = {
    ("gram", "X"): "(..., m, d)",
    ("inverse_gram", "H"): "(..., m, m)",
    ("reshape_inverse", "Hinv"): "(..., m, m)",
    ("softmax_cross_entropy", "logits"): "(m, n_c)",
    ("softmax_cross_entropy", "labels"): "(3,), one for each row of logits",
    ("weight_gradient", "dlogits"): "(m, n_c)",
    ("weight_gradient", "features"): "(3, d_in)",
    ("kernel_sgd_step", "W"): "(n_c, d_in)",
    ("kernel_sgd_step", "grad"): "(2, 4)",
    ("kernel_sgd_step", "P"): "(4, 4)",
}
SCALARS = {
    ("gram", "gamma", 0.0): "a finite positive number that torch.float64 can hold",
    ("gram", "degree", 0): "a finite integer of at least 1 that torch.float64 can hold",
    ("gram", "coef0", 10**400): "a finite number that torch.float64 can hold",
    ("gram", "kernel", "cubic"): "one of ('rbf', 'linear', 'polynomial')",
    ("inverse_gram", "ridge", -1.0): "a finite number of at least 0 that torch.float64 can hold",
    ("inverse_gram", "singular", "skip"): "one of ('raise', 'pinv')",
    ("reshape_inverse", "d_in", 2.5): "a finite integer of at least 1 that torch.float64 can hold",
    ("kernel_sgd_step", "lr", -1.0): "a finite number of at least 0 that torch.float64 can hold",
}


@pytest.mark.parametrize(("operation", "argument"), SHAPES)
def test_message_about_a_shape_says_which_was_expected(operation: str, argument: str) -> None:
    dtype = torch.int64 if argument == "labels" else torch.float64
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message follows
        call_with(operation, **{argument: torch.ones((5,), dtype=dtype)})
    expected = f"{argument} has shape (5,): expected {SHAPES[operation, argument]} and no empty dimension"
    assert str(error.value) == expected


@pytest.mark.parametrize(("operation", "argument", "value"), SCALARS)
def test_message_about_a_scalar_says_what_was_expected(operation: str, argument: str, value: Any) -> None:
    shown = "inf in torch.float64" if value == 10**400 else repr(value)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message follows
        call_with(operation, **{argument: value})
    assert str(error.value) == f"{argument} is {shown}: expected {SCALARS[operation, argument, value]}"


@pytest.mark.parametrize(
    ("operation", "changes", "message"),
    [
        ("gram", {"X": [[1.0]]}, "X is a list: expected a torch.Tensor"),
        ("gram", {"X": torch.eye(2).half()}, "X is torch.float16: expected torch.float64 or torch.float32"),
        ("gram", {"X": torch.eye(2).to_sparse()}, "X is torch.sparse_coo: expected a dense tensor"),
        (
            "weight_gradient",
            {"features": torch.ones(3, 4)},
            "features is torch.float32: expected torch.float64 like dlogits",
        ),
        ("gram", {"gamma": "1"}, "gamma is a str: expected a real number"),
        ("softmax_cross_entropy", {"labels": torch.ones(3)}, "labels are torch.float32: expected integers"),
    ],
)
def test_message_about_a_type_says_which_was_expected(operation: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as error:
        call_with(operation, **changes)
    assert str(error.value) == message


def test_error_of_a_singular_member_gives_its_eigenvalues_threshold_and_ridge() -> None:
    with pytest.raises(np.linalg.LinAlgError) as error:
        torch_ops.inverse_gram(tensor(np.diag([4.0, 0.0])), ridge=1e-17)
    assert str(error.value) == (
        "H + ridge·I is numerically singular in member (): its eigenvalues go from 1e-17 to 4; expected all above "
        "m·eps·λ_max = 1.78e-15 (ridge is 1e-17)"
    )


# Precision


def matmul_precision() -> str:
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    return getattr(matmul, "fp32_precision", None) or torch.get_float32_matmul_precision()


class Products(TorchDispatchMode):
    """Writes down at which precision matrix products of float32 are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in func.overloadpacket.__name__:
            self.seen.add(matmul_precision())
        return func(*args, **(kwargs or {}))


@contextmanager
def lowered(way: str) -> Iterator[None]:
    """Reduced precision asked for in one of torch's ways, and undone."""
    newer = hasattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision")
    if way != "older settings" and not newer:
        pytest.skip("torch before 2.9 has the older settings only")
    try:
        if way != "newer settings":
            torch.set_float32_matmul_precision("medium")
        if way != "older settings":
            torch.backends.mkldnn.matmul.fp32_precision = "tf32" if way == "both" else "bf16"
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        if newer:
            torch.backends.mkldnn.matmul.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "none"


@pytest.mark.parametrize("way", ["older settings", "newer settings", "both"])
@given(draws, st.sampled_from(list(CALLS)))
def test_products_are_of_full_precision_whatever_the_caller_has_set_and_the_settings_come_back(
    way: str, data: DataObject, operation: str
) -> None:
    _, arrays, options = data.draw(CALLS[operation]("float32"))
    arguments = tuple(map(tensor, arrays))
    with lowered(way):
        before = matmul_precision()
        with Products() as products:
            results(operation, arguments, options)
        assert matmul_precision() == before not in ("none", "ieee", "highest")
    assert products.seen.issubset({"ieee", "highest"})
    assert products.seen or operation not in ("gram", "weight_gradient", "kernel_sgd_step")


@EVERY_OPERATION
@given(draws)
def test_autocast_changes_no_bit(operation: str, data: DataObject) -> None:
    _, arrays, options = data.draw(CALLS[operation]("float32"))
    arguments = tuple(map(tensor, arrays))
    plain = results(operation, arguments, options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = results(operation, arguments, options)
        assert torch.is_autocast_enabled("cpu")
    assert all(map(same_bits, plain, cast))


@pytest.mark.gpu
@EVERY_OPERATION
@given(draws)
def test_tf32_changes_no_bit_on_a_gpu(operation: str, data: DataObject) -> None:
    _, arrays, options = data.draw(CALLS[operation]("float32"))
    arguments = tuple(torch_ops.on("cuda").from_numpy(array, "float32") for array in arrays)
    plain = results(operation, arguments, options)
    with lowered("older settings"):
        lower = results(operation, arguments, options)
    assert all(map(same_bits, plain, lower))


# Derivatives


@given(strategies.logits_and_labels())
def test_returned_gradient_is_autograds_gradient_of_the_loss(call: tuple[Array, Array]) -> None:
    logits, labels = call
    f = tensor(logits).requires_grad_()
    loss, gradient = torch_ops.softmax_cross_entropy(f, tensor(labels))
    (automatic,) = torch.autograd.grad(loss, f)
    ratios.assert_within(ratios.loss_gradient(computed(automatic), computed(gradient), logits, labels))


@given(strategies.sizes(4), strategies.sizes(4), strategies.seeds())
def test_loss_and_gradient_pass_gradcheck(m: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    f, y = tensor(rng.standard_normal((m, classes))).requires_grad_(), tensor(rng.integers(classes, size=m))
    for output in range(2):
        assert torch.autograd.gradcheck(lambda f, i=output: torch_ops.softmax_cross_entropy(f, y)[i], f)


@given(strategies.kernels(), strategies.sizes(3), strategies.sizes(2), strategies.seeds())
def test_gram_and_its_inverse_pass_gradcheck(options: dict[str, Any], m: int, d: int, seed: int) -> None:
    X = tensor(np.random.default_rng(seed).standard_normal((m, d))).requires_grad_()
    assert torch.autograd.gradcheck(lambda X: torch_ops.gram(X, **options), X)
    assert torch.autograd.gradcheck(lambda X: torch_ops.inverse_gram(torch_ops.gram(X), ridge=1.0), X)


@given(strategies.sizes(2), strategies.sizes(3), strategies.sizes(4), strategies.seeds())
def test_step_passes_gradcheck_back_to_the_inverse(classes: int, d_in: int, m: int, seed: int) -> None:
    shapes = (classes, d_in), (m, classes), (m, d_in), (m, m)
    arrays = [tensor(np.random.default_rng(seed).standard_normal(shape)).requires_grad_() for shape in shapes]

    def step(W: torch.Tensor, dlogits: torch.Tensor, features: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        P = torch_ops.reshape_inverse(inverse, d_in)
        return torch_ops.kernel_sgd_step(W, torch_ops.weight_gradient(dlogits, features), P, 0.1)

    assert torch.autograd.gradcheck(step, arrays)
