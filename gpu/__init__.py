"""Kernel SGD in torch: operations, optimizer, training, benches. Light to import: torch comes with the submodule used.

>>> from gpu.optim import KernelCache, KernelSGD, kernel_groups
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("kernel-sgd")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
