"""Downloads: what the checksum says is kept, anything else is not, and what cannot be downloaded says where it is."""

import hashlib
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpu.__main__ import app
from gpu.train.data import fetch as fetching
from gpu.train.data.bundled import BUNDLED
from gpu.train.data.fetch import BY_HAND, DOWNLOADS, Download, fetch
from gpu.train.data.table1 import counts
from gpu.train.errors import DataError

CONTENT = b"1 1:0.5\n2 1:1\n" * 10_000


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of tmp_path/served over HTTP; what is asked of it is in `Quiet.asked`."""
    (tmp_path / "served").mkdir()
    Quiet.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def checksum(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def test_what_is_downloaded_is_what_was_served_and_is_asked_for_once(tmp_path, server):
    (tmp_path / "served" / "made.bz2").write_bytes(CONTENT)
    downloads = {"made": (Download(f"{server}/made.bz2", checksum(CONTENT)),)}
    for _ in range(2):
        assert fetch("made", tmp_path / "data", downloads) == [tmp_path / "data" / "made.bz2"]
        assert (tmp_path / "data" / "made.bz2").read_bytes() == CONTENT
    assert Quiet.asked == ["/made.bz2"]


def test_of_an_archive_the_wanted_member_lies_beside_it_whole_also_after_an_interruption(tmp_path, server):
    with zipfile.ZipFile(tmp_path / "served" / "glove.zip", "w") as archive:
        archive.writestr("glove.txt", CONTENT)
        archive.writestr("other.txt", b"not wanted")
    packed = (tmp_path / "served" / "glove.zip").read_bytes()
    downloads = {"glove": (Download(f"{server}/glove.zip", checksum(packed), ("glove.txt",)),)}
    paths = [tmp_path / "data" / "glove.zip", tmp_path / "data" / "glove.txt"]
    for _ in range(2):
        assert fetch("glove", tmp_path / "data", downloads) == paths
        assert paths[1].read_bytes() == CONTENT
        assert sorted(tmp_path.joinpath("data").iterdir()) == sorted(paths)
        paths[1].write_bytes(CONTENT[:-1])


def test_what_is_not_what_its_checksum_says_is_named_and_not_kept(tmp_path, server):
    (tmp_path / "served" / "made.bz2").write_bytes(CONTENT + b" ")
    downloads = {"made": (Download(f"{server}/made.bz2", checksum(CONTENT)),)}
    with pytest.raises(DataError, match=r"made\.bz2: not downloaded from http://.*hash"):
        fetch("made", tmp_path / "data", downloads)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_file_that_is_there_and_another_one_is_left_alone_and_named(tmp_path, server):
    (tmp_path / "served" / "made.bz2").write_bytes(CONTENT)
    (tmp_path / "made.bz2").write_bytes(b"mine")
    downloads = {"made": (Download(f"{server}/made.bz2", checksum(CONTENT)),)}
    with pytest.raises(DataError, match=r"made\.bz2: is there, but is not what"):
        fetch("made", tmp_path, downloads)
    assert (tmp_path / "made.bz2").read_bytes() == b"mine"


def test_an_address_that_does_not_answer_is_named(tmp_path, server):
    for url in (f"{server}/nothing.bz2", "http://127.0.0.1:1/made.bz2"):
        with pytest.raises(DataError, match=f"not downloaded from {url}"):
            fetch("made", tmp_path, {"made": (Download(url, checksum(CONTENT)),)})
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file: .*no folder"):
        fetch("usps", tmp_path / "file")


def test_every_data_set_is_downloaded_with_a_checksum_or_says_what_to_put_where_and_from_where(tmp_path):
    assert set(counts()) <= {*DOWNLOADS, *BY_HAND}
    assert set(DOWNLOADS).isdisjoint(BY_HAND)
    for downloads in DOWNLOADS.values():
        for download in downloads:
            kind, _, digits = download.checksum.partition(":")
            assert download.url.startswith("https://")
            assert len(bytes.fromhex(digits)) == hashlib.new(kind).digest_size
    for name in BY_HAND:
        with pytest.raises(DataError, match=rf"{name}: not downloaded; put into {tmp_path}: .*https://"):
            fetch(name, tmp_path)
    for name in BUNDLED:
        with pytest.raises(DataError, match="bundled"):
            fetch(name, tmp_path)
    with pytest.raises(DataError, match="nothing: expected one of usps, cifar10, imdb, glove, mnist, s-cov, cov-tw"):
        fetch("nothing", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_pooch_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError, match=r"pooch.*kernel-sgd\[fetch\]"):
        fetch("usps", tmp_path)


def test_fetch_prints_the_files_it_put_there_and_errors_as_one_line(tmp_path, server, monkeypatch):
    (tmp_path / "served" / "made.bz2").write_bytes(CONTENT)
    made = Download(f"{server}/made.bz2", checksum(CONTENT))
    monkeypatch.setattr(fetching, "DOWNLOADS", {"made": (made,)})
    run = CliRunner().invoke(app, ["fetch", "made", "--data-dir", str(tmp_path / "data")])
    assert (run.exit_code, run.stdout) == (0, f"{tmp_path / 'data' / 'made.bz2'}\n")
    run = CliRunner().invoke(app, ["fetch", "cov-tw", "--data-dir", str(tmp_path / "data")])
    assert run.exit_code == 2
    assert "cov-tw/train.tsv" in run.stderr
