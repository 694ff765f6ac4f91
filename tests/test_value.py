"""A value on its way in and out: what is stored is what was hashed, and what comes back is that or an error."""

import os
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from git_theta import recipe, value
from git_theta.choice import store_update
from git_theta.depot import Depot
from git_theta.errors import ChangedError, DamagedObjectError, ManifestError, MissingObjectError
from git_theta.manifest import Piece, Record, Step
from git_theta.source import BytesSource
from git_theta.store import PayloadReader
from git_theta.tensor import Tensor
from git_theta.updates.dense import DENSE
from git_theta.updates.ia3 import Ia3, Multipliers
from git_theta.updates.sparse import SPARSE
from git_theta.updates.stream import Memo, Stream
from git_theta.value import BUFFERED_BYTES, Shared, SourceValue
from tests.checkpoints import brain_weights, changed, leftovers, noise, objects, opened, put, record, trained, weights

MIB = 2**20


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    with opened(tmp_path) as depot:
        yield depot


def _value(data: bytes, dtype: str = "F32") -> SourceValue:
    """The value in the middle of a source."""
    return SourceValue(BytesSource(b"before" + data + b"behind"), 6, len(data), dtype, (len(data) // 4,))


def _bytes(record: Record, depot: Depot) -> bytes:
    return b"".join(value.runs(record, depot.store))


@pytest.mark.parametrize("compress", [True, False], ids=["coded", "raw"])
@pytest.mark.parametrize(
    "data",
    [b"", b"a", noise(4097), weights(50_000), noise(3 * MIB + 1), weights(BUFFERED_BYTES // 4), weights(5 * MIB)],
    ids=["nothing", "byte", "small", "weights", "noise", "16 MiB", "above 16 MiB"],
)
def test_a_value_comes_back(depot: Depot, data: bytes, compress: bool) -> None:
    digest, held = value.digest_of(_value(data))
    assert digest == blake3(data).hexdigest()
    assert held.size == len(data)
    assert (held.read(5, 7), held.read(max(0, len(data) - 3), 9)) == (data[5:12], data[-3:])
    steps = value.store_value(held, digest, depot.store, compress=compress)
    made = Record("F32", (len(data) // 4,), len(data), digest, steps)
    assert _bytes(made, depot) == data
    assert [step.update for step in steps] == ["dense"]
    assert (steps[0].size < len(data)) == (compress and data[:4] == weights(1))
    assert leftovers(depot.store.root) == []


@pytest.mark.parametrize("compress", [True, False], ids=["coded", "raw"])
@pytest.mark.parametrize(
    "data", [b"", b"abc", noise(60_000), brain_weights(30_000)], ids=["none", "3", "noise", "weights"]
)
def test_a_small_value_is_a_payload_that_is_not_longer(depot: Depot, data: bytes, compress: bool) -> None:
    digest, held = value.digest_of(_value(data, "BF16"))
    assert isinstance(held, value.HeldValue)
    payload = value.encode_small(held, compress=compress)
    assert len(payload) <= len(data)
    assert compress or payload == data
    assert _bytes(record(depot, data, payload, digest=digest), depot) == data


def test_a_thread_holds_one_value_at_a_time() -> None:
    """The buffer is used again: what was held must be done with when the next value is asked for."""
    _, first = value.digest_of(_value(weights(10_000, 1)))
    assert first.read(0, 40_000) == weights(10_000, 1)
    _, second = value.digest_of(_value(weights(10_000, 2)))
    assert second.read(0, 40_000) == weights(10_000, 2)
    assert first.read(0, 40_000) == weights(10_000, 2)


@dataclass
class _Changing:
    """A source whose bytes are others from the `after`-th read on."""

    before: bytes
    behind: bytes
    after: int
    reads: int = 0

    @property
    def size(self) -> int:
        return len(self.before)

    def read(self, offset: int, size: int) -> bytes:
        self.reads += 1
        return (self.before if self.reads <= self.after else self.behind)[offset : offset + size]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))


@pytest.mark.parametrize("after", range(1, 25, 4), ids=lambda after: f"after {after} reads")
@pytest.mark.parametrize("compress", [True, False], ids=["coded", "raw"])
@pytest.mark.parametrize("data", [weights(5 * MIB), noise(20 * MIB)], ids=["weights", "noise"])
def test_a_value_that_changes_between_hashing_and_coding_is_not_stored(
    depot: Depot, data: bytes, compress: bool, after: int
) -> None:
    other = bytearray(data)
    other[-1] ^= 1
    source = _Changing(data, bytes(other), 10 + after)
    digest, held = value.digest_of(SourceValue(source, 0, len(data), "F32", (len(data) // 4,)))
    try:
        steps = value.store_value(held, digest, depot.store, compress=compress)
    except ChangedError:
        assert objects(depot.store.root) == {}
    else:  # its last byte was read before it changed
        assert _bytes(Record("F32", (len(data) // 4,), len(data), digest, steps), depot) in (data, bytes(other))
    assert leftovers(depot.store.root) == []


def test_the_error_of_a_value_that_changed_says_so(depot: Depot) -> None:
    data = noise(20 * MIB)
    source = _Changing(data, bytes(len(data)), 10)
    digest, held = value.digest_of(SourceValue(source, 0, len(data), "U8", (len(data),)))
    assert source.reads == 10
    with pytest.raises(ChangedError, match="written to while it was read"):
        value.store_value(held, digest, depot.store, compress=True)
    assert objects(depot.store.root) == {}


def _flip(path: Path, at: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def _truncate(path: Path, size: int) -> None:
    path.chmod(0o644)
    os.truncate(path, size)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        *(
            pytest.param(
                lambda path, at=at: _flip(path, at % path.stat().st_size), DamagedObjectError, id=f"bit at {at}"
            )
            for at in [0, 1, 4, 5, 6, 7, 8, 11, 12, *random.Random(0).sample(range(100_000), 12), -1]
        ),
        pytest.param(lambda path: _truncate(path, 0), DamagedObjectError, id="emptied"),
        pytest.param(lambda path: _truncate(path, path.stat().st_size - 1), DamagedObjectError, id="a byte short"),
        pytest.param(lambda path: _truncate(path, path.stat().st_size + 1), DamagedObjectError, id="a byte long"),
        pytest.param(Path.unlink, MissingObjectError, id="gone"),
    ],
)
@pytest.mark.parametrize("compress", [True, False], ids=["coded", "raw"])
def test_the_damaged_object_is_named(
    depot: Depot, damage: Callable[[Path], None], error: type[Exception], compress: bool
) -> None:
    data = weights(40_000)
    digest, held = value.digest_of(_value(data))
    steps = value.store_value(held, digest, depot.store, compress=compress)
    oid = steps[0].pieces[0].oid
    made = Record("F32", (40_000,), len(data), digest, steps)
    assert _bytes(made, depot) == data
    damage(depot.store.path(oid))
    with pytest.raises(error, match=oid):
        _bytes(made, depot)


@pytest.mark.parametrize("broken", [0, 1, 2], ids=["first", "second", "third"])
@pytest.mark.parametrize("gone", [False, True], ids=["damaged", "gone"])
def test_of_several_objects_the_right_one_is_named(depot: Depot, broken: int, gone: bool) -> None:
    data = noise(90_000)
    pieces = tuple(put(depot, data[start : start + 30_000])[0] for start in (0, 30_000, 60_000))
    made = record(depot, data, store=(Step("dense", pieces),))
    path = depot.store.path(pieces[broken].oid)
    if gone:
        path.unlink()
    else:
        _flip(path, 7)
    with pytest.raises(MissingObjectError if gone else DamagedObjectError, match=pieces[broken].oid):
        _bytes(made, depot)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda made: replace(made, digest="0" * 64), id="another digest"),
        pytest.param(lambda made: replace(made, size=made.size + 1), id="a byte more"),
        pytest.param(lambda made: replace(made, size=made.size - 1), id="a byte less"),
        pytest.param(lambda made: replace(made, size=0), id="no bytes"),
        pytest.param(lambda made: replace(made, size=2**63 - 1), id="2**63 - 1 bytes"),
        pytest.param(
            lambda made: _with_pieces(made, lambda piece: replace(piece, length=piece.length - 1)), id="shorter"
        ),
        pytest.param(lambda made: _with_pieces(made, lambda piece: replace(piece, length=0)), id="empty piece"),
        pytest.param(
            lambda made: _with_pieces(made, lambda piece: replace(piece, offset=1, length=piece.length - 1)), id="later"
        ),
        pytest.param(
            lambda made: _with_pieces(made, lambda piece: replace(piece, size=piece.size + 1)), id="another object size"
        ),
        pytest.param(lambda made: replace(made, store=(Step("dense", ()),)), id="no pieces"),
        pytest.param(lambda made: replace(made, store=(Step("dense", made.store[0].pieces * 3),)), id="three times"),
    ],
)
def test_a_manifest_that_is_wrong_about_whole_objects_is_blamed(depot: Depot, lie: Callable[[Record], Record]) -> None:
    data = weights(40_000)
    digest, held = value.digest_of(_value(data))
    steps = value.store_value(held, digest, depot.store, compress=True)
    made = Record("F32", (40_000,), len(data), digest, steps)
    with pytest.raises(DamagedObjectError, match="manifest is wrong") as caught:
        _bytes(lie(made), depot)
    assert str(caught.value).isprintable()


def _with_pieces(made: Record, change: Callable[[Piece], Piece]) -> Record:
    return replace(made, store=(Step("dense", tuple(change(piece) for piece in made.store[0].pieces)),))


@pytest.mark.parametrize(
    "store",
    [
        pytest.param((Step("row-delta", ()),), id="the only one"),
        pytest.param((Step("dense", ()), Step("row-delta", (), (0,))), id="the last one"),
        pytest.param((Step("row-delta", ()), Step("dense", (), ())), id="the first one"),
    ],
)
def test_an_update_that_is_not_installed_is_named(depot: Depot, store: tuple[Step, ...]) -> None:
    with pytest.raises(ManifestError, match="'row-delta' is not installed"):
        _bytes(record(depot, b"", store=store), depot)


def test_dense_builds_on_nothing(depot: Depot) -> None:
    made = record(depot, b"abc")
    chained = replace(made, store=(Step("dense", ()), replace(made.store[0], bases=(0,))))
    with pytest.raises(ManifestError, match="dense"):
        _bytes(chained, depot)
    assert _bytes(replace(made, store=(Step("dense", ()), replace(made.store[0], bases=()))), depot) == b"abc"


def test_what_expands_is_given_up_at_the_size_of_its_value(depot: Depot) -> None:
    """Frames of 2 MiB of zeros are 100 bytes each: the payload of a TiB would be small, and the value is not."""
    frame = DENSE.encode(SourceValue(BytesSource(bytes(2 * MIB)), 0, 2 * MIB, "U8", (2 * MIB,)))
    assert frame is not None
    made = record(depot, bytes(3 * MIB), b"".join(frame) * 500)
    given: list[int] = []
    with pytest.raises(DamagedObjectError, match="manifest is wrong"):
        given.extend(map(len, value.runs(made, depot.store)))
    assert sum(given) <= made.size


def test_a_value_in_memory_stands_for_the_steps_that_make_it(depot: Depot) -> None:
    old, other = weights(MIB), weights(MIB, 7)
    new = trained(old)
    base, stranger = (record(depot, data, dtype="F32", shape=(MIB,)) for data in (old, other))
    steps = store_update(_value(new), blake3(new).hexdigest(), base, depot)
    assert steps is not None
    made = Record("F32", (MIB,), len(new), blake3(new).hexdigest(), steps)
    known, wrong = value.shared(base, depot.store), Shared(stranger, lambda: iter([other]), Memo())
    assert known is not None
    assert (known.readers(made), wrong.readers(made), known.readers(base)) == (1, 0, 1)
    for _ in range(2):  # the second time with what was worked out before
        assert b"".join(value.runs(made, depot.store, known)) == new
    assert b"".join(value.runs(made, depot.store, wrong)) == new
    depot.store.path(base.store[0].pieces[0].oid).unlink()
    assert b"".join(value.runs(made, depot.store, known)) == new
    with pytest.raises(MissingObjectError):
        b"".join(value.runs(made, depot.store, wrong))
    # What is in memory is believed no more than an object.
    lying = Shared(base, lambda: iter([changed(old, 5)]), Memo())
    with pytest.raises((DamagedObjectError, MissingObjectError)):
        b"".join(value.runs(made, depot.store, lying))


def test_values_are_read_side_by_side(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a value that two others build on, one reader has it decoded for all of them."""
    old = weights(5 * MIB)
    base = record(depot, old, dtype="F32", shape=(5 * MIB,))
    news = [trained(old, seed) for seed in (1, 2)]
    made = []
    for new in news:
        digest = blake3(new).hexdigest()
        steps = store_update(_value(new), digest, base, depot)
        assert steps is not None
        made.append(Record("F32", (5 * MIB,), len(new), digest, steps))
    opened: Counter[str] = Counter()
    reader = depot.store.reader

    def counted(pieces: Sequence[Piece]) -> PayloadReader:
        opened[pieces[0].oid] += 1
        return reader(pieces)

    monkeypatch.setattr(depot.store, "reader", counted)
    known = value.side_by_side(base, depot.store, [*made, base])
    streams = [value.runs(one, depot.store, known) for one in (*made, base)]
    found = [bytearray() for _ in streams]
    tracemalloc.start()
    for runs in zip_longest(*streams, fillvalue=b""):
        for one, run in zip(found, runs, strict=True):
            one += run
    held = tracemalloc.get_traced_memory()[1] - sum(map(len, found))
    tracemalloc.stop()
    assert held < 24 * MIB  # some runs of 2 MiB and what they are decoded of; not the value of 20 as well
    assert found == [*news, old]
    assert opened == {one.store[-1].pieces[0].oid: 1 for one in (*made, base)}


def mean_of(depot: Depot, *sides: Record) -> Record:
    """The record of the mean of two values, as its recipe."""
    steps = recipe.mean(sides, (0.5, 0.5), depot)
    assert steps is not None
    ours, theirs = (np.frombuffer(_bytes(side, depot), "<f4") for side in sides)
    mean = (ours * np.float32(0.5) + theirs * np.float32(0.5)).tobytes()
    return Record("F32", sides[0].shape, len(mean), blake3(mean).hexdigest(), steps)


def tuned(depot: Depot, base: Record, *seeds: int) -> list[Record]:
    """Values that were trained from one, each stored as an update of it."""
    old = _bytes(base, depot)
    made = []
    for seed in seeds:
        new = trained(old, seed, 1e-7)
        steps = store_update(_value(new), blake3(new).hexdigest(), base, depot)
        assert steps is not None
        made.append(Record("F32", base.shape, len(new), blake3(new).hexdigest(), steps))
    return made


def test_what_several_steps_build_on_is_decoded_once(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    base = record(depot, weights(3 * MIB), dtype="F32", shape=(3 * MIB,))
    mean = mean_of(depot, *tuned(depot, base, 1, 2))
    opened: Counter[str] = Counter()
    reader = depot.store.reader

    def counted(pieces: Sequence[Piece]) -> PayloadReader:
        opened.update(piece.oid for piece in pieces)
        return reader(pieces)

    monkeypatch.setattr(depot.store, "reader", counted)
    assert blake3(_bytes(mean, depot)).hexdigest() == mean.digest
    assert opened == Counter(piece.oid for step in mean.store for piece in step.pieces)
    assert len(opened) == 3


@pytest.mark.parametrize("short", [1, 2])
def test_what_several_steps_build_on_is_not_kept_for_one_that_stopped(depot: Depot, short: int) -> None:
    """A manifest may have one of them take a few bytes of a value, and the other all of it."""
    old = weights(16 * MIB)
    base = record(depot, old, dtype="F32", shape=(16 * MIB,))
    sides = tuned(depot, base, 1, 2)
    payload = SPARSE.encode(_value(old[:8]), [Stream("F32", (2,), 8, iter([old[:8]]))])
    assert payload is not None
    cut = Step("sparse", put(depot, b"".join(payload)), (0,), shape=(2,))
    grown = Step("delta", sides[1].store[1].pieces, (1,))
    steps = [base.store[0], cut, grown, replace(sides[0].store[1], bases=(0,))]
    # The value of the cut step has two elements, and zeros behind them.
    ends = (2, 3) if short == 1 else (3, 2)
    made = Record("F32", (16 * MIB,), len(old), "0" * 64, (*steps, Step("average", (), ends)))
    tracemalloc.start()
    size = 0

    def read() -> None:
        nonlocal size
        for run in value.runs(made, depot.store):
            size += len(run)

    with pytest.raises(DamagedObjectError, match="the manifest is wrong"):
        read()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == len(old)
    assert held < 56 * MIB  # 32 of them for the one that stopped; the value has 64


def test_a_record_that_builds_on_a_value_without_end_is_refused_at_once(depot: Depot) -> None:
    base = record(depot, noise(100))
    steps = [*base.store, *(Step("delta", (), (index, index)) for index in range(80))]
    hostile = Record("opaque", (100,), 100, "0" * 64, tuple(steps))
    known = value.side_by_side(base, depot.store, [hostile])
    with pytest.raises(ManifestError, match="builds on"):
        next(value.runs(hostile, depot.store, known))


def _scaled(depot: Depot, made: Record, count: int) -> Record:
    """A value with one more step, which multiplies it by so many ones."""
    ones = Multipliers(Tensor("F64", (count,), np.ones(count).tobytes()), 1)
    data = SourceValue(BytesSource(_bytes(made, depot)), 0, made.size, made.dtype, made.shape)
    base = Stream(made.dtype, made.shape, made.size, value.runs(made, depot.store))
    payload = Ia3(ones).encode(data, [base])
    assert payload is not None
    return replace(made, store=(*made.store, Step("ia3", put(depot, b"".join(payload)), (len(made.store) - 1,))))


def test_what_the_updates_of_a_value_hold_is_bounded_together(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of ones are a few bytes each in a payload, and up to 128 MiB in memory."""
    whole = record(depot, weights(100), dtype="F32", shape=(100,))
    monkeypatch.setattr(value, "MAX_HELD_BYTES", 3 * 16_000)
    three = _scaled(depot, _scaled(depot, _scaled(depot, whole, 1000), 1000), 1000)
    assert _bytes(three, depot) == weights(100)
    assert value.held_bytes(three.store, depot.store) == 3 * 16_000
    with pytest.raises(ManifestError, match="hold 64000 bytes at once"):
        _bytes(_scaled(depot, three, 1000), depot)
    # What several build on counts as often as it may be decoded.
    twice = replace(three, store=(*three.store[:3], Step("average", (), (2, 2))))
    with pytest.raises(ManifestError, match="hold 64000 bytes at once"):
        _bytes(twice, depot)


def test_a_chain_of_hostile_tables_takes_no_memory(depot: Depot) -> None:
    made = record(depot, weights(100), dtype="F32", shape=(100,))
    table = Multipliers(Tensor("F64", (2**22,), bytes(2**25)), 1)
    [payload] = [
        b"".join(runs)
        for runs in [Ia3(table).encode(SourceValue(BytesSource(bytes(400)), 0, 400, "F32", (100,)), [_zeros()])]
        if runs is not None
    ]
    assert len(payload) < 10_000
    steps = (*made.store, *(Step("ia3", put(depot, payload), (index,)) for index in range(15)))
    tracemalloc.start()
    with pytest.raises(ManifestError, match="hold"):
        _bytes(replace(made, store=steps), depot)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < MIB


def _zeros() -> Stream:
    return Stream("F32", (100,), 400, iter([bytes(400)]))


def test_no_value_above_16_mib_is_held(depot: Depot) -> None:
    data = weights(BUFFERED_BYTES // 4 + 1)
    assert value.shared(record(depot, data), depot.store) is None


def test_a_memo_keeps_the_first_32_mib_and_the_last() -> None:
    memo, made = Memo(), Counter[int]()

    def recall(start: int, count: int = 2**20) -> int:
        def make() -> "np.ndarray[tuple[int, ...], np.dtype[np.intp]]":
            made[start] += 1
            return np.full(count, start, np.intp)

        return int(memo.recall(("name", start, count), make)[0])

    for start in (0, 1, 2, 3, 4, 4, 5, 5, 0, 3, 4):
        assert recall(start) == start
    assert made == {0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 5: 1}
    assert recall(0, 5) == 0
    assert made[0] == 2
