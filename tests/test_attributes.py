"""The text of `.gitattributes`: nothing of anyone's is lost, and what is added can be taken away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta import attributes

LINES = st.lists(
    st.sampled_from(
        [
            b"",
            b"# comment",
            b"*.pt filter=theta diff=theta merge=theta -text",
            b"*.pt filter=lfs diff=lfs merge=lfs -text",
            b'"a b"\ttext',
            b'"\\101\\n" -text',
            b'"unclosed text',
            b"[attr]macro -diff",
            b"   indented  binary",
            b"\xef\xbb\xbf*.bom text",
            b"\xff\x00",
        ]
    )
)
PATTERNS = st.binary(min_size=1, max_size=12).filter(
    lambda text: not text.startswith((b"!", b"[attr]")) and not text.endswith(b"/")
)


@given(LINES, st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_lines_joined_are_the_text(lines: list[bytes], ending: bytes, closed: bool) -> None:
    text = ending.join(lines) + (ending if closed and lines else b"")
    assert b"".join(line.raw for line in attributes.parse(text)) == text


@given(LINES, PATTERNS, st.sampled_from([b"\n", b"\r\n"]))
def test_what_is_added_is_found_and_can_be_removed(lines: list[bytes], pattern: bytes, ending: bytes) -> None:
    text = b"".join(line + ending for line in lines)
    longer = attributes.add(text, pattern)
    assert longer.startswith(text)
    last = [line for line in attributes.parse(longer) if line.pattern == pattern][-1]
    assert attributes.is_complete(last)
    assert attributes.add(longer, pattern) == longer
    assert attributes.remove(longer, pattern) == attributes.remove(text, pattern)


@pytest.mark.parametrize(
    ("line", "pattern", "values"),
    [
        (b"*.pt filter=theta", b"*.pt", {b"filter": b"theta"}),
        (
            b'"a b" -text\tdiff !merge x=y',
            b"a b",
            {b"text": b"-text", b"diff": b"diff", b"merge": b"!merge", b"x": b"y"},
        ),
        (b'"\\321\\204\\"\\\\" a', b'\xd1\x84"\\', {b"a": b"a"}),
        (b"\xef\xbb\xbf*.pt a\r\n", b"*.pt", {b"a": b"a"}),
        (b"# *.pt filter=theta", None, {}),
        (b"[attr]x filter=theta", None, {}),
        (b"  \r\n", None, {}),
    ],
)
def test_lines_are_read_as_git_reads_them(line: bytes, pattern: bytes | None, values: dict[bytes, bytes]) -> None:
    (found,) = attributes.parse(line)
    assert (found.pattern, found.values) == (pattern, values)
