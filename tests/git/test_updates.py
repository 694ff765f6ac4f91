"""Versions stored as what they add, as a user has them: commits, checkouts, another clone, fsck, prune and info."""

import json
import os
from pathlib import Path

import numpy as np

from tests.checkpoints import safetensors, weights
from tests.repositories import Repo
from tests.sites import Site, stored

NAME = "model.safetensors"
SHAPE = (300, 200)


def _file(data: bytes, dtype: str = "F32", rows: int = 300) -> bytes:
    return safetensors({"embedding": (dtype, (rows, 200), data), "bias": ("F32", (3,), weights(3))})


def _versions() -> list[bytes]:
    """A base, two steps of training, a few rows replaced, a vocabulary grown, and a copy in half precision."""
    first = np.frombuffer(weights(60_000), "<f4")
    steps = np.random.default_rng(0).standard_normal((2, 60_000)).astype("<f4") * np.float32(3e-9)
    tuned = [first + steps[0], first + steps[0] + steps[1]]
    rows = tuned[1].copy()
    rows[:600] = np.frombuffer(weights(600, 5), "<f4")
    grown = rows.tobytes() + weights(2000, 6)
    half = np.frombuffer(grown, "<f4").astype("<f2").tobytes()
    same = [_file(array.tobytes()) for array in (first, *tuned, rows)]
    return [*same, _file(grown, rows=310), _file(half, "F16", 310)]


def _updates(repo: Repo, commit: str) -> list[str]:
    lines = repo.git("show", f"{commit}:{NAME}").splitlines()
    record = json.loads("{" + next(line for line in lines if line.startswith('"embedding"')).rstrip(",") + "}")
    return [step[0] for step in record["embedding"]["store"]]


def test_each_version_is_what_it_adds_and_comes_back_anywhere(tmp_path: Path, site: Site) -> None:
    repo = site.repo
    repo.track("*.safetensors")
    versions = _versions()
    for number, content in enumerate(versions):
        repo.write(NAME, content)
        repo.commit(f"version {number}")
        repo.git("tag", f"v{number}")
        assert repo.git("status", "--porcelain") == ""
    assert _updates(repo, "v5") == ["dense", "delta", "delta", "sparse", "sparse", "cast"]
    assert "dense delta delta sparse sparse cast" in repo.ok("info", "--full", NAME)
    repo.ok("fsck")
    repo.git("push", "--quiet", "--tags", "origin", "main")
    assert stored(site.remote) == stored(repo)
    clone = site.clone()
    for number in (5, 0, 3, 1, 4, 2):
        for place in (repo, clone):
            place.git("checkout", "--quiet", f"v{number}")
            assert place.read(NAME) == versions[number]
            assert place.git("status", "--porcelain") == ""


def test_a_clone_without_the_base_stores_the_next_version_whole(site: Site) -> None:
    repo = site.repo
    repo.track("*.safetensors")
    versions = _versions()
    repo.write(NAME, versions[0])
    repo.commit()
    repo.git("push", "--quiet", "origin", "main")
    clone = site.clone(GIT_THETA_SKIP_SMUDGE="1")
    clone.write(NAME, versions[1])
    clone.commit()
    assert _updates(clone, "HEAD") == ["dense"]
    clone.git("push", "--quiet", "origin", "main")
    repo.git("pull", "--quiet", "origin", "main")
    assert repo.read(NAME) == versions[1]


def test_prune_keeps_what_a_chain_builds_on(site: Site) -> None:
    repo = site.repo
    repo.track("*.safetensors")
    for content in _versions()[:2]:
        repo.write(NAME, content)
        repo.commit()
    repo.git("checkout", "--quiet", "--orphan", "alone")
    repo.commit("the last version alone")
    repo.git("branch", "--quiet", "-D", "main")
    repo.git("reflog", "expire", "--expire=now", "--all")
    for path in repo.objects():
        os.utime(path, (0, 0))
    before = set(repo.objects())
    repo.ok("prune")
    assert set(repo.objects()) == before
    assert _updates(repo, "HEAD") == ["dense", "delta"]
