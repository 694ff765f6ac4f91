"""Makes manifests/, objects/ and expected.json beside it: what version 1 of the format looks like, in every way it can.

Run once, with torch installed: `python -m tests.data.v1.make_v1`. Never run it again to make a test pass: these files
are to be read for ever, by every later release, as they are. What a later version writes goes into its own directory.
"""

import hashlib
import io
import json
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from git_theta import checkpoint, manifest
from git_theta.config import Settings
from git_theta.depot import open_depot
from git_theta.manifest import Manifest
from git_theta.source import BytesSource
from tests.checkpoints import brain_weights, noise, safetensors, weights

HERE = Path(__file__).parent


def torch_file() -> bytes:
    """A checkpoint of torch.save with a tie, slices of one storage, a transposed weight, a scalar, an empty tensor."""
    numbers = torch.frombuffer(bytearray(weights(20_000)), dtype=torch.float32)
    weight = numbers[:16_000].clone().view(100, 160)
    storage = numbers[16_000:].clone()
    state = {
        "model": {"weight": weight, "tied": weight, "turned": numbers[:600].clone().view(20, 30).t()},
        "slices": [storage[:1000], storage[500:2500].view(50, 40), storage[::2]],
        "half": torch.frombuffer(bytearray(brain_weights(9000)), dtype=torch.bfloat16).clone(),
        "optimizer": {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(100, 160)}}},
        "empty": torch.zeros(0, 3),
        "epoch": 3,
    }
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def contents() -> dict[str, tuple[bytes, Settings]]:
    """The files, and how each is stored."""
    auto = Settings(threads=1)
    floats = safetensors(
        {
            "f32": ("F32", (200, 150), weights(30_000)),
            "bf16": ("BF16", (200, 200), brain_weights(40_000)),
            "f64": ("F64", (3000,), b"".join(noise(6, i) + b"\x12\x3f" for i in range(3000))),
            "i64": ("I64", (9000,), b"".join((i % 9).to_bytes(8, "little") for i in range(9000))),
            "u8": ("U8", (70_000,), bytes(70_000)),
        }
    )
    small = {f"layer.{i}.scale": ("F32", (i,), weights(i, i)) for i in range(40)}
    odd = safetensors(
        {
            "empty": ("F32", (0, 7), b""),
            "new": ("Q4_new", (256,), noise(144)),
            "f4": ("F4", (3, 2), b"abc"),
            'control "characters"\n\x1b[2J/~': ("BOOL", (), b"\1"),
            "\u00e9\U0001f600": ("F16", (2,), b"\0\x7e\0\xfc"),
            "0": ("C64", (1,), noise(8)),
        }
    )
    chance = random.Random(1)
    text = "".join(chance.choice(["step ", "loss ", "0.", "1\n"]) for _ in range(400_000)).encode()
    return {
        "safetensors-coded": (floats, auto),
        "safetensors-raw": (
            safetensors({"f32": ("F32", (25_000,), weights(25_000)), "u8": ("U8", (3,), b"abc")}),
            Settings(threads=1, compression="none"),
        ),
        "bundle": (safetensors(small), auto),
        "pieces": (
            safetensors({"f32": ("F32", (60_000,), weights(60_000, 1)), "u8": ("U8", (150_000,), noise(150_000))}),
            Settings(threads=1, max_object_bytes=2**16),
        ),
        "odd": (odd, auto),
        "opaque-small": (b"{'not': 'a checkpoint'}\r\n\0", auto),
        "opaque-large": (text, auto),
        "nothing": (b"", auto),
        "gap": (safetensors({"a": ("U8", (3,), b"abc")}) + bytes(2**21), auto),
        "steps": (safetensors({"a": ("U8", (3,), b"abc"), "b": ("U8", (4,), b"defg")}), auto),
        "torch": (torch_file(), auto),
    }


def with_steps(made: Manifest) -> Manifest:
    """The same checkpoint, each value of which has a step of another dtype before the one that rebuilds it."""
    first = replace(made.parameters["a"].store[0], dtype="U8", shape=(3,))
    rows = {name: replace(row, store=(first, replace(row.store[0], bases=()))) for name, row in made.parameters.items()}
    return replace(made, parameters=rows)


def main() -> None:
    for folder in ("manifests", "objects"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    (HERE / "manifests").mkdir()
    expected = {}
    for name, (content, settings) in contents().items():
        with tempfile.TemporaryDirectory() as folder:
            depot = open_depot(Path(folder), settings)
            made = checkpoint.take(BytesSource(content), depot)
            text = manifest.format(with_steps(made) if name == "steps" else made)
            depot.catalogue.close()
            shutil.copytree(Path(folder) / "objects", HERE / "objects", dirs_exist_ok=True)
        (HERE / "manifests" / name).write_bytes(text)
        expected[name] = hashlib.sha256(content).hexdigest()
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
