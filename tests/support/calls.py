"""Calls of the operations as Hypothesis strategies: what the backend contract lets each take, ordinary and nasty.

A call is data: the operation's name, its arrays as NumPy's, its other arguments. Whoever runs it decides on which
backend. The arrays fit the precision asked for, and no result overflows. What a call returns has known shapes, and its
distance from what it should return is a ratio.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from numpy.typing import NDArray

from tests.support import ratios, strategies
from tests.support.ratios import Ratio

Array = NDArray[Any]


class Call(NamedTuple):
    """operation(*arrays, **options)."""

    operation: str
    arrays: tuple[Array, ...]
    options: dict[str, Any]


@st.composite
def gram_calls(draw: DrawFn, dtype: str, *kernels: str, batched: bool = True) -> Call:
    """Data, one matrix or, where `batched`, several too, and the keywords of a kernel, one of the named, that does not
    overflow on them."""
    options = draw(strategies.kernels(*kernels))
    kinds = strategies.BOUNDED_KINDS if options["kernel"] == "polynomial" else strategies.DATA_KINDS
    members = strategies.data_matrices(dtype, draw(strategies.INSTANCES), draw(strategies.FEATURES), kinds)
    return Call("gram", (draw(members | strategies.stacks(members) if batched else members),), options)


@st.composite
def polynomial_calls_of_any_scale(draw: DrawFn, dtype: str) -> Call:
    """Rows each of a size of its own, subnormal ones and zeros too; a γ for which no result overflows."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(draw(strategies.seeds()))
    sizes = draw(st.lists(st.integers(info.minexp - info.nmant, info.maxexp), min_size=1, max_size=5))
    X = np.ldexp(rng.uniform(-1, 1, (len(sizes), draw(strategies.sizes(4)))), np.array(sizes)[:, None]).astype(dtype)
    X[rng.random(X.shape) < 0.2] = 0
    degree, coef0 = draw(st.integers(1, 3)), draw(st.sampled_from((0.0, 1.0, -0.5)))
    # Largest γ‖x‖²: from far below coef0 up to some bits short of overflow.
    exponent = draw(st.integers(-20, info.maxexp // degree - 8)) - 2 * int(np.frexp(float(abs(X).max()))[1])
    gamma = np.ldexp(rng.uniform(0.5, 1), np.clip(exponent, info.minexp + 1, info.maxexp - 1)).astype(dtype)
    with np.errstate(over="ignore"):
        largest = np.longdouble(gamma) * np.square(X, dtype=np.longdouble).sum(1).max()
        assume((largest + abs(coef0)) ** degree < info.max / 2)
    return Call("gram", (X,), {"kernel": "polynomial", "gamma": float(gamma), "degree": degree, "coef0": coef0})


@st.composite
def inverse_calls(draw: DrawFn, dtype: str) -> Call:
    """Well-posed members, one or several, and a ridge that is nothing to them or much."""
    members = strategies.gram_matrices(dtype, draw(strategies.sizes(12)))
    H = draw(members | strategies.stacks(members))
    return Call("inverse_gram", (H,), {"ridge": draw(st.sampled_from((0.0, 0.5, 2.0))) * float(H.max())})


@st.composite
def pseudoinverse_calls(draw: DrawFn, dtype: str) -> Call:
    """Members of one size, singular ones among them."""
    m = draw(strategies.INSTANCES)
    members = strategies.gram_matrices(dtype, m) | strategies.singular_gram_matrices(dtype, m)
    return Call("inverse_gram", (draw(members | strategies.stacks(members)),), {"singular": "pinv"})


@st.composite
def reshape_calls(draw: DrawFn, dtype: str) -> Call:
    """m × m members, one or several, and a d_in from 1 to 3·m."""
    m = draw(strategies.INSTANCES)
    members = strategies.gram_matrices(dtype, m)
    d_in = draw(st.integers(1, 3 * m))
    return Call("reshape_inverse", (draw(members | strategies.stacks(members)),), {"d_in": d_in})


@st.composite
def weight_gradient_calls(draw: DrawFn, dtype: str, instances: SearchStrategy[int] = strategies.INSTANCES) -> Call:
    m = draw(instances)
    return Call("weight_gradient", (draw(strategies.matrices(dtype, m)), draw(strategies.features(dtype, m))), {})


def loss_calls(dtype: str) -> SearchStrategy[Call]:
    return strategies.logits_and_labels(dtype).map(lambda call: Call("softmax_cross_entropy", call, {}))


def step_calls(dtype: str) -> SearchStrategy[Call]:
    return strategies.step_inputs(dtype).map(lambda call: Call("kernel_sgd_step", call[:3], {"lr": call.lr}))


CALLS: dict[str, Callable[[str], SearchStrategy[Call]]] = {
    "gram": gram_calls,
    "inverse_gram": lambda dtype: inverse_calls(dtype) | pseudoinverse_calls(dtype),
    "reshape_inverse": reshape_calls,
    "softmax_cross_entropy": loss_calls,
    "weight_gradient": weight_gradient_calls,
    "kernel_sgd_step": step_calls,
}


def result_shapes(call: Call) -> tuple[tuple[int, ...], ...]:
    """The shapes of the operation's results."""
    shapes = [np.shape(array) for array in call.arrays]
    if call.operation == "gram":
        return ((*shapes[0][:-1], shapes[0][-2]),)
    if call.operation == "reshape_inverse":
        d_in = int(call.options["d_in"])
        return ((*shapes[0][:-2], d_in, d_in),)
    if call.operation == "softmax_cross_entropy":
        return (), shapes[0]
    if call.operation == "weight_gradient":
        return ((shapes[0][1], shapes[1][1]),)
    return (shapes[0],)


def errors(call: Call, found: Any, expected: Any) -> tuple[Ratio, ...]:
    """How far what a call returned is from what it should have; an inverse's error is the forward one."""
    arrays, options = call.arrays, call.options
    if call.operation == "gram":
        return (ratios.gram(found, expected, *arrays, **options),)
    if call.operation == "inverse_gram":
        return (ratios.inverse_forward(found, expected, *arrays, ridge=options.get("ridge", 0.0)),)
    if call.operation == "softmax_cross_entropy":
        (loss, gradient), (exact_loss, exact_gradient) = found, expected
        return ratios.loss(loss, exact_loss, *arrays), ratios.loss_gradient(gradient, exact_gradient, *arrays)
    if call.operation == "weight_gradient":
        return (ratios.weight_gradient(found, expected, *arrays),)
    if call.operation == "kernel_sgd_step":
        return (ratios.step(found, expected, *arrays, options["lr"]),)
    return (ratios.identical("reshaped inverse", found, expected),)
