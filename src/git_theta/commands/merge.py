"""`git theta merge`: a merge with a strategy of its own, a look at what a merge would do, or of several branches."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from git_theta import git
from git_theta.commands import merging, output
from git_theta.commands.place import Place, open_place
from git_theta.errors import ConflictError, DataError
from git_theta.names import shown, shown_path

if TYPE_CHECKING:
    from git_theta.joining import Branches, Clash, File
    from git_theta.outcome import Versions
    from git_theta.rules import Rule, Rules
    from git_theta.threeway import Decision, Plan

__all__ = ["command"]

_MOST_LISTED = 20


@click.command(short_help="Merge branches, with a strategy for this one merge.")
@click.option("--strategy", "-s", metavar="NAME", help="How floats that both sides changed are merged; see strategies.")
@click.option("--set", "assignments", multiple=True, metavar="OPTION=VALUE", help="An option of the strategy.")
@click.option("--file", "files", multiple=True, metavar="NAME=PATH[,PATH]", help="The files that the strategy reads.")
@click.option("--param", "-p", "patterns", multiple=True, metavar="GLOB", help="The strategy is for these parameters.")
@click.option("--plan", "-n", "only_plan", is_flag=True, help="Say what would happen, and touch nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --plan: print JSON.")
@click.option("--message", "-m", "paragraphs", multiple=True, metavar="TEXT", help="The merge commit's message.")
@click.argument("branch", nargs=-1, required=True)
def command(
    strategy: str | None,
    assignments: tuple[str, ...],
    files: tuple[str, ...],
    patterns: tuple[str, ...],
    only_plan: bool,
    as_json: bool,
    paragraphs: tuple[str, ...],
    branch: tuple[str, ...],
) -> int:
    """Merge BRANCH as `git merge` does, with a --strategy for this merge only; or several at once, each with its say.

    The merge commit's message says by which strategies, with which options, the models were merged. Without --strategy
    the rules of the repository hold: see "Merging" in the documentation.
    """
    if strategy is None and (assignments or files or patterns):
        raise click.UsageError("--set, --file and --param need a --strategy.")
    place = open_place()
    place.repository.top()
    chosen = _rules(place, strategy, assignments, files, patterns)
    from git_theta import joining

    message = "\n\n".join(paragraphs)
    joined = joining.branches(place.repository, branch)
    if not joined.named:
        print("Already up to date.")
        return 0
    branch = tuple(joined.named)
    found, clashes = joining.files(place.repository, joined)
    plans = _plans(place, found, chosen, merging.rules(place, [file.path for file in found]) if found else {})
    if only_plan or len(joined.others) > 1:  # otherwise Git starts our driver, which says it
        _warn(place, plans)
    if only_plan:
        return _print_plan(_looked_at(place, plans), clashes, as_json=as_json)
    if len(joined.others) > 1:
        if clashes:
            first = clashes[0]
            raise ConflictError(f"{shown_path(first.path)}: {first.reason}; merge one branch after the other")
        return _merge_all(place, joined, branch, plans, message)
    return _merge(place, branch[0], chosen, plans, message)


def _rules(
    place: Place, strategy: str | None, assignments: Sequence[str], files: Sequence[str], patterns: Sequence[str]
) -> tuple["Rule", ...]:
    """The rules of this one merge."""
    from git_theta.rules import Rule

    if strategy is None:
        return ()
    options = merging.assignments(assignments)
    paths = {
        name: tuple(str(place.cwd / path) for path in str(value).split(","))
        for name, value in merging.assignments(files).items()
    }
    return tuple(Rule(pattern, strategy, options, files=paths) for pattern in patterns or ("*",))


@dataclass(frozen=True, slots=True)
class _Planned:
    """A file, the rules that hold for it, and what they make of it."""

    file: "File"
    rules: "Rules"
    plan: "Plan"


def _plans(
    place: Place, found: Sequence["File"], chosen: Sequence["Rule"], rules: Mapping[bytes, "Rules"]
) -> list[_Planned]:
    """What would become of each file.

    Raises ConfigError for a rule of this merge that matches nothing anywhere, or has weights for other than its sides,
    and InputError where a further file is not there.
    """
    from git_theta import reconciliation
    from git_theta.merges.base import Options
    from git_theta.rules import Rules

    made = []
    for file in found:
        ordered = Rules((*chosen, *rules[file.path].rules))
        made.append(_Planned(file, ordered, reconciliation.plan(file.versions, ordered)))
        reconciliation.check_files(made[-1].plan, ordered)
        for one in made[-1].plan.merged:
            if "weights" in one.options:
                Options(one.options).weights(len(one.sides or (0, 1)))
    if found:
        _check_used(place, found, Rules(tuple(chosen)))
    return made


def _check_used(place: Place, found: Sequence["File"], chosen: "Rules") -> None:
    """Raise ConfigError for a rule of this merge that matches nothing, as far as what is here tells."""
    from git_theta import placement
    from git_theta.rules import SKELETON

    names = {SKELETON}.union(*(side.parameters for file in found for side in file.versions.sides))
    if not any(rule.pattern.startswith(f"{SKELETON}/") for rule in chosen.rules):
        chosen.check_used(names)
        return
    with merging.merger(place) as merger, suppress(DataError):  # the merge itself fetches layouts
        for file in found:
            names |= placement.read(file.versions.base, file.versions.sides, merger.depot).scalars()
        chosen.check_used(names)


def _warn(place: Place, plans: Sequence[_Planned]) -> None:
    """Name the rules of the repository that match nothing."""
    from git_theta import idle

    for line in idle.warnings(place.repository, [(one.file.versions, one.rules) for one in plans]):
        sys.stderr.write(f"git-theta: warning: {line}\n")


def _looked_at(place: Place, plans: Sequence[_Planned]) -> list[_Planned]:
    """The plans with the conflicts that more than the manifests tells, where their objects are here."""
    from git_theta import reconciliation

    made = []
    with merging.merger(place) as merger:
        for one in plans:
            decisions = one.plan.decisions
            with suppress(DataError):  # without them, what the manifests tell is what can be told
                decisions = reconciliation.outlook(one.plan, one.file.versions, one.rules, merger.depot)
            made.append(replace(one, plan=replace(one.plan, decisions=decisions)))
    return made


def _print_plan(plans: Sequence[_Planned], clashes: Sequence["Clash"], *, as_json: bool) -> int:
    """Say what would happen; the exit code says whether there would be conflicts."""
    from git_theta import reconciliation

    if as_json:
        rows = [
            {"path": shown_path(one.file.path), "decisions": reconciliation.rows(one.plan.decisions)} for one in plans
        ]
        left = [{"path": shown_path(one.path), "reason": one.reason} for one in clashes]
        output.print_json({"files": rows, "conflicts": left})
    elif not plans and not clashes:
        print("no checkpoint was changed on both sides: Git takes the changes of each side as they are")
    for planned in () if as_json else plans:
        counts = _counts(planned.plan)
        print(f"{shown_path(planned.file.path)}: {', '.join(counts) if counts else 'nothing to do'}")
        table = [
            (shown(one.name), one.action.value, one.reason or one.strategy or one.case.value)
            for one in _notable(planned.plan)
        ]
        output.print_table(("", "", ""), table[:_MOST_LISTED])
        if len(table) > _MOST_LISTED:
            print(f"... and {len(table) - _MOST_LISTED:,} more; for all of them: --json")
    for one in () if as_json else clashes:
        print(f"{shown_path(one.path)}: conflict: {one.reason}")
    return 1 if clashes or any(one.plan.conflicts for one in plans) else 0


def _counts(plan: "Plan") -> list[str]:
    counts: dict[str, int] = {}
    for one in plan.decisions:
        if one.case.value != "unchanged":
            what = f"merged by {one.strategy}" if one.action.value == "merge" else one.action.value
            counts[what] = counts.get(what, 0) + 1
    return [f"{number:,} {what}" for what, number in sorted(counts.items())]


def _notable(plan: "Plan") -> list["Decision"]:
    """The decisions about what a side changed, conflicts first."""
    changed = [one for one in plan.decisions if one.case.value != "unchanged"]
    return sorted(changed, key=lambda one: not one.reason)


def _merge(place: Place, branch: str, chosen: Sequence["Rule"], plans: Sequence[_Planned], message: str) -> int:
    """Have Git merge, and say in the message how the models were merged; Git's exit code."""
    from git_theta import joining, rulebook
    from git_theta.rules import SKELETON

    environ = {rulebook.RULES_VARIABLE: rulebook.format_environment(chosen)} if chosen else {}
    said = ["-m", message] if message else []
    held = ["--no-ff", "--no-commit"] if plans else []
    head, note = (place.repository.git_dir / name for name in ("MERGE_HEAD", "MERGE_MSG"))
    another = head.exists()  # a merge that is not concluded: Git refuses this one, and that one is not ours to commit
    code = git.run_attached(["merge", *held, *said, branch], cwd=place.cwd, environ=environ)
    if another or not head.exists() or not note.exists():
        return code
    # Git writes comments only about conflicts; without, a line such as "#42" is the user's.
    comments = code != 0
    if plans:
        if code or any(rule.pattern.startswith(SKELETON) for one in plans for rule in one.rules.rules):
            plans = _looked_at(place, plans)  # scalars that were merged are told, too, and no conflicts
        lines = joining.trailers(_rows(plans))
        note.write_bytes(joining.signed(place.repository, note.read_bytes(), lines, comments=comments))
    whole = merging.reindex(place, [one.file.path for one in plans], "made anew from the shards")
    if not whole or place.repository.unmerged():
        return code or 1
    cleanup = "strip" if comments else "whitespace"
    return git.run_attached(["commit", "--no-edit", "--cleanup", cleanup], cwd=place.cwd)


def _rows(plans: Sequence[_Planned]) -> list[tuple[bytes, "Versions", Sequence["Decision"]]]:
    return [(one.file.path, one.file.versions, one.plan.merged) for one in plans]


def _merge_all(place: Place, joined: "Branches", names: Sequence[str], plans: Sequence[_Planned], message: str) -> int:
    """Merge several branches in one commit, all or nothing; the exit code."""
    from git_theta import joining, manifest

    made: list[tuple[File, bytes]] = []
    with merging.merger(place) as merger, output.progress(sum(one.file.versions.ours.size for one in plans)) as begin:
        for one in plans:
            outcome = merger.merge(
                one.file.path, one.file.versions, one.rules, begin(f"merging {shown_path(one.file.path)}")
            )
            if outcome.conflicts:
                first = outcome.conflicts[0]
                raise ConflictError(
                    f"{shown_path(one.file.path)}: {output.count(len(outcome.conflicts), 'conflict')}, the first in "
                    f"'{shown(first.name)}': {first.reason}; nothing was merged: name a strategy for it in a rule, or "
                    "merge one branch after the other"
                )
            made.append((one.file, manifest.format(outcome.manifest)))
    said = message or f"Merge branches {', '.join(repr(shown(name)) for name in names)}"
    text = joining.signed(place.repository, f"{said}\n".encode(), joining.trailers(_rows(plans)))
    commit, indexes = joining.octopus(place.repository, joined, made, text.decode())
    code = git.run_attached(["merge", "--quiet", "--ff-only", commit], cwd=place.cwd)
    for index in indexes if code == 0 else ():
        print(f"{shown_path(index)}: made anew from the shards")
    return code
