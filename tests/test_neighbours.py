"""Neighbours: which checkpoints at other paths are looked at for a new one."""

from pathlib import Path

import pytest

from git_theta import manifest, neighbours
from git_theta.git import Repository, discover
from git_theta.manifest import Manifest
from git_theta.neighbours import Neighbours
from tests.repositories import Repo

SHARDS = [f"model-{number:05}-of-00012.safetensors" for number in range(1, 13)]


def staged(repo: Repo, *names: str) -> Repository:
    """A repository whose index has manifests at these paths; each says in its `format` where it is."""
    text = manifest.parse(repo.blob("a.safetensors"))
    for number, name in enumerate(names):
        made = Manifest(f"at-{number}", text.size, text.digest, text.layout, text.parameters)
        repo.stage_blob(name, manifest.format(made))
    repo.git("rm", "--quiet", "--cached", "a.safetensors", "sub/b.safetensors")
    return discover(repo.path)


def names(found: list[Manifest], given: tuple[str, ...] | list[str]) -> list[str]:
    return [given[int(item.format.removeprefix("at-"))] for item in found]


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("model-bf16.safetensors", ("x.safetensors", "model.safetensors"), ["x.safetensors", "model.safetensors"]),
        ("bf16/m.safetensors", ("bf16/x.safetensors", "m.safetensors"), ["bf16/x.safetensors", "m.safetensors"]),
        ("new/a/m.safetensors", ("new/m.safetensors", "m.safetensors"), ["m.safetensors", "new/m.safetensors"]),
        ("model.safetensors", ("model.safetensors",), []),
        ("model.safetensors", ("model.py", "docs/model.md"), []),
    ],
    ids=["name", "folder", "nearest folder", "itself", "not tracked"],
)
def test_the_likest_path_comes_last(tracked: Repo, path: str, given: tuple[str, ...], expected: list[str]) -> None:
    assert names(Neighbours(staged(tracked, *given)).of(path.encode()), given) == expected


def test_few_are_read_and_the_same_shard_is_the_likest(tracked: Repo) -> None:
    found = Neighbours(staged(tracked, *SHARDS)).of(b"model-bf16-00007-of-00012.safetensors")
    assert len(found) == neighbours.MAX_MANIFESTS
    assert names(found, SHARDS)[-1] == SHARDS[6]


def test_manifests_that_are_large_together_are_left_out(tracked: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = staged(tracked, *SHARDS)
    monkeypatch.setattr(neighbours, "MAX_MANIFEST_BYTES", int(2.5 * len(tracked.blob(SHARDS[0]))))
    assert len(Neighbours(repository).of(b"model.safetensors")) == 2


def test_in_a_large_index_only_the_folder_counts(tracked: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("sub/m.safetensors", "sub/x.safetensors", "m.safetensors")
    repository = staged(tracked, *given)
    monkeypatch.setattr(neighbours, "MAX_ENTRIES", 3)
    known = Neighbours(repository)
    assert names(known.of(b"sub/new.safetensors"), given) == ["sub/x.safetensors", "sub/m.safetensors"]
    assert names(known.of(b"new.safetensors"), given) == ["m.safetensors"]


def test_what_was_made_is_a_neighbour_of_the_next_and_few_are_kept(tracked: Repo) -> None:
    repository = staged(tracked)
    text = manifest.parse(tracked.git("show", "HEAD:a.safetensors").encode())
    known = Neighbours(repository)
    for number in range(11):
        path = b"%d.safetensors" % number
        assert {item.format for item in known.of(path)} == {
            f"at-{other}" for other in range(max(0, number - 8), number)
        }
        known.remember(path, Manifest(f"at-{number}", text.size, text.digest, text.layout, text.parameters))
    assert "at-3" not in {item.format for item in known.of(b"3.safetensors")}


def test_what_is_no_manifest_is_passed_over(tracked: Repo) -> None:
    tracked.stage_blob("plain.safetensors", b"plain")
    tracked.stage_blob("bad.safetensors", tracked.blob("a.safetensors").replace(b'"size": ', b'"size": -', 1))
    tracked.stage_blob("empty.safetensors", b"")
    found = Neighbours(discover(tracked.path)).of(b"new.safetensors")
    assert [list(item.parameters) for item in found] == [
        list(manifest.parse(tracked.blob(name)).parameters) for name in ("sub/b.safetensors", "a.safetensors")
    ]


def test_what_a_sparse_checkout_leaves_out_is_passed_over(tracked: Repo, tmp_path: Path) -> None:
    tracked.git("sparse-checkout", "set", "--no-cone", "/*", "!/sub")
    assert len(Neighbours(discover(tracked.path)).of(b"new.safetensors")) == 1
