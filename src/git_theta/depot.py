"""The depot: where values are kept on this machine, as one thing to hand around."""

import os
from dataclasses import dataclass
from pathlib import Path

from git_theta import libc
from git_theta.catalogue import Catalogue
from git_theta.config import Settings
from git_theta.store import Store, open_store

__all__ = ["Depot", "open_depot"]


@dataclass(frozen=True, slots=True)
class Depot:
    """The objects, the catalogue that vouches for them, and the settings."""

    store: Store
    catalogue: Catalogue
    settings: Settings


def open_depot(theta_dir: Path, settings: Settings) -> Depot:
    """The depot below `<git common dir>/theta`, this process being made ready to code and decode."""
    libc.keep_freed()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy would start a thread per core, to no use here
    return Depot(open_store(theta_dir, settings), Catalogue(theta_dir / "catalogue.sqlite", settings.sharing), settings)
