"""Statistics that are kept: found again by the two values, bounded, and made anew when they are damaged."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from git_theta import ledger, measuring
from git_theta.errors import MissingObjectError
from git_theta.ledger import Ledger
from git_theta.manifest import Record
from git_theta.statistics import Statistics
from tests.manifests import record

FOUND = Statistics(9, 3, 3, 1, 1.5, float("inf"), 0.1 + 0.2, None, (0, 3), (1, 0))
PAIR = record(1), record(2)


def test_what_is_noted_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "theta" / "statistics.sqlite"
    with closing(Ledger(path)) as one:
        assert one.find([PAIR]) == {}
        one.note({PAIR: FOUND})
    with closing(Ledger(path)) as other:
        assert other.find([PAIR]) == {PAIR: FOUND}
        stored_otherwise = replace(PAIR[0], store=()), PAIR[1]
        assert other.find([stored_otherwise]) == {stored_otherwise: FOUND}
        for pair in ((PAIR[1], PAIR[0]), (PAIR[0], record(3)), (PAIR[0], record(2, shape=(3, 2)))):
            assert other.find([pair]) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"elements": "9"}', None], ids=str)
def test_a_damaged_row_is_not_there(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "statistics.sqlite"
    with closing(Ledger(path)) as one:
        one.note({PAIR: FOUND})
    with closing(sqlite3.connect(path)) as connection, connection:
        if text is None:
            connection.execute("""UPDATE statistics SET found = replace(found, '"rows": 3', '"rows": 3.5')""")
        else:
            connection.execute("UPDATE statistics SET found = ?", (text,))
    with closing(Ledger(path)) as one:
        assert one.find([PAIR]) == {}


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "statistics.sqlite"
    path.write_bytes(b"no database " * 100)
    with closing(Ledger(path)) as one:
        one.note({PAIR: FOUND})
        assert one.find([PAIR]) == {PAIR: FOUND}


def test_the_oldest_are_dropped_where_there_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_ROWS", 10)
    pairs = [(record(number), record(number + 1)) for number in range(12)]
    with closing(Ledger(tmp_path / "statistics.sqlite")) as one:
        for second, pair in enumerate(pairs):
            monkeypatch.setattr("time.time", lambda second=second: second)
            one.note({pair: FOUND})
        kept = list(one.find(pairs))
        assert kept == pairs[-len(kept) :]
        assert 5 <= len(kept) <= 10


class Given:
    """Values by their digest, which counts what is read."""

    def __init__(self, **values: bytes) -> None:
        self.values = {record(name[1:]).digest: data for name, data in values.items()}
        self.reads = 0

    def runs(self, record: Record) -> Iterator[bytes | memoryview]:
        self.reads += 1
        if record.digest not in self.values:
            raise MissingObjectError("object ab is not on this machine")
        yield self.values[record.digest]


def test_each_value_is_measured_once_and_then_known(tmp_path: Path) -> None:
    given = Given(v1=bytes(24), v2=b"\1" + bytes(23))
    one, two = record("1"), record("2")
    pairs = [(one, two), (one, two), (two, one), (one, record("2", shape=(3, 2)))]
    done: list[int] = []
    with closing(Ledger(tmp_path / "statistics.sqlite")) as kept:
        found, left = measuring.known(pairs, kept)
        assert (found, left) == ({}, [(one, two), (two, one)]), "what cannot be compared is not measured"
        made = measuring.measured(left, given, given, 2, kept, done.append)
        assert [item.changed for item in made.values() if isinstance(item, Statistics)] == [1, 1]
        assert (given.reads, sum(done)) == (4, 48)
        assert measuring.known(pairs, kept) == (made, [])


def test_what_is_missing_is_said_of_each_and_not_kept(tmp_path: Path) -> None:
    given = Given(v1=bytes(24), v2=b"\1" + bytes(23))
    whole, broken = (record("1"), record("2")), (record("1"), record("3"))
    with closing(Ledger(tmp_path / "statistics.sqlite")) as kept:
        made = measuring.measured([broken, whole], given, given, 1, kept)
        assert isinstance(made[broken], MissingObjectError)
        assert isinstance(made[whole], Statistics)
        assert list(kept.find([broken, whole])) == [whole]
