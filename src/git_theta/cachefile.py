"""A table in an SQLite file of ours that is a cache: whatever happens to it, it is made anew."""

import sqlite3
from contextlib import suppress
from pathlib import Path

from git_theta.sharing import Sharing

__all__ = ["connect"]

_TIMEOUT_S = 2


def connect(path: Path, sharing: Sharing, table: str, columns: str, version: int) -> sqlite3.Connection:
    """The database with the table, made anew where it is damaged, in memory where it cannot be written.

    Raise `version` with every change of the columns. For use from several threads, one at a time.
    """
    for attempt in (path, path, Path(":memory:")):
        with suppress(OSError):
            sharing.make_folder(attempt.parent)
        try:
            connection = sqlite3.connect(attempt, timeout=_TIMEOUT_S, check_same_thread=False)
        except sqlite3.Error:
            continue
        try:
            if _prepare(connection, table, columns, version):
                sharing.share(attempt)
            return connection
        except sqlite3.OperationalError:
            connection.close()
        except sqlite3.DatabaseError:
            connection.close()
            with suppress(OSError):
                attempt.unlink()
    return sqlite3.connect(":memory:", check_same_thread=False)


def _prepare(connection: sqlite3.Connection, table: str, columns: str, version: int) -> bool:
    """Have the table; whether it was not there."""
    # A power cut may damage the file, and it is then made anew; waiting for the disk is not worth it.
    connection.execute("PRAGMA synchronous = OFF")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    if found == version and (table,) in tables:
        return False  # no write, and so no wait for another process that writes
    if found:
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns}) WITHOUT ROWID")
    connection.execute(f"PRAGMA user_version = {version}")
    return True
