"""The rules file, `.theta-merge.yaml` at the top of a repository: text in, rules out (docs/reference/merging.md).

Source: YAML 1.1, as PyYAML composes it; nodes are read, and nothing is constructed of them. A scalar is the text that
is written: `no` and `1_0` are texts, and each option says itself what a text means. The file comes from a repository,
so everything else of YAML is refused: anchors and aliases, tags of a type, keys that stand twice, deep nesting.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PureWindowsPath
from typing import Any, TypeAlias

import yaml  # type: ignore[import-untyped]  # PyYAML brings no types

from git_theta import plugins
from git_theta.errors import ConfigError
from git_theta.merges.base import Merge, read_options
from git_theta.names import shown
from git_theta.rules import FILE_NAME, MAX_FILE_BYTES, Rule, Rules

__all__ = ["MAX_RULES", "FileRule", "parse"]

MAX_RULES = 1000
"""No more patterns of parameters than this, however they are spread over the rules."""

_MAX_PATHS = 1000
_MAX_PATH_LENGTH = 4096
_MAX_DEPTH = 6  # the file, its list of rules, a rule, its options, one of them, a number of that
_MAX_NODES = 50_000  # PyYAML takes 15 microseconds for each
_KEYS = ("parameters", "paths", "strategy", "options", "added", "grown", "files")
_NOUNS = ("the file", "a rule", "a key")
_ALIAS = "anchors and aliases are not read here; put what begins with '*' or '&' in quotes"
_PREFIX = "tag:yaml.org,2002:"
_NULL = _PREFIX + "null"
_TAGS = {None, "!", *(_PREFIX + name for name in ("str", "int", "float", "bool", "null", "seq", "map"))}

_Node: TypeAlias = Any
"""A node of PyYAML's."""


@dataclass(frozen=True, slots=True)
class FileRule:
    """A rule of the file, one of `rules` for each of its patterns; it begins at `line`, counted from 1.

    It is for checkpoints whose path in the repository one of `paths` matches as a whole; for all where there are none.
    """

    rules: Rules
    line: int
    paths: tuple[str, ...] = ()

    def applies(self, path: bytes) -> bool:
        name = os.fsdecode(path)
        return not self.paths or any(fnmatchcase(name, pattern) for pattern in self.paths)


def parse(text: bytes) -> tuple[FileRule, ...]:
    """The rules of a file, in order; raises ConfigError, in one line that names the file's, for any other text."""
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{FILE_NAME}: it has more than {MAX_FILE_BYTES} bytes; write fewer")
    root = _compose(text)
    if root is None:
        return ()
    fields = _fields(root, "the file", ("rules",))
    if "rules" not in fields:
        raise _error(root, "there is no 'rules'; begin with it, and indent the list of rules below")
    made: list[FileRule] = []
    count = 0
    for node in _items(fields["rules"], "rules"):
        made.append(_rule(node))
        count += len(made[-1].rules.rules)
        if count > MAX_RULES:
            raise _error(node, f"there are more than {MAX_RULES} rules or patterns; write fewer")
    return tuple(made)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML brings no types
    """PyYAML's, without what a rules file has no use for; refused as it is read, so that nothing grows from it."""

    _depth = _nodes = 0

    def compose_node(self, parent: _Node, index: object) -> _Node:
        event = self.peek_event()
        if event.anchor is not None:  # of an alias, too
            raise _error(event, _ALIAS)
        if event.tag not in _TAGS:
            raise _error(event, f"the tag '{shown(event.tag[:80])}' is not read here; take it out")
        if self._depth == _MAX_DEPTH:
            raise _error(event, "it is nested deeper than rules are; see docs/reference/merging.md")
        if self._nodes == _MAX_NODES:
            raise _error(event, f"there are more than {_MAX_NODES} names and values up to here; write fewer")
        self._nodes += 1
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(text: bytes) -> _Node | None:
    """The root of the tree that the text is; None for a text without any content."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        raise _at(text.count(b"\n", 0, error.start) + 1, "it is not UTF-8; save it as that") from error
    try:
        loader = _Loader(decoded)
    except yaml.reader.ReaderError as error:
        line = decoded.count("\n", 0, error.position) + 1
        raise _at(line, f"the character U+{error.character:04X} is not allowed; take it out") from error
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # `*.weight` without quotes.
        is_alias = error.context in ("while scanning an alias", "while scanning an anchor")
        problem = _ALIAS if is_alias else f"it is not YAML: {shown(str(error.problem)[:100])}; mend it"
        raise _at(mark.line + 1 if mark else 1, problem) from error
    except (ValueError, OverflowError) as error:  # "\\UFFFFFFFF" in quotes, or a version of 5,000 digits
        raise _at(loader.line + 1, "an escape or a version is beyond what YAML has; mend it") from error


def _at(line: int, message: object) -> ConfigError:
    return ConfigError(f"{FILE_NAME}: line {line}: {message}")


def _error(node: _Node, message: object) -> ConfigError:
    return _at(node.start_mark.line + 1, message)


@contextmanager
def _naming(node: _Node) -> Iterator[None]:
    """Have an error of the block's say where this stands."""
    try:
        yield
    except ConfigError as error:
        raise _error(node, error) from error


def _rule(node: _Node) -> FileRule:
    fields = _fields(node, "a rule", _KEYS)
    for name in ("parameters", "strategy"):
        if name not in fields:
            raise _error(node, f"the rule has no '{name}'; write it")
    strategy = _text(fields["strategy"], "strategy")
    with _naming(fields["strategy"]):
        merge = plugins.merge(strategy)
    options = _options(fields["options"], merge) if "options" in fields else {}
    files = _files(fields["files"]) if "files" in fields else {}
    flags = {name: _flag(fields[name], name) for name in ("added", "grown") if name in fields}
    with _naming(fields.get("files", node)):
        for_all = Rule("*", strategy, options, files=files, **flags)
    rules = []
    for item in _listed(fields["parameters"], "parameters"):
        pattern = _text(item, "parameters")
        with _naming(item):
            rules.append(replace(for_all, pattern=pattern, line=item.start_mark.line + 1))
    return FileRule(Rules(tuple(rules)), node.start_mark.line + 1, _paths(fields))


def _paths(fields: Mapping[str, _Node]) -> tuple[str, ...]:
    """The patterns of the checkpoints' paths."""
    if "paths" not in fields:
        return ()
    patterns = tuple(_text(item, "paths") for item in _listed(fields["paths"], "paths"))
    if len(patterns) > _MAX_PATHS or not all(0 < len(pattern) <= _MAX_PATH_LENGTH for pattern in patterns):
        raise _error(
            fields["paths"],
            f"'paths' takes at most {_MAX_PATHS} patterns of 1 to {_MAX_PATH_LENGTH} characters; write them so",
        )
    return patterns


def _options(node: _Node, merge: Merge) -> dict[str, object]:
    """The options as they are written; an error names the line of the option."""
    known = {option.name: option for option in merge.options}
    given: dict[str, object] = {}
    for key, value in _pairs(node, "options"):
        name = key.value
        items = [_text(item, name) for item in _listed(value, name)] if name in known else []
        given[name] = items if isinstance(value, yaml.SequenceNode) else "".join(items)
        with _naming(key):
            # One by one they are parsed only: what fits the other options' values need not fit their defaults.
            if name in known:
                known[name].parse(given[name])
            else:
                read_options(merge, given)
    with _naming(node):
        read_options(merge, given)
    return given


def _files(node: _Node) -> dict[str, tuple[str, ...]]:
    """The paths of further files, relative to the top of the worktree."""
    return {
        key.value: tuple(_path(item, key.value) for item in _listed(value, key.value))
        for key, value in _pairs(node, "files")
    }


def _path(node: _Node, what: str) -> str:
    path = _text(node, what)
    # "/", "C:" or "\\host\share\": another user of the file may have Windows.
    plain = path.isprintable() and len(path) <= _MAX_PATH_LENGTH and not PureWindowsPath(path).anchor
    if not plain or any(part in ("", ".", "..") or part.lower() == ".git" for part in path.split("/")):
        got = shown(path[:80])
        raise _error(node, f"'{got}' is no path inside the repository; write one from its top, without '..'")
    return path


def _fields(node: _Node, what: str, known: Sequence[str]) -> dict[str, _Node]:
    """The values of a mapping that has no other keys."""
    fields = {}
    for key, value in _pairs(node, what):
        if key.value not in known:
            raise _error(key, f"{what} has no '{shown(key.value[:40])}'; it has {', '.join(known)}")
        fields[key.value] = value
    return fields


def _pairs(node: _Node, what: str) -> list[tuple[_Node, _Node]]:
    """The keys, each once and a text, and the values of a mapping."""
    if not isinstance(node, yaml.MappingNode):
        raise _error(node, f"{_named(what)} is {_kind(node)}; write 'name: value' pairs")
    seen: set[str] = set()
    for key, _ in node.value:
        if _text(key, "a key") in seen:
            raise _error(key, f"'{shown(key.value[:40])}' stands here twice; take one out")
        seen.add(key.value)
    return list(node.value)


def _items(node: _Node, what: str) -> list[_Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise _error(node, f"{_named(what)} is {_kind(node)}; write a list, each item behind a '-'")
    return list(node.value)


def _listed(node: _Node, what: str) -> list[_Node]:
    """The items of a list that has some; of anything else, that itself."""
    if not isinstance(node, yaml.SequenceNode):
        return [node]
    if not node.value:
        raise _error(node, f"{_named(what)} is an empty list; write something in it, or leave it out")
    return list(node.value)


def _flag(node: _Node, what: str) -> bool:
    text = _text(node, what).lower()
    if text not in ("true", "false"):
        raise _error(node, f"{_named(what)} is '{shown(text[:40])}'; write true or false")
    return text == "true"


def _text(node: _Node, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag == _NULL:
        raise _error(node, f"{_named(what)} is {_kind(node)}; write a text or a number, in quotes where in doubt")
    return str(node.value)


def _named(what: str) -> str:
    """A key, in quotes; "the file" and the like without."""
    return what if what in _NOUNS else f"'{shown(what[:40])}'"


def _kind(node: _Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "empty" if node.tag == _NULL else "a text"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
