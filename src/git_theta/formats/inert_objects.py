"""What stands for objects of a pickle that is read without being run (`inert_pickle`)."""

from dataclasses import dataclass

__all__ = ["Global", "Literal", "Pairs", "Persistent", "Record"]


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A class or function that the pickle names."""

    module: str
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """An object outside of the pickle, known by its persistent id."""

    id: object


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """A dict: its keys and values in order, duplicates included."""

    pairs: list[tuple[object, object]]


@dataclass(slots=True, eq=False)
class Record:
    """What a call would have made, and what was done to it: not frozen, because a pickle fills objects in later.

    `states` are the arguments of BUILD and the keyword arguments, `pairs` what was set by key, `members` what was
    appended or added. They stay None until needed: most of a checkpoint's records have none.
    """

    callable: object
    args: tuple[object, ...]
    states: list[object] | None = None
    pairs: list[tuple[object, object]] | None = None
    members: list[object] | None = None


@dataclass(slots=True, eq=False)
class Literal:
    """A number, text, bool or None, and where its opcode and argument stand; `shared` if it stands for several.

    A tuple is of several that stand side by side.
    """

    value: bool | int | float | str | tuple[bool | int | float | str | None, ...] | None
    begin: int
    end: int
    shared: bool = False
