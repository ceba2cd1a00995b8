"""What a source may contain, read off its text: no way to assume what it should prove, and imports that are known.

A second look beside `Print Assumptions`, which sees what a theorem uses, but not what stands unused in a file.
"""

import re
from collections.abc import Collection, Mapping

# Each of these states something without proof, stops a proof short, turns off a check of the kernel, or brings in code
# or files that nobody has screened. The theorems need no sections, so their words are here as well.
FORBIDDEN = frozenset(
    {
        *("Axiom", "Axioms", "Conjecture", "Conjectures", "Parameter", "Parameters", "Declare", "Primitive"),
        *("Context", "Hypotheses", "Hypothesis", "Variable", "Variables"),
        *("Abort", "Admit", "Admitted", "admit", "give_up"),
        *("Set", "Unset", "bypass_check", "change_no_check", "exact_no_check"),
        *("native_cast_no_check", "native_compute", "vm_cast_no_check", "vm_compute"),
        *("Add", "Cd", "Drop", "Extraction", "Load", "Register"),
    }
)
OWN = "KernelSGD"

_WORD = re.compile(r"[^\W\d][\w']*")
_REQUIRE = re.compile(r"(?:\bFrom\s+([\w.]+)\s+)?\bRequire\b\s*(?:\b(?:Import|Export)\b)?([^.]*)")


def without_comments(text: str) -> str:
    """The text with nested comments left out and strings emptied, read as Rocq does: strings count in comments, too."""
    kept, depth, in_string, at = [], 0, False, 0
    while at < len(text):
        pair = text[at : at + 2]
        if in_string:
            in_string = text[at] != '"'
            at += 1
        elif pair == "(*":
            # A comment separates words: what stands around it must not grow together.
            kept.append(" ")
            depth, at = depth + 1, at + 2
        elif depth and pair == "*)":
            depth, at = depth - 1, at + 2
        else:
            in_string = text[at] == '"'
            if not depth:
                kept.append('""' if in_string else text[at])
            at += 1
    return "".join(kept)


def faults(text: str, libraries: Collection[str] = ("Coq", OWN)) -> list[str]:
    """What is wrong with a source: its forbidden words, and imports from outside the `libraries`."""
    code = without_comments(text)
    found = [f"the word {word}" for word in sorted(FORBIDDEN.intersection(_WORD.findall(code)))]
    for origin, modules in _REQUIRE.findall(code):
        if origin not in libraries:
            found.append(
                f"a Require of {modules.strip()} from {origin or 'nowhere'}, expected one of {list(libraries)}"
            )
    return found


def imports(text: str) -> list[str]:
    """The modules of this folder that a source requires."""
    return [
        name
        for origin, modules in _REQUIRE.findall(without_comments(text))
        if origin == OWN
        for name in modules.split()
    ]


def in_order(texts: Mapping[str, str], wanted: Collection[str]) -> list[str]:
    """The wanted modules and all that they require, each after what it requires.

    Raises ValueError where a module is missing or requires itself.
    """
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in order:
            return
        if name in above or name not in texts:
            what = "requires itself" if name in above else "is not in the folder"
            raise ValueError(f"{name}.v {what} ({' → '.join((*above, name))})")
        for required in imports(texts[name]):
            visit(required, (*above, name))
        order.append(name)

    for name in wanted:
        visit(name, ())
    return order


def statement(text: str, name: str) -> str | None:
    """The statement of a theorem as it stands in its source, comments left out; None where there is none."""
    match = re.search(
        rf"^Theorem {re.escape(name)}\b(.*?)\.\s*^Proof\b", without_comments(text), re.DOTALL | re.MULTILINE
    )
    return None if match is None else f"Theorem {name}{match.group(1)}."
