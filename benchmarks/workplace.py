"""Where a run keeps its data and its repositories, and how large and how often it measures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import models
from repository import Kind, Repository

__all__ = ["FULL", "KINDS", "QUICK", "SYNTHETIC", "Scale", "Workplace"]

KINDS: tuple[Kind, Kind] = ("theta", "lfs")
SYNTHETIC: tuple[tuple[models.Dtype, models.Suffix], ...] = (
    ("F32", "safetensors"),
    ("BF16", "safetensors"),
    ("F32", "pt"),
    ("BF16", "pt"),
)
CHANGED = "block.3.mlp.up.weight"  # "one layer" is one matrix: 2.4% of a model of 14 blocks


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the data is. `disk_bytes` is what the data and the repositories take at most."""

    name: str
    widths: dict[models.Dtype, int]
    memory_width: int
    memory_vocabulary: int
    small_tensors: int
    objects: int
    commits: int
    training_steps: int
    loss_batches: int
    repetitions: int
    disk_bytes: int


# 14 blocks of these widths are 98 tensors and 705 MB; the file for memory has 3 GB, a third of it in one tensor.
FULL = Scale("full", {"F32": 1024, "BF16": 1448}, 1728, 150_000, 20_000, 300, 1000, 40, 4, 3, 32 * 2**30)
QUICK = Scale("quick", {"F32": 128, "BF16": 192}, 192, 20_000, 2_000, 30, 50, 2, 1, 1, 3 * 2**30)


@dataclass(frozen=True, slots=True)
class Workplace:
    """`cache` holds the data, made on first use; `scratch` the repositories; `say` tells a person where it is."""

    cache: Path
    scratch: Path
    scale: Scale
    say: Callable[[str], None]

    @contextmanager
    def repository(self, kind: Kind, name: str) -> Iterator[Repository]:
        """A repository ready for a checkpoint of that file name, removed afterwards."""
        repository = Repository(self.scratch, kind, name)
        repository.set_up()
        yield repository
        repository.remove()

    def order(self, repetition: int) -> tuple[Kind, ...]:
        """Both kinds, the other one first every time, so that neither always has the busier machine."""
        return KINDS if repetition % 2 == 0 else KINDS[::-1]

    def make(self, name: str, make: Callable[[Path], object]) -> Path:
        """The file of that name in the cache, made by `make(path)` where it is not there yet."""
        path = self.cache / name
        if not path.exists():
            self.say(f"making {name}")
            models.make_once(path, make)
        return path

    def versions(self, dtype: models.Dtype, suffix: models.Suffix) -> tuple[Path, Path]:
        """Two versions of a synthetic model: the second has one layer changed."""
        shapes = models.transformer(14, self.scale.widths[dtype])
        stem = f"{dtype.lower()}-{self.scale.name}"
        first = self.make(f"{stem}-1.safetensors", lambda path: models.make_synthetic(path, shapes, dtype))
        second = self.make(f"{stem}-2.safetensors", lambda path: models.change_tensors(first, path, CHANGED))
        if suffix == "pt":
            first, second = self._as_pt(first), self._as_pt(second)
        return first, second

    def large(self) -> Path:
        """A model of several GB, a third of it in one tensor."""
        shapes = models.transformer(14, self.scale.memory_width, self.scale.memory_vocabulary)
        name = f"large-{self.scale.name}.safetensors"
        return self.make(name, lambda path: models.make_synthetic(path, shapes, "F32"))

    def many(self) -> Path:
        """A model of many parameters that are each large enough for an object of its own."""
        shapes = models.square_tensors(self.scale.objects, 256)
        name = f"many-{self.scale.objects}.safetensors"
        return self.make(name, lambda path: models.make_synthetic(path, shapes, "F32"))

    def small(self) -> Path:
        """A model of very many very small parameters."""
        shapes = models.small_tensors(self.scale.small_tensors)
        name = f"small-{self.scale.small_tensors}.safetensors"
        return self.make(name, lambda path: models.make_synthetic(path, shapes, "F32"))

    def _as_pt(self, file: Path) -> Path:
        return self.make(f"{file.stem}.pt", lambda path: models.save_as_pt(file, path))
