"""The depot: where values are kept on this machine, as one thing to hand around."""

from dataclasses import dataclass
from pathlib import Path

from git_theta.catalogue import Catalogue
from git_theta.config import Settings
from git_theta.store import Store

__all__ = ["Depot", "open_depot"]


@dataclass(frozen=True, slots=True)
class Depot:
    """The objects, the catalogue that vouches for them, and the settings."""

    store: Store
    catalogue: Catalogue
    settings: Settings


def open_depot(theta_dir: Path, settings: Settings) -> Depot:
    """The depot below `<git common dir>/theta`."""
    sharing = settings.sharing
    store = Store(theta_dir, max_object_bytes=settings.max_object_bytes, fsync=settings.fsync, sharing=sharing)
    return Depot(store, Catalogue(theta_dir / "catalogue.sqlite", sharing), settings)
