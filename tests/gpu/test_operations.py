"""The torch operations: the reference within rounding, and what the contract says of members, memory and precision."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

import reference
from gpu import torch_ops
from tests.support import ratios, strategies

Array = NDArray[Any]
Call = tuple[tuple[Array, ...], dict[str, Any]]

FLOATS = pytest.mark.parametrize("dtype", ["float64", "float32"])
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": torch.clone,
    "transposed": lambda t: t.mT.contiguous().mT if t.ndim > 1 else t,
    "strided": lambda t: t.repeat_interleave(2, -1)[..., ::2],
}
layouts = st.sampled_from(sorted(LAYOUTS))
draws = st.data()


def tensor(array: Array, layout: str = "contiguous") -> torch.Tensor:
    return LAYOUTS[layout](torch_ops.from_numpy(array, "float32" if array.dtype == np.float32 else "float64"))


def computed(result: torch.Tensor) -> Array:
    return torch_ops.to_numpy(result)


@st.composite
def gram_calls(draw: st.DrawFn, dtype: str) -> Call:
    """Data, one matrix or several, and the keywords of a kernel that does not overflow on them."""
    options = draw(strategies.kernels())
    kinds = strategies.BOUNDED_KINDS if options["kernel"] == "polynomial" else strategies.DATA_KINDS
    members = strategies.data_matrices(dtype, draw(strategies.INSTANCES), draw(strategies.FEATURES), kinds)
    return (draw(members | strategies.stacks(members)),), options


@st.composite
def inverse_calls(draw: st.DrawFn, dtype: str) -> Call:
    """Well-posed members, one or several, and a ridge that is nothing to them or much."""
    members = strategies.gram_matrices(dtype, draw(strategies.INSTANCES))
    H = draw(members | strategies.stacks(members))
    return (H,), {"ridge": draw(st.sampled_from((0.0, 0.5, 2.0))) * float(H.max())}


@st.composite
def pseudoinverse_calls(draw: st.DrawFn, dtype: str) -> Call:
    """Members of one size, singular ones among them."""
    m = draw(strategies.INSTANCES)
    members = strategies.gram_matrices(dtype, m) | strategies.singular_gram_matrices(dtype, m)
    return (draw(members | strategies.stacks(members)),), {"singular": "pinv"}


@st.composite
def reshape_calls(draw: st.DrawFn, dtype: str) -> Call:
    members = strategies.gram_matrices(dtype, draw(strategies.INSTANCES))
    return (draw(members | strategies.stacks(members)),), {"d_in": draw(strategies.sizes())}


@st.composite
def weight_gradient_calls(draw: st.DrawFn, dtype: str) -> Call:
    m = draw(strategies.INSTANCES)
    return (draw(strategies.matrices(dtype, m)), draw(strategies.features(dtype, m))), {}


CALLS: dict[str, Callable[[str], SearchStrategy[Call]]] = {
    "gram": gram_calls,
    "inverse_gram": lambda dtype: inverse_calls(dtype) | pseudoinverse_calls(dtype),
    "reshape_inverse": reshape_calls,
    "softmax_cross_entropy": lambda dtype: strategies.logits_and_labels(dtype).map(lambda call: (call, {})),
    "weight_gradient": weight_gradient_calls,
    "kernel_sgd_step": lambda dtype: strategies.step_inputs(dtype).map(lambda call: (call[:3], {"lr": call.lr})),
}
EVERY_OPERATION = pytest.mark.parametrize("operation", CALLS)


def results(operation: str, arguments: tuple[torch.Tensor, ...], options: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    found = getattr(torch_ops, operation)(*arguments, **options)
    return found if isinstance(found, tuple) else (found,)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one, other))


# Agreement with the reference


@FLOATS
@given(draws, layouts)
def test_gram_is_the_references(dtype: str, data: DataObject, layout: str) -> None:
    (X,), options = data.draw(gram_calls(dtype))
    H = computed(torch_ops.gram(tensor(X, layout), **options))
    ratios.assert_within(ratios.gram(H, reference.gram(X, **options), X, **options))


@FLOATS
@given(draws, layouts)
def test_inverse_is_the_references_and_solves_its_equation(dtype: str, data: DataObject, layout: str) -> None:
    (H,), options = data.draw(inverse_calls(dtype))
    X = computed(torch_ops.inverse_gram(tensor(H, layout), **options))
    exact = reference.inverse_gram(H, **options)
    ratios.assert_within(ratios.inverse_backward(X, H, **options), ratios.inverse_forward(X, exact, H, **options))


@FLOATS
@given(draws, layouts)
def test_pseudoinverse_is_the_references_and_fulfils_penroses_equations(
    dtype: str, data: DataObject, layout: str
) -> None:
    H = data.draw(strategies.singular_gram_matrices(dtype, strategies.sizes(12)))
    X = computed(torch_ops.inverse_gram(tensor(H, layout), singular="pinv"))
    exact = reference.inverse_gram(H, singular="pinv")
    # The equations alone would let pass the inverse of a nearby regular matrix, whose norm is huge.
    ratios.assert_within(*ratios.pseudoinverse(X, H), ratios.inverse_forward(X, exact, H))


@FLOATS
@given(draws, layouts)
def test_reshaped_inverse_is_the_references_bit_for_bit(dtype: str, data: DataObject, layout: str) -> None:
    (H,), options = data.draw(reshape_calls(dtype))
    P = computed(torch_ops.reshape_inverse(tensor(H, layout), **options))
    assert P.dtype == dtype
    assert np.array_equal(P, reference.reshape_inverse(H, **options))


@FLOATS
@given(draws, layouts)
def test_loss_and_its_gradient_are_the_references(dtype: str, data: DataObject, layout: str) -> None:
    logits, labels = data.draw(strategies.logits_and_labels(dtype))
    loss, gradient = torch_ops.softmax_cross_entropy(tensor(logits, layout), tensor(labels, layout))
    exact_loss, exact_gradient = reference.softmax_cross_entropy(logits, labels)
    ratios.assert_within(
        ratios.loss(computed(loss), exact_loss, logits, labels),
        ratios.loss_gradient(computed(gradient), exact_gradient, logits, labels),
    )


@FLOATS
@given(draws, layouts)
def test_weight_gradient_is_the_references(dtype: str, data: DataObject, layout: str) -> None:
    (dlogits, features), _ = data.draw(weight_gradient_calls(dtype))
    G = computed(torch_ops.weight_gradient(tensor(dlogits, layout), tensor(features, layout)))
    ratios.assert_within(ratios.weight_gradient(G, reference.weight_gradient(dlogits, features), dlogits, features))


@FLOATS
@given(draws, layouts)
def test_step_is_the_references(dtype: str, data: DataObject, layout: str) -> None:
    W, grad, P, lr = data.draw(strategies.step_inputs(dtype))
    stepped = computed(torch_ops.kernel_sgd_step(tensor(W, layout), tensor(grad, layout), tensor(P, layout), lr))
    ratios.assert_within(ratios.step(stepped, reference.kernel_sgd_step(W, grad, P, lr), W, grad, P, lr))


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


# Symmetry, members, scale


@st.composite
def rows_of_any_scale(draw: st.DrawFn, dtype: str, degree: int) -> tuple[Array, float]:
    """Rows each of a size of its own, subnormal ones and zeros too; a γ for which the largest products neither vanish
    nor overflow."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(draw(strategies.seeds()))
    sizes = draw(st.lists(st.integers(info.minexp - info.nmant, info.maxexp), min_size=1, max_size=5))
    X = np.ldexp(rng.uniform(-1, 1, (len(sizes), draw(strategies.sizes(4)))), np.array(sizes)[:, None]).astype(dtype)
    X[rng.random(X.shape) < 0.2] = 0
    largest = int(np.frexp(float(abs(X).max()))[1])
    exponent = draw(st.integers(-20, info.maxexp // degree - 8)) - 2 * largest
    gamma = np.ldexp(rng.uniform(0.5, 1), np.clip(exponent, info.minexp + 1, info.maxexp - 1))
    return X, float(gamma.astype(dtype))


@FLOATS
@given(draws, st.integers(1, 3), st.sampled_from((0.0, 1.0, -0.5)))
def test_polynomial_gram_of_rows_of_any_scale_is_the_references(
    dtype: str, data: DataObject, degree: int, coef0: float
) -> None:
    X, gamma = data.draw(rows_of_any_scale(dtype, degree))
    options = {"gamma": gamma, "degree": degree, "coef0": coef0}
    with np.errstate(over="ignore"):
        largest = np.longdouble(gamma) * np.square(X, dtype=np.longdouble).sum(1).max()
        assume((largest + abs(coef0)) ** degree < np.finfo(dtype).max / 2)
    exact = reference.gram(X, "polynomial", **options)
    H = torch_ops.gram(tensor(X), "polynomial", **options)
    assert same_bits(H, H.mT)
    ratios.assert_within(ratios.gram_polynomial(computed(H), exact, X, **options))


@pytest.mark.parametrize(
    ("dtype", "tiny", "huge", "gamma"), [("float32", 1e-30, 1e15, 1e-20), ("float64", 1e-250, 1e150, 1e-150)]
)
def test_polynomial_gram_of_a_tiny_and_a_huge_row_has_the_precision_of_its_dtype(
    dtype: str, tiny: float, huge: float, gamma: float
) -> None:
    X = np.array([[tiny], [huge]], dtype)
    exact = Fraction(gamma) * Fraction(float(X[0, 0])) * Fraction(float(X[1, 0]))
    H = torch_ops.gram(tensor(X), "polynomial", gamma=gamma, degree=1, coef0=0.0)
    assert abs(Fraction(H[0, 1].item()) / exact - 1) < 2 * np.finfo(dtype).eps


@FLOATS
@given(st.integers(1, 40), strategies.kernels(), strategies.seeds())
def test_gram_is_symmetric_and_the_rbf_kernel_one_on_the_diagonal_bit_for_bit(
    dtype: str, m: int, options: dict[str, Any], seed: int
) -> None:
    X = np.random.default_rng(seed).standard_normal((2, m, 3)).astype(dtype)
    H = torch_ops.gram(tensor(X), **options)
    assert same_bits(H, H.mT)
    assert options["kernel"] != "rbf" or bool((H.diagonal(dim1=-2, dim2=-1) == 1).all())


@FLOATS
@given(draws)
def test_inverse_and_pseudoinverse_are_symmetric_bit_for_bit(dtype: str, data: DataObject) -> None:
    members = strategies.gram_matrices(dtype, strategies.sizes(20)) | strategies.singular_gram_matrices(dtype)
    X = torch_ops.inverse_gram(tensor(data.draw(members)), singular="pinv")
    assert same_bits(X, X.mT)


@FLOATS
@given(draws)
def test_gram_of_several_is_the_gram_of_each(dtype: str, data: DataObject) -> None:
    options = data.draw(strategies.kernels())
    m, d = data.draw(strategies.INSTANCES), data.draw(strategies.FEATURES)
    X = data.draw(strategies.stacks(strategies.data_matrices(dtype, m, d, strategies.BOUNDED_KINDS)))
    together = computed(torch_ops.gram(tensor(X), **options))
    for index in np.ndindex(X.shape[:-2]):
        alone = computed(torch_ops.gram(tensor(X[index]), **options))
        ratios.assert_within(ratios.gram(together[index], alone, X[index], **options))


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


@FLOATS
@given(draws)
def test_refused_member_is_named_by_its_index(dtype: str, data: DataObject) -> None:
    m = data.draw(strategies.INSTANCES)
    H = data.draw(strategies.stacks(strategies.gram_matrices(dtype, m)))
    index = data.draw(st.sampled_from(list(np.ndindex(H.shape[:-2]))))
    H[index] = data.draw(strategies.singular_gram_matrices(dtype, m) | strategies.indefinite_matrices(dtype, m))
    with pytest.raises(np.linalg.LinAlgError, match=re.escape(f"member {index}") + ".* eigenvalues"):
        torch_ops.inverse_gram(tensor(H))


@FLOATS
@given(draws)
def test_indefinite_members_have_no_pseudoinverse(dtype: str, data: DataObject) -> None:
    H = data.draw(strategies.indefinite_matrices(dtype))
    with pytest.raises(np.linalg.LinAlgError, match="indefinite"):
        torch_ops.inverse_gram(tensor(H), singular="pinv")


@FLOATS
@given(draws, st.integers(-40, 40))
def test_inverse_of_a_power_of_four_times_h_is_the_inverse_by_it_bit_for_bit(
    dtype: str, data: DataObject, exponent: int
) -> None:
    members = strategies.gram_matrices(dtype, strategies.sizes(12), scale=1.0) | strategies.singular_gram_matrices(
        dtype
    )
    H = tensor(data.draw(members))
    scale = 4.0 ** (exponent if dtype == "float64" else exponent // 2)
    X, scaled = (torch_ops.inverse_gram(factor * H, singular="pinv") for factor in (1.0, scale))
    smallest = torch.finfo(H.dtype).tiny
    assume(all(bool((A[A != 0].abs() >= smallest).all()) for A in (H, H * scale, X, scaled)))  # powers of two are exact
    assert same_bits(scaled * scale, X)


@FLOATS
@given(draws)
def test_lower_triangle_counts_where_symmetry_is_lost_to_rounding(dtype: str, data: DataObject) -> None:
    H = data.draw(strategies.gram_matrices(dtype, scale=1.0))
    perturbed = H + np.triu(np.full_like(H, 20 * np.finfo(dtype).eps * H.max()), 1)
    assert same_bits(torch_ops.inverse_gram(tensor(perturbed)), torch_ops.inverse_gram(tensor(H)))


@FLOATS
@given(draws)
def test_rbf_value_is_zero_where_the_distance_overflows_and_one_for_duplicates(dtype: str, data: DataObject) -> None:
    largest = np.finfo(dtype).max * data.draw(st.sampled_from((1.0, 1e-10)))
    members = strategies.data_matrices(dtype, 4, 2, ("plain", "random"))
    X = data.draw(strategies.stacks(members, st.just((3,))))
    alone = torch_ops.gram(tensor(X[[0, 2]]), gamma=0.1)
    X[1] = data.draw(st.permutations([[largest, 1], [-largest, 1], [largest, 1], [1, 2]]))
    H = torch_ops.gram(tensor(X), gamma=0.1)
    assert same_bits(H[[0, 2]], alone)
    assert np.array_equal(computed(H[1]), (X[1][:, None] == X[1]).all(-1))


# Memory and layout


@EVERY_OPERATION
@given(draws, strategies.dtypes(), layouts)
def test_operation_neither_writes_to_its_inputs_nor_shares_memory_with_them(
    operation: str, data: DataObject, dtype: str, layout: str
) -> None:
    arrays, options = data.draw(CALLS[operation](dtype))
    arguments = tuple(tensor(array, layout) for array in arrays)
    copies, versions = [a.clone() for a in arguments], [a._version for a in arguments]
    found = results(operation, arguments, options)
    assert [a._version for a in arguments] == versions
    assert all(map(same_bits, arguments, copies))
    storages = [t.untyped_storage().data_ptr() for t in (*arguments, *found)]
    assert len(set(storages)) == len(storages)


@EVERY_OPERATION
@given(draws, strategies.dtypes())
def test_result_has_the_dtype_and_the_device_of_the_arrays(operation: str, data: DataObject, dtype: str) -> None:
    arrays, options = data.draw(CALLS[operation](dtype))
    arguments = tuple(map(tensor, arrays))
    for result in results(operation, arguments, options):
        assert (result.dtype, torch_ops.device(result)) == (arguments[0].dtype, "cpu")


@FLOATS
@given(draws, st.sampled_from("CF"), st.sampled_from("<>"), st.booleans())
def test_from_numpy_copies_values_in_their_memory_order(
    dtype: str, data: DataObject, order: str, endianness: str, writeable: bool
) -> None:
    values = data.draw(strategies.matrices("float64"))
    source = np.array(values, dtype=np.dtype("float64").newbyteorder(endianness), order=order)
    source.flags.writeable = writeable
    found = torch_ops.from_numpy(source, dtype)
    assert np.array_equal(computed(found), values.astype(dtype))
    assert found.dtype == getattr(torch, dtype)
    assert all(computed(found).flags[layout] == source.flags[layout] for layout in ("C", "F"))
    found.fill_(torch.pi)
    assert np.array_equal(source, values)


@given(strategies.logits_and_labels(), st.sampled_from("iu"), st.sampled_from((1, 2, 4, 8)), st.sampled_from("<>"))
def test_labels_of_every_width_stay_integers_and_mean_the_same(
    call: tuple[Array, Array], kind: str, width: int, endianness: str
) -> None:
    logits, labels = call
    narrow = torch_ops.from_numpy(labels.astype(f"{endianness}{kind}{width}"), "float64")
    assert computed(narrow).dtype == f"{kind}{width}"
    found, expected = (torch_ops.softmax_cross_entropy(tensor(logits), y) for y in (narrow, tensor(labels)))
    assert all(map(same_bits, found, expected))


def test_backend_on_a_device_has_the_names_of_the_contract() -> None:
    backend = torch_ops.on("cpu")
    assert (backend.name, backend.dtypes) == (torch_ops.name, torch_ops.dtypes)
    assert all(getattr(backend, operation) is getattr(torch_ops, operation) for operation in CALLS)
    assert backend.device(backend.from_numpy(np.eye(2), "float32")) == "cpu"


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
    arrays, options = data.draw(CALLS[operation]("float32"))
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
    arrays, options = data.draw(CALLS[operation]("float32"))
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
    arrays, options = data.draw(CALLS[operation]("float32"))
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
