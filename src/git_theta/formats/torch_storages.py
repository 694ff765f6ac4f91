"""Turn a torch storage and the tensors that use it into spans.

Scope: a storage is a run of bytes in the file, of which tensors use elements by offset, shape and strides
(https://docs.pytorch.org/docs/stable/tensor_view.html). Which spans it becomes:

- Tensors of the same dtype, offset, shape and strides are one: the first names it, the others are its views.
- Tensors that do not overlap, each of whose elements lie side by side in some order, are a span each. What lies between
  them is no span.
- Otherwise the storage is one span, "<name of its first tensor>~storage", and all its tensors are views of it. It has
  their dtype, or U8 if they have several.
- A storage whose meaning is not known (a dtype of a newer torch, big-endian or compressed bytes) is one "opaque" span
  named after its first tensor, which the others view.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from git_theta import tensor
from git_theta.errors import FormatError
from git_theta.formats.base import Span
from git_theta.formats.torch_objects import Use
from git_theta.tensor import View

__all__ = ["Region", "group", "make_spans", "opaque_span", "storage_size"]


@dataclass(frozen=True, slots=True)
class Region:
    """Where a storage lies in the file; not `readable` if its bytes are compressed or of the other byte order."""

    offset: int
    size: int
    readable: bool = True


@dataclass(frozen=True, slots=True)
class _Piece:
    """Uses of one geometry: bytes `begin` to `end` of the storage; strides None for C order.

    `dense` if every byte of it belongs to exactly one element.
    """

    begin: int
    end: int
    dense: bool
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    names: list[str]


def group(uses: Sequence[Use]) -> dict[str, list[Use]]:
    """The uses of each storage, by its key, in the order of the first."""
    groups: dict[str, list[Use]] = {}
    for use in uses:
        groups.setdefault(use.storage.key, []).append(use)
    return groups


def storage_size(uses: Sequence[Use]) -> int | None:
    """The bytes that a storage must have for its uses; None if that is not known."""
    if any(use.storage.dtype == tensor.OPAQUE for use in uses):
        return None
    return max(tensor.nbytes(use.storage.dtype, (use.storage.numel,)) for use in uses)


def make_spans(uses: Sequence[Use], region: Region) -> list[Span]:
    """The spans of one storage; `uses` are all of its tensors, at least one.

    Raises FormatError if a tensor does not lie within the storage, or the storage within the region.
    """
    size = storage_size(uses)
    if not region.readable or size is None or any(use.dtype == tensor.OPAQUE for use in uses):
        return [opaque_span([use.name for use in uses], region)]
    if size > region.size:
        raise FormatError(f"torch: storage {uses[0].storage.key[:40]!r} of {size} bytes lies in {region.size}")
    pieces = _pieces(uses, size)
    if _are_separate(pieces):
        return [_tensor_span(piece, region) for piece in pieces]
    return [_storage_span(pieces, region, size)]


def opaque_span(names: Sequence[str], region: Region) -> Span:
    """The region as bytes without a known meaning, under the first name; the others are views."""
    shape = (region.size,)
    views = tuple(View(name, tensor.OPAQUE, shape) for name in names[1:])
    return Span(names[0], region.offset, region.size, tensor.OPAQUE, shape, views=views)


def _pieces(uses: Sequence[Use], size: int) -> list[_Piece]:
    pieces: dict[object, _Piece] = {}
    for use in uses:
        piece = _piece(use, size)
        same = pieces.setdefault((piece.begin, piece.dtype, piece.shape, piece.strides), piece)
        same.names.append(use.name)
    return list(pieces.values())


def _piece(use: Use, size: int) -> _Piece:
    """Where the tensor lies in its storage of `size` bytes, without its name yet."""
    width = tensor.DTYPES[use.dtype].bits // 8
    total = tensor.nbytes(use.dtype, use.shape)
    if total == 0:
        return _Piece(0, 0, True, use.dtype, use.shape, None, [])
    begin = (use.storage.start + use.offset) * width
    reach = sum((dim - 1) * stride for dim, stride in zip(use.shape, use.strides, strict=True))
    end = begin + (reach + 1) * width
    if end > size:
        raise FormatError(f"torch: tensor {use.name[:80]!r} ends at byte {end} of a storage of {size}")
    strides = _canonical(use.shape, use.strides)
    dense = end - begin == total and _is_dense(use.shape, use.strides)
    return _Piece(begin, end, dense, use.dtype, use.shape, strides, [])


def _canonical(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """The strides, 1 where the dimension is 1 and they say nothing; None for C order."""
    expected = 1
    for dim, stride in zip(reversed(shape), reversed(strides), strict=True):
        if dim != 1 and stride != expected:
            return tuple(1 if dim == 1 else stride for dim, stride in zip(shape, strides, strict=True))
        expected *= dim
    return None


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements lie side by side, each once: whether the dimensions, sorted by stride, are in C order."""
    expected = 1
    for stride, dim in sorted(zip(strides, shape, strict=True)):
        if dim != 1 and stride != expected:
            return False
        expected *= dim
    return True


def _are_separate(pieces: Sequence[_Piece]) -> bool:
    end = 0
    for piece in sorted(pieces, key=lambda piece: (piece.begin, piece.end)):
        if not piece.dense or piece.begin < end:
            return False
        end = piece.end
    return True


def _tensor_span(piece: _Piece, region: Region) -> Span:
    views = tuple(View(name, piece.dtype, piece.shape, 0, piece.strides) for name in piece.names[1:])
    offset = region.offset + piece.begin
    return Span(piece.names[0], offset, piece.end - piece.begin, piece.dtype, piece.shape, piece.strides, views)


def _storage_span(pieces: Sequence[_Piece], region: Region, size: int) -> Span:
    dtypes = {piece.dtype for piece in pieces}
    width = tensor.DTYPES[pieces[0].dtype].bits // 8
    dtype, count = (pieces[0].dtype, size // width) if len(dtypes) == 1 and size % width == 0 else ("U8", size)
    views = tuple(
        View(name, piece.dtype, piece.shape, piece.begin // (tensor.DTYPES[piece.dtype].bits // 8), piece.strides)
        for piece in pieces
        for name in piece.names
    )
    return Span(f"{pieces[0].names[0]}~storage", region.offset, size, dtype, (count,), views=views)
