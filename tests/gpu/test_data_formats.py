"""The paper's data sets in their own formats: what is read is what was written; what cannot be read is named."""

import bz2
import gzip
import os
import re
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gpu.train import data
from gpu.train.data import Dataset, files, scans, tweets, vectors
from gpu.train.data.table1 import counts
from gpu.train.errors import DataError
from tests.gpu.data_files import (
    BATCHES,
    COUNTS,
    LOADERS,
    REVIEWS,
    TWEETS,
    WORDS,
    load,
    make,
    pack,
    png,
    write_cifar10,
    write_reviews,
    write_scans,
    write_tweets,
    write_vectors,
)

ALL = (*LOADERS, "cifar10.tar.gz", "imdb.tar.gz")
EPS = torch.finfo(torch.float32).eps

TEXT = st.text(st.sampled_from("the good bad\u00e9\u00c97n_,!\u00a0\U0001f600X"), max_size=30)
LABEL = st.sampled_from(["INFORMATIVE", "UNINFORMATIVE"])


def words_of(text: str) -> list[str]:
    """The rule of tokens, character by character: letters and digits stick together, other characters stand alone."""
    words, open_word = [], False
    for character in text.lower().replace("<br />", " "):
        part_of_word = character.isalnum() or character == "_"
        if part_of_word and open_word:
            words[-1] += character
        elif not character.isspace():
            words.append(character)
        open_word = part_of_word
    return words


def spoken(text: str, numbers: dict[str, list[str]], length: int) -> list[tuple[float, ...]]:
    """The vectors of a text's words, as far as they have any, up to `length`."""
    known = [word for word in words_of(text) if word in numbers]
    return [tuple(float(np.float32(float(number))) for number in numbers[word]) for word in known[:length]]


def heard(made: Dataset, X: torch.Tensor) -> list[list[tuple[float, ...]]]:
    """The same, of a data set; words stand at the beginning of their rows."""
    assert made.vectors is not None
    assert not made.vectors[0].any()
    assert all((row != 0).int().diff().le(0).all() for row in X)
    return [[tuple(made.vectors[k].tolist()) for k in row if k] for row in X]


def assert_text(made: Dataset, parts: dict[str, list[tuple[str, str]]], numbers: dict[str, list[str]]) -> None:
    """The data set holds the texts and labels of `parts`, and the kernel sees the mean vector of each."""
    for part, (X, y) in {
        "train": (made.X_train, made.y_train),
        "valid": (made.X_valid, made.y_valid),
        "test": (made.X_test, made.y_test),
    }.items():
        if part in parts:
            assert heard(made, X) == [spoken(text, numbers, X.shape[1]) for text, _ in parts[part]]
            assert [made.classes[k] for k in y] == [label for _, label in parts[part]]
        else:
            assert X is None
    means = [np.mean(vs, 0) if vs else np.zeros(made.features) for vs in heard(made, made.X_train)]
    np.testing.assert_allclose(made.kernel_train.numpy(), np.array(means), rtol=4 * EPS, atol=4 * EPS)


def test_cifar10_is_read_as_it_was_written_from_its_folder_and_from_its_archive(tmp_path):
    batches = write_cifar10(tmp_path)
    labels, pixels = (np.concatenate([batches[name][k] for name in BATCHES[:5]]) for k in (0, 1))
    for again in (False, True):
        made = load("cifar10", tmp_path)
        assert (made.X_train.dtype, made.X_train.shape) == (torch.float32, (10, 3, 32, 32))
        assert (made.X_train.numpy() == pixels).all()
        assert (made.X_test.numpy() == batches[BATCHES[5]][1]).all()
        assert made.y_train.tolist() == labels.tolist()
        assert made.y_test.tolist() == batches[BATCHES[5]][0].tolist()
        assert (made.classes, made.kernel_train, made.features) == (tuple(range(10)), None, 3072)
        if not again:
            pack(tmp_path, "cifar-10-batches-bin", "cifar-10-binary.tar.gz")


def test_scans_are_read_as_they_were_written_each_once_with_the_label_of_its_folder(tmp_path):
    images = write_scans(tmp_path)
    made = load("s-cov", tmp_path)
    pixels, labels = torch.cat([made.X_train, made.X_test]).numpy(), torch.cat([made.y_train, made.y_test])
    read = [(image.astype(int).tolist(), int(label)) for image, label in zip(pixels, labels, strict=True)]
    written = [(image.tolist(), int(name.startswith("non"))) for name, image in images.items()]
    assert sorted(read) == sorted(written)


@given(covid=st.integers(4, 12), other=st.integers(4, 12), tested=st.integers(2, 5), missing=st.integers(0, 2))
def test_scans_are_split_class_by_class_always_alike_and_at_most_one_may_be_missing(
    tmp_path_factory, covid, other, tested, missing
):
    folder = tmp_path_factory.mktemp("data")
    write_scans(folder, covid=covid, other=other)
    need = {"train": covid + other - tested + missing, "test": tested}
    if missing > 1:
        with pytest.raises(DataError, match=rf"s-cov: expected {need['train']} .*, got {need['train'] - missing}"):
            scans.load(folder, scaling="none", counts=need)
        return
    first = scans.load(folder, scaling="none", counts=need)
    of_each = torch.bincount(first.y_test, minlength=2).double()
    assert of_each.sum() == tested
    assert (of_each - tested * torch.tensor([covid, other]) / (covid + other)).abs().max() <= 0.5
    shutil.copytree(folder, folder / "copy")
    assert scans.load(folder / "copy", scaling="none", counts=need).fingerprint() == first.fingerprint()


def test_scans_may_be_grey_have_an_alpha_channel_another_size_or_be_jpeg(tmp_path):
    write_scans(tmp_path)
    folder = tmp_path / "s-cov" / "COVID"
    for path in folder.iterdir():
        path.unlink()
    (folder / "a.png").write_bytes(png(np.full((50, 20, 1), 7)))
    (folder / "b.PNG").write_bytes(png(np.full((32, 32, 4), [1, 2, 3, 0])))
    Image.new("RGB", (40, 40), (90, 90, 90)).save(folder / "c.jpeg", quality=100)
    half = np.zeros((64, 64, 3))
    half[:32] = 200
    (folder / "d.png").write_bytes(png(half))
    made = load("s-cov", tmp_path)
    X = torch.cat([made.X_train, made.X_test])[torch.cat([made.y_train, made.y_test]) == 0]
    by_pixel = {tuple(image[:, 0, 0].tolist()): image for image in X}
    assert set(by_pixel) == {(7, 7, 7), (1, 2, 3), (90, 90, 90), (200, 200, 200)}
    for pixel in ((7, 7, 7), (1, 2, 3), (90, 90, 90)):
        assert (by_pixel[pixel] == torch.tensor(pixel)[:, None, None]).all()
    rows = by_pixel[200, 200, 200][0, :, 0]
    assert (rows[:15] == 200).all()
    assert (rows[17:] == 0).all()


def test_a_scan_of_16_bits_or_of_too_many_pixels_is_named_and_not_decoded(tmp_path):
    make("s-cov", tmp_path)
    path = next((tmp_path / "s-cov" / "COVID").iterdir())
    Image.fromarray(np.full((32, 32), 40000, np.uint16)).save(path)
    with pytest.raises(DataError, match=rf"{re.escape(path.name)}: .*8 bits a channel"):
        load("s-cov", tmp_path)
    Image.new("1", (10000, 10000)).save(path)
    with pytest.raises(DataError, match=rf"{re.escape(path.name)}: .*exceeds limit"):
        load("s-cov", tmp_path)


def test_a_png_whose_checksum_is_not_that_of_its_pixels_is_named(tmp_path):
    make("s-cov", tmp_path)
    path = next((tmp_path / "s-cov" / "COVID").iterdir())
    black, white = (png(np.full((32, 32, 3), grey)) for grey in (0, 255))
    path.write_bytes(white[:-16] + black[-16:])  # the checksum of the pixels and the last chunk
    with pytest.raises(DataError, match=rf"{re.escape(path.name)}: not a readable image"):
        load("s-cov", tmp_path)


def test_without_pillow_images_are_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    import sys

    make("s-cov", tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"Pillow.*kernel-sgd\[images\]"):
        load("s-cov", tmp_path)


@given(data=st.data())
def test_tweets_are_read_as_they_were_written_with_the_validation_that_is_given(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("data")
    sizes = {"train": 3, "valid": 2, "test": 2}
    parts = {part: data.draw(st.lists(st.tuples(TEXT, LABEL), min_size=n, max_size=n)) for part, n in sizes.items()}
    parts["train"][0] = "the good", "INFORMATIVE"
    write_tweets(folder, parts)
    numbers = write_vectors(folder)
    assert_text(load("cov-tw", folder), parts, numbers)


@given(data=st.data())
def test_reviews_are_read_as_they_were_written_from_their_folder_and_from_their_archive(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("data")
    texts = {name: data.draw(TEXT.map(lambda text: text + "<br />bad")) for name in REVIEWS}
    write_reviews(folder, texts)
    (folder / "aclImdb" / "README").write_text("not a review")
    (folder / "aclImdb" / "train" / "unsup").mkdir()
    (folder / "aclImdb" / "train" / "unsup" / "0_0.txt").write_text("not labelled")
    numbers = write_vectors(folder)
    in_order = sorted(texts, key=lambda name: [name.split("/")[1], name])
    parts = {
        part: [(texts[name], name.split("/")[1]) for name in in_order if name.startswith(part)]
        for part in ("train", "test")
    }
    first = load("imdb", folder)
    assert_text(first, parts, numbers)
    pack(folder, "aclImdb", "aclImdb_v1.tar.gz")
    assert load("imdb", folder).fingerprint() == first.fingerprint()


def test_a_text_is_cut_to_its_first_words_and_filled_up_at_the_end(tmp_path):
    long = " ".join(["the", "unknown"] + ["good"] * (tweets.LENGTH - 2) + ["bad", "virus", "7"])
    write_tweets(tmp_path, {**TWEETS, "test": [(long, "INFORMATIVE"), ("n 7", "INFORMATIVE")]})
    write_vectors(tmp_path)
    made = load("cov-tw", tmp_path)
    the, good, bad, seven, n = (1 + WORDS.index(word) for word in ("the", "good", "bad", "7", "n"))
    assert made.X_test[0].tolist() == [the] + [good] * (tweets.LENGTH - 2) + [bad]
    assert made.X_test[1].tolist() == [n, seven] + [0] * (tweets.LENGTH - 2)


@given(wanted=st.sets(st.sampled_from([*WORDS, "nowhere"])))
def test_of_a_file_of_word_vectors_the_wanted_words_are_read_in_its_order(tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("data")
    numbers = write_vectors(folder)
    words, rows = vectors.read(vectors.find(folder), wanted)
    assert words == [word for word in WORDS if word in wanted]
    assert rows.dtype == np.float32
    assert rows.tolist() == [[float(np.float32(float(number))) for number in numbers[word]] for word in words]


@pytest.mark.parametrize(
    ("lines", "line", "what"),
    [
        ("the 1 2 3\ngood 1 2\n", 2, "3 numbers, got 2"),
        ("the 1 2 3\ngood 1 2 3 4\n", 2, "3 numbers, got 4"),
        ("400000 3\nthe 1 2 3\n", 2, "1 numbers, got 3"),
        ("the 1 2 3\n\n", 2, "3 numbers, got 0"),
        ("the\n", 1, "got 0"),
        ("x 1 2 3\nthe 1 two 3\n", 2, "3 numbers separated"),
        ("x 1 2 3\nthe 1 nan 3\n", 2, "3 numbers separated"),
        ("x 1 2 3\nthe 1 1_0 3\n", 2, "3 numbers separated"),
        ("x 1 2 3\nthe 1  3\n", 2, "3 numbers separated"),
        ("x 1 2 3\nthe 1 1e39 3\n", 2, "float32"),
        ("the 1 2 3\nx 1 2 3\nthe 1 2 3\n", 3, "'the' was there before, in line 1"),
        ("the 1 2 3\ngood 1 2 3", 2, "cut short"),
        (f"the 1 2 3\n{'x' * 2**21} 1 2 3\n", 2, "longer than"),
    ],
    ids=range(13),
)
def test_word_vectors_that_make_no_sense_are_named_with_their_line(tmp_path, lines, line, what):
    path = tmp_path / "glove.made.txt"
    path.write_text(lines)
    with pytest.raises(DataError, match=rf"glove\.made\.txt, line {line}: .*{what}"):
        vectors.read(path, {"the", "good"})


def test_there_must_be_one_file_of_word_vectors_and_it_must_know_some_of_the_words(tmp_path):
    write_tweets(tmp_path, TWEETS)
    with pytest.raises(DataError, match=r"glove\*\.txt.*glove\.6B\.100d\.txt.*got none"):
        load("cov-tw", tmp_path)
    write_vectors(tmp_path, ["fremd"])
    with pytest.raises(DataError, match="none of the words"):
        load("cov-tw", tmp_path)
    (tmp_path / "glove.other.txt").write_text("the 1 2 3\n")
    with pytest.raises(DataError, match=r"glove\.made\.txt, glove\.other\.txt"):
        load("cov-tw", tmp_path)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("0\tthe\tINFORMATIV", "INFORMATIVE or UNINFORMATIVE"),
        ("0\tthe\tmore\tINFORMATIVE", "separated by tabs"),
        ("0\tINFORMATIVE", "separated by tabs"),
        ("", "separated by tabs"),
        ("0\t\ud800\tINFORMATIVE", "UTF-8"),
    ],
)
@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_line_of_tweets_that_makes_no_sense_is_named(tmp_path, part, line, what):
    make("cov-tw", tmp_path)
    path = tmp_path / "cov-tw" / f"{part}.tsv"
    whole = path.read_text(encoding="utf-8").splitlines()
    path.write_bytes("\n".join([*whole[:2], line, *whole[2:]]).encode(errors="surrogatepass"))
    with pytest.raises(DataError, match=rf"{part}\.tsv, line 3: .*{what}"):
        load("cov-tw", tmp_path)
    path.write_text("\n".join(whole[1:]), encoding="utf-8")
    with pytest.raises(DataError, match=rf"{part}\.tsv, line 1: expected the header"):
        load("cov-tw", tmp_path)
    path.write_text(whole[0] + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"{part}\.tsv: expected tweets, got none"):
        load("cov-tw", tmp_path)


def test_a_record_of_cifar10_that_makes_no_sense_is_named(tmp_path):
    for packed in (False, True):
        folder = tmp_path / str(packed)
        write_cifar10(folder, records=3)
        path = folder / "cifar-10-batches-bin" / BATCHES[2]
        content = bytearray(path.read_bytes())
        content[3073] = 10
        path.write_bytes(content)
        if packed:
            pack(folder, "cifar-10-batches-bin", "cifar-10-binary.tar.gz")
        with pytest.raises(DataError, match=r"data_batch_3\.bin, record 2: the label is 10, expected 0 to 9"):
            load("cifar10", folder)
    folder = tmp_path / "cut"
    write_cifar10(folder)
    path = folder / "cifar-10-batches-bin" / BATCHES[5]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_batch\.bin, record 2: has 3072 bytes of 3073"):
        load("cifar10", folder)


def test_a_review_that_is_no_text_is_named(tmp_path):
    make("imdb", tmp_path)
    path = tmp_path / "aclImdb" / "train" / "pos" / "0_9.txt"
    path.write_bytes(b"good \xff film")
    with pytest.raises(DataError, match=r"train/pos/0_9\.txt: expected text in UTF-8, got the byte 0xff"):
        load("imdb", tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"train/pos/0_9\.txt: this is a folder"):
        load("imdb", tmp_path)
    path.rmdir()
    path.write_text("")
    pack(tmp_path, "aclImdb", "aclImdb_v1.tar.gz")
    with pytest.raises(DataError, match=r"aclImdb_v1\.tar\.gz: aclImdb/train/pos/0_9\.txt: an empty file"):
        load("imdb", tmp_path)


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


def place(name: str, folder: Path) -> Callable[[Path], Dataset]:
    """Write a small set of that name, LIBSVM files or one of `make`'s, and say how it is read."""
    if name.partition(".")[0] != "made":
        make(name, folder)
        return lambda folder: load(name, folder)
    content, packed = b"1 1:0.5 2:0.25\n2 1:-1 3:0.75\n1 2:33.5\n", name == "made.bz2"
    for file in ("made", "made.t"):
        (folder / f"{file}{'.bz2' * packed}").write_bytes(bz2.compress(content) if packed else content)
    return lambda folder: data.load("made", folder, scaling="none")


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


# What files say, read once more and in another way; an exception where they say nothing.


def said_of_cifar10(folder: Path) -> Any:
    said = []
    for name in BATCHES:
        content = (folder / "cifar-10-batches-bin" / name).read_bytes()
        said += [
            (content[start], [int(byte) for byte in content[start + 1 : start + 3073]])
            for start in range(0, len(content), 3073)
        ]
    return said


def found_in_images(made: Dataset) -> Any:
    pixels = torch.cat([made.X_train, made.X_test]).int().flatten(1).tolist()
    return list(zip(torch.cat([made.y_train, made.y_test]).tolist(), pixels, strict=True))


def said_of_scans(folder: Path) -> Any:
    said = []
    for label, place in enumerate(("COVID", "non-COVID")):
        for path in (folder / "s-cov" / place).iterdir():
            with Image.open(path) as image:
                small = image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
            said.append((label, np.moveaxis(np.array(small), 2, 0).ravel().tolist()))
    return sorted(said)


def numbers_of(folder: Path) -> dict[str, list[str]]:
    (path,) = folder.glob("glove*.txt")
    table: dict[str, list[str]] = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        word, *numbers = line.split(b" ")
        try:
            table[word.decode()] = [number.decode() for number in numbers]
        except UnicodeDecodeError:
            continue
    return table


def said_of_tweets(folder: Path) -> Any:
    said = []
    for part in ("train", "valid", "test"):
        content = (folder / "cov-tw" / f"{part}.tsv").read_bytes().decode()
        lines = re.findall(r"[^\t\n]*\t([^\t\n]*)\t((?:UN)?INFORMATIVE)\r*(?:\n|\Z)", content)
        said.append([(spoken(text, numbers_of(folder), 64), label) for text, label in lines])
    return said


def said_of_reviews(folder: Path) -> Any:
    said = []
    for part in ("train", "test"):
        paths = sorted(path for path in (folder / "aclImdb" / part).glob("*/*.txt"))
        said.append([(spoken(path.read_bytes().decode(), numbers_of(folder), 256), path.parent.name) for path in paths])
    return said


def found_in_texts(made: Dataset) -> Any:
    parts = [(made.X_train, made.y_train), (made.X_valid, made.y_valid), (made.X_test, made.y_test)]
    return [list(zip(heard(made, X), [made.classes[k] for k in y], strict=True)) for X, y in parts if X is not None]


def said_of_libsvm(folder: Path) -> Any:
    said, first = [], 1
    for path in sorted(folder.glob("made*"), key=lambda path: ".t" in path.name):
        rows = []
        content = path.read_bytes()
        content = bz2.decompress(content) if path.suffix == ".bz2" else content
        for line in content.decode("latin-1").split("\n"):
            label, *entries = line.split("#")[0].split() or [None]
            if label is not None:
                pairs = [entry.split(":") for entry in entries]
                rows.append((float(label), {int(j): float(np.float32(float(x))) for j, x in pairs}))
                first = 0 if rows[-1][1].get(0) is not None else first
        said.append(rows)
    return [[(label, {j - first: x for j, x in row.items() if x}) for label, row in rows] for rows in said]


def found_in_table(made: Dataset) -> Any:
    return [
        [(made.classes[k], {j: x for j, x in enumerate(row.tolist()) if x}) for k, row in zip(y, X, strict=True)]
        for X, y in ((made.X_train, made.y_train), (made.X_test, made.y_test))
    ]


def jpeg(folder: Path) -> None:
    """The scans as JPEG files, which have no checksums."""
    for path in (folder / "s-cov").rglob("*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"))
        path.unlink()


# By format: the set, what is changed in it first, which files are damaged, what they say and what is found. None for
# the first of the last two: they have checksums, and nothing but what was written may be found.
FORMATS: dict[str, tuple[str, Callable[[Path], None] | None, str, Callable[[Path], Any] | None, Callable[..., Any]]] = {
    "cifar10": ("cifar10", None, "cifar-10-batches-bin/*", said_of_cifar10, found_in_images),
    "cifar10 packed": ("cifar10.tar.gz", None, "*.tar.gz", None, found_in_images),
    "scans, PNG": ("s-cov", None, "s-cov/*/*", None, found_in_images),
    "scans, JPEG": ("s-cov", jpeg, "s-cov/*/*", said_of_scans, lambda made: sorted(found_in_images(made))),
    "tweets": ("cov-tw", None, "cov-tw/*", said_of_tweets, found_in_texts),
    "reviews": ("imdb", None, "aclImdb/*/*/*", said_of_reviews, found_in_texts),
    "reviews packed": ("imdb.tar.gz", None, "*.tar.gz", None, found_in_texts),
    "word vectors": ("cov-tw", None, "glove*", said_of_tweets, found_in_texts),
    "LIBSVM": ("made", None, "made*", said_of_libsvm, found_in_table),
    "LIBSVM packed": ("made.bz2", None, "made*", said_of_libsvm, found_in_table),
}
LABELS = (b"UNINFORMATIVE", b"INFORMATIVE", b"9", b"-1", b"one", b"", b"\xff", b"nan")


def damage(path: Path, random: np.random.Generator) -> str:
    """Damage a file: a bit or some, its end, a label, all of it."""
    content = bytearray(path.read_bytes())
    kind = str(random.choice(["bit", "bit", "bits", "cut", "label", "empty", "folder", "other", "twice"]))
    match kind:
        case "bit" | "bits":
            for place in random.integers(len(content), size=1 if kind == "bit" else 5):
                content[place] ^= 1 << int(random.integers(8))
        case "cut":
            del content[int(random.integers(len(content))) :]
        case "label":
            label = LABELS[int(random.integers(len(LABELS)))]
            if path.suffix == ".tsv":
                content = content.replace(b"UNINFORMATIVE", label, 1)
            else:
                content[:1] = label or bytes([int(random.integers(256))])
        case "empty":
            content.clear()
        case "other":
            content = bytearray(random.integers(0, 256, int(random.integers(1, 9000)), dtype=np.uint8).tobytes())
        case "twice":
            content = content * 2
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(content)
    return kind


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_of_a_damaged_file_one_gets_an_error_or_what_it_says_and_never_anything_else(tmp_path, format):
    name, change, pattern, said, found = FORMATS[format]
    whole = tmp_path / "whole"
    whole.mkdir()
    read = place(name, whole)
    if change is not None:
        change(whole)
    original = found(read(whole))
    read_after_all = 0
    for case in range(200):
        random = np.random.default_rng(case)
        folder = tmp_path / str(case)
        shutil.copytree(whole, folder)
        paths = sorted(folder.glob(pattern))
        kind = damage(paths[int(random.integers(len(paths)))], random)
        started = time.perf_counter()
        try:
            made = read(folder)
        except DataError:
            continue
        finally:
            assert time.perf_counter() - started < 10, (case, kind)
        read_after_all += 1
        expected = original if said is None else said(folder)
        assert found(made) == expected, (case, kind)
    assert read_after_all < 200
