"""Which parameter of one version is which of another: by name, by content under a new name, or tied to another one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from git_theta.manifest import Manifest, Record

__all__ = ["Match", "content", "match", "renames", "ties"]

_MOST_ALIKE = 64
"""As many values may be the same (zeros, ones) and still be told apart by their names: that is quadratic."""

Content = tuple[str, str, tuple[int, ...], tuple[int, ...] | None]


def content(record: Record) -> Content:
    """What a value is: equal for records of the same bytes with the same meaning."""
    return record.digest, record.dtype, record.shape, record.strides


def ties(manifest: Manifest) -> dict[str, str]:
    """The names of tied weights: views of all elements of a parameter, each with that parameter's name."""
    return {
        view.name: name
        for name, record in manifest.parameters.items()
        for view in record.views
        if (view.dtype, view.shape, view.offset, view.strides) == (record.dtype, record.shape, 0, record.strides)
    }


def renames(base: Manifest, side: Manifest) -> dict[str, str]:
    """The new names, by the old, of parameters that a side has under another name with the same content.

    Where several have the same content, those become pairs whose names end in the same way, each being the only one
    that ends so much like the other; the rest count as deleted and added.
    """
    gone, new = _groups(base, side), _groups(side, base)
    found = {}
    for key, olds in gone.items():
        news = new.get(key, [])
        if len(olds) == len(news) == 1:
            found[olds[0]] = news[0]
        elif news and len(olds) <= _MOST_ALIKE and len(news) <= _MOST_ALIKE:
            found.update(_pairs(olds, news))
    return found


def _groups(one: Manifest, other: Manifest) -> dict[Content, list[str]]:
    """The parameters of the one that the other has not under their names, by what they are."""
    tied = ties(other)
    groups = defaultdict(list)
    for name, record in one.parameters.items():
        if name not in other.parameters and name not in tied and not name.startswith("~bytes") and record.size:
            groups[content(record)].append(name)
    return groups


def _pairs(olds: Sequence[str], news: Sequence[str]) -> dict[str, str]:
    best_new = {old: _closest(old, news) for old in olds}
    best_old = {new: _closest(new, olds) for new in news}
    return {old: new for old, new in best_new.items() if new is not None and best_old[new] == old}


def _closest(name: str, others: Sequence[str]) -> str | None:
    """The one of the others whose end is most like the name's; None where there are several."""
    scores = sorted(((_common_end(name, other), other) for other in others), reverse=True)
    return None if len(scores) > 1 and scores[0][0] == scores[1][0] else scores[0][1]


def _common_end(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(reversed(one), reversed(other), strict=False)))


@dataclass(frozen=True, slots=True)
class Match:
    """What a side has in place of a parameter of the base: its record under `name`, or a tie to `tied`, or neither."""

    name: str | None = None
    record: Record | None = None
    tied: str | None = None


def match(name: str, manifest: Manifest, tied: Mapping[str, str], renamed: Mapping[str, str]) -> Match:
    """What a manifest has for a name of the base."""
    here = name if name in manifest.parameters else renamed.get(name)
    if here is not None:
        return Match(here, manifest.parameters[here])
    return Match(tied=tied.get(name))
