"""Objects on their way here: a thread fetches them, and what they make up is rebuilt while the rest still comes."""

import threading
from collections.abc import Callable, Mapping

from git_theta.store import Store

__all__ = ["Arrivals"]

_INTERVAL_S = 0.01


class Arrivals:
    """A fetch at work; `store` is the one it fills, and its readers wait for the objects that they need."""

    def __init__(self, fetch: Callable[[Callable[[], None]], None], store: Store) -> None:
        """Start `fetch` in a thread, and return when it calls what it is given, or ends; it raises nothing."""
        self.store = store.awaiting(self.wait)
        self._arrived = store
        begun = threading.Event()

        def run() -> None:
            try:
                fetch(begun.set)
            finally:
                begun.set()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        begun.wait()

    @property
    def is_over(self) -> bool:
        """Whether nothing comes any more."""
        return not self._thread.is_alive()

    def wait(self, objects: Mapping[str, int]) -> None:
        """Return as soon as these objects (oid to size in bytes) are here, or nothing comes any more."""
        missing = self._arrived.missing(dict(objects))
        while missing and not self.is_over:
            self._thread.join(_INTERVAL_S)
            missing = self._arrived.missing(missing)

    def finish(self, timeout_s: float | None = None) -> None:
        """Return when nothing comes any more, or after a time."""
        self._thread.join(timeout_s)
