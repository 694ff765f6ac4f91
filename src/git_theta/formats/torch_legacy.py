"""The format of torch.save from 0.2 to 1.5, and of newer ones with _use_new_zipfile_serialization=False.

Scope: five pickles (magic number, protocol version, system, object, storage keys), then for each key the number of
elements as an int64 and the storage's bytes, little-endian whatever the machine. The tar archives of torch 0.1 are out
of scope.

Specification: `_legacy_save` and `_legacy_load` in torch/serialization.py, `THPStorage_writeFileRaw` in
torch/csrc/serialization.cpp.
"""

import re
from collections.abc import Mapping, Sequence

from git_theta import tensor
from git_theta.errors import FormatError
from git_theta.formats import inert_pickle, pickled
from git_theta.formats.base import Checksum, Piece, Span, Version, Versions, Wanted, whole
from git_theta.formats.inert_pickle import Pickle
from git_theta.formats.torch_objects import Root, Storage, find_uses, parse_storage
from git_theta.formats.torch_storages import Region, group, make_spans, opaque_span
from git_theta.source import Source

__all__ = ["FORMAT", "TorchLegacyFormat"]

_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_BYTES = _MAGIC.to_bytes(10, "little")
_PROTOCOL_VERSION = 1001
_FIRST_READ_BYTES = 1 << 20
_COUNT_BYTES = 8
# Pickle's BINUNICODE and SHORT_BINUNICODE, which a length of four bytes, or of one, follows.
_STRING = re.compile(rb"X(?=(.{4}))|\x8c(?=(.))", re.DOTALL)


class TorchLegacyFormat:
    """Where the tensors of a file written by torch before 1.6 lie."""

    name = "torch-legacy"

    def accepts(self, head: bytes) -> bool:
        return head.startswith(b"\x80") and _MAGIC_BYTES in head[:32]

    def spans(self, source: Source) -> Sequence[Span]:
        saved, keys, end = _read_pickles(source)
        storages: dict[str, Storage] = {}
        for persistent in saved.persistent:
            storage = parse_storage(persistent)
            if storage is not None:  # the first one counts: its dtype is the unit of the storage's length
                storages.setdefault(storage.key, storage)
        regions = _regions(source, keys, storages, end)
        groups = group(find_uses([Root(saved.root)]))
        spans: list[Span] = []
        for key, uses in groups.items():
            if key in regions:
                spans += make_spans(uses, regions[key])
        unused = [regions[key] for key in regions if key not in groups and regions[key].size]
        # A key is a memory address, different in every save, so an unused storage goes by its rank.
        return spans + [opaque_span([f"~storage/{rank}"], region) for rank, region in enumerate(unused)]

    def compose(self, versions: Versions, wanted: Mapping[str, Wanted], checksum: Checksum) -> Sequence[Piece]:
        """The file of the side whose pickles count, with the merged scalars in it."""
        base = _side(versions.base) if versions.base else None
        ours, theirs = _side(versions.ours), _side(versions.theirs)
        taken, text = pickled.merge(base, ours, theirs, versions.settle)
        pieces = whole(versions.ours if taken is ours else versions.theirs)
        if text is not None and isinstance(pieces[0], bytes):
            pieces[0] = b"".join([pieces[0][: taken.text.start], text, pieces[0][taken.text.end :]])
        return pieces


FORMAT = TorchLegacyFormat()


def _read_pickles(source: Source) -> tuple[Pickle, list[str], int]:
    """The pickle of what was saved, the storage keys, and where the keys' pickle ends."""
    size = _FIRST_READ_BYTES
    while True:
        size = min(size, source.size, inert_pickle.MAX_SIZE_BYTES)
        data = source.read(0, size)
        try:
            return _parse_pickles(data)
        except FormatError:
            # How long the pickles are is only known once they are read, so that more is read while they do not end.
            if size == source.size or size == inert_pickle.MAX_SIZE_BYTES or not data.startswith(b"\x80"):
                raise
        size *= 8


def _side(version: Version) -> pickled.Side:
    """The pickle of what was saved, and all pickles before the storages' keys without its scalars.

    There a key is its rank: it is a memory address, and means no more.
    """
    saved, _, _ = _read_pickles(version.source)
    data = version.source.read(0, saved.end)
    storages = [found for found in map(parse_storage, saved.persistent) if found is not None]
    ranks = {key.encode(): rank for rank, key in enumerate(dict.fromkeys(storage.key for storage in storages))}

    def ranked(text: bytes) -> bytes:
        made = []
        end = 0
        for found in _STRING.finditer(text):
            length = found[1] or found[2]
            start = found.end() + len(length)
            name = text[start : start + int.from_bytes(length, "little")]
            if found.start() >= end and name in ranks:
                made += [text[end : found.start()], b"%d" % ranks[name]]
                end = start + len(name)
        return b"".join([*made, text[end:]])

    text = pickled.parse(data, saved.start)
    return pickled.Side(text, [data[: saved.start], text.structure(ranked)])


def _parse_pickles(data: bytes) -> tuple[Pickle, list[str], int]:
    magic = inert_pickle.read(data)
    version = inert_pickle.read(data, magic.end)
    if magic.root != _MAGIC or version.root != _PROTOCOL_VERSION:
        raise FormatError("torch-legacy: the file does not begin with its magic number and protocol version")
    system = inert_pickle.read(data, version.end)
    saved = inert_pickle.read(data, system.end)
    keys = inert_pickle.read(data, saved.end)
    if not isinstance(keys.root, list) or not all(isinstance(key, str) for key in keys.root):
        raise FormatError("torch-legacy: the storage keys are no list of strings")
    return saved, keys.root, keys.end


def _regions(source: Source, keys: Sequence[str], storages: Mapping[str, Storage], end: int) -> dict[str, Region]:
    """Where each storage lies; `end` is where the pickles do."""
    regions: dict[str, Region] = {}
    for key in keys:
        storage = storages.get(key)
        if storage is None or storage.dtype == tensor.OPAQUE or key in regions:
            raise FormatError(f"torch-legacy: storage {key[:40]!r} has no known dtype, or is there twice")
        size = tensor.nbytes(storage.dtype, (storage.numel,))
        end += _COUNT_BYTES
        if end > source.size - size:
            raise FormatError(f"torch-legacy: storage {key[:40]!r} of {size} bytes at {end} ends behind the file")
        count = int.from_bytes(source.read(end - _COUNT_BYTES, _COUNT_BYTES), "little")
        if count != storage.numel:
            raise FormatError(f"torch-legacy: storage {key[:40]!r} has {count} elements, not {storage.numel}")
        regions[key] = Region(end, size)
        end += size
    return regions
