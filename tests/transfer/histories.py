"""A history of two versions at a remote, large enough for a command to be caught at work on it."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from git_theta import manifest
from tests.checkpoints import safetensors, weights
from tests.repositories import Repo, scripts_path
from tests.sites import A, B, Site
from tests.transfer.kills import Command, whole
from tests.transfer.servers import FaultyServer

__all__ = ["LAYERS", "OLD", "THETA", "Far", "History", "Spare", "content", "differing"]

THETA = str(scripts_path() / "git-theta")
LAYERS = 4
OLD = (1_000_000_000, 1_000_000_000)


@cache
def content(name: str, version: int) -> bytes:
    """A checkpoint of 8 MiB, none of whose layers is another's."""
    seed = 100 * version + 10 * (name == B)
    return safetensors(
        {f"layer.{index}": ("F32", (512, 1024), weights(2**19, seed + index)) for index in range(LAYERS)}
    )


def differing(repo: Repo) -> set[str]:
    """The files that Git says differ from the index."""
    return set(repo.git("diff", "--name-only").splitlines())


@dataclass(frozen=True, slots=True)
class History:
    """A site whose two commits, the tags v1 and v2, are both pushed; and the texts of their manifests."""

    site: Site
    texts: dict[tuple[str, int], bytes]

    @property
    def repo(self) -> Repo:
        return self.site.repo

    @property
    def theta(self) -> Path:
        return self.repo.path / ".git" / "theta"

    def objects(self, *versions: int) -> set[str]:
        """The oids of all objects of these versions."""
        return {
            oid
            for (_, version), text in self.texts.items()
            if version in versions
            for oid in manifest.parse(text).objects()
        }

    def forget_later(self) -> None:
        """Have nothing name version 2, which is not checked out."""
        for ref in ("refs/tags/v2", "refs/remotes/origin/main", "ORIG_HEAD"):
            self.repo.git("update-ref", "-d", ref)
        self.repo.git("reflog", "expire", "--expire=all", "--all")

    def assert_true(self, repo: Repo, version: int) -> None:
        """All of a version is staged and in the worktree, to the byte, and Git says so."""
        for name in (A, B):
            assert repo.blob(name) == self.texts[name, version]
            assert repo.read(name) == content(name, version)
        assert differing(repo) == set()


@dataclass(frozen=True, slots=True)
class Far:
    """Where the remote's objects are: below its path, or on a server that takes its time."""

    theta: Path
    server: FaultyServer | None

    def objects(self) -> set[str]:
        """The oids of what is there, all of it whole."""
        if self.server is None:
            return whole(self.theta)
        for oid, data in dict(self.server.objects).items():  # a late request may still end
            assert hashlib.sha256(data).hexdigest() == oid
        return set(self.server.objects)

    def clear(self) -> None:
        """Remove them all."""
        shutil.rmtree(self.theta, ignore_errors=True)
        if self.server is not None:
            self.server.objects.clear()


@dataclass(frozen=True, slots=True)
class Spare:
    """A version 1 that is all that is needed, and many old objects besides."""

    history: History
    paths: list[Path]

    def make(self) -> None:
        """Have all of them there, none of them young."""
        for number, path in enumerate(self.paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%d" % number)
            os.utime(path, OLD)

    def wait_for_prune(self) -> Command:
        """A prune that has begun to remove them."""
        command = Command(self.history.repo, [THETA, "prune", "--force"])
        while all(path.exists() for path in self.paths[:20]):
            assert command.is_running()
        return command
