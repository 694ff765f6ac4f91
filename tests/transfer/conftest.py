"""Fixtures: a repository that has been pushed, its remote, and LFS servers."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import isolate
from tests.repositories import Repo
from tests.transfer.servers import FaultyServer, faulty, giftless
from tests.transfer.sites import Site, bare


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


@pytest.fixture
def server(home: Path) -> Iterator[FaultyServer]:
    """The faulty server, where every remote of this HOME has its objects; git-lfs tries again once, and soon."""
    with faulty() as running:
        use(home, running.url)
        yield running


@pytest.fixture(scope="session")
def giftless_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A giftless for all tests of this process."""
    folder = tmp_path_factory.mktemp("giftless") / "objects"
    folder.mkdir()
    with giftless(folder) as url:
        yield url


def use(home: Path, url: str) -> None:
    """Have git-lfs use a server for every remote."""
    with (home / ".gitconfig").open("a") as file:
        file.write(f'[lfs]\n\turl = {url}\n[lfs "transfer"]\n\tmaxRetries = 1\n\tmaxRetryDelay = 1\n')
