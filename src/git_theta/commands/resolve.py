"""`git theta resolve`: settle what a merge left undecided, parameter by parameter or by pattern."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import escape
from shlex import quote
from typing import TYPE_CHECKING

import click

from git_theta.commands import merging, output
from git_theta.commands.place import Place, open_place
from git_theta.errors import DataError, ThetaError, TransferError
from git_theta.names import shown, shown_path

if TYPE_CHECKING:
    from git_theta.outcome import Outcome
    from git_theta.reconciliation import Merger
    from git_theta.rules import Rule
    from git_theta.settlement import Conflict
    from git_theta.threeway import Decision

__all__ = ["command"]

_MOST_SAID = 5


@click.command(short_help="Settle what a merge left undecided in a checkpoint.")
@click.option("--list", "-l", "listed", is_flag=True, help="Say what is undecided, and change nothing.")
@click.option("--param", "-p", "patterns", multiple=True, metavar="GLOB", help="The parameters to decide about; all.")
@click.option(
    "--strategy", "-s", metavar="NAME", help="How: ours, theirs, base, average, ...; see git theta strategies."
)
@click.option("--set", "assignments", multiple=True, metavar="OPTION=VALUE", help="An option of the strategy.")
@click.option("--added", is_flag=True, help="Merge what both sides added under one name, too.")
@click.option(
    "--grown", is_flag=True, help="Where a side added rows, merge those that both have, and keep the new ones."
)
@click.option("--interactive", "-i", is_flag=True, help="Ask about each parameter.")
@click.option("--continue", "finish", is_flag=True, help="Stage the file, in which nothing may be undecided any more.")
@click.option("--json", "as_json", is_flag=True, help="With --list: print JSON.")
@click.argument("path", type=click.Path())
def command(
    listed: bool,
    patterns: tuple[str, ...],
    strategy: str | None,
    assignments: tuple[str, ...],
    added: bool,
    grown: bool,
    interactive: bool,
    finish: bool,
    as_json: bool,
    path: str,
) -> int:
    """Settle what a merge left undecided in the checkpoint at PATH, which is in conflict.

    Choices come before the rules of the merge, the last one first, and are kept until all are made. The file in the
    worktree follows each choice; once nothing is undecided it is staged, and `git commit` or `git rebase --continue`
    goes on. For the index of a sharded checkpoint, ours or theirs says which shard counts for what is in two.
    "~skeleton" is the name of what the file says beside its parameters, "~skeleton/epoch" of one scalar in it.
    """
    if strategy is None and (patterns or assignments or added or grown):
        raise click.UsageError("--param, --set, --added and --grown need a --strategy.")
    options = merging.assignments(assignments)
    place = open_place()
    try:
        if strategy in ("ours", "theirs") and not patterns and path.endswith(".index.json"):
            return _settle_index(place, path, strategy)
        with _session(place, path, chosen=strategy is not None) as session:
            if strategy is not None:
                session = session.choose(
                    [
                        merging.rule(pattern, strategy, options, added=added, grown=grown)
                        for pattern in patterns or ("*",)
                    ]
                )
            elif interactive:
                session = _ask(session)
            if listed or (strategy is None and not interactive and not finish):
                return session.print_list(as_json=as_json)
            return session.finish(must=finish or session.failed)
    except ThetaError as error:
        raise type(error)(f"{shown_path(path)}: {error}") from error


def _settle_index(place: Place, path: str, side: str) -> int:
    """Make the index of a sharded checkpoint anew by what a side says; the exit code."""
    from git_theta import reindexing

    reindexing.settle(place.repository, place.repository.path_of(path, place.cwd), side)
    print(f"{shown_path(path)}: made anew from the shards, and staged")
    return 0


@dataclass(frozen=True, slots=True)
class _Session:
    """A conflict that is being settled, and what the merge gives by the choices made so far.

    `failed`: something that the last choices were for is undecided still. `is_unknown`: what the merge gives cannot be
    told before a choice is made, and `made` is ours, which it left.
    """

    place: Place
    path: str
    merger: "Merger"
    conflict: "Conflict"
    made: "Outcome"
    failed: bool = False
    is_unknown: bool = False

    @property
    def _command(self) -> str:
        return f"git theta resolve {quote(shown_path(self.path))}"

    def choose(self, rules: Sequence["Rule"]) -> "_Session":
        """Keep these choices, and merge by them."""
        from git_theta import joining, moves, settlement
        from git_theta.rules import SKELETON

        conflict = self.conflict
        undecided = [one.name for one in self.made.conflicts]
        if self.is_unknown:  # what is beside the parameters is known to a merge only
            undecided += [rule.pattern for rule in rules if rule.pattern.startswith(SKELETON)]
        for rule in rules:
            conflict = settlement.choose(conflict, rule, undecided)
        with output.progress(conflict.versions.ours.size) as begin:
            made = settlement.settle(self.merger, conflict, self.made.manifest, begin(f"merging {self.path}"))
        joining.note_choices(self.place.repository, conflict.path, rules, first=not self.conflict.has_own_rules)
        made = moves.told(self.place.repository, conflict.path, conflict.versions, made)
        tried = [(one, rule) for one in made.conflicts for rule in rules if rule.matches(one.name)]
        for one, rule in tried[:_MOST_SAID]:
            output.complain(shown(one.name), f"'{rule.strategy}' does not settle it: {one.reason}")
        return replace(self, conflict=conflict, made=made, failed=bool(tried), is_unknown=False)

    def print_list(self, *, as_json: bool) -> int:
        """Say what is undecided; the exit code."""
        conflicts = self.made.conflicts
        if as_json:
            rows = [{"parameter": one.name, "case": one.case.value, "reason": one.reason} for one in conflicts]
            output.print_json({"path": self.path, "conflicts": rows})
        elif conflicts:
            print(f"{output.count(len(conflicts), 'conflict')} in {shown_path(self.path)}:")
            output.print_table(("parameter", "why"), [(shown(one.name), one.reason) for one in conflicts])
        else:
            print(f"nothing is undecided in {shown_path(self.path)}; to stage it: {self._command} --continue")
        return 1 if conflicts else 0

    def finish(self, *, must: bool) -> int:
        """Stage the file if all is decided, and say what is left otherwise; the exit code."""
        from git_theta import settlement

        conflicts = self.made.conflicts
        if not conflicts:
            settlement.put(self.merger, self.conflict, self.made, self.made.manifest)
            settlement.stage(self.merger, self.conflict, self.made)
            print(f"{shown_path(self.path)}: nothing is undecided any more; staged")
            whole = merging.reindex(self.place, [self.conflict.path], "made anew from the shards, and staged")
            return 0 if whole else 1
        left = output.count(len(conflicts), "conflict")
        print(f"{shown_path(self.path)}: {left} left; to see them: {self._command} --list")
        return 1 if must else 0


@contextmanager
def _session(place: Place, path: str, *, chosen: bool) -> Iterator[_Session]:
    """A session; `chosen`: a choice comes next, which may make up for what is not on this machine."""
    from git_theta import moves, settlement
    from git_theta.outcome import Outcome

    with merging.merger(place) as merger:
        name = place.repository.path_of(path, place.cwd)
        conflict = settlement.find(place.repository, name, merging.rules(place, [name])[name])
        with output.progress(conflict.versions.ours.size) as begin:
            try:
                conflict, made = settlement.resume(merger, conflict, begin(f"merging {shown_path(path)}"))
                is_unknown = False
            except (DataError, TransferError):
                if not chosen:
                    raise
                made, is_unknown = Outcome(conflict.versions.ours, ()), True
        made = moves.told(place.repository, name, conflict.versions, made)
        yield _Session(place, path, merger, conflict, made, is_unknown=is_unknown)


_ANSWERS = (
    "o: ours, t: theirs, b: base, a: average, s: skip it, q: stop asking; with a pattern for more of them: o layers.*"
)
_STRATEGIES = {"o": "ours", "t": "theirs", "b": "base", "a": "average"}


def _ask(session: _Session) -> _Session:
    """Ask about each conflict, and merge by the answers."""
    rules: list[Rule] = []
    print(_ANSWERS)
    for one in session.made.conflicts:
        if any(rule.matches(one.name) for rule in rules):
            continue
        print(f"\n{shown(one.name)}: {one.reason}")
        for line in _facts(session, one):
            print(f"  {line}")
        answer = _answer([one.name for one in session.made.conflicts])
        if answer is None:
            break
        letter, _, pattern = answer.partition(" ")
        if letter in _STRATEGIES:
            rules.append(merging.rule(pattern.strip() or escape(one.name), _STRATEGIES[letter], {}, added=True))
    # The last choice comes first, and a pattern is for what is still to come.
    return session.choose(rules[::-1]) if rules else session


def _facts(session: _Session, one: "Decision") -> list[str]:
    """What each version has, and how far the sides went from the base."""
    from git_theta import settlement

    lines = []
    for side, record, change in settlement.facts(session.conflict, one, session.merger.depot):
        said = [f"{side:<7}{record.dtype} {list(record.shape)}"]
        if change is not None:
            said.append(f"{change.changed:,} of {change.elements:,} changed")
            said += [] if change.change is None else [f"|change| {change.change:.3g}"]
        lines.append(", ".join(said))
    return lines


def _answer(names: Sequence[str]) -> str | None:
    """What the user wants, with a pattern that matches one of the names if with any; None to stop."""
    while True:
        given = str(click.prompt("take", default="s")).strip()
        if given == "q":
            return None
        letter, _, pattern = given.partition(" ")
        if pattern and not any(fnmatchcase(name, pattern.strip()) for name in names):
            print(f"'{shown(pattern)}' matches nothing that is undecided")
        elif letter in (*_STRATEGIES, "s"):
            return given
        else:
            print(_ANSWERS)
