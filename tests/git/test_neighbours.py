"""A checkpoint at a new path builds on one that is tracked elsewhere: a copy in half precision, a tuned model."""

from pathlib import Path

import numpy as np
import pytest

from git_theta import manifest
from tests.checkpoints import safetensors, trained, weights
from tests.repositories import Repo, model

ELEMENTS = 128 * 160
F32 = weights(3 * ELEMENTS, 5)
SHAPE = (3 * 128, 160)


def checkpoint(data: bytes, dtype: str = "F32") -> bytes:
    return safetensors({"weight": (dtype, SHAPE, data), "bias": ("F32", (3,), weights(3))})


def halved(data: bytes) -> bytes:
    return np.frombuffer(data, "<f4").astype("<f2").tobytes()


def updates(repo: Repo, name: str) -> list[str]:
    return [step.update for step in manifest.parse(repo.blob(name)).parameters["weight"].store]


def stored_bytes(repo: Repo) -> int:
    return sum(path.stat().st_size for path in repo.objects())


@pytest.fixture
def based(repo: Repo) -> Repo:
    """A repository that has model.safetensors."""
    repo.track("*.safetensors", "*.bin")
    repo.write("model.safetensors", checkpoint(F32))
    repo.commit()
    return repo


def test_a_converted_copy_costs_next_to_nothing(based: Repo, tmp_path: Path) -> None:
    copy = checkpoint(halved(F32), "F16")
    before = stored_bytes(based)
    based.write("model-f16.safetensors", copy)
    based.commit()
    assert updates(based, "model-f16.safetensors") == ["dense", "cast"]
    assert stored_bytes(based) - before < 1000
    based.git("rm", "--quiet", "model.safetensors")
    based.commit("the copy alone")
    (based.path / "model-f16.safetensors").unlink()
    based.git("checkout", "--", "model-f16.safetensors")
    assert based.read("model-f16.safetensors") == copy
    based.ok("fsck")


def test_a_model_tuned_under_a_new_name_in_another_folder(based: Repo) -> None:
    based.write("tuned/final.bin", checkpoint(trained(F32, scale=3e-9)))
    based.git("add", "tuned")
    assert updates(based, "tuned/final.bin") == ["dense", "delta"]


def test_files_that_are_added_together(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write("a.safetensors", checkpoint(F32))
    repo.write("b.safetensors", checkpoint(halved(F32), "F16"))
    repo.git("add", "--all")
    assert updates(repo, "b.safetensors") == ["dense", "cast"]


def test_a_path_that_has_a_version_builds_on_that(based: Repo) -> None:
    own = weights(3 * ELEMENTS, 6)
    based.write("own.safetensors", checkpoint(own))
    based.commit()
    assert updates(based, "own.safetensors") == ["dense"]
    based.write("own.safetensors", checkpoint(trained(own, scale=3e-9)))
    based.commit()
    [first, _] = manifest.parse(based.blob("own.safetensors")).parameters["weight"].store
    [own_step] = manifest.parse(based.git("show", "HEAD~1:own.safetensors").encode()).parameters["weight"].store
    assert first == own_step


def test_a_neighbour_whose_objects_are_gone_is_no_base(based: Repo) -> None:
    for path in based.objects():
        path.unlink()
    based.write("copy.safetensors", checkpoint(halved(F32), "F16"))
    based.git("add", "copy.safetensors")
    assert updates(based, "copy.safetensors") == ["dense"]


def test_a_neighbour_that_lies_about_its_content_is_no_base(based: Repo) -> None:
    text = manifest.parse(based.blob("model.safetensors"))
    based.write("other.safetensors", checkpoint(weights(3 * ELEMENTS, 8)))
    based.git("add", "other.safetensors")
    lie = based.blob("other.safetensors").replace(
        manifest.parse(based.blob("other.safetensors")).parameters["weight"].store[0].pieces[0].oid.encode(),
        text.parameters["weight"].store[0].pieces[0].oid.encode(),
    )
    based.git("rm", "--quiet", "--cached", "model.safetensors", "other.safetensors")
    based.stage_blob("lie.safetensors", lie)
    based.write("copy.safetensors", checkpoint(halved(F32), "F16"))
    based.git("add", "copy.safetensors")
    assert updates(based, "copy.safetensors") == ["dense"]


@pytest.mark.parametrize(("key", "value"), [("theta.updates", "dense"), ("theta.compression", "none")])
def test_settings_switch_it_off(based: Repo, key: str, value: str) -> None:
    based.git("config", key, value)
    based.write("copy.safetensors", checkpoint(halved(F32), "F16"))
    based.git("add", "copy.safetensors")
    assert updates(based, "copy.safetensors") == ["dense"]


def test_a_name_whose_shape_does_not_fit_is_stored_whole(based: Repo) -> None:
    based.write("new.safetensors", safetensors({"weight": ("F32", (2, ELEMENTS), weights(2 * ELEMENTS, 5))}))
    based.git("add", "new.safetensors")
    assert updates(based, "new.safetensors") == ["dense"]


def test_the_first_checkpoint_of_a_repository_has_no_neighbour(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write("model.safetensors", model())
    repo.git("add", "model.safetensors")
    rows = manifest.parse(repo.blob("model.safetensors")).parameters.values()
    assert {len(row.store) for row in rows} == {1}
