"""Table 1 of the paper, table1.csv: how many instances its data sets have. Other data of a name are other data."""

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from gpu.train.errors import DataError

Counts = Mapping[str, int]


@cache
def rows() -> dict[str, dict[str, str]]:
    """The table as it is printed, by data set."""
    with Path(__file__).with_name("table1.csv").open(newline="", encoding="utf-8") as file:
        return {row["data"]: row for row in csv.DictReader(file)}


def counts() -> dict[str, Counts]:
    """By data set: instances for training, for testing and, where they are given, for validation."""
    return {data: _parts(row) for data, row in rows().items()}


def require_counts(where: object, counts: Counts, **found: int) -> None:
    """DataError where a part has another number of instances than the paper's."""
    for part, number in found.items():
        if number != counts[part]:
            raise DataError(
                f"{where}: expected {counts[part]} instances ({part}), as in the paper's Table 1, got {number}; "
                "get the files again"
            )


def _parts(row: Mapping[str, str]) -> Counts:
    given, _, rest = row["validation"].partition(" ")  # "1000 provided", or "20% of train"
    parts = {"train": int(row["train"]), "test": int(row["test"])}
    return {**parts, "valid": int(given)} if rest == "provided" else parts
