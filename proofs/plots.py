"""Pictures for the page: numbers from `reference` at the inputs of the claims' counterexamples, and their drawings.

A picture shows what a claim says and proves nothing. Numbers and drawings are apart, so that the numbers can be tested
without matplotlib, which is imported where something is drawn. A drawing is inline SVG in the page's own colours: they
are CSS variables, so that it follows dark and light mode.
"""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs.claims.mini_batch import BOUND, GRID
from reference import gram, inverse_gram, kernel_sgd_step, reshape_inverse, softmax_cross_entropy, weight_gradient
from reference.conditions import max_learning_rate

Array = NDArray[np.float64]

# matplotlib wants colours of its own; these stand for the page's variables and are replaced in the SVG.
COLOURS = {"ink": "#010203", "soft": "#010204", "line": "#010205", "fine": "#010206", "failed": "#010207"}
INK, SOFT, LINE, FINE, RAISED = COLOURS.values()
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}


@dataclass(frozen=True)
class Plot:
    """A drawing as SVG, and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Batch:
    """One step's inputs: W (n_c, d_in), features Z (m, d_in), labels (m,), P (d_in, d_in)."""

    W: Array
    Z: Array
    labels: NDArray[np.int64]
    P: Array

    @property
    def direction(self) -> Array:
        """G, (n_c, d_in)."""
        _, dlogits = softmax_cross_entropy(self.Z @ self.W.T, self.labels)
        return weight_gradient(dlogits, self.Z)

    def after(self, lr: float) -> Array:
        """W' = W − η·G·P."""
        return kernel_sgd_step(self.W, self.direction, self.P, lr)

    def loss(self, W: Array) -> float:
        """J at W, the mean over the mini-batch."""
        return float(softmax_cross_entropy(self.Z @ W.T, self.labels)[0])


def unsafe_batch(gamma: float) -> Batch:
    """The counterexample of `mini-batch-mean`: inputs (1, 0) and (1, 1/1000) of different classes, one linear layer."""
    Z = np.array([[1.0, 0.0], [1.0, 0.001]])
    return Batch(np.array([[1.0, 0.0], [0.0, 0.0]]), Z, np.array([0, 1]), inverse_gram(gram(Z, gamma=gamma)))


def surer_batch(gamma: float) -> Batch:
    """The counterexample of `each-instance-of-a-mini-batch`: inputs (1, 0) and (0, 1) of one class, the first surer."""
    Z = np.eye(2)
    return Batch(np.array([[1.0, 0.0], [0.0, 0.0]]), Z, np.array([0, 0]), inverse_gram(gram(Z, gamma=gamma)))


def padded_batch() -> Batch:
    """Four drawn instances in a layer of ten columns and three classes: P is zero but for its first four."""
    draw = np.random.default_rng(0)
    Z = draw.random((4, 10))
    P = reshape_inverse(inverse_gram(gram(Z, gamma=float(GRID[0]))), 10)
    return Batch(draw.standard_normal((3, 10)), Z, np.array([0, 1, 2, 0]), P)


@dataclass(frozen=True)
class AlongTheStep:
    """J(W') over η, J(W) at η = 0, and the bound 4/λ_max(ZPZᵀ/m)."""

    rates: Array
    losses: Array
    before: float
    bound: float


def along_the_step(batch: Batch, *, bounds: float = 2.0, up_to: float | None = None) -> AlongTheStep:
    """The loss along the step: evenly up to a few bounds, or by equal factors from a tenth of the bound up to an η."""
    bound = max_learning_rate(batch.Z, batch.P)
    rates = np.linspace(0, bounds * bound, 201) if up_to is None else np.geomspace(bound / 10, up_to, 201)
    return AlongTheStep(rates, np.array([batch.loss(batch.after(lr)) for lr in rates]), batch.loss(batch.W), bound)


def moves(batch: Batch, lr: float) -> Array:
    """|W' − W|, (n_c, d_in)."""
    return np.abs(batch.after(lr) - batch.W)


def margins(W: Array) -> Array:
    """The difference of the two classes' weights, (d_in,): J depends on nothing else where n_c = 2."""
    difference: Array = W[0] - W[1]
    return difference


def near_the_bound() -> Plot:
    """The loss of the mini-batch claim's counterexample up to twice the bound."""
    found = along_the_step(unsafe_batch(float(GRID[0])))

    def draw(axes: Any) -> None:
        axes.plot(found.rates, found.losses, color=FINE, linewidth=2)
        axes.axhline(found.before, color=SOFT, linewidth=1, linestyle=":")
        axes.axvline(found.bound, color=RAISED, linewidth=1.5, linestyle="--")
        axes.annotate(
            f"{BOUND}/λ_max(K)", (found.bound, found.losses.max()), (-5, 0), **_BESIDE, color=RAISED, ha="right"
        )
        axes.annotate("J(W)", (0, found.before), (4, 4), **_BESIDE, color=SOFT)
        axes.set(xlabel="η", ylabel="J(W')")
        axes.margins(x=0)

    return Plot(
        _svg("near", draw),
        f"Mean loss after one step of the mini-batch of the certificate, γ = {GRID[0]}, over η. Up to the dashed line "
        f"the claim {_QUOTE} says that it does not rise, whatever the labels; "
        "with these labels it rises above J(W) a little later.",
    )


def on_the_grid() -> Plot:
    """The same loss up to the largest η of the paper, for every γ of the paper."""
    largest = float(GRID[0])
    found = {gamma: along_the_step(unsafe_batch(float(gamma)), up_to=largest) for gamma in GRID}

    def draw(axes: Any) -> None:
        for number, (gamma, each) in enumerate(found.items()):
            alpha = 1 - 0.2 * number
            axes.plot(each.rates, each.losses, color=FINE, linewidth=1.8, alpha=alpha)
            # The marks of the bounds stand on the level of J(W), where the curves leave it.
            axes.plot(each.bound, each.before, color=RAISED, marker="|", markersize=14, markeredgewidth=1.8)
            axes.annotate(
                f"γ = {gamma}", (largest, each.losses[-1]), (6, -3), **_BESIDE, color=SOFT, annotation_clip=False
            )
        for lr in GRID:
            axes.axvline(float(lr), color=LINE, linewidth=1, zorder=0)
        axes.set(xscale="log", yscale="log", xlabel="η; upright lines: the paper's", ylabel="J(W')")

    return Plot(
        _svg("grid", draw),
        f"The same mini-batch for the four γ of the paper: the bounds {BOUND}/λ_max(K) (red marks) lie far below its "
        f"four η (upright lines), where the loss is far above J(W). Claim {_QUOTE}.",
    )


def frozen_columns() -> Plot:
    """|W' − W| under padding, cell by cell."""
    batch = padded_batch()
    lr = float(GRID[0])
    found = moves(batch, lr)
    kept = len(batch.Z)

    def draw(axes: Any) -> None:
        shade = found / found.max()
        for (row, column), moved in np.ndenumerate(found):
            frozen = column >= kept
            cell = {"facecolor": "none", "edgecolor": LINE, "hatch": "///"} if frozen else {"facecolor": FINE}
            alpha = None if frozen else 0.08 + 0.72 * float(shade[row, column])
            axes.add_patch(_rectangle((column + 0.54, row + 0.54), 0.92, alpha, cell))
            axes.annotate("0" if moved == 0 else f"{moved:.2g}", (column + 1, row + 1), ha="center", va="center")
        axes.axvline(kept + 0.5, color=RAISED, linewidth=1.5, linestyle="--")
        columns, classes = found.shape[1], found.shape[0]
        axes.set(xlim=(0.5, columns + 0.5), ylim=(classes + 0.5, 0.5), xlabel="column of W", ylabel="class")
        axes.set(xticks=range(1, columns + 1), yticks=range(1, classes + 1))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    return Plot(
        _svg("frozen", draw, size=(6.4, 2.4)),
        f"|W' − W| of one step with m = {kept} drawn instances in d_in = {found.shape[1]} columns, η = {GRID[0]}, "
        f"γ = {GRID[0]}: columns beyond m (right of the dashed line) do not move at all. Claim {_QUOTE}.",
    )


def level_sets() -> Plot:
    """Level sets of J over the two differences of weights, with the step of Kernel SGD and the level of J₁."""
    gamma, lr = GRID[1], float(GRID[0])
    batch = surer_batch(float(gamma))
    start, end = margins(batch.W), margins(batch.after(lr))
    low, high = np.minimum(start, end) - 0.35, np.maximum(start, end) + 0.35
    first, second = (np.linspace(low[axis], high[axis], 61) for axis in (0, 1))
    losses = np.array([[batch.loss(np.array([[x, y], [0.0, 0.0]])) for x in first] for y in second])

    def draw(axes: Any) -> None:
        axes.contour(first, second, losses, levels=12, colors=[FINE], linewidths=0.9, alpha=0.75)
        axes.axvline(start[0], color=SOFT, linewidth=1.2, linestyle=":")
        axes.annotate("J₁ as before", (start[0], low[1]), (5, 6), **_BESIDE, color=SOFT)
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": RAISED, "linewidth": 2})
        axes.plot(*start, color=INK, marker="o", markersize=5)
        axes.annotate("W", start, (6, -3), **_BESIDE)
        axes.annotate("W'", end, (-4, 5), **_BESIDE, ha="right")
        axes.set(xlabel="margin of instance 1", ylabel="margin of instance 2", aspect="equal")

    return Plot(
        _svg("levels", draw, size=(4.6, 4.2)),
        "Level sets of the mean loss over the margins of the certificate's two instances, with the step for "
        f"η = {GRID[0]}, γ = {gamma}. It lowers the mean and carries instance 1 to the left of the dotted line, "
        f"where J₁ is larger. Claim {_QUOTE}.",
    )


# Captions say which claim; the table alone knows the names.
_QUOTE = "“{claim}”"
_BESIDE: dict[str, Any] = {"textcoords": "offset points"}

PLOTS: Mapping[str, tuple[Callable[[], Plot], ...]] = {
    "mini-batch-mean": (near_the_bound, on_the_grid),
    "each-instance-of-a-mini-batch": (level_sets,),
    "padding-trains-the-layer": (frozen_columns,),
}


def of(claim: str) -> list[Plot]:
    """The drawings that belong to a claim, by its name. Needs matplotlib."""
    drawn = [_drawn(plot) for plot in PLOTS.get(claim, ())]
    return [Plot(plot.svg, plot.caption.format(claim=claim)) for plot in drawn]


@cache
def _drawn(plot: Callable[[], Plot]) -> Plot:
    return plot()


def _rectangle(corner: tuple[float, float], side: float, alpha: float | None, style: dict[str, str]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, side, side, alpha=alpha, linewidth=0.6, **style)  # type: ignore[arg-type]


def _svg(name: str, draw: Callable[[Any], None], size: tuple[float, float] = (5.2, 3.2)) -> str:
    """The <svg> element of a drawing, its ids prefixed by its name: several of them stand in one page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        written = io.StringIO()
        figure.savefig(
            written, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    # What it says of `*` would hold for the page.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?<=<svg)(.*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg
