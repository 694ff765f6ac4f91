"""What a migration makes of the `.gitattributes` files of a commit: converted files are tracked, or no more.

A line overrides those before it, and a file those of the folders above (gitattributes(5)). So lines go to the end of
the root's file, and to the end of any other that says something else about a converted file.
"""

from collections.abc import Callable, Sequence

from git_theta import attributes
from git_theta.attributes import ATTRIBUTES, WORDS

__all__ = ["Edit", "tracking", "untracking"]

Edit = Callable[[bytes, bytes, Sequence[bytes]], bytes]
"""The text of a folder's file, given the text ("" where there is none), the folder ("" or "a/b/") and what was
converted in it, as paths from the root."""

_LFS_WORDS = b"filter=lfs diff=lfs merge=lfs -text"
_NO_WORDS = b"!filter !diff !merge !text"
_OURS = ATTRIBUTES[b"filter"]

_Rule = tuple[bytes, bytes]


def tracking(include: Sequence[bytes], exclude: Sequence[bytes]) -> Edit:
    """For an import: `include` is tracked but for `exclude`; without `include`, each file by its path."""

    def edit(text: bytes, folder: bytes, paths: Sequence[bytes]) -> bytes:
        rest = [line.values.get(b"filter", _OURS) for line in attributes.parse(text)]
        if folder and all(value == _OURS for value in rest):
            return text
        given = {line.pattern for line in attributes.parse(text) if line.values.get(b"filter") == b"lfs"}
        # What git-lfs has and keeps must not become a plain file.
        spared = _LFS_WORDS if given & {*include, *exclude} else _NO_WORDS
        return _ruled(text, _rules(folder, include, exclude, paths, WORDS, spared))

    return edit


def untracking(include: Sequence[bytes], exclude: Sequence[bytes]) -> Edit:
    """For an export: `include`, or everything without it, is tracked no more, but for `exclude`."""

    def edit(text: bytes, folder: bytes, paths: Sequence[bytes]) -> bytes:
        if exclude and include:
            return _ruled(text, _rules(folder, include, exclude, paths, _NO_WORDS, WORDS))
        if exclude:
            rules = [(pattern, _NO_WORDS) for pattern in _tracked(text)]
            return _ruled(text, rules + [(pattern, WORDS) for pattern in _fitting(folder, exclude)]) if rules else text
        for pattern in include or _tracked(text):
            if not folder or b"/" not in pattern or not include:
                text = attributes.remove(text, pattern)
        if any(line.values.get(b"filter", b"!filter") != b"!filter" for line in attributes.parse(text)):
            text = _ruled(text, _rules(folder, include, (), paths, _NO_WORDS, WORDS))
        return text

    return edit


def _tracked(text: bytes) -> list[bytes]:
    return [line.pattern for line in attributes.parse(text) if line.pattern and line.values.get(b"filter") == _OURS]


def _rules(
    folder: bytes,
    include: Sequence[bytes],
    exclude: Sequence[bytes],
    paths: Sequence[bytes],
    words: bytes,
    spared: bytes,
) -> list[_Rule]:
    """The lines for a folder's file; of a pattern that holds at the root alone, the files are named one by one."""
    rules = [(pattern, words) for pattern in _fitting(folder, include)]
    if len(rules) < max(1, len(include)):
        rules += [(b"/" + attributes.escape_path(path[len(folder) :]), words) for path in paths]
    return rules + [(pattern, spared) for pattern in _fitting(folder, exclude)]


def _fitting(folder: bytes, patterns: Sequence[bytes]) -> list[bytes]:
    """The patterns that mean the same in a folder as at the root: those without a slash."""
    return [pattern for pattern in patterns if not folder or b"/" not in pattern]


def _ruled(text: bytes, rules: Sequence[_Rule]) -> bytes:
    """The text with these lines at its end; the same text if it has them, and what comes after says the same."""
    if not rules:
        return text
    wanted = [(pattern, tuple(words.split())) for pattern, words in rules]
    known = {pattern for pattern, _ in wanted}
    said = [(line.pattern, line.words) for line in attributes.parse(text) if b"filter" in line.values]
    said = [(pattern, words) for pattern, words in said if pattern in known or words != wanted[0][1]]
    if said[-len(wanted) :] == wanted:
        return text
    for pattern, words in rules:
        text = attributes.append(text, pattern, words)
    return text
