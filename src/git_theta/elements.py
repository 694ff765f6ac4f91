"""Elements: a value's words as numbers, for those who count and measure what changed.

Floats of 8 bits are decoded by a table of all 256: OCP 8-bit Floating Point Specification 1.0 (E4M3, which has no
infinities, and E5M2), Noune et al., arXiv:2206.02915 (the FNUZ ones: one zero, one NaN, at the place of -0), and OCP
Microscaling Formats 1.0, 5.4 (E8M0: powers of two). A complex number is a pair.
"""

import math
from functools import cache
from typing import TYPE_CHECKING

from git_theta.merges.arrays import KINDS
from git_theta.merges.base import FLOAT
from git_theta.tensor import DTYPES

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    Words = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

__all__ = ["NUMBERS", "Elements", "are_alike", "parts_of"]

_COMPLEX = {"C32": "<f2", "C64": "<f4", "C128": "<f8"}
_SMALL = {
    # bits of the exponent, its bias; codes of magnitudes from here on are infinite, from there on no number
    "F8_E4M3": (4, 7, 0x7F, 0x7F),
    "F8_E5M2": (5, 15, 0x7C, 0x7D),
    "F8_E4M3FNUZ": (4, 8, 0x80, 0x80),
    "F8_E5M2FNUZ": (5, 16, 0x80, 0x80),
}
_POWERS = "F8_E8M0"

NUMBERS = frozenset({*KINDS, *_COMPLEX, *_SMALL, _POWERS})
"""The dtypes whose elements are numbers that stand for themselves; of all others, bytes are compared."""


def parts_of(dtype: str) -> int:
    """How many numbers an element is: two where it is complex."""
    return 2 if dtype in _COMPLEX else 1


def are_alike(before: str, after: str) -> bool:
    """Whether elements of two dtypes can be told to be the same number, and how far they are from each other."""
    return {before, after} <= NUMBERS and parts_of(before) == parts_of(after)


class Elements:
    """The elements of one side: as words whose bits are compared, and as float64 in a buffer that is used again.

    At most `most` of them are looked at in one go. `width` is bytes of an element, `parts` its words, two for a complex
    one.
    """

    def __init__(self, dtype: str, most: int) -> None:
        import numpy as np

        self._np = np
        self.parts = parts_of(dtype)
        self.width = DTYPES[dtype].word * self.parts if dtype in NUMBERS else 1
        self.floating = KINDS.get(dtype, FLOAT) == FLOAT and dtype in NUMBERS
        self._wide = np.empty(most, "<u4") if dtype == "BF16" else None
        self._table = _table(dtype) if dtype in _SMALL or dtype == _POWERS else None
        word = self.width // self.parts
        letter = "f" if self.floating else "i" if dtype.startswith("I") else "u"
        self._words = f"<u{word}"
        self._type = f"<{letter}{word}"
        self._numbers: Floats = np.empty(most * self.parts, "<f8")

    def words(self, data: memoryview) -> "Words":
        """The words of some elements."""
        words: Words = self._np.frombuffer(data, self._words)
        return words

    def numbers(self, words: "Words") -> "Floats":
        """The numbers, the parts of each one after the other, until it is called again."""
        numbers = self._numbers[: len(words)]
        if self._table is not None:
            numbers[...] = self._table[words.view("u1")]
        elif self._wide is None:
            numbers[...] = words.view(self._type)
        else:
            wide = self._wide[: len(words)]
            wide[...] = words
            self._np.left_shift(wide, 16, out=wide)
            numbers[...] = wide.view("<f4")
        return numbers


@cache
def _table(dtype: str) -> "Floats":
    """The numbers of all codes of a float of 8 bits."""
    import numpy as np

    if dtype == _POWERS:
        return np.array([2.0 ** (code - 127) for code in range(255)] + [math.nan], "<f8")
    exponent_bits, bias, infinite, none = _SMALL[dtype]
    digits = 7 - exponent_bits
    found = []
    for code in range(128):
        exponent, fraction = divmod(code, 2**digits)
        # The smallest exponent stands for subnormal numbers, which have no leading 1.
        leading = 2**digits if exponent else 0
        number = (leading + fraction) * 2.0 ** (max(exponent, 1) - bias - digits)
        found.append(math.nan if code >= none else math.inf if code >= infinite else number)
    negative = [-number for number in found]
    if dtype.endswith("FNUZ"):
        negative[0] = math.nan
    return np.array([*found, *negative], "<f8")
