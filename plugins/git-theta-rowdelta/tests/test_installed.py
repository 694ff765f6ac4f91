"""The package as it is installed: Git-Theta finds it by its entry point, and says so where it is not there."""

import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
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
    lines = []
    for group, points in PROJECT["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
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
        self.git("init", "--quiet")
        self.git("theta", "install")
        self.git("theta", "track", "*.safetensors")
        self.git("config", "theta.updates", "row-delta,sparse,delta")

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

    def commit(self, content: bytes, **variables: str) -> None:
        (self.path / NAME).write_bytes(content)
        self.git("add", "--all", **variables)
        self.git("commit", "--quiet", "-m", "a version", **variables)


def versions() -> list[bytes]:
    """An embedding, and the same with a few rows trained."""
    numbers = np.random.default_rng(0)
    base = (numbers.standard_normal((1000, 64)) * 0.02).astype("<f4")
    value = base.copy()
    value[::100] += (numbers.standard_normal((10, 64)) * 2e-5).astype("<f4")
    header = {"embedding": {"dtype": "F32", "shape": [1000, 64], "data_offsets": [0, base.nbytes]}}
    text = json.dumps(header).encode()
    return [len(text).to_bytes(8, "little") + text + array.tobytes() for array in (base, value)]


def test_the_entry_point_leads_to_the_update(site: Path) -> None:
    [found] = [item for item in importlib.metadata.distributions(path=[str(site)]) if item.name == PROJECT["name"]]
    [point] = found.entry_points.select(group="git_theta.updates")
    assert point.load().name == point.name == "row-delta"


def test_a_repository_that_uses_it(site: Path, tmp_path: Path) -> None:
    """Stored and checked out with the package; without it, Git leaves the file alone, and is told what is missing."""
    repo = Repo(tmp_path)
    with_it = {"PYTHONPATH": str(site)}
    contents = versions()
    for content in contents:
        repo.commit(content, **with_it)
    assert "dense row-delta" in repo.git("theta", "info", "--full", NAME)
    repo.git("checkout", "--quiet", "HEAD~1", **with_it)
    assert (repo.path / NAME).read_bytes() == contents[0]

    said = _fails(repo, "checkout", "--quiet", "-", variables={})
    assert "'row-delta' is not installed" in said
    assert "install the package that brings it" in said
    assert not (repo.path / NAME).exists() or (repo.path / NAME).read_bytes() == contents[0]
    repo.git("checkout", "--quiet", "--force", "-", **with_it)
    assert (repo.path / NAME).read_bytes() == contents[1]
    assert repo.git("status", "--porcelain", **with_it) == ""


def test_a_setting_that_names_it_where_it_is_not_installed_is_one_line(tmp_path: Path) -> None:
    repo = Repo(tmp_path)
    first, second = versions()
    repo.commit(first)
    (repo.path / NAME).write_bytes(second)
    said = _fails(repo, "add", NAME, variables={})
    [line] = [line for line in said.splitlines() if line.startswith("git-theta: ")]
    assert "theta.updates: update 'row-delta' is not installed" in line


def _fails(repo: Repo, *arguments: str, variables: Mapping[str, str]) -> str:
    done = repo.run(*arguments, **variables)
    assert done.returncode != 0
    return done.stderr
