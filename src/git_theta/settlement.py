"""Settling a conflict: what a merge left undecided about a file is merged again, by choices that the user made.

The three versions stand in the index as long as the path is in conflict (git-read-tree(1), "3-way merge"), so a file's
merge can be done again at any time. A choice is one more rule; those that gave what lies in the worktree are written
down (`reconciliation`), and a merge that begins anew writes down its own.
"""

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from git_theta import manifest, rebuild, reconciliation, rulebook, staging, tracked, worktree
from git_theta.depot import Depot
from git_theta.errors import ChangedError, ConfigError, DataError, InputError, ThetaError
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest, Record
from git_theta.names import shown, shown_path
from git_theta.outcome import Outcome, Versions
from git_theta.reconciliation import Merger
from git_theta.rules import COPIES, SKELETON, Rule, Rules
from git_theta.source import FileSource
from git_theta.staging import Change
from git_theta.statistics import Statistics, are_comparable, measure
from git_theta.threeway import Decision
from git_theta.versions import StoredValues
from git_theta.worktree import Presence

__all__ = ["Conflict", "choose", "facts", "find", "put", "resume", "settle", "stage"]

_HEAD_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path in conflict: its versions, and the rules by which they are merged, the user's choices first.

    `anew` are the rules that a merge which begins anew goes by.
    """

    path: bytes
    mode: str
    versions: Versions
    rules: Rules
    anew: Rules

    @property
    def has_own_rules(self) -> bool:
        """Whether the rules are others than those of a merge that begins anew: choices, or those of its command."""
        return rulebook.format_environment(self.rules.rules) != rulebook.format_environment(self.anew.rules)


def find(repository: Repository, path: bytes, rules: Rules) -> Conflict:
    """The conflict at a path, with the rules that its merge went by, or these where nobody knows.

    Raises InputError where there is none, or none that can be settled by parameters.
    """
    stages = repository.stages(path)
    if not stages:
        raise InputError("it is not in conflict; to see what is: git status")
    if not {2, 3} <= stages.keys():
        where = shlex.quote(shown_path(path))
        gone = " and ".join(side for stage, side in ((2, "ours"), (3, "theirs")) if stage not in stages)
        raise InputError(f"{gone} deleted it; to keep it: git add {where}; to delete it, too: git rm {where}")
    blobs = repository.blobs([entry.oid for entry in stages.values()], MAX_MANIFEST_BYTES)
    found = {stage: tracked.manifest_in(blobs.get(entry.oid)) for stage, entry in stages.items()}
    ours, theirs = found[2], found[3]
    if ours is None or theirs is None:
        where = shlex.quote(shown_path(path))
        raise InputError(f"one side is no manifest; take one: git checkout --ours (or --theirs) -- {where}")
    versions = Versions(found.get(1), ours, theirs)
    torn = _is_torn(worktree.locate(repository, path))
    reported = None if torn else reconciliation.reported(repository, path, versions)
    return Conflict(path, stages[2].mode, versions, reported or rules, rules)


def resume(
    merger: Merger, conflict: Conflict, progress: Callable[[int], None] = lambda size_bytes: None
) -> tuple[Conflict, Outcome]:
    """The conflict with the rules that gave what lies in the worktree, and what comes of them.

    A report outlives its merge (`git merge --abort`), and the same versions may have been merged again by other rules.
    """
    made = merger.merge(conflict.path, conflict.versions, conflict.rules, progress)
    if not conflict.has_own_rules:
        return conflict, made
    place = worktree.locate(merger.repository, conflict.path)
    if worktree.look(place) is Presence.MISSING or _found(merger, place, [made.manifest]):
        return conflict, made
    with suppress(ThetaError):  # what another merge would need is no reason to stop this one
        other = merger.merge(conflict.path, conflict.versions, conflict.anew, progress)
        # Where the merge failed altogether, it left ours.
        if _found(merger, place, [other.manifest, conflict.versions.ours]):
            return replace(conflict, rules=conflict.anew), other
    return conflict, made


def choose(conflict: Conflict, rule: Rule, undecided: Iterable[str]) -> Conflict:
    """The conflict with one more choice, which comes before those that were made earlier.

    Raises ConfigError where it matches no parameter, and nothing of what is `undecided`.
    """
    if rule.pattern == SKELETON and rule.strategy not in COPIES:
        raise ConfigError(f"what is no parameter can be taken from {', '.join(COPIES)} only, not by '{rule.strategy}'")
    sides = [conflict.versions.base, conflict.versions.ours, conflict.versions.theirs]
    names = {name for side in sides if side is not None for name in side.parameters}
    Rules((rule,)).check_used([*names, SKELETON, *undecided])
    return replace(conflict, rules=Rules((rule, *conflict.rules.rules)))


def settle(
    merger: Merger,
    conflict: Conflict,
    before: Manifest,
    progress: Callable[[int], None] = lambda size_bytes: None,
) -> Outcome:
    """Merge by the choices, and put the result into the worktree, where `before` is what the merge left there.

    Raises ChangedError where something else lies there, with nothing written, and no choice kept.
    """
    made = merger.merge(conflict.path, conflict.versions, conflict.rules, progress)
    put(merger, conflict, made, before)
    return made


def put(merger: Merger, conflict: Conflict, made: Outcome, before: Manifest) -> None:
    """Put a result into the worktree; as `settle`, which see."""
    place = worktree.locate(merger.repository, conflict.path)
    seen = worktree.stamp(place)
    torn = _is_torn(place)
    # Where the merge failed altogether, it left ours.
    known = [made.manifest, before, conflict.versions.ours]
    if torn or _left(merger, conflict, place, known) != made.manifest:
        as_manifest = merger.depot.settings.skip_smudge if torn else worktree.look(place) is Presence.MANIFEST
        if as_manifest:
            text, folder = manifest.format(made.manifest), merger.depot.store.root / "tmp"
            worktree.write(place, text, executable=conflict.mode == "100755", folder=folder)
        else:
            worktree.put(made.manifest, place, merger.depot, seen=seen, executable=conflict.mode == "100755")
    reconciliation.write_report(merger.repository, conflict.path, conflict.versions, conflict.rules, made)


def _left(merger: Merger, conflict: Conflict, place: Path, known: Sequence[Manifest]) -> Manifest | None:
    """Which of the known versions the file is; None where it is gone. Raises ChangedError for any other."""
    if worktree.look(place) is Presence.MISSING:
        return None
    found = _found(merger, place, known)
    if found is None:
        path = shlex.quote(shown_path(conflict.path))
        raise ChangedError(
            f"it is not what the merge left there; to keep it as it is: git add {path}; "
            f"to begin anew: git checkout -m -- {path}"
        )
    return found


def _is_torn(place: Path) -> bool:
    """Whether manifests lie there that Git merged as text, past the driver: nothing that a user made.

    gitattributes(5): only some of Git's merge strategies heed a driver; octopus and resolve do not.
    """
    with suppress(FileNotFoundError), place.open("rb") as file:
        content = file.read(_HEAD_BYTES)
        if b"\0" in content or place.stat().st_size > 2 * MAX_MANIFEST_BYTES:
            return False
        content += file.read()
        means = tracked.means_manifest(content) and manifest.has_conflict_markers(content)
        return means and tracked.manifest_in(content) is None
    return False


def _found(merger: Merger, place: Path, known: Sequence[Manifest]) -> Manifest | None:
    """Which of the known versions the file that lies there is; None for any other."""
    if worktree.look(place) is Presence.MANIFEST:
        text = tracked.manifest_in(place.read_bytes())
        return next((one for one in known if one == text), None)
    fd = os.open(place, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        source = FileSource(fd, shown(place.name))
        return next((one for one in known if rebuild.holds(source, one, merger.depot)), None)
    finally:
        os.close(fd)


def stage(merger: Merger, conflict: Conflict, made: Outcome) -> None:
    """Stage a result that has no conflicts, which lies in the worktree, and forget the choices."""
    place = worktree.locate(merger.repository, conflict.path)
    _left(merger, conflict, place, [made.manifest])
    status = place.lstat() if place.exists() else None
    entry = IndexEntry(conflict.path, conflict.mode, "")
    staging.stage(merger.repository, [Change(entry, manifest.format(made.manifest), status)])
    reconciliation.report_place(merger.repository, conflict.path).unlink(missing_ok=True)


def facts(conflict: Conflict, one: Decision, depot: Depot) -> Iterator[tuple[str, Record, Statistics | None]]:
    """What each version has of a parameter, and what a side changed of the base's elements, where that can be told."""
    versions = conflict.versions
    rows = (
        ("base", versions.base, one.base),
        ("ours", versions.ours, one.ours),
        ("theirs", versions.theirs, one.theirs),
    )
    found = {side: version.parameters[name] for side, version, name in rows if version is not None and name is not None}
    base = found.get("base")
    for side, record in found.items():
        yield side, record, None if base is None or side == "base" else _change(base, record, depot)


def _change(base: Record, side: Record, depot: Depot) -> Statistics | None:
    """How far two values are apart; None for those of other shapes, and where one of them is not on this machine."""
    if base.shape != side.shape or not are_comparable(base, side):
        return None
    values = StoredValues(depot.store)
    with suppress(DataError):
        return measure(base, side, values, values)
    return None
