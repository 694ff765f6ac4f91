"""Arrays of NumPy and of torch behind one namespace, and values as arrays: decoded, and rounded once.

torch lacks some names of the Array API and takes other arguments for others; NumPy before 2.0 does too. What a strategy
may call is `base.Namespace`; `load` and `dump` are the core's.
"""

import importlib
import math
from typing import TYPE_CHECKING, Any, Protocol

from git_theta.errors import ConflictError, RepositoryError
from git_theta.merges.base import BOOLEAN, FLOAT, INTEGER, Array, Namespace
from git_theta.tensor import DTYPES

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[tuple[int, ...], np.dtype[Any]]

__all__ = ["KINDS", "Backend", "decode", "dot", "encode", "kth_smallest", "numpy_backend", "torch_backend"]

KINDS = {
    **dict.fromkeys(("F16", "BF16", "F32", "F64"), FLOAT),
    **dict.fromkeys(("U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"), INTEGER),
    "BOOL": BOOLEAN,
}
"""The kind of each dtype whose elements are numbers that stand for themselves: not codes of a quantised value."""

_BLOCK = 2**18


class Backend(Namespace, Protocol):
    """A namespace, and the way into it and out of it."""

    def load(self, array: "Numbers", /) -> Array: ...
    def dump(self, array: Array, /) -> "Numbers": ...


def numpy_backend() -> Backend:
    """NumPy."""
    return _Numpy()


def torch_backend(device: str) -> Backend:
    """torch on a device; raises RepositoryError where there is no torch, or no such device."""
    try:
        return _Torch(device)
    except (ImportError, RuntimeError, AssertionError) as error:
        line = str(error).split("\n")[0][:100]
        raise RepositoryError(f"torch cannot merge on '{device}' ({line}); unset theta.merge.device") from error


class _Numpy:
    """NumPy's functions, by their names of the Array API."""

    def __init__(self) -> None:
        import numpy as np

        self._np = np

    def __getattr__(self, name: str) -> Any:
        return getattr(self._np, name)

    def load(self, array: "Numbers") -> Array:
        return array

    def dump(self, array: Array) -> "Numbers":
        return self._np.asarray(array)

    def astype(self, x: Array, dtype: Any) -> Array:
        return x.astype(dtype)

    def sum(self, x: Array, *, dtype: Any) -> Array:
        return self._np.sum(x, dtype=dtype)

    def argsort(self, x: Array) -> Array:
        return self._np.argsort(x, axis=-1, kind="stable")

    def kth_smallest(self, x: Array, k: int) -> Array:
        return self._np.partition(x, k - 1)[k - 1]

    def solve(self, x1: Array, x2: Array) -> Array:
        try:
            return self._np.linalg.solve(x1, x2)
        except self._np.linalg.LinAlgError as error:
            raise ConflictError("a matrix of its file is singular; take a side") from error


class _Torch:
    """torch's functions, by their names of the Array API."""

    def __init__(self, device: str) -> None:
        torch = importlib.import_module("torch")
        self._torch: Any = torch
        self._device = torch.device(device)
        torch.zeros(1, device=self._device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def load(self, array: "Numbers") -> Array:
        return self._torch.from_numpy(array.copy()).to(self._device)

    def dump(self, array: Array) -> "Numbers":
        made: Numbers = array.cpu().numpy()
        return made

    def asarray(self, x: Array) -> Array:
        return self._torch.asarray(x, device=self._device)

    def astype(self, x: Array, dtype: Any) -> Array:
        return x.to(dtype)

    def sum(self, x: Array, *, dtype: Any) -> Array:
        return self._torch.sum(x, dtype=dtype)

    def sort(self, x: Array) -> Array:
        return self._torch.sort(x).values

    def argsort(self, x: Array) -> Array:
        return self._torch.argsort(x, dim=-1, stable=True)

    def kth_smallest(self, x: Array, k: int) -> Array:
        return self._torch.kthvalue(x, k).values

    def solve(self, x1: Array, x2: Array) -> Array:
        try:
            return self._torch.linalg.solve(x1, x2)
        except self._torch.linalg.LinAlgError as error:
            raise ConflictError("a matrix of its file is singular; take a side") from error


def decode(data: "bytes | bytearray | memoryview", dtype: str, *, wide: bool) -> "Numbers":
    """The elements of a value: floats in float32, or all in float64 where `wide`; integers and BOOL as they are.

    Floats are converted exactly, but for F64 in float32, which is rounded.
    """
    import numpy as np

    width = DTYPES[dtype].word
    if dtype == "BF16":
        made: Numbers = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
        return made.astype("<f8") if wide else made
    if KINDS[dtype] == FLOAT:
        with np.errstate(all="ignore"):
            return np.frombuffer(data, f"<f{width}").astype("<f8" if wide else "<f4", copy=False)
    return np.frombuffer(data, f"<{'i' if dtype[0] == 'I' else 'u'}{width}")


def encode(array: "Numbers", dtype: str) -> bytes:
    """The bytes of the elements, rounded to the nearest with ties to even, once."""
    import numpy as np

    if dtype == "BF16":
        return _brain(array)
    width = DTYPES[dtype].word
    letter = "f" if KINDS[dtype] == FLOAT else "i" if dtype[0] == "I" else "u"
    with np.errstate(all="ignore"):
        made: bytes = array.astype(f"<{letter}{width}", copy=False).tobytes()
    return made


def _brain(array: "Numbers") -> bytes:
    """BF16 of float32, or of float64 by way of a float32 rounded to odd, which leaves the last rounding its ties.

    Boldo and Melquiond, Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd, 2008.
    """
    import numpy as np

    with np.errstate(all="ignore"):
        narrow = array.astype("<f4")
        words = narrow.view("<u4")
        if array.dtype.itemsize == 8:
            rest = array - narrow.astype("<f8")
            inexact = np.isfinite(array) & (rest != 0)
            # Toward zero first: one word back where rounding went away from it; then the odd of the two neighbours.
            words = words - (inexact & ((rest < 0) != (array < 0)))
            words = words | inexact
        made: Numbers = ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype("<u2")
        nans = np.isnan(narrow)
        if nans.any():
            made[nans] = words[nans] >> 16 | 0x40 * ((words[nans] >> 16 & 0x7F) == 0)
    return made.tobytes()


def dot(xp: Namespace, left: Array, right: Array) -> float:
    """The inner product of two arrays, in float64 and block by block: libraries add up float32 in different orders."""
    left, right = xp.reshape(left, (-1,)), xp.reshape(right, (-1,))
    return math.fsum(
        float(
            xp.sum(
                xp.astype(left[start : start + _BLOCK], xp.float64)
                * xp.astype(right[start : start + _BLOCK], xp.float64),
                dtype=xp.float64,
            )
        )
        for start in range(0, left.shape[0], _BLOCK)
    )


def kth_smallest(xp: Namespace, values: Array, k: int) -> Array:
    """The k-th of the elements from low to high, counted from 1: by the backend's selection, or else by sorting."""
    flat = xp.reshape(values, (-1,))
    select = getattr(xp, "kth_smallest", None)
    return xp.sort(flat)[k - 1] if select is None else select(flat, k)
