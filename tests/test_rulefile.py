"""The rules file: what it says, the one line for anything else, and that nothing else ever comes of it."""

import json
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from git_theta import rulefile
from git_theta.errors import ConfigError
from git_theta.merges.base import FLOAT, INTEGER
from git_theta.rulefile import MAX_RULES, FileRule, parse
from git_theta.rules import FILE_NAME, MAX_FILE_BYTES, Rule, Rules

LAW = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

EXAMPLE = b"""\
# Heads first.
rules:
  - parameters: "lm_head.*"
    paths: "models/*.safetensors"
    strategy: ties
    options: {density: 0.3, weights: [1, 2]}
    added: true
    grown: True
  - parameters: [embedding, "*.bias"]
    paths:
      - a.pt
      - b.pt
    strategy: fisher
    files: {fisher: [fisher/ours.safetensors, fisher/theirs.safetensors]}
  - strategy: diloco-outer
    parameters: "*"
    files:
      momentum: momentum.safetensors
"""


def only(text: str) -> FileRule:
    [made] = parse(dedent(text).encode())
    return made


def refusal(text: str | bytes) -> str:
    """The one line for a text; without the name of the file, which it begins with."""
    with pytest.raises(ConfigError) as caught:
        parse(text if isinstance(text, bytes) else dedent(text).encode())
    return str(caught.value).removeprefix(f"{FILE_NAME}: ")


def test_a_file_is_its_rules_in_order() -> None:
    fisher = {"fisher": ("fisher/ours.safetensors", "fisher/theirs.safetensors")}
    first = Rule("lm_head.*", "ties", {"density": "0.3", "weights": ["1", "2"]}, added=True, grown=True)
    assert first.parsed().values == {"density": 0.3, "weights": (1.0, 2.0), "lambda": 1.0}
    assert parse(EXAMPLE) == (
        FileRule(Rules((first,)), 3, ("models/*.safetensors",)),
        FileRule(
            Rules((Rule("embedding", "fisher", files=fisher), Rule("*.bias", "fisher", files=fisher))),
            9,
            ("a.pt", "b.pt"),
        ),
        FileRule(Rules((Rule("*", "diloco-outer", files={"momentum": ("momentum.safetensors",)}),)), 15),
    )


def test_the_first_rule_that_takes_the_kind_counts() -> None:
    rules = Rules(tuple(rule for one in parse(EXAMPLE) for rule in one.rules.rules))
    assert [rules.find(name, FLOAT).strategy for name in ("lm_head.bias", "x.bias", "x.weight")] == [  # type: ignore[union-attr]  # each has a rule
        "ties",
        "fisher",
        "diloco-outer",
    ]
    found = rules.find("lm_head.bias", INTEGER)
    assert found is not None
    assert found.strategy == "three-way"


@pytest.mark.parametrize("text", [b"", b"\n", b"# nothing yet\n", b"\xef\xbb\xbf", b"rules: []\n"])
def test_a_file_may_have_no_rules(text: bytes) -> None:
    assert parse(text) == ()


@pytest.mark.parametrize(
    ("paths", "path", "expected"),
    [
        (None, b"any/where.pt", True),
        ('"models/*.safetensors"', b"models/a.safetensors", True),
        ('"models/*.safetensors"', b"models/deep/a.safetensors", True),
        ('"models/*.safetensors"', b"Models/a.safetensors", False),
        ('"models/*.safetensors"', b"x/models/a.safetensors", False),
        ('["a.pt", "b.pt"]', b"b.pt", True),
        ('["a.pt", "b.pt"]', b"c.pt", False),
        ('"?.pt"', "\N{LATIN SMALL LETTER E WITH ACUTE}.pt".encode(), True),
        ('"*.pt"', b"\xff.pt", True),
    ],
)
def test_a_rule_is_for_the_checkpoints_of_its_paths(paths: str | None, path: bytes, expected: bool) -> None:
    line = f"\n            paths: {paths}" if paths else ""
    made = only(f"""\
        rules:
          - strategy: ties
            parameters: "*"{line}
        """)
    assert made.applies(path) is expected


@pytest.mark.parametrize("name", ["no", "on", "1_000", "0x10", "1e3", "2001-01-01", "1:30", '"null"', "'~'", "<<", "="])
def test_a_scalar_is_the_text_that_is_written(name: str) -> None:
    made = only(f"""\
        rules:
          - {{parameters: {name}, strategy: ours}}
        """)
    assert made.rules.rules[0].pattern == name.strip("\"'")


def test_the_tags_of_plain_values_mean_nothing() -> None:
    made = only("""\
        rules: !!seq
          - !!map {parameters: !!str 12, strategy: ! ties, options: {lambda: !!float "2"}, added: !!bool "true"}
        """)
    assert made.rules.rules == (Rule("12", "ties", {"lambda": "2"}, added=True),)


def test_options_must_fit_each_other_and_not_each_the_defaults() -> None:
    # With its default eps of 0.15, della refuses the density.
    made = only("""\
        rules:
          - parameters: "*"
            strategy: della
            options: {density: 0.1, eps: 0.05}
        """)
    assert made.rules.rules[0].parsed().number("density") == 0.1
    said = refusal("""\
        rules:
          - strategy: della
            options:
              density: 0.1
            parameters: "*"
            files: {}
        """)
    assert said.startswith("line 4: strategy 'della': density 0.1 and eps 0.15: ")


def rule(*lines: str) -> str:
    """A file of one rule, whose first line is line 2, and that has these lines from line 4 on."""
    return "\n".join(["rules:", '- parameters: "*"', "  strategy: ties", *(f"  {line}" for line in lines)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a text", "line 1: the file is a text; write 'name: value' pairs"),
        ("- a", "line 1: the file is a list; write 'name: value' pairs"),
        ("~", "line 1: the file is empty; write 'name: value' pairs"),
        ("{}", "line 1: there is no 'rules'; begin with it, and indent the list of rules below"),
        ("rules: []\nrule: []", "line 2: the file has no 'rule'; it has rules"),
        ("rules:", "line 1: 'rules' is empty; write a list, each item behind a '-'"),
        ("rules: {a: b}", "line 1: 'rules' is a mapping; write a list, each item behind a '-'"),
        ("rules:\n- ties", "line 2: a rule is a text; write 'name: value' pairs"),
        ("rules:\n- {}", "line 2: the rule has no 'parameters'; write it"),
        ("rules:\n- parameters: a", "line 2: the rule has no 'strategy'; write it"),
        ("rules:\n- strategy: ties", "line 2: the rule has no 'parameters'; write it"),
        ("rules:\n- {[a]: b}", "line 2: a key is a list; write a text or a number, in quotes where in doubt"),
        ("rules:\n- strategy: ties\n  parameters:\n  - a\n  - ''\n", "line 5: a pattern has 0 characters; write"),
        ("rules:\n- strategy: ties\n  parameters:\n", "line 3: 'parameters' is empty; write a text or a number"),
        ("rules:\n- strategy: ties\n  parameters: []\n", "line 3: 'parameters' is an empty list; write something"),
        ("rules:\n- strategy: ties\n  parameters: [[a]]\n", "line 3: 'parameters' is a list; write a text or a number"),
        ("rules:\n- parameters: a\n  strategy: tiess", "line 3: there is no merge strategy 'tiess'; to see which"),
        ("rules:\n- parameters: a\n  strategy: [ties]", "line 3: 'strategy' is a list; write a text or a number"),
        (rule("option: {}"), "line 4: a rule has no 'option'; it has parameters, paths, strategy, options, added,"),
        (rule("options: 1"), "line 4: 'options' is a text; write 'name: value' pairs"),
        (rule("options:", "  lambda: 2", "  densty: 1"), "line 6: strategy 'ties': there is no option 'densty'; it"),
        (rule("options:", "  lambda: 2", "  density: 7"), "line 6: option 'density' is '7'; set it to a number above"),
        (rule("options:", "  density: ~"), "line 5: 'density' is empty; write a text or a number, in quotes where in"),
        (rule("options:", "  density: {}"), "line 5: 'density' is a mapping; write a text or a number"),
        (rule("options:", "  density: [0.1]"), "line 5: option 'density' is ['0.1']; set it to a number above 0"),
        (rule("files:", '  "x\\e": {}'), "line 5: 'x\\u001b' is a mapping; write a text or a number"),
        (rule("added: yes"), "line 4: 'added' is 'yes'; write true or false"),
        (rule("grown: []"), "line 4: 'grown' is a list; write a text or a number"),
        (rule("paths: ''"), "line 4: 'paths' takes at most 1000 patterns of 1 to 4096 characters; write them so"),
        (rule("files:", "  fisher: a.pt"), "line 5: strategy 'ties': there is no file 'fisher'; it reads none"),
        (rule("added: true", "added: true"), "line 5: 'added' stands here twice; take one out"),
        (rule("paths: &x a"), "line 4: anchors and aliases are not read here; put what begins with '*'"),
        (rule("paths: *x"), "line 4: anchors and aliases are not read here; put what begins with '*'"),
        (rule("paths: *.pt"), "line 4: anchors and aliases are not read here; put what begins with '*'"),
        (rule("paths: !!python/name:os.system x"), "line 4: the tag 'tag:yaml.org,2002:python/name:os.system' is"),
        (rule("paths: !!binary eA=="), "line 4: the tag 'tag:yaml.org,2002:binary' is not read here; take it out"),
        (rule("paths: !local x"), "line 4: the tag '!local' is not read here; take it out"),
        (rule("paths: [[[[[[x]]]]]]"), "line 4: it is nested deeper than rules are; see docs/reference/merging.md"),
        (rule("paths: 'a"), "line 4: it is not YAML: found unexpected end of stream; mend it"),
        (rule("\tpaths: a"), "line 4: it is not YAML: found character '\\t' that cannot start any token; mend it"),
        ("rules: []\n--- \nrules: []", "line 2: it is not YAML: but found another document; mend it"),
        (b"rules:\n- \xff", "line 2: it is not UTF-8; save it as that"),
        (b"rules:\n- \0", "line 2: the character U+0000 is not allowed; take it out"),
        ('\nrules: "\\UFFFFFFFF"', "line 2: an escape or a version is beyond what YAML has; mend it"),
        ("%YAML 1." + "9" * 5000, "line 1: an escape or a version is beyond what YAML has; mend it"),
    ],
)  # fmt: skip
def test_anything_else_is_one_line_that_names_the_line(text: str | bytes, message: str) -> None:
    assert refusal(text).startswith(message)


@pytest.mark.parametrize(
    "path",
    ["../a.pt", "a/../../b.pt", "/etc/passwd", "a//b", ".", "a/./b", '""', "a/", ".git/x", "a/.GIT/x", r'"a\0b"'],
)
def test_a_file_that_does_not_lie_inside_is_refused(path: str) -> None:
    said = refusal(f"""\
        rules:
          - parameters: "*"
            strategy: fisher
            files:
              fisher:
                - here.safetensors
                - {path}
        """)
    assert said.startswith("line 7: '")
    assert said.endswith("' is no path inside the repository; write one from its top, without '..'")


def test_what_the_text_has_is_shown_escaped_and_cut() -> None:
    said = refusal('rules:\n- {"x\\e[31m\\n' + "y" * 500 + '": 1}')
    assert said == f"line 2: a rule has no 'x\\u001b[31m\\n{'y' * 33}'; it has {', '.join(rulefile._KEYS)}"


def test_bounds() -> None:
    row = b"- {parameters: a, strategy: ours}\n"
    assert len(parse(b"rules:\n" + row * MAX_RULES)) == MAX_RULES
    assert (
        refusal(b"rules:\n" + row * (MAX_RULES + 1))
        == "line 1002: there are more than 1000 rules or patterns; write fewer"
    )
    listed = "rules:\n- {parameters: [%s], strategy: ours}"
    assert len(only(listed % ("a," * MAX_RULES)).rules.rules) == MAX_RULES
    assert "more than 1000 rules or patterns" in refusal(listed % ("a," * (MAX_RULES + 1)))
    assert "takes at most 1000 patterns" in refusal(rule(f"paths: [{'a,' * 1001}]"))
    assert "takes at most 1000 patterns" in refusal(rule(f"paths: {'a' * 4097}"))
    assert parse(b"#" * MAX_FILE_BYTES) == ()
    assert refusal(b"#" * (MAX_FILE_BYTES + 1)) == f"it has more than {MAX_FILE_BYTES} bytes; write fewer"


@pytest.mark.parametrize("text", ["[", "{", "- ", "? ", "{a: ", "[a, "], ids=repr)
def test_nesting_is_refused_before_it_is_followed(text: str) -> None:
    assert refusal(text * 100_000) == "line 1: it is nested deeper than rules are; see docs/reference/merging.md"


@pytest.mark.parametrize("text", [b"rules: [" + b"a," * 500_000, b"a:\n" * 300_000], ids=["list", "mapping"])
def test_a_file_of_very_many_values_is_refused_before_it_is_read_to_its_end(text: bytes) -> None:
    assert "there are more than 50000 names and values up to here; write fewer" in refusal(text)


WORDS = st.sampled_from(
    [
        *"[]{},:-?&*!|>'\"%@`#~\n\t ",
        *("\n  ", "\n- ", ": ", "!!", "\\x", "\ufeff", "\x85", "\u2028", "\ud800", "%YAML 1.1", "---", "...", "<<"),
        *rulefile._KEYS,
        *("rules", "ties", "fisher", "density", "weights", "true", "null", "0.3", "..", "a/b"),
        *('"\\U00110000"', "!!python/name:x", "!!str"),
    ]
)
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from(["ties", "a.pt", "0.5"])
)


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """The example with a few bytes exchanged."""
    text = bytearray(EXAMPLE)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text) - 1))
        text[at : at + draw(st.integers(0, 9))] = draw(st.one_of(st.binary(max_size=3), WORDS.map(encoded)))
    return bytes(text)


@st.composite
def near(draw: st.DrawFn) -> bytes:
    """A file of the right form, as JSON, with any values."""
    value = st.one_of(
        PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(st.sampled_from(["density", "fisher"]), PLAIN)
    )
    rows = st.dictionaries(st.sampled_from(rulefile._KEYS), value)
    return json.dumps({"rules": draw(st.lists(rows, max_size=3))}).encode()


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@given(st.one_of(st.binary(), st.lists(WORDS).map("".join).map(encoded), bent(), near()))
@example(EXAMPLE)
@example(b"%TAG ! tag:x,2000:\n--- !a b")
@example(b"%YAML 9.9\n---\n")
@example(b"'\\")
@example(b'"\\xZZ"')
@LAW
def test_any_bytes_are_rules_or_refused_in_one_line(text: bytes) -> None:
    try:
        made = parse(text)
    except ConfigError as error:
        said = str(error)
        assert said.startswith(f"{FILE_NAME}: line ")
        assert said.isprintable()
        assert said.isascii()
        assert len(said) < 500
    else:
        for one in made:
            assert one.rules.rules
            assert (
                1
                <= one.line
                <= text.count(b"\n") + text.count(b"\r") + text.count(b"\xe2\x80") + text.count(b"\xc2\x85") + 1
            )
            assert isinstance(one.applies(b"a\xff.pt"), bool)
