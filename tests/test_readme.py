"""The README's commands and code work as written."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_block_of_the_readme_runs(code: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=environment, check=True)


def test_every_make_target_and_linked_file_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {words[1] for words in commands() if words[0] == "make"} <= targets
    links = re.findall(r"\]\(([^)]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_every_option_of_the_readme_s_commands_is_one_of_the_command_line() -> None:
    from typer.main import get_command

    from gpu.__main__ import app

    ours = [words[words.index("gpu") + 1 :] for words in commands() if words[1:3] == ["-m", "gpu"]]
    assert len(ours) >= 4
    for arguments in ours:
        command = get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= options


def test_the_table_of_optimizers_is_that_of_its_file() -> None:
    with (ROOT / "gpu/results/usps-optimizers/table2.csv").open(newline="", encoding="utf-8") as file:
        kept = {row[""]: row for row in csv.DictReader(file)}
    lines = [
        line.strip("| ").split(" | ") for line in README.splitlines() if re.match(r"\| `[\w-]+` \| 0\.\d+ \|", line)
    ]
    assert [line[0].strip("`") for line in lines] == list(kept)
    for name, *cells in lines:
        row = kept[name.strip("`")]
        test, training = (f"{float(row[q]):.2f} ± {float(row[q + ' sd']):.2f}" for q in ("test %", "training %"))
        rounded = [f"{float(row['epochs']):.0f}", f"{float(row['seconds']):.1f}"]
        assert cells[0] == row["η"]
        assert cells[1].strip() == row["γ"]
        assert [cells[2], *cells[4:7]] == [test, training, *rounded]
