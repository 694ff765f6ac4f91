"""What versions cost that come of others: bytes for real training, and seconds and memory for large files."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import models
import training
from figures import Figure, ratio
from memory import peak_bytes
from repository import Kind, Repository
from workplace import KINDS, Workplace

__all__ = ["tuned", "updates", "workflow"]

NAME = "model.safetensors"
EMBEDDING = "embeddings.word_embeddings.weight"
TRIMMED = 522  # rows at the end of 30,522
SCATTERED = 0.005
MIB = 2**20


def updates(workplace: Workplace) -> Iterator[Figure]:
    """Bytes that a version adds to the store beside the one that it was made of, as a share of its file."""
    real = models.real_model()
    half = workplace.make("real-bf16.safetensors", partial(models.convert_to_bf16, real))
    lora = _lora(workplace, real, "lora", seed=1)
    trimmed = workplace.make("real-trimmed.safetensors", partial(_trim, real))
    scattered = workplace.make("real-scattered.safetensors", partial(models.scatter, real, share=SCATTERED))
    rows: list[tuple[str, Path, Path, float]] = [
        ("full fine-tune, F32", real, _trained(workplace, real, "full-f32", training.FULL), 0.365),
        ("full fine-tune, BF16", half, _trained(workplace, half, "full-bf16", training.FULL), 0.026),
        ("LoRA on query and value, merged", real, lora / "merged.safetensors", 0.053),
        ("one layer", real, _trained(workplace, real, "layer", training.ONE_LAYER), 0.047),
        ("vocabulary trimmed", real, trimmed, 0.001),
        (f"{100 * SCATTERED}% of the elements, at random", real, scattered, 0.008),
    ]
    group = f"bytes added, all-MiniLM-L6-v2, {workplace.scale.training_steps} steps"
    for title, first, second, limit in rows:
        yield _added(workplace, group, title, first, second, limit, ["git", "add", NAME])
    supplied = ["git", "theta", "add", NAME, "--update-type", "low-rank", "--update-path", str(lora / "adapter")]
    merged = lora / "merged.safetensors"
    yield _added(workplace, group, "LoRA, adapter supplied", real, merged, 0.005, supplied)
    copy = "model-bf16.safetensors"
    yield _added(workplace, group, "copy in BF16 beside it", real, half, 0.001, ["git", "add", copy], copy)


def _added(
    workplace: Workplace,
    group: str,
    title: str,
    first: Path,
    second: Path,
    limit: float,
    argv: Sequence[str],
    name: str = NAME,
) -> Figure:
    """What `argv` adds to the store, once the second version has taken the place of the first, or lies at `name`."""
    workplace.say(title)
    with workplace.repository("theta", NAME) as repository:
        repository.put(first)
        repository.run("git", "add", NAME)
        repository.commit("first")
        before, _ = repository.stored()
        if name == NAME:
            repository.put(second)
        else:
            shutil.copyfile(second, repository.worktree / name)
        repository.run(*argv)
        repository.commit("second")
        added = repository.stored()[0] - before
        (repository.worktree / name).unlink()
        repository.run("git", "checkout", "--", name)
        repository.check_equal(second, name)
    size = second.stat().st_size
    return Figure(group, title, added / size, limit, "x", f"+{added / 1e6:.2f} of {size / 1e6:.1f} MB")


@dataclass(frozen=True, slots=True)
class _Version:
    """A commit of the workflow: its title, its checkpoint, and the Git commands that come before it is added."""

    title: str
    file: Path
    before: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a version took: seconds to add and to check out, bytes that the store grew by."""

    add_s: float
    checkout_s: float
    added: int


def workflow(workplace: Workplace) -> Iterator[Figure]:
    """The workflow of the Git-Theta paper (arXiv:2306.04529, section 4), a table of its commits beside git-lfs."""
    versions = _versions(workplace)
    costs: dict[Kind, list[list[_Cost]]] = {kind: [] for kind in KINDS}
    for repetition in range(workplace.scale.repetitions):
        for kind in workplace.order(repetition):
            workplace.say(f"workflow, {kind}, {repetition + 1} of {workplace.scale.repetitions}")
            with workplace.repository(kind, NAME) as repository:
                costs[kind].append(_play(repository, versions))
    group = f"workflow, {workplace.scale.training_steps} steps a training"
    for index, version in enumerate(versions):
        ours, theirs = ([run[index] for run in costs[kind]] for kind in KINDS)
        detail = "; ".join(f"{title}: {_told(rows)}" for title, rows in (("git-theta", ours), ("git-lfs", theirs)))
        yield Figure(group, version.title, ours[0].added / 1e6, None, "MB", detail)
    sums = {kind: sum(cost.added for cost in costs[kind][0]) for kind in KINDS}
    size = versions[0].file.stat().st_size
    detail = f"{sums['theta'] / 1e6:.1f} MB (git-lfs: {sums['lfs'] / 1e6:.1f} MB, {sums['lfs'] / size:.2f} x)"
    yield Figure(group, "whole store, of the first file", sums["theta"] / size, 2.1, "x", detail)


def _told(costs: Sequence[_Cost]) -> str:
    add, checkout = median(cost.add_s for cost in costs), median(cost.checkout_s for cost in costs)
    return f"add {add:.2f} s, checkout {checkout:.2f} s, {costs[0].added / 1e6:.1f} MB"


def _versions(workplace: Workplace) -> list[_Version]:
    real = models.real_model()
    steps = workplace.scale.training_steps
    merged = _lora(workplace, real, "lora", seed=1) / "merged.safetensors"
    side = _trained(workplace, merged, "side", training.FULL, seed=2)
    main = _trained(workplace, merged, "main", training.FULL, seed=3)
    mean = workplace.make(f"mean-{steps}.safetensors", partial(models.average, side, main))
    trimmed = workplace.make(f"mean-trimmed-{steps}.safetensors", partial(_trim, mean))
    return [
        _Version("base", real),
        _Version("LoRA, merged", merged),
        _Version("full fine-tune on a branch", side, (("checkout", "--quiet", "-b", "side"),)),
        _Version("full fine-tune on main", main, (("checkout", "--quiet", "main"),)),
        # The content of the merge is computed here; Git is told of the parents alone.
        _Version("their average", mean, (("merge", "--quiet", "--strategy=ours", "--no-commit", "side"),)),
        _Version("vocabulary trimmed", trimmed),
    ]


def _play(repository: Repository, versions: Sequence[_Version]) -> list[_Cost]:
    adds: list[tuple[float, int]] = []
    for number, version in enumerate(versions):
        for argv in version.before:
            repository.run("git", *argv)
        before, _ = repository.stored()
        repository.put(version.file)
        seconds = repository.timed("git", "add", NAME)
        repository.check_filtered()
        repository.commit(version.title)
        repository.run("git", "tag", f"v{number}")
        adds.append((seconds, repository.stored()[0] - before))
    checkouts = [_checkout(repository, f"v{number}", version.file) for number, version in enumerate(versions)]
    return [_Cost(add_s, seconds, added) for (add_s, added), seconds in zip(adds, checkouts, strict=True)]


def _checkout(repository: Repository, tag: str, file: Path) -> float:
    """Seconds of `git checkout` of a tag, the one before being checked out."""
    repository.settle()
    seconds = repository.timed("git", "checkout", "--quiet", tag)
    repository.check_equal(file)
    return seconds


def tuned(workplace: Workplace) -> Iterator[Figure]:
    """Seconds and memory where every parameter of a large model changed: a new version, and a chain of three."""
    yield from _tuned_seconds(workplace)
    if not Path("/proc/self/status").exists():
        workplace.say("memory can be measured on Linux only")
        return
    yield from _tuned_memory(workplace)


def _tuned_seconds(workplace: Workplace) -> Iterator[Figure]:
    versions, chain = _tuned_versions(workplace, models.TUNED), _tuned_versions(workplace, models.NUDGED)
    adds: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    checkouts: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    steps = 0
    for repetition in range(workplace.scale.repetitions):
        for kind in workplace.order(repetition):
            workplace.say(f"full fine-tune, {kind}, {repetition + 1} of {workplace.scale.repetitions}")
            with workplace.repository(kind, NAME) as repository:
                adds[kind] += _add_versions(repository, versions, lambda repo: repo.timed("git", "add", NAME))[1:]
            with workplace.repository(kind, NAME) as repository:
                _add_versions(repository, chain, lambda repo: repo.timed("git", "add", NAME))
                _checkout(repository, "v0", chain[0])
                checkouts[kind].append(_checkout(repository, "v2", chain[2]))
                if kind == "theta":
                    steps = _longest_chain(repository)
    group = _tuned_title(versions[0])
    yield ratio(group, "git add", adds["theta"], adds["lfs"], 1.0)
    yield ratio(group, f"git checkout, a chain of {steps}", checkouts["theta"], checkouts["lfs"], 1.2)


def _tuned_memory(workplace: Workplace) -> Iterator[Figure]:
    workplace.say("memory of a full fine-tune")
    chain = _tuned_versions(workplace, models.NUDGED)
    group = _tuned_title(chain[0])
    with workplace.repository("theta", NAME) as repository:
        peaks = _add_versions(repository, chain, lambda repo: peak_bytes(repo, "git", "add", NAME) / MIB)
        yield Figure(group, "git add, anonymous memory", max(peaks[1:]), 512, "MiB")
        repository.checkpoint.unlink()
        peak = peak_bytes(repository, "git", "checkout", "--", NAME) / MIB
        repository.check_equal(chain[-1])
        yield Figure(group, "git checkout, anonymous memory", peak, 512, "MiB")


def _tuned_title(file: Path) -> str:
    return f"full fine-tune, {file.stat().st_size / 1e6:,.0f} MB F32 .safetensors"


def _tuned_versions(workplace: Workplace, by: float) -> list[Path]:
    """A model, and two versions that each moved every element of the one before."""
    versions = [workplace.versions("F32", "safetensors")[0]]
    for seed in (1, 2):
        make = partial(models.tune, versions[-1], by=by, seed=seed)
        versions.append(workplace.make(f"tuned-{by:g}-{workplace.scale.name}-{seed}.safetensors", make))
    return versions


def _add_versions(repository: Repository, versions: Sequence[Path], add: Callable[[Repository], float]) -> list[float]:
    """What `add` measures for each version, which is then committed and tagged."""
    measured = []
    for number, file in enumerate(versions):
        repository.put(file)
        measured.append(add(repository))
        repository.check_filtered()
        repository.commit(f"version {number}")
        repository.run("git", "tag", f"v{number}")
    return measured


def _longest_chain(repository: Repository) -> int:
    document = json.loads(repository.output("git", "theta", "info", "--json", NAME))
    return max(int(group["steps"]) for group in document["groups"])


def _trained(workplace: Workplace, source: Path, name: str, how: training.Training, seed: int = 1) -> Path:
    steps = workplace.scale.training_steps

    def make(path: Path) -> None:
        training.train(source, path, how, steps, seed)

    return workplace.make(f"{name}-{steps}.safetensors", make)


def _lora(workplace: Workplace, source: Path, name: str, seed: int) -> Path:
    """A folder with `adapter`, and `merged.safetensors`, the model with the adapter in it."""
    steps = workplace.scale.training_steps

    def make(path: Path) -> None:
        path.mkdir()
        training.train_adapter(source, path / "adapter", path / "merged.safetensors", steps, seed)

    return workplace.make(f"{name}-{steps}", make)


def _trim(source: Path, target: Path) -> None:
    models.trim_rows(source, target, EMBEDDING, TRIMMED)
