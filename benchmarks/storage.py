"""Bytes and objects in the store."""

from collections.abc import Iterator
from statistics import median

import models
from figures import Figure
from workplace import Workplace

__all__ = ["small", "store"]

CHANGED = "encoder.layer.3.intermediate.dense.weight"


def store(workplace: Workplace) -> Iterator[Figure]:
    """What the real model takes, and what a second version adds."""
    real = models.real_model()
    converted = workplace.make("real-bf16.safetensors", lambda path: models.convert_to_bf16(real, path))
    group = "store, all-MiniLM-L6-v2"
    for dtype, first, limit in (("F32", real, 0.83), ("BF16", converted, 0.67)):
        workplace.say(f"store, real model, {dtype}")
        second = workplace.cache / f"real-{dtype.lower()}-2.safetensors"
        changed = models.change_tensors(first, second, CHANGED)
        with workplace.repository("theta", "model.safetensors") as repository:
            repository.put(first)
            repository.run("git", "add", "model.safetensors")
            repository.check_filtered()
            once, _ = repository.stored()
            repository.put(second)
            repository.run("git", "add", "model.safetensors")
            more = repository.stored()[0] - once
        size = first.stat().st_size
        detail = f"{once / 1e6:.1f} of {size / 1e6:.1f} MB"
        yield Figure(group, f"{dtype}, share of the file", once / size, limit, "x", detail)
        detail = f"+{more / 1e6:.2f} MB for {changed / 1e6:.2f} MB (git-lfs: +{size / 1e6:.1f} MB)"
        yield Figure(group, f"{dtype}, 2nd version, of what changed", more / changed, 1, "x", detail)


def small(workplace: Workplace) -> Iterator[Figure]:
    """Very many very small tensors in one file."""
    count = workplace.scale.small_tensors
    file = workplace.small()
    seconds = []
    objects = 0
    for repetition in range(workplace.scale.repetitions):
        workplace.say(f"small tensors, {repetition + 1} of {workplace.scale.repetitions}")
        with workplace.repository("theta", "model.safetensors") as repository:
            repository.put(file)
            seconds.append(repository.timed("git", "add", "model.safetensors"))
            repository.check_filtered()
            _, objects = repository.stored()
    group = f"{count:,} tensors of 1 KiB"
    yield Figure(group, "git add", median(seconds), 10, "s", samples={"git-theta": seconds})
    yield Figure(group, "objects", objects, 10)
