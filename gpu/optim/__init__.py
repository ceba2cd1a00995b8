"""The optimizer people use: `KernelSGD`, its cached inverses, and the parameter groups that go with them."""

from gpu.optim.cache import CachedInverse, KernelCache, kernel_inverse, mini_batches, resampled
from gpu.optim.groups import kernel_groups
from gpu.optim.kernel_sgd import KernelSGD

__all__ = [
    "CachedInverse",
    "KernelCache",
    "KernelSGD",
    "kernel_groups",
    "kernel_inverse",
    "mini_batches",
    "resampled",
]
