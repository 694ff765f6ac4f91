"""`git theta log`: a line for each commit that changed a checkpoint."""

import html
import json
from pathlib import Path

import pytest

from git_theta.commands import html_output
from tests.browser import browser
from tests.checkpoints import safetensors, trained, weights
from tests.repositories import Repo

NAME = "m.safetensors"
LARGE, SMALL = weights(128 * 160), weights(40, 1)


def model(large: bytes = LARGE, small: bytes = SMALL, **more: bytes) -> bytes:
    tensors = {"large": large, "small": small, **more}
    return safetensors({name: ("F32", (len(data) // 4,), data) for name, data in tensors.items()})


@pytest.fixture
def history(repo: Repo) -> Repo:
    """Four commits: the first version, one trained parameter, a rename of the file, one parameter more."""
    repo.track("*.safetensors")
    repo.write("old.safetensors", model())
    repo.commit("first")
    repo.write("old.safetensors", model(trained(LARGE)))
    repo.commit("train")
    repo.git("mv", "old.safetensors", NAME)
    repo.write("notes.txt", b"moved\n")
    repo.commit("move")
    repo.write(NAME, model(trained(LARGE), SMALL, new=weights(50, 2)))
    repo.commit("grow")
    return repo


def commits(repo: Repo, *arguments: str) -> list[dict[str, object]]:
    found = json.loads(repo.ok("log", "--json", *arguments))["commits"]
    assert isinstance(found, list)
    return found


def test_each_commit_has_a_line(history: Repo) -> None:
    rows = commits(history, NAME)
    assert [(row["subject"], row["counts"]) for row in rows if row["subject"] != "move"] == [
        ("grow", {"added": 1}),
        ("train", {"changed": 1}),
        ("first", {"added": 2}),
    ]
    train = next(row for row in rows if row["subject"] == "train")
    assert train["updates"] == {"delta": 1}
    relative, added = train["relative_change"], train["added_bytes"]
    assert isinstance(relative, float)
    assert isinstance(added, int)
    assert 0 < relative < 0.01
    assert 0 < added < len(LARGE)
    lines = history.ok("log", NAME).splitlines()
    assert lines[0].split() == ["commit", "date", "parameters", "stored", "as", "|change|"]
    assert [line.split()[-1] for line in lines[1:] if not line.endswith("move")] == ["grow", "train", "first"]


def test_parameters_and_numbers_of_commits_can_be_chosen(history: Repo) -> None:
    assert [row["subject"] for row in commits(history, "--param", "lar*", NAME)] == ["train", "first"]
    assert [row["subject"] for row in commits(history, "-n", "1", NAME)] == ["grow"]
    assert [row["subject"] for row in commits(history, "HEAD~2", "old.safetensors")] == ["train", "first"]
    assert commits(history, "--no-stats", NAME)[0]["relative_change"] is None


def test_a_version_from_before_the_file_was_tracked(repo: Repo) -> None:
    repo.write(NAME, model())
    repo.commit("plain")
    assert "already stored" in repo.theta("track", "*.safetensors").err
    repo.write(NAME, model(trained(LARGE)))
    repo.commit("tracked")
    assert [row["is_manifest"] for row in commits(repo, NAME)] == [False, False]
    assert "stored as it is" in repo.ok("log", NAME)


def test_a_merge_is_compared_with_its_first_parent(history: Repo) -> None:
    history.git("checkout", "--quiet", "-b", "side", "HEAD~1")
    history.write(NAME, model(trained(LARGE), trained(SMALL)))
    history.commit("side")
    history.git("checkout", "--quiet", "main")
    history.git("merge", "--quiet", "--no-edit", "side")
    first = commits(history, NAME)[0]
    assert (first["subject"], first["counts"]) == ("Merge branch 'side'", {"changed": 1})


def summary(repo: Repo, *words: str) -> list[tuple[object, object, object]]:
    return [(row["subject"], row["counts"], row.get("renamed_from")) for row in commits(repo, *words)]


def test_renames_are_followed_on_each_branch_by_itself(history: Repo) -> None:
    """The file was renamed on a branch, twice, and trained under both names, while it was trained on main."""
    history.git("checkout", "--quiet", "-b", "side", "HEAD~2")
    history.git("mv", "old.safetensors", "[new].safetensors")
    history.commit("side moves")
    history.write("[new].safetensors", model(trained(LARGE), trained(SMALL)))
    history.commit("side trains")
    (history.path / "sub").mkdir()
    history.git("mv", "[new].safetensors", f"sub/{NAME}")
    history.commit("side moves again")
    history.git("checkout", "--quiet", "-b", "trunk", "HEAD~3")
    history.write("old.safetensors", model(trained(trained(LARGE))))
    history.commit("trunk trains")
    history.git("merge", "--quiet", "--no-edit", "side")
    assert history.read(f"sub/{NAME}") == model(trained(trained(LARGE)), trained(SMALL))
    side: list[tuple[object, object, object]] = [
        ("side moves again", {}, "[new].safetensors"),
        ("side trains", {"changed": 1}, None),
        ("side moves", {}, "old.safetensors"),
        ("train", {"changed": 1}, None),
        ("first", {"added": 2}, None),
    ]
    merge, trunk = (
        ("Merge branch 'side' into trunk", {"changed": 1}, "old.safetensors"),
        ("trunk trains", {"changed": 1}, None),
    )
    found = summary(history, f"sub/{NAME}")
    assert found[0] == merge
    assert sorted(found, key=str) == sorted([merge, trunk, *side], key=str)
    assert found[-2:] == side[-2:]
    assert summary(history, "side", f"sub/{NAME}") == side
    assert [row[0] for row in summary(history, "--param", "small", f"sub/{NAME}")] == [merge[0], "side trains", "first"]
    assert "renamed from [new].safetensors" in history.ok("log", f"sub/{NAME}")


def test_another_file_that_took_the_old_name_is_another_story(history: Repo) -> None:
    history.write("old.safetensors", model(trained(trained(LARGE)), SMALL))
    history.commit("another")
    history.git("rm", "--quiet", NAME)
    history.commit("gone")
    assert [row[:2] for row in summary(history, NAME)][:2] == [("gone", {"removed": 3}), ("grow", {"added": 1})]
    assert [row[0] for row in summary(history, NAME)] == ["gone", "grow", "move", "train", "first"]
    # Of one path, what was there before is told as well.
    assert [row[0] for row in summary(history, "old.safetensors")] == ["another", "move", "train", "first"]


def test_a_merge_that_moves_or_adds_the_file_itself(history: Repo) -> None:
    history.git("checkout", "--quiet", "-b", "side", "HEAD~1")
    history.write("notes.txt", b"side\n")
    history.commit("side")
    history.git("checkout", "--quiet", "main")
    history.git("merge", "--quiet", "--no-commit", "--no-ff", "side")
    history.git("mv", NAME, "c.safetensors")
    history.write("d.safetensors", model(SMALL, LARGE))
    history.commit("merge")
    assert [row[::2] for row in summary(history, "c.safetensors")] == [
        ("merge", NAME),
        ("grow", None),
        ("move", "old.safetensors"),
        ("train", None),
        ("first", None),
    ]
    assert summary(history, "d.safetensors") == [("merge", {"added": 2}, None)]


def test_a_copy_has_the_history_of_its_source(history: Repo) -> None:
    """A checkpoint is put aside, and another one takes its place, in one commit."""
    history.write("kept.safetensors", history.read(NAME))
    history.write(NAME, model(trained(trained(LARGE)), SMALL, new=weights(50, 2)))
    history.commit("keep")
    [first, *others] = commits(history, "kept.safetensors")
    assert (first["subject"], first["copied_from"], first["counts"]) == ("keep", NAME, {})
    assert [row["subject"] for row in others] == ["grow", "move", "train", "first"]
    assert f"copied from {NAME}" in history.ok("log", "kept.safetensors")


def test_merges_that_one_side_or_none_had_a_say_in_are_told(history: Repo) -> None:
    for name, plus in (("one", 1), ("other", 2)):
        history.git("checkout", "--quiet", "-b", name, "main")
        history.write(NAME, model(trained(LARGE), weights(40, plus)))
        history.commit(name)
    history.git("checkout", "--quiet", "main")
    history.git("merge", "--quiet", "--no-ff", "--no-edit", "one")
    history.git("merge", "--quiet", "--strategy", "ours", "--no-edit", "other")
    assert [row[0] for row in summary(history, NAME)][:1] != ["Merge branch 'other'"]
    assert {row[0] for row in summary(history, NAME)} == {
        "other",
        "Merge branch 'one'",
        "one",
        "grow",
        "move",
        "train",
        "first",
    }


GPG = """#!/bin/sh
cat > /dev/null
case "$*" in
*--verify*) echo "[GNUPG:] GOODSIG 1 me"; echo "gpg: Good signature" >&2 ;;
*) echo "[GNUPG:] SIG_CREATED " >&2
   printf -- '-----BEGIN PGP SIGNATURE-----\\n\\nx\\n-----END PGP SIGNATURE-----\\n' ;;
esac
"""


@pytest.mark.parametrize(
    ("key", "value"), [("log.showSignature", "true"), ("i18n.logOutputEncoding", "UTF-16"), ("log.follow", "true")]
)
def test_settings_of_git_log_change_nothing(history: Repo, tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "gpg").write_text(GPG)
    (tmp_path / "gpg").chmod(0o755)
    history.git("config", "gpg.program", str(tmp_path / "gpg"))
    history.git("commit", "--quiet", "--amend", "--no-edit", "--gpg-sign=me")
    assert "Good signature" in history.run_git("log", "-1", "--show-signature").out
    before = summary(history, NAME)
    history.git("config", key, value)
    assert summary(history, NAME) == before


def test_commits_are_named_by_a_few_characters(history: Repo) -> None:
    head = history.git("rev-parse", "HEAD").strip()
    assert history.ok("log", NAME).splitlines()[1].split()[0] == head[:10]


def page(repo: Repo, *options: str) -> str:
    assert repo.ok("log", "--html", "page.html", *options, NAME) == ""
    return repo.read("page.html").decode("ascii")


def test_the_page_holds_the_document_and_the_lines(history: Repo) -> None:
    text = page(history)
    data = text.split('id="data">')[1].split("</script>")[0]
    assert json.loads(data) == json.loads(history.ok("log", "--json", NAME))
    assert json.loads(data)["version"] == 1
    assert html.unescape(text.split("<pre>")[1].split("</pre>")[0]) == history.ok("log", NAME).rstrip("\n")
    assert text.count("://") == 2, "the names of two languages, and no address"
    assert "One of --json, and --html or --open." in history.theta("log", "--json", "--open", NAME).err


HEADS = "[...document.querySelectorAll('.changes th button')]"
COMMITS = "[...document.querySelectorAll('.changes tbody tr')].map(row => row.cells[2].textContent)"


def test_a_browser_shows_the_history(history: Repo, tmp_path: Path) -> None:
    history.write(NAME, model(trained(LARGE, 5), SMALL, new=weights(50, 2)))
    history.git("add", NAME)
    evil = "</script><img src=x onerror=alert(1)> \u202e\u001b[31m"
    history.git("commit", "-qm", evil, "--author", "A &amp; B <a@example.com>")
    page(history)
    rows = json.loads(history.ok("log", "--json", NAME))["commits"]
    with browser(tmp_path / "profile") as seen:
        seen.show(history.path / "page.html")
        subjects = [row["subject"].replace("\u202e", "\\u202e").replace("\x1b", "\\u001b") for row in rows]
        assert seen.value(COMMITS) == subjects
        assert seen.value("document.querySelectorAll('img, b, script').length") == 2, "its own two scripts"
        charts = seen.value("[...document.querySelectorAll('svg')].map(one => one.querySelectorAll('rect').length)")
        held = [row for row in rows if row["is_manifest"]]
        assert charts == [len([row for row in held if row["relative_change"] is not None]), len(held), len(held)]
        bars = (
            "[...document.querySelectorAll('svg')[1].querySelectorAll('rect')].map(bar => +bar.getAttribute('height'))"
        )
        most = max(row["added_bytes"] for row in held)
        wanted = [120 * max(0.005, row["added_bytes"] / most) for row in reversed(held)]
        assert seen.value(bars) == pytest.approx(wanted)
        titles = seen.value("[...document.querySelectorAll('rect title')].map(title => title.textContent)")
        assert any(title.startswith(rows[0]["commit"][:10]) for title in titles)
        seen.value(f"{HEADS}.find(head => head.textContent === 'added').click()")
        order = sorted(held, key=lambda row: -row["added_bytes"])
        assert seen.value(COMMITS)[0] == subjects[rows.index(order[0])]
        seen.value(
            "new Promise(done => { const box = document.querySelector('input'); box.value = 'TRAIN';"
            "box.dispatchEvent(new Event('input')); requestAnimationFrame(() => requestAnimationFrame(done)); })"
        )
        assert seen.value(COMMITS) == ["train"]
        seen.show(history.path / "page.html", 360, 640, dark=True)
        assert seen.value("document.documentElement.scrollWidth") <= 360
        assert seen.value("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
        assert seen.complaints == []
        assert set(seen.asked) == {(history.path / "page.html").as_uri()}


def test_a_browser_shows_a_thousand_commits(tmp_path: Path) -> None:
    row = {"date": "2026-01-02", "author": "A", "subject": "s", "is_manifest": True, "counts": {"changed": 3}}
    row |= {"updates": {"delta": 3}, "added_bytes": 5, "size_bytes": 9, "relative_change": 0.01}
    rows = [{**row, "commit": f"{number:040x}"} for number in range(1500)]
    path = tmp_path / "page.html"
    path.write_bytes(html_output.page(html_output.HISTORY, {"version": 1, "path": "m", "commits": rows}, []))
    with browser(tmp_path / "profile") as seen:
        seen.show(path)
        assert seen.value("document.querySelector('svg').querySelectorAll('rect').length") == 960
        assert seen.value(f"{COMMITS}.length") == 500
        assert seen.complaints == []


def test_what_cannot_be_shown(history: Repo) -> None:
    assert "no commit changed it" in history.fails(3, "log", "nowhere.safetensors")
    assert history.theta("log", "nonsense", NAME).code == 7
    assert history.theta("log", "a", "b", "c").code == 2


def test_no_commit_yet(repo: Repo) -> None:
    assert "there is no commit yet" in repo.fails(3, "log", NAME)
