"""`git theta status`: what `git status` says of tracked files, and what only Git-Theta knows."""

import json
import os
import shutil

import pytest

from git_theta import manifest
from tests.repositories import ATTRIBUTES, Repo, model


def words(repo: Repo) -> dict[str, str]:
    """What each line says, by path."""
    rows = [line.split("  ") for line in repo.ok("status").splitlines() if ".safetensors" in line]
    return {cells[1].strip(): cells[0].strip() for cells in ([cell for cell in row if cell] for row in rows)}


def items(repo: Repo) -> dict[str, dict[str, object]]:
    document = json.loads(repo.ok("status", "--json"))
    assert document.keys() == {"version", "installed", "files"}
    assert document["version"] == 1
    return {item.pop("path"): item for item in document["files"]}


def test_clean_files(tracked: Repo) -> None:
    assert words(tracked) == {"a.safetensors": "clean", "sub/b.safetensors": "clean"}


def test_status_says_the_same_in_a_subdirectory(tracked: Repo) -> None:
    assert tracked.ok("status", cwd="sub") == tracked.ok("status")


def test_modified_and_staged_files(tracked: Repo) -> None:
    tracked.write("a.safetensors", model(5))
    tracked.write("new.safetensors", model(6))
    tracked.git("add", "new.safetensors")
    assert words(tracked) == {
        "a.safetensors": "modified",
        "new.safetensors": "staged (added)",
        "sub/b.safetensors": "clean",
    }
    tracked.git("add", "a.safetensors")
    tracked.write("a.safetensors", model(7))
    assert words(tracked)["a.safetensors"] == "staged (modified), modified"


def test_file_that_was_only_touched_is_clean(tracked: Repo) -> None:
    os.utime(tracked.path / "a.safetensors", (1, 1))
    assert words(tracked)["a.safetensors"] == "clean"


def test_missing_and_unmaterialised_files(tracked: Repo) -> None:
    tracked.dematerialise("a.safetensors")
    (tracked.path / "sub" / "b.safetensors").unlink()
    assert words(tracked) == {"a.safetensors": "not materialised", "sub/b.safetensors": "missing"}
    assert "git theta checkout" in tracked.ok("status")
    assert items(tracked)["a.safetensors"]["materialised"] is False


def test_file_taken_out_of_the_index(tracked: Repo) -> None:
    tracked.git("rm", "--quiet", "a.safetensors")
    tracked.git("rm", "--quiet", "--cached", "sub/b.safetensors")
    assert words(tracked) == {"a.safetensors": "staged (deleted)", "sub/b.safetensors": "staged (deleted)"}


def test_before_the_first_commit(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write("a.safetensors", model())
    assert repo.ok("status").startswith("no tracked files")
    repo.git("add", "--intent-to-add", "a.safetensors")
    assert words(repo) == {"a.safetensors": "intended"}
    repo.git("add", "a.safetensors")
    assert words(repo) == {"a.safetensors": "staged (added)"}


def test_both_sides_changed_is_a_conflict_that_keeps_ours(tracked: Repo) -> None:
    tracked.git("checkout", "--quiet", "-b", "theirs")
    tracked.write("a.safetensors", model(1))
    tracked.commit("theirs")
    tracked.git("checkout", "--quiet", "main")
    tracked.write("a.safetensors", model(2))
    tracked.commit("ours")
    tracked.git("-c", "merge.theta.driver=false", "merge", "theirs", accept=(1,))
    assert words(tracked)["a.safetensors"] == "conflict"
    assert tracked.read("a.safetensors") == model(2)
    assert items(tracked)["a.safetensors"]["kind"] is None


def test_missing_objects_are_counted(tracked: Repo) -> None:
    objects = manifest.parse(tracked.blob("a.safetensors")).objects()
    for path in tracked.objects():
        if path.name in objects:
            path.unlink()
    line = tracked.ok("status").splitlines()[0]
    assert line.startswith("clean  a.safetensors")
    assert f"{len(objects)} objects missing (" in line
    tracked.dematerialise("a.safetensors")
    assert tracked.ok("status").endswith("to put checkpoints in place of their manifests: git theta pull\n")
    counts = {"count": len(objects), "size_bytes": sum(objects.values())}
    assert items(tracked)["a.safetensors"]["objects"] == counts | {"missing": counts}


def test_files_that_git_has_as_they_are_are_listed_apart(repo: Repo) -> None:
    repo.write("old one.pt", model())
    repo.commit()
    repo.write(".gitattributes", f"*.pt {ATTRIBUTES}\n".encode())
    assert "git add --renormalize -- 'old one.pt'" in repo.ok("status")
    assert items(repo)["old one.pt"]["kind"] == "plain"


def test_json_of_a_clean_file(tracked: Repo) -> None:
    objects = manifest.parse(tracked.blob("a.safetensors")).objects()
    assert items(tracked)["a.safetensors"] == {
        "kind": "manifest",
        "staged": None,
        "worktree": "clean",
        "materialised": True,
        "objects": {
            "count": len(objects),
            "size_bytes": sum(objects.values()),
            "missing": {"count": 0, "size_bytes": 0},
        },
        "problem": None,
    }


def test_hostile_manifest_is_one_line(tracked: Repo) -> None:
    tracked.stage_blob("bad.safetensors", b'{"git-theta": 99, "x": "\\u001b[31m"}\n')
    done = tracked.theta("status")
    assert done.code == 0
    assert "unusable manifest" in done.out
    assert done.err.count("\n") == 1
    assert "version 99" in done.err
    assert "\x1b" not in done.out + done.err


def test_names_are_escaped(repo: Repo) -> None:
    repo.track("*.pt")
    repo.write("a\x1b[31m\n[bold]модель.pt", model())
    repo.git("add", "--all")
    out = repo.ok("status")
    assert "a\\u001b[31m\\n[bold]модель.pt" in out
    assert "\x1b" not in out
    document = repo.ok("status", "--json")
    assert document.isascii()
    assert json.loads(document)["files"][0]["path"] == "a\x1b[31m\n[bold]модель.pt"


def test_sparse_files_are_not_missing(tracked: Repo) -> None:
    tracked.git("sparse-checkout", "set", "--no-cone", "/a.safetensors", "/.gitattributes")
    assert words(tracked)["sub/b.safetensors"] == "absent"


def test_status_says_when_git_theta_is_not_installed(tracked: Repo) -> None:
    tracked.ok("uninstall")
    done = tracked.theta("status")
    assert (done.code, done.err) == (0, "git-theta: Git does not know git-theta here; run: git theta install\n")
    assert json.loads(tracked.ok("status", "--json"))["installed"] is False


@pytest.mark.parametrize("state", ["symlink", "directory"])
def test_what_is_no_file_is_modified(tracked: Repo, state: str) -> None:
    path = tracked.path / "a.safetensors"
    path.unlink()
    if state == "symlink":
        path.symlink_to("sub/b.safetensors")
    else:
        path.mkdir()
    expected = {"symlink": "modified", "directory": "missing"}
    assert words(tracked)["a.safetensors"] == expected[state]
    shutil.rmtree(tracked.path / "sub")
