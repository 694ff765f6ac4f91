"""`git theta log`: a line for each commit that changed a checkpoint."""

import json

import pytest

from tests.checkpoints import safetensors, trained, weights
from tests.repositories import Repo

NAME = "m.safetensors"
LARGE, SMALL = weights(128 * 160), weights(40, 1)


def model(large: bytes = LARGE, small: bytes = SMALL, **more: bytes) -> bytes:
    tensors = {"large": large, "small": small, **more}
    return safetensors({name: ("F32", (len(data) // 4,), data) for name, data in tensors.items()})


@pytest.fixture
def history(repo: Repo) -> Repo:
    """Four commits: the first version, one trained parameter, a rename of the file, one parameter more."""
    repo.track("*.safetensors")
    repo.write("old.safetensors", model())
    repo.commit("first")
    repo.write("old.safetensors", model(trained(LARGE)))
    repo.commit("train")
    repo.git("mv", "old.safetensors", NAME)
    repo.write("notes.txt", b"moved\n")
    repo.commit("move")
    repo.write(NAME, model(trained(LARGE), SMALL, new=weights(50, 2)))
    repo.commit("grow")
    return repo


def commits(repo: Repo, *arguments: str) -> list[dict[str, object]]:
    found = json.loads(repo.ok("log", "--json", *arguments))["commits"]
    assert isinstance(found, list)
    return found


def test_each_commit_has_a_line(history: Repo) -> None:
    rows = commits(history, NAME)
    assert [(row["subject"], row["counts"]) for row in rows if row["subject"] != "move"] == [
        ("grow", {"added": 1}),
        ("train", {"changed": 1}),
        ("first", {"added": 2}),
    ]
    train = next(row for row in rows if row["subject"] == "train")
    assert train["updates"] == {"delta": 1}
    relative, added = train["relative_change"], train["added_bytes"]
    assert isinstance(relative, float)
    assert isinstance(added, int)
    assert 0 < relative < 0.01
    assert 0 < added < len(LARGE)
    lines = history.ok("log", NAME).splitlines()
    assert lines[0].split() == ["commit", "date", "parameters", "stored", "as", "|change|"]
    assert [line.split()[-1] for line in lines[1:] if not line.endswith("move")] == ["grow", "train", "first"]


def test_parameters_and_numbers_of_commits_can_be_chosen(history: Repo) -> None:
    assert [row["subject"] for row in commits(history, "--param", "lar*", NAME)] == ["train", "first"]
    assert [row["subject"] for row in commits(history, "-n", "1", NAME)] == ["grow"]
    assert [row["subject"] for row in commits(history, "HEAD~2", "old.safetensors")] == ["train", "first"]
    assert commits(history, "--no-stats", NAME)[0]["relative_change"] is None


def test_a_version_from_before_the_file_was_tracked(repo: Repo) -> None:
    repo.write(NAME, model())
    repo.commit("plain")
    assert "already stored" in repo.theta("track", "*.safetensors").err
    repo.write(NAME, model(trained(LARGE)))
    repo.commit("tracked")
    assert [row["is_manifest"] for row in commits(repo, NAME)] == [False, False]
    assert "stored as it is" in repo.ok("log", NAME)


def test_a_merge_is_compared_with_its_first_parent(history: Repo) -> None:
    history.git("checkout", "--quiet", "-b", "side", "HEAD~1")
    history.write(NAME, model(trained(LARGE), trained(SMALL)))
    history.commit("side")
    history.git("checkout", "--quiet", "main")
    history.git("merge", "--quiet", "--no-edit", "side")
    first = commits(history, NAME)[0]
    assert (first["subject"], first["counts"]) == ("Merge branch 'side'", {"changed": 1})


def test_what_cannot_be_shown(history: Repo) -> None:
    assert "no commit changed it" in history.fails(3, "log", "nowhere.safetensors")
    assert history.theta("log", "nonsense", NAME).code == 7
    assert history.theta("log", "a", "b", "c").code == 2


def test_no_commit_yet(repo: Repo) -> None:
    assert "there is no commit yet" in repo.fails(3, "log", NAME)
