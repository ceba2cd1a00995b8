"""Tests of the tests: which property fails on which deliberate fault (`python -m tests.audit`)."""
