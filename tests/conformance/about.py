"""Which operation a test is about: what the report sorts by, and what stands in the test's identifier."""

import pytest

from tests.conformance.backends import OPERATIONS

EVERY_OPERATION = pytest.mark.parametrize("operation", OPERATIONS)


def about(operation: str) -> pytest.MarkDecorator:
    """Mark a test as one of this operation."""
    return pytest.mark.operation(operation)
