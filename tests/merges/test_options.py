"""Options: what users may write, and the one line they get for anything else."""

import pytest

from git_theta import plugins
from git_theta.errors import ConfigError, ConflictError
from git_theta.merges.averages import AVERAGE
from git_theta.merges.base import Option, read_options
from git_theta.merges.dropping import BREADCRUMBS, DARE_LINEAR, DELLA
from git_theta.merges.elements import THREE_WAY
from git_theta.merges.signs import TIES
from git_theta.merges.spherical import SLERP
from tests.merges.arithmetic import merged, task


def test_what_is_not_given_is_the_default() -> None:
    options = read_options(TIES, {"density": "0.5"})
    assert options.values == {"density": 0.5, "weights": (), "lambda": 1.0}
    assert options.weights(3) == (1, 1, 1)
    assert options.shares(4) == (0.25,) * 4


@pytest.mark.parametrize("given", ["0.25", 0.25, " 0.25 ", "25e-2"])
def test_a_number_may_be_written_as_python_writes_it(given: object) -> None:
    assert read_options(TIES, {"density": given}).number("density") == 0.25


def test_a_whole_number_is_a_number() -> None:
    assert read_options(TIES, {"lambda": 2}).number("lambda") == 2
    assert read_options(DARE_LINEAR, {"seed": "12"}).integer("seed") == 12
    assert read_options(THREE_WAY, {"inner": "max"}).text("inner") == "max"


def test_true_and_false() -> None:
    option = Option("scaled", True, "Whether it is scaled.")
    assert [option.parse(given) for given in ("true", "False", True, False)] == [True, False, True, False]
    with pytest.raises(ConfigError, match=r"option 'scaled' is '1'; set it to true or false\Z"):
        option.parse("1")


@pytest.mark.parametrize(
    ("strategy", "given", "message"),
    [
        ("ties", {"density": "0"}, "option 'density' is '0'; set it to a number above 0, at most 1"),
        ("ties", {"density": 1.01}, "option 'density' is 1.01; set it to a number above 0, at most 1"),
        ("ties", {"density": True}, "option 'density' is True; set it to a number above 0, at most 1"),
        ("ties", {"density": "nan"}, "option 'density' is 'nan'; set it to a number above 0, at most 1"),
        ("ties", {"density": "1_0"}, "option 'density' is '1_0'; set it to a number above 0, at most 1"),
        ("ties", {"densty": 0.1}, "there is no option 'densty'; it has density, weights, lambda"),
        ("ours", {"x\n\x1b": 1}, r"there is no option 'x\n\u001b'; it has none"),
        (
            "ties",
            {"weights": "1,-1"},
            "'1,-1'; set it to a number for each side at least 0, at most 1,000,000, not all 0",
        ),
        ("ties", {"weights": [1] * 65}, "set it to a number for each side at least 0, at most 1,000,000"),
        ("ties", {"weights": "0,-0.0,0"}, "is '0,-0.0,0'; set it to a number for each side"),
        (
            "average",
            {"weights": "0,0"},
            "is '0,0'; set it to a number for each side at least 0, at most 1,000,000, not all 0",
        ),
        (
            "dare-linear",
            {"seed": 0.5},
            "is 0.5; set it to a whole number at least 0, at most 9,223,372,036,854,775,807",
        ),
        ("dare-linear", {"seed": "\x1b[31m"}, r"option 'seed' is '\x1b[31m'; set it to"),
        ("three-way", {"inner": "ties"}, "is 'ties'; set it to average or task-arithmetic or ours or theirs or base"),
        ("della", {"density": 0.1}, "density 0.1 and eps 0.15: density - eps must be above 0"),
        ("della", {"density": 0.9}, "density + eps at most 1"),
        ("breadcrumbs", {"density": 0.9, "gamma": 0.2}, "density 0.9 and gamma 0.2 add up to more than 1"),
    ],
)
def test_anything_else_is_one_clear_line(strategy: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(plugins.merge(strategy), given)
    assert str(caught.value).startswith(f"strategy '{strategy}': ")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_bounds_themselves_are_allowed() -> None:
    for strategy, given in (
        (TIES, {"density": 1}),
        (AVERAGE, {"weights": (0.0, 1e-300)}),
        (DARE_LINEAR, {"weights": (0.0, 0.0)}),
        (SLERP, {"t": 0}),
        (DELLA, {"density": 0.85}),
        (BREADCRUMBS, {"density": 0.99, "gamma": 0.01}),
    ):
        assert read_options(strategy, given).values.items() >= given.items()


def test_weights_are_one_for_each_side() -> None:
    with pytest.raises(ConfigError, match="'weights' has 3 numbers, and there are 2 sides; give one for each"):
        merged(AVERAGE, task(None, [1], [2]), weights="1,2,3")
    with pytest.raises(ConfigError, match="not all 0"):
        merged(AVERAGE, task(None, [1], [2]), weights="0,0")


def test_more_sides_than_a_strategy_merges_are_a_conflict() -> None:
    with pytest.raises(ConflictError, match="'slerp' merges 2 sides, and there are 3"):
        merged(SLERP, task(None, [1], [2], [3]))
