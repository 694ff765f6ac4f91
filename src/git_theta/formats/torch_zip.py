"""The format of torch.save since torch 1.6, and of torch.jit.save: a zip archive of pickles and storages.

Scope: archives with <root>/data.pkl, and <root>/constants.pkl for TorchScript. Stored entries <root>/data/<key> and
<root>/constants/<key> are the storages. A storage whose entry is missing (meta tensors) has no span. One that no tensor
uses is an "opaque" span named after its entry, "~storage/data/<key>". A compressed one is "opaque" too, unless it is
small. A storage that claims more bytes than its entry has makes the file none of ours, as torch would not load it; an
entry may have more bytes than its storage needs.

Specification: torch/serialization.py (`_save`), caffe2/serialize/inline_container.h,
torch/csrc/jit/serialization/export_module.cpp.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from git_theta import names, tensor
from git_theta.errors import FormatError
from git_theta.formats import archive, inert_pickle, pickled
from git_theta.formats.archive import Entry
from git_theta.formats.base import Checksum, Piece, Span, Versions, Wanted
from git_theta.formats.repacking import Archive, Packer
from git_theta.formats.torch_objects import Root, find_uses
from git_theta.formats.torch_storages import Region, group, make_spans, opaque_span
from git_theta.source import Source

__all__ = ["FORMAT", "TorchFormat"]

_NUMBER = re.compile(r"(0|[1-9][0-9]{0,17})\Z")  # a storage's key, shown as it is; others are escaped as strings are
_FOLDERS = ("data/", "constants/")
_PICKLE = "data.pkl"
_IDENTITY = ".data/serialization_id"  # a hash of names and checksums, which torch does not look at


class TorchFormat:
    """Where the tensors of a zip file written by torch lie."""

    name = "torch"

    def accepts(self, head: bytes) -> bool:
        return head.startswith(b"PK\x03\x04")

    def spans(self, source: Source) -> Sequence[Span]:
        entries = _entries(source)
        roots = [Root(_unpickle(source, entries, _PICKLE), folder="data/")]
        if "constants.pkl" in entries:
            roots.append(Root(_unpickle(source, entries, "constants.pkl"), "constants", folder="constants/"))
        big_endian = "byteorder" in entries and _read(source, entries["byteorder"], 16) == b"big"
        groups = group(find_uses(roots))
        spans: list[Span] = []
        for key, uses in groups.items():
            entry = entries.get(key)
            if entry is not None and _is_kept(entry):
                readable = entry.method == archive.STORED and not big_endian
                spans += make_spans(uses, Region(entry.offset, entry.size, readable))
        spans += _unused(entries, groups)
        return spans

    def mended(self, source: Source, changed: Sequence[tuple[int, int]]) -> Iterable[tuple[int, bytes]]:
        """The checksums of the zip entries that the changed bytes are in."""
        return archive.mended(source, changed)

    def compose(self, versions: Versions, wanted: Mapping[str, Wanted], checksum: Checksum) -> Sequence[Piece]:
        """The file of the side whose pickles count, with the wanted values and the merged scalars in it."""
        packer = Packer(versions, wanted, checksum)
        versed = [side for side in (packer.base, packer.ours, packer.theirs) if side]
        texts = _texts([data for side in versed if (data := _pickle_in(side)) is not None])
        sides = {side: _side(side, texts) for side in versed}
        base = sides[packer.base] if packer.base else None
        taken, text = pickled.merge(base, sides[packer.ours], sides[packer.theirs], versions.settle)
        side = packer.ours if taken is sides[packer.ours] else packer.theirs
        return packer.refill(side, None if text is None else (_pickle_of(side), text))


FORMAT = TorchFormat()


def _entries(source: Source) -> dict[str, Entry]:
    """The entries by their name within the root folder, which is that of the first."""
    entries = archive.read(source)
    root = entries[0].name.partition("/")[0] + "/" if entries else ""
    return {entry.name[len(root) :]: entry for entry in entries if entry.name.startswith(root)}


def _read(source: Source, entry: Entry, limit: int) -> bytes:
    if entry.method != archive.STORED or entry.size > limit:
        raise FormatError(f"torch: entry {entry.name[:80]!r} is compressed or has more than {limit} bytes")
    return source.read(entry.offset, entry.size)


def _unpickle(source: Source, entries: Mapping[str, Entry], name: str) -> object:
    if name not in entries:
        raise FormatError(f"torch: the archive has no {name}")
    return inert_pickle.read(_read(source, entries[name], inert_pickle.MAX_SIZE_BYTES)).root


def _is_kept(entry: Entry) -> bool:
    return entry.method == archive.STORED or entry.size >= archive.MIN_COMPRESSED_BYTES


def _unused(entries: Mapping[str, Entry], used: Mapping[str, object]) -> list[Span]:
    """The storages that no tensor uses, "~storage/<folder>/<key>"."""
    spans = []
    for key, entry in entries.items():
        if key.startswith(_FOLDERS) and key not in used and entry.size and _is_kept(entry):
            name = "~storage/" + names.join(int(part) if _NUMBER.match(part) else part for part in key.split("/"))
            if len(name) <= tensor.MAX_NAME_LENGTH:
                spans.append(opaque_span([name], Region(entry.offset, entry.size)))
    return spans


def _pickle_of(side: Archive) -> Entry:
    """The entry of what was saved."""
    name = f"{next(iter(side.entries), '').partition('/')[0]}/{_PICKLE}"
    if name not in side.entries:
        raise FormatError(f"torch: the archive has no {_PICKLE}")
    return side.entries[name]


def _pickle_in(side: Archive) -> bytes | None:
    """The pickle of what was saved; None where it is no skeleton, being too long."""
    content = side.content(_pickle_of(side))
    return content[0] if len(content) == 1 and isinstance(content[0], bytes) else None


def _texts(found: Sequence[bytes]) -> dict[bytes, pickled.Text]:
    """The pickles of the versions, each read once; where all are the same, there is nothing to read."""
    distinct = dict.fromkeys(found)
    return {data: pickled.parse(data) if len(distinct) > 1 else pickled.Text(data, 0, len(data)) for data in distinct}


def _side(side: Archive, texts: Mapping[bytes, pickled.Text]) -> pickled.Side:
    """The pickle of what was saved, and what the archive says beside its scalars and its storages.

    Where those lie, what their bytes are and what the root folder is called does not matter.
    """
    entry, data = _pickle_of(side), _pickle_in(side)
    rest = [
        (other.name.partition("/")[2], other.size, [piece for piece in side.content(other) if isinstance(piece, bytes)])
        for other in side.entries.values()
        if not other.name.endswith(_IDENTITY) and (other != entry or data is None)
    ]
    text = pickled.Text(b"") if data is None else texts[data]
    return pickled.Side(text, [text.structure(), rest])
