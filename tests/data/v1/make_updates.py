"""Adds manifests/updates and its objects to expected.json: values that are stored as updates of others.

Run once, as make_v1.py, which see: `python -m tests.data.v1.make_updates`. Never run it again to make a test pass.
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from git_theta import manifest, outcome
from git_theta.config import Settings
from git_theta.depot import open_depot
from git_theta.outcome import Versions
from git_theta.rules import Rule, Rules
from git_theta.tensor import Tensor
from git_theta.threeway import plan
from git_theta.updates.base import Supplied
from git_theta.updates.ia3 import IA3
from git_theta.updates.low_rank import LOW_RANK
from tests.checkpoints import Tensor as Row
from tests.checkpoints import brain_weights, content_of, noise, safetensors, take, trained, weights

HERE = Path(__file__).parent
BASE = weights(20_000)
BRAIN = brain_weights(40_000)
LEFT, RIGHT = weights(200 * 4, 5), weights(4 * 100, 6)
SCALE = weights(100, 7)
SHAPE = (200, 100)
BRAIN_SHAPE = (400, 100)


def brain(seed: int) -> bytes:
    """BF16 values after a small step of training."""
    steps = np.random.default_rng(seed).integers(-2, 3, 40_000).astype("<u2")
    made: bytes = (np.frombuffer(BRAIN, "<u2") + steps).tobytes()
    return made


def version(seed: int) -> bytes:
    """A checkpoint; of seed 0, the one that the others come from."""

    def f32(scale: float = 1e-6) -> Row:
        return "F32", SHAPE, trained(BASE, seed, scale) if seed else BASE

    base = np.frombuffer(BASE, "<f4").reshape(SHAPE)
    product = np.frombuffer(LEFT, "<f4").reshape(200, 4) @ np.frombuffer(RIGHT, "<f4").reshape(4, 100)
    rows: dict[str, Row] = {
        "average": f32(),
        "average.uneven": f32(),
        "average.bf16": ("BF16", BRAIN_SHAPE, brain(seed) if seed else BRAIN),
        "cast": ("F16", SHAPE, base.astype("<f2").tobytes()) if seed else f32(),
        "delta": ("F32", SHAPE, trained(BASE, 9, 1e-6) if seed else BASE),
        "delta.bf16": ("BF16", BRAIN_SHAPE, brain(9) if seed else BRAIN),
        "delta.rows": ("F32", (190, 100), trained(BASE, 8, 1e-6)[:76_000]) if seed else f32(),
        "ia3": ("F32", SHAPE, (base * np.frombuffer(SCALE, "<f4")).tobytes() if seed else BASE),
        "low-rank": ("F32", SHAPE, (base + product).tobytes() if seed else BASE),
        "small": ("F32", (500,), trained(BASE[:2000], 9, 1e-6) if seed else BASE[:2000]),
        "sparse": ("F32", (210, 100), BASE + noise(4000)) if seed else f32(),
    }
    return safetensors(rows)


def main() -> None:
    expected = json.loads((HERE / "expected.json").read_text())
    rules = Rules((Rule("average.uneven", "average", {"weights": (1.0, 3.0)}),))
    factors = {"R": Tensor("F32", (200, 4), LEFT), "C": Tensor("F32", (4, 100), RIGHT)}
    supplied: dict[str, Supplied] = {
        "low-rank": LOW_RANK.supplied(factors, "F32", SHAPE),
        "ia3": IA3.supplied({"ia3": Tensor("F32", (100,), SCALE)}, "F32", SHAPE),
    }
    with tempfile.TemporaryDirectory() as folder:
        depot = open_depot(Path(folder), Settings(threads=1))
        base = take(version(0), depot)
        ours = take(version(1), depot, [base], supplied=supplied)
        theirs = take(version(2), depot, [base], supplied=supplied)
        made = outcome.apply(plan(base, ours, theirs, rules), Versions(base, ours, theirs), rules, depot)
        content = content_of(made.manifest, depot)
        for oid in made.manifest.objects():
            place = HERE / "objects" / oid[:2] / oid[2:4] / oid
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(depot.store.path(oid), place)
        depot.catalogue.close()
    (HERE / "manifests" / "updates").write_bytes(manifest.format(made.manifest))
    expected["updates"] = hashlib.sha256(content).hexdigest()
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
