"""The choice of an update: a new value beside the one that it came from, and what is worth storing of it.

Both are read once: what differs is counted, and windows in which something does are encoded by each update. The one
that promises least is written, decoded and compared; it is kept only if it is smaller than a dense value by a margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from git_theta import plugins
from git_theta.depot import Depot
from git_theta.errors import ConfigError, DataError, ManifestError, RepositoryError
from git_theta.manifest import Record, Step
from git_theta.tensor import words_of
from git_theta.updates.base import CHUNK_BYTES, Update
from git_theta.updates.dense import DENSE
from git_theta.value import HeldValue, SourceValue, Stream, held, runs

__all__ = ["MAX_CHAIN", "store_update"]

MAX_CHAIN = 8
"""Steps of a record that is written; each costs time when it is rebuilt."""

MARGIN = 0.95
_WINDOW_BYTES = 64 * 2**10
_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class _Origin:
    """The value that a new one came from; `data` are its bytes where they are in memory."""

    record: Record
    data: memoryview | None
    depot: Depot

    def stream(self) -> Stream:
        given = iter([self.data]) if self.data else runs(self.record, self.depot.store)
        return Stream(self.record.dtype, self.record.shape, self.record.size, given)


@dataclass(frozen=True, slots=True)
class _Window:
    """A run of a value's bytes and the base's at the same place; `changed` elements of it differ."""

    new: bytes
    old: bytes
    changed: int


def store_update(value: SourceValue | HeldValue, digest: str, base: Record, depot: Depot) -> tuple[Step, ...] | None:
    """The steps that rebuild a value from those of a base, after storing the last; None where a dense value is as good.

    A base that is not whole on this machine, or that this git-theta cannot read, is no base. The base is verified and
    the new step decoded here, so that this machine may vouch for the steps.
    """
    updates = _updates(depot)
    alike = base.dtype == value.dtype
    aligned = base.shape[1:] == value.shape[1:] if alike else base.shape == value.shape
    if not updates or not aligned or not base.size or len(base.store) >= MAX_CHAIN:
        return None
    try:
        origin = _Origin(base, held(runs(base, depot.store), base.size), depot)
        changed, windows = _compared(value, origin) if alike else (0, [])
        dense = _dense_size(value, windows)
        limit = int(min(MARGIN * dense, dense - sum(step.size for step in base.store[1:])))
        for update in _ranked(updates, windows, changed, limit, value.dtype):
            step = _stored(update, value, digest, origin, limit)
            if step is not None:
                return (*(_restated(step, base, value) for step in base.store), step)
    except (DataError, ManifestError, RepositoryError):
        return None
    return None


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
) -> list[Update]:
    """The updates that promise to stay below the limit, the best first; all of them where nothing can be compared.

    Those within a thousandth of the limit are equals, in the order of the settings.
    """
    seen = sum(window.changed for window in windows)
    promises: list[tuple[int, int, Update]] = []
    for index, update in enumerate(updates):
        size = sum(_sampled(update, window, dtype) for window in windows) * changed / seen if seen else 0
        if size <= limit:
            promises.append((int(1000 * size / (limit + 1)), index, update))
    return [update for _, _, update in sorted(promises, key=lambda promise: promise[:2])]


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
    from blake3 import blake3

    hasher = blake3()
    with origin.depot.store.reader(step.pieces) as stored:
        for decoded in update.decode(stored, value.size, [origin.stream()]):
            hasher.update(decoded)
    return step if hasher.hexdigest() == digest else None
