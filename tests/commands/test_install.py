"""`git theta install` and `uninstall`: every scope, twice, beside other people's configuration."""

import os
import shlex
import sys
import sysconfig
from pathlib import Path

import pytest

from git_theta import installation
from tests.repositories import Repo, model, scripts_path

THEIRS = """\
# mine
[core]
\teditor = ed  ; that one
[filter "lfs"]
\tprocess = git-lfs filter-process
[filter "theta"]
\tmine = kept
[theta]
\tthreads = 2
"""
OURS = ("filter.theta.", "diff.theta.", "merge.theta.", "merge.theta-bases.", "mergetool.theta.")


def configured(repo: Repo, *where: str) -> dict[str, str]:
    rows = repo.git("config", *where, "--list", accept=(0, 1)).splitlines()
    return dict(row.split("=", 1) for row in rows if row.startswith(OURS))


def test_install_sets_the_filter_and_the_merge_driver_in_the_global_configuration(fresh_repo: Repo) -> None:
    said = fresh_repo.ok("install")
    assert said.startswith("set in the global Git configuration: filter.theta.process = ")
    settings = configured(fresh_repo, "--global")
    assert settings == dict(installation.settings())
    assert settings["filter.theta.required"] == "true"
    assert settings["merge.theta.driver"].endswith("git-theta-merge %O %A %B %P %S %X %Y")


def test_install_twice_changes_nothing(repo: Repo, home: Path) -> None:
    before = (home / ".gitconfig").read_bytes()
    assert repo.ok("install").startswith("already set in the global")
    assert (home / ".gitconfig").read_bytes() == before


@pytest.mark.parametrize("wrong", ["git-theta-filter --old", "a\n\tprocess = b"], ids=["old", "several"])
def test_install_replaces_old_values(fresh_repo: Repo, home: Path, wrong: str) -> None:
    with (home / ".gitconfig").open("a") as file:
        file.write(f'[filter "theta"]\n\tprocess = {wrong}\n')
    fresh_repo.ok("install")
    assert fresh_repo.git("config", "--global", "--get-all", "filter.theta.process").count("\n") == 1
    assert configured(fresh_repo, "--global") == dict(installation.settings())


def test_other_peoples_configuration_survives_install_and_uninstall(fresh_repo: Repo, home: Path) -> None:
    config = home / ".gitconfig"
    config.write_text(THEIRS)
    fresh_repo.ok("install")
    assert all(line in config.read_text().splitlines() for line in THEIRS.splitlines())
    fresh_repo.ok("uninstall")
    assert config.read_text() == THEIRS


def test_uninstall_leaves_no_empty_section(repo: Repo, home: Path) -> None:
    assert repo.ok("uninstall").startswith("removed from the global")
    assert "theta" not in (home / ".gitconfig").read_text()
    assert repo.ok("uninstall").startswith("nothing to remove in the global")


def test_install_in_the_repository_alone(fresh_repo: Repo, home: Path) -> None:
    assert "in the local Git configuration" in fresh_repo.ok("install", "--local")
    assert configured(fresh_repo, "--local") == dict(installation.settings())
    assert "theta" not in (home / ".gitconfig").read_text()
    fresh_repo.ok("uninstall", "--local")
    assert configured(fresh_repo) == {}


def test_install_for_the_whole_machine(fresh_repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "system"))
    monkeypatch.delenv("GIT_CONFIG_NOSYSTEM")
    fresh_repo.ok("install", "--system")
    assert "git-theta-filter" in (tmp_path / "system").read_text()
    fresh_repo.ok("uninstall", "--system")
    assert (tmp_path / "system").read_text() == ""


def test_install_in_a_worktree_needs_worktree_configuration(fresh_repo: Repo) -> None:
    assert "git config extensions.worktreeConfig true" in fresh_repo.fails(7, "install", "--worktree")
    fresh_repo.git("config", "extensions.worktreeConfig", "yes")
    fresh_repo.ok("install", "--worktree")
    assert "filter" not in (fresh_repo.path / ".git" / "config").read_text()
    assert "git-theta-filter" in (fresh_repo.path / ".git" / "config.worktree").read_text()
    assert fresh_repo.ok("uninstall", "--worktree").startswith("removed")


@pytest.mark.parametrize("verb", ["install", "uninstall"])
@pytest.mark.parametrize("scope", ["--local", "--worktree"])
def test_scopes_of_a_repository_need_one(home: Path, verb: str, scope: str) -> None:
    assert "not a git repository" in Repo(home).fails(7, verb, scope)


def test_global_scope_needs_no_repository(home: Path) -> None:
    Repo(home).ok("install", "--global")
    Repo(home).ok("uninstall")


def test_configuration_that_cannot_be_written_is_one_line(fresh_repo: Repo, home: Path) -> None:
    (home / ".gitconfig.lock").touch()
    assert "could not lock config file" in fresh_repo.fails(7, "install")


def test_filter_of_an_environment_works_when_that_is_not_active(repo: Repo) -> None:
    assert installation.settings()["filter.theta.process"] == shlex.quote(
        (scripts_path() / "git-theta-filter").as_posix()
    )
    repo.track("*.safetensors")
    repo.write("m.safetensors", model())
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != scripts_path())
    repo.git("add", "m.safetensors", PATH=path)
    assert repo.blob("m.safetensors").startswith(b'{"git-theta": 1')


def test_filter_in_a_folder_with_a_space_works(
    fresh_repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "it's a folder"
    folder.symlink_to(scripts_path())
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(folder))
    fresh_repo.ok("install")
    fresh_repo.track("*.safetensors")
    fresh_repo.write("m.safetensors", model())
    fresh_repo.git("add", "m.safetensors")
    assert fresh_repo.blob("m.safetensors").startswith(b'{"git-theta": 1')


def test_filter_that_every_shell_finds_is_called_by_its_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    monkeypatch.setattr(installation, "_has_conda", lambda: False)
    assert installation.settings()["filter.theta.process"] == "git-theta-filter"
    monkeypatch.setenv("PATH", os.defpath)
    assert Path(installation.settings()["filter.theta.process"]).is_absolute()


def test_missing_filter_script_is_one_line(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "git-theta")])
    assert "install git-theta again" in Repo(home).fails(7, "install")
