"""Fixtures: LFS servers, and a history to be interrupted at."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import isolate
from tests.repositories import Repo
from tests.sites import A, B, Site, bare
from tests.transfer.histories import Far, History, Spare, content
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


@pytest.fixture(scope="session")
def two_versions(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `history` is a copy of."""
    folder = tmp_path_factory.mktemp("history")
    with pytest.MonkeyPatch.context() as monkeypatch:
        home = isolate(folder / "home", monkeypatch)
        shutil.copyfile(template / "home" / ".gitconfig", home / ".gitconfig")
        repo, remote = Repo.init(folder / "repo"), bare(folder / "remote.git")
        repo.git("remote", "add", "origin", str(remote.path))
        repo.track("*.safetensors")
        for version in (1, 2):
            for name in (A, B):
                repo.write(name, content(name, version))
            repo.commit(f"v{version}")
            repo.git("tag", f"v{version}")
        repo.git("push", "--quiet", "--set-upstream", "origin", "main", "--tags")
    return folder


@pytest.fixture
def history(two_versions: Path, home: Path, tmp_path: Path) -> History:
    shutil.copyfile(two_versions / "home" / ".gitconfig", home / ".gitconfig")
    for name in ("repo", "remote.git"):
        shutil.copytree(two_versions / name, tmp_path / name)
    repo = Repo(tmp_path / "repo")
    repo.git("remote", "set-url", "origin", str(tmp_path / "remote.git"))
    repo.git("update-index", "--refresh")
    with (home / ".gitconfig").open("a") as file:
        file.write("[theta]\n\tthreads = 1\n\tfsync = true\n")  # which takes long enough to be caught at
    texts = {
        (name, version): repo.git("cat-file", "blob", f"v{version}:{name}").encode()
        for name in (A, B)
        for version in (1, 2)
    }
    return History(Site(tmp_path, repo, Repo(tmp_path / "remote.git")), texts)


@pytest.fixture(params=["file", "http"])
def far(request: pytest.FixtureRequest, history: History) -> Far:
    theta = history.site.remote.path / "theta"
    if request.param == "file":
        return Far(theta, None)
    server: FaultyServer = request.getfixturevalue("server")
    server.objects.update({path.name: path.read_bytes() for path in history.repo.objects()})
    shutil.rmtree(theta)
    server.latency_s = 0.05
    return Far(theta, server)


@pytest.fixture
def spare(history: History) -> Spare:
    history.repo.git("reset", "--quiet", "--hard", "v1")
    history.forget_later()
    history.repo.git("remote", "remove", "origin")  # what it has would go first
    oids = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(300)]
    made = Spare(history, [history.theta / "objects" / oid[:2] / oid[2:4] / oid for oid in oids])
    made.make()
    return made
