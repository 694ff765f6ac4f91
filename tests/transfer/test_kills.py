"""Commands killed at random moments, several at once, and a disk that takes no more: no weight is lost, none is wrong.

A few kills each; GIT_THETA_KILLS=200 makes it so many, and `-rP` shows what they hit.
"""

import hashlib
import os
import shutil
import signal
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from git_theta import manifest
from git_theta.errors import ChangedError, RepositoryError, SpaceError
from tests.checkpoints import leftovers, linux_only, safetensors, weights
from tests.confined import NO_OVERRIDE, SMALL_FILES, TINY_FILES, run_confined
from tests.conftest import isolate
from tests.repositories import Repo, scripts_path
from tests.sites import POINTERS, A, B, Site, bare, stored
from tests.transfer.kills import Command, kill_often, named_missing, unlock, whole
from tests.transfer.servers import FaultyServer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to kill")

THETA = str(scripts_path() / "git-theta")
LAYERS = 4
SPARE = 300
OLD = (1_000_000_000, 1_000_000_000)
LATENCY_S = 0.05


@cache
def content(name: str, version: int) -> bytes:
    """A checkpoint of 8 MiB, none of whose layers is another's."""
    seed = 100 * version + 10 * (name == B)
    return safetensors(
        {f"layer.{index}": ("F32", (512, 1024), weights(2**19, seed + index)) for index in range(LAYERS)}
    )


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


@pytest.fixture(scope="module")
def made(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def history(made: Path, home: Path, tmp_path: Path) -> History:
    shutil.copyfile(made / "home" / ".gitconfig", home / ".gitconfig")
    for name in ("repo", "remote.git"):
        shutil.copytree(made / name, tmp_path / name)
    repo = Repo(tmp_path / "repo")
    repo.git("remote", "set-url", "origin", str(tmp_path / "remote.git"))
    repo.git("update-index", "--refresh")
    for setting in ("threads=1", "fsync=true"):  # which takes long enough to be killed
        repo.git("config", "--global", *f"theta.{setting}".split("="))
    texts = {
        (name, version): repo.git("cat-file", "blob", f"v{version}:{name}").encode()
        for name in (A, B)
        for version in (1, 2)
    }
    return History(Site(tmp_path, repo, Repo(tmp_path / "remote.git")), texts)


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


@pytest.fixture(params=["file", "http"])
def far(request: pytest.FixtureRequest, history: History) -> Far:
    theta = history.site.remote.path / "theta"
    if request.param == "file":
        return Far(theta, None)
    server: FaultyServer = request.getfixturevalue("server")
    server.objects.update({path.name: path.read_bytes() for path in history.repo.objects()})
    shutil.rmtree(theta)
    server.latency_s = LATENCY_S
    return Far(theta, server)


def differing(repo: Repo) -> set[str]:
    """The files that Git says differ from the index."""
    return set(repo.git("diff", "--name-only").splitlines())


@pytest.mark.parametrize("paths", [(A,), (A, B)], ids=["one", "several"])
def test_add(history: History, tmp_path: Path, paths: tuple[str, ...]) -> None:
    repo, index = history.repo, history.repo.path / ".git" / "index"
    repo.git("reset", "--quiet", "--hard", "v1")
    history.forget_later()
    spare = history.objects(2) - history.objects(1)
    shutil.copyfile(index, tmp_path / "index")
    for name in (A, B):
        # The copy of the index is newer than the file, and Git heeds only whole seconds.
        os.utime(repo.write(name, content(name, 2)), OLD)
    before = {name: repo.blob(name) for name in (A, B)}

    def prepare() -> None:
        shutil.copyfile(tmp_path / "index", index)
        for path in repo.objects():
            if path.name in spare:
                path.unlink()

    def check() -> str:
        new = len(spare & whole(history.theta))
        locked = unlock(repo.path / ".git")
        staged = {name for name in (A, B) if repo.blob(name) != before[name]}
        assert staged in (set(), set(paths))
        assert named_missing(repo) == set()
        for name in staged:
            assert repo.blob(name) == history.texts[name, 2]
        repo.git("add", *paths)
        for name in paths:
            assert repo.blob(name) == history.texts[name, 2]
        assert named_missing(repo) == set()
        state = (
            "staged" if staged else f"{'no' if not new else 'all' if new == LAYERS * len(paths) else 'some'} objects"
        )
        return f"{state}{', locked' * locked}"

    kill_often(repo, ["git", "add", *paths], prepare, check)
    repo.git("add", ".")
    for name in (A, B):
        (repo.path / name).unlink()
    repo.git("checkout", "--quiet", "--", ".")
    history.assert_true(repo, 2)


def test_checkout(history: History) -> None:
    """Git itself writes in place, so that a kill may cut a file short; it then says that the file differs."""
    repo = history.repo
    goal = 2

    def prepare() -> None:
        nonlocal goal
        goal = 3 - goal
        argv[-1] = f"v{goal}"

    def check() -> str:
        locked = unlock(repo.path / ".git")
        seen = set()
        for name in (A, B):
            lies = repo.read(name) if (repo.path / name).exists() else b""
            true = next(number for number in (1, 2) if repo.blob(name) == history.texts[name, number])
            # Git must say so of every wrong file, and of no other.
            assert (lies != content(name, true)) == (name in differing(repo))
            assert content(name, goal).startswith(lies) or lies == content(name, 3 - goal)
            seen.add(
                "none"
                if not lies
                else "new"
                if lies == content(name, goal)
                else "old"
                if len(lies) == len(content(name, goal))
                else "cut"
            )
        assert named_missing(repo) == set()
        repo.git(*argv[1:])
        history.assert_true(repo, goal)
        return f"{' and '.join(sorted(seen))}{', locked' * locked}"

    argv = ["git", "checkout", "--quiet", "--force", ""]
    kill_often(repo, argv, prepare, check)


@pytest.mark.parametrize("before", ["missing", "manifests", "contents"])
def test_theta_checkout(history: History, before: str) -> None:
    """Ours writes beside the place and renames: no file is ever anything but old or new."""
    repo = history.repo
    there = {
        name: {"missing": None, "manifests": history.texts[name, 2], "contents": content(name, 1)}[before]
        for name in (A, B)
    }
    argv = [THETA, "checkout", *(["--force", A, B] if before == "contents" else [])]

    def prepare() -> None:
        for name, old in there.items():
            (repo.path / name).unlink()
            if old is not None:
                repo.write(name, old)

    def check() -> str:
        locked = unlock(repo.path / ".git")
        lies = {name: repo.read(name) if (repo.path / name).exists() else None for name in (A, B)}
        new = [name for name in (A, B) if lies[name] == content(name, 2)]
        assert all(lies[name] == there[name] for name in (A, B) if name not in new)
        assert differing(repo) == ({A, B} - set(new) if before != "manifests" else set())
        code, said = Command(repo, argv).end()
        assert code == 0, said
        history.assert_true(repo, 2)
        return f"{len(new)} new{', locked' * locked}"

    kill_often(repo, argv, prepare, check)
    assert [path for path in repo.path.iterdir() if path.name not in (".git", ".gitattributes", A, "sub")] == []


@pytest.mark.parametrize("verb", ["fetch", "pull"])
def test_fetch_and_pull(history: History, far: Far, verb: str) -> None:
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    theta = repo.path / ".git" / "theta"
    argv = [THETA, *(["fetch", "--all"] if verb == "fetch" else ["pull"])]
    needed = history.objects(1, 2)
    wanted = needed if verb == "fetch" else history.objects(2)

    def prepare() -> None:
        shutil.rmtree(theta / "objects", ignore_errors=True)
        for name in (A, B):
            if repo.read(name) != history.texts[name, 2]:
                repo.write(name, history.texts[name, 2])

    def check() -> str:
        here = whole(theta)
        locked = unlock(repo.path / ".git")
        assert here <= wanted
        assert named_missing(repo) == needed - here
        new = [name for name in (A, B) if repo.read(name) == content(name, 2)]
        assert all(repo.read(name) == history.texts[name, 2] for name in (A, B) if name not in new)
        assert differing(repo) == set()
        code, said = Command(repo, argv).end()
        assert code == 0, said
        assert whole(theta) == wanted
        if verb == "pull":
            history.assert_true(repo, 2)
        amount = "no" if not here else "all" if here == wanted else "some"
        return f"{amount} objects, {len(new)} new files{', locked' * locked}"

    kill_often(repo, argv, prepare, check)
    assert far.objects() == needed


def test_push(history: History, far: Far) -> None:
    """The remote has a branch only if it has all of its objects; the pointers come in between."""
    repo, remote, needed = history.repo, history.site.remote.path, history.objects(1, 2)
    empty = bare(history.site.folder / "empty.git").path

    def prepare() -> None:
        shutil.rmtree(remote)
        shutil.copytree(empty, remote)
        repo.git("update-ref", "-d", "refs/remotes/origin/main")
        far.clear()

    def check() -> str:
        locked = unlock(repo.path / ".git", remote)
        there, refs = far.objects(), history.site.refs()
        assert "refs/heads/main" not in refs or there == needed
        assert history.site.kept() <= there
        assert named_missing(repo) == set()
        repo.git("push", "--quiet", "origin", "main")
        assert far.objects() == history.site.kept() == needed
        assert set(history.site.refs()) == {"refs/heads/main", POINTERS}
        amount = "no" if not there else "all" if there == needed else "some"
        return f"{amount} objects, {len(refs)} refs{', locked' * locked}"

    kill_often(repo, ["git", "push", "--quiet", "origin", "main"], prepare, check)
    history.assert_true(history.site.clone(), 2)


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


@pytest.fixture
def spare(history: History) -> Spare:
    history.repo.git("reset", "--quiet", "--hard", "v1")
    history.forget_later()
    history.repo.git("remote", "remove", "origin")  # what it has would go first
    oids = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(SPARE)]
    made = Spare(history, [history.theta / "objects" / oid[:2] / oid[2:4] / oid for oid in oids])
    made.make()
    return made


def test_prune(spare: Spare) -> None:
    history, repo, needed = spare.history, spare.history.repo, spare.history.objects(1)
    repo.ok("prune", "--force")
    for oid in history.objects(2) - needed:
        (history.theta / "objects" / oid[:2] / oid[2:4] / oid).unlink()

    def check() -> str:
        here = stored(repo)
        assert needed <= here
        assert named_missing(repo) == set()
        assert repo.ok("prune", "--force").startswith(f"removed {len(here - needed)} objects")
        assert whole(history.theta) == needed
        return f"{'all' if len(here) == SPARE + len(needed) else 'some' if here > needed else 'none'} of the others"

    kill_often(repo, [THETA, "prune", "--force"], spare.make, check)
    spare.make()
    assert spare.wait_for_prune().kill()
    assert check() == "some of the others"
    spare.make()
    for command in [Command(repo, [THETA, "prune", "--force"]), Command(repo, [THETA, "prune", "--force"])]:
        code, said = command.end()
        assert code == 0, said
    assert check() == "none of the others"
    history.assert_true(repo, 1)


def test_add_during_a_prune_keeps_what_it_takes_into_use(spare: Spare) -> None:
    history, repo = spare.history, spare.history.repo
    for path in repo.objects():
        os.utime(path, OLD)
    for name in (A, B):
        repo.write(name, content(name, 2))
    prune = spare.wait_for_prune()
    prune.signal(signal.SIGSTOP)
    repo.git("add", ".")
    prune.signal(signal.SIGCONT)
    code, said = prune.end()
    assert code == 0, said
    for name in (A, B):
        (repo.path / name).unlink()
    repo.git("checkout", "--quiet", "--", ".")
    assert named_missing(repo) == set()
    history.assert_true(repo, 2)


@pytest.mark.parametrize(
    ("command", "paths"),
    [("add", (A, A)), ("add", (A, B)), ("hash-object -w", (A, A))],
    ids=["same file", "two files", "same content"],
)
def test_two_adds_at_once(history: History, command: str, paths: tuple[str, str]) -> None:
    """Only one can hold the index; but nothing parts two that clean content for themselves."""
    repo = history.repo
    repo.git("reset", "--quiet", "--hard", "v1")
    for path in repo.objects():
        if path.name not in history.objects(1):
            path.unlink()
    for name in (A, B):
        repo.write(name, content(name, 2))
    running = [Command(repo, ["git", *command.split(), path]) for path in paths]
    ended = [started.end() for started in running]
    assert any(code == 0 for code, _ in ended)
    assert all(command == "add" and "index.lock" in said for code, said in ended if code)
    whole(history.theta)
    repo.git("add", A, B)
    assert whole(history.theta) == history.objects(1, 2)
    for name in (A, B):
        (repo.path / name).unlink()
    repo.git("checkout", "--quiet", "--", ".")
    history.assert_true(repo, 2)


def test_two_fetches_at_once(history: History, far: Far) -> None:
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    for command in [Command(repo, [THETA, "fetch"]), Command(repo, [THETA, "fetch"])]:
        code, said = command.end()
        assert code == 0, said
    assert whole(repo.path / ".git" / "theta") == history.objects(2)


def test_two_pulls_at_once(history: History) -> None:
    """Each file is written by one of them; the other says that it changed, or that the index is locked."""
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    for command in [Command(repo, [THETA, "pull"]), Command(repo, [THETA, "pull"])]:
        code, said = command.end()
        assert code == 0 or "run this again" in said or "index.lock" in said
        assert code in (0, ChangedError.exit_code, RepositoryError.exit_code)
    repo.ok("pull")
    history.assert_true(repo, 2)


@linux_only
@pytest.mark.parametrize(
    ("verb", "limit", "where"),
    [("fetch", TINY_FILES, ".git/theta"), ("pull", TINY_FILES, ".git/theta"), ("pull", SMALL_FILES, "")],
    ids=["fetch", "pull", "checkout"],
)
def test_full_disk(history: History, server: FaultyServer, verb: str, limit: str, where: str) -> None:
    """Either the objects do not fit, or the files."""
    server.objects.update({path.name: path.read_bytes() for path in history.repo.objects()})
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    code, stderr, lines = run_confined(repo, limit, THETA, verb)
    assert code == SpaceError.exit_code
    assert f"{repo.path / where}: no space left (" in lines[0], stderr
    assert lines[0].endswith("free some and try again")
    here = whole(repo.path / ".git" / "theta")
    assert here == history.objects(2) if limit == SMALL_FILES else here < history.objects(2)
    assert leftovers(repo.path / ".git" / "theta") == []
    assert [repo.read(name) for name in (A, B)] == [history.texts[name, 2] for name in (A, B)]
    repo.ok("pull")
    history.assert_true(repo, 2)


@linux_only
@pytest.mark.parametrize("verb", ["fetch", "pull"])
@pytest.mark.parametrize("what", ["theta", "theta/objects", "theta/tmp"])
def test_read_only_store(history: History, verb: str, what: str) -> None:
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    folder = repo.path / ".git" / what
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    code, stderr, lines = run_confined(repo, NO_OVERRIDE, THETA, verb)
    folder.chmod(0o755)
    assert code == RepositoryError.exit_code
    assert lines[0] == f"git-theta: {folder}: it cannot be written to; check its owner and permissions", stderr
    assert whole(repo.path / ".git" / "theta") == set()
    assert [repo.read(name) for name in (A, B)] == [history.texts[name, 2] for name in (A, B)]
    repo.ok("pull")
    history.assert_true(repo, 2)


@linux_only
def test_checkout_needs_no_folder_for_temporary_files(history: History) -> None:
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    repo.ok("fetch")
    folder = repo.path / ".git" / "theta" / "tmp"
    folder.chmod(0o555)
    code, stderr, _ = run_confined(repo, NO_OVERRIDE, THETA, "pull")
    folder.chmod(0o755)
    assert code == 0, stderr
    history.assert_true(repo, 2)
