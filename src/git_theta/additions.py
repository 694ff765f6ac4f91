"""An add of ours: updates that the user brought are applied to a checkpoint, or found in it, and staged.

Everything is stored, written beside its place and verified before the index and the file at the path are touched; what
fails leaves both as they were.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from git_theta import manifest, tracked, worktree
from git_theta.errors import ChangedError, InputError, MissingObjectError
from git_theta.formats.base import Span
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest
from git_theta.names import shown, shown_path
from git_theta.source import FileSource, Stamp
from git_theta.tracked import FILTER
from git_theta.updates.base import Supplied
from git_theta.worktree import Presence

if TYPE_CHECKING:
    from git_theta.depot import Depot

__all__ = ["Addition", "Begin", "add"]

Begin = Callable[[str], Callable[[int], None]]
"""Told what begins; gives the function that is told of bytes done, twice those of the file in all."""


@dataclass(frozen=True, slots=True)
class Addition:
    """What was staged: the updated parameters, those of them that are stored whole all the same, as the steps behind
    them are too many or too large, and whether the file in the worktree was written.
    """

    parameters: tuple[str, ...]
    whole: tuple[str, ...]
    written: bool


@dataclass(frozen=True, slots=True)
class _Work:
    """One checkpoint on its way: what Git has at its path, and what is brought for it."""

    repository: Repository
    depot: "Depot"
    path: bytes
    place: Path
    entry: IndexEntry | None
    known: Sequence[Manifest]
    supplied: Mapping[str, Supplied]

    @property
    def base(self) -> Manifest:
        return self.known[-1]


@dataclass(frozen=True, slots=True)
class _Cut:
    """An open checkpoint file, and where its parameters lie."""

    source: FileSource
    format: str
    spans: tuple[Span, ...]


def add(
    repository: Repository,
    path: bytes,
    depot: "Depot",
    update: str,
    brought: Path,
    expected: Path | None = None,
    begin: Begin = lambda label: lambda size_bytes: None,
) -> Addition:
    """Stage a checkpoint by the updates of a kind that a file or a PEFT adapter brings.

    Where the file at the path has the base's values, the updates are applied and the file is written anew, or made the
    `expected` one. Where it has others, they are what the updates are to give. The base is what HEAD has at the path,
    or else the index. Raises InputError for whatever does not fit, with nothing staged and nothing written.
    """
    from git_theta import supply

    if expected is not None and not expected.is_file():
        raise InputError(f"{shown_path(str(expected))}: no such file")
    place, entry, known = _find(repository, path)
    worktree.check_objects(known[-1], depot.store)
    work = _Work(repository, depot, path, place, entry, known, supply.read(brought, update, known[-1]))
    with _cut(place, "the file") as here:
        differing = _differing(work, here)
        if differing and expected is not None:
            raise InputError(f"parameter '{shown(differing[0])}' is not the base's; put the base there first")
        made = _store(work, here, begin) if differing else None
    made = made or _write(work, here.source.stamp, expected, begin)
    names = tuple(sorted(work.supplied))
    whole = tuple(name for name in names if len(made.parameters[name].store) == 1)
    return Addition(names, whole, written=not differing)


def _find(repository: Repository, path: bytes) -> tuple[Path, IndexEntry | None, list[Manifest]]:
    """The place of a tracked checkpoint, its entry in the index, and what the index and HEAD have, the base last."""
    place = worktree.locate(repository, path)
    if repository.attributes([path], "filter")[path] != FILTER:
        raise InputError("it is not tracked; run: git theta track PATH")
    if path in repository.unmerged():
        raise InputError("it is in conflict; take a side first: git checkout --ours (or --theirs) -- PATH")
    match worktree.look(place):
        case Presence.MISSING:
            raise InputError("there is no such file")
        case Presence.MANIFEST:
            raise MissingObjectError("its manifest lies in its place; run: git theta pull")
    entry = next((row for row in repository.index([path]) if row.path == path), None)
    oids = [*([entry.oid] if entry else []), repository.blob_at("HEAD", path)]
    blobs = repository.blobs([oid for oid in dict.fromkeys(oids) if oid], MAX_MANIFEST_BYTES)
    found = [tracked.read(blobs[oid])[1] for oid in oids if oid in blobs]
    known = [row for row in found if row is not None]
    if not known:
        raise InputError("neither HEAD nor the index has a checkpoint of it to build on; add and commit the base first")
    return place, entry, known


@contextmanager
def _cut(path: Path, name: str) -> Iterator[_Cut]:
    """A checkpoint file, opened; errors call it by `name`."""
    from git_theta.checkpoint import segment

    fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        source = FileSource(fd, name)
        yield _Cut(source, *segment(source))
    finally:
        os.close(fd)


def _differing(work: _Work, cut: _Cut) -> list[str]:
    """Those of the parameters to be updated that are not the base's values."""
    from git_theta.value import SourceValue, digest_of

    here = {span.name: span for span in cut.spans}

    def differs(name: str) -> bool:
        span, record = here.get(name), work.base.parameters[name]
        if span is None or (span.dtype, span.shape, span.strides) != (record.dtype, record.shape, record.strides):
            return True
        value = SourceValue(cut.source, span.offset, span.size, span.dtype, span.shape)
        return digest_of(value)[0] != record.digest

    with ThreadPoolExecutor(work.depot.settings.thread_count) as pool:
        return [name for name, answer in zip(work.supplied, pool.map(differs, work.supplied), strict=True) if answer]


def _check_kinds(work: _Work, cut: _Cut, where: str) -> None:
    """Raise InputError unless the parameters to be updated are in a file, each of the kind that the base has."""
    here = {span.name: span for span in cut.spans}
    for name in work.supplied:
        span, record = here.get(name), work.base.parameters[name]
        if span is None:
            raise InputError(f"parameter '{shown(name)}' is not in {where}")
        if (span.dtype, span.shape, span.strides) != (record.dtype, record.shape, record.strides):
            kinds = [f"{kind.dtype} {list(kind.shape)}" for kind in (span, record)]
            raise InputError(f"parameter '{shown(name)}' is {kinds[0]} in {where}, and {kinds[1]} in the base")


def _store(work: _Work, here: _Cut, begin: Begin) -> Manifest:
    """Stage the checkpoint that lies in the file's place."""
    _check_kinds(work, here, "the file")
    progress = begin(f"storing {shown_path(work.path)}")
    made = _take(work, here.source, lambda size_bytes: progress(2 * size_bytes))
    _stage(work, made, here.source)
    return made


def _write(work: _Work, seen: Stamp, expected: Path | None, begin: Begin) -> Manifest:
    """Put the new checkpoint in the file's place, and stage it: the `expected` one, or what the updates make."""
    status = work.place.stat()
    worktree.check_space([(work.place, status.st_size if expected is None else expected.stat().st_size)])
    folder = work.depot.store.root / "tmp"
    with suppress(OSError):
        work.depot.store.sharing.make_folder(folder)
    staged: IndexEntry | None = None
    with ExitStack() as after:
        try:
            with worktree.replacing(work.place, worktree.file_mode(False), folder) as fd:
                with _cut(expected or work.place, "the expected file" if expected else "the file") as given:
                    progress = begin(f"writing {shown_path(work.path)}")
                    _fill(work, fd, given, progress, applied=expected is None)
                if hasattr(os, "fchmod"):
                    os.fchmod(fd, stat.S_IMODE(status.st_mode))
                source = FileSource(fd, "the new file")
                made = _take(work, source, begin(f"storing {shown_path(work.path)}"))
                new = _entry(work, made)
                source.check_unchanged()
                if worktree.stamp(work.place) != seen:
                    raise ChangedError("it was written to meanwhile, and is left as it is; run this again")
                note = after.enter_context(worktree.settling(work.repository, [new]))
                staged = new
        except BaseException:
            if staged is not None:
                work.repository.forget_stat([work.entry or IndexEntry(work.path, "0", "0" * len(staged.oid))])
            raise
        note(new, work.place, source.stamp)
    return made


def _fill(work: _Work, fd: int, given: _Cut, progress: Callable[[int], None], *, applied: bool) -> None:
    """Fill the new file with what is given, after the updates are `applied` to it, or as it is."""
    from git_theta import splice

    if applied:
        values = {name: _applying(work, name) for name in work.supplied}
        splice.write(given.source, given.format, given.spans, values, fd, progress)
    else:
        _check_kinds(work, given, "the expected file")
        splice.copy(given.source, fd, progress)
    given.source.check_unchanged()


def _applying(work: _Work, name: str) -> Callable[[], Iterator[bytes | memoryview]]:
    """A function that gives the value that an update makes of its base."""
    from git_theta import value
    from git_theta.updates.stream import Stream

    def runs() -> Iterator[bytes | memoryview]:
        record = work.base.parameters[name]
        base = Stream(record.dtype, record.shape, record.size, value.runs(record, work.depot.store))
        yield from work.supplied[name].apply(base)
        base.finish()

    return runs


def _take(work: _Work, source: FileSource, progress: Callable[[int], None]) -> Manifest:
    """The manifest of a file, after storing it by the updates; raises InputError where they do not give it."""
    from git_theta import checkpoint

    return checkpoint.take(source, work.depot, work.known, supplied=work.supplied, progress=progress)


def _stage(work: _Work, made: Manifest, source: FileSource) -> None:
    """Have the index say that the file at the path is this manifest's."""
    new = _entry(work, made)
    if worktree.stamp(work.place) != source.stamp:
        raise ChangedError("it was written to while it was read; run this again")
    with worktree.settling(work.repository, [new]) as note:
        note(new, work.place, source.stamp)


def _entry(work: _Work, made: Manifest) -> IndexEntry:
    """The entry of the index for a manifest, which is written into the object database."""
    if work.entry is not None:
        mode = work.entry.mode
    else:
        mode = "100755" if work.place.stat().st_mode & stat.S_IXUSR else "100644"
    return IndexEntry(work.path, mode, work.repository.write_blob(manifest.format(made)))
