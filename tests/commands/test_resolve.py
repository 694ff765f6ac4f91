"""`git theta resolve`: what a merge left undecided is settled by parameter, by pattern, or by hand."""

import io
import json

import pytest
import safetensors.numpy
import torch

from git_theta import manifest
from tests.git.test_merge import LARGE, MEAN, MINE_N, NAME, THEIR_N, arrays, branched, content
from tests.repositories import Repo


@pytest.fixture
def torn(repo: Repo) -> Repo:
    """A merge that stopped at a conflict in two parameters."""
    ours = {"n": MINE_N, "a__weight": LARGE + 1, "m": MINE_N}
    theirs = {"n": THEIR_N, "a__weight": LARGE + 4, "m": THEIR_N}
    branched(repo, content(m=MINE_N + 7), content(**ours), content(**theirs))
    repo.git("merge", "--no-edit", "other", accept=(1,))
    return repo


def test_list_names_each_conflict_and_changes_nothing(torn: Repo) -> None:
    before = torn.read(NAME)
    done = torn.theta("resolve", NAME, "--list")
    assert done.code == 1
    assert done.out.startswith(f"2 conflicts in {NAME}:\n")
    assert [line.split()[0] for line in done.out.splitlines()[2:]] == ["m", "n"]
    rows = json.loads(torn.theta("resolve", NAME, "--list", "--json").out)["conflicts"]
    assert [row["parameter"] for row in rows] == ["m", "n"]
    assert torn.read(NAME) == before


def test_choices_one_after_the_other(torn: Repo) -> None:
    done = torn.theta("resolve", NAME, "--param", "n", "--strategy", "theirs")
    assert (done.code, done.out) == (0, f"{NAME}: 1 conflict left; to see them: git theta resolve {NAME} --list\n")
    assert arrays(torn)["n"].tolist() == THEIR_N.tolist()
    assert torn.git("status", "--porcelain").startswith("UU")
    assert torn.theta("resolve", NAME, "--continue").code == 1
    assert torn.ok("resolve", NAME, "--param", "m", "--strategy", "max").endswith("staged\n")
    found = arrays(torn)
    assert found["n"].tolist() == THEIR_N.tolist()
    assert found["m"].tolist() == [6, 2, 9]
    assert found["a.weight"].tobytes() == MEAN.tobytes()
    assert torn.git("status", "--porcelain") == f"M  {NAME}\n"
    torn.git("commit", "--quiet", "--no-edit")
    assert torn.git("status", "--porcelain") == ""


def test_a_pattern_settles_all_of_them(torn: Repo) -> None:
    torn.ok("resolve", NAME, "--param", "[mn]", "--strategy", "ours")
    assert [arrays(torn)[name].tolist() for name in "mn"] == [MINE_N.tolist()] * 2
    assert arrays(torn)["a.weight"].tobytes() == MEAN.tobytes()


def test_the_last_choice_counts(torn: Repo) -> None:
    torn.ok("resolve", NAME, "--param", "n", "--strategy", "theirs")
    torn.ok("resolve", NAME, "--param", "n", "--strategy", "base")
    assert arrays(torn)["n"].tolist() == [1, 2, 3]


def test_the_message_says_by_what_choices_it_was_settled(torn: Repo) -> None:
    torn.git("merge", "--abort")
    assert torn.theta("merge", "other", "--strategy", "task-arithmetic").code == 1
    torn.ok("resolve", NAME, "--param", "n", "--strategy", "theirs")
    torn.git("checkout", "-m", "--", NAME)  # begins anew
    torn.ok("resolve", NAME, "--param", "n", "--strategy", "ours")
    torn.ok("resolve", NAME, "--param", "[m]", "--strategy", "three-way", "--set", "inner=max")
    torn.git("commit", "--quiet", "--no-edit", "--cleanup=strip")
    said = torn.git("log", "-1", "--format=%(trailers:only)").splitlines()
    assert [line for line in said if line.startswith("Theta-Resolved: ")] == [
        f"Theta-Resolved: {NAME} n by ours",
        f"Theta-Resolved: {NAME} [m] by three-way inner=max",
    ]
    assert any(line.startswith("Theta-Merged: ") for line in said)


def test_the_message_says_the_last_choice_for_a_pattern(torn: Repo) -> None:
    torn.git("merge", "--abort")
    assert torn.theta("merge", "other").code == 1
    for side in ("ours", "theirs", "ours"):
        torn.ok("resolve", NAME, "--param", "n", "--strategy", side)
    torn.ok("resolve", NAME, "--param", "m", "--strategy", "base")
    said = (torn.path / ".git" / "MERGE_MSG").read_text().splitlines()
    assert [line for line in said if line.startswith("Theta-Resolved: ")] == [
        f"Theta-Resolved: {NAME} n by ours",
        f"Theta-Resolved: {NAME} m by base",
    ]


def test_the_message_of_a_merge_of_gits_own_stays(torn: Repo) -> None:
    before = (torn.path / ".git" / "MERGE_MSG").read_bytes()
    torn.ok("resolve", NAME, "--strategy", "ours")
    assert (torn.path / ".git" / "MERGE_MSG").read_bytes() == before


def test_choices_hold_for_the_merge_that_they_were_made_in(torn: Repo) -> None:
    torn.ok("resolve", NAME, "--param", "n", "--strategy", "theirs")
    torn.git("merge", "--abort")
    torn.write(NAME, content(n=MINE_N + 1, m=MINE_N))
    torn.commit("another")
    torn.git("merge", "--no-edit", "other", accept=(1,))
    assert arrays(torn)["n"].tolist() == (MINE_N + 1).tolist()
    assert "2 conflicts" in torn.theta("resolve", NAME).out


@pytest.mark.parametrize("how", ["command line", "environment"])
def test_the_rules_of_one_merge_hold_until_it_is_settled(torn: Repo, how: str) -> None:
    torn.git("merge", "--abort")
    if how == "environment":
        torn.git("merge", "--no-edit", "other", accept=(1,), GIT_THETA_MERGE_STRATEGY="task-arithmetic:lambda=0.5")
    else:
        assert torn.theta("merge", "other", "--strategy", "task-arithmetic", "--set", "lambda=0.5").code == 1
    left = arrays(torn)["a.weight"].tobytes()
    assert left != MEAN.tobytes()
    torn.ok("resolve", NAME, "--param", "n", "--strategy", "theirs")
    assert torn.ok("resolve", NAME, "--param", "m", "--strategy", "ours").endswith("staged\n")
    assert arrays(torn)["a.weight"].tobytes() == left
    assert [arrays(torn)[name].tolist() for name in "mn"] == [MINE_N.tolist(), THEIR_N.tolist()]


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(["checkout", "--quiet", "-m", "--", NAME], id="checkout -m"),
        pytest.param(["merge", "--no-edit", "other"], id="merge"),
    ],
)
def test_a_merge_that_begins_anew_knows_no_choices(torn: Repo, again: list[str]) -> None:
    torn.ok("resolve", NAME, "--param", "n", "--strategy", "theirs")
    if again[0] == "merge":
        torn.git("merge", "--abort")
    torn.git(*again, accept=(0, 1))
    assert "2 conflicts" in torn.theta("resolve", NAME).out
    torn.ok("resolve", NAME, "--strategy", "ours")
    assert [arrays(torn)[name].tolist() for name in "mn"] == [MINE_N.tolist()] * 2


def test_a_merge_anew_without_conflict_has_nothing_undecided(repo: Repo) -> None:
    """What was written down of the merge before, by other rules, is of that merge alone."""
    branched(repo, content(), content(a__weight=LARGE + 1), content(a__weight=LARGE + 4))
    assert repo.theta("merge", "other", "--strategy", "three-way", "--set", "inner=conflict").code == 1
    assert "1 conflict" in repo.theta("resolve", NAME, "--list").out
    repo.git("checkout", "--quiet", "-m", "--", NAME)
    assert "nothing is undecided" in repo.ok("resolve", NAME, "--list")
    repo.ok("resolve", NAME, "--continue")
    assert arrays(repo)["a.weight"].tobytes() == MEAN.tobytes()
    assert repo.git("status", "--porcelain") == f"M  {NAME}\n"


@pytest.mark.parametrize("again", ["merge", "failed"])
def test_what_an_aborted_merge_wrote_down_does_not_count(repo: Repo, again: str) -> None:
    branched(repo, content(), content(a__weight=LARGE + 1, n=MINE_N), content(a__weight=LARGE + 4, n=THEIR_N))
    assert repo.theta("merge", "other", "--strategy", "task-arithmetic").code == 1
    repo.git("merge", "--abort")
    rules = {"GIT_THETA_MERGE_STRATEGY": "tiess"} if again == "failed" else {}
    repo.git("merge", "--no-edit", "other", accept=(1,), **rules)
    repo.ok("resolve", NAME, "--param", "n", "--strategy", "theirs")
    assert arrays(repo)["a.weight"].tobytes() == MEAN.tobytes()
    assert repo.git("status", "--porcelain") == f"M  {NAME}\n"


def texts_merged(repo: Repo) -> None:
    """A merge that stops with what Git made of the manifests as text, after another one that was given up."""
    assert repo.theta("merge", "other", "--strategy", "task-arithmetic").code == 1
    repo.git("merge", "--abort")
    repo.git("merge", "--no-edit", "-s", "resolve", "other", accept=(1,))
    assert b"<<<<<<<" in repo.read(NAME)


def test_manifests_that_git_merged_as_text_are_merged_anew(torn: Repo) -> None:
    torn.git("merge", "--abort")
    texts_merged(torn)
    assert "2 conflicts" in torn.theta("resolve", NAME, "--list").out
    assert b"<<<<<<<" in torn.read(NAME)
    torn.ok("resolve", NAME, "--param", "n", "--strategy", "theirs")
    assert [arrays(torn)[name].tolist() for name in "mn"] == [MINE_N.tolist(), THEIR_N.tolist()]
    torn.ok("resolve", NAME, "--param", "m", "--strategy", "theirs")
    assert [arrays(torn)[name].tolist() for name in "mn"] == [THEIR_N.tolist()] * 2
    assert arrays(torn)["a.weight"].tobytes() == MEAN.tobytes()
    assert torn.git("status", "--porcelain") == f"M  {NAME}\n"


def test_manifests_that_git_merged_as_text_stay_manifests_where_they_are_wanted(torn: Repo) -> None:
    torn.git("merge", "--abort")
    torn.git("config", "theta.skipSmudge", "true")
    torn.dematerialise(NAME)
    texts_merged(torn)
    torn.ok("resolve", NAME, "--strategy", "theirs")
    assert torn.read(NAME) == torn.blob(NAME)


@pytest.mark.parametrize("pattern", [["--param", "a.weight"], []], ids=["it", "all"])
def test_ours_is_taken_without_what_only_theirs_needs(torn: Repo, pattern: list[str]) -> None:
    torn.git("merge", "--abort")
    theirs = manifest.parse(torn.git("cat-file", "blob", f"other:{NAME}").encode())
    oid = theirs.parameters["a.weight"].store[-1].pieces[0].oid
    [path] = [path for path in torn.objects() if path.name == oid]
    path.unlink()
    assert f"ours is kept: parameter 'a.weight': object {oid} is not" in torn.run_git("merge", "other").err
    for options in (["--list"], ["--continue"], ["--param", "n", "--strategy", "theirs"]):
        assert f"{NAME}: parameter 'a.weight': object {oid} is not" in torn.fails(4, "resolve", NAME, *options)
    assert torn.theta("resolve", NAME, *pattern, "--strategy", "ours").code == 0
    assert torn.theta("resolve", NAME, "--param", "[mn]", "--strategy", "theirs").code == (0 if pattern else 3)
    assert arrays(torn)["a.weight"].tobytes() == (LARGE + 1).tobytes()
    assert [arrays(torn)[name].tolist() for name in "mn"] == [(THEIR_N if pattern else MINE_N).tolist()] * 2
    assert torn.git("ls-files", "--unmerged") == ""


def test_a_choice_that_does_not_settle_what_it_was_for(torn: Repo) -> None:
    done = torn.theta("resolve", NAME, "--param", "n", "--strategy", "average")
    assert (done.code, done.out) == (1, f"{NAME}: 2 conflicts left; to see them: git theta resolve {NAME} --list\n")
    assert "n: 'average' does not settle it: " in done.err
    choices = "--param", "m", "--param", "n"
    assert torn.theta("resolve", NAME, *choices, "--strategy", "three-way", "--set", "inner=conflict").code == 1
    assert torn.theta("resolve", NAME, "--param", "m", "--strategy", "max").code == 0


def test_a_choice_that_could_not_be_carried_out_is_not_kept(torn: Repo) -> None:
    left = torn.read(NAME)
    torn.write(NAME, content(n=THEIR_N))
    torn.fails(6, "resolve", NAME, "--strategy", "ours")
    torn.write(NAME, left)
    assert "2 conflicts" in torn.theta("resolve", NAME).out


def test_choices_outlast_a_look_at_another_merge(torn: Repo) -> None:
    torn.ok("resolve", NAME, "--param", "n", "--strategy", "theirs")
    torn.git("merge-tree", "--write-tree", "other", "HEAD", accept=(1,))
    torn.ok("resolve", NAME, "--param", "m", "--strategy", "ours")
    assert [arrays(torn)[name].tolist() for name in "mn"] == [MINE_N.tolist(), THEIR_N.tolist()]


def test_what_the_user_wrote_meanwhile_is_not_overwritten(torn: Repo) -> None:
    mine = content(n=THEIR_N)
    torn.write(NAME, mine)
    assert "it is not what the merge left there" in torn.fails(6, "resolve", NAME, "--param", "n", "--strategy", "ours")
    assert torn.read(NAME) == mine


def test_a_file_left_as_a_manifest(torn: Repo) -> None:
    torn.git("merge", "--abort")
    torn.git("config", "theta.skipSmudge", "true")
    torn.dematerialise(NAME)
    torn.git("merge", "--no-edit", "other", accept=(1,))
    torn.ok("resolve", NAME, "--strategy", "theirs")
    assert torn.read(NAME) == torn.blob(NAME)
    torn.git("config", "theta.skipSmudge", "false")
    torn.ok("checkout", NAME)
    assert arrays(torn)["n"].tolist() == THEIR_N.tolist()


def test_what_cannot_be_done(torn: Repo) -> None:
    before = torn.read(NAME)
    assert "there is no merge strategy 'tiess'" in torn.fails(3, "resolve", NAME, "--strategy", "tiess")
    assert "there is no option 'x'" in torn.fails(3, "resolve", NAME, "--strategy", "ties", "--set", "x=1")
    assert "matches no parameter" in torn.fails(3, "resolve", NAME, "--param", "zzz", "--strategy", "ours")
    assert "it is not in conflict" in torn.fails(3, "resolve", ".gitattributes", "--list")
    assert torn.theta("resolve", NAME, "--param", "n").code == 2
    assert torn.read(NAME) == before


def test_answers_are_asked_for(torn: Repo) -> None:
    done = torn.answer(b"t\no n\n", "git-theta", "resolve", NAME, "--interactive")
    assert done.code == 0, done
    assert "base   I64 [3]\n" in done.out
    assert "ours   I64 [3], 1 of 3 changed, |change| 4\n" in done.out
    assert [arrays(torn)[name].tolist() for name in "mn"] == [THEIR_N.tolist(), MINE_N.tolist()]
    assert torn.git("status", "--porcelain") == f"M  {NAME}\n"


def test_a_later_pattern_leaves_earlier_answers_alone(torn: Repo) -> None:
    done = torn.answer(b"t\no zzz*\no *\n", "git-theta", "resolve", NAME, "--interactive")
    assert done.code == 0, done
    assert "'zzz*' matches nothing that is undecided" in done.out
    assert [arrays(torn)[name].tolist() for name in "mn"] == [THEIR_N.tolist(), MINE_N.tolist()]
    assert torn.git("status", "--porcelain") == f"M  {NAME}\n"


def test_a_merge_that_failed_altogether_is_done_later(repo: Repo) -> None:
    branched(repo, content(), content(a__weight=LARGE + 1), content(a__weight=LARGE + 4))
    done = repo.run_git("merge", "--no-edit", "other", GIT_THETA_MERGE_STRATEGY="tiess")
    assert (done.code, "not merged, ours is kept" in done.err) == (1, True)
    repo.ok("resolve", NAME, "--continue")
    assert arrays(repo)["a.weight"].tobytes() == MEAN.tobytes()
    assert repo.git("status", "--porcelain") == f"M  {NAME}\n"


def test_what_is_no_parameter_is_taken_from_a_side(torn: Repo) -> None:
    said = torn.fails(3, "resolve", NAME, "--param", "~skeleton", "--strategy", "average")
    assert "from ours, theirs, base only" in said


@pytest.mark.parametrize("how", [["--param", "~skeleton"], []], ids=["what is no parameter", "all"])
@pytest.mark.parametrize("side", ["ours", "theirs", "base"])
def test_files_of_two_formats_are_taken_whole(repo: Repo, side: str, how: list[str]) -> None:
    saved = io.BytesIO()
    torch.save({"a.weight": torch.from_numpy(LARGE + 4), "n": torch.from_numpy(THEIR_N)}, saved)
    versions = {"base": content(), "ours": content(a__weight=LARGE + 1, n=MINE_N), "theirs": saved.getvalue()}
    branched(repo, versions["base"], versions["ours"], versions["theirs"])
    repo.git("merge", "--no-edit", "other", accept=(1,))
    assert repo.read(NAME) == versions["ours"]
    assert repo.ok("resolve", NAME, *how, "--strategy", side).endswith("staged\n")
    assert repo.read(NAME) == versions[side]


def test_git_mergetool_asks_as_well(torn: Repo) -> None:
    done = torn.answer(b"t\no\n", "git", "mergetool", "--tool=theta", "--no-prompt")
    assert done.code == 0, done
    assert [arrays(torn)[name].tolist() for name in "mn"] == [THEIR_N.tolist(), MINE_N.tolist()]
    assert torn.git("status", "--porcelain", "--untracked-files=no") == f"M  {NAME}\n"
    assert torn.git("config", "merge.tool", accept=(1,)) == "", "which tool is used is the user's own"


def test_metadata_that_both_sides_changed(repo: Repo) -> None:
    def save(step: str, plus: float) -> bytes:
        return safetensors.numpy.save({"a": LARGE + plus}, {"step": step})

    branched(repo, save("1", 0), save("2", 1), save("3", 2))
    repo.git("merge", "--no-edit", "other", accept=(1,))
    assert "~skeleton/step" in repo.theta("resolve", NAME, "--list").out
    repo.ok("resolve", NAME, "--param", "~skeleton", "--strategy", "theirs")
    assert b'"step":"3"' in repo.read(NAME)[:100]  # its one key


def test_scalars_of_a_pickle_that_both_sides_changed(repo: Repo) -> None:
    def save(plus: float, **scalars: object) -> bytes:
        buffer = io.BytesIO()
        torch.save({"epoch": 1, "lr": 0.5, "note": "", **scalars, "w": torch.full((3,), float(plus))}, buffer)
        return buffer.getvalue()

    versions = save(0), save(2, epoch=200, lr=0.25), save(4, epoch=300, lr=0.75, note="on")
    branched(repo, *versions, name="model.pt")
    done = repo.run_git("merge", "--no-edit", "other")
    assert done.code == 1
    [epoch, lr] = [row for row in done.err.splitlines() if row.startswith("git-theta: ")]
    assert "conflict: '~skeleton/epoch': both sides changed it, from 1 to 200 and to 300; ours is kept" in epoch
    assert "git theta resolve model.pt --param '~skeleton/lr' --strategy ours" in lr
    left = torch.load(io.BytesIO(repo.read("model.pt")))
    assert (left["epoch"], left["lr"], left["note"], left["w"].tolist()) == (200, 0.25, "on", [3, 3, 3])
    assert "matches no parameter" in repo.fails(3, "resolve", "model.pt", "-p", "~skeleton/eposh", "-s", "ours")
    repo.theta("resolve", "model.pt", "--param", "~skeleton/lr", "--strategy", "average")
    repo.ok("resolve", "model.pt", "--param", "~skeleton/ep*", "--strategy", "theirs")
    left = torch.load(io.BytesIO(repo.read("model.pt")))
    assert (left["epoch"], left["lr"], left["note"], left["w"].tolist()) == (300, 0.5, "on", [3, 3, 3])
    assert repo.git("status", "--porcelain", "--untracked-files=no") == "M  model.pt\n"
