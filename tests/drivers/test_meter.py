"""The progress line: there for who waits at a terminal, gone afterwards, never in a log."""

import io
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from git_theta.drivers import meter
from git_theta.drivers.meter import Meter

WIPED = "\r\x1b[K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error as a terminal, and every step shown at once."""
    made = Terminal()
    monkeypatch.setattr(meter, "sys", SimpleNamespace(stderr=made))
    monkeypatch.setattr(meter, "_DELAY_S", 0)
    monkeypatch.setattr(meter, "_INTERVAL_S", 0)
    return made


def test_share_is_shown_and_the_line_wiped(terminal: Terminal) -> None:
    with Meter("model.pt", 4 * 10**6) as made:
        made.add(10**6)
        made.add(3 * 10**6)
    assert terminal.getvalue() == f"\rmodel.pt: 25% (1/4 MB)\x1b[K\rmodel.pt: 100% (4/4 MB)\x1b[K{WIPED}"


def test_line_is_wiped_after_an_error(terminal: Terminal) -> None:
    def fail() -> None:
        with Meter("model.pt", 10) as made:
            made.add(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert terminal.getvalue().endswith(WIPED)


def test_an_empty_file_has_a_share_too(terminal: Terminal) -> None:
    with Meter("empty", 0) as made:
        made.add(0)
    assert "empty: 0% (0/0 MB)" in terminal.getvalue()


def test_nothing_is_shown_of_work_that_is_soon_done(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "_DELAY_S", 3600)
    with Meter("model.pt", 10) as made:
        made.add(10)
    assert terminal.getvalue() == ""


def test_steps_that_follow_each_other_closely_are_shown_once(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "_INTERVAL_S", 3600)
    with Meter("model.pt", 100) as made:
        for _ in range(100):
            made.add(1)
    assert terminal.getvalue().count("model.pt: ") == 1


def test_nothing_is_shown_without_a_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    with Meter("model.pt", 10) as made:
        made.add(10)
    assert terminal.getvalue() == ""


def test_threads_lose_no_bytes(terminal: Terminal) -> None:
    with Meter("model.pt", 8000 * 10**6) as made, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: made.add(10**6), range(8000)))
    assert "model.pt: 100% (8000/8000 MB)" in terminal.getvalue()
