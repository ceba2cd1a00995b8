"""Figure 1: two weights of a linear network learn, all others stay; the optimizers' paths on the loss over the two.

The paper's network has three linear hidden layers and an output layer, its two weights are drawn at random. It says
neither from which layers nor how wide they are, and that decides what there is to see: over two weights of one layer
the loss is convex, over one of the last layer and one of another it may have a saddle point. So there is a slice for
every case. An optimizer has the two weights as its only parameters. Kernel SGD needs their layer: there all gradients
but those of the two are 0, and what the step has moved beside them is put back, so that the step is that of the two
rows and columns of P.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from gpu.experiments.page import Page, Row
from gpu.train.data import Dataset
from gpu.train.errors import UsageError
from gpu.train.loop import build_optimizer, epochs_of_batches, train_epoch
from gpu.train.models import mlp
from gpu.train.report import titled
from gpu.train.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTIMIZERS = ("kernel-sgd", "sgd", "sgd-momentum", "l-bfgs", "esgd-li", "adahessian")
EPOCHS = 100
HIDDEN = (10, 10, 10)  # narrow, so that two weights matter
GRID = 33
# Of the four layers, those that the two weights are of.
SLICES = {"both of the last layer": (3, 3), "last and third layer": (3, 2), "both of the third layer": (2, 2)}


@dataclass(frozen=True)
class Slice:
    """A network of which two weights may move: entry `places[k]` of layer `layers[k]`'s flattened weight matrix."""

    model: nn.Sequential
    layers: tuple[int, int]
    places: tuple[int, int]

    @classmethod
    def drawn(cls, data: Dataset, layers: tuple[int, int], settings: Settings) -> "Slice":
        """Weights drawn from the seed, of the last layer from the first m columns, which Kernel SGD moves."""
        sizes = (data.features, *HIDDEN, len(data.classes))
        model = mlp(sizes, seed=settings.seed, activation=nn.Identity)
        generator = torch.Generator().manual_seed(settings.seed)
        places: list[int] = []
        for layer in layers:
            rows, columns = sizes[layer + 1], min(settings.batch_size, sizes[layer])
            row, column = (int(torch.randint(n, (1,), generator=generator)) for n in (rows, columns))
            if places and layers[0] == layers[1]:  # the next column, so that they are two weights
                column = (places[0] + 1) % sizes[layer] % columns
            places.append(row * sizes[layer] + column)
        return cls(model, layers, (places[0], places[1]))

    def weight(self, k: int) -> Tensor:
        return self.matrix(k).data.view(-1)

    def gradient(self, k: int) -> Tensor:
        gradient = self.matrix(k).grad
        assert gradient is not None
        return gradient.view(-1)

    def matrix(self, k: int) -> Tensor:
        return self.model.get_parameter(self.name(k))

    def name(self, k: int) -> str:
        return f"{2 * self.layers[k]}.weight"

    def get(self) -> tuple[float, float]:
        return self.weight(0)[self.places[0]].item(), self.weight(1)[self.places[1]].item()

    def put(self, values: Sequence[float]) -> None:
        for k, value in enumerate(values):
            self.weight(k)[self.places[k]] = value


class TwoWeights(nn.Module):
    """The network as a function of its two weights, which are all the parameters it has."""

    def __init__(self, part: Slice) -> None:
        super().__init__()
        self.part = part
        self.values = nn.Parameter(torch.tensor(part.get()))

    def forward(self, x: Tensor) -> Tensor:
        matrices: dict[str, Tensor] = {}
        for k, place in enumerate(self.part.places):
            name, shape = self.part.name(k), self.part.matrix(k).shape
            flat = matrices.get(name, self.part.matrix(k).detach()).reshape(-1)
            matrices[name] = flat.index_put((torch.tensor([place]),), self.values[k : k + 1]).view(shape)
        return functional_call(self.part.model, matrices, (x,))  # type: ignore[no-any-return]

    def get(self) -> tuple[float, float]:
        first, second = self.values.tolist()
        return first, second


Slices = Iterable[tuple[str, tuple[int, int]]]
Loss = Callable[[Sequence[float]], float]


def path(part: Slice, data: Dataset, settings: Settings) -> list[tuple[float, float]]:
    """Where the two weights were at the start and after every epoch."""
    moved: Slice | TwoWeights
    model: nn.Module
    if settings.optimizer == "kernel-sgd":
        moved, model, optimizer = part, part.model, _of_two_weights(part, settings)
    else:
        moved = model = TwoWeights(part)
        optimizer = build_optimizer(model, settings)
    been = [moved.get()]
    with closing(epochs_of_batches(settings, data.X_train, data.y_train)) as epochs:
        for _, (batches, _) in zip(range(settings.epochs), epochs, strict=False):
            train_epoch(model, optimizer, batches)
            been.append(moved.get())
    part.put(been[0])
    return been


def _of_two_weights(part: Slice, settings: Settings) -> Optimizer:
    """The optimizer of the whole network, which moves the two weights alone."""
    start = {name: p.detach().clone() for name, p in part.model.named_parameters()}
    optimizer = build_optimizer(part.model, settings)

    def put_back(*_: object) -> None:
        moved = part.get()
        with torch.no_grad():
            for name, p in part.model.named_parameters():
                p.copy_(start[name])
        part.put(moved)

    def mask(*_: object) -> None:
        kept = [part.gradient(k)[part.places[k]].item() for k in (0, 1)]
        for p in part.model.parameters():
            assert p.grad is not None
            p.grad.zero_()
        for k, value in enumerate(kept):
            part.gradient(k)[part.places[k]] = value

    optimizer.register_step_pre_hook(mask)
    optimizer.register_step_post_hook(put_back)
    return optimizer


def loss_over(part: Slice, data: Dataset) -> Loss:
    """The training loss with the two weights at given values."""

    def loss(values: Sequence[float]) -> float:
        before = part.get()
        part.put(values)
        with torch.no_grad():
            found = cross_entropy(part.model(data.X_train), data.y_train).item()
        part.put(before)
        return found

    return loss


def page(
    data: Dataset, settings: Settings, optimizers: Sequence[str], track: Callable[[Slices], Slices] = iter
) -> Page:
    """`track` watches the slices go by. Raises UsageError for texts, which no linear network reads."""
    if data.kind == "text":
        raise UsageError(f"figure1: expected features or images, which a linear network reads, got {data.name}")
    data = replace(data, X_train=data.X_train.flatten(1), X_test=data.X_test.flatten(1))
    rows: list[Row] = []
    maps = []
    for name, layers in track(SLICES.items()):
        part = Slice.drawn(data, layers, settings)
        paths = {o: path(part, data, replace(settings, optimizer=o)) for o in optimizers}
        loss = loss_over(part, data)
        maps.append((name, paths, *_surface(loss, [point for been in paths.values() for point in been])))
        lowest = float(maps[-1][-1].min())
        rows += [
            {
                "slice": name,
                "optimizer": o,
                "loss at the start": loss(been[0]),
                "at the end": loss(been[-1]),
                "lowest on the map": lowest,
            }
            for o, been in paths.items()
        ]

    def draw(figure: "Figure") -> None:
        figure.set_size_inches(14, 9)
        for number, (name, paths, w0, w1, surface) in enumerate(maps):
            flat = figure.add_subplot(2, 3, number + 1)
            flat.contour(w0, w1, surface, levels=20, cmap="viridis", linewidths=0.6)
            for o, been in paths.items():
                (line,) = flat.plot(*zip(*been, strict=True), linewidth=1.2, label=o)
                flat.plot(*been[-1], "x", color=line.get_color())
            flat.set(title=name, xlabel="w₀", ylabel="w₁")
            flat.legend(fontsize="small")
            landscape = figure.add_subplot(2, 3, number + 4, projection="3d")
            landscape.plot_surface(w0, w1, surface, cmap="viridis", alpha=0.6)
            landscape.set(xlabel="w₀", ylabel="w₁", zlabel="loss")

    return Page(f"Figure 1: {titled(data.name, data.stand_in)}", rows, (), draw)


def _surface(loss: Loss, points: Sequence[tuple[float, float]]) -> tuple[Tensor, Tensor, Tensor]:
    """The loss on a square around all points, with room on every side: (GRID, GRID) each."""
    centre = [(max(c) + min(c)) / 2 for c in zip(*points, strict=True)]
    half = max(0.75 * (max(c) - min(c)) for c in zip(*points, strict=True)) or 1.0
    axes = [torch.linspace(c - half, c + half, GRID) for c in centre]
    w0, w1 = torch.meshgrid(*axes, indexing="xy")
    values = [loss(point) for point in zip(w0.flatten().tolist(), w1.flatten().tolist(), strict=True)]
    return w0, w1, torch.tensor(values).view(GRID, GRID)
