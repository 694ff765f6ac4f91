"""The catalogue: which values this machine has itself written or verified, and how they are stored.

It lets an unchanged parameter keep its record, whatever file or commit it comes from. A row is a promise about objects
on this machine, so only bytes that were hashed here make one: a manifest that came from elsewhere may lie about what an
object holds. It is a cache: when the file is damaged or cannot be written, values are stored again under the same oids.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from git_theta import jsontext
from git_theta.errors import ManifestError
from git_theta.manifest import Record, Step, format_store, parse_store
from git_theta.sharing import Sharing

__all__ = ["Catalogue"]

_VERSION = 1
_TIMEOUT_S = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS vouched (
    digest BLOB NOT NULL,  -- BLAKE3-256 of the value
    kind TEXT NOT NULL,    -- dtype and shape, as JSON
    store TEXT NOT NULL,   -- its steps, as in a manifest
    PRIMARY KEY (digest, kind, store)
) WITHOUT ROWID
"""


class Catalogue:
    """The catalogue in one file; safe to use from several threads and processes."""

    def __init__(self, path: Path, sharing: Sharing = Sharing()) -> None:
        self._lock = threading.Lock()
        self._connection = _open(path, sharing)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def find(self, digest: str, dtype: str, shape: tuple[int, ...]) -> list[tuple[Step, ...]]:
        """Every way in which this value is stored here."""
        query = "SELECT store FROM vouched WHERE digest = ? AND kind = ?"
        try:
            with self._lock:
                rows = self._connection.execute(query, (bytes.fromhex(digest), _kind(dtype, shape))).fetchall()
        except sqlite3.Error:
            return []
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


def _open(path: Path, sharing: Sharing) -> sqlite3.Connection:
    """The database, made anew where it is damaged, in memory where it cannot be written."""
    for attempt in (path, path, Path(":memory:")):
        with suppress(OSError):
            sharing.make_folder(attempt.parent)
        try:
            connection = sqlite3.connect(attempt, timeout=_TIMEOUT_S, check_same_thread=False)
        except sqlite3.Error:
            continue
        try:
            if _prepare(connection):
                sharing.share(attempt)
            return connection
        except sqlite3.OperationalError:
            connection.close()
        except sqlite3.DatabaseError:
            connection.close()
            with suppress(OSError):
                attempt.unlink()
    return sqlite3.connect(":memory:", check_same_thread=False)


def _prepare(connection: sqlite3.Connection) -> bool:
    """Have the table; whether it was not there."""
    # A power cut may damage the file, and it is then made anew; waiting for the disk is not worth it.
    connection.execute("PRAGMA synchronous = OFF")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    if version == _VERSION and ("vouched",) in tables:
        return False  # no write, and so no wait for another process that writes
    if version:
        connection.execute("DROP TABLE IF EXISTS vouched")
    connection.execute(_SCHEMA)
    connection.execute(f"PRAGMA user_version = {_VERSION}")
    return True
