"""The deliberate faults of faults.json: one replacement in one file each, and the tests that are run with it."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """`old` → `new`, once, in `file`; at least one function of `tests` must fail on it.

    `tests` are arguments of pytest: files, node ids, and for the conformance suite `--backend=NAME`.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        old, new = (" ".join(text.split()).replace("|", "¦").replace("`", "'") for text in (self.old, self.new))
        return f"{self.file}: `{_short(old)}` → `{_short(new)}`"


def _short(text: str) -> str:
    return text if len(text) <= 90 else f"{text[:88]} …"


FAULTS = tuple(
    Fault(entry["file"], entry["old"], entry["new"], tuple(entry["tests"]))
    for entry in json.loads(Path(__file__).with_name("faults.json").read_text(encoding="utf-8"))
)
