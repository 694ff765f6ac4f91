"""Checkpoint files made in memory, and their way into a depot and out again."""

import json
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from blake3 import blake3

from git_theta import checkpoint, rebuild
from git_theta.config import Settings
from git_theta.depot import Depot, open_depot
from git_theta.manifest import Manifest, Piece, Record, Step
from git_theta.source import BytesSource
from git_theta.updates.base import Supplied

Tensor = tuple[str, Sequence[int], bytes]

_FEW_EXPONENTS = bytes(0x3C | (byte & 0x81) for byte in range(256))

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc or needs Linux's limits")


def safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of tensors given as (dtype, shape, bytes)."""
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that nothing compresses."""
    return random.Random(seed).randbytes(size)


def weights(count: int, seed: int = 0) -> bytes:
    """F32 values as of a trained layer: random mantissas, few exponents; 4 x `count` bytes."""
    mixed = bytearray(noise(4 * count, seed))
    mixed[3::4] = mixed[3::4].translate(_FEW_EXPONENTS)
    return bytes(mixed)


def brain_weights(count: int, seed: int = 0) -> bytes:
    """BF16 values as of a trained layer; 2 x `count` bytes."""
    mixed = bytearray(noise(2 * count, seed))
    mixed[1::2] = mixed[1::2].translate(_FEW_EXPONENTS)
    return bytes(mixed)


def trained(data: bytes, seed: int = 1, scale: float = 1e-5) -> bytes:
    """F32 values after a small step of training."""
    step = np.random.default_rng(seed).standard_normal(len(data) // 4).astype("<f4") * np.float32(scale)
    made: bytes = (np.frombuffer(data, "<f4") + step).tobytes()
    return made


def changed(data: bytes, *places: int) -> bytes:
    """The data with the bytes at these places being others."""
    made = bytearray(data)
    for place in places:
        made[place] ^= 0x5A
    return bytes(made)


@contextmanager
def opened(root: Path, settings: Settings = Settings(threads=2)) -> Iterator[Depot]:
    """A depot below `root`."""
    depot = open_depot(root, settings)
    try:
        yield depot
    finally:
        depot.catalogue.close()


def take(
    content: bytes,
    depot: Depot,
    known: Sequence[Manifest] = (),
    supplied: Mapping[str, Supplied] = MappingProxyType({}),
) -> Manifest:
    """The manifest of content in memory."""
    return checkpoint.take(BytesSource(content), depot, known, supplied=supplied)


def content_of(manifest: Manifest, depot: Depot) -> bytes:
    """The file of a manifest, rebuilt both ways."""
    layout = rebuild.read_layout(manifest, depot)
    piped = b"".join(rebuild.runs(manifest, layout, depot))
    with tempfile.TemporaryFile() as file:
        rebuild.write(manifest, layout, depot, file.fileno())
        file.seek(0)
        assert file.read() == piped
    return piped


def put(depot: Depot, data: bytes) -> tuple[Piece, ...]:
    """Objects that hold these bytes."""
    with depot.store.writer() as writer:
        writer.write(data)
        return writer.finish()


def record(depot: Depot, value: bytes, payload: bytes | None = None, **changes: object) -> Record:
    """The record of opaque bytes whose payload, right or wrong, lies in the depot."""
    steps = (Step("dense", put(depot, value if payload is None else payload)),)
    made = Record("opaque", (len(value),), len(value), blake3(value).hexdigest(), steps)
    return replace(made, **changes)  # type: ignore[arg-type]  # the tests name fields of Record


def objects(root: Path) -> dict[str, bytes]:
    """Every file in a depot's store, by its name."""
    return {path.name: path.read_bytes() for path in (root / "objects").rglob("*") if path.is_file()}


def leftovers(root: Path) -> list[str]:
    """The temporary files in a depot."""
    return sorted(path.name for path in (root / "tmp").glob("*"))
