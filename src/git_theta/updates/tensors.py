"""Tensors that a user brings for an update: which of them are there, and whether they are fit for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from git_theta.errors import InputError
from git_theta.names import shown
from git_theta.tensor import Tensor
from git_theta.updates import floats
from git_theta.updates.base import CHUNK_BYTES
from git_theta.updates.floats import FLOATS

__all__ = ["HeldTensor", "finite", "number", "take_known"]


@dataclass(frozen=True, slots=True)
class HeldTensor:
    """A tensor as a `Value` (base.py)."""

    tensor: Tensor

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def size(self) -> int:
        return len(self.tensor.data)

    def read(self, offset: int, size: int) -> bytes:
        return self.tensor.data[offset : offset + size]

    def chunks(self) -> Iterator[memoryview]:
        view = memoryview(self.tensor.data)
        for start in range(0, len(view), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]


def take_known(tensors: Mapping[str, Tensor], needed: Sequence[str], others: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors; raises InputError unless all that are needed are there, and no others than may be."""
    for name in needed:
        if name not in tensors:
            raise InputError(f"its '{name}' is missing from what is supplied; needed are {', '.join(needed)}")
    for name in tensors:
        if name not in (*needed, *others):
            raise InputError(f"'{shown(name[:80])}' is supplied for it, and known are {', '.join((*needed, *others))}")
    return dict(tensors)


def finite(tensor: Tensor, what: str) -> None:
    """Raise InputError unless these are floats without NaN and infinities."""
    import numpy as np

    if tensor.dtype not in FLOATS:
        raise InputError(f"its {what} is of dtype {tensor.dtype}; it must be one of {', '.join(FLOATS)}")
    if not np.isfinite(floats.values(tensor.data, tensor.dtype, "F64")).all():
        raise InputError(f"its {what} holds NaN or infinity")


def number(tensor: Tensor, what: str) -> float:
    """The one number in a tensor of floats, or of bytes."""
    import numpy as np

    if tensor.dtype in ("U8", "BOOL") and len(tensor.data) == 1:
        return float(tensor.data[0])
    finite(tensor, what)
    numbers = floats.values(tensor.data, tensor.dtype, "F64")
    if len(numbers) != 1:
        raise InputError(f"its {what} has {len(numbers)} elements; it must be one number")
    return float(np.float64(numbers[0]))
