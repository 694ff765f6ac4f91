"""What the commands that merge have in common: options read, rules found, a merger opened."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from git_theta.commands.place import Place
from git_theta.config import SECTIONS
from git_theta.names import shown_path

if TYPE_CHECKING:
    from git_theta.reconciliation import Merger
    from git_theta.rules import Rule, Rules

__all__ = ["assignments", "merger", "reindex", "rule", "rules"]


def assignments(given: Sequence[str]) -> dict[str, object]:
    """The options of a strategy as the user wrote them: name=value."""
    found: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"'{text}' is no OPTION=VALUE.")
        found[name] = value
    return found


def rule(
    pattern: str, strategy: str, options: Mapping[str, object], *, added: bool = False, grown: bool = False
) -> "Rule":
    """A rule; raises ConfigError where the strategy or an option of it is not there."""
    from git_theta.rules import Rule

    return Rule(pattern, strategy, options, added, grown)


def rules(place: Place, paths: Sequence[bytes]) -> Mapping[bytes, "Rules"]:
    """The rules that hold for the merge of these files."""
    from git_theta import rulebook

    return rulebook.read(place.repository, paths, place.repository.config(*SECTIONS), os.environ)


def reindex(place: Place, paths: Sequence[bytes], done: str) -> bool:
    """Make the indexes of sharded checkpoints anew, and say so; whether there is none that cannot be, which is said."""
    from git_theta import reindexing

    found = reindexing.reindex(place.repository, paths)
    for path in found.made:
        print(f"{shown_path(path)}: {done}")
    for line in found.refused:
        sys.stderr.write(f"git-theta: {line}\n")
    return not found.refused


@contextmanager
def merger(place: Place) -> Iterator["Merger"]:
    """What merges checkpoints here."""
    from git_theta.config import read_settings
    from git_theta.depot import open_depot
    from git_theta.merges.arrays import torch_backend
    from git_theta.overrides import Overrides
    from git_theta.reconciliation import Merger

    config = place.repository.config(*SECTIONS)
    settings = read_settings(config, os.environ)
    overrides = Overrides(place.repository, settings, config, os.environ)
    depot = open_depot(place.repository.theta_dir, settings)
    with closing(depot.catalogue):
        backend = torch_backend(settings.merge_device) if settings.merge_device else None
        yield Merger(place.repository, depot, overrides, backend)
