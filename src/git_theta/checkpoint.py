"""Taking a checkpoint in: a file becomes a manifest and objects. `rebuild.py` is the reverse.

Each value is read once, or twice if it is large and new, in threads; only values that this machine does not already
vouch for are stored. A few chunks per thread are in memory, whatever the size of the file.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from git_theta import layout as layouts
from git_theta import plugins
from git_theta.choice import store_update
from git_theta.depot import Depot
from git_theta.errors import ConfigError, DataError, FormatError, ManifestError, RepositoryError, ThetaError
from git_theta.formats.base import HEAD_SIZE_BYTES, Span
from git_theta.layout import Layout
from git_theta.manifest import MAX_PIECES, Manifest, Piece, Record, Step, is_word
from git_theta.source import BytesSource, Source
from git_theta.tensor import OPAQUE
from git_theta.updates.dense import DENSE
from git_theta.value import HeldValue, SourceValue, digest_of, encode_small, runs, store_value

__all__ = ["Interrupted", "segment", "take", "whole_digest"]

SMALL_BYTES = 2**16
BUNDLE_BYTES = 32 * 2**20
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
    progress: Callable[[int], None] = lambda size_bytes: None,
    stop: threading.Event | None = None,
) -> Manifest:
    """The manifest of a checkpoint, after storing what is new in it.

    A value that stands in one of the `known` manifests keeps that record, if the catalogue vouches for it: equal
    content has equal text. `progress` is told of bytes dealt with, from several threads. Raises ChangedError if the
    source changed meanwhile, SpaceError on a full disk, and Interrupted once `stop` is set; objects already written
    stay, whole.
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
    records_by_name = {name: record for manifest in known for name, record in manifest.parameters.items()}
    bases = [*(records_by_name.get(span.name) for span in spans), None]
    kept = _Intake(depot, known, progress).keep(values, bases, watched.stop)
    rows = zip(spans, kept, strict=False)  # the layout, which is last, has no span
    records = {
        span.name: Record(span.dtype, span.shape, span.size, item.digest, item.steps, span.strides, span.views)
        for span, item in rows
    }
    layout_record = Record(OPAQUE, (len(text),), len(text), kept[-1].digest, kept[-1].steps)
    depot.catalogue.vouch([layout_record, *records.values()])
    return Manifest(name, source.size, whole_digest(layout_record, layout, records), layout_record, records)


def whole_digest(layout_record: Record, layout: Layout, records: Mapping[str, Record]) -> str:
    """BLAKE3-256 over the layout's digest and those of the parameters in file order: it stands for the file's bytes."""
    from blake3 import blake3

    named = [part.name for part in layout.parts if part.name is not None]
    return blake3(bytes.fromhex("".join([layout_record.digest, *(records[name].digest for name in named)]))).hexdigest()


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
class _Kept:
    """A value dealt with: its digest, and its steps or, without any, the payload that is still to be bundled."""

    digest: str
    steps: tuple[Step, ...] = ()
    payload: bytes = b""


class _Intake:
    """Keeps the values of one checkpoint."""

    def __init__(self, depot: Depot, known: Sequence[Manifest], progress: Callable[[int], None]) -> None:
        self._depot = depot
        self._compress = depot.settings.compression != "none"
        self._progress = progress
        self._preferred = {
            (record.digest, record.dtype, record.shape): record.store
            for manifest in reversed(known)
            for record in manifest.records()
        }
        self._here: dict[str, bool] = {}
        self._payloads: dict[str, bytes] = {}
        self._payload_bytes = 0
        self._bundled: dict[str, tuple[Step, ...]] = {}

    def keep(self, values: Sequence[SourceValue], bases: Sequence[Record | None], stop: threading.Event) -> list[_Kept]:
        """What became of each value, given with what it may build on.

        Large ones begin first, so that no thread ends long after the others.
        """
        errors: list[BaseException] = []

        def keep(*batch: int) -> list[_Kept]:
            try:
                return self._keep_batch([(values[index], bases[index]) for index in batch])
            except BaseException as error:
                errors.append(error)
                stop.set()
                raise

        kept: list[_Kept] = [_Kept("")] * len(values)
        large = sorted(
            (i for i, value in enumerate(values) if value.size >= SMALL_BYTES), key=lambda i: -values[i].size
        )
        small = _small_batches(values)
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
                        kept[index] = item if item.steps else self._bundle(item)
                self._end_bundle()
                for index, future in zip(large, futures, strict=True):
                    [kept[index]] = future.result()
            except BaseException as error:
                stop.set()
                pool.shutdown(cancel_futures=True)
                if error in errors:
                    raise errors[0] from None
                raise
        return [item if item.steps else _Kept(item.digest, self._bundled[item.digest]) for item in kept]

    def _keep_batch(self, values: Sequence[tuple[SourceValue, Record | None]]) -> list[_Kept]:
        kept = [self._keep(value, base) for value, base in values]
        self._progress(sum(value.size for value, _ in values))
        return kept

    def _keep(self, value: SourceValue, base: Record | None) -> _Kept:
        digest, held = digest_of(value)
        steps = self._find(digest, value)
        if steps:
            return _Kept(digest, steps)
        if value.size < SMALL_BYTES and isinstance(held, HeldValue):
            return _Kept(digest, payload=encode_small(held, compress=self._compress))
        steps = self._update(held, digest, base) if base is not None else ()
        return _Kept(digest, steps or store_value(held, digest, self._depot.store, compress=self._compress))

    def _update(self, value: SourceValue | HeldValue, digest: str, base: Record) -> tuple[Step, ...]:
        """The steps by which the value comes of its base; none where they are not here, or not worth it."""
        try:
            return (self._holds(base.store) and store_update(value, digest, base, self._depot)) or ()
        except (ThetaError, OSError, Interrupted):
            raise
        except Exception as error:  # noqa: BLE001  # no bug of an update, ours or a plugin's, keeps a file from being stored
            logging.getLogger(__name__).warning(
                "git-theta: an update failed on a value (%s: %s); storing it whole", type(error).__name__, error
            )
            return ()

    def _find(self, digest: str, value: SourceValue) -> tuple[Step, ...]:
        """Steps that this machine vouches for and holds the objects of, a known manifest's if possible; or none.

        Where the catalogue is new, nobody vouches for a known manifest: its steps must be seen to rebuild the value.
        """
        vouched = self._depot.catalogue.find(digest, value.dtype, value.shape)
        preferred = self._preferred.get((digest, value.dtype, value.shape), ())
        if preferred and self._holds(preferred) and (preferred in vouched or self._rebuilds(preferred, digest, value)):
            return preferred
        return next((steps for steps in vouched if self._holds(steps)), ())

    def _holds(self, steps: Sequence[Step]) -> bool:
        """Whether all objects of these steps are here."""
        for piece in (piece for step in steps for piece in step.pieces):
            if piece.oid not in self._here:
                # In this order, a concurrent prune either finds it young or has removed it before it is looked for.
                self._depot.store.freshen(piece.oid)
                self._here[piece.oid] = self._depot.store.has(piece.oid, piece.size)
        return all(self._here[piece.oid] for step in steps for piece in step.pieces)

    def _rebuilds(self, steps: tuple[Step, ...], digest: str, value: SourceValue) -> bool:
        """Whether these steps give the value, as a look at every byte of its objects tells."""
        try:
            for _run in runs(Record(value.dtype, value.shape, value.size, digest, steps), self._depot.store):
                pass
        except (DataError, ManifestError, RepositoryError):
            return False
        return True

    def _bundle(self, item: _Kept) -> _Kept:
        """Put the payload of a small value among those of the next shared object; the item is left without it."""
        if item.digest not in self._bundled and item.digest not in self._payloads:
            limit = min(BUNDLE_BYTES, self._depot.settings.max_object_bytes)
            if self._payload_bytes + len(item.payload) > limit:
                self._end_bundle()
            self._payloads[item.digest] = item.payload
            self._payload_bytes += len(item.payload)
        return _Kept(item.digest)

    def _end_bundle(self) -> None:
        """Write the shared object."""
        with self._depot.store.writer() as writer:
            for payload in self._payloads.values():
                writer.write(payload)
            pieces = writer.finish()
        offset = 0
        for digest, payload in self._payloads.items():
            held = (Piece(pieces[0].oid, pieces[0].size, offset, len(payload)),) if payload else ()
            self._bundled[digest] = (Step(DENSE.name, held),)
            offset += len(payload)
        self._payloads.clear()
        self._payload_bytes = 0


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
