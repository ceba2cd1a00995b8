"""The paper's own figures, as data.

paper/table2_first_order.csv: Table 2, right half, "Kernel SGD vs. first-order optimization", of "Efficient Second-Order
Optimization for Deep Learning with Kernel Machines" (ICLR 2022 submission), the same in the version published at CIKM
2022, doi 10.1145/3511808.3557307. Accuracies in percent, times in seconds, mean and standard deviation of five runs.
"""

import csv
from pathlib import Path

FOLDER = Path(__file__).parent / "paper"
OPTIMIZERS = {"ours": "kernel-sgd", "SGD": "sgd", "SGD+M": "sgd-momentum"}


def first_order(data: str) -> dict[str, dict[str, float]]:
    """Table 2's rows for one data set, by our names of the optimizers; empty where the paper did not use that data."""
    with (FOLDER / "table2_first_order.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["data"] == data]
    columns = ("test_acc", "test_acc_std", "time_s", "time_s_std")
    return {OPTIMIZERS[row["optimizer"]]: {name: float(row[name]) for name in columns} for row in rows}
