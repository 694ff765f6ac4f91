"""The trail of a file: the commits that changed it, back through every parent of a merge, renames and copies.

`git log --follow` knows one name at a time, for all branches at once: of a branch that had renamed the file before it
was merged it shows a removal, and nothing of what came after.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from git_theta.git import RawRow, Repository, raw_row

__all__ = ["Touch", "trail"]

_MOST_ROUNDS = 100
"""Each finds names that the file had before; a repository may be hostile."""

_ORIGINS = {"R": "renamed", "C": "copied"}


@dataclass(frozen=True, slots=True)
class Touch:
    """A commit that changed the file: its blobs before and after, "" for none, and its path.

    `origin` says whether it was "renamed" or "copied" in that commit, from `old_path`; it is "" otherwise.
    """

    commit: str
    date: str
    author: str
    subject: str
    before: str
    after: str
    path: bytes
    old_path: bytes
    origin: str


_Pair = tuple[str, str]
"""A commit and a parent of it, "" for none."""


def trail(repository: Repository, revision: str, path: bytes) -> list[Touch]:
    """The commits that changed the file which has this path in a revision, the newest first.

    Merges stand beside their first parent.
    """
    graph = _graph(repository, "--end-of-options", revision, "--")
    names = {path: None}
    origins: dict[_Pair, dict[bytes, RawRow]] = {}
    touched: list[tuple[str, RawRow]] = []
    for _ in range(_MOST_ROUNDS):
        rows = _rows_of_names(repository, graph, revision, list(names))
        touched, begun = _walk(graph, path, rows, origins)
        asked = [pair for pair in begun if pair not in origins]
        found = _rows(repository, asked, ("-C", "--find-copies-harder", "-l7000", "--diff-filter=RC"))
        origins |= {pair: {row.path: row for row in found[pair]} for pair in asked}
        sources = [row.old_path for pair in asked for row in found[pair] if row.path in begun[pair]]
        if not sources:
            break
        names |= dict.fromkeys(sources)
    return _touches(repository, touched)


def _walk(
    graph: Mapping[str, Sequence[str]],
    path: bytes,
    rows: Mapping[_Pair, Mapping[bytes, RawRow]],
    origins: Mapping[_Pair, Mapping[bytes, RawRow]],
) -> tuple[list[tuple[str, RawRow]], Mapping[_Pair, set[bytes]]]:
    """What the commits of a graph made of the file; and where it seems to begin: its paths, beside such a parent."""
    wanted: defaultdict[str, set[bytes]] = defaultdict(set, {commit: {path} for commit in islice(graph, 1)})
    begun: defaultdict[_Pair, set[bytes]] = defaultdict(set)
    touched: list[tuple[str, RawRow]] = []
    for commit, parents in graph.items():
        names = sorted(wanted.pop(commit, ()))
        for parent in parents or ("",):
            for name in names:
                row = rows.get((commit, parent), {}).get(name)
                if row is not None and row.status == "A" and parent:
                    begun[commit, parent].add(name)
                    row = origins.get((commit, parent), {}).get(name, row)
                if row is not None and parent in ("", *parents[:1]):
                    touched.append((commit, row))
                wanted[parent].add(name if row is None else row.old_path)
    return touched, begun


def _graph(repository: Repository, *words: str) -> dict[str, tuple[str, ...]]:
    """Commits with their parents, children first, as git-rev-list(1) has them with these words."""
    text = repository.git("rev-list", "--date-order", "--parents", *words).decode()
    return {commit: tuple(parents) for commit, *parents in map(str.split, text.splitlines())}


def _rows_of_names(
    repository: Repository, graph: Mapping[str, Sequence[str]], revision: str, names: Sequence[bytes]
) -> Mapping[_Pair, Mapping[bytes, RawRow]]:
    """What became of the files of these names between commits and their parents, where anything did."""
    paths = [name.decode("utf-8", "surrogateescape") for name in names]
    # With --parents, merges are always among them.
    changed = _graph(repository, "--full-history", "--end-of-options", revision, "--", *paths)
    pairs = [(commit, parent) for commit in changed for parent in graph[commit] or ("",)]
    found = _rows(repository, pairs, ("--no-renames", "--", *paths))
    return {pair: {row.path: row for row in rows} for pair, rows in found.items() if rows}


def _rows(repository: Repository, pairs: Sequence[_Pair], words: Sequence[str]) -> Mapping[_Pair, list[RawRow]]:
    """What became of files between each commit and its parent, as git-diff-tree(1) has it with these words."""
    asked = "".join(f"{commit} {parent}".rstrip() + "\n" for commit, parent in pairs)
    how = ("diff-tree", "--stdin", "--always", "--root", "-r", "-z", "--raw", "--no-abbrev")
    text = repository.git(*how, *words, stdin=asked.encode()) if pairs else b""
    found: dict[_Pair, list[RawRow]] = {pair: [] for pair in pairs}
    left = iter(pairs)
    current: list[RawRow] = []
    fields = iter(text.split(b"\0")[:-1])
    for field in fields:
        if not field.startswith(b":"):
            current = found[next(left)]
            continue
        current.append(raw_row(field, fields))
    return found


def _touches(repository: Repository, touched: Sequence[tuple[str, RawRow]]) -> list[Touch]:
    """What the commits made of the file, with what they say of themselves."""
    how = ("log", "--no-walk=unsorted", "--stdin", "-z", "--no-show-signature", "--encoding=UTF-8", "--date=short")
    asked = "".join(f"{commit}\n" for commit in dict.fromkeys(commit for commit, _ in touched))
    text = repository.git(*how, "--format=%H%x00%ad%x00%an%x00%s", stdin=asked.encode()) if touched else b""
    fields = [field.decode("utf-8", "replace") for field in text.split(b"\0")[:-1]]
    said = dict(zip(fields[::4], zip(fields[1::4], fields[2::4], fields[3::4], strict=True), strict=True))
    touches = []
    for commit, row in touched:
        date, author, subject = said[commit]
        origin = _ORIGINS.get(row.status, "")
        touches.append(Touch(commit, date, author, subject, row.before, row.after, row.path, row.old_path, origin))
    return touches
