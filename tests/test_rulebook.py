"""What `git theta merge` passes on to the merge driver: rules as text, and anything else as one line."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta import plugins, rulebook
from git_theta.errors import ConfigError
from git_theta.rulebook import RULES_VARIABLE, format_environment, parse_environment
from git_theta.rules import Rule

LAW = settings(deadline=None)
ROW = {"pattern": "*", "strategy": "ties", "options": {}, "added": False, "grown": False, "files": {}}

NUMBERS = st.floats(0.25, 1) | st.just(1) | st.floats(0.25, 1).map(str)
OPTIONS = st.fixed_dictionaries(
    {}, optional={"density": NUMBERS, "weights": st.tuples(NUMBERS, NUMBERS), "lambda": NUMBERS}
)
PATTERNS = st.text(min_size=1, max_size=20)
FILES = st.dictionaries(st.just("fisher"), st.lists(st.text(), min_size=1, max_size=2).map(tuple), min_size=1)
RULES = st.one_of(
    st.builds(Rule, PATTERNS, st.just("ties"), OPTIONS, st.booleans(), st.booleans()),
    st.builds(Rule, PATTERNS, st.just("fisher"), st.just({}), st.booleans(), st.booleans(), FILES),
)  # fmt: skip
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["ties", "*"])),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.one_of(st.text(), st.sampled_from([*ROW])), inner)),
    max_leaves=9,
)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_environment(text)
    return str(caught.value)


@given(st.lists(RULES, max_size=4).map(tuple))
@LAW
def test_rules_that_are_written_are_read(rules: tuple[Rule, ...]) -> None:
    text = format_environment(rules)
    assert text.isascii()
    assert "\0" not in text
    assert parse_environment(text) == rules


def test_what_is_parsed_of_options_is_written_too() -> None:
    values = Rule("*", "ties", {"weights": "1,2"}).parsed().values
    [rule] = parse_environment(format_environment([Rule("*", "ties", values)]))
    assert rule.options == {"density": 0.2, "weights": (1.0, 2.0), "lambda": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is not JSON (Expecting value: line 1 column 1 (char 0)); unset it"),
        ("\udc80", "it is not JSON ('utf-8' codec can't encode character"),
        ("[" * 100_000, "it is not JSON ("),
        ("{}", "it is no list of at most 20000 rules; unset it"),
        (json.dumps([ROW] * 20_001), "it is no list of at most 20000 rules; unset it"),
        (json.dumps([ROW]) + " " * 2**24, "it is no list of at most 20000 rules; unset it"),
        ("[1]", "rule 1: it is not as git theta merge writes it; unset the variable"),
        (json.dumps([ROW, ROW | {"extra": 1}]), "rule 2: it is not as git theta merge writes it"),
        (json.dumps([ROW | {"added": 1}]), "rule 1: it is not as git theta merge writes it"),
        (json.dumps([ROW | {"files": {"a": "b"}}]), "rule 1: it is not as git theta merge writes it"),
        (json.dumps([ROW | {"strategy": "x\n"}]), "rule 1: there is no merge strategy 'x\\n'; to see"),
        (json.dumps([ROW | {"options": {"density": [[1]]}}]), "rule 1: strategy 'ties': option 'density'"),
        (json.dumps([ROW | {"files": {"a": []}}]), "rule 1: strategy 'ties': there is no file 'a'"),
    ],
)  # fmt: skip
def test_anything_else_is_one_line(text: str, message: str) -> None:
    said = refusal(text)
    assert said.startswith(f"{RULES_VARIABLE}: {message}")
    assert said.isprintable()


@given(
    st.one_of(
        st.text(), JSON.map(json.dumps), st.lists(st.fixed_dictionaries(dict.fromkeys(ROW, JSON))).map(json.dumps)
    )
)
@LAW
def test_any_text_is_rules_or_refused_in_one_line(text: str) -> None:
    try:
        made = parse_environment(text)
    except ConfigError as error:
        said = str(error)
        assert said.startswith(RULES_VARIABLE)
        assert said.isprintable()
        assert len(said) < 500
    else:
        assert parse_environment(format_environment(made)) == made


def test_every_place_is_documented() -> None:
    text = Path("docs/reference/merging.md").read_text(encoding="utf-8")
    settings_page = Path("docs/reference/config.md").read_text(encoding="utf-8")
    for name in (
        RULES_VARIABLE,
        rulebook.STRATEGY_VARIABLE,
        rulebook.STRATEGY_KEY,
        rulebook.OPTIONS_KEY,
        rulebook.ATTRIBUTE,
    ):
        assert f"`{name}" in text
        assert f"`{name}" in settings_page


def test_the_documented_file_is_read_and_its_strategies_are_installed() -> None:
    from git_theta.rulefile import parse

    text = Path("docs/reference/merging.md").read_text(encoding="utf-8")
    [example] = text.split("```yaml\n")[1:]
    made = parse(example.partition("```")[0].encode())
    assert len(made) == 5
    assert {rule.strategy for one in made for rule in one.rules.rules} <= {*plugins.merges()}
