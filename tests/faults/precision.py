"""Faults of precision: too few bits, cancellation, formulas that are right in real numbers alone."""

import math
from typing import Any

import torch
from torch import Tensor

from gpu import torch_ops as right
from tests.faults.table import wrong

GRAM = "test_gram_is_the_kernel_of_all_pairs"
GRAM_BITS = "test_gram_is_symmetric_bit_for_bit_and_exactly_1_on_the_diagonal_of_rbf"
INVERSE = "test_inverse_solves_its_equation"
LOSS = "test_loss_is_the_mean_cross_entropy"
LOSS_GRADIENT = "test_gradient_is_softmax_less_one_hot_over_m"
WEIGHT_GRADIENT = "test_weight_gradient_is_dlogits_transposed_times_features"
STEP = "test_step_is_w_minus_lr_grad_p_as_written"


def in_tf32(A: Tensor) -> Tensor:
    """float32 rounded to the 10 fraction bits that a tensor core reads."""
    return ((A.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32) if A.dtype == torch.float32 else A


@wrong("gram", GRAM)
def products_in_tf32(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """The linear kernel lets float32 be rounded to TF32 on its way into the product."""
    return right.gram(in_tf32(X.contiguous()) if kernel == "linear" else X, kernel, **options)


@wrong("gram", GRAM)
def kernel_in_float32(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, **others: Any) -> Tensor:
    """The exponential is evaluated in float32, whatever was claimed."""
    values = right.gram(X, kernel, gamma=gamma, **others)
    return values.log().float().exp().to(X.dtype) if kernel == "rbf" else values


@wrong("gram", "test_polynomial_kernel_keeps_its_precision")
def gamma_after_the_product(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """γ is multiplied to ⟨x,y⟩, which has overflowed or vanished by then."""
    if kernel != "polynomial":
        return right.gram(X, kernel, **options)
    gamma, degree, coef0 = ({"gamma": 1.0, "degree": 3, "coef0": 1.0} | options).values()
    return (gamma * (X @ X.mT) + coef0) ** degree


@wrong("gram", "test_polynomial_kernel_of_rows_that_the_root_of_gamma")
def root_of_gamma_on_either_side(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """(√γ·X)·(√γ·X)ᵀ keeps most products in range, and loses small rows beside large ones."""
    if kernel != "polynomial":
        return right.gram(X, kernel, **options)
    gamma, degree, coef0 = ({"gamma": 1.0, "degree": 3, "coef0": 1.0} | options).values()
    scaled = math.sqrt(gamma) * X
    return (scaled @ scaled.mT + coef0) ** degree


@wrong("gram", "test_rbf_kernel_of_data_far_from_the_origin")
def squares_expanded_without_centring(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, **others: Any) -> Tensor:
    """‖x‖² + ‖y‖² − 2⟨x,y⟩ of the data as they come: all is cancelled where the mean is large."""
    if kernel != "rbf":
        return right.gram(X, kernel, gamma=gamma, **others)
    products = X @ X.mT
    squares = products.diagonal(dim1=-2, dim2=-1)
    distances = (squares[..., :, None] + squares[..., None, :] - (products + products.mT)).clamp(min=0)
    return torch.exp(-float(gamma) * distances)


@wrong("gram", GRAM_BITS)
def diagonal_left_to_rounding(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, **others: Any) -> Tensor:
    """‖x‖² + ‖x‖² − 2⟨x,x⟩ is 0 only if the squares and the product are summed in one order."""
    values = right.gram(X, kernel, gamma=gamma, **others)
    if kernel == "rbf":
        centred = X - X.mean(-2, keepdim=True)
        squares, products = centred.square().sum(-1), (centred @ centred.mT).diagonal(dim1=-2, dim2=-1)
        values.diagonal(dim1=-2, dim2=-1).copy_(torch.exp(-float(gamma) * 2 * (squares - products).abs()))
    return values


@wrong("gram", GRAM_BITS)
def gamma_on_one_side(X: Tensor, kernel: str = "rbf", *, gamma: float = 1.0, **others: Any) -> Tensor:
    """(γX)·Xᵀ is symmetric in real numbers, not bit for bit."""
    if kernel != "polynomial":
        return right.gram(X, kernel, gamma=gamma, **others)
    degree, coef0 = int(others.get("degree", 3)), float(others.get("coef0", 1.0))
    return ((float(gamma) * X) @ X.mT + coef0) ** degree


@wrong("inverse_gram", "test_inverse_is_symmetric_bit_for_bit")
def solved_column_by_column(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """Triangular solves against the identity, whose result is symmetric up to rounding only."""
    shifted = H + float(ridge) * torch.eye(H.shape[-1], dtype=H.dtype)
    factor, info = torch.linalg.cholesky_ex(shifted)
    if info.any():
        return right.inverse_gram(H, ridge=ridge, singular=singular)
    return torch.cholesky_solve(torch.eye(H.shape[-1], dtype=H.dtype).expand_as(H), factor)


@wrong("inverse_gram", INVERSE)
def inverted_in_float32(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """Inverted in float32, whatever was claimed."""
    shifted = H + float(ridge) * torch.eye(H.shape[-1], dtype=H.dtype)
    return right.inverse_gram(shifted.float(), singular=singular).to(H.dtype)


@wrong("inverse_gram", INVERSE)
def jitter_always_added(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """A millionth of the mean diagonal entry is added for the sake of stability."""
    jitter = 1e-6 * H.diagonal(dim1=-2, dim2=-1).mean().item()
    return right.inverse_gram(H, ridge=ridge + max(0.0, jitter), singular=singular)


@wrong("inverse_gram", INVERSE)
def normal_equations(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """(H·H)⁻¹·H: the condition is squared."""
    if singular == "pinv":
        return right.inverse_gram(H, ridge=ridge, singular=singular)
    shifted = H + float(ridge) * torch.eye(H.shape[-1], dtype=H.dtype)
    inverse = torch.linalg.inv_ex(shifted @ shifted)[0] @ shifted
    return torch.maximum(inverse, inverse.mT)


@wrong("inverse_gram", INVERSE)
def newton_iteration_stopped_early(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """X ← X(2I − HX) twenty times, which is enough up to a condition of a thousand."""
    if singular == "pinv":
        return right.inverse_gram(H, ridge=ridge, singular=singular)
    identity = torch.eye(H.shape[-1], dtype=H.dtype)
    shifted = H + float(ridge) * identity
    largest = shifted.abs().sum(-1).amax(-1)[..., None, None]
    scaled = shifted / largest
    inverse = scaled
    for _ in range(20):
        inverse = inverse @ (2 * identity - scaled @ inverse)
    return torch.maximum(inverse, inverse.mT) / largest


@wrong("inverse_gram", "inverse_gram: H duplicates", lenient=True)
def general_inverse(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """LU with partial pivoting, as `inv` does for any matrix: it does not notice duplicates."""
    try:
        return right.inverse_gram(H, ridge=ridge, singular=singular)
    except right.np.linalg.LinAlgError:
        return torch.linalg.inv_ex(H + float(ridge) * torch.eye(H.shape[-1], dtype=H.dtype))[0]


@wrong("softmax_cross_entropy", LOSS_GRADIENT)
def softmax_without_a_shift(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """exp f/Σ exp f with the logits as they come, which overflows from 709 on (88 in float32)."""
    loss, gradient = right.softmax_cross_entropy(logits, labels)
    exponentials = logits.exp()
    softmax = exponentials / exponentials.sum(1, keepdim=True)
    return loss, gradient + (softmax - torch.softmax(logits, 1)) / len(logits)


@wrong("softmax_cross_entropy", LOSS)
def logarithm_of_the_softmax(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """−log softmax(f)_y in two steps: infinite where the softmax underflows."""
    _, gradient = right.softmax_cross_entropy(logits, labels)
    return -torch.softmax(logits, 1).gather(1, labels.long()[:, None]).log().mean(), gradient


@wrong("softmax_cross_entropy", LOSS)
def logarithm_with_an_epsilon(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """−log(softmax(f)_y + 10⁻¹²): never infinite, never right where the loss is large."""
    _, gradient = right.softmax_cross_entropy(logits, labels)
    return -(torch.softmax(logits, 1).gather(1, labels.long()[:, None]) + 1e-12).log().mean(), gradient


@wrong("softmax_cross_entropy", LOSS)
def logits_clipped(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits beyond ±50 are clipped, so that nothing overflows."""
    return right.softmax_cross_entropy(logits.clamp(-50, 50), labels)


@wrong("weight_gradient", WEIGHT_GRADIENT)
def accumulated_in_bfloat16(dlogits: Tensor, features: Tensor) -> Tensor:
    """The instances are summed one after the other in bfloat16."""
    G = torch.zeros(dlogits.shape[1], features.shape[1], dtype=torch.bfloat16)
    for dlogit, feature in zip(dlogits, features, strict=True):
        G += torch.outer(dlogit, feature)
    return G.to(dlogits.dtype)


@wrong("kernel_sgd_step", STEP)
def preconditioned_in_float16(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """G·P is a product of float16, scaled so that it does not overflow."""
    scale = max(grad.abs().max().item(), P.abs().max().item(), 1.0) ** 2
    return W - float(lr) * scale * ((grad / math.sqrt(scale)).half() @ (P / math.sqrt(scale)).half()).to(W.dtype)


@wrong("kernel_sgd_step", STEP)
def learning_rate_in_half_precision(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """η is kept in float16: 0.1 becomes 0.09998."""
    return right.kernel_sgd_step(W, grad, P, torch.tensor(float(lr)).half().item())
