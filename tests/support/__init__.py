"""Inputs (strategies), exact results (exact) and error measures (ratios) for tests of any Kernel SGD implementation."""
