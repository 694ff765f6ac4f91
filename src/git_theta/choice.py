"""The choice of an update: a new value beside the one that it came from, and what is worth storing of it.

Both are read once: what differs is counted, and windows in which something does are encoded by each update. The one
that promises least is written, decoded and compared; it is kept only if it is smaller than a dense value by a margin.
Small values are encoded whole. An update that the user supplied is the only one that is tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from git_theta import plugins
from git_theta.depot import Depot
from git_theta.errors import ConfigError, DataError, InputError, ManifestError, RepositoryError
from git_theta.manifest import Record, Step
from git_theta.source import BytesSource, Source
from git_theta.tensor import words_of
from git_theta.updates import floats
from git_theta.updates.base import CHUNK_BYTES, Supplied, Update
from git_theta.updates.dense import DENSE
from git_theta.updates.floats import FLOATS
from git_theta.updates.stream import Stream
from git_theta.value import HeldValue, Shared, SourceValue, hashed, held_by, held_bytes, runs, shared

__all__ = ["MAX_CHAIN", "MAX_HELD_BYTES", "Unstored", "encode_update", "store_update"]

MAX_CHAIN = 8
"""Steps of a record that is written; each costs time when it is rebuilt."""

MAX_HELD_BYTES = 128 * 2**20
"""What the updates of a record that is written hold while they decode; one alone may hold as much."""

MARGIN = 0.95
_STEP_BYTES = 128
"""About what another step of a record adds to the manifest."""

_WINDOW_BYTES = 64 * 2**10
_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class _Origin:
    """The value that a new one came from; `shared` where it is in memory."""

    record: Record
    shared: Shared | None
    depot: Depot

    def stream(self) -> Stream:
        if self.shared is not None:
            return self.shared.stream()
        return Stream(self.record.dtype, self.record.shape, self.record.size, runs(self.record, self.depot.store))

    def limit(self, dense_size: float) -> int:
        """Bytes that one more step may have: neither it nor the later steps together cost more than a dense value."""
        return int(min(MARGIN * dense_size, dense_size - sum(step.size for step in self.record.store[1:])))


@dataclass(frozen=True, slots=True)
class _Window:
    """A run of a value's bytes and the base's at the same place; `changed` elements of it differ."""

    new: bytes
    old: bytes
    changed: int


@dataclass(frozen=True, slots=True)
class Unstored:
    """A step that is still to be written: its payload, and the steps before it."""

    before: tuple[Step, ...]
    update: str
    payload: bytes


def store_update(
    value: SourceValue | HeldValue,
    digest: str,
    base: Record,
    depot: Depot,
    supplied: Supplied | None = None,
    known: Shared | None = None,
) -> tuple[Step, ...] | None:
    """The steps that rebuild a value from those of a base, after storing the last; None where a dense value is as good.

    A base that is not whole on this machine, or that this git-theta cannot read, is no base. The base is verified and
    the new step decoded here, so that this machine may vouch for the steps; `known` is the base's value where it is in
    memory. Raises InputError where the value is not what a supplied update makes of its base.
    """
    if not _may_build(value, base, supplied):
        return None
    try:
        origin = _Origin(base, known or shared(base, depot.store), depot)
        if supplied is not None:
            _check_fits(value, supplied, origin)
        for update, limit in _candidates(value, origin, supplied):
            step = _stored(update, value, digest, origin, limit)
            if step is not None:
                return (*(_restated(step, base, value) for step in base.store), step)
    except (DataError, ManifestError, RepositoryError):
        if supplied is not None:
            raise
    return None


def encode_update(
    value: HeldValue, digest: str, dense_size: int, base: Record, depot: Depot, supplied: Supplied | None = None
) -> Unstored | None:
    """As `store_update`, for a small value whose payload will share an object with others."""
    if not _may_build(value, base, supplied):
        return None
    try:
        origin = _Origin(base, shared(base, depot.store), depot)
        if supplied is not None:
            _check_fits(value, supplied, origin)
        best: tuple[Update, bytes] | None = None
        limit = origin.limit(dense_size) - _STEP_BYTES
        for update in [supplied] if supplied is not None and supplied.bases else _updates(depot):
            payload = update.encode(value, [origin.stream()])
            joined = b"" if payload is None else b"".join(payload)
            if joined and len(joined) <= limit and (best is None or len(joined) < len(best[1])):
                best = update, joined
        if best is not None and _decodes(best[0], BytesSource(best[1]), value.size, digest, origin):
            return Unstored(tuple(_restated(step, base, value) for step in base.store), best[0].name, best[1])
    except (DataError, ManifestError, RepositoryError):
        if supplied is not None:
            raise
    return None


def _may_build(value: SourceValue | HeldValue, base: Record, supplied: Supplied | None) -> bool:
    if base.dtype == value.dtype:
        aligned = base.shape[1:] == value.shape[1:]
    else:
        aligned = base.shape == value.shape and supplied is None
    if supplied is not None and not aligned:
        raise InputError(f"it is {value.dtype} {list(value.shape)}, and its base {base.dtype} {list(base.shape)}")
    return aligned and base.size > 0 and len(base.store) < MAX_CHAIN


def _candidates(value: SourceValue | HeldValue, origin: _Origin, supplied: Supplied | None) -> list[tuple[Update, int]]:
    """The updates to try in this order, each with the bytes that it may take."""
    if supplied is not None and supplied.bases:
        return [(supplied, origin.limit(_dense_size(value, [])))]
    updates = _updates(origin.depot)
    if not updates:
        return []
    changed, windows = _compared(value, origin) if origin.record.dtype == value.dtype else (0, [])
    limit = origin.limit(_dense_size(value, windows))
    ranked = _ranked(updates, windows, changed, limit, value.dtype)
    found = [(update, limit) for update, _ in ranked]
    if origin.depot.settings.detect_low_rank and changed:
        from git_theta.updates.low_rank import DETECTED

        found.insert(0, (DETECTED, min(limit, *(int(size) for _, size in ranked[:1]))))
    return found


def _check_fits(value: SourceValue | HeldValue, supplied: Supplied, origin: _Origin) -> None:
    """Raise InputError unless the update explains at least half of how far the value is from its base."""
    old, made = origin.stream(), origin.stream()
    applied = Stream(value.dtype, value.shape, value.size, supplied.apply(made))
    change = misfit = 0.0
    for chunk in value.chunks():
        change += _distance(chunk, old.take(len(chunk)), value.dtype)
        misfit += _distance(chunk, applied.take(len(chunk)), value.dtype)
    if misfit > change / 2:
        raise InputError(
            f"it is not what the supplied {supplied.name} update makes of the version before; "
            "look whether the update belongs to that version"
        )


def _distance(new: memoryview, other: memoryview, dtype: str) -> float:
    """The sum of the absolute differences of floats, as far as they are finite; of anything else, how many differ."""
    import numpy as np

    if dtype in FLOATS:
        with np.errstate(all="ignore"):
            apart = np.abs(floats.values(new, dtype, "F64") - floats.values(other, dtype, "F64"))
        return float(apart[np.isfinite(apart)].sum())
    return float(np.count_nonzero(np.frombuffer(new, np.uint8) != np.frombuffer(other, np.uint8)))


def _updates(depot: Depot) -> list[Update]:
    """The updates that the settings allow and that build on one value."""
    if depot.settings.compression == "none":
        return []
    try:
        found = [plugins.update(name) for name in depot.settings.updates]
    except ManifestError as error:
        raise ConfigError(f"theta.updates: {error}") from error
    return [update for update in found if update.bases == 1]


def _restated(step: Step, base: Record, value: SourceValue | HeldValue) -> Step:
    """A step of the base as it stands in the record of a value of perhaps another dtype and shape."""
    dtype, shape = step.dtype or base.dtype, base.shape if step.shape is None else step.shape
    return Step(
        step.update,
        step.pieces,
        step.bases,
        None if dtype == value.dtype else dtype,
        None if shape == value.shape else shape,
    )


def _compared(value: SourceValue | HeldValue, origin: _Origin) -> tuple[int, list[_Window]]:
    """How many elements differ, and a few windows in which some do; the base is verified."""
    import numpy as np

    word, _ = words_of(value.dtype, value.size)
    stride = max(1, value.size // CHUNK_BYTES // _WINDOWS)
    stream = origin.stream()
    total = 0
    windows: list[_Window] = []
    for index, chunk in enumerate(value.chunks()):
        old = stream.take(len(chunk))
        differs = np.frombuffer(chunk, f"<u{word}") != np.frombuffer(old, f"<u{word}")
        count = int(np.count_nonzero(differs))
        total += count
        if count and (index % stride == 0 or not windows):
            start = min(int(differs.argmax()) * word, max(0, len(chunk) - _WINDOW_BYTES)) // 8 * 8
            place = slice(start, start + _WINDOW_BYTES)
            inside = int(np.count_nonzero(differs[start // word : (start + _WINDOW_BYTES) // word]))
            windows.append(_Window(bytes(chunk[place]), bytes(old[place]), inside))
    return total, windows


def _dense_size(value: SourceValue | HeldValue, windows: Sequence[_Window]) -> float:
    """About how many bytes the value takes by itself."""
    sample = b"".join(window.new for window in windows) or value.read(0, _WINDOW_BYTES)
    payload = DENSE.encode(HeldValue(memoryview(sample), value.dtype, (len(sample),)))
    return value.size * (sum(map(len, payload)) / len(sample) if payload is not None else 1)


def _ranked(
    updates: Sequence[Update], windows: Sequence[_Window], changed: int, limit: int, dtype: str
) -> list[tuple[Update, float]]:
    """The updates that promise to stay below the limit, with their bytes, the best first; all of them where nothing can
    be compared.

    Those within a thousandth of the limit are equals, in the order of the settings.
    """
    seen = sum(window.changed for window in windows)
    sizes = [
        (update, sum(_sampled(update, window, dtype) for window in windows) * changed / seen if seen else 0.0)
        for update in updates
    ]
    promises = [(update, size) for update, size in sizes if size <= limit]
    return sorted(promises, key=lambda promise: int(1000 * promise[1] / (limit + 1)))


def _sampled(update: Update, window: _Window, dtype: str) -> float:
    """Bytes of the payload for a window; endless where the update has nothing to gain."""
    shape = (len(window.new),)
    old = Stream(dtype, shape, len(window.old), iter([window.old]))
    payload = update.encode(HeldValue(memoryview(window.new), dtype, shape), [old])
    return float("inf") if payload is None else sum(map(len, payload))


def _stored(update: Update, value: SourceValue | HeldValue, digest: str, origin: _Origin, limit: int) -> Step | None:
    """The step that makes the value of its base, seen to do so; None where its payload would be above the limit."""
    base = origin.stream()
    payload = update.encode(value, [base])
    if payload is None:
        return None
    with origin.depot.store.writer() as writer:
        for run in payload:
            writer.write(run)
            if writer.size > limit:
                return None
        base.finish()
        step = Step(update.name, writer.finish(), (len(origin.record.store) - 1,))
    with origin.depot.store.reader(step.pieces) as stored:
        return step if _decodes(update, stored, value.size, digest, origin) else None


def _decodes(update: Update, payload: Source, size: int, digest: str, origin: _Origin) -> bool:
    """Whether a payload gives the value back, in memory that readers have for it."""
    held = held_bytes(origin.record.store, origin.depot.store) + held_by(update, payload)
    return held <= MAX_HELD_BYTES and hashed(update.decode(payload, size, [origin.stream()])) == digest
