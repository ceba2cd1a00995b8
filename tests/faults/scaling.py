"""Faults of scaling: a factor that is missing or too many, and what a parameter means."""

import math
from typing import Any

import torch
from torch import Tensor

from gpu import torch_ops as right
from tests.faults.table import wrong

GRAM = "test_gram_is_the_kernel_of_all_pairs"
INVERSE = "test_inverse_is_near_the_exact_one"
LOSS = "test_loss_is_the_mean_cross_entropy"
LOSS_GRADIENT = "test_gradient_is_softmax_less_one_hot_over_m"
WEIGHT_GRADIENT = "test_weight_gradient_is_dlogits_transposed_times_features"
STEP = "test_step_is_w_minus_lr_grad_p_as_written"


@wrong("gram", GRAM)
def gamma_taken_for_a_width(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, **others: Any) -> Tensor:
    """exp(−‖x−y‖²/2γ²): γ is read as the σ of other books."""
    return right.gram(X, kernel, gamma=1 / (2 * gamma**2) if kernel == "rbf" else gamma, **others)


@wrong("gram", GRAM)
def root_of_gamma(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, **others: Any) -> Tensor:
    """exp(−√γ‖x−y‖²): the data are scaled by the fourth root of γ."""
    return right.gram(X, kernel, gamma=math.sqrt(gamma) if kernel == "rbf" else gamma, **others)


@wrong("gram", GRAM)
def gamma_over_the_features(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, **others: Any) -> Tensor:
    """exp(−γ‖x−y‖²/d): the mean of the squares, not their sum."""
    return right.gram(X, kernel, gamma=gamma / X.shape[-1] if kernel == "rbf" else gamma, **others)


@wrong("gram", GRAM)
def distance_not_squared(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, **others: Any) -> Tensor:
    """exp(−γ‖x−y‖), the Laplacian's relative."""
    if kernel != "rbf":
        return right.gram(X, kernel, gamma=gamma, **others)
    distances = torch.cdist(X, X, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-float(gamma) * distances)


@wrong("gram", GRAM)
def gamma_left_out_of_the_polynomial(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, **others: Any) -> Tensor:
    """(⟨x,y⟩ + c₀)^degree."""
    return right.gram(X, kernel, gamma=1.0 if kernel == "polynomial" else gamma, **others)


@wrong("gram", GRAM)
def gamma_times_coef0(
    X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, degree: int = 3, coef0: float = 1.0
) -> Tensor:
    """(γ(⟨x,y⟩ + c₀))^degree: the bracket closes too late."""
    return right.gram(X, kernel, gamma=gamma, degree=degree, coef0=gamma * coef0)


@wrong("gram", "test_parameters_that_are_left_out_have_the_contracts_defaults")
def homogeneous_by_default(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """Where no coef0 is given it is 0, as it is in LIBSVM."""
    return right.gram(X, kernel, **{"coef0": 0.0} | options)


@wrong("gram", GRAM)
def degree_and_coef0_exchanged(
    X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, degree: int = 3, coef0: float = 1.0
) -> Tensor:
    """(γ⟨x,y⟩ + degree)^c₀: two arguments of a helper in the wrong order."""
    return right.gram(X, kernel, gamma=gamma, degree=max(1, round(coef0)), coef0=float(degree))


@wrong("gram", "test_parameters_that_a_kernel_does_not_use_change_nothing")
def linear_kernel_times_gamma(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, **others: Any) -> Tensor:
    """γ⟨x,y⟩ for the linear kernel, which has no γ."""
    values = right.gram(X, kernel, gamma=gamma, **others)
    return values * float(gamma) if kernel == "linear" else values


@wrong("inverse_gram", INVERSE)
def ridge_added_after_inverting(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """H⁻¹ + ridge·I: the order of the two is exchanged."""
    return right.inverse_gram(H, singular=singular) + float(ridge) * torch.eye(H.shape[-1], dtype=H.dtype)


@wrong("inverse_gram", INVERSE)
def ridge_times_m(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """(H + m·ridge·I)⁻¹, as where the loss is a mean and not a sum."""
    return right.inverse_gram(H, ridge=ridge * H.shape[-1], singular=singular)


@wrong("inverse_gram", INVERSE)
def ridge_relative_to_the_trace(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """The ridge is taken as a multiple of the mean diagonal entry: the same for an RBF kernel, whose diagonal is 1."""
    mean = H.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return right.inverse_gram(H / mean, ridge=ridge, singular=singular) / mean


@wrong("softmax_cross_entropy", LOSS)
def loss_summed(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss is the sum over the instances, its gradient that of the mean."""
    loss, gradient = right.softmax_cross_entropy(logits, labels)
    return loss * len(logits), gradient


@wrong("softmax_cross_entropy", LOSS_GRADIENT)
def gradient_without_1_over_m(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """softmax − one-hot: the gradient of the sum, the loss of the mean."""
    loss, gradient = right.softmax_cross_entropy(logits, labels)
    return loss, gradient * len(logits)


@wrong("softmax_cross_entropy", LOSS)
def loss_in_bits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm is that to base 2."""
    loss, gradient = right.softmax_cross_entropy(logits, labels)
    return loss / math.log(2), gradient


@wrong("weight_gradient", WEIGHT_GRADIENT)
def averaged_once_more(dlogits: Tensor, features: Tensor) -> Tensor:
    """G/m: the 1/m that stands in dlogits is applied again."""
    return right.weight_gradient(dlogits, features) / len(dlogits)


@wrong("kernel_sgd_step", STEP)
def gradient_ascent(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """W + η·G·P."""
    return right.kernel_sgd_step(W, -grad, P, lr)


@wrong("kernel_sgd_step", STEP)
def weights_decayed(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """W − η·(G + 10⁻⁴·W)·P: a default of the optimizer it was written for."""
    return right.kernel_sgd_step(W, grad + 1e-4 * W, P, lr)
