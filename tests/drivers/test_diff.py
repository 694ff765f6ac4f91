"""What Git tells an external diff driver."""

import pytest

from git_theta.drivers.diff import Pair, Side, parse
from git_theta.errors import InputError

OID, OTHER, ZEROS = "1" * 40, "2" * 40, "0" * 40


@pytest.mark.parametrize(
    ("arguments", "pair"),
    [
        (["m"], Pair(("m",), unmerged=True)),
        (
            ["m", "/t/a", OID, "100644", "/t/b", OTHER, "100755"],
            Pair(("m",), Side("/t/a", OID), Side("/t/b", OTHER)),
        ),
        (["m", "/t/a", OID, "100644", "m", ZEROS, "100644"], Pair(("m",), Side("/t/a", OID), Side("m", ""))),
        (["m", "/dev/null", ".", ".", "/t/b", OID, "100644"], Pair(("m",), None, Side("/t/b", OID))),
        (["m", "/t/a", OID, "100644", "/dev/null", ".", "."], Pair(("m",), Side("/t/a", OID), None)),
        (
            ["m", "/t/a", OID, "100644", "/t/b", OTHER, "100644", "n", "similarity index 90%\n"],
            Pair(("m", "n"), Side("/t/a", OID), Side("/t/b", OTHER)),
        ),
    ],
    ids=["unmerged", "both", "worktree", "added", "removed", "renamed"],
)
def test_the_forms_of_git(arguments: list[str], pair: Pair) -> None:
    assert parse(arguments) == pair


@pytest.mark.parametrize("count", [0, 2, 6, 8, 10])
def test_other_forms_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"{count} arguments"):
        parse(["m"] * count)
