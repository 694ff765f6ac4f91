"""Rules: patterns, and the one line for a rule that cannot be meant so."""

import pytest

from git_theta.errors import ConfigError
from git_theta.rules import Rule, Rules


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "a.b/c", True),
        ("layer.*.weight", "layer.0.attn.weight", True),
        ("layer.?.weight", "layer.10.weight", False),
        ("layer.[01].weight", "layer.1.weight", True),
        ("weight", "layer.weight", False),
        ("Layer*", "layer.0", False),
        ("a\nb", "a\nb", True),
    ],
)
def test_a_pattern_matches_whole_names(pattern: str, name: str, expected: bool) -> None:
    assert Rule(pattern, "average").matches(name) is expected


@pytest.mark.parametrize(
    ("pattern", "strategy", "options", "message"),
    [
        ("*", "avrage", {}, "there is no merge strategy 'avrage'"),
        ("*", "ties", {"density": 2}, "strategy 'ties': option 'density' is 2; set it to"),
        ("*", "ties", {"keep": 2}, "there is no option 'keep'"),
        ("", "ties", {}, "a pattern has 0 characters"),
        ("*" * 4097, "ties", {}, "a pattern has 4097 characters"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(
    pattern: str, strategy: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Rule(pattern, strategy, options)


def test_a_file_that_the_strategy_does_not_read_is_refused() -> None:
    assert Rule("*", "fisher", files={"fisher": ("a", "b")}).files == {"fisher": ("a", "b")}
    with pytest.raises(ConfigError, match=r"strategy 'fisher': there is no file 'f\\n'; it reads fisher\Z"):
        Rule("*", "fisher", files={"f\n": ("a",)})
    with pytest.raises(ConfigError, match=r"strategy 'ties': there is no file 'fisher'; it reads none\Z"):
        Rule("*", "ties", files={"fisher": ("a",)})


def test_a_rule_that_matches_nothing_is_named() -> None:
    rules = Rules((Rule("*.weight", "ties"), Rule("lm_haed\x1b*", "ours")))
    rules.check_used(["a.weight", "lm_haed\x1b.bias"])
    with pytest.raises(
        ConfigError, match=r"the pattern 'lm_haed\\u001b\*' matches no parameter; to see their names: git"
    ):
        rules.check_used(["a.weight", "lm_head.weight"])
