"""Real Git repositories for tests: a HOME, a configuration and a PATH of their own, and commands in them."""

import contextlib
import io
import os
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from git_theta import cli
from tests.checkpoints import safetensors, weights

__all__ = ["Outcome", "Repo", "environment", "model", "scripts_path"]

ATTRIBUTES = "filter=theta diff=theta merge=theta -text"


def scripts_path() -> Path:
    """Where pip has put `git-theta` and `git-theta-filter` for this Python."""
    return Path(sysconfig.get_path("scripts"))


def environment(home: Path) -> dict[str, str]:
    """The environment of a user who has nothing but Git and Git-Theta: no configuration, no GIT_* of the caller's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_", "LC_"))}
    for name in ("CONDA_PREFIX", "EDITOR", "NO_COLOR", "PAGER", "VISUAL"):
        inherited.pop(name, None)
    return inherited | {
        "PATH": os.pathsep.join([str(scripts_path()), os.environ.get("PATH", os.defpath)]),
        "HOME": str(home),
        "USERPROFILE": str(home),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LANGUAGE": "C",
    }


CONFIG = """\
[user]
\tname = A Tester
\temail = tester@example.com
[init]
\tdefaultBranch = main
[advice]
\tdetachedHead = false
[core]
\tautocrlf = false
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str


class Repo:
    """A repository at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def init(cls, path: Path, *options: str) -> "Repo":
        """A new repository."""
        path.mkdir()
        repo = cls(path)
        repo.git("init", "--quiet", *options)
        return repo

    def git(self, *arguments: str, accept: tuple[int, ...] = (0,), cwd: str = ".", **variables: str) -> str:
        """What `git` prints; asserts that it exits with `accept`."""
        done = self.run_git(*arguments, cwd=cwd, **variables)
        assert done.code in accept, f"git {arguments}: {done}"
        return done.out

    def run_git(self, *arguments: str, cwd: str = ".", **variables: str) -> Outcome:
        """`git` as a process."""
        return _run(["git", *arguments], self.path / cwd, variables)

    def run_theta(self, *arguments: str, cwd: str = ".", **variables: str) -> Outcome:
        """`git-theta` as a process."""
        return _run([str(scripts_path() / "git-theta"), *arguments], self.path / cwd, variables)

    def answer(self, given: bytes, *command: str) -> Outcome:
        """A command as a process that reads what the user types."""
        return _run(list(command), self.path, {}, given)

    def theta(self, *arguments: str, cwd: str = ".") -> Outcome:
        """`git theta`, in this process."""
        out, err = io.StringIO(), io.StringIO()
        with _inside(self.path / cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run(arguments)
        return Outcome(code, out.getvalue(), err.getvalue())

    def ok(self, *arguments: str, cwd: str = ".") -> str:
        """What `git theta` prints; asserts that all is well."""
        done = self.theta(*arguments, cwd=cwd)
        assert (done.code, done.err) == (0, ""), f"git theta {arguments}: {done}"
        return done.out

    def fails(self, code: int, *arguments: str, cwd: str = ".") -> str:
        """The one line that `git theta` says on stderr; asserts the exit code, and that it is one line."""
        done = self.theta(*arguments, cwd=cwd)
        assert (done.code, done.err.count("\n")) == (code, 1), f"git theta {arguments}: {done}"
        assert done.err.startswith("git-theta: ")
        return done.err

    def write(self, name: str, content: bytes) -> Path:
        """Write a file of the worktree."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def track(self, *patterns: str) -> None:
        """Track patterns, and say nothing."""
        self.ok("track", *patterns)

    def commit(self, message: str = "a commit") -> None:
        """Add everything and commit it."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def blob(self, name: str) -> bytes:
        """What the index has at a path."""
        done = subprocess.run(["git", "cat-file", "blob", f":{name}"], cwd=self.path, capture_output=True, check=True)
        return done.stdout

    def stage_blob(self, name: str, content: bytes, mode: str = "100644") -> None:
        """Put content into the index as it is, past every filter."""
        argv = ["git", "hash-object", "-w", "--no-filters", "--stdin"]
        done = subprocess.run(argv, cwd=self.path, input=content, capture_output=True, check=True)
        self.git("update-index", "--add", "--cacheinfo", f"{mode},{done.stdout.decode().strip()},{name}")

    def objects(self) -> list[Path]:
        """The objects of Git-Theta, by oid."""
        return sorted(path for path in (self.path / ".git" / "theta" / "objects").rglob("*") if path.is_file())

    def dematerialise(self, *names: str) -> None:
        """Leave manifests in the worktree, as a checkout with `theta.skipSmudge` does."""
        for name in names:
            (self.path / name).unlink()
        self.git("--literal-pathspecs", "checkout", "--", *names, GIT_THETA_SKIP_SMUDGE="1")


def model(seed: int = 0, layers: int = 3) -> bytes:
    """A small real safetensors file: one bundled tensor, and a few that have objects of their own."""
    tensors = {
        f"layers.{index}.weight": ("F32", (128, 160), weights(128 * 160, seed + index)) for index in range(layers)
    }
    return safetensors({"embedding": ("F32", (10, 4), weights(40, seed))} | tensors)


def _run(argv: list[str], cwd: Path, variables: Mapping[str, str], stdin: bytes = b"") -> Outcome:
    done = subprocess.run(argv, cwd=cwd, env=os.environ | variables, input=stdin, capture_output=True, check=False)
    return Outcome(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Make a folder the current one; contextlib.chdir came with Python 3.11."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
