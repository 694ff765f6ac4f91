"""A Git command that stays: asked thousands of times, it costs one start."""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from git_theta.errors import RepositoryError
from git_theta.git import complaint

__all__ = ["Process"]


class Process:
    """A Git command that answers one request after another; leaving its `with` block ends it and checks its exit code.

    Raises RepositoryError with Git's own line where it gives no answer.
    """

    def __init__(self, arguments: Sequence[str], *, cwd: Path, environ: Mapping[str, str]) -> None:
        self._name = arguments[2 if arguments[0] == "-c" else 0]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # it is closed with the process
        self._process = subprocess.Popen(
            ["git", *arguments],
            cwd=cwd,
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # Git may be waiting for a reader of its answer, which nobody wants any more.
        for pipe in (self._process.stdout, self._process.stdin):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]  # both were asked for
        code = self._process.wait()
        with self._stderr:
            if code and kind is None:
                raise self._failure()

    def ask(self, request: bytes) -> None:
        """Send a request."""
        assert self._process.stdin is not None  # noqa: S101  # it was asked for
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure() from error

    def line(self) -> bytes:
        """A line of the answer, without its end."""
        assert self._process.stdout is not None  # noqa: S101  # it was asked for
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._failure()
        return line[:-1]

    def read(self, size: int) -> bytes:
        """So many bytes of the answer."""
        assert self._process.stdout is not None  # noqa: S101  # it was asked for
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise self._failure()
        return data

    def _failure(self) -> RepositoryError:
        code = self._process.wait()
        self._stderr.seek(0)
        return RepositoryError(f"git {self._name} failed: {complaint(self._stderr.read(), code)}")
