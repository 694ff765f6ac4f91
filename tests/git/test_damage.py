"""Damaged manifests and objects: one clear line, the other files in place, and never a wrong byte.

What Git itself leaves behind: it removes the old file before it asks for the new one and stops at the first that fails,
so there is no file at the path, while HEAD and the index stay as they were.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from git_theta import manifest
from tests.git.kinds import layers
from tests.git.test_round_trip import touched
from tests.repositories import Repo, model

HOSTILE_OID = "../" * 20 + "etc/passwd"
OTHERS = {"a.st": layers(2, seed=40), "z.st": model(3, layers=2)}


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    """A repository with a few checkpoints committed; `m.st`, in the middle, is the one to be damaged."""
    repo.track("*.st")
    repo.write("m.st", model(0))
    for name, content in OTHERS.items():
        repo.write(name, content)
    repo.commit("base")
    return repo


def complaint(stderr: str) -> str:
    """The one line that Git-Theta said."""
    [line] = [line for line in stderr.splitlines() if line.startswith("git-theta: ")]
    return line


def assert_others_come(repo: Repo) -> None:
    for name, content in OTHERS.items():
        assert repo.read(name) == content


def _second_parameter(text: bytes) -> bytes:
    return text.splitlines(keepends=True)[5]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut short": (lambda text: text[: len(text) // 2], "its manifest cannot be used: it is not JSON"),
    "cut at a line": (lambda text: text[: text.rindex(b"}}")], "its manifest cannot be used: it is not JSON"),
    "without its first line": (lambda text: text.partition(b"\n")[2], "its manifest cannot be used: it is not JSON"),
    "without a parameter": (
        lambda text: text.replace(_second_parameter(text), b""),
        "its layout does not place its parameters, or is not of its size",
    ),
    "with a parameter twice": (
        lambda text: text.replace(_second_parameter(text), 2 * _second_parameter(text)),
        "its manifest cannot be used: it is not JSON: a key stands twice in one object",
    ),
    "with conflict markers": (
        lambda text: text.replace(b"\n", b"\n<<<<<<< ours\n=======\n>>>>>>> theirs\n", 1),
        "its manifest has conflict markers; take a side: git checkout --ours (or --theirs) -- PATH",
    ),
    "conflict markers around it": (
        lambda text: b"<<<<<<< ours\n" + text + b"=======\n" + text + b">>>>>>> theirs\n",
        "its manifest has conflict markers; take a side: git checkout --ours (or --theirs) -- PATH",
    ),
    "of version 2": (
        lambda text: text.replace(b'"git-theta": 1', b'"git-theta": 2', 1),
        "its manifest cannot be used: it is of version 2, and this git-theta reads 1; update git-theta",
    ),
    "with an unknown update": (
        lambda text: text.replace(b'"dense"', b'"quantum"'),
        "the layout: update 'quantum' is not installed",
    ),
    "with an unknown key": (
        lambda text: text.replace(b'"format"', b'"run": "rm -rf ~", "format"', 1),
        "its manifest cannot be used: it has 'run', unknown to version 1",
    ),
    "with a path for an oid": (
        lambda text: text.replace(b'[["dense", [["', b'[["dense", [["' + HOSTILE_OID.encode(), 1),
        "its manifest cannot be used: an oid of its layout is not 64 lower-case hex characters",
    ),
    "of another size": (
        lambda text: text.replace(b'"size": ', b'"size": 1', 1),
        "its layout does not place its parameters, or is not of its size",
    ),
    "of an absurd size": (
        lambda text: text.replace(b'"size": ', b'"size": 99999999999999999999', 1),
        "its manifest cannot be used: its size is not a whole number",
    ),
    "with a shape that does not fit": (
        lambda text: text.replace(b"[128, 160]", b"[128, 160000000]", 1),
        "its layout does not place its parameters, or is not of its size",
    ),
    "with another digest": (
        lambda text: text.replace(manifest.parse(text).digest.encode(), b"0" * 64),
        "its digest is not that of its layout and parameters",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_manifest_that_cannot_be_used_fails_alone(tracked: Repo, kind: str) -> None:
    damage, said = DAMAGE[kind]
    tracked.stage_blob("m.st", damage(tracked.blob("m.st")))
    head, index = tracked.git("rev-parse", "HEAD"), tracked.git("ls-files", "-s")
    for name in ("m.st", *OTHERS):
        (tracked.path / name).unlink()
    done = tracked.run_git("checkout", "--", ".")
    assert done.code != 0
    assert complaint(done.err).startswith(f"git-theta: m.st: {said}")
    assert not (tracked.path / "m.st").exists()
    assert_others_come(tracked)
    assert (tracked.git("rev-parse", "HEAD"), tracked.git("ls-files", "-s")) == (head, index)


def test_branch_with_a_damaged_manifest_can_be_looked_at_and_mended(tracked: Repo) -> None:
    tracked.stage_blob("m.st", tracked.blob("m.st")[:-9])
    tracked.git("commit", "--quiet", "-m", "damaged")
    tracked.git("checkout", "--quiet", "--force", "HEAD~1")
    done = tracked.run_git("checkout", "main")
    assert done.code != 0
    assert complaint(done.err).startswith("git-theta: m.st: its manifest cannot be used: ")
    assert tracked.git("rev-parse", "HEAD") == tracked.git("rev-parse", "main~1")
    tracked.git("checkout", "--quiet", "--force", "main", GIT_THETA_SKIP_SMUDGE="1")
    assert tracked.read("m.st") == tracked.blob("m.st")
    tracked.git("checkout", "--quiet", "HEAD~1", "--", "m.st")
    assert tracked.read("m.st") == model(0)


def test_clone_with_a_damaged_manifest_has_the_other_files(tracked: Repo, tmp_path: Path) -> None:
    """`filter.theta.process` must stand in the global configuration, as it does after `git theta install`."""
    tracked.stage_blob("m.st", tracked.blob("m.st")[:-9])
    tracked.git("commit", "--quiet", "-m", "damaged")
    (tracked.path / "template" / "theta").mkdir(parents=True)
    (tracked.path / ".git" / "theta" / "objects").rename(tracked.path / "template" / "theta" / "objects")
    template = f"--template={tracked.path}/template"
    done = tracked.run_git("clone", "--quiet", template, str(tracked.path), str(tmp_path / "clone"))
    assert done.code != 0
    assert complaint(done.err).startswith("git-theta: m.st: its manifest cannot be used: ")
    clone = Repo(tmp_path / "clone")
    assert_others_come(clone)
    assert not (clone.path / "m.st").exists()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(hashlib.shake_256(b"garbage").digest(path.stat().st_size))


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


OBJECT_DAMAGE: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "bit flipped": _flip,
    "truncated": _truncate,
    "longer": _lengthen,
    "empty": _empty,
    "garbage of its size": _garbage,
    "zeros of its size": _zeros,
    "a folder": _folder,
}


@pytest.mark.parametrize("where", ["parameter 'layers.1.weight'", "the layout"])
@pytest.mark.parametrize("kind", OBJECT_DAMAGE)
def test_damaged_object_is_named_and_nothing_wrong_written(tracked: Repo, kind: str, where: str) -> None:
    found = manifest.parse(tracked.blob("m.st"))
    record = found.layout if where == "the layout" else found.parameters["layers.1.weight"]
    oid = record.store[0].pieces[0].oid
    path = next(path for path in tracked.objects() if path.name == oid)
    head, index = tracked.git("rev-parse", "HEAD"), tracked.git("ls-files", "-s")
    path.chmod(0o600)
    OBJECT_DAMAGE[kind](path)
    for name in ("m.st", *OTHERS):
        (tracked.path / name).unlink()
    done = tracked.run_git("checkout", "--", ".")
    assert done.code != 0
    line = complaint(done.err)
    assert line.startswith(f"git-theta: m.st: {where}")
    assert oid in line
    assert "git theta fsck, git theta fetch --all" in line or "run: git theta pull" in line
    assert ("is not on this machine" in line) == (kind == "missing")
    assert not (tracked.path / "m.st").exists()
    assert (tracked.git("rev-parse", "HEAD"), tracked.git("ls-files", "-s")) == (head, index)
    if where == "the layout" or kind not in ("bit flipped", "garbage of its size", "zeros of its size"):
        # What is seen before any value is rebuilt keeps no other file waiting.
        assert_others_come(tracked)
    for name, content in OTHERS.items():
        assert not (tracked.path / name).exists() or tracked.read(name) == content


def test_version_that_cannot_be_had_leaves_head_and_the_worktree(tracked: Repo) -> None:
    oid = manifest.parse(tracked.blob("m.st")).parameters["layers.1.weight"].store[0].pieces[0].oid
    tracked.write("m.st", model(50))
    tracked.commit("another version")
    head, index = tracked.git("rev-parse", "HEAD"), tracked.git("ls-files", "-s")
    path = next(path for path in tracked.objects() if path.name == oid)
    path.chmod(0o600)
    _flip(path)
    done = tracked.run_git("checkout", "--quiet", "HEAD~1")
    assert done.code != 0
    assert oid in complaint(done.err)
    assert tracked.read("m.st") == model(50)
    assert (tracked.git("rev-parse", "HEAD"), tracked.git("ls-files", "-s")) == (head, index)
    assert tracked.git("status", "--porcelain") == ""


def test_adding_the_file_again_mends_a_store_once_the_bad_object_is_removed(tracked: Repo) -> None:
    oid = manifest.parse(tracked.blob("m.st")).parameters["layers.1.weight"].store[0].pieces[0].oid
    path = next(path for path in tracked.objects() if path.name == oid)
    path.unlink()
    touched(tracked.path / "m.st")
    tracked.git("add", "m.st")
    assert tracked.git("status", "--porcelain") == ""
    assert hashlib.sha256(path.read_bytes()).hexdigest() == oid


def test_whole_objects_under_a_lying_manifest_are_not_the_checkpoint(tracked: Repo) -> None:
    """Every object is what its name says, and rebuilds something else than the parameter's digest."""
    text = tracked.blob("m.st")
    pieces = [manifest.parse(text).parameters[f"layers.{index}.weight"].store[0].pieces[0] for index in (0, 1)]
    own, other = (f'["{piece.oid}", {piece.size}]'.encode() for piece in pieces)
    swapped = text.replace(own, b"?").replace(other, own).replace(b"?", other)
    tracked.stage_blob("m.st", swapped)
    (tracked.path / "m.st").unlink()
    done = tracked.run_git("checkout", "--", "m.st")
    assert done.code != 0
    line = complaint(done.err)
    assert line.startswith("git-theta: m.st: parameter 'layers.0.weight': its objects are whole, but rebuild ")
    assert line.endswith(": the manifest is wrong")
    assert not (tracked.path / "m.st").exists()


def test_lying_manifest_never_makes_an_add_store_nothing(tracked: Repo, tmp_path: Path) -> None:
    """A hostile clone says that a parameter of ours lies in an object of theirs, which is here and of its size."""
    tracked.git("clone", "--quiet", "--no-checkout", str(tracked.path), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    text = tracked.blob("m.st")
    for piece in [step.pieces[0] for row in manifest.parse(text).records() for step in row.store]:
        fake = hashlib.shake_256(piece.oid.encode()).digest(piece.size)
        name = hashlib.sha256(fake).hexdigest()
        text = text.replace(piece.oid.encode(), name.encode())
        path = clone.path / ".git" / "theta" / "objects" / name[:2] / name[2:4] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(fake)
    clone.git("reset", "--quiet")
    clone.stage_blob("m.st", text)
    clone.git("commit", "--quiet", "-m", "a lie")
    clone.write("m.st", model(0))
    clone.git("add", "m.st")
    assert clone.blob("m.st") == tracked.blob("m.st")
    (clone.path / "m.st").unlink()
    clone.git("checkout", "--", "m.st")
    assert clone.read("m.st") == model(0)


def test_large_checkpoint_that_fails_at_its_end_leaves_no_file(tracked: Repo) -> None:
    """By then Git has been sent most of the bytes; it writes none of them."""
    content = hashlib.shake_256(b"large").digest(40 * 2**20)
    tracked.write("m.st", content)
    tracked.git("add", "m.st")
    [piece] = manifest.parse(tracked.blob("m.st")).parameters["~bytes0"].store[0].pieces
    path = next(path for path in tracked.objects() if path.name == piece.oid)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(bytes([content[-1] ^ 1]))
    (tracked.path / "m.st").unlink()
    done = tracked.run_git("checkout", "--", "m.st")
    assert done.code != 0
    assert complaint(done.err).startswith(f"git-theta: m.st: parameter '~bytes0': object {piece.oid} is damaged")
    assert not (tracked.path / "m.st").exists()
