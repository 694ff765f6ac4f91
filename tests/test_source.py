"""Sources: bytes at offsets, and files that change while they are read."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from git_theta.errors import ChangedError
from git_theta.source import BytesSource, FileSource, Source
from tests.checkpoints import noise

CONTENT = noise(100_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


@pytest.fixture
def file_source(path: Path) -> Iterator[FileSource]:
    fd = os.open(path, os.O_RDWR)
    yield FileSource(fd, "model.bin")
    os.close(fd)


@pytest.fixture(params=["bytes", "file"])
def source(request: pytest.FixtureRequest, file_source: FileSource) -> Source:
    return BytesSource(CONTENT) if request.param == "bytes" else file_source


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 0), (0, 1), (7, 65_536), (0, 100_000), (99_999, 1), (99_999, 5), (100_000, 1), (10**9, 10)]
)
def test_reads_are_slices(source: Source, offset: int, size: int) -> None:
    assert source.size == len(CONTENT)
    assert source.read(offset, size) == CONTENT[offset : offset + size]


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (3, 70_000), (99_999, 1), (100_000, 0)])
def test_a_buffer_is_filled(source: Source, offset: int, size: int) -> None:
    buffer = bytearray(size)
    source.read_into(offset, memoryview(buffer))
    assert buffer == CONTENT[offset : offset + size]


@pytest.mark.parametrize(("offset", "size"), [(0, 100_001), (99_999, 2), (100_001, 1), (2**60, 1)])
def test_a_buffer_beyond_the_end_is_not_filled(source: Source, offset: int, size: int) -> None:
    with pytest.raises(ChangedError):
        source.read_into(offset, memoryview(bytearray(size)))


def test_threads_read_a_file_without_disturbing_each_other(file_source: FileSource) -> None:
    wrong: list[int] = []

    def read(start: int) -> None:
        offsets = range(start, 90_000, 997)
        wrong.extend(at for at in offsets if file_source.read(at, 1000) != CONTENT[at : at + 1000])

    threads = [threading.Thread(target=read, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _rewrite(path: Path, data: bytes, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # the clock of some file systems is coarse


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.truncate(path, 50_000),
        lambda path: _rewrite(path, b"more", 100_000),
        lambda path: _rewrite(path, b"else", 500),
        lambda path: os.utime(path, ns=(1, 1)),
    ],
    ids=["truncated", "appended", "rewritten", "touched"],
)
def test_a_change_is_noticed(file_source: FileSource, path: Path, change: Callable[[Path], None]) -> None:
    file_source.check_unchanged()
    change(path)
    with pytest.raises(ChangedError, match=r"model\.bin"):
        file_source.check_unchanged()


def test_a_replaced_file_is_read_as_it_was(file_source: FileSource, path: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").replace(path)
    assert file_source.read(0, 200_000) == CONTENT
    file_source.check_unchanged()


def test_a_truncated_file_ends_early_instead_of_killing_the_process(file_source: FileSource, path: Path) -> None:
    os.truncate(path, 50_000)
    assert file_source.read(0, 50_000) == CONTENT[:50_000]
    for read in (
        lambda: file_source.read(49_999, 2),
        lambda: file_source.read_into(0, memoryview(bytearray(100_000))),
    ):
        with pytest.raises(ChangedError, match=r"model\.bin: it became shorter"):
            read()


def test_an_appended_file_is_read_as_long_as_it_was(file_source: FileSource, path: Path) -> None:
    _rewrite(path, b"more", 100_000)
    assert file_source.size == 100_000
    assert file_source.read(0, 200_000) == CONTENT
