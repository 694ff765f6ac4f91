"""`git diff`, `git show` and `git log -p` of checkpoints, by the diff driver."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.checkpoints import linux_only
from tests.repositories import Repo, model

A = "a.safetensors"


@pytest.fixture
def driven(tracked: Repo) -> Repo:
    """`tracked` where Git starts the driver."""
    tracked.git("config", "diff.theta.command", "git-theta diff-driver")
    return tracked


def changed(seed: int = 0) -> bytes:
    """The model with one element of its last layer changed."""
    made = bytearray(model(seed))
    made[-3] ^= 1
    return bytes(made)


def test_worktree_index_and_commits(driven: Repo) -> None:
    assert driven.git("diff") == ""
    driven.write(A, changed())
    worktree = driven.git("diff")
    assert worktree.startswith(f"{A}  ")
    assert "4 parameters: 1 changed, 3 unchanged" in worktree
    assert "~ layers.2.weight   [128, 160] F32" in worktree
    assert "1 of 20,480 elements" in worktree
    driven.git("add", A)
    assert driven.git("diff") == ""
    staged = driven.git("diff", "--cached")
    assert " stored of " in staged
    assert staged == driven.ok("diff", "--cached")
    driven.git("commit", "-qm", "two")
    assert driven.git("diff", "HEAD~1", "HEAD") == staged
    assert driven.git("show", "--ext-diff", "--format=") == staged
    assert staged in driven.git("log", "-p", "--ext-diff", "-1")
    assert '"digest"' in driven.git("show", "--format="), "without being asked, it shows the manifests"


def test_what_git_shows_without_the_driver_needs_no_object(driven: Repo) -> None:
    """The manifests' text: `--stat` counts its lines, and a patch is one of text."""
    driven.write(A, changed())
    driven.commit()
    for path in driven.objects():
        path.unlink()
    assert " 1 file changed, 2 insertions(+), 2 deletions(-)" in driven.git("diff", "--stat", "HEAD~1", "HEAD")
    assert f" {A} | 4 ++--" in driven.git("log", "--stat", "-1")
    assert driven.git("diff", "--name-status", "HEAD~1", "HEAD") == f"M\t{A}\n"
    lines = driven.git("log", "-p", "-1", "--format=").splitlines()
    changes = [line.partition(":")[0] for line in lines if line[:2] in ('+"', '-"')]
    assert changes == ['-"format"', '+"format"', '-"layers.2.weight"', '+"layers.2.weight"']
    assert '"layers.2.weight"' in driven.git("format-patch", "-1", "--stdout")


def test_a_missing_object_leaves_the_summary(driven: Repo) -> None:
    driven.write(A, changed())
    driven.commit()
    for path in driven.objects():
        path.unlink()
    for command in (("diff", "HEAD~1", "HEAD"), ("show", "--ext-diff", "--format=")):
        done = driven.run_git(*command)
        assert (done.code, done.err) == (0, "")
        assert "4 parameters: 1 changed, 3 unchanged" in done.out
        assert "no statistics of 1 parameter: object " in done.out
        assert done.out.rstrip().endswith("is not on this machine; run: git theta fetch REVISION")


def test_added_removed_and_renamed(driven: Repo) -> None:
    driven.git("mv", A, "moved.safetensors")
    driven.write("moved.safetensors", changed())
    driven.git("rm", "-q", "sub/b.safetensors")
    driven.write("new.safetensors", model(50))
    driven.commit()
    out = driven.git("diff", "-M", "HEAD~1", "HEAD")
    heads = [line for line in out.splitlines() if line and not line.startswith("  ")]
    assert [head.split("  ")[0] for head in heads] == [
        f"{A} -> moved.safetensors",
        "new.safetensors",
        "sub/b.safetensors",
    ]
    assert "4 parameters: 1 changed, 3 unchanged" in heads[0]
    assert "  0000000.." in heads[1]
    assert "..0000000  " in heads[2]


def test_a_file_in_conflict_and_the_files_after_it(driven: Repo) -> None:
    driven.git("checkout", "-q", "-b", "other")
    driven.write(A, model(7))
    driven.commit()
    driven.git("checkout", "-q", "main")
    driven.write(A, model(8))
    driven.commit()
    driven.git("-c", "merge.theta.driver=false", "merge", "-q", "other", accept=(1,))
    driven.write("sub/b.safetensors", changed(100))
    assert "\nsub/b.safetensors  " in driven.git("diff")
    driven.git("add", "sub")
    out = driven.git("diff", "--cached")
    assert out.startswith(f"{A}  is in conflict\n")
    assert "\nsub/b.safetensors  " in out


def test_what_cannot_be_compared_does_not_end_the_diff(driven: Repo) -> None:
    """A manifest of a later version, left in the worktree by hand."""
    driven.write(A, b'{"git-theta": 2, "about": "x"}' + b" " * 200)
    driven.write("sub/b.safetensors", changed(100))
    done = driven.run_git("-c", "filter.theta.required=false", "-c", "filter.theta.process=", "diff")
    assert done.code == 0
    assert f"{A}  cannot be compared: it is of version 2" in done.out.replace("its manifest cannot be used: ", "")
    assert "\nsub/b.safetensors  " in done.out


def test_a_file_that_git_has_as_it_is_is_compared_too(repo: Repo) -> None:
    repo.git("config", "diff.theta.command", "git-theta diff-driver")
    repo.write(A, model())
    repo.commit()
    assert repo.theta("track", "*.safetensors").code == 0
    repo.write(A, changed())
    repo.commit()
    out = repo.git("diff", "HEAD~1", "HEAD", "--", A)
    assert "4 parameters: 1 changed, 3 unchanged" in out


def test_colours_follow_git(driven: Repo) -> None:
    driven.write(A, changed())
    driven.git("config", "color.ui", "always")
    assert driven.git("diff").startswith("\x1b[1m" + A)
    assert "\x1b" not in driven.git("diff", NO_COLOR="1")


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell who started a process")
def test_colours_follow_the_command_line(driven: Repo) -> None:
    driven.write(A, changed())
    assert driven.git("diff", "--color").startswith("\x1b[1m" + A)
    assert driven.git("diff", "--color=always", NO_COLOR="1").startswith("\x1b[1m" + A)
    assert driven.git("-c", "alias.d=diff --color", "d").startswith("\x1b[1m" + A)
    driven.git("config", "color.ui", "always")
    for word in ("--no-color", "--color=never"):
        assert "\x1b" not in driven.git("diff", word)
    assert driven.git("diff", "--no-color", "--color").startswith("\x1b[1m" + A)
    assert driven.git("diff", "--", A, "--no-color").startswith("\x1b[1m" + A)


def test_slots_of_colours_are_those_of_git(driven: Repo) -> None:
    driven.git("config", "color.diff.meta", "yellow")
    driven.git("config", "color.diff", "always")
    driven.write(A, changed())
    assert driven.git("diff").startswith("\x1b[33m" + A)
    driven.git("config", "color.diff", "false")
    assert "\x1b" not in driven.git("diff")


@linux_only
@pytest.mark.parametrize(
    ("variables", "has_colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["colours", "NO_COLOR", "a dumb terminal"],
)
def test_on_a_terminal_with_a_pager(driven: Repo, variables: dict[str, str], has_colours: bool) -> None:
    """Git starts the pager, whose pipe is the driver's stdout."""
    import pty

    driven.write(A, changed())
    controller, terminal = pty.openpty()
    more = {"TERM": "xterm", "GIT_PAGER": "sed s/^/paged:/", **variables}
    done = subprocess.Popen(
        ["git", "diff"], cwd=driven.path, stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, **more}
    )
    os.close(terminal)
    said = b""
    with suppress(OSError):  # a terminal that nobody writes to any more
        while data := os.read(controller, 2**16):
            said += data
    os.close(controller)
    assert done.wait() == 0
    assert b"\x1b[?25" not in said, "no bar of progress beside the pager"
    first = said.splitlines()[0]
    assert first.startswith(b"paged:\x1b[1m" + A.encode() if has_colours else b"paged:" + A.encode())


def test_from_a_folder_below_and_outside(driven: Repo, tmp_path: Path) -> None:
    driven.write("sub/b.safetensors", changed(100))
    assert driven.git("diff", ".", cwd="sub").startswith("sub/b.safetensors  ")
    assert driven.git("-C", str(driven.path), "diff", "--relative", cwd="..").startswith("sub/b.safetensors  ")


def test_arguments_that_are_not_of_git(tracked: Repo) -> None:
    assert "it is Git that starts this" in tracked.fails(3, "diff-driver", "a", "b")


@linux_only
def test_a_pager_that_is_left_early(tracked: Repo) -> None:
    tracked.write("a.safetensors", model(7))
    shell = 'git -c core.pager=cat --paginate diff | true; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(["bash", "-c", shell], cwd=tracked.path, capture_output=True, check=True)
    assert b"external diff died" not in done.stderr
    assert b"Traceback" not in done.stderr
