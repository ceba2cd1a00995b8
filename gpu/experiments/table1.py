"""Table 1: the data sets. What is loaded has the counts that it states."""

from typing import TYPE_CHECKING

from gpu.experiments.page import Page, Row, quantity
from gpu.train.data import Dataset
from gpu.train.data.table1 import rows
from gpu.train.report import titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def page(data: Dataset) -> Page:
    stated = rows().get(data.name)
    counts = {"train": len(data.X_train), "test": len(data.X_test), "classes": len(data.classes)}
    row: Row = {"": data.name}
    for name, count in counts.items():
        row |= quantity(name, [count], None if stated is None else float(stated[name]))

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for shift, (name, labels) in enumerate((("training", data.y_train), ("test", data.y_test))):
            shares = labels.bincount(minlength=len(data.classes)) / len(labels)
            axes.bar([c + 0.4 * shift for c in range(len(data.classes))], (100 * shares).tolist(), 0.4, label=name)
        axes.set(xlabel="class", ylabel="share %")
        axes.legend()

    return Page(f"Table 1: {titled(data.name, data.stand_in)}", [row], (), draw)
