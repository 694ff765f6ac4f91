"""Seconds and memory of `git merge` where two branches trained a model: every parameter on both, or one each."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import models
from figures import Figure
from memory import peak_bytes
from repository import Repository
from workplace import Workplace

__all__ = ["SIDE", "branched", "merge", "one_sided"]

NAME = "model.safetensors"
SIDE = "side"
MERGE = ("git", "merge", "--quiet", "--no-edit", SIDE)
MIB = 2**20
OURS, THEIRS = "expert.3.weight", "expert.70.weight"
MERGEKIT = "mergekit==0.1.5"
MERGEKIT_NEEDS = "immutables==0.21"  # all else that its merge of plain files imports, transformers has brought along


def merge(workplace: Workplace) -> Iterator[Figure]:
    """Two full fine-tunes of a large model: beside `git add` of one of them, and beside mergekit's linear merge."""
    base, ours, theirs, mean = _fine_tunes(workplace)
    adds: list[float] = []
    merges: list[float] = []
    others: list[float] = []
    mergekit = _mergekit(workplace)
    for repetition in range(workplace.scale.repetitions):
        workplace.say(f"git merge, {repetition + 1} of {workplace.scale.repetitions}")
        with branched(workplace, base, ours, theirs, adds) as repository:
            # By turns, so that neither always has the busier machine.
            if mergekit and repetition % 2:
                others.append(_linear(repository, mergekit, ours, theirs, mean))
            merges.append(repository.timed(*MERGE))
            repository.check_equal(mean)
            if mergekit and not repetition % 2:
                others.append(_linear(repository, mergekit, ours, theirs, mean))
    group = f"merge of two fine-tunes, {base.stat().st_size / 1e6:,.0f} MB F32"
    yield _ratio(group, "git merge, of git add of one", merges, "git merge", adds, "git add", 2.0)
    if others:
        yield _ratio(group, "git merge, of mergekit's linear merge", merges, "git merge", others, "mergekit", 1.0)
    if not Path("/proc/self/status").exists():
        workplace.say("memory can be measured on Linux only")
        return
    workplace.say("memory of git merge")
    with branched(workplace, base, ours, theirs) as repository:
        peak = peak_bytes(repository, *MERGE) / MIB
        repository.check_equal(mean)
    yield Figure(group, "git merge, anonymous memory", peak, 512, "MiB")


def one_sided(workplace: Workplace) -> Iterator[Figure]:
    """One side changed one parameter of many, the other another: nothing is loaded for the merge itself."""
    count, width = 100, 512
    shapes = models.square_tensors(count, width)
    base = workplace.make(f"square-{width}.safetensors", lambda path: models.make_synthetic(path, shapes, "F32"))
    ours = workplace.make(f"square-{width}-ours.safetensors", lambda path: models.change_tensors(base, path, OURS))
    theirs = workplace.make(
        f"square-{width}-theirs.safetensors", lambda path: models.change_tensors(base, path, THEIRS)
    )
    both = workplace.make(f"square-{width}-both.safetensors", lambda path: models.change_tensors(ours, path, THEIRS))
    whole: list[float] = []
    alone: list[float] = []
    for repetition in range(workplace.scale.repetitions):
        workplace.say(f"one-sided merge, {repetition + 1} of {workplace.scale.repetitions}")
        with branched(workplace, base, ours, theirs) as repository:
            whole.append(repository.timed(*MERGE))
            repository.check_equal(both)
        with branched(workplace, base, ours, theirs) as repository:
            _keep_layouts_only(repository)
            alone.append(repository.timed(*MERGE, GIT_THETA_SKIP_SMUDGE="1"))
            _check_taken(repository)
    group = f"one parameter each of {count}, of {4 * width**2 // MIB} MiB"
    yield Figure(group, "git merge", median(whole), 1, "s", samples={"git-theta": whole})
    detail = "theta.skipSmudge, and a store with nothing but layouts"
    yield Figure(group, "git merge, manifests only", median(alone), 1, "s", detail, {"git-theta": alone})


@contextmanager
def branched(
    workplace: Workplace, base: Path, ours: Path, theirs: Path, adds: list[float] | None = None
) -> Iterator[Repository]:
    """A repository with `ours` checked out, and `theirs` on another branch; `adds` gets the seconds to add each."""
    with workplace.repository("theta", NAME) as repository:
        _commit(repository, base)
        repository.run("git", "checkout", "--quiet", "-b", SIDE)
        seconds = [_commit(repository, theirs)]
        repository.run("git", "checkout", "--quiet", "main", GIT_THETA_SKIP_SMUDGE="1")
        seconds.append(_commit(repository, ours))
        repository.settle()
        if adds is not None:
            adds += seconds
        yield repository


def _commit(repository: Repository, file: Path) -> float:
    """Seconds of `git add`."""
    repository.put(file)
    seconds = repository.timed("git", "add", NAME)
    repository.check_filtered()
    repository.commit(file.stem)
    return seconds


def _fine_tunes(workplace: Workplace) -> tuple[Path, Path, Path, Path]:
    """A large model, two that each moved every element of it, and their mean."""
    base = workplace.versions("F32", "safetensors")[0]
    by, scale = models.TUNED, workplace.scale.name
    ours = workplace.make(f"tuned-{by:g}-{scale}-1.safetensors", partial(models.tune, base, by=by, seed=1))
    theirs = workplace.make(f"branch-{by:g}-{scale}-2.safetensors", partial(models.tune, base, by=by, seed=2))
    mean = workplace.make(f"branch-{by:g}-{scale}-mean.safetensors", partial(models.average, ours, theirs))
    return base, ours, theirs, mean


def _ratio(
    group: str, name: str, ours_s: list[float], ours: str, theirs_s: list[float], theirs: str, limit: float
) -> Figure:
    left, right = median(ours_s), median(theirs_s)
    detail = f"{ours} {left:.2f} s, {theirs} {right:.2f} s"
    return Figure(group, name, left / right, limit, "x", detail, {ours: ours_s, theirs: theirs_s})


def _mergekit(workplace: Workplace) -> Path | None:
    """A folder with mergekit (https://github.com/arcee-ai/mergekit), used as a program; None where pip has none.

    It is kept apart from our own environment, and shares its torch: by itself it would bring another.
    """

    def install(path: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(path)]
        subprocess.run([*pip, MERGEKIT, MERGEKIT_NEEDS], check=True, capture_output=True)

    try:
        return workplace.make(MERGEKIT, install)
    except subprocess.CalledProcessError as error:
        workplace.say(f"{MERGEKIT} cannot be installed, and is left out: {error.stderr.decode()[-200:]}")
        return None


def _linear(repository: Repository, mergekit: Path, ours: Path, theirs: Path, mean: Path) -> float:
    """Seconds of mergekit's linear merge of two files into a third; raises SystemExit where that is not their mean."""
    folder = repository.worktree.parent / "mergekit"
    folder.mkdir()
    config = folder / "merge.json"  # mergekit reads YAML, and JSON is YAML
    sides = [{"model": str(file), "parameters": {"weight": 0.5}} for file in (ours, theirs)]
    config.write_text(json.dumps({"merge_method": "linear", "dtype": "float32", "models": sides}))
    program = [sys.executable, str(mergekit / "bin" / "mergekit-pytorch")]
    seconds = repository.timed(*program, str(config), str(folder / "made"), "--quiet", PYTHONPATH=str(mergekit))
    _check_near(folder / "made" / NAME, mean)
    return seconds


def _check_near(made: Path, mean: Path) -> None:
    """Raise SystemExit unless two files hold the same F32 tensors, but for the rounding of a sum and a division."""
    found = {tensor.name: tensor for tensor in models.read_tensors(made)}
    given, wanted = np.memmap(made, np.uint8, "r"), np.memmap(mean, np.uint8, "r")
    for tensor in models.read_tensors(mean):
        own = found[tensor.name]
        left = given[own.offset : own.offset + own.size].view("<f4")
        right = wanted[tensor.offset : tensor.offset + tensor.size].view("<f4")
        if not np.allclose(left, right, rtol=1e-6, atol=1e-9):
            raise SystemExit(f"{made}: tensor '{tensor.name}' is not the mean of the two files")


def _keep_layouts_only(repository: Repository) -> None:
    """Remove each object of a parameter from the store."""
    layouts = [_manifest(repository, name)["layout"] for name in ("main", SIDE, "main~1")]
    kept = {oid for layout in layouts for _, pieces in layout["store"] for oid, *_ in pieces}
    for path in repository.objects():
        if path.name not in kept:
            path.unlink()


def _check_taken(repository: Repository) -> None:
    """Raise SystemExit unless the merged manifest has each side's record of what it changed."""
    made, ours, theirs = (_manifest(repository, name)["parameters"] for name in ("HEAD", "HEAD^1", "HEAD^2"))
    if made != ours | {THEIRS: theirs[THEIRS]} or made == ours:
        raise SystemExit(f"{repository.checkpoint}: the merge did not take what each side changed")


def _manifest(repository: Repository, commit: str) -> dict[str, dict[str, Any]]:
    document: dict[str, dict[str, Any]] = json.loads(repository.output("git", "show", f"{commit}:{NAME}"))
    return document
