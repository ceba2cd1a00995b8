"""Every baseline against a few lines of NumPy, step by step."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import AdamW, Optimizer

from gpu.optim.baselines import (
    ESGD,
    LBFGS,
    SOAP,
    AdaHessian,
    LiESGD,
    MuonAdamW,
    curvature,
)
from tests.gpu.quadratics import FLAT, KERNEL, SIZE, STEPS, Quadratics, flat, step

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")


def assert_path(problem: Quadratics, optimizer: Optimizer, expected: Iterator[np.ndarray]) -> None:
    """Step by step, up to rounding: with a damping λ ≥ 0.1, η ≤ 0.1 and ‖H‖ ≤ 25, a step multiplies an error by at most
    1 + η·‖H‖/λ ≤ 26, and 2⁻⁵³ · 26⁶ < 1e-7 of the path's largest entry."""
    params = optimizer.param_groups[0]["params"] + [p for g in optimizer.param_groups[1:] for p in g["params"]]
    ours, theirs = [], []
    for t, w in enumerate(expected):
        step(optimizer, lambda t=t: problem.loss(t, params))
        ours.append(flat(params))
        theirs.append(w)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7 * np.abs(theirs).max())
    assert len(ours) == STEPS


rates, decays, seeds = st.floats(0.001, 0.1), st.sampled_from([0.0, 1e-4, 0.5]), st.integers(0, 2**32)


def vectors(draw: Callable[..., list[Tensor]], seed: int) -> Iterator[np.ndarray]:
    zeros = [torch.zeros(shape, dtype=torch.float64) for shape in FLAT]
    return (flat(draw(zeros, seed, number)) for number in range(STEPS))


@given(seed=seeds, lr=rates, wd=decays, damping=st.floats(0.1, 1), every=st.integers(1, 4))
def test_esgd_divides_by_the_root_mean_square_of_hessian_vector_products(seed, lr, wd, damping, every):
    problem = Quadratics(seed, wd)

    def path() -> Iterator[np.ndarray]:
        w, D, drawn, v = problem.start, np.zeros(SIZE), 0, vectors(curvature.gaussian, seed)
        for t in range(STEPS):
            if t % every == 0:
                D, drawn = D + problem.product(t, next(v)) ** 2, drawn + 1
            w = w - lr * problem.gradient(t, w) / (np.sqrt(D / drawn) + damping)
            yield w

    options = {"weight_decay": wd, "damping": damping, "update_every": every, "seed": seed}
    assert_path(problem, ESGD(problem.params(), lr, **options), path())


@given(
    seed=seeds, lr=rates, wd=decays, decay=st.sampled_from([0.0, 0.4, 0.7, 0.99]), clip=st.sampled_from([0.3, 1.0, 99])
)
def test_li_s_esgd_scales_by_running_averages_and_clips_the_norm(seed, lr, wd, decay, clip):
    problem = Quadratics(seed, wd)

    def path() -> Iterator[np.ndarray]:
        w, a, b, past = problem.start, 0.0, 0.0, 0.0
        for t, v in enumerate(vectors(curvature.gaussian, seed)):
            a, b = past * a + (1 - past) * v**2, past * b + (1 - past) * problem.product(t, v) ** 2
            past = min(decay, 1 / (2 - past))
            u = problem.gradient(t, w) * np.sqrt(a / (b + 0.1))
            w = w - lr * min(1, clip / np.sqrt(u @ u)) * u
            yield w

    assert_path(
        problem, LiESGD(problem.params(), lr, eps=0.1, weight_decay=wd, decay=decay, clip=clip, seed=seed), path()
    )


@given(
    seed=seeds,
    lr=rates,
    wd=decays,
    betas=st.tuples(st.floats(0, 0.95), st.floats(0, 0.999)),
    power=st.sampled_from([0.0, 0.5, 1.0]),
    every=st.integers(1, 4),
    shapes=st.sampled_from([FLAT, KERNEL]),
)
def test_adahessian_is_adam_with_the_hessian_s_diagonal(seed, lr, wd, betas, power, every, shapes):
    problem = Quadratics(seed, wd)

    def path() -> Iterator[np.ndarray]:
        w, m, s, drawn, z = problem.start, 0.0, 0.0, 0, vectors(curvature.rademacher, seed)
        for t in range(STEPS):
            m = betas[0] * m + (1 - betas[0]) * problem.gradient(t, w)
            if t % every == 0:
                sign = next(z)
                d, drawn = np.abs(sign * problem.product(t, sign)), drawn + 1
                if shapes == KERNEL:
                    d[:4] = d[:4].mean()
                s = betas[1] * s + (1 - betas[1]) * d**2
            unbiased = s / (1 - betas[1] ** drawn)
            w = w - lr * m / (1 - betas[0] ** (t + 1)) / (np.sqrt(unbiased) ** power + 0.1)
            yield w

    options = {"weight_decay": wd, "betas": betas, "eps": 0.1, "power": power, "update_every": every, "seed": seed}
    assert_path(problem, AdaHessian(problem.params(shapes), lr, **options), path())


@given(seed=seeds, lr=st.floats(0.01, 0.1), wd=decays, history=st.integers(1, 4))
def test_l_bfgs_moves_by_the_bfgs_matrix_of_its_last_pairs(seed, lr, wd, history):
    problem = Quadratics(seed, wd, definite=True)

    def path() -> Iterator[np.ndarray]:
        w, pairs, eye = problem.start, [], np.eye(SIZE)
        before = moved = None
        scale = 1.0
        for t in range(STEPS):
            g = problem.gradient(t, w)
            if before is None:
                moved = -lr * min(1, 1 / np.abs(g).sum()) * g
            else:
                y = g - before
                if y @ moved > 1e-10:
                    pairs, scale = [*pairs, (moved, y)][-history:], y @ moved / (y @ y)
                H = scale * eye
                for s, y in pairs:
                    V = eye - np.outer(y, s) / (y @ s)
                    H = V.T @ H @ V + np.outer(s, s) / (y @ s)
                moved = -lr * H @ g
            before, w = g, w + moved
            yield w

    assert_path(problem, LBFGS(problem.params(), lr, weight_decay=wd, history=history), path())


@given(seed=seeds, lr=rates, wd=decays, beta=st.floats(0.1, 0.95), every=st.integers(1, 3))
def test_soap_is_adam_in_the_bases_of_shampoo_s_two_matrices(seed, lr, wd, beta, every):
    problem = Quadratics(seed, 0.0)

    def path() -> Iterator[np.ndarray]:
        w = problem.start
        G = problem.gradient(0, w)[:4].reshape(2, 2)
        L, R = (1 - beta) * G @ G.T, (1 - beta) * G.T @ G
        Q_L, Q_R = np.linalg.eigh(L)[1], np.linalg.eigh(R)[1]
        yield w
        m, V, v = np.zeros(SIZE), np.zeros((2, 2)), np.zeros(2)
        for t in range(1, STEPS):
            g = problem.gradient(t, w)
            G, m = g[:4].reshape(2, 2), 0.9 * m + 0.1 * g
            V, v = beta * V + (1 - beta) * (Q_L.T @ G @ Q_R) ** 2, beta * v + (1 - beta) * g[4:] ** 2
            inner = Q_L.T @ m[:4].reshape(2, 2) @ Q_R / (np.sqrt(V / (1 - beta**t)) + 0.1)
            step = np.append(Q_L @ inner @ Q_R.T, m[4:] / (np.sqrt(v / (1 - beta**t)) + 0.1))
            w = w - lr * wd * w - lr * step / (1 - 0.9**t)
            L, R = beta * L + (1 - beta) * G @ G.T, beta * R + (1 - beta) * G.T @ G
            if t % every == 0:
                Q_L, Q_R = np.linalg.qr(L @ Q_L)[0], np.linalg.qr(R @ Q_R)[0]
            yield w

    options = {"weight_decay": wd, "betas": (0.9, beta), "eps": 0.1, "update_every": every}
    assert_path(problem, SOAP(problem.params(), lr, **options), path())


@given(seed=seeds, shapes=st.sampled_from([FLAT, KERNEL]))
def test_soap_without_a_basis_is_adamw_after_its_first_gradient(seed, shapes):
    problem = Quadratics(seed, 0.0)
    soap = SOAP(problem.params(shapes), 0.1, betas=(0.9, 0.9), weight_decay=0.1, max_side=1)
    adamw = AdamW(problem.params(shapes), 0.1, betas=(0.9, 0.9), weight_decay=0.1)
    pair = [optimizer.param_groups[0]["params"] for optimizer in (soap, adamw)]
    step(soap, lambda: problem.loss(0, pair[0]))
    if shapes == KERNEL:  # the kernel's one output has a side no longer than that, with ±1 for its basis
        assert len(soap.state[pair[0][0]]["L"]) == 1
    for t in range(1, STEPS):
        for optimizer, params in zip((soap, adamw), pair, strict=True):
            step(optimizer, lambda t=t, params=params: problem.loss(t, params))
    np.testing.assert_allclose(flat(pair[0]), flat(pair[1]), rtol=1e-10)


@needs_muon
@given(seed=seeds, lr=rates, wd=decays)
def test_muon_moves_matrices_as_torch_does_and_the_rest_by_adamw(seed, lr, wd):
    problem = Quadratics(seed, 0.0)
    ours, (weight, bias) = problem.params(), problem.params()
    muon = torch.optim.Muon([weight], lr, weight_decay=wd, adjust_lr_fn="match_rms_adamw")
    adamw = AdamW([bias], lr, weight_decay=wd)
    optimizer = MuonAdamW(ours, lr, weight_decay=wd)
    for t in range(STEPS):
        step(optimizer, lambda t=t: problem.loss(t, ours))
        muon.zero_grad()
        adamw.zero_grad()
        problem.loss(t, [weight, bias]).backward()
        muon.step()
        adamw.step()
    torch.testing.assert_close([*ours], [weight, bias], rtol=0, atol=0)
