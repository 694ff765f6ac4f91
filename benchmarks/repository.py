"""Repositories to measure in: each in a folder of its own, with a HOME and a Git configuration of its own."""

import filecmp
import mmap
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

__all__ = ["Kind", "Repository", "environment", "installed"]

Kind = Literal["theta", "lfs"]

_TOUCHED_BYTES = 2 * 2**30


def installed(program: str) -> bool:
    """Whether a program can be started."""
    return shutil.which(program, path=_path()) is not None


class Repository:
    """A new repository whose checkpoints are kept by git-theta or by git-lfs.

    Nothing of the user's is read or written: no configuration, no hooks, no credentials.
    """

    def __init__(self, folder: Path, kind: Kind, name: str) -> None:
        """`name` is the checkpoint's file name; every file with its suffix is tracked."""
        self.kind = kind
        self.worktree = folder / kind / "model-repository"
        self.checkpoint = self.worktree / name
        self.environment = environment(folder / kind / "home")
        self._clock_s = int(time.time()) - 1_000_000
        shutil.rmtree(folder / kind, ignore_errors=True)
        (folder / kind / "home").mkdir(parents=True)
        self.worktree.mkdir()

    def set_up(self) -> None:
        """The commands that a user gives once."""
        self.run("git", "init", "--quiet")
        self.run("git", self.kind, "install")
        self.run("git", self.kind, "track", f"*{self.checkpoint.suffix}")
        self.run("git", "add", ".gitattributes")
        self.commit("track checkpoints")

    def run(self, *argv: str, stdin: bytes = b"", **variables: str) -> float:
        """Run a command in the worktree and return the seconds it took; raises SystemExit where it fails."""
        start = time.perf_counter()
        done = subprocess.run(
            argv,
            cwd=self.worktree,
            env=self.environment | variables,
            input=stdin,
            capture_output=True,
            check=False,
        )
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            output = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise SystemExit(f"{' '.join(argv)}: exit code {done.returncode}\n{output}")
        return seconds

    def output(self, *argv: str) -> bytes:
        """What a command in the worktree prints."""
        return subprocess.check_output(argv, cwd=self.worktree, env=self.environment)

    def timed(self, *argv: str, **variables: str) -> float:
        """`run`, after the disk has taken what earlier commands wrote, with memory at hand.

        A virtual machine gives memory that lies idle back to its host. To get it again costs more than all that the
        tools do, at random: so as much as a command may need is used and freed right before.
        """
        if hasattr(os, "sync"):
            os.sync()
        with mmap.mmap(-1, _TOUCHED_BYTES) as memory:
            for offset in range(0, len(memory), mmap.PAGESIZE):
                memory[offset] = 1
        return self.run(*argv, stdin=b"", **variables)

    def commit(self, message: str) -> None:
        self.run("git", "commit", "--quiet", "-m", message)

    def put(self, file: Path) -> None:
        """Make `file` the checkpoint: a link where one can be, as nothing here ever edits a file in place."""
        self.checkpoint.unlink(missing_ok=True)
        try:
            self.checkpoint.hardlink_to(file)
        except OSError:
            shutil.copyfile(file, self.checkpoint)

    def touch(self) -> None:
        """Give the checkpoint another time, so that Git must look at its content again.

        The time is long past: Git looks twice at a file as new as its index.
        """
        self._clock_s += 1
        os.utime(self.checkpoint, (self._clock_s, self._clock_s))

    def settle(self) -> None:
        """Have Git look at the checkpoint now, so that the next command need not.

        Otherwise it would: a file as new as the index may have changed since ("racy", gitformat-index(5)).
        """
        self.touch()
        self.run("git", "update-index", "--refresh")

    def check_equal(self, file: Path, name: str = "") -> None:
        """Raise SystemExit if the checkpoint, or the file at `name`, does not have the bytes of `file`."""
        filecmp.clear_cache()
        given = self.worktree / name if name else self.checkpoint
        if not filecmp.cmp(given, file, shallow=False):
            raise SystemExit(f"{given}: {self.kind} gave other bytes back than {file} has")

    def check_filtered(self) -> None:
        """Raise SystemExit if Git's index has the checkpoint itself instead of a text in its place."""
        size = int(self.output("git", "cat-file", "-s", f":{self.checkpoint.name}"))
        if size == self.checkpoint.stat().st_size:
            raise SystemExit(f"{self.checkpoint}: Git stored it as it is; the {self.kind} filter did not run")

    def objects(self) -> list[Path]:
        """The objects outside of Git's own."""
        return [path for path in (self.worktree / ".git" / self.kind / "objects").rglob("*") if path.is_file()]

    def stored(self) -> tuple[int, int]:
        """How many bytes lie in how many objects outside of Git's own."""
        objects = self.objects()
        return sum(path.stat().st_size for path in objects), len(objects)

    def remove(self) -> None:
        shutil.rmtree(self.worktree.parent)


def _path() -> str:
    """PATH with the folder of this Python first: that is where pip has put git-theta."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def environment(home: Path) -> dict[str, str]:
    """The environment of a user with that HOME, and with nothing but Git, git-lfs and git-theta."""
    # GIT_DIR and its kin would send our commands to the repository that this program was started from.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_"))}
    return inherited | {
        "PATH": _path(),
        "HOME": str(home),
        "USERPROFILE": str(home),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "A Newcomer",
        "GIT_AUTHOR_EMAIL": "newcomer@example.com",
        "GIT_COMMITTER_NAME": "A Newcomer",
        "GIT_COMMITTER_EMAIL": "newcomer@example.com",
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_0": "init.defaultBranch",
        "GIT_CONFIG_VALUE_0": "main",
        "GIT_CONFIG_KEY_1": "advice.detachedHead",
        "GIT_CONFIG_VALUE_1": "false",
        "GIT_CONFIG_KEY_2": "gc.auto",
        "GIT_CONFIG_VALUE_2": "0",
    }
