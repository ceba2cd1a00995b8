"""How time and memory of a cache in a file grow: what the bench says, not how fast this machine is."""

import json
import sys
from pathlib import Path

import pytest

from gpu.bench import scale as bench
from gpu.train import UsageError
from tests.gpu.test_cli import command


def test_the_exponent_is_that_of_a_power_law() -> None:
    for e in (0.5, 1.0, 2.0):
        assert bench.exponent({n: 3 * n**e for n in (10, 100, 2000)}) == pytest.approx(e, abs=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_every_size_is_built_in_a_process_of_its_own_and_time_and_memory_are_told_and_drawn(tmp_path: Path) -> None:
    sizes = ("--n", "300", "--n", "3000", "--d", "40", "--m", "16", "--repeats", "1", "--memory-budget", "1")
    code, output = command("bench", "scale", *sizes, "--picture", tmp_path / "scale.png", "--json")
    assert code == 0, output
    figures = json.loads(output)
    for n in ("300", "3000"):
        assert figures["seconds_of_all"][n] == [figures["seconds"][n]]
        assert figures["stored_bytes"][n] == int(n) * 16 * 4
        assert figures["input_bytes"][n] == int(n) * 40 * 4
    assert figures["peak_bytes"]["3000"] > 0
    assert figures["exponent"] == bench.exponent({int(n): s for n, s in figures["seconds"].items()})
    assert {"versions", "machine", "commit", "threads"} <= set(figures)
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("sizes", [[100], [100, 100], [100, 5]])
def test_one_size_has_no_exponent_and_a_mini_batch_needs_its_instances(sizes: list[int]) -> None:
    with pytest.raises(
        UsageError, match="n: expected at least two different numbers of instances, each at least m = 8"
    ):
        bench.scale(sizes=sizes, d=3, m=8, gamma=1.0, budget=2**20, repeats=1)


def test_where_the_system_tells_no_memory_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "STATUS", tmp_path / "status")
    with pytest.raises(UsageError, match="reads a process's memory from"):
        bench.scale(sizes=[100, 200], d=3, m=8, gamma=1.0, budget=2**20, repeats=1)
