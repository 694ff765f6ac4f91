"""Interrupted and refused adds: no half object under a final name, nothing staged, and the next add succeeds.

Git and its filter are killed at random moments of an add of a hundred megabytes; then the disk is full, or read-only.
"""

import hashlib
import os
import random
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

from git_theta import manifest
from tests.checkpoints import Tensor, leftovers, linux_only, noise, safetensors, weights
from tests.confined import NO_OVERRIDE, SMALL_FILES, TINY_FILES, run_confined
from tests.git.kinds import layers
from tests.repositories import Repo, model, scripts_path

MIB = 2**20
LAYERS = 12
SECONDS = 120

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@cache
def large() -> bytes:
    """A safetensors file of 96 MiB, none of whose layers is another."""
    layer = weights(2 * MIB, 11)
    tensors: dict[str, Tensor] = {"small": ("F32", (10,), weights(10, 12))}
    for index in range(LAYERS):
        tensors[f"layer.{index}"] = ("F32", (1024, 2048), index.to_bytes(4, "little") + layer[4:])
    return safetensors(tensors)


def assert_whole(repo: Repo) -> None:
    """Every object's bytes hash to its name."""
    for path in repo.objects():
        with path.open("rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == path.name


@pytest.fixture
def slow(repo: Repo, tmp_path: Path) -> Repo:
    """A repository with a hundred megabytes to add, one thread to do it, and a note of the filter's process id."""
    repo.track("*.st")
    repo.git("commit", "--quiet", "-m", "track")
    script = shlex.quote(str(scripts_path() / "git-theta-filter"))
    pid = shlex.quote(str(tmp_path / "pid"))
    repo.git("config", "--global", "filter.theta.process", f"echo $$ >{pid}.new; mv {pid}.new {pid}; exec {script}")
    repo.git("config", "theta.threads", "1")
    repo.git("config", "theta.fsync", "true")
    repo.write("a.st", large())
    return repo


@contextmanager
def adding(repo: Repo, pid: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running `git add`, in a process group of its own, with nothing of an earlier one left."""
    pid.unlink(missing_ok=True)
    process = subprocess.Popen(["git", "add", "a.st"], cwd=repo.path, stderr=subprocess.PIPE, start_new_session=True)
    try:
        yield process
    finally:
        # The filter holds the other end of stderr: when it ends, both processes have gone.
        process.communicate(timeout=SECONDS)


def wait_for(pid: Path, process: subprocess.Popen[bytes]) -> int:
    """The filter's process id, once it has started."""
    end = time.monotonic() + SECONDS
    while not pid.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.001)
    return int(pid.read_text())


@posix_only
@pytest.mark.parametrize("target", ["git", "filter", "both"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_killed_adds_leave_whole_objects_and_nothing_staged(
    slow: Repo, tmp_path: Path, number: signal.Signals, target: str
) -> None:
    random_ = random.Random(f"{number} {target}")
    theta, lock = slow.path / ".git" / "theta", slow.path / ".git" / "index.lock"
    slow.git("config", "theta.compression", "auto" if target == "filter" else "none")
    for round_ in range(3):
        for path in slow.objects():
            path.unlink()
        with adding(slow, tmp_path / "pid") as process:
            pid = wait_for(tmp_path / "pid", process)
            # The moment that so many more objects are there, or within the time that the next one takes.
            wanted = random_.randrange(1, 5) if round_ else 0
            delay = random_.uniform(0, 0.02) if round_ == 1 else 0
            while process.poll() is None and len(slow.objects()) < wanted:
                time.sleep(0.0001)
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                if target == "both":
                    os.killpg(process.pid, number)
                else:
                    os.kill(process.pid if target == "git" else pid, number)
        assert_whole(slow)
        if number != signal.SIGKILL:
            assert leftovers(theta) == []
        assert lock.exists() <= (number == signal.SIGKILL and target != "filter")
        lock.unlink(missing_ok=True)
        # Thirteen objects are not there by then: the signal came in time.
        assert process.returncode != 0
        assert slow.git("ls-files", "a.st") == ""
        assert not list((slow.path / ".git").glob("theta/logs/*"))
    done = slow.run_git("add", "a.st")
    assert (done.code, done.err) == (0, "")
    found = manifest.parse(slow.blob("a.st"))
    assert found.size == len(large())
    assert_whole(slow)
    assert {path.name for path in slow.objects()} == set(found.objects())
    argv = ["git", "cat-file", "--filters", ":a.st"]
    assert subprocess.run(argv, cwd=slow.path, capture_output=True, check=True).stdout == large()


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_killed_spooling_leaves_no_spool(slow: Repo, number: signal.Signals) -> None:
    """A pipe that differs from the worktree is copied to a temporary file, which goes as well."""
    theta = slow.path / ".git" / "theta"
    argv = ["git", "hash-object", "-w", "--stdin", "--path=another.st"]
    with subprocess.Popen(argv, cwd=slow.path, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(large()[: 8 * MIB])
        process.stdin.flush()
        end = time.monotonic() + SECONDS
        while not leftovers(theta):
            assert time.monotonic() < end
            time.sleep(0.001)
        process.send_signal(number)
        with suppress(BrokenPipeError):
            process.communicate(timeout=SECONDS)
    assert leftovers(theta) == []
    assert slow.objects() == []


@posix_only
@pytest.mark.parametrize(
    ("limit", "size", "command"),
    [
        (TINY_FILES, MIB // 2, "git add a.st"),
        (SMALL_FILES, 3 * MIB, "git add a.st"),
        (SMALL_FILES, 3 * MIB, "git hash-object -w --stdin --path=none.st <a.st"),
    ],
    ids=["held", "streamed", "spooled"],
)
def test_full_disk_is_one_line_and_nothing_staged(repo: Repo, limit: str, size: int, command: str) -> None:
    repo.track("*.st")
    content = noise(size)
    path = repo.write("a.st", content)
    code, stderr, lines = run_confined(repo, limit, "sh", "-c", command)
    assert code == 128
    assert len(lines) == 1, stderr
    assert lines[0].endswith(": no space left (File too large); free some and try again")
    assert "Traceback" not in stderr
    assert repo.git("ls-files", "a.st") == ""
    assert leftovers(repo.path / ".git" / "theta") == []
    assert_whole(repo)
    repo.git("add", "a.st")
    path.unlink()
    repo.git("checkout", "--", "a.st")
    assert path.read_bytes() == content


@linux_only
def test_full_disk_while_the_spool_of_a_plain_file_is_written(repo: Repo) -> None:
    repo.write("plain.st", layers())
    repo.commit()
    repo.theta("track", "*.st")
    (repo.path / "plain.st").unlink()
    code, _, lines = run_confined(repo, SMALL_FILES, "git", "checkout", "--", "plain.st")
    assert code != 0
    assert len(lines) == 1
    assert lines[0].startswith("git-theta: plain.st: ")
    assert "no space left" in lines[0]
    assert leftovers(repo.path / ".git" / "theta") == []


@linux_only
@pytest.mark.parametrize(
    ("what", "content"),
    [("theta", "large"), ("theta/tmp", "large"), ("theta/tmp", "small"), ("theta/objects", "large")],
)
def test_read_only_store_is_one_line_and_nothing_staged(repo: Repo, what: str, content: str) -> None:
    repo.track("*.st")
    repo.write("a.st", model(0))
    repo.git("add", "a.st")
    repo.write("b.st", model(7) if content == "small" else layers())
    theta = repo.path / ".git" / "theta"
    if what == "theta":
        (theta / "tmp").rmdir()
    folders = [theta / "objects", *(path for path in (theta / "objects").rglob("*") if path.is_dir())]
    closed = {"theta": [theta], "theta/tmp": [theta / "tmp"], "theta/objects": folders}[what]
    for folder in closed:
        folder.chmod(0o555)
    code, stderr, lines = run_confined(repo, NO_OVERRIDE, "git", "add", "b.st")
    for folder in closed:
        folder.chmod(0o755)
    assert code == 128, stderr
    assert len(lines) == 1
    assert lines[0].startswith("git-theta: b.st: ")
    assert "it cannot be written to" in lines[0]
    assert repo.git("ls-files", "b.st") == ""
    assert_whole(repo)
    repo.git("add", "b.st")


@pytest.mark.parametrize("what", ["theta", "theta/tmp", "theta/objects"])
def test_file_in_place_of_the_store_is_one_line_and_nothing_staged(repo: Repo, what: str) -> None:
    repo.track("*.st")
    repo.write("a.st", model())
    path = repo.path / ".git" / what
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"in the way")
    done = repo.run_git("add", "a.st")
    [line] = [line for line in done.err.splitlines() if line.startswith("git-theta: ")]
    assert done.code == 128
    assert line.startswith("git-theta: a.st: ")
    assert "it cannot be written to" in line
    assert repo.git("ls-files", "a.st") == ""
    path.unlink()
    repo.git("add", "a.st")


class Writer:
    """Writes to a file, in place, from a thread, until it is stopped or has written so often."""

    def __init__(self, path: Path, how: str, times: int, seed: int) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, args=(path, how, times, random.Random(seed)))

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self, path: Path, how: str, times: int, random_: random.Random) -> None:
        size = path.stat().st_size
        with path.open("r+b", buffering=0) as file:
            while times and not self._stop.is_set():
                times -= 1
                if how == "truncating":
                    size = random_.randrange(size // 2, size)
                    file.truncate(size)
                else:
                    file.seek(0, os.SEEK_END) if how == "appending" else file.seek(random_.randrange(size))
                    file.write(random_.randbytes(random_.choice([1, 100, 2**16])))
                self._stop.wait(random_.uniform(0, 0.05))


@pytest.mark.parametrize("times", [1, 3, 10**9], ids=["once", "thrice", "all the time"])
@pytest.mark.parametrize("how", ["appending", "overwriting", "truncating"])
def test_file_written_to_during_the_add_is_refused_or_some_whole_content(repo: Repo, how: str, times: int) -> None:
    repo.track("*.st")
    repo.git("config", "theta.threads", "2")
    path = repo.write("a.st", large()[: 24 * MIB])
    for seed in range(2 if times == 3 else 1):
        before = repo.git("ls-files", "-s")
        with Writer(path, how, times, seed):
            done = repo.run_git("add", "a.st")
        assert_whole(repo)
        assert leftovers(repo.path / ".git" / "theta") == []
        if done.code:
            assert repo.git("ls-files", "-s") == before
            said = [line for line in done.err.splitlines() if line.startswith("git-theta: ")]
            # Git itself may notice that a file has become shorter.
            assert all("while it was read; try again" in line for line in said)
            assert said or "short read" in done.err or "read error" in done.err, done.err
            continue
        argv = ["git", "cat-file", "--filters", ":a.st"]
        content = subprocess.run(argv, cwd=repo.path, capture_output=True, check=True).stdout
        assert manifest.parse(repo.blob("a.st")).size == len(content)
        if how == "appending":
            assert path.read_bytes().startswith(content)
        else:
            assert len(content) <= 25 * MIB
    # Nobody writes any more.
    repo.git("add", "a.st")
    argv = ["git", "cat-file", "--filters", ":a.st"]
    assert subprocess.run(argv, cwd=repo.path, capture_output=True, check=True).stdout == path.read_bytes()
