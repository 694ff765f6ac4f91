"""`git theta merge`: a look ahead, a strategy for one merge, and a message that says how the models were merged."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from git_theta import joining
from tests.git.test_merge import LARGE, MERGED, MINE_N, NAME, OURS, THEIR_N, THEIRS, arrays, branched, content
from tests.repositories import Repo


@pytest.fixture
def diverged(repo: Repo) -> Repo:
    return branched(repo, content(), OURS, THEIRS)


@pytest.fixture
def torn(repo: Repo) -> Repo:
    """Branches whose merge is a conflict in one integer parameter."""
    return branched(repo, content(), content(n=MINE_N, a__weight=LARGE + 1), content(n=THEIR_N, a__weight=LARGE + 4))


def message(repo: Repo) -> str:
    return repo.git("log", "-1", "--format=%B")


def test_a_strategy_for_one_merge(diverged: Repo) -> None:
    done = diverged.run_theta("merge", "other", "--strategy", "task-arithmetic", "--set", "lambda=0.5")
    assert done.code == 0, done
    wanted = LARGE + np.float32(0.5) * (((LARGE + 1) - LARGE) + ((LARGE + 4) - LARGE))
    assert np.allclose(arrays(diverged)["a.weight"], wanted, rtol=0, atol=1e-6)
    said = message(diverged)
    assert said.startswith("Merge branch 'other'\n")
    assert "\nTheta-Strategy: task-arithmetic lambda=0.5 (1 parameters)\n" in said
    assert f"\nTheta-Merged: {NAME} base=" in said
    assert diverged.git("log", "-1", "--format=%P").count(" ") == 1
    assert diverged.git("status", "--porcelain") == ""


def test_the_message_says_with_which_seed_and_how_scalars_were_merged(repo: Repo) -> None:
    def save(plus: float, lr: float) -> bytes:
        buffer = io.BytesIO()
        torch.save({"lr": lr, "w": torch.from_numpy(LARGE + np.float32(plus))}, buffer)
        return buffer.getvalue()

    branched(repo, save(0, 0.5), save(1, 0.25), save(2, 0.75), name="model.pt")
    repo.write(".theta-merge.yaml", b'rules: [{parameters: "~skeleton/lr", strategy: average}]\n')
    assert repo.run_theta("merge", "other", "-s", "dare-ties", "--set", "seed=7", "-p", "w").code == 0
    assert torch.load(io.BytesIO(repo.read("model.pt")))["lr"] == 0.5
    said = message(repo)
    assert "\nTheta-Strategy: dare-ties density=0.5 lambda=1.0 seed=7 (1 parameters)\n" in said
    assert "\nTheta-Strategy: average (1 parameters)\n" in said


def test_the_rules_of_the_repository(diverged: Repo) -> None:
    diverged.git("config", "theta.merge.strategy", "theirs")
    assert diverged.run_theta("merge", "other", "-m", "ours is old").code == 0
    assert arrays(diverged)["a.weight"].tobytes() == (LARGE + 4).tobytes()
    assert message(diverged).startswith("ours is old\n")


def test_a_message_of_several_paragraphs(diverged: Repo) -> None:
    assert diverged.run_theta("merge", "other", "-m", "ours is old", "-m", "by a year").code == 0
    assert message(diverged).startswith("ours is old\n\nby a year\n\nTheta-Strategy: average")


def test_a_strategy_for_some_parameters(diverged: Repo) -> None:
    assert diverged.run_theta("merge", "other", "--strategy", "ours", "--param", "a.*").code == 0
    assert arrays(diverged)["a.weight"].tobytes() == (LARGE + 1).tobytes()


def test_a_look_ahead_touches_nothing(diverged: Repo) -> None:
    objects = diverged.objects()
    said = diverged.ok("merge", "--plan", "other")
    assert said.startswith(f"{NAME}: 1 merged by average, 1 ours, 1 theirs\n")
    document = json.loads(diverged.ok("merge", "--plan", "--json", "other", "--strategy", "ties"))
    [file] = document["files"]
    assert [(row["parameter"], row["action"]) for row in file["decisions"]] == [
        ("a.weight", "merge"),
        ("b.weight", "ours"),
        ("c.weight", "theirs"),
    ]
    assert file["decisions"][0]["strategy"] == "ties"
    assert file["decisions"][0]["options"]["density"] == 0.2
    assert diverged.objects() == objects
    assert diverged.git("status", "--porcelain") == ""


def test_a_look_ahead_at_conflicts(repo: Repo) -> None:
    branched(repo, content(), content(n=np.array([9, 2, 3])), content(n=np.array([1, 2], "<i8")))
    done = repo.theta("merge", "--plan", "other")
    assert done.code == 1
    assert "1 conflict" in done.out
    assert "and its shape" in done.out


def test_a_look_ahead_at_what_only_values_tell(torn: Repo) -> None:
    before = torn.objects()
    for command in (("merge", "other", "--plan"), ("merge", "other", "--plan", "--json")):
        done = torn.theta(*command)
        assert done.code == 1
        assert "both sides changed the same elements to different values" in done.out
    assert torn.ok("merge", "--plan", "other", "-s", "theirs", "-p", "n").startswith(
        f"{NAME}: 1 merged by average, 1 theirs"
    )
    assert torn.objects() == before
    for path in before:  # what is not here tells nothing
        path.unlink()
    assert torn.ok("merge", "--plan", "other").startswith(f"{NAME}: 1 merged by average, 1 merged by three-way")


@pytest.mark.parametrize(
    ("having", "reason"), [(0, "it is in 0 of the 2"), (1, "only some of its 'fisher' files"), (2, "")]
)
def test_a_look_ahead_into_further_files(diverged: Repo, tmp_path: Path, having: int, reason: str) -> None:
    for index in range(2):
        held = {"a.weight" if index < having else "other": np.ones_like(LARGE)}
        (tmp_path / f"{index}.safetensors").write_bytes(safetensors.numpy.save(held))
    files = ",".join(str(tmp_path / f"{index}.safetensors") for index in range(2))
    done = diverged.theta("merge", "--plan", "other", "--strategy", "fisher", "--file", f"fisher={files}")
    assert done.code == (1 if reason else 0)
    assert reason in done.out


def test_a_look_ahead_at_what_is_no_parameter(repo: Repo) -> None:
    def save(step: str, plus: float) -> bytes:
        return safetensors.numpy.save({"a": LARGE + np.float32(plus)}, {"step": step})

    branched(repo, save("1", 0), save("2", 1), save("3", 2))
    done = repo.theta("merge", "--plan", "other")
    assert done.code == 1
    assert "~skeleton/step  conflict  both sides changed it, from '1' to '2' and to '3'" in done.out
    for pattern in ("~skeleton", "~skeleton/st*"):
        assert repo.theta("merge", "--plan", "other", "-s", "ours", "--param", pattern).code == 0
    assert "'~skeleton/stop' matches no" in repo.fails(3, "merge", "other", "-s", "ours", "-p", "~skeleton/stop")


def test_what_only_one_side_changed_is_gits_own_affair(diverged: Repo) -> None:
    diverged.git("checkout", "--quiet", "main~1")
    assert diverged.ok("merge", "--plan", "other").startswith("no checkpoint was changed on both sides")
    assert diverged.run_theta("merge", "other").code == 0
    assert diverged.git("rev-parse", "HEAD") == diverged.git("rev-parse", "other")


def test_a_conflict_is_left_to_be_settled_and_the_message_tells_all_the_same(repo: Repo) -> None:
    branched(
        repo,
        content(),
        content(n=np.array([9, 2, 3]), a__weight=LARGE + 1, b__weight=np.array([1, np.nan, 3], np.float32)),
        content(n=np.array([8, 2, 3]), a__weight=LARGE + 4, b__weight=np.array([1, 2, 9], np.float32)),
    )
    done = repo.run_theta("merge", "other")
    assert done.code == 1
    assert "git theta resolve" in done.err
    repo.ok("resolve", NAME, "--param", "n", "--param", "b.*", "--strategy", "ours")
    repo.git("commit", "--quiet", "--no-edit")
    assert "\nTheta-Strategy: average (1 parameters)\n" in message(repo)
    assert repo.git("log", "-1", "--format=%P").count(" ") == 1


def test_further_files(diverged: Repo, tmp_path: Path) -> None:
    fisher = tmp_path / "fisher"
    fisher.mkdir()
    for side, weight in (("ours", 3.0), ("theirs", 1.0)):
        (fisher / f"{side}.safetensors").write_bytes(content(a__weight=np.full_like(LARGE, weight)))
    paths = ",".join(str(fisher / f"{side}.safetensors") for side in ("ours", "theirs"))
    done = diverged.run_theta("merge", "other", "--strategy", "fisher", "--file", f"fisher={paths}")
    assert done.code == 0, done
    wanted = ((LARGE + 1) * 3 + (LARGE + 4)) / 4
    assert np.allclose(arrays(diverged)["a.weight"], wanted, rtol=0, atol=1e-5)


def test_what_cannot_be_done(diverged: Repo) -> None:
    assert "there is no merge strategy 'tiess'" in diverged.fails(3, "merge", "other", "--strategy", "tiess")
    assert "there is no option 'densty'" in diverged.fails(3, "merge", "other", "-s", "ties", "--set", "densty=1")
    assert "density" in diverged.fails(3, "merge", "other", "-s", "ties", "--set", "density=7")
    assert "matches no parameter" in diverged.fails(3, "merge", "other", "-s", "ties", "--param", "zzz")
    assert "has 3 numbers, and there are 2 sides" in diverged.fails(
        3, "merge", "other", "-s", "average", "--set", "weights=1,2,3"
    )
    for plan in ((), ("--plan",)):
        said = diverged.fails(3, "merge", *plan, "other", "-s", "average", "--set", "weights=0,0")
        assert "option 'weights' is '0,0'; set it to a number for each side at least 0" in said
    assert not (diverged.path / ".git" / "MERGE_HEAD").exists()
    assert "nowhere: no such branch" in diverged.fails(3, "merge", "nowhere")
    assert "there is no file 'x'" in diverged.fails(3, "merge", "other", "-s", "ties", "--file", "x=y")
    assert diverged.theta("merge", "other", "--set", "density=1").code == 2


@pytest.mark.parametrize("plan", [(), ("--plan",)], ids=["merge", "plan"])
def test_a_further_file_that_is_missing_is_said_before_anything_is_done(diverged: Repo, plan: tuple[str, ...]) -> None:
    head = diverged.git("rev-parse", "HEAD")
    diverged.write("notes.txt", b"no tensors")
    diverged.write("one.safetensors", content())
    for strategy, files, said in (
        ("fisher", (), "strategy 'fisher' needs 'fisher' files; name one for each side"),
        ("regmean", (), "strategy 'regmean' needs 'gram' files; name one for each side"),
        ("fisher", ("fisher=gone.st,gone.st",), "gone.st: no such file; name the file that the strategy reads"),
        ("regmean", ("gram=one.safetensors,gone.st",), "gone.st: no such file"),
        ("fisher", ("fisher=notes.txt,one.safetensors",), "notes.txt: no tensor is found in it"),
        (
            "fisher",
            ("fisher=one.safetensors",),
            "strategy 'fisher' has 1 'fisher' files for 2 sides; name one for each",
        ),
        ("diloco-outer", ("momentum=gone.st",), "gone.st: no such file"),
    ):
        options = [word for file in files for word in ("--file", file)]
        line = diverged.fails(3, "merge", *plan, "other", "-s", strategy, *options)
        assert said in line
        assert ".theta-merge.yaml: line" not in line
    assert diverged.git("rev-parse", "HEAD") == head
    assert diverged.read(NAME) == OURS
    assert not (diverged.path / ".git" / "MERGE_HEAD").exists()


def test_a_rule_of_the_repository_that_matches_nothing_is_a_warning(three: Repo) -> None:
    three.write(
        ".theta-merge.yaml",
        b'rules:\n- parameters: ["a.*",\n    "lm_haed.*"]\n  strategy: theirs\n- {parameters: "x.*", strategy: ours}\n',
    )
    said = [
        f"git-theta: warning: .theta-merge.yaml: line {line}: the pattern '{pattern}' matches no parameter; "
        "to see their names: git theta info --full PATH"
        for line, pattern in ((3, "lm_haed.*"), (5, "x.*"))
    ]
    done = three.theta("merge", "--plan", "other")
    assert (done.code, done.err.splitlines()) == (0, said)
    assert three.theta("merge", "other", "third").err.splitlines()[:2] == said
    assert three.run_git("merge", "--no-edit", "other").err.splitlines() == said
    assert arrays(three)["a.weight"].tobytes() == (LARGE + 4).tobytes()


def test_a_rule_for_another_checkpoint_of_the_repository_is_no_warning(diverged: Repo) -> None:
    diverged.write("second.safetensors", safetensors.numpy.save({"x.weight": LARGE}))
    diverged.commit("second")
    diverged.write(".theta-merge.yaml", b'rules: [{parameters: ["x.*", "~skeleton/step"], strategy: ours}]\n')
    assert diverged.theta("merge", "--plan", "other").err == ""
    assert "warning" not in diverged.run_git("merge", "--no-edit", "other").err


@pytest.fixture
def three(diverged: Repo) -> Repo:
    """Three branches, `other` and `third` beside `main`; each trained a.weight, and changed something else."""
    diverged.git("checkout", "--quiet", "-b", "third", "main~1")
    diverged.write(NAME, content(a__weight=LARGE + 10, n=np.array([1, 2, 9], "<i8")))
    diverged.write("third.txt", b"third\n")
    diverged.commit("third")
    diverged.git("checkout", "--quiet", "main")
    return diverged


def test_several_branches_at_once(three: Repo) -> None:
    done = three.run_theta("merge", "other", "third", "--strategy", "average")
    assert done.code == 0, done
    third = np.float32(1 / 3)
    mean = (LARGE + 1) * third + (LARGE + 4) * third + (LARGE + 10) * third
    found = arrays(three)
    assert np.allclose(found["a.weight"], mean, rtol=1e-6, atol=0)
    assert found["n"].tolist() == [1, 2, 9]
    assert found["b.weight"].tolist() == (np.arange(6) + 1).tolist()
    assert found["c.weight"].tolist() == np.full((3, 4), 2).tolist()
    assert three.read("third.txt") == b"third\n"
    assert three.git("log", "-1", "--format=%P").split() == [
        three.git("rev-parse", name).strip() for name in ("HEAD^1", "other", "third")
    ]
    said = message(three)
    assert said.startswith("Merge branches 'other', 'third'\n\nTheta-Strategy: average (1 parameters)\n")
    assert " side3=" in said
    assert three.git("status", "--porcelain") == ""


def test_several_branches_that_each_add_a_parameter(three: Repo) -> None:
    for branch in ("main", "other", "third"):
        three.git("checkout", "--quiet", branch)
        three.write(NAME, content(**{f"of_{branch}": np.full(3, len(branch), "<f4")}))
        three.commit("one more")
    three.git("checkout", "--quiet", "main")
    done = three.run_theta("merge", "other", "third")
    assert done.code == 0, done
    assert {name for name in arrays(three) if name.startswith("of_")} == {"of_main", "of_other", "of_third"}


def test_branches_that_are_merged_already_are_left_out(three: Repo) -> None:
    three.git("branch", "first", "main~1")
    three.git("branch", "again", "other")
    before = three.git("rev-parse", "HEAD").strip()
    assert three.ok("merge", "main", "first") == "Already up to date.\n"
    assert three.git("rev-parse", "HEAD").strip() == before
    three.ok("merge", "first", "other", "again", "main", "third")
    parents = [before, *(three.git("rev-parse", name).strip() for name in ("other", "third"))]
    assert three.git("log", "-1", "--format=%P").split() == parents
    assert message(three).startswith("Merge branches 'other', 'third'\n")
    after = three.git("rev-parse", "HEAD")
    assert three.ok("merge", "other", "third") == "Already up to date.\n"
    assert three.git("rev-parse", "HEAD") == after


def test_one_of_several_branches_that_is_left_is_merged_as_by_git(three: Repo) -> None:
    three.git("branch", "first", "main~1")
    three.ok("merge", "first", "other")
    assert three.git("log", "-1", "--format=%P").split() == [
        three.git("rev-parse", name).strip() for name in ("HEAD^1", "other")
    ]
    assert message(three).startswith("Merge branch 'other'")


def test_a_look_ahead_at_several_branches(three: Repo) -> None:
    before = three.git("rev-parse", "HEAD")
    assert "1 merged by average" in three.ok("merge", "--plan", "other", "third")
    assert three.git("rev-parse", "HEAD") == before


def test_several_branches_with_a_conflict_are_not_merged_at_all(three: Repo) -> None:
    three.git("checkout", "--quiet", "other")
    three.write(NAME, content(n=np.array([7, 2, 9], "<i8")))
    three.commit("n")
    three.git("checkout", "--quiet", "main")
    three.write(NAME, content(n=np.array([8, 2, 9], "<i8")))
    three.commit("n, too")
    before = three.git("rev-parse", "HEAD")
    assert "the first in 'n'" in three.fails(1, "merge", "other", "third")
    assert three.git("rev-parse", "HEAD") == before
    assert three.git("status", "--porcelain") == ""


def test_several_branches_with_a_conflict_in_another_file(three: Repo) -> None:
    three.write("third.txt", b"ours\n")
    three.commit("ours")
    before = three.git("rev-parse", "HEAD")
    assert "third.txt: the branches changed it" in three.fails(1, "merge", "other", "third")
    assert three.git("rev-parse", "HEAD") == before
    assert three.git("status", "--porcelain") == ""


def test_what_two_of_several_branches_added_is_never_dropped(three: Repo) -> None:
    for branch, step in (("other", 1), ("third", 2)):
        three.git("checkout", "--quiet", branch)
        three.write("new.safetensors", content(a__weight=LARGE + step))
        three.commit("new")
    three.git("checkout", "--quiet", "main")
    before = three.git("rev-parse", "HEAD")
    said = "new.safetensors: some of the sides added it, and not alike; merge one branch after the other"
    assert said in three.fails(1, "merge", "other", "third")
    assert three.git("rev-parse", "HEAD") == before


MOVED = "sub/moved.safetensors"
FEW = {f"l{index}.weight": np.full(3, index, "<f4") for index in range(8)}
"""So many that Git sees a manifest that has another one of them as the same file."""


def few(plus: float) -> bytes:
    return content(**FEW, a__weight=LARGE + np.float32(plus))


@pytest.fixture
def moved(repo: Repo) -> Repo:
    """`main` trained a.weight, `other` moved the file and trained it as well, `third` trained it where it was."""
    branched(repo, few(0), few(1), few(4))
    repo.git("checkout", "--quiet", "other")
    (repo.path / "sub").mkdir()
    repo.git("mv", NAME, MOVED)
    repo.commit("moved")
    repo.git("checkout", "--quiet", "-b", "third", "main~1")
    repo.write(NAME, few(10))
    repo.commit("third")
    repo.git("checkout", "--quiet", "main")
    return repo


def test_a_checkpoint_is_followed_through_a_rename(moved: Repo) -> None:
    assert moved.ok("merge", "--plan", "other").startswith(f"{MOVED}: 1 merged by average\n")
    assert moved.run_theta("merge", "other", "--strategy", "task-arithmetic", "--set", "lambda=0.5").code == 0
    assert not (moved.path / NAME).exists()
    assert np.allclose(arrays(moved, MOVED)["a.weight"], LARGE + np.float32(2.5), rtol=0, atol=1e-6)
    assert "\nTheta-Strategy: task-arithmetic lambda=0.5 (1 parameters)\n" in message(moved)
    assert f"\nTheta-Merged: {MOVED} base=" in message(moved)


def test_several_branches_of_which_one_renamed_the_checkpoint(moved: Repo) -> None:
    moved.ok("merge", "other", "third")
    assert not (moved.path / NAME).exists()
    assert np.allclose(arrays(moved, MOVED)["a.weight"], LARGE + np.float32(5), rtol=0, atol=1e-5)
    assert moved.git("log", "-1", "--format=%P").count(" ") == 2
    assert f"\nTheta-Merged: {MOVED} base=" in message(moved)
    assert moved.git("status", "--porcelain") == ""


@pytest.mark.parametrize("alike", [True, False])
def test_several_branches_put_no_file_in_the_place_of_another(moved: Repo, alike: bool) -> None:
    """`other` moved the checkpoint to a name under which `third` has added one, perhaps the very same."""
    moved.git("checkout", "--quiet", "third")
    (moved.path / "sub").mkdir(exist_ok=True)
    moved.write(MOVED, few(4) if alike else few(5))
    moved.commit("another file of that name")
    moved.git("checkout", "--quiet", "main")
    before = moved.git("rev-parse", "HEAD")
    said = f"{MOVED}: the sides gave its name to different files; merge one "
    assert said in moved.fails(1, "merge", "other", "third")
    assert moved.git("rev-parse", "HEAD") == before


def test_several_branches_move_no_two_files_to_one_name(moved: Repo) -> None:
    moved.git("checkout", "--quiet", "-b", "fourth", "main~1")
    moved.write("b.safetensors", few(20))
    moved.commit("b")
    for branch, name, plus in (("one", NAME, 1), ("two", "b.safetensors", 21)):
        moved.git("checkout", "--quiet", "-b", branch, "fourth")
        moved.write(name, few(plus))
        moved.git("add", name)
        moved.git("mv", name, "z.safetensors")
        moved.commit("to z")
    moved.git("checkout", "--quiet", "fourth")
    moved.write(NAME, few(2))
    moved.write("b.safetensors", few(22))
    moved.commit("both")
    said = "z.safetensors: the sides gave its name to different files; merge one"
    assert moved.theta("merge", "--plan", "one", "two").code == 1
    assert said in moved.fails(1, "merge", "one", "two")


@pytest.mark.parametrize(("limit", "code"), [("1", 1), ("100", 0), ("0", 0)])
def test_renames_are_looked_for_as_long_as_git_does(moved: Repo, limit: str, code: int) -> None:
    moved.git("checkout", "--quiet", "other")
    for index in range(3):  # so many that might be it
        moved.write(f"{index}.txt", f"{index}\n".encode() * 50)
    moved.commit("more")
    moved.git("checkout", "--quiet", "main")
    moved.git("config", "merge.renameLimit", limit)
    assert moved.theta("merge", "--plan", "other").code == code
    assert moved.run_git("merge", "--no-edit", "other").code == code


@pytest.mark.parametrize("heeds", [True, False])
def test_a_rename_that_git_is_told_not_to_follow(moved: Repo, heeds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is heeded by some versions of Git; the real one is asked by a merge."""
    moved.git("config", "diff.renames", "false")
    assert moved.theta("merge", "--plan", "other").code == moved.run_theta("merge", "other").code
    moved.run_git("reset", "--quiet", "--hard", "HEAD~1" if (moved.path / MOVED).exists() else "HEAD")
    monkeypatch.setattr(joining, "_ORT_THAT_CAN_DO_WITHOUT", (2, 0) if heeds else (99, 0))
    done = moved.theta("merge", "--plan", "other")
    if heeds:
        assert (done.code, done.out) == (1, f"{NAME}: conflict: theirs deleted it, and ours changed it\n")
        moved.git("config", "merge.renames", "true")
        done = moved.theta("merge", "--plan", "other")
    assert done.code == 0
    assert done.out.startswith(f"{MOVED}: 1 merged by average\n")


def test_a_look_ahead_at_files_that_git_will_not_put_together(moved: Repo) -> None:
    moved.git("mv", NAME, "elsewhere.safetensors")
    moved.commit("moved, too")
    both = f"{NAME}: conflict: the sides renamed it, to elsewhere.safetensors and to {MOVED}\n"
    for branch, said in (("other", both), ("gone", f"{NAME}: conflict: theirs deleted it, and ours changed it\n")):
        if branch == "gone":
            moved.git("checkout", "--quiet", "-b", branch, "main~2")
            moved.git("rm", "--quiet", NAME)
            moved.commit("gone")
            moved.git("checkout", "--quiet", "main")
        done = moved.theta("merge", "--plan", branch)
        assert (done.code, done.out) == (1, said)
        [row] = json.loads(moved.theta("merge", "--plan", "--json", branch).out)["conflicts"]
        assert said == f"{row['path']}: conflict: {row['reason']}\n"
        assert moved.run_theta("merge", branch).code == 1
        moved.git("merge", "--abort")
    moved.git("checkout", "--quiet", "-b", "taking", "third")
    (moved.path / "sub").mkdir()
    moved.write(MOVED, content(other=LARGE))
    moved.commit("another file of that name")
    done = moved.theta("merge", "--plan", "other")
    assert (done.code, f"{MOVED}: conflict: the sides gave its name to different files\n" in done.out) == (1, True)
    assert moved.run_theta("merge", "other").code == 1
    moved.git("merge", "--abort")
    moved.git("checkout", "--quiet", "main")
    assert "elsewhere.safetensors: 1 merged by average" in moved.ok("merge", "--plan", "third")


def test_a_merge_that_is_not_concluded_is_left_alone(three: Repo) -> None:
    three.git("merge", "--quiet", "--no-commit", "other")
    before = three.git("rev-parse", "HEAD")
    done = three.run_theta("merge", "third")
    assert done.code == 128
    assert "MERGE_HEAD exists" in done.err
    assert three.git("rev-parse", "HEAD") == before
    assert "Theta-" not in (three.path / ".git" / "MERGE_MSG").read_text()


def test_a_message_that_begins_like_a_comment(diverged: Repo) -> None:
    assert diverged.run_theta("merge", "other", "-m", "#42 merge").code == 0
    assert message(diverged).startswith("#42 merge\n\nTheta-Strategy: average")


def test_local_changes_are_not_overwritten(three: Repo) -> None:
    mine = content(a__weight=LARGE + 7)
    three.write(NAME, mine)
    assert three.run_theta("merge", "other", "third").code != 0
    assert three.read(NAME) == mine


def test_without_a_strategy_it_is_git_merge(diverged: Repo) -> None:
    assert diverged.run_theta("merge", "other").code == 0
    assert diverged.read(NAME) == MERGED
