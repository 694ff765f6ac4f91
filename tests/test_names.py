"""Parameter names: escaping, and that different paths have different names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta import names

_KEYS = st.one_of(st.text(st.characters()), st.integers(), st.sampled_from(["0", "-1", "~", "/", "", "~s0", "~ud800"]))


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (("optimizer", "state", 0, "exp_avg"), "optimizer/state/0/exp_avg"),
        (("layer.0.weight",), "layer.0.weight"),
        (("a/b", "c~d"), "a~1b/c~0d"),
        (("0",), "~s0"),
        (("-12",), "~s-12"),
        (("+1",), "+1"),
        (("",), ""),
        (("", ""), "/"),
        ((True,), "~kTrue"),
        ((None,), "~kNone"),
        ((0.5,), "~k0.5"),
        ((b"x",), "~kb'x'"),
        (((0, "a/b"),), "~k(0, 'a~1b')"),
        (("\ud800x\udfff",), "~ud800x~udfff"),
        (("größe-重",), "größe-重"),
        ((1 << 1023,), str(1 << 1023)),
        ((1 << 1024,), f"~k{1 << 1024:#x}"),
    ],
)
def test_join(keys: tuple[object, ...], name: str) -> None:
    assert names.join(keys) == name


def test_join_takes_integers_that_python_will_not_write_in_decimal() -> None:
    assert names.join((10**5000,)).startswith("~k0x")


@given(st.lists(_KEYS, min_size=1), st.lists(_KEYS, min_size=1))
def test_different_paths_have_different_names(one: list[str | int], other: list[str | int]) -> None:
    # "0" == 0 is false, but True == 1 is not: keys are compared with their types.
    same = [(type(key), key) for key in one] == [(type(key), key) for key in other]
    assert (names.join(one) == names.join(other)) == same


@given(st.lists(_KEYS))
def test_a_name_can_be_written_as_utf8(keys: list[str | int]) -> None:
    names.join(keys).encode()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("layer.0/weight ~1", "layer.0/weight ~1"),
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\u001b[31mred"),
        ("größe", "gr\\u00f6\\u00dfe"),
        ("\u202egnp", "\\u202egnp"),
    ],
)
def test_shown_escapes_what_a_terminal_would_obey(name: str, shown: str) -> None:
    assert names.shown(name) == shown


@given(st.text())
def test_shown_is_printable_ascii(name: str) -> None:
    assert all(" " <= char <= "~" for char in names.shown(name))
