"""Rewriting history: trees whose files were converted, and the commits and annotated tags that lead to them.

What does not change keeps its name. A commit keeps its author, dates, message and every header but what its signature
vouched for, byte for byte.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from git_theta.attributes import FILE_NAME, MAX_FILE_BYTES
from git_theta.errors import RepositoryError
from git_theta.migration.database import Database, Entry
from git_theta.migration.selection import Selection
from git_theta.migration.tracking import Edit
from git_theta.names import shown_path

__all__ = ["Rewriter", "candidates"]

_ATTRIBUTES = FILE_NAME.encode()
_MAX_DEPTH = 400
_SIGNED = (b"gpgsig", b"gpgsig-sha256", b"mergetag")
_SIGNATURE = re.compile(rb"^-----BEGIN (?:PGP SIGNATURE|PGP MESSAGE|SSH SIGNATURE|SIGNED MESSAGE)-----", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Made:
    """A tree that was rewritten, and the paths in it, from the root, that were converted."""

    oid: str
    converted: tuple[bytes, ...]


def candidates(database: Database, selection: Selection, commits: Iterable[str]) -> dict[str, bytes]:
    """The selected files of these commits: the oid of each blob, and the first path that it was found at."""
    found: dict[str, bytes] = {}
    seen: set[tuple[str, bytes]] = set()
    for commit in commits:
        waiting = [(_parse(database.read(commit, "commit")).tree, b"")]
        while waiting:
            oid, folder = waiting.pop()
            if (oid, folder) in seen:
                continue
            seen.add((oid, folder))
            _check_depth(folder)
            for row in database.tree(oid):
                path = folder + row.name
                if row.is_tree:
                    waiting.append((row.oid, path + b"/"))
                elif _is_candidate(row, path, selection):
                    found.setdefault(row.oid, path)
    return found


@dataclass(slots=True)
class Rewriter:
    """Rewrites commits, parents first; `renamed` has what became of those that changed.

    `blobs` has the converted blobs, `edit` what becomes of `.gitattributes`, `report` is told of each converted file
    (commit, path) once. `unsigned` counts the commits and tags that have lost a signature.
    """

    database: Database
    selection: Selection
    blobs: Mapping[str, str]
    edit: Edit
    report: Callable[[str, bytes], None] = lambda commit, path: None
    renamed: dict[str, str] = field(default_factory=dict)
    unsigned: int = 0
    _begun: set[str] = field(default_factory=set)
    _trees: dict[tuple[str, bytes], _Made] = field(default_factory=dict)
    _commit: str = ""

    def rewrite(self, commit: str) -> None:
        """Rewrite a commit whose parents were dealt with, or are to stay.

        The attributes change from the first commit on that has a converted file.
        """
        self._commit = commit
        old = _parse(self.database.read(commit, "commit"))
        made = self._tree(old.tree, b"")
        if made.converted or self._begun.intersection(old.parents):
            self._begun.add(commit)
            made = self._rooted(made)
        parents = [self.renamed.get(parent, parent) for parent in old.parents]
        if (made.oid, parents) != (old.tree, old.parents):
            names = [f"tree {made.oid}".encode(), *(f"parent {parent}".encode() for parent in parents)]
            self.renamed[commit] = self.database.write(self._unsigned([*names, *old.headers]) + old.rest, "commit")

    def tag(self, oid: str) -> str:
        """The oid of an annotated tag of what a tag's object has become; its own where that is unchanged."""
        headers, rest = _headers(self.database.read(oid, "tag"))
        target, kind = _value(headers[0], b"object"), _value(headers[1], b"type")
        renamed = self.tag(target) if kind == "tag" else self.renamed.get(target, target)
        if renamed == target:
            return oid
        signatures = list(_SIGNATURE.finditer(rest))
        if signatures:
            rest = rest[: signatures[-1].start()]
            self.unsigned += 1
        return self.database.write(self._unsigned([f"object {renamed}".encode(), *headers[1:]]) + rest, "tag")

    def _unsigned(self, headers: Sequence[bytes]) -> bytes:
        """The headers as text, without signatures."""
        kept = [header for header in headers if header.partition(b" ")[0] not in _SIGNED]
        self.unsigned += len(kept) < len(headers)
        return b"".join(header + b"\n" for header in kept)

    def _tree(self, oid: str, folder: bytes) -> _Made:
        if (oid, folder) not in self._trees:
            self._trees[oid, folder] = self._rewritten(oid, folder)
        return self._trees[oid, folder]

    def _rewritten(self, oid: str, folder: bytes) -> _Made:
        _check_depth(folder)
        rows = self.database.tree(oid)
        kept: list[Entry] = []
        converted: list[bytes] = []
        for row in rows:
            path = folder + row.name
            if row.is_tree:
                made = self._tree(row.oid, path + b"/")
                converted += made.converted
                row = Entry(row.mode, row.name, made.oid)
            elif row.oid in self.blobs and _is_candidate(row, path, self.selection):
                converted.append(path)
                self.report(self._commit, path)
                row = Entry(row.mode, row.name, self.blobs[row.oid])
            kept.append(row)
        if folder and converted and any(row.name == _ATTRIBUTES for row in kept):
            kept = self._attributed(kept, folder, converted)
        return _Made(oid if kept == rows else self.database.write_tree(kept), tuple(converted))

    def _rooted(self, made: _Made) -> _Made:
        """A root's tree with the attributes that hold from here on."""
        rows = self.database.tree(made.oid)
        kept = self._attributed(rows, b"", made.converted)
        return made if kept == rows else _Made(self.database.write_tree(kept), made.converted)

    def _attributed(self, rows: list[Entry], folder: bytes, converted: Sequence[bytes]) -> list[Entry]:
        """The rows with the folder's `.gitattributes` edited, made, or removed where nothing is left of it."""
        old = next((row for row in rows if row.name == _ATTRIBUTES), None)
        if old is not None and not old.is_file:
            raise RepositoryError(
                f"commit {self._commit}: {shown_path(folder + _ATTRIBUTES)} is no regular file; nothing was rewritten"
            )
        text = self.database.read(old.oid, "blob") if old else b""
        if len(text) > MAX_FILE_BYTES:
            raise RepositoryError(f"{shown_path(folder + _ATTRIBUTES)}: it is larger than Git reads")
        edited = self.edit(text, folder, converted)
        if edited == text:
            return rows
        rest = [row for row in rows if row is not old]
        if not edited:
            return rest
        return [*rest, Entry(old.mode if old else b"100644", _ATTRIBUTES, self.database.write(edited, "blob"))]


def _is_candidate(row: Entry, path: bytes, selection: Selection) -> bool:
    """Whether a row of a tree is a file that was selected; `.gitattributes` never is, for Git reads it itself."""
    return row.is_file and row.name != _ATTRIBUTES and selection.has(path)


def _check_depth(folder: bytes) -> None:
    if folder.count(b"/") > _MAX_DEPTH:
        raise RepositoryError(f"{shown_path(folder[:80])}...: folders lie in each other more than {_MAX_DEPTH} deep")


@dataclass(frozen=True, slots=True)
class _Commit:
    """A commit's text, parsed: `headers` are those after the parents, `rest` is the message and what parts them."""

    tree: str
    parents: list[str]
    headers: list[bytes]
    rest: bytes


def _parse(text: bytes) -> _Commit:
    headers, rest = _headers(text)
    parents = list(itertools.takewhile(lambda header: header.startswith(b"parent "), headers[1:]))
    names = [_value(header, b"parent") for header in parents]
    return _Commit(_value(headers[0], b"tree"), names, headers[1 + len(parents) :], rest)


def _headers(text: bytes) -> tuple[list[bytes], bytes]:
    """The headers of a commit or tag, each with the lines that continue it, and what follows them."""
    head, blank, body = text.partition(b"\n\n")
    return re.split(rb"\n(?! )", head.removesuffix(b"\n")), blank[1:] + body


def _value(header: bytes, name: bytes) -> str:
    """What a header says; raises RepositoryError unless it has this name."""
    word, _, value = header.partition(b" ")
    if word != name:
        raise RepositoryError(f"a commit or tag has no '{name.decode()}' where it belongs; run: git fsck")
    return value.decode("ascii", "replace")
