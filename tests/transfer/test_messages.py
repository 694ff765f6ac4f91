"""What goes wrong with a remote is one line, which says what, and what to do."""

import pytest

from tests.repositories import Repo, model
from tests.sites import A, Site, fronted, only
from tests.transfer.servers import Fault, FaultyServer

NETWORK = "look at the network, and at the address: git remote -v"
LOGIN = "log in as someone who may do this: git help credentials"
QUOTA = "have its owner make room, or raise the quota"

STATUSES = [
    (401, "credentials", LOGIN),
    (403, "Authorization error", LOGIN),
    (404, "not found", "to see which LFS server is asked: git lfs env"),
    (413, "the server answers HTTP 413", "have its owner raise the limit"),
    (429, "", "try again later"),
    (507, "Insufficient server storage", QUOTA),
    (509, "Bandwidth limit exceeded", QUOTA),
]


def one_line(repo: Repo, *argv: str, **variables: str) -> str:
    """The one line that a command, which fails, has to say about its remote."""
    done = repo.run_theta(*argv, **variables)
    assert done.code not in (0, 70)
    [line] = [line for line in done.err.splitlines() if " needs object " not in line]
    assert line.startswith("git-theta: ")
    return line


@pytest.fixture
def lagging(online: Site) -> tuple[Repo, Repo]:
    """A repository that has something to push, and a clone that has everything to fetch."""
    clone = online.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    online.repo.write(A, model(5))
    online.repo.commit()
    return online.repo, clone


@pytest.mark.parametrize(("status", "what", "remedy"), STATUSES, ids=[str(row[0]) for row in STATUSES])
def test_status_of_the_server(
    lagging: tuple[Repo, Repo], server: FaultyServer, status: int, what: str, remedy: str
) -> None:
    ours, clone = lagging
    server.faults.append(Fault("batch", status, silent=True))
    for line in (one_line(ours, "push"), one_line(clone, "fetch"), one_line(clone, "pull")):
        assert what in line
        assert remedy in line
    server.faults[:] = [Fault("put", status, silent=True), Fault("get", status, silent=True)]
    for line in (one_line(ours, "push"), one_line(clone, "fetch")):
        assert what in line or status == 401
        assert remedy in line


def test_host_that_has_no_address(lagging: tuple[Repo, Repo]) -> None:
    ours, clone = lagging
    for repo in lagging:
        repo.git("remote", "set-url", "origin", "https://no-such-host.invalid/repo.git")
    ours.git("config", "--global", "--unset", "lfs.url")
    for repo, command in ((ours, "push"), (clone, "fetch"), (clone, "pull")):
        assert one_line(repo, command).endswith(NETWORK)
    assert one_line(ours, "fsck", "--remote").endswith(NETWORK)
    assert "origin cannot be asked what it has: " in ours.theta("doctor").out
    assert ours.ok("env")


def test_no_remote(lagging: tuple[Repo, Repo]) -> None:
    ours, clone = lagging
    for repo in lagging:
        repo.git("remote", "remove", "origin")
    for line in (one_line(ours, "push"), one_line(clone, "fetch"), one_line(clone, "pull")):
        assert "to name one: git remote add origin URL" in line
    assert ours.ok("doctor") == "all is well\n"
    assert ours.ok("env")


@pytest.mark.parametrize("old", [False, True], ids=["missing", "old"])
def test_git_lfs_that_cannot_be_used(online: Site, lagging: tuple[Repo, Repo], old: bool) -> None:
    ours, clone = lagging
    folder = online.folder / "bin"
    path = fronted(folder, git_lfs="#!/bin/sh\necho git-lfs/2.13.3\n") if old else only(folder)
    remedy = "3.3 or newer is needed; update it" if old else "install it: https://git-lfs.com"
    for repo, command in ((ours, "push"), (clone, "fetch"), (clone, "pull")):
        assert one_line(repo, command, PATH=path).endswith(remedy)
    assert clone.run_theta("doctor", PATH=path).code == 1
    said = clone.run_theta("env", PATH=path)
    assert said.code == 0
    assert ("2.13" if old else "not installed") in said.out
