"""The interface of a checkpoint format, and the limits that every format keeps.

A format only says where tensors lie. It reads no more of the file than it needs to know that, executes nothing of it,
and imports no framework. The core checks what it says (`layout.cut`) and covers the rest of the file itself, so a wrong
answer can worsen naming and sharing, never the bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from git_theta.source import Source
from git_theta.tensor import View

__all__ = ["HEAD_SIZE_BYTES", "MAX_SPANS", "Format", "Sealed", "Span"]

HEAD_SIZE_BYTES = 4096
MAX_SPANS = 1_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """A tensor's bytes in a file: `size` bytes at `offset`, and what they are.

    `name` is made by `names.join` and is unique among the file's spans and views. A dense value has
    `nbytes(dtype, shape) == size`; a dtype outside of `tensor.DTYPES` (quantised blocks) may have any size. `strides`
    (in elements) is None for C order; a span whose elements lie in another order, each exactly once, names its strides.
    `views` are the other names of the same bytes.

    A storage that is no single tensor is a span of shape (n,) whose tensors are all in `views`. It is named after the
    first of them, "<name>~storage", which `names.join` never makes. dtype "opaque" with shape (size,) names bytes that
    are worth an identity of their own without being a tensor, a compressed archive entry for instance.
    """

    name: str
    offset: int
    size: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    views: tuple[View, ...] = ()


class Format(Protocol):
    """A checkpoint format, found by the entry-point group `git_theta.formats`."""

    @property
    def name(self) -> str:
        """Lower-case letters, digits and '-'; written into the manifest."""
        ...

    def accepts(self, head: bytes) -> bool:
        """Whether a file that begins with `head` (its first 4,096 bytes at most) may be of this format; cheap."""
        ...

    def spans(self, source: Source) -> Sequence[Span]:
        """The tensors' spans, in any order, not overlapping.

        Raises FormatError where the file is not of this format or breaks its rules; the next format is then tried.
        """
        ...


@runtime_checkable
class Sealed(Protocol):
    """A format whose files hold checksums of the tensors' bytes: a plugin that has this method beside `Format`'s."""

    def mended(self, source: Source, changed: Sequence[tuple[int, int]]) -> Iterable[tuple[int, bytes]]:
        """What is to be written where, once the bytes at the places `changed` (offset, size) of spans are others.

        `source` is the file with the new bytes and the old checksums. The file keeps its size.
        """
        ...
