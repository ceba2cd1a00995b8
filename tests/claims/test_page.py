"""The page shows every entry in full, says what is not proved, stands alone, and is written whole or not at all."""

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import sympy as sp
from flint import arb_mat
from typer.testing import CliRunner

from proofs import claims, ledger, page, plots
from proofs.__main__ import app
from proofs.certificates import Proved, kernel_step, mean_loss, reshaped_inverse
from proofs.claim import (
    Argument,
    Certificate,
    Claim,
    Derivation,
    Evidence,
    Line,
    Outcome,
    Property,
    Status,
    Theorem,
    Verdict,
)
from proofs.claims import cross_entropy, mini_batch, own_loss
from proofs.ledger import Entry
from proofs.limits import limits

ROOT = Path(__file__).parents[2]
MATHML = "{http://www.w3.org/1998/Math/MathML}"
NAMESPACES = {"http://www.w3.org/1998/Math/MathML", "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}

a, b, n = sp.symbols("a b n", integer=True, positive=True)
x = sp.Symbol("x")
P, z = sp.IndexedBase("P"), sp.IndexedBase("z")
FORMULAS = (
    sp.Sum(z[a] * P[a, b] * z[b], (a, 1, n), (b, 1, n)),
    sp.exp(-x) / (1 + sp.log(x)),
    sp.KroneckerDelta(a, b) - x,
    sp.Eq(x + 1, x * 2, evaluate=False),
    sp.Integer(-1),
)


def shows() -> Iterator[Line]:
    yield "words between <lines> & more"
    yield Proved("a line that is proved")
    yield from ((f"formula {number}", formula) for number, formula in enumerate(FORMULAS))


def breaks() -> Iterator[Line]:
    yield "the line before"
    raise ArithmeticError("1 < 0 is <b>false</b>")


def entry(name: str, verdict: Verdict, condition: str, *evidence: tuple[Evidence, Outcome]) -> Entry:
    pieces, outcomes = zip(*evidence, strict=True)
    return Entry(Claim(name, f"section of {name}", f"{name}: 1 < 2 & 2 < 3", verdict, condition, pieces), outcomes)


def argued(piece: Derivation | Certificate) -> tuple[Evidence, Outcome]:
    return piece, ledger.argue(piece)


CHECKED, ABSENT = Outcome(Status.CHECKED), Outcome(Status.NOT_HERE, reason="coqc not found")
PROPERTY = Property("tests/a.py::test_b")
ENTRIES = (
    entry(
        "mini-batch-mean",
        Verdict.HOLDS_IF,
        "η < 4 & P ⪰ 0",
        argued(Derivation(shows)),
        (Theorem("mini_batch"), Outcome(Status.CHECKED, axioms=("Classical_Prop.classic", "An.axiom"))),
        (PROPERTY, CHECKED),
    ),
    entry("derived", Verdict.HOLDS, "", argued(Derivation(shows)), (Theorem("unknown"), ABSENT)),
    entry("computed", Verdict.FAILS, "'never'", argued(Certificate(shows)), (PROPERTY, CHECKED)),
    entry("open", Verdict.FAILS, "", argued(Certificate(breaks))),
)


@pytest.fixture(scope="module")
def text() -> str:
    return page.render(ENTRIES)


def section(text: str, name: str) -> str:
    return text.partition(f'id="claim-{name}"')[2].partition("</section>")[0]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(claims, "load", lambda: tuple(each.claim for each in ENTRIES))
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stderr


def test_every_claim_has_a_row_and_a_section_with_verdict_and_condition(text: str) -> None:
    table = text.partition("<tbody>")[2].partition("</tbody>")[0]
    for each in ENTRIES:
        claim = each.claim
        row = next(row for row in table.split("</tr>") if f'href="#claim-{claim.name}"' in row)
        for place in (row, section(text, claim.name)):
            assert claim.verdict.value.replace("_", " ") in place
            assert html.escape(claim.where) in place
            assert claim.condition in html.unescape(place)
        assert html.escape(claim.statement) in section(text, claim.name)
    assert "η &lt; 4 &amp; P ⪰ 0" in table


def test_readings_are_counted_and_marked() -> None:
    first = ENTRIES[2]
    reading = Entry(replace(first.claim, name="read", reading=True), first.outcomes)
    text = page.render((first, reading))
    assert "<b>2</b> FAILS <small>(1 of readings)</small>" in text
    assert "<small>a reading</small>" in section(text, "read")
    assert "<small>a reading</small>" not in section(text, first.claim.name)


def test_lines_are_escaped_and_marked_where_they_were_proved(text: str) -> None:
    derived = section(text, "derived")
    assert "<li>words between &lt;lines&gt; &amp; more</li>" in derived
    assert '<li class="proved">a line that is proved</li>' in derived
    assert "the line before" in section(text, "open")
    assert "ArithmeticError: 1 &lt; 0 is &lt;b&gt;false&lt;/b&gt;" in section(text, "open")


@pytest.mark.parametrize("name", ["mini-batch-mean", "derived", "computed"])
def test_every_formula_is_there_as_well_formed_mathml(text: str, name: str) -> None:
    found = re.findall(r"<math.*?</math>", section(text, name), re.DOTALL)
    assert found == [page.mathml(formula) for formula in FORMULAS]
    for each in found:
        ElementTree.fromstring(each)


def test_a_double_sum_keeps_both_its_signs_and_indices_have_no_brackets() -> None:
    tree = ElementTree.fromstring(page.mathml(FORMULAS[0]))
    assert [sign.text for sign in tree.iter(f"{MATHML}mo")].count("∑") == 2
    assert "".join(tree.itertext()) == "∑b=1n∑a=1nPa,b·za·zb"


@pytest.mark.parametrize("formula", FORMULAS)
def test_mathml_needs_no_entities_that_only_html_knows(formula: sp.Expr) -> None:
    assert set(re.findall(r"&\w+;", page.mathml(formula))) <= {"&lt;", "&gt;", "&amp;"}


@pytest.mark.parametrize(
    "argument",
    [
        cross_entropy.hessian_is_diagonal_minus_rank_one,
        mini_batch.the_second_derivative_is_a_variance,
        own_loss.a_falling_slope_is_necessary,
    ],
)
def test_formulas_of_the_claims_are_well_formed(argument: Argument) -> None:
    formulas = [line[1] for line in ledger.argue(Derivation(argument)).lines if not isinstance(line, str)]
    assert formulas
    for formula in formulas:
        assert "".join(ElementTree.fromstring(page.mathml(formula)).itertext())


def test_theorems_say_what_they_prove_and_assume(text: str) -> None:
    proved = section(text, "mini-batch-mean")
    assert "Theorem mini_batch" in proved
    assert "<code>An.axiom</code>" in proved
    assert "updates the weight W" in proved


def test_every_claim_stands_in_one_group_of_what_is_not_proved() -> None:
    found = limits(ENTRIES)
    assert found.proved == {"mini-batch-mean": ("mini_batch",)}
    assert found.derived == {"derived": (1, len(FORMULAS) + 2)}
    assert (found.computed, found.open) == (("computed",), ("open",))
    assert found.axioms == ("An.axiom", "Classical_Prop.classic")
    assert found.sampled == {PROPERTY.name: ("mini-batch-mean", "computed")}
    assert found.unsampled == ("derived", "open")
    assert [(piece.claim.name, piece.outcome.status) for piece in found.unchecked] == [
        ("derived", Status.NOT_HERE),
        ("open", Status.FAILED),
    ]


def test_what_was_not_checked_is_listed_with_its_reason(text: str) -> None:
    listed = text.partition('id="not-checked"')[2].partition("</section>")[0]
    assert "coqc not found" in listed
    assert "ArithmeticError" in listed
    assert "Nothing that carries a verdict was checked" in text
    assert "excluded middle" in text
    assert "All evidence of these claims was run" in page.render(ENTRIES[:1])


def test_the_page_stands_alone(text: str) -> None:
    assert set(re.findall(r"https?://[^\"\s<]*", text)) <= NAMESPACES
    assert not re.search(r"<script|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\((?!#)|\bsrc=|javascript:", text)
    targets = set(re.findall(r'href="#([^"]*)"', text)) - {"top"}
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert targets <= set(ids)
    assert len(ids) == len(set(ids))


def test_plots_stand_with_their_claim_and_carry_no_verdict(text: str) -> None:
    assert section(text, "mini-batch-mean").count("<svg") == text.count("<svg") == 2
    for plot in plots.of("mini-batch-mean"):
        ElementTree.fromstring(plot.svg)
        assert "mini-batch-mean" in plot.caption
        assert not re.search("HOLDS|FAILS", plot.caption + plot.svg)
        assert not re.search("#0102", plot.svg)


def test_the_file_is_written_whole_or_the_old_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    page.write(path, ENTRIES[1:])
    before = path.read_bytes()
    assert before.rstrip().endswith(b"</html>")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(page.PageError, match="No space left"):
        page.write(path, ENTRIES[2:])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_writes_the_page_and_keeps_the_exit_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    for entries, code in ((ENTRIES, 1), (ENTRIES[:2], 3), (ENTRIES[:1], 0)):
        monkeypatch.setattr(ledger, "run", lambda *_, entries=entries: entries)
        assert command(monkeypatch, "--html", str(path))[0] == code
        assert path.read_text(encoding="utf-8").count('<section class="claim"') == len(entries)


def test_a_path_that_cannot_be_written_is_an_error_before_evidence_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs(*_: object) -> None:
        raise AssertionError("evidence was run")

    monkeypatch.setattr(ledger, "run", runs)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "no" / "page.html", tmp_path / "file" / "page.html", Path(os.devnull)):
        code, error = command(monkeypatch, "--html", str(path))
        assert code == 2
        assert str(path) in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert command(monkeypatch, "--html", str(tmp_path / "page.html"), "--axioms")[0] == 2


@pytest.mark.parametrize(("package", "extra"), [("jinja2", "proofs"), ("matplotlib", "plots")])
def test_a_missing_package_is_named_with_its_extra(
    package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    code, error = command(monkeypatch, "--html", str(tmp_path / "page.html"))
    assert code == 2
    assert f"{package} is not installed (pip install 'kernel-sgd[{extra}]')" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_itself_imports_neither_jinja2_nor_matplotlib() -> None:
    code = "import proofs.page, sys; assert not {'jinja2', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("gamma", mini_batch.GRID)
def test_the_loss_along_the_step_does_not_rise_up_to_the_marked_bound_and_does_on_the_grid(gamma: str) -> None:
    batch = plots.unsafe_batch(float(gamma))
    near, grid = plots.along_the_step(batch), plots.along_the_step(batch, up_to=0.1)
    K = batch.Z @ batch.P @ batch.Z.T / 2
    assert near.bound == pytest.approx(4 / np.linalg.eigvalsh(K)[-1], rel=1e-6)
    assert near.losses[0] == near.before
    assert (near.losses[near.rates <= near.bound] <= near.before).all()
    assert near.losses[-1] > near.before
    assert grid.rates[-1] == pytest.approx(0.1)
    assert (grid.losses[grid.rates >= 1e-4] > near.before).all()


def test_the_pictures_batches_are_those_of_the_certificates() -> None:
    """float64 against the balls of the certificates' own functions, on which the verdicts stand."""
    for batch, rows in (
        (plots.unsafe_batch(0.1), [["1", "0"], ["1", "0.001"]]),
        (plots.surer_batch(0.1), [["1", "0"], ["0", "1"]]),
    ):
        exact = reshaped_inverse(rows, "0.1", 2)
        W, Z = (balls(array) for array in (batch.W, batch.Z))
        labels = batch.labels.tolist()
        after = mean_loss(kernel_step(W, Z, labels, exact, "0.1"), Z, labels)
        assert batch.loss(batch.after(0.1)) == pytest.approx(float(after), rel=1e-6)


def balls(array: np.ndarray) -> arb_mat:
    return arb_mat(array.tolist())


def test_frozen_columns_do_not_move_at_all() -> None:
    batch = plots.padded_batch()
    moved = plots.moves(batch, 0.1)
    assert (moved[:, len(batch.Z) :] == 0).all()
    assert (moved[:, : len(batch.Z)] > 0).all()
    assert (batch.direction[:, len(batch.Z) :] != 0).all()


def test_the_drawn_step_lowers_the_mean_and_raises_the_first_loss() -> None:
    batch = plots.surer_batch(float(mini_batch.GRID[1]))
    after = batch.after(0.1)
    assert batch.loss(after) < batch.loss(batch.W)
    start, end = plots.margins(batch.W), plots.margins(after)
    assert end[0] < start[0]
    flat = np.array([end, [0.0, 0.0]])
    assert batch.loss(flat) == pytest.approx(batch.loss(after), rel=1e-12)
