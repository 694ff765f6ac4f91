"""The catalogue: which values this machine has itself written or verified, and how they are stored.

It lets an unchanged parameter keep its record, whatever file or commit it comes from. A row is a promise about objects
on this machine, so only bytes that were hashed here make one: a manifest that came from elsewhere may lie about what an
object holds. It is a cache: when the file is damaged or cannot be written, values are stored again under the same oids.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from git_theta import cachefile, jsontext
from git_theta.errors import ManifestError
from git_theta.manifest import Record, Step, format_store, parse_store
from git_theta.sharing import Sharing

__all__ = ["Catalogue"]

_VERSION = 1
_COLUMNS = """
    digest BLOB NOT NULL,  -- BLAKE3-256 of the value
    kind TEXT NOT NULL,    -- dtype and shape, as JSON
    store TEXT NOT NULL,   -- its steps, as in a manifest
    PRIMARY KEY (digest, kind, store)
"""


class Catalogue:
    """The catalogue in one file; safe to use from several threads and processes."""

    def __init__(self, path: Path, sharing: Sharing = Sharing()) -> None:
        self._lock = threading.Lock()
        self._connection = cachefile.connect(path, sharing, "vouched", _COLUMNS, _VERSION)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def find(self, digest: str, dtype: str, shape: tuple[int, ...]) -> list[tuple[Step, ...]]:
        """Every way in which this value is stored here."""
        try:
            with self._lock:
                return self._find(digest, dtype, shape)
        except sqlite3.Error:
            return []

    def find_at_once(self, values: Sequence[Record]) -> list[list[tuple[Step, ...]]]:
        """Every way in which each value is stored here, all as of one moment."""
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN")
                return [self._find(value.digest, value.dtype, value.shape) for value in values]
        except sqlite3.Error:
            return [[] for _ in values]

    def state(self) -> int:
        """Another number whenever another process has added to it meanwhile; source: sqlite.org/pragma.html."""
        try:
            with self._lock:
                return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return -1

    def _find(self, digest: str, dtype: str, shape: tuple[int, ...]) -> list[tuple[Step, ...]]:
        query = "SELECT store FROM vouched WHERE digest = ? AND kind = ?"
        rows = self._connection.execute(query, (bytes.fromhex(digest), _kind(dtype, shape))).fetchall()
        return [steps for (text,) in rows if (steps := _parse(text))]

    def vouch(self, records: Iterable[Record]) -> None:
        """Remember that the objects of these records are here and were seen to rebuild their digests."""
        rows = [
            (bytes.fromhex(record.digest), _kind(record.dtype, record.shape), json.dumps(format_store(record.store)))
            for record in records
        ]
        with suppress(sqlite3.Error), self._lock, self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO vouched VALUES (?, ?, ?)", rows)


def _parse(text: object) -> tuple[Step, ...]:
    """The steps of a row; none where it is damaged."""
    try:
        return parse_store(jsontext.parse(str(text).encode()), "the catalogue")
    except (ManifestError, ValueError):
        return ()


def _kind(dtype: str, shape: tuple[int, ...]) -> str:
    return json.dumps([dtype, shape], separators=(",", ":"))
