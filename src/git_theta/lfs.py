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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from git_theta import git, pack
from git_theta.config import read_settings
from git_theta.errors import DamagedObjectError, MissingObjectError, RepositoryError, SpaceError, TransferError
from git_theta.git import Repository
from git_theta.names import shown_path
from git_theta.store import Store
from git_theta.tensor import MAX_SIZE_BYTES

__all__ = [
    "MAX_POINTER_BYTES",
    "OLDEST",
    "advised",
    "fetch",
    "lacks",
    "own_store",
    "parse_pointer",
    "pointer",
    "push",
    "stop",
    "version",
]

OLDEST = (3, 3)
_STORAGE = "theta"
_CONFIG = (
    "-c",
    "lfs.concurrenttransfers=32",
    "-c",
    "lfs.fetchinclude=",
    "-c",
    "lfs.fetchexclude=",
)
MAX_POINTER_BYTES = 1024
_POINTER = re.compile(
    rb"version (?:https://(?:git-lfs|hawser)\.github\.com/spec/v1|http://git-media\.io/v/2)\r?\n"
    rb"oid sha256:([0-9a-f]{64})\r?\nsize ([0-9]{1,18})\s*\Z"
)
_ATTRIBUTES = b"* filter=lfs\n"
_WHO = ("-c", "user.name=git-theta", "-c", "user.email=git-theta@localhost")
_UNASKED = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": ""}
"""Nobody is asked for a password, neither on the terminal nor in a window; the empty one hides settings (git(1))."""
_LONG = 240
_PARTICULARS = re.compile(r"[0-9a-f]{64}[0-9]*|[0-9]+")
_NO_PROTOCOL = re.compile(r'missing protocol: "(.*)/info/lfs"')
"""git-lfs takes a path for a URL where nothing lies at it."""
_GARBLED = re.compile(r"Client error &\{.*from HTTP ([0-9]+)")
"""git-lfs 3.3 prints the parts of a URL where it knows no words for a status."""
_PANIC = re.compile(r"^panic: .*", re.MULTILINE)
_REMEDIES = {
    re.compile(
        r"no such host|dial tcp|Could not resolve host"
    ): "look at the network, and at the address: git remote -v",
    re.compile(r"Authorization error|[Cc]redentials|could not read (Username|Password)"): (
        "log in as someone who may do this: git help credentials"
    ),
    re.compile(r"Repository or object not found"): "to see which LFS server is asked: git lfs env",
    re.compile(r"HTTP 413"): "it takes no object as large as this; have its owner raise the limit",
    re.compile(r"[Qq]uota|Insufficient server storage|Bandwidth limit"): "have its owner make room, or raise the quota",
    re.compile(r"Rate limit|panic: "): "try again later",
}
"""What to do about what git-lfs and Git say, in their words."""
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
_GRACE_S = 0.5
_running: set[subprocess.Popen[bytes]] = set()


def version() -> tuple[int, int] | None:
    """The version of the git-lfs that Git finds; None where there is none."""
    try:
        said = git.run(["lfs", "version"]).decode("utf-8", "replace")
        major, minor = said.removeprefix("git-lfs/").split(".")[:2]
        return int(major), int(minor)
    except (RepositoryError, ValueError):
        return None


def stop() -> None:
    """End every git-lfs that a thread of this process waits for."""
    for process in [*_running]:
        process.terminate()


def advised(reason: str) -> str:
    """What Git or git-lfs says that went wrong, and what to do about it, where that is known."""
    remedies = [remedy for words, remedy in _REMEDIES.items() if words.search(reason)]
    return "; ".join([reason, *remedies[:1]])


def pointer(oid: str, size: int) -> bytes:
    """The one valid text of an LFS pointer."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()


def parse_pointer(text: bytes) -> tuple[str, int] | None:
    """The oid and the size of what a pointer stands for; None for any other text, and for one with extensions."""
    match = _POINTER.match(text)
    return (match[1].decode(), int(match[2])) if match else None


def own_store(repository: Repository) -> Store:
    """The objects that git-lfs keeps for itself; they lie as ours do."""
    given = repository.config("lfs").get("lfs.storage") or "lfs"
    return Store(repository.common_dir / given, max_object_bytes=MAX_SIZE_BYTES, fsync=False)


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
    if folder_there := _folder_there(repository, remote):
        _part(folder_there, objects)


def fetch(
    repository: Repository,
    remote: str,
    objects: Mapping[str, int],
    store: Store,
    meanwhile: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Fetch objects (oid to size in bytes) from a remote, the first ones first; the ones that are missing afterwards.

    `meanwhile` is called right before git-lfs is waited for. git-lfs checks the hash of a download before it gets its
    name. Raises TransferError where it failed, SpaceError or RepositoryError where our own disk is why; some may have
    come nevertheless.
    """
    wanted = store.missing(dict(objects))
    if not wanted:
        return {}
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        environ = _throwaway_objects(repository, Path(folder))
        tree = _pointer_tree(repository, wanted, Path(folder) / "objects")
        arguments = ["fetch", "-I", "", "-X", "", _place(repository, remote), tree]
        storage = _STORAGE if store.root == repository.theta_dir else None
        meanwhile()
        try:
            _run(repository, arguments, remote, storage=storage, environ=environ)
        except TransferError:
            store.check_writable()  # git-lfs may say no more of it than "EOF"
            raise
    missing = store.missing(wanted)
    if missing:
        _check_version()
    return missing


def lacks(repository: Repository, remote: str, objects: Mapping[str, int]) -> set[str]:
    """Those of the objects (oid to size in bytes) that a remote lacks; of a server that lacks some, perhaps only one.

    git-lfs asks a server which ones it wants before it sends any, and in an empty store finds none to send. Raises
    TransferError where the remote cannot be asked.
    """
    folder_there = _folder_there(repository, remote)
    if folder_there is not None:
        return set(Store(folder_there, max_object_bytes=0, fsync=False).missing(dict(objects)))
    _check_version()
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        environ = _throwaway_objects(repository, Path(folder))
        tree = _pointer_tree(repository, objects, Path(folder) / "objects")
        commit = git.run([*_WHO, "commit-tree", tree, "-m", "?"], cwd=repository.base, environ=environ).decode().strip()
        arguments = ["-c", "lfs.allowincompletepush=false", "lfs", "push", _place(repository, remote), commit]
        done = _call(repository, arguments, storage=folder, environ={**environ, **_UNASKED}, shows=False)
    if not done.returncode:
        return set()
    # git-lfs' agent for file:// remotes names none.
    named = {oid for oid in objects if oid.encode() in done.stderr or not done.stderr}
    if not named:
        raise TransferError(f"{shown_path(remote)}: {_reason(done.stderr, done.returncode)}")
    return named


def _part(theta_dir: Path, objects: Iterable[str]) -> None:
    """Give a shared repository files of its own, where git-lfs has linked it to ours, which its users may not read."""
    config = ("config", "--file", str(theta_dir.parent / "config"), "--get", "core.sharedRepository")
    value = git.run(config, accept=(0, 1)).decode("utf-8", "replace").strip()
    sharing = read_settings({"core.sharedrepository": value}, {}).sharing
    there = Store(theta_dir, max_object_bytes=sys.maxsize, fsync=False, sharing=sharing)
    for oid in objects if sharing.bits else ():
        if there.path(oid).exists() and there.path(oid).stat().st_nlink > 1:
            there.renew(oid)


def _folder_there(repository: Repository, remote: str) -> Path | None:
    """The folder in which git-lfs keeps what we push to a remote on this disk; None for any other."""
    named = remote in repository.remotes()
    question = ("remote", "get-url", "--push", remote) if named else ("ls-remote", "--get-url", remote)
    url = repository.git(*question).decode("utf-8", "surrogateescape").rstrip("\n")
    place = repository.base / url.removeprefix("file://")
    return next((folder for folder in (place / ".git" / _STORAGE, place / _STORAGE) if folder.is_dir()), None)


def _place(repository: Repository, remote: str) -> str:
    """A remote as git-lfs takes it: unless a remote has that name, it wants a URL where Git takes a path."""
    if (repository.base / remote).is_dir() and remote not in repository.remotes():
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


def _pointer_tree(repository: Repository, objects: Mapping[str, int], folder: Path) -> str:
    """The oid of a tree of pointers, written below `folder`; `git lfs fetch` takes it for that of a commit."""
    # git-lfs takes them as they lie in the tree, and messages about one have its name.
    rows = enumerate(objects.items())
    files = {".gitattributes": _ATTRIBUTES, **{f"{row:08}-{oid}": pointer(oid, size) for row, (oid, size) in rows}}
    algorithm = repository.config("extensions").get("extensions.objectformat") or "sha1"
    return pack.write_tree(folder, files, algorithm)


def _run(
    repository: Repository,
    arguments: Sequence[str],
    remote: str,
    *,
    storage: str | None = _STORAGE,
    stdin: bytes = b"",
    environ: Mapping[str, str] | None = None,
) -> None:
    """`git lfs <arguments>`, with our store unless `storage` is another; raises TransferError with its reason.

    An old git-lfs, or none, fails like any other: only then it is asked for its version, which takes a while.
    """
    done = _call(repository, ["lfs", *arguments], storage=storage, stdin=stdin, environ=environ)
    if done.returncode:
        _check_version()
        full = next((words for words in _FULL if words in done.stderr.lower()), None)
        if full and arguments[0] == "fetch":
            raise SpaceError(f"{repository.theta_dir}: no space left ({full.decode()}); free some and try again")
        raise TransferError(f"{shown_path(remote)}: {_reason(done.stderr, done.returncode)}")


def _call(
    repository: Repository,
    arguments: Sequence[str],
    *,
    storage: str | None = _STORAGE,
    stdin: bytes = b"",
    environ: Mapping[str, str] | None = None,
    shows: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    """`git <arguments>`, git-lfs' objects being in `storage` or its own; its progress on our stderr if a terminal."""
    shows = shows and sys.stderr.isatty()
    variables = {**os.environ, **(environ or {}), **({"GIT_LFS_FORCE_PROGRESS": "1"} if shows else {})}
    where = () if storage is None else ("-c", f"lfs.storage={storage}")
    # git-lfs' own smudge and hooks have no part in this; a terminal prompt would wait for someone who is not asked.
    words = ["git", *where, *_CONFIG, *arguments]
    with subprocess.Popen(
        words,
        cwd=repository.base,
        stdin=subprocess.PIPE,
        # Our stdout may be Git's filter protocol.
        stdout=sys.stderr.fileno() if shows else subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables,
    ) as process:
        _running.add(process)
        try:
            stdout, stderr = _communicated(process, stdin)
        except BaseException:
            process.kill()
            raise
        finally:
            _running.discard(process)
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


def _communicated(process: subprocess.Popen[bytes], stdin: bytes) -> tuple[bytes, bytes]:
    """What a process prints until it ends; what it leaves behind, which holds its pipes, is not waited for."""
    given: bytes | None = stdin
    while True:
        has_ended = process.poll() is not None
        try:
            return process.communicate(given, timeout=_GRACE_S)
        except subprocess.TimeoutExpired as waited:
            if has_ended:  # a Git that is stopped before it knows its child does not stop that
                return waited.stdout or b"", waited.stderr or b""
            given = None


def _reason(stderr: bytes, code: int) -> str:
    """What git-lfs says that went wrong, in one line: the first two that differ in more than the object concerned."""
    said: dict[str, str] = {}
    text = _GARBLED.sub(r"the server answers HTTP \1", stderr.decode("utf-8", "replace"))
    if crash := _PANIC.search(text):
        text = f"git-lfs crashed ({crash[0]}), as old ones do where a server is busy"
    for line in map(str.strip, text.splitlines()):
        if absent := _NO_PROTOCOL.search(line):
            return shown_path(f"there is no repository at {absent[1]}; to see its address: git remote -v")
        if line and not line.startswith(_CHATTER):
            short = line if len(line) <= _LONG else f"{line[: _LONG // 2]} ... {line[-_LONG // 2 :]}"
            said.setdefault(_PARTICULARS.sub("", line), short)
    return shown_path(advised("; ".join([*said.values()][:2]) or f"git-lfs ended with exit code {code}"))


def _check_version() -> None:
    found = version()
    if found is None:
        raise RepositoryError("git-lfs is not installed, and moves the objects; install it: https://git-lfs.com")
    if found < OLDEST:
        raise RepositoryError(
            f"git-lfs is {'.'.join(map(str, found))}, and {'.'.join(map(str, OLDEST))} or newer is needed; update it"
        )
