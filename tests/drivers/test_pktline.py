"""Packet lines: every byte in its place, however the pipe cuts them up."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import FileIO

import pytest

from git_theta.drivers.pktline import MAX_DATA_BYTES, PacketReader, PacketWriter
from git_theta.errors import RepositoryError
from tests.checkpoints import noise

Run = bytes | memoryview


class Pipe:
    """A pipe, whose ends can be closed again and again."""

    def __init__(self) -> None:
        source, target = os.pipe()
        self.source, self.target = FileIO(source, "r"), FileIO(target, "w")

    def close(self) -> None:
        self.source.close()
        self.target.close()

    def reader(self, *runs: bytes) -> PacketReader:
        """A reader of what another thread writes, run by run, and then the end of the stream."""

        def feed() -> None:
            with self.target as target, suppress(OSError, ValueError):  # a reader may refuse, and the test end
                for run in runs:
                    view = memoryview(run)
                    while view:
                        view = view[target.write(view) :]

        threading.Thread(target=feed, daemon=True).start()
        return PacketReader(self.source.fileno())

    def written(self, *runs: Run) -> bytes:
        """What a writer makes of content, read by another thread while it is written."""
        with ThreadPoolExecutor(1) as pool:
            got = pool.submit(self.source.readall)
            PacketWriter(self.target.fileno()).content(runs)
            self.target.close()
            return got.result()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe, closed afterwards."""
    made = Pipe()
    yield made
    made.close()


@pytest.mark.parametrize("step", [1, 3, 4, 5, 65519, 65520, 65521, 10**6], ids=lambda step: f"reads of {step}")
def test_packets_are_put_together_from_any_reads(pipe: Pipe, step: int) -> None:
    longest = noise(MAX_DATA_BYTES, 1)
    stream = b"0005a" + b"0004" + b"fff0" + longest + b"0000" + b"0007b\nc" + b"0000"
    reader = pipe.reader(*(stream[start : start + step] for start in range(0, len(stream), step)))
    assert [bytes(data) for data in reader.packets()] == [b"a", b"", longest]
    assert [bytes(data) for data in reader.packets()] == [b"b\nc"]
    with pytest.raises(EOFError):
        reader.packet()


def test_hex_digits_of_either_case_are_read(pipe: Pipe) -> None:
    reader = pipe.reader(b"000E", b"0123456789", b"000a", b"abcdef", b"0000")
    assert [bytes(data) for data in reader.packets()] == [b"0123456789", b"abcdef"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"key=value\n", "key=value"),
        (b"key=value", "key=value"),
        (b"pathname=ends in a newline\n\n", "pathname=ends in a newline\n"),
        (b"pathname=\xff\xfe\n", os.fsdecode(b"pathname=\xff\xfe")),
        ("pathname=модель\n".encode(), os.fsdecode("pathname=модель".encode())),
        (b"\n", ""),
    ],
    ids=["newline", "no newline", "two newlines", "no text", "utf-8", "empty"],
)
def test_a_line_loses_one_newline_and_nothing_else(pipe: Pipe, line: bytes, text: str) -> None:
    assert pipe.reader(b"%04x%s0000" % (len(line) + 4, line)).lines() == [text]


@pytest.mark.parametrize(
    "stream", [b"", b"00", b"0006", b"0006a", b"0005a"], ids=lambda stream: stream.decode() or "nothing"
)
def test_the_end_of_the_stream_is_never_taken_for_a_flush(pipe: Pipe, stream: bytes) -> None:
    with pytest.raises(EOFError):
        list(pipe.reader(stream).packets())


@pytest.mark.parametrize(
    "head", [b"0001", b"0002", b"0003", b"fff1", b"ffff", b"hell", b"-004", b"\0\0\0\0", b"\xff\xff\xff\xff"], ids=repr
)
def test_what_is_no_packet_is_refused_before_anything_is_allocated_for_it(pipe: Pipe, head: bytes) -> None:
    with pytest.raises(RepositoryError, match=r"^[ -~]+$"):
        pipe.reader(head, noise(70000)).packet()


@pytest.mark.parametrize(
    "size", [0, 1, MAX_DATA_BYTES - 1, MAX_DATA_BYTES, MAX_DATA_BYTES + 1, 2 * MAX_DATA_BYTES, 40 * 2**20], ids=str
)
def test_content_is_cut_into_full_packets(pipe: Pipe, size: int) -> None:
    content = noise(2**20) * (size // 2**20) + noise(size % 2**20, 2)
    cuts = [content[start : start + MAX_DATA_BYTES] for start in range(0, size, MAX_DATA_BYTES)]
    assert pipe.written(content) == b"".join(b"%04x%s" % (len(cut) + 4, cut) for cut in cuts)


def test_runs_of_any_kind_are_written_and_empty_ones_are_no_flush(pipe: Pipe) -> None:
    runs: list[Run] = [b"", b"one", memoryview(b""), memoryview(bytearray(b"two")), b""]
    assert pipe.written(*runs) == b"0007one0007two"


def test_lines_end_with_a_newline_and_a_flush(pipe: Pipe) -> None:
    PacketWriter(pipe.target.fileno()).lines(["status=success", "pathname=ж"])
    PacketWriter(pipe.target.fileno()).lines([])
    PacketWriter(pipe.target.fileno()).flush()
    line = "pathname=ж\n".encode()
    assert (
        os.read(pipe.source.fileno(), 100)
        == b"0013status=success\n" + b"%04x%s" % (len(line) + 4, line) + b"0000" + b"00000000"
    )


def test_what_is_written_is_read_again(pipe: Pipe) -> None:
    content = [noise(size, size) for size in (1, 65515, 65516, 65517, 200_000)]
    stream = pipe.written(*content)
    back = Pipe()
    assert b"".join(map(bytes, back.reader(stream, b"0000").packets())) == b"".join(content)
    back.close()
