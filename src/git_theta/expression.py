"""Regular expressions of the plain kind, matched in bounded time.

The patterns of a PEFT adapter come from whoever made it, and Python's `re` takes for ever over some of them. Here the
places at which a part of the pattern may end are noted for each place at which it may begin, so that no place is tried
twice. Scope: literals, ".", "\\" before a character and \\d \\w \\s, classes, groups, "|", "*", "+", "?", "{m,n}", "^"
and "$". Anything else (look-around, references, flags) is refused.
"""

import re
from collections.abc import Callable

from git_theta.errors import InputError

__all__ = ["MAX_PATTERN_LENGTH", "Expression"]

MAX_PATTERN_LENGTH = 512
_MAX_REPEAT = 100
_MAX_DEPTH = 20
_MAX_STEPS = 2_000_000

_PLAIN = re.compile(r"[\w.\- /]*\Z", re.ASCII)
_REPEAT = re.compile(r"\{([0-9]{1,3})(,?)([0-9]{0,3})\}")
_CLASS = re.compile(r"\[\^?\]?(?:[^\]\\\[]|\\.)*\]", re.DOTALL)
_SET_OPERATION = re.compile(r"--|&&|\|\||~~")  # of later versions of Python
_SHORTHANDS = frozenset("dwsDWS")

_Ends = frozenset[int]
_Node = Callable[["_Run", int], _Ends]
_NOWHERE: _Ends = frozenset()


class Expression:
    """A pattern; raises InputError, in words that follow on its name, where it is outside of the scope."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN_LENGTH:
            raise InputError(f"has {len(pattern)} characters, and at most {MAX_PATTERN_LENGTH} are read")
        self._simple = re.compile(pattern) if _PLAIN.match(pattern) else None
        self._root = _Parser(pattern).parse()

    def matches(self, text: str) -> bool:
        """Whether the pattern stands for the whole text."""
        return self._matches_from(text, [0])

    def matches_end(self, text: str) -> bool:
        """Whether it stands for the whole text, or for what follows a "." of it."""
        return self._matches_from(text, [0, *(index + 1 for index, char in enumerate(text) if char == ".")])

    def _matches_from(self, text: str, starts: list[int]) -> bool:
        if self._simple is not None:
            return any(self._simple.fullmatch(text, start) is not None for start in starts)
        run = _Run(text)
        return any(len(text) in run.ends(self._root, start) for start in starts)


class _Run:
    """One match: for each part of the pattern, where it may end if it begins at a place."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._known: dict[tuple[int, int], _Ends] = {}
        self._steps = 0

    def ends(self, node: _Node, start: int) -> _Ends:
        key = (id(node), start)
        if key not in self._known:
            self._known[key] = node(self, start)
        ends = self._known[key]
        self._steps += 1 + len(ends)
        if self._steps > _MAX_STEPS:
            raise InputError("takes too long to match")
        return ends

    def ends_of_all(self, node: _Node, starts: _Ends) -> _Ends:
        return _NOWHERE.union(*(self.ends(node, start) for start in starts))


def _char(accepts: Callable[[str], bool]) -> _Node:
    def node(run: _Run, start: int) -> _Ends:
        return frozenset((start + 1,)) if start < len(run.text) and accepts(run.text[start]) else _NOWHERE

    return node


def _beginning(_run: _Run, start: int) -> _Ends:
    return frozenset((start,)) if start == 0 else _NOWHERE


def _ending(run: _Run, start: int) -> _Ends:
    return frozenset((start,)) if start == len(run.text) else _NOWHERE


def _sequence(parts: list[_Node]) -> _Node:
    def node(run: _Run, start: int) -> _Ends:
        ends: _Ends = frozenset((start,))
        for part in parts:
            ends = run.ends_of_all(part, ends)
        return ends

    return parts[0] if len(parts) == 1 else node


def _either(parts: list[_Node]) -> _Node:
    def node(run: _Run, start: int) -> _Ends:
        return _NOWHERE.union(*(run.ends(part, start) for part in parts))

    return parts[0] if len(parts) == 1 else node


def _repeated(part: _Node, least: int, most: int | None) -> _Node:
    def node(run: _Run, start: int) -> _Ends:
        ends: _Ends = frozenset((start,))
        for _ in range(least):
            ends = run.ends_of_all(part, ends)
        found, fresh = set(ends), ends
        count = least
        while fresh and (most is None or count < most):
            fresh = run.ends_of_all(part, fresh) - found
            found.update(fresh)
            count += 1
        return frozenset(found)

    return node


class _Parser:
    """Reads a pattern by recursive descent."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0

    def parse(self) -> _Node:
        node = self._alternatives()
        if self._at < len(self._pattern):
            raise self._error()
        return node

    def _error(self) -> InputError:
        return InputError(f"is no regular expression of the plain kind (character {self._at + 1})")

    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _alternatives(self) -> _Node:
        parts = [self._items()]
        while self._next() == "|":
            self._at += 1
            parts.append(self._items())
        return _either(parts)

    def _items(self) -> _Node:
        parts: list[_Node] = []
        while self._next() not in ("", "|", ")"):
            parts.append(self._quantified(self._atom()))
        return _sequence(parts)

    def _atom(self) -> _Node:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char in "*+?{":
            raise self._error()
        self._at += 1
        if char == "^":
            return _beginning
        if char == "$":
            return _ending
        if char == ".":
            return _char(lambda found: found != "\n")
        if char == "\\":
            return self._escaped()
        return _char(lambda found: found == char)

    def _escaped(self) -> _Node:
        char = self._next()
        if not char or (char.isalnum() and char not in _SHORTHANDS):
            raise self._error()
        self._at += 1
        if char in _SHORTHANDS:
            kind = re.compile("\\" + char)
            return _char(lambda found: kind.match(found) is not None)
        return _char(lambda found: found == char)

    def _group(self) -> _Node:
        self._at += 3 if self._pattern.startswith("(?:", self._at) else 1
        self._depth += 1
        if self._next() == "?" or self._depth > _MAX_DEPTH:
            raise self._error()
        node = self._alternatives()
        if self._next() != ")":
            raise self._error()
        self._at += 1
        self._depth -= 1
        return node

    def _class(self) -> _Node:
        found = _CLASS.match(self._pattern, self._at)
        try:
            kind = re.compile(found[0]) if found and not _SET_OPERATION.search(found[0]) else None
        except re.error:
            kind = None
        if found is None or kind is None:
            raise self._error()
        self._at = found.end()
        return _char(lambda char: kind.match(char) is not None)

    def _quantified(self, node: _Node) -> _Node:
        least: int = 1
        most: int | None = 1
        char = self._next()
        if char and char in "*+?":
            self._at += 1
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        elif char == "{":
            least, most = self._counted()
        else:
            return node
        if self._next() == "?":  # a lazy one stands for the same texts
            self._at += 1
        if self._next() and self._next() in "*+?{":
            raise self._error()
        return _repeated(node, least, most)

    def _counted(self) -> tuple[int, int | None]:
        found = _REPEAT.match(self._pattern, self._at)
        if found is None:
            raise self._error()
        least = int(found[1])
        most = int(found[3]) if found[3] else None if found[2] else least
        if least > _MAX_REPEAT or (most is not None and not least <= most <= _MAX_REPEAT):
            raise self._error()
        self._at = found.end()
        return least, most
