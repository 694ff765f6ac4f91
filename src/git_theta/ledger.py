"""The ledger: statistics of changes that were computed before, by the digests of the two values.

It is a cache: rows are dropped, the oldest first, where there are many, and nothing is lost with the file.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from git_theta import cachefile, jsontext
from git_theta.manifest import Record
from git_theta.sharing import Sharing
from git_theta.statistics import Statistics

__all__ = ["Ledger", "Pair"]

MAX_ROWS = 200_000
_VERSION = 2  # 1 counted bytes of floats of 8 bits and of complex numbers
_COLUMNS = """
    before BLOB NOT NULL,  -- BLAKE3-256 of the values
    after BLOB NOT NULL,
    kind TEXT NOT NULL,    -- dtypes, shapes and strides of both, as JSON
    made INTEGER NOT NULL, -- seconds since 1970
    found TEXT NOT NULL,   -- the statistics, as JSON
    PRIMARY KEY (before, after, kind)
"""
_COUNTS = ("elements", "changed", "rows", "changed_rows")
_NORMS = ("before", "after", "change", "largest")
_PAIRS = ("nans", "infinities")

Pair = tuple[Record, Record]


class Ledger:
    """The ledger in one file; safe to use from several threads and processes."""

    def __init__(self, path: Path, sharing: Sharing = Sharing()) -> None:
        self._lock = threading.Lock()
        self._connection = cachefile.connect(path, sharing, "statistics", _COLUMNS, _VERSION)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def find(self, pairs: Iterable[Pair]) -> dict[Pair, Statistics]:
        """The statistics of those of the pairs of values that stand in it."""
        query = "SELECT found FROM statistics WHERE before = ? AND after = ? AND kind = ?"
        found: dict[Pair, Statistics] = {}
        with suppress(sqlite3.Error), self._lock:
            for pair in pairs:
                row = self._connection.execute(query, _key(pair)).fetchone()
                statistics = _parse(row[0]) if row else None
                if statistics:
                    found[pair] = statistics
        return found

    def note(self, found: Mapping[Pair, Statistics]) -> None:
        """Keep what was computed of values whose digests were checked meanwhile."""
        now = int(time.time())
        rows = [(*_key(pair), now, _format(statistics)) for pair, statistics in found.items()]
        with suppress(sqlite3.Error), self._lock, self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO statistics VALUES (?, ?, ?, ?, ?)", rows)
            [count] = self._connection.execute("SELECT count(*) FROM statistics").fetchone()
            if count > MAX_ROWS:
                oldest = "SELECT made FROM statistics ORDER BY made LIMIT 1 OFFSET ?"
                [made] = self._connection.execute(oldest, (count - MAX_ROWS // 2,)).fetchone()
                self._connection.execute("DELETE FROM statistics WHERE made < ?", (made,))


def _key(pair: Pair) -> tuple[bytes, bytes, str]:
    kind = json.dumps([[record.dtype, record.shape, record.strides] for record in pair], separators=(",", ":"))
    return bytes.fromhex(pair[0].digest), bytes.fromhex(pair[1].digest), kind


def _format(statistics: Statistics) -> str:
    """A row, without what is computed on request."""
    row = asdict(statistics)
    return json.dumps({name: row[name] for name in (*_COUNTS, *_NORMS, *_PAIRS)})


def _parse(text: object) -> Statistics | None:
    """The statistics of a row; None where it is damaged."""
    try:
        row = jsontext.parse(str(text).encode())
    except ValueError:
        return None
    if not isinstance(row, dict) or row.keys() != {*_COUNTS, *_NORMS, *_PAIRS}:
        return None
    counts = all(type(row[name]) is int for name in _COUNTS)
    norms = all(row[name] is None or type(row[name]) is float for name in _NORMS)
    pairs = all(isinstance(row[name], list) and [type(item) for item in row[name]] == [int, int] for name in _PAIRS)
    if not (counts and norms and pairs):
        return None
    return Statistics(**{**row, **{name: tuple(row[name]) for name in _PAIRS}})
