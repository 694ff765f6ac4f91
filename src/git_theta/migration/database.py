"""Git's object database, one object at a time: a history of thousands of commits takes five processes.

Objects are read and written as Git keeps them, so that what is not changed stays as it was to the byte: messages in any
encoding, time zones, modes, and headers that nobody knows. `git replace` and grafts do not hold here.

Source: git-cat-file(1), git-hash-object(1), git-mktree(1); the text of a tree is `parse_tree` in Git's tree-walk.c.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from git_theta.errors import RepositoryError
from git_theta.git import Repository
from git_theta.migration.process import Process
from git_theta.store import Store, reporting_full_disk

__all__ = ["TRUE_HISTORY", "Database", "Entry"]

TRUE_HISTORY = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": os.devnull}
"""The environment in which Git sees commits as they are."""

_BLOCK_BYTES = 2**20
_MAX_HELD_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a tree: `mode` is "100644", "40000", ...; `name` is any bytes but NUL and "/"."""

    mode: bytes
    name: bytes
    oid: str

    @property
    def is_tree(self) -> bool:
        return self.mode == b"40000"

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file: no symbolic link, and no submodule."""
        return self.mode.startswith(b"100")


class Database:
    """The objects of one repository; leaving its `with` block raises RepositoryError if Git did not write them all."""

    def __init__(self, repository: Repository, store: Store) -> None:
        self._repository = repository
        self._store = store
        self._stack = ExitStack()
        self._running: dict[tuple[str, ...], Process] = {}
        self._scratch = Path()
        self._fd = -1

    def __enter__(self) -> "Database":
        self._fd, self._scratch = self._store.temporary()
        self._stack.callback(self._scratch.unlink, missing_ok=True)
        self._stack.callback(os.close, self._fd)
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]  # what a `with` block gives

    def read(self, oid: str, kind: str) -> bytes:
        """An object's content; raises RepositoryError unless it is one of this kind, and of a reasonable size."""
        size = self._begin(oid, kind)
        if size > _MAX_HELD_BYTES:
            raise RepositoryError(f"{kind} {oid}: it has {size} bytes, and at most {_MAX_HELD_BYTES} are read")
        return self._process("cat-file", "--batch").read(size + 1)[:-1]

    def stream(self, oid: str) -> Iterator[bytes]:
        """A blob's content in blocks, all of which must be taken."""
        left = self._begin(oid, "blob")
        process = self._process("cat-file", "--batch")
        while left:
            block = process.read(min(left, _BLOCK_BYTES))
            left -= len(block)
            yield block
        process.read(1)

    def _begin(self, oid: str, kind: str) -> int:
        process = self._process("cat-file", "--batch")
        process.ask(f"{oid}\n".encode())
        head = process.line().split(b" ")
        if len(head) != 3 or head[1].decode() != kind:
            raise RepositoryError(f"{kind} {oid} cannot be read; run: git fsck")
        return int(head[2])

    def tree(self, oid: str) -> list[Entry]:
        """The rows of a tree."""
        text = self.read(oid, "tree")
        length = len(oid) // 2
        rows, start = [], 0
        while start < len(text):
            end = text.find(b"\0", start) + 1
            if not start < end <= len(text) - length:
                raise RepositoryError(f"tree {oid} is damaged; run: git fsck")
            mode, _, name = text[start : end - 1].partition(b" ")
            rows.append(Entry(mode.lstrip(b"0"), name, text[end : end + length].hex()))
            start = end + length
        return rows

    def write(self, content: bytes, kind: str) -> str:
        """Write an object; its oid."""
        view = memoryview(content)
        with reporting_full_disk(self._scratch.parent):
            os.lseek(self._fd, 0, os.SEEK_SET)
            while view:
                view = view[os.write(self._fd, view) :]
            os.ftruncate(self._fd, len(content))
        return self.write_file(self._scratch, kind)

    def write_file(self, path: Path, kind: str = "blob") -> str:
        """Write an object with the content of a file that `Store.temporary` made; its oid."""
        # What nobody has found fault with in years is not refused for its form now; a blob has none, and is streamed.
        lenient = () if kind == "blob" else ("--literally",)
        process = self._process("hash-object", "-t", kind, "-w", *lenient, "--no-filters", "--stdin-paths")
        process.ask(os.fsencode(path.name) + b"\n")
        return process.line().decode()

    def write_tree(self, rows: Iterable[Entry]) -> str:
        """Write a tree, whatever the order of the rows; its oid."""
        process = self._process("mktree", "-z", "--missing", "--batch")
        kinds = {b"40000": b"tree", b"160000": b"commit"}
        listing = (
            b"%s %s %s\t%s\0" % (row.mode, kinds.get(row.mode, b"blob"), row.oid.encode(), row.name) for row in rows
        )
        process.ask(b"".join(listing) + b"\0")
        return process.line().decode()

    def _process(self, *arguments: str) -> Process:
        if arguments not in self._running:
            # In the folder of the scratch file, so that its name alone goes into the list of paths.
            environ = {**TRUE_HISTORY, "GIT_DIR": str(self._repository.git_dir)}
            process = Process(arguments, cwd=self._scratch.parent, environ=environ)
            self._running[arguments] = self._stack.enter_context(process)
        return self._running[arguments]
