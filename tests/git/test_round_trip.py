"""`git add` and `git checkout`: the file that comes out is the file that went in, and known content costs nothing."""

import os
import shutil
from pathlib import Path

import pytest

from git_theta import manifest
from git_theta.manifest import Manifest
from tests.checkpoints import leftovers
from tests.git.kinds import KINDS, changed_layer, layers
from tests.repositories import Repo, model


def parameters_of(repo: Repo, revision: str, path: str) -> Manifest:
    return manifest.parse(repo.git("cat-file", "blob", f"{revision}:{path}").encode())


def touched(path: Path, seconds: int = 1000) -> None:
    """Make Git look at the content: the file has another time of change than the index has noted."""
    stamp = path.stat().st_mtime - seconds
    os.utime(path, (stamp, stamp))


def oid(repo: Repo, name: str) -> str:
    return repo.git("rev-parse", f":{name}").strip()


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    repo.track("*.st")
    return repo


def test_what_is_checked_out_is_what_was_added(tracked: Repo) -> None:
    """Files of every kind, by one filter process each time, and delayed together."""
    contents = {f"{kind}.st": make() for kind, make in KINDS.items()}
    for name, content in contents.items():
        tracked.write(name, content)
    tracked.commit()
    for name, content in contents.items():
        stored = tracked.blob(name)
        assert manifest.parse(stored).size == len(content) if content else stored == b"", name
        (tracked.path / name).unlink()
    tracked.git("checkout", "--", ".")
    assert [name for name, content in contents.items() if tracked.read(name) != content] == []
    for name in contents:
        touched(tracked.path / name)
    assert tracked.git("status", "--porcelain") == ""
    assert leftovers(tracked.path / ".git" / "theta") == []


FORMATS = {
    "safetensors": ("safetensors", 10),
    "small safetensors": ("safetensors", 4),
    "safetensors without elements": ("safetensors", 3),
    "torch training": ("torch", None),
    "legacy torch training": ("torch-legacy", None),
    "npz": ("npz", 4),
    "npy": ("npy", 1),
    "opaque": ("opaque", 1),
    "truncated safetensors": ("opaque", 1),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_file_alone_is_cut_by_its_format_and_comes_back(tracked: Repo, kind: str) -> None:
    content = KINDS[kind]()
    path = tracked.write("sub/model.st", content)
    tracked.git("add", "sub/model.st")
    found = manifest.parse(tracked.blob("sub/model.st"))
    name, count = FORMATS[kind]
    assert found.format == name
    assert len(found.parameters) == count or (count is None and len(found.parameters) > 10)
    path.unlink()
    tracked.git("checkout", "--", "sub/model.st")
    assert path.read_bytes() == content


def test_status_of_a_touched_file_asks_the_filter_and_is_clean(tracked: Repo) -> None:
    path = tracked.write("a.st", layers())
    tracked.commit()
    before = tracked.objects()
    touched(path)
    done = tracked.run_git("status", "--porcelain", GIT_TRACE="1")
    assert "git-theta-filter" in done.err
    assert done.out == ""
    assert tracked.objects() == before


def test_same_content_has_the_same_text_and_objects_at_any_path(tracked: Repo) -> None:
    tracked.write("a.st", layers())
    tracked.commit()
    before = tracked.objects()
    for name in ("b.st", "deep/er/c.st", "ж.st"):
        tracked.write(name, layers())
    tracked.git("add", ".")
    assert {oid(tracked, name) for name in ("a.st", "b.st", "deep/er/c.st", "ж.st")} == {oid(tracked, "a.st")}
    tracked.git("rm", "--quiet", "--cached", "a.st")
    tracked.git("add", "a.st")
    assert oid(tracked, "a.st") == oid(tracked, "b.st")
    assert tracked.objects() == before


def test_one_changed_layer_is_one_new_object_and_one_changed_line(tracked: Repo) -> None:
    tracked.write("a.st", layers())
    tracked.commit()
    before = set(tracked.objects())
    tracked.write("a.st", changed_layer(3))
    tracked.commit()
    [new] = set(tracked.objects()) - before
    old_lines, new_lines = (
        tracked.git("cat-file", "blob", f"{revision}:a.st").splitlines() for revision in ("HEAD~1", "HEAD")
    )
    differing = [after for before_, after in zip(old_lines, new_lines, strict=True) if before_ != after]
    assert [line.partition(":")[0] for line in differing] == ['"format"', '"layer.3.weight"']
    assert new.name in differing[1]


def test_changed_layer_of_a_torch_checkpoint_costs_that_layer_and_a_layout(tracked: Repo) -> None:
    import torch

    from tests.formats.torch_producer import save_bytes

    state = {f"layer.{index}": torch.arange(300_000, dtype=torch.float32) + index for index in range(5)}
    tracked.write("a.st", save_bytes(state))
    tracked.commit()
    before = set(tracked.objects())
    state["layer.2"] = state["layer.2"] * 2
    tracked.write("a.st", save_bytes(state))
    tracked.commit()
    old, new = (parameters_of(tracked, revision, "a.st") for revision in ("HEAD~1", "HEAD"))
    assert [name for name in new.parameters if new.parameters[name] != old.parameters[name]] == ["layer.2"]
    layout_oid = new.layout.store[0].pieces[0].oid
    layer_oid = new.parameters["layer.2"].store[-1].pieces[0].oid
    assert {path.name for path in set(tracked.objects()) - before} == {layout_oid, layer_oid}


def test_branches_back_and_forth(tracked: Repo) -> None:
    contents = {"main": layers(), "other": changed_layer(1), "third": model(5)}
    for branch, content in contents.items():
        if branch != "main":
            tracked.git("checkout", "--quiet", "-b", branch)
        tracked.write("a.st", content)
        tracked.write(f"{branch}.st", content[::-1])
        tracked.commit(branch)
    before = tracked.objects()
    for branch in ("main", "third", "other", "third", "main", "other"):
        tracked.git("checkout", "--quiet", branch)
        assert tracked.read("a.st") == contents[branch]
        assert tracked.read(f"{branch}.st") == contents[branch][::-1]
        touched(tracked.path / "a.st")
        assert tracked.git("status", "--porcelain") == ""
    tracked.git("checkout", "--quiet", "main")
    assert not (tracked.path / "other.st").exists()
    assert tracked.objects() == before


@pytest.mark.parametrize("left", ["objects", "everything"], ids=["objects copied", "catalogue copied too"])
def test_clone_with_the_objects_copied(tracked: Repo, tmp_path: Path, left: str) -> None:
    tracked.write("a.st", layers())
    tracked.write("sub/b.st", model())
    tracked.commit()
    tracked.write("a.st", changed_layer(0))
    tracked.commit()
    tracked.git("clone", "--quiet", "--no-checkout", str(tracked.path), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    folder = "theta/objects" if left == "objects" else "theta"
    shutil.copytree(tracked.path / ".git" / folder, clone.path / ".git" / folder)
    clone.git("checkout", "--quiet", "main")
    assert clone.read("a.st") == changed_layer(0)
    assert clone.read("sub/b.st") == model()
    touched(clone.path / "a.st")
    touched(clone.path / "sub" / "b.st")
    assert clone.git("status", "--porcelain") == ""
    assert clone.objects() == [clone.path / path.relative_to(tracked.path) for path in tracked.objects()]


@pytest.mark.parametrize("damage", ["gone", "garbage", "of another version", "a folder"])
def test_the_catalogue_is_only_a_cache(tracked: Repo, damage: str) -> None:
    """The same content has the same text without it, also where small values lie in bundles of several versions."""
    tracked.write("a.st", model(0))
    tracked.write("big.st", layers())
    tracked.commit()
    # Another value in the embedding: it alone is bundled anew, the layout stays where it was.
    content = model(0)
    start = content.index(b"}}") + 2
    tracked.write("a.st", content[:start] + b"\x01\x02\x03\x3c" + content[start + 4 :])
    tracked.write("big.st", changed_layer(2))
    tracked.commit()
    before, oids = tracked.objects(), [oid(tracked, "a.st"), oid(tracked, "big.st")]
    catalogue = tracked.path / ".git" / "theta" / "catalogue.sqlite"
    catalogue.unlink()
    if damage == "garbage":
        catalogue.write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    elif damage == "of another version":
        import sqlite3

        with sqlite3.connect(catalogue) as connection:
            connection.executescript("CREATE TABLE vouched (other TEXT); PRAGMA user_version = 77")
        connection.close()
    elif damage == "a folder":
        catalogue.mkdir()
    for name in ("a.st", "big.st"):
        touched(tracked.path / name)
    assert tracked.git("status", "--porcelain") == ""
    for name in ("a.st", "big.st"):
        touched(tracked.path / name, 2000)
    tracked.git("add", "--all")
    assert [oid(tracked, "a.st"), oid(tracked, "big.st")] == oids
    assert tracked.objects() == before


def test_content_of_the_index_keeps_its_text_where_head_has_another(tracked: Repo) -> None:
    tracked.write("a.st", layers())
    tracked.commit()
    tracked.write("a.st", changed_layer(1))
    tracked.git("add", "a.st")
    staged = oid(tracked, "a.st")
    (tracked.path / ".git" / "theta" / "catalogue.sqlite").unlink()
    touched(tracked.path / "a.st")
    tracked.git("add", "a.st")
    assert oid(tracked, "a.st") == staged
    tracked.write("a.st", layers())
    tracked.git("add", "a.st")
    assert tracked.git("status", "--porcelain") == ""


def test_a_known_text_is_not_kept_once_its_objects_are_gone(tracked: Repo) -> None:
    """Adding the file again mends a store that has lost objects."""
    tracked.write("a.st", layers())
    tracked.commit()
    text = tracked.blob("a.st")
    shutil.rmtree(tracked.path / ".git" / "theta" / "objects")
    touched(tracked.path / "a.st")
    tracked.git("add", "a.st")
    assert tracked.blob("a.st") == text
    (tracked.path / "a.st").unlink()
    tracked.git("checkout", "--", "a.st")
    assert tracked.read("a.st") == layers()


def test_executable_bit_and_empty_directories_are_gits_business(tracked: Repo) -> None:
    path = tracked.write("run.st", model())
    path.chmod(0o755)
    tracked.commit()
    path.unlink()
    tracked.git("checkout", "--", "run.st")
    assert path.stat().st_mode & 0o111
    assert path.read_bytes() == model()
    path.chmod(0o644)
    assert tracked.git("status", "--porcelain") == " M run.st\n"
    assert tracked.git("diff", "--summary") == " mode change 100755 => 100644 run.st\n"


def test_compression_setting_changes_the_store_and_not_the_file(tracked: Repo) -> None:
    tracked.git("config", "theta.compression", "none")
    tracked.git("config", "theta.maxObjectSize", "300k")
    tracked.write("a.st", layers())
    tracked.commit()
    assert max(path.stat().st_size for path in tracked.objects()) == 300 * 1024
    stored = sum(path.stat().st_size for path in tracked.objects())
    assert stored >= len(layers())
    tracked.git("config", "--unset", "theta.compression")
    (tracked.path / "a.st").unlink()
    tracked.git("checkout", "--", "a.st")
    assert tracked.read("a.st") == layers()
    assert tracked.git("status", "--porcelain") == ""
