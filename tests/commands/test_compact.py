"""`git theta compact`: the same checkpoints in other objects, staged, and nothing else touched."""

import itertools
import os
from pathlib import Path

import pytest

from git_theta import manifest
from git_theta.manifest import Manifest
from tests.checkpoints import safetensors, trained, weights
from tests.repositories import Repo, model
from tests.sites import Site

NAME = "a.safetensors"
LARGE = 17 * 2**20  # bytes of a value that is not held in memory
_times = itertools.count(1_000_000_000)


def versions(count: int = 3, elements: int = 128 * 160) -> list[bytes]:
    """A tensor trained from version to version, and one that stays."""
    values = [weights(elements)]
    for seed in range(1, count):
        values.append(trained(values[-1], seed, scale=3e-9))
    rest = {"still": ("F32", (128, 160), weights(128 * 160, 9))}
    return [safetensors({"trained": ("F32", (elements,), value), **rest}) for value in values]


def commit_versions(repo: Repo, contents: list[bytes], name: str = NAME) -> None:
    for content in contents:
        # Older than the index, or Git looks at the content again whatever the index says.
        os.utime(repo.write(name, content), (next(_times), next(_times)))
        repo.commit()


def stored(repo: Repo, name: str = NAME) -> dict[str, list[str]]:
    """The updates of each parameter in the index."""
    return {key: [step.update for step in row.store] for key, row in parsed(repo, name).parameters.items()}


def parsed(repo: Repo, name: str = NAME) -> Manifest:
    return manifest.parse(repo.blob(name))


def test_chains_are_stored_whole_and_staged(tracked: Repo) -> None:
    contents = versions()
    commit_versions(tracked, contents)
    before = parsed(tracked)
    assert stored(tracked) == {"trained": ["dense", "delta", "delta"], "still": ["dense"]}
    file = (tracked.path / NAME).stat()
    out = tracked.ok("compact", NAME)
    assert out.startswith("compacted 1 parameter of 1 file: ")
    assert stored(tracked) == {"trained": ["dense"], "still": ["dense"]}
    after = parsed(tracked)
    assert (after.digest, after.size, after.layout) == (before.digest, before.size, before.layout)
    assert after.parameters["still"] == before.parameters["still"]
    assert after.parameters["trained"].digest == before.parameters["trained"].digest
    assert (tracked.path / NAME).stat() == file
    assert tracked.git("status", "--porcelain") == f"M  {NAME}\n"
    tracked.git("commit", "--quiet", "-m", "compact")
    tracked.ok("fsck")
    (tracked.path / NAME).unlink()
    tracked.git("checkout", "--", NAME)
    assert tracked.read(NAME) == contents[-1]
    assert tracked.ok("compact", ".") == "nothing to compact: no parameter is stored as a chain\n"


def test_git_need_not_look_at_the_file_again(tracked: Repo) -> None:
    commit_versions(tracked, versions())
    tracked.ok("compact", NAME)
    tracked.git("config", "filter.theta.process", "false")
    assert tracked.git("status", "--porcelain") == f"M  {NAME}\n"


def test_adding_the_same_content_again_keeps_what_was_compacted(tracked: Repo) -> None:
    commit_versions(tracked, versions())
    tracked.ok("compact", NAME)
    text = tracked.blob(NAME)
    for _ in range(2):
        (tracked.path / NAME).touch()
        tracked.git("add", NAME)
        assert tracked.blob(NAME) == text
        assert stored(tracked)["trained"] == ["dense"]
        tracked.git("commit", "--quiet", "--all", "--allow-empty", "-m", "compact")
        assert tracked.git("status", "--porcelain") == ""


def test_the_next_version_builds_on_what_was_compacted(tracked: Repo) -> None:
    contents = versions(4)
    commit_versions(tracked, contents[:3])
    tracked.ok("compact", NAME)
    tracked.git("commit", "--quiet", "-m", "compact")
    commit_versions(tracked, contents[3:])
    assert stored(tracked)["trained"] == ["dense", "delta"]


@pytest.mark.parametrize("compression", ["auto", "none"])
def test_values_of_every_size(tracked: Repo, compression: str) -> None:
    """One that is not held in memory, one that is; the same value under two names."""
    first, second = weights(LARGE // 4), weights(64 * 1024)
    contents = [_of_every_size(first, second), _of_every_size(trained(first, scale=3e-9), trained(second, scale=3e-9))]
    commit_versions(tracked, contents)
    assert set(map(len, stored(tracked).values())) == {2}
    tracked.git("config", "theta.compression", compression)
    assert tracked.ok("compact", NAME).startswith("compacted 3 parameters of 1 file: ")
    assert set(map(len, stored(tracked).values())) == {1}
    rows = parsed(tracked).parameters
    assert rows["held"].store == rows["twice"].store
    assert (rows["large"].store[0].size == LARGE) == (compression == "none")
    (tracked.path / NAME).unlink()
    tracked.ok("checkout", NAME)
    assert tracked.read(NAME) == contents[1]
    assert not list((tracked.path / ".git" / "theta" / "tmp").iterdir())


def _of_every_size(large: bytes, held: bytes) -> bytes:
    shape = (len(held) // 4,)
    tensors = {"large": ("F32", (len(large) // 4,), large), "held": ("F32", shape, held), "twice": ("F32", shape, held)}
    return safetensors(tensors)


def test_small_values_share_an_object(tracked: Repo) -> None:
    """Chains of values that are too small for an object of their own."""
    found = parsed(tracked)
    rows = {}
    for name, count in (("x", 10), ("y", 20), ("empty", 0)):
        value = weights(count, count)
        tracked.write("one.safetensors", safetensors({name: ("F32", (count,), value)}))
        tracked.git("add", "one.safetensors")
        record = parsed(tracked, "one.safetensors").parameters[name]
        [step] = record.store
        rows[name] = manifest.Record(
            record.dtype, record.shape, record.size, record.digest, (step, manifest.Step("dense", step.pieces))
        )
    tracked.stage_blob("c.safetensors", manifest.format(_with(found, rows)))
    tracked.ok("compact", "c.safetensors")
    made = parsed(tracked, "c.safetensors").parameters
    pieces = [step.pieces for name in ("x", "y") for step in made[name].store]
    assert len({piece.oid for [piece] in pieces}) == 1
    assert made["empty"].store == (manifest.Step("dense", ()),)


def _with(found: Manifest, rows: dict[str, manifest.Record]) -> Manifest:
    return manifest.Manifest(found.format, found.size, found.digest, found.layout, rows)


def test_dry_run_stores_and_stages_nothing(tracked: Repo) -> None:
    commit_versions(tracked, versions())
    objects = tracked.objects()
    out = tracked.ok("compact", "--dry-run", ".")
    assert out.startswith("would compact 1 parameter of 1 file: ")
    assert "at most 81.9 KB stored whole" in out
    assert tracked.git("status", "--porcelain") == ""
    assert tracked.objects() == objects


def test_changes_that_are_not_staged_stay_so(tracked: Repo) -> None:
    commit_versions(tracked, versions())
    tracked.write(NAME, model(7))
    tracked.ok("compact", NAME)
    assert stored(tracked)["trained"] == ["dense"]
    assert tracked.git("status", "--porcelain") == f"MM {NAME}\n"
    assert tracked.read(NAME) == model(7)
    (tracked.path / NAME).unlink()
    assert tracked.git("status", "--porcelain") == f"MD {NAME}\n"


def test_a_manifest_in_the_worktree_is_replaced(tracked: Repo) -> None:
    commit_versions(tracked, versions())
    tracked.dematerialise(NAME)
    tracked.ok("compact", NAME)
    assert tracked.read(NAME) == tracked.blob(NAME)
    assert tracked.git("status", "--porcelain") == f"M  {NAME}\n"
    tracked.git("add", "--all")
    assert stored(tracked)["trained"] == ["dense"]


def test_a_sparse_checkout_stays_sparse(tracked: Repo) -> None:
    commit_versions(tracked, versions(), "sub/b.safetensors")
    tracked.git("sparse-checkout", "set", "--no-cone", "/*", "!/sub")
    assert not (tracked.path / "sub").exists()
    tracked.ok("compact", "sub/b.safetensors")
    assert stored(tracked, "sub/b.safetensors")["trained"] == ["dense"]
    assert tracked.git("status", "--porcelain") == "M  sub/b.safetensors\n"


def test_a_missing_object_is_one_line_and_the_other_file_is_done(tracked: Repo) -> None:
    commit_versions(tracked, versions())
    commit_versions(tracked, [model(100)[:-4] + b"abcd"], "sub/b.safetensors")
    [_, *rest] = parsed(tracked).parameters["trained"].store
    gone = next(path for path in tracked.objects() if path.name == rest[0].pieces[0].oid)
    gone.unlink()
    assert "parameter 'trained' needs object" in tracked.fails(4, "compact", NAME)
    assert tracked.git("status", "--porcelain") == ""
    done = tracked.theta("compact", ".")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert done.out.startswith("compacted 1 parameter of 1 file: ")
    assert tracked.git("status", "--porcelain") == "M  sub/b.safetensors\n"


def test_a_damaged_object_is_named_and_nothing_is_staged(tracked: Repo) -> None:
    commit_versions(tracked, versions())
    [first, *_] = parsed(tracked).parameters["trained"].store
    path = next(path for path in tracked.objects() if path.name == first.pieces[0].oid)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    said = tracked.fails(5, "compact", NAME)
    assert "parameter 'trained': " in said
    assert first.pieces[0].oid in said
    assert tracked.git("status", "--porcelain") == ""


def test_a_clone_without_objects_says_what_to_do(site: Site) -> None:
    commit_versions(site.repo, versions())
    site.repo.git("push", "--quiet", "origin", "main")
    clone = site.clone(GIT_THETA_SKIP_SMUDGE="1")
    assert "git theta pull" in clone.fails(4, "compact", NAME)
    clone.ok("pull", NAME)
    clone.ok("compact", NAME)
    assert clone.git("status", "--porcelain") == f"M  {NAME}\n"


def test_an_index_that_is_locked_stays_as_it_is(tracked: Repo) -> None:
    commit_versions(tracked, versions())
    lock = Path(tracked.path / ".git" / "index.lock")
    lock.touch()
    assert "index.lock" in tracked.fails(7, "compact", NAME)
    lock.unlink()
    assert tracked.git("status", "--porcelain") == ""


@pytest.mark.parametrize("path", ["none", ".gitattributes"])
def test_a_path_that_is_not_tracked_is_one_line(tracked: Repo, path: str) -> None:
    tracked.fails(3, "compact", path)


def test_a_manifest_that_cannot_be_used_is_one_line(tracked: Repo) -> None:
    tracked.stage_blob("bad.safetensors", tracked.blob(NAME).replace(b"[128, 160]", b"[-1]", 1))
    tracked.fails(3, "compact", "bad.safetensors")
