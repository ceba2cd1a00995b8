"""Inputs (strategies) and error measures (ratios) for anyone who tests an implementation of Kernel SGD."""
