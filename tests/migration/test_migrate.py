"""`git theta migrate`: real histories, from blobs and from real git-lfs, there and back to the byte."""

import csv
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from git_theta import manifest
from tests.checkpoints import leftovers, linux_only, noise
from tests.repositories import Repo, model, scripts_path
from tests.sites import Site, bare, calls, fronted, logged_git_lfs

KILLS = int(os.environ.get("GIT_THETA_KILLS", "20"))
ST = "*.st"
LINE = "filter=theta diff=theta merge=theta -text\n"
NAMES = ["plain.st", "sp ace/quo\"te's.st", "模型\n.st", os.fsdecode(b"latin-\xe9.st"), "[a]*?\\.st", "!not.st"]

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no such names, links and signals")


def refs(repo: Repo, *under: str) -> dict[str, str]:
    """What branches and tags point at."""
    under = under or ("refs/heads", "refs/tags")
    rows = repo.git("for-each-ref", "--format=%(refname) %(objectname)", *under).splitlines()
    return dict(row.split(" ") for row in rows)


def commits(repo: Repo, *revisions: str) -> list[str]:
    """The commits, parents first."""
    return repo.git("rev-list", "--topo-order", "--reverse", *(revisions or ("--branches", "--tags"))).split()


def files(repo: Repo, revision: str) -> dict[str, str]:
    """Mode and oid of every path of a revision."""
    rows = repo.git("ls-tree", "-r", "-z", revision).split("\0")[:-1]
    return {path: head for head, _, path in (row.partition("\t") for row in rows)}


def content(repo: Repo, revision: str, path: str) -> bytes:
    """What Git has at a path."""
    argv = ["git", "cat-file", "blob", f"{revision}:{path}"]
    return subprocess.run(argv, cwd=repo.path, capture_output=True, check=True).stdout


def is_manifest(repo: Repo, revision: str, path: str) -> bool:
    return manifest.starts_like(content(repo, revision, path))


def assert_clean(repo: Repo) -> None:
    """Git finds no change, even if it looks at every file."""
    assert repo.git("status", "--porcelain") == ""
    for name in repo.git("ls-files", "-z").split("\0")[:-1]:
        if (repo.path / name).is_file():
            os.utime(repo.path / name, (1_000_000_000, 1_000_000_000))
    assert repo.git("status", "--porcelain") == ""
    repo.git("fsck", "--strict", "--no-dangling")
    assert leftovers(repo.path / ".git" / "theta") == []
    assert not (repo.path / ".git" / "theta-migrating.json").exists()


def filters(repo: Repo, *paths: str) -> list[str]:
    """The filter of each path, as the worktree's attributes have it."""
    return [repo.git("check-attr", "-z", "filter", "--", path).split("\0")[2] for path in paths]


def write(repo: Repo, kind: str, text: bytes) -> str:
    """Write an object as it is."""
    argv = ["git", "hash-object", "-t", kind, "-w", "--literally", "--stdin"]
    return subprocess.run(argv, cwd=repo.path, input=text, capture_output=True, check=True).stdout.decode().strip()


def grown(repo: Repo, count: int = 3, name: str = "a.st") -> None:
    """A history of so many versions of a model."""
    for seed in range(count):
        repo.write(name, model(seed))
        repo.write("readme.txt", b"%d\n" % seed)
        repo.commit(f"version {seed}")


def rich(repo: Repo) -> None:
    """Merges, branches, tags, links, modes, odd names, odd commits."""
    repo.write("readme.txt", b"before any checkpoint\n")
    repo.commit("first")
    for seed, name in enumerate(NAMES):
        repo.write(name, model(seed))
    executable = repo.write("run.st", noise(70_000))
    executable.chmod(0o755)
    (repo.path / "link.st").symlink_to("plain.st")
    repo.write("empty.st", b"")
    repo.write("crlf.st", b"a\r\nb\r\n")
    repo.git("add", "--all")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{repo.git('rev-parse', 'HEAD').strip()},sub.st")
    repo.git("commit", "--quiet", "-m", "everything")
    repo.git("tag", "light")
    repo.git("tag", "--annotate", "-m", "a tag", "v1")
    repo.git("tag", "--annotate", "-m", "of a tag", "v1-again", "v1")
    repo.git("tag", "--annotate", "-m", "of a blob", "blob", "HEAD:plain.st")
    repo.git("switch", "--quiet", "-c", "topic")
    repo.write("plain.st", model(20))
    repo.commit("topic")
    repo.git("switch", "--quiet", "main")
    repo.write("sp ace/new.st", model(30))
    repo.git("add", "sp ace/new.st")
    repo.git("-c", "i18n.commitEncoding=latin-1", "commit", "--quiet", "-m", "main")
    repo.git("merge", "--quiet", "--no-edit", "topic")
    repo.git("commit", "--quiet", "--allow-empty", "-m", "nothing changes")
    odd = (
        f"tree {repo.git('rev-parse', 'HEAD^{tree}').strip()}\nparent {repo.git('rev-parse', 'HEAD').strip()}\n"
        "author Zoé  <> 1234567890 -0730\ncommitter  <x@y> 5 +1400\nencoding ISO-8859-1\nunheard of\n and continued\n"
    ).encode() + b"\n\xe9t\xe9\n\ntree is no header\nno newline at the end"
    repo.git("reset", "--quiet", "--hard", write(repo, "commit", odd))
    repo.git("switch", "--quiet", "-c", "side", "v1")
    repo.git("rm", "--quiet", "plain.st")
    repo.commit("removed")
    repo.git("switch", "--quiet", "main")


def test_blobs_become_checkpoints(repo: Repo) -> None:
    grown(repo)
    before = (repo.path / "a.st").stat()
    old = commits(repo)
    said = repo.ok("migrate", "import", "--include", ST)
    assert said.startswith("converted 3 versions of files (")
    assert "rewrote 3 commits; moved main\n" in said
    assert said.endswith("the old history is kept under refs/theta/migrated/1\n")
    assert repo.read(".gitattributes").decode() == f"{ST} {LINE}"
    assert (repo.path / "a.st").stat().st_ino == before.st_ino
    assert_clean(repo)
    assert repo.ok("fsck").startswith("3 checkpoints")
    new = commits(repo)
    assert len(new) == 3
    for seed, (commit, was) in enumerate(zip(new, old, strict=True)):
        assert files(repo, commit).keys() - files(repo, was).keys() == {".gitattributes"}
        assert files(repo, commit)["readme.txt"] == files(repo, was)["readme.txt"]
        assert is_manifest(repo, commit, "a.st")
        repo.git("checkout", "--quiet", commit)
        assert repo.read("a.st") == model(seed)
    assert refs(repo, "refs/theta/migrated/") == {"refs/theta/migrated/1/heads/main": old[-1]}


@posix_only
@pytest.mark.parametrize("options", [[], ["--object-format=sha256"]], ids=["SHA-1", "SHA-256"])
def test_there_and_back_is_the_same_history(repo: Repo, tmp_path: Path, options: Sequence[str]) -> None:
    repo = Repo.init(tmp_path / "rich", *options)
    rich(repo)
    before, old = refs(repo), commits(repo)
    repo.ok("migrate", "import", "--everything", "-I", ST)
    assert_clean(repo)
    after = refs(repo)
    assert after.keys() == before.keys()
    assert {name for name in before if before[name] == after[name]} == {"refs/tags/blob"}
    for was, commit in zip(old[1:], commits(repo)[1:], strict=True):
        left, right = files(repo, was), files(repo, commit)
        assert right.keys() - left.keys() == {".gitattributes"}
        for path, head in left.items():
            mode, converted = head.split()[0], path in (*NAMES, "run.st", "crlf.st", "sp ace/new.st")
            assert right[path].split()[0] == mode
            assert (right[path] == head) != converted
            assert not converted or is_manifest(repo, commit, path)
        texts = [repo.run_git("cat-file", "commit", oid).out.split("\n") for oid in (was, commit)]
        kept = [[line for line in text if not line.startswith(("tree ", "parent ")) or line == ""] for text in texts]
        assert kept[0] == kept[1]
    said = repo.ok("migrate", "export", "--everything")
    assert "lost" not in said
    assert refs(repo) == before
    assert commits(repo) == old
    assert_clean(repo)


def test_commits_before_the_first_checkpoint_keep_their_names(repo: Repo) -> None:
    repo.write("readme.txt", b"x")
    repo.commit()
    first = repo.git("rev-parse", "HEAD").strip()
    grown(repo, 2)
    assert "rewrote 2 commits" in repo.ok("migrate", "import", "-I", ST)
    assert commits(repo)[0] == first


def test_tracking_goes_on_after_a_checkpoint_is_removed(repo: Repo) -> None:
    grown(repo, 1)
    repo.git("rm", "--quiet", "a.st")
    repo.commit("removed")
    repo.ok("migrate", "import", "-I", ST)
    assert content(repo, "HEAD", ".gitattributes").decode() == f"{ST} {LINE}"
    assert_clean(repo)


def test_again_there_is_nothing_to_do(repo: Repo) -> None:
    grown(repo)
    repo.ok("migrate", "import", "-I", ST)
    before = refs(repo, "refs")
    assert repo.ok("migrate", "import", "-I", ST) == "nothing to migrate: no such file in these commits\n"
    assert refs(repo, "refs") == before
    repo.write("a.st", model(9))
    repo.commit()
    assert repo.ok("migrate", "import", "-I", "*.bin").startswith("nothing to migrate")


def test_patterns_are_those_of_gitattributes(repo: Repo) -> None:
    names = ["a.st", "x/a.st", "x/y/a.st", "x/b.bin", "z.pt", "[a].pt"]
    for seed, name in enumerate(names):
        repo.write(name, model(seed))
    repo.commit()
    repo.ok("migrate", "import", "-I", "x/**,\\[a\\].pt", "-I", "/a.st", "-X", "b.bin")
    tracked = {name for name in names if is_manifest(repo, "HEAD", name)}
    assert tracked == {"a.st", "x/a.st", "x/y/a.st", "[a].pt"}
    assert [value == "theta" for value in filters(repo, *names)] == [name in tracked for name in names]
    assert_clean(repo)
    repo.ok("migrate", "export", "-I", "x/y/*,[[]a].pt", "-X", "nothing")
    tracked -= {"x/y/a.st", "[a].pt"}
    assert [value == "theta" for value in filters(repo, *names)] == [name in tracked for name in names]
    assert_clean(repo)


def test_export_of_some_patterns(repo: Repo) -> None:
    for name in ("a.st", "x/b.st", "c.pt"):
        repo.write(name, model(len(name)))
    repo.write("x/.gitattributes", b"b.st filter=lfs\n")
    repo.git("add", "--all")
    repo.git("-c", "filter.lfs.clean=cat", "commit", "--quiet", "-m", "a commit")
    before = files(repo, "HEAD")
    repo.ok("migrate", "import", "-I", "*.st,*.pt")
    assert filters(repo, "a.st", "x/b.st", "c.pt") == ["theta", "theta", "theta"]
    repo.ok("migrate", "export", "-I", "*.st")
    assert filters(repo, "a.st", "x/b.st", "c.pt") == ["unspecified", "unspecified", "theta"]
    changed = {path for path, head in files(repo, "HEAD").items() if before.get(path) != head}
    assert changed == {".gitattributes", "x/.gitattributes", "c.pt"}
    assert_clean(repo)


def test_above_tracks_each_file_that_is_large(repo: Repo) -> None:
    repo.write("big.st", noise(3000))
    repo.write("a b/*big.st", noise(2001, 1))
    repo.write("small.st", noise(2000, 2))
    repo.commit()
    repo.write("big.st", noise(2500, 3))
    repo.commit()
    repo.ok("migrate", "import", "--above", "2kb")
    for commit in commits(repo):
        assert is_manifest(repo, commit, "big.st")
        assert is_manifest(repo, commit, "a b/*big.st")
        assert not is_manifest(repo, commit, "small.st")
    assert filters(repo, "big.st", "a b/*big.st", "a b/xbig.st", "small.st") == [*["theta"] * 2, *["unspecified"] * 2]
    assert_clean(repo)


def test_above_without_a_large_file_left(repo: Repo) -> None:
    repo.write("big.st", noise(3000))
    repo.write(".gitattributes", b"*.txt -filter\n")
    repo.commit()
    repo.git("rm", "--quiet", "big.st")
    repo.commit()
    repo.ok("migrate", "import", "--above", "2kb")
    assert content(repo, "HEAD", ".gitattributes") == b"*.txt -filter\n"
    assert_clean(repo)


def test_export_but_for_some(repo: Repo) -> None:
    for number, name in enumerate(("a.st", "x/b.st", "x/c.st")):
        repo.write(name, model(number))
    repo.write(".gitattributes", b"* text=auto\n")
    repo.write("x/.gitattributes", b"/b.st filter=lfs\n")
    repo.git("add", "--all")
    repo.git("-c", "filter.lfs.clean=cat", "commit", "--quiet", "-m", "a commit")
    repo.ok("migrate", "import", "-I", "/a.st,x/*.st")
    assert filters(repo, "a.st", "x/b.st", "x/c.st") == ["theta", "theta", "theta"]
    assert_clean(repo)
    repo.ok("migrate", "export", "-X", "a.st")
    assert filters(repo, "a.st", "x/b.st", "x/c.st") == ["theta", "unspecified", "unspecified"]
    assert [is_manifest(repo, "HEAD", name) for name in ("a.st", "x/b.st", "x/c.st")] == [True, False, False]
    assert content(repo, "HEAD", ".gitattributes").startswith(b"* text=auto\n")
    assert_clean(repo)


def test_old_history_comes_back(repo: Repo) -> None:
    grown(repo)
    before = refs(repo)
    repo.ok("migrate", "import", "-I", ST)
    repo.git("reset", "--quiet", "--hard", "refs/theta/migrated/1/heads/main")
    assert refs(repo) == before
    assert repo.read("a.st") == model(2)
    assert_clean(repo)


def test_sizes_that_are_none(repo: Repo) -> None:
    grown(repo, 1)
    for size in ("much", "1 parsec", "-1"):
        assert repo.theta("migrate", "import", "--above", size).code == 2


def test_object_map_and_verbose(repo: Repo, tmp_path: Path) -> None:
    grown(repo, 2)
    old = commits(repo)
    said = repo.ok("migrate", "import", "-I", ST, "--object-map", str(tmp_path / "map.csv"), "--verbose")
    assert said.splitlines()[:2] == [f"{commit} a.st" for commit in old]
    with (tmp_path / "map.csv").open(newline="") as file:
        assert [*csv.reader(file)] == [[*pair] for pair in zip(old, commits(repo), strict=True)]


def test_commits_that_were_pushed_stay(published: Site) -> None:
    repo = published.repo
    repo.write("b.st", model(1))
    repo.commit("pushed")
    repo.git("push", "--quiet", "origin", "main")
    pushed = repo.git("rev-parse", "HEAD").strip()
    assert repo.ok("migrate", "import", "-I", ST).startswith("nothing to migrate")
    repo.write("c.st", model(2))
    repo.commit("not pushed")
    repo.ok("migrate", "import", "-I", ST)
    assert repo.git("rev-parse", "HEAD~1").strip() == pushed
    # What was there before is converted in the first commit that may be rewritten, for it is tracked from there on.
    assert is_manifest(repo, "HEAD", "b.st")
    assert is_manifest(repo, "HEAD", "c.st")
    assert_clean(repo)
    repo.git("push", "--quiet", "origin", "main")
    assert published.clone().read("b.st") == model(1)
    assert "rewrote" in repo.ok("migrate", "import", "-I", ST, "--everything")
    assert pushed not in commits(repo)


def test_choice_of_revisions(repo: Repo) -> None:
    grown(repo, 2)
    repo.git("branch", "other")
    repo.git("switch", "--quiet", "-c", "topic", "HEAD~1")
    repo.write("b.st", model(7))
    repo.commit("topic")
    before = refs(repo)
    repo.ok("migrate", "import", "-I", ST, "--include-ref", "topic", "--exclude-ref", "main")
    assert [name for name, oid in refs(repo).items() if before[name] != oid] == ["refs/heads/topic"]
    repo.git("switch", "--quiet", "main")
    assert repo.ok("migrate", "import", "-I", ST, "main", "^other").startswith("nothing to migrate")
    assert "moved main, other\n" in repo.ok("migrate", "import", "-I", ST, "main")
    assert_clean(repo)


def test_branch_of_the_same_name_as_a_tag(repo: Repo) -> None:
    grown(repo, 1)
    repo.git("tag", "main")
    repo.git("symbolic-ref", "refs/heads/alias", "refs/heads/main")
    repo.ok("migrate", "import", "-I", ST)
    assert len(set(refs(repo).values())) == 1
    assert repo.git("symbolic-ref", "refs/heads/alias").strip() == "refs/heads/main"


def test_signatures_are_lost_and_counted(repo: Repo) -> None:
    grown(repo, 1)
    tree, parent = (repo.git("rev-parse", name).strip() for name in ("HEAD^{tree}", "HEAD"))
    block = "-----BEGIN PGP SIGNATURE-----\n{0}\n{0}abc\n{0}-----END PGP SIGNATURE-----\n"
    text = f"tree {tree}\nparent {parent}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n"
    signed = write(repo, "commit", f"{text}gpgsig {block.format(' ')}x-kept yes\n\nmessage\n".encode())
    repo.git("reset", "--quiet", "--hard", signed)
    tag = f"object {signed}\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n\nmessage\n{block.format('')}"
    repo.git("update-ref", "refs/tags/v1", write(repo, "tag", tag.encode()))
    assert "2 signatures lost" in repo.ok("migrate", "import", "-I", ST)
    commit, tag = repo.git("cat-file", "commit", "HEAD"), repo.git("cat-file", "tag", "v1")
    assert commit.endswith("committer A <a@b> 1 +0000\nx-kept yes\n\nmessage\n")
    assert tag.endswith("tagger A <a@b> 1 +0000\n\nmessage\n")


def test_replaced_commits_are_not_mistaken_for_history(repo: Repo) -> None:
    grown(repo, 3)
    repo.git("replace", "--graft", "HEAD")
    repo.ok("migrate", "import", "-I", ST)
    assert len(commits(repo, "main")) == 3


def test_line_endings_of_the_worktree(repo: Repo) -> None:
    repo.git("config", "core.autocrlf", "true")
    repo.write("a.st", b"one\r\ntwo\r\n")
    repo.write("b.txt", b"one\r\ntwo\r\n")
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "-m", "a commit")
    assert content(repo, "HEAD", "a.st") == b"one\ntwo\n"
    repo.ok("migrate", "import", "-I", ST)
    assert repo.read("a.st") == b"one\ntwo\n"  # what Git had, and from now on as it is
    assert repo.read("b.txt") == b"one\r\ntwo\r\n"
    assert repo.git("status", "--porcelain") == ""
    repo.ok("migrate", "export")
    assert content(repo, "HEAD", "a.st") == b"one\ntwo\n"
    assert repo.git("status", "--porcelain") == ""


def test_manifests_in_the_worktree_become_files(tracked: Repo) -> None:
    tracked.dematerialise("a.safetensors")
    tracked.ok("migrate", "export")
    assert tracked.read("a.safetensors") == model(0)
    assert content(tracked, "HEAD", "sub/b.safetensors") == model(100)
    assert files(tracked, "HEAD").keys() == {"a.safetensors", "sub/b.safetensors"}
    assert_clean(tracked)


def test_sparse_checkout_stays_sparse(repo: Repo) -> None:
    grown(repo, 1)
    grown(repo, 1, "sub/b.st")
    repo.git("sparse-checkout", "set", "--no-cone", "/*", "!/sub/")
    repo.ok("migrate", "import", "-I", ST)
    assert not (repo.path / "sub").exists()
    assert_clean(repo)


def test_bare_repository(repo: Repo, tmp_path: Path) -> None:
    grown(repo)
    repo.git("clone", "--quiet", "--mirror", ".", str(tmp_path / "bare.git"))
    mirror = Repo(tmp_path / "bare.git")
    before = refs(mirror)
    mirror.ok("migrate", "import", "-I", ST)
    assert is_manifest(mirror, "main~2", "a.st")
    mirror.ok("migrate", "export")
    assert refs(mirror) == before


def test_worktree_of_its_own(repo: Repo, tmp_path: Path) -> None:
    grown(repo, 1)
    repo.git("worktree", "add", "--quiet", "-b", "linked", str(tmp_path / "linked"))
    linked = Repo(tmp_path / "linked")
    before = refs(repo)
    assert "linked: refs/heads/linked is checked out there" in repo.fails(7, "migrate", "import", "-I", ST)
    assert refs(repo, "refs") == before
    repo.git("switch", "--quiet", "--detach")
    linked.ok("migrate", "import", "-I", ST)
    assert linked.git("status", "--porcelain") == repo.git("status", "--porcelain") == ""
    assert is_manifest(linked, "HEAD", "a.st")


def refuse(repo: Repo, what: str, tmp_path: Path) -> None:
    """Make a repository unfit for a migration."""
    if what == "modified":
        repo.write("a.st", model(50))
    elif what == "staged":
        repo.write("new.txt", b"x")
        repo.git("add", "new.txt")
    elif what == "removed":
        (repo.path / "a.st").unlink()
    elif what == "in the way":
        repo.write(".gitattributes", b"* text=auto\n")
    elif what == "ignored, in the way":
        repo.write(".git/info/exclude", b".gitattributes\n")
        repo.write(".gitattributes", b"* text=auto\n")
    elif what == "detached":
        repo.git("switch", "--quiet", "--detach")
    elif what == "attributes are a link":
        (repo.path / ".gitattributes").symlink_to("readme.txt")
        repo.commit()
    elif what == "not installed":
        repo.git("config", "--global", "--unset-all", "filter.theta.process")


@posix_only
@pytest.mark.parametrize(
    ("what", "code", "said", "options"),
    [
        ("modified", 7, "a.st: it has changes that are not committed (1 file); commit or stash them", ("-I", ST)),
        ("staged", 7, "new.txt: it has changes that are not committed", ("-I", ST)),
        ("removed", 7, "a.st: it has changes that are not committed", ("-I", ST)),
        ("in the way", 7, ".gitattributes: it is not committed, and would be overwritten", ("-I", ST)),
        ("ignored, in the way", 7, ".gitattributes: it is not committed", ("-I", ST)),
        ("detached", 3, "no branch with a commit is checked out; name the branches", ("-I", ST)),
        ("attributes are a link", 7, ".gitattributes is no regular file", ("-I", ST)),
        ("not installed", 7, "run: git theta install", ("-I", ST)),
        ("", 3, "--include '*.safetensors,*.pt', or --above SIZE", ()),
        ("", 3, "Git knows no negative patterns", ("-I", "!a.st")),
        ("", 3, "is a pattern that matches no file", ("-I", "x/")),
        ("", 3, ".gitattributes would be a checkpoint itself", ("-I", "*")),
        ("", 3, "nowhere: there is no such branch", ("-I", ST, "nowhere")),
        ("", 3, "--all: there is no such branch", ("-I", ST, "--include-ref=--all")),
        ("", 3, "--everything is all branches and tags", ("-I", ST, "--everything", "main")),
        ("", 7, "migrate", ("-I", ST, "--object-map", "readme.txt/map.csv")),
    ],
)
def test_refusals_change_nothing(
    repo: Repo, tmp_path: Path, what: str, code: int, said: str, options: Sequence[str]
) -> None:
    grown(repo)
    refuse(repo, what, tmp_path)
    before, status = refs(repo, "refs"), repo.git("status", "--porcelain")
    if "--object-map" in options:
        assert repo.theta("migrate", "import", *options).code == code
    else:
        assert said in repo.fails(code, "migrate", "import", *options)
    assert (refs(repo, "refs"), repo.git("status", "--porcelain")) == (before, status)
    assert leftovers(repo.path / ".git" / "theta") == []


def test_repository_without_a_commit(repo: Repo) -> None:
    assert "no branch with a commit" in repo.fails(3, "migrate", "export")
    assert repo.ok("migrate", "export", "--everything").startswith("nothing to migrate")


def test_shallow_clone_is_refused(published: Site) -> None:
    clone = published.folder / "shallow"
    grown(published.repo, 1)
    published.repo.git("push", "--quiet", "origin", "main")
    Repo(published.folder).git("clone", "--quiet", "--depth=1", published.remote.path.as_uri(), str(clone))
    assert "run: git fetch --unshallow" in Repo(clone).fails(7, "migrate", "export", "--everything")


def test_objects_that_are_missing_are_fetched(published: Site) -> None:
    clone = published.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    before = refs(clone, "refs")
    assert "without --skip-fetch they are fetched" in clone.fails(
        4, "migrate", "export", "--everything", "--skip-fetch"
    )
    assert refs(clone, "refs") == before
    clone.ok("migrate", "export", "--everything", "--remote", "origin")
    assert content(clone, "HEAD", "a.safetensors") == model(0)
    assert_clean(clone)


def test_damaged_object_stops_an_export(tracked: Repo) -> None:
    for path in tracked.objects():
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
    before = refs(tracked, "refs")
    tracked.fails(5, "migrate", "export")
    assert refs(tracked, "refs") == before


@pytest.fixture
def lfs(repo: Repo, tmp_path: Path) -> Site:
    """A history of git-lfs, pushed: two versions of a.st, and sub/b.st, which its own .gitattributes has."""
    remote = bare(tmp_path / "remote.git")
    repo.git("remote", "add", "origin", str(remote.path))
    repo.git("lfs", "install", "--local")
    repo.git("lfs", "track", ST)
    repo.write("sub/.gitattributes", b"b.st filter=lfs diff=lfs merge=lfs -text\n")
    repo.write("sub/b.st", model(100))
    repo.write("kept.st", model(200))
    grown(repo, 2)
    repo.git("push", "--quiet", "--set-upstream", "origin", "main")
    assert content(repo, "HEAD", "a.st").startswith(b"version https://git-lfs")
    return Site(tmp_path, repo, remote)


def test_lfs_pointers_become_checkpoints(lfs: Site) -> None:
    repo = lfs.repo
    repo.ok("migrate", "import", "--everything", "-I", ST)
    assert filters(repo, "a.st", "sub/b.st", "sub/later.st") == ["theta"] * 3
    assert_clean(repo)
    for commit, seed in zip(commits(repo), (0, 1), strict=True):
        repo.git("checkout", "--quiet", commit)
        assert (repo.read("a.st"), repo.read("sub/b.st")) == (model(seed), model(100))
        assert is_manifest(repo, commit, "a.st")
        assert is_manifest(repo, commit, "sub/b.st")
    assert repo.git("lfs", "ls-files") == ""
    repo.git("switch", "--quiet", "main")
    repo.ok("migrate", "export", "--everything")
    assert content(repo, "HEAD~1", "a.st") == model(0)
    assert content(repo, "HEAD", "sub/b.st") == model(100)
    assert_clean(repo)


def test_files_that_git_lfs_keeps(lfs: Site) -> None:
    repo = lfs.repo
    before = files(repo, "HEAD")
    repo.ok("migrate", "import", "--everything", "-I", ST, "-X", "kept.st")
    assert filters(repo, "a.st", "sub/b.st", "kept.st") == ["theta", "theta", "lfs"]
    assert files(repo, "HEAD")["kept.st"] == before["kept.st"]
    assert_clean(repo)


def test_lfs_objects_that_are_missing_are_fetched_in_one_call(lfs: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = lfs.repo
    shutil.rmtree(repo.path / ".git" / "lfs" / "objects")
    before = refs(repo, "refs")
    assert "without --skip-fetch" in repo.fails(4, "migrate", "import", "--everything", "-I", ST, "--skip-fetch")
    assert refs(repo, "refs") == before
    log = lfs.folder / "log"
    log.touch()
    monkeypatch.setenv("PATH", fronted(lfs.folder / "bin", git_lfs=logged_git_lfs(log)))
    repo.ok("migrate", "import", "--everything", "-I", ST)
    assert calls(log) == ["fetch"]
    assert_clean(repo)
    # They came to where git-lfs keeps them, and not among ours.
    assert repo.ok("prune", "--force").startswith("removed 0 objects")
    repo.git("checkout", "--quiet", "refs/theta/migrated/1/heads/main")
    assert repo.read("a.st") == model(1)


def test_lfs_objects_that_nobody_has(lfs: Site) -> None:
    shutil.rmtree(lfs.repo.path / ".git" / "lfs" / "objects")
    shutil.rmtree(lfs.remote.path / "lfs")
    before = refs(lfs.repo, "refs")
    lfs.repo.fails(9, "migrate", "import", "--everything", "-I", ST)
    assert refs(lfs.repo, "refs") == before
    assert lfs.repo.git("status", "--porcelain") == ""


def test_damaged_lfs_object(lfs: Site) -> None:
    for path in (lfs.repo.path / ".git" / "lfs" / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(bytes(path.stat().st_size))
    assert "this LFS object is damaged" in lfs.repo.fails(5, "migrate", "import", "--everything", "-I", ST)


def test_pointers_in_the_worktree_become_files(lfs: Site) -> None:
    clone = lfs.clone("clone", GIT_LFS_SKIP_SMUDGE="1")
    clone.ok("migrate", "import", "--everything", "-I", ST)
    assert clone.read("a.st") == model(1)
    assert_clean(clone)


def test_above_counts_what_a_pointer_stands_for(lfs: Site) -> None:
    size = len(model(100))
    lfs.repo.write("a.st", noise(size - 1))
    lfs.repo.commit()
    lfs.repo.ok("migrate", "import", "--everything", "--above", str(size - 1))
    assert is_manifest(lfs.repo, "HEAD", "sub/b.st")
    assert content(lfs.repo, "HEAD", "a.st").startswith(b"version https://git-lfs")
    assert filters(lfs.repo, "a.st", "sub/b.st", "kept.st") == ["lfs", "theta", "theta"]


def test_processes_do_not_grow_with_the_history(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for number, versions in enumerate((2, 40)):
        grown_repo = Repo.init(tmp_path / f"of-{versions}")
        for seed in range(versions):
            grown_repo.write("a.st", noise(500, seed))
            grown_repo.commit()
        monkeypatch.setenv("GIT_TRACE", str(tmp_path / f"trace-{number}"))
        grown_repo.ok("migrate", "import", "-I", ST)
        monkeypatch.delenv("GIT_TRACE")
        counts.append((tmp_path / f"trace-{number}").read_text().count("built-in: git"))
    assert counts[1] < counts[0] + 20  # Git's filter starts a few itself


@linux_only
@pytest.mark.parametrize(
    ("hook", "condition", "moved"),
    [
        ("reference-transaction", '[ "$1" = prepared ]', False),
        ("reference-transaction", '[ "$1" = committed ]', True),
        ("post-index-change", "[ -e .git/theta-migrating.json ]", True),
    ],
    ids=["before the refs move", "after the refs moved", "after the index was written"],
)
def test_killed_at_the_worst_moment(repo: Repo, hook: str, condition: str, moved: bool) -> None:
    grown(repo)
    old = refs(repo)
    kill = "kill -9 $(cut -d ' ' -f 4 /proc/$PPID/stat); exit 1"
    script = repo.write(f".git/hooks/{hook}", f"#!/bin/sh\nif {condition}; then {kill}; fi\n".encode())
    script.chmod(0o755)
    assert repo.run_theta("migrate", "import", "-I", ST).code == -signal.SIGKILL
    script.unlink()
    assert (refs(repo) != old) == moved
    assert (repo.git("status", "--porcelain") != "") == moved
    assert repo.ok("migrate", "import", "-I", ST).startswith("nothing" if moved else "converted 3")
    assert repo.read("a.st") == model(2)
    assert_clean(repo)


def test_index_that_another_process_holds(repo: Repo) -> None:
    grown(repo)
    lock = repo.write(".git/index.lock", b"")
    assert "run git theta migrate once more" in repo.fails(7, "migrate", "import", "-I", ST)
    lock.unlink()
    repo.write("a.st", model(8))  # written to meanwhile, and not to be lost
    assert "a.st: it has changes that are not committed (1 file)" in repo.fails(7, "migrate", "import", "-I", ST)
    assert repo.git("status", "--porcelain") == " M a.st\n"
    assert repo.read("a.st") == model(8)


def wait_for_the_end_of_group(group: int) -> None:
    """Git's own processes end once they are asked nothing more."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.001)
    pytest.fail("a process goes on")


@posix_only
@pytest.mark.timeout(60 + 20 * KILLS)
def test_killed_migrations_leave_one_history_or_the_other(repo: Repo, tmp_path: Path) -> None:
    """Killed at a random moment, the refs are the old ones or the new; the same command then completes."""
    random_ = random.Random(0)
    rich(repo)
    theta = str(scripts_path() / "git-theta")
    old = refs(repo)
    shutil.copytree(repo.path, tmp_path / "whole", symlinks=True)
    started = time.monotonic()
    Repo(tmp_path / "whole").ok("migrate", "import", "--everything", "-I", ST)
    took = time.monotonic() - started
    new = refs(Repo(tmp_path / "whole"))
    untouched = 0
    for number in range(KILLS):
        victim = Repo(tmp_path / f"victim-{number}")
        shutil.copytree(repo.path, victim.path, symlinks=True)
        argv = [theta, "migrate", "import", "--everything", "-I", ST]
        process = subprocess.Popen(
            argv, cwd=victim.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        with_git = number % 2 == 1
        try:
            process.wait(random_.uniform(0, 1.2 * took))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL) if with_git else process.kill()
        process.communicate(timeout=120)
        wait_for_the_end_of_group(process.pid)
        for lock in victim.path.rglob("*.lock") if with_git else ():
            lock.unlink()
        found = refs(victim)
        assert found in (old, new) or (with_git and all(oid in (old[ref], new[ref]) for ref, oid in found.items()))
        untouched += found == old
        if found == old:
            assert victim.git("status", "--porcelain") == ""
        victim.ok("migrate", "import", "--everything", "-I", ST)
        assert refs(victim) == new
        assert victim.git("status", "--porcelain") == ""
        assert victim.read("plain.st") == repo.read("plain.st")
        shutil.rmtree(victim.path)
    assert untouched
