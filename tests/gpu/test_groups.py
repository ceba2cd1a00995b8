"""Which layers `kernel_groups` has preconditioned, and that it says where there is none."""

from typing import Any

import pytest
from torch import nn

from gpu.optim import KernelSGD, kernel_groups


def groups_of(model: nn.Module, *arguments: Any, **options: Any) -> list[tuple[bool, list[str]]]:
    """Every group as (preconditioned, names of its parameters)."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = kernel_groups(model, *arguments, **options)
    return [(group.get("preconditioned", False), [names[id(p)] for p in group["params"]]) for group in groups]


def test_the_last_linear_layer_is_preconditioned_and_the_rest_is_plain() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 3), nn.Softmax(1))
    rest = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert groups_of(model) == [(True, ["3.weight", "3.bias"]), (False, rest)]
    assert groups_of(nn.Linear(4, 3, bias=False)) == [(True, ["weight"])]


def test_all_layers_are_preconditioned_convolutions_too_and_norms_are_not() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(4, 3, bias=False))
    assert groups_of(model, "all") == [
        (True, ["0.weight", "0.bias"]),
        (True, ["3.weight"]),
        (False, ["1.weight", "1.bias"]),
    ]


def test_frozen_parameters_are_in_no_group() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(3, 3))
    model[2].requires_grad_(False)
    model[1].bias.requires_grad_(False)
    assert groups_of(model) == [(True, ["1.weight"]), (False, ["0.weight", "0.bias"])]


def test_tied_parameters_are_in_one_group() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5), nn.Linear(4, 5))
    model[2].weight = model[0].weight
    model[3].weight = model[0].weight
    assert groups_of(model, "all") == [
        (True, ["1.weight", "1.bias"]),
        (True, ["0.weight", "2.bias"]),
        (False, ["3.bias"]),
    ]
    KernelSGD(kernel_groups(model, "all"))


def test_options_go_to_every_group() -> None:
    groups = kernel_groups(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), lr=0.5, momentum=0.9)
    assert [(group["lr"], group["momentum"]) for group in groups] == [(0.5, 0.9)] * 2


@pytest.mark.parametrize(
    ("model", "layers", "message"),
    [
        (nn.Conv1d(1, 1, 1), "last", "linear"),
        (nn.BatchNorm1d(3), "all", "linear or convolutional"),
        (nn.Linear(2, 2).requires_grad_(False), "last", "trainable"),
        (nn.Linear(2, 2), "first", "layers"),
    ],
    ids=["no linear layer", "no layer", "frozen", "unknown"],
)
def test_a_model_without_such_a_layer_is_an_error(model: nn.Module, layers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_groups(model, layers)
