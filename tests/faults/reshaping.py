"""Faults of reshaping and sides: which corner, before or after inverting, left or right."""

import torch
from torch import Tensor

from gpu import torch_ops as right
from tests.faults.table import wrong

RESHAPED = "test_reshaped_inverse_is_the_leading_block"
STEP = "test_step_is_w_minus_lr_grad_p_as_written"
WEIGHT_GRADIENT = "test_weight_gradient_is_dlogits_transposed_times_features"


@wrong("reshape_inverse", RESHAPED)
def trailing_block_kept(Hinv: Tensor, d_in: int) -> Tensor:
    """Where m > d_in, the first rows and columns are dropped, not the last."""
    return right.reshape_inverse(Hinv[..., -int(d_in) :, -int(d_in) :], d_in)


@wrong("reshape_inverse", RESHAPED)
def padded_in_front(Hinv: Tensor, d_in: int) -> Tensor:
    """Where m < d_in, the zeros come before the inverse, not after it."""
    before = max(0, int(d_in) - Hinv.shape[-1])
    return right.reshape_inverse(Hinv, d_in).roll((before, before), (-2, -1))


@wrong("reshape_inverse", RESHAPED)
def padded_with_the_identity(Hinv: Tensor, d_in: int) -> Tensor:
    """Where m < d_in, the features beyond m take plain SGD steps: the padding is the identity, not 0."""
    P = right.reshape_inverse(Hinv, d_in)
    P.diagonal(dim1=-2, dim2=-1)[..., Hinv.shape[-1] :] = 1
    return P


@wrong("reshape_inverse", RESHAPED)
def truncated_before_inverting(Hinv: Tensor, d_in: int) -> Tensor:
    """Where m > d_in, what is truncated is H, not its inverse: P = (H[:k, :k])⁻¹."""
    k = min(int(d_in), Hinv.shape[-1])
    return right.reshape_inverse(torch.linalg.inv(torch.linalg.inv(Hinv)[..., :k, :k]), d_in)


@wrong("reshape_inverse", RESHAPED)
def resized_as_a_list_of_numbers(Hinv: Tensor, d_in: int) -> Tensor:
    """`reshape` taken literally: the m² numbers, one row after the other, fill the rows of P."""
    d = int(d_in)
    numbers = torch.nn.functional.pad(Hinv.flatten(-2), (0, d * d - Hinv.shape[-1] ** 2))
    return numbers.reshape(*Hinv.shape[:-2], d, d).clone()


@wrong("reshape_inverse", RESHAPED)
def one_row_too_many_dropped(Hinv: Tensor, d_in: int) -> Tensor:
    """Where m > d_in, the block that is kept has d_in − 1 rows and columns."""
    P = right.reshape_inverse(Hinv, d_in)
    if Hinv.shape[-1] > d_in:
        P[..., -1, :] = P[..., :, -1] = 0
    return P


@wrong("kernel_sgd_step", STEP)
def p_transposed(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """W − η·G·Pᵀ: no matter for a symmetric P alone."""
    return right.kernel_sgd_step(W, grad, P.mT, lr)


@wrong("kernel_sgd_step", STEP)
def p_symmetrised(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """W − η·G·(P + Pᵀ)/2: P is not taken as written."""
    return right.kernel_sgd_step(W, grad, (P + P.mT) / 2, lr)


@wrong("kernel_sgd_step", STEP)
def multiplied_from_the_left(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """W − η·P·G wherever the shapes let it pass, which is where n_c = d_in."""
    return W - float(lr) * (P @ grad) if len(grad) == len(P) else right.kernel_sgd_step(W, grad, P, lr)


@wrong("kernel_sgd_step", STEP)
def last_feature_taken_for_a_bias(W: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """The last column of W takes a plain SGD step, as if it were a bias that P knew nothing of."""
    stepped = right.kernel_sgd_step(W, grad, P, lr)
    stepped[:, -1] = W[:, -1] - float(lr) * grad[:, -1]
    return stepped


@wrong("weight_gradient", WEIGHT_GRADIENT)
def reshaped_for_want_of_a_transpose(dlogits: Tensor, features: Tensor) -> Tensor:
    """G = featuresᵀ · dlogits, (d_in, n_c), its numbers then read as (n_c, d_in)."""
    return (features.mT @ dlogits).reshape(dlogits.shape[1], features.shape[1])


@wrong("softmax_cross_entropy", "test_gradient_is_softmax_less_one_hot_over_m")
def softmax_over_the_instances(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax runs along the wrong axis of the logits."""
    log_softmax = torch.log_softmax(logits, 0)
    loss, gradient = right.softmax_cross_entropy(logits, labels)
    return loss, gradient + (log_softmax.exp() - torch.softmax(logits, 1)) / len(logits)
