"""The paper's own figures, as data: the tables of "Efficient Second-Order Optimization for Deep Learning with Kernel
Machines" (ICLR 2022 submission; published at CIKM 2022, doi 10.1145/3511808.3557307).

    paper/table2_second_order_submission.csv    Table 2, left half
    paper/table3_second_order_published.csv     the same as published, with two more baselines
    paper/table2_first_order.csv                Table 2, right half, the same in both versions
    paper/batch_size.csv                        Figure 4 of the submission, 5 as published
    paper/kernels_cifar10.csv                   section 4.5
    paper/layers_published.csv                  last layer against all, published version

Table 1 is in gpu.train.data.table1, which holds data to it.

Accuracies are in percent, times in seconds, memory in MiB; mean and standard deviation of five runs.
"""

import csv
from pathlib import Path

FOLDER = Path(__file__).parent / "paper"
OPTIMIZERS = {
    "ours": "kernel-sgd",
    "SGD": "sgd",
    "SGD+M": "sgd-momentum",
    "L-BFGS": "l-bfgs",
    "R-L-BFGS": "robust-l-bfgs",
    "ESGD": "esgd-li",
    "AdaHessian": "adahessian",
}


def table(name: str, data: str) -> list[dict[str, str]]:
    """The rows of a table that are about one data set; none where the paper did not use that data."""
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["data"] == data]


def first_order(data: str) -> dict[str, dict[str, float]]:
    """Table 2, right half, by our names of the optimizers."""
    columns = ("test_acc", "test_acc_std", "time_s", "time_s_std")
    return {
        OPTIMIZERS[row["optimizer"]]: {name: float(row[name]) for name in columns}
        for row in table("table2_first_order", data)
    }


def every_optimizer(data: str) -> dict[str, dict[str, float]]:
    """Both comparisons of the published version, by our names of the optimizers; a figure it does not give is left
    out."""
    figures: dict[str, dict[str, float]] = first_order(data)
    for row in table("table3_second_order_published", data):
        given = {name: float(value) for name, value in row.items() if name not in ("data", "optimizer") and value}
        figures[OPTIMIZERS[row["optimizer"]]] = given
    return figures


def kernels(data: str) -> dict[str, dict[str, float]]:
    """Section 4.5 of the submission, which has numbers for cifar10 alone."""
    with (FOLDER / "kernels_cifar10.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["version"] == "submission"]
    return {row["kernel"]: {"test_acc": float(row["test_acc"])} for row in rows} if data == "cifar10" else {}
