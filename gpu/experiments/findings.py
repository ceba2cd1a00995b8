"""What every comparison shows of its arms: a row each, notes below, and bars."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from gpu.experiments.page import Page, Row, quantity
from gpu.experiments.protocol import Finding
from gpu.train.report import points
from gpu.train.study import paired_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINING, TEST, SECONDS, KERNEL_SHARE, MEMORY = "training %", "test %", "seconds", "of it kernel", "Hessian MiB"


def row(finding: Finding, paper: Mapping[str, float]) -> Row:
    """The chosen setting and the paper's quantities of Table 2, ours beside its own (under the names of its CSV)."""
    chosen, results = finding.chosen, finding.results
    has_gamma = chosen is not None and finding.arm.has_gamma
    return {
        "": finding.arm.label,
        "η": None if chosen is None else f"{chosen.lr:g}",
        "γ": f"{chosen.gamma:g}" if chosen is not None and has_gamma else None,
        **quantity(TRAINING, [100 * r.train_accuracy for r in results], *_of(paper, "train_acc")),
        **quantity(TEST, [100 * r.test_accuracy for r in results], *_of(paper, "test_acc")),
        **quantity("epochs", [float(r.epochs) for r in results]),
        **quantity(SECONDS, [r.seconds for r in results], *_of(paper, "time_s")),
        KERNEL_SHARE: fmean(r.cache_seconds / r.seconds for r in results) if results else None,
        **quantity(MEMORY, [r.inverse_bytes / 2**20 for r in results], *_of(paper, "hessian_mib")),
        "failed": len(finding.failures) or None,
    }


def notes(findings: Sequence[Finding], baseline: str) -> list[str]:
    """Paired differences of test accuracy to the arm named `baseline`, and what the table leaves unsaid."""
    lines = []
    base = next((f for f in findings if f.arm.label == baseline), None)
    for finding in findings:
        if base is not None and finding is not base:
            lines += _difference(finding, base)
        if count := max((r.pseudoinverses for r in finding.results), default=0):
            lines.append(f"{finding.arm.label}: {count} mini-batches with singular kernel matrices: pseudoinverses")
        lines += [f"{finding.arm.label}, seed {f.seed}: failed, {f.message}" for f in finding.failures[:1]]
    return lines


def _difference(finding: Finding, base: Finding) -> list[str]:
    theirs = {r.seed: r.test_accuracy for r in base.results}
    pairs = [(r.test_accuracy, theirs[r.seed]) for r in finding.results if r.seed in theirs]
    if not pairs:
        return []
    return [f"{finding.arm.label} - {base.arm.label}: test {points(paired_difference(*zip(*pairs, strict=True)))}"]


def bars(axes: "Axes", findings: Sequence[Finding], values: Mapping[str, Sequence[float]], label: str) -> None:
    """Mean and standard deviation of every arm that has any."""
    shown = [f.arm.label for f in findings if values[f.arm.label]]
    means = [fmean(values[name]) for name in shown]
    spreads = [stdev(values[name]) if len(values[name]) > 1 else 0.0 for name in shown]
    axes.bar(range(len(shown)), means, yerr=spreads, color=[f"C{i}" for i in range(len(shown))])
    axes.set_ylabel(label)
    axes.set_xticks(range(len(shown)), shown, rotation=30, ha="right", rotation_mode="anchor")


def comparison(
    title: str, findings: Sequence[Finding], paper: Mapping[str, Mapping[str, float]], baseline: str
) -> Page:
    """A row an arm, beside what the paper has by the arm's label; test accuracies and seconds as the picture."""
    accuracies = {f.arm.label: [100 * r.test_accuracy for r in f.results] for f in findings}
    seconds = {f.arm.label: [r.seconds for r in f.results] for f in findings}

    def draw(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        bars(left, findings, accuracies, "test accuracy %")
        lowest = min((min(values) for values in accuracies.values() if values), default=0.0)
        left.set_ylim(max(0.0, lowest - 5), 100)
        bars(right, findings, seconds, "seconds of training")

    rows = [row(finding, paper.get(finding.arm.label, {})) for finding in findings]
    return Page(title, rows, notes(findings, baseline), draw)


def _of(paper: Mapping[str, float], name: str) -> tuple[float | None, float | None]:
    return paper.get(name), paper.get(f"{name}_std")
