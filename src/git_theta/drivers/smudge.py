"""Smudge: the manifest that Git stores becomes the checkpoint that it writes (design.md, "The way of the data").

Git is sent the true bytes or an error, never anything in between; but for a large checkpoint that is put into the
worktree past Git, which is sent the manifest in its place (`delivery`). Content that is no manifest passes through: it
was committed before its path was tracked.
"""

import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property

from git_theta import manifest, rebuild, worktree
from git_theta.arrivals import Arrivals
from git_theta.depot import Depot, spooled
from git_theta.drivers import caller
from git_theta.drivers.delivery import Delivery
from git_theta.drivers.meter import Meter
from git_theta.errors import ManifestError, MissingObjectError, ThetaError
from git_theta.git import Repository
from git_theta.manifest import Manifest
from git_theta.names import shown, shown_path

__all__ = ["Smudger"]

_BLOCK_BYTES = 2**20
_PATIENCE = 100
_INTERVAL_S = 0.05

Runs = Iterator[bytes | memoryview]


class Smudger:
    """Turns manifests into content for one repository."""

    def __init__(self, repository: Repository, depot: Depot, delivery: Delivery) -> None:
        self._repository = repository
        self._depot = depot
        self._delivery = delivery
        self._unmerged: set[bytes] | None = None
        self.unanswered: set[str] = set()  # delayed, and the content not sent yet: Git has removed what lay there
        self._delayed: dict[str, tuple[bytes, Manifest | None]] = {}  # None: it cannot be used, which is said later
        self._unannounced: list[str] = []
        self._asked: set[str] = set()  # those whose objects a remote was asked for
        self._arrivals: Arrivals | None = None

    def smudge(
        self,
        path: str,
        packets: Runs,
        *,
        can_delay: bool,
        for_diff: Callable[[], bool] = lambda: False,
    ) -> Runs | None:
        """The content for Git, whose request is in `packets`, all of which is read; None to be asked again later.

        `for_diff` tells whether a manifest is left as it is, for our diff driver, which needs no more.
        What is wrong with a manifest is raised here, a missing or damaged object while the runs are taken.
        """
        head = bytearray()
        for packet in packets:
            head += packet
            if manifest.is_too_long_to_hold(head):
                return self._pass_through(bytes(head), packets)
        text, found = bytes(head), None
        delayed = not text and path in self._delayed
        if delayed:
            text, found = self._delayed.pop(path)
        else:
            if self._depot.settings.skip_smudge or not manifest.looks_like(text) or for_diff():
                return iter([text])
            if can_delay and not self._merges_again and not self._is_unmerged(path):
                self._delayed[path] = text, _usable(text)
                self.unanswered.add(path)
                self._unannounced.append(path)
                self._asked.discard(path)
                return None
            found = _parse(text)
            self._fetch([found])
        found = found or _parse(text)
        # Where Git has turned line ends (`eol=crlf`), the text is no longer that of the blob, as the index knows it.
        if delayed and b"\r" not in text and self._delivery.takes(found.size):
            self._deliver(path, text, found)
            self.unanswered.discard(path)
            return iter([text])
        limit = self._depot.settings.smudge_limit
        if found.size > limit:
            self.unanswered.discard(path)
            sys.stderr.write(
                f"git-theta: {shown_path(path)}: {found.size} bytes are more than Git should hold in memory ({limit}); "
                f"left as a manifest; run: git theta pull -- {shlex.quote(shown_path(path))}\n"
            )
            return iter([text])
        return self._rebuilt(path, found)

    def available(self) -> list[str]:
        """The delayed paths that Git may ask for now and has not been told of; empty when there are no more.

        What they lack is fetched, all in one call; whichever path has its objects goes first, and one that is left
        alone is rebuilt while they come. Git gives up at the first file that fails: those that are known to fail are
        kept back until it has the others.
        """
        paths, self._unannounced = self._unannounced, []
        if not paths:
            self._delivery.watch()
            return []
        manifests = {path: found for path in paths if (found := self._delayed.get(path, (b"", None))[1])}
        self._fetch(found for path, found in manifests.items() if path not in self._asked)
        self._asked.update(paths)
        if len(paths) < 2:
            return paths
        fit: set[str] = set()
        for path, found in manifests.items():
            # Those that need no waiting come along with the first.
            if self._arrivals and not fit:
                self._arrivals.wait(found.objects())
            if self._is_fit(found):
                fit.add(path)
        if fit:
            self._unannounced = [path for path in paths if path not in fit]
        return [path for path in paths if path in fit] or paths

    def close(self) -> None:
        """Leave nothing running."""
        for _ in range(_PATIENCE):  # git-lfs may be about to start, and the next remote asked after it
            if self._arrivals is None or self._arrivals.is_over:
                return
            from git_theta import lfs

            lfs.stop()
            self._arrivals.finish(_INTERVAL_S)

    @cached_property
    def _merges_again(self) -> bool:
        """Whether `git checkout -m` runs: Git 2.39 crashes where it merges a settled file again and that is delayed."""
        return caller.merges_again(caller.started_by())

    def _is_unmerged(self, path: str) -> bool:
        """Whether a path is in conflict, as it may be where Git checks out one of the sides.

        Git 2.39 notes a delayed file's time and size in the entry of any side, takes that side for what lies there, and
        the next `git checkout --ours` or `--theirs` writes nothing. So such a file is not delayed.
        """
        if self._unmerged is None:
            self._unmerged = self._repository.unmerged() if self._repository.worktree else set()
        return os.fsencode(path) in self._unmerged

    def _is_fit(self, found: Manifest) -> bool:
        """Whether a checkpoint can be rebuilt, as far as its layout and the names of its objects tell."""
        try:
            worktree.check_objects(found, self._depot.store)
            rebuild.read_layout(found, self._depot)
        except ThetaError:
            return False
        return True

    def _fetch(self, manifests: Iterable[Manifest]) -> None:
        """Begin to fetch what manifests lack. Why that fails is said once; the files that suffer say so themselves."""
        objects: dict[str, int] = {}
        for found in manifests:
            if found.size <= self._depot.settings.smudge_limit or self._delivery.takes(found.size):
                objects |= found.objects()
        if not self._depot.store.missing(objects):
            return
        from git_theta import transfer

        if self._arrivals:
            self._arrivals.finish()
        sources = transfer.remotes(self._repository)
        if not sources:
            return

        def fetch(begun: Callable[[], None]) -> None:
            try:
                transfer.fetch(self._repository, objects, self._depot.store, sources=sources, meanwhile=begun)
            except ThetaError as error:
                sys.stderr.write(f"git-theta: {error}\n")

        self._arrivals = Arrivals(fetch, self._depot.store)
        # Not earlier: threads that wait for the disk would wait for the import as well.
        threading.Thread(target=_import_early, daemon=True).start()

    def _deliver(self, path: str, text: bytes, found: Manifest) -> None:
        """Have a checkpoint ready, of which what is missing may be on its way, to be put past Git to its place."""
        depot = self._depot_for(found)
        with self._naming_missing(found), Meter(shown(path), found.size) as meter:
            self._delivery.prepare(path, text, found, depot, lambda size_bytes: self._show(meter, size_bytes))

    def _rebuilt(self, path: str, found: Manifest) -> Runs:
        """The runs of a checkpoint, of which what is missing may be on its way; raises early what is known early."""
        depot = self._depot_for(found)
        return self._metered(path, found, rebuild.runs(found, rebuild.read_layout(found, depot), depot))

    def _depot_for(self, found: Manifest) -> Depot:
        """Where to read a checkpoint's objects; raises MissingObjectError where one is missing that will not come."""
        if self._arrivals and not self._arrivals.is_over:
            return replace(self._depot, store=self._arrivals.store)
        worktree.check_objects(found, self._depot.store)
        return self._depot

    def _metered(self, path: str, found: Manifest, runs: Runs) -> Runs:
        with self._naming_missing(found), Meter(shown(path), found.size) as meter:
            for run in runs:
                yield run
                self._show(meter, len(run))
        self.unanswered.discard(path)
        self._depot.catalogue.vouch(found.records())

    def _show(self, meter: Meter, size_bytes: int) -> None:
        """Show that so much more is done, but where git-lfs shows how far it has come in the same place."""
        meter.add(size_bytes, quiet=self._arrivals is not None and not self._arrivals.is_over)

    @contextmanager
    def _naming_missing(self, found: Manifest) -> Iterator[None]:
        """Name the parameter of an object that has not come after all, and what to do."""
        try:
            yield
        except MissingObjectError:
            worktree.check_objects(found, self._depot.store)
            raise

    def _pass_through(self, head: bytes, packets: Runs) -> Runs:
        """The content as it came; Git wants all of its request read before the answer begins."""

        def echo() -> Runs:
            with spooled(self._depot, [head], packets) as spool:
                yield b""
                for offset in range(0, spool.size, _BLOCK_BYTES):
                    yield spool.read(offset, _BLOCK_BYTES)

        runs = echo()
        next(runs)
        return runs


def _import_early() -> None:
    """Import what rebuilding will need, while git-lfs waits for the network."""
    import blake3  # noqa: F401
    import numpy as np  # noqa: F401
    import zstandard  # noqa: F401


def _usable(text: bytes) -> Manifest | None:
    """The manifest; None where it cannot be used."""
    with suppress(ManifestError):
        return manifest.parse(text)
    return None


def _parse(text: bytes) -> Manifest:
    try:
        return manifest.parse(text)
    except ManifestError as error:
        if manifest.has_conflict_markers(text):
            raise ManifestError(
                "its manifest has conflict markers; take a side: git checkout --ours (or --theirs) -- PATH; or, if "
                "they were committed, take one from before: git checkout COMMIT -- PATH"
            ) from error
        raise ManifestError(f"its manifest cannot be used: {error}") from error
