"""Regular expressions in bounded time: what `re` says of them, for those that are read."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.errors import InputError
from git_theta.expression import MAX_PATTERN_LENGTH, Expression

ATOMS = st.sampled_from(["a", "b", ".", r"\.", "[ab]", "[^a.]", r"\d", r"\w", "0", "^", "$", ""])


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    suffixes = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{1,}", "*?"])
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, suffixes).map(lambda parts: f"({parts[0]}){parts[1]}"),
        inner.map(lambda part: f"(?:{part})"),
    )


PATTERNS = st.recursive(ATOMS, _combined, max_leaves=6)
TEXTS = st.text("ab.0", max_size=8)


@given(PATTERNS, TEXTS)
def test_what_re_matches_is_matched(pattern: str, text: str) -> None:
    found = Expression(pattern)
    assert found.matches(text) == bool(re.fullmatch(pattern, text))
    assert found.matches_end(text) == bool(re.match(rf"(.*\.)?({pattern})$", text))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("q_proj", "model.layers.0.q_proj", True),
        ("q_proj", "model.layers.0.xq_proj", False),
        ("layers.0.q_proj", "model.layers.0.q_proj", True),
        ("layers.0.q_proj", "model.layers.10.q_proj", False),
        ("^model.layers.0.q_proj", "model.layers.0.q_proj", True),
        ("^layers.0.q_proj", "model.layers.0.q_proj", False),
        (r".*\.(0|1)\..*proj", "model.layers.1.k_proj", True),
        (r"layers\.[0-9]{1,2}\.mlp\.(up|down)_proj", "model.layers.31.mlp.down_proj", True),
    ],
)
def test_patterns_as_peft_has_them(pattern: str, name: str, expected: bool) -> None:
    assert Expression(pattern).matches_end(name) is expected


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|a)*b", "(a|aa)+b", "(.*a){20}b", "((a+)+)+b", "(a?){50}b"])
def test_patterns_that_take_re_for_ever_take_a_moment(pattern: str) -> None:
    before = time.process_time()
    assert not Expression(pattern).matches_end("a." * 10 + "a" * 60)
    assert time.process_time() - before < 2


def test_pattern_that_takes_too_long_is_refused() -> None:
    with pytest.raises(InputError, match="too long"):
        Expression("(.*.*.*.*){100}b").matches("a" * 4000)


OTHERS = ["(", ")", "a)", "[", "[]", "*", "a**", "a{2", "a{3,2}", "a{101}", "(?=a)", "(?i)a", r"\1", r"\b", "\\"]


@pytest.mark.parametrize("pattern", [*OTHERS, "[[:x:]", "[a--b]", "(" * 30 + ")" * 30])
def test_other_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="is no regular expression of the plain kind"):
        Expression(pattern)


def test_length_is_bounded() -> None:
    assert Expression("a" * MAX_PATTERN_LENGTH).matches("a" * MAX_PATTERN_LENGTH)
    with pytest.raises(InputError, match="has 513 characters"):
        Expression("a" * (MAX_PATTERN_LENGTH + 1))
