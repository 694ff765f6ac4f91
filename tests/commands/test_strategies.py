"""`git theta strategies`: what is installed, and what may be set of it."""

import json
import re
from pathlib import Path

import pytest

from git_theta import plugins
from git_theta.merges.base import Option, Strategy
from tests.repositories import Repo

HALFWAY = Strategy(
    "halfway",
    "A part of the way\x1b.",
    "",
    lambda xp, inputs, options: inputs.ours,
    options=(Option("hard", True, "Whether to."), Option("shares", (0.5, 2.0), "Of each.", above=0)),
    uses_base=True,
    most_sides=3,
    files={"map": "where to go"},
)


@pytest.fixture
def anywhere(home: Path) -> Repo:
    """A folder that is no repository."""
    return Repo(home)


@pytest.fixture
def plugin(anywhere: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """The same, with a strategy of another package."""
    monkeypatch.setattr(plugins, "_installed", lambda group: {"halfway": None} if group == plugins.MERGES_GROUP else {})
    monkeypatch.setattr(plugins, "_load", lambda group, name: HALFWAY if name == "halfway" else None)
    return anywhere


def test_a_row_for_each_that_is_installed(plugin: Repo) -> None:
    lines = plugin.ok("strategies").splitlines()
    assert lines[0].split() == ["strategy", "what", "it", "does"]
    rows = dict(line.split(maxsplit=1) for line in lines[1:])
    found = plugins.merges()
    assert "ties" in found
    assert "halfway" in found
    assert rows == {name: one.summary.replace("\x1b", "\\u001b") for name, one in found.items()}


def test_one_with_its_options(anywhere: Repo) -> None:
    head, _, options = anywhere.ok("strategies", "ties").partition("\n\n")
    assert dict(line.split(maxsplit=1) for line in head.splitlines()) == {
        "strategy": "ties",
        "summary": "The largest of each side's changes; of these, the mean of those that agree on a sign.",
        "base": "needed",
        "sides": "any number",
        "merges": "float",
        "paper": "https://arxiv.org/abs/2306.01708",
    }
    assert [re.split(" {2,}", line) for line in options.splitlines()] == [
        ["option", "default", "allowed", "meaning"],
        ["density", "0.2", "a number above 0, at most 1", "The share of each side's changes that is kept."],
        [
            "weights",
            "one each",
            "a number for each side at least 0, at most 1,000,000, not all 0",
            "What each side's change counts for, ours first; only their ratios count.",
        ],
        ["lambda", "1", "a number at least -100, at most 100", "What the merged change is multiplied by."],
    ]


def test_one_without_options(anywhere: Repo) -> None:
    assert anywhere.ok("strategies", "theirs").splitlines() == [
        "strategy  theirs",
        "summary   Their value, bit for bit.",
        "base      not used",
        "sides     at most 2",
        "merges    boolean, float, integer",
    ]


def test_one_of_another_package(plugin: Repo) -> None:
    assert plugin.ok("strategies", "halfway").splitlines() == [
        "strategy  halfway",
        "summary   A part of the way\\u001b.",
        "base      used where there is one",
        "sides     at most 3",
        "merges    float",
        "file      map: where to go",
        "",
        "option  default  allowed                         meaning",
        "hard    true     true or false                   Whether to.",
        "shares  0.5,2    a number for each side above 0  Of each.",
    ]


def test_json_has_everything_about_each(plugin: Repo) -> None:
    document = json.loads(plugin.ok("strategies", "--json"))
    assert document["version"] == 1
    items = {item["name"]: item for item in document["strategies"]}
    assert [*items] == [*plugins.merges()]
    assert items["halfway"] == {
        "name": "halfway",
        "summary": "A part of the way\x1b.",
        "paper": None,
        "kinds": ["float"],
        "needs_base": False,
        "uses_base": True,
        "most_sides": 3,
        "elementwise": False,
        "finite": True,
        "options": [
            {
                "name": "hard",
                "default": True,
                "allowed": "true or false",
                "above": None,
                "least": None,
                "most": None,
                "choices": [],
                "summary": "Whether to.",
            },
            {
                "name": "shares",
                "default": [0.5, 2],
                "allowed": "a number for each side above 0",
                "above": 0,
                "least": None,
                "most": None,
                "choices": [],
                "summary": "Of each.",
            },
        ],
        "files": {"map": "where to go"},
    }
    assert items["ties"]["needs_base"] is items["ties"]["uses_base"] is True
    assert items["ties"]["most_sides"] is None
    assert items["three-way"]["options"][0]["choices"][-1] == "conflict"


def test_json_of_one_is_as_documented(anywhere: Repo) -> None:
    text = Path("docs/reference/cli.md").read_text(encoding="utf-8").partition("## git theta strategies\n")[2]
    [example] = re.findall(r"```json\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    assert json.loads(anywhere.ok("strategies", "--json", "slerp")) == json.loads(example)


def test_a_name_of_none_is_one_line(anywhere: Repo) -> None:
    said = anywhere.fails(3, "strategies", "tiess\x1b")
    assert (
        said == "git-theta: there is no merge strategy 'tiess\\u001b'; to see which there are: git theta strategies\n"
    )
