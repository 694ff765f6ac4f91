"""The worktree's side of a tracked file: what lies at its path, and the checkpoint put there.

A file is written under a temporary name, verified, and renamed: whoever looks sees the old file or the new one. Nothing
is ever written through a symbolic link, nor over a file that changed since it was looked at.
"""

import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from git_theta import indexfile, libc
from git_theta.errors import ChangedError, MissingObjectError, RepositoryError
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import Manifest, starts_like
from git_theta.names import shown, shown_path
from git_theta.source import Stamp, stamp_of
from git_theta.store import STALE_TEMPORARY_S, Store, check_room, reporting_full_disk

if TYPE_CHECKING:
    from git_theta.depot import Depot

__all__ = [
    "Presence",
    "check_objects",
    "check_space",
    "draft",
    "file_mode",
    "locate",
    "look",
    "put",
    "replacing",
    "settling",
    "stamp",
    "swap",
    "write",
]

_HEAD_BYTES = 64
_LONGEST_NAME = 100
_SUFFIX = re.compile(r"[0-9a-f]{16}\Z")


class Presence(Enum):
    """What lies at a tracked file's path."""

    MISSING = "missing"
    MANIFEST = "manifest"
    CONTENT = "content"
    OTHER = "other"  # a directory, a symbolic link, a device


def look(path: Path) -> Presence:
    """What lies at a path."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Presence.MISSING
    if not stat.S_ISREG(mode):
        return Presence.OTHER
    try:
        with path.open("rb") as file:
            return Presence.MANIFEST if starts_like(file.read(_HEAD_BYTES)) else Presence.CONTENT
    except PermissionError:
        return Presence.CONTENT


def locate(repository: Repository, path: bytes) -> Path:
    """Where a repository path's file lies or would lie; raises RepositoryError unless directories lead there."""
    parts = os.fsdecode(path).split("/")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise RepositoryError("its path in the index is none that Git makes; nothing is written there")
    place = repository.top()
    for part in parts[:-1]:
        place /= part
        # Git's own checkout looks and then writes, too: who may change the worktree meanwhile may do so anyway.
        with suppress(FileNotFoundError):
            mode = place.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise RepositoryError(f"'{shown_path(part)}' in its path is a symbolic link, which is never followed")
            if not stat.S_ISDIR(mode):
                raise RepositoryError(f"'{shown_path(part)}' in its path is not a directory; move it away")
    place /= parts[-1]
    if look(place) is Presence.OTHER:
        raise RepositoryError("a symbolic link or directory lies at its path; move it away")
    return place


def stamp(path: Path) -> Stamp | None:
    """What tells whether a file was written to since; None where there is none."""
    try:
        return stamp_of(path.lstat())
    except OSError:
        return None


def check_objects(manifest: Manifest, store: Store) -> None:
    """Raise MissingObjectError, naming the first parameter concerned, unless all objects of a manifest are here."""
    missing = store.missing(manifest.objects())
    if not missing:
        return
    for name, record in [("", manifest.layout), *manifest.parameters.items()]:
        for step in record.store:
            for piece in step.pieces:
                if piece.oid in missing:
                    what = f"parameter '{shown(name[:80])}'" if record is not manifest.layout else "the layout"
                    raise MissingObjectError(
                        f"{what} needs object {piece.oid}, which is not {store.where([piece.oid])} ({len(missing)} of "
                        f"{len(manifest.objects())} objects are missing, {sum(missing.values())} bytes); "
                        "run: git theta pull"
                    )


def check_space(writes: Sequence[tuple[Path, int]]) -> None:
    """Raise SpaceError unless the disks hold these files (path, bytes), written in this order, each beside the old."""
    needed: dict[int, int] = {}
    grown: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for path, size in writes:
        folder = next(parent for parent in path.parents if parent.is_dir())
        device = folder.stat().st_dev
        folders.setdefault(device, folder)
        needed[device] = max(needed.get(device, 0), grown.get(device, 0) + size)
        grown[device] = grown.get(device, 0) + size - _freed(path)
    for device, folder in folders.items():
        check_room(folder, needed[device])


def _freed(path: Path) -> int:
    """Bytes that come free when the file at a path is replaced."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if status.st_nlink == 1 else 0


def file_mode(executable: bool) -> int:
    """The mode with which Git makes a file of the worktree, before the umask."""
    return 0o777 if executable else 0o666


def put(
    manifest: Manifest,
    path: Path,
    depot: "Depot",
    *,
    seen: Stamp | None,
    executable: bool = False,
    progress: Callable[[int], None] = lambda size_bytes: None,
) -> Stamp:
    """Write the checkpoint of a manifest to `path`, which `locate` returned, and vouch for what was verified.

    `seen` is the path's `stamp` from when it was found fit to be overwritten; ChangedError is raised if it has another
    now. `progress` is told of bytes written, from several threads. Whatever is raised, the path keeps what it had.
    Returns the new file's stamp.
    """
    made = draft(manifest, path, depot, executable=executable, progress=progress)
    if stamp(path) != seen:
        made.unlink()
        raise ChangedError("it was written to meanwhile, and is left as it is; to overwrite it, run this again")
    written = stamp_of(made.lstat())
    swap(made, path)
    return written


def draft(
    manifest: Manifest,
    path: Path,
    depot: "Depot",
    *,
    executable: bool = False,
    progress: Callable[[int], None] = lambda size_bytes: None,
) -> Path:
    """The checkpoint of a manifest in a file of its own, verified and vouched for, which `swap` can put to `path`.

    `path` and `progress` are as in `put`. Whatever is raised, no file is left.
    """
    # `ls-files` and `status` only look, and need none of what rebuilding imports.
    from git_theta import rebuild

    layout = rebuild.read_layout(manifest, depot)
    _sweep(path)
    folder = depot.store.root / "tmp"
    with suppress(OSError):
        depot.store.sharing.make_folder(folder)
    with _drafting(path, file_mode(executable), folder) as (temporary, fd):
        rebuild.write(manifest, layout, depot, fd, progress=progress)
        depot.catalogue.vouch(manifest.records())
    return temporary


def swap(temporary: Path, path: Path) -> None:
    """Put a file that was made for `path` in its place, whatever lies there; the file is gone if that fails."""
    try:
        with _explaining(path):
            if libc.exchange(temporary, path):
                temporary.unlink()
            else:
                temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing(path: Path, mode: int, folder: Path | None = None) -> Iterator[int]:
    """A new file, given by its descriptor, that takes the place of `path` if the block ends without an error.

    `mode` goes through the umask. Missing directories are made. The file lies in `folder` for the time being if it can
    be written there and renamed from there: what a killed process leaves beside the path, the next `git add .` would
    take for a file.
    """
    with _drafting(path, mode, folder) as (temporary, fd):
        yield fd
    swap(temporary, path)


@contextmanager
def _drafting(path: Path, mode: int, folder: Path | None) -> Iterator[tuple[Path, int]]:
    """The same file, by its path and descriptor; it stays there for `swap` if the block ends without an error."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    with _explaining(path), reporting_full_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path, folder)
        fd = os.open(temporary, flags, mode)
        try:
            try:
                yield temporary, fd
            finally:
                os.close(fd)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise RepositoryError(f"{shown_path(str(path.parent))}: it cannot be written to ({error.strerror})") from error


def write(path: Path, content: bytes, *, executable: bool, folder: Path | None = None) -> None:
    """Put content in the place of a file, by way of `replacing`, which see."""
    with replacing(path, file_mode(executable), folder) as fd, os.fdopen(fd, "wb", closefd=False) as file:
        file.write(content)


def _temporary(path: Path, folder: Path | None) -> Path:
    if folder is not None:
        with suppress(OSError):
            if _mount(folder) == _mount(path.parent) and os.access(folder, os.W_OK):
                return folder / f"git-theta-{os.getpid()}-{secrets.token_hex(8)}"
    return path.with_name(_temporary_prefix(path) + secrets.token_hex(8))


def _mount(folder: Path) -> tuple[int, str]:
    """What two folders have in common where files of one can be renamed into the other.

    A file system may be mounted twice, as a container's volume is. Source: rename(2), EXDEV; proc_pid_fdinfo(5).
    """
    device = folder.stat().st_dev
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            facts = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
        finally:
            os.close(fd)
        return device, next((fact for fact in facts if fact.startswith("mnt_id:")), "")
    return device, ""


def _temporary_prefix(path: Path) -> str:
    """The name with room for what comes after it: a name has at most 255 bytes, and a character up to four."""
    name = path.name if len(os.fsencode(path.name)) <= _LONGEST_NAME else path.name[: _LONGEST_NAME // 4]
    return f".{name}.git-theta-"


def _sweep(path: Path) -> None:
    """Remove what killed processes left beside a path; a file younger than a day may belong to a running one."""
    prefix = _temporary_prefix(path)
    limit = time.time() - STALE_TEMPORARY_S
    with suppress(OSError), os.scandir(path.parent) as found:
        for item in found:
            if item.name.startswith(prefix) and _SUFFIX.match(item.name, len(prefix)):
                with suppress(OSError):
                    if item.is_file(follow_symlinks=False) and item.stat().st_mtime < limit:
                        Path(item.path).unlink()


@contextmanager
def settling(
    repository: Repository, entries: Sequence[IndexEntry]
) -> Iterator[Callable[[IndexEntry, Path, Stamp], None]]:
    """Around the writing of files: Git then knows that they are what the index has, and a status is quick.

    Gives a function to call for each file that was written, with its stamp. The index forgets the old files first, so
    that a status is right even if this process is killed half-way. Raises RepositoryError, before anything is written,
    where another process holds the index.
    """
    notes: dict[bytes, indexfile.Noted] = {}

    def note(entry: IndexEntry, path: Path, written: Stamp) -> None:
        status = path.lstat()
        if stamp_of(status) == written:
            notes[entry.path] = entry.oid, status

    if not entries:
        yield note
        return
    repository.forget_stat(entries)
    try:
        yield note
    finally:
        if not repository.note_stat(notes):
            repository.refresh([entry.path for entry in entries])
