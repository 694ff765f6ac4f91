"""Asking Git: real repositories of every shape, and paths that are no nice text."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from git_theta import git
from git_theta.errors import RepositoryError
from git_theta.git import IndexEntry, Repository
from tests.repositories import Repo

NAMES = [
    b"plain.bin",
    b"with space",
    b"-dash",
    b"sub/deeper/file",
    b"\xc3\xa9\xe2\x80\xa8",
]
if os.name != "nt":
    NAMES += [b"new\nline", b"tab\tquote\"back\\slash", b"*", b":(top)x", b"[a]", b"\x1b[31m"]  # fmt: skip
if sys.platform == "linux":
    NAMES += [b"no\xffutf8"]


@pytest.fixture
def named(fresh_repo: Repo) -> Repository:
    """A repository in which each of the names is a file that holds its own name, and whose HEAD is that."""
    for name in NAMES:
        path = fresh_repo.path / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    fresh_repo.commit()
    return git.discover(fresh_repo.path)


def _hash(repository: Repository, content: bytes) -> str:
    return repository.git("hash-object", "-w", "--stdin", stdin=content).decode().strip()


def test_run_gives_bytes_and_keeps_stderr_apart(home: Path) -> None:
    program = "alias.both=!printf 'a\\0\\377'; echo said >&2"
    assert git.run(["-c", program, "both"]) == b"a\0\xff"
    oid = hashlib.sha1(b"blob 2\0" + b"\0\xff").hexdigest()  # noqa: S324 - as Git does
    assert git.run(["hash-object", "--stdin"], stdin=b"\0\xff") == oid.encode() + b"\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-command"], "no-such-command"),
        (["rev-parse", "--verify", "no-such-revision"], "fatal: Needed a single revision"),
        (["-c", "alias.cry=!echo 'fatal: a' >&2; echo '\x1b[31mb' >&2; exit 3", "cry"], "fatal: a"),
        (["-c", "alias.cry=!exit 3", "cry"], "exit 3"),
        (["-c", "alias.cry=!printf 'fatal: \\033[31m\\377\\n' >&2; exit 1", "cry"], "fatal: "),
    ],
    ids=["command", "revision", "two lines", "silent", "control characters"],
)
def test_what_git_complains_of_is_one_line(fresh_repo: Repo, arguments: list[str], said: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        git.run(arguments, cwd=fresh_repo.path)
    message = str(caught.value)
    assert said in message
    assert message.isprintable()


def test_an_accepted_exit_code_is_no_error(fresh_repo: Repo) -> None:
    assert git.run(["config", "theta.none"], cwd=fresh_repo.path, accept=(1,)) == b""
    with pytest.raises(RepositoryError):
        git.run(["config", "theta.none"], cwd=fresh_repo.path)


def test_a_machine_without_git_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RepositoryError, match="not on the PATH"):
        git.run(["version"])


@pytest.mark.parametrize("name", ["plain", "a b", "\u00e9\u2028\x85x", "-dash"])
@pytest.mark.parametrize("place", [".", "sub/folder"])
def test_a_repository_is_found_from_within(home: Path, tmp_path: Path, name: str, place: str) -> None:
    repo = Repo.init(tmp_path / name)
    (repo.path / place).mkdir(parents=True, exist_ok=True)
    found = git.discover(repo.path / place)
    assert found == Repository(repo.path, repo.path / ".git", repo.path / ".git")
    assert found.top() == repo.path
    assert found.theta_dir == repo.path / ".git" / "theta"


def test_a_repository_is_found_from_the_current_directory(fresh_repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fresh_repo.path)
    assert git.discover() == git.discover(fresh_repo.path)


def test_a_linked_worktree_shares_what_is_common(named: Repository, tmp_path: Path) -> None:
    named.git("worktree", "add", "--quiet", str(tmp_path / "linked"))
    linked = git.discover(tmp_path / "linked")
    assert linked.worktree == tmp_path / "linked"
    assert linked.git_dir == named.git_dir / "worktrees" / "linked"
    assert (linked.common_dir, linked.theta_dir) == (named.common_dir, named.theta_dir)
    assert {entry.path for entry in linked.index()} == set(NAMES)


def test_a_bare_repository_has_no_worktree(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Repo.init(tmp_path / "bare", "--bare")
    other = Repo.init(tmp_path / "other")
    bare.git("config", "theta.threads", "3")
    other.git("config", "theta.threads", "4")
    monkeypatch.chdir(other.path)
    found = git.discover(bare.path)
    assert found == Repository(None, bare.path, bare.path)
    assert found.config("theta") == {"theta.threads": "3"}
    with pytest.raises(RepositoryError, match="bare"):
        found.top()


def test_the_git_directory_is_no_worktree(named: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    inside = git.discover(named.git_dir)
    assert (inside.worktree, inside.git_dir, inside.common_dir) == (None, named.git_dir, named.git_dir)
    assert inside.blob_at("HEAD", b"plain.bin") == named.blob_at("HEAD", b"plain.bin") is not None


def test_where_there_is_no_repository(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepositoryError, match="not a git repository"):
        git.discover(tmp_path / "empty")


def test_settings_are_those_that_count(fresh_repo: Repo, home: Path) -> None:
    with (home / ".gitconfig").open("a") as file:
        file.write("[theta]\n\tthreads = 1\n\tfsync\n")
    with (fresh_repo.path / ".git" / "config").open("a") as file:
        file.write(
            '[theta]\n\tmaxObjectSize = 1g\n\tthreads = 2\n\tempty =\n\tlines = "a\\nb=c"\n[thetax]\n\tother = 1\n'
            '[theta "Sub"]\n\tKey = v\n[x "theta."]\n\ty = 1\n'
        )
    assert git.discover(fresh_repo.path).config("theta") == {
        "theta.threads": "2",
        "theta.fsync": None,
        "theta.maxobjectsize": "1g",
        "theta.empty": "",
        "theta.lines": "a\nb=c",
        "theta.sub.key": "v",
    }


def test_there_may_be_no_settings(fresh_repo: Repo) -> None:
    assert git.discover(fresh_repo.path).config("theta") == {}


def test_paths_are_bytes_as_git_has_them(named: Repository) -> None:
    entries = named.index()
    assert {entry.path for entry in entries} == set(NAMES)
    assert {entry.mode for entry in entries} == {"100644"}
    for entry in entries:
        assert named.blobs([entry.oid], 100) == {entry.oid: entry.path}
        assert named.index([entry.path]) == [entry]
        assert named.blob_at("HEAD", entry.path) == entry.oid


def test_a_path_is_no_pattern(named: Repository) -> None:
    assert named.index([b"s*"]) == []
    assert named.blob_at("HEAD", b"s*") is None
    assert [entry.path for entry in named.index([b"sub"])] == [b"sub/deeper/file"]


def test_what_is_unmerged_is_left_out(named: Repository) -> None:
    first, second = _hash(named, b"1"), _hash(named, b"2")
    stages = "".join(f"100644 {oid} {stage}\tplain.bin\0" for stage, oid in [(1, first), (2, first), (3, second)])
    named.git("rm", "--cached", "--quiet", "plain.bin")
    named.git("update-index", "-z", "--index-info", stdin=stages.encode())
    assert {entry.path for entry in named.index()} == set(NAMES) - {b"plain.bin"}


def test_every_mode_is_told(named: Repository) -> None:
    oid = _hash(named, b"target")
    named.git("update-index", "--add", "--cacheinfo", f"120000,{oid},link", "--cacheinfo", f"100755,{oid},run")
    assert named.index([b"link", b"run"]) == [IndexEntry(b"link", "120000", oid), IndexEntry(b"run", "100755", oid)]


@pytest.mark.parametrize(
    ("revision", "path"),
    [
        ("HEAD", b"no-such-file"),
        ("HEAD", b"sub"),
        ("HEAD", b"sub/deeper/file/more"),
        ("no-such-revision", b"plain.bin"),
        ("HEAD:sub", b"plain.bin"),
        ("0" * 40, b"plain.bin"),
    ],
)
def test_there_is_no_blob_at(named: Repository, revision: str, path: bytes) -> None:
    assert named.blob_at(revision, path) is None


def test_there_is_no_blob_before_the_first_commit(fresh_repo: Repo) -> None:
    repository = git.discover(fresh_repo.path)
    assert repository.blob_at("HEAD", b"file") is None
    assert repository.index() == []


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_blobs_are_given_by_their_size(home: Path, tmp_path: Path, object_format: str) -> None:
    repository = git.discover(Repo.init(tmp_path / "repo", f"--object-format={object_format}").path)
    contents = [b"", b"\n", b"a\n\nb", b"\0" * 99, b"\xff" * 100, b"c" * 101]
    oids = [_hash(repository, content) for content in contents]
    assert len(oids[0]) == {"sha1": 40, "sha256": 64}[object_format]
    tree = repository.git("mktree", stdin=b"").decode().strip()
    missing = "0" * (len(oids[0]) - 1) + "1"
    expected = dict(zip(oids[:5], contents, strict=False))
    assert repository.blobs([*oids, missing, tree, *oids], 100) == expected
    assert repository.blobs([], 100) == {}
    assert repository.blobs([oids[5], missing], 100) == {}


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
@pytest.mark.parametrize("count", [0, 3, 500], ids=["none", "loose", "packed"])
def test_blobs_are_written_byte_for_byte(home: Path, tmp_path: Path, object_format: str, count: int) -> None:
    repository = git.discover(Repo.init(tmp_path / "repo", f"--object-format={object_format}").path)
    contents = [
        b"",
        b"\n",
        b"blob\nmark :1\ndata 1\na",
        b"\0\xff\r\n",
        b"",
        b"done\n",
        *(b"%d" % i for i in range(count)),
    ]
    contents = contents if count else []
    oids = repository.write_blobs(contents)
    assert repository.blobs(oids, 100) == dict(zip(oids, contents, strict=True))
    assert oids == [_hash(repository, content) for content in contents[:9]] + oids[9:]
    assert repository.git("for-each-ref") == b""


def test_attributes_of_any_path(named: Repository) -> None:
    assert named.worktree is not None
    (named.worktree / ".gitattributes").write_text("*.bin filter=theta\nsub/** filter\n-dash -filter\n")
    expected = {b"plain.bin": "theta", b"sub/deeper/file": "set", b"-dash": "unset", b"not/there.bin": "theta"}
    unspecified = {name: "unspecified" for name in NAMES if name not in expected}
    assert named.attributes([*NAMES, b"not/there.bin"], "filter") == expected | unspecified
    assert named.attributes([], "filter") == {}


def test_what_git_asks_of_an_environment_is_the_callers(named: Repository) -> None:
    """A hook's GIT_INDEX_FILE holds for what the hook asks, too."""
    assert named.worktree is not None
    program = (
        "import sys; from pathlib import Path; from git_theta import git; "
        "print(len(git.discover(Path(sys.argv[1])).index()))"
    )
    other = os.environ | {"GIT_INDEX_FILE": str(named.git_dir / "other-index")}
    done = subprocess.run([sys.executable, "-c", program, named.worktree], env=other, capture_output=True, check=True)
    assert done.stdout.split() == [b"0"]
