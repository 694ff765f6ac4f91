"""Fixtures: LFS servers."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sites import Site
from tests.transfer.servers import FaultyServer, faulty, giftless


@pytest.fixture
def server(home: Path) -> Iterator[FaultyServer]:
    """The faulty server, where every remote of this HOME has its objects; git-lfs tries again once, and soon."""
    with faulty() as running:
        use(home, running.url)
        yield running


@pytest.fixture
def online(published: Site, server: FaultyServer) -> Site:
    """`published`, with its objects on the faulty server and nowhere else."""
    for path in published.repo.objects():
        server.objects[path.name] = path.read_bytes()
    shutil.rmtree(published.remote.path / "theta")
    return published


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
