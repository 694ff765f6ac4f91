"""One value on its way into the store and out of it: hashed, coded, written; read, decoded, verified."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, cast

from git_theta import plugins
from git_theta.errors import ChangedError, DamagedObjectError, FormatError, ManifestError, MissingObjectError
from git_theta.manifest import Piece, Record, Step
from git_theta.source import Source
from git_theta.store import Store
from git_theta.tensor import nbytes
from git_theta.updates.base import CHUNK_BYTES, Holding, Update
from git_theta.updates.dense import DENSE
from git_theta.updates.stream import Memo, Stream

if TYPE_CHECKING:
    from blake3 import blake3

__all__ = [
    "BUFFERED_BYTES",
    "MAX_DECODED",
    "MAX_HELD_BYTES",
    "HeldValue",
    "Shared",
    "SourceValue",
    "decoded_values",
    "digest_of",
    "encode_small",
    "filled",
    "hashed",
    "held",
    "held_by",
    "held_bytes",
    "room",
    "runs",
    "shared",
    "side_by_side",
    "store_bundle",
    "store_value",
]

BUFFERED_BYTES = 16 * 2**20
MAX_DECODED = 64
"""Values that are decoded for one record at most."""
MAX_HELD_BYTES = 512 * 2**20
"""What the updates of a record that is read may hold while they decode; writers stop long before (`choice`)."""
_BEHIND_BYTES = 32 * 2**20
_local = threading.local()

_Given = Callable[[], Iterator[bytes | memoryview]]


@dataclass(frozen=True, slots=True)
class SourceValue:
    """The value at `offset` of a source; a `Value` (updates/base.py)."""

    source: Source
    offset: int
    size: int
    dtype: str
    shape: tuple[int, ...]

    def read(self, offset: int, size: int) -> bytes:
        return self.source.read(self.offset + offset, max(0, min(size, self.size - offset)))

    def chunks(self) -> Iterator[memoryview]:
        buffer = _buffer("chunk", CHUNK_BYTES)
        for start in range(0, self.size, CHUNK_BYTES):
            chunk = buffer[: min(CHUNK_BYTES, self.size - start)]
            self.source.read_into(self.offset + start, chunk)
            yield chunk


@dataclass(frozen=True, slots=True)
class HeldValue:
    """A value whose bytes are in memory; a `Value`."""

    data: memoryview
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.data[offset : offset + size])

    def chunks(self) -> Iterator[memoryview]:
        for start in range(0, len(self.data), CHUNK_BYTES):
            yield self.data[start : start + CHUNK_BYTES]


@dataclass(frozen=True, slots=True)
class HashedValue:
    """A value whose chunks are hashed as they go by, so that what was coded is known to be what was meant."""

    value: SourceValue
    hasher: "blake3"

    @property
    def dtype(self) -> str:
        return self.value.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def size(self) -> int:
        return self.value.size

    def read(self, offset: int, size: int) -> bytes:
        return self.value.read(offset, size)

    def chunks(self) -> Iterator[memoryview]:
        for chunk in self.value.chunks():
            self.hasher.update(chunk)
            yield chunk


@dataclass(frozen=True, slots=True)
class Shared:
    """A record's value that is decoded once for several readers; made by `shared` or `side_by_side`."""

    record: Record
    given: Callable[[], Iterator[bytes | memoryview]]
    memo: Memo

    def stream(self) -> Stream:
        """The value from its start, for one more reader."""
        return Stream(self.record.dtype, self.record.shape, self.record.size, self.given(), self.memo)

    def is_step(self, record: Record, index: int) -> bool:
        """Whether a step of a record makes this very value."""
        own = self.record.dtype, self.record.shape
        return record.store[: index + 1] == self.record.store and _kind(record, record.store[index])[:2] == own

    def readers(self, record: Record) -> int:
        """How often this value is read for a record's."""
        return sum(uses for index, uses in enumerate(_uses(record, self)) if self.is_step(record, index))


def room(size: int) -> memoryview:
    """This thread's room for a value of `size` bytes, 16 MiB at most; it is good until the thread asks for the next."""
    return _buffer("value", BUFFERED_BYTES)[:size]


def filled(room: memoryview, given: Iterator[bytes | memoryview]) -> memoryview:
    """The room, after these runs were put into it; they are as many bytes."""
    done = 0
    for run in given:
        room[done : done + len(run)] = run
        done += len(run)
    return room


def digest_of(value: SourceValue | HeldValue) -> tuple[str, SourceValue | HeldValue]:
    """The value's BLAKE3-256, and the value to go on with: one of at most 16 MiB is then in this thread's `room`."""
    from blake3 import blake3

    if isinstance(value, HeldValue):
        return blake3(value.data).hexdigest(), value
    if value.size <= BUFFERED_BYTES:
        data = room(value.size)
        value.source.read_into(value.offset, data)
        return blake3(data).hexdigest(), HeldValue(data, value.dtype, value.shape)
    return hashed(value.chunks()), value


def hashed(given: Iterable[bytes | memoryview]) -> str:
    """The BLAKE3-256 of what these runs make up."""
    hasher = _blake3()
    for run in given:
        hasher.update(run)
    return hasher.hexdigest()


def store_value(value: SourceValue | HeldValue, digest: str, store: Store, *, compress: bool) -> tuple[Step, ...]:
    """Write the value's payload to the store; the steps that rebuild it.

    Raises ChangedError if its bytes are no longer those of `digest`, with nothing stored.
    """
    for coding in (True, False) if compress else (False,):
        # A held value cannot change between hashing and coding; a file can.
        given = HashedValue(value, _blake3()) if isinstance(value, SourceValue) else value
        payload = DENSE.encode(given) if coding else given.chunks()
        if payload is None:
            continue
        with store.writer() as writer:
            for run in payload:
                writer.write(run)
            if coding and writer.size >= value.size:
                continue
            if isinstance(given, HashedValue) and given.hasher.hexdigest() != digest:
                raise ChangedError("it was written to while it was read; try again")
            return (Step(DENSE.name, writer.finish()),)
    raise AssertionError("raw bytes always do")


def encode_small(value: HeldValue, *, compress: bool) -> bytes:
    """The payload of a value that shares an object with others."""
    runs = DENSE.encode(value) if compress else None
    coded = b"".join(runs) if runs is not None else None
    return coded if coded is not None and len(coded) < value.size else bytes(value.data)


def store_bundle(payloads: Sequence[bytes], store: Store) -> list[tuple[Piece, ...]]:
    """Write payloads as one object, which they must fit in; where each of them lies."""
    with store.writer() as writer:
        for payload in payloads:
            writer.write(payload)
        pieces = writer.finish()
    starts = itertools.accumulate(map(len, payloads), initial=0)
    return [
        (Piece(pieces[0].oid, pieces[0].size, start, len(payload)),) if payload else ()
        for start, payload in zip(starts, payloads, strict=False)
    ]


def held(record: Record, store: Store) -> memoryview | None:
    """A value in this thread's buffer for a base, good until the thread asks for the next; None above 16 MiB.

    Raises as `runs` does.
    """
    if record.size > BUFFERED_BYTES:
        return None
    return filled(_buffer("base", BUFFERED_BYTES)[: record.size], runs(record, store))


def shared(record: Record, store: Store) -> Shared | None:
    """A value for any number of readers, one after the other; it is `held`, which see."""
    data = held(record, store)
    return None if data is None else Shared(record, lambda: iter([data] if data else []), Memo())


def side_by_side(record: Record, store: Store, readers: Sequence[Record]) -> Shared:
    """A value of any size for the `runs` of other records, which are to be taken about in step: what one of them has
    had and others have not is kept in memory, up to 32 MiB. Its own digest is not checked: theirs cover it.
    """
    made = Shared(record, lambda: iter(()), Memo())
    return replace(made, given=_together(lambda: _unchecked(record, store), sum(map(made.readers, readers))))


def runs(record: Record, store: Store, base: Shared | None = None) -> Iterator[bytes | memoryview]:
    """The bytes of a record's value, in runs that are not written to again.

    `base` is a value that it may build on, and is then not decoded once more.
    The last run is given before the digest is known: only when the iterator ends without an error are the bytes the
    true ones. Raises MissingObjectError, DamagedObjectError (which name the object), or ManifestError for an unknown
    update, be it in a step that this value does not need, or for one that is said to build on what it cannot.
    """
    if base is not None and base.is_step(record, len(record.store) - 1):
        given = base.given()
    else:
        given = _unchecked(record, store, base)
    hasher = _blake3()
    done = 0
    try:
        for run in given:
            hasher.update(run)
            done += len(run)
            if done > record.size:
                raise DamagedObjectError(f"more than the {record.size} bytes of its value")
            yield run
        if done != record.size or hasher.hexdigest() != record.digest:
            raise DamagedObjectError("other bytes than its digest says")
    except DamagedObjectError as error:
        pieces = [piece for step in record.store for piece in step.pieces]
        raise DamagedObjectError(_blame(pieces, store, str(error))) from error


def _check_bases(steps: Sequence[Step], updates: Sequence[Update]) -> None:
    """Raise ManifestError unless every step has as many bases as its update needs, and few are decoded in all."""
    for step, update in zip(steps, updates, strict=True):
        if len(step.bases) != update.bases:
            what = f"{update.bases or 'no'} {'base' if update.bases == 1 else 'bases'}"
            raise ManifestError(f"update '{step.update}' builds on {what}, and is said to build on {list(step.bases)}")
    if (count := decoded_values(steps)) > MAX_DECODED:
        raise ManifestError(f"its value is made of {count} others, and at most {MAX_DECODED} are read")


def decoded_values(steps: Sequence[Step]) -> int:
    """How many values are decoded for the last of these steps, where one that several build on counts for each."""
    return sum(_decodings(steps))


def held_bytes(steps: Sequence[Step], store: Store) -> int:
    """What their updates hold while the last of these steps is decoded; raises as `runs` does."""
    total = 0
    for step, count in zip(steps, _decodings(steps), strict=True):
        if count and _holds(type(update := plugins.update(step.update))):
            with store.reader(step.pieces) as payload:
                total += count * held_by(update, payload)
    return total


def held_by(update: Update, payload: Source) -> int:
    """What an update holds while it decodes a payload."""
    return max(0, cast("Holding", update).held(payload)) if _holds(type(update)) else 0


@cache
def _holds(kind: type[Update]) -> bool:
    """Whether updates of a kind are `Holding`: to ask each of them takes microseconds, for every value there is."""
    return issubclass(kind, Holding)


def _decodings(steps: Sequence[Step]) -> list[int]:
    """How often each of these steps is decoded for the last one, where all who build on it have it decoded."""
    counts = [0] * (len(steps) - 1) + [1]
    for index in reversed(range(len(steps))):
        for base in steps[index].bases:
            counts[base] += counts[index]
    return counts


def _unchecked(record: Record, store: Store, known: Shared | None = None) -> Iterator[bytes | memoryview]:
    """The runs of a record's value; those of its bases are decoded as they are taken, once for all who take them.

    The digest is the caller's to check. `known` is as `base` in `runs`, and not the value itself.
    """
    updates = [plugins.update(step.update) for step in record.store]
    _check_bases(record.store, updates)
    if (size := held_bytes(record.store, store)) > MAX_HELD_BYTES:
        raise ManifestError(f"its updates hold {size} bytes at once, and at most {MAX_HELD_BYTES} are held")
    uses = _uses(record, known)
    shared: dict[int, tuple[_Given, Memo]] = {}

    def made(index: int) -> Iterator[bytes | memoryview]:
        step = record.store[index]
        payload = readers.enter_context(store.reader(step.pieces))
        return updates[index].decode(payload, _kind(record, step)[2], [stream(base) for base in step.bases])

    def stream(base: int) -> Stream:
        if known is not None and known.is_step(record, base):
            return known.stream()
        kind = _kind(record, record.store[base])
        if uses[base] == 1:
            return Stream(*kind, made(base))
        if base not in shared:
            shared[base] = _together(lambda: made(base), uses[base]), Memo()
        given, memo = shared[base]
        return Stream(*kind, given(), memo)

    with ExitStack() as readers:
        yield from made(len(record.store) - 1)


def _uses(record: Record, known: Shared | None) -> list[int]:
    """How often each step's value is taken where each is made once; the last one is taken by whoever asks for it."""
    uses = [0] * (len(record.store) - 1) + [1]
    for index in reversed(range(len(uses))):
        if uses[index] and not (known and known.is_step(record, index)):
            for base in record.store[index].bases:
                uses[base] += 1
    return uses


def _together(make: _Given, count: int) -> _Given:
    """The same runs for `count` readers that take them about in step: made once, and kept until all have had them.

    They are made once more for one that falls too far behind, and for one beyond the count: memory does not grow with
    what a manifest asks for.
    """
    given = make()
    waiting: list[deque[bytes | memoryview] | None] = [deque() for _ in range(count)]
    numbers = iter(range(count))

    def copy(number: int) -> Iterator[bytes | memoryview]:
        done = 0
        while (own := waiting[number]) is not None:
            if not own:
                if (run := next(given, None)) is None:
                    return
                for other, queue in enumerate(waiting):
                    if queue is not None:
                        queue.append(run)
                        if other != number and sum(map(len, queue)) > _BEHIND_BYTES:
                            waiting[other] = None
            done += 1
            yield own.popleft()
        yield from itertools.islice(make(), done, None)

    def next_one() -> Iterator[bytes | memoryview]:
        number = next(numbers, None)
        return make() if number is None else copy(number)

    return next_one


def _kind(record: Record, step: Step) -> tuple[str, tuple[int, ...], int]:
    """Dtype, shape and size of a step's value."""
    if step.dtype is None and step.shape is None:
        return record.dtype, record.shape, record.size
    dtype, shape = step.dtype or record.dtype, record.shape if step.shape is None else step.shape
    try:
        return dtype, shape, nbytes(dtype, shape)
    except FormatError as error:
        raise ManifestError(f"a step whose value has no size: {error}") from error


def _blame(pieces: Sequence[Piece], store: Store, found: str) -> str:
    """Which object is damaged, or that the manifest is wrong, where all of them are what their names say."""
    for piece in pieces:
        if not store.path(piece.oid).exists():
            raise MissingObjectError(f"object {piece.oid} is not on this machine")
        if not store.is_intact(piece.oid):
            remedy = "to set it aside and fetch it anew: git theta fsck, git theta fetch --all"
            return f"object {piece.oid} is damaged; {remedy}"
    return f"its objects are whole, but rebuild {found}: the manifest is wrong"


def _blake3() -> "blake3":
    from blake3 import blake3

    return blake3()


def _buffer(use: str, size: int) -> memoryview:
    """This thread's buffer for a use, again and again: fresh memory costs a page fault for every 4 KiB."""
    buffers: dict[str, memoryview] = _local.__dict__.setdefault("buffers", {})
    if use not in buffers:
        buffers[use] = memoryview(bytearray(size))
    return buffers[use]
