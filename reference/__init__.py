"""The float64 specification of Kernel SGD (Chen et al., CIKM 2022) in NumPy and SciPy: what is right.

One formula after the other, as slow as clarity needs. As a module it is a backend of the contract: the operations,
`name`, `dtypes`, `from_numpy`, `to_numpy`. It knows nothing of torch, CuPy or `gpu`.

>>> import reference
>>> H = reference.gram([[0.0], [1.0]], gamma=1.0)
>>> P = reference.reshape_inverse(reference.inverse_gram(H), d_in=3)
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.inverse import condition_estimate, inverse_gram
from reference.kernels import gram, random_psd
from reference.loss import softmax_cross_entropy, softmax_cross_entropy_hvp
from reference.reshape import reshape_inverse
from reference.step import kernel_sgd_step, projected_sgd_step, weight_gradient

__all__ = [
    "condition_estimate",
    "dtypes",
    "from_numpy",
    "gram",
    "inverse_gram",
    "kernel_sgd_step",
    "name",
    "projected_sgd_step",
    "random_psd",
    "reshape_inverse",
    "softmax_cross_entropy",
    "softmax_cross_entropy_hvp",
    "to_numpy",
    "weight_gradient",
]

name = "reference"
dtypes = ("float64",)


def from_numpy(array: ArrayLike, dtype: str) -> NDArray[np.generic]:
    """A copy of `array`, memory order kept, floats in `dtype`; what is no float stays what it is.

    Raises ValueError for a dtype that is not in `dtypes`.
    """
    if dtype not in dtypes:
        raise ValueError(f"dtype: expected one of {dtypes}, got {dtype!r}")
    source = np.asarray(array)
    return source.astype(dtype if source.dtype.kind == "f" else source.dtype, order="K")


def to_numpy(array: ArrayLike) -> NDArray[np.generic]:
    """`array` itself: it is NumPy's already."""
    return np.asarray(array)
