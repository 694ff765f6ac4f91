"""What a look at a change costs: `git theta diff`, and the statistics of a value by themselves."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

import models
from figures import Figure
from git_theta import statistics
from git_theta.manifest import Record
from git_theta.updates.base import CHUNK_BYTES
from workplace import CHANGED, Workplace

__all__ = ["diffs"]

NAME = "model.safetensors"
LEDGER = Path(".git", "theta", "statistics.sqlite")
VALUE_BYTES = 64 * 2**20
THETA, GIT = ("git-theta", "diff"), ("git", "diff")
"""Git starts the driver, and the filter for both sides."""
_LARGE = 190
_TRAINED = ("expert.7.weight", "expert.80.weight", "expert.150.weight")


def diffs(workplace: Workplace) -> Iterator[Figure]:
    """Two commits of a model with one layer changed, two of very many parameters, and the sums alone."""
    first, second = workplace.versions("F32", "safetensors")
    group = f"git theta diff, {first.stat().st_size / 1e6:.0f} MB, one layer changed ({CHANGED})"
    for name, command, again in (
        ("names alone", (*THETA, "--no-stats"), False),
        ("with statistics", (*THETA, "--stats"), False),
        ("with statistics, the second time", (*THETA, "--stats"), True),
        ("git diff", GIT, False),
    ):
        seconds = _times(workplace, first, second, command, again=again)
        yield Figure(group, name, median(seconds), 1, "s", samples={"git-theta": seconds})
    small = workplace.small()
    changed = workplace.make(
        f"{small.stem}-2.safetensors", lambda path: models.change_tensors(small, path, "expert.3.scale")
    )
    group = f"git theta diff, {workplace.scale.small_tensors:,} tensors of 1 KiB"
    for name, command in (("names alone", (*THETA, "--no-stats")), ("git diff", GIT)):
        seconds = _times(workplace, small, changed, command, again=False)
        yield Figure(group, name, median(seconds), 1, "s", samples={"git-theta": seconds})
    yield _of_large(workplace)
    yield from _sums(workplace)


def _of_large(workplace: Workplace) -> Figure:
    """`git diff` of a model of several GB, of which three tensors changed."""
    width = 2 * workplace.scale.widths["F32"]
    shapes = models.square_tensors(_LARGE, width)
    name = f"square-{_LARGE}-{width}"
    first = workplace.make(f"{name}.safetensors", lambda path: models.make_synthetic(path, shapes, "F32"))
    second = workplace.make(f"{name}-2.safetensors", lambda path: models.change_tensors(first, path, *_TRAINED))
    seconds = _times(workplace, first, second, GIT, again=False)
    group = f"git diff, {first.stat().st_size / 1e6:,.0f} MB"
    changed = f"{len(_TRAINED)} tensors of {4 * width**2 / 1e6:.0f} MB changed"
    return Figure(group, changed, median(seconds), 1, "s", "with statistics", {"git-theta": seconds})


def _times(workplace: Workplace, first: Path, second: Path, command: tuple[str, ...], *, again: bool) -> list[float]:
    with workplace.repository("theta", NAME) as repository:
        for file in (first, second):
            repository.put(file)
            repository.run("git", "add", NAME)
            repository.commit(file.name)
        repository.check_filtered()
        argv = (*command, "HEAD~1", "HEAD")
        repository.run(*argv)
        seconds = []
        for repetition in range(workplace.scale.repetitions):
            workplace.say(f"{' '.join(command)}, {repetition + 1} of {workplace.scale.repetitions}")
            if not again:
                (repository.worktree / LEDGER).unlink(missing_ok=True)
            seconds.append(repository.timed(*argv))
    return seconds


@dataclass(frozen=True, slots=True)
class Held:
    """A value in memory, given in chunks as a store gives them."""

    data: memoryview

    def runs(self, record: Record) -> Iterator[memoryview]:
        for start in range(0, record.size, CHUNK_BYTES):
            yield self.data[start : start + CHUNK_BYTES]


def _sums(workplace: Workplace) -> Iterator[Figure]:
    """Seconds of one core for the statistics of 1 GB of a value, every element of which changed."""
    draw = np.random.default_rng(0).standard_normal
    for dtype, width in (("F32", 4), ("BF16", 2)):
        count = VALUE_BYTES // width
        old = draw(count, np.float32)
        wide = [np.ascontiguousarray(values) for values in (old, old + draw(count, np.float32) * np.float32(1e-2))]
        values = [Held(memoryview(_bits(array, dtype)).cast("B")) for array in wide]
        records = [Record(dtype, (count // 1024, 1024), VALUE_BYTES, str(side), ()) for side in range(2)]
        seconds = []
        for repetition in range(3 * workplace.scale.repetitions):
            workplace.say(f"statistics, {dtype}, {repetition + 1} of {3 * workplace.scale.repetitions}")
            start = time.process_time()
            statistics.measure(records[0], records[1], values[0], values[1])
            seconds.append((time.process_time() - start) * 1e9 / VALUE_BYTES)
        yield Figure("statistics of 1 GB, one core", dtype, min(seconds), 1, "s", samples={"git-theta": seconds})


def _bits(values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]", dtype: str) -> bytes:
    """The values as bytes of a dtype; BF16 is cut off, not rounded."""
    if dtype == "BF16":
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    return values.tobytes()
