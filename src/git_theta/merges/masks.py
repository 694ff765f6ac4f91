"""Random numbers that depend on nothing but what is merged: not on threads, on the order of work, or on a library.

Philox 4x64-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011) is a function of a key and a counter.
The key is a hash of the seed, the parameter's name and the digest of the side's value, so a rebase, which swaps the
sides, draws the same numbers; the counter is the element's place, so a run of a value has the numbers of the whole.
"""

import math

from blake3 import blake3

from git_theta.merges.base import Array, Inputs, Namespace, Option, Options

__all__ = ["SEED", "threshold", "uniform"]

SEED = Option("seed", 0, "Another number is another random choice.", least=0, most=2**63 - 1)

_DOMAIN = b"git-theta merge mask 1"
_NUMBERS_EACH = 8
"""32-bit numbers for each step of the counter."""


def uniform(xp: Namespace, inputs: Inputs, index: int, options: Options) -> Array:
    """A number from 0 to below 1, a multiple of 2**-24 in float32, for each element of a side."""
    import numpy as np

    shape = tuple(inputs.ours.shape)
    count = math.prod(shape)
    skipped = inputs.offset % _NUMBERS_EACH
    key = np.frombuffer(_key(inputs, index, options.integer("seed")), "<u8").astype(np.uint64)
    raw = np.random.Philox(key=key, counter=inputs.offset // _NUMBERS_EACH).random_raw(-(-(skipped + count) // 2))
    words = raw.astype("<u8", copy=False).view("<u4")[skipped : skipped + count]
    # The upper bits of each: a float32 has 24.
    numbers = (words >> 8).astype("<f4") * np.float32(2**-24)
    return xp.asarray(numbers.reshape(shape))


def threshold(chance: float) -> float:
    """What a number is below with this chance: a multiple of 2**-24, which is the same in float32 and float64."""
    return math.ceil(round(chance * 2**24, 6)) / 2**24


def _key(inputs: Inputs, index: int, seed: int) -> bytes:
    parts = (_DOMAIN, str(seed).encode(), inputs.name.encode("utf-8", "surrogatepass"), inputs.digests[index].encode())
    hasher = blake3()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest(16)
