"""python -m proofs: the ledger of claims, and the audit of a run. SymPy and python-flint are imported by the ledger."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer import Option

if TYPE_CHECKING:
    from proofs.audit import Run
    from proofs.claim import Line, Outcome, Status
    from proofs.ledger import Entry

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

FAILED, USAGE, INCOMPLETE = 1, 2, 3
COLOURS = {"HOLDS": "green", "HOLDS_IF": "yellow", "FAILS": "red"}
READING = "\n(a reading)"
MARKS = {"checked": "✓", "failed": "✗ FAILED", "not checked here": "not checked here"}


@app.callback(invoke_without_command=True)
def proofs(
    context: typer.Context,
    claim: Annotated[
        str | None, Option(help="One claim in full: statement, derivation, condition, certificate.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON, nothing else, on standard output.")] = False,
    axioms: Annotated[bool, Option("--axioms", help="What each Rocq theorem assumes.")] = False,
    sentences: Annotated[bool, Option("--sentences", help="The paper's sentences and their claims.")] = False,
    html: Annotated[
        Path | None, Option("--html", help="Also write the ledger as one HTML file, with every argument in full.")
    ] = None,
) -> None:
    """Re-run the evidence of every claim of the paper and print the ledger.

    Exit status 0: all evidence checked. 1: some failed. 3: none failed, but some could not be checked here.
    """
    if context.invoked_subcommand is not None:
        if claim is not None or as_json or axioms or sentences or html is not None:
            _stop(f"{context.invoked_subcommand}: expected its options after it, got those of the ledger before it")
        return
    try:
        from proofs import ledger
        from proofs.claims import load

        claims = load()
    except ModuleNotFoundError as error:
        if error.name not in ("flint", "sympy"):
            raise
        _stop(f"{error.name} is not installed (pip install 'kernel-sgd[proofs]')")
    if claim is not None:
        known = [each.name for each in claims]
        claims = tuple(each for each in claims if each.name == claim)
        if not claims:
            _stop(f"--claim: expected one of {', '.join(known)}; got {claim!r}")

    if html is not None:
        _prepare(html, axioms or sentences)
    console = _console()
    if sentences:
        console.print(_sentences())
        return
    if axioms:
        names = {piece.name: each.name for each in claims for piece in each.evidence if piece.kind == "theorem"}
        with _progress() as on_step:
            outcomes = ledger.axioms(list(names), on_step)
        console.print(_axioms(names, outcomes))
        raise typer.Exit(_exit_code(ledger.worst(outcome.status for outcome in outcomes.values())))
    with _progress() as on_step:
        entries = ledger.run(claims, on_step)
    if html is not None:
        _write(html, entries)
    if as_json:
        print(json.dumps(ledger.as_json(entries), indent=1, ensure_ascii=False))
    elif claim is not None:
        for entry in entries:
            _print_in_full(console, entry)
    else:
        console.print(_table(entries))
        _print_summary(console, entries)
    raise typer.Exit(_exit_code(ledger.worst(entry.status for entry in entries)))


def _prepare(path: Path, without_evidence: bool) -> None:
    """Stops before evidence is run where there will be no page."""
    from proofs import page

    if without_evidence:
        _stop("--html: expected without --axioms or --sentences, which run no evidence to write of")
    try:
        page.prepare(path)
    except page.PageError as error:
        _stop(f"--html: {error}")


def _write(path: Path, entries: "Sequence[Entry]") -> None:
    from proofs import page

    try:
        page.write(path, entries)
    except page.PageError as error:
        _stop(f"--html: {error}")


@app.command("audit")
def audit_run(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of a study, trained with --record-claims.")],
    plot: Annotated[Path | None, Option(help="An .svg or .png file  [default: RUN/audit.svg]")] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON, nothing else, on standard output.")] = False,
) -> None:
    """Which claims held on a training run: a table, and a plot of the epochs.

    Exit status 0 whatever held. 2: no run there, or files that make no sense.
    """
    from proofs import audit

    path = plot or run / "audit.svg"
    try:
        runs = audit.read(run)
        if not audit.plot(runs, path):
            Console(stderr=True).print(
                f"{path} left out: matplotlib is not installed (pip install 'kernel-sgd[plots]')",
                markup=False,
                soft_wrap=True,
            )
    except (audit.AuditError, OSError) as error:
        _stop(str(error))
    for reason in audit.left_out(run):
        Console(stderr=True).print(f"not audited: {reason}", style="yellow", markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps(audit.as_json(runs), indent=1, ensure_ascii=False))
        return
    console = _console()
    for each in runs:
        console.print(_findings(each))


def _findings(run: "Run") -> Table:
    from proofs import audit

    table = Table("claim", "on this run", "what happened", title=f"{run.name}, {len(run.rows)} epochs", show_lines=True)
    for found in audit.findings(run):
        colour = {audit.HELD: "green", audit.UNCOVERED: "yellow", audit.FAILED: "red"}[found.outcome]
        table.add_row(found.claim, f"[{colour}]{found.outcome}[/]", _escaped(found.says))
    return table


def _exit_code(status: "Status") -> int:
    return {"checked": 0, "failed": FAILED, "not checked here": INCOMPLETE}[status.value]


@contextmanager
def _progress() -> "Iterator[Callable[[str], None]]":
    """What is being checked and for how long, on standard error, where somebody sees it."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        yield lambda name: progress.update(task, description=name)


def _table(entries: "Sequence[Entry]") -> Table:
    table = Table("claim", "where", "verdict", "condition", "evidence", show_lines=True)
    for entry in entries:
        evidence = "\n".join(f"{kind} {done}/{all_}" for kind, (done, all_) in entry.counts.items())
        colour = COLOURS[entry.claim.verdict.value]
        mark = "" if entry.status.value == "checked" else f"\n{MARKS[entry.status.value]}"
        table.add_row(
            entry.claim.name,
            entry.claim.where,
            f"[{colour}]{entry.claim.verdict.value}[/]{READING if entry.claim.reading else ''}",
            _escaped(entry.claim.condition),
            _escaped(evidence + mark),
        )
    return table


def _print_summary(console: Console, entries: "Sequence[Entry]") -> None:
    from proofs.ledger import tally

    pieces = [piece for entry in entries for piece in entry.pieces]
    checked = sum(piece.outcome.status.value == "checked" for piece in pieces)
    counts = ", ".join(
        f"{count} {verdict}" + (f" ({readings} of readings)" if readings else "")
        for verdict, (count, readings) in tally(entries).items()
    )
    console.print(f"{len(entries)} claims: {counts}; {checked} of {len(pieces)} pieces of evidence checked")
    for piece in pieces:
        if piece.outcome.status.value != "checked":
            evidence, outcome = f"{piece.evidence.kind} {piece.evidence.name}", piece.outcome
            _say(console, f"{piece.claim.name}: {evidence}: {outcome.status.value}: {outcome.reason}")
    _print_limits(console, entries)


def _print_limits(console: Console, entries: "Sequence[Entry]") -> None:
    """What is not proved: what each verdict stands on beside the arithmetic that has just run."""
    from proofs.limits import limits

    found = limits(entries)
    _say(console, "\nwhat is not proved:")
    _say(
        console,
        f"- Rocq proves theorems for {len(found.proved)} claims (--axioms: what it assumes): {', '.join(found.proved)}",
    )
    _say(
        console,
        f"- {len(found.derived)} rest on equations that SymPy checks and on the words between them, which nobody "
        f"checks (--claim marks what is checked): {', '.join(found.derived)}",
    )
    _say(
        console,
        f"- {len(found.computed)} are arithmetic on numbers, the paper's tables or one example: "
        f"{', '.join(found.computed)}",
    )
    if found.open:
        _say(console, f"- of {len(found.open)} nothing that carries a verdict was checked: {', '.join(found.open)}")
    _say(console, f"- that the code does what is proved is sampled, by {len(found.sampled)} property tests")


def _print_in_full(console: Console, entry: "Entry") -> None:
    from proofs.claims.tables import sentences_of

    claim = entry.claim
    console.print(f"[bold]{_escaped(claim.name)}[/]  {_escaped(claim.where)}", highlight=False)
    reading = "  a reading: the paper does not state it so" if claim.reading else ""
    console.print(f"[{COLOURS[claim.verdict.value]}]{claim.verdict.value}[/]{reading}", highlight=False)
    _say(console, f"statement: {claim.statement}")
    if claim.condition:
        _say(console, f"condition: {claim.condition}")
    for sentence in sentences_of(claim.name):
        _say(console, f"  “{sentence.words}”, {sentence.section}")
    for piece in entry.pieces:
        evidence, outcome = piece.evidence, piece.outcome
        _say(console, f"\n{evidence.kind}: {evidence.name}  {MARKS[outcome.status.value]}  {outcome.reason}".rstrip())
        for line in outcome.lines:
            _say(console, _rendered(line, console.width - 6 if console.is_terminal else 10_000))
        for axiom in outcome.axioms:
            _say(console, f"  assumes {axiom}")


def _rendered(line: "Line", columns: int) -> str:
    """A line of an argument, marked where it has been proved as it ran; formulas in Unicode, broken at the columns."""
    from proofs.ledger import is_proved

    mark = MARKS["checked"] if is_proved(line) else " "
    if isinstance(line, str):
        return f"{mark} {line}"
    import sympy  # type: ignore[import-untyped]

    formula = sympy.pretty(line[1], use_unicode=True, num_columns=columns)
    return "\n".join((f"{mark} {line[0]}:", *(f"      {row}" for row in formula.splitlines())))


def _sentences() -> Table:
    from proofs.claims.tables import sentences

    table = Table("section", "words of the paper", "claims")
    for sentence in sentences():
        table.add_row(sentence.section, _escaped(sentence.words), ", ".join(sentence.claims) or "no numbers to check")
    return table


def _axioms(claims: "Mapping[str, str]", outcomes: "Mapping[str, Outcome]") -> Table:
    """A row a theorem: its claim, whether it is checked, and the axioms that it stands on."""
    table = Table("claim", "theorem", "checked", "assumes", show_lines=True)
    for name, outcome in outcomes.items():
        said = outcome.status.value + (f": {outcome.reason}" if outcome.reason else "")
        checked = outcome.status.value == "checked"
        assumes = "\n".join(outcome.axioms) or ("nothing" if checked else "")
        table.add_row(*map(_escaped, (claims[name], name, said, assumes)))
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _console() -> Console:
    """Standard output; a file or a pipe has no width of its own, and tables need some."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _stop(message: str) -> NoReturn:
    Console(stderr=True).print(f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(USAGE)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # λ where only ASCII can be written
    app(prog_name="python -m proofs")
