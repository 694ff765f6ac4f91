"""Idle rules: those of a repository's rules file that match no parameter of any checkpoint, being misspelt perhaps.

A rule that matches nothing in what is merged may well be meant for another checkpoint of the repository, so that is
looked at before anything is said.
"""

from collections.abc import Collection, Iterable, Sequence

from git_theta import tracked
from git_theta.git import Repository
from git_theta.manifest import Manifest
from git_theta.names import shown
from git_theta.outcome import Versions
from git_theta.rules import FILE_NAME, SKELETON, Rule, Rules

__all__ = ["warnings"]

_MOST_LOOKED_AT = 200


def warnings(repository: Repository, merged: Iterable[tuple[Versions, Rules]]) -> list[str]:
    """A line for each idle rule among those for the files that are merged."""
    rules: dict[tuple[int, str], Rule] = {}
    names: set[str] = set()
    for versions, found in merged:
        rules |= {(rule.line, rule.pattern): rule for rule in found.rules if rule.line}
        names.update(*map(_names, [*versions.sides, *([versions.base] if versions.base else [])]))
    idle = _without_match(rules.values(), names)
    # What a file has beside its parameters is known to a merge only.
    idle = [rule for rule in idle if not rule.pattern.startswith(SKELETON)]
    if idle and repository.worktree is not None:
        rows = tracked.entries(repository)
        if len(rows) > _MOST_LOOKED_AT:
            return []
        for file in tracked.find(repository, rows):
            if idle and file.manifest is not None:
                idle = _without_match(idle, _names(file.manifest))
    return [
        f"{FILE_NAME}: line {rule.line}: the pattern '{shown(rule.pattern[:80])}' matches no parameter; "
        "to see their names: git theta info --full PATH"
        for rule in idle
    ]


def _names(manifest: Manifest) -> list[str]:
    """The names of the parameters, tied ones as well."""
    views = [view.name for record in manifest.parameters.values() for view in record.views]
    return [*manifest.parameters, *views]


def _without_match(rules: Iterable[Rule], names: Collection[str]) -> Sequence[Rule]:
    return [rule for rule in rules if not any(map(rule.matches, names))]
