"""A pytest plugin: `-p tests.faults.selection --only TEXT` runs the tests whose identifier contains the text."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--only", metavar="TEXT", default="", help="run the tests whose identifier contains this")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if config.getoption("--only") in item.nodeid]
