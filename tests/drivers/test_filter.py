"""The filter process, spoken to by hand: what it answers to what Git may send, and to what Git never would."""

import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from git_theta import manifest
from git_theta.errors import RepositoryError
from tests.checkpoints import leftovers, noise
from tests.drivers.filter_client import FLUSH, OFFERED, FilterClient, Reply, packet
from tests.repositories import Repo, model

SUCCESS = ["status=success"]
ERROR = ["status=error"]
BIG = noise(3 * 2**20 + 17)
HEAVY = {"torch", "zarr", "rich", "click"}
LATE = {"numpy", "zstandard", "blake3", "sqlite3", "subprocess"}


def cleaned(client: FilterClient, path: str, content: bytes, *, step: int = 65516) -> bytes:
    """The manifest of content, as the filter gives it."""
    reply = client.request("clean", path, content, step=step)
    assert (reply.status, reply.after) == (SUCCESS, []), client.complaints
    return reply.content


def smudged(client: FilterClient, path: str, text: bytes) -> bytes:
    """The content of a manifest, as the filter gives it."""
    reply = client.request("smudge", path, text)
    assert (reply.status, reply.after) == (SUCCESS, []), client.complaints
    return reply.content


def test_starting_imports_nothing_heavy(repo: Repo) -> None:
    with FilterClient(repo.path, "-X", "importtime") as client:
        assert client.close() == 0
        rows = client.complaints.splitlines()
    imported = {row.rpartition("|")[2].strip().partition(".")[0] for row in rows if row.startswith("import time:")}
    assert "git_theta" in imported
    assert imported & (HEAVY | LATE) == set()


def test_a_whole_checkpoint_and_back_imports_no_framework(repo: Repo) -> None:
    with FilterClient(repo.path, "-X", "importtime") as client:
        assert smudged(client, "m", cleaned(client, "m", model())) == model()
        assert client.close() == 0
        rows = client.complaints.splitlines()
    imported = {row.rpartition("|")[2].strip().partition(".")[0] for row in rows if row.startswith("import time:")}
    assert "numpy" in imported
    assert imported & HEAVY == set()


@pytest.mark.parametrize(
    ("client_lines", "offered", "taken"),
    [
        (["git-filter-client", "version=2"], OFFERED, list(OFFERED)),
        (["git-filter-client", "version=2", "version=3"], OFFERED, list(OFFERED)),
        (["git-filter-client", "version=2"], OFFERED[:2], list(OFFERED[:2])),
        (["git-filter-client", "version=2"], [*OFFERED[::-1], "capability=list", "unknown"], list(OFFERED)),
        (["git-filter-client", "version=2"], ["capability=later"], []),
        (["git-filter-client", "version=2"], [], []),
    ],
    ids=["git 2.39", "later versions too", "before delay", "more capabilities", "only unknown ones", "none"],
)
def test_handshake_takes_up_what_both_know(
    repo: Repo, client_lines: list[str], offered: list[str], taken: list[str]
) -> None:
    with FilterClient(repo.path, handshake=False) as client:
        assert client.shake_hands(client_lines, offered) == taken
        assert client.close() == 0
        assert client.complaints == ""


@pytest.mark.parametrize(
    "opening",
    [
        packet(b"git-filter-client\n") + packet(b"version=1\n") + FLUSH,
        packet(b"git-filter-client\n") + FLUSH,
        packet(b"git-something-else\n") + packet(b"version=2\n") + FLUSH,
        FLUSH,
        b"hello, filter\n",
        b"ffffand more",
        b"0001",
    ],
    ids=["version 1", "no version", "another client", "nothing", "not packets", "packet too long", "delimiter"],
)
def test_what_is_not_git_gets_one_line_and_no_answer(repo: Repo, opening: bytes) -> None:
    with FilterClient(repo.path, handshake=False) as client:
        client.send(opening)
        assert client.close() == RepositoryError.exit_code
        assert client.complaints.startswith("git-theta: ")
        assert client.complaints.count("\n") == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        packet(b"git-filter-client\n"),
        packet(b"git-filter-client\n")[:9],
        packet(b"git-filter-client\n") + packet(b"version=2\n") + FLUSH + packet(b"capability=clean\n"),
    ],
    ids=["at once", "before the version", "in a packet", "before the capabilities"],
)
def test_closing_during_the_handshake_is_a_quiet_end(repo: Repo, sent: bytes) -> None:
    with FilterClient(repo.path, handshake=False) as client:
        client.send(sent)
        client.process.communicate()
        assert (client.process.returncode, client.complaints) == (0, "")


@pytest.mark.parametrize(
    "sent",
    [
        packet(b"command=clean\n"),
        packet(b"command=clean\n") + packet(b"pathname=a.st\n") + FLUSH,
        packet(b"command=clean\n") + packet(b"pathname=a.st\n") + FLUSH + packet(noise(60000)),
        packet(b"command=clean\n") + packet(b"pathname=a.st\n") + FLUSH + 40 * packet(noise(60000)),
        packet(b"command=clean\n") + packet(b"pathname=a.st\n") + FLUSH + packet(noise(60000))[:-1],
        packet(b"command=smudge\n") + packet(b"pathname=a.st\n") + FLUSH + packet(b'{"git-theta": 1'),
    ],
    ids=["in the keys", "before the content", "in held content", "in spooled content", "in a packet", "in a manifest"],
)
def test_closing_in_a_request_is_a_quiet_end_without_leftovers(repo: Repo, sent: bytes) -> None:
    with FilterClient(repo.path) as client:
        client.send(sent)
        assert (client.close(), client.complaints) == (0, "")
    assert repo.objects() == []
    assert leftovers(repo.path / ".git" / "theta") == []


def test_closing_while_the_worktree_file_is_taken_in_leaves_whole_objects_only(repo: Repo) -> None:
    repo.write("a.st", BIG)
    with FilterClient(repo.path) as client:
        client.send_lines("command=clean", "pathname=a.st")
        client.send(b"".join(packet(BIG[start : start + 65516]) for start in range(0, 2**21, 65516)))
        assert (client.close(), client.complaints) == (0, "")
    assert leftovers(repo.path / ".git" / "theta") == []
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in repo.objects())


def test_closing_before_an_answer_is_read_is_a_quiet_end(repo: Repo) -> None:
    with FilterClient(repo.path) as client:
        text = cleaned(client, "a.st", BIG)
        client.send_lines("command=smudge", "pathname=a.st")
        client.send_content(text)
        assert client.lines() == SUCCESS
        client.hang_up()
        assert client.process.wait(timeout=60) == 0
        assert client.complaints == ""


def test_unknown_command_fails_alone(repo: Repo) -> None:
    with FilterClient(repo.path) as client:
        assert client.request("polish\x1b[2J", "a.st", BIG) == Reply(ERROR)
        assert client.request("", "a.st", b"") == Reply(ERROR)
        client.send_lines("pathname=a.st")
        client.send_content(b"")
        assert client.reply() == Reply(ERROR)
        assert smudged(client, "a.st", cleaned(client, "a.st", b"content")) == b"content"
        assert client.close() == 0
        assert client.complaints.count("\n") == 3
        assert "\x1b" not in client.complaints


@pytest.mark.parametrize("step", [1, 65515, 65516], ids=lambda step: f"packets of {step}")
@pytest.mark.parametrize("size", [1, 65516, 65517, 2**20, 2**20 + 1], ids=lambda size: f"{size} bytes")
def test_content_comes_back_however_it_is_cut(repo: Repo, size: int, step: int) -> None:
    content = noise(size, size) if step > 1 else noise(min(size, 70000), size)
    with FilterClient(repo.path) as client:
        text = cleaned(client, "a.st", content, step=step)
        assert manifest.parse(text).size == len(content)
        assert smudged(client, "a.st", text) == content


def test_empty_content_stays_empty_and_asks_for_nothing(repo: Repo) -> None:
    with FilterClient(repo.path) as client:
        assert cleaned(client, "a.st", b"") == b""
        assert smudged(client, "a.st", b"") == b""
        assert client.request("smudge", "a.st", b"", "can-delay=1") == Reply(SUCCESS, b"", [])
        assert client.available() == []
    assert repo.objects() == []


def test_a_packet_without_data_is_no_end(repo: Repo) -> None:
    with FilterClient(repo.path) as client:
        client.send_lines("command=clean", "pathname=a.st")
        client.send(b"0004" + packet(b"one") + b"0004" + packet(b"two") + FLUSH)
        text = client.reply().content
        assert smudged(client, "a.st", text) == b"onetwo"


@pytest.mark.parametrize("size", [100, BIG], ids=["held", "spooled"])
@pytest.mark.parametrize("keys", [(), ("ref=refs/heads/main", "treeish=" + "0" * 40, "blob=" + "1" * 40, "later=1")])
def test_plain_content_passes_through_smudge(repo: Repo, size: bytes | int, keys: tuple[str, ...]) -> None:
    content = noise(size) if isinstance(size, int) else size
    with FilterClient(repo.path) as client:
        assert client.request("smudge", "a.st", content, "can-delay=1", *keys) == Reply(SUCCESS, content, [])
        assert client.available() == []
        assert client.close() == 0
    assert leftovers(repo.path / ".git" / "theta") == []


def test_delayed_paths_are_announced_once_and_then_given(repo: Repo) -> None:
    contents = {"a.st": model(1), "sub/b\nb.st": model(2), "ж.st": BIG}
    with FilterClient(repo.path) as client:
        texts = {path: cleaned(client, path, content) for path, content in contents.items()}
        for path, text in texts.items():
            assert client.request("smudge", path, text, "can-delay=1") == Reply(["status=delayed"])
        assert sorted(client.available()) == sorted(contents)
        for path, content in reversed(contents.items()):
            assert client.request("smudge", path, b"") == Reply(SUCCESS, content, [])
        assert client.available() == []
        assert client.available() == []
        # Asked for once more, a path is a new request, with the content that comes with it.
        assert client.request("smudge", "a.st", b"") == Reply(SUCCESS, b"", [])
        assert client.request("smudge", "a.st", texts["a.st"], "can-delay=1") == Reply(["status=delayed"])
        assert client.available() == ["a.st"]
        assert smudged(client, "a.st", b"") == contents["a.st"]
        assert client.close() == 0
        assert client.complaints == ""


def test_a_delayed_path_that_is_never_asked_for_is_no_reason_to_stay(repo: Repo) -> None:
    with FilterClient(repo.path) as client:
        text = cleaned(client, "a.st", model())
        assert client.request("smudge", "a.st", text, "can-delay=1") == Reply(["status=delayed"])
        assert client.available() == ["a.st"]
        assert client.close() == 0


def test_delayed_paths_that_cannot_be_had_come_last(repo: Repo) -> None:
    """Git gives up at the first path that fails: those that are well must be asked for before."""
    with FilterClient(repo.path) as client:
        texts = {path: cleaned(client, path, model(seed)) for seed, path in enumerate(("b.st", "d.st", "f.st"), 10)}
        lacking = cleaned(client, "e.st", model(99))
        oid = manifest.parse(lacking).parameters["layers.1.weight"].store[0].pieces[0].oid
        next(path for path in repo.objects() if path.name == oid).unlink()
        everything = {"a.st": texts["b.st"][:-3], "c.st": lacking} | texts
        for path in sorted(everything):
            assert client.request("smudge", path, everything[path], "can-delay=1") == Reply(["status=delayed"])
        assert sorted(client.available()) == sorted(texts)
        assert sorted(client.available()) == ["a.st", "c.st"]
        assert client.available() == []
        for seed, path in enumerate(texts, 10):
            assert smudged(client, path, b"") == model(seed)
        assert client.request("smudge", "a.st", b"") == Reply(ERROR)
        assert client.request("smudge", "c.st", b"") == Reply(ERROR)
        assert client.close() == 0
        assert oid in client.complaints


def test_damage_found_on_the_way_takes_the_content_back(repo: Repo) -> None:
    with FilterClient(repo.path) as client:
        text = cleaned(client, "a.st", model())
        oid = manifest.parse(text).parameters["layers.2.weight"].store[0].pieces[0].oid
        path = next(path for path in repo.objects() if path.name == oid)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.chmod(0o600)
        path.write_bytes(content)
        reply = client.request("smudge", "a.st", text)
        assert ERROR in (reply.status, reply.after)
        assert client.complaints.count("\n") == 1
        assert client.complaints.startswith("git-theta: a.st: parameter 'layers.2.weight': ")
        assert oid in client.complaints
        other = cleaned(client, "b.st", model(50))
        assert smudged(client, "b.st", other) == model(50)
        assert client.close() == 0


def test_large_content_is_sent_before_damage_at_its_end_is_known(repo: Repo) -> None:
    """`status=error` after content: the case that the second status list is for."""
    content = noise(40 * 2**20, 3)
    with FilterClient(repo.path) as client:
        text = cleaned(client, "a.bin", content)
        [path] = [path for path in repo.objects() if path.stat().st_size > 2**20]
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(bytes([content[-1] ^ 1]))
        reply = client.request("smudge", "a.bin", text)
        assert (reply.status, reply.after) == (SUCCESS, ERROR)
        assert 2**20 < len(reply.content) <= len(content)
        assert path.name in client.complaints
        assert smudged(client, "b.bin", cleaned(client, "b.bin", b"small")) == b"small"


def test_one_process_serves_many_files_of_both_kinds(repo: Repo) -> None:
    with FilterClient(repo.path) as client:
        for round_ in range(3):
            for seed in range(4):
                path = f"{seed}.st"
                assert smudged(client, path, cleaned(client, path, model(seed + round_))) == model(seed + round_)
        assert smudged(client, "big", cleaned(client, "big", BIG)) == BIG
        assert (client.close(), client.complaints) == (0, "")


@pytest.mark.parametrize("at", [0, 2**20 - 1, 2**20 + 1, 2**21, len(BIG) - 1], ids=lambda at: f"byte {at}")
def test_worktree_that_differs_costs_neither_content_nor_the_next_request(repo: Repo, at: int) -> None:
    repo.write("a.st", BIG[:at] + bytes([BIG[at] ^ 1]) + BIG[at + 1 :])
    repo.write("cut.st", BIG[:at])
    with FilterClient(repo.path) as client:
        for path in ("a.st", "cut.st", "a.st"):
            assert smudged(client, path, cleaned(client, path, BIG)) == BIG
        assert (client.close(), client.complaints) == (0, "")


def test_a_path_is_only_a_name(repo: Repo, tmp_path: Path) -> None:
    """Whatever the path says, the content of the pipe is what is stored."""
    (tmp_path / "outside").write_bytes(BIG[::-1])
    paths = [".", "no/such/folder/x", "x" * 4000, ".git/HEAD", "link", "folder"]
    outside = ["../outside", str(tmp_path / "outside"), "/dev/zero", ""]
    (repo.path / "link").symlink_to(tmp_path / "outside")
    (repo.path / "folder").mkdir()
    with FilterClient(repo.path) as client:
        for path in paths:
            assert smudged(client, path, cleaned(client, path, BIG)) == BIG
        assert client.complaints == ""
        for path in outside:  # Git itself has nothing to say of such a path
            assert client.request("clean", path, BIG) == Reply(ERROR)
        assert client.close() == 0
        assert client.complaints.count("\n") == len(outside)


def test_settings_that_mean_nothing_are_one_line(repo: Repo) -> None:
    repo.git("config", "theta.threads", "many")
    with FilterClient(repo.path) as client:
        client.send_lines("command=clean", "pathname=a.st")
        assert client.process.wait(timeout=60) == 3
        assert client.complaints == "git-theta: theta.threads is 'many'; set it to a whole number, as 512m or 1g\n"


def test_outside_of_a_repository_it_is_one_line(home: Path) -> None:
    with FilterClient(home) as client:
        client.send_lines("command=clean", "pathname=a.st")
        assert client.process.wait(timeout=60) == RepositoryError.exit_code
        assert client.complaints.startswith("git-theta: ")
        assert client.complaints.count("\n") == 1


def test_a_bug_fails_one_file_and_leaves_a_log(repo: Repo, tmp_path: Path) -> None:
    plant = "import git_theta.checkpoint as c; c.take = lambda *a, **k: 1 / 0"
    (tmp_path / "sitecustomize.py").write_text(plant)
    with FilterClient(repo.path, PYTHONPATH=str(tmp_path)) as client:
        assert client.request("clean", "a.st", b"content") == Reply(ERROR)
        assert client.request("clean", "b.st", BIG) == Reply(ERROR)
        assert smudged(client, "a.st", b"plain") == b"plain"
        assert client.close() == 0
        lines = client.complaints.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("git-theta: a.st: a bug in git-theta (70); please report it with ")
    log = Path(lines[0].rpartition(" with ")[2]).read_text()
    assert "ZeroDivisionError" in log
    assert sys.version.split()[0] in log


def test_a_checkpoint_that_git_should_not_hold_is_left_as_its_manifest(repo: Repo) -> None:
    repo.git("config", "theta.smudgeLimit", "100k")
    with FilterClient(repo.path) as client:
        small, large = cleaned(client, "small", b"small"), cleaned(client, "large", model())
        assert smudged(client, "small", small) == b"small"
        assert smudged(client, "large", large) == large
        assert "git theta pull -- large\n" in client.complaints
        assert client.complaints.count("\n") == 1
        assert smudged(client, "x'$(touch gone)'\u00e9", large) == large
        # What is to be pasted into a shell is one word there.
        assert shlex.split(client.complaints.splitlines()[-1])[-2:] == ["--", "x'$(touch gone)'\u00e9"]


def test_skip_smudge_passes_everything_through(repo: Repo) -> None:
    with FilterClient(repo.path, GIT_THETA_SKIP_SMUDGE="1") as client:
        text = cleaned(client, "a.st", model())
        for content in (text, text[:-5], b"<<<<<<< a\n" + text, json.dumps({"git-theta": 9}).encode(), BIG, b""):
            assert client.request("smudge", "a.st", content, "can-delay=1") == Reply(SUCCESS, content, [])
