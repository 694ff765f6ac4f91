"""Folding: parameter names that differ only in numbers become one line, "model.layers.{0-31}.mlp.up_proj.weight".

A fold stands for exactly its members: where several numbers vary, every combination of them is there, or the names are
told apart further. Numbers that are always equal to each other ("block3.conv3") count as one. Siblings, which differ in
words and not in numbers, can be folded as well: "model.layers.{0-31}.self_attn.{q,v}_proj.weight".
"""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

__all__ = ["Fold", "fold", "frame", "natural_order"]

_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,15}(?![0-9])")
_WORDS = re.compile(r"([./_~-]+)")
_MOST_RANGES = 6
_MOST_WORK = 4_000_000
_MOST_CUTTING = 64_000_000
"""Steps to look for siblings, and to cut groups up, lest names that someone made up for it take for ever."""


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


def frame(name: str) -> tuple[str, ...]:
    """What stands around the numbers of a name: equal for names that differ in nothing else."""
    return _cut(name).texts


def fold(
    names: Iterable[str], kind: Callable[[str], Hashable] = lambda name: None, *, siblings: bool = False
) -> list[Fold]:
    """The folds of the names, in natural order; only names of one `kind` (dtype and shape, say) share one.

    With `siblings`, folds of the same numbers become one that differ in a word: "{q,v}_proj".
    """
    groups: dict[tuple[tuple[str, ...], Hashable], list[_Name]] = defaultdict(list)
    for name in names:
        cut = _cut(name)
        groups[cut.texts, kind(name)].append(cut)
    alike: dict[Hashable, list[_Part]] = defaultdict(list)
    work = _Work(_MOST_CUTTING)
    for (texts, given), group in groups.items():
        group.sort(key=lambda cut: cut.order)
        for members in _split(group, work):
            part = _part(texts, members)
            alike[given, part.columns].append(part)
    parts = [part for group in alike.values() for part in (_siblings(group) if siblings else group)]
    return [part.fold() for part in sorted(parts, key=lambda part: part.members[0].order)]


@dataclass(frozen=True, slots=True)
class _Part:
    """Names that make one fold: the alternatives of each word and separator, () for a number, and the numbers."""

    words: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[str, ...], ...]
    members: tuple[_Name, ...]

    def fold(self) -> Fold:
        numbers = iter(self.columns)
        text = "".join(_braced(words) if words else _ranges(next(numbers)) for words in self.words)
        return Fold(text, tuple(cut.name for cut in self.members))


def _cut(name: str) -> _Name:
    texts, numbers, end = [], [], 0
    for match in _NUMBER.finditer(name):
        texts.append(name[end : match.start()])
        numbers.append(match[0])
        end = match.end()
    return _Name(name, (*texts, name[end:]), tuple(numbers))


@dataclass(slots=True)
class _Work:
    """How many steps may still be taken."""

    left: int

    def take(self, steps: int) -> bool:
        """Whether these may be taken, too."""
        self.left -= steps
        return self.left >= 0


def _split(group: list[_Name], work: _Work) -> list[list[_Name]]:
    """The group, cut up until each part has every combination of its numbers.

    It is cut by the column that makes the fewest parts, numbers with the same others staying together: of the experts
    0 to 7 in layers 0 to 30, and 0 to 3 in layer 31, there are two parts. Within a part, every number of that column
    goes with all that there is, and so it is never cut by it again. Where that is too much work, each name is a part.
    """
    if not work.take(len(group) * len(group[0].numbers)):
        return [[cut] for cut in group]
    columns = _varying(group)
    if len(group) == prod(len(set(column)) for column in columns):
        return [group]
    if not work.take(len(group) * len(columns) ** 2):
        return [[cut] for cut in group]
    cuts = [_cut_by(place, columns, group) for place in range(len(columns))]
    return [piece for part in min((cut for cut in cuts if len(cut) > 1), key=len) for piece in _split(part, work)]


def _cut_by(place: int, columns: Sequence[tuple[str, ...]], group: Sequence[_Name]) -> list[list[_Name]]:
    """The group cut by a column: numbers of it that go with the same other numbers are in one part."""
    others = list(zip(*columns[:place], *columns[place + 1 :], strict=True)) or [()] * len(group)
    having: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for number, rest in zip(columns[place], others, strict=True):
        having[number].add(rest)
    alike = {number: frozenset(rests) for number, rests in having.items()}
    parts: dict[frozenset[tuple[str, ...]], list[_Name]] = defaultdict(list)
    for number, cut in zip(columns[place], group, strict=True):
        parts[alike[number]].append(cut)
    return list(parts.values())


def _varying(group: Sequence[_Name]) -> list[tuple[str, ...]]:
    """The columns of numbers that are not the same in every name, each once."""
    columns = dict.fromkeys(zip(*(cut.numbers for cut in group), strict=True))
    return [column for column in columns if len(set(column)) > 1]


def _part(texts: Sequence[str], members: Sequence[_Name]) -> _Part:
    words: list[tuple[str, ...]] = []
    for text in texts:
        words += [(word,) for word in _WORDS.split(text)]
        words.append(())
    columns = tuple(zip(*(cut.numbers for cut in members), strict=True))
    return _Part(tuple(words[:-1]), columns, tuple(members))


def _siblings(parts: list[_Part]) -> list[_Part]:
    """The parts, all of the same numbers, where those that differ in one word alone are one; and so on with these."""
    merged = True
    while merged and sum(len(part.words) ** 2 for part in parts) <= _MOST_WORK:
        places: dict[tuple[int, Hashable, Hashable], list[_Part]] = defaultdict(list)
        for part in parts:
            for place, words in enumerate(part.words):
                if words and words[0] and not _WORDS.match(words[0]):
                    places[place, part.words[:place], part.words[place + 1 :]].append(part)
        left = {id(part): part for part in parts}
        merged = False
        for (place, _, _), found in sorted(places.items(), key=lambda row: -len(row[1])):
            group = [left.pop(id(part)) for part in found if id(part) in left] if len(found) > 1 else []
            if group:
                merged = merged or len(group) > 1
                joined = _joined(group, place)
                left[id(joined)] = joined
        parts = list(left.values())
    return parts


def _joined(group: Sequence[_Part], place: int) -> _Part:
    """The parts, which differ in the word at a place, as one."""
    words = list(group[0].words)
    words[place] = tuple(sorted(word for part in group for word in part.words[place]))
    members = sorted((cut for part in group for cut in part.members), key=lambda cut: cut.order)
    return _Part(tuple(words), group[0].columns, tuple(members))


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
    return _braced([run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs], always=True)


def _braced(texts: Sequence[str], *, always: bool = False) -> str:
    """The alternatives in braces, where there are several; the ends alone where there are too many."""
    if len(texts) == 1 and not always:
        return texts[0]
    if len(texts) > _MOST_RANGES:
        texts = [*texts[: _MOST_RANGES - 1], "...", texts[-1]]
    return "{" + ",".join(texts) + "}"
