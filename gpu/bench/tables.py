"""The figures of `bench optimizers` as tables for a terminal."""

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
