"""The .npz format of numpy: a zip archive of .npy files.

Scope: archives with at least one .npy entry. A stored entry is the tensor that its .npy file holds, named by the entry
without ".npy"; one that the npy format refuses, and a compressed one, is an "opaque" span of that name, unless it is
small. Entries of other kinds have no spans.

Specification: numpy.savez in numpy/lib/_npyio_impl.py; archive.py and npy.py for the two parts.
"""

from collections.abc import Iterable, Sequence

from git_theta import names, tensor
from git_theta.errors import FormatError
from git_theta.formats import archive
from git_theta.formats.archive import Entry
from git_theta.formats.base import Span
from git_theta.formats.npy import read_array
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
