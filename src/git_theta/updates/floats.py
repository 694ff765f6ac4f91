"""Floats as bits: conversions between dtypes that are the same on every machine (docs/format.md, "cast").

Every conversion is IEEE 754's, to nearest and ties to even, by way of F32. What becomes of the bits of a NaN differs
between libraries: here its sign and the upper bits of its payload are kept, and a shortened one is made quiet.
"""

from typing import TYPE_CHECKING

from git_theta.tensor import DTYPES

if TYPE_CHECKING:
    import numpy as np

    from git_theta.updates.planes import Words

    Numbers = np.ndarray[tuple[int, ...], np.dtype[np.floating]]

__all__ = ["FLOATS", "are_finite", "bits", "converted", "values", "widest"]

FLOATS = ("F16", "BF16", "F32", "F64")
"""The dtypes that can be calculated with; their places here are their codes in payloads."""

_MANTISSA_BITS = {"F16": 10, "BF16": 7, "F32": 23, "F64": 52}


def widest(*dtypes: str) -> str:
    """The dtype in which these are calculated with: F64 if it is one of them, else F32."""
    return "F64" if "F64" in dtypes else "F32"


def values(data: bytes | memoryview, source: str, target: str) -> "Numbers":
    """The numbers of dtype `source` as numbers of `target`, F32 or F64."""
    numbers: Numbers = converted(data, source, target).view(f"<f{DTYPES[target].word}")
    return numbers


def are_finite(data: bytes | memoryview, dtype: str) -> bool:
    """Whether none of the values is NaN or infinite."""
    import numpy as np

    return bool(np.isfinite(values(data, dtype, widest(dtype))).all())


def bits(numbers: "Numbers", dtype: str, otherwise: memoryview) -> memoryview:
    """The bits of numbers (F32 or F64) rounded to `dtype`; where they are NaN, those of `otherwise`.

    Which NaN comes of a calculation differs between processors.
    """
    import numpy as np

    made = converted(numbers.view("u1").data, f"F{8 * numbers.itemsize}", dtype)
    nans = np.isnan(numbers)
    if nans.any():
        made = made.copy()
        made[nans] = np.frombuffer(otherwise, made.dtype)[nans]
    return memoryview(made.view("u1").data)


def converted(data: bytes | memoryview, source: str, target: str) -> "Words":
    """The bits of the values as `target`, of the bits of `source`."""
    import numpy as np

    words: Words = np.frombuffer(data, f"<u{DTYPES[source].word}")
    if source == target:
        return words
    with np.errstate(all="ignore"):
        for step in ((source, "F32"), ("F32", target)):
            if step[0] != step[1]:
                words = _step(words, *step)
    return words


def _step(words: "Words", source: str, target: str) -> "Words":
    """One conversion from F32 or to it."""
    import numpy as np

    width = DTYPES[target].word
    made: Words
    if source == "BF16":
        made = words.astype("<u4") << 16
        return made
    if target == "BF16":
        made = ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype("<u2")
    else:
        made = words.view(f"<f{words.dtype.itemsize}").astype(f"<f{width}").view(f"<u{width}")
    nans = np.isnan(words.view(f"<f{words.dtype.itemsize}"))
    if nans.any():
        made[nans] = _nans(words[nans], source, target)
    return made


def _nans(words: "Words", source: str, target: str) -> "Words":
    """The bits of NaNs: sign, an exponent of ones, and as much of the payload as there is room for."""
    before, behind = _MANTISSA_BITS[source], _MANTISSA_BITS[target]
    bits, width = 8 * DTYPES[source].word, DTYPES[target].word
    wide = words.astype("<u8")
    payload = wide & ((1 << before) - 1)
    payload = payload << (behind - before) if behind > before else payload >> (before - behind) | 1 << (behind - 1)
    exponent = (1 << (8 * width - 1)) - (1 << behind)
    return (wide >> (bits - 1) << (8 * width - 1) | exponent | payload).astype(f"<u{width}")
