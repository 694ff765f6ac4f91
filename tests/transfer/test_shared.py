"""A store that several people use: `core.sharedRepository`, and a repository that belongs to someone else."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.repositories import CONFIG, Repo, environment, model
from tests.sites import A, Site, bare, stored

GROUP = 20_000
FIRST, SECOND = 20_001, 20_002

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
root_only = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be others")


@pytest.fixture
def umask() -> Iterator[None]:
    """A umask that leaves nothing to anybody else."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def modes(folder: Path) -> tuple[set[int], set[int], int]:
    """The permissions below `theta`: those of the folders, of the objects, and of the catalogue."""
    folders = [path for path in (folder, *folder.rglob("*")) if path.is_dir()]
    files = [path for path in (folder / "objects").rglob("*") if path.is_file()]
    catalogue = folder / "catalogue.sqlite"
    found = [{stat.S_IMODE(path.stat().st_mode) for path in paths} for paths in (folders, files)]
    return found[0], found[1], stat.S_IMODE(catalogue.stat().st_mode) if catalogue.exists() else 0


@pytest.mark.parametrize(
    ("value", "folder", "file", "catalogue"),
    [
        ("umask", 0o700, 0o400, 0o600),
        ("group", 0o2770, 0o440, 0o660),
        ("true", 0o2770, 0o440, 0o660),
        ("all", 0o2775, 0o444, 0o664),
        ("0660", 0o2770, 0o440, 0o660),
        ("0640", 0o2750, 0o440, 0o640),
        ("0600", 0o700, 0o400, 0o600),
    ],
)
def test_store_has_the_permissions_that_git_gives_its_own(
    repo: Repo, umask: None, value: str, folder: int, file: int, catalogue: int
) -> None:
    repo.git("config", "core.sharedRepository", value)
    repo.track("*.safetensors")
    repo.write(A, model())
    repo.commit()
    (repo.path / A).unlink()
    repo.ok("checkout")
    assert modes(repo.path / ".git" / "theta") == ({folder}, {file}, catalogue)
    own = {stat.S_IMODE(path.stat().st_mode) for path in (repo.path / ".git" / "objects").glob("??/*")}
    assert own == {file}


def test_setting_that_means_nothing_is_one_line(repo: Repo) -> None:
    repo.git("config", "core.sharedRepository", "0400")
    assert "core.sharedRepository" in repo.run_theta("fsck").err


@pytest.mark.parametrize("value", ["group", "0660"])
def test_what_git_lfs_brings_can_be_used_by_the_group(published: Site, umask: None, value: str) -> None:
    clone = published.clone("clone", "-c", f"core.sharedRepository={value}")
    folders, files, catalogue = modes(clone.path / ".git" / "theta")
    assert clone.read(A) == model(0)
    assert {mode & 0o2070 for mode in folders} == {0o2070}
    assert {mode & 0o040 for mode in files} == {0o040}
    assert catalogue == 0o660


def test_remote_may_be_pushed_to_at_another_folder(published: Site, umask: None) -> None:
    """What lies in the folder that is fetched from says nothing of the other one."""
    other = bare(published.folder / "other.git", "--shared=group")
    published.repo.git("remote", "set-url", "--push", "origin", os.fspath(other.path))
    published.repo.ok("push", "origin", "main")
    assert stored(other) == stored(published.remote) != set()
    _, files, _ = modes(other.path / "theta")
    assert {mode & 0o040 for mode in files} == {0o040}


@dataclass(frozen=True, slots=True)
class User:
    """Someone who is in the group."""

    uid: int
    folder: Path
    programs: Path

    def run(self, repo: Path, *argv: str) -> str:
        """What a program prints; asserts that all is well."""
        variables = environment(self.folder) | {"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            argv,
            cwd=repo,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            user=self.uid,
            group=self.uid,
            extra_groups=[GROUP],
            umask=0o077,
        )
        assert done.returncode == 0, done
        assert "git-theta: " not in done.stderr
        return done.stdout

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of theirs."""
        path.write_bytes(content)
        os.chown(path, self.uid, self.uid)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="git-theta-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def interpreter() -> list[str]:
    """A Python that anybody can run with what this one imports; none where there is none."""
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "src"), *filter(None, sys.path)])
    for program in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        argv = ["env", f"PYTHONPATH={paths}", "PYTHONDONTWRITEBYTECODE=1", program]
        code = "import blake3, click, numpy, zstandard, git_theta.cli"
        with_it = subprocess.run(
            [*argv, "-c", code], user=FIRST, group=FIRST, cwd="/", capture_output=True, check=False
        )
        if with_it.returncode == 0:
            return argv
    return []


@pytest.fixture
def users(public: Path) -> tuple[User, User]:
    """Two users with a HOME, who have run `git theta install`."""
    python = interpreter()
    if not python:
        pytest.skip("nobody else can run this Python")
    programs = public / "bin"
    programs.mkdir()
    for name, module in (("git-theta", "cli"), ("git-theta-filter", "drivers.filter")):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec {" ".join(python)} -m git_theta.{module} "$@"\n')
        script.chmod(0o755)
    settings = (
        f'[safe]\n\tdirectory = *\n[filter "theta"]\n\tprocess = {programs}/git-theta-filter\n\trequired = true\n'
    )
    found = []
    for uid in (FIRST, SECOND):
        folder = public / str(uid)
        folder.mkdir()
        (folder / ".gitconfig").write_text(CONFIG + settings)
        os.chown(folder, uid, uid)
        found.append(User(uid, folder, programs))
    return found[0], found[1]


@pytest.fixture
def shared(public: Path, users: tuple[User, User]) -> Path:
    """A bare repository that belongs to the first user and to the group, with a checkpoint."""
    folder, first = public / "shared", users[0]
    folder.mkdir()
    os.chown(folder, FIRST, GROUP)
    folder.chmod(0o2770)
    first.run(folder, "git", "init", "--quiet", "--bare", "--shared=group", "repo.git")
    seed = first.folder / "seed"
    first.run(first.folder, "git", "clone", "--quiet", str(folder / "repo.git"), "seed")
    first.run(seed, "git", "theta", "track", "*.safetensors")
    first.write(seed / A, model(0))
    first.run(seed, "git", "add", "--all")
    first.run(seed, "git", "commit", "--quiet", "--message", "first")
    first.run(seed, "git", "push", "--quiet", "origin", "main")
    return folder / "repo.git"


@root_only
def test_two_users_push_to_one_folder(users: tuple[User, User], shared: Path) -> None:
    first, second = users
    theirs = second.folder / "clone"
    second.run(second.folder, "git", "clone", "--quiet", str(shared), "clone")
    assert (theirs / A).read_bytes() == model(0)
    second.write(theirs / A, model(1))
    second.run(theirs, "git", "commit", "--quiet", "--all", "--message", "second")
    second.run(theirs, "git", "push", "--quiet", "origin", "main")
    ours = first.folder / "seed"
    first.run(ours, "git", "pull", "--quiet")
    assert (ours / A).read_bytes() == model(1)


@root_only
def test_two_users_with_worktrees_of_one_repository(users: tuple[User, User], shared: Path) -> None:
    for number, user in enumerate(users):
        work = user.folder / "work"
        user.run(shared, "git", "worktree", "add", "--quiet", "-b", f"of-{number}", str(work), "main")
        assert (work / A).read_bytes() == model(0)
        user.write(work / "new.safetensors", model(10 + number))
        user.run(work, "git", "add", "new.safetensors")
        user.run(work, "git", "commit", "--quiet", "--message", "a new one")
    for user, other in ((users[0], "of-1"), (users[1], "of-0")):
        work = user.folder / "work"
        user.run(work, "git", "checkout", "--quiet", "--detach", other)
        assert (work / "new.safetensors").read_bytes() == model(11 if other == "of-1" else 10)
        assert "objects are whole" in user.run(work, "git", "theta", "fsck")
    folders, files, catalogue = modes(shared / "theta")
    assert {mode & 0o2070 for mode in folders} == {0o2070}
    assert {mode & 0o040 for mode in files} == {0o040}
    assert catalogue == 0o660
    assert {path.stat().st_gid for path in (shared / "theta").rglob("*")} == {GROUP}


@root_only
def test_object_of_another_is_made_young_by_a_copy(users: tuple[User, User], shared: Path) -> None:
    """Only its owner may change a file's time, and `prune` removes what is old and not yet in an index."""
    second, work = users[1], users[1].folder / "work"
    second.run(shared, "git", "worktree", "add", "--quiet", "--detach", str(work), "main")
    objects = [path for path in (shared / "theta" / "objects").rglob("*") if path.is_file()]
    assert {path.stat().st_uid for path in objects} == {FIRST}
    for path in objects:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    second.write(work / "again.safetensors", model(0))
    second.run(work, "git", "add", "again.safetensors")
    assert all(path.stat().st_mtime > 1_000_000_000 for path in objects)


@root_only
def test_repository_of_someone_else_is_one_line(published: Site) -> None:
    repo = published.repo
    for path in (repo.path, repo.path / ".git"):
        os.chown(path, FIRST, FIRST)
    for command in ("fsck", "push", "fetch", "pull", "doctor", "env", "status"):
        said = repo.fails(7, command)
        assert "detected dubious ownership in repository" in said
        assert f"git config --global --add safe.directory {repo.path}" in said
