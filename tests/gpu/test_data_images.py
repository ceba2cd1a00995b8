"""CIFAR-10 and S-CoV in their own formats: what is read is what was written; what cannot be read is named."""

import re
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gpu.train.data import scans
from gpu.train.errors import DataError
from tests.gpu.data_files import (
    BATCHES,
    load,
    make,
    pack,
    png,
    write_cifar10,
    write_scans,
)


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
