"""Killing a command at random moments: all of its process group, with SIGKILL, so that nothing gets to tidy up."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.repositories import Repo

__all__ = ["KILLS", "Command", "amount", "kill_often", "named_missing", "unlock", "whole"]

KILLS = int(os.environ.get("GIT_THETA_KILLS", "2"))
SECONDS = 120


class Command:
    """A command that was started, in a process group of its own."""

    def __init__(self, repo: Repo, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            argv, cwd=repo.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> None:
        """Wait until it has ended or so much time has passed."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes, if it still runs."""
        # Nobody has waited for it then, so that its number is nobody else's.
        if self.is_running():
            os.killpg(self._process.pid, number)

    def kill(self) -> bool:
        """Kill what still runs; whether that is what ended the command."""
        self.signal(signal.SIGKILL)
        return self.end()[0] == -signal.SIGKILL

    def end(self) -> tuple[int, str]:
        """Its exit code and what it said, once all of its processes have gone: they hold the other end of the pipe."""
        said, _ = self._process.communicate(timeout=SECONDS)
        return self._process.returncode, os.fsdecode(said)


def kill_often(repo: Repo, argv: Sequence[str], prepare: Callable[[], None], check: Callable[[], str]) -> None:
    """Have the command killed KILLS times, at random fractions of the time that it takes undisturbed.

    `prepare` makes something to do; `check` looks at what was left, completes it, and says in few words what it found.
    """
    random_ = random.Random(f"{argv}")
    prepare()
    start = time.monotonic()
    code, said = Command(repo, argv).end()
    assert code == 0, said
    duration = time.monotonic() - start
    found: Counter[str] = Counter()
    late = 0
    while found.total() < KILLS:
        assert late < 10 * KILLS
        prepare()
        command = Command(repo, argv)
        command.wait(random_.uniform(0, duration))
        if command.kill():
            found[check()] += 1
        else:
            late += 1
            check()
    sys.stdout.write(f"{KILLS} kills in {duration:.2f} s, {late} came too late; found: {dict(found.most_common())}\n")


def whole(root: Path) -> set[str]:
    """The oids of the store in a `theta` directory; asserts that each file under a final name hashes to that."""
    oids = set()
    for path in (root / "objects").rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                assert hashlib.sha256(file.read()).hexdigest() == path.name
            oids.add(path.name)
    return oids


def named_missing(repo: Repo) -> set[str]:
    """The oids that `git theta fsck` calls missing; asserts that it finds nothing else, and its exit code."""
    done = repo.theta("fsck")
    missing = set(re.findall(r"object ([0-9a-f]{64}) is missing$", done.out, re.MULTILINE))
    assert (done.code, done.err, "damaged" in done.out) == (4 if missing else 0, "", False), done
    return missing


def unlock(*folders: Path) -> bool:
    """Remove the locks that killed Git processes have left, as a user is told to; whether there were any."""
    locks = [path for folder in folders for path in folder.rglob("*.lock")]
    for path in locks:
        path.unlink()
    return bool(locks)


def amount(found: int, total: int) -> str:
    """How many of a total, in a word."""
    return "no" if not found else "all" if found == total else "some"
