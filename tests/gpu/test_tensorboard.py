"""What TensorBoard is given is what metrics.csv has, once each, also of a run that was stopped and went on."""

import builtins
import csv
import threading
from pathlib import Path

import pytest

from gpu.train import UsageError
from gpu.train.loop import COLUMNS, METRICS
from gpu.train.tensorboard import FOLDER, logged, require_tensorboard
from tests.gpu.test_cli import command

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def found(place: Path) -> dict[str, list[tuple[int, float]]]:
    """By its own reader."""
    events = accumulator.EventAccumulator(str(place / FOLDER)).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def rows(place: Path) -> list[dict[str, float]]:
    with (place / METRICS).open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def assert_all_is_logged(place: Path) -> None:
    assert found(place) == {
        name: [(int(row["epoch"]), pytest.approx(row[name], rel=1e-6)) for row in rows(place)]
        for name in COLUMNS
        if name != "epoch"
    }


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("train",), ("reproduce", "layers", "--quick", "--repeats", "1")])
def test_every_epoch_of_every_run_is_logged_once(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    code, output = command(*arguments, "--hidden", "4", "--epochs", "3", "--out", out, "--tensorboard")
    assert code == 0, output
    places = [path.parent for path in out.rglob(METRICS)]
    assert places
    for place in places:
        assert len(rows(place)) == 3
        assert_all_is_logged(place)


def test_without_the_option_nothing_is_logged(tmp_path: Path) -> None:
    assert command("train", "--hidden", "4", "--epochs", "1", "--out", tmp_path / "out")[0] == 0
    assert not list(tmp_path.rglob(FOLDER))


def test_a_run_that_goes_on_has_neither_lost_nor_doubled_an_epoch(tmp_path: Path) -> None:
    def write(epochs: int) -> None:
        lines = [",".join(COLUMNS), *(f"{k},{1 / k},0.5,0.25,{k},0" for k in range(1, epochs + 1))]
        (tmp_path / METRICS).write_text("\n".join(lines) + "\n", encoding="utf-8")

    threads = threading.active_count()
    write(3)
    with logged(tmp_path) as log:
        log(rows(tmp_path)[-1])
        write(4)
        log(rows(tmp_path)[-1])
        assert_all_is_logged(tmp_path)
    write(5)  # stopped and gone on with: epoch 4 was logged before, 5 is the first that the new log is told of
    with logged(tmp_path) as log:
        log(rows(tmp_path)[-1])
    assert_all_is_logged(tmp_path)
    write(6)  # stopped after the last epoch: there is none to be told of
    with logged(tmp_path):
        pass
    assert_all_is_logged(tmp_path)
    assert threading.active_count() == threads


def test_the_option_without_the_package_is_an_error_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(name: str, *rest: object) -> object:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return importing(name, *rest)  # type: ignore[arg-type]

    importing = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(UsageError, match="pip install"):
        require_tensorboard()
    for arguments in (("train",), ("reproduce", "table2")):
        code, output = command(*arguments, "--out", tmp_path / "out", "--tensorboard")
        assert code == 2
        assert "leave out --tensorboard" in " ".join(output.split())
    assert not (tmp_path / "out").exists()
