"""The attribute `theta-updates`: how the next version of some files is stored."""

import os
from pathlib import Path

import pytest

from git_theta import manifest
from git_theta.config import Settings
from git_theta.git import Repository, discover
from git_theta.overrides import Overrides
from tests.checkpoints import safetensors, trained, weights
from tests.repositories import ATTRIBUTES, Repo

NAME = "sub/model.safetensors"
FIRST = weights(128 * 160)


def checkpoint(data: bytes) -> bytes:
    return safetensors({"weight": ("F32", (128, 160), data)})


def updates(repo: Repo, name: str = NAME) -> list[str]:
    return [step.update for step in manifest.parse(repo.blob(name)).parameters["weight"].store]


@pytest.fixture
def based(repo: Repo) -> Repo:
    """A repository with a checkpoint, whose next version lies in the worktree."""
    repo.track("*.safetensors")
    repo.write(NAME, checkpoint(FIRST))
    repo.commit()
    repo.write(NAME, checkpoint(trained(FIRST, scale=3e-9)))
    return repo


@pytest.mark.parametrize(
    ("file", "line", "update"),
    [
        (".gitattributes", "*.safetensors theta-updates=sparse,delta", "delta"),
        ("sub/.gitattributes", "*.safetensors theta-updates=sparse", "sparse"),
        ("sub/.gitattributes", "*.safetensors theta-updates=dense", None),
        (".gitattributes", "*.safetensors -theta-updates", None),
        (".gitattributes", "*.safetensors theta-updates", "delta"),
        (".gitattributes", "*.pt theta-updates=dense", "delta"),
    ],
)
def test_the_attribute_says_what_is_tried(based: Repo, file: str, line: str, update: str | None) -> None:
    path = based.path / file
    before = path.read_bytes() if path.exists() else b""
    path.write_bytes(before + line.encode() + b"\n")
    based.git("add", NAME)
    assert updates(based) == ["dense", *([update] if update else [])]


def test_the_attribute_goes_before_the_setting(based: Repo) -> None:
    based.git("config", "theta.updates", "dense")
    with (based.path / ".gitattributes").open("a") as file:
        file.write("sub/** theta-updates=delta\n")
    based.git("add", NAME)
    assert updates(based) == ["dense", "delta"]


@pytest.mark.parametrize("where", ["info", "setting", "home", "xdg"])
def test_attributes_outside_of_the_worktree(
    based: Repo, home: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "info": based.path / ".git" / "info" / "attributes",
        "setting": home / "own-attributes",
        "home": home / ".config" / "git" / "attributes",
        "xdg": home / "xdg" / "git" / "attributes",
    }
    if where == "setting":
        based.git("config", "core.attributesFile", "~/own-attributes")
    if where == "xdg":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    places[where].parent.mkdir(parents=True, exist_ok=True)
    places[where].write_text("*.safetensors theta-updates=dense\n")
    based.git("add", NAME)
    assert updates(based) == ["dense"]


def test_attributes_that_only_the_index_has(based: Repo) -> None:
    (based.path / ".gitattributes").write_text(f"*.safetensors {ATTRIBUTES} theta-updates=dense\n")
    based.git("add", ".gitattributes")
    (based.path / ".gitattributes").unlink()
    based.git("add", NAME)
    assert updates(based) == ["dense"]


def test_an_update_that_is_not_installed_is_one_line_and_nothing_is_staged(based: Repo) -> None:
    before = based.blob(NAME)
    with (based.path / ".gitattributes").open("a") as file:
        file.write("*.safetensors theta-updates=delta,row-delta\x1b\n")
    done = based.run_git("add", NAME)
    assert done.code != 0
    [line, *_] = [line for line in done.err.splitlines() if line.startswith("git-theta: ")]
    assert line.startswith(f"git-theta: {NAME}: attribute theta-updates: update 'row-delta")
    assert "is not installed" in line
    assert "\x1b" not in line
    assert based.blob(NAME) == before


def test_no_process_is_started_where_no_file_mentions_it(based: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repository, "attributes", lambda *_: pytest.fail("Git was asked"))
    settings = Settings(threads=3)
    for staged in (set(), {b".gitattributes"}):
        overrides = Overrides(discover(based.path), settings, {}, os.environ)
        assert overrides.at(os.fsencode(NAME), staged) is settings
