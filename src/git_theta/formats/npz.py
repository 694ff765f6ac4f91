"""The .npz format of numpy: a zip archive of .npy files.

Scope: archives with at least one .npy entry. A stored entry is the tensor that its .npy file holds, named by the entry
without ".npy"; one that the npy format refuses, and a compressed one, is an "opaque" span of that name, unless it is
small. Entries of other kinds have no spans.

Specification: numpy.savez in numpy/lib/_npyio_impl.py; archive.py and npy.py for the two parts.
"""

from collections.abc import Iterable, Mapping, Sequence

from git_theta import names, tensor
from git_theta.errors import ConflictError, FormatError
from git_theta.formats import archive
from git_theta.formats.archive import Entry
from git_theta.formats.base import NOTHING, Checksum, Piece, Span, Versions, Wanted
from git_theta.formats.npy import read_array
from git_theta.formats.repacking import Archive, Packer
from git_theta.names import shown
from git_theta.source import Source

__all__ = ["FORMAT", "NpzFormat"]

_SUFFIX = ".npy"


class NpzFormat:
    """Where the arrays of a .npz file lie."""

    name = "npz"

    def accepts(self, head: bytes) -> bool:
        return head.startswith(b"PK\x03\x04")

    def spans(self, source: Source) -> Sequence[Span]:
        entries = [entry for entry in archive.read(source) if entry.name.endswith(_SUFFIX)]
        if not entries:
            raise FormatError("npz: the archive has no .npy entry")
        found = [_span(source, entry) for entry in entries]
        return [span for span in found if span is not None]

    def mended(self, source: Source, changed: Sequence[tuple[int, int]]) -> Iterable[tuple[int, bytes]]:
        """The checksums of the zip entries that the changed bytes are in."""
        return archive.mended(source, changed)

    def compose(self, versions: Versions, wanted: Mapping[str, Wanted], checksum: Checksum) -> Sequence[Piece]:
        """An archive of the wanted arrays, each as the version wrote it that has one of its kind."""
        packer = Packer(versions, wanted, checksum)
        names = dict.fromkeys([*packer.ours.entries, *packer.theirs.entries, *(f"{name}{_SUFFIX}" for name in wanted)])
        members = [member for name in names if (member := _member(name, packer, versions, wanted)) is not None]
        for side in (packer.ours, packer.theirs):
            if members == [(side, entry) for entry in side.entries.values()]:
                return packer.refill(side)
        return packer.pack(members)


FORMAT = NpzFormat()


def _span(source: Source, entry: Entry) -> Span | None:
    """The entry's span; None for one that is left to the skeleton."""
    name = names.join((entry.name.removesuffix(_SUFFIX),))
    if len(name) > tensor.MAX_NAME_LENGTH:
        raise FormatError(f"npz: the name of entry {entry.name[:80]!r} is too long")
    if entry.method == archive.STORED:
        try:
            return read_array(source, entry.offset, entry.size, name)
        except FormatError:
            pass  # an object array, or a dtype that we do not know: its bytes are kept as they are
    if entry.size < archive.MIN_COMPRESSED_BYTES:
        return None
    return Span(name, entry.offset, entry.size, tensor.OPAQUE, (entry.size,))


def _member(
    name: str, packer: Packer, versions: Versions, wanted: Mapping[str, Wanted]
) -> tuple[Archive, Entry] | None:
    """The entry of the new archive with this name, and whose it is; None where there is none.

    One without an array is merged as a whole.
    """
    sides = [side for side in (packer.ours, packer.theirs, packer.base) if side is not None]
    parameter = names.join((name.removesuffix(_SUFFIX),))
    if name.endswith(_SUFFIX) and parameter in wanted:
        side = next((side for side in sides if side.has(wanted[parameter].span)), None)
        if side is None or name not in side.entries:
            raise ConflictError(f"no version has an entry {shown(name[:80])} of its dtype and shape")
        return side, side.entries[name]
    versed = (packer.base, packer.ours, packer.theirs)
    rows = [
        NOTHING if side is None or name not in side.entries else side.content(side.entries[name]) for side in versed
    ]
    if any(isinstance(piece, str) for row in rows if isinstance(row, list) for piece in row):
        return None  # an array that the result does not have
    taken = versions.settled(names.join((name,)), *rows)
    found = [side for side, row in zip(versed, rows, strict=True) if side is not None and row is taken]
    return (found[-1], found[-1].entries[name]) if found and taken is not NOTHING else None
