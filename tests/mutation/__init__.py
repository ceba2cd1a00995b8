"""Mutation testing of `reference` and `gpu.torch_ops` with mutmut: `make mutants`."""
