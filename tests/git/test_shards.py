"""A checkpoint in several files: its index is made anew by a merge, and what moves between files does not go stale."""

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.repositories import Repo

ONE, TWO, INDEX = "m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "m.safetensors.index.json"
Arrays = dict[str, "np.ndarray[Any, Any]"]
FIRST: Arrays = {"a": np.arange(4, dtype="<f4"), "moves": np.ones(3, "<f4")}
SECOND: Arrays = {"b": np.arange(6, dtype="<f4")}


def write(repo: Repo, first: Arrays, second: Arrays) -> None:
    for name, arrays in ((ONE, first), (TWO, second)):
        repo.write(name, safetensors.numpy.save(arrays))
    weight_map = {**dict.fromkeys(first, ONE), **dict.fromkeys(second, TWO)}
    size = sum(array.nbytes for array in [*first.values(), *second.values()])
    document = {"metadata": {"total_size": size}, "weight_map": weight_map}
    repo.write(INDEX, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode())


@pytest.fixture
def sharded(repo: Repo) -> Repo:
    repo.track("*.safetensors")
    write(repo, FIRST, SECOND)
    repo.commit("base")
    repo.git("branch", "other")
    return repo


def diverge(repo: Repo, ours: tuple[Arrays, Arrays], theirs: tuple[Arrays, Arrays]) -> None:
    write(repo, *ours)
    repo.commit("ours")
    repo.git("checkout", "--quiet", "other")
    write(repo, *theirs)
    repo.commit("theirs")
    repo.git("checkout", "--quiet", "main")


def index(repo: Repo) -> dict[str, Any]:
    found = json.loads(repo.read(INDEX))
    assert isinstance(found, dict)
    return found


def test_the_index_is_made_anew(sharded: Repo) -> None:
    x, y = np.ones(2, "<f4"), np.ones(5, "<f4")
    diverge(sharded, (FIRST, {**SECOND, "x": x}), ({**FIRST, "y": y}, {**SECOND, "z": x}))
    done = sharded.run_theta("merge", "other")
    assert done.code == 0, done
    assert f"{INDEX}: made anew from the shards" in done.out
    assert index(sharded) == {
        "metadata": {"total_size": 4 * (4 + 3 + 6 + 2 + 5 + 2)},
        "weight_map": {"a": ONE, "moves": ONE, "y": ONE, "b": TWO, "x": TWO, "z": TWO},
    }
    for file in (ONE, TWO):
        names = safetensors.numpy.load(sharded.read(file)).keys()
        assert names == {name for name, place in index(sharded)["weight_map"].items() if place == file}
    assert sharded.git("log", "-1", "--format=%P").count(" ") == 1
    assert sharded.git("status", "--porcelain") == ""


def test_a_parameter_that_moved_and_changed_is_a_conflict(sharded: Repo) -> None:
    moved = ({"a": FIRST["a"]}, {**SECOND, "moves": FIRST["moves"]})
    diverge(sharded, moved, ({**FIRST, "moves": FIRST["moves"] + 1}, SECOND))
    done = sharded.run_theta("merge", "other")
    assert done.code == 1
    assert "parameter 'moves': one side deleted it" in done.err
    assert sharded.theta("resolve", ONE, "--param", "moves", "--strategy", "ours").code == 0
    sharded.git("commit", "--quiet", "--no-edit")
    assert index(sharded)["weight_map"] == {"a": ONE, "b": TWO, "moves": TWO}


def test_a_parameter_in_two_shards_is_named(sharded: Repo) -> None:
    moved = ({"a": FIRST["a"]}, {**SECOND, "moves": FIRST["moves"]})
    diverge(sharded, moved, ({**FIRST, "moves": FIRST["moves"] + 1}, SECOND))
    assert sharded.run_theta("merge", "other").code == 1
    done = sharded.theta("resolve", ONE, "--param", "moves", "--strategy", "theirs")
    assert f"{INDEX}: parameter 'moves' is in {ONE} and in {TWO}" in done.err


def branch(repo: Repo, name: str, first: Arrays, second: Arrays) -> None:
    """A branch from the one that is called other, which goes on from the base."""
    repo.git("checkout", "--quiet", "-b", name, "other")
    write(repo, first, second)
    repo.commit(name)
    repo.git("checkout", "--quiet", "main")


def test_the_index_is_made_anew_by_a_merge_of_several_branches(sharded: Repo) -> None:
    x, y = np.ones(2, "<f4"), np.ones(5, "<f4")
    branch(sharded, "b1", {**FIRST, "y": y}, SECOND)
    branch(sharded, "b2", FIRST, {**SECOND, "x": x})
    branch(sharded, "b3", {**FIRST, "a": FIRST["a"] + 2, "w": x}, {**SECOND, "z": x})
    write(sharded, {**FIRST, "a": FIRST["a"] + 4, "v": x}, SECOND)
    sharded.commit("ours")
    done = sharded.run_theta("merge", "b1", "b2", "b3", "-s", "average")
    assert done.code == 0, done
    assert f"{INDEX}: made anew from the shards" in done.out
    assert index(sharded) == {
        "metadata": {"total_size": 4 * (4 + 3 + 6 + 4 * 2 + 5)},
        "weight_map": {"a": ONE, "moves": ONE, "y": ONE, "w": ONE, "v": ONE, "b": TWO, "x": TWO, "z": TWO},
    }
    for file in (ONE, TWO):
        names = safetensors.numpy.load(sharded.read(file)).keys()
        assert names == {name for name, place in index(sharded)["weight_map"].items() if place == file}
    assert (safetensors.numpy.load(sharded.read(ONE))["a"] == FIRST["a"] + 3).all()
    assert sharded.git("log", "-1", "--format=%P").count(" ") == 3
    assert sharded.git("status", "--porcelain") == ""


def test_several_branches_and_an_index_of_what_git_theta_does_not_keep(repo: Repo) -> None:
    repo.write(INDEX, b'{"weight_map": {"a": "a.bin"}}\n')
    repo.commit("base")
    repo.git("branch", "other")
    for name in ("b1", "b2"):
        repo.git("checkout", "--quiet", "-b", name, "other")
        repo.write(INDEX, b'{"weight_map": {"%s": "a.bin"}}\n' % name.encode())
        repo.commit(name)
    repo.git("checkout", "--quiet", "main")
    said = f"{INDEX}: the branches changed it in ways that someone must put together; merge one after the other"
    assert said in repo.fails(1, "merge", "b1", "b2")
    assert repo.git("status", "--porcelain") == ""
