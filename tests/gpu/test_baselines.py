"""The baselines against independent statements of their rules, on losses whose Hessian is known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import LBFGS, SGD, Optimizer

from gpu.optim.baselines import ESGD, AdaHessian, hessian_bytes
from gpu.train import fit
from gpu.train.loop import build_optimizer, train_epoch
from gpu.train.settings import CHOICES, Settings
from tests.gpu.test_train import DATA, SMALL, outcome

Array = NDArray[np.float64]
RATES = st.sampled_from((0.3, 0.1, 0.01))


class Quadratic:
    """½wᵀAw − bᵀw over two parameters, (2, 2) and (3,); A symmetric positive definite."""

    def __init__(self, seed: int, size: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        root = rng.standard_normal((7, 7))
        self.A: Array = root @ root.T / 7 + np.eye(7)
        self.b: Array = size * rng.standard_normal(7)
        start = torch.from_numpy(size * rng.standard_normal(7))
        self.params = [nn.Parameter(start[:4].view(2, 2).clone()), nn.Parameter(start[4:].clone())]

    def w(self) -> Tensor:
        return torch.cat([p.view(-1) for p in self.params])

    def at(self) -> Array:
        return self.w().detach().numpy().copy()

    def loss(self) -> Tensor:
        w = self.w()
        return w @ torch.from_numpy(self.A) @ w / 2 - torch.from_numpy(self.b) @ w

    def minimum(self) -> Array:
        return np.linalg.solve(self.A, self.b)

    def probe(self, draw: Callable[[torch.Size], Tensor]) -> Array:
        """What an optimizer draws next, parameter by parameter."""
        return np.concatenate([draw(p.shape).double().view(-1).numpy() for p in self.params])


def normal(shape: torch.Size) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def signs(shape: torch.Size) -> Tensor:
    return 2 * torch.randint(0, 2, shape) - 1


def agree(found: Array, expected: Array) -> None:
    # A few dozen float64 operations a step, a few steps, amplified by at most the condition number of A.
    assert np.abs(found - expected).max() <= 1e-9 * max(1, np.abs(expected).max())


@given(st.integers(0, 99), RATES, st.sampled_from((0.0, 0.1)), st.integers(1, 3), st.sampled_from((1e-4, 1.0)))
def test_esgd_of_dauphin_divides_by_the_root_mean_square_of_hv(
    seed: int, lr: float, wd: float, every: int, damping: float
) -> None:
    f = Quadratic(seed)
    optimizer = ESGD(f.params, lr, weight_decay=wd, update_every=every, damping=damping)
    w, squares, products = f.at(), np.zeros(7), 0
    for step in range(7):
        state = torch.get_rng_state()
        if step % every == 0:
            squares += ((f.A + wd * np.eye(7)) @ f.probe(normal)) ** 2
            products += 1
        torch.set_rng_state(state)
        w = w - lr * (f.A @ w - f.b + wd * w) / (np.sqrt(squares / products) + damping)
        optimizer.step(f.loss)
        agree(f.at(), w)


@given(
    st.integers(0, 99),
    RATES,
    st.sampled_from((0.0, 0.1)),
    st.sampled_from((0.0, 0.5, 0.99)),
    st.sampled_from((0.03, 1, 10)),
)
def test_esgd_of_li_multiplies_by_the_root_of_v2_over_hv2_and_clips_the_update_to_norm_1(
    seed: int, lr: float, wd: float, decay: float, size: float
) -> None:
    f = Quadratic(seed, size)
    optimizer = ESGD(f.params, lr, reading="li", weight_decay=wd, decay=decay)
    w, a, b = f.at(), np.zeros(7), np.zeros(7)
    for _ in range(6):
        state = torch.get_rng_state()
        v = f.probe(normal)
        torch.set_rng_state(state)
        a, b = decay * a + v**2, decay * b + ((f.A + wd * np.eye(7)) @ v) ** 2
        update = np.sqrt(a / b) * (f.A @ w - f.b + wd * w)
        w = w - lr * update / max(1, np.linalg.norm(update))
        optimizer.step(f.loss)
        agree(f.at(), w)


@given(st.integers(0, 99), RATES, st.sampled_from((0.0, 0.1)))
def test_adahessian_is_adam_with_the_diagonal_s_estimate_in_the_second_moment(seed: int, lr: float, wd: float) -> None:
    f = Quadratic(seed)
    optimizer = AdaHessian(f.params, lr, weight_decay=wd, betas=(0.8, 0.9), eps=1e-3)
    w, m, s = f.at(), np.zeros(7), np.zeros(7)
    for t in range(1, 7):
        state = torch.get_rng_state()
        z = f.probe(signs)
        torch.set_rng_state(state)
        m = 0.8 * m + 0.2 * (f.A @ w - f.b)
        s = 0.9 * s + 0.1 * (z * (f.A @ z)) ** 2
        w = w - lr * (m / (1 - 0.8**t) / (np.sqrt(s / (1 - 0.9**t)) + 1e-3) + wd * w)
        optimizer.step(f.loss)
        agree(f.at(), w)


def test_adahessian_averages_over_the_positions_of_a_convolution_s_kernel() -> None:
    p = nn.Parameter(torch.ones(2, 1, 2, 2, dtype=torch.float64))
    scale = torch.arange(1, 9, dtype=torch.float64).view_as(p)
    AdaHessian([p], 0.0, betas=(0.0, 0.0)).step(lambda: (scale * p**2).sum() / 2)
    found = AdaHessian([p], 1.0, betas=(0.0, 0.0), eps=0.0)
    found.step(lambda: (scale * p**2).sum() / 2)
    mean = torch.tensor([2.5, 6.5]).double().view(2, 1, 1, 1)
    assert torch.allclose(p, 1 - scale / mean, rtol=0, atol=1e-14)


@given(st.integers(0, 99), RATES, st.sampled_from((0.0, 0.1)), st.integers(1, 3))
def test_l_bfgs_takes_one_two_loop_direction_a_mini_batch_with_the_l2_term_in_the_gradient(
    seed: int, lr: float, wd: float, history: int
) -> None:
    torch.manual_seed(seed)
    model, X, y = nn.Linear(3, 2).double(), torch.randn(12, 3).double(), torch.randint(0, 2, (12,))
    twin = nn.Linear(3, 2).double()
    batches = [(X[i : i + 4], y[i : i + 4], None) for i in (0, 4, 8)] * 2
    optimizer = build_optimizer(model, Settings(optimizer="l-bfgs", lr=lr, weight_decay=wd, history=history))

    def gradient(w: Array, x: Tensor, labels: Tensor) -> Array:
        nn.utils.vector_to_parameters(torch.from_numpy(w), twin.parameters())
        found = torch.autograd.grad(cross_entropy(twin(x), labels), list(twin.parameters()))
        return torch.cat([g.view(-1) for g in found]).numpy() + wd * w

    w = nn.utils.parameters_to_vector(model.parameters()).detach().numpy().copy()
    pairs: list[tuple[Array, Array]] = []
    before: tuple[Array, Array] | None = None
    for batch in batches:
        g = gradient(w, *batch[:2])
        if before is not None:
            s, difference = w - before[0], g - before[1]
            pairs = [*pairs, (s, difference)][-history:] if s @ difference > 1e-10 else pairs
        q, alphas = g.copy(), []
        for s, d in reversed(pairs):
            alphas.append(s @ q / (s @ d))
            q -= alphas[-1] * d
        r = q * (pairs[-1][0] @ pairs[-1][1] / (pairs[-1][1] @ pairs[-1][1]) if pairs else 1)
        for (s, d), alpha in zip(pairs, reversed(alphas), strict=True):
            r += s * (alpha - d @ r / (s @ d))
        size = lr if before is not None else min(1, 1 / np.abs(g).sum()) * lr
        before = w, g
        w = w - size * r if g @ r > 1e-9 else w
        train_epoch(model, optimizer, [batch])
        found = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
        assert np.abs(found - w).max() <= 1e-7 * max(1, np.abs(w).max())
        w = found.copy()  # so that rounding, which the quotients amplify, does not compound


MINIMISING: dict[str, tuple[Callable[[list[nn.Parameter]], Optimizer], int]] = {
    "esgd": (lambda params: ESGD(params, 0.5, update_every=1), 300),
    "esgd-li": (lambda params: ESGD(params, 0.5, reading="li"), 300),
    "adahessian": (lambda params: AdaHessian(params, 0.1, betas=(0.9, 0.99)), 600),
}


@pytest.mark.parametrize("name", MINIMISING)
@given(st.integers(0, 9))
def test_every_baseline_reaches_a_quadratic_s_minimum(name: str, seed: int) -> None:
    f, (build, steps) = Quadratic(seed), MINIMISING[name]
    optimizer = build(f.params)
    for _ in range(steps):
        optimizer.step(f.loss)  # type: ignore[arg-type]
    assert np.abs(f.at() - f.minimum()).max() < 1e-3


def test_esgd_s_curvature_comes_to_the_row_norms_of_the_hessian() -> None:
    f, products = Quadratic(3), 4000
    torch.manual_seed(0)
    optimizer = ESGD(f.params, 0.0, update_every=1)
    for _ in range(products):
        optimizer.step(f.loss)
    found = np.concatenate([optimizer.state[p]["curvature"].view(-1).numpy() for p in f.params]) / products
    # (Hv)_i is normal of variance Σ_j H_ij², so the mean of n squares of it has the relative deviation √(2/n).
    exact = np.square(f.A).sum(1)
    assert np.all(np.abs(found / exact - 1) < 5 * np.sqrt(2 / products))


@pytest.mark.parametrize("name", CHOICES["optimizer"])
@pytest.mark.parametrize("after", [1, 4])
def test_every_optimizer_interrupted_and_resumed_ends_bit_for_bit_as_one_left_alone(
    tmp_path: Path, name: str, after: int
) -> None:
    settings = replace(SMALL, optimizer=name, epochs=6, lr=0.01, history=3)

    def interrupt(row: dict[str, float]) -> None:
        if row["epoch"] == after:
            raise KeyboardInterrupt

    for folder in (whole := tmp_path / "whole", cut := tmp_path / "cut"):
        folder.mkdir()
    fit(settings, DATA, whole)
    with pytest.raises(KeyboardInterrupt):
        fit(settings, DATA, cut, on_epoch=interrupt)
    fit(settings, DATA, cut)
    assert outcome(cut) == outcome(whole)


@pytest.mark.parametrize("optimizer", [ESGD, AdaHessian])
def test_a_loss_without_curvature_and_a_parameter_without_part_in_it_are_no_trouble(optimizer: Any) -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    for options in ({}, {"reading": "li"}) if optimizer is ESGD else ({},):
        optimizer([used, unused], 0.1, **options).step(lambda: used.sum())
        assert torch.isfinite(used).all()
        assert torch.equal(unused, torch.ones(2))


@pytest.mark.parametrize(
    ("optimizer", "options", "named"),
    [
        (ESGD, {"lr": -1}, "lr"),
        (ESGD, {"weight_decay": float("nan")}, "weight_decay"),
        (ESGD, {"damping": -1}, "damping"),
        (ESGD, {"decay": 1}, "decay"),
        (ESGD, {"update_every": 0}, "update_every"),
        (ESGD, {"reading": "other"}, "reading"),
        (AdaHessian, {"lr": float("inf")}, "lr"),
        (AdaHessian, {"eps": -1}, "eps"),
        (AdaHessian, {"betas": (0.9, 1.0)}, "betas"),
        (AdaHessian, {"weight_decay": -1}, "weight_decay"),
    ],
)
def test_bad_arguments_are_named(optimizer: Any, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named}: expected"):
        optimizer([nn.Parameter(torch.ones(2))], **options)


@pytest.mark.parametrize("optimizer", [ESGD, AdaHessian])
def test_a_step_needs_a_closure_whose_loss_has_a_graph(optimizer: Any) -> None:
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(TypeError, match="closure"):
        optimizer([p]).step()
    with pytest.raises(RuntimeError, match="detached"):
        optimizer([p]).step(lambda: p.sum().detach())


def test_hessian_bytes_are_those_of_the_storages_that_hold_it() -> None:
    def bytes_of(build: Callable[[Any], Optimizer], steps: int = 6) -> int:
        f = Quadratic(0)
        optimizer = build(f.params)

        def closure() -> Tensor:
            if isinstance(optimizer, (LBFGS, SGD)):
                optimizer.zero_grad()
                loss = f.loss()
                loss.backward()
                return loss
            return f.loss()

        for _ in range(steps):
            optimizer.step(closure)  # type: ignore[arg-type]
        return hessian_bytes(optimizer)

    n = 7 * 8
    assert bytes_of(ESGD) == n
    assert bytes_of(lambda params: ESGD(params, reading="li")) == 2 * n
    assert bytes_of(AdaHessian) == n
    assert bytes_of(lambda params: LBFGS(params, 0.1, max_iter=1, history_size=3)) == 2 * 3 * n
    assert bytes_of(lambda params: SGD(params, 0.1)) == 0
