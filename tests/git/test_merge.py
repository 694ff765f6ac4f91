"""Git's own commands on a model that two branches changed: each merges it, or stops at a conflict that keeps ours."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from git_theta import manifest
from tests.checkpoints import leftovers
from tests.repositories import Repo

Arrays = dict[str, "np.ndarray[Any, Any]"]
NAME = "model.safetensors"
LARGE = np.random.default_rng(0).standard_normal((128, 160)).astype("<f4")
BASE: Arrays = {
    "a.weight": LARGE,
    "b.weight": np.arange(6, dtype="<f4"),
    "c.weight": np.ones((3, 4), "<f4"),
    "n": np.array([1, 2, 3], "<i8"),
}


def content(**changes: Any) -> bytes:
    """The file with these parameters instead; "__" in a name is a dot."""
    return safetensors.numpy.save({**BASE, **{name.replace("__", "."): array for name, array in changes.items()}})


def arrays(repo: Repo, name: str = NAME) -> Mapping[str, Any]:
    return safetensors.numpy.load(repo.read(name))


OURS = content(a__weight=LARGE + 1, b__weight=BASE["b.weight"] + 1)
THEIRS = content(a__weight=LARGE + 4, c__weight=BASE["c.weight"] * 2)
MEAN = ((LARGE + 1) + (LARGE + 4)) * np.float32(0.5)
MERGED = content(a__weight=MEAN, b__weight=BASE["b.weight"] + 1, c__weight=BASE["c.weight"] * 2)
MINE_N, THEIR_N = np.array([5, 2, 3], "<i8"), np.array([6, 2, 9], "<i8")


def branched(repo: Repo, base: bytes, ours: bytes, theirs: bytes, name: str = NAME) -> Repo:
    """`main` with ours checked out, and `other` with theirs, both from one commit."""
    repo.track(f"*{Path(name).suffix}")
    repo.write(name, base)
    repo.commit("base")
    repo.git("branch", "other")
    repo.write(name, ours)
    repo.commit("ours")
    repo.git("checkout", "--quiet", "other")
    repo.write(name, theirs)
    repo.commit("theirs")
    repo.git("checkout", "--quiet", "main")
    return repo


@pytest.fixture
def diverged(repo: Repo) -> Repo:
    return branched(repo, content(), OURS, THEIRS)


@pytest.fixture
def torn(repo: Repo) -> Repo:
    """Branches whose merge is a conflict in one integer parameter."""
    return branched(repo, content(), content(n=MINE_N, a__weight=LARGE + 1), content(n=THEIR_N, a__weight=LARGE + 4))


def assert_merged(repo: Repo) -> None:
    assert repo.read(NAME) == MERGED
    (repo.path / NAME).touch()
    assert repo.git("status", "--porcelain", "--untracked-files=no") == ""
    assert leftovers(repo.path / ".git" / "theta") == []


@pytest.mark.parametrize(
    "command",
    [
        ("merge", "--quiet", "--no-edit", "other"),
        ("merge", "--quiet", "--squash", "other"),
        ("cherry-pick", "other"),
        ("rebase", "--quiet", "other"),
        ("rebase", "--quiet", "--apply", "other"),
    ],
    ids=["merge", "squash", "cherry-pick", "rebase", "rebase by patches"],
)
def test_what_both_sides_changed_is_merged(diverged: Repo, command: tuple[str, ...]) -> None:
    done = diverged.run_git(*command)
    assert done.code == 0, done
    if "--squash" in command:
        diverged.git("commit", "--quiet", "-m", "squashed")
    assert_merged(diverged)


def test_revert_keeps_what_came_later(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write(NAME, content())
    repo.commit("base")
    repo.write(NAME, content(b__weight=BASE["b.weight"] + 1))
    repo.commit("b")
    repo.write(NAME, content(b__weight=BASE["b.weight"] + 1, a__weight=LARGE + 1))
    repo.commit("a")
    repo.git("revert", "--no-edit", "HEAD~1")
    assert repo.read(NAME) == content(a__weight=LARGE + 1)


def test_stash_pop_merges(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write(NAME, content())
    repo.commit("base")
    repo.write(NAME, THEIRS)
    repo.git("stash", "push", "--quiet")
    repo.write(NAME, OURS)
    repo.commit("ours")
    repo.git("stash", "pop", "--quiet")
    assert repo.read(NAME) == MERGED


def test_checkout_with_merge(diverged: Repo) -> None:
    diverged.git("checkout", "--quiet", "-b", "third", "HEAD~1")
    diverged.write(NAME, OURS)
    done = diverged.run_git("checkout", "--quiet", "--merge", "other")
    assert done.code == 0, done
    assert diverged.read(NAME) == MERGED


def test_merge_tree_and_remerge_diff(diverged: Repo) -> None:
    tree = diverged.git("merge-tree", "--write-tree", "main", "other").strip()
    text = diverged.git("cat-file", "blob", f"{tree}:{NAME}").encode()
    diverged.git("merge", "--quiet", "--no-edit", "other")
    assert diverged.blob(NAME) == text
    assert diverged.git("show", "--remerge-diff", "--format=") == ""


def test_merge_in_a_bare_repository(diverged: Repo, tmp_path: Path) -> None:
    diverged.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    diverged.git("theta", "push", str(tmp_path / "bare.git"), accept=(0, 1, 2, 3, 7, 9))
    bare = Repo(tmp_path / "bare.git")
    bare.git("remote", "set-url", "origin", str(diverged.path))
    (bare.path / "info").mkdir(exist_ok=True)
    (bare.path / "info" / "attributes").write_text("*.safetensors filter=theta diff=theta merge=theta -text\n")
    tree = bare.git("merge-tree", "--write-tree", "main", "other").strip()
    diverged.git("merge", "--quiet", "--no-edit", "other")
    assert bare.git("cat-file", "blob", f"{tree}:{NAME}").encode() == diverged.blob(NAME)


def test_the_merge_is_the_same_again(diverged: Repo) -> None:
    diverged.git("merge", "--quiet", "--no-edit", "other")
    text = diverged.blob(NAME)
    diverged.git("reset", "--quiet", "--hard", "HEAD~1")
    diverged.git("merge", "--quiet", "--no-edit", "other")
    assert diverged.blob(NAME) == text


@pytest.mark.parametrize(
    ("attribute", "updates"),
    [
        ("", ["dense", "delta", "delta", "average"]),
        ("theta-updates=delta", ["dense", "delta"]),
        ("-theta-updates", None),
    ],
    ids=["recipe", "difference", "whole"],
)
def test_a_mean_is_stored_as_the_path_wants_it(repo: Repo, attribute: str, updates: list[str] | None) -> None:
    step = np.random.default_rng(1).standard_normal((2, *LARGE.shape)).astype("<f4") * np.float32(1e-6)
    ours, theirs = LARGE + step[0], LARGE + step[1]
    branched(repo, content(), content(a__weight=ours), content(a__weight=theirs))
    with (repo.path / ".gitattributes").open("a") as file:
        file.write(f"*.safetensors {attribute}\n")
    repo.git("commit", "--quiet", "-am", "attribute")
    before = {path.name for path in repo.objects()}
    repo.git("merge", "--quiet", "--no-edit", "other")
    assert arrays(repo)["a.weight"].tobytes() == ((ours + theirs) * np.float32(0.5)).tobytes()
    made = [step.update for step in manifest.parse(repo.blob(NAME)).parameters["a.weight"].store]
    assert made == (updates or ["dense"])
    added = [path for path in repo.objects() if path.name not in before]
    assert len(added) == (0 if attribute == "" else 1)
    (repo.path / NAME).touch()
    assert repo.git("status", "--porcelain", "--untracked-files=no") == ""


def test_criss_cross(diverged: Repo) -> None:
    diverged.git("branch", "mine")
    diverged.git("merge", "--quiet", "--no-edit", "other")
    diverged.write(NAME, content(a__weight=MEAN, b__weight=BASE["b.weight"] + 3, c__weight=BASE["c.weight"] * 2))
    diverged.commit("on")
    diverged.git("checkout", "--quiet", "other")
    diverged.git("merge", "--quiet", "--no-edit", "mine")
    diverged.write(NAME, content(a__weight=MEAN, b__weight=BASE["b.weight"] + 1, c__weight=BASE["c.weight"] * 4))
    diverged.commit("on, too")
    assert len(diverged.git("merge-base", "--all", "main", "other").split()) == 2
    diverged.git("merge", "--quiet", "--no-edit", "main")
    wanted = content(a__weight=MEAN, b__weight=BASE["b.weight"] + 3, c__weight=BASE["c.weight"] * 4)
    assert diverged.read(NAME) == wanted


def test_criss_cross_over_bases_that_conflict(torn: Repo) -> None:
    """Both sides settled one conflict, each in its way: that is a conflict, whichever of the two bases is ours."""
    torn.git("branch", "mine")
    for branch, other, array in (("main", "other", MINE_N), ("other", "mine", THEIR_N)):
        torn.git("checkout", "--quiet", branch)
        torn.git("merge", "--quiet", "--no-edit", other, accept=(1,))
        torn.ok("resolve", NAME, "--strategy", "ours")
        torn.git("commit", "--quiet", "--no-edit")
        assert arrays(torn)["n"].tolist() == array.tolist()
    assert len(torn.git("merge-base", "--all", "main", "other").split()) == 2
    for branch, other, array in (("other", "main", THEIR_N), ("main", "other", MINE_N)):
        torn.git("checkout", "--quiet", branch)
        done = torn.run_git("merge", "--no-edit", other)
        assert done.code == 1
        [line] = [row for row in done.err.splitlines() if row.startswith("git-theta: ")]
        assert line.startswith(f"git-theta: {NAME}: conflict: parameter 'n': both sides changed ")
        assert arrays(torn)["n"].tolist() == array.tolist()
        assert arrays(torn)["a.weight"].tobytes() == MEAN.tobytes()
        torn.git("merge", "--abort")


def test_an_octopus_that_passes_the_driver_by_never_makes_a_model(diverged: Repo) -> None:
    """Git merges manifests as text then, and each side has another line for the digest of the whole."""
    diverged.git("checkout", "--quiet", "-b", "third", "main~1")
    diverged.write(NAME, content(n=np.array([1, 2, 9], "<i8")))
    diverged.commit("third")
    diverged.git("checkout", "--quiet", "-b", "fourth", "main~1")
    diverged.write("notes.txt", b"x")
    diverged.commit("fourth")
    diverged.git("merge", "--no-edit", "main", "third", accept=(1,))
    assert diverged.git("status", "--porcelain") == f"UU {NAME}\n"
    before, _, conflict = diverged.read(NAME).decode().partition("<<<<<<<")
    assert '"digest"' not in before
    ours, _, theirs = conflict.partition("=======")
    assert '"digest": "' in ours
    assert '"digest": "' in theirs
    for command in (("add", NAME), ("commit", "--quiet", "--all", "-m", "half a model")):
        assert "it is a manifest with conflict markers" in diverged.run_git(*command).err
    assert "nothing is undecided" in diverged.ok("resolve", NAME, "--list")
    diverged.ok("resolve", NAME, "--continue")
    diverged.git("commit", "--quiet", "--no-edit")
    assert diverged.git("log", "-1", "--format=%P").count(" ") == 2
    wanted = content(a__weight=LARGE + 1, b__weight=BASE["b.weight"] + 1, n=np.array([1, 2, 9], "<i8"))
    assert diverged.read(NAME) == wanted


@pytest.mark.parametrize("labels", ["", ' "%S" "%X" "%Y"', ' base HEAD "other; $(x)"'], ids=["none", "old", "new"])
def test_names_of_the_sides_are_tolerated(repo: Repo, labels: str) -> None:
    """Git before 2.44 passes %S, %X and %Y on as they are."""
    repo.git("config", "merge.theta.driver", f"git-theta-merge %O %A %B %P{labels}")
    branched(repo, content(), OURS, THEIRS)
    repo.git("merge", "--quiet", "--no-edit", "other")
    assert_merged(repo)


def test_not_a_number_is_named_with_its_parameter(repo: Repo) -> None:
    bad, worse = np.array(LARGE), np.array(BASE["b.weight"])
    bad[1, 1], worse[0] = np.nan, np.inf
    ours = content(a__weight=bad, b__weight=BASE["b.weight"] + 1, c__weight=BASE["c.weight"] + 1)
    theirs = content(a__weight=LARGE + 1, b__weight=worse, c__weight=BASE["c.weight"] + 3)
    branched(repo, content(), ours, theirs)
    done = repo.run_git("merge", "--no-edit", "other")
    assert done.code == 1
    lines = [row for row in done.err.splitlines() if row.startswith("git-theta: ")]
    assert [line.partition("; ours is kept")[0] for line in lines] == [
        f"git-theta: {NAME}: conflict: parameter 'a.weight': ours has NaN or infinite values; take a side",
        f"git-theta: {NAME}: conflict: parameter 'b.weight': theirs has NaN or infinite values; take a side",
    ]
    found = arrays(repo)
    assert found["a.weight"].tobytes() == bad.tobytes()
    assert found["b.weight"].tobytes() == (BASE["b.weight"] + 1).tobytes()
    assert found["c.weight"].tobytes() == (BASE["c.weight"] + 2).tobytes()


def test_rerere_keeps_nothing_of_a_checkpoint(torn: Repo) -> None:
    """There are no conflict markers in it, so there is nothing to record, and nothing false is put in later."""
    torn.git("config", "rerere.enabled", "true")
    torn.git("config", "rerere.autoUpdate", "true")
    for strategy, array in (("theirs", THEIR_N), ("ours", MINE_N)):
        assert torn.run_git("merge", "--no-edit", "other").code == 1
        assert arrays(torn)["n"].tolist() == MINE_N.tolist()
        torn.ok("resolve", NAME, "--strategy", strategy)
        torn.git("commit", "--quiet", "--no-edit")
        assert arrays(torn)["n"].tolist() == array.tolist()
        torn.git("reset", "--quiet", "--hard", "HEAD~1")
    assert [path for path in (torn.path / ".git" / "rr-cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("begin", "go_on"),
    [
        (("rebase", "--quiet", "other"), ("rebase", "--continue")),
        (("rebase", "--quiet", "--apply", "other"), ("rebase", "--continue")),
        (("cherry-pick", "other"), ("cherry-pick", "--continue")),
        (("merge", "--squash", "other"), ("commit", "--quiet", "-m", "squashed")),
    ],
    ids=["rebase", "rebase by patches", "cherry-pick", "squash"],
)
def test_a_conflict_is_settled_and_git_goes_on(torn: Repo, begin: tuple[str, ...], go_on: tuple[str, ...]) -> None:
    done = torn.run_git(*begin)
    assert done.code == 1, done
    assert arrays(torn)["a.weight"].tobytes() == MEAN.tobytes()
    n = arrays(torn)["n"].tolist()
    assert f"git theta resolve {NAME} --param n" in done.err
    torn.ok("resolve", NAME, "--param", "n", "--strategy", "theirs")
    torn.git(*go_on, GIT_EDITOR="true")
    assert torn.git("status", "--porcelain") == ""
    assert {tuple(n), tuple(arrays(torn)["n"].tolist())} == {tuple(MINE_N.tolist()), tuple(THEIR_N.tolist())}


@pytest.mark.parametrize("way", ["stash", "checkout"])
def test_a_conflict_of_a_stash_or_of_a_checkout(repo: Repo, way: str) -> None:
    """Neither is a merge in progress to Git, but the versions stand in the index all the same."""
    repo.track("*.safetensors")
    repo.write(NAME, content())
    repo.commit("base")
    repo.git("branch", "other")
    repo.write(NAME, content(n=MINE_N))
    repo.commit("main")
    repo.git("checkout", "--quiet", "other")
    repo.write(NAME, content(n=THEIR_N, b__weight=BASE["b.weight"] + 1))
    if way == "stash":
        repo.git("stash", "push", "--quiet")
        repo.git("checkout", "--quiet", "main")
        done = repo.run_git("stash", "pop", "--quiet")
    else:
        done = repo.run_git("checkout", "--quiet", "--merge", "main")
    assert f"git theta resolve {NAME} --param n" in done.err
    assert arrays(repo)["b.weight"].tobytes() == (BASE["b.weight"] + 1).tobytes()
    repo.ok("resolve", NAME, "--strategy", "theirs")
    assert arrays(repo)["n"].tolist() in (MINE_N.tolist(), THEIR_N.tolist())
    assert repo.git("ls-files", "--unmerged") == ""


def test_a_further_file_that_is_missing_keeps_ours(diverged: Repo) -> None:
    rules = b'rules:\n\n- {parameters: "*", strategy: fisher, files: {fisher: [gone.bin, gone.bin]}}\n'
    diverged.write(".theta-merge.yaml", rules)
    done = diverged.run_git("merge", "--no-edit", "other")
    assert done.code == 1
    [line] = [row for row in done.err.splitlines() if row.startswith("git-theta: ")]
    assert line.startswith(f"git-theta: {NAME}: not merged, ours is kept: .theta-merge.yaml: line 3: ")
    assert line.endswith("gone.bin: no such file; name the file that the strategy reads")
    assert diverged.read(NAME) == OURS


def test_a_file_renamed_on_one_side(diverged: Repo) -> None:
    diverged.git("mv", NAME, "renamed.safetensors")
    diverged.commit("rename")
    diverged.git("merge", "--quiet", "--no-edit", "other")
    assert diverged.read("renamed.safetensors") == MERGED


def test_a_file_that_one_branch_had_before_it_was_tracked(repo: Repo) -> None:
    repo.write(NAME, content())
    repo.commit("base")
    repo.git("checkout", "--quiet", "-b", "other")
    repo.write(NAME, THEIRS)
    repo.commit("theirs")
    repo.git("checkout", "--quiet", "main")
    assert "already stored in Git" in repo.theta("track", "*.safetensors").err
    repo.write(NAME, OURS)
    repo.commit("ours, tracked")
    repo.git("merge", "--quiet", "--no-edit", "other")
    assert repo.read(NAME) == MERGED


def test_a_conflict_keeps_ours_and_says_how_to_settle_it(torn: Repo) -> None:
    done = torn.run_git("merge", "--no-edit", "other")
    assert done.code == 1
    [line] = [row for row in done.err.splitlines() if row.startswith("git-theta: ")]
    assert line.startswith(f"git-theta: {NAME}: conflict: parameter 'n': both sides changed ")
    assert f"git theta resolve {NAME} --param n --strategy ours" in line
    found = arrays(torn)
    assert found["n"].tolist() == MINE_N.tolist()
    assert found["a.weight"].tobytes() == MEAN.tobytes()
    [report] = (torn.path / ".git" / "theta" / "merge").glob("*.json")
    rows = json.loads(report.read_text())["decisions"]
    assert [row["parameter"] for row in rows if row["action"] == "conflict"] == ["n"]
    torn.git("merge", "--abort")
    assert arrays(torn)["n"].tolist() == MINE_N.tolist()
    assert torn.git("status", "--porcelain") == ""


def test_at_most_twenty_conflicts_are_shown(repo: Repo) -> None:
    base, ours, theirs = (
        content(**{f"n{index:02}": numbers for index in range(25)}) for numbers in (MINE_N + 7, MINE_N, THEIR_N)
    )
    branched(repo, base, ours, theirs)
    done = repo.run_git("merge", "--no-edit", "other")
    lines = [row for row in done.err.splitlines() if row.startswith("git-theta: ")]
    assert [line.split("'")[1] for line in lines[:-1]] == [f"n{index:02}" for index in range(20)]
    assert lines[-1] == f"git-theta: {NAME}: 5 more; to see them: git theta resolve {NAME} --list"


def test_shapes_and_dtypes_that_do_not_go_together_are_named(repo: Repo) -> None:
    ours = content(
        a__weight=LARGE[:100] + 1, b__weight=BASE["b.weight"].astype("<f2") + 1, c__weight=BASE["c.weight"] + 1
    )
    theirs = content(
        a__weight=LARGE + 1, b__weight=BASE["b.weight"].astype("<f8") + 2, c__weight=np.ones((3, 4), "<i4")
    )
    branched(repo, content(), ours, theirs)
    done = repo.run_git("merge", "--no-edit", "other")
    assert done.code == 1
    lines = [row for row in done.err.splitlines() if row.startswith("git-theta: ")]
    assert [line.partition("conflict: ")[2].partition("; ours is kept")[0] for line in lines] == [
        "parameter 'a.weight': both sides changed it, and its shape: [100, 160] and [128, 160], from [128, 160]",
        "parameter 'b.weight': its dtype became F16 and F64",
        "parameter 'c.weight': both sides changed it, and F32/I32 cannot be computed with",
    ]
    assert repo.read(NAME) == ours


def test_the_command_that_settles_a_conflict_works_where_the_user_stands(repo: Repo) -> None:
    name = "it's [0] \u00fc\n*"
    branched(repo, content(**{name: MINE_N + 7}), content(**{name: MINE_N}), content(**{name: THEIR_N}))
    (repo.path / "sub" / "folder").mkdir(parents=True)
    done = repo.run_git("merge", "--no-edit", "other", cwd="sub/folder")
    assert done.code == 1
    [line] = [row for row in done.err.splitlines() if row.startswith("git-theta: ")]
    command = line.partition("to settle it: ")[2].partition(" (or ")[0]
    words = shlex.split(command)
    assert words[:3] == ["git", "theta", "resolve"]
    settled = repo.run_theta(*words[2:], cwd="sub/folder")
    assert (settled.code, settled.err) == (0, "")
    assert "staged" in settled.out
    assert repo.git("status", "--porcelain") == ""


def test_a_missing_object_is_a_conflict_that_keeps_ours(diverged: Repo) -> None:
    theirs = manifest.parse(diverged.git("cat-file", "blob", f"other:{NAME}").encode())
    oid = theirs.parameters["a.weight"].store[-1].pieces[0].oid
    [path] = [path for path in diverged.objects() if path.name == oid]
    path.unlink()
    done = diverged.run_git("merge", "--no-edit", "other")
    assert done.code == 1
    assert f"git-theta: {NAME}: not merged, ours is kept: " in done.err
    assert "Traceback" not in done.err
    assert diverged.read(NAME) == OURS


def test_a_driver_that_is_started_wrongly_says_so(repo: Repo) -> None:
    repo.git("config", "merge.theta.driver", "git-theta-merge %O %A %B")
    branched(repo, content(), OURS, THEIRS)
    done = repo.run_git("merge", "--no-edit", "other")
    assert done.code == 1
    assert "git theta install" in done.err
