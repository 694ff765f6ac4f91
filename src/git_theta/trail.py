"""The trail of a file: the commits that changed it, back through every parent of a merge and through renames.

`git log --follow` knows one name at a time, for all branches at once: of a branch that had renamed the file before it
was merged it shows a removal, and nothing of what came after.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from git_theta.git import Repository

__all__ = ["Touch", "trail"]

_MOST_ROUNDS = 100
"""Each finds names that the file had before; a repository may be hostile."""

_FIELDS = ("%H", "%P", "%ad", "%an", "%s")


@dataclass(frozen=True, slots=True)
class Touch:
    """A commit that changed the file: its blobs before and after, "" for none, and the path that it had before."""

    commit: str
    date: str
    author: str
    subject: str
    before: str
    after: str
    path: bytes
    old_path: bytes


@dataclass(frozen=True, slots=True)
class _Commit:
    oid: str
    parents: tuple[str, ...]
    date: str
    author: str
    subject: str


@dataclass(frozen=True, slots=True)
class _Row:
    """What became of a file between two commits; `old_path` is another one than `path` where it was renamed."""

    before: str
    after: str
    old_path: bytes
    path: bytes


def trail(repository: Repository, revision: str, path: bytes) -> list[Touch]:
    """The commits that changed the file which has this path in a revision, the newest first.

    Merges stand beside their first parent.
    """
    names = {path: None}
    checked: set[str] = set()
    touches: list[Touch] = []
    for _ in range(_MOST_ROUNDS):
        touches, added = _walk(repository, revision, path, list(names))
        pairs = _parents(repository, [commit for commit in added if commit not in checked])
        checked.update(added)
        renamed = _rows(repository, pairs, ("--diff-filter=R",))
        found = [row.old_path for pair in pairs for row in renamed[pair] if row.path in added[pair[0]]]
        if not set(found) - names.keys():
            break
        names |= dict.fromkeys(found)
    return touches


def _walk(
    repository: Repository, revision: str, path: bytes, names: Sequence[bytes]
) -> tuple[list[Touch], Mapping[str, set[bytes]]]:
    """The commits that changed the file, as far as it had one of the names; and the paths at which it seems to begin
    in a commit.
    """
    commits = _commits(repository, revision, names)
    rows = _rows(repository, [(one.oid, parent) for one in commits for parent in one.parents or ("",)], ("--", *names))
    wanted: defaultdict[str, set[bytes]] = defaultdict(set)
    wanted.update({one.oid: {path} for one in commits[:1]})
    touches: list[Touch] = []
    added: defaultdict[str, set[bytes]] = defaultdict(set)
    for one in commits:
        for parent in one.parents or ("",):
            there = {row.path: row for row in rows[one.oid, parent]}
            gone = {row.old_path: row for row in rows[one.oid, parent] if row.old_path != row.path}
            for name in sorted(wanted[one.oid]):
                row = there.get(name)
                if row is None and name in gone:  # the old path of another file
                    row = _Row(gone[name].before, "", name, name)
                if row is not None and parent in ("", *one.parents[:1]):
                    kept = one.oid, one.date, one.author, one.subject
                    touches.append(Touch(*kept, row.before, row.after, row.path, row.old_path))
                if row is not None and not row.before:
                    added[one.oid].add(name)
                if parent:
                    wanted[parent].add(name if row is None else row.old_path)
    return touches, added


def _commits(repository: Repository, revision: str, names: Sequence[bytes]) -> list[_Commit]:
    """The commits that changed a file of one of these names, children first; parents are the next such commits."""
    how = ("log", "-z", "--parents", "--date-order", "--date=short", f"--format={'%x00'.join(_FIELDS)}")
    text = repository.git(*how, "--end-of-options", revision, "--", *map(_text, names))
    fields = [field.decode("utf-8", "replace") for field in text.split(b"\0")[:-1]]
    rows = (fields[start : start + len(_FIELDS)] for start in range(0, len(fields), len(_FIELDS)))
    return [_Commit(oid, tuple(parents.split()), *rest) for oid, parents, *rest in rows]


def _parents(repository: Repository, commits: Sequence[str]) -> list[tuple[str, str]]:
    """Each commit with each of its own parents."""
    asked = "".join(f"{commit}\n" for commit in commits)
    text = repository.git("rev-list", "--no-walk=unsorted", "--parents", "--stdin", stdin=asked.encode())
    lines = [line.split() for line in (text.decode() if commits else "").splitlines()]
    return [(commit, parent) for commit, *parents in lines for parent in parents]


def _rows(
    repository: Repository, pairs: Sequence[tuple[str, str]], words: Sequence[str | bytes]
) -> Mapping[tuple[str, str], list[_Row]]:
    """What became of files between each commit and its parent, "" for none, as diff-tree has it with these words."""
    asked = "".join(f"{commit} {parent}".rstrip() + "\n" for commit, parent in pairs)
    options = ("diff-tree", "--stdin", "--always", "--root", "-r", "-z", "--raw", "--no-abbrev", "-M")
    text = repository.git(*options, *map(_text, words), stdin=asked.encode()) if pairs else b""
    fields = iter(text.split(b"\0")[:-1])
    found: dict[tuple[str, str], list[_Row]] = {}
    left = iter(pairs)
    current: list[_Row] = []
    for field in fields:
        if not field.startswith(b":"):
            current = found.setdefault(next(left), [])
            continue
        *_, before, after, status = field.decode().split(" ")
        old = next(fields)
        new = next(fields) if status[0] in "RC" else old
        current.append(_Row(_oid(before), _oid(after), old, new))
    return found


def _oid(text: str) -> str:
    return text if text.strip("0") else ""


def _text(word: str | bytes) -> str:
    return word if isinstance(word, str) else word.decode("utf-8", "surrogateescape")
