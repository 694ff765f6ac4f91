"""Where rules come from: every place, which goes before which, and the one line for a rule that means nothing."""

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from git_theta import git, manifest
from git_theta.config import SECTIONS
from git_theta.errors import ConfigError
from git_theta.git import Repository
from git_theta.merges.base import FLOAT
from git_theta.rulebook import RULES_VARIABLE, STRATEGY_VARIABLE, format_environment, read
from git_theta.rules import Rule, Rules
from tests.checkpoints import safetensors
from tests.repositories import Repo, model

PATH = b"models/a.safetensors"
NOTHING: Mapping[str, str] = {}
FILE = 'rules: [{parameters: "head.*", strategy: %s}]\n'


def rules(repo: Repo, path: bytes = PATH, *, environ: Mapping[str, str] = NOTHING) -> Rules:
    """The rules for a path."""
    repository = git.discover(repo.path)
    return read(repository, [path], repository.config(*SECTIONS), environ)[path]


def named(repo: Repo, path: bytes = PATH, *, environ: Mapping[str, str] = NOTHING) -> list[tuple[str, str]]:
    return [(rule.pattern, rule.strategy) for rule in rules(repo, path, environ=environ).rules]


def refusal(repo: Repo, path: bytes = PATH, *, environ: Mapping[str, str] = NOTHING) -> str:
    with pytest.raises(ConfigError) as caught:
        rules(repo, path, environ=environ)
    said = str(caught.value)
    assert said.isprintable()
    return said


def everywhere(repo: Repo) -> dict[str, str]:
    """Rules in every place, each another strategy; what the environment is to have."""
    repo.git("config", "theta.merge.strategy", "slerp")
    repo.write(".theta-merge.yaml", (FILE % "average").encode())
    repo.write(".gitattributes", b"*.safetensors theta-merge=nearswap\n")
    command = format_environment([Rule("head.*", "ours"), Rule("*.bias", "theirs")])
    return {RULES_VARIABLE: command, STRATEGY_VARIABLE: "ties"}


def test_nothing_is_said_anywhere(repo: Repo) -> None:
    assert rules(repo) == Rules()
    repository = git.discover(repo.path)
    assert read(repository, [], repository.config(*SECTIONS), {}) == {}


def test_the_order_of_places(repo: Repo) -> None:
    environ = everywhere(repo)
    assert named(repo, environ=environ) == [
        ("head.*", "ours"),
        ("*.bias", "theirs"),
        ("*", "ties"),
        ("*", "slerp"),
        ("head.*", "average"),
        ("*", "nearswap"),
    ]


@pytest.mark.parametrize(
    ("silent", "strategy"), [*enumerate(["ours", "ties", "slerp", "average", "nearswap", "average"])], ids=str
)
def test_a_place_counts_where_those_before_it_are_silent(repo: Repo, silent: int, strategy: str) -> None:
    environ = everywhere(repo)
    if silent > 0:
        environ[RULES_VARIABLE] = ""
    if silent > 1:
        del environ[STRATEGY_VARIABLE]
    if silent > 2:
        repo.git("config", "--unset", "theta.merge.strategy")
    if silent > 3:
        (repo.path / ".theta-merge.yaml").unlink()
    if silent > 4:
        (repo.path / ".gitattributes").unlink()
    found = rules(repo, environ=environ).find("head.weight", FLOAT)
    assert found is not None
    assert found.strategy == strategy


@pytest.mark.parametrize(
    ("text", "strategy", "options"),
    [
        ("ties", "ties", {}),
        ("ties:", "ties", {}),
        ("ties:density=0.3", "ties", {"density": "0.3"}),
        ("ties:weights=1,2,lambda=0.5,density=1", "ties", {"weights": "1,2", "lambda": "0.5", "density": "1"}),
        ("average:weights=0.3,0.7", "average", {"weights": "0.3,0.7"}),
        ("three-way:inner=max", "three-way", {"inner": "max"}),
    ],
)
def test_a_strategy_and_its_options_in_one_text(
    repo: Repo, text: str, strategy: str, options: dict[str, object]
) -> None:
    expected = Rules((Rule("*", strategy, options),))
    assert rules(repo, environ={STRATEGY_VARIABLE: text}) == expected
    repo.write(".gitattributes", f"models/** theta-merge={text}\n".encode())
    assert rules(repo) == expected
    assert rules(repo, b"a.safetensors") == Rules()


@pytest.mark.parametrize("word", ["theta-merge", "-theta-merge", "!theta-merge", "text"])
def test_an_attribute_without_a_value_says_nothing(repo: Repo, word: str) -> None:
    repo.write(".gitattributes", f"* theta-merge=ties\n*.safetensors {word}\n".encode())
    assert named(repo) == ([("*", "ties")] if word == "text" else [])


@pytest.mark.parametrize("key", ["theta.merge.strategy", "Theta.merge.Strategy"])
def test_the_configuration(repo: Repo, key: str) -> None:
    repo.git("config", key, "ties")
    assert rules(repo) == Rules((Rule("*", "ties"),))
    repo.git("config", "theta.merge.options", "density=0.2, weights=1,2")
    assert rules(repo) == Rules((Rule("*", "ties", {"density": "0.2", "weights": "1,2"}),))
    repo.git("config", "--global", "theta.merge.strategy", "average")
    assert named(repo) == [("*", "ties")]
    repo.git("config", "theta.merge.strategy", "")  # takes back what the user's own configuration says
    assert rules(repo) == Rules()


def test_a_rule_of_the_file_is_for_its_paths(repo: Repo) -> None:
    repo.write(
        ".theta-merge.yaml",
        b'rules:\n- {parameters: "*", paths: "models/*", strategy: ties}\n- {parameters: [a, b], strategy: average}\n',
    )
    assert named(repo) == [("*", "ties"), ("a", "average"), ("b", "average")]
    assert named(repo, b"a.safetensors") == [("a", "average"), ("b", "average")]


def test_each_path_has_its_own(repo: Repo) -> None:
    repo.write(".gitattributes", b"*.pt theta-merge=ties\nsub/*.pt theta-merge=average\n")
    repository = git.discover(repo.path)
    found = read(repository, [b"a.pt", b"sub/a.pt", b"a.bin"], {}, {})
    assert {path: [rule.strategy for rule in one.rules] for path, one in found.items()} == {
        b"a.pt": ["ties"],
        b"sub/a.pt": ["average"],
        b"a.bin": [],
    }


def test_the_worktrees_file_goes_before_heads(repo: Repo) -> None:
    path = repo.write(".theta-merge.yaml", (FILE % "ties").encode())
    assert named(repo) == [("head.*", "ties")]  # there is no HEAD yet
    repo.commit()
    path.write_text(FILE % "average")
    assert named(repo) == [("head.*", "average")]
    path.unlink()
    assert named(repo) == [("head.*", "ties")]


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_regular_file_is_not_read(repo: Repo, tmp_path: Path, kind: str) -> None:
    path = repo.write(".theta-merge.yaml", (FILE % "ties").encode())
    repo.commit()
    path.unlink()
    if kind == "link":
        (tmp_path / "outside").write_text(FILE % "average")
        path.symlink_to(tmp_path / "outside")
    else:
        path.mkdir()
    assert named(repo) == [("head.*", "ties")]


def test_a_bare_repository_has_heads(repo: Repo, tmp_path: Path) -> None:
    repo.write(".theta-merge.yaml", (FILE % "ties").encode())
    repo.commit()
    repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    assert named(Repo(tmp_path / "bare")) == [("head.*", "ties")]


@pytest.mark.parametrize("committed", [False, True], ids=["worktree", "HEAD"])
def test_a_file_that_is_too_large_is_one_line(repo: Repo, committed: bool) -> None:
    path = repo.write(".theta-merge.yaml", b"#" * (2**20 + 1))
    if committed:
        repo.commit()
        path.unlink()
        assert refusal(repo).startswith("HEAD:.theta-merge.yaml: it is not here, or has more than 1048576 bytes")
    else:
        assert refusal(repo) == ".theta-merge.yaml: it has more than 1048576 bytes; write fewer"


FISHER = 'rules:\n- parameters: "*"\n  paths: "models/*"\n  strategy: fisher\n  files: {fisher: [fisher/a, fisher/b]}\n'


def test_further_files_are_absolute(repo: Repo) -> None:
    repo.write(".theta-merge.yaml", FISHER.encode())
    top = Path(os.path.realpath(repo.path))
    [rule] = rules(repo).rules
    assert rule.files == {"fisher": (str(top / "fisher" / "a"), str(top / "fisher" / "b"))}
    repo.write("elsewhere/a", b"")
    (repo.path / "fisher").symlink_to("elsewhere")
    [rule] = rules(repo).rules
    assert rule.files["fisher"][0] == str(top / "elsewhere" / "a")


@pytest.mark.parametrize("target", ["/etc", "..", ".git", "x/../../..", "fisher"])
def test_links_that_lead_out_of_the_worktree_are_refused(repo: Repo, target: str) -> None:
    repo.write(".theta-merge.yaml", FISHER.encode())
    (repo.path / "fisher").symlink_to(target)
    if target == "fisher":  # a loop leads nowhere, but stays inside
        assert rules(repo).rules
        return
    assert refusal(repo) == (
        ".theta-merge.yaml: line 2: 'fisher/a' does not lie in the worktree; "
        "name a file there, and no link that leads elsewhere"
    )
    assert rules(repo, b"other.pt") == Rules()


def test_a_bare_repository_has_no_further_files(repo: Repo, tmp_path: Path) -> None:
    repo.write(".theta-merge.yaml", FISHER.encode())
    repo.commit()
    repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    bare = Repo(tmp_path / "bare")
    assert refusal(bare) == (".theta-merge.yaml: line 2: a bare repository has no file 'fisher/a'; merge in a worktree")
    assert rules(bare, b"other.pt") == Rules()


def test_the_command_line_may_name_files_anywhere(repo: Repo, tmp_path: Path) -> None:
    outside = str(tmp_path / "outside")
    [rule] = rules(repo, environ=_command("fisher/a", outside)).rules
    assert rule.files["fisher"] == (str(Path(os.path.realpath(repo.path)) / "fisher" / "a"), outside)
    for path in ("../outside", ".git/config", "a\0b"):
        assert refusal(repo, environ=_command(path)).startswith(f"{RULES_VARIABLE}: '")


def _command(*paths: str) -> dict[str, str]:
    return {RULES_VARIABLE: format_environment([Rule("*", "fisher", files={"fisher": paths})])}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiess", "there is no merge strategy 'tiess'; to see which there are: git theta strategies"),
        ("\x1b[31m", "there is no merge strategy '\\u001b[31m'; to see which there are: git theta strategies"),
        (":density=1", "there is no merge strategy ''; to see which there are: git theta strategies"),
        ("ties:densty=1", "strategy 'ties': there is no option 'densty'; it has density, weights, lambda"),
        ("ties:density=0", "strategy 'ties': option 'density' is '0'; set it to a number above 0, at most 1"),
        ("ties:density", "'density' is no option; write name=value, with commas between"),
        ("ties:density=1,lambda=1,density=1", "option 'density' stands there twice; take one out"),
    ],
)
def test_a_text_that_means_nothing_is_one_line(repo: Repo, text: str, message: str) -> None:
    assert refusal(repo, environ={STRATEGY_VARIABLE: text}) == f"{STRATEGY_VARIABLE}: {message}"
    repo.write(".gitattributes", f"* theta-merge={text}\n".encode())
    assert refusal(repo, b"mod\x1bel.pt") == f"attribute theta-merge of mod\\u001bel.pt: {message}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "tiess"}, "theta.merge.strategy: there is no merge strategy 'tiess'; to see which there are:"),
        ({"strategy": "ties:density=1"}, "theta.merge.strategy: there is no merge strategy 'ties:density=1'; to see"),
        ({"strategy": "ties", "options": "densty=1"}, "theta.merge.options: strategy 'ties': there is no option 'dens"),
        ({"strategy": "ties", "options": "0.1"}, "theta.merge.options: '0.1' is no option; write name=value"),
        ({"options": "density=1"}, "theta.merge.options: there is no strategy that it is for; set theta.merge.stra"),
    ],
)
def test_a_setting_that_means_nothing_is_one_line(repo: Repo, settings: dict[str, str], message: str) -> None:
    for name, value in settings.items():
        repo.git("config", f"theta.merge.{name}", value)
    assert refusal(repo).startswith(f"git config {message}")


def test_a_setting_without_a_value_is_one_line(repo: Repo) -> None:
    with (repo.path / ".git" / "config").open("a") as file:
        file.write('[theta "merge"]\n\tstrategy\n')
    assert refusal(repo) == ("git config theta.merge.strategy: it has no value; set it to the name of a strategy")


def test_an_error_of_the_file_names_it(repo: Repo) -> None:
    repo.write(".theta-merge.yaml", (FILE % "tiess").encode())
    assert refusal(repo).startswith(".theta-merge.yaml: line 1: there is no merge strategy 'tiess'; ")


def test_a_file_that_may_not_be_read_is_an_error(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.write(".theta-merge.yaml", (FILE % "ties").encode())
    repo.commit()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    repository = git.discover(repo.path)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError):
        read(repository, [PATH], {}, {})


def test_git_is_asked_once_for_all_paths(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    ask = Repository.attributes

    def count(self: Repository, paths: list[bytes], attribute: str) -> dict[bytes, str]:
        asked.append(paths)
        return ask(self, paths, attribute)

    monkeypatch.setattr(Repository, "attributes", count)
    assert len(read(git.discover(repo.path), [b"%d.pt" % number for number in range(300)], {}, {})) == 300
    assert len(asked) == 1


@pytest.fixture
def diverged(repo: Repo) -> Repo:
    """Two branches that changed every parameter of a model; `main`, with model(1), is checked out."""
    repo.track("*.safetensors")
    repo.write("a.safetensors", model(0))
    repo.commit()
    for branch, seed in (("other", 2), ("main", 1)):
        repo.git("checkout", "--quiet", "-B", branch, "main")
        repo.write("a.safetensors", model(seed))
        repo.commit()
    return repo


MERGE = ("merge", "--quiet", "--no-edit", "other")


@pytest.mark.parametrize("place", ["variable", "setting", "file", "attribute"])
def test_git_merges_as_each_place_says(diverged: Repo, place: str) -> None:
    if place == "setting":
        diverged.git("config", "theta.merge.strategy", "theirs")
    elif place == "file":
        diverged.write(".theta-merge.yaml", b'rules: [{parameters: "*", strategy: theirs}]\n')
    elif place == "attribute":
        diverged.write(".git/info/attributes", b"*.safetensors theta-merge=theirs\n")
    diverged.git(*MERGE, GIT_THETA_MERGE_STRATEGY="theirs" if place == "variable" else "")
    assert diverged.read("a.safetensors") == model(2)


def test_git_merges_by_further_files_of_the_repository(diverged: Repo) -> None:
    shapes = {name: one.shape for name, one in manifest.parse(diverged.blob("a.safetensors")).parameters.items()}
    for name, value in (("ours", 0), ("theirs", 1)):
        data = {key: ("F32", shape, struct.pack("<f", value) * math.prod(shape)) for key, shape in shapes.items()}
        diverged.write(f"fisher/{name}.bin", safetensors(data))
    diverged.write(
        ".theta-merge.yaml",
        b'rules: [{parameters: "*", strategy: fisher, files: {fisher: [fisher/ours.bin, fisher/theirs.bin]}}]\n',
    )
    diverged.git(*MERGE)
    assert diverged.read("a.safetensors") == model(2)  # ours has no information at all


def test_a_rule_that_means_nothing_is_a_conflict_that_keeps_ours(diverged: Repo) -> None:
    diverged.write(".theta-merge.yaml", (FILE % "tiess").encode())
    done = diverged.run_git(*MERGE)
    assert done.code == 1
    said = "a.safetensors: not merged, ours is kept: .theta-merge.yaml: line 1: there is no merge strategy 'tiess'; "
    assert said in done.err
    assert diverged.git("status", "--porcelain").startswith("UU a.safetensors")
    assert diverged.read("a.safetensors") == model(1)
