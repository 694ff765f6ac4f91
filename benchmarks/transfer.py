"""Objects on their way: to a host and from it, looked for before a push, and checked where they lie."""

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from figures import Figure, ratio
from host import Host, running
from repository import Kind, Repository, environment
from workplace import KINDS, Workplace

__all__ = ["fsck", "hook", "transfer"]

LATENCY_S = 0.02
NAME = "model.safetensors"
NOTHING = "0" * 40
OID = re.compile(rb'"store": \[\["[a-z-]+", \[\["([0-9a-f]{64})"')


def transfer(workplace: Workplace) -> Iterator[Figure]:
    """`git push` and `git clone` beside git-lfs, which has the same objects as files; and how many objects go."""
    seconds: dict[Kind, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    folder = workplace.scratch / "host"
    with running(folder, environment(folder), LATENCY_S) as host:
        payloads = _payloads(workplace)
        for repetition in range(workplace.scale.repetitions):
            for kind in workplace.order(repetition):
                workplace.say(f"push and clone, {kind}, {repetition + 1} of {workplace.scale.repetitions}")
                with workplace.repository(kind, NAME if kind == "theta" else "payload.bin") as repository:
                    if kind == "theta":
                        repository.put(workplace.many())
                    else:
                        shutil.copytree(payloads, repository.worktree, dirs_exist_ok=True)
                    seconds[kind].append(_push_and_clone(repository, host))
        ours, theirs = (list(zip(*seconds[kind], strict=True)) for kind in KINDS)
        group = f"{workplace.scale.objects:,} objects, {1000 * LATENCY_S:.0f} ms a request"
        yield ratio(group, "git push", ours[0], theirs[0], 1.2)
        yield ratio(group, "git clone", ours[1], theirs[1], 1.2)
        workplace.say("push of small tensors")
        with workplace.repository("theta", NAME) as repository:
            repository.put(workplace.small())
            _push(repository, host)
        group = f"{workplace.scale.small_tensors:,} tensors of 1 KiB"
        yield Figure(group, "objects that git push sends", host.counts["put"], 60)


def hook(workplace: Workplace) -> Iterator[Figure]:
    """What `git push` waits for where the checkpoints' objects are all on the remote."""
    with workplace.repository("theta", NAME) as repository:
        workplace.say("making a history")
        repository.put(workplace.many())
        repository.run("git", "add", NAME)
        repository.commit("first")
        _deepen(repository, workplace.scale.commits)
        url = str(repository.worktree.with_name("remote.git"))
        repository.run("git", "init", "--quiet", "--bare", url)
        repository.run("git", "remote", "add", "origin", url)
        # A remote that keeps no pointers would be sent everything.
        repository.run("git", "push", "--quiet", "--no-verify", "origin", "main", "main:refs/theta/pointers")
        there = repository.output("git", "rev-parse", "HEAD").decode().strip()
        old = repository.output("git", "rev-parse", f"HEAD~{workplace.scale.commits // 2}").decode().strip()
        repository.run("git", "commit", "--quiet", "--allow-empty", "-m", "a commit more")
        new = repository.output("git", "rev-parse", "HEAD").decode().strip()
        group = f"pre-push hook, {workplace.scale.commits:,} commits, nothing to send"
        for name, remote, line in (
            ("nothing to push", "origin", ""),
            ("one commit more", "origin", f"refs/heads/main {new} refs/heads/main {there}\n"),
            ("a new branch at an old commit", "origin", f"refs/heads/old {old} refs/heads/old {NOTHING}\n"),
            ("a new branch for a URL", url, f"refs/heads/old {old} refs/heads/old {NOTHING}\n"),
        ):
            workplace.say(f"pre-push hook, {name}")
            argv = ("sh", ".git/hooks/pre-push", remote, url)
            seconds = [repository.run(*argv, stdin=line.encode()) for _ in range(5 * workplace.scale.repetitions)]
            yield Figure(group, name, median(seconds), 0.3, "s", samples={"git-theta": seconds})


def fsck(workplace: Workplace) -> Iterator[Figure]:
    """`git theta fsck` of a large file."""
    with workplace.repository("theta", NAME) as repository:
        workplace.say("git theta fsck")
        repository.put(workplace.large())
        repository.run("git", "add", NAME)
        repository.check_filtered()
        size, count = repository.stored()
        seconds = [repository.timed("git", "theta", "fsck") for _ in range(workplace.scale.repetitions)]
    group = f"git theta fsck, {size / 1e6:,.0f} MB in {count:,} objects"
    detail = f"{size / 1e9 / median(seconds):.2f} GB/s"
    yield Figure(group, "per GB", median(seconds) / (size / 1e9), 1, "s", detail, {"git-theta": seconds})


def _payloads(workplace: Workplace) -> Path:
    """A folder with the objects of the model of many parameters as files that git-lfs tracks."""
    folder = workplace.scratch / "payloads"
    folder.mkdir()
    with workplace.repository("theta", NAME) as repository:
        repository.put(workplace.many())
        repository.run("git", "add", NAME)
        for path in repository.objects():
            path.replace(folder / f"{path.name}.bin")
    return folder


def _push(repository: Repository, host: Host) -> float:
    """Seconds of the first `git push` of all that lies in the worktree."""
    repository.run("git", "add", ".")
    repository.commit("first")
    repository.run("git", "remote", "add", "origin", host.create(f"{repository.kind}.git"))
    return repository.timed("git", "push", "origin", "main")


def _push_and_clone(repository: Repository, host: Host) -> tuple[float, float]:
    """Seconds of the first `git push`, and of a `git clone` of what it brought."""
    pushed = _push(repository, host)
    clone = repository.worktree.with_name("clone")
    url = repository.output("git", "remote", "get-url", "origin").decode().strip()
    cloned = repository.timed("git", "clone", url, str(clone))
    for path in repository.worktree.iterdir():
        if path.is_file() and path.read_bytes() != (clone / path.name).read_bytes():
            raise SystemExit(f"{clone / path.name}: {repository.kind} gave other bytes back than {path} has")
    return pushed, cloned


def _deepen(repository: Repository, commits: int) -> None:
    """Add commits to HEAD's branch, each with another parameter changed; the objects they name do not exist."""
    text = bytearray(repository.output("git", "cat-file", "blob", f"HEAD:{NAME}"))
    places = [match.start(1) for match in OID.finditer(text)]
    stream = [b"reset refs/heads/main\nfrom refs/heads/main^0\n"]
    for number in range(commits):
        place = places[number % len(places)]
        text[place : place + 64] = hashlib.sha256(b"%d" % number).hexdigest().encode()
        stream.append(
            b"commit refs/heads/main\ncommitter A Newcomer <newcomer@example.com> %d +0000\ndata 0\n"
            b"M 100644 inline %s\ndata %d\n%s\n" % (1_700_000_000 + number, NAME.encode(), len(text), text)
        )
    repository.run("git", "fast-import", "--quiet", stdin=b"".join(stream))
    repository.run("git", "read-tree", "HEAD")
