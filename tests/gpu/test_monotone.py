"""step_rule="monotone": the last layer's step, taken alone, does not raise the mini-batch's loss.

The loss is evaluated beside the optimizer, in the widest float there is; what the rounding of the new weights may add
to it is bounded, not guessed: the loss is convex in the last layer, so that J(Ŵ) − J(W) ≤ ⟨|∇J(Ŵ)|, |Ŵ − W|⟩.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

import reference
from gpu.optim import CachedInverse, KernelCache, KernelSGD, kernel_groups, mini_batches
from gpu.optim.monotone import monotone_learning_rate
from gpu.optim.watch import Seen
from reference.conditions import sharp_learning_rate
from reference.network import initial_layers
from tests.gpu.networks import backward, network, random, tensor
from tests.support import ratios, strategies

Array = NDArray[np.floating]
Wide = NDArray[np.longdouble]

RATES = (0.01, 1.0, 100.0, 1e6)


class Case(NamedTuple):
    """A last layer over features Z with labels y, and the inverse that preconditions it."""

    Z: Array
    y: NDArray[np.integer]
    W: Array
    b: Array
    inverse: Array


@st.composite
def cases(draw: DrawFn, dtype: str = "float64") -> Case:
    """Features and weights of any size, logits up to about 1e4, inverses as badly conditioned as the dtype allows."""
    m, d_in, classes = draw(strategies.INSTANCES), draw(strategies.FEATURES), draw(strategies.CLASSES)
    Z = draw(strategies.features(dtype, m, d_in))
    W, b = draw(strategies.matrices(dtype, classes, d_in)), draw(strategies.matrices(dtype, 1, classes))[0]
    spread = max(1, abs(Z @ W.T + b).max() / 1e4)
    instances = draw(strategies.sizes(8))
    inverse = draw(strategies.gram_matrices(dtype, instances, scale=st.sampled_from((1e-3, 1.0, 1e3))))
    return Case(Z, draw(strategies.labels(m, classes)), (W / spread).astype(dtype), (b / spread).astype(dtype), inverse)


def linear(case: Case, bias: bool) -> nn.Linear:
    dtype = getattr(torch, case.W.dtype.name)
    layer = nn.Linear(case.W.shape[1], len(case.W), bias=bias, dtype=dtype)
    layer.load_state_dict({"weight": tensor(case.W, dtype)} | ({"bias": tensor(case.b, dtype)} if bias else {}))
    return layer


def parameters(layer: nn.Linear) -> Wide:
    """[W, b] or W."""
    parts = [p.detach().double().numpy() for p in layer.parameters()]
    return np.column_stack(parts).astype(np.longdouble)


def loss_and_gradient(parameters: Wide, Z: Array, y: NDArray[np.integer], decay: float) -> tuple[np.longdouble, Wide]:
    """Mean cross-entropy + λ/2·‖parameters‖² and its gradient, in the widest float."""
    features = np.column_stack((Z, np.ones(len(Z))))[:, : parameters.shape[1]].astype(np.longdouble)
    f = features @ parameters.T
    f = f - f.max(1, keepdims=True)
    label = np.eye(f.shape[1])[y]
    total = np.exp(f).sum(1, keepdims=True)
    loss = (np.log(total) - f[label > 0][:, None]).mean() + decay / 2 * (parameters**2).sum()
    return loss, (np.exp(f) / total - label).T @ features / len(Z) + decay * parameters


def rounding(before: Wide, after: Wide, gradient: Wide, u: float) -> np.longdouble:
    """What rounding may have added to the loss: a product and a sum for every parameter."""
    return (abs(gradient) * u * (abs(after - before) + 2 * abs(after))).sum()


def assert_does_not_rise(layer: nn.Linear, before: Wide, Z: Array, y: NDArray[np.integer], decay: float) -> None:
    after = parameters(layer)
    assert np.isfinite(after).all()
    old, _ = loss_and_gradient(before, Z, y, decay)
    new, gradient = loss_and_gradient(after, Z, y, decay)
    u = torch.finfo(layer.weight.dtype).eps / 2
    evaluation = (
        64 * float(np.finfo(np.longdouble).eps) * (1 + abs(old) + abs(new)) * (1 + abs(Z).max() * abs(after).max())
    )
    assert new <= old + rounding(before, after, gradient, u) + evaluation


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", ["plain", "augmented", None])
@given(
    data=st.data(),
    lr=st.sampled_from(RATES),
    weight_decay=st.sampled_from((0.0, 1e-4, 1.0)),
    decay=st.sampled_from(("l2", "decoupled")),
)
def test_a_monotone_step_of_the_last_layer_does_not_raise_the_loss(
    dtype: str, bias: Any, data: st.DataObject, lr: float, weight_decay: float, decay: Any
) -> None:
    case = data.draw(cases(dtype))
    layer = linear(case, bias is not None)
    options: dict[str, Any] = {"weight_decay": weight_decay, "decay": decay, "bias": bias or "plain"}
    optimizer = KernelSGD(kernel_groups(layer), lr, model=layer, step_rule="monotone", **options)
    before = parameters(layer)
    backward(layer, tensor(case.Z, dtype), tensor(case.y, torch.int64))
    optimizer.step(inverse=CachedInverse.unchecked(tensor(case.inverse, dtype)))
    assert_does_not_rise(layer, before, case.Z, case.y, weight_decay)


def residual(case: Case, bias: bool) -> tuple[Array, Array]:
    """The logits and softmax − one-hot, its entry at the label without the cancellation of p − 1."""
    logits = case.Z @ case.W.T + bias * case.b
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    R = np.where(np.eye(logits.shape[1])[case.y] > 0, 0, shifted / shifted.sum(1, keepdims=True))
    R[np.arange(len(R)), case.y] = -R.sum(1)
    return logits, R


@given(case=cases(), bias=st.booleans())
def test_the_cap_is_the_sharp_learning_rate_less_its_margin(case: Case, bias: bool) -> None:
    """8⟨R, KR⟩/Σ range((KR)_k)². The margin is 2⁻³⁰ of the slope's absolute terms; where cancellation leaves less than
    two digits of the slope or of the ranges, there is nothing to compare."""
    (m, d_in), (logits, R) = case.Z.shape, residual(case, bias)
    P = reference.reshape_inverse(case.inverse, d_in)
    direction = [R.T @ case.Z / m @ P, R.mean(0)][: 1 + bias]
    seen = Seen(*map(tensor, (case.Z, logits, R / m)))
    params = [tensor(p) for p in (case.W, case.b)[: 1 + bias]]
    computed = monotone_learning_rate(seen, params, [tensor(d) for d in direction], 0.0)

    features, D = np.column_stack((case.Z, np.ones(m)))[:, : d_in + bias], np.column_stack(direction)
    change = features @ D.T
    spread = change.max(1) - change.min(1)
    lost = 4 * (d_in + m + 4) * 2**-53 * ((abs(case.Z) @ abs(P) @ abs(case.Z).T + bias) / m @ abs(R))
    margin = 2**-29 * (abs(R).T @ abs(features) * abs(D)).sum() + (abs(R) * lost).sum()
    relative = margin / max((R * change).sum(), 1e-300)
    relative += 4 * (spread * lost.max(1)).sum() / max((spread**2).sum(), 1e-300) + 2**-28
    assume(relative < 0.01)
    exact = sharp_learning_rate(case.Z, P, R, bias=bias)
    assert computed == exact or abs(computed - exact) <= relative * exact


@given(case=cases(), lr=st.sampled_from(RATES), bias=st.booleans())
def test_below_half_the_cap_the_step_is_the_ordinary_one(case: Case, lr: float, bias: bool) -> None:
    d_in = case.Z.shape[1]
    layer = linear(case, bias)
    optimizer = KernelSGD(kernel_groups(layer), lr, model=layer, step_rule="monotone")
    backward(layer, tensor(case.Z), tensor(case.y, torch.int64))
    P, G = reference.reshape_inverse(case.inverse, d_in), layer.weight.grad.numpy().copy()
    cap = sharp_learning_rate(case.Z, P, residual(case, bias)[1], bias=bias)
    assume(lr <= cap / 2)
    optimizer.step(inverse=CachedInverse.unchecked(tensor(case.inverse)))
    expected = reference.kernel_sgd_step(case.W, G, P, lr)
    ratios.assert_within(ratios.step(layer.weight.detach().numpy(), expected, case.W, G, P, lr))


@pytest.mark.parametrize("bias", ["plain", "augmented"])
@given(
    case=cases(),
    lr=st.sampled_from(RATES),
    weight_decay=st.sampled_from((0.0, 1e-4, 1.0)),
    decay=st.sampled_from(("l2", "decoupled")),
)
def test_a_monotone_step_is_a_part_of_the_ordinary_step(
    bias: Any, case: Case, lr: float, weight_decay: float, decay: Any
) -> None:
    """W' = W + t·(W'' − W) with 0 ≤ t ≤ 1, W'' where the constant rule goes, but for the roundings of both."""
    ends = []
    for rule in ("constant", "monotone"):
        layer = linear(case, bias=True)
        options: dict[str, Any] = {"weight_decay": weight_decay, "decay": decay, "bias": bias, "step_rule": rule}
        optimizer = KernelSGD(kernel_groups(layer), lr, model=layer, **options)
        start = parameters(layer)
        backward(layer, tensor(case.Z), tensor(case.y, torch.int64))
        optimizer.step(inverse=CachedInverse.unchecked(tensor(case.inverse)))
        ends.append(parameters(layer) - start)
    whole, part = ends
    squared = max((whole**2).sum(), 1e-300)
    t = np.clip((whole * part).sum() / squared, 0, 1)
    gradient = np.column_stack([abs(p.grad.numpy()) for p in layer.parameters()]) + weight_decay * abs(start)
    P = np.eye(start.shape[1])
    k = start.shape[1] - (bias == "plain")
    P[:k, :k] = abs(reference.reshape_inverse(case.inverse, k))
    size = abs(start) + t * lr * (gradient @ P + weight_decay * abs(start))
    bound = ratios.THRESHOLD * (len(P) + 2) * 2**-53 * size
    # t is off by at most ‖bound‖/‖whole‖.
    assert (abs(part - t * whole) <= bound + abs(whole) * np.sqrt((bound**2).sum() / squared)).all()


def test_a_constant_learning_rate_does_raise_the_loss() -> None:
    """One instance, two classes, P = I: the step throws the logits far to the side of the label; two are at odds."""
    Z, y = np.array([[1.0], [1.0]]), np.array([0, 1])
    case = Case(Z, y, np.array([[1.0], [0.0]]), np.zeros(2), np.eye(1))
    raised = []
    for rule in ("constant", "monotone"):
        layer = linear(case, bias=False)
        optimizer = KernelSGD(kernel_groups(layer), 1e6, model=layer, step_rule=rule)
        before, _ = loss_and_gradient(parameters(layer), Z, y, 0.0)
        backward(layer, tensor(Z), tensor(y, torch.int64))
        optimizer.step(inverse=CachedInverse.unchecked(torch.eye(1, dtype=torch.float64)))
        after, _ = loss_and_gradient(parameters(layer), Z, y, 0.0)
        raised.append(after > before)
    assert raised == [True, False]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", ["plain", "augmented"])
def test_training_with_earlier_layers_at_rest_never_raises_a_mini_batch_loss(dtype: str, bias: Any) -> None:
    """η = 1e6, real inverses of the raw inputs, γ small enough that they are badly conditioned."""
    kind = getattr(torch, dtype)
    model = network(initial_layers((8, 12, 6, 4), seed=0), kind)
    groups = kernel_groups(model, weight_decay=1e-3, bias=bias, step_rule="monotone")
    groups[-1]["lr"] = 0.0
    optimizer = KernelSGD(groups, 1e6, model=model)
    X, y = random(40, 8, dtype=kind), torch.arange(40) % 4
    cache = KernelCache(X, mini_batches(40, 9, seed=0), gamma=1e-4)
    losses = []
    for _ in range(5):
        for x, labels, inverse in cache.batches(X, y):
            optimizer.zero_grad()
            losses.append(backward(model, x, labels).item())
            before, Z = parameters(model[-1]), model[:-1](x).detach().numpy().copy()
            optimizer.step(inverse=inverse)
            assert_does_not_rise(model[-1], before, Z, labels.numpy(), 1e-3)
    assert min(losses) < losses[0]
    assert optimizer.param_groups[0]["stalled"] < len(losses)


@pytest.mark.parametrize(
    "loss",
    [cross_entropy, nn.CrossEntropyLoss(), lambda f, y: functional.nll_loss(f.log_softmax(1), y)],
    ids=["function", "module", "log-softmax"],
)
def test_mean_cross_entropy_is_accepted_however_it_is_written(loss: Any) -> None:
    layer = nn.Linear(6, 3)
    optimizer = KernelSGD(kernel_groups(layer), 0.1, model=layer, step_rule="monotone")
    loss(layer(random(4, 6, dtype=torch.float32)), torch.tensor([0, 1, 2, 1])).backward()
    optimizer.step(inverse=CachedInverse.unchecked(torch.eye(4)))


OTHER_LOSSES: dict[str, Any] = {
    "sum": lambda f, y: cross_entropy(f, y, reduction="sum"),
    "label smoothing": lambda f, y: cross_entropy(f, y, label_smoothing=0.1),
    "class weights": lambda f, y: cross_entropy(f, y, weight=torch.tensor([1.0, 2.0, 3.0]).double()),
    "ignored instances": lambda f, y: cross_entropy(f, y, ignore_index=1),
    "twice": lambda f, y: 2 * cross_entropy(f, y),
    "temperature": lambda f, y: cross_entropy(f / 2, y),
    "mean square": lambda f, y: functional.mse_loss(f, nn.functional.one_hot(y, 3).double()),
    "confidence penalty": lambda f, y: cross_entropy(f, y) + f.softmax(1).square().mean(),
}


@pytest.mark.parametrize("loss", OTHER_LOSSES.values(), ids=OTHER_LOSSES)
def test_any_other_loss_is_refused_and_nothing_moves(loss: Any) -> None:
    layer = nn.Linear(6, 3, dtype=torch.float64)
    optimizer = KernelSGD(kernel_groups(layer), 0.1, model=layer, step_rule="monotone")
    before = parameters(layer)
    loss(layer(random(4, 6)), torch.tensor([0, 1, 2, 1])).backward()
    with pytest.raises(ValueError, match="mean softmax cross-entropy"):
        optimizer.step(inverse=CachedInverse.unchecked(torch.eye(4).double()))
    assert (parameters(layer) == before).all()


@pytest.mark.parametrize("passes", [0, 2])
def test_one_backward_pass_is_required_since_the_last_step(passes: int) -> None:
    layer = nn.Linear(6, 3, dtype=torch.float64)
    optimizer = KernelSGD(kernel_groups(layer), 0.1, model=layer, step_rule="monotone")
    x, y, inverse = random(4, 6), torch.tensor([0, 1, 2, 1]), CachedInverse.unchecked(torch.eye(4).double())
    backward(layer, x, y)
    optimizer.step(inverse=inverse)
    for _ in range(passes):
        backward(layer, x, y)
    with pytest.raises(ValueError, match=f"one backward pass .*got {passes}"):
        optimizer.step(inverse=inverse)


def test_without_a_watched_model_a_monotone_step_is_an_error() -> None:
    layer = nn.Linear(6, 3, dtype=torch.float64)
    optimizer = KernelSGD(kernel_groups(layer), 0.1, step_rule="monotone")
    backward(layer, random(4, 6), torch.tensor([0, 1, 2, 1]))
    with pytest.raises(ValueError, match="model="):
        optimizer.step(inverse=CachedInverse.unchecked(torch.eye(4).double()))


def test_a_layer_that_joins_later_is_not_bounded_by_the_one_that_is_watched() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    optimizer = KernelSGD(kernel_groups(model[2:]), 0.1, model=model, step_rule="monotone")
    optimizer.add_param_group({"params": [model[0].weight], "preconditioned": True})
    before = parameters(model[0]), parameters(model[2])
    backward(model, random(4, 6), torch.tensor([0, 1, 2, 1]))
    with pytest.raises(ValueError, match="watched layer"):
        optimizer.step(inverse=CachedInverse.unchecked(torch.eye(4).double()))
    assert (parameters(model[0]) == before[0]).all()
    assert (parameters(model[2]) == before[1]).all()


def test_accumulated_gradients_have_no_bound() -> None:
    layer = nn.Linear(6, 3)
    optimizer = KernelSGD(kernel_groups(layer), model=layer, step_rule="monotone")
    with pytest.raises(RuntimeError, match="accumulate"), optimizer.accumulate(CachedInverse.unchecked(torch.eye(4))):
        pass


def test_a_layer_called_by_keyword_is_bounded_as_one_called_by_position() -> None:
    class ByKeyword(nn.Linear):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return super().__call__(input=x)

    torch.manual_seed(0)
    layer, twin = nn.Linear(6, 3), ByKeyword(6, 3)
    twin.load_state_dict(layer.state_dict())
    x = random(4, 6, dtype=torch.float32)
    for each in (layer, twin):
        optimizer = KernelSGD(kernel_groups(each), 1e6, model=each, step_rule="monotone")
        backward(each, x, torch.tensor([0, 1, 2, 0]))
        optimizer.step(inverse=CachedInverse.unchecked(torch.eye(4)))
    assert torch.equal(layer.weight, twin.weight)


@pytest.mark.parametrize("shape", [(4, 2, 6), (6,)], ids=str)
def test_features_and_logits_are_matrices_or_nothing_moves(shape: tuple[int, ...]) -> None:
    layer = nn.Linear(6, 3)
    optimizer = KernelSGD(kernel_groups(layer), model=layer, step_rule="monotone")
    before = parameters(layer)
    logits = layer(random(*shape, dtype=torch.float32))
    cross_entropy(logits.reshape(-1, 3), torch.arange(logits.numel() // 3) % 3).backward()
    with pytest.raises(ValueError, match=r"expected features \(m, d_in\) and logits"):
        optimizer.step(inverse=CachedInverse.unchecked(torch.eye(4)))
    assert (parameters(layer) == before).all()


def models_without_one_bounded_layer() -> dict[str, tuple[nn.Module, str]]:
    tied = nn.Sequential(nn.Embedding(3, 6), nn.Linear(6, 3))
    tied[1].weight = tied[0].weight
    return {
        "two layers": (nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)), "all"),
        "a convolution": (nn.Conv1d(6, 3, 1), "all"),
        "a tied weight": (tied, "last"),
    }


@pytest.mark.parametrize(
    ("model", "layers"), models_without_one_bounded_layer().values(), ids=models_without_one_bounded_layer()
)
def test_only_one_linear_layer_that_nobody_shares_can_be_bounded(model: nn.Module, layers: Any) -> None:
    with pytest.raises(ValueError, match=r"one nn.Linear of the model"):
        KernelSGD(kernel_groups(model, layers), model=model, step_rule="monotone")


def test_a_layer_of_another_model_cannot_be_bounded() -> None:
    with pytest.raises(ValueError, match=r"one nn.Linear of the model"):
        KernelSGD(kernel_groups(nn.Linear(6, 3)), model=nn.Linear(6, 3), step_rule="monotone")


@pytest.mark.parametrize("bias", ["plain", "augmented"])
def test_under_an_indefinite_inverse_the_layer_stays_and_is_counted(bias: Any) -> None:
    """G·P = −G·|P| on this gradient, so that the step would climb; the other layers move."""
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    optimizer = KernelSGD(kernel_groups(model, bias=bias, weight_decay=0.1), model=model, step_rule="monotone")
    inverse = CachedInverse.unchecked(-100 * torch.eye(7).double())
    for times in (1, 2):
        optimizer.zero_grad()
        before = [p.detach().clone() for p in model.parameters()]
        backward(model, random(4, 5), torch.tensor([0, 1, 2, 1]))
        optimizer.step(inverse=inverse)
        stayed = [torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
        assert stayed == [False, False, True, True]
        assert optimizer.state_dict()["param_groups"][0]["stalled"] == times


def test_a_step_that_overflows_leaves_the_layer_where_it_is() -> None:
    layer = nn.Linear(2, 2, bias=False)
    optimizer = KernelSGD(kernel_groups(layer), 1e6, model=layer, step_rule="monotone")
    before = parameters(layer)
    x = torch.tensor([[1e4, 0.0], [0.0, 1e4]])
    backward(layer, x, torch.tensor([0, 1]))
    optimizer.step(inverse=CachedInverse.unchecked(torch.full((2, 2), 3e38)))
    assert (parameters(layer) == before).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sure_predictions_are_not_mistaken_for_another_loss(dtype: torch.dtype) -> None:
    """The gradient at the label is 0 where every other probability is below u, and some of those are 0 too."""
    layer = nn.Linear(1, 3, bias=False, dtype=dtype)
    layer.load_state_dict({"weight": torch.tensor([[-900.0], [0.0], [-40.0]])})
    optimizer = KernelSGD(kernel_groups(layer), 1.0, model=layer, step_rule="monotone")
    before = parameters(layer)
    Z, y = torch.ones(2, 1, dtype=dtype), torch.tensor([1, 1])
    backward(layer, Z, y)
    optimizer.step(inverse=CachedInverse.unchecked(torch.eye(2, dtype=dtype)))
    assert_does_not_rise(layer, before, Z.numpy(), y.numpy(), 0.0)


@given(case=cases(), lr=st.sampled_from(RATES))
def test_a_bias_that_does_not_move_with_the_layer_is_part_of_its_logits(case: Case, lr: float) -> None:
    layer = linear(case, bias=True)
    layer.bias.requires_grad_(False)
    optimizer = KernelSGD(kernel_groups(layer), lr, model=layer, step_rule="monotone")
    before = parameters(layer)
    backward(layer, tensor(case.Z), tensor(case.y, torch.int64))
    optimizer.step(inverse=CachedInverse.unchecked(tensor(case.inverse)))
    assert_does_not_rise(layer, before, case.Z, case.y, 0.0)
