"""The side ref: a union, whoever pushes at once, and nothing of it left here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from git_theta import pointers
from git_theta.errors import TransferError
from git_theta.git import Repository, discover
from tests.repositories import Repo, model
from tests.sites import POINTERS, A, B, Site, bare, fronted, stored
from tests.transfer.servers import Fault, FaultyServer

REFUSAL = '#!/bin/sh\ncase "$1" in refs/theta/*) echo "not here" >&2; exit 1;; esac\n'


def refuse(site: Site, text: str = REFUSAL) -> None:
    hook = site.remote.path / "hooks" / "update"
    hook.write_text(text)
    hook.chmod(0o755)


def test_pointer_is_what_hosts_look_for(published: Site) -> None:
    oid = sorted(published.kept())[0]
    size = next(path for path in published.repo.objects() if path.name == oid).stat().st_size
    text = published.remote.git("cat-file", "blob", f"{POINTERS}:{oid[:2]}/{oid[2:]}")
    assert text == f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


def test_union_of_two_clones(published: Site) -> None:
    clone = published.clone()
    for repo, name, branch in ((published.repo, A, "one"), (clone, B, "two")):
        repo.write(name, model(50 + len(branch)))
        repo.commit()
        repo.git("push", "--quiet", "origin", f"HEAD:{branch}")
    assert published.kept() == stored(published.remote)
    assert stored(published.repo) | stored(clone) == published.kept()


def test_pointers_that_are_no_longer_here_are_fetched_again(published: Site) -> None:
    """An object that nobody names may go at any time, and others of the same commit stay."""
    objects = published.repo.path / ".git" / "objects"
    before = published.kept()
    for revision in (POINTERS, f"{POINTERS}^{{tree}}", f"{POINTERS}:{min(before)[:2]}/{min(before)[2:]}"):
        oid = published.remote.git("rev-parse", revision).strip()
        (objects / oid[:2] / oid[2:]).unlink()
        pointers.keep(discover(published.repo.path), "origin", {oid.ljust(64, "0"): 1})
        before.add(oid.ljust(64, "0"))
        assert published.kept() == before


def test_two_who_push_at_once_both_win(published: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other's push comes between this one's look and its push, twice."""
    repository = discover(published.repo.path)
    others = [{"a" * 64: 1}, {"b" * 64: 2}]
    look = pointers._remote_commit

    def late(asked: Repository, remote: str) -> str | None:
        found = look(asked, remote)
        if others:
            objects = others.pop()
            with monkeypatch.context() as inner:
                inner.setattr(pointers, "_remote_commit", look)
                pointers.keep(asked, remote, objects)
        return found

    before = published.kept()
    monkeypatch.setattr(pointers, "_remote_commit", late)
    pointers.keep(repository, "origin", {"c" * 64: 3})
    assert published.kept() == before | {letter * 64 for letter in "abc"}


def test_nothing_new_makes_no_commit(published: Site) -> None:
    before = published.refs()
    sizes = {path.name: path.stat().st_size for path in published.repo.objects()}
    pointers.keep(discover(published.repo.path), "origin", sizes)
    assert published.refs() == before


def test_host_that_refuses_the_ref_gets_a_warning(site: Site) -> None:
    refuse(site)
    done = site.repo.run_git("push", "origin", "main")
    assert done.code == 0
    said = [line for line in done.err.splitlines() if line.startswith("git-theta: ")]
    assert len(said) == 1
    assert "the objects were sent, but may be cleaned up by the host some day" in said[0]
    assert set(site.refs()) == {"refs/heads/main"}
    assert stored(site.remote) == stored(site.repo)


@pytest.mark.parametrize("lacking", [0, 1, 8])
@pytest.mark.parametrize("where", ["folder", "server"])
def test_host_that_refuses_the_ref_is_asked_what_it_has(
    site: Site, request: pytest.FixtureRequest, where: str, lacking: int
) -> None:
    refuse(site)
    objects = request.getfixturevalue("server").objects if where == "server" else {}
    site.repo.git("push", "origin", "main")
    for path in site.repo.objects()[:lacking]:
        if where == "server":
            del objects[path.name]
        else:
            (site.remote.path / "theta" / path.relative_to(site.repo.path / ".git" / "theta")).unlink()
    before = dict(objects), stored(site.remote)
    checked, looked_at = site.repo.theta("fsck", "--remote"), site.repo.theta("doctor")
    assert (dict(objects), stored(site.remote)) == before
    if lacking:
        assert checked.code == 4
        assert (
            "is not there, nor may others be\nto send what is not there: git theta push --all origin\n" in checked.out
        )
        assert "origin lacks objects of what was pushed there\n" in looked_at.out
        site.repo.theta("push", "--all", "origin")
        assert site.repo.theta("fsck", "--remote").code == 0
    else:
        assert checked.code == 0
        assert checked.out.startswith(
            "origin: 8 of 8 objects of what was pushed are there\nno refs/theta/pointers keeps"
        )
        assert "origin has the objects of what was pushed there, but no refs/theta/pointers" in looked_at.out


def test_ref_that_came_with_a_mirror_is_not_believed(published: Site) -> None:
    """`git clone --mirror` and `git push --mirror` copy the side ref, and no objects."""
    copied = bare(published.folder / "copied.git")
    Repo(published.folder).git("clone", "--quiet", "--mirror", str(published.remote.path), "mirror.git")
    Repo(published.folder / "mirror.git").git("push", "--quiet", "--mirror", str(copied.path))
    other = Site(published.folder, published.repo, copied)
    assert other.kept() == published.kept() != set()
    published.repo.git("remote", "set-url", "origin", str(copied.path))
    checked = published.repo.theta("fsck", "--remote")
    assert checked.code == 4
    assert "is not there, nor may others be\nto send what is not there: git theta push --all origin\n" in checked.out
    assert "origin lacks objects of what was pushed there\n" in published.repo.theta("doctor").out
    published.repo.ok("push", "--all", "origin")
    assert published.repo.ok("fsck", "--remote").startswith("origin: 8 of 8")
    assert stored(copied) == stored(published.repo)


@pytest.mark.parametrize("lacking", [0, 1, 8])
def test_server_is_asked_about_what_the_ref_names(online: Site, server: FaultyServer, lacking: int) -> None:
    for oid in [path.name for path in online.repo.objects()][:lacking]:
        del server.objects[oid]
    checked, looked_at = online.repo.theta("fsck", "--remote"), online.repo.theta("doctor")
    assert checked.code == (4 if lacking else 0)
    assert ("origin lacks objects of what was pushed there" in looked_at.out) == bool(lacking)


def test_who_may_not_push_has_the_word_of_the_ref(online: Site, server: FaultyServer) -> None:
    server.faults.append(Fault("batch", 403))
    said = online.repo.ok("fsck", "--remote").splitlines()
    assert said[0] == "origin: 8 of 8 objects of what was pushed are kept there"
    assert said[1].startswith("that is what its refs/theta/pointers says; its LFS server could not be asked: origin: ")
    assert "403" in said[1]
    assert len(said) == 2


def test_server_that_says_nothing_is_one_line(site: Site, server: FaultyServer) -> None:
    refuse(site)
    site.repo.git("push", "origin", "main")
    server.faults.append(Fault("batch", 403))
    assert "403" in site.repo.fails(9, "fsck", "--remote")
    assert "origin cannot be asked what it has: origin: " in site.repo.theta("doctor").out


def test_refusal_is_not_tried_again_and_again(published: Site) -> None:
    count = published.folder / "count"
    refuse(published, f'#!/bin/sh\necho >> "{count}"\nexit 1\n')
    with pytest.raises(TransferError, match="it refuses refs/theta/pointers"):
        pointers.keep(discover(published.repo.path), "origin", {"c" * 64: 3})
    assert count.read_text() == "\n"


def test_nothing_of_it_is_left_here(published: Site) -> None:
    Repo(published.folder).git("clone", "--quiet", "--depth=1", f"file://{published.remote.path}", "clone")
    clone = Repo(published.folder / "clone")
    for repo in (published.repo, clone):
        git_dir = repo.path / ".git"
        repo.git("config", "core.splitIndex", "true")
        repo.git("update-index", "--split-index")
        before = [repo.git("for-each-ref", "--format=%(refname)"), shallow(git_dir), listing(git_dir)]
        repo.write(A, model(60 + len(repo.path.name)))
        repo.commit()
        repo.git("push", "--quiet", "origin", f"HEAD:refs/heads/{repo.path.name}")
        after = [repo.git("for-each-ref", "--format=%(refname)"), shallow(git_dir), listing(git_dir)]
        assert str(after[0]).replace(f"refs/remotes/origin/{repo.path.name}\n", "") == before[0]
        assert after[1:] == before[1:]
        assert not (git_dir / "FETCH_HEAD").exists()
        repo.git("fsck", "--no-dangling")


def shallow(git_dir: Path) -> bytes:
    path = git_dir / "shallow"
    return path.read_bytes() if path.exists() else b""


def listing(git_dir: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in git_dir.iterdir()} - {"COMMIT_EDITMSG", "ORIG_HEAD"}


def test_mirror_of_a_remote_keeps_no_local_ref_of_ours_by_fetching(published: Site) -> None:
    """A refspec that covers every ref would have Git write this one as well."""
    published.repo.git("config", "remote.origin.fetch", "+refs/*:refs/mirror/*")
    assert pointers.listed(discover(published.repo.path), "origin") == published.kept()
    assert "theta" not in published.repo.git("for-each-ref", "--format=%(refname)")


OLD_GIT = """\
#!/bin/sh
for word; do
    if [ "$word" = --no-write-fetch-head ]; then echo "error: unknown option" >&2; exit 129; fi
done
if [ "$1" = version ]; then echo "git version 2.25.1"; else exec "{git}" "$@"; fi
"""


def test_git_before_2_29(published: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = published.clone()
    git = shutil.which("git")
    assert git is not None
    clone.write(A, model(50))
    clone.commit()
    # Git itself would put its own folder first on the PATH of a hook.
    monkeypatch.setenv("PATH", fronted(published.folder / "bin", git=OLD_GIT.format(git=git)))
    assert clone.ok("push", "origin").startswith("4 objects")
    assert len(published.kept()) == 12
    assert not (clone.path / ".git" / "FETCH_HEAD").exists()


def test_remote_without_the_ref_names_nothing(site: Site) -> None:
    assert pointers.listed(discover(site.repo.path), "origin") is None


def test_remote_that_is_gone(site: Site) -> None:
    site.remote.path.rename(site.folder / "moved.git")
    with pytest.raises(TransferError):
        pointers.listed(discover(site.repo.path), "origin")


def test_ref_survives_the_hook_of_git_lfs(site: Site) -> None:
    site.repo.git("lfs", "install", "--local", "--force")
    Repo(site.repo.path).run_git("add", ".")
    site.repo.write(A, model(70))
    site.repo.commit()
    site.repo.git("push", "--quiet", "origin", "main")
    assert site.kept() == stored(site.remote)


def test_user_settings_of_push_and_fetch_do_no_harm(site: Site) -> None:
    for key, value in (("push.followTags", "true"), ("fetch.prune", "true"), ("push.default", "nothing")):
        site.repo.git("config", key, value)
    site.repo.git("tag", "--annotate", "--message", "heavy", "heavy")
    site.repo.git("push", "--quiet", "origin", "main")
    site.repo.write(A, model(71))
    site.repo.commit()
    site.repo.git("push", "--quiet", "origin", "main")
    assert set(site.refs()) == {"refs/heads/main", "refs/tags/heavy", POINTERS}


def test_two_processes_that_push_at_once(published: Site) -> None:
    clone = published.clone()
    for repo, seed in ((published.repo, 80), (clone, 90)):
        repo.write(A, model(seed))
        repo.commit()
    processes = [
        subprocess.Popen(["git", "push", "--quiet", "origin", f"HEAD:{name}"], cwd=repo.path, stderr=subprocess.PIPE)
        for repo, name in ((published.repo, "one"), (clone, "two"))
    ]
    for process in processes:
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    assert published.kept() == stored(published.repo) | stored(clone)
