"""The largest learning rate at which a last-layer step provably does not raise the mini-batch's loss.

For logits F = Z·Wᵀ + 1·bᵀ and any direction D = (D_W, D_b), let V = Z·D_Wᵀ + 1·D_bᵀ. The mean cross-entropy of
mini-batch m has, along −η·D, the slope −⟨∇J, D⟩ and a second derivative of Σ_k Var_{p_k}(V_k)/m, and a variance is at
most a quarter of the squared range (Popoviciu). The L2 term λ/2·‖(W, b)‖² adds λ‖D‖². By Taylor,

    J(W − ηD) ≤ J(W) − η⟨∇J, D⟩ + η²·[Σ_k range(V_k)²/(8m) + λ/2·‖D‖²],

which does not exceed J(W) for η ≤ ⟨∇J, D⟩ / [Σ_k range(V_k)²/(8m) + λ/2·‖D‖²]. With D_W = G·P, no bias and λ = 0
this is 8⟨R, KR⟩/Σ_k range((KR)_k)², K = ZPZᵀ/m, R = softmax − one-hot.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gpu.optim.watch import Seen

# Far above what float64 can lose here, (m + d_in + n_c + range of the logits)·2⁻⁵³, while that sum is below 2²³.
SLACK = 2.0**-30


def monotone_learning_rate(
    seen: Seen, params: Sequence[Tensor], direction: Sequence[Tensor], weight_decay: float
) -> float:
    """The bound on η above for the step −η·direction of [weight] or [weight, bias], less its rounding margin.

    ∞ where the step changes no logit difference; 0.0 where it would climb, ⟨∇J, D⟩ ≤ 0, or overflow. Margin: SLACK
    times the sum of absolute terms off the slope, SLACK relative on the curvature, and four units in the last place of
    the weight's dtype on η. The directions count as they are, rounded; what remains is the rounding of W' itself, which
    moves the loss by at most ⟨|∇J(W')|, u·|W'|⟩ to first order.

    Raises ValueError where the gradient that reached the layer is not that of mean softmax cross-entropy, or where
    features or logits are no matrices.
    """
    if seen.features.ndim != 2 or seen.logits.ndim != 2:
        raise ValueError(
            'step_rule="monotone": expected features (m, d_in) and logits (m, n_c) of the layer, got shapes '
            f"{tuple(seen.features.shape)} and {tuple(seen.logits.shape)}"
        )
    Z = seen.features.double()
    m = len(Z)
    # A bias is a weight whose one feature is 1.
    inputs = (Z, torch.ones_like(Z[:, :1]))
    layer = [
        (p.double().flatten(1) if p.ndim > 1 else p.double()[:, None], d.double().view(len(d), -1), features)
        for p, d, features in zip(params, direction, inputs, strict=False)
    ]
    logits = torch.stack([features @ p.mT for p, _, features in layer]).sum(0)
    if len(layer) == 1 and seen.bias is not None:  # in another group, or fixed
        logits += seen.bias.double()
    change = torch.stack([features @ d.mT for _, d, features in layer]).sum(0)
    residual = _residual(logits, seen)

    slope = margin = 0.0
    curvature = float((change.amax(1) - change.amin(1)).square().sum()) / (8 * m)
    for p, d, features in layer:
        slope += float(((residual.mT @ features / m + weight_decay * p) * d).sum())
        margin += SLACK * float(((residual.abs().mT @ features.abs() / m + weight_decay * p.abs()) * d.abs()).sum())
        curvature += weight_decay / 2 * float(d.square().sum())
    if curvature == 0:
        return math.inf
    if not math.isfinite(curvature):
        return 0.0
    return max(0.0, slope - margin) / (curvature * (1 + SLACK)) * (1 - 4 * torch.finfo(params[0].dtype).eps)


def _residual(logits: Tensor, seen: Seen) -> Tensor:
    """R = softmax − one-hot of the float64 logits; the labels are where the layer's gradient is negative.

    Where none is, the prediction is sure, and the label is what it says. The entry at the label is minus the sum of the
    others: no cancellation where the prediction is nearly sure.
    """
    least = seen.dlogits.min(1, keepdim=True)
    label = torch.where(least.values < 0, least.indices, logits.argmax(1, keepdim=True))
    R = logits.softmax(1).scatter(1, label, 0.0)
    R = R.scatter(1, label, -R.sum(1, keepdim=True))
    _require_mean_cross_entropy(R, logits, seen)
    return R


def _require_mean_cross_entropy(R: Tensor, logits: Tensor, seen: Seen) -> None:
    # The layer's own rounding: its logits are off by their distance from the float64 ones, a probability by twice that.
    u = torch.finfo(seen.logits.dtype).eps / 2
    off = (seen.logits.double() - logits).abs().amax(1, keepdim=True)
    spread = (logits - logits.amax(1, keepdim=True)).abs()
    p = R.abs()
    tolerance = 30 * u * (1 + p * (R.shape[1] + 3 + spread)) + p * torch.expm1(2 * off)
    error = (seen.dlogits.double() * len(R) - R).abs()
    if bool((error > tolerance).any()):
        raise ValueError(
            'step_rule="monotone": the gradient at the logits is not that of mean softmax cross-entropy over the '
            f"mini-batch (off by {float(error.max()):.3g}); use torch.nn.functional.cross_entropy with its "
            "defaults, on an unscaled loss"
        )
