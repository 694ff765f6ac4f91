"""The patterns of a repository: what a user's PATTERN means, and the `.gitattributes` files that hold them."""

import os
from collections.abc import Iterable
from pathlib import Path

from git_theta import attributes
from git_theta.attributes import ATTRIBUTES, FILE_NAME, MAX_FILE_BYTES
from git_theta.errors import InputError, RepositoryError
from git_theta.git import Repository
from git_theta.names import shown_path
from git_theta.worktree import replacing

__all__ = ["edit", "filters", "find", "pattern_of", "read"]


def pattern_of(argument: str, cwd: Path) -> bytes:
    """The pattern, relative to `cwd`, that an argument stands for.

    A path that exists is matched as it is spelled; a directory stands for all that is below it; "./model.pt" for that
    file alone, where "model.pt" has it in every directory. Raises InputError for a path outside of `cwd`.
    """
    text = argument.replace(os.sep, "/")
    if os.path.isabs(argument) or ".." in text.split("/"):  # noqa: PTH117  # a pattern is no Path: "a//" would change
        path = Path(os.path.normpath(cwd / argument))
        if not path.is_relative_to(cwd):
            raise InputError(
                f"{shown_path(argument)}: a pattern is for files at or below the current directory; "
                "go to the directory that has them"
            )
        text = "./" + path.relative_to(cwd).as_posix()
    exists = bool(text) and os.path.lexists(cwd / text)
    anchored = text.startswith("./")
    while text.startswith("./"):
        text = text[2:].lstrip("/")
    if exists and (cwd / text).is_dir() and not (cwd / text).is_symlink():
        text = text.rstrip("/")
        below = attributes.escape_path(os.fsencode(text)) + b"/" if text not in ("", ".") else b""
        return below + b"**"
    pattern = attributes.escape_path(os.fsencode(text)) if exists else os.fsencode(text)
    return b"/" + pattern if anchored and b"/" not in pattern else pattern


def read(folder: Path) -> bytes:
    """The text of a folder's `.gitattributes`, empty where there is none."""
    path = folder / FILE_NAME
    if path.is_symlink():
        raise RepositoryError(f"{shown_path(str(path))}: it is a symbolic link, which Git does not follow; replace it")
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return b""
    if len(text) > MAX_FILE_BYTES:
        raise RepositoryError(f"{shown_path(str(path))}: it is larger than Git reads")
    return text


def edit(repository: Repository, folder: Path, text: bytes) -> None:
    """Give a folder's `.gitattributes` this text and stage it; raises InputError if it would then be tracked itself."""
    old = read(folder)
    path = repository.path_of(FILE_NAME, folder)
    _write(folder / FILE_NAME, text)
    if repository.attributes([path], "filter")[path].encode() == ATTRIBUTES[b"filter"]:
        _write(folder / FILE_NAME, old)
        raise InputError(f"with this pattern {FILE_NAME} would be a checkpoint itself; choose a narrower one")
    repository.stage(path)


def _write(path: Path, text: bytes) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666
    with replacing(path, mode) as fd:
        view = memoryview(text)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)


def filters(repository: Repository, more: Iterable[bytes] = ()) -> dict[bytes, str]:
    """The `filter` attribute of every file in the index, and of these paths."""
    paths = dict.fromkeys([*(entry.path for entry in repository.index()), *more])
    return repository.attributes(list(paths), "filter") if paths else {}


def find(repository: Repository) -> list[tuple[bytes, str]]:
    """The tracked patterns, each with the file that has it, as a path from the worktree's root."""
    top = repository.top()
    files = [(os.fsdecode(path), top / os.fsdecode(path)) for path in repository.attribute_files()]
    info = repository.common_dir / "info" / "attributes"
    files.append((info.relative_to(top).as_posix() if info.is_relative_to(top) else str(info), info))
    found = []
    for name, path in files:
        last: dict[bytes, bytes] = {}
        for line in attributes.parse(path.read_bytes() if path.is_file() and not path.is_symlink() else b""):
            if line.pattern is not None and b"filter" in line.values:
                last[line.pattern] = line.values[b"filter"]
        found += [(pattern, name) for pattern, value in last.items() if value == ATTRIBUTES[b"filter"]]
    return found
