"""Files that may be anything: only regular ones are opened, none that memory cannot hold, and errors name them.

A packed file may be small and hold more than any memory: what it unpacks to is counted while it is read.
"""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from rich.console import Console
from rich.progress import track

from gpu.train.errors import DataError

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
OPENERS: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".gz": gzip.open}
UNREADABLE = (OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError, tarfile.TarError)

Item = TypeVar("Item")


def require_folder(folder: Path | None, name: str, put: str) -> Path:
    """The data folder; DataError, which says what to put there, where there is none."""
    if folder is None:
        raise DataError(f"data {name!r}: expected a data folder (--data-dir) with {put}")
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the folder of {put}, but this is no folder")
    return folder


def require_file(path: Path, put: str) -> Path:
    """The path of a regular file that is not empty. Folders, and pipes and devices, which may have no end, are none."""
    if not path.exists():
        raise DataError(f"{path}: no such file; expected {put}")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise DataError(f"{path}: this is {kind}; expected {put}")
    if not path.stat().st_size:
        raise DataError(f"{path}: an empty file; expected {put}")
    return path


def require_room(what: object, size: int, per_byte: int = 1) -> None:
    """DataError where `size` bytes of a file, each of which takes `per_byte` bytes to be read, are more than memory."""
    if size > MEMORY // per_byte:
        raise DataError(
            f"{what}: {size} bytes or more need {size * per_byte / 2**30:.1f} GiB of memory to be read, and this "
            f"machine has {MEMORY / 2**30:.1f} GiB"
        )


class Bounded(io.RawIOBase):
    """A stream that ends with a DataError once more has been read of it than memory can hold."""

    def __init__(self, stream: BinaryIO, path: Path, per_byte: int) -> None:
        self.stream, self.path, self.per_byte, self.size = stream, path, per_byte, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self.stream.read(len(buffer))
        self.size += len(part)
        require_room(self.path, self.size, self.per_byte)
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self.stream.close()
        super().close()


def unpacked(path: Path, per_byte: int) -> io.BufferedReader:
    """The file, unpacked if its name ends in .bz2 or .gz, each byte of which takes `per_byte` bytes to be read."""
    return io.BufferedReader(Bounded(OPENERS.get(path.suffix, open)(path, "rb"), path, per_byte), 2**16)


def members(path: Path, wanted: Callable[[str], bool], per_byte: int, put: str) -> Iterator[tuple[str, bytes]]:
    """The wanted files of an archive .tar.gz: (name, content). Nothing is written to disk.

    A byte of the wanted files takes `per_byte` bytes to be read, one of the others none that stays. Read to its end,
    where gzip's checksum stands: a bit turned over anywhere is an error, though perhaps the last thing that happens.
    Raises DataError.
    """
    try:
        with unpacked(path, 1) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                size = 0
                for member in archive:
                    require_room(f"{path}: {member.name}", member.size)  # tarfile would skip it past the archive's end
                    if member.isreg() and wanted(member.name):
                        size += member.size
                        require_room(f"{path}: {member.name}", size, per_byte)
                        content = archive.extractfile(member)
                        assert content is not None  # of a regular file it never is
                        yield member.name, content.read()
            while stream.read(2**20):
                pass
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{path}: not a whole archive ({error or type(error).__name__}); expected {put}") from error


def decoded(line: bytes, where: str) -> str:
    """UTF-8; DataError at `where`."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: expected text in UTF-8, got the byte {line[error.start]:#04x}") from error


def tracked(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, with a bar on a terminal."""
    console = Console(stderr=True)
    disable = not console.is_terminal
    yield from track(items, what, total=total, console=console, transient=True, disable=disable)
