"""Manifests in the worktree: left there on request, cleaned to their canonical text, and never a "modified" file."""

import json
from collections.abc import Callable

import pytest

from git_theta import manifest, plugins
from tests.checkpoints import opened, take
from tests.git.kinds import layers
from tests.git.test_round_trip import touched
from tests.repositories import Repo, model


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    """A repository with a large and a small checkpoint committed."""
    repo.track("*.st")
    repo.write("large.st", layers())
    repo.write("small.st", model())
    repo.commit()
    return repo


def wide_manifest() -> bytes:
    """A manifest of more than a mebibyte."""
    record = manifest.parse(EMPTY).layout
    named = {f"layers.{index}.weight": record for index in range(6000)}
    return manifest.format(manifest.Manifest("opaque", 0, record.digest, record, named))


EMPTY = manifest.format(
    manifest.Manifest(
        "opaque",
        0,
        "ab" * 32,
        manifest.Record("opaque", (9,), 9, "cd" * 32, (manifest.Step("dense", (manifest.Piece("ef" * 32, 9, 0, 9),)),)),
        {},
    )
)


def _sorted(text: bytes) -> bytes:
    return json.dumps(json.loads(text), sort_keys=True, indent=1).encode()


RESPELLED: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda text: text,
    "CR LF": lambda text: text.replace(b"\n", b"\r\n"),
    "no last newline": lambda text: text[:-1],
    "more newlines": lambda text: b"\n\n" + text + b"\n\n",
    "indented": lambda text: json.dumps(json.loads(text), indent=4).encode(),
    "compact": lambda text: json.dumps(json.loads(text), separators=(",", ":")).encode(),
    "keys sorted": _sorted,
    "tabs": lambda text: text.replace(b'": ', b'":\t\t'),
    "another about": lambda text: text.replace(b'"about": "', b'"about": "edited: ', 1),
}


@pytest.mark.parametrize("size", ["small", "above a mebibyte"])
def test_a_manifest_is_stored_as_its_canonical_text(tracked: Repo, size: str) -> None:
    text = tracked.blob("small.st") if size == "small" else wide_manifest()
    for how, respell in RESPELLED.items():
        tracked.write(f"{how}.st", respell(text))
    before = tracked.objects()
    done = tracked.run_git("add", "--all")
    assert (done.code, done.err) == (0, "")
    assert [how for how in RESPELLED if tracked.blob(f"{how}.st") != text] == []
    assert tracked.objects() == before


@pytest.mark.parametrize("how", ["variable", "setting"])
def test_manifests_left_in_place_are_not_modified(tracked: Repo, how: str) -> None:
    if how == "setting":
        tracked.git("config", "theta.skipSmudge", "true")
    for name in ("large.st", "small.st"):
        (tracked.path / name).unlink()
    if how == "variable":
        tracked.git("checkout", "--", ".", GIT_THETA_SKIP_SMUDGE="1")
    else:
        tracked.git("checkout", "--", ".")
    for name in ("large.st", "small.st"):
        assert tracked.read(name) == tracked.blob(name)
        touched(tracked.path / name)
    assert tracked.git("status", "--porcelain") == ""
    assert tracked.git("diff") == ""
    tracked.git("add", "--all")
    tracked.git("commit", "--quiet", "--all", "--allow-empty", "-m", "nothing")
    assert tracked.git("diff", "HEAD~1", "--name-only") == ""
    tracked.git("config", "theta.skipSmudge", "false")
    tracked.ok("checkout")
    assert tracked.read("large.st") == layers()


def test_zero_in_the_variable_undoes_the_setting(tracked: Repo) -> None:
    tracked.git("config", "theta.skipSmudge", "true")
    (tracked.path / "small.st").unlink()
    tracked.git("checkout", "--", "small.st", GIT_THETA_SKIP_SMUDGE="0")
    assert tracked.read("small.st") == model()


def test_clone_without_smudge_has_manifests_and_can_commit(
    tracked: Repo, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("clone") / "clone"
    tracked.git("clone", "--quiet", str(tracked.path), str(path), GIT_THETA_SKIP_SMUDGE="1")
    clone = Repo(path)
    assert clone.read("large.st") == tracked.blob("large.st")
    assert clone.objects() == []
    clone.git("mv", "large.st", "moved.st")
    clone.git("commit", "--quiet", "--all", "-m", "moved")
    assert clone.git("rev-parse", "HEAD:moved.st") == tracked.git("rev-parse", "HEAD:large.st")
    assert clone.git("status", "--porcelain") == ""


def test_the_manifest_of_another_file_can_be_put_in_place(tracked: Repo) -> None:
    """Copying a manifest copies the checkpoint."""
    tracked.write("small.st", tracked.blob("large.st"))
    tracked.git("add", "small.st")
    assert tracked.git("rev-parse", ":small.st") == tracked.git("rev-parse", ":large.st")
    (tracked.path / "small.st").unlink()
    tracked.git("checkout", "--", "small.st")
    assert tracked.read("small.st") == layers()


LOOK_ALIKES: dict[str, Callable[[bytes], bytes]] = {
    "half of one": lambda text: text[: len(text) // 2],
    "in a list": lambda text: b"[" + text + b"]",
    "with a NUL": lambda text: text[:-1] + b"\0\n",
    "with an unknown key": lambda text: text.replace(b'"about"', b'"also": 1, "about"', 1),
    "without its first line": lambda text: text.partition(b"\n")[2],
}
TOO_LONG: dict[str, Callable[[bytes], bytes]] = {"above the longest": lambda text: text + b" " * (64 * 2**20)}


def test_text_that_only_looks_like_a_manifest_is_stored_as_bytes(tracked: Repo) -> None:
    text = tracked.blob("small.st")
    contents = {f"{kind}.st": make(text) for kind, make in (LOOK_ALIKES | TOO_LONG).items()}
    for name, content in contents.items():
        tracked.write(name, content)
    done = tracked.run_git("add", "--all")
    assert done.code == 0
    said = [line.partition(", but ")[0] for line in done.err.splitlines()]
    assert said == [f"git-theta: {kind}.st: it looks like a manifest" for kind in LOOK_ALIKES]
    for name, content in contents.items():
        assert manifest.parse(tracked.blob(name)).size == len(content)
        (tracked.path / name).unlink()
    tracked.git("commit", "--quiet", "-m", "texts")
    tracked.git("checkout", "--", ".")
    for name, content in contents.items():
        assert tracked.read(name) == content
        touched(tracked.path / name)
    assert tracked.git("status", "--porcelain") == ""


def test_a_manifest_of_a_later_version_is_never_wrapped_into_a_checkpoint(tracked: Repo) -> None:
    tracked.write("later.st", tracked.blob("small.st").replace(b'"git-theta": 1', b'"git-theta": 2', 1))
    done = tracked.run_git("add", "later.st")
    assert done.code != 0
    assert done.err.startswith(
        "git-theta: later.st: it is of version 2, and this git-theta reads 1; update git-theta\n"
    )
    assert "later.st" not in tracked.git("ls-files")


def test_a_manifest_that_lacks_a_parameter_is_one_and_fails_on_checkout(tracked: Repo) -> None:
    """That its layout has more is only known once that is read, and it may not be here."""
    lines = tracked.blob("small.st").splitlines(keepends=True)
    content = b"".join(lines[:4] + lines[5:])
    tracked.write("small.st", content)
    tracked.git("add", "small.st")
    assert tracked.blob("small.st") == content
    (tracked.path / "small.st").unlink()
    done = tracked.run_git("checkout", "--", "small.st")
    assert done.code != 0
    assert "git-theta: small.st: its layout does not place its parameters, or is not of its size\n" in done.err


def test_manifest_of_a_later_version_left_in_place_is_not_modified(tracked: Repo) -> None:
    later = tracked.blob("small.st").replace(b'"git-theta": 1', b'"git-theta": 2', 1)
    tracked.stage_blob("later.st", later)
    tracked.git("commit", "--quiet", "-m", "by a later git-theta")
    tracked.git("checkout", "--", "later.st", GIT_THETA_SKIP_SMUDGE="1")
    assert tracked.read("later.st") == later
    touched(tracked.path / "later.st")
    assert tracked.git("status", "--porcelain") == ""
    tracked.git("add", "--all")
    tracked.git("commit", "--quiet", "--allow-empty", "-m", "nothing")
    assert tracked.blob("later.st") == later


@pytest.mark.parametrize("size", ["small", "above a mebibyte"])
@pytest.mark.parametrize("where", ["around all of it", "inside"])
def test_manifest_with_conflict_markers_cannot_be_added(tracked: Repo, where: str, size: str) -> None:
    text = tracked.blob("small.st") if size == "small" else wide_manifest()
    head, tail = (b"", text) if where == "around all of it" else text.split(b"\n", 1)
    content = head + b"\n" * bool(head) + b"<<<<<<< HEAD\n" + tail + b"=======\n" + tail + b">>>>>>> other\n"
    tracked.write("small.st", content)
    before = tracked.objects()
    done = tracked.run_git("add", "small.st")
    assert done.code == 128
    said = [line for line in done.err.splitlines() if line.startswith("git-theta: ")]
    assert len(said) == 1
    assert said[0].startswith(
        "git-theta: small.st: it is a manifest with conflict markers; merge it: git theta resolve PATH"
    )
    assert tracked.git("diff", "--cached", "--name-only") == ""
    assert tracked.objects() == before
    tracked.git("checkout", "HEAD", "--", "small.st")
    assert tracked.read("small.st") == model()


def test_content_that_another_writer_cut_elsewhere_is_not_modified(
    tracked: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A colleague's git-theta may lack a format, or know a later one; the file is the same file."""
    content = tracked.read("small.st")
    with monkeypatch.context() as patch, opened(tracked.path / ".git" / "theta") as depot:
        patch.setattr(plugins, "formats", lambda: iter([]))
        other = manifest.format(take(content, depot))
    assert other != tracked.blob("small.st")
    tracked.stage_blob("small.st", other.replace(b'"opaque"', b'"another"'))
    tracked.git("commit", "--quiet", "-m", "cut in another way")
    touched(tracked.path / "small.st")
    assert tracked.git("status", "--porcelain") == ""
    tracked.git("add", "small.st")
    assert tracked.blob("small.st") == other.replace(b'"opaque"', b'"another"')
    tracked.write("small.st", content[:-1] + bytes([content[-1] ^ 1]))
    assert tracked.git("status", "--porcelain").split() == ["M", "small.st"]


def test_json_with_a_digest_of_its_own_passes_through(tracked: Repo) -> None:
    text = json.dumps({"name": "x", "digest": "0" * 64}).encode()
    tracked.stage_blob("meta.st", text)
    tracked.git("checkout", "--", "meta.st")
    assert tracked.read("meta.st") == text
