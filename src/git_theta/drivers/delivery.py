"""Checkpoints put into the worktree past Git, as it ends (docs/design/013-delivery.md).

Git takes all that a filter sends it into memory, and only then writes it to the disk. So a large checkpoint is rebuilt
and verified in a file of its own, Git is sent the manifest, and when it closes the pipe the file takes the manifest's
place and the index notes it. "Git will close the command pipe on exit. The filter is expected to detect EOF and exit
gracefully on its own. Git will wait until the filter process has stopped." (gitattributes(5)): so whoever comes after
Git finds the checkpoint. Where somebody may look before, the checkpoint goes through Git.
"""

import os
import re
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from git_theta import hooks, indexfile, worktree
from git_theta.depot import Depot
from git_theta.drivers import caller
from git_theta.errors import RepositoryError, ThetaError
from git_theta.git import MAX_ARGUMENTS, IndexEntry, Repository
from git_theta.manifest import Manifest
from git_theta.names import shown_path
from git_theta.source import Stamp, stamp_of

__all__ = ["Delivery"]

# Commands that end once they have written the worktree, and the hooks that they may run before. A rebase is not one of
# them: it looks at the worktree again for each commit, and may run commands of the user's in between.
_HOOKS: Mapping[str | None, tuple[str, ...]] = {
    "checkout": ("post-checkout",),
    "clone": ("post-checkout",),
    "merge": ("pre-merge-commit", "prepare-commit-msg", "commit-msg", "post-merge"),
    "reset": (),
    "restore": ("post-checkout",),
    "stash": (),
    "switch": ("post-checkout",),
}
_HOOKS_OF_ALL = ("post-index-change", "reference-transaction")
# What git-lfs installs: it sees to the permissions of files, and reads none.
_OF_LFS = re.compile(r'\s*(#.*|command -v git-lfs\b.*|git lfs post-(checkout|merge) "\$@"\s*)?')
_MAX_HOOK_BYTES = 2**16
_PATIENCE_S = 2.0
_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A checkpoint in `file`, to take the place of the manifest `text` that Git writes to `place`."""

    file: Path
    place: Path
    text: bytes


class Delivery:
    """The checkpoints that one Git process is to leave in the worktree."""

    def __init__(
        self, repository: Repository, depot: Depot, config: Mapping[str, str | None], environ: Mapping[str, str]
    ) -> None:
        """`config`: the sections "core" and "hook"."""
        self._repository = repository
        self._depot = depot
        self._config = config
        self._environ = environ
        self._parcels: dict[str, _Parcel] = {}

    def takes(self, size_bytes: int) -> bool:
        """Whether a checkpoint of this size, which Git wants for its worktree, is to be put there past it."""
        return size_bytes > self._depot.settings.stream_limit_bytes and self._is_unwatched

    def prepare(self, path: str, text: bytes, found: Manifest, depot: Depot, progress: Callable[[int], None]) -> None:
        """Rebuild the checkpoint of a manifest, whose text Git is sent; raises what `worktree.draft` does."""
        place = worktree.locate(self._repository, os.fsencode(path))
        worktree.check_space([(place, found.size)])
        file = worktree.draft(found, place, depot, progress=progress)
        if earlier := self._parcels.pop(path, None):
            earlier.file.unlink(missing_ok=True)
        self._parcels[path] = _Parcel(file, place, text)

    def complete(self) -> None:
        """Put the checkpoints in their places; one whose place Git, or anybody, has filled otherwise is dropped."""
        parcels, self._parcels = self._parcels, {}
        awaited = {path: parcel for path, parcel in parcels.items() if self._is_awaited(path, parcel)}
        for path in parcels.keys() - awaited.keys():
            parcels[path].file.unlink(missing_ok=True)
        if not awaited:
            return
        entries = self._entries(awaited)
        with self._settling(list(entries.values())) as note:
            for path, parcel in awaited.items():
                try:
                    parcel.file.chmod(stat.S_IMODE(parcel.place.lstat().st_mode))
                    written = stamp_of(parcel.file.lstat())
                    worktree.swap(parcel.file, parcel.place)
                    if path in entries:
                        note(entries[path], parcel.place, written)
                except (ThetaError, OSError) as error:
                    parcel.file.unlink(missing_ok=True)
                    _say(path, f"it is left as a manifest ({error}); run: git theta checkout -- {_quoted(path)}")

    def _is_awaited(self, path: str, parcel: _Parcel) -> bool:
        """Whether the manifest that Git was sent lies in its place, and nothing else."""
        try:
            place = worktree.locate(self._repository, os.fsencode(path))
            return stat.S_ISREG(place.lstat().st_mode) and place.read_bytes() == parcel.text
        except (RepositoryError, OSError):
            return False

    @cached_property
    def _is_unwatched(self) -> bool:
        """Whether nobody looks at the worktree before Git ends, and the index is the one that Git uses next."""
        command = caller.command()
        if command not in _HOOKS or not self._repository.worktree or "GIT_INDEX_FILE" in self._environ:
            return False
        if any(key.startswith("hook.") and key.endswith(".event") for key in self._config):
            return False
        folder = hooks.path(self._repository, self._config).parent
        return not any(_looks(folder / name) for name in (*_HOOKS[command], *_HOOKS_OF_ALL))

    def _entries(self, parcels: Mapping[str, _Parcel]) -> dict[str, IndexEntry]:
        """The entries of the index that note the manifest: if Git has failed, the index is as it was before."""
        few = [os.fsencode(path) for path in parcels] if len(parcels) <= MAX_ARGUMENTS else []
        try:
            found = {os.fsdecode(row.path): row for row in self._repository.index(few)}
        except RepositoryError:
            return {}
        entries = {
            path: found[path]
            for path, parcel in parcels.items()
            if path in found and found[path].oid == indexfile.blob_oid(parcel.text, len(found[path].oid))
        }
        sizes = self._repository.noted_sizes(len(next(iter(entries.values())).oid)) if entries else {}
        if sizes is None:
            return entries
        return {path: row for path, row in entries.items() if sizes.get(row.path) == len(parcels[path].text)}

    @contextmanager
    def _settling(self, entries: Sequence[IndexEntry]) -> Iterator[Callable[[IndexEntry, Path, Stamp], None]]:
        """`worktree.settling`; where another process holds the index for long, that is said and has to do."""
        lock = self._repository.git_dir / "index.lock"
        until = time.monotonic() + _PATIENCE_S
        while entries and lock.exists() and time.monotonic() < until:
            time.sleep(_INTERVAL_S)
        with ExitStack() as stack:
            try:
                note = stack.enter_context(worktree.settling(self._repository, entries))
            except RepositoryError as error:
                for entry in entries:
                    path = os.fsdecode(entry.path)
                    _say(path, f"Git will take it for modified ({error}); run: git add -- {_quoted(path)}")
                note = _ignore
            yield note


def _ignore(*_: object) -> None:
    """Note nothing."""


def _looks(hook: Path) -> bool:
    """Whether a hook is one that Git would run and that may look at the worktree."""
    if not (hook.is_file() and os.access(hook, os.X_OK)):
        return False
    try:
        with hook.open(encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(_MAX_HOOK_BYTES)
    except OSError:
        return True
    return not all(_OF_LFS.fullmatch(line) for line in text.splitlines())


def _quoted(path: str) -> str:
    return shlex.quote(shown_path(path))


def _say(path: str, text: str) -> None:
    sys.stderr.write(f"git-theta: {shown_path(path)}: {text}\n")
