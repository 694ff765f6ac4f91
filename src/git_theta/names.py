"""Parameter names: how a path of keys becomes one name, and how a name is shown.

A tensor in a checkpoint is reached by a path of keys, `("optimizer", "state", 0, "exp_avg")`. Its name joins the keys
with "/", escaped as in a JSON Pointer (RFC 6901, section 3: "~" is "~0", "/" is "~1"), with two additions: a string
that reads as an integer is "~s" and the string, so that the keys 0 and "0" differ; a key that is neither a string nor
an integer is "~k" and its text. A lone surrogate, which no UTF-8 text can hold but a pickle can, is "~u" and four hex
digits. A "~" followed by anything else is never made here: names of a format's own, such as "weight~storage", have it.
Names are data: they are never paths on a disk, and are shown escaped.
"""

import json
import os
import re
from collections.abc import Iterable

__all__ = ["join", "shown", "shown_path"]

_INTEGER = re.compile(r"-?[0-9]+\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_INTEGER_BITS = 1024  # Python refuses to write integers of more than 4,300 digits in decimal
_PLAIN = re.compile(r"[ -~]*\Z")


def join(keys: Iterable[object]) -> str:
    """The name for a path of keys; different paths of strings and integers have different names."""
    return "/".join(_escape(key) for key in keys)


def _escape(key: object) -> str:
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key) if key.bit_length() <= _LONGEST_INTEGER_BITS else f"~k{key:#x}"
    text = (key if isinstance(key, str) else repr(key)).replace("~", "~0").replace("/", "~1")
    if not text.isascii():
        text = _SURROGATE.sub(lambda match: f"~u{ord(match[0]):04x}", text)
    if not isinstance(key, str):
        return "~k" + text
    return "~s" + text if _INTEGER.match(text) else text


def shown(name: str) -> str:
    """The name as it is printed: control characters and everything outside ASCII escaped, as JSON does it."""
    return name if _PLAIN.match(name) else json.dumps(name)[1:-1]


def shown_path(path: bytes | str) -> str:
    """A path, or text of Git's, as it is printed: whatever is not printable is escaped, other alphabets are left."""
    text = path if isinstance(path, str) else os.fsdecode(path)
    return text if text.isprintable() else "".join(char if char.isprintable() else shown(char) for char in text)
