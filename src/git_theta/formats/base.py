"""The interface of a checkpoint format, and the limits that every format keeps.

A format only says where tensors lie. It reads no more of the file than it needs to know that, executes nothing of it,
and imports no framework. The core checks what it says (`layout.cut`) and covers the rest of the file itself, so a wrong
answer can worsen naming and sharing, never the bytes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from git_theta.errors import ConflictError
from git_theta.names import shown
from git_theta.source import Source
from git_theta.tensor import View

__all__ = [
    "HEAD_SIZE_BYTES",
    "MAX_SPANS",
    "NOTHING",
    "Checksum",
    "Composer",
    "Format",
    "Piece",
    "Sealed",
    "Settle",
    "Span",
    "Version",
    "Versions",
    "Wanted",
    "agreed",
    "refuse",
    "whole",
    "winner",
]

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


@dataclass(frozen=True, slots=True)
class Version:
    """A checkpoint without its values, which read as zeros: where they lie in `source`, and their digests by name."""

    source: Source
    spans: Sequence[Span]
    digests: Mapping[str, str]


NOTHING = object()
"""What a version has that does not have something."""

Settle = Callable[[str, object, object, object], object]
"""Says what becomes of something beside the tensors that both sides changed, by its name: what base, ours or theirs
have of it, which may be NOTHING, or another number. Raises ConflictError where a merge is not to go on without that."""


def refuse(name: str, _base: object, _ours: object, _theirs: object) -> object:
    """Settle nothing."""
    raise ConflictError(f"both sides changed '{shown(name[:80])}'")


@dataclass(frozen=True, slots=True)
class Versions:
    """What a merge is of; `base` is None where there is no common ancestor."""

    base: Version | None
    ours: Version
    theirs: Version
    settle: Settle = refuse

    def settled(self, name: str, base: object, ours: object, theirs: object) -> object:
        """Of three versions of something beside the tensors, what a three-way merge takes, or else `settle`."""
        if ours == theirs or base == theirs:
            return ours
        return theirs if base == ours else self.settle(name, base, ours, theirs)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A parameter that the new file is to hold, and the digest of its value; the span's offset says nothing."""

    span: Span
    digest: str


Piece = bytes | str
"""Bytes of the skeleton, or the name of a parameter, in whose place its value stands."""

Checksum = Callable[[Sequence[Piece]], int]
"""Gives the CRC-32 of the bytes that pieces of the new file stand for; their values may have to be loaded for it."""


@runtime_checkable
class Composer(Protocol):
    """A format that can put a file together from versions of it: a plugin that has this method beside `Format`'s."""

    def compose(self, versions: Versions, wanted: Mapping[str, Wanted], checksum: Checksum) -> Sequence[Piece]:
        """The new file's pieces, in order. What is no tensor in it is merged three-way.

        The core looks whether `spans` finds in the new file what was wanted. Raises ConflictError where both sides
        changed the same thing, or where the format cannot say how a file with these parameters is written.
        """
        ...


def agreed(base: object, ours: object, theirs: object, what: str) -> object:
    """Of three versions of something, the one that a three-way merge takes; raises ConflictError, which names it."""
    if ours == theirs or base == theirs:
        return ours
    if base == ours:
        return theirs
    raise ConflictError(f"both sides changed {what}")


def whole(version: Version) -> list[Piece]:
    """The pieces of a version's file as it is."""
    pieces: list[Piece] = []
    end = 0
    for span in sorted(version.spans, key=lambda span: (span.offset, span.size)):
        pieces += [version.source.read(end, span.offset - end), span.name]
        end = span.offset + span.size
    return [*pieces, version.source.read(end, version.source.size - end)]


def winner(versions: Versions, essence: Callable[[Version], object]) -> Version:
    """The side whose skeleton a three-way merge takes; `essence` is what of it matters, to be compared."""
    base = None if versions.base is None else essence(versions.base)
    ours, theirs = essence(versions.ours), essence(versions.theirs)
    taken = agreed(base, ours, theirs, "what the file says beside its tensors")
    return versions.ours if taken is ours else versions.theirs
