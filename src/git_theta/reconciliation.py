"""Versions of one tracked file reconciled: planned on manifests, missing objects fetched, carried out, written down.

What conflicts is kept as JSON below `<git dir>/theta/merge`, for people and programs to read, with the rules that gave
what lies in the worktree: those of one merge are gone once it has stopped, and settling goes on from them.
"""

import json
import os
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from git_theta import jsontext, manyway, outcome, plugins, rulebook, threeway, tracked
from git_theta.depot import Depot
from git_theta.errors import ConfigError, InputError, MissingObjectError, TransferError
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import MAX_MANIFEST_BYTES
from git_theta.merges.arrays import Backend
from git_theta.merges.base import Sided
from git_theta.names import shown, shown_path
from git_theta.outcome import Outcome, Versions
from git_theta.overrides import Overrides, attribute_files
from git_theta.rules import FILE_NAME, MAX_PATTERN_LENGTH, SKELETON, Rule, Rules
from git_theta.tensor import Tensor
from git_theta.threeway import Action, Case, Decision, Plan
from git_theta.tracked import Kind

if TYPE_CHECKING:
    from git_theta.tensorfile import TensorFile

__all__ = [
    "Merger",
    "check_files",
    "outlook",
    "plan",
    "remedies",
    "report_place",
    "reported",
    "rows",
    "with_base",
    "write_report",
]

MOST_SHOWN = 20
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Merger:
    """What merges checkpoints of a repository."""

    repository: Repository
    depot: Depot
    overrides: Overrides
    backend: Backend | None = None

    def merge(
        self, path: bytes, versions: Versions, rules: Rules, progress: Callable[[int], None] = lambda size_bytes: None
    ) -> Outcome:
        """The merged checkpoint, stored as the settings for its path want it; what it takes is fetched first, at once.

        Raises as `transfer.fetch` and `outcome.apply` do, with nothing changed but the store.
        """
        made = plan(versions, rules)
        depot = replace(self.depot, settings=self.overrides.at(path, attribute_files(path)))
        with _Files(rules) as files:
            files.open(made)
            if missing := depot.store.missing(outcome.needed(made, versions)):
                from git_theta import transfer

                try:
                    transfer.fetch(self.repository, missing, depot.store)
                except (MissingObjectError, TransferError) as error:
                    readers = outcome.readers(made, versions, depot.store.missing(missing))
                    raise type(error)(f"{readers}: {error}") from error
            return outcome.apply(
                made, versions, rules, depot, backend=self.backend, files=files.read, progress=progress
            )


def plan(versions: Versions, rules: Rules) -> Plan:
    """What would become of each parameter, of two sides or of several; nothing is loaded."""
    if versions.others:
        return manyway.plan(versions.base, versions.sides, rules)
    return threeway.plan(versions.base, versions.ours, versions.theirs, rules)


def check_files(made: Plan, rules: Rules) -> None:
    """Raise InputError unless the further files that a merge reads are there, one for each side where it must be."""
    with _Files(rules) as files:
        files.open(made)


def outlook(made: Plan, versions: Versions, rules: Rules, depot: Depot) -> tuple[Decision, ...]:
    """As `outcome.outlook`, with the further files that the plan's strategies read."""
    with _Files(rules) as files:
        files.open(made)
        return outcome.outlook(made, versions, rules, depot, files.has)


def with_base(rules: Rules, conflicts: Sequence[Decision]) -> Rules:
    """The rules, with the base's value for what is a conflict by them."""
    patterns = [_pattern(one.name) for one in conflicts]
    settled = [Rule(pattern, "base") for pattern in patterns if len(pattern) <= MAX_PATTERN_LENGTH]
    return Rules((*settled, *rules.rules))


class _Files:
    """Further files of tensors, which rules name, each opened once."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._open = ExitStack()
        self._files: dict[str, TensorFile] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def open(self, made: Plan) -> None:
        """Open what the plan's strategies read; raises InputError for what cannot be, or is too little or too much."""
        for one in made.merged:
            merge = plugins.merge(one.strategy)
            sides = len(one.sides or (0, 1))
            for name in merge.sided if isinstance(merge, Sided) else ():
                if len(one.files.get(name, ())) != sides:
                    count = len(one.files.get(name, ()))
                    raise InputError(
                        f"{self._where(one.files.get(name, ()))}strategy '{one.strategy}' has {count} '{name}' files "
                        f"for {sides} sides; name one for each"
                    )
            for path in {path for paths in one.files.values() for path in paths} - self._files.keys():
                self._opened(path)

    def _opened(self, path: str) -> "TensorFile":
        from git_theta import tensorfile  # few strategies read further files

        if path not in self._files:
            try:
                self._files[path] = self._open.enter_context(tensorfile.opened(Path(path)))
            except (InputError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise InputError(
                    f"{self._where([path])}{shown_path(path)}: {reason}; name the file that the strategy reads"
                ) from error
        return self._files[path]

    def _where(self, paths: Sequence[str]) -> str:
        """Where the rules file names one of these files, to begin a message with; "" where the user does."""
        for rule in self._rules.rules:
            if any(path in named for named in rule.files.values() for path in paths):
                return f"{FILE_NAME}: line {rule.line}: " if rule.line else ""
        return ""

    def has(self, path: str, name: str) -> bool:
        """Whether a file has a tensor of a name."""
        with self._lock:
            return name in self._opened(path).names

    def read(self, path: str, name: str) -> Tensor | None:
        """The tensor of a name in a file; None where it has none. Raises InputError where it cannot be read."""
        with self._lock:
            file = self._opened(path)
            return file.read(name) if name in file.names else None


def remedies(path: bytes, made: Outcome, folder: str = "") -> list[str]:
    """A line for each conflict, twenty at most, with the command that settles it for one who stands in `folder`."""
    where = shown_path(path)
    quoted = shlex.quote(shown_path(os.path.relpath(path, os.fsencode(folder or "."))))
    lines = [
        f"{where}: conflict: {_what(one)}: {one.reason}; ours is kept; to settle it: "
        f"git theta resolve {quoted} --param {shlex.quote(_pattern(one.name))} --strategy ours (or theirs, base, ...)"
        for one in made.conflicts[:MOST_SHOWN]
    ]
    left = len(made.conflicts) - len(lines)
    return lines + ([f"{where}: {left:,} more; to see them: git theta resolve {quoted} --list"] if left else [])


def _pattern(name: str) -> str:
    """A pattern that matches a name, of characters that can be typed."""
    return "".join(char if " " <= char <= "~" else "?" for char in escape(name))


def _what(one: Decision) -> str:
    if one.case is Case.SKELETON:
        return "what is no parameter" if one.name == SKELETON else f"'{shown(one.name)}'"
    return f"parameter '{shown(one.name)}'"


def report_place(repository: Repository, path: bytes) -> Path:
    """Where the decisions about a file are written down; its path is in them, not in the name."""
    from blake3 import blake3

    return repository.git_dir / "theta" / "merge" / f"{blake3(path).hexdigest()[:32]}.json"


def write_report(repository: Repository, path: bytes, versions: Versions, rules: Rules, made: Outcome) -> None:
    """Write down what was decided about a file by which rules, in place of what was before.

    What was written about a conflict that stands in the index stays, where this one is another: Git starts the driver
    for a look at other merges as well (git-log(1), --remerge-diff). Where none stands there, what was written is of a
    merge that is over: it goes, even if there is nothing to say of this one.
    """
    place = report_place(repository, path)
    stages = repository.stages(path)
    if stages and not _are_of(repository, stages, versions):
        return
    if not stages and not made.conflicts:
        place.unlink(missing_ok=True)
        return
    document = {
        "version": _VERSION,
        "path": os.fsdecode(path).encode("utf-8", "backslashreplace").decode(),
        **_digests(versions),
        "rules": json.loads(rulebook.format_environment(rules.rules)),
        "result": made.manifest.digest,
        "decisions": rows(made.decisions),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="ascii")
    temporary.replace(place)


def reported(repository: Repository, path: bytes, versions: Versions) -> Rules | None:
    """The rules that the last merge of these versions went by, choices included; None where none is written down."""
    document = _read_report(report_place(repository, path))
    if _is_of(document, versions):
        with suppress(ConfigError):
            return Rules(rulebook.parse_environment(json.dumps(document.get("rules"))))
    return None


def _are_of(repository: Repository, stages: Mapping[int, IndexEntry], versions: Versions) -> bool:
    """Whether the stages of a conflict are these versions, as far as they are manifests."""
    blobs = repository.blobs([entry.oid for entry in stages.values()], MAX_MANIFEST_BYTES)
    for stage, version in enumerate((versions.base, versions.ours, versions.theirs), 1):
        content = blobs.get(stages[stage].oid) if stage in stages else b""
        if content is not None:
            kind, found, _ = tracked.read(content)
            if kind is not Kind.PLAIN and (found and found.digest) != (version and version.digest):
                return False
    return True


def _read_report(place: Path) -> Mapping[str, object]:
    """What is written down there; nothing where that cannot be read."""
    with suppress(OSError, ValueError):
        document = jsontext.parse(place.read_bytes())
        return document if isinstance(document, dict) else {}
    return {}


def _is_of(document: Mapping[str, object], versions: Versions) -> bool:
    return all(name in document and document[name] == digest for name, digest in _digests(versions).items())


def _digests(versions: Versions) -> Mapping[str, str | None]:
    base = None if versions.base is None else versions.base.digest
    return {"base": base, "ours": versions.ours.digest, "theirs": versions.theirs.digest}


def rows(decisions: Sequence[Decision]) -> list[Mapping[str, object]]:
    """Decisions as they stand in JSON, without those about what nobody changed."""
    return [_row(one) for one in decisions if one.case is not Case.UNCHANGED]


def _row(one: Decision) -> Mapping[str, object]:
    row: dict[str, object] = {"parameter": one.name, "action": one.action.value, "case": one.case.value}
    if one.action is Action.MERGE:
        row |= {"strategy": one.strategy, "options": dict(one.options)}
    if one.reason:
        row["reason"] = one.reason
    return row
