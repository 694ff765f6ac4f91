"""The text of a `.gitattributes` file: its lines, the patterns that Git-Theta tracks in it, and the same with changes.

Source: gitattributes(5), and `parse_attr_line` in Git's attr.c. Other lines survive byte for byte; new ones end as the
lines of the file do.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from git_theta.errors import InputError
from git_theta.names import shown_path

__all__ = [
    "ATTRIBUTES",
    "FILE_NAME",
    "MAX_FILE_BYTES",
    "WORDS",
    "Line",
    "add",
    "append",
    "escape_path",
    "is_complete",
    "parse",
    "remove",
]

FILE_NAME = ".gitattributes"
MAX_FILE_BYTES = 100 * 2**20  # Git ignores larger ones
ATTRIBUTES: Mapping[bytes, bytes] = {b"filter": b"theta", b"diff": b"theta", b"merge": b"theta", b"text": b"-text"}
WORDS = b"filter=theta diff=theta merge=theta -text"
_MACRO = b"[attr]"
_MAX_LINE_BYTES = 2048  # Git 2.38.2 and later skip longer lines
_BLANKS = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"

_NEEDS_QUOTES = re.compile(rb'[\x00-\x20\x7f]|\A(?:["#]|\xef\xbb\xbf)')
_TO_ESCAPE = re.compile(rb'[\x00-\x1f\x7f"\\]')
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2}|.)", re.DOTALL)
_ESCAPES = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_GLOB = re.compile(rb"[*?\[\\]")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its ending; `pattern` is None for a comment, a blank line and a macro.

    `values` has the last word for each attribute: "filter" to "theta", "text" to "-text", "binary" to "binary".
    """

    raw: bytes
    pattern: bytes | None
    words: tuple[bytes, ...]

    @property
    def values(self) -> dict[bytes, bytes]:
        return {_attribute(word): word.partition(b"=")[2] or word for word in self.words}


def _attribute(word: bytes) -> bytes:
    return word.lstrip(b"-!").partition(b"=")[0]


def is_complete(line: Line) -> bool:
    """Whether a line sets everything that `git theta track` writes."""
    return line.values.items() >= ATTRIBUTES.items()


def parse(text: bytes) -> list[Line]:
    """The lines of a file; joined, their `raw` is the text again."""
    raws = re.findall(rb"[^\n]*\n|[^\n]+\Z", text)
    return [_parse_line(raw, raw.removeprefix(_BOM) if index == 0 else raw) for index, raw in enumerate(raws)]


def _parse_line(raw: bytes, body: bytes) -> Line:
    body = body.strip(_BLANKS)
    quoted = _QUOTED.match(body)
    if quoted:
        pattern, rest = _unquote(quoted[1]), body[quoted.end() :]
    else:
        pattern, _, rest = body.replace(b"\t", b" ").partition(b" ")
    if not pattern or body.startswith(b"#") or pattern.startswith(_MACRO):
        return Line(raw, None, ())
    return Line(raw, pattern, tuple(rest.split()))


def _unquote(text: bytes) -> bytes:
    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8)]) if len(code) == 3 else _ESCAPES.get(code, code)

    return _ESCAPED.sub(plain, text)


def _quote(pattern: bytes) -> bytes:
    """The pattern as it is written: in double quotes, escaped as in C, where Git would read it otherwise."""
    if not _NEEDS_QUOTES.search(pattern):
        return pattern
    return b'"' + _TO_ESCAPE.sub(_escape_byte, pattern) + b'"'


def _escape_byte(match: re.Match[bytes]) -> bytes:
    byte = match[0]
    return b"\\" + byte if byte in b'"\\' else b"\\%03o" % byte[0]


def escape_path(path: bytes) -> bytes:
    """The pattern that matches this path and nothing else of its form."""
    pattern = _GLOB.sub(rb"\\\g<0>", path)
    return b"\\" + pattern if pattern.startswith(b"!") else pattern


def add(text: bytes, pattern: bytes) -> bytes:
    """The text with a line that tracks `pattern`; the same text if it has one that nothing after it undoes.

    Raises InputError for a pattern that Git would not heed.
    """
    same = [line for line in parse(text) if line.pattern == pattern and b"filter" in line.values]
    return text if same and is_complete(same[-1]) else append(text, pattern, WORDS)


def append(text: bytes, pattern: bytes, words: bytes) -> bytes:
    """The text with one more line; raises InputError for a line that Git would not heed."""
    if pattern.startswith(b"!"):
        raise InputError(
            f"{shown_path(pattern)}: Git knows no negative patterns for attributes; to except files, set -filter"
        )
    if not pattern or pattern.startswith(_MACRO) or pattern.endswith(b"/"):
        raise InputError(f"'{shown_path(pattern)}' is a pattern that matches no file")
    line = _quote(pattern) + b" " + words
    if len(line) >= _MAX_LINE_BYTES:
        raise InputError(f"a pattern of {len(pattern)} bytes: Git skips lines of {_MAX_LINE_BYTES} bytes and more")
    ending = b"\r\n" if text.count(b"\r\n") * 2 > text.count(b"\n") else b"\n"
    joint = b"" if not text or text.endswith(b"\n") else ending
    return text + joint + line + ending


def remove(text: bytes, pattern: bytes) -> bytes:
    """The text without the lines that track `pattern`; a line that sets more than we do keeps the rest of it."""
    kept = []
    for line in parse(text):
        if line.pattern != pattern or line.values.get(b"filter") != ATTRIBUTES[b"filter"]:
            kept.append(line.raw)
            continue
        rest = [word for word in line.words if ATTRIBUTES.get(_attribute(word)) not in (word, word.partition(b"=")[2])]
        if rest:
            ending = line.raw[len(line.raw.rstrip(b"\r\n")) :]
            kept.append(b" ".join([_quote(pattern), *rest]) + ending)
    return b"".join(kept)
