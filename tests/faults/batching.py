"""Faults of batching: leading dimensions, sizes that are special, neighbours."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu import torch_ops as right
from tests.faults.table import wrong

LinAlgError = np.linalg.LinAlgError
ALONE = "test_every_member_of_a_batch_is_what_it_is_alone"
LEADING = "test_leading_dimensions_are_those_of_the_result"


@wrong("gram", LEADING)
def leading_dimensions_flattened(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """(2, 3, m, d) gives (6, m, m)."""
    values = right.gram(X, kernel, **options)
    return values.flatten(0, -3) if X.ndim > 3 else values


@wrong("gram", LEADING)
def leading_dimensions_in_column_major_order(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """The members are flattened row after row and put back column after column."""
    values = right.gram(X, kernel, **options)
    if X.ndim <= 3:
        return values
    leading = X.shape[:-2]
    backwards = tuple(reversed(range(len(leading))))
    members = values.flatten(0, -3).reshape(*leading[::-1], *values.shape[-2:])
    return members.permute(*backwards, -2, -1).contiguous()


@wrong("inverse_gram", LEADING)
def batch_of_one_squeezed(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """(1, m, m) gives (m, m)."""
    inverse = right.inverse_gram(H, ridge=ridge, singular=singular)
    return inverse.squeeze(0) if inverse.ndim == 3 else inverse


@wrong("weight_gradient", "test_weight_gradient_is_dlogits_transposed_times_features")
def single_instance_squeezed(dlogits: Tensor, features: Tensor) -> Tensor:
    """A mini-batch of one loses its first dimension, and the outer product becomes another product."""
    G = right.weight_gradient(dlogits, features)
    return G.squeeze(0) if len(dlogits) == 1 else G


@wrong("inverse_gram", ALONE)
def members_reversed(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """The inverses come out in the order opposite to that of the matrices."""
    inverse = right.inverse_gram(H, ridge=ridge, singular=singular)
    return inverse.flip(0) if H.ndim > 2 else inverse


@wrong("inverse_gram", ALONE)
def members_beyond_512_left_out(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """A launch has 512 blocks at most, and what is beyond them nobody inverts."""
    inverse = right.inverse_gram(H, ridge=ridge, singular=singular)
    if H.ndim > 2:
        inverse[512:] = 0
    return inverse


@wrong("gram", ALONE)
def ragged_tail_left_out(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """From 32 members on they are worked off in groups of 32, and an incomplete last group is dropped."""
    values = right.gram(X, kernel, **options)
    if X.ndim > 2 and len(X) > 32:
        values[len(X) // 32 * 32 :] = 0
    return values


@wrong("gram", ALONE)
def blocks_beyond_32_rows_exchanged(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """Tiles of 32 × 32 entries: with several members, all tiles beside the diagonal are that of rows 32 to 64."""
    values = right.gram(X, kernel, **options)
    if X.ndim > 2 and values.shape[-1] > 64:
        values[..., 64:, :32] = values[..., 32:33, :32]
        values[..., :32, 64:] = values[..., :32, 32:33]
    return values


@wrong("inverse_gram", "test_a_singular_member_leaves_its_neighbours_inverses_alone")
def all_members_regularised_for_one(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """Where one member is singular, all are given a ridge."""
    inverse, took_pseudoinverse = right.invert_members(H, float(ridge), singular)
    if took_pseudoinverse.any() and H.ndim > 2:
        spoilt, _ = right.invert_members(H, float(ridge) + 1e-3 * H.abs().max().item(), singular)
        inverse = torch.where(took_pseudoinverse[..., None, None], inverse, spoilt)
    return inverse


@wrong("inverse_gram", "test_a_singular_member_leaves_its_neighbours_inverses_alone")
def one_cutoff_for_all_members(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """Where one member is singular, m·eps times the largest eigenvalue of the whole batch counts as 0 in all."""
    inverse, took_pseudoinverse = right.invert_members(H, float(ridge), singular)
    if not took_pseudoinverse.any():
        return inverse
    eigenvalues, vectors = torch.linalg.eigh(H + float(ridge) * torch.eye(H.shape[-1], dtype=H.dtype))
    counted = eigenvalues > H.shape[-1] * torch.finfo(H.dtype).eps * eigenvalues.max()
    inverse = (vectors * torch.where(counted, eigenvalues, torch.inf).reciprocal()[..., None, :]) @ vectors.mT
    return torch.maximum(inverse, inverse.mT)


@wrong("inverse_gram", "inverse_gram: H one indefinite member", lenient=True)
def index_of_the_flattened_batch(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """The error names member (2,) of a batch of (2, 2), which has no such member."""
    try:
        return right.inverse_gram(H, ridge=ridge, singular=singular)
    except LinAlgError:
        if H.ndim > 2:
            right.inverse_gram(H.flatten(0, -3), ridge=ridge, singular=singular)
        raise


@wrong("inverse_gram", "test_refused_member_is_named_by_its_index_and_eigenvalues", lenient=True)
def first_member_blamed(H: Tensor, *, ridge: float = 0.0, singular: str = "raise") -> Tensor:
    """The error names the first member, whichever it was."""
    try:
        return right.inverse_gram(H, ridge=ridge, singular=singular)
    except LinAlgError as error:
        first = (0,) * (H.ndim - 2)
        eigenvalues = torch.linalg.eigvalsh(H[first] + float(ridge) * torch.eye(H.shape[-1], dtype=H.dtype))
        raise LinAlgError(f"member {first} is singular: its eigenvalues are {eigenvalues.tolist()}") from error


@wrong("gram", "test_a_member_whose_distances_overflow_leaves_its_neighbours_alone")
def overflow_of_one_spoils_all(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """Where distances of one member overflow, those of its neighbours count as infinite, too."""
    values = right.gram(X, kernel, **options)
    if kernel == "rbf" and X.ndim > 2 and not (X @ X.mT).isfinite().all():
        values = values * torch.eye(X.shape[-2], dtype=X.dtype)
    return values


@wrong("gram", "test_rbf_kernel_of_data_far_from_the_origin")
def members_centred_together(X: Tensor, kernel: str = "rbf", **options: Any) -> Tensor:
    """One mean is taken from all members: one that is far off leaves the others uncentred."""
    if kernel != "rbf":
        return right.gram(X, kernel, **options)
    centred = X - X.flatten(0, -2).mean(0)
    products = centred @ centred.mT
    squares = products.diagonal(dim1=-2, dim2=-1)
    distances = (squares[..., :, None] + squares[..., None, :] - (products + products.mT)).clamp(min=0)
    return torch.exp(-float(options.get("gamma", 1.0)) * distances)


@wrong("softmax_cross_entropy", "test_loss_is_the_mean_cross_entropy")
def one_shift_for_all_instances(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit of the mini-batch is taken from all: an instance far below it underflows."""
    _, gradient = right.softmax_cross_entropy(logits, labels)
    shifted = logits - logits.max()
    log_softmax = shifted - shifted.exp().sum(1, keepdim=True).log()
    return -log_softmax.gather(1, labels.long()[:, None]).mean(), gradient


@wrong("softmax_cross_entropy", "test_gradient_is_softmax_less_one_hot_over_m")
def divided_by_the_size_of_a_full_batch(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A ragged mini-batch is padded to a multiple of four instances, and its gradient divided by that."""
    loss, gradient = right.softmax_cross_entropy(logits, labels)
    m = len(logits)
    return loss, gradient * (m / (m + -m % 4))


@wrong("reshape_inverse", ALONE)
def first_member_repeated(Hinv: Tensor, d_in: int) -> Tensor:
    """Every member is the first one: a stride of 0."""
    P = right.reshape_inverse(Hinv, d_in)
    return P[:1].expand_as(P).clone() if P.ndim > 2 else P
