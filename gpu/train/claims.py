"""What an audit of the paper's claims needs of a run of Kernel SGD: claims.csv, one row an epoch.

Everything is computed in float64 beside the training, from the weights before and after each step, and changes no bit
of it. `loss` here is what the step is taken for: the mini-batch's mean cross-entropy, plus λ/2·‖·‖² of the parameters
that move in it. Columns, over the epoch's mini-batches:

    lr, batches               η as set ("monotone" may take less), and how many mini-batches there are
    mean_bound_*              4/λ_max(K), K = ZPZᵀ/m, with a bias of its own (ZPZᵀ + 11ᵀ)/m: smallest, median, and on
                              how many mini-batches η exceeded it; 0 where K is indefinite
    l2_bound_*                the same with ZᵀZ/m + 2λI for ZᵀZ/m: the L2 term included
    data_bound_*              8⟨R, KR⟩ / Σ_k range((KR)_k)², R = softmax − one-hot
    indefinite                on how many rounding has cost K its definiteness
    layer_rises, …            on how many the last layer's own step, the earlier layers held, raised the loss by more
                              than the rounding of W' explains; the largest rise; how many of them with η within
                              l2_bound, and not by the rounding of the direction either
    step_rises, …             on how many the whole step raised it, and the largest rise
    weights_unmoved, …        share of the last layer's weights, and biases, that have not moved since the start
    condition_*               κ₂ of the kernel matrices (with the ridge), ∞ where numerically singular
    pseudoinverses            how many mini-batches took one
    stalled                   steps that "monotone" has not taken, since the start
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from gpu import torch_ops
from gpu.optim import CachedInverse, KernelCache, KernelSGD

if TYPE_CHECKING:
    from gpu.train.loop import Batch

CLAIMS = "claims.csv"
BOUNDS = ("mean_bound", "l2_bound", "data_bound")
COLUMNS = (
    "epoch",
    "lr",
    "batches",
    *(f"{bound}_{what}" for bound in BOUNDS for what in ("min", "median", "exceeded")),
    "indefinite",
    "layer_rises",
    "layer_largest_rise",
    "layer_unexplained",
    "step_rises",
    "step_largest_rise",
    "weights_unmoved",
    "biases_unmoved",
    "condition_min",
    "condition_median",
    "condition_max",
    "pseudoinverses",
    "stalled",
)
EPS = torch.finfo(torch.float64).eps

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """One mini-batch: its three bounds on η, and by how much its loss rose beyond rounding (0 where it did not).

    `noise` is what the rounding of the last layer's direction may have added to its loss.
    """

    bounds: tuple[float, float, float]
    indefinite: bool
    layer_rise: float
    noise: float
    step_rise: float


class ClaimsRecord:
    """The rows of claims.csv, and which parameters of the last preconditioned layer have moved since the start."""

    def __init__(self, model: nn.Module, optimizer: KernelSGD) -> None:
        self.model = model
        self.group = [group for group in optimizer.param_groups if group["preconditioned"]][-1]
        names = {p: name for name, p in model.named_parameters()}
        self.names = [names[p] for p in self.group["params"]]
        self.layer = model.get_submodule(self.names[0].rpartition(".")[0])
        self.moved = [torch.zeros_like(p, dtype=torch.bool) for p in self.group["params"]]
        self.rows: list[dict[str, float]] = []
        self._steps: list[Step] = []
        self._conditions: tuple[KernelCache, list[float]] | None = None

    def watched(self, batches: "Iterable[Batch]") -> "Iterator[Batch]":
        """The mini-batches; what the trainer does with each before it asks for the next is recorded."""
        self._steps = []
        for x, y, inverse in batches:
            assert inverse is not None  # Kernel SGD alone is recorded
            before = self._parameters()
            yield x, y, inverse
            with torch.no_grad():
                self._steps.append(self._step(before, self._parameters(), x, y, inverse))

    def finish_epoch(self, cache: KernelCache, batches: "Iterable[Batch]") -> None:
        """Append the row of the epoch that `watched` has seen."""
        lr, steps = float(self.group["lr"]), self._steps
        row: dict[str, float] = {"epoch": len(self.rows) + 1, "lr": lr, "batches": len(steps)}
        for number, name in enumerate(BOUNDS):
            values = [step.bounds[number] for step in steps]
            row |= {
                f"{name}_min": min(values),
                f"{name}_median": median(values),
                f"{name}_exceeded": sum(lr > value for value in values),
            }
        row["indefinite"] = sum(step.indefinite for step in steps)
        covered = self.group["decay"] == "l2" or self.group["weight_decay"] == 0
        row |= {
            "layer_rises": sum(step.layer_rise > 0 for step in steps),
            "layer_largest_rise": max(step.layer_rise for step in steps),
            "layer_unexplained": sum(
                covered and step.layer_rise > step.noise and lr <= step.bounds[1] for step in steps
            ),
            "step_rises": sum(step.step_rise > 0 for step in steps),
            "step_largest_rise": max(step.step_rise for step in steps),
        }
        unmoved = [1 - moved.double().mean().item() for moved in self.moved]
        row |= {"weights_unmoved": unmoved[0], "biases_unmoved": unmoved[-1]}
        conditions = self._condition_numbers(cache, batches)
        row |= {
            "condition_min": min(conditions),
            "condition_median": median(conditions),
            "condition_max": max(conditions),
            "pseudoinverses": cache.singular,
            "stalled": self.group["stalled"],
        }
        self.rows.append({name: row[name] for name in COLUMNS})

    def text(self) -> str:
        """claims.csv."""
        lines = [",".join(COLUMNS), *(",".join(map(str, row.values())) for row in self.rows)]
        return "\n".join(lines) + "\n"

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside the rows."""
        return {f"claims.{number}": moved.to(torch.uint8) for number, moved in enumerate(self.moved)}

    def restore(self, tensors: Mapping[str, Tensor], rows: list[dict[str, float]]) -> None:
        """Continue from what a checkpoint kept."""
        self.rows = rows
        self.moved = [tensors[f"claims.{n}"].to(moved.device, torch.bool) for n, moved in enumerate(self.moved)]

    def _parameters(self) -> Parameters:
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def _step(self, before: Parameters, after: Parameters, x: Tensor, y: Tensor, inverse: CachedInverse) -> Step:
        for number, name in enumerate(self.names):
            self.moved[number] |= before[name] != after[name]
        precision = torch.finfo(after[self.names[0]].dtype).eps
        before, after = ({name: p.double() for name, p in each.items()} for each in (before, after))
        features, logits = self._forward(before, x)
        _, final_logits = self._forward(after, x)
        old, new = ([each[name] for name in self.names] for each in (before, after))
        own_logits = logits + _logits(features, [q - p for p, q in zip(old, new, strict=True)])

        start = self._loss(logits, y, old)
        own = self._loss(own_logits, y, new)
        rounding = EPS * (sum(features.shape) + logits.shape[1]) * (1 + start + float(logits.abs().max()))
        # W' is rounded: its product with η, and the difference. To first order that moves the loss by so much.
        residual = _residual(own_logits, y)
        gradients = [residual.mT @ features / len(y), residual.mean(0)]
        decay = self.group["weight_decay"]
        for p, previous, gradient in zip(new, old, gradients, strict=False):
            size = p.abs() + (p - previous).abs()
            rounding += precision / 2 * float(((gradient + decay * p).abs() * size).sum())
        whole = self._loss(final_logits, y, list(after.values())) - self._loss(logits, y, list(before.values()))
        P, R = inverse.matrix.double(), _residual(logits, y)
        bounds, indefinite = self._bounds(features, R, P)
        slopes = [(gradient + decay * p).abs() for p, gradient in zip(new, gradients, strict=False)]
        sizes = [R.abs().mT @ features.abs() / len(y), R.abs().mean(0)]
        sizes = [size + decay * p.abs() for p, size in zip(old, sizes, strict=False)]
        noise = precision / 2 * (sum(features.shape) + logits.shape[1]) * self._times_abs(slopes, sizes, P)
        return Step(bounds, indefinite, _beyond(own - start, rounding), noise, _beyond(whole, rounding))

    def _forward(self, parameters: Parameters, x: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's input and output."""
        seen: list[tuple[Tensor, Tensor]] = []
        handle = self.layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
        try:
            functional_call(self.model, parameters, (x.double(),))
        finally:
            handle.remove()
        return seen[0]

    def _loss(self, logits: Tensor, y: Tensor, parameters: list[Tensor]) -> float:
        decay: float = self.group["weight_decay"]
        return float(cross_entropy(logits, y)) + decay / 2 * sum(float(p.square().sum()) for p in parameters)

    def _bounds(self, features: Tensor, residual: Tensor, P: Tensor) -> tuple[tuple[float, float, float], bool]:
        """The three bounds, and whether K is indefinite."""
        m = len(features)
        ones = torch.ones_like(features[:, :1])
        augmented = self.group["bias"] == "augmented" and len(self.names) == 2
        Z = torch.cat((features, ones), 1) if augmented else features
        k = min(Z.shape[1], len(P))
        Z, P = Z[:, :k], P[:k, :k]
        if len(self.names) == 2 and not augmented:  # a bias of its own is a weight that P leaves alone
            Z, P = torch.cat((Z, ones), 1), torch.block_diag(P, P.new_ones(1, 1))  # type: ignore[no-untyped-call]
        K = Z @ P @ Z.mT / m
        K = (K + K.mT) / 2
        mean, indefinite = _four_over_largest(K, float((Z.abs() @ P.abs() @ Z.abs().mT).sum(1).max()) / m)
        decay, l2 = self.group["weight_decay"], mean
        if decay != 0:
            A = torch.cat((Z / m**0.5, (2 * decay) ** 0.5 * torch.eye(Z.shape[1], dtype=Z.dtype, device=Z.device)))
            l2, _ = _four_over_largest(A @ P @ A.mT, float((A.abs() @ P.abs() @ A.abs().mT).sum(1).max()))
        return (mean, l2, _data_dependent(K, residual)), indefinite

    def _times_abs(self, slopes: list[Tensor], sizes: list[Tensor], P: Tensor) -> float:
        """η·⟨slopes, sizes·|P|⟩ over what P acts on, [W] or [W, b]."""
        joint = self.group["bias"] == "augmented"
        a, b = (torch.cat((w, *(v[:, None] for v in rest if joint)), 1) for w, *rest in (slopes, sizes))
        k = min(a.shape[1], len(P))
        return float(self.group["lr"]) * float((a[:, :k] * (b[:, :k] @ P[:k, :k].abs())).sum())

    def _condition_numbers(self, cache: KernelCache, batches: "Iterable[Batch]") -> list[float]:
        """κ₂ of every mini-batch's kernel matrix; once for mini-batches that stay the same."""
        if self._conditions is None or self._conditions[0] is not cache:
            self._conditions = cache, [_condition(x, cache) for x, _, _ in batches]
        return self._conditions[1]


def _logits(features: Tensor, layer: list[Tensor]) -> Tensor:
    weight, *bias = layer
    return features @ weight.mT + (bias[0] if bias else 0)


def _residual(logits: Tensor, y: Tensor) -> Tensor:
    return logits.softmax(1) - nn.functional.one_hot(y, logits.shape[1])


def _beyond(rise: float, rounding: float) -> float:
    """The rise where it is more than rounding; a loss that is no number any more has risen."""
    return 0.0 if rise <= rounding else math.inf if math.isnan(rise) else rise


def _four_over_largest(K: Tensor, size: float) -> tuple[float, bool]:
    """4/λ_max(K), ∞ for 0, and 0.0 and True where K is indefinite beyond its entries' rounding, relative to `size`.

    0.0 and False where K is not finite: nothing is known then.
    """
    if not bool(torch.isfinite(K).all()):
        return 0.0, False
    eigenvalues = torch.linalg.eigvalsh(K)
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    if low < -2 * len(K) * EPS * size:
        return 0.0, True
    return (4 / high if high > 0 else math.inf), False


def _data_dependent(K: Tensor, residual: Tensor) -> float:
    change = K @ residual
    ranges = change.amax(1) - change.amin(1)
    largest = float(ranges.max())
    if largest == 0:
        return math.inf
    slope = float((residual * (change / largest)).sum())
    return max(0.0, 8 * slope / float((ranges / largest).square().sum()) / largest)


def _condition(x: Tensor, cache: KernelCache) -> float:
    kernel, flat = cache.kernel, x.reshape(len(x), -1).double()
    H = torch_ops.gram(flat, kernel.kernel, gamma=kernel.gamma, degree=kernel.degree, coef0=kernel.coef0)
    H.diagonal().add_(kernel.ridge)
    eigenvalues = torch.linalg.eigvalsh(H)
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    return high / low if low > len(H) * EPS * high else math.inf
