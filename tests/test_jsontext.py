"""JSON from anyone: what is refused that Python's own reader takes, or takes much memory for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta import jsontext
from git_theta.jsontext import MAX_ITEMS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[" + b"0," * (MAX_ITEMS - 1) + b"0]", [0] * MAX_ITEMS),
        (b'["' + rb"\\\",:[{" * MAX_ITEMS + b'"]', ['\\",:[{' * MAX_ITEMS]),
    ],
    ids=["just as many items", "marks in a string"],
)
def test_many_items_are_read(text: bytes, value: object) -> None:
    assert jsontext.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [b"[" + b"0," * MAX_ITEMS + b"0]", b'["' + rb"\\" * 9 + b'",' + b"0," * MAX_ITEMS + b"0]"],
    ids=["one item more", "behind a string"],
)
def test_more_items_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="items"):
        jsontext.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[1", id="cut short"),
        pytest.param(b"[] []", id="two values"),
        pytest.param(b'"\n"', id="line feed in a string"),
        pytest.param(b'"\xff"', id="no UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', id="surrogate in UTF-8"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param(b"[" * 100_000, id="nesting bomb"),
        pytest.param(b"9" * 5000, id="5,000 digits"),
        pytest.param(b'{"a": 1, "a": 1}', id="key twice"),
        pytest.param(b'[[{"a": {"b": 1, "\\u0062": 2}}]]', id="key twice, deep and escaped"),
    ],
)
def test_what_is_no_json_is_refused_in_one_line(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        jsontext.parse(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 100


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text()), st.lists))
def test_what_python_writes_is_read(value: object) -> None:
    for ascii_ in (True, False):
        assert jsontext.parse(json.dumps(value, ensure_ascii=ascii_).encode()) == value
