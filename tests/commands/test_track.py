"""`git theta track` and `untrack`: patterns of every spelling, beside other people's lines."""

import os
from pathlib import Path

import pytest

from tests.repositories import ATTRIBUTES, Repo, model

THEIRS = b"# mine\n*.png binary\n\n*.txt   text eol=lf\n[attr]weird -diff\n"


def filter_of(repo: Repo, name: str) -> str:
    return repo.git("check-attr", "-z", "filter", "--", name).split("\0")[2]


def test_track_writes_a_line_and_stages_it(repo: Repo) -> None:
    assert repo.ok("track", "*.safetensors", "model.pt") == "tracking: *.safetensors\ntracking: model.pt\n"
    assert repo.read(".gitattributes").decode() == f"*.safetensors {ATTRIBUTES}\nmodel.pt {ATTRIBUTES}\n"
    assert repo.blob(".gitattributes") == repo.read(".gitattributes")


def test_track_stages_nothing_else(repo: Repo) -> None:
    repo.write("notes.txt", b"unstaged")
    repo.track("*.pt")
    assert repo.git("diff", "--cached", "--name-only") == ".gitattributes\n"


def test_track_twice_says_so_and_changes_nothing(repo: Repo) -> None:
    repo.track("*.pt")
    before = repo.read(".gitattributes")
    assert repo.ok("track", "*.pt") == "already tracked: *.pt\n"
    assert repo.ok("track", "*.pt", "*.bin", "*.bin") == "already tracked: *.pt\ntracking: *.bin\n"
    assert repo.read(".gitattributes") == before + f"*.bin {ATTRIBUTES}\n".encode()


def test_track_again_after_a_line_that_undoes_it(repo: Repo) -> None:
    repo.write(".gitattributes", f"*.pt {ATTRIBUTES}\n*.pt -filter\n".encode())
    assert repo.ok("track", "*.pt") == "tracking: *.pt\n"
    assert filter_of(repo, "a.pt") == "theta"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
def test_other_lines_survive_byte_for_byte(repo: Repo, ending: bytes, closed: bool) -> None:
    theirs = THEIRS.replace(b"\n", ending)
    repo.write(".gitattributes", theirs if closed else theirs.removesuffix(ending))
    repo.track("*.pt")
    assert repo.read(".gitattributes") == theirs + b"*.pt " + ATTRIBUTES.encode() + ending
    assert filter_of(repo, "a.pt") == "theta"
    repo.ok("untrack", "*.pt")
    assert repo.read(".gitattributes") == theirs


def test_track_keeps_the_mode_of_the_file(repo: Repo) -> None:
    repo.write(".gitattributes", THEIRS).chmod(0o640)
    repo.track("*.pt")
    assert (repo.path / ".gitattributes").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "name",
    [
        "a b.pt",
        "a\tb.pt",
        "модель.pt",
        "#a.pt",
        "!a.pt",
        'a"b.pt',
        "a'b.pt",
        "[attr]x.pt",
        "m[1].pt",
        "a\\b.pt",
        "a*.pt",
    ],
)
def test_existing_paths_of_every_spelling_are_matched(repo: Repo, name: str) -> None:
    repo.write(name, model())
    repo.track(name)
    assert filter_of(repo, name) == "theta"
    assert filter_of(repo, "m1.pt") == filter_of(repo, "aX.pt") == "unspecified"
    assert "already" in repo.ok("track", name)
    repo.git("add", "--all")
    assert repo.blob(name).startswith(b'{"git-theta": 1')
    assert repo.theta("untrack", name).code == 0
    assert filter_of(repo, name) == "unspecified"
    assert repo.read(".gitattributes") == b""


@pytest.mark.parametrize(
    ("pattern", "match", "other"),
    [
        ("my models/*.pt", "my models/a.pt", "a.pt"),
        ("#*", "sub/#x", "x"),
        ("[ab].pt", "b.pt", "c.pt"),
        ("**/weights/*", "x/weights/y", "x/y"),
        ("ключ *", "sub/ключ 1", "ключ1"),
        ("./top.pt", "top.pt", "sub/top.pt"),
        ("./sub/top.pt", "sub/top.pt", "top.pt"),
        ("anywhere.pt", "sub/anywhere.pt", "anywhere.bin"),
    ],
)
def test_patterns_of_every_spelling(repo: Repo, pattern: str, match: str, other: str) -> None:
    repo.track(pattern)
    assert (filter_of(repo, match), filter_of(repo, other)) == ("theta", "unspecified")
    assert "already" in repo.ok("track", pattern)
    repo.ok("untrack", pattern)
    assert filter_of(repo, match) == "unspecified"


def test_directory_stands_for_all_below_it(repo: Repo) -> None:
    repo.write("my [models]/deep/a", model())
    repo.track("my [models]/")
    assert filter_of(repo, "my [models]/deep/a") == filter_of(repo, "my [models]/b") == "theta"
    assert "already" in repo.ok("track", "./my [models]")
    repo.ok("untrack", "my [models]")
    assert repo.read(".gitattributes") == b""


def test_patterns_hold_in_the_directory_they_are_given_in(repo: Repo) -> None:
    repo.write("sub/dir/model.pt", model())
    repo.ok("track", "dir/model.pt", cwd="sub")
    assert repo.read("sub/.gitattributes").decode() == f"dir/model.pt {ATTRIBUTES}\n"
    assert repo.git("diff", "--cached", "--name-only") == "sub/.gitattributes\n"
    assert filter_of(repo, "sub/dir/model.pt") == "theta"


def test_absolute_path_in_the_current_directory(repo: Repo) -> None:
    path = repo.write("sub/model.pt", model())
    repo.track(str(path))
    assert filter_of(repo, "sub/model.pt") == "theta"


@pytest.mark.parametrize("pattern", ["../*.pt", "sub/../../x", "/elsewhere/model.pt", "!*.pt", "", "new/", "[attr]"])
def test_patterns_that_git_would_not_heed_are_refused(repo: Repo, pattern: str) -> None:
    repo.fails(3, "track", "--", pattern)
    assert not (repo.path / ".gitattributes").exists()


def test_pattern_that_git_would_skip_for_its_length_is_refused(repo: Repo) -> None:
    assert "2048" in repo.fails(3, "track", "x" * 2048)


@pytest.mark.parametrize("pattern", ["*", ".gitattributes", "."])
def test_patterns_that_match_the_attributes_themselves_are_refused(repo: Repo, pattern: str) -> None:
    repo.write(".gitattributes", THEIRS)
    assert "narrower" in repo.fails(3, "track", pattern)
    assert repo.read(".gitattributes") == THEIRS
    assert repo.git("ls-files") == ""


def test_track_is_refused_until_git_theta_is_installed(fresh_repo: Repo) -> None:
    assert "git theta install" in fresh_repo.fails(7, "track", "*.pt")
    assert not (fresh_repo.path / ".gitattributes").exists()
    assert fresh_repo.ok("track").startswith("no tracked patterns")


def test_symbolic_link_in_place_of_the_attributes_is_refused(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(THEIRS)
    (repo.path / ".gitattributes").symlink_to(tmp_path / "theirs")
    assert "symbolic link" in repo.fails(7, "track", "*.pt")
    assert (tmp_path / "theirs").read_bytes() == THEIRS


def test_list_names_every_pattern_and_its_file(repo: Repo) -> None:
    repo.write(".gitattributes", f"*.pt {ATTRIBUTES}\n*.old {ATTRIBUTES}\n*.old -filter\n*.png binary\n".encode())
    repo.write("sub/.gitattributes", b'"a b" filter=theta\n')
    repo.write(".git/info/attributes", b"*.ckpt filter=theta\n")
    rows = [line.split("  ") for line in repo.ok("track", cwd="sub").splitlines()]
    assert [[row[0].strip(), row[-1].strip()] for row in rows] == [
        ["*.pt", ".gitattributes"],
        ["a b", "sub/.gitattributes"],
        ["*.ckpt", ".git/info/attributes"],
    ]


def test_files_already_in_git_are_named_with_what_to_do(repo: Repo) -> None:
    repo.write("old model.pt", model())
    repo.write("new.pt", model(1))
    repo.git("add", "old model.pt")
    done = repo.theta("track", "*.pt")
    assert done.code == 0
    assert done.err.count("\n") == 1
    assert "git add --renormalize -- 'old model.pt'" in done.err
    repo.git("add", "--renormalize", "--", "old model.pt")
    assert repo.blob("old model.pt").startswith(b'{"git-theta": 1')
    assert repo.theta("track", "*.pt").err == ""


def test_commands_to_run_are_for_the_directory_one_is_in(repo: Repo) -> None:
    repo.write("sub/old.pt", model())
    repo.git("add", "sub/old.pt")
    assert "git add --renormalize -- old.pt" in repo.theta("track", "*.pt", cwd="sub").err


def test_files_of_git_lfs_are_named_and_the_later_line_wins(repo: Repo) -> None:
    repo.write(".gitattributes", b"*.pt filter=lfs diff=lfs merge=lfs -text\n")
    repo.stage_blob("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n")
    done = repo.theta("track", "*.pt")
    assert done.code == 0
    assert ".gitattributes:1: git-lfs tracks '*.pt', too; the later line wins" in done.err
    assert "a.pt: was git-lfs' until now" in done.err
    assert filter_of(repo, "a.pt") == "theta"


def test_file_that_a_deeper_line_keeps_from_being_tracked_is_named(repo: Repo) -> None:
    repo.write("sub/.gitattributes", b"*.pt filter=lfs\n")
    repo.write("sub/a.pt", b"x")
    done = repo.theta("track", "sub/a.pt")
    assert "sub/a.pt: not tracked" in done.err
    assert "filter=lfs" in done.err


def test_untrack_removes_only_lines_of_that_pattern(repo: Repo) -> None:
    repo.write(".gitattributes", THEIRS)
    repo.track("*.pt", "*.bin")
    assert repo.ok("untrack", "*.pt") == "no longer tracked: *.pt\n"
    assert repo.read(".gitattributes") == THEIRS + f"*.bin {ATTRIBUTES}\n".encode()
    assert repo.blob(".gitattributes") == repo.read(".gitattributes")


def test_untrack_keeps_what_else_a_line_says(repo: Repo) -> None:
    repo.write(".gitattributes", f'"a b"  {ATTRIBUTES} linguist-vendored\r\n*.pt filter=lfs\r\n'.encode())
    repo.ok("untrack", "a b")
    assert repo.read(".gitattributes") == b'"a b" linguist-vendored\r\n*.pt filter=lfs\r\n'


def test_untrack_of_what_another_line_tracks_too_says_so(repo: Repo) -> None:
    repo.track("*.pt")
    repo.track("sub/a.pt", "b.bin")
    repo.write("sub/a.pt", b"x")
    repo.git("add", ".")
    done = repo.theta("untrack", "sub/a.pt", "b.bin")
    still = "its line is gone, and another one tracks it still: sub/a.pt; to see which: git theta track"
    assert (done.code, done.out) == (0, f"{still}\nno longer tracked: b.bin\n")


def test_untrack_of_what_is_not_tracked_changes_nothing(repo: Repo) -> None:
    repo.track("*.pt")
    before = repo.read(".gitattributes")
    assert "'git theta track'" in repo.fails(3, "untrack", "*.pt", "*.bin").replace("`", "'")
    assert repo.read(".gitattributes") == before


def test_untrack_says_what_to_do_with_committed_files(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write("m.safetensors", model())
    repo.commit()
    done = repo.theta("untrack", "*.safetensors")
    assert "git add --renormalize -- m.safetensors" in done.err
    repo.git("add", "--renormalize", "--", "m.safetensors")
    assert repo.blob("m.safetensors") == model()


@pytest.mark.parametrize("arguments", [("track", "*.pt"), ("track",), ("untrack", "*.pt")])
def test_bare_repositories_and_none_are_one_line(home: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert "not a git repository" in Repo(home).fails(7, *arguments)
    Repo(home).git("init", "--quiet", "--bare", str(tmp_path / "bare"))
    assert "bare" in Repo(tmp_path / "bare").fails(7, *arguments)


def test_track_in_a_linked_worktree(repo: Repo, tmp_path: Path) -> None:
    repo.commit()
    repo.git("worktree", "add", "--quiet", str(tmp_path / "linked"))
    linked = Repo(tmp_path / "linked")
    linked.track("*.pt")
    assert linked.git("diff", "--cached", "--name-only") == ".gitattributes\n"
    assert repo.git("status", "--porcelain") == ""


def test_track_with_git_dir_given_from_elsewhere(repo: Repo, home: Path) -> None:
    git_dir = os.path.relpath(repo.path / ".git", home)
    done = Repo(home).run_git("--git-dir", git_dir, "--work-tree", "../repo", "theta", "track")
    assert (done.code, done.err) == (0, "")
