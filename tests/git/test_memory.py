"""Memory: a file of a gigabyte is taken in and given back with a bounded amount of it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from git_theta import manifest
from tests.checkpoints import linux_only, noise
from tests.drivers.filter_client import FilterClient, anonymous_kib
from tests.repositories import Repo

GIB = 2**30
LIMIT_KIB = 256 * 1024
STEP = 65516


@contextmanager
def watched(pid: int) -> Iterator[list[int]]:
    """The most anonymous memory that a process has while the block runs, in KiB, as the last item of a list."""
    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], anonymous_kib(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def sparse(path: Path, kind: str) -> None:
    """A file of a gibibyte that is nearly all holes, with random blocks here and there."""
    rows = 2**14
    tensors: dict[str, object] = {}
    if kind == "safetensors":
        for index in range(7):
            offsets = [index * rows * 8192, (index + 1) * rows * 8192]
            tensors[f"{index}"] = {"dtype": "F32", "shape": [rows, 2048], "data_offsets": offsets}
    with path.open("wb") as file:
        if tensors:
            header = json.dumps(tensors).encode()
            file.write(len(header).to_bytes(8, "little") + header)
        for seed in range(24):
            file.seek(8192 + seed * 37 * 2**20)
            file.write(noise(2**20, seed))
        file.truncate(8 + len(json.dumps(tensors)) + 7 * rows * 8192 if tensors else GIB)


@linux_only
@pytest.mark.parametrize(
    ("kind", "worktree"), [("safetensors", "the file"), ("opaque", "another")], ids=["streamed", "spooled"]
)
def test_a_gigabyte_takes_less_than_256_mib(repo: Repo, kind: str, worktree: str) -> None:
    repo.git("config", "theta.threads", "8")
    path = repo.path / "big.st"
    sparse(path, kind)
    size = path.stat().st_size
    name = "big.st" if worktree == "the file" else "none.st"
    with FilterClient(repo.path) as client, watched(client.process.pid) as peak:
        client.send_lines("command=clean", f"pathname={name}")
        with path.open("rb") as file:
            while block := file.read(STEP):
                client.send(b"%04x" % (len(block) + 4) + block)
        client.send(b"0000")
        reply = client.reply()
        assert reply.status == ["status=success"]
        assert reply.after == []
        assert manifest.parse(reply.content).size == size
        clean_kib, peak[0] = peak[0], 0
        client.send_lines("command=smudge", f"pathname={name}")
        client.send_content(reply.content)
        assert client.lines() == ["status=success"]
        with path.open("rb") as file:
            assert all(block == file.read(len(block)) for block in client.packets())
            assert file.tell() == size
        assert client.lines() == []
        smudge_kib = peak[0]
        assert (client.close(), client.complaints) == (0, "")
    assert 0 < clean_kib < LIMIT_KIB
    assert 0 < smudge_kib < LIMIT_KIB
