"""`KernelSGD` as a backend: the operations of torch, and a step that the optimizer takes.

The checked operation and the optimizer are to be one code; here the optimizer itself is held to the contract. It gets
what the cache would give it, the m × m block that the padding in P surrounds with zeros.
"""

from types import SimpleNamespace

import torch
from torch import Tensor

from gpu import torch_ops
from gpu.optim import CachedInverse, KernelSGD
from tests.conformance.backends import namespace


def stepping_with_kernel_sgd() -> SimpleNamespace:
    """`gpu.torch_ops` with `kernel_sgd_step` taken by `KernelSGD.step`."""
    return namespace(torch_ops, name="torch:KernelSGD", kernel_sgd_step=kernel_sgd_step)


def kernel_sgd_step(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """W − lr · grad · P by one step of the optimizer on a parameter that starts as W."""
    torch_ops.kernel_sgd_step(W, grad, P, lr)  # an optimizer is given what has been checked
    parameter = torch.nn.Parameter(W.clone())
    parameter.grad = grad.clone()
    optimizer = KernelSGD([parameter], float(lr), preconditioned=True)
    optimizer.step(inverse=CachedInverse.unchecked(_without_padding(P)))
    return parameter.detach()


def _without_padding(P: Tensor) -> Tensor:
    used = (P != 0).any(0) | (P != 0).any(1)
    k = max(1, int(used.nonzero().max()) + 1 if used.any() else 1)
    return P[:k, :k]
