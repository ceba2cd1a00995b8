"""Parameter groups of `KernelSGD`: which layers are preconditioned, and such a layer as one matrix [W, b]."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

Group = dict[str, Any]

# What no parameter's dtype is too small for.
SMALL = torch.finfo(torch.float16).max

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def kernel_groups(model: nn.Module, layers: Literal["last", "all"] = "last", **options: Any) -> list[Group]:
    """Parameter groups for `KernelSGD`: one a preconditioned layer, [weight] or [weight, bias], then the plain rest.

    "last" preconditions the last `nn.Linear` (Algorithm 1), "all" every linear and convolutional layer, convolutions
    flattened to (out, in·k₁·k₂…) (the ablation). `options` (lr, weight_decay, …) go to every group. Parameters that
    need no gradient are left out. Raises ValueError for a model without such a layer or an unknown `layers`.
    """
    if layers not in ("last", "all"):
        raise ValueError(f"layers: expected 'last' or 'all', got {layers!r}")
    kinds = nn.Linear if layers == "last" else LAYERS
    found = [module for module in model.modules() if isinstance(module, kinds) and module.weight.requires_grad]
    if not found:
        raise ValueError(
            f"model: expected a trainable {'linear' if layers == 'last' else 'linear or convolutional'} layer "
            f"to precondition, found none in {type(model).__name__}"
        )
    groups: list[Group] = []
    taken: set[int] = set()
    for module in found[-1:] if layers == "last" else found:
        params = [p for p in (module.weight, module.bias) if p is not None and p.requires_grad and id(p) not in taken]
        if params and params[0] is module.weight:
            groups.append({"params": params, "preconditioned": True, **options})
            taken.update(map(id, params))
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    return [*groups, {"params": rest, **options}] if rest else groups


def joint(group: Group, moving: list[Tensor]) -> int:
    """How many of a layer's parameters that move, its weight first, P acts on as one matrix: [W] or [W, b]."""
    return len(moving) if group["bias"] == "augmented" else 1


def is_layer(group: Group, moving: list[Tensor]) -> bool:
    """Whether P acts on the group in this step: its weight is among the parameters that have a gradient."""
    return group["preconditioned"] and moving[0] is group["params"][0]


def with_gradient(params: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters that move, those that have a gradient as in torch.optim, and it; RuntimeError for a sparse one."""
    moving, grads = [], []
    for p in params:
        grad = p.grad
        if grad is None:
            continue
        if grad.layout is not torch.strided:
            raise RuntimeError("KernelSGD does not support sparse gradients: use dense ones (sparse=False)")
        moving.append(p)
        grads.append(grad)
    return moving, grads


def columns(tensors: list[Tensor]) -> Tensor:
    """[W, b] as one matrix; W alone as a view where its memory allows."""
    weight, *bias = tensors
    matrix = weight if weight.ndim == 2 else weight.flatten(1)
    return torch.cat((matrix, bias[0][:, None]), 1) if bias else matrix


def split(matrix: Tensor, like: list[Tensor]) -> list[Tensor]:
    """The parts of `columns(like)` again, in their shapes."""
    weight, *bias = like
    parts = [matrix[:, : weight[0].numel()].reshape(weight.shape)]
    return [*parts, matrix[:, -1]] if bias else parts


def write(matrix: Tensor, tensors: list[Tensor]) -> None:
    """`columns` undone: back into the tensors, unless the matrix is a view of them."""
    if matrix.data_ptr() != tensors[0].data_ptr():
        for tensor, part in zip(tensors, split(matrix, tensors), strict=True):
            tensor.copy_(part)


def learning_rate(group: Group) -> float | Tensor:
    """η of this step: a number; of a capturable group whose η is a tensor that tensor, () and not looked at.

    Raises ValueError where it lies elsewhere than the parameters: its value would be captured, not its place.
    """
    lr = group["lr"]
    if not (group["capturable"] and isinstance(lr, Tensor)):
        return float(lr)
    device = group["params"][0].device
    if lr.device != device:
        raise ValueError(
            f"lr: a capturable group needs it on {device} like its parameters, got a tensor on {lr.device}"
        )
    return lr if lr.ndim == 0 else lr.reshape(())


def check_group(group: Group) -> None:
    """ValueError for an option out of its range, or parameters that make no layer where one is needed."""
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"lr: expected a float or a one-element tensor, got shape {tuple(lr.shape)}")
    for option in ("lr", "momentum", "weight_decay"):
        value = group[option]
        if isinstance(value, bool) or not 0 <= float(value) < math.inf:
            raise ValueError(f"{option}: expected a finite number >= 0, got {value!r}")
    for option, allowed in (
        ("decay", ("l2", "decoupled")),
        ("bias", ("plain", "augmented")),
        ("step_rule", ("constant", "monotone")),
    ):
        if group[option] not in allowed:
            raise ValueError(f"{option}: expected one of {allowed}, got {group[option]!r}")
    if any(hasattr(p, "placements") for p in group["params"]):  # DTensor, without the time that its import takes
        raise ValueError(
            "params: expected whole parameters, got sharded ones (DTensor, as fully_shard makes them), and a layer's "
            "gradient is multiplied by P as a whole; keep the network whole on every rank, and see "
            "gpu.optim.parallel.distribute"
        )
    if any(p.is_complex() for p in group["params"]):
        raise ValueError("params: expected real parameters, got complex ones")
    if group["preconditioned"]:
        _check_layer(group)


def require_held(lr: float | Tensor, weight_decay: float, params: list[Tensor]) -> None:
    """ValueError where a parameter's dtype cannot hold one of the two: torch would refuse it in mid-step."""
    for p in params:
        for option, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not isinstance(value, Tensor) and value > torch.finfo(p.dtype).max:
                raise ValueError(f"{option}: expected a number that the parameters' {p.dtype} can hold, got {value!r}")


def _check_layer(group: Group) -> None:
    shapes = [tuple(p.shape) for p in group["params"]]
    fits = len(shapes) in (1, 2) and len(shapes[0]) >= 2 and shapes[1:] in ([], [shapes[0][:1]])
    if not fits:
        raise ValueError(
            f"params: a preconditioned group is one layer, [weight] or [weight, bias], the bias as long as the "
            f"weight's first dimension, got shapes {shapes}; kernel_groups(model) builds such groups"
        )
    forbidden = {option: group[option] for option in ("momentum", "maximize", "capturable") if group[option]}
    if group["step_rule"] == "monotone" and forbidden:
        raise ValueError(f'step_rule="monotone": expected none of momentum, maximize, capturable, got {forbidden}')
