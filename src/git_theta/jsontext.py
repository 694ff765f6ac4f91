"""JSON from anyone: read in bounded memory, and only where all readers of JSON agree on what it says (RFC 8259)."""

import json

__all__ = ["MAX_ITEMS", "has_few_items", "parse"]

MAX_ITEMS = 8_000_000

_BLOCK_BYTES = 2**20


def parse(text: bytes) -> object:
    """The value of a JSON text; raises ValueError, in one line, where it is none.

    Refused are, too, a key that stands twice in an object, text that is not UTF-8, and more than MAX_ITEMS items: an
    empty list is three bytes of text and eighty of memory.
    """
    if not has_few_items(text):
        raise ValueError(f"it has more than {MAX_ITEMS} items")
    try:
        return json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(str(error)[:100]) from error


def has_few_items(text: bytes) -> bool:
    """Whether a text has at most MAX_ITEMS items, and so is read."""
    return _count_marks(text) <= MAX_ITEMS or _has_few_items(text)


def _count_marks(text: bytes) -> int:
    """How many items there are at most: each but the first of all has one of these before it."""
    return sum(map(text.count, (b",", b":", b"[", b"{")))


def _has_few_items(text: bytes) -> bool:
    """Whether at most MAX_ITEMS of the marks before an item stand outside of strings."""
    text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    quotes = items = 0
    for start in range(0, len(text), _BLOCK_BYTES):
        runs = text[start : start + _BLOCK_BYTES].split(b'"')
        items += _count_marks(b"".join(runs[quotes % 2 :: 2]))
        quotes += len(runs) - 1
    return items <= MAX_ITEMS


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return made
