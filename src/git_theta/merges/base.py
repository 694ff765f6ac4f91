"""The interface of a merge strategy: a pure function of the sides' values, and of options that it declares.

A strategy sees one parameter at a time, as arrays of one shape in float32 (float64 where one of them is F64), or in
their own dtype where they are integers, booleans being 0 and 1 in bytes. It calls nothing but the functions of
`Namespace`, which are those of the Array API standard (https://data-apis.org/array-api/2023.12/), so it runs on NumPy
and on torch alike. The core decodes the inputs, looks for NaNs, and rounds the result once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from git_theta.errors import ConfigError
from git_theta.names import shown

__all__ = [
    "BOOLEAN",
    "FLOAT",
    "INTEGER",
    "Array",
    "Checked",
    "Inputs",
    "Merge",
    "Namespace",
    "Option",
    "Options",
    "Sided",
    "Strategy",
    "Value",
    "read_options",
]

FLOAT, INTEGER, BOOLEAN = "float", "integer", "boolean"
"""The kinds of dtypes that a strategy may take."""

Array: TypeAlias = Any
"""An array of the namespace; no two libraries share a type for one."""

Value: TypeAlias = bool | int | float | str | tuple[float, ...]

_MOST_ITEMS = 64


class Namespace(Protocol):
    """The functions of the Array API that a strategy may call; arrays have its operators, `shape` and slices too."""

    float32: Any
    float64: Any

    def asarray(self, x: Array, /) -> Array: ...
    def astype(self, x: Array, dtype: Any, /) -> Array: ...
    def reshape(self, x: Array, shape: tuple[int, ...], /) -> Array: ...
    def zeros_like(self, x: Array, /) -> Array: ...
    def where(self, condition: Array, x1: Array, x2: Array, /) -> Array: ...
    def abs(self, x: Array, /) -> Array: ...
    def sign(self, x: Array, /) -> Array: ...
    def signbit(self, x: Array, /) -> Array: ...
    def isnan(self, x: Array, /) -> Array: ...
    def isfinite(self, x: Array, /) -> Array: ...
    def minimum(self, x1: Array, x2: Array, /) -> Array: ...
    def maximum(self, x1: Array, x2: Array, /) -> Array: ...
    def any(self, x: Array, /) -> Array: ...
    def sum(self, x: Array, /, *, dtype: Any) -> Array:
        """The sum of all elements, added in float64 or integers only: float32 sums differ between libraries."""
        ...

    def sort(self, x: Array, /) -> Array:
        """The elements of a one-dimensional array, from low to high."""
        ...

    def argsort(self, x: Array, /) -> Array:
        """Along the last axis, from low to high; equal elements keep their order."""
        ...

    def solve(self, x1: Array, x2: Array, /) -> Array:
        """`linalg.solve`; raises ConflictError for a singular matrix."""
        ...


@dataclass(frozen=True, slots=True)
class Option:
    """What a user may set of a strategy; the type of `default` is the option's.

    A number is above `above`, at least `least`, and at most `most`; a text is one of `choices`; a tuple has one number
    for each side, or is empty, which stands for one each; where only their `ratios` count, one of them is not 0.
    """

    name: str
    default: Value
    summary: str
    above: float = -math.inf
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()
    ratios: bool = False

    def parse(self, given: object) -> Value:
        """The value that a text of the command line, or a value of a configuration file, means.

        Raises ConfigError, which says what is allowed.
        """
        try:
            value = self._read(given)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"option '{self.name}' is {_got(given)}; set it to {self.allowed}") from error
        return value

    @property
    def allowed(self) -> str:
        """What may be set, in words."""
        if self.choices:
            return " or ".join(self.choices)
        if isinstance(self.default, bool):
            return "true or false"
        limits = [
            f"{word} {limit:,}"
            for word, limit in (("above", self.above), ("at least", self.least), ("at most", self.most))
            if math.isfinite(limit)
        ]
        kind = {int: "a whole number", tuple: "a number for each side"}.get(type(self.default), "a number")
        return " ".join([kind, ", ".join([*limits, *(["not all 0"] if self.ratios else [])])]).strip()

    def _read(self, given: object) -> Value:
        if isinstance(self.default, bool):
            if str(given).lower() in ("true", "false"):
                return str(given).lower() == "true"
            raise ValueError
        if isinstance(self.default, str):
            if given in self.choices:
                return str(given)
            raise ValueError
        if isinstance(self.default, tuple):
            items = given.split(",") if isinstance(given, str) else given
            if not isinstance(items, list | tuple) or len(items) > _MOST_ITEMS:
                raise ValueError
            numbers = tuple(float(self._number(item, float)) for item in items)
            if self.ratios and numbers and not any(numbers):
                raise ValueError
            return numbers
        return self._number(given, type(self.default))

    def _number(self, given: object, kind: type[int] | type[float]) -> int | float:
        if type(given) not in (str, int, float):
            raise ValueError
        text = str(given).strip()
        if len(text) > _MOST_ITEMS or not text.isascii() or "_" in text:
            raise ValueError
        number = kind(text)
        if math.isfinite(number) and number > self.above and self.least <= number <= self.most:
            return number
        raise ValueError


@dataclass(frozen=True, slots=True)
class Options:
    """The values of all options of a strategy: what the user set, and the defaults of the others."""

    values: Mapping[str, Value]

    def number(self, name: str) -> float:
        value = self.values[name]
        if isinstance(value, int | float):
            return float(value)
        raise TypeError(f"option '{name}' is no number")

    def integer(self, name: str) -> int:
        value = self.values[name]
        if isinstance(value, int):
            return value
        raise TypeError(f"option '{name}' is no whole number")

    def text(self, name: str) -> str:
        value = self.values[name]
        if isinstance(value, str):
            return value
        raise TypeError(f"option '{name}' is no text")

    def weights(self, sides: int, name: str = "weights") -> tuple[float, ...]:
        """A number for each side; raises ConfigError where the user gave more or fewer."""
        value = self.values[name]
        if not isinstance(value, tuple):
            raise TypeError(f"option '{name}' is no list")
        if value and len(value) != sides:
            raise ConfigError(
                f"option '{name}' has {len(value)} numbers, and there are {sides} sides; give one for each"
            )
        return value or (1.0,) * sides

    def shares(self, sides: int) -> tuple[float, ...]:
        """The weights divided by their sum, which is above 0."""
        weights = self.weights(sides)
        total = math.fsum(weights)
        if total <= 0:
            raise ConfigError("option 'weights' adds up to 0; set at least one above 0")
        return tuple(weight / total for weight in weights)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a strategy merges: the values of one parameter, or a run of their elements, which begins at `offset`.

    `sides` are ours, theirs, and those of any further branches; `base` is None where there is no common ancestor.
    `digests` names the content of each side: random choices depend on it instead of on who is ours. `files` has the
    parameter's tensors of further files, by the names that the strategy asks for: one for each side, or a single one.
    """

    name: str
    sides: tuple[Array, ...]
    base: Array = None
    digests: tuple[str, ...] = ()
    files: Mapping[str, tuple[Array, ...]] = field(default_factory=dict)
    offset: int = 0

    @property
    def ours(self) -> Array:
        return self.sides[0]

    @property
    def theirs(self) -> Array:
        return self.sides[1]

    @property
    def changes(self) -> tuple[Array, ...]:
        """What each side added to the base."""
        return tuple(side - self.base for side in self.sides)


class Merge(Protocol):
    """A merge strategy, found by the entry-point group `git_theta.merges`."""

    @property
    def name(self) -> str:
        """Lower-case letters, digits and '-'."""
        ...

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        ...

    @property
    def paper(self) -> str:
        """The address of the paper that describes it; empty where there is none."""
        ...

    @property
    def options(self) -> Sequence[Option]: ...

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of dtypes that it takes: FLOAT, INTEGER, BOOLEAN."""
        ...

    @property
    def needs_base(self) -> bool:
        """Whether it cannot do without a common ancestor's value."""
        ...

    @property
    def uses_base(self) -> bool:
        """Whether it looks at a common ancestor's value where there is one."""
        ...

    @property
    def most_sides(self) -> int:
        """How many sides it can merge."""
        ...

    @property
    def elementwise(self) -> bool:
        """Whether each element of the result depends on the same elements of the inputs only: values then stream."""
        ...

    @property
    def finite(self) -> bool:
        """Whether NaNs and infinities are refused before it is asked."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """The further files that it reads, by name, each with a line that says what is in it."""
        ...

    def merge(self, xp: Namespace, inputs: Inputs, options: Options) -> Array:
        """The merged value, of the shape and dtype of the sides.

        The same inputs give the same bits, whatever was merged before. Raises ConflictError, without the parameter's
        name, where a person must choose.
        """
        ...


@runtime_checkable
class Checked(Protocol):
    """A strategy whose options must fit each other."""

    def check(self, options: Options) -> None:
        """Raise ConfigError unless these options go together."""
        ...


@runtime_checkable
class Sided(Protocol):
    """A strategy that cannot do without files of its sides."""

    @property
    def sided(self) -> frozenset[str]:
        """The names of `files` of which it needs one for each side."""
        ...


@dataclass(frozen=True, slots=True)
class Strategy:
    """A merge strategy made of a function; a `Merge`."""

    name: str
    summary: str
    paper: str
    function: Callable[[Namespace, Inputs, Options], Array]
    options: tuple[Option, ...] = ()
    kinds: frozenset[str] = frozenset({FLOAT})
    needs_base: bool = False
    uses_base: bool = False
    most_sides: int = _MOST_ITEMS
    elementwise: bool = False
    finite: bool = True
    files: Mapping[str, str] = field(default_factory=dict)
    sided: frozenset[str] = frozenset()
    checking: Callable[[Options], None] = lambda options: None

    def merge(self, xp: Namespace, inputs: Inputs, options: Options) -> Array:
        return self.function(xp, inputs, options)

    def check(self, options: Options) -> None:
        self.checking(options)


def read_options(merge: Merge, given: Mapping[str, object]) -> Options:
    """The strategy's options as a user gave them; raises ConfigError for an unknown one, or one out of its bounds."""
    known = {option.name: option for option in merge.options}
    try:
        for name in given:
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise ConfigError(f"there is no option '{shown(name[:40])}'; {has}")
        options = Options({name: option.parse(given.get(name, option.default)) for name, option in known.items()})
        if isinstance(merge, Checked):
            merge.check(options)
    except ConfigError as error:
        raise ConfigError(f"strategy '{merge.name}': {error}") from error
    return options


def _got(given: object) -> str:
    return shown(repr(given)[:60])
