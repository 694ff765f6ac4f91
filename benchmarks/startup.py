"""The start of the filter process, which every `git status` of a changed checkpoint waits for."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from statistics import median
from typing import IO, cast

from figures import Figure
from repository import Repository
from workplace import Workplace

__all__ = ["startup"]

GREETING = b"0016git-filter-client\n000eversion=2\n0000"  # gitattributes(5), "Long Running Filter Process"
ANSWER = b"0016git-filter-server\n000eversion=2\n0000"
PROGRAM = "from git_theta.drivers.filter import main; main()"
HEAVY = ("torch", "zarr", "rich", "click", "numpy")


def startup(workplace: Workplace) -> Iterator[Figure]:
    """Time from the start of the process until it has answered Git's greeting, and what it imports until then."""
    with workplace.repository("theta", "model.safetensors") as repository:
        workplace.say("start of the filter process")
        _greet(repository, "git-theta-filter")  # once for the bytecode and the page cache
        seconds = [_greet(repository, "git-theta-filter")[0] for _ in range(5 * workplace.scale.repetitions)]
        _, log = _greet(repository, sys.executable, "-X", "importtime", "-c", PROGRAM)
    packages = {line.rpartition("|")[2].strip().partition(".")[0] for line in log.splitlines()}
    heavy = [name for name in HEAVY if name in packages]
    group = "start of the filter process"
    yield Figure(group, "until it answers", 1000 * median(seconds), 120, "ms", samples={"git-theta": seconds})
    detail = f"imports {', '.join(heavy)}" if heavy else f"none of {', '.join(HEAVY)}"
    yield Figure(group, "heavy packages imported", len(heavy), 0, detail=detail)


def _greet(repository: Repository, *argv: str) -> tuple[float, str]:
    """Start a filter process; returns the seconds until it has answered and what it wrote to stderr."""
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            argv,
            cwd=repository.worktree,
            env=repository.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
        )
        with cast(IO[bytes], process.stdin) as stdin, cast(IO[bytes], process.stdout) as stdout:
            stdin.write(GREETING)
            answer = stdout.read(len(ANSWER))
            seconds = time.perf_counter() - start
        process.wait()
        log.seek(0)
        errors = log.read().decode(errors="replace")
    if answer != ANSWER:
        raise SystemExit(f"{argv[0]}: it answered {answer!r}\n{errors}")
    return seconds, errors
