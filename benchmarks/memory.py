"""Anonymous memory of git-theta's processes, and Git's: what they hold themselves, without file pages the system lends.

Read from /proc/<pid>/status (`RssAnon`, proc(5)) every few milliseconds, so on Linux only.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure
from repository import Repository
from workplace import Workplace

__all__ = ["anonymous_memory", "peak_bytes"]

INTERVAL_S = 0.003
MIB = 2**20


def anonymous_memory(workplace: Workplace) -> Iterator[Figure]:
    """The most that git-theta's processes hold at any moment while they add and check out a large file."""
    if not Path("/proc/self/status").exists():
        workplace.say("memory can be measured on Linux only")
        return
    file = workplace.large()
    group = f"anonymous memory, {file.stat().st_size / 1e6:,.0f} MB F32 .safetensors"
    name = "model.safetensors"
    with workplace.repository("theta", name) as repository:

        def measure(*argv: str, with_git: bool = False) -> Figure:
            title = " ".join(argv) + (", Git's own included" if with_git else "")
            workplace.say(f"memory of {title}")
            return Figure(group, title, peak_bytes(repository, *argv, name, with_git=with_git) / MIB, 256, "MiB")

        repository.put(file)
        yield measure("git", "add")
        repository.check_filtered()
        repository.commit("first")
        repository.checkpoint.unlink()
        yield measure("git", "checkout")
        repository.check_equal(file)
        repository.checkpoint.unlink()
        yield measure("git", "checkout", with_git=True)
        repository.check_equal(file)
        repository.checkpoint.unlink()
        repository.run("git", "checkout", "--", name, GIT_THETA_SKIP_SMUDGE="1")
        yield measure("git", "theta", "checkout")
        repository.check_equal(file)


def peak_bytes(repository: Repository, *argv: str, with_git: bool = False) -> int:
    """Run a command in a repository; returns the most that git-theta's processes held together at any one moment.

    `with_git`: those of Git as well.

    Git starts the filter, so its processes are found by their session. Raises SystemExit where the command fails.
    """
    # A session of its own: every process that the command starts, however deep, has its id.
    process = subprocess.Popen(
        argv,
        cwd=repository.worktree,
        env=repository.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    peak = seen = 0
    while process.poll() is None:
        pids = _session(process.pid)
        ours = [pid for pid in pids if _is_ours(pid)]
        seen += len(ours)
        peak = max(peak, sum(map(_anonymous_bytes, pids if with_git else ours)))
        time.sleep(INTERVAL_S)
    _, errors = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(argv)}: exit code {process.returncode}\n{errors.decode(errors='replace')}")
    if not seen:
        raise SystemExit(f"{' '.join(argv)}: no git-theta process was seen")
    return peak


def _session(leader: int) -> list[int]:
    """Processes of a session."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if os.getsid(int(entry.name)) == leader:
                    pids.append(int(entry.name))
            except OSError:  # it has ended
                continue
    return pids


def _is_ours(pid: int) -> bool:
    """Whether a process is a Python that runs git-theta, not Git or a shell with such words among its arguments."""
    try:
        program, *arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return False
    named = any(b"git-theta" in argument or b"git_theta" in argument for argument in arguments)
    return named and program.rpartition(b"/")[2].startswith(b"python")


def _anonymous_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    _, _, rest = status.partition(b"RssAnon:")
    return int(rest.split(None, 1)[0]) * 1024 if rest else 0
