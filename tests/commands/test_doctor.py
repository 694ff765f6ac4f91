"""`git theta doctor` and `git theta env`."""

import json
import os
from pathlib import Path

import pytest

from git_theta import __version__, git, lfs
from tests.repositories import Repo, model
from tests.sites import A, Site, fronted, only


def findings(repo: Repo, code: int = 1) -> list[tuple[str, str]]:
    """What it finds, and what mends it."""
    done = repo.theta("doctor", "--json")
    assert (done.code, done.err) == (code, "")
    return [(item["problem"], item["remedy"]) for item in json.loads(done.out)["findings"]]


def test_all_is_well(published: Site) -> None:
    assert published.repo.ok("doctor") == "all is well\n"
    assert findings(published.repo, 0) == []


def test_outside_of_a_repository(repo: Repo, tmp_path: Path) -> None:
    assert "only the set-up was looked at" in Repo(tmp_path).ok("doctor")


def test_lines_say_what_mends_it(fresh_repo: Repo) -> None:
    done = fresh_repo.theta("doctor")
    assert done.code == 1
    assert done.out == (
        "Git does not start git-theta: filter.theta.process is not set\n    to mend it: git theta install\n"
    )


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("filter.theta.process", "/nowhere/git-theta-filter", "names /nowhere/git-theta-filter, which cannot be run"),
        ("filter.theta.required", "false", "filter.theta.required is not true"),
        ("merge.theta.driver", None, "merge.theta.driver is not set"),
        ("merge.theta.recursive", None, "merge.theta.recursive is not set"),
        ("merge.theta.driver", "false", "merge.theta.driver is another's"),
        ("merge.theta.driver", "/nowhere/git-theta-merge %O", "names /nowhere/git-theta-merge, which cannot be run"),
        ("filter.theta.process", "'unclosed", "names 'unclosed, which cannot be run"),
    ],
)
def test_settings(repo: Repo, key: str, value: str | None, problem: str) -> None:
    repo.git("config", "--global", *((key, value) if value else ("--unset", key)))
    [(said, remedy)] = findings(repo)
    assert problem in said
    assert remedy == "git theta install"
    repo.ok("install")
    assert findings(repo, 0) == []


def test_an_update_that_is_not_installed(repo: Repo) -> None:
    repo.git("config", "theta.updates", "delta,detla")
    [(said, remedy)] = findings(repo)
    assert said.startswith("theta.updates: update 'detla' is not installed")
    assert "git config --unset theta.updates" in remedy
    repo.git("config", "theta.updates", "delta,dense")
    assert findings(repo, 0) == []


def test_required_in_another_spelling_is_true(repo: Repo) -> None:
    repo.git("config", "--global", "filter.theta.required", "yes")
    assert findings(repo, 0) == []


def test_no_git_lfs(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", only(tmp_path / "bin"))
    assert findings(repo)[0] == (
        "git-lfs is not installed: nothing can be pushed or fetched",
        "install it: https://git-lfs.com",
    )


def test_old_git_lfs(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", fronted(tmp_path / "bin", git_lfs="#!/bin/sh\necho git-lfs/2.13.3\n"))
    assert findings(repo) == [("git-lfs 2.13 is older than 3.3", "update git-lfs")]


def test_old_git(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "version", lambda: (2, 20))
    assert findings(repo) == [("Git 2.20 is older than 2.25", "update Git")]


def test_missing_hook_is_put_in_place(published: Site) -> None:
    hook = published.repo.path / ".git" / "hooks" / "pre-push"
    hook.unlink()
    assert findings(published.repo) == [("the pre-push hook did not send objects", "nothing: it does now")]
    assert os.access(hook, os.X_OK)
    assert findings(published.repo, 0) == []


def test_hook_that_cannot_be_run(published: Site) -> None:
    hook = published.repo.path / ".git" / "hooks" / "pre-push"
    hook.chmod(0o644)
    assert findings(published.repo) == [("the pre-push hook cannot be run", f"chmod +x {hook}")]


def test_hook_of_the_project(published: Site) -> None:
    published.repo.git("config", "core.hooksPath", "tools")
    [(problem, remedy)] = findings(published.repo)
    assert problem == "the pre-push hook does not send objects"
    assert "add to it, before anything that reads its input" in remedy


def test_missing_objects(published: Site) -> None:
    published.repo.objects()[0].unlink()
    assert findings(published.repo) == [("1 object of what is checked out is not here", "git theta pull")]
    published.repo.objects()[0].unlink()
    assert findings(published.repo) == [("2 objects of what is checked out are not here", "git theta pull")]


def test_file_that_git_has_as_a_whole(tracked: Repo) -> None:
    tracked.stage_blob("c d.safetensors", model(3))
    [(problem, remedy)] = findings(tracked)
    assert problem == "'c d.safetensors' is tracked, but Git has it as a whole"
    assert remedy == "git add --renormalize -- 'c d.safetensors', and commit"


def test_manifest_that_cannot_be_used(tracked: Repo) -> None:
    tracked.stage_blob(A, tracked.blob(A).replace(b'"git-theta": 1', b'"git-theta": 99'))
    [(problem, _remedy)] = findings(tracked)
    assert problem.startswith(f"{A}: its manifest cannot be used")


def test_file_that_another_line_has_taken_away(tracked: Repo) -> None:
    with (tracked.path / ".gitattributes").open("a") as file:
        file.write(f"{A} filter=lfs\n")
    [(problem, remedy)] = findings(tracked)
    assert problem == f"{A}: another line gives it filter=lfs"
    assert f"git check-attr -a -- {A}" in remedy


def test_objects_that_were_not_pushed(site: Site) -> None:
    site.repo.git("push", "--quiet", "--no-verify", "origin", "main")
    assert findings(site.repo) == [
        ("origin lacks objects of what was pushed there", "git theta push --all origin"),
    ]


def test_remote_that_is_gone(published: Site) -> None:
    published.remote.path.rename(published.folder / "moved.git")
    [(problem, remedy)] = findings(published.repo)
    assert problem.startswith("origin cannot be asked what it has: ")
    assert remedy == "git remote -v, and look at its address"


def test_bare_repository(published: Site) -> None:
    assert findings(published.remote, 0) == []


def test_env(published: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_THETA_SKIP_SMUDGE", "0")
    rows = json.loads(published.repo.ok("env", "--json"))["env"]
    version = lfs.version()
    assert version is not None
    assert rows["git-theta"] == __version__
    assert rows["git-lfs"] == ".".join(map(str, version))
    assert rows["worktree"] == str(published.repo.path)
    assert rows["objects"] == str(published.repo.path / ".git" / "theta" / "objects")
    assert rows["remotes"] == "origin"
    assert rows["filter"].endswith("git-theta-filter")
    assert rows["GIT_THETA_SKIP_SMUDGE"] == "0"
    assert set(rows) >= {"python", "system", "git", "threads", "theta.compression", "theta.fsync"}
    printed = published.repo.ok("env")
    assert all(name in printed for name in rows)


def test_env_outside_of_a_repository(home: Path, tmp_path: Path) -> None:
    assert "repository" in Repo(tmp_path).ok("env")


def test_env_in_a_bare_repository(published: Site) -> None:
    assert json.loads(published.remote.ok("env", "--json"))["env"]["worktree"] == "none (bare)"


def test_env_does_not_show_what_is_secret(published: Site) -> None:
    published.repo.git("remote", "set-url", "origin", "https://user:secret@example.com/repo.git")
    assert "secret" not in published.repo.ok("env")
