"""A progress line on a terminal, for work that takes longer than a moment."""

import sys
import threading
import time

__all__ = ["Meter"]

_DELAY_S = 0.5
_INTERVAL_S = 0.1
_MB = 10**6


class Meter:
    """Shows "label: 41% (300/735 MB)" on stderr while its `with` block runs, if that is a terminal; then wipes it."""

    def __init__(self, label: str, total_bytes: int) -> None:
        self._label = label
        self._total = total_bytes
        self._done = 0
        self._lock = threading.Lock()
        self._shown = False
        self._next = time.monotonic() + _DELAY_S if sys.stderr.isatty() else float("inf")

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def add(self, size_bytes: int, *, quiet: bool = False) -> None:
        """Note that so many more bytes are done, without a word if `quiet`; from any thread."""
        with self._lock:
            self._done += size_bytes
            now = time.monotonic()
            if quiet or now < self._next:
                return
            self._next, self._shown = now + _INTERVAL_S, True
            share = 100 * self._done // max(1, self._total)
            line = f"\r{self._label}: {share}% ({self._done // _MB}/{self._total // _MB} MB)\x1b[K"
        sys.stderr.write(line)
        sys.stderr.flush()
