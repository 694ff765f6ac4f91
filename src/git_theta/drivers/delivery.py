"""Checkpoints put into the worktree past Git, as it ends (docs/design/013-delivery.md).

Git takes all that a filter sends it into memory, and only then writes it to the disk. So a large checkpoint is rebuilt
and verified in a file of its own, Git is sent the manifest, and when it closes the pipe the file takes the manifest's
place and the index notes it. "Git will close the command pipe on exit. The filter is expected to detect EOF and exit
gracefully on its own. Git will wait until the filter process has stopped." (gitattributes(5)): so whoever comes after
Git finds the checkpoint. Where a program may look before, the checkpoint goes through Git.
"""

import math
import os
import re
import shlex
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from git_theta import hooks, indexfile, libc, worktree
from git_theta.depot import Depot
from git_theta.drivers import caller
from git_theta.errors import RepositoryError, ThetaError
from git_theta.git import Repository
from git_theta.indexfile import Held, Noted, Seen
from git_theta.manifest import Manifest
from git_theta.names import shown_path

__all__ = ["Delivery"]

# Commands that end once they have written the worktree, and the hooks that they may run before. A rebase is not one of
# them: it looks at the worktree again for each commit, and may run commands of the user's in between.
_HOOKS: Mapping[str | None, tuple[str, ...]] = {
    "checkout": ("post-checkout",),
    "clone": ("post-checkout",),
    "merge": ("pre-merge-commit", "prepare-commit-msg", "commit-msg", "post-merge", "pre-auto-gc"),
    "reset": (),
    "restore": ("post-checkout",),
    "stash": (),
    "switch": ("post-checkout",),
}
_HOOKS_OF_ALL = ("post-index-change", "reference-transaction")
# What git-lfs installs: it sees to the permissions of files, and reads none.
_SHELL = re.compile(r"#!\s*(/usr)?/bin/(env +)?(ba|da)?sh\s*")
_OF_LFS = re.compile(
    r"""\s*(\#.*
    |command\ -v\ git-lfs\ >/dev/null\ 2>&1\ \|\|\ \{\ (echo|printf)\ >&2\ [^;|&`$]*;\ exit\ 2;\ \}
    |git\ lfs\ post-(checkout|merge)\ "\$@")?\s*""",
    re.VERBOSE,
)
_MAX_HOOK_BYTES = 2**16
_FALSE = ("false", "no", "off", "0", "")
_PATIENCE_S = 3.0
_INTERVAL_S = 0.01
# A merge that has not ended so long after it wrote the index waits for someone: an editor or a passphrase is asked for.
_WAITS_S = 0.25


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A checkpoint in `file`, to take the place of the manifest `text` that Git writes to `place`."""

    path: bytes
    file: Path
    place: Path
    text: bytes

    def is_awaited(self, at: Path) -> bool:
        """Whether the manifest that Git was sent is what lies there."""
        try:
            status = at.lstat()
            return stat.S_ISREG(status.st_mode) and status.st_size == len(self.text) and at.read_bytes() == self.text
        except OSError:
            return False


class Delivery:
    """The checkpoints that one Git process is to leave in the worktree."""

    def __init__(
        self, repository: Repository, depot: Depot, config: Mapping[str, str | None], environ: Mapping[str, str]
    ) -> None:
        """`config`: the sections "core", "extensions" and "hook"."""
        self._repository = repository
        self._depot = depot
        self._config = config
        self._environ = environ
        self._parcels: dict[str, _Parcel] = {}
        self._watcher: threading.Thread | None = None
        self._has_ended = threading.Event()

    def takes(self, size_bytes: int) -> bool:
        """Whether a checkpoint of this size, which Git wants for its worktree, is to be put there past it."""
        return size_bytes > self._depot.settings.stream_limit_bytes and self._is_unwatched and self._is_index_plain

    def prepare(self, path: str, text: bytes, found: Manifest, depot: Depot, progress: Callable[[int], None]) -> None:
        """Rebuild the checkpoint of a manifest, whose text Git is sent; raises what `worktree.draft` does."""
        place = worktree.locate(self._repository, os.fsencode(path))
        worktree.check_space([(place, found.size)])
        file = worktree.draft(found, place, depot, progress=progress)
        if earlier := self._parcels.pop(path, None):
            earlier.file.unlink(missing_ok=True)
        self._parcels[path] = _Parcel(os.fsencode(path), file, place, text)

    def watch(self) -> None:
        """Put the checkpoints in their places should Git wait for someone; it has been sent all that it asked for."""
        if self._parcels and self._command == "merge" and self._watcher is None:
            self._watcher = threading.Thread(target=self._complete_early, daemon=True)
            self._watcher.start()

    def _complete_early(self) -> None:
        index = self._repository.git_dir / "index"
        was, since = None, math.inf
        while not self._has_ended.wait(_INTERVAL_S):
            if (now := worktree.stamp(index)) != was:
                was, since = now, time.monotonic()
            elif time.monotonic() - since > _WAITS_S and self._awaits_message:
                if self._is_merged(index):
                    self._put_all()
                    return
                since = math.inf

    def _is_merged(self, index: Path) -> bool:
        """Whether the index is that of a merge without conflicts; for others, Git may replay how they were settled."""
        try:
            return bool(self._noted(index, self._seen(self._parcels.values()))) and not self._repository.unmerged()
        except RepositoryError:
            return False

    @property
    def _awaits_message(self) -> bool:
        """Whether Git has merged, and neither writes the index that it has in memory again nor reads the worktree.

        Before an automatic merge is committed, MERGE_HEAD stands there (builtin/merge.c, `prepare_to_commit`).
        """
        folder = self._repository.git_dir
        return (folder / "MERGE_HEAD").exists() and not (folder / "MERGE_AUTOSTASH").exists()

    def complete(self) -> None:
        """Put the checkpoints in their places; where anything but the manifest lies, that stays."""
        self._has_ended.set()
        if self._watcher:
            self._watcher.join()
        self._put_all()

    def _put_all(self) -> None:
        parcels, self._parcels = self._parcels, {}
        try:
            with ExitStack() as stack:
                self._put_each(list(parcels.values()), stack)
        finally:
            for parcel in parcels.values():
                with suppress(OSError):
                    parcel.file.unlink(missing_ok=True)

    def _seen(self, parcels: Iterable[_Parcel]) -> dict[bytes, Seen]:
        """How the index of a Git that has not failed has the manifests."""
        length = 64 if (self._config.get("extensions.objectformat") or "").lower() == "sha256" else 40
        return {one.path: (indexfile.blob_oid(one.text, length), len(one.text)) for one in parcels}

    def _put_each(self, parcels: list[_Parcel], stack: ExitStack) -> None:
        seen = self._seen(parcels)
        held, forgotten = self._hold(seen, stack)
        made: dict[bytes, Noted] = {}
        for parcel in parcels:
            try:
                if (status := self._put(parcel)) and parcel.path in forgotten:
                    made[parcel.path] = seen[parcel.path][0], status
            except (ThetaError, OSError) as error:
                if parcel.is_awaited(parcel.place):
                    _say(parcel.path, f"it is left as a manifest ({error})", "git theta checkout")
        if held and made:
            with suppress(OSError, RepositoryError):  # Git will compare contents
                held.note(made)

    def _put(self, parcel: _Parcel) -> os.stat_result | None:
        """Put one in its place; how it lies there. None if anything but the manifest does, which stays."""
        place = worktree.locate(self._repository, parcel.path)
        if not parcel.is_awaited(place):
            return None
        like = place.lstat()
        if hasattr(os, "chown") and parcel.file.lstat().st_gid != like.st_gid:
            with suppress(OSError):  # a folder may hand its group on
                os.chown(parcel.file, -1, like.st_gid)
        parcel.file.chmod(stat.S_IMODE(like.st_mode))
        if not libc.exchange(parcel.file, place):
            if not parcel.is_awaited(place):
                return None
            parcel.file.replace(place)
        elif parcel.is_awaited(parcel.file):
            parcel.file.unlink()
        else:  # somebody was faster, by less than a moment
            if not libc.exchange(parcel.file, place):
                parcel.file.replace(place)
            return None
        return place.lstat()

    def _hold(self, seen: Mapping[bytes, Seen], stack: ExitStack) -> tuple[Held | None, set[bytes]]:
        """The index, held, and the paths of which it has forgotten how the manifest lay there.

        If Git has failed, the index is that from before, and there is nothing to forget.
        """
        index = self._repository.git_dir / "index"
        until = time.monotonic() + _PATIENCE_S
        while noted := self._noted(index, seen):
            try:
                held = stack.enter_context(indexfile.holding(index))
                return held, held.forget(seen)
            except (OSError, RepositoryError) as error:
                if not isinstance(error, FileExistsError) or time.monotonic() > until:
                    why = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else error
                    for path in noted:
                        _say(path, f"Git will take it for modified ({why})", "git add")
                    break
            time.sleep(_INTERVAL_S)
        return None, set()

    def _noted(self, index: Path, seen: Mapping[bytes, Seen]) -> set[bytes]:
        """The paths of which the index notes how the manifest lies there; all, where only Git can read it."""
        try:
            return indexfile.matching(index, seen)
        except OSError:
            return set()
        except RepositoryError:
            return set(seen)

    @cached_property
    def _command(self) -> str | None:
        return caller.subcommand(caller.started_by())

    @cached_property
    def _is_unwatched(self) -> bool:
        """Whether no program of the user's looks at the worktree before Git ends."""
        if self._command not in _HOOKS or not self._repository.worktree:
            return False
        if any(key.startswith("hook.") and key.endswith(".event") for key in self._config):
            return False
        folder = hooks.path(self._repository, self._config).parent
        return not any(_looks(folder / name) for name in (*_HOOKS[self._command], *_HOOKS_OF_ALL))

    @cached_property
    def _is_index_plain(self) -> bool:
        """Whether the index is the one that Git uses next, and all in one file."""
        splits = str(self._config.get("core.splitindex", "false")).lower() not in _FALSE
        return not (splits or any(self._repository.git_dir.glob("sharedindex.*")) or "GIT_INDEX_FILE" in self._environ)


def _looks(hook: Path) -> bool:
    """Whether a hook is one that Git would run and that may look at the worktree."""
    if not (hook.is_file() and os.access(hook, os.X_OK)):
        return False
    try:
        with hook.open(encoding="utf-8", errors="surrogateescape") as file:
            first, *lines = file.read(_MAX_HOOK_BYTES).splitlines() or [""]
            is_cut = bool(file.read(1))
    except OSError:
        return True
    return is_cut or not (_SHELL.fullmatch(first) and all(_OF_LFS.fullmatch(line) for line in lines))


def _say(path: bytes, what: str, command: str) -> None:
    where = shown_path(os.fsdecode(path))
    with suppress(OSError):  # nobody may be there to read it
        sys.stderr.write(f"git-theta: {where}: {what}; run: {command} -- {shlex.quote(where)}\n")
