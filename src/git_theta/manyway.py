"""What becomes of each parameter when several branches are merged at once: decided on manifests alone.

As `threeway`, for any number of sides, and by the parameters' names only: what is renamed, tied, resized or converted
on one side is taken if no other side touched it, and is a conflict otherwise. A strategy gets the values of all the
sides that changed a parameter, so an average is that of all of them, not of averages.
"""

from collections.abc import Mapping, Sequence

from git_theta import gaps
from git_theta.manifest import Manifest, Record
from git_theta.matching import content
from git_theta.merges.arrays import KINDS
from git_theta.quantisation import groups
from git_theta.rules import COPIES, Rule, Rules
from git_theta.threeway import Action, Case, Decision, Plan

__all__ = ["plan"]


def plan(base: Manifest | None, sides: Sequence[Manifest], rules: Rules) -> Plan:
    """What becomes of each parameter; `sides` are ours and the others, `base` is None without a common ancestor."""
    plain = gaps.stripped([*([base] if base else []), *sides])
    sides = plain[-len(sides) :]
    old: Mapping[str, Record] = plain[0].parameters if base is not None else {}
    names = dict.fromkeys(name for version in (old, *(side.parameters for side in sides)) for name in version)
    together = {name: group for group in groups(names) for name in group}
    changed = {name: _changed(old.get(name), [side.parameters.get(name) for side in sides]) for name in names}
    decisions = []
    for name in sorted(names):
        rows = [side.parameters.get(name) for side in sides]
        one = _decide(name, old.get(name), rows, changed[name], rules)
        # Codes and their scales are of one side.
        authors = {side for other in together.get(name, ()) for side in changed[other]}
        if changed[name] and len(authors) > 1:
            one = _conflict(name, rows, Case.CODED, "several sides changed it, or what it is read with")
        decisions.append(one)
    return Plan(tuple(decisions), None)


def _changed(old: Record | None, rows: Sequence[Record | None]) -> list[int]:
    """The sides that have another value than the base."""
    return [index for index, row in enumerate(rows) if _key(row) != _key(old)]


def _key(record: Record | None) -> object:
    return None if record is None else (content(record), record.views)


def _decide(
    name: str, old: Record | None, rows: Sequence[Record | None], changed: Sequence[int], rules: Rules
) -> Decision:
    base = name if old is not None else None
    if not changed:
        return Decision(name, Action.OURS, Case.UNCHANGED, base, name, name, views=rows[0].views if rows[0] else ())
    if len({_key(rows[index]) for index in changed}) == 1:
        case = Case.ONE_SIDED if len(changed) == 1 else Case.SAME
        taken = rows[changed[0]]
        if taken is None:
            return Decision(name, Action.DROP, Case.DELETED, base)
        action = Action.OURS if changed[0] == 0 else Action.THEIRS
        return Decision(name, action, case, base, name, name, views=taken.views, sides=(changed[0],))
    return _merged(name, old, rows, changed, rules)


def _merged(
    name: str, old: Record | None, rows: Sequence[Record | None], changed: Sequence[int], rules: Rules
) -> Decision:
    """The decision about what several sides changed, and not alike."""
    found = [rows[index] for index in changed]
    present = [row for row in found if row is not None]
    if len(present) < len(found):
        return _conflict(name, rows, Case.DELETED, "one side deleted it, and another changed it")
    alike = {(row.dtype, row.shape, row.strides, row.views) for row in ([old] if old else []) + present}
    first = present[0]
    kind = KINDS.get(first.dtype)
    rule = rules.find(name, kind)
    if rule is not None and rule.strategy == "ours":
        return Decision(name, Action.OURS, Case.BOTH, ours=name, views=rows[0].views) if rows[0] else _gone(name)
    if rule is not None and rule.strategy == "base":
        return Decision(name, Action.BASE, Case.BOTH, base=name, views=old.views) if old else _gone(name)
    if len(alike) > 1 or kind is None:
        return _conflict(name, rows, Case.CODED, "several sides changed it, to several dtypes or shapes")
    if rule is None or rule.strategy in COPIES or (old is None and not _adds(rule)):
        case = Case.ADDED if old is None else Case.BOTH
        return _conflict(name, rows, case, "several sides changed it")
    options = dict(rule.parsed().values)
    weights = options.get("weights")
    if isinstance(weights, tuple) and len(weights) == len(rows):
        options["weights"] = tuple(weights[index] for index in changed)
    files = {
        name: tuple(paths[index] for index in changed) if name in rule.sided and len(paths) == len(rows) else paths
        for name, paths in rule.files.items()
    }
    return Decision(
        name,
        Action.MERGE,
        Case.BOTH,
        None if old is None else name,
        name,
        name,
        rule.strategy,
        options,
        first.dtype,
        first.shape,
        first.views,
        files,
        sides=tuple(changed),
    )


def _adds(rule: Rule) -> bool:
    return rule.added and not rule.merge.needs_base


def _gone(name: str) -> Decision:
    return Decision(name, Action.DROP, Case.DELETED)


def _conflict(name: str, rows: Sequence[Record | None], case: Case, reason: str) -> Decision:
    ours = rows[0]
    return Decision(
        name, Action.CONFLICT, case, ours=name if ours else None, views=ours.views if ours else (), reason=reason
    )
