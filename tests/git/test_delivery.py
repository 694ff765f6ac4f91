"""Large checkpoints are put into the worktree past Git, where nobody can look before they are there."""

import os
import shlex
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from git_theta import manifest
from tests.checkpoints import leftovers, linux_only
from tests.confined import SMALL_FILES, run_confined
from tests.git.kinds import changed_layer, layers
from tests.git.test_interruption import SECONDS, large, posix_only
from tests.repositories import Repo, model, scripts_path

pytestmark = posix_only  # on Windows nobody tells which command Git runs: everything goes through it

FILTER = shlex.quote(str(scripts_path() / "git-theta-filter"))
FIRST, SECOND, OTHER = layers(), changed_layer(1), changed_layer(3)


@pytest.fixture
def versions(repo: Repo, tmp_path: Path) -> Repo:
    """A checkpoint in two versions on main, of which the second is checked out, and a third on the branch "other".

    What the filter sends to Git goes through the file `sent`.
    """
    repo.track("*.st")
    repo.write("a.st", FIRST)
    repo.write("note.txt", b"a note\n")
    repo.commit("first")
    repo.git("checkout", "--quiet", "-b", "other")
    repo.write("a.st", OTHER)
    repo.commit("other")
    repo.git("checkout", "--quiet", "main")
    repo.write("a.st", SECOND)
    repo.commit("second")
    through(repo, f"{FILTER} | tee -a {shlex.quote(str(tmp_path / 'sent'))}")
    return repo


def through(repo: Repo, command: str) -> None:
    """Have Git start the filter so."""
    repo.git("config", "--global", "filter.theta.process", command)


def sent(repo: Repo) -> int:
    """How many bytes the filter has sent since this was called last."""
    file = repo.path.parent / "sent"
    size = file.stat().st_size if file.exists() else 0
    file.unlink(missing_ok=True)
    return size


def noted(repo: Repo, name: str = "a.st") -> dict[str, int]:
    """Inode and size of a file as the index has them."""
    words = repo.git("ls-files", "--debug", name).replace("\t", " ").split()
    return {key: int(words[words.index(f"{key}:") + 1]) for key in ("ino", "size")}


def assert_delivered(repo: Repo, content: bytes, name: str = "a.st") -> None:
    """The file has this content, which did not go through Git, and the index knows how it lies on the disk."""
    assert repo.read(name) == content
    assert 0 < sent(repo) < len(content) // 10
    status = (repo.path / name).stat()
    assert noted(repo, name) == {"ino": status.st_ino % 2**32, "size": status.st_size}
    assert repo.git("status", "--porcelain") == ""
    assert leftovers(repo.path / ".git" / "theta") == []


def assert_streamed(repo: Repo, content: bytes) -> None:
    """The file has this content, which went through Git."""
    assert repo.read("a.st") == content
    assert sent(repo) > len(content)
    assert repo.git("status", "--porcelain", "--untracked-files=no") == ""
    assert leftovers(repo.path / ".git" / "theta") == []


@pytest.mark.parametrize(
    ("command", "content"),
    [
        (("checkout", "HEAD~1"), FIRST),
        (("-c", "core.quotePath=true", "checkout", "-f", "HEAD~1"), FIRST),
        (("switch", "other"), OTHER),
        (("reset", "--hard", "HEAD~1"), FIRST),
        (("merge", "--no-edit", "other"), None),
    ],
    ids=["checkout", "with an option", "switch", "reset", "merge"],
)
def test_commands_that_end_then_are_not_sent_the_checkpoint(
    versions: Repo, command: tuple[str, ...], content: bytes | None
) -> None:
    done = versions.run_git(*command)
    assert done.code == 0
    assert "M\ta.st" not in done.out.splitlines()
    if content is None:  # each side changed another layer
        content = versions.read("a.st")
        assert len(content) == len(FIRST)
        assert content not in (FIRST, SECOND, OTHER)
    assert_delivered(versions, content)


def test_restored_files_are_delivered(versions: Repo) -> None:
    (versions.path / "a.st").unlink()
    versions.git("restore", "a.st")
    assert_delivered(versions, SECOND)
    versions.git("checkout", "HEAD~1", "--", "a.st")
    assert versions.read("a.st") == FIRST
    assert sent(versions) < 10_000
    assert versions.git("status", "--porcelain") == "M  a.st\n"
    versions.git("restore", "--source=other", "a.st")
    assert versions.read("a.st") == OTHER
    assert sent(versions) < 10_000
    assert versions.git("status", "--porcelain") == "MM a.st\n"


def test_a_stash_is_delivered(versions: Repo) -> None:
    versions.write("a.st", OTHER)
    versions.git("stash")
    assert versions.read("a.st") == SECOND
    assert versions.git("status", "--porcelain") == ""
    sent(versions)
    done = versions.git("stash", "pop")
    assert "modified:   a.st" in done
    assert versions.read("a.st") == OTHER
    assert sent(versions) < 20_000
    assert versions.git("status", "--porcelain") == " M a.st\n"


def test_clones_and_linked_worktrees_get_theirs_delivered(versions: Repo, tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"
    versions.git("init", "--quiet", "--bare", str(remote))
    versions.git("push", "--quiet", str(remote), "main")
    sent(versions)
    versions.git("clone", "--quiet", str(remote), str(tmp_path / "clone"))
    assert_delivered(Repo(tmp_path / "clone"), SECOND)
    versions.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "other")
    linked = Repo(tmp_path / "linked")
    assert linked.read("a.st") == OTHER
    assert sent(versions) < 10_000
    assert linked.git("status", "--porcelain") == ""
    assert noted(linked)["size"] == len(OTHER)


@pytest.mark.parametrize("setting", ["index.version=4", "core.untrackedCache=true", "index.skipHash=true"])
def test_indexes_of_every_kind_note_the_file(versions: Repo, setting: str) -> None:
    versions.git("config", *setting.split("="))
    if setting == "index.version=4":
        versions.git("update-index", "--index-version", "4")
    versions.git("checkout", "--quiet", "other")
    sent(versions)
    versions.git("checkout", "--quiet", "main")
    assert_delivered(versions, SECOND)


@pytest.mark.parametrize("command", [("config", "core.splitIndex", "yes"), ("update-index", "--split-index")])
def test_an_index_that_only_git_can_write(versions: Repo, command: tuple[str, ...]) -> None:
    versions.git(*command)
    versions.git("checkout", "--quiet", "other")
    assert_streamed(versions, OTHER)


def test_bits_of_the_index_stay(versions: Repo) -> None:
    versions.git("update-index", "--assume-unchanged", "a.st")
    (versions.path / "a.st").unlink()
    versions.git("checkout", "--", "a.st")
    assert versions.git("ls-files", "-v", "a.st") == "h a.st\n"
    assert_delivered(versions, SECOND)


def test_line_ends_that_git_turns(versions: Repo) -> None:
    with (versions.path / ".gitattributes").open("a") as file:
        file.write("*.st text eol=crlf\n")
    versions.commit("attributes")
    (versions.path / "a.st").unlink()
    sent(versions)
    versions.git("checkout", "--", "a.st")
    assert_streamed(versions, SECOND)


def test_a_repository_of_longer_names(home: Path, template: Path, tmp_path: Path) -> None:
    shutil.copyfile(template / "home" / ".gitconfig", home / ".gitconfig")
    repo = Repo.init(tmp_path / "long", "--object-format=sha256")
    repo.track("*.st")
    for content in (FIRST, SECOND):
        repo.write("a.st", content)
        repo.commit()
    through(repo, f"{FILTER} | tee -a {shlex.quote(str(tmp_path / 'sent'))}")
    repo.git("checkout", "--quiet", "HEAD~1")
    assert_delivered(repo, FIRST)


@linux_only
def test_a_folder_that_is_another_mount_of_the_file_system(versions: Repo, tmp_path: Path) -> None:
    """As a container's volume is: the numbers of devices are equal, and nothing can be renamed into it."""
    volume, folder = tmp_path / "volume", versions.path / "sub"
    for place in (volume, folder):
        place.mkdir()
    versions.write("sub/b.st", FIRST)
    versions.commit("another checkpoint")
    (folder / "b.st").rename(volume / "b.st")
    work = (
        f"mount --bind {shlex.quote(str(volume))} sub && git checkout --quiet -f -- sub a.st && git status --porcelain"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"rm a.st; : > {shlex.quote(str(volume))}/b.st; {work}"],
        cwd=versions.path,
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip("no name spaces here")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (volume / "b.st").read_bytes() == FIRST
    assert versions.read("a.st") == SECOND
    assert sorted(path.name for path in volume.iterdir()) == ["b.st"]


def test_permissions_are_those_that_git_gave(versions: Repo) -> None:
    versions.git("update-index", "--chmod=+x", "a.st")
    versions.git("commit", "--quiet", "-m", "a program")
    versions.git("checkout", "--quiet", "-f", "HEAD")
    versions.git("checkout", "--quiet", "HEAD~1")
    assert stat.S_IMODE((versions.path / "a.st").stat().st_mode) & 0o111 == 0
    before = os.umask(0o027)
    try:
        versions.git("checkout", "--quiet", "main")
    finally:
        os.umask(before)
    assert stat.S_IMODE((versions.path / "a.st").stat().st_mode) == 0o750


def test_a_checkpoint_that_git_could_not_hold_is_delivered(versions: Repo) -> None:
    versions.git("config", "theta.smudgeLimit", "1m")
    versions.git("checkout", "--quiet", "other")
    assert_delivered(versions, OTHER)


def test_small_checkpoints_and_a_limit_that_is_large_go_through_git(versions: Repo) -> None:
    versions.git("config", "theta.streamLimit", str(len(FIRST)))
    versions.git("checkout", "--quiet", "other")
    assert_streamed(versions, OTHER)
    versions.git("config", "theta.streamLimit", str(len(FIRST) - 1))
    versions.git("checkout", "--quiet", "main")
    assert_delivered(versions, SECOND)


def hook(repo: Repo, name: str, text: str, folder: str = ".git/hooks") -> Path:
    path = repo.path / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("name", "command", "content"),
    [
        ("post-checkout", ("checkout", "--quiet", "other"), OTHER),
        ("post-checkout", ("switch", "--quiet", "other"), OTHER),
        ("post-merge", ("merge", "--quiet", "other"), None),
        ("commit-msg", ("merge", "--no-edit", "other"), None),
        ("pre-merge-commit", ("merge", "--no-edit", "other"), None),
        ("reference-transaction", ("reset", "--hard", "other"), OTHER),
        ("post-index-change", ("reset", "--hard", "other"), OTHER),
    ],
)
def test_a_hook_that_may_look_sees_the_checkpoint(
    versions: Repo, name: str, command: tuple[str, ...], content: bytes | None
) -> None:
    hook(versions, name, "cp a.st seen")
    versions.git(*command)
    made = versions.read("a.st")
    assert content in (made, None)
    assert versions.read("seen") == made
    assert_streamed(versions, made)


def test_hooks_elsewhere_and_in_the_configuration_may_look_too(versions: Repo) -> None:
    path = hook(versions, "post-checkout", "cp a.st seen", folder="../hooks")
    versions.git("config", "core.hooksPath", str(path.parent))
    versions.git("checkout", "--quiet", "other")
    assert versions.read("seen") == OTHER
    assert_streamed(versions, OTHER)
    versions.git("config", "--unset", "core.hooksPath")
    versions.git("config", "hook.looks.event", "post-checkout")
    versions.git("checkout", "--quiet", "main")
    assert_streamed(versions, SECOND)


def test_hooks_that_do_not_run_or_are_of_git_lfs_do_not_count(versions: Repo) -> None:
    hook(versions, "post-checkout", "cp a.st seen").chmod(0o644)
    hook(versions, "pre-commit", "cp a.st seen")
    versions.git("checkout", "--quiet", "other")
    assert_delivered(versions, OTHER)
    (versions.path / ".git/hooks/post-checkout").unlink()
    plain = Repo.init(versions.path.parent / "plain")
    plain.git("lfs", "install", "--local")
    for name in ("post-checkout", "post-merge"):
        shutil.copy2(plain.path / ".git/hooks" / name, versions.path / ".git/hooks" / name)
    versions.git("checkout", "--quiet", "main")
    assert_delivered(versions, SECOND)
    versions.git("merge", "--quiet", "--no-edit", "other")
    assert sent(versions) < 20_000
    looks = "cp a.st seen\n"
    for branch, line in (
        ("other", looks),
        ("main", f"command -v git-lfs >/dev/null && {looks}"),
        ("other", "#\n" * 2**16 + looks),
    ):
        hook(versions, "post-checkout", line)
        versions.git("checkout", "--quiet", "-f", branch)
        assert versions.read("seen") == versions.read("a.st")
        (versions.path / "seen").unlink()
    program = hook(versions, "program", "cp a.st seen", folder="../tools")
    (versions.path / ".git/hooks/post-checkout").write_text(f"#!{program}\n")
    versions.git("checkout", "--quiet", "main")
    assert versions.read("seen") == versions.read("a.st")


# An editor that somebody leaves once the model has come, or who does not wait for it.
WAITING = "i=0; while [ $(wc -c < a.st) -lt 100000 ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done; cp a.st seen"


@pytest.mark.parametrize("tool", [f"{WAITING}; git status --porcelain > status", ""], ids=["waiting", "at once"])
@pytest.mark.parametrize("options", [(), ("--edit",), ("-S", "--no-edit")], ids=" ".join)
def test_a_merge_that_waits_for_someone(versions: Repo, options: tuple[str, ...], tool: str) -> None:
    import pty  # which Windows has not

    versions.write("note.txt", b"another note\n")
    editor = hook(versions, "editor", tool, folder="../tools")
    versions.git("config", "gpg.program", str(hook(versions, "gpg", f"{tool}\nexit 1", folder="../tools")))
    terminal, end = pty.openpty()
    variables = os.environ | {"GIT_EDITOR": str(editor)}
    process = subprocess.Popen(
        ["git", "merge", *options, "other"], cwd=versions.path, stdin=end, stdout=end, stderr=end, env=variables
    )
    os.close(end)
    with suppress(OSError):
        while os.read(terminal, 4096):
            pass
    os.close(terminal)
    assert process.wait(SECONDS) == (128 if "-S" in options else 0)
    made = versions.read("a.st")
    assert made not in (FIRST, SECOND, OTHER)
    assert versions.read("note.txt") == b"another note\n"
    if tool:
        assert versions.read("seen") == made
        assert versions.read("status") == b"M  a.st\n M note.txt\n?? seen\n?? status\n"
    assert 0 < sent(versions) < len(made) // 10
    assert leftovers(versions.path / ".git" / "theta") == []
    status = (versions.path / "a.st").stat()
    assert noted(versions) == {"ino": status.st_ino % 2**32, "size": status.st_size}


def test_a_conflict_that_git_settles_as_it_was_before(versions: Repo) -> None:
    """For that, Git may run merge drivers of the user's, and then writes the index that it has in memory."""
    versions.git("config", "rerere.enabled", "true")
    versions.git("config", "rerere.autoUpdate", "true")
    versions.git("config", "merge.slow.driver", "sleep 0.6; git merge-file %A %O %B")
    versions.write(".git/info/attributes", b"note.txt merge=slow\n")
    for branch in ("other", "main"):
        versions.git("checkout", "--quiet", branch)
        versions.write("note.txt", f"a note of {branch}\n".encode())
        versions.git("commit", "--quiet", "--all", "--message", "a note")
    versions.git("merge", "other", accept=(1,))
    versions.write("note.txt", b"a note of both\n")
    versions.git("commit", "--quiet", "--all", "--no-edit")
    versions.git("reset", "--quiet", "--hard", "HEAD~1")
    done = versions.run_git("merge", "other")
    assert "Staged 'note.txt' using previous resolution" in done.err + done.out
    assert versions.git("status", "--porcelain") == "M  a.st\nM  note.txt\n"
    versions.git("merge", "--abort")
    assert versions.read("a.st") == SECOND


@pytest.mark.parametrize("slow", ["clean", "merge", "editor"])
def test_what_a_merge_stashes_by_itself_comes_back(versions: Repo, slow: str) -> None:
    """Git checks out the stashed checkpoint as it was, long before it ends: it has its index in memory meanwhile."""
    versions.write("b.st", FIRST)
    versions.commit("another checkpoint")
    versions.write("b.st", OTHER)
    versions.write("note.txt", b"another note\n")
    if slow == "clean":
        versions.git("config", "filter.slow.clean", "sleep 0.6; cat")
        versions.write(".git/info/attributes", b"note.txt filter=slow\n")
    elif slow == "merge":
        driver = versions.git("config", "merge.theta.driver").strip()
        versions.git("config", "merge.theta.driver", f"sleep 0.6; {driver}")
    options = ("--edit" if slow == "editor" else "--no-edit", "--autostash")
    done = versions.run_git("merge", *options, "other", GIT_EDITOR="sleep 0.6; :")
    assert "Applied autostash" in done.err + done.out
    assert versions.read("b.st") == OTHER
    assert versions.read("note.txt") == b"another note\n"
    assert versions.read("a.st") not in (FIRST, SECOND, OTHER)
    assert versions.git("status", "--porcelain") == " M b.st\n M note.txt\n"
    assert versions.git("stash", "list") == ""
    assert leftovers(versions.path / ".git" / "theta") == []


@pytest.mark.parametrize("command", ["rebase", "rebase --exec", "cherry-pick", "revert"])
def test_git_that_goes_on_is_sent_the_checkpoint(versions: Repo, command: str) -> None:
    versions.git("switch", "--quiet", "other")
    sent(versions)
    match command:
        case "rebase":
            versions.git("rebase", "--quiet", "main")
        case "rebase --exec":
            versions.git("rebase", "--quiet", "--exec", "cp a.st seen", "main")
            assert versions.read("seen") == versions.read("a.st")
        case "cherry-pick":
            versions.git("cherry-pick", "main")
        case _:
            versions.git("revert", "--no-edit", "HEAD")
            assert versions.read("a.st") == FIRST
    assert_streamed(versions, versions.read("a.st"))


def test_another_program_of_gits_index_is_sent_the_checkpoint(versions: Repo) -> None:
    shutil.copyfile(versions.path / ".git/index", versions.path / ".git/other-index")
    versions.git("checkout", "other", "--", "a.st", GIT_INDEX_FILE=".git/other-index")
    assert versions.read("a.st") == OTHER
    assert sent(versions) > len(OTHER)


def at_the_end(repo: Repo, script: str) -> None:
    """Have a script run when Git has ended, before the filter learns of that.

    The `:` is what keeps the pipe open: a shell becomes the last command, whose output may go elsewhere.
    """
    through(repo, f"{{ cat; {script}\n:\n}} | {FILTER}")


def test_what_lies_there_instead_of_the_manifest_stays(versions: Repo) -> None:
    at_the_end(versions, "echo mine > a.st")
    versions.git("checkout", "--quiet", "other")
    assert versions.read("a.st") == b"mine\n"
    assert leftovers(versions.path / ".git" / "theta") == []
    at_the_end(versions, "rm a.st")
    versions.git("checkout", "--quiet", "-f", "main")
    assert not (versions.path / "a.st").exists()
    assert leftovers(versions.path / ".git" / "theta") == []


def test_what_is_written_while_the_index_is_waited_for_stays(versions: Repo) -> None:
    (versions.path.parent / "mine").write_bytes(FIRST)
    busy = "(sleep 0.4; cp ../mine a.st; sleep 0.2; rm .git/index.lock) >/dev/null 2>&1 &"
    at_the_end(versions, f"touch .git/index.lock; {busy}")
    assert versions.run_git("checkout", "--quiet", "other").err == ""
    through(versions, FILTER)
    assert versions.read("a.st") == FIRST
    assert versions.git("status", "--porcelain") == " M a.st\n"
    assert leftovers(versions.path / ".git" / "theta") == []


def test_what_the_index_is_told_meanwhile_stays(versions: Repo) -> None:
    at_the_end(versions, "git rm --quiet --cached a.st >/dev/null")
    versions.git("checkout", "--quiet", "other")
    assert versions.read("a.st") == OTHER
    assert versions.git("ls-files", "a.st") == ""
    first = versions.git("rev-parse", "main~1:a.st").strip()
    at_the_end(versions, f"git update-index --cacheinfo 100644,{first},a.st")
    versions.git("checkout", "--quiet", "-f", "main")
    through(versions, FILTER)
    assert versions.read("a.st") == SECOND
    assert first in versions.git("ls-files", "-s", "a.st")
    assert versions.git("status", "--porcelain") == "MM a.st\n"


def test_nobody_reads_what_is_said(versions: Repo) -> None:
    versions.write("b.st", layers(seed=200))
    versions.commit("two")
    versions.git("checkout", "--quiet", "HEAD~1")
    at_the_end(versions, "touch .git/index.lock")
    read, write = os.pipe()
    os.close(read)
    subprocess.run(["git", "checkout", "--quiet", "main", "--", "."], cwd=versions.path, stderr=write, check=False)
    os.close(write)
    assert versions.read("b.st") == layers(seed=200)
    assert leftovers(versions.path / ".git" / "theta") == []


def test_nothing_is_put_through_a_symbolic_link(versions: Repo, tmp_path: Path) -> None:
    versions.write("sub/b.st", layers(seed=50))
    versions.commit("below")
    versions.git("rm", "--quiet", "-r", "sub")
    versions.git("commit", "--quiet", "-m", "gone")
    elsewhere = tmp_path / "elsewhere"
    at_the_end(versions, f"mv sub {elsewhere}; ln -s {elsewhere} sub")
    versions.git("checkout", "--quiet", "HEAD~1")
    assert manifest.starts_like((elsewhere / "b.st").read_bytes())
    assert leftovers(versions.path / ".git" / "theta") == []


def test_an_index_that_another_process_holds_is_waited_for(versions: Repo) -> None:
    lock = versions.path / ".git/index.lock"
    at_the_end(versions, "touch .git/index.lock; (sleep 0.5; rm .git/index.lock) >/dev/null 2>&1 &")
    assert versions.run_git("checkout", "--quiet", "other").err == ""
    assert versions.read("a.st") == OTHER
    assert noted(versions)["size"] == len(OTHER)
    at_the_end(versions, "touch .git/index.lock")
    done = versions.run_git("checkout", "--quiet", "main")
    assert versions.read("a.st") == SECOND
    assert done.err.startswith("git-theta: a.st: Git will take it for modified (File exists: ")
    assert done.err.endswith("; run: git add -- a.st\n")
    lock.unlink()
    through(versions, FILTER)
    versions.git("add", "--", "a.st")
    assert versions.git("status", "--porcelain") == ""


@linux_only
def test_signals_that_come_late_leave_nothing_half_done(versions: Repo, tmp_path: Path) -> None:
    lock, pid = versions.path / ".git/index.lock", tmp_path / "pid"
    through(versions, f"{{ cat; touch {lock}; }} | sh -c 'echo $$ >{pid}; exec {FILTER}'")
    process = subprocess.Popen(["git", "checkout", "--quiet", "other"], cwd=versions.path, stderr=subprocess.PIPE)
    end = time.monotonic() + SECONDS
    while not (process.poll() is not None or _ignores_signals(int(pid.read_text() or 0) if pid.exists() else 0)):
        assert time.monotonic() < end
        time.sleep(0.001)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(int(pid.read_text()), number)
    lock.unlink()
    _, complaints = process.communicate(timeout=SECONDS)
    assert complaints == b""
    assert versions.read("a.st") == OTHER
    assert noted(versions)["size"] == len(OTHER)
    assert leftovers(versions.path / ".git" / "theta") == []


def _ignores_signals(pid: int) -> bool:
    """Whether a process ignores SIGTERM, which ours does when it has only to put files in place."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    return bool(ignored >> (signal.SIGTERM - 1) & 1)


def test_one_that_fails_fails_the_command_and_the_others_are_delivered(versions: Repo) -> None:
    versions.write("b.st", layers(seed=200))
    versions.commit("two")
    before = {path.name for path in versions.objects()}
    versions.write("b.st", layers(seed=300))
    versions.write("a.st", FIRST)
    versions.commit("three")
    versions.git("checkout", "--quiet", "HEAD~1")
    for path in versions.objects():
        if path.name not in before:
            path.chmod(0o644)
            path.write_bytes(bytes(path.stat().st_size))
    done = versions.run_git("checkout", "--quiet", "main")
    assert done.code != 0
    assert "git-theta: b.st: " in done.err
    assert versions.read("a.st") == FIRST
    assert leftovers(versions.path / ".git" / "theta") == []


@pytest.mark.parametrize("left", ["content", "manifest"])
@pytest.mark.parametrize("limit", ["0", "1t"])
def test_a_checkout_that_fails_leaves_what_was_there(versions: Repo, limit: str, left: str) -> None:
    versions.git("config", "theta.streamLimit", limit)
    versions.git("checkout", "--quiet", "other")
    versions.write("b.st", model(7))
    versions.commit("beside")
    if left == "manifest":
        versions.dematerialise("a.st")
    was = versions.read("a.st")
    here = set(versions.objects())
    versions.git("checkout", "--quiet", "-b", "new")
    versions.write("a.st", layers(seed=77))
    versions.write("b.st", model(8))
    versions.commit("new")
    versions.git("checkout", "--quiet", "other", GIT_THETA_SKIP_SMUDGE="1" if left == "manifest" else "0")
    versions.git("checkout", "--quiet", "other", "--", ".")
    for path in set(versions.objects()) - here:
        path.chmod(0o644)
        path.unlink()
    done = versions.run_git("checkout", "--quiet", "new")
    assert done.code != 0
    assert "which is not" in done.err
    assert versions.read("a.st") == was
    assert versions.git("branch", "--show-current") == "other\n"
    assert versions.git("status", "--porcelain") == ""
    assert leftovers(versions.path / ".git" / "theta") == []


def test_a_settled_file_is_merged_again(versions: Repo) -> None:
    versions.write("a.st", layers(count=3))  # without the layer that the other branch has changed
    versions.commit("smaller")
    assert versions.run_git("merge", "--no-edit", "other").code == 1
    versions.write("a.st", OTHER)
    versions.git("add", "a.st")
    versions.git("checkout", "-m", "--", "a.st")
    assert versions.git("status", "--porcelain") == "UU a.st\n"


def test_a_submodule_is_checked_out(versions: Repo, tmp_path: Path) -> None:
    outer = Repo.init(tmp_path / "outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(versions.path), "inner")
    outer.commit("second")
    inner = Repo(outer.path / "inner")
    inner.git("checkout", "--quiet", "origin/other")
    outer.commit("other")
    outer.git("checkout", "--quiet", "--recurse-submodules", "HEAD~1")
    assert inner.read("a.st") == SECOND
    assert inner.git("status", "--porcelain") == ""


@linux_only
def test_a_disk_that_is_full(versions: Repo) -> None:
    code, stderr, said = run_confined(versions, SMALL_FILES, "git", "checkout", "--quiet", "other")
    assert code != 0
    assert len(said) == 1, stderr
    assert said[0].startswith("git-theta: a.st: ")
    assert leftovers(versions.path / ".git" / "theta") == []
    versions.git("checkout", "--quiet", "-f", "other")
    assert versions.read("a.st") == OTHER


@pytest.fixture
def slow(repo: Repo, tmp_path: Path) -> Repo:
    """Two commits with a hundred megabytes in the second, one thread to write it, and a note of the filter's pid."""
    repo.track("*.st")
    repo.commit("first")
    repo.write("a.st", large())
    repo.commit("second")
    pid = shlex.quote(str(tmp_path / "pid"))
    through(repo, f"echo $$ >{pid}.new; mv {pid}.new {pid}; exec {FILTER}")
    repo.git("config", "theta.threads", "1")
    repo.git("checkout", "--quiet", "HEAD~1")
    return repo


def _kill_filter(process: "subprocess.Popen[bytes]", pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _kill_git(process: "subprocess.Popen[bytes]", pid: int) -> None:
    process.kill()


def _interrupt(process: "subprocess.Popen[bytes]", pid: int) -> None:
    os.killpg(process.pid, signal.SIGINT)


def _terminate(process: "subprocess.Popen[bytes]", pid: int) -> None:
    process.terminate()


@pytest.mark.parametrize("stop", [_kill_filter, _kill_git, _interrupt, _terminate])
@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.2, 0.3])
def test_stopped_at_any_moment(
    slow: Repo, tmp_path: Path, stop: Callable[["subprocess.Popen[bytes]", int], None], after_s: float
) -> None:
    (tmp_path / "pid").unlink(missing_ok=True)
    process = subprocess.Popen(
        ["git", "checkout", "--quiet", "main"], cwd=slow.path, stderr=subprocess.PIPE, start_new_session=True
    )
    end = time.monotonic() + SECONDS
    while not (tmp_path / "pid").exists() and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(after_s)
    pid = int((tmp_path / "pid").read_text())
    with suppress(ProcessLookupError):  # it was faster
        stop(process, pid)
    process.communicate(timeout=SECONDS)
    place = slow.path / "a.st"
    text = slow.git("cat-file", "blob", "main:a.st").encode()
    assert not place.exists() or place.read_bytes() in (large(), text)
    if stop is not _kill_filter:
        assert leftovers(slow.path / ".git" / "theta") == []
    (slow.path / ".git/index.lock").unlink(missing_ok=True)
    slow.git("checkout", "--quiet", "-f", "main")
    assert place.read_bytes() == large()
    assert slow.git("status", "--porcelain") == ""
