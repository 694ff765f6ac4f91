"""Taking a checkpoint in: a file becomes a manifest and objects. `rebuild.py` is the reverse.

Each value is read once, or twice if it is large and new, in threads; only values that this machine does not already
vouch for are stored. A few chunks per thread are in memory, whatever the size of the file.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from git_theta import layout as layouts
from git_theta import plugins
from git_theta.depot import Depot
from git_theta.errors import FormatError, ThetaError
from git_theta.formats.base import HEAD_SIZE_BYTES, Span
from git_theta.layout import Layout
from git_theta.manifest import Manifest, Piece, Record, Step
from git_theta.source import BytesSource, Source
from git_theta.tensor import OPAQUE
from git_theta.updates.dense import DENSE
from git_theta.value import HeldValue, SourceValue, digest_of, encode_small, store_value

__all__ = ["Interrupted", "segment", "take", "whole_digest"]

SMALL_BYTES = 2**16
BUNDLE_BYTES = 32 * 2**20
_BATCH = 256


class Interrupted(Exception):
    """The caller set `stop` while a checkpoint was being taken in."""


def segment(source: Source) -> tuple[str, tuple[Span, ...]]:
    """The name of the first format that reads the file, and spans that `layout.cover` made; "opaque" if none does."""
    head = source.read(0, HEAD_SIZE_BYTES)
    for candidate in plugins.formats():
        try:
            if candidate.accepts(head):
                return candidate.name, layouts.cover(candidate.spans(source), source.size)
        except FormatError:
            continue
        except (ThetaError, OSError, Interrupted):
            raise
        except Exception:  # noqa: BLE001, S112  # no bug of a format, ours or a plugin's, keeps a file from being stored
            continue
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

    A value that stands in one of the `known` manifests keeps that record, if the catalogue vouches for it: equal content
    has equal text. `progress` is told of bytes dealt with, from several threads. Raises ChangedError if the source
    changed meanwhile, SpaceError on a full disk, and Interrupted once `stop` is set; objects already written stay, whole.
    """
    watched = _Watched(source, stop or threading.Event())
    name, spans = segment(watched)
    layout = layouts.build(spans, watched)
    text = layouts.format(layout)
    values = [SourceValue(watched, span.offset, span.size, span.dtype, span.shape) for span in spans]
    values.append(SourceValue(BytesSource(text), 0, len(text), OPAQUE, (len(text),)))
    kept = _Intake(depot, known, progress).keep(values, watched.stop)
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

    def keep(self, values: Sequence[SourceValue], stop: threading.Event) -> list[_Kept]:
        """What became of each value; large ones begin first, so that no thread ends long after the others."""
        small = [index for index, value in enumerate(values) if value.size < SMALL_BYTES]
        large = [index for index, value in enumerate(values) if value.size >= SMALL_BYTES]
        large.sort(key=lambda index: -values[index].size)
        batches = [[index] for index in large]
        batches += [small[start : start + _BATCH] for start in range(0, len(small), _BATCH)]
        with ThreadPoolExecutor(self._depot.settings.thread_count) as pool:
            futures = [pool.submit(self._keep_batch, [values[index] for index in batch]) for batch in batches]
            try:
                _wait(futures)
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        kept: list[_Kept] = [_Kept("")] * len(values)
        for batch, future in zip(batches, futures, strict=True):
            for index, item in zip(batch, future.result(), strict=True):
                kept[index] = item
        bundled = self._bundle(kept)
        return [item if item.steps else _Kept(item.digest, bundled[item.digest]) for item in kept]

    def _keep_batch(self, values: Sequence[SourceValue]) -> list[_Kept]:
        kept = [self._keep(value) for value in values]
        self._progress(sum(value.size for value in values))
        return kept

    def _keep(self, value: SourceValue) -> _Kept:
        digest, held = digest_of(value)
        steps = self._find(digest, value)
        if steps:
            return _Kept(digest, steps)
        if value.size < SMALL_BYTES and isinstance(held, HeldValue):
            return _Kept(digest, payload=encode_small(held, compress=self._compress))
        return _Kept(digest, store_value(held, digest, self._depot.store, compress=self._compress))

    def _find(self, digest: str, value: SourceValue) -> tuple[Step, ...]:
        """Steps that this machine vouches for and holds the objects of, a known manifest's if possible; or none."""
        vouched = self._depot.catalogue.find(digest, value.dtype, value.shape)
        preferred = self._preferred.get((digest, value.dtype, value.shape))
        for steps in sorted(vouched, key=lambda steps: steps != preferred):
            if all(self._holds(piece) for step in steps for piece in step.pieces):
                return steps
        return ()

    def _holds(self, piece: Piece) -> bool:
        if piece.oid not in self._here:
            self._here[piece.oid] = self._depot.store.has(piece.oid, piece.size)
        return self._here[piece.oid]

    def _bundle(self, kept: Iterable[_Kept]) -> dict[str, tuple[Step, ...]]:
        """Write the payloads of small values as shared objects; the steps of each, by digest."""
        payloads = {item.digest: item.payload for item in kept if not item.steps}
        bundles: list[list[str]] = [[]]
        room = limit = min(BUNDLE_BYTES, self._depot.settings.max_object_bytes)
        for digest, payload in payloads.items():
            if len(payload) > room:
                bundles.append([])
                room = limit
            bundles[-1].append(digest)
            room -= len(payload)
        steps: dict[str, tuple[Step, ...]] = {}
        for digests in bundles:
            steps |= self._write_bundle({digest: payloads[digest] for digest in digests})
        return steps

    def _write_bundle(self, payloads: Mapping[str, bytes]) -> dict[str, tuple[Step, ...]]:
        with self._depot.store.writer() as writer:
            writer.write(b"".join(payloads.values()))
            pieces = writer.finish()
        steps: dict[str, tuple[Step, ...]] = {}
        offset = 0
        for digest, payload in payloads.items():
            held = (Piece(pieces[0].oid, pieces[0].size, offset, len(payload)),) if payload else ()
            steps[digest] = (Step(DENSE.name, held),)
            offset += len(payload)
        return steps


def _wait(futures: Sequence[Future[list[_Kept]]]) -> None:
    """Wait for all, or raise the first error as soon as there is one."""
    for future in wait(futures, return_when=FIRST_EXCEPTION).done:
        future.result()
