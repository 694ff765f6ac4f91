"""Taking a checkpoint in: a file becomes a manifest and objects. `rebuild.py` is the reverse.

Each value is read once, or twice if it is large and new, in threads; only values that this machine does not already
vouch for are stored. A few chunks per thread are in memory, whatever the size of the file.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType

from git_theta import layout as layouts
from git_theta import plugins
from git_theta.choice import Unstored, encode_update, store_update
from git_theta.depot import Depot
from git_theta.errors import (
    ConfigError,
    DataError,
    FormatError,
    InputError,
    ManifestError,
    MissingObjectError,
    RepositoryError,
    ThetaError,
)
from git_theta.formats.base import HEAD_SIZE_BYTES, Span
from git_theta.layout import SMALL_BYTES
from git_theta.manifest import MAX_PIECES, Manifest, Record, Step, is_word
from git_theta.names import shown
from git_theta.source import BytesSource, Source
from git_theta.tensor import OPAQUE
from git_theta.updates.base import Supplied
from git_theta.updates.dense import DENSE
from git_theta.value import HeldValue, Shared, SourceValue, digest_of, encode_small, runs, store_bundle, store_value

__all__ = ["SMALL_BYTES", "Intake", "Interrupted", "Origin", "keep", "segment", "take"]

BUNDLE_BYTES = 32 * 2**20
MIN_BASED_BYTES = 512
MAX_SMALL_BASES = 4096
_BATCH = 256
_BATCH_BYTES = 2 * 2**20


class Interrupted(Exception):  # noqa: N818  # it says what happened; nothing went wrong
    """The caller set `stop` while a checkpoint was being taken in."""


def segment(source: Source) -> tuple[str, tuple[Span, ...]]:
    """The name of the first format that reads the file, and spans that `layout.cover` made; "opaque" if none does."""
    head = source.read(0, HEAD_SIZE_BYTES)
    for candidate in plugins.formats():
        try:
            if is_word(candidate.name) and candidate.accepts(head):
                return candidate.name, layouts.cover(candidate.spans(source), source.size)
        except FormatError:
            continue
        except (ThetaError, OSError, Interrupted):
            raise
        except Exception as error:  # noqa: BLE001  # no bug of a format, ours or a plugin's, keeps a file from being stored
            logging.getLogger(__name__).warning(
                "git-theta: format '%s' failed on a file (%s: %s); trying the next",
                candidate.name,
                type(error).__name__,
                error,
            )
    return "opaque", layouts.cover([], source.size)


def take(
    source: Source,
    depot: Depot,
    known: Sequence[Manifest] = (),
    *,
    supplied: Mapping[str, Supplied] = MappingProxyType({}),
    progress: Callable[[int], None] = lambda size_bytes: None,
    stop: threading.Event | None = None,
) -> Manifest:
    """The manifest of a checkpoint, after storing what is new in it.

    A value that stands in one of the `known` manifests keeps that record, if the catalogue vouches for it: equal
    content has equal text. A new value of a parameter builds on that of the last known manifest that has it, by the
    `supplied` update if there is one. `progress` is told of bytes dealt with, from several threads. Raises ChangedError
    if the source changed meanwhile, InputError where a value is not what its supplied update makes, SpaceError on a
    full disk, and Interrupted once `stop` is set; objects already written stay, whole.
    """
    if source.size > MAX_PIECES * depot.settings.max_object_bytes:
        raise ConfigError(
            f"theta.maxObjectSize is {depot.settings.max_object_bytes}, which makes more than {MAX_PIECES} objects of "
            f"a file of {source.size} bytes; set it to 1g"
        )
    watched = _Watched(source, stop or threading.Event())
    name, spans = segment(watched)
    layout = layouts.build(spans, watched)
    text = layouts.format(layout)
    values = [SourceValue(watched, span.offset, span.size, span.dtype, span.shape) for span in spans]
    values.append(SourceValue(BytesSource(text), 0, len(text), OPAQUE, (len(text),)))
    bases = {name: record for manifest in known for name, record in manifest.parameters.items()}
    origins = [Origin(span.name, bases.get(span.name), supplied.get(span.name)) for span in spans]
    kept = keep(values, [*origins, Origin("")], depot, known, progress=progress, stop=watched.stop)
    rows = zip(spans, kept, strict=False)  # the layout, which is last, has no span
    records = {
        span.name: Record(span.dtype, span.shape, span.size, digest, steps, span.strides, span.views)
        for span, (digest, steps) in rows
    }
    layout_record = Record(OPAQUE, (len(text),), len(text), *kept[-1])
    depot.catalogue.vouch([layout_record, *records.values()])
    return Manifest(name, source.size, layouts.whole_digest(layout_record, layout, records), layout_record, records)


def keep(
    values: Sequence[SourceValue],
    origins: Sequence["Origin"],
    depot: Depot,
    known: Sequence[Manifest] = (),
    *,
    progress: Callable[[int], None] = lambda size_bytes: None,
    stop: threading.Event | None = None,
) -> list[tuple[str, tuple[Step, ...]]]:
    """The digest of each value and the steps that rebuild it, after storing what is new; as `take`, which see.

    The caller has the catalogue vouch for them.
    """
    kept = Intake(depot, known, progress).keep(values, origins, stop or threading.Event())
    return [(item.digest, item.steps) for item in kept]


@dataclass(frozen=True, slots=True)
class _Watched:
    """A source whose readers stop when they are told to."""

    source: Source
    stop: threading.Event

    @property
    def size(self) -> int:
        return self.source.size

    def read(self, offset: int, size: int) -> bytes:
        self._check()
        return self.source.read(offset, size)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._check()
        self.source.read_into(offset, buffer)

    def _check(self) -> None:
        if self.stop.is_set():
            raise Interrupted


@dataclass(frozen=True, slots=True)
class Origin:
    """The parameter that a value is of, by name, and what it may build on: a base, an update that the user brought.

    `shared`: the base's value, where it is in memory.
    """

    name: str
    base: Record | None = None
    supplied: Supplied | None = None
    shared: Shared | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A value dealt with: its digest, and its steps or, without any, the last of them that is still to be bundled.

    `sought`: what was looked for in the catalogue in vain, and is to be looked for once more before it is bundled.
    """

    digest: str
    steps: tuple[Step, ...] = ()
    last: Unstored | None = None
    sought: Record | None = None

    @property
    def key(self) -> tuple[str, tuple[Step, ...]]:
        """What tells bundled payloads apart: the same bytes may be stored as updates of several bases."""
        return self.digest, self.last.before if self.last else ()


class _Bundles:
    """Puts the payloads of small values together, in the order in which they are given, into shared objects."""

    def __init__(self, depot: Depot, holds: Callable[[Sequence[Step]], bool]) -> None:
        self._depot = depot
        self._holds = holds
        self._state = depot.catalogue.state()
        self._open: dict[tuple[str, tuple[Step, ...]], tuple[Unstored, Record | None]] = {}
        self._open_bytes = 0
        self.stored: dict[tuple[str, tuple[Step, ...]], tuple[Step, ...]] = {}
        """The steps of a value, by its `key`."""

    def add(self, item: _Kept, last: Unstored) -> _Kept:
        """The item without the payload of its last step, which is one of those for the next object."""
        if item.key not in self.stored and item.key not in self._open:
            limit = min(BUNDLE_BYTES, self._depot.settings.max_object_bytes)
            if self._open_bytes + len(last.payload) > limit:
                self.end()
            self._open[item.key] = last, item.sought
            self._open_bytes += len(last.payload)
        return replace(item, last=replace(last, payload=b""))

    def end(self) -> None:
        """Write the next object."""
        self._leave_out()
        places = store_bundle([last.payload for last, _ in self._open.values()], self._depot.store)
        for (key, (last, _)), pieces in zip(self._open.items(), places, strict=True):
            bases = (len(last.before) - 1,) if last.before else ()
            self.stored[key] = (*last.before, Step(last.update, pieces, bases))
        self._open.clear()
        self._open_bytes = 0

    def _leave_out(self) -> None:
        """Leave out what another process has entered in the catalogue since it was looked for.

        It may have been in the middle of these values when some of them were looked for before and some after; what an
        object holds, and so the text, would then hang on the moment. Large values have objects of their own.
        """
        if self._depot.catalogue.state() == self._state:
            return
        sought = {key: record for key, (_, record) in self._open.items() if record}
        for key, ways in zip(sought, self._depot.catalogue.find_at_once([*sought.values()]), strict=True):
            steps = next((steps for steps in ways if self._holds(steps)), ())
            if steps:
                self.stored[key] = steps
                del self._open[key]


class Intake:
    """Keeps the values of one checkpoint."""

    def __init__(
        self,
        depot: Depot,
        known: Sequence[Manifest],
        progress: Callable[[int], None] = lambda size_bytes: None,
    ) -> None:
        self._depot = depot
        self._compress = depot.settings.compression != "none"
        self._progress = progress
        self._preferred = {
            (record.digest, record.dtype, record.shape): record.store
            for manifest in reversed(known)
            for record in manifest.records()
        }
        self._here: dict[str, bool] = {}
        self._small_bases = 0
        self._bundles = _Bundles(depot, self.holds)

    def keep(self, values: Sequence[SourceValue], origins: Sequence[Origin], stop: threading.Event) -> list[_Kept]:
        """What became of each value, given with what it may build on.

        Large ones begin first, so that no thread ends long after the others.
        """
        errors: list[BaseException] = []

        def keep(*batch: int) -> list[_Kept]:
            try:
                return self._keep_batch([(values[index], origins[index]) for index in batch])
            except BaseException as error:
                errors.append(error)
                stop.set()
                raise

        kept: list[_Kept] = [_Kept("")] * len(values)
        large = sorted(
            (i for i, value in enumerate(values) if value.size >= SMALL_BYTES), key=lambda i: -values[i].size
        )
        small = _small_batches(values)
        self._small_bases = sum(origins[index].base is not None for batch in small for index in batch)
        threads = self._depot.settings.thread_count
        with ThreadPoolExecutor(threads) as pool:
            try:
                futures = [pool.submit(keep, index) for index in large]
                # Payloads wait in memory for their bundle, which takes them in order: few batches are dealt with ahead.
                ahead = deque(pool.submit(keep, *batch) for batch in small[: 2 * threads])
                for number, batch in enumerate(small):
                    items = ahead.popleft().result()
                    ahead.extend(
                        pool.submit(keep, *later) for later in small[number + 2 * threads : number + 2 * threads + 1]
                    )
                    for index, item in zip(batch, items, strict=True):
                        kept[index] = item if item.last is None else self._bundles.add(item, item.last)
                self._bundles.end()
                for index, future in zip(large, futures, strict=True):
                    [kept[index]] = future.result()
            except BaseException as error:
                stop.set()
                pool.shutdown(cancel_futures=True)
                if error in errors:
                    raise errors[0] from None
                raise
        return [item if item.steps else _Kept(item.digest, self._bundles.stored[item.key]) for item in kept]

    def keep_large(self, value: SourceValue | HeldValue, origin: Origin) -> tuple[str, tuple[Step, ...]]:
        """The digest of a value of at least 64 KiB and the steps that rebuild it; from any thread."""
        kept = self._keep(value, origin)
        return kept.digest, kept.steps

    def find(self, value: Record) -> tuple[Step, ...]:
        """Steps that this machine vouches for and holds the objects of, a known manifest's if possible; or none.

        Those of the record itself are not looked at. Where the catalogue is new, nobody vouches for a known manifest:
        its steps must be seen to rebuild the value.
        """
        key = value.digest, value.dtype, value.shape
        vouched = self._depot.catalogue.find(*key)
        known = self._preferred.get(key, ())
        if known and self.holds(known) and (known in vouched or self._rebuilds(replace(value, store=known))):
            return known
        return next((steps for steps in vouched if self.holds(steps)), ())

    def _keep_batch(self, values: Sequence[tuple[SourceValue, Origin]]) -> list[_Kept]:
        kept = [self._keep(value, origin) for value, origin in values]
        self._progress(sum(value.size for value, _ in values))
        return kept

    def _keep(self, value: SourceValue | HeldValue, origin: Origin) -> _Kept:
        digest, held = digest_of(value)
        unchanged = origin.base is not None and origin.base.digest == digest
        found = origin.supplied is None or unchanged
        sought = Record(value.dtype, value.shape, value.size, digest, ()) if found else None
        steps = self.find(sought) if sought else ()
        if steps:
            return _Kept(digest, steps)
        if value.size < SMALL_BYTES and isinstance(held, HeldValue):
            payload = encode_small(held, compress=self._compress)
            last = self._small_update(held, digest, len(payload), origin) or Unstored((), DENSE.name, payload)
            return _Kept(digest, (), last, sought)
        steps = self._update(held, digest, origin)
        return _Kept(digest, steps or store_value(held, digest, self._depot.store, compress=self._compress))

    def _update(self, value: SourceValue | HeldValue, digest: str, origin: Origin) -> tuple[Step, ...]:
        """The steps by which the value comes of its base; none where they are not here, or not worth it."""
        base, supplied = origin.base, origin.supplied
        if base is None or not self._has_base(origin):
            return ()
        steps = None
        with _updating(origin):
            steps = store_update(value, digest, base, self._depot, supplied, origin.shared)
        return steps or ()

    def _small_update(self, value: HeldValue, digest: str, dense_size: int, origin: Origin) -> Unstored | None:
        """The same for a small value; none where there are so many that a look at their bases would take long."""
        base, supplied = origin.base, origin.supplied
        few = self._small_bases <= MAX_SMALL_BASES and value.size >= MIN_BASED_BYTES
        if base is None or not (few or supplied) or not self._has_base(origin):
            return None
        last = None
        with _updating(origin):
            last = encode_update(value, digest, dense_size, base, self._depot, supplied)
        return last  # noqa: RET504  # `_updating` may end the block

    def _has_base(self, origin: Origin) -> bool:
        """Whether the objects of the base are here; raises MissingObjectError where a supplied update needs them."""
        if origin.base is not None and self.holds(origin.base.store):
            return True
        if origin.supplied is not None:
            what = f"parameter '{shown(origin.name[:80])}'"
            raise MissingObjectError(f"{what}: the version before is not on this machine; run: git theta fetch")
        return False

    def holds(self, steps: Sequence[Step]) -> bool:
        """Whether all objects of these steps are here; they are made young, as what is taken into use."""
        for piece in (piece for step in steps for piece in step.pieces):
            if piece.oid not in self._here:
                # In this order, a concurrent prune either finds it young or has removed it before it is looked for.
                self._depot.store.freshen(piece.oid)
                self._here[piece.oid] = self._depot.store.has(piece.oid, piece.size)
        return all(self._here[piece.oid] for step in steps for piece in step.pieces)

    def _rebuilds(self, record: Record) -> bool:
        """Whether a record's steps give its value, as a look at every byte of its objects tells."""
        try:
            for _run in runs(record, self._depot.store):
                pass
        except (DataError, ManifestError, RepositoryError):
            return False
        return True


@contextmanager
def _updating(origin: Origin) -> Iterator[None]:
    """Around an update: errors name the parameter; a bug is logged, and the value is stored by itself."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"parameter '{shown(origin.name[:80])}': {error}") from error
    except (ThetaError, OSError, Interrupted):
        raise
    except Exception as error:  # noqa: BLE001  # no bug of an update, ours or a plugin's, keeps a file from being stored
        logging.getLogger(__name__).warning(
            "git-theta: an update failed on a value (%s: %s); storing it whole", type(error).__name__, error
        )


def _small_batches(values: Sequence[SourceValue]) -> list[list[int]]:
    """The small values' indexes in order, so many together that a thread has something to do."""
    batches: list[list[int]] = []
    room = 0
    for index, value in enumerate(values):
        if value.size < SMALL_BYTES:
            room -= value.size + _BATCH_BYTES // _BATCH
            if room < 0:
                batches.append([])
                room = _BATCH_BYTES
            batches[-1].append(index)
    return batches
