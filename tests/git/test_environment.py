"""What the environment may be like: names, locales, variables and settings of Git, places of the filter."""

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from git_theta import manifest
from tests.git.kinds import changed_layer, layers
from tests.git.test_round_trip import touched
from tests.repositories import ATTRIBUTES, Repo, model, scripts_path

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows allows no such names")

NAMES = [
    "m o d e l.st",
    "модель-模型-🧠.st",
    "new\nline.st",
    "ends in a newline\n",
    "-rf.st",
    "--help.st",
    "tab\tand \x1b[31m escape.st",
    "quo\"te's.st",
    "back\\slash.st",
    ":(top).st",
    "*.st",
    "[a].st",
    os.fsdecode(b"latin-\xe9.st"),
    "x" * 250 + ".st",
    "/".join(["folder " * 20] * 20) + "/deep.st",
    ".st",
    "key=value.st",
]


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    repo.write(".gitattributes", f"* {ATTRIBUTES}\n.gitattributes -filter\n".encode())
    return repo


@posix_only
@pytest.mark.parametrize("variables", [{}, {"LANG": "C", "LC_ALL": "POSIX"}], ids=["as it is", "LANG=C"])
def test_names_of_every_kind_come_back(
    tracked: Repo, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # Content that is large enough to be looked for at its path.
    content = layers(2)
    for name in NAMES:
        tracked.write(name, content)
    tracked.commit()
    assert len(tracked.git("ls-files", "-z").split("\0")) == len(NAMES) + 2
    for name in NAMES:
        (tracked.path / name).unlink()
    tracked.git("-c", "core.quotePath=false", "checkout", "--quiet", "--", ".")
    for name in NAMES:
        assert tracked.read(name) == content
    assert tracked.git("status", "--porcelain") == ""


@posix_only
def test_messages_show_names_without_what_terminals_would_obey(tracked: Repo) -> None:
    name = "\x1b[31mred\n模\udce9.st"
    tracked.write(name, model())
    tracked.git("add", "--all")
    tracked.stage_blob(name, tracked.blob(name)[:-7])
    (tracked.path / name).unlink()
    done = tracked.run_git("checkout", "--", ".", LANG="C")
    [line] = [line for line in done.err.splitlines() if line.startswith("git-theta: ")]
    assert line.startswith("git-theta: \\u001b[31mred\\n\\u6a21\\udce9.st: its manifest cannot be used: ")
    assert line.isascii()


@posix_only
@pytest.mark.parametrize("folder", ["with spaces", "quo'te", "$HOME `id` \\", "модель"])
def test_filter_in_a_folder_of_any_name(
    fresh_repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    for script in ("git-theta", "git-theta-filter", "git-theta-merge"):
        shutil.copy(scripts_path() / script, tmp_path / folder)
    get_path = sysconfig.get_path
    monkeypatch.setattr(
        sysconfig, "get_path", lambda *args: str(tmp_path / folder) if args == ("scripts",) else get_path(*args)
    )
    fresh_repo.ok("install")
    assert folder.split("'")[0] in fresh_repo.git("config", "filter.theta.process")
    fresh_repo.track("*.st")
    fresh_repo.write("a.st", layers())
    fresh_repo.commit()
    assert manifest.parse(fresh_repo.blob("a.st")).format == "safetensors"


@posix_only
@pytest.mark.parametrize("folder", ["with spaces", "модель", "new\nline", "line\u2028separator", "\udce9"])
def test_repository_in_a_folder_of_any_name(home: Path, tmp_path: Path, folder: str) -> None:
    repo = Repo(tmp_path / folder / "repo")
    repo.path.mkdir(parents=True)
    repo.git("init", "--quiet")
    repo.ok("install")
    repo.track("*.st")
    repo.write("a.st", layers())
    repo.commit()
    repo.git("worktree", "add", "--quiet", str(tmp_path / folder / "linked"))
    linked = Repo(tmp_path / folder / "linked")
    assert linked.read("a.st") == layers()
    linked.write("a.st", changed_layer(1))
    linked.commit()
    assert len(repo.objects()) == len(manifest.parse(linked.blob("a.st")).objects()) + 1


@pytest.mark.parametrize("places", ["both", "the folder alone"])
def test_repository_named_by_variables(
    tracked: Repo, tmp_path: Path, places: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`GIT_DIR` alone makes the current folder the worktree."""
    tracked.write("sub/a.st", layers())
    monkeypatch.setenv("GIT_DIR", str(tracked.path / ".git"))
    elsewhere = Repo(tmp_path)
    if places == "both":
        monkeypatch.setenv("GIT_WORK_TREE", str(tracked.path))
        elsewhere.git("add", "--all")
    else:
        tracked.git("add", "--all")
    assert manifest.parse(tracked.blob("sub/a.st")).format == "safetensors"
    assert len(tracked.objects()) > 1
    (tracked.path / "sub" / "a.st").unlink()
    (elsewhere if places == "both" else tracked).git("checkout-index", "--all", "--force")
    assert tracked.read("sub/a.st") == layers()


def test_relative_git_dir(tracked: Repo) -> None:
    tracked.write("a.st", layers())
    tracked.git("add", "--all", GIT_DIR=".git", GIT_WORK_TREE=".")
    assert manifest.parse(tracked.blob("a.st")).format == "safetensors"
    assert not (tracked.path / "theta").exists()


def test_separate_git_dir(home: Path, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "worktree")
    repo.path.mkdir()
    repo.git("init", "--quiet", f"--separate-git-dir={tmp_path / 'store'}")
    repo.ok("install")
    repo.track("*.st")
    repo.write("a.st", layers())
    repo.commit()
    assert (tmp_path / "store" / "theta" / "objects").is_dir()
    repo.git("reset", "--quiet", "--hard")
    touched(repo.path / "a.st")
    assert repo.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"core.autocrlf": "true", "core.safecrlf": "true"},
        {"core.autocrlf": "input", "core.eol": "crlf"},
        {"core.bigFileThreshold": "1k"},
        {"core.quotePath": "false", "core.precomposeUnicode": "true"},
        {"checkout.workers": "8", "checkout.thresholdForParallelism": "1"},
        {"core.untrackedCache": "true", "core.splitIndex": "true"},
        {"core.literalPathspecs": "true", "core.checkStat": "minimal"},
        {"filter.theta.required": "false"},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_settings_of_git_change_nothing(tracked: Repo, settings: dict[str, str]) -> None:
    for key, value in settings.items():
        tracked.git("config", key, value)
    contents = {"large.st": layers(), "small.st": model(), "text.st": b"one\r\ntwo\n\r\n" * 50_000, "lf.st": b"a\nb\n"}
    for name, content in contents.items():
        tracked.write(name, content)
    tracked.commit()
    for name in contents:
        (tracked.path / name).unlink()
    tracked.git("checkout", "--", ".")
    for name, content in contents.items():
        assert tracked.read(name) == content
        touched(tracked.path / name)
    assert tracked.git("status", "--porcelain") == ""


@posix_only
def test_read_only_files_of_the_worktree(tracked: Repo) -> None:
    path = tracked.write("a.st", layers())
    path.chmod(0o444)
    tracked.commit()
    touched(path)
    assert tracked.git("status", "--porcelain") == ""
    tracked.git("rm", "--quiet", "--cached", "a.st")
    tracked.git("reset", "--quiet", "--hard")
    assert path.read_bytes() == layers()


def test_filter_that_is_not_there_stores_nothing(tracked: Repo) -> None:
    """`filter.theta.required`: no checkpoint lands in Git itself by accident."""
    tracked.git("config", "filter.theta.process", "/no/such/git-theta-filter")
    tracked.write("a.st", layers())
    assert tracked.run_git("add", "a.st").code == 128
    assert tracked.git("ls-files", "a.st") == ""


def test_umask_reaches_the_objects(tracked: Repo) -> None:
    if os.name == "nt":
        return
    before = os.umask(0o027)
    try:
        tracked.write("a.st", layers())
        tracked.git("add", "a.st")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tracked.objects()} == {0o440}


@pytest.mark.parametrize("value", ["maybe", "2"])
def test_variable_that_means_nothing_is_one_line(tracked: Repo, value: str) -> None:
    tracked.write("a.st", model())
    done = tracked.run_git("add", "a.st", GIT_THETA_SKIP_SMUDGE=value)
    assert done.code == 128
    said = [line for line in done.err.splitlines() if line.startswith("git-theta: ")]
    assert said == [f"git-theta: GIT_THETA_SKIP_SMUDGE is '{value}'; set it to true or false"]
    assert "Traceback" not in done.err
