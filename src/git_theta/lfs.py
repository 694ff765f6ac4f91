"""The only caller of git-lfs: moves objects between our store and a remote, any number in one call.

`-c lfs.storage=theta` makes git-lfs read and write `<git common dir>/theta/objects`, which is our store, and keeps its
own prune away from it. The setting is relative on purpose: an absolute one reaches git-lfs' agent for file:// remotes
too, which would take both ends for the same folder and copy nothing.

Source: git-lfs-push(1) and git-lfs-fetch(1) of git-lfs 3.3; the pointer is docs/spec.md of git-lfs.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from git_theta import git
from git_theta.errors import DamagedObjectError, MissingObjectError, RepositoryError, SpaceError, TransferError
from git_theta.git import Repository
from git_theta.names import shown_path
from git_theta.store import Store

__all__ = ["OLDEST", "fetch", "pointer", "push", "version"]

OLDEST = (3, 3)
_CONFIG = (
    "-c",
    "lfs.storage=theta",
    "-c",
    "lfs.concurrenttransfers=32",
    "-c",
    "lfs.fetchinclude=",
    "-c",
    "lfs.fetchexclude=",
)
_ATTRIBUTES = b"* filter=lfs\n"
_LONG = 240
_PARTICULARS = re.compile(r"[0-9a-f]{64}[0-9]*|[0-9]+")
_NO_PROTOCOL = re.compile(r'missing protocol: "(.*)/info/lfs"')
"""git-lfs takes a path for a URL where nothing lies at it."""
_FULL = (b"no space left on device", b"disk quota exceeded", b"file too large")
"""What the system says of a full disk (strerror(3)), in git-lfs' words."""
_CHATTER = (
    "Uploading",
    "Downloading",
    "error: failed to",
    "hint:",
    "Errors logged to",
    "Use `git lfs logs",
    "Locking support",
    'Remote "',
)
"""How lines of git-lfs begin that do not say what went wrong."""


def version() -> tuple[int, int] | None:
    """The version of the git-lfs that Git finds; None where there is none."""
    try:
        said = git.run(["lfs", "version"]).decode("utf-8", "replace")
        major, minor = said.removeprefix("git-lfs/").split(".")[:2]
        return int(major), int(minor)
    except (RepositoryError, ValueError):
        return None


def pointer(oid: str, size: int) -> bytes:
    """The one valid text of an LFS pointer."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()


def push(repository: Repository, remote: str, objects: Mapping[str, int], store: Store) -> None:
    """Send objects (oid to size in bytes) to a remote.

    Each is hashed first, because git-lfs is not particular about what it sends. Raises MissingObjectError,
    DamagedObjectError or TransferError where not all of them were sent.
    """
    if not objects:
        return
    _check_version()
    missing = store.missing(dict(objects))
    if missing:
        raise MissingObjectError(
            f"{len(missing)} of the {len(objects)} objects to be sent are not on this machine, the first is "
            f"{next(iter(missing))}; to see what they belong to: git theta fsck"
        )
    if damaged := store.damaged(objects):
        raise DamagedObjectError(
            f"object {damaged[0]} is damaged and was not sent; to see what it belongs to: git theta fsck"
        )
    oids = "".join(f"{oid}\n" for oid in objects).encode()
    _run(repository, ["push", "--object-id", "--stdin", _place(repository, remote)], remote, stdin=oids)


def fetch(repository: Repository, remote: str, objects: Mapping[str, int], store: Store) -> dict[str, int]:
    """Fetch objects (oid to size in bytes) from a remote; the ones that are still missing afterwards.

    git-lfs checks the hash of a download before it gets its name. Raises TransferError where it failed; some may have
    come nevertheless.
    """
    wanted = store.missing(dict(objects))
    if not wanted:
        return {}
    _check_version()
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        environ = _throwaway_objects(repository, Path(folder))
        tree = _pointer_tree(repository, wanted, environ)
        _run(repository, ["fetch", "-I", "", "-X", "", _place(repository, remote), tree], remote, environ=environ)
    return store.missing(wanted)


def _place(repository: Repository, remote: str) -> str:
    """A remote as git-lfs takes it: unless a remote has that name, it wants a URL where Git takes a path."""
    if remote not in repository.remotes() and (repository.base / remote).is_dir():
        return (repository.base / remote).resolve().as_uri()
    return remote


def _throwaway_objects(repository: Repository, folder: Path) -> dict[str, str]:
    """An environment in which Git writes its objects below `folder`, and reads the repository's as well."""
    (folder / "objects").mkdir()
    own = os.environ.get("GIT_OBJECT_DIRECTORY") or str(repository.common_dir / "objects")
    others = os.environ.get("GIT_ALTERNATE_OBJECT_DIRECTORIES")
    return {
        "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join([own, others] if others else [own]),
    }


def _pointer_tree(repository: Repository, objects: Mapping[str, int], environ: Mapping[str, str]) -> str:
    """The oid of a tree of pointers, which `git lfs fetch` takes for that of a commit."""
    files = {".gitattributes": _ATTRIBUTES, **{oid: pointer(oid, size) for oid, size in objects.items()}}
    blobs = repository.write_blobs(files.values(), environ)
    rows = [f"100644 blob {blob}\t{name}\n" for name, blob in zip(files, blobs, strict=True)]
    return git.run(["mktree"], cwd=repository.base, stdin="".join(rows).encode(), environ=environ).decode().strip()


def _run(
    repository: Repository,
    arguments: Sequence[str],
    remote: str,
    *,
    stdin: bytes = b"",
    environ: Mapping[str, str] | None = None,
) -> None:
    """`git lfs <arguments>`, its progress on our stderr if that is a terminal; raises TransferError with its reason."""
    shows = sys.stderr.isatty()
    variables = {**os.environ, **(environ or {}), **({"GIT_LFS_FORCE_PROGRESS": "1"} if shows else {})}
    # git-lfs' own smudge and hooks have no part in this; a terminal prompt would wait for someone who is not asked.
    done = subprocess.run(
        ["git", *_CONFIG, "lfs", *arguments],
        cwd=repository.base,
        input=stdin,
        # Our stdout may be Git's filter protocol.
        stdout=sys.stderr.fileno() if shows else subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
        env=variables,
    )
    if done.returncode:
        full = next((words for words in _FULL if words in done.stderr.lower()), None)
        if full and arguments[0] == "fetch":
            raise SpaceError(f"{repository.theta_dir}: no space left ({full.decode()}); free some and try again")
        raise TransferError(f"{shown_path(remote)}: {_reason(done.stderr, done.returncode)}")


def _reason(stderr: bytes, code: int) -> str:
    """What git-lfs says that went wrong, in one line: the first two that differ in more than the object concerned."""
    said: dict[str, str] = {}
    for line in map(str.strip, stderr.decode("utf-8", "replace").splitlines()):
        if absent := _NO_PROTOCOL.search(line):
            return shown_path(f"there is no repository at {absent[1]}; to see its address: git remote -v")
        if line and not line.startswith(_CHATTER):
            short = line if len(line) <= _LONG else f"{line[: _LONG // 2]} ... {line[-_LONG // 2 :]}"
            said.setdefault(_PARTICULARS.sub("", line), short)
    return shown_path("; ".join([*said.values()][:2]) or f"git-lfs ended with exit code {code}")


def _check_version() -> None:
    found = version()
    if found is None:
        raise RepositoryError("git-lfs is not installed, and moves the objects; install it: https://git-lfs.com")
    if found < OLDEST:
        raise RepositoryError(
            f"git-lfs is {'.'.join(map(str, found))}, and {'.'.join(map(str, OLDEST))} or newer is needed; update it"
        )
