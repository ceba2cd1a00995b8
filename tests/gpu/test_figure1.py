"""Figure 1: two weights move, by the optimizer's own rule on them, and nothing else does."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from gpu.experiments.figure1 import OPTIMIZERS, SLICES, Slice, loss_over, page, path
from gpu.optim import KernelCache, mini_batches
from gpu.train import Settings, UsageError
from tests.gpu.test_cli import command
from tests.gpu.test_train import DATA

SETTINGS = Settings(epochs=6, batch_size=16, gamma=1.0, weight_decay=0.0)


def moved(layers: tuple[int, int], **changes: object) -> list[tuple[float, float]]:
    return path(Slice.drawn(DATA, layers, SETTINGS), DATA, replace(SETTINGS, **changes))


@pytest.mark.parametrize("layers", SLICES.values())
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_two_weights_move_the_loss_falls_and_the_network_is_left_as_it_was(
    layers: tuple[int, int], optimizer: str
) -> None:
    part = Slice.drawn(DATA, layers, SETTINGS)
    before = [p.detach().clone() for p in part.model.parameters()]
    seen: list[int] = []
    part.model.register_forward_hook(
        lambda model, *_: seen.append(sum(int((p != q).sum()) for p, q in zip(model.parameters(), before, strict=True)))
    )
    been = path(part, DATA, replace(SETTINGS, optimizer=optimizer))
    assert max(seen) == 2
    assert all(torch.equal(p, q) for p, q in zip(part.model.parameters(), before, strict=True))
    loss = loss_over(part, DATA)
    assert len(been) == SETTINGS.epochs + 1
    assert loss(been[-1]) < loss(been[0])


def test_the_network_is_affine() -> None:
    model, x = Slice.drawn(DATA, (3, 3), SETTINGS).model.double(), DATA.X_train.double()
    at_0 = model(torch.zeros_like(x))
    assert torch.allclose(model(-3 * x) - at_0, -3 * (model(x) - at_0), rtol=0, atol=1e-12)


def test_over_two_weights_of_an_earlier_layer_kernel_sgd_is_sgd() -> None:
    assert moved((2, 2)) == moved((2, 2), optimizer="sgd")
    assert moved((3, 2)) != moved((3, 2), optimizer="sgd")


def test_a_step_over_two_weights_of_the_last_layer_is_their_gradient_times_their_part_of_p() -> None:
    settings = replace(SETTINGS, epochs=1, batch_size=len(DATA.X_train), lr=0.01)
    part = Slice.drawn(DATA, (3, 3), settings)
    start = part.get()
    cross_entropy(part.model(DATA.X_train), DATA.y_train).backward()
    G, d_in = part.gradient(0).view(len(DATA.classes), -1).double(), part.model[-1].in_features
    cache = KernelCache(DATA.X_train, mini_batches(len(DATA.X_train), settings.batch_size, seed=0), gamma=1.0)
    ((_, inverse),) = cache.batches(DATA.X_train)
    P = inverse.matrix[:d_in, :d_in].double()
    (r0, c0), (r1, c1) = (divmod(place, d_in) for place in part.places)
    direction = (
        G[r0, c0] * P[c0, c0] + (r0 == r1) * G[r1, c1] * P[c1, c0],
        G[r1, c1] * P[c1, c1] + (r0 == r1) * G[r0, c0] * P[c0, c1],
    )
    end = path(part, DATA, settings)[-1]
    for before, after, D in zip(start, end, direction, strict=True):
        # Rounded in float32: a gradient over the instances, the product of two terms, and the subtraction.
        step = settings.lr * float(D)
        assert abs(after - (before - step)) <= 2**-24 * (abs(before) + (len(DATA.X_train) + 6) * abs(step))


def test_the_map_over_two_weights_of_the_last_layer_is_convex_and_has_no_lower_point_than_it_shows() -> None:
    shown = page(DATA, SETTINGS, ("sgd",))
    for row in shown.rows:
        assert row["lowest on the map"] <= row["at the end"] <= row["loss at the start"]
    part = Slice.drawn(DATA, (3, 3), SETTINGS)
    loss, (a, b) = loss_over(part, DATA), part.get()
    points = [(a + x, b + y) for x in (-3, 0, 3) for y in (-3, 0, 3)]
    for p in points:
        for q in points:
            middle = loss([(s + t) / 2 for s, t in zip(p, q, strict=True)])
            rounding = 2 * 2**-24 * (len(DATA.X_train) + 2) * middle  # of two mean losses in float32
            assert middle <= (loss(p) + loss(q)) / 2 + rounding


def test_the_two_weights_are_two_whatever_the_seed() -> None:
    for seed in range(200):
        settings = replace(SETTINGS, seed=seed, batch_size=64)
        for layers in SLICES.values():
            part = Slice.drawn(DATA, layers, settings)
            assert len({(part.name(k), part.places[k]) for k in (0, 1)}) == 2


def test_images_are_flattened_and_texts_refused() -> None:
    images = replace(DATA, X_train=DATA.X_train.unflatten(1, (1, -1)), X_test=DATA.X_test.unflatten(1, (1, -1)))
    flat, folded = (page(data, SETTINGS, ("kernel-sgd", "sgd")).rows for data in (DATA, images))
    assert flat == folded
    with pytest.raises(UsageError, match="figure1: expected features or images"):
        page(replace(DATA, vectors=DATA.X_train), SETTINGS, ("sgd",))


@pytest.mark.slow
def test_the_command_leaves_a_picture_and_a_row_for_every_slice_and_optimizer(tmp_path: Path) -> None:
    code, output = command("reproduce", "figure1", "--epochs", "2", "--out", tmp_path / "out")
    assert code == 0, output
    with (tmp_path / "out" / "figure1.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["slice"], row["optimizer"]) for row in rows] == [(s, o) for s in SLICES for o in OPTIMIZERS]
    assert (tmp_path / "out" / "figure1.png").read_bytes().startswith(b"\x89PNG")
