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
    assert f"parameter 'moves': ours moved it to {TWO}, and theirs changed" in done.err
    assert sharded.theta("resolve", ONE, "--param", "moves", "--strategy", "ours").code == 0
    sharded.git("commit", "--quiet", "--no-edit")
    assert index(sharded)["weight_map"] == {"a": ONE, "b": TWO, "moves": TWO}


@pytest.mark.parametrize("folder", ["", "models/"])
def test_a_conflict_names_the_shard_to_which_a_side_moved_a_parameter(repo: Repo, folder: str) -> None:
    repo.track("*.safetensors")
    (repo.path / folder).mkdir(exist_ok=True)
    inside = Repo(repo.path / folder)
    write(inside, FIRST, SECOND)
    inside.commit("base")
    inside.git("branch", "other")
    diverge(inside, (TRAINED, SECOND), MOVED)
    said = f"theirs moved it to {TWO}, and ours changed, renamed or untied it"
    assert f"{folder}{ONE}: conflict: parameter 'moves': {said}; ours is kept" in repo.run_theta("merge", "other").err
    assert f"{said}\n" in repo.theta("resolve", folder + ONE, "--list").out
    repo.git("merge", "--abort")
    repo.git("checkout", "--quiet", "other")
    assert f"ours moved it to {TWO}, and theirs changed" in repo.run_git("merge", "main").err
    repo.git("merge", "--abort")
    assert repo.run_git("rebase", "main").code == 1
    assert f"{said}\n" in repo.theta("resolve", folder + ONE, "--list").out


def loaded(repo: Repo) -> Arrays:
    """What a loader gets, which goes by the index."""
    files = {file: safetensors.numpy.load(repo.read(file)) for file in (ONE, TWO)}
    return {name: files[file][name] for name, file in index(repo)["weight_map"].items()}


TRAINED = {**FIRST, "moves": FIRST["moves"] + 1}
MOVED = ({"a": FIRST["a"]}, {**SECOND, "moves": FIRST["moves"]})
MOVED_AND_TRAINED = ({"a": FIRST["a"]}, {**SECOND, "moves": FIRST["moves"] + 2})


@pytest.mark.parametrize("theirs", [MOVED, MOVED_AND_TRAINED])
@pytest.mark.parametrize("picked", [False, True])
def test_the_shard_counts_in_which_a_moved_parameter_was_kept(
    sharded: Repo, theirs: tuple[Arrays, Arrays], picked: bool
) -> None:
    diverge(sharded, (TRAINED, SECOND), theirs)
    assert (sharded.run_git("cherry-pick", "other") if picked else sharded.run_theta("merge", "other")).code == 1
    done = sharded.run_theta("resolve", ONE, "--param", "moves", "--strategy", "ours")
    assert (done.code, done.err) == (0, "")
    sharded.git("commit", "--quiet", "--no-edit")
    assert (loaded(sharded)["moves"] == TRAINED["moves"]).all()
    assert index(sharded)["weight_map"] == {"a": ONE, "b": TWO, "moves": ONE}
    assert sharded.git("status", "--porcelain") == ""


def test_a_shard_that_is_settled_last_does_not_count_for_that(sharded: Repo) -> None:
    n = {"n": np.zeros(2, "<i4")}
    write(sharded, FIRST, {**SECOND, **n})
    sharded.commit("n")
    sharded.git("branch", "--force", "other")
    theirs = ({"a": FIRST["a"]}, {**SECOND, "n": n["n"] + 1, "moves": FIRST["moves"]})
    diverge(sharded, (TRAINED, {**SECOND, "n": n["n"] + 2}), theirs)
    assert sharded.run_theta("merge", "other").code == 1
    for file in (ONE, TWO):
        sharded.ok("resolve", file, "--strategy", "ours")
    sharded.git("commit", "--quiet", "--no-edit")
    assert (loaded(sharded)["moves"] == TRAINED["moves"]).all()


def test_a_rule_that_keeps_what_was_moved(sharded: Repo) -> None:
    diverge(sharded, (TRAINED, SECOND), MOVED_AND_TRAINED)
    done = sharded.run_theta("merge", "other", "--strategy", "ours", "--param", "moves")
    assert done.code == 0, done
    assert (loaded(sharded)["moves"] == TRAINED["moves"]).all()


@pytest.mark.parametrize(("side", "file", "value"), [("ours", TWO, 3), ("theirs", ONE, 4)])
def test_a_parameter_in_two_shards_of_which_none_counts(sharded: Repo, side: str, file: str, value: int) -> None:
    new = ({**FIRST, "x": np.full(2, 4, "<f4")}, SECOND)
    diverge(sharded, (FIRST, {**SECOND, "x": np.full(2, 3, "<f4")}), new)
    before = sharded.git("rev-parse", "HEAD")
    done = sharded.run_theta("merge", "other")
    said = f"{INDEX}: parameter 'x' is in {ONE} and in {TWO}, and nothing tells which of them counts; to settle it: "
    assert done.code == 1
    assert f"git-theta: {said}git theta resolve {INDEX} --strategy ours (or theirs)\n" in done.err
    assert sharded.git("rev-parse", "HEAD") == before
    assert sharded.git("diff", "--name-only", "--diff-filter=U") == f"{INDEX}\n"
    sharded.ok("resolve", INDEX, "--strategy", side)
    sharded.git("commit", "--quiet", "--no-edit")
    assert index(sharded)["weight_map"] == {"a": ONE, "moves": ONE, "b": TWO, "x": file}
    assert loaded(sharded)["x"].tolist() == [value, value]


def test_an_index_that_git_merged_is_in_conflict_where_none_counts(sharded: Repo) -> None:
    theirs = ({**FIRST, "a": FIRST["a"] + 1}, MOVED_AND_TRAINED[1])  # a copy was left where it was
    diverge(sharded, (TRAINED, SECOND), theirs)
    document = json.loads(sharded.read(INDEX))
    assert sharded.run_theta("merge", "other").code == 1
    assert sharded.git("diff", "--name-only", "--diff-filter=U") == f"{INDEX}\n"
    assert sharded.run_git("commit", "--no-edit").code != 0
    sharded.ok("resolve", INDEX, "--strategy", "ours")
    assert index(sharded)["weight_map"] == document["weight_map"]


def test_what_of_an_index_cannot_be_settled(sharded: Repo) -> None:
    assert "not in conflict" in sharded.fails(3, "resolve", INDEX, "--strategy", "ours")
    diverge(sharded, (TRAINED, {**SECOND, "x": FIRST["a"]}), ({"a": FIRST["a"]}, {**MOVED[1], "y": FIRST["a"]}))
    assert sharded.run_theta("merge", "other").code == 1
    assert f"git theta resolve {ONE} --list" in sharded.fails(3, "resolve", INDEX, "--strategy", "ours")


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
