"""The figures of `bench optimizers` and `bench to-accuracy` as tables for a terminal."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table


def not_measured(figures: dict[str, Any]) -> Iterator[str]:
    """A line each of what is in none of the tables, or not in all, and why."""
    for name, reason in figures["not_measured"].items():
        yield f"{name}: {reason}"
    for network, found in figures.get("networks", {}).items():
        for name, reason in found["not_measured"].items():
            yield f"{name}, {network}: {reason}"


def tables(figures: dict[str, Any]) -> Iterator[Table]:
    """One a network, one line an optimizer; or the one of `to_loss`."""
    if "networks" not in figures:
        yield _to_loss(figures)
    for network, found in figures.get("networks", {}).items():
        width = f" of width {found['width']}" if "width" in found else ""
        stand_in = f", a stand-in for {found['stand_in']}" if found["stand_in"] else ""
        title = f"{network}{width}, {found['parameters']:,} parameters; {found['data']}{stand_in}"
        caption = f"{figures['repeats']} rounds of {found['steps']} steps; {found['instances']:,} instances"
        table = Table(title=title, caption=caption)
        headings = ("ms a step", "times sgd, median", "least", "most", "of totals", "Hessian, bytes", "state, bytes")
        table.add_column("optimizer")
        for heading in headings:
            table.add_column(heading, justify="right")
        for name, seconds in found["seconds_per_step"].items():
            ratios = [""] * 4
            if name in found["spread"]:
                values = (found["ratio_to_sgd"][name], *found["spread"][name], found["ratio_of_totals"][name])
                ratios = [f"{value:.3f}" for value in values]
            sizes = (f"{found[kind][name]:,}" for kind in ("hessian_bytes", "state_bytes"))
            table.add_row(name, f"{1000 * seconds:.3f}", *ratios, *sizes)
        yield table


def to_accuracy(figures: dict[str, Any]) -> Iterator[Table]:
    """The ratios, a line a data set and repeat, and what they come to, a line a rival."""
    given = f"{figures['share_of_its_best']:.0%} of the best of {figures['accuracy_given_by']}"
    rivals = list(dict.fromkeys(name for block in figures["blocks"] for name in block["ratios"]))
    table = Table(title=f"seconds until {given} on validation data, over those of kernel-sgd")
    for heading in ("data", "repeat", "accuracy %", "kernel-sgd, s", *rivals):
        table.add_column(heading, justify="left" if heading == "data" else "right")
    for block in figures["blocks"]:
        ratios = [_ratio(block["ratios"].get(name)) for name in rivals]
        ours = _ratio(block["seconds"]["kernel-sgd"])
        table.add_row(block["data"], str(block["repeat"]), f"{100 * block['accuracy']:.2f}", ours, *ratios)
    yield table
    table = Table(title="all data sets and repeats", caption="∞: the rival never reached it; 0: kernel-sgd; 1: neither")
    counts = ("never: rival", "kernel-sgd", "both")
    for heading in ("rival", "of", "median", "interval", "covers", "smallest", "largest", *counts):
        table.add_column(heading, justify="left" if heading == "rival" else "right")
    for name, found in figures["rivals"].items():
        interval = "none" if found["interval"] is None else " to ".join(map(_ratio, found["interval"]))
        coverage = "" if found["coverage"] is None else f"{found['coverage']:.1%}"
        ends = (_ratio(found[end]) for end in ("smallest", "largest"))
        never = (str(count) for count in found["never"].values())
        table.add_row(name, str(found["n"]), _ratio(found["median"]), interval, coverage, *ends, *never)
    yield table


def _ratio(value: float | str | None) -> str:
    return "" if value is None else "∞" if isinstance(value, str) else f"{value:.3g}"


def _to_loss(figures: dict[str, Any]) -> Table:
    stand_in = f"{figures['data']}, a stand-in for {figures['stand_in']}"
    table = Table(title=f"to a training loss of {figures['to_loss']:g} on {stand_in}")
    for heading in ("optimizer", "learning rate", "epochs", "seconds"):
        table.add_column(heading, justify="left" if heading == "optimizer" else "right")
    for name, seconds in figures["seconds"].items():
        reached = figures["epochs"][name]
        shown = (f"> {figures['at_most_epochs']}", "") if reached is None else (str(reached), f"{seconds:.3f}")
        table.add_row(name, f"{figures['learning_rates'][name]:g}", *shown)
    return table
