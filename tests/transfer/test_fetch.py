"""Clone, checkout and `git theta pull`: what is missing comes in one call, whole or not at all."""

import hashlib
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from git_theta import lfs, manifest
from tests.checkpoints import linux_only, safetensors, weights
from tests.drivers.filter_client import FilterClient, Reply
from tests.repositories import Outcome, Repo, model
from tests.sites import A, B, Site, bare, calls, fronted, logged_git_lfs, only, stored
from tests.transfer.conftest import use
from tests.transfer.servers import Fault, FaultyServer

# What the true bytes may be found as, where something has gone wrong.
MODELS = {A: model(0), B: model(100)}


def checks(site: Site, done: Outcome, *words: str) -> None:
    """A failed clone said these words in one line of ours on why, and left neither bytes nor objects that are wrong."""
    assert done.code == 128
    lines = [line for line in done.err.splitlines() if line.startswith("git-theta: ") and " needs object " not in line]
    assert len(lines) == 1, done.err
    for word in words:
        assert word in lines[0]
    clone = Repo(site.folder / "clone")
    for name, content in MODELS.items():
        assert not (clone.path / name).exists() or clone.read(name) == content
    assert all(is_intact(path) for path in clone.objects())


def is_intact(path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_clone_makes_one_call_for_all_files_and_its_noise_goes_nowhere(published: Site, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    path = fronted(tmp_path / "bin", git_lfs=logged_git_lfs(log))
    done = published.try_clone("clone", PATH=path)
    assert (done.code, done.err) == (0, "Cloning into 'clone'...\ndone.\n")
    assert calls(log) == ["fetch"]
    assert Repo(tmp_path / "clone").read(A) == model(0)


def test_checkout_of_another_version_fetches_only_its_objects(published: Site, tmp_path: Path) -> None:
    repo = published.repo
    for name, seed in ((A, 20), (B, 30)):
        repo.write(name, model(seed))
    repo.commit()
    repo.git("push")
    clone = published.clone()
    assert stored(clone) < published.kept()
    log = tmp_path / "calls"
    clone.git("checkout", "--quiet", "HEAD~1", PATH=fronted(tmp_path / "bin", git_lfs=logged_git_lfs(log)))
    assert calls(log) == ["fetch"]
    assert (clone.read(A), clone.read(B)) == (model(0), model(100))
    assert stored(clone) == published.kept()
    clone.git("checkout", "--quiet", "main", PATH=fronted(tmp_path / "bin2", git_lfs=logged_git_lfs(log)))
    assert calls(log) == ["fetch"]


def test_pull_of_others_work(published: Site) -> None:
    clone = published.clone()
    published.repo.write(A, model(5))
    published.repo.commit()
    published.repo.git("push")
    clone.git("pull", "--quiet")
    assert clone.read(A) == model(5)


def test_latency_and_a_hundred_objects(online: Site, server: FaultyServer) -> None:
    tensors = {f"w.{number}": ("F32", (16_400,), weights(16_400, number)) for number in range(100)}
    online.repo.write("large.safetensors", safetensors(tensors))
    online.repo.git("add", "large.safetensors")
    online.repo.git("commit", "--quiet", "--message", "large")
    server.latency_s = 0.02
    server.counts.clear()
    online.repo.git("push")
    assert server.counts["put"] == 101
    assert server.counts["batch"] == 2
    server.counts.clear()
    clone = online.clone()
    assert clone.read("large.safetensors") == safetensors(tensors)
    assert (server.counts["batch"], server.counts["get"]) == (2, 109)


def waiting_clone(online: Site, server: FaultyServer) -> tuple[Repo, str, str, bytes]:
    """A clone with a manifest for a file, whose last object the server holds back: its path, text and content."""
    path, content = "large.safetensors", safetensors({f"w.{i}": ("F32", (2**20,), weights(2**20, i)) for i in range(9)})
    online.repo.write(path, content)
    online.repo.commit()
    online.repo.git("push")
    text = online.repo.git("cat-file", "blob", f"HEAD:{path}")
    records = manifest.parse(text.encode()).parameters
    server.held = {records["w.8"].store[0].pieces[0].oid}
    return online.clone("clone", "--no-checkout"), path, text, content


def test_a_file_is_rebuilt_while_its_objects_come(online: Site, server: FaultyServer) -> None:
    clone, path, text, content = waiting_clone(online, server)
    with FilterClient(clone.path) as client:
        assert client.request("smudge", path, text.encode(), "can-delay=1") == Reply(["status=delayed"])
        assert client.available() == [path]
        client.send_lines("command=smudge", f"pathname={path}")
        client.send_content(b"")
        assert client.lines() == ["status=success"]
        packets = client.packets()
        first = next(packets)
        server.released.set()
        assert first + b"".join(packets) == content
        assert client.lines() == []
        assert client.available() == []
        assert client.close() == 0


def test_what_git_no_longer_waits_for_is_left_alone(online: Site, server: FaultyServer, tmp_path: Path) -> None:
    clone, path, text, _ = waiting_clone(online, server)
    (tmp_path / "tmp").mkdir()
    with FilterClient(clone.path, TMPDIR=str(tmp_path / "tmp")) as client:
        assert client.request("smudge", path, text.encode(), "can-delay=1") == Reply(["status=delayed"])
        assert client.available() == [path]
        assert list((tmp_path / "tmp").iterdir())
        assert client.close() == 0
    assert list((tmp_path / "tmp").iterdir()) == []
    server.released.set()


@linux_only
def test_what_git_lfs_leaves_behind_is_not_waited_for(published: Site, tmp_path: Path) -> None:
    daemon = '#!/bin/sh\n[ $1 != fetch ] || sleep 600 & echo $! >> {log}\nexec {real} "$@"\n'
    script = daemon.format(log=tmp_path / "pids", real=shutil.which("git-lfs"))
    path = fronted(tmp_path / "bin", git_lfs=script)
    clone = published.clone("clone", "--no-checkout")
    (tmp_path / "tmp").mkdir()
    clone.git("checkout", "--quiet", "main", PATH=path, TMPDIR=str(tmp_path / "tmp"))
    assert (clone.read(A), clone.read(B)) == (model(0), model(100))
    assert list((tmp_path / "tmp").iterdir()) == []
    left = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert left
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("batch", 403), "403"),
        (Fault("batch", 404), "404"),
        (Fault("batch", 500), "500"),
        (Fault("batch", object_error=404), "404"),
        (Fault("get", 503), "503"),
        (Fault("get", wrong=True), "OID"),
        (Fault("get", cut=1000), "EOF"),
    ],
    ids=lambda value: (
        f"{value.kind}-{value.status or value.object_error or value.cut or 'wrong'}" if isinstance(value, Fault) else ""
    ),
)
def test_fault_of_the_server_is_one_line(online: Site, server: FaultyServer, fault: Fault, words: str) -> None:
    server.faults.append(fault)
    done = online.try_clone()
    checks(online, done, "objects", "not be fetched", words)
    server.faults.clear()
    clone = Repo(online.folder / "clone")
    clone.git("checkout", "--quiet", "HEAD", "--", ".")
    assert clone.read(A) == model(0)


def test_no_credentials(online: Site, server: FaultyServer) -> None:
    server.faults.append(Fault("batch", 401))
    checks(online, online.try_clone(), "8 objects", "could not read Username")


def test_what_was_cut_goes_on_where_it_ended(online: Site, server: FaultyServer) -> None:
    server.faults.append(Fault("get", cut=1000))
    assert online.try_clone().code == 128
    server.faults.clear()
    server.ranges.clear()
    Repo(online.folder / "clone").git("checkout", "--quiet", "HEAD", "--", ".")
    assert server.ranges
    assert not any(asked.startswith("bytes=0-") for asked in server.ranges)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("get", 503, times=1),
        Fault("get", 429, {"Retry-After": "1"}, times=1),
        Fault("get", cut=1000, times=1),
        Fault("batch", expired=True, times=1),
    ],
    ids=["503", "429", "cut", "expired"],
)
def test_fault_that_passes_is_not_even_said(online: Site, server: FaultyServer, fault: Fault) -> None:
    server.faults.append(fault)
    clone = online.clone()
    assert (clone.read(A), clone.read(B)) == (model(0), model(100))


def test_files_whose_objects_are_there_come_even_if_another_fails(online: Site, server: FaultyServer) -> None:
    for oid in stored(online.repo) - set(manifest.parse(online.repo.blob(A)).objects()):
        del server.objects[oid]
    done = online.try_clone()
    assert done.code == 128
    clone = Repo(online.folder / "clone")
    assert clone.read(A) == model(0)
    assert not (clone.path / B).exists()
    assert len([line for line in done.err.splitlines() if "could not be fetched" in line or " nor on " in line]) == 1


def test_remote_that_is_gone(published: Site) -> None:
    clone = published.clone("clone", "--no-checkout")
    published.remote.path.rename(published.folder / "moved.git")
    checks(published, clone.run_git("checkout", "main"), "8 objects", "there is no repository at ", "git remote -v")


def test_no_remote(published: Site) -> None:
    clone = published.clone("clone", "--no-checkout")
    clone.git("remote", "remove", "origin")
    done = clone.run_git("checkout", "main")
    assert done.code != 0
    [line] = [line for line in done.err.splitlines() if line.startswith("git-theta: a.safetensors: ")]
    assert line.endswith("run: git theta pull")
    clone.git("read-tree", "main")
    pulled = clone.theta("pull")
    assert pulled.code == 4
    assert "no remote to fetch from; to name one: git remote add origin URL\n" in pulled.err


def test_remote_without_objects(published: Site) -> None:
    shutil.rmtree(published.remote.path / "theta")
    checks(published, published.try_clone(), "8 objects", "origin")


def test_remote_without_lfs(published: Site, server: FaultyServer, home: Path) -> None:
    use(home, f"{server.url}-nowhere")
    server.faults.append(Fault("batch", 404))
    checks(published, published.try_clone(), "8 objects")


def test_server_that_is_not_there(published: Site, home: Path) -> None:
    use(home, "http://127.0.0.1:1/lfs")
    checks(published, published.try_clone(), "8 objects", "refused")


def test_no_git_lfs(published: Site, tmp_path: Path) -> None:
    path = only(tmp_path / "bin")
    checks(published, published.try_clone("clone", PATH=path), "git-lfs is not installed", "https://git-lfs.com")
    done = published.repo.run_git("push", "origin", "main:topic", PATH=path)
    assert done.code == 0  # nothing new
    published.repo.write(A, model(6))
    published.repo.commit()
    assert "git-lfs is not installed" in published.repo.run_git("push", PATH=path).err


@pytest.mark.parametrize("said", ["git-lfs/3.2.0 (GitHub; linux amd64; go 1.18)", "git-lfs/2.13.3"])
def test_git_lfs_too_old(published: Site, tmp_path: Path, said: str) -> None:
    path = fronted(tmp_path / "bin", git_lfs=f"#!/bin/sh\necho '{said}'\n")
    checks(published, published.try_clone("clone", PATH=path), "git-lfs is ", "3.3 or newer is needed")


def test_second_remote_has_what_the_first_lacks(published: Site) -> None:
    second = bare(published.folder / "second.git")
    published.repo.git("push", str(second.path), "main")
    shutil.rmtree(published.remote.path / "theta")
    clone = published.clone("clone", "--no-checkout")
    clone.git("remote", "add", "second", str(second.path))
    clone.git("checkout", "--quiet", "main")
    assert clone.read(A) == model(0)


def test_objects_of_two_remotes_come_together(published: Site) -> None:
    second = bare(published.folder / "second.git")
    published.repo.git("push", str(second.path), "main")
    for number, oid in enumerate(sorted(stored(published.remote))):
        where = (second if number % 2 else published.remote).path / "theta" / "objects" / oid[:2] / oid[2:4] / oid
        where.unlink()
    clone = published.clone("clone", "--no-checkout")
    clone.git("remote", "add", "second", str(second.path))
    clone.git("checkout", "--quiet", "main")
    assert clone.read(A) == model(0)


def test_skip_smudge_leaves_manifests_and_fetches_nothing(published: Site) -> None:
    clone = published.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    assert b"git-theta" in clone.read(A)
    assert stored(clone) == set()
    assert clone.git("status", "--porcelain") == ""
    clone.ok("pull", A)
    assert clone.read(A) == model(0)
    assert b"git-theta" in clone.read(B)
    clone.ok("pull")
    assert clone.read(B) == model(100)
    assert clone.git("status", "--porcelain") == ""


def test_fetch_leaves_the_worktree_alone(published: Site) -> None:
    published.repo.write(A, model(5))
    published.repo.commit()
    published.repo.git("push")
    clone = published.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    assert clone.ok("fetch", "HEAD~1").startswith("fetched 8 objects")
    assert clone.ok("fetch", "HEAD~1").startswith("fetched 0 objects")
    assert clone.ok("fetch").startswith("fetched 4 objects")
    clone.ok("fetch", "--all")
    assert stored(clone) == published.kept()
    assert b"git-theta" in clone.read(A)


def test_fetch_from_a_remote_that_was_named(published: Site) -> None:
    clone = published.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    clone.git("remote", "add", "empty", str(bare(published.folder / "empty.git").path))
    assert "empty" in clone.fails(9, "fetch", "--remote", "empty")
    assert stored(clone) == set()
    clone.ok("pull", "--remote", "origin")
    assert clone.read(A) == model(0)


def test_pull_says_why_and_deals_with_the_files_that_lack_nothing(online: Site, server: FaultyServer) -> None:
    clone = online.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    for oid in stored(online.repo) - set(manifest.parse(online.repo.blob(A)).objects()):
        del server.objects[oid]
    before = clone.read(B)
    done = clone.theta("pull")
    assert (done.code, clone.read(A), clone.read(B)) == (9, model(0), before)
    reason, suffers = done.err.splitlines()
    assert "could not be fetched: origin: " in reason
    assert suffers.startswith(f"git-theta: {B}: ")
    assert done.out.startswith("checked out 1 file (")


def test_pull_force_overwrites(published: Site) -> None:
    published.repo.write(A, model(9))
    assert "changes that are not in the index" in published.repo.fails(3, "pull", A)
    published.repo.ok("pull", "--force", A)
    assert published.repo.read(A) == model(0)


def test_git_lfs_harms_nothing_of_ours(published: Site) -> None:
    repo = published.repo
    repo.git("lfs", "install", "--local", "--skip-repo")
    before, refs = stored(repo), repo.git("for-each-ref")
    repo.git("lfs", "prune", "--force")
    repo.git("lfs", "fetch", "--all")
    repo.git("lfs", "fsck")
    repo.git("lfs", "migrate", "info")
    repo.git("lfs", "pull")
    assert stored(repo) == before
    assert repo.git("for-each-ref") == refs
    assert not (repo.path / ".git" / "lfs" / "objects").exists() or not list(
        (repo.path / ".git" / "lfs" / "objects").rglob("?" * 64)
    )
    assert repo.git("status", "--porcelain") == ""


def test_sha256_repository(home: Path, template: Path, tmp_path: Path) -> None:
    shutil.copyfile(template / "home" / ".gitconfig", home / ".gitconfig")
    repo = Repo.init(tmp_path / "repo", "--object-format=sha256")
    remote = bare(tmp_path / "remote.git", "--object-format=sha256")
    repo.track("*.safetensors")
    repo.write(A, model())
    repo.commit()
    repo.git("push", str(remote.path), "main")
    site = Site(tmp_path, repo, remote)
    assert site.kept() == stored(repo)
    assert site.clone().read(A) == model()


def test_version_of_git_lfs(home: Path) -> None:
    found = lfs.version()
    assert found is not None
    assert found >= lfs.OLDEST


def test_store_that_cannot_be_written(published: Site) -> None:
    clone = published.clone("clone", "--no-checkout")
    theta = clone.path / ".git" / "theta"
    theta.mkdir(exist_ok=True)
    (theta / "objects").write_bytes(b"")  # no folder: root may write into any
    checks(published, clone.run_git("checkout", "main"), "8 objects", "not a directory")


@linux_only
def test_disk_that_is_full(online: Site) -> None:
    """No file may be longer than 40 kB, which none but the large objects are."""
    import resource

    clone = online.clone("clone", "--no-checkout")
    argv = ["git", "checkout", "main"]
    done = subprocess.run(
        argv,
        cwd=clone.path,
        capture_output=True,
        check=False,
        restore_signals=False,  # Python ignores SIGXFSZ, and has its children do so
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )
    checks(
        online,
        Outcome(done.returncode, "", done.stderr.decode()),
        "no space left (file too large); free some and try again",
    )
    clone.git("checkout", "--quiet", "main", "--", ".")
    assert clone.read(A) == model(0)


@linux_only
def test_progress_on_a_terminal_stays_out_of_the_protocol(published: Site) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["git", "clone", str(published.remote.path), "clone"], cwd=published.folder, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    with suppress(OSError):  # how a terminal says that all have left it
        while run := os.read(ours, 2**16):
            said += run
    os.close(ours)
    assert process.wait() == 0
    assert b"Downloading LFS objects" in said
    assert Repo(published.folder / "clone").read(A) == model(0)
