"""Evidence that merges merge: the real model, trained on one task on each of two branches, merged by each strategy."""

import filecmp
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import models
import training
from figures import Figure
from merging import SIDE, branched
from repository import Repository
from workplace import Workplace

__all__ = ["tasks"]

LEARNING_RATE = 5e-5
FILES = {"fisher": ("fisher", training.fisher), "regmean": ("gram", training.gram)}
"""Of strategies that need a file for each side: its name, and what makes it. diloco-outer begins without its file."""


def tasks(workplace: Workplace) -> Iterator[Figure]:
    """The loss on each task of the base, of each side, and of each merge; there is no target."""
    base = models.real_model()
    steps = 3 * workplace.scale.training_steps // 2
    ours, theirs = (_trained(workplace, base, task, steps) for task in training.TASKS)
    first, second = (task.title for task in training.TASKS)
    known = {"base": base, f"trained on {first}": ours, f"trained on {second}": theirs}
    losses = {title: _losses(workplace, title, file) for title, file in known.items()}
    group = f"loss, all-MiniLM-L6-v2, {steps} steps"
    for title in known:
        yield _figure(group, title, losses[title])
    merged = workplace.scratch / "merged.safetensors"
    with branched(workplace, base, ours, theirs) as repository:
        for strategy in _strategies(repository):
            workplace.say(f"merge by {strategy}")
            further = _further(workplace, strategy, (ours, theirs))
            repository.run("git", "theta", "merge", SIDE, "--strategy", strategy, *further)
            shutil.copyfile(repository.checkpoint, merged)
            repository.run("git", "reset", "--quiet", "--hard", "main^1")
            same = [title for title, file in known.items() if filecmp.cmp(file, merged, shallow=False)]
            yield _figure(group, strategy, losses[same[0]] if same else _losses(workplace, strategy, merged))


def _trained(workplace: Workplace, base: Path, task: training.Task, steps: int) -> Path:
    how = training.Training(LEARNING_RATE, pairs=task.seen)
    make = partial(training.train, base, training=how, steps=steps, seed=1)
    return workplace.make(f"task-{task.title}-{steps}.safetensors", make)


def _strategies(repository: Repository) -> list[str]:
    document = json.loads(repository.output("git", "theta", "strategies", "--json"))
    return [row["name"] for row in document["strategies"]]


def _further(workplace: Workplace, strategy: str, sides: tuple[Path, ...]) -> list[str]:
    """Arguments that name the further files of a strategy, one for each side, made of what it was trained on."""
    if strategy not in FILES:
        return []
    name, make = FILES[strategy]
    made = [
        workplace.make(f"{name}-{side.name}", partial(make, side, task=task, batches=workplace.scale.loss_batches))
        for side, task in zip(sides, training.TASKS, strict=True)
    ]
    return ["--file", f"{name}={','.join(map(str, made))}"]


def _losses(workplace: Workplace, title: str, file: Path) -> tuple[float, ...]:
    workplace.say(f"loss of {title}")
    return tuple(training.loss(file, task, workplace.scale.loss_batches) for task in training.TASKS)


def _figure(group: str, title: str, losses: tuple[float, ...]) -> Figure:
    detail = ", ".join(f"{task.title} {loss:.3f}" for task, loss in zip(training.TASKS, losses, strict=True))
    samples = {task.title: [loss] for task, loss in zip(training.TASKS, losses, strict=True)}
    return Figure(group, title, sum(losses) / len(losses), None, "mean", detail, samples)
