"""The package as it is installed: `git merge` finds the strategy by its entry point; it says so without."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
PACKAGE = Path(__file__).parents[1]
PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
NAME = "model.safetensors"
CONFIG = "[user]\n\tname = A Tester\n\temail = tester@example.com\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the package as pip leaves it, its metadata made of pyproject.toml; to be put on PYTHONPATH."""
    site = tmp_path / "site"
    for folder in (PACKAGE / "src").iterdir():
        shutil.copytree(folder, site / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {PROJECT['version']}\n")
    [(group, points)] = PROJECT["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


class Repo:
    """A repository of a user who has run `git theta install`, with a HOME of their own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "repo"
        self.path.mkdir()
        home = folder / "home"
        home.mkdir()
        (home / ".gitconfig").write_text(CONFIG)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_", "PYTHONPATH"))
        }
        self.variables = kept | {
            "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
            "HOME": str(home),
            "USERPROFILE": str(home),
            "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("theta", "install")
        self.git("theta", "track", "*.safetensors")

    def run(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=self.variables | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def git(self, *arguments: str, **variables: str) -> str:
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self, row: Sequence[float]) -> None:
        (self.path / NAME).write_bytes(content(row))
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", "a version")


def content(row: Sequence[float]) -> bytes:
    """A checkpoint with one parameter."""
    array = np.array(row, "<f4")
    header = {"layer": {"dtype": "F32", "shape": [len(row)], "data_offsets": [0, array.nbytes]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + array.tobytes()


BASE, OURS, THEIRS = [1.0, 1.0, 1.0], [4.0, 0.5, 1.0], [2.0, -1.0, 0.0]
MERGED = [4.0, -1.0, 0.0]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """Two branches that trained the same parameter, and main checked out."""
    repo = Repo(tmp_path)
    repo.commit(BASE)
    repo.git("checkout", "--quiet", "-b", "experiment")
    repo.commit(THEIRS)
    repo.git("checkout", "--quiet", "main")
    repo.commit(OURS)
    return repo


def test_git_merge_uses_it(site: Path, repo: Repo) -> None:
    repo.git("config", "theta.merge.strategy", "magmax")
    repo.git("merge", "--no-edit", "experiment", PYTHONPATH=str(site))
    assert (repo.path / NAME).read_bytes() == content(MERGED)
    # The merged model is stored as any other: whoever checks it out does not need the package.
    repo.git("checkout", "--quiet", "HEAD~1")
    repo.git("checkout", "--quiet", "main")
    assert (repo.path / NAME).read_bytes() == content(MERGED)


def test_git_theta_merge_takes_its_option(site: Path, repo: Repo) -> None:
    repo.git("theta", "merge", "experiment", "--strategy", "magmax", "--set", "lambda=0.5", PYTHONPATH=str(site))
    assert (repo.path / NAME).read_bytes() == content([2.5, 0.0, 0.5])
    assert "Theta-Strategy: magmax lambda=0.5" in repo.git("log", "-1", "--format=%B")


def test_it_is_listed(site: Path, repo: Repo) -> None:
    assert "magmax" in repo.git("theta", "strategies", PYTHONPATH=str(site))
    assert "magmax" not in repo.git("theta", "strategies")


def test_a_merge_without_the_package_keeps_ours_and_says_what_is_missing(repo: Repo) -> None:
    repo.git("config", "theta.merge.strategy", "magmax")
    done = repo.run("merge", "--no-edit", "experiment")
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("git-theta: ")]
    assert "theta.merge.strategy: there is no merge strategy 'magmax'" in line
    assert (repo.path / NAME).read_bytes() == content(OURS)
