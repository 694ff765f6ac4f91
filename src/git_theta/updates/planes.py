"""Planes: words as runs of their bytes of equal rank, each through zstd where that pays (docs/format.md, "Planes").

What every update's payload is made of: a cursor that never reads beyond a payload's end, compressors that are made once
a thread, and a decompressor that believes no size.
"""

import struct
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from git_theta.errors import DamagedObjectError
from git_theta.source import Source

if TYPE_CHECKING:
    import numpy as np
    import zstandard

    Words = np.ndarray[tuple[int, ...], np.dtype[np.integer]]

__all__ = ["FIELD", "ZSTD", "Cursor", "compressor", "decode", "decompress", "encode"]

FIELD = struct.Struct("<I")
ZSTD = 1 << 31
_local = threading.local()


class Cursor:
    """A place in a payload, which moves on with what is taken."""

    def __init__(self, payload: Source) -> None:
        self._payload = payload
        self._offset = 0

    @property
    def ended(self) -> bool:
        return self._offset >= self._payload.size

    def take(self, size: int) -> bytes:
        """The next `size` bytes, which the caller has bounded; raises DamagedObjectError where they are not there."""
        data = self._payload.read(self._offset, size)
        if len(data) != size:
            raise DamagedObjectError(f"a payload that ends at byte {self._payload.size}, inside of a frame")
        self._offset += size
        return data


def encode(words: "Words") -> list[bytes]:
    """The words' planes, the most significant bytes first, behind their sizes; a plane of zeros is left out."""
    width = words.dtype.itemsize
    highest = int(words.max()) if len(words) else 0
    fields = b""
    bodies: list[bytes] = []
    for rank in reversed(range(width if len(words) else 0)):
        raw = (words >> 8 * rank).astype("u1").tobytes() if highest >> 8 * rank else b""
        coded = compressor(width).compress(raw) if raw else raw
        shrunk = len(coded) < len(raw)
        fields += FIELD.pack(len(coded) | ZSTD if shrunk else len(raw))
        bodies.append(coded if shrunk else raw)
    return [fields, *bodies]


def decode(cursor: Cursor, count: int, width: int) -> "Words":
    """The `count` words, which the caller has bounded, of `width` bytes each; they may be read-only."""
    import numpy as np

    planes: list[Words | None] = []
    for (field,) in FIELD.iter_unpack(cursor.take(FIELD.size * width if count else 0)):
        stored = field & ~ZSTD
        if stored > count or (not field & ZSTD and stored not in (0, count)):
            raise DamagedObjectError(f"a plane of {stored} bytes, where {count} are expected")
        data = cursor.take(stored)
        plane = decompress(data, count) if field & ZSTD else data
        planes.append(np.frombuffer(plane, np.uint8) if field else None)
    words = _joined(planes) if planes else None
    return np.zeros(count, f"<u{width}") if words is None else words


def _joined(planes: "Sequence[Words | None]") -> "Words | None":
    """Planes as words, halves first, which take half the time; None for zeros.

    Shifts of whole words are twice as fast as bytes written to every fourth place.
    """
    if len(planes) == 1:
        return planes[0]
    half = len(planes) // 2
    high, low = _joined(planes[:half]), _joined(planes[half:])
    words: Words | None = None
    if high is not None:
        words = high.astype(f"<u{len(planes)}")
        words <<= 8 * half
        if low is not None:
            words |= low
    elif low is not None:
        words = low.astype(f"<u{len(planes)}")
    return words


def compressor(word: int) -> "zstandard.ZstdCompressor":
    """This thread's compressor: for the bytes of words entropy coding alone, for plain bytes zstd's usual search."""
    import zstandard

    name = "entropy" if word > 1 else "search"
    compressor: zstandard.ZstdCompressor | None = getattr(_local, name, None)
    if compressor is None:
        if word > 1:
            # Strategy, logs and target_length are such that literals are still Huffman-coded but matches hardly sought:
            # 0.8 GB/s at the entropy of the plane.
            parameters = zstandard.ZstdCompressionParameters(
                strategy=zstandard.STRATEGY_FAST,
                min_match=7,
                hash_log=6,
                chain_log=6,
                window_log=17,
                search_log=1,
                target_length=0,
            )
            compressor = zstandard.ZstdCompressor(compression_params=parameters)
        else:
            compressor = zstandard.ZstdCompressor(level=3)
        setattr(_local, name, compressor)
    return compressor


def decompress(data: bytes, size: int) -> bytes:
    """The `size` bytes that a zstd frame holds; the size it claims is checked before it is believed."""
    import zstandard

    decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    try:
        claimed = zstandard.frame_content_size(data)
        if claimed != size:
            raise DamagedObjectError(f"a plane that claims {claimed} bytes, where {size} are expected")
        return decompressor.decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedObjectError(f"a plane that is not zstd ({error})") from error
