"""What a supplied update may be for: the parameters of its base, found by the names that the user's file has for them.

A model has its parameters under other prefixes in different files ("encoder.0.weight", "bert.encoder.0.weight",
"model/encoder.0.weight"). So names are taken as they are, or else one prefix is added to, or cut off, all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from git_theta.errors import InputError
from git_theta.manifest import Manifest, Record
from git_theta.names import shown
from git_theta.tensor import View

__all__ = ["Target", "Targets", "by_plain_name", "plain"]

_SEPARATORS = (".", "/")
_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class Target:
    """A parameter of the base, by the name of its record; `shared` are the other names of the same bytes."""

    name: str
    record: Record
    shared: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.record.shape

    @property
    def is_turned(self) -> bool:
        """Whether it is a matrix whose elements are stored column by column: its transpose is in C order."""
        return len(self.shape) == 2 and self.record.strides == (1, self.shape[0])

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape in whose C order the elements are stored; raises InputError where there is none."""
        if self.record.strides is None:
            return self.shape
        if not self.is_turned:
            raise InputError("its elements are stored in an order that is not supported")
        return self.shape[::-1]


class Targets:
    """The parameters of a base."""

    def __init__(self, base: Manifest) -> None:
        self._found: dict[str, tuple[str, Record, View | None]] = {}
        self._twice: set[str] = set()
        for name, record in base.parameters.items():
            if not name.startswith("~") and not name.endswith("~storage"):
                self._add(name, record, None)
            for view in record.views:
                self._add(view.name, record, view, owner=name)

    def _add(self, name: str, record: Record, view: View | None, owner: str = "") -> None:
        key = plain(name)
        if key in self._found:
            self._twice.add(key)
        if key:
            self._found[key] = owner or name, record, view

    def has(self, name: str) -> bool:
        """Whether there is a parameter of this name, as `plain` writes it."""
        return name in self._found

    def get(self, name: str) -> Target:
        """The parameter of a name that `has`; raises InputError where its bytes are not its own."""
        owner, record, view = self._found[name]
        if name in self._twice:
            raise InputError(f"parameter '{shown(name)}': two tensors of the base have this name")
        if view is not None and (view.dtype, view.shape, view.offset, view.strides) != (
            record.dtype,
            record.shape,
            0,
            record.strides,
        ):
            raise InputError(f"parameter '{shown(name)}' is part of the storage '{shown(owner)}', which others use too")
        names = (owner, *(other.name for other in record.views))
        return Target(owner, record, tuple(other for other in names if plain(other) != name))

    def renaming(self, wanted: Sequence[str]) -> Callable[[str], str]:
        """How the wanted names become the base's: as they are, or with one prefix added or cut off.

        Raises InputError naming one of them where there is no such way, or more than one.
        """
        if not wanted or all(name in self._found for name in wanted):
            return lambda name: name
        longest = max(wanted, key=len)
        ways = [way for way in self._ways(longest) if all(_renamed(name, *way) in self._found for name in wanted)]
        if len(ways) > 1:
            first, second = (shown(_renamed(longest, *way)) for way in ways[:2])
            raise InputError(f"'{shown(longest)}' may be the parameter '{first}' or '{second}'; rename it")
        if not ways:
            raise InputError(self._absence(wanted, longest))
        return lambda name: _renamed(name, *ways[0])

    def _ways(self, name: str) -> list[tuple[str, str]]:
        """What may be cut off the beginning of this name, and what added there, to make it one of the base's."""
        added = [other[: len(other) - len(name)] for other in self._found if other.endswith(name)]
        cut = [name[: index + 1] for index, char in enumerate(name) if char in _SEPARATORS]
        return [
            *(("", prefix) for prefix in sorted(added) if prefix.endswith(_SEPARATORS)),
            *((prefix, "") for prefix in cut if name.removeprefix(prefix) in self._found),
        ]

    def _absence(self, wanted: Sequence[str], longest: str) -> str:
        """Which name has no parameter, by the prefix that serves most of them."""
        ways = [("", ""), *self._ways(longest)[:_CANDIDATES]]
        lacking = [[name for name in wanted if _renamed(name, *way) not in self._found] for way in ways]
        return f"'{shown(min(lacking, key=len)[0])}' is no parameter of the base"


def _renamed(name: str, cut: str, added: str) -> str:
    return added + name[len(cut) :] if name.startswith(cut) else ""


def plain(name: str) -> str:
    """A parameter's name with the keys in it as they are, so that "a~1b" and "a/b" are one."""
    return name.replace("~1", "/").replace("~0", "~") if "~" in name else name


def by_plain_name(names: Sequence[str]) -> Mapping[str, str]:
    """The names of a file by what `plain` makes of them; raises InputError where two are then one."""
    found = {plain(name): name for name in names}
    if len(found) != len(names):
        raise InputError("two of its tensors have names that differ in '/' and nesting only")
    return found
