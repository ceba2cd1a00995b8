"""The second-order baselines of the paper that torch.optim does not have, and what Hessian information each one keeps.

Both differentiate the loss twice: the closure of their `step` returns the loss and must not call backward().
"""

from gpu.optim.baselines.adahessian import AdaHessian
from gpu.optim.baselines.esgd import ESGD
from gpu.optim.baselines.memory import hessian_bytes

__all__ = ["ESGD", "AdaHessian", "hessian_bytes"]
