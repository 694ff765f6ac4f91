"""The object store: what is written is whole or not there, and what is read is checked."""

import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from git_theta.config import Settings
from git_theta.errors import DamagedObjectError, MissingObjectError, RepositoryError, SpaceError
from git_theta.manifest import Piece
from git_theta.store import STALE_TEMPORARY_S, Store, reporting_full_disk
from tests.checkpoints import content_of, leftovers, linux_only, noise, objects, opened, safetensors, take, weights

LIMIT = 2**16


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, max_object_bytes=LIMIT, fsync=False)


def _put(store: Store, *runs: bytes) -> tuple[Piece, ...]:
    with store.writer() as writer:
        for run in runs:
            writer.write(run)
        return writer.finish()


def _read(store: Store, *pieces: Piece) -> bytes:
    with store.reader(pieces) as reader:
        return reader.read(0, reader.size)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "sizes",
    [(0,), (1,), (LIMIT - 1,), (LIMIT,), (LIMIT + 1,), (3 * LIMIT,), (5, 0, LIMIT, 7), (LIMIT - 1, 1, 1), (400_000,)],
    ids=str,
)
@pytest.mark.parametrize("fsync", [False, True], ids=["cached", "flushed"])
def test_a_payload_is_cut_into_objects_named_by_their_bytes(
    tmp_path: Path, sizes: tuple[int, ...], fsync: bool
) -> None:
    store = Store(tmp_path, max_object_bytes=LIMIT, fsync=fsync)
    runs = [noise(size, seed) for seed, size in enumerate(sizes)]
    data = b"".join(runs)
    cuts = [data[start : start + LIMIT] for start in range(0, len(data), LIMIT)]
    pieces = _put(store, *runs)
    assert pieces == tuple(Piece(_sha256(cut), len(cut), 0, len(cut)) for cut in cuts)
    for piece, cut in zip(pieces, cuts, strict=True):
        path = tmp_path / "objects" / piece.oid[:2] / piece.oid[2:4] / piece.oid
        assert store.path(piece.oid) == path
        assert path.read_bytes() == cut
        assert not path.stat().st_mode & 0o222
        assert store.has(piece.oid, piece.size)
        assert store.is_intact(piece.oid)
    assert leftovers(tmp_path) == []
    assert _read(store, *pieces) == data


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o444), (0o027, 0o440), (0o077, 0o400)], ids=oct)
def test_an_object_can_only_be_read_by_whom_the_umask_lets(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        store = Store(tmp_path, max_object_bytes=LIMIT, fsync=False)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    [piece] = _put(store, b"data")
    assert stat.S_IMODE(store.path(piece.oid).stat().st_mode) == mode


def test_a_writer_that_is_left_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def fail() -> None:
        with store.writer() as writer:
            writer.write(noise(3 * LIMIT + 5))
            assert writer.size == 3 * LIMIT + 5
            assert len(leftovers(tmp_path)) == 4
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert objects(tmp_path) == {}
    assert leftovers(tmp_path) == []


def test_nothing_has_its_name_before_the_payload_is_finished(store: Store, tmp_path: Path) -> None:
    with store.writer() as writer:
        writer.write(noise(3 * LIMIT))
        assert objects(tmp_path) == {}
        writer.finish()
        assert len(objects(tmp_path)) == 3


def test_equal_payloads_are_one_object_whoever_writes_them(tmp_path: Path) -> None:
    data = noise(LIMIT)
    written: list[tuple[Piece, ...]] = []

    def put() -> None:
        store = Store(tmp_path, max_object_bytes=LIMIT, fsync=False)
        written.extend(_put(store, data) for _ in range(20))

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(written) == {(Piece(_sha256(data), LIMIT, 0, LIMIT),)}
    assert objects(tmp_path) == {_sha256(data): data}
    assert leftovers(tmp_path) == []


def test_writing_an_object_again_mends_it(store: Store) -> None:
    [piece] = _put(store, b"the right bytes")
    path = store.path(piece.oid)
    path.chmod(0o644)
    path.write_bytes(b"the wrong bytes")
    assert store.has(piece.oid, piece.size)
    assert not store.is_intact(piece.oid)
    _put(store, b"the right bytes")
    assert path.read_bytes() == b"the right bytes"


@pytest.mark.parametrize("threads", [1, 4])
def test_damage_is_found_among_whole_objects_of_any_size(tmp_path: Path, threads: int) -> None:
    store = Store(tmp_path, max_object_bytes=2**22, fsync=False, threads=threads)
    sizes = [1, 1000, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 5]
    whole = {piece.oid: piece.size for size in sizes for piece in _put(store, noise(size))}
    victims = [_put(store, noise(2**20 + 7, 1))[0], _put(store, noise(2**21, 2))[0], _put(store, noise(50, 3))[0]]
    end, middle, start = (store.path(victim.oid) for victim in victims)
    for path, offset in ((end, 2**20 + 6), (middle, 2**20), (start, 0)):
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes([path.read_bytes()[offset] ^ 1]))
    read: list[int] = []
    everything = whole | {victim.oid: victim.size for victim in victims} | {"a" * 64: 7}
    assert set(store.damaged(everything, read.append)) == everything.keys() - whole.keys()
    assert sorted(read) == sorted(everything.values())
    assert store.damaged(whole) == []


def test_temporary_files_are_swept_when_they_are_old(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    for name, age_s in [("git-theta-1-old", STALE_TEMPORARY_S + 60), ("git-theta-2-new", 60), ("other", 10**8)]:
        path = folder / name
        path.write_bytes(b"")
        now = path.stat().st_mtime
        os.utime(path, (now - age_s, now - age_s))
    (folder / "git-theta-directory").mkdir()
    os.utime(folder / "git-theta-directory", (1, 1))
    _put(store, b"data")
    assert leftovers(tmp_path) == ["git-theta-2-new", "git-theta-directory", "other"]


PAYLOAD = noise(1000)


@pytest.fixture
def pieces(store: Store) -> tuple[Piece, ...]:
    """Two runs of each of three objects, and an empty one."""
    whole = [_put(store, PAYLOAD[start:end])[0] for start, end in [(0, 400), (400, 401), (401, 1000)]]
    first, middle, last = whole
    return (
        Piece(first.oid, 400, 0, 100),
        Piece(first.oid, 400, 100, 300),
        Piece(middle.oid, 1, 1, 0),
        middle,
        Piece(last.oid, 599, 0, 599),
    )


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 1000), (0, 0), (50, 60), (399, 3), (400, 1), (401, 599), (990, 100), (1000, 5), (2000, 1)]
)
def test_a_payload_of_pieces_is_read_as_one(store: Store, pieces: tuple[Piece, ...], offset: int, size: int) -> None:
    with store.reader(pieces) as reader:
        assert reader.size == 1000
        assert reader.read(offset, size) == PAYLOAD[offset : offset + size]
        assert reader.read(0, 1) == PAYLOAD[:1]
        buffer = bytearray(max(0, min(size, 1000 - offset)))
        reader.read_into(offset, memoryview(buffer))
        assert buffer == PAYLOAD[offset : offset + size]


@pytest.mark.parametrize(("offset", "size"), [(0, 1001), (1000, 1), (5000, 2)])
def test_a_payload_is_not_read_beyond_its_end(store: Store, pieces: tuple[Piece, ...], offset: int, size: int) -> None:
    with store.reader(pieces) as reader, pytest.raises(DamagedObjectError, match="ends at byte 1000"):
        reader.read_into(offset, memoryview(bytearray(size)))


def test_a_missing_object_is_named(store: Store, pieces: tuple[Piece, ...]) -> None:
    oid = pieces[3].oid
    store.path(oid).unlink()
    assert store.missing({piece.oid: piece.size for piece in pieces}) == {oid: 1}
    assert not store.is_intact(oid)
    with store.reader(pieces) as reader:
        assert reader.read(0, 400) == PAYLOAD[:400]
        with pytest.raises(MissingObjectError, match=oid):
            reader.read(0, 1000)


@pytest.mark.parametrize("size", [0, 398, 598, 600, 10_000])
def test_an_object_of_another_size_is_named(store: Store, pieces: tuple[Piece, ...], size: int) -> None:
    oid = pieces[-1].oid
    store.path(oid).chmod(0o644)
    os.truncate(store.path(oid), size)
    assert store.missing({piece.oid: piece.size for piece in pieces}) == {oid: 599}
    with store.reader(pieces) as reader, pytest.raises(DamagedObjectError, match=f"{oid} has {size} bytes"):
        reader.read(500, 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such files here")
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.timeout(60)
def test_an_object_without_an_end_is_no_object(store: Store, kind: str) -> None:
    place = store.path("a" * 64)
    place.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero")
    assert not store.is_intact("a" * 64)
    with store.reader([Piece("a" * 64, 1, 0, 1)]) as reader, pytest.raises((RepositoryError, DamagedObjectError)):
        reader.read(0, 1)


def test_an_object_that_is_a_directory_is_no_object(store: Store) -> None:
    store.path("a" * 64).mkdir(parents=True)
    assert not store.is_intact("a" * 64)
    with store.reader([Piece("a" * 64, 1, 0, 1)]) as reader, pytest.raises((RepositoryError, DamagedObjectError)):
        reader.read(0, 1)


def _owner(call: str) -> object:
    """What holds a call of the operating system: Python 3.10's Path does not look into `os` for its own."""
    return Path if call in ("mkdir", "replace") else os


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "write", "fchmod", "replace", "mkdir"])
def test_a_full_disk_is_reported_wherever_it_strikes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    def write() -> None:
        with store.writer() as writer:
            writer.write(noise(LIMIT + 1))
            monkeypatch.setattr(_owner(call), call, fail)
            writer.write(noise(LIMIT))
            writer.finish()

    with pytest.raises(SpaceError, match="no space left"):
        write()
    monkeypatch.undo()
    assert objects(tmp_path) == {}
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "mkdir"])
def test_a_store_that_cannot_be_written_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_owner(call), call, fail)
    with store.writer() as writer, pytest.raises(RepositoryError, match="cannot be written"):
        writer.write(b"data")


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output"), reporting_full_disk(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@linux_only
def test_a_limit_on_the_size_of_files_leaves_no_half_object(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
from git_theta.errors import SpaceError
from git_theta.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with Store(Path(sys.argv[1]), max_object_bytes=2**30, fsync=True).writer() as writer:
        writer.write(bytes(100_000))
        writer.write(b"1")
        writer.finish()
except SpaceError:
    sys.exit(8)
"""
    assert subprocess.run([sys.executable, "-c", program, tmp_path], check=False).returncode == 8
    assert objects(tmp_path) == {}
    assert leftovers(tmp_path) == []


CONTENT = safetensors(
    {"large": ("F32", [30_000], weights(30_000)), "raw": ("U8", [90_000], noise(90_000)), "small": ("U8", [3], b"abc")}
)
LIMITED = Settings(threads=2, max_object_bytes=LIMIT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("call", ["open", "write", "close", "replace"])
def test_a_process_killed_at_any_call_leaves_no_half_object(tmp_path: Path, call: str) -> None:
    """A process for each call that a `take` makes, which kills itself before, in the middle of or after that call."""
    program = """
import itertools, os, signal, sys
from pathlib import Path
from tests.checkpoints import opened, take
from tests.test_store import CONTENT, LIMITED, _owner
folder, call = Path(sys.argv[1]), sys.argv[2]
real = getattr(_owner(call), call)
last = 0
calls = itertools.count(1)  # several threads call, and each must see a number of its own
def dying(*arguments, **named):
    dies = next(calls) == last
    if dies and call == "write":
        real(arguments[0], arguments[1][: len(arguments[1]) // 2])
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)
for count in range(1, 200):
    child = os.fork()
    if child == 0:
        last = count
        setattr(_owner(call), call, dying)
        with opened(folder / str(count), LIMITED) as depot:
            take(CONTENT, depot)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        sys.exit()
"""
    subprocess.run([sys.executable, "-c", program, tmp_path, call], check=True, cwd=Path(__file__).parents[1])
    folders = list(tmp_path.iterdir())
    assert len(folders) > 3
    for folder in folders:
        assert {name: _sha256(data) for name, data in objects(folder).items()} == {
            name: name for name in objects(folder)
        }
        with opened(folder) as depot:
            assert content_of(take(CONTENT, depot), depot) == CONTENT


def test_removes_an_object_unless_it_has_become_young(store: Store) -> None:
    [piece] = _put(store, b"data")
    os.utime(store.path(piece.oid), (1000, 1000))
    assert not store.remove(piece.oid, 1000)
    assert _read(store, piece) == b"data"
    assert store.remove(piece.oid, 1001)
    assert not store.has(piece.oid, piece.size)
    assert not store.remove(piece.oid, 1001)
    assert leftovers(store.root) == []
