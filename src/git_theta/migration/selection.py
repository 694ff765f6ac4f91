"""Which paths the patterns of a user select, as Git itself matches them: the patterns are those of gitattributes(5)."""

import secrets
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from git_theta import attributes
from git_theta.git import Repository
from git_theta.migration.process import Process

__all__ = ["Selection"]


class Selection:
    """The paths that one of `include` matches and none of `exclude`, seen from the root; use it in a `with` block.

    Raises InputError for a pattern that Git would not heed.
    """

    def __init__(self, repository: Repository, include: Sequence[bytes], exclude: Sequence[bytes]) -> None:
        self._repository = repository
        # A name that no .gitattributes of the repository can know.
        self._attribute = f"theta-{secrets.token_hex(8)}".encode()
        text = b""
        for patterns, words in ((include, self._attribute), (exclude, b"-" + self._attribute)):
            for pattern in patterns:
                text = attributes.append(text, pattern, words)
        self._text = text
        self._stack = ExitStack()
        self._known: dict[bytes, bool] = {}

    def __enter__(self) -> "Selection":
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="git-theta-"))
        path = Path(folder) / "attributes"
        path.write_bytes(self._text)
        setting = f"core.attributesFile={path.as_posix()}"
        argv = ["-c", setting, "check-attr", "--stdin", "-z", self._attribute.decode()]
        self._process = self._stack.enter_context(Process(argv, cwd=self._repository.base, environ={}))
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]  # what a `with` block gives

    def has(self, path: bytes) -> bool:
        """Whether a path is selected."""
        if path not in self._known:
            self._process.ask(path + b"\0")
            self._process.read(len(path) + len(self._attribute) + 2)
            value = b""
            while not value.endswith(b"\0"):
                value += self._process.read(1)
            self._known[path] = value == b"set\0"
        return self._known[path]
