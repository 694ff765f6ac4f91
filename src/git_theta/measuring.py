"""Measuring: the statistics of many changes at once, in threads, and of those that were measured before, at once."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from git_theta.errors import ThetaError
from git_theta.ledger import Ledger, Pair
from git_theta.spectrum import effective_rank, has_rank
from git_theta.statistics import Statistics, Values, are_comparable, measure

__all__ = ["Extras", "Found", "known", "measured", "size_bytes"]

Found = dict[Pair, Statistics | ThetaError]
"""What was found out about each pair of values, or why that could not be."""

_BATCH_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Extras:
    """What is computed on request alone, and not kept."""

    histogram: bool = False
    rank: bool = False

    def __bool__(self) -> bool:
        return self.histogram or self.rank


def known(pairs: Iterable[Pair], ledger: Ledger | None) -> tuple[Found, list[Pair]]:
    """What the ledger has, and the pairs that are still to be measured, each once; not those that cannot be."""
    wanted = [pair for pair in dict.fromkeys(pairs) if are_comparable(*pair)]
    found: Found = dict(ledger.find(wanted)) if ledger else {}
    return found, [pair for pair in wanted if pair not in found]


def measured(
    pairs: Sequence[Pair],
    old: Values,
    new: Values,
    threads: int,
    ledger: Ledger | None,
    progress: Callable[[int], None] = lambda size_bytes: None,
    extras: Extras = Extras(),
) -> Found:
    """The statistics of pairs that are comparable, which go into the ledger, or the error of each that has none.

    Memory is a few MiB for each thread, whatever the size of the values; for ranks, see `spectrum`. `progress` is told
    of bytes dealt with, from several threads.
    """

    def measure_all(batch: Sequence[Pair]) -> Found:
        made: Found = {}
        for pair in batch:
            try:
                made[pair] = _measure(pair, old, new, extras)
            except ThetaError as error:
                made[pair] = error
            progress(size_bytes(pair))
        return made

    found: Found = {}
    with ThreadPoolExecutor(threads) as pool:
        try:
            for made in pool.map(measure_all, _batches(pairs)):
                found |= made
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if ledger:
        ledger.note({pair: item for pair, item in found.items() if isinstance(item, Statistics)})
    return found


def _measure(pair: Pair, old: Values, new: Values, extras: Extras) -> Statistics:
    found = measure(*pair, old, new, histogram=extras.histogram)
    if extras.rank and has_rank(*pair):
        return replace(found, rank=effective_rank(*pair, old, new))
    return found


def size_bytes(pair: Pair) -> int:
    """Bytes of the larger of the two values."""
    return max(record.size for record in pair)


def _batches(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs, the largest first, lest one of them be the last with one thread at work; small ones together."""
    batches: list[list[Pair]] = []
    room = 0
    for pair in sorted(pairs, key=size_bytes, reverse=True):
        if size_bytes(pair) > room:
            batches.append([])
            room = _BATCH_BYTES
        batches[-1].append(pair)
        room -= size_bytes(pair)
    return batches
