"""Files of every format: their numbers of instances; what is missing, no file, too large or too many is named."""

import bz2
import gzip
import os
import re
import tarfile
import time
from pathlib import Path

import pytest

from gpu.train import data
from gpu.train.data import files
from gpu.train.data.table1 import counts
from gpu.train.errors import DataError
from tests.gpu.data_files import COUNTS, LOADERS, REVIEWS, load, make, place, write_reviews

ALL = (*LOADERS, "cifar10.tar.gz", "imdb.tar.gz")


@pytest.mark.parametrize("name", ALL)
def test_another_number_of_instances_than_the_paper_s_is_an_error_that_says_both(tmp_path, name):
    make(name, tmp_path)
    name = name.partition(".")[0]
    for part, number in COUNTS[name].items():
        need = {**COUNTS[name], part: number + 2}
        with pytest.raises(DataError) as caught:
            LOADERS[name](tmp_path, scaling="none", counts=need)
        both = {part: str(n) for part, n in need.items()}
        assert re.search(r"expected \d+ instances \(\w+\), as in the paper's Table 1, got \d+", str(caught.value))
        assert both[part] in str(caught.value) or name == "s-cov"  # where the rest is for training


def test_the_loaders_hold_data_to_table_1(tmp_path):
    assert counts()["cov-tw"] == {"train": 7000, "valid": 1000, "test": 2000}
    assert counts()["mnist"] == {"train": 60000, "test": 10000}
    assert set(counts()) == {*LOADERS, "mnist", "usps"}
    for name in ("usps", "usps.t"):
        (tmp_path / name).write_text("1 1:0.5\n2 1:1\n")
    make("cifar10", tmp_path)
    make("s-cov", tmp_path)
    make("cov-tw", tmp_path)
    write_reviews(tmp_path, REVIEWS)
    sizes = {"usps": "7291", "cifar10": "50000", "s-cov": "2000", "cov-tw": "7000", "imdb": "25000"}
    for name, expected in sizes.items():
        with pytest.raises(DataError, match=rf"expected {expected} instances \(train\).*got"):
            data.load(name, tmp_path)


@pytest.mark.parametrize("name", LOADERS)
def test_missing_folders_and_files_are_named_with_what_to_put_there_and_from_where(tmp_path, name):
    with pytest.raises(DataError, match=r"--data-dir\).*https://"):
        data.load(name)
    with pytest.raises(DataError, match=r"nowhere: .*https://.*no folder"):
        data.load(name, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no such (file|folder); expected .*https://"):
        data.load(name, tmp_path)
    make(name, tmp_path)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file() and name != "s-cov"):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(DataError):
            load(name, tmp_path)
        path.write_bytes(content)
    load(name, tmp_path)


@pytest.mark.parametrize("name", [*ALL, "made"])
def test_a_folder_a_pipe_and_a_device_in_place_of_a_file_are_named_and_nothing_hangs(tmp_path, name):
    read = place(name, tmp_path)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file() and "emptied" not in path.parts):
        content = path.read_bytes()
        for put in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
            path.unlink()
            put(path)
            with pytest.raises(DataError, match=rf"{re.escape(path.name)}: this is a "):
                read(tmp_path)
            if path.is_dir():
                path.rmdir()
                path.touch()
        path.unlink()
        path.write_bytes(content)


@pytest.mark.parametrize("name", [*ALL, "made"])
def test_what_memory_cannot_hold_is_refused_before_it_is_read(tmp_path, monkeypatch, name):
    read = place(name, tmp_path)
    read(tmp_path)
    large = max((path for path in tmp_path.rglob("*") if path.suffix != ".txt" or name == "imdb"), key=size)
    monkeypatch.setattr(files, "MEMORY", size(large) // 2)
    with pytest.raises(DataError, match=r"memory|too many"):
        read(tmp_path)


def size(path: Path) -> int:
    return path.stat().st_size if path.is_file() and not path.name.startswith("glove") else 0


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("name", ["made", "cifar10.tar.gz", "imdb.tar.gz"])
def test_a_packed_file_that_unpacks_to_more_than_memory_is_refused_in_time(tmp_path, monkeypatch, name, wanted):
    read = place(name, tmp_path)
    if name == "made":
        path = tmp_path / ("made.bz2" if wanted else "made.gz")
        (tmp_path / "made").rename(path)
        bomb = bz2.compress(bytes(2**26)) if wanted else gzip.compress(b"1 1:1\n" * 2**20)
    else:
        (path,) = tmp_path.glob("*.tar.gz")
        names = {"cifar10.tar.gz": "cifar-10-batches-bin/data_batch_1.bin", "imdb.tar.gz": "aclImdb/train/pos/0_9.txt"}
        member = tarfile.TarInfo(names[name] if wanted else "notes")
        member.size = 2**23
        bomb = gzip.compress((member.tobuf() + bytes(member.size)) * (1 if wanted else 8))
    path.write_bytes(bomb)
    assert path.stat().st_size < 2**17
    monkeypatch.setattr(files, "MEMORY", 2**24)
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"GiB of memory"):
        read(tmp_path)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("name", ["cifar10.tar.gz", "imdb.tar.gz"])
def test_an_archive_in_which_a_file_claims_to_be_without_end_is_named_and_nothing_hangs(tmp_path, name):
    read = place(name, tmp_path)
    (path,) = tmp_path.glob("*.tar.gz")
    member = tarfile.TarInfo("notes")
    member.size = 2**50
    path.write_bytes(gzip.compress(member.tobuf() + gzip.decompress(path.read_bytes())))
    with pytest.raises(DataError, match=r"notes: 1125899906842624 bytes"):
        read(tmp_path)
