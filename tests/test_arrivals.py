"""Objects that are used while others still come."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from git_theta.arrivals import Arrivals
from git_theta.errors import MissingObjectError
from git_theta.manifest import Piece
from git_theta.store import Store


def put(store: Store, data: bytes) -> Piece:
    with store.writer() as writer:
        writer.write(data)
        [piece] = writer.finish()
    return piece


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, max_object_bytes=2**20, fsync=False)


def test_a_reader_waits_for_its_object_and_no_other(store: Store, tmp_path: Path) -> None:
    elsewhere = Store(tmp_path / "elsewhere", max_object_bytes=2**20, fsync=False)
    one, other = put(elsewhere, b"one"), put(elsewhere, b"other")
    go = threading.Event()

    def fetch(begun: Callable[[], None]) -> None:
        begun()
        go.wait()
        put(store, b"one")
        never.wait()

    never = threading.Event()
    arrivals = Arrivals(fetch, store)
    threading.Timer(0.05, go.set).start()
    with arrivals.store.reader([one]) as reader:
        assert reader.read(0, 10) == b"one"
    assert not arrivals.is_over
    threading.Timer(0.05, never.set).start()
    with arrivals.store.reader([other]) as reader, pytest.raises(MissingObjectError, match=other.oid):
        reader.read(0, 10)
    assert arrivals.is_over


def test_nothing_is_waited_for_that_is_here(store: Store) -> None:
    piece = put(store, b"one")
    end = threading.Event()

    def fetch(begun: Callable[[], None]) -> None:
        begun()
        end.wait()

    arrivals = Arrivals(fetch, store)
    with arrivals.store.reader([piece]) as reader:
        assert reader.read(0, 10) == b"one"
    arrivals.finish(0.01)
    assert not arrivals.is_over
    end.set()
    arrivals.finish()
    assert arrivals.is_over


def test_a_fetch_that_never_begins_ends(store: Store) -> None:
    arrivals = Arrivals(lambda begun: None, store)
    arrivals.finish()
    assert arrivals.is_over
