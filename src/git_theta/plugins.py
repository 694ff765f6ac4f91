"""The tables of built-in plugins, and those that other packages bring through entry points.

A plugin is code that a user installed with pip; nothing in a repository can bring or name code.
"""

import functools
import logging
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

from git_theta.errors import ConfigError, ManifestError
from git_theta.formats.base import Format
from git_theta.names import shown
from git_theta.updates.base import Update

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from git_theta.merges.base import Merge

__all__ = ["FORMATS_GROUP", "MERGES_GROUP", "UPDATES_GROUP", "format", "formats", "merge", "merges", "update"]

FORMATS_GROUP = "git_theta.formats"
UPDATES_GROUP = "git_theta.updates"
MERGES_GROUP = "git_theta.merges"


def formats() -> Iterator[Format]:
    """The formats in the order in which they are tried: the built-in ones, then installed ones by name.

    A generator, because a file of the first one need not pay for the import of the others, nor for a look at what is
    installed (40 ms).
    """
    for module in ("safetensors", "torch_zip", "torch_legacy", "npz", "npy"):
        yield cast(Format, import_module(f"git_theta.formats.{module}").FORMAT)
    for name in _installed(FORMATS_GROUP):
        loaded = _load(FORMATS_GROUP, name)
        if loaded is not None:
            yield cast(Format, loaded)


def format(name: str) -> Format | None:
    """The format of this name; None where none is installed."""
    return next((found for found in formats() if found.name == name), None)


def update(name: str) -> Update:
    """The update of this name; raises ManifestError where none is installed."""
    found = _built_in_update(name) or cast("Update | None", _load(UPDATES_GROUP, name))
    if found is None:
        raise ManifestError(f"update '{name}' is not installed; update git-theta or install the package that brings it")
    return found


def merges() -> "dict[str, Merge]":
    """The merge strategies by name: the built-in ones, then installed ones that can be loaded."""
    found = dict(_built_in_merges())
    for name in _installed(MERGES_GROUP):
        loaded = _load(MERGES_GROUP, name)
        if loaded is not None:
            found.setdefault(name, cast("Merge", loaded))
    return found


def merge(name: str) -> "Merge":
    """The merge strategy of this name; raises ConfigError where none is installed."""
    found = _built_in_merges().get(name) or cast("Merge | None", _load(MERGES_GROUP, name))
    if found is None:
        raise ConfigError(
            f"there is no merge strategy '{shown(name[:40])}'; to see which there are: git theta strategies"
        )
    return found


@functools.cache
def _built_in_merges() -> "Mapping[str, Merge]":
    """Read when it is asked for: the filter, which starts often, merges nothing."""
    from git_theta.merges import averages, copies, diloco, dropping, elements, signs, spherical, task_vectors

    return {
        strategy.name: strategy
        for strategy in (
            averages.AVERAGE,
            copies.OURS,
            copies.THEIRS,
            copies.BASE,
            copies.MAX,
            elements.THREE_WAY,
            task_vectors.TASK_ARITHMETIC,
            signs.TIES,
            dropping.DARE_LINEAR,
            dropping.DARE_TIES,
            dropping.DELLA,
            dropping.BREADCRUMBS,
            task_vectors.MODEL_STOCK,
            signs.SCE,
            spherical.SLERP,
            spherical.NUSLERP,
            elements.NEARSWAP,
            averages.FISHER,
            averages.REGMEAN,
            diloco.DILOCO,
        )
    }


@functools.cache
def _built_in_update(name: str) -> Update | None:
    """Only the one that is asked for is imported: most checkouts need two of them."""
    if name not in _BUILT_IN_UPDATES:
        return None
    word = name.replace("-", "_")
    return cast(Update, getattr(import_module(f"git_theta.updates.{word}"), word.upper()))


_BUILT_IN_UPDATES = frozenset({"dense", "delta", "sparse", "cast", "low-rank", "ia3", "average"})


@functools.cache
def _installed(group: str) -> "dict[str, EntryPoint]":
    """What installed packages name under an entry-point group, sorted by name."""
    from importlib.metadata import entry_points

    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


@functools.cache
def _load(group: str, name: str) -> object | None:
    """The plugin of this name; None where there is none, or where it cannot be loaded, which is logged."""
    point = _installed(group).get(name)
    try:
        return None if point is None else point.load()
    except Exception as error:  # noqa: BLE001  # a plugin may raise anything, and must not keep a file from being stored
        logging.getLogger(__name__).warning(
            "git-theta: plugin '%s' of %s cannot be loaded (%s: %s); going on without it",
            name,
            group,
            type(error).__name__,
            error,
        )
        return None
