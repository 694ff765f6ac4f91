"""Comparing in a repository or outside of one: with its store, its settings, and the statistics it knows already."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from git_theta import comparison, versions
from git_theta.commands import output
from git_theta.commands.diff_output import Show
from git_theta.commands.place import Place
from git_theta.config import Settings
from git_theta.errors import ManifestError
from git_theta.ledger import Ledger
from git_theta.manifest import MAX_MANIFEST_BYTES
from git_theta.measuring import Extras
from git_theta.rows import Rows
from git_theta.versions import Version

__all__ = ["Comparer"]

_NO_LIMIT = 2**63 - 1


class Comparer:
    """Compares one pair of versions after another; if there are patterns, in parameters whose names match one of them.

    Statistics are computed for as many bytes, in all, as the settings say; of any number where `stats`, of none where
    it is False. `extras` are computed as well.
    """

    def __init__(
        self,
        place: Place | None,
        patterns: Sequence[str] = (),
        stats: bool | None = None,
        extras: Extras = Extras(),
    ) -> None:
        self.place = place
        self._patterns = patterns
        self._settings = place.settings() if place else Settings()
        self._store = place.store() if place else None
        self._room = {True: _NO_LIMIT, False: 0, None: self._settings.diff_stats_bytes}[stats]
        self._keeps = stats is not False
        self._extras = extras
        self._rows = Rows()
        self._ledger: Ledger | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Comparer":
        self._stack.enter_context(_uncollected())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of_blob(self, oid: str) -> Version | None:
        """The version whose manifest a blob is; None for an empty one."""
        if self.place is None or self._store is None:
            raise ManifestError("there is no repository to look for it in")
        content = self.place.repository.blobs([oid], MAX_MANIFEST_BYTES).get(oid)
        return None if content == b"" else versions.of_blob(content or b"?", self._store, self._rows.parse)

    def of_file(self, path: Path) -> AbstractContextManager[Version]:
        """The version in a file."""
        return versions.of_file(path, self._store, self._settings.thread_count)

    def compare(
        self,
        before: Version | None,
        after: Version | None,
        paths: Sequence[bytes],
        show: Show,
        *,
        always: bool = False,
    ) -> None:
        """Compare two versions, and show how they differ, if they do or `always`, under the old and the new path."""
        if before and after and self._ledger is None and self.place and self._keeps:
            path = self.place.repository.theta_dir / "statistics.sqlite"
            self._ledger = self._stack.enter_context(closing(Ledger(path, self._settings.sharing)))
        measure = comparison.Measuring(self._room, self._settings.thread_count, self._ledger, _progress, self._extras)
        compared = comparison.of(before, after, measure, self._is_chosen)
        self._room -= compared.measured_bytes
        if always or compared.changes.items or not (compared.is_empty or self._patterns):
            show.one(paths, compared)

    def _is_chosen(self, name: str) -> bool:
        return not self._patterns or any(fnmatchcase(name, pattern) for pattern in self._patterns)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for garbage: nearly all that a comparison makes is needed, and it takes a third more."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _progress(total_bytes: int) -> Iterator[Callable[[int], None]]:
    with output.progress(total_bytes) as begin:
        yield begin("statistics")
