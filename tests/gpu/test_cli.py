"""The command line: what it prints, writes and answers; one line, no traceback, for what the user can put right."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gpu.__main__ import app
from gpu.bench.cache import INPUTS, PARTS
from gpu.experiments.paper import first_order
from gpu.train import UsageError
from gpu.train.data import names

ROOT = Path(__file__).parents[2]
QUICK = ["--hidden", "8", "--epochs", "2"]


def command(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and output (both streams) of python -m gpu, in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="python -m gpu")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def printed_json(*arguments: str | Path) -> dict:
    """What `--json` put on standard output, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "gpu", *map(str, arguments), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_help_needs_neither_torch_nor_scikit_learn():
    code = "import runpy, sys\ntry: runpy.run_module('gpu', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'sklearn', 'scipy'} & set(sys.modules)))"
    for arguments in (["--help"], ["train", "--help"], ["bench", "step", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"
        assert "Usage" in done.stdout


def test_train_leaves_a_folder_of_plain_files_and_shows_a_table(tmp_path):
    code, output = command("train", *QUICK, "--out", tmp_path / "run")
    assert code == 0
    assert "kernel-sgd" in output
    assert "test %" in output
    files = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    run = {f"kernel-sgd-seed0/{name}" for name in ("checkpoint.safetensors", "metrics.csv", "result.json")}
    assert files == {"config.json", "summary.json", "plot.png", *run}
    assert len((tmp_path / "run" / "kernel-sgd-seed0" / "metrics.csv").read_text().splitlines()) == 3
    assert (tmp_path / "run" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_plot_is_left_out_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, output = command("train", *QUICK, "--out", tmp_path / "run")
    assert code == 0
    assert "plot.png left out" in output
    assert not (tmp_path / "run" / "plot.png").exists()


def test_compare_pairs_all_three_optimizers_by_seed(tmp_path):
    code, output = command("compare", *QUICK, "--out", tmp_path / "run")
    assert code == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["optimizers"]) == ["kernel-sgd", "sgd", "sgd-momentum"]
    assert summary["seeds"] == [0, 1, 2, 3, 4]
    assert set(summary["paired_differences"]) == {"kernel-sgd - sgd", "kernel-sgd - sgd-momentum"}
    assert "kernel-sgd - sgd: " in output
    assert "95 % interval [" in output


def test_runs_stand_in_the_folder_runs_whatever_the_name_of_the_data_and_in_an_empty_one_where_one_is(
    tmp_path, monkeypatch
):
    for name in ("made", "made.t"):
        (tmp_path / name).write_text("1 1:0.5 2:0.25\n2 1:1 2:0.75\n" * 5)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert command("train", *QUICK, "--out", ".")[0] == 0
    assert (tmp_path / "here" / "config.json").exists()
    monkeypatch.chdir(tmp_path)
    assert command("train", *QUICK, "--data", tmp_path / "made", "--data-dir", tmp_path)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"made", "made.t", "here", "runs"}


@pytest.mark.slow
def test_json_is_all_that_standard_output_gets(tmp_path):
    out = ["--out", tmp_path / "run"]
    summary = printed_json("train", *QUICK, "--seeds", "2", "--optimizer", "sgd", "--optimizer", "kernel-sgd", *out)
    assert set(summary["optimizers"]) == {"sgd", "kernel-sgd"}
    assert {"versions", "machine", "commit", "dirty", "settings"} <= set(summary)
    assert summary["paired_differences"]["kernel-sgd - sgd"]["n"] == 2


def test_where_the_data_is_the_paper_s_its_figures_stand_beside_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "counts", dict)  # these are far fewer instances than the paper's
    lines = "".join(f"{k % 3 + 1} 1:{k % 3} 2:{k}\n" for k in range(30))
    (tmp_path / "usps").write_text(lines)
    (tmp_path / "usps.t").write_text(lines)
    code, output = command("train", "--data", "usps", "--data-dir", tmp_path, *QUICK, "--out", tmp_path / "run")
    assert code == 0
    assert "93.63 ± 0.34" in output
    assert first_order("usps")["sgd"]["test_acc"] == 93.28
    assert first_order("mnist")["sgd-momentum"]["time_s_std"] == 2849
    assert first_order("digits") == {}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--optimizer", "adam"], "optimizer: expected one of kernel-sgd, sgd, sgd-momentum, l-bfgs, esgd, "),
        (["train", "--optimizer", "sgd", "--optimizer", "adam"], "'adam'"),
        (["train", "--lr", "-1"], "lr: expected a finite number >= 0, got -1"),
        (["train", "--hidden", "100;100"], "--hidden: expected widths"),
        (["train", "--data", "usps"], "--data-dir"),
        (["train", "--data", "usps", "--data-dir", "{tmp}/nowhere"], "no folder"),
        (["train", "--data", "usps", "--data-dir", "{tmp}"], "usps: no such file"),
        (["train", "--scaling", "log"], "scaling: expected one of"),
        (["train", "--device", "abacus"], "device: cannot use 'abacus'"),
        (["train", "--batch-size", "0"], "batch_size"),
        (["train", "--memory-budget", "1", "--batch-size", "1000"], "memory_budget"),
        (["train", "--out", "{tmp}/full"], "not empty"),
        (["train", "--resume", "{tmp}/nowhere"], "nothing to resume"),
        (["train", "--resume", "{tmp}", "--lr", "0.2", "--json"], "leave out --lr"),
        (["compare", "--resume", "{tmp}", "--seeds", "3"], "leave out --seeds"),
        (["bench", "step", "--data", "usps"], "--data-dir"),
        (["bench", "cache", "--n", "128", "--d", "1", "--gamma", "1e-9"], "makes 2 of the kernel matrices"),
        (["bench", "cache", "--n", "128", "--gamma", "-1"], "gamma is -1.0: expected"),
        (["bench", "cache", "--n", "128", "--gamma", "nan"], "gamma is nan"),
        (["bench", "cache", "--n", "1000000000000"], "can't allocate memory"),
        (["train", "--hidden", "1000000000000"], "can't allocate memory"),
        (["train", "--hidden", "1000000000000000000"], "Storage size calculation overflowed"),
        (["train", "--seeds", f"1{30 * '0'}"], "too large"),
        (["train", "--lr", "1e300"], "lr: expected at most"),
        (["train", "--weight-decay", "1e300"], "weight_decay: expected at most"),
        (["train", "--threads", "10000000000", "--out", "{tmp}/nowhere"], "threads: expected at most 1024"),
        (["train", "--device", "meta"], "device: cannot use 'meta'"),
        (["bench", "cache", "--device", "abacus"], "device: expected cpu or cuda, got 'abacus'"),
    ],
)
def test_what_the_user_can_put_right_is_said_in_one_line_with_exit_code_2(tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    code, output = command(*(a.format(tmp=tmp_path) for a in arguments))
    assert code == 2
    assert named in output
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


def test_a_run_whose_loss_is_not_finite_is_listed_its_study_goes_on_and_exits_with_1_again_when_resumed(tmp_path):
    arguments = ["--optimizer", "kernel-sgd", "--optimizer", "sgd", *QUICK, "--gamma", "1e-4", "--lr", "10"]
    both = ["--seeds", "2", "--hidden", "", "--out", tmp_path / "run"]
    for call in (["train", *arguments, *both], ["train", "--resume", tmp_path / "run"]):
        code, output = command(*call)
        assert code == 1
        assert (
            "kernel-sgd, seed 1: failed: the loss of epoch 1 is nan with lr = 10.0, gamma = 0.0001, largest" in output
        )
        assert "sgd, seed 1: test " in output
        assert output.count("2 of 2") == 1
        assert output.count("0 of 2") == 1
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert [(run["optimizer"], run["seed"]) for run in summary["failed"]] == [("kernel-sgd", 0), ("kernel-sgd", 1)]
        assert list(summary["optimizers"]) == ["sgd"]
        assert summary["paired_differences"] == {}
    assert (tmp_path / "run" / "plot.png").exists()
    assert command("train", *QUICK, "--lr", "1e30", "--out", tmp_path / "none")[0] == 1
    assert not (tmp_path / "none" / "plot.png").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "epoch,loss\n1,0.5\n",
        "a\n\x00",
        *(f"epoch,loss,validation_accuracy,test_accuracy\n1,1,1,{x}\n" for x in ("x", "nan")),
    ],
)
def test_metrics_of_a_finished_run_that_make_no_sense_are_named(tmp_path, text):
    assert command("train", *QUICK, "--out", tmp_path)[0] == 0
    (tmp_path / "kernel-sgd-seed0" / "metrics.csv").write_text(text)
    code, output = command("train", "--resume", tmp_path)
    assert code == 2
    assert "metrics.csv: damaged" in output
    (tmp_path / "kernel-sgd-seed0" / "result.json").unlink()
    assert command("train", "--resume", tmp_path)[0] == 0


@pytest.mark.slow
def test_output_survives_a_terminal_that_knows_ascii_only(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "gpu", "train", *QUICK, "--seeds", "2", "--out", str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert b" ? " in done.stdout


@pytest.mark.slow
def test_ctrl_c_says_how_to_resume_and_the_folder_resumes(tmp_path):
    folder = tmp_path / "run"
    arguments = [sys.executable, "-m", "gpu", "train", "--lr", "0.001", "--epochs", "200", "--out", str(folder)]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = folder / "kernel-sgd-seed0" / "metrics.csv"
    while process.poll() is None and not metrics.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert f"python -m gpu train --resume {folder}" in stderr
    assert "Traceback" not in stderr
    done = len(metrics.read_text().splitlines())

    code, output = command("train", "--resume", folder)
    assert code == 0
    assert "kernel-sgd" in output
    assert 2 <= done < len(metrics.read_text().splitlines()) <= 201


@pytest.mark.slow
def test_the_step_bench_gives_ratios_to_sgd_with_their_spread():
    figures = printed_json("bench", "step", "--hidden", "8", "--repeats", "2")
    assert set(figures["ratio_to_sgd"]) == set(figures["spread"]) == {"kernel-sgd", "sgd-momentum"}
    for name, ratio in figures["ratio_to_sgd"].items():
        low, high = figures["spread"][name]
        assert 0 < low <= ratio <= high
    assert figures["threads"] == 1
    assert {"torch", "numpy", "python"} <= set(figures["versions"])
    assert {"machine", "commit", "dirty"} <= set(figures)


def test_the_cache_bench_compares_the_build_with_its_parts_and_with_a_loop():
    code, output = command("bench", "cache", "--n", "70", "--d", "5", "--m", "16", "--repeats", "2", "--json")
    figures = json.loads(output)
    assert code == 0
    assert (figures["n"], figures["d"], figures["m"], list(figures["threads"])) == (70, 5, 16, ["1", "2"])
    one, two = figures["threads"].values()
    for found in (one, two):
        assert set(found["best"]) == {*PARTS, *INPUTS}
        for part, way in found["best"].items():
            assert found["seconds"][way] == min(s for name, s in found["seconds"].items() if name.startswith(part))
        assert found["ratio_to_parts"] > found["ratio_with_inputs"] > 0
    assert one["speedup_over_loop"] > 0
    assert {way.removesuffix(", 2 calls at once") for way in two["seconds"]} == set(one["seconds"]) - {"loop"}
    assert len(two["seconds"]) == 2 * len(one["seconds"]) - 3


def test_the_cache_bench_of_a_gpu_says_in_one_line_that_there_is_none(monkeypatch):
    def no_gpu(*_, **__):
        raise RuntimeError("no such device\nand more")

    monkeypatch.setattr("torch.zeros", no_gpu)
    code, output = command("bench", "cache", "--device", "cuda")
    assert (code, output) == (2, "error: device: cannot use 'cuda' here (no such device)\n")


def test_the_cache_bench_of_a_gpu_compares_inverses_that_agree():
    pytest.importorskip("cupy")
    from gpu.bench.gpu_cache import compared

    X = np.random.default_rng(0).random((5, 16, 8))
    figures = compared(X, torch.from_numpy(X), 0.1, 2)  # off the GPU the twin stands in for the kernel
    assert set(figures["seconds"]) == {"fused kernel", "cupy libraries", "torch.linalg"}
    assert min(figures["speedup_over_torch"].values()) > 0
    assert figures["difference"] < 1e-6
    with pytest.raises(UsageError, match="5 of the kernel matrices"):
        compared(X, torch.from_numpy(X), 1e-12, 1)


@pytest.mark.gpu
def test_the_cache_bench_of_a_gpu_names_device_versions_and_commit():
    pytest.importorskip("cupy")
    code, output = command(
        *[
            "bench",
            "cache",
            "--device",
            "cuda",
            "--n",
            "330",
            "--d",
            "8",
            "--m",
            "32",
            "--gamma",
            "0.1",
            "--repeats",
            "2",
            "--json",
        ]
    )
    figures = json.loads(output)
    assert code == 0
    assert {"device", "compute_capability", "commit", "dirty", "machine"} <= set(figures)
    assert {"torch", "cupy", "cuda"} <= set(figures["versions"])


def test_a_result_names_its_commit_where_there_is_git_and_none_where_there_is_not(monkeypatch):
    from gpu.train.provenance import provenance

    found = provenance()
    assert found["commit"] is None or (len(found["commit"]) == 40 and found["dirty"] in (True, False))
    monkeypatch.setitem(os.environ, "PATH", "")
    assert (provenance()["commit"], provenance()["dirty"]) == (None, None)
