"""Folding: parameter names that differ only in numbers become one line, "model.layers.{0-31}.mlp.up_proj.weight".

A fold stands for exactly its members: where several numbers vary, every combination of them is there, or the names are
told apart further. Numbers that are always equal to each other ("block3.conv3") count as one.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

__all__ = ["Fold", "fold", "natural_order"]

_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,15}(?![0-9])")
_MOST_RANGES = 6


@dataclass(frozen=True, slots=True)
class Fold:
    """`members`, in natural order, under the one `name`; a single member is its own name."""

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """A name cut at its numbers: `texts` has one item more than `numbers`."""

    name: str
    texts: tuple[str, ...]
    numbers: tuple[str, ...]

    @property
    def order(self) -> tuple[object, ...]:
        pairs = zip(self.texts, [*map(int, self.numbers), 0], strict=True)
        return (*(item for pair in pairs for item in pair), self.name)


def natural_order(name: str) -> tuple[object, ...]:
    """A key that sorts names as people do: "layers.2" before "layers.10"."""
    return _cut(name).order


def fold(names: Iterable[str], kind: Callable[[str], Hashable] = lambda name: None) -> list[Fold]:
    """The folds of the names, in natural order; only names of one `kind` (dtype and shape, say) share one."""
    groups: dict[Hashable, list[_Name]] = defaultdict(list)
    for name in names:
        cut = _cut(name)
        groups[cut.texts, kind(name)].append(cut)
    rows = []
    for group in groups.values():
        group.sort(key=lambda cut: cut.order)
        rows += [(part[0].order, Fold(_folded(part), tuple(cut.name for cut in part))) for part in _split(group)]
    rows.sort(key=lambda row: row[0])
    return [row for _, row in rows]


def _cut(name: str) -> _Name:
    texts, numbers, end = [], [], 0
    for match in _NUMBER.finditer(name):
        texts.append(name[end : match.start()])
        numbers.append(match[0])
        end = match.end()
    return _Name(name, (*texts, name[end:]), tuple(numbers))


def _split(group: list[_Name]) -> list[list[_Name]]:
    """The group, cut up until each part has every combination of its numbers."""
    columns = _varying(group)
    if len(group) == prod(len(set(column)) for column in columns):
        return [group]
    coarsest = min(columns, key=lambda column: len(set(column)))
    parts: dict[str, list[_Name]] = defaultdict(list)
    for number, cut in zip(coarsest, group, strict=True):
        parts[number].append(cut)
    return [piece for part in parts.values() for piece in _split(part)]


def _varying(group: Sequence[_Name]) -> list[tuple[str, ...]]:
    """The columns of numbers that are not the same in every name, each once."""
    columns = dict.fromkeys(zip(*(cut.numbers for cut in group), strict=True))
    return [column for column in columns if len(set(column)) > 1]


def _folded(group: Sequence[_Name]) -> str:
    columns = zip(*(cut.numbers for cut in group), strict=True)
    return "".join(text + number for text, number in zip(group[0].texts, [*map(_ranges, columns), ""], strict=True))


def _ranges(numbers: Sequence[str]) -> str:
    """The numbers as text: "7", "{0-31}", "{0-3,7}"; the ends alone where there are too many gaps."""
    distinct = sorted(set(numbers), key=lambda number: (int(number), number))
    if len(distinct) == 1:
        return distinct[0]
    runs: list[list[str]] = []
    for number in distinct:
        # "07" follows "06", and "7" does not.
        if runs and number == str(int(runs[-1][-1]) + 1).zfill(len(runs[-1][-1])):
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    if len(texts) > _MOST_RANGES:
        texts = [*texts[: _MOST_RANGES - 1], "...", texts[-1]]
    return "{" + ",".join(texts) + "}"
