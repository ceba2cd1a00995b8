"""The paper's networks: their sizes, their seeds, and what a text's padding may not change."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gpu.train.models import PADDING, TextLSTM, mlp, resnet18


def text_network(seed: int) -> TextLSTM:
    vectors = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    return TextLSTM(vectors, 3, hidden=7, seed=seed)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "mlp": lambda seed: mlp((6, 5, 3), seed=seed),
    "resnet18": lambda seed: resnet18(3, seed=seed, width=2),
    "lstm": text_network,
}


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_resnet_18_for_ten_classes_has_11173962_parameters() -> None:
    assert size(resnet18(10, seed=0)) == 11_173_962


def test_resnet_18_takes_images_of_32_by_32_to_512_features_at_4_by_4() -> None:
    *body, pool, _, last = resnet18(10, seed=0)
    features = nn.Sequential(*body)(torch.zeros(1, 3, 32, 32))
    assert features.shape == (1, 512, 4, 4)
    assert isinstance(pool, nn.AdaptiveAvgPool2d)
    assert last.in_features == 512


def test_lstm_trains_all_but_the_word_vectors() -> None:
    d, hidden, classes = 5, 7, 3
    assert size(text_network(0)) == 4 * hidden * (d + hidden + 2) + classes * (hidden + 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_come_from_the_seed_alone_and_the_global_generator_is_left_as_it_was(name: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (NETWORKS[name](seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@given(st.lists(st.lists(st.integers(1, 29), min_size=1, max_size=6), min_size=1, max_size=4), st.integers(0, 3))
def test_padding_and_the_other_texts_of_a_mini_batch_change_nothing(texts: list[list[int]], more: int) -> None:
    model, length = text_network(0), max(map(len, texts)) + more
    together = model(torch.tensor([text + [PADDING] * (length - len(text)) for text in texts]))
    alone = torch.cat([model(torch.tensor([text])) for text in texts])
    # 6 steps of sums of 12 terms in float32; the order of summation may differ with the shape.
    assert torch.allclose(together, alone, rtol=0, atol=6 * 12 * 2**-23)


def test_a_text_without_a_word_is_read_as_one_of_padding() -> None:
    model = text_network(0)
    assert torch.equal(model(torch.full((1, 4), PADDING)), model(torch.full((1, 1), PADDING)))


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (text_network(0).double(), torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0]])),
        (resnet18(3, seed=0, width=2).double(), torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))),
    ],
    ids=["lstm", "resnet18"],
)
def test_the_networks_have_second_derivatives(model: nn.Module, x: Tensor) -> None:
    """H·v against the difference quotient of the gradient; its error is ε² times a third derivative, and rounding/ε."""
    x = x.double() if x.is_floating_point() else x
    params = [p for p in model.parameters() if p.requires_grad]
    v = [torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(2)) for p in params]

    def gradient(shift: float) -> list[Tensor]:
        with torch.no_grad():
            for p, direction in zip(params, v, strict=True):
                p += shift * direction
        loss = model(x).square().mean()
        return list(torch.autograd.grad(loss, params, create_graph=shift == 0))

    product = torch.autograd.grad(gradient(0.0), params, grad_outputs=v)
    step = 1e-8  # across which no ReLU changes its side
    above, below = gradient(step), gradient(-2 * step)
    quotient = [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]
    scale = max(float(q.abs().max()) for q in quotient)
    assert scale > 0
    assert all(torch.allclose(p, q, rtol=0, atol=1e-5 * scale) for p, q in zip(product, quotient, strict=True))
