"""S-CoV: the SARS-CoV-2 CT-scan set (Soares et al., 2020), two folders of images of any size.

An image is read as RGB, an alpha channel dropped, and resized to 32 × 32 by Pillow's bilinear filter.

The paper does not say how it split the images into 2,000 and 482. Here a class's images are ordered by the SHA-256 of
their file names, and the first of them are for testing, of both classes in proportion. The set's own paper counts
1,252 + 1,230 images, but the files that are given out are 1,252 + 1,229: so one may be missing, of those to train on.
"""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gpu.train.data import files
from gpu.train.data.build import images
from gpu.train.data.dataset import Dataset
from gpu.train.data.table1 import Counts, require_counts
from gpu.train.errors import DataError

FOLDER, CLASSES = "s-cov", ("COVID", "non-COVID")
PUT = (
    f"the folders {FOLDER}/{CLASSES[0]} and {FOLDER}/{CLASSES[1]} of .png or .jpg files; "
    "https://www.kaggle.com/datasets/plameneduardo/sarscov2-ctscan-dataset (needs an account there)"
)
ENDINGS, FORMATS = (".png", ".jpg", ".jpeg"), ("PNG", "JPEG")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # 8 bits a channel: what Pillow takes to RGB as it is
SIDE = 32


def load(folder: Path | None, *, scaling: str, counts: Counts) -> Dataset:
    """Raises DataError, naming the file."""
    folder = files.require_folder(folder, "s-cov", PUT)
    classes = [_files(folder / FOLDER / name) for name in CLASSES]
    total, tested = sum(map(len, classes)), counts["test"]
    if total - tested != counts["train"] - 1:
        require_counts(folder / FOLDER, counts, train=total - tested)
    parts = _split(classes, tested)
    _require_pillow()
    paths = files.tracked([path for part in parts for path, _ in part], "reading images", total)
    pixels = {path: _pixels(path) for path in paths}
    train, test = (
        (np.stack([pixels[path] for path, _ in part]), np.array([label for _, label in part])) for part in parts
    )
    return images("s-cov", train, test, scaling, len(CLASSES))


def _files(folder: Path) -> list[Path]:
    """The images of a class, in the order that the split goes by."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected {PUT}")
    paths = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS]
    if not paths:
        raise DataError(f"{folder}: holds no images; expected {PUT}")
    return sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest())


def _split(classes: list[list[Path]], tested: int) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Paths and labels for training and for testing; `tested` of them, of each of the two classes its share."""
    first = round(tested * len(classes[0]) / sum(map(len, classes)))
    train, test = [], []
    for label, (paths, share) in enumerate(zip(classes, (first, tested - first), strict=True)):
        if not 0 < share < len(paths):
            raise DataError(f"{paths[0].parent}: {share} of its {len(paths)} images are to be for testing; add images")
        test += [(path, label) for path in paths[:share]]
        train += [(path, label) for path in paths[share:]]
    return train, test


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise DataError("s-cov: reading images needs Pillow; python -m pip install 'kernel-sgd[images]'") from error


def _pixels(path: Path) -> np.ndarray:
    """An image as bytes (3, 32, 32)."""
    from PIL import Image

    files.require_file(path, "an image; get it again")
    files.require_room(path, path.stat().st_size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                image.verify()  # a PNG's checksums, which reading it would not look at
            with Image.open(path, formats=FORMATS) as image:
                return _resized(image)
    except Exception as error:  # decoders raise whatever they stumble over
        raise DataError(f"{path}: not a readable image ({error or type(error).__name__}); get it again") from error


def _resized(image: Any) -> np.ndarray:
    from PIL import Image

    if image.mode not in MODES:
        raise ValueError(f"expected 8 bits a channel, grey or RGB, got Pillow's mode {image.mode}")
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1)
