"""Compaction: values that are stored as chains of updates are stored whole, each in one step.

A chain costs time when it is rebuilt, and needs the objects of every version that it builds on. The values, and with
them every digest, stay what they are.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from git_theta.checkpoint import BUNDLE_BYTES, SMALL_BYTES
from git_theta.depot import Depot, spooled
from git_theta.manifest import Manifest, Record, Step
from git_theta.names import shown
from git_theta.rebuild import naming
from git_theta.updates.dense import DENSE
from git_theta.value import HeldValue, SourceValue, encode_small, held, runs, store_bundle, store_value

__all__ = ["chains", "compact", "stored_bytes"]

_BATCH = 256

_Key = tuple[str, str, tuple[int, ...], int]


def chains(manifest: Manifest) -> dict[str, Record]:
    """The parameters that are stored in more than one step."""
    return {name: record for name, record in manifest.parameters.items() if len(record.store) > 1}


def stored_bytes(records: Sequence[Record]) -> int:
    """Bytes of the payloads of these records, each counted once."""
    return sum(piece.length for piece in {piece for row in records for step in row.store for piece in step.pieces})


def compact(manifest: Manifest, depot: Depot, *, progress: Callable[[int], None] = lambda size_bytes: None) -> Manifest:
    """The same checkpoint with no chain in it, after storing what it needs.

    Every value is rebuilt and verified. `progress` is told of bytes of values dealt with, from several threads. Raises
    MissingObjectError, DamagedObjectError or ManifestError, naming the parameter, where one cannot be rebuilt; what was
    already stored stays.
    """
    found = chains(manifest)
    names = {_key(record): name for name, record in found.items()}
    stored = _Compactor(depot, progress).store({name: found[name] for name in names.values()})
    made = {name: replace(record, store=stored[names[_key(record)]]) for name, record in found.items()}
    depot.catalogue.vouch(made.values())
    return replace(manifest, parameters={**manifest.parameters, **made})


def _key(record: Record) -> _Key:
    return record.digest, record.dtype, record.shape, record.size


class _Compactor:
    """Stores values whole."""

    def __init__(self, depot: Depot, progress: Callable[[int], None]) -> None:
        self._depot = depot
        self._compress = depot.settings.compression != "none"
        self._progress = progress

    def store(self, records: dict[str, Record]) -> dict[str, tuple[Step, ...]]:
        """The one step of each value, by the name that it was given with."""
        large = [name for name, record in records.items() if record.size >= SMALL_BYTES]
        small = [name for name, record in records.items() if record.size < SMALL_BYTES]
        with ThreadPoolExecutor(self._depot.settings.thread_count) as pool:
            try:
                futures = [pool.submit(self._store_large, name, records[name]) for name in large]
                payloads = (
                    (name, payload)
                    for start in range(0, len(small), _BATCH)
                    for name, payload in zip(
                        small[start : start + _BATCH],
                        pool.map(lambda name: self._payload(name, records[name]), small[start : start + _BATCH]),
                        strict=True,
                    )
                )
                steps = dict(self._bundled(payloads))
                return steps | {name: future.result() for name, future in zip(large, futures, strict=True)}
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _store_large(self, name: str, record: Record) -> tuple[Step, ...]:
        with naming(f"parameter '{shown(name)}'"):
            data = held(record, self._depot.store)
            if data is not None:
                steps = self._dense(HeldValue(data, record.dtype, record.shape), record)
            else:
                with spooled(self._depot, runs(record, self._depot.store), (), record.size) as source:
                    steps = self._dense(SourceValue(source, 0, record.size, record.dtype, record.shape), record)
        self._progress(record.size)
        return steps

    def _dense(self, value: HeldValue | SourceValue, record: Record) -> tuple[Step, ...]:
        return store_value(value, record.digest, self._depot.store, compress=self._compress)

    def _payload(self, name: str, record: Record) -> bytes:
        with naming(f"parameter '{shown(name)}'"):
            data = b"".join(runs(record, self._depot.store))
        self._progress(record.size)
        return encode_small(HeldValue(memoryview(data), record.dtype, record.shape), compress=self._compress)

    def _bundled(self, payloads: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, tuple[Step, ...]]]:
        """The steps of small values, whose payloads share objects."""
        limit = min(BUNDLE_BYTES, self._depot.settings.max_object_bytes)
        waiting: dict[str, bytes] = {}
        room = limit
        for name, payload in payloads:
            if len(payload) > room:
                yield from self._bundle(waiting)
                waiting, room = {}, limit
            waiting[name] = payload
            room -= len(payload)
        yield from self._bundle(waiting)

    def _bundle(self, payloads: dict[str, bytes]) -> Iterator[tuple[str, tuple[Step, ...]]]:
        places = store_bundle([*payloads.values()], self._depot.store)
        for name, pieces in zip(payloads, places, strict=True):
            yield name, (Step(DENSE.name, pieces),)
