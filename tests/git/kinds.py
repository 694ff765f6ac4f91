"""Checkpoints of every kind, as their frameworks write them, by a readable name."""

import io
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from tests.checkpoints import Tensor, brain_weights, noise, safetensors, weights
from tests.repositories import model

__all__ = ["KINDS", "changed_layer", "layers"]

MIB = 2**20


@cache
def layers(count: int = 5, seed: int = 0, changed: int | None = None) -> bytes:
    """A safetensors file of `count` MiB and more: large F32 layers, small biases; one layer may be another."""
    tensors: dict[str, Tensor] = {}
    for index in range(count):
        of = seed + index + (1000 if index == changed else 0)
        tensors[f"layer.{index}.weight"] = ("F32", (512, 512), weights(MIB // 4, of))
        tensors[f"layer.{index}.bias"] = ("BF16", (512,), brain_weights(512, seed + index))
    return safetensors(tensors)


def changed_layer(index: int, seed: int = 0) -> bytes:
    """`layers()` with other values in one layer."""
    return layers(seed=seed, changed=index)


def _npz(compressed: bool) -> bytes:
    buffer = io.BytesIO()
    arrays = {
        "a/weight": np.frombuffer(weights(MIB // 4, 3), "<f4").reshape(1024, 256),
        "empty": np.empty((0, 3), "<f8"),
        "scalar": np.float64(3.5),
        "fortran": np.asfortranarray(np.arange(60.0).reshape(5, 12)),
    }
    (np.savez_compressed if compressed else np.savez)(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(weights(MIB // 2, 4), "<f4").reshape(1024, 512), allow_pickle=False)
    return buffer.getvalue()


def _torch(*, zipped: bool, large: bool) -> bytes:
    """A training checkpoint, with the optimizer's state, and frozen weights of 5 MiB."""
    from tempfile import TemporaryDirectory

    import torch

    from tests.formats.torch_producer import save_bytes, training

    with TemporaryDirectory() as folder:
        value = torch.load(training(Path(folder)).path, weights_only=False)
    if large:
        value["frozen"] = torch.frombuffer(bytearray(weights(5 * MIB // 4, 5)), dtype=torch.float32)
    return save_bytes(value, zipped=zipped)


def _not_quite(cut: int) -> bytes:
    return layers(2)[:cut]


KINDS: Mapping[str, Callable[[], bytes]] = {
    "safetensors": layers,
    "small safetensors": model,
    "safetensors without elements": lambda: safetensors(
        {"none": ("F32", (0,), b""), "no columns": ("I64", (3, 0), b""), "one": ("U8", (1,), b"\x80")}
    ),
    "safetensors without tensors": lambda: safetensors({}),
    "truncated safetensors": lambda: _not_quite(-1),
    "truncated safetensors header": lambda: _not_quite(100),
    "torch training": lambda: _torch(zipped=True, large=True),
    "small torch training": lambda: _torch(zipped=True, large=False),
    "legacy torch training": lambda: _torch(zipped=False, large=True),
    "small legacy torch training": lambda: _torch(zipped=False, large=False),
    "npz": lambda: _npz(compressed=False),
    "compressed npz": lambda: _npz(compressed=True),
    "npy": _npy,
    "opaque": lambda: noise(5 * MIB + 1, 1),
    "opaque that shrinks": lambda: b"step 1: loss 0.5\n" * 300_000,
    "opaque of just what is held": lambda: noise(MIB, 2),
    "opaque of one byte more": lambda: noise(MIB + 1, 2),
    "zeros": lambda: bytes(3 * MIB),
    "one byte": lambda: b"\n",
    "empty": lambda: b"",
    "lfs pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 12345\n" % (b"0" * 64),
    "text with CR LF": lambda: b"epoch,loss\r\n1,0.5\n\r\r\n" * 100,
}
