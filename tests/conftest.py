"""Fixtures: real Git repositories, cut off from the configuration of whoever runs the tests."""

import os
import shutil
import signal
from pathlib import Path

import hypothesis
import pytest

from tests.repositories import CONFIG, Repo, environment, model
from tests.sites import Site, bare

# CI tries the same examples each time, so that it fails only for what a change did; elsewhere they are new each time.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

# A shell starts what runs in its background with SIGINT ignored, and every process that a test starts would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def isolate(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `home` the HOME, with a Git configuration of its own and Git-Theta on the PATH; no GIT_* is inherited."""
    home.mkdir()
    (home / ".gitconfig").write_text(CONFIG)
    wanted = environment(home)
    for name in os.environ.keys() - wanted.keys():
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    return home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HOME of its own for this test, and everything that the environment says about Git."""
    return isolate(tmp_path / "home", monkeypatch)


@pytest.fixture
def fresh_repo(home: Path, tmp_path: Path) -> Repo:
    """An empty repository of a user who has not run `git theta install`."""
    return Repo.init(tmp_path / "repo")


@pytest.fixture
def repo(template: Path, home: Path, tmp_path: Path) -> Repo:
    """An empty repository of a user who has run `git theta install`."""
    shutil.copyfile(template / "home" / ".gitconfig", home / ".gitconfig")
    return Repo.init(tmp_path / "repo")


@pytest.fixture
def tracked(template: Path, home: Path, tmp_path: Path) -> Repo:
    """A repository with two checkpoints committed: a.safetensors, `model(0)`, and sub/b.safetensors, `model(100)`."""
    shutil.copyfile(template / "home" / ".gitconfig", home / ".gitconfig")
    shutil.copytree(template / "repo", tmp_path / "repo")
    return Repo(tmp_path / "repo")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `repo` and `tracked` are copies of: making it takes dozens of processes."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(folder / "home", monkeypatch)
        repo = Repo.init(folder / "repo")
        repo.ok("install")
        repo.track("*.safetensors")
        for name, content in (("a.safetensors", model(0)), ("sub/b.safetensors", model(100))):
            # Git cleans a file as new as its index again, which would store objects that a test has removed.
            os.utime(repo.write(name, content), (1_000_000_000, 1_000_000_000))
        repo.commit()
        # Or Git would find every file of a copy changed, because of its new inode, and clean it.
        repo.git("config", "core.checkStat", "minimal")
        repo.git("config", "core.trustCtime", "false")
    return folder


@pytest.fixture
def site(tracked: Repo, tmp_path: Path) -> Site:
    """`tracked` with the remote "origin", an empty bare repository at a path; nothing has been pushed."""
    remote = bare(tmp_path / "remote.git")
    tracked.git("remote", "add", "origin", str(remote.path))
    return Site(tmp_path, tracked, remote)


@pytest.fixture
def published(pushed: Path, home: Path, tmp_path: Path) -> Site:
    """`site` after `git push`."""
    shutil.copyfile(pushed / "home" / ".gitconfig", home / ".gitconfig")
    for name in ("repo", "remote.git"):
        shutil.copytree(pushed / name, tmp_path / name)
    site = Site(tmp_path, Repo(tmp_path / "repo"), Repo(tmp_path / "remote.git"))
    site.repo.git("remote", "set-url", "origin", str(site.remote.path))
    return site


@pytest.fixture(scope="session")
def pushed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `published` is a copy of."""
    folder = tmp_path_factory.mktemp("pushed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(folder / "home", monkeypatch)
        shutil.copyfile(template / "home" / ".gitconfig", folder / "home" / ".gitconfig")
        shutil.copytree(template / "repo", folder / "repo")
        repo, remote = Repo(folder / "repo"), bare(folder / "remote.git")
        repo.git("remote", "add", "origin", str(remote.path))
        repo.git("push", "--quiet", "--set-upstream", "origin", "main")
    return folder
