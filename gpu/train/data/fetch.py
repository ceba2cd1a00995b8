"""Downloads of what may be downloaded, each held to a checksum that its source or a well-kept library states.

Checksums: cifar10 from its own page; usps from torchvision; imdb from torchtext. Of GloVe's archive the authors state
none: its MD5 is the one that many projects on GitHub check. Data that need a request, an account or for which no
checksum is known are not downloaded: what to put where is said instead.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from gpu.train.data import cifar10, reviews, scans, tweets, vectors
from gpu.train.data.bundled import BUNDLED
from gpu.train.errors import DataError

LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass"


@dataclass(frozen=True)
class Download:
    """One file: `unpack` names the members of a zip archive that are wanted beside it."""

    url: str
    checksum: str
    unpack: tuple[str, ...] = ()


DOWNLOADS: Mapping[str, tuple[Download, ...]] = {
    "usps": (
        Download(f"{LIBSVM}/usps.bz2", "md5:ec16c51db3855ca6c91edd34d0e9b197"),
        Download(f"{LIBSVM}/usps.t.bz2", "md5:8ea070ee2aca1ac39742fdd1ef5ed118"),
    ),
    "cifar10": (
        Download(f"https://www.cs.toronto.edu/~kriz/{cifar10.ARCHIVE}", "md5:c32a1d4ab5d03f1284b67883e8d87530"),
    ),
    "imdb": (
        Download(
            f"https://ai.stanford.edu/~amaas/data/sentiment/{reviews.ARCHIVE}", "md5:7c2ac02c03563afcf9b574c7e56c153a"
        ),
    ),
    "glove": (
        Download(
            "https://nlp.stanford.edu/data/glove.6B.zip",
            "md5:056ea991adb4740ac6bf1b6d9b50408b",
            ("glove.6B.100d.txt",),
        ),
    ),
}
BY_HAND = {
    "mnist": f"mnist.bz2 and mnist.t.bz2; {LIBSVM}/mnist.bz2 and {LIBSVM}/mnist.t.bz2 (no checksum of them is known)",
    "s-cov": scans.PUT,
    "cov-tw": f"{tweets.PUT}; and {vectors.PUT}",
}


def fetch(name: str, folder: Path, downloads: Mapping[str, tuple[Download, ...]] | None = None) -> list[Path]:
    """Download a data set's files into `folder`, those that are there and whole excepted; their paths.

    Raises DataError: for data that cannot be downloaded (it says what to put in the folder, and from where), without
    pooch, for a file of that name that is another one, and for a download that is not what its checksum says, of which
    nothing is left behind. `downloads`: other addresses and checksums than DOWNLOADS.
    """
    downloads = DOWNLOADS if downloads is None else downloads
    if name in BUNDLED:
        raise DataError(f"{name}: bundled, there is nothing to download")
    if name in BY_HAND:
        raise DataError(f"{name}: not downloaded; put into {folder}: {BY_HAND[name]}")
    if name not in downloads:
        raise DataError(f"{name}: expected one of {', '.join((*downloads, *BY_HAND))}")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a data folder (--data-dir), but this is no folder")
    return [path for download in downloads[name] for path in _fetched(download, folder)]


def _fetched(download: Download, folder: Path) -> list[Path]:
    try:
        import pooch  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError("fetch: needs pooch; python -m pip install 'kernel-sgd[fetch]'") from error
    path = folder / download.url.rpartition("/")[2]
    if path.exists() and not (path.is_file() and pooch.hashes.hash_matches(path, download.checksum)):
        raise DataError(f"{path}: is there, but is not what {download.url} should give; move it away")
    pooch.get_logger().setLevel("WARNING")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        downloader = pooch.HTTPDownloader(progressbar=Bar(progress, path.name), chunk_size=2**16)
        try:
            pooch.retrieve(download.url, download.checksum, path.name, folder, downloader=downloader)
        except (ValueError, OSError) as error:  # another checksum; no such address, no network, no room
            raise DataError(f"{path}: not downloaded from {download.url} ({error})") from error
    return [path, *(_unpacked(path, member) for member in download.unpack)]


def _unpacked(archive: Path, member: str) -> Path:
    path = archive.parent / member
    with zipfile.ZipFile(archive) as packed:
        # An interruption leaves a shorter file.
        if not path.exists() or path.stat().st_size != packed.getinfo(member).file_size:
            packed.extract(member, archive.parent)
    return path


class Bar:
    """A bar of rich, told what pooch tells one of tqdm."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._task = progress, progress.add_task(name, total=None)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "total":
            self._progress.update(self._task, total=value)
        super().__setattr__(name, value)

    def update(self, amount: int) -> None:
        self._progress.advance(self._task, amount)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.stop_task(self._task)
