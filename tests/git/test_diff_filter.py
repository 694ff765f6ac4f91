"""What Git hands to a diff driver: manifests, so that naming what changed rebuilds nothing. Others get true bytes."""

import json
import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from git_theta import manifest
from tests.checkpoints import linux_only, safetensors, trained, weights
from tests.repositories import Repo, model

NAME = "a.safetensors"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows does not tell who started a process")


@pytest.fixture
def changed(tracked: Repo, tmp_path: Path) -> Repo:
    """A repository with two versions committed, whose diff driver notes how the files that it is given begin."""
    script = tmp_path / "driver.py"
    script.write_text(
        "import sys\n"
        f"with open({str(tmp_path / 'seen')!r}, 'ab') as seen:\n"
        "    for path in (sys.argv[2], sys.argv[5]):\n"
        "        seen.write(open(path, 'rb').read(14) + b'|')\n"
    )
    tracked.git("config", "diff.theta.command", f'"{sys.executable}" "{script}"')
    tracked.write(NAME, model(7))
    tracked.commit("second")
    return tracked


def seen(repo: Repo) -> list[bytes]:
    """The first bytes of each file that the driver was given since the last time; of an unpacked model, its header."""
    place = repo.path.parent / "seen"
    found = place.read_bytes().split(b"|")[:-1] if place.exists() else []
    place.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("diff", "HEAD~1", "HEAD"),
        ("-c", "alias.d=diff", "d", "HEAD~1", "HEAD"),
        ("-c", "alias.d=!git --no-pager diff HEAD~1", "d", "HEAD"),
        ("show", "--ext-diff"),
        ("-C", ".", "log", "-p", "-1", "--ext-diff"),
    ],
    ids=["diff", "alias", "shell alias", "show", "log"],
)
def test_a_diff_is_given_manifests(changed: Repo, command: tuple[str, ...]) -> None:
    changed.git(*command)
    assert seen(changed) == [manifest.MAGIC] * 2


def test_a_difftool_is_given_true_bytes_where_there_is_no_driver(changed: Repo) -> None:
    changed.git("config", "--unset", "diff.theta.command")
    changed.git("config", "--global", "--unset", "diff.theta.command")
    changed.git("-c", 'difftool.x.cmd=cp "$LOCAL" old; cp "$REMOTE" new', "difftool", "-y", "-t", "x", "HEAD~1", "HEAD")
    assert (changed.read("old"), changed.read("new")) == (model(0), model(7))


def test_a_path_that_has_another_driver_is_given_true_bytes(changed: Repo) -> None:
    (changed.path / ".git" / "info" / "attributes").write_text(f"{NAME} diff=mine\n")
    changed.git("config", "diff.mine.command", changed.git("config", "diff.theta.command").strip())
    changed.git("diff", "HEAD~1", "HEAD")
    assert seen(changed) == [model(0)[:14], model(7)[:14]]


def test_others_are_given_true_bytes(changed: Repo) -> None:
    argv = ["git", "cat-file", "--filters", f"HEAD:{NAME}"]
    assert subprocess.run(argv, cwd=changed.path, capture_output=True, check=True).stdout == model(7)
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=changed.path, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        member = archive.extractfile(NAME)
        assert member is not None
        assert member.read() == model(7)
    (changed.path / NAME).unlink()
    changed.git("checkout-index", NAME)
    assert changed.read(NAME) == model(7)


def test_a_checkout_that_a_diff_alias_begins_with_is_given_true_bytes(changed: Repo) -> None:
    changed.git("-c", "alias.diff2=!git checkout -q HEAD~1 && git diff --stat", "diff2")
    assert changed.read(NAME) == model(0)


LARGE = 4 * 2**20
COST = """
import json, resource, subprocess, sys
out = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True).stdout
with open("/proc/self/io") as file:
    rows = dict(line.split(": ") for line in file)
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([int(rows["wchar"]), int(rows["write_bytes"]), 1024 * most, len(out), out[:2000].decode("latin-1")]))
"""


def cost(repo: Repo, *command: str) -> tuple[int, int, int, int, str]:
    """What a Git command costs with all that it starts: bytes written anywhere, and to disks; memory of the largest.

    Then how much it prints, and how that begins. A process counts what its children did as well (proc_pid_io(5)).
    """
    argv = [sys.executable, "-c", COST, "git", *command]
    done = subprocess.run(argv, cwd=repo.path, capture_output=True, check=True)
    written, on_disk, memory, printed, text = json.loads(done.stdout)
    return written, on_disk, memory, printed, text


@pytest.fixture
def large(repo: Repo) -> Repo:
    """A model of 192 MiB in two commits, of which one tensor of 16 MiB was trained."""
    repo.track("*.safetensors")
    repo.git("config", "diff.theta.command", "git-theta diff-driver")
    tensors = {f"layers.{number}.weight": ("F32", (LARGE // 4, 4), bytes(4 * LARGE)) for number in range(11)}
    values = weights(LARGE)
    for one in (values, trained(values)):
        repo.write(NAME, safetensors({**tensors, "head.weight": ("F32", (LARGE // 4, 4), one)}))
        repo.commit()
    return repo


@linux_only
def test_a_diff_writes_no_checkpoint_anywhere(large: Repo) -> None:
    size = (large.path / NAME).stat().st_size
    os.utime(large.path / NAME, (10**9, 10**9))
    large.git("update-index", "--refresh")  # lest Git cleans a file that is as new as its index
    for command in (("diff", "HEAD~1", "HEAD"), ("diff", "--cached", "HEAD~1"), ("show", "--ext-diff", "--format=")):
        written, on_disk, memory, _, text = cost(large, *command)
        assert "12 parameters: 1 changed, 11 unchanged" in text
        assert "cosine" in text, "the statistics were computed"
        assert (written < 2**20, on_disk < 2 * 2**20) == (True, True), f"{command}: {written}, {on_disk}"
        assert memory < 128 * 2**20 < size
        (large.path / ".git" / "theta" / "statistics.sqlite").unlink()
    written, _, _, printed, _ = cost(large, "cat-file", "--filters", f"HEAD:{NAME}")
    assert (printed, written >= 2 * size) == (size, True), "the meter sees a checkpoint that is written"


@linux_only
def test_a_diff_of_the_worktree_stores_what_changed_and_no_more(large: Repo) -> None:
    """Git cleans the file, twice: it pipes it through the filter, which keeps the new tensor."""
    before = large.read(NAME)
    large.write(NAME, before[: -4 * LARGE] + weights(LARGE, 5))
    _, on_disk, _, _, text = cost(large, "diff")
    assert "12 parameters: 1 changed, 11 unchanged" in text
    assert on_disk < 24 * 2**20
