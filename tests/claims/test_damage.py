"""Deliberate damage to a claim is noticed: each makes a derivation or a certificate of that claim fail.

A damage is one replacement in the source of a claim file: a sign in a derivation, a constant in a condition, a digit in
a counterexample, a number of a table.
"""

from pathlib import Path
from typing import NamedTuple

import pytest

from proofs import claims, ledger
from proofs.claim import Certificate, Claim, Derivation, Status
from proofs.claims import tables

FOLDER = Path(claims.__file__).parent


class Damage(NamedTuple):
    """In which file, what is replaced by what, and the claim that must notice."""

    file: str
    old: str
    new: str
    claim: str


SIGNS = (
    Damage("one_instance", "W[j, a] - eta * sp.Sum(", "W[j, a] + eta * sp.Sum(", "convergence-theorem"),
    Damage("one_instance", "-(f[i] - s * g[i]) + sp.log", "(f[i] - s * g[i]) + sp.log", "convergence-theorem"),
    Damage("one_instance", "(1 - q[i]) * (1 - p[i])", "(1 + q[i]) * (1 - p[i])", "convergence-theorem"),
    Damage("one_instance", "s * (p[j] + 1 - p[i])", "s * (p[j] - 1 - p[i])", "margins-grow"),
    Damage("mini_batch", "- (first / total) ** 2", "+ (first / total) ** 2", "mini-batch-mean"),
    Damage("mini_batch", "(mu - (high + low) / 2) ** 2", "(mu + (high + low) / 2) ** 2", "mini-batch-mean"),
    Damage("mini_batch", "rise = -(eta / m)", "rise = (eta / m)", "mini-batch-data-dependent"),
    Damage("weight_decay", "-((p - 1) ** 2) / 4", "((p - 1) ** 2) / 4", "weight-decay-decoupled"),
    Damage("earlier_layers", "w + eta * c * h, h + 2", "w - eta * c * h, h + 2", "earlier-layers-moving"),
    Damage("soft_labels", "(sp.exp(f[k]) / total - y[k])", "(sp.exp(f[k]) / total + y[k])", "soft-labels"),
    Damage("cross_entropy", "sp.KroneckerDelta(i, k))", "2 * sp.KroneckerDelta(i, k))", "eq-6"),
    Damage("kernel_machine", "-c[j] / (n * lam)", "c[j] / (n * lam)", "affine-loss-has-a-minimiser"),
    Damage("reshaping", "B * (-E * C * X)", "B * (E * C * X)", "truncated-inverse"),
    Damage("convergence", "c + 2 * (s * sigma - c)", "c - 2 * (s * sigma - c)", "guaranteed-to-converge"),
    Damage("proposition", "(1 - pi[1]) * x[1] ** 2", "(1 + pi[1]) * x[1] ** 2", "proposition"),
    Damage("entries", "(top - 2 * mu) * (mu - x)", "(top + 2 * mu) * (mu - x)", "possible-entries"),
)
CONSTANTS = (
    Damage("mini_batch", "BOUND = 4\n", 'BOUND = sp.Rational("4.01")\n', "mini-batch-mean"),
    Damage("mini_batch", "BOUND = 4\n", 'BOUND = sp.Rational("3.99")\n', "mini-batch-constant"),
    Damage("mini_batch", "bound = 8 * slope", "bound = 9 * slope", "mini-batch-data-dependent"),
    Damage("weight_decay", "BOUND = 4\n", 'BOUND = sp.Rational("4.01")\n', "weight-decay-preconditioned"),
    Damage(
        "weight_decay", "+ 2 * lam * sp.Kron", '+ sp.Rational("2.1") * lam * sp.Kron', "weight-decay-preconditioned"
    ),
    Damage(
        "kernel_machine", "gram * curvature * gram +", "2 * gram * curvature * gram +", "hessian-of-the-kernel-machine"
    ),
    Damage("convergence", "fmpq(512, 10000)", "fmpq(514, 10000)", "guaranteed-to-converge"),
    Damage("indefinite", "UNIT = fmpq(1, 2**24)", "UNIT = fmpq(1, 2**23)", "rounded-or-indefinite-kernel"),
    Damage("proposition", "- 3 * sum(eigenvalues)", "- 2 * sum(eigenvalues)", "proposition-assumption-published"),
    Damage("memory", "M, FLOAT32, FLOAT64 = 64", "M, FLOAT32, FLOAT64 = 65", "memory-of-the-kernel"),
    Damage("memory", '"usps": 5833', '"usps": 5933', "memory-of-the-kernel"),
    Damage("memory", "+ 9 * out * out", "+ 8 * out * out", "memory-of-the-baselines"),
)
COUNTEREXAMPLES = (
    Damage("one_instance", "arb_mat([[1, -1]])", "arb_mat([[1, 1]])", "convergence-theorem"),
    Damage("mini_batch", '["1", "0.001"]', '["1", "1"]', "mini-batch-mean"),
    Damage("mini_batch", "fmpq(1, 20)", "fmpq(1, 2)", "mini-batch-constant"),
    Damage(
        "own_loss",
        "arb_mat([[1, 0], [0, 0]]), [0, 0]",
        "arb_mat([[0, 0], [1, 0]]), [0, 0]",
        "each-instance-of-a-mini-batch",
    ),
    Damage("weight_decay", "arb_mat([[2000]])", "arb_mat([[200]])", "weight-decay-preconditioned"),
    Damage("weight_decay", "arb_mat([[10], [-10]])", "arb_mat([[1], [-1]])", "weight-decay-preconditioned"),
    Damage("momentum", '[["-1.5"], ["1.5"]]', '[["1.5"], ["-1.5"]]', "momentum"),
    Damage("earlier_layers", "arb(fmpq(1, 30))", "arb(fmpq(1, 3))", "earlier-layers-moving"),
    Damage("soft_labels", "z, lr, half = 7", "z, lr, half = 6", "soft-labels"),
    Damage("projection", "fmpq(8, 17)", "fmpq(7, 17)", "eq-4-from-eq-3"),
    Damage("proposition", "fmpq(1, 40)", "fmpq(1, 41)", "closer-optimum-better-solution"),
    Damage("saddles", "S = sp.diag(1, 1, 0, 1)", "S = sp.diag(1, 1, 1, 1)", "escapes-saddle-points"),
    Damage("saddles", "v += 2 * lr * w", "v -= 2 * lr * w", "figure-1"),
    Damage(
        "kernel_machine",
        "slopes = fmpq_mat([[1], [-1]])",
        "slopes = fmpq_mat([[1], [1]])",
        "affine-loss-has-a-minimiser",
    ),
    Damage("bias_and_ridge", "fmpq(39, 40)", "fmpq(38, 40)", "guaranteeing-ridge"),
    Damage("reshaping", '(512, "0.875")', '(512, "0.876")', "padding-trains-the-layer"),
    Damage("proposition", "fmpq(3, 4) - H / 4", "fmpq(2, 4) - H / 4", "closer-optimum-better-solution"),
)


def failures(claim: Claim) -> list[str]:
    pieces = [piece for piece in claim.evidence if isinstance(piece, Derivation | Certificate)]
    return [piece.name for piece in pieces if ledger.argue(piece).status is Status.FAILED]


def damaged(damage: Damage) -> Claim:
    """The claim of the file with the replacement made, from source, as a module of its own."""
    source = (FOLDER / f"{damage.file}.py").read_text(encoding="utf-8")
    assert source.count(damage.old) >= 1, f"{damage.old!r} is not in {damage.file}.py"
    module: dict[str, object] = {"__name__": f"damaged_{damage.file}"}
    exec(compile(source.replace(damage.old, damage.new, 1), f"{damage.file}.py", "exec"), module)
    found: tuple[Claim, ...] = module["CLAIMS"]  # type: ignore[assignment]
    return next(claim for claim in found if claim.name == damage.claim)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", SIGNS + CONSTANTS + COUNTEREXAMPLES, ids=lambda damage: f"{damage.file}: {damage.new}"
)
def test_damage_to_a_claim_makes_its_evidence_fail(damage: Damage) -> None:
    assert failures(damaged(damage)) != []


@pytest.mark.parametrize(
    ("table", "row", "digit", "claim"),
    [
        ("table2_second_order_submission", "mnist,ESGD", ("8671", "6671"), "up-to-30-times-faster"),
        ("table2_second_order_submission", "imdb,ESGD", ("61.69", "62.69"), "around-28-percent-on-imdb"),
        ("table2_second_order_submission", "s-cov,ESGD", ("1.42", "1.32"), "possible-entries"),
        ("table2_first_order", "usps,SGD+M", ("94.17", "93.17"), "five-out-of-six"),
        ("table2_first_order", "cifar10,SGD+M", ("582", "472"), "faster-than-first-order-with-images"),
        ("batch_size", "usps,128", ("94.07", "93.01"), "smaller-batches-are-more-accurate"),
        ("datasets", "image,s-cov", ("482", "4820"), "possible-entries"),
        ("batch_size", "s-cov,128", ("60", "70"), "larger-batches-take-longer-on-s-cov"),
        ("layers_published", "imdb", ("5548", "3548"), "last-layer-is-faster"),
    ],
)
def test_another_digit_in_a_table_is_noticed(
    table: str, row: str, digit: tuple[str, str], claim: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for file in tables.FOLDER.glob("*.csv"):
        lines = file.read_text(encoding="utf-8").splitlines()
        if file.stem == table:
            assert any(line.startswith(f"{row},") and digit[0] in line for line in lines)
            lines = [line.replace(*digit) if line.startswith(f"{row},") else line for line in lines]
        (tmp_path / file.name).write_text("\n".join(lines), encoding="utf-8")
    (found,) = (each for each in claims.load() if each.name == claim)
    assert failures(found) == []
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    assert failures(found) != []
