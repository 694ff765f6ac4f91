"""`git theta ls-files`: a line, or a JSON object, for each tracked file."""

import json

from git_theta import manifest
from tests.repositories import Repo, model


def test_lines(tracked: Repo) -> None:
    tracked.dematerialise("sub/b.safetensors")
    digests = [manifest.parse(tracked.blob(name)).digest[:10] for name in ("a.safetensors", "sub/b.safetensors")]
    assert tracked.ok("ls-files") == (
        f"{digests[0]}  *  246.3 KB  4  a.safetensors\n{digests[1]}  -  246.3 KB  4  sub/b.safetensors\n"
    )


def test_only_tracked_files_of_the_path(tracked: Repo) -> None:
    tracked.write("notes.txt", b"not tracked")
    tracked.commit()
    assert [line.split()[-1] for line in tracked.ok("ls-files").splitlines()] == ["a.safetensors", "sub/b.safetensors"]
    assert tracked.ok("ls-files", "sub").split()[-1] == "sub/b.safetensors"
    assert tracked.ok("ls-files", ".", cwd="sub").split()[-1] == "sub/b.safetensors"
    assert "no tracked file" in tracked.fails(3, "ls-files", "notes.txt")


def test_nothing_tracked_prints_nothing(repo: Repo) -> None:
    assert repo.ok("ls-files") == ""
    assert json.loads(repo.ok("ls-files", "--json")) == {"version": 1, "files": []}


def test_json(tracked: Repo) -> None:
    document = json.loads(tracked.ok("ls-files", "--json", "a.safetensors"))
    assert document == {
        "version": 1,
        "files": [
            {
                "path": "a.safetensors",
                "kind": "manifest",
                "materialised": True,
                "format": "safetensors",
                "size_bytes": len(model()),
                "parameters": 4,
                "digest": manifest.parse(tracked.blob("a.safetensors")).digest,
                "problem": None,
            }
        ],
    }


def test_files_without_a_usable_manifest_stand_beside_the_others(tracked: Repo) -> None:
    tracked.stage_blob("0bad.safetensors", b'{"git-theta": 1, "format": "\x1b[0m"}\n')
    tracked.stage_blob("0plain.safetensors", b"\0plain")
    done = tracked.theta("ls-files")
    assert done.code == 3
    assert done.err.startswith("git-theta: 0bad.safetensors: its manifest cannot be used: ")
    assert [line.split()[0] for line in done.out.splitlines()[:2]] == ["(invalid)", "(plain)"]
    assert len(done.out.splitlines()) == 4
    problems = [item["problem"] for item in json.loads(tracked.theta("ls-files", "--json").out)["files"]]
    assert [problem is None for problem in problems] == [False, True, True, True]
    assert "\x1b" not in done.out + done.err
