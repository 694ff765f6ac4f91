"""SSH remotes: a command stands for ssh, as in Git's own tests, and runs here what a host would run there.

Source: docs/api/server-discovery.md of git-lfs, "SSH".
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.repositories import Repo, model
from tests.sites import A, B, Site, stored
from tests.transfer.servers import FaultyServer, faulty

SSH = """\
#!/bin/sh
for command; do :; done # the last word
echo "$command" >> "{folder}/said"
case "$command" in
*git-lfs-transfer*) exit 127;;
*git-lfs-authenticate*)
    if [ -e "{folder}/refuses" ]; then echo "Permission denied (publickey)." >&2; exit 255; fi
    cat "{folder}/answer";;
*) exec sh -c "$command";;
esac
"""


@dataclass(frozen=True, slots=True)
class Host:
    """What stands for a host that people reach by ssh: it says where the objects are, and notes what it is told."""

    folder: Path
    server: FaultyServer

    @property
    def command(self) -> str:
        return str(self.folder / "ssh")

    def refuse(self) -> None:
        """Have it refuse who asks for the LFS server."""
        (self.folder / "refuses").touch()

    def answer(self) -> None:
        """Have it tell who asks where the LFS server is."""
        answer = {"href": self.server.url, "header": {"X-Token": "secret"}, "expires_in": 3600}
        (self.folder / "answer").write_text(json.dumps(answer))
        (self.folder / "refuses").unlink(missing_ok=True)

    def asked(self) -> set[str]:
        """The first words of what it was told to run."""
        return {line.split(" ")[0] for line in (self.folder / "said").read_text().splitlines()}


@pytest.fixture
def host(home: Path, tmp_path: Path) -> Iterator[Host]:
    folder = tmp_path / "host"
    folder.mkdir()
    with (home / ".gitconfig").open("a") as file:
        file.write('[lfs "transfer"]\n\tmaxRetries = 1\n\tmaxRetryDelay = 1\n')
    with faulty() as server:
        made = Host(folder, server)
        script = Path(made.command)
        script.write_text(SSH.format(folder=folder))
        script.chmod(0o755)
        made.answer()
        yield made


def use(site: Site, host: Host, monkeypatch: pytest.MonkeyPatch, how: str, url: str) -> str:
    """Have Git go to the remote by ssh; its URL."""
    if how == "GIT_SSH_COMMAND":
        monkeypatch.setenv(how, host.command)
    else:
        site.repo.git("config", "--global", how, host.command)
    found = url.format(path=site.remote.path)
    site.repo.git("remote", "set-url", "origin", found)
    return found


@pytest.mark.parametrize("how", ["GIT_SSH_COMMAND", "core.sshCommand"])
@pytest.mark.parametrize("url", ["ssh://git@host.example:2222{path}", "git@host.example:{path}"], ids=["ssh", "scp"])
def test_push_clone_and_fetch(site: Site, host: Host, monkeypatch: pytest.MonkeyPatch, how: str, url: str) -> None:
    place = use(site, host, monkeypatch, how, url)
    site.repo.git("push", "--quiet", "origin", "main")
    assert set(host.server.objects) == site.kept() == stored(site.repo)
    assert stored(site.remote) == set()
    Repo(site.folder).git("clone", "--quiet", place, "clone")
    clone = Repo(site.folder / "clone")
    assert (clone.read(A), clone.read(B)) == (model(0), model(100))
    site.repo.write(A, model(5))
    site.repo.commit()
    site.repo.git("push", "--quiet", "origin", "main")
    clone.git("pull", "--quiet")
    assert clone.read(A) == model(5)
    assert clone.ok("doctor") == "all is well\n"
    assert "git-lfs-authenticate" in host.asked()


def test_authentication_that_fails_is_one_line(site: Site, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    place = use(site, host, monkeypatch, "core.sshCommand", "git@host.example:{path}")
    host.refuse()
    refused = site.repo.run_git("push", "--quiet", "origin", "main")
    said = [line for line in refused.err.splitlines() if line.startswith("git-theta: ")]
    assert refused.code == 1
    assert len(said) == 1
    assert "Permission denied (publickey)" in said[0]
    assert site.refs() == {}
    host.answer()
    site.repo.git("push", "--quiet", "origin", "main")
    host.refuse()
    failed = Repo(site.folder).run_git("clone", "--quiet", place, "clone")
    assert failed.code == 128
    assert [line for line in failed.err.splitlines() if "Permission denied (publickey)" in line]
    host.answer()
    clone = Repo(site.folder / "clone")
    clone.ok("pull")
    assert clone.read(A) == model(0)


def test_host_that_cannot_be_reached_is_one_line(published: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", "false")
    published.repo.git("remote", "set-url", "origin", "git@host.example:a/repo.git")
    published.repo.objects()[0].unlink()
    for command in (("fetch",), ("fsck", "--remote"), ("push", "--all", "origin")):
        assert len(published.repo.theta(*command).err.splitlines()) == 1
    assert "origin cannot be asked what it has: " in published.repo.theta("doctor").out
