"""Faults of robustness: what should be refused is taken, what should be left alone is written to."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu import torch_ops as right
from tests.faults.table import wrong

LinAlgError = np.linalg.LinAlgError


def by_eigenvalues(H: Tensor, ridge: float, cutoff: float) -> Tensor:
    """The pseudoinverse of H + ridge·I, eigenvalues up to cutoff·λ_max taken as 0."""
    eigenvalues, vectors = torch.linalg.eigh(H + float(ridge) * torch.eye(H.shape[-1], dtype=H.dtype))
    counted = eigenvalues > cutoff * eigenvalues[..., -1:]
    reciprocals = torch.where(counted, eigenvalues, math.inf).reciprocal()
    inverse = (vectors * reciprocals[..., None, :]) @ vectors.mT
    return torch.maximum(inverse, inverse.mT)


@wrong("inverse_gram", "inverse_gram: H duplicates", lenient=True)
def jittered_until_it_factors(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """Where the factorisation fails, a millionth is added to the diagonal, and nobody is told."""
    try:
        return right.inverse_gram(H, ridge=ridge, singular=singular)
    except LinAlgError:
        return right.inverse_gram(H, ridge=ridge + 1e-3 * H.abs().max().item(), singular=singular)


@wrong("inverse_gram", "inverse_gram: H duplicates", lenient=True)
def pseudoinverse_unasked(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """`singular="raise"` is answered like `"pinv"`."""
    return right.inverse_gram(H, ridge=ridge, singular="pinv" if singular == "raise" else singular)


@wrong("inverse_gram", "counts_as_0_in_the_pseudoinverse")
def pseudoinverse_without_a_cutoff(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """Every positive eigenvalue is inverted, those that rounding has left as well."""
    return by_eigenvalues(H, ridge, 0.0) if singular == "pinv" else right.inverse_gram(H, ridge=ridge)


@wrong("inverse_gram", "test_eigenvalue_above_100_thresholds_is_inverted")
def pseudoinverse_cut_at_the_root_of_eps(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """Eigenvalues up to √eps·λ_max count as 0: half of the digits' worth of regular matrices with them."""
    cutoff = math.sqrt(torch.finfo(H.dtype).eps)
    return by_eigenvalues(H, ridge, cutoff) if singular == "pinv" else right.inverse_gram(H, ridge=ridge)


@wrong("inverse_gram", "inverse_gram: H indefinite, pinv", lenient=True)
def negative_eigenvalues_taken_as_0(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """An indefinite matrix has a pseudoinverse, too, if all that is not positive counts as 0."""
    try:
        return right.inverse_gram(H, ridge=ridge, singular=singular)
    except LinAlgError:
        if singular == "raise":
            raise
        return by_eigenvalues(H, ridge, H.shape[-1] * torch.finfo(H.dtype).eps)


@wrong("inverse_gram", "test_inverse_solves_its_equation")
def singular_by_an_absolute_threshold(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """λ_min ≤ m·eps is called singular, however small λ_max is."""
    smallest = torch.linalg.eigvalsh(H)[..., 0] + float(ridge)
    if singular == "raise" and (smallest <= H.shape[-1] * torch.finfo(H.dtype).eps).any():
        raise LinAlgError(f"H + ridge·I is singular: its smallest eigenvalues are {smallest.tolist()}")
    return right.inverse_gram(H, ridge=ridge, singular=singular)


@wrong("inverse_gram", "inverse_gram: H duplicates", lenient=True)
def error_of_another_library(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """torch.linalg.LinAlgError is no numpy.linalg.LinAlgError."""
    try:
        return right.inverse_gram(H, ridge=ridge, singular=singular)
    except LinAlgError as error:
        raise torch.linalg.LinAlgError(str(error)) from error


@wrong("inverse_gram", "inverse_gram: H not symmetric by 1000", lenient=True)
def asymmetric_matrix_symmetrised(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """(H + Hᵀ)/2 is inverted, whatever H is."""
    square = H.ndim >= 2 and H.shape[-1] == H.shape[-2]
    return right.inverse_gram((H + H.mT) / 2 if square else H, ridge=ridge, singular=singular)


@wrong("inverse_gram", "test_lower_triangle_counts")
def upper_triangle_counts(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """Where the two triangles differ by rounding, the other one is read."""
    return right.inverse_gram(H.triu() + H.triu(1).mT, ridge=ridge, singular=singular)


@wrong("inverse_gram", "test_inverse_solves_its_equation")
def ridge_written_into_h(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """The diagonal of the caller's H is where the ridge is added."""
    H.diagonal(dim1=-2, dim2=-1).add_(float(ridge))
    return right.inverse_gram(H, singular=singular)


@wrong("gram", "test_rbf_value_beside_a_distance_that_overflows")
def ones_and_zeros_beside_an_overflow(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """A member in which one distance overflows is told which rows are equal, and no more."""
    values = right.gram(X, kernel, **options)
    overflows = (X.abs().amax((-2, -1), keepdim=True) > torch.finfo(X.dtype).max / 4) & torch.tensor(kernel == "rbf")
    return torch.where(overflows, (values == 1).to(X.dtype), values)


@wrong("gram", "test_gram_is_the_kernel_of_all_pairs")
def centred_in_place(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """The caller's X loses its mean."""
    if kernel == "rbf":
        X -= X.mean(-2, keepdim=True)
    return right.gram(X, kernel, **options)


@wrong("gram", "gram: X holds nan", lenient=True)
def not_a_number_taken_as_0(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """NaN is replaced, not refused."""
    return right.gram(torch.nan_to_num(X, nan=0.0, posinf=math.inf, neginf=-math.inf), kernel, **options)


@wrong("gram", "gram: X of shape (0, 2)", lenient=True)
def nothing_of_nothing(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """No rows have an empty Gram matrix."""
    return X @ X.mT if X.shape[-2:-1] == (0,) else right.gram(X, kernel, **options)


@wrong("gram", "gram: gamma = nan with the linear kernel", lenient=True)
def unused_parameters_unchecked(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """What the linear kernel does not use may be anything."""
    return right.gram(X, kernel) if kernel == "linear" else right.gram(X, kernel, **options)


@wrong("gram", "gram: degree = 2.5", lenient=True)
def degree_cut_to_an_integer(X: Tensor, kernel: str = "rbf", *, degree: float = 3, **others: Any) -> Tensor:
    """A degree of 2.5 is one of 2."""
    fractional = isinstance(degree, (float, Fraction)) and 1 <= degree < math.inf
    return right.gram(X, kernel, degree=math.floor(degree) if fractional else degree, **others)


@wrong("gram", "test_rbf_value_is_0_where_the_distance_overflows")
def overflowing_distance_refused(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """A distance that overflows is an error, though exp(−∞) is 0."""
    if kernel == "rbf" and not (X @ X.mT).isfinite().all():
        raise FloatingPointError(f"the squared distances overflow {X.dtype}")
    return right.gram(X, kernel, **options)


@wrong("reshape_inverse", "test_reshaped_inverse_is_the_leading_block")
def nothing_to_reshape(Hinv: Tensor, d_in: int) -> Tensor:
    """Where m = d_in, the caller gets its own array back, and what it does to one it does to the other."""
    return Hinv if Hinv.shape[-1] == d_in else right.reshape_inverse(Hinv, d_in)


@wrong("softmax_cross_entropy", "labels [0, -1, 1] of 2 classes", lenient=True)
def labels_counted_from_the_end(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The label −1 is the last class, as in an index."""
    if labels.dtype in right.INTEGERS:
        wide = labels.long()
        labels = torch.where((wide < 0) & (wide >= -logits.shape[-1]), wide + logits.shape[-1], wide)
    return right.softmax_cross_entropy(logits, labels)


@wrong("softmax_cross_entropy", "labels [0, 1, 2] of 2 classes", lenient=True)
def labels_clipped(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A label beyond the last class is the last class, as where an index is clamped."""
    if labels.dtype in right.INTEGERS:
        labels = labels.long().clamp(max=logits.shape[-1] - 1)
    return right.softmax_cross_entropy(logits, labels)


@wrong("softmax_cross_entropy", "labels [0, -100, 1] of 2 classes", lenient=True)
def label_that_is_ignored(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """−100 marks an instance that does not count, as by default in torch's own cross-entropy."""
    counted = labels.long() != -100
    if labels.dtype not in right.INTEGERS or labels.shape != logits.shape[:1] or counted.all():
        return right.softmax_cross_entropy(logits, labels)
    loss, gradient = right.softmax_cross_entropy(logits[counted], labels[counted])
    return loss, torch.zeros_like(logits).masked_scatter(counted[:, None], gradient)


@wrong("softmax_cross_entropy", "labels of float64", lenient=True)
def labels_of_any_number(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels that are floats are cut to integers."""
    return right.softmax_cross_entropy(logits, labels.long() if labels.is_floating_point() else labels)


@wrong("softmax_cross_entropy", "test_mean_loss_that_fits_is_no_overflow_on_the_way")
def summed_before_dividing(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The losses are summed, and their sum overflows where their mean does not."""
    _, gradient = right.softmax_cross_entropy(logits, labels)
    return -torch.log_softmax(logits, 1).gather(1, labels.long()[:, None]).sum() / len(logits), gradient


@wrong("weight_gradient", "weight_gradient: sum overflows", lenient=True)
def overflow_returned(dlogits: Tensor, features: Tensor) -> Tensor:
    """What overflows is returned as infinite."""
    try:
        return right.weight_gradient(dlogits, features)
    except FloatingPointError:
        return dlogits.mT @ features


@wrong("weight_gradient", "weight_gradient: features of int64", lenient=True)
def integers_converted(dlogits: Tensor, features: Tensor) -> Tensor:
    """Integer features are converted, not refused."""
    return right.weight_gradient(dlogits, features if features.is_complex() else features.to(dlogits.dtype))


@wrong("kernel_sgd_step", "test_step_is_w_minus_lr_grad_p_as_written")
def stepped_in_place(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """The step is taken in the caller's W, which is also what is returned."""
    return W.copy_(right.kernel_sgd_step(W, grad, P, lr))


@wrong("kernel_sgd_step", "kernel_sgd_step: lr = True", lenient=True)
def true_taken_as_1(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """A bool is an integer in Python, and passes for a number."""
    return right.kernel_sgd_step(W, grad, P, float(lr) if isinstance(lr, bool) else lr)


@wrong("kernel_sgd_step", "kernel_sgd_step: grad of shape (1, 4)", lenient=True)
def gradient_broadcast(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """A gradient of one row is applied to every class."""
    fits = grad.ndim == W.ndim == 2 and grad.shape == (1, W.shape[1])
    return right.kernel_sgd_step(W, grad.expand_as(W) if fits else grad, P, lr)


@wrong("from_numpy", "test_from_numpy_copies_values_in_their_memory_order")
def array_not_copied(array: Any, dtype: str) -> Tensor:
    """An array that is already of the dtype is taken as it is, memory and all."""
    taken = right.from_numpy(array, dtype)
    same = np.asarray(array).dtype == dtype and np.asarray(array).flags.writeable
    return torch.from_numpy(np.asarray(array)) if same else taken


@wrong("from_numpy", "test_from_numpy_copies_values_in_their_memory_order")
def memory_order_lost(array: Any, dtype: str) -> Tensor:
    """Arrays come out in C order, whatever they were: nobody sees a column-major array any more."""
    return right.from_numpy(array, dtype).contiguous()


@wrong("from_numpy", "test_from_numpy_leaves_integers_integers")
def everything_made_a_float(array: Any, dtype: str) -> Tensor:
    """Integer arrays become floats, labels among them."""
    return right.from_numpy(np.asarray(array, dtype), dtype)
