"""What a diff says of a payload: the rank of a low-rank update, and nothing of what is none."""

import struct

import pytest

from git_theta.source import BytesSource
from git_theta.updates.base import Described
from git_theta.updates.low_rank import LOW_RANK, MAX_RANK


def header(rank: int) -> bytes:
    return struct.pack("<BBBBIQdQQ", 2, 2, 2, 255, rank, 64, 1.0, 100, 100)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (header(16), "r=16"),
        (header(16) + b"more", "r=16"),
        (header(MAX_RANK), f"r={MAX_RANK}"),
        (header(MAX_RANK + 1), ""),
        (header(0), ""),
        (header(16)[:-1], ""),
        (b"", ""),
    ],
    ids=["whole", "longer", "highest", "too high", "none", "cut", "empty"],
)
def test_rank(payload: bytes, said: str) -> None:
    assert isinstance(LOW_RANK, Described)
    assert LOW_RANK.described(BytesSource(payload)) == said
