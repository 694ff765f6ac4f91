"""`git theta info`: what is in a checkpoint, tracked or not, now or in a revision."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from git_theta import manifest
from git_theta.tensor import View
from tests.checkpoints import safetensors
from tests.repositories import Repo, model


def test_head_and_folded_parameters(tracked: Repo) -> None:
    text = manifest.parse(tracked.blob("a.safetensors"))
    lines = tracked.ok("info", "a.safetensors").splitlines()
    head = dict(line.split(maxsplit=1) for line in lines[: lines.index("")])
    assert head["file"] == "a.safetensors"
    assert head["format"] == "safetensors"
    assert head["size"] == f"246.3 KB ({len(model()):,} bytes)"
    assert head["parameters"] == "4 (61,480 elements)"
    assert head["digest"] == text.digest
    assert "objects, " in head["stored"]
    rows = [line.split() for line in lines[lines.index("") + 1 :]]
    assert rows[0] == ["parameter", "count", "dtype", "shape", "size", "stored", "steps", "by"]
    assert [row[:5] for row in rows[1:]] == [
        ["embedding", "1", "F32", "[10,", "4]"],
        ["layers.{0-2}.weight", "3", "F32", "[128,", "160]"],
    ]
    assert rows[2][-2:] == ["1", "dense"]


def test_full_list(tracked: Repo) -> None:
    out = tracked.ok("info", "--full", "a.safetensors")
    assert [line.split()[0] for line in out.splitlines()[-4:]] == [
        "embedding",
        "layers.0.weight",
        "layers.1.weight",
        "layers.2.weight",
    ]


def test_json(tracked: Repo) -> None:
    text = manifest.parse(tracked.blob("a.safetensors"))
    document = json.loads(tracked.ok("info", "--json", "a.safetensors"))
    groups = document.pop("groups")
    objects = text.objects()
    assert document == {
        "version": 1,
        "path": "a.safetensors",
        "format": "safetensors",
        "size_bytes": len(model()),
        "digest": text.digest,
        "parameters": 4,
        "elements": 61480,
        "stored_bytes": sum(objects.values()),
        "objects": {
            "count": len(objects),
            "size_bytes": sum(objects.values()),
            "missing": {"count": 0, "size_bytes": 0},
        },
    }
    layers = [text.parameters[f"layers.{index}.weight"] for index in range(3)]
    assert groups[1] == {
        "name": "layers.{0-2}.weight",
        "count": 3,
        "dtype": "F32",
        "shape": [128, 160],
        "size_bytes": 3 * 128 * 160 * 4,
        "stored_bytes": sum(layer.store[0].size for layer in layers),
        "steps": 1,
        "updates": ["dense"],
        "chains": [{"updates": ["dense"], "count": 3}],
    }


def test_json_in_full(tracked: Repo) -> None:
    record = manifest.parse(tracked.blob("a.safetensors")).parameters["layers.1.weight"]
    document = json.loads(tracked.ok("info", "--json", "--full", "a.safetensors"))
    assert "groups" not in document
    assert document["list"][2] == {
        "name": "layers.1.weight",
        "dtype": "F32",
        "shape": [128, 160],
        "size_bytes": 128 * 160 * 4,
        "digest": record.digest,
        "stored_bytes": record.store[0].size,
        "steps": 1,
        "updates": ["dense"],
        "views": [],
    }


def test_updates_and_chains(tracked: Repo) -> None:
    assert "chains" not in tracked.ok("info", "a.safetensors")
    content = bytearray(model())
    for number in (1, 2):
        content[-4 * number] ^= 1  # an element of the last layer
        tracked.write("a.safetensors", bytes(content))
        tracked.commit()
    record = manifest.parse(tracked.blob("a.safetensors")).parameters["layers.2.weight"]
    updates = [step.update for step in record.store]
    assert updates[0] == "dense" not in updates[1:]
    lines = tracked.ok("info", "a.safetensors").splitlines()
    assert "chains      1 parameter, at most 3 steps" in lines
    assert lines[-1].endswith(f"  1-3  dense (2), {' '.join(updates)} (1)")
    [_, group] = json.loads(tracked.ok("info", "--json", "a.safetensors"))["groups"]
    assert (group["steps"], group["updates"]) == (3, list(dict.fromkeys(updates)))
    assert group["chains"] == [
        {"updates": ["dense"], "count": 2},
        {"updates": updates, "count": 1},
    ]
    full = tracked.ok("info", "--full", "a.safetensors").splitlines()
    assert [line.split()[-2:] for line in full[-2:]] == [["1", "dense"], updates[1:]]
    layer = json.loads(tracked.ok("info", "--full", "--json", "a.safetensors"))["list"][-1]
    assert (layer["steps"], layer["updates"]) == (3, updates)
    assert layer["stored_bytes"] == sum(step.size for step in record.store)


def test_a_row_of_many_chains_names_the_most_frequent(tracked: Repo) -> None:
    text = manifest.parse(tracked.blob("a.safetensors"))
    record = text.parameters["layers.0.weight"]
    [step] = record.store
    rows = {}
    for index in range(12):
        steps = tuple(replace(step, bases=(number - 1,) if number else ()) for number in range(index // 3 + 1))
        rows[f"x.{index}"] = replace(record, store=steps)
    rows["x.12"] = record
    tracked.stage_blob("many.safetensors", manifest.format(replace(text, parameters=rows)))
    [line] = [line for line in tracked.ok("info", "many.safetensors").splitlines() if line.startswith("x.{0-12}")]
    assert line.endswith("  1-4  dense (4), dense dense (3), dense dense dense (3), 1 more")


def test_other_names_of_a_value_are_listed_with_it(tracked: Repo) -> None:
    text = manifest.parse(tracked.blob("a.safetensors"))
    row = replace(text.parameters["layers.0.weight"], views=(View("tied\x1b", "F32", (160, 128), 0, (1, 160)),))
    tracked.stage_blob(
        "a.safetensors", manifest.format(replace(text, parameters={**text.parameters, "layers.0.weight": row}))
    )
    lines = tracked.ok("info", "--full", "a.safetensors").splitlines()
    assert lines[-3].split() == ["=", "tied\\u001b", "F32", "[160,", "128]"]
    document = json.loads(tracked.ok("info", "--full", "--json", "a.safetensors"))
    assert document["list"][1]["views"] == [{"name": "tied\x1b", "dtype": "F32", "shape": [160, 128]}]


def test_index_not_the_worktree_is_shown(tracked: Repo) -> None:
    tracked.write("a.safetensors", b"changed")
    assert "246.3 KB" in tracked.ok("info", "a.safetensors")
    (tracked.path / "a.safetensors").unlink()
    assert "246.3 KB" in tracked.ok("info", "a.safetensors")


def test_revisions(tracked: Repo) -> None:
    tracked.write("a.safetensors", model(0, layers=5))
    tracked.commit()
    assert "layers.{0-4}.weight" in tracked.ok("info", "HEAD:a.safetensors")
    assert "layers.{0-2}.weight" in tracked.ok("info", "HEAD~1:a.safetensors")
    assert "layers.{0-2}.weight" in tracked.ok("info", "HEAD~1:../a.safetensors", cwd="sub")
    assert "layers.{0-4}.weight" in tracked.ok("info", ":a.safetensors")
    assert tracked.ok("info", "b.safetensors", cwd="sub") == tracked.ok("info", "sub/b.safetensors").replace("sub/", "")


@pytest.mark.parametrize("name", ["HEAD:none", "none:a.safetensors", ":none", "--upload-pack=x:a", "HEAD:", "HEAD:sub"])
def test_revisions_that_name_no_checkpoint_are_one_line(tracked: Repo, name: str) -> None:
    tracked.fails(3, "info", "--", name)


def test_revision_where_git_has_the_file_as_it_is(tracked: Repo) -> None:
    assert "as it is" in tracked.fails(3, "info", "HEAD:.gitattributes")


def test_revisions_in_a_bare_repository(tracked: Repo, tmp_path: Path) -> None:
    tracked.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    out = Repo(tmp_path / "bare").ok("info", "main:a.safetensors")
    assert "layers.{0-2}.weight" in out
    assert "5 objects" not in out or "missing" in out


def test_missing_objects_are_mentioned(tracked: Repo) -> None:
    tracked.objects()[0].unlink()
    out = "".join(tracked.ok("info", name) for name in ("a.safetensors", "sub/b.safetensors"))
    assert "1 object (" in out
    assert "not on this machine" in out


def test_untracked_file_is_shown_without_storage(tracked: Repo) -> None:
    path = tracked.write("untracked.bin", model(3))
    out = tracked.ok("info", "untracked.bin")
    assert "not tracked" in out
    assert "layers.{0-2}.weight" in out
    assert "dense" not in out
    document = json.loads(tracked.ok("info", "--json", str(path)))
    assert document["stored_bytes"] is document["digest"] is document["objects"] is None
    assert document["groups"][0]["updates"] is document["groups"][0]["steps"] is None


def test_file_outside_of_any_repository(home: Path) -> None:
    (home / "x.safetensors").write_bytes(model())
    assert "layers.{0-2}.weight" in Repo(home).ok("info", "x.safetensors")
    assert "not a git repository" in Repo(home).fails(7, "info", "none")


def test_file_outside_of_this_repository(tracked: Repo, home: Path) -> None:
    (home / "x.safetensors").write_bytes(model())
    assert "layers.{0-2}.weight" in tracked.ok("info", "../home/x.safetensors")


def test_manifest_in_a_file_stands_for_its_checkpoint(tracked: Repo) -> None:
    tracked.write("copy.txt", tracked.blob("a.safetensors"))
    assert "layers.{0-2}.weight" in tracked.ok("info", "copy.txt")


@pytest.mark.parametrize("content", [b"", b"no format at all", b"\x80\x04."], ids=["empty", "text", "pickle"])
def test_files_of_no_format(tracked: Repo, content: bytes) -> None:
    tracked.write("x", content)
    assert "opaque" in tracked.ok("info", "x")


@pytest.mark.parametrize("path", ["none", "sub"])
def test_path_that_is_no_file_is_one_line(tracked: Repo, path: str) -> None:
    tracked.fails(3, "info", path)


def test_name_with_a_colon_is_a_path_if_it_exists(tracked: Repo) -> None:
    tracked.write("HEAD:x", model())
    assert "layers.{0-2}.weight" in tracked.ok("info", "HEAD:x")


def test_names_are_escaped_and_never_markup(tracked: Repo) -> None:
    name = "[red]\x1b[31m\n模型"
    tracked.write("x.safetensors", safetensors({name: ("F32", (1,), b"1234")}))
    tracked.git("add", "x.safetensors")
    out = tracked.ok("info", "--full", "x.safetensors")
    assert "[red]\\u001b[31m\\n\\u6a21" in out
    assert "\x1b" not in out
    document = tracked.ok("info", "--json", "x.safetensors")
    assert document.isascii()
    assert json.loads(document)["groups"][0]["name"] == name


@pytest.mark.parametrize("shape", ["[9999999999999999, 9999999999999999]", "[-1]", '["a"]', "[[]]"])
def test_hostile_manifest_is_one_line(tracked: Repo, shape: str) -> None:
    text = tracked.blob("a.safetensors").replace(b"[128, 160]", shape.encode(), 1)
    tracked.stage_blob("bad.safetensors", text)
    assert tracked.fails(3, "info", "bad.safetensors").startswith("git-theta: bad.safetensors: ")
    assert len(tracked.fails(3, "info", ":bad.safetensors")) < 400
