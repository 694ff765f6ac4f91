"""The depot: where values are kept on this machine, as one thing to hand around."""

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta import libc
from git_theta.catalogue import Catalogue
from git_theta.config import Settings
from git_theta.source import FileSource
from git_theta.store import Store, check_room, open_store, reporting_full_disk

__all__ = ["Depot", "make_ready", "open_depot", "spooled"]


@dataclass(frozen=True, slots=True)
class Depot:
    """The objects, the catalogue that vouches for them, and the settings."""

    store: Store
    catalogue: Catalogue
    settings: Settings


def open_depot(theta_dir: Path, settings: Settings) -> Depot:
    """The depot below `<git common dir>/theta`, this process being made ready to code and decode."""
    make_ready()
    return Depot(open_store(theta_dir, settings), Catalogue(theta_dir / "catalogue.sqlite", settings.sharing), settings)


def make_ready() -> None:
    """Have this process made ready to code, decode and compute."""
    libc.keep_freed()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy would start a thread per core, to no use here


@contextmanager
def spooled(
    depot: Depot, head: Iterable[bytes | memoryview], packets: Iterable[bytes | memoryview], size: int = 0
) -> Iterator[FileSource]:
    """A temporary file that holds all of `head` and `packets`, gone afterwards.

    Raises SpaceError at once where the disk has not the `size` in bytes that they are said to have.
    """
    fd, path = depot.store.temporary()
    try:
        if size:
            check_room(path.parent, size)
        with reporting_full_disk(path.parent):
            for run in itertools.chain(head, packets):
                view = memoryview(run)
                while view:
                    view = view[os.write(fd, view) :]
        yield FileSource(fd, str(path))
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
