"""A pytest plugin, `-p tests.mutation.order`: quick tests first, so that most mutants are killed within a second.

How long each test takes on the code as it is, mutmut has measured, and left where it runs the tests.
"""

import json
from pathlib import Path

import pytest

MEASURED = Path("mutmut-stats.json")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if MEASURED.exists():
        seconds = json.loads(MEASURED.read_text(encoding="utf-8"))["duration_by_test"]
        items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))
