"""Seconds of `git add` and `git checkout`, side by side with git-lfs."""

from collections.abc import Iterator
from pathlib import Path

import models
from figures import Figure, ratio
from repository import Kind, Repository
from workplace import KINDS, SYNTHETIC, Workplace

__all__ = ["add", "checkout"]


def add(workplace: Workplace) -> Iterator[Figure]:
    """`git add` of a first version, of a version with one layer changed, and of unchanged content."""
    for dtype, suffix in SYNTHETIC:
        first, second = workplace.versions(dtype, suffix)
        seconds: dict[Kind, list[tuple[float, float, float]]] = {kind: [] for kind in KINDS}
        for repetition in range(workplace.scale.repetitions):
            for kind in workplace.order(repetition):
                workplace.say(f"git add, {dtype} .{suffix}, {kind}, {repetition + 1} of {workplace.scale.repetitions}")
                with workplace.repository(kind, f"model.{suffix}") as repository:
                    seconds[kind].append(_adds(repository, first, second))
        ours, theirs = (list(zip(*seconds[kind], strict=True)) for kind in KINDS)
        group = f"git add, {_title(first, dtype)}"
        yield ratio(group, "first version", ours[0], theirs[0], 0.6)
        yield ratio(group, "one layer changed", ours[1], theirs[1], 0.3)
        yield ratio(group, "unchanged content", ours[2], theirs[2], 0.25)


def checkout(workplace: Workplace) -> Iterator[Figure]:
    """`git checkout` of a version, and `git theta checkout` of it where its manifest lies in the worktree."""
    for dtype, suffix in SYNTHETIC:
        first, second = workplace.versions(dtype, suffix)
        name = f"model.{suffix}"
        seconds: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
        own: list[float] = []
        with workplace.repository("theta", name) as theta, workplace.repository("lfs", name) as lfs:
            repositories: dict[Kind, Repository] = {"theta": theta, "lfs": lfs}
            for repository in repositories.values():
                _commit_versions(repository, first, second)
            for repetition in range(workplace.scale.repetitions):
                for kind in workplace.order(repetition):
                    workplace.say(
                        f"checkout, {dtype} .{suffix}, {kind}, {repetition + 1} of {workplace.scale.repetitions}"
                    )
                    seconds[kind] += _checkouts(repositories[kind], first, second)
                own.append(_own_checkout(theta, first))
        group = f"checkout, {_title(first, dtype)}"
        yield ratio(group, "git checkout", seconds["theta"], seconds["lfs"], 0.8)
        yield ratio(group, "git theta checkout", own, seconds["lfs"], 0.5)


def _title(file: Path, dtype: models.Dtype) -> str:
    return f"{file.stat().st_size / 1e6:,.0f} MB {dtype} {file.suffix}"


def _adds(repository: Repository, first: Path, second: Path) -> tuple[float, float, float]:
    """Seconds of `git add` of the first version, of the second, and of the second again."""
    name = repository.checkpoint.name
    repository.put(first)
    new = repository.timed("git", "add", name)
    repository.check_filtered()
    repository.commit("first")
    repository.put(second)
    changed = repository.timed("git", "add", name)
    repository.commit("second")
    repository.touch()
    unchanged = repository.timed("git", "add", name)
    return new, changed, unchanged


def _commit_versions(repository: Repository, first: Path, second: Path) -> None:
    for number, file in enumerate((first, second), 1):
        repository.put(file)
        repository.run("git", "add", repository.checkpoint.name)
        repository.check_filtered()
        repository.commit(f"version {number}")
        repository.run("git", "tag", f"v{number}")


def _checkouts(repository: Repository, first: Path, second: Path) -> list[float]:
    """Seconds of `git checkout` of the first version and of the second again."""
    seconds = []
    for tag, file in (("v1", first), ("v2", second)):
        repository.settle()
        seconds.append(repository.timed("git", "checkout", "--quiet", tag))
        repository.check_equal(file)
    return seconds


def _own_checkout(repository: Repository, first: Path) -> float:
    """Seconds of `git theta checkout` of the first version; the second is checked out before and after."""
    repository.settle()
    repository.run("git", "checkout", "--quiet", "v1", GIT_THETA_SKIP_SMUDGE="1")
    seconds = repository.timed("git", "theta", "checkout", repository.checkpoint.name)
    repository.check_equal(first)
    repository.run("git", "checkout", "--quiet", "--force", "v2")
    return seconds
