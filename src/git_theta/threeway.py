"""What becomes of each parameter when two sides changed a checkpoint: decided on manifests alone, nothing is loaded.

Every row of the table in docs/design/009-merging.md is a `Case`. Only what both sides changed, to different values,
is left to a strategy, and only what no rule answers is a conflict.
"""

import enum
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from git_theta import gaps
from git_theta.manifest import Manifest, Record
from git_theta.matching import Match, content, match, renames, ties
from git_theta.merges.arrays import KINDS
from git_theta.merges.base import FLOAT, Value
from git_theta.quantisation import groups
from git_theta.rules import COPIES, Rule, Rules
from git_theta.tensor import View, nbytes

__all__ = ["Action", "Case", "Decision", "Plan", "plan"]

_NO_RULES = Rules()


class Action(enum.Enum):
    """What is done about a parameter."""

    OURS = "ours"
    THEIRS = "theirs"
    BASE = "base"
    MERGE = "merge"
    DROP = "drop"
    CONFLICT = "conflict"


class Case(enum.Enum):
    """What the sides did with a parameter."""

    UNCHANGED = "unchanged"
    ONE_SIDED = "changed on one side"
    SAME = "changed alike"
    BOTH = "changed on both sides"
    ADDED = "added on both sides"
    DELETED = "deleted"
    SHAPE = "another shape"
    DTYPE = "another dtype"
    RENAMED = "renamed"
    TIED = "tied or untied"
    SKELETON = "beside its parameters"
    CODED = "codes or bytes that cannot be computed with"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one parameter, and what it is called in each version that has it.

    `name` is its name in the result. With MERGE, `strategy` and `options` say how, and `dtype` and `shape` what comes
    of it. Where DTYPE is merged and a side that changed the dtype changed nothing else, the other's value is taken, in
    that dtype. With CONFLICT the result has what ours has, and `reason` says why. `views` are those of the result.
    `sides` are the versions that are merged, or the one that is taken, where there are more than two: 0 is ours, and
    then it has one name in all of them.
    """

    name: str
    action: Action
    case: Case
    base: str | None = None
    ours: str | None = None
    theirs: str | None = None
    strategy: str = ""
    options: Mapping[str, Value] = field(default_factory=dict)
    dtype: str = ""
    shape: tuple[int, ...] = ()
    views: tuple[View, ...] = ()
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reason: str = ""
    sides: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions in the order of names, and whose layout holds the result: None where it is of neither side."""

    decisions: tuple[Decision, ...]
    layout: Action | None

    @property
    def conflicts(self) -> tuple[Decision, ...]:
        return tuple(one for one in self.decisions if one.action is Action.CONFLICT)

    @property
    def merged(self) -> tuple[Decision, ...]:
        """Those whose values must be loaded."""
        return tuple(one for one in self.decisions if one.action is Action.MERGE)


def plan(base: Manifest | None, ours: Manifest, theirs: Manifest, rules: Rules = _NO_RULES) -> Plan:
    """What becomes of each parameter; `base` is None where there is no common ancestor."""
    *old, ours, theirs = gaps.stripped([*([base] if base else []), ours, theirs])
    base = old[0] if old else None
    sides = _sides(base, ours, theirs)
    rows = _apart(_together([(triple, _decide(triple, rules)) for triple in _triples(sides)], rules), rules)
    decisions = sorted((one for _, one in rows), key=lambda one: (one.name, one.base or "", one.theirs or ""))
    return Plan(tuple(decisions), _layout(base, ours, theirs, decisions))


@dataclass(frozen=True, slots=True)
class _Triple:
    """One parameter: what each version has of it."""

    name: str
    base: Match
    ours: Match
    theirs: Match

    @property
    def renamed(self) -> str | None:
        """The one new name that the sides agree on, or the old one; None where both gave it another."""
        names = [side.name for side in (self.ours, self.theirs) if side.name is not None]
        new = sorted({name for name in names if name != self.base.name})
        return self.name if not new or self.base.name is None else new[0] if len(new) == 1 else None


@dataclass(frozen=True, slots=True)
class _Sides:
    """The three versions, with what is tied in each and what the sides renamed."""

    base: Manifest
    ours: Manifest
    theirs: Manifest
    tied: tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str]]
    renamed: tuple[Mapping[str, str], Mapping[str, str]]


def _sides(base: Manifest | None, ours: Manifest, theirs: Manifest) -> _Sides:
    old = base or replace(ours, parameters={})
    tied = (ties(old), ties(ours), ties(theirs))
    return _Sides(old, ours, theirs, tied, (renames(old, ours), renames(old, theirs)))


def _triples(sides: _Sides) -> Iterator[_Triple]:
    """The parameters of the base, then those that a side added or untied, each once."""
    _, our_ties, their_ties = sides.tied
    seen: tuple[set[str | None], set[str | None]] = (set(), set())
    for name, record in sides.base.parameters.items():
        mine = match(name, sides.ours, our_ties, sides.renamed[0])
        other = match(name, sides.theirs, their_ties, sides.renamed[1])
        seen[0].add(mine.name)
        seen[1].add(other.name)
        yield _Triple(name, Match(name, record), mine, other)
    for name in {**sides.ours.parameters, **sides.theirs.parameters}:
        found = [
            _added(name, manifest, tied, names)
            for manifest, tied, names in zip((sides.ours, sides.theirs), sides.tied[1:], seen, strict=True)
        ]
        if any(side.name == name for side in found):
            yield _Triple(name, _added(name, sides.base, sides.tied[0], set()), *found)


def _added(name: str, manifest: Manifest, tied: Mapping[str, str], seen: Container[str | None]) -> Match:
    """What a version has of a name that is no parameter of the base: its own value, or that of what it is tied to."""
    if name in manifest.parameters and name not in seen:
        return Match(name, manifest.parameters[name])
    owner = tied.get(name)
    return Match() if owner is None else Match(owner, manifest.parameters[owner], owner)


def _decide(triple: _Triple, rules: Rules) -> Decision:
    base, ours, theirs = triple.base, triple.ours, triple.theirs
    name = triple.renamed
    if name is None:
        return _conflict(triple, Case.RENAMED, "both sides renamed it, and not to the same name", rules)
    if ours.record is None or theirs.record is None:
        return _one_is_gone(triple, name, rules)
    views = _views(triple)
    if views is None:
        return _conflict(
            triple, Case.TIED, "both sides tied or untied it, or one did that and the other resized it", rules
        )
    changed = content(ours.record) != content(theirs.record)
    if base.record is None and changed:
        return _added_on_both(triple, rules)
    if not changed:
        case = Case.UNCHANGED if base.record and content(base.record) == content(ours.record) else Case.SAME
        action = Action.OURS
    elif base.record and content(base.record) in (content(ours.record), content(theirs.record)):
        case = Case.ONE_SIDED
        action = Action.OURS if content(base.record) == content(theirs.record) else Action.THEIRS
    else:
        return _changed_on_both(triple, name, views, rules)
    if name != triple.name:
        case = Case.RENAMED
    return _made(triple, name, action, case, views)


def _made(triple: _Triple, name: str, action: Action, case: Case, views: tuple[View, ...] = ()) -> Decision:
    return Decision(name, action, case, triple.base.name, triple.ours.name, triple.theirs.name, views=views)


def _conflict(triple: _Triple, case: Case, reason: str, rules: Rules) -> Decision:
    """A conflict that keeps ours, unless a rule says whose value to take, or none where that side has none."""
    names = (name for name in (triple.name, triple.ours.name, triple.theirs.name) if name is not None)
    rule = next((found for name in names if (found := rules.find(name, None))), None)
    if rule is None:
        kept = triple.ours.record if triple.ours.tied is None else None
        name = triple.ours.name if kept and triple.ours.name else triple.name
        made = _made(triple, name, Action.CONFLICT, case, kept.views if kept else ())
        return replace(made, ours=triple.ours.name if triple.ours.tied is None else None, reason=reason)
    side = {"ours": triple.ours, "theirs": triple.theirs, "base": triple.base}[rule.strategy]
    if side.record is None or side.name is None or side.tied is not None:
        return _made(triple, triple.name, Action.DROP, case)
    return _made(triple, side.name, Action(rule.strategy), case, side.record.views)


def _one_is_gone(triple: _Triple, name: str, rules: Rules) -> Decision:
    """One side, or both, have no value of their own of it: deleted, tied to another, or never there."""
    base, ours, theirs = triple.base, triple.ours, triple.theirs
    left = ours if theirs.record is None else theirs
    gone = theirs if theirs.record is None else ours
    there, away = ("ours", "theirs") if left is ours else ("theirs", "ours")
    if left.record is None:
        if (left.tied is None) == (gone.tied is None):
            return _made(triple, name, Action.DROP, Case.TIED if left.tied else Case.DELETED)
        tied, deleted = (away, there) if left.tied is None else (there, away)
        return _conflict(triple, Case.TIED, f"{tied} tied it to another parameter, and {deleted} deleted it", rules)
    if base.record is None:
        side = Action.OURS if left is ours else Action.THEIRS
        return _made(triple, name, side, Case.ONE_SIDED, left.record.views)
    same = content(left.record) == content(base.record) and left.name == base.name
    if gone.tied is not None:
        if same:
            return _made(triple, name, Action.DROP, Case.TIED)
        return _conflict(triple, Case.TIED, f"{away} tied it to another parameter, and {there} changed it", rules)
    if same and base.tied is None:
        return _made(triple, name, Action.DROP, Case.DELETED)
    return _conflict(triple, Case.DELETED, f"{away} deleted it, and {there} changed, renamed or untied it", rules)


def _views(triple: _Triple) -> tuple[View, ...] | None:
    """The views of the result: those of the side that changed them; None where both did, or the other is resized."""
    assert triple.ours.record is not None and triple.theirs.record is not None  # noqa: S101, PT018  # both are there
    base, ours, theirs = triple.base.record, triple.ours.record, triple.theirs.record
    # A side in which it is tied has, under the owner's name, the owner's views; the untied value has its own.
    given = [side.record.views for side in (triple.ours, triple.theirs) if side.record and side.tied is None]
    if len(given) == 1 or ours.views == theirs.views:
        return given[0]
    if base is None or base.views not in (ours.views, theirs.views):
        return None
    changed, other = (ours, theirs) if base.views == theirs.views else (theirs, ours)
    fixed = content(base)[1:]
    if content(other) != content(base) and (fixed != content(ours)[1:] or fixed != content(theirs)[1:]):
        return None
    return changed.views


def _added_on_both(triple: _Triple, rules: Rules) -> Decision:
    ours, theirs = triple.ours.record, triple.theirs.record
    assert ours is not None and theirs is not None  # noqa: S101, PT018  # both are there
    kind = KINDS.get(ours.dtype) if content(ours)[1:] == content(theirs)[1:] else None
    rule = rules.find(triple.name, kind)
    if rule is None or rule.strategy in COPIES or not rule.added or rule.merge.needs_base:
        return _conflict(triple, Case.ADDED, "both sides added it, with different values", rules)
    return _by(rule, triple, triple.name, Case.ADDED, ours, ours.views)


def _changed_on_both(triple: _Triple, name: str, views: tuple[View, ...], rules: Rules) -> Decision:
    base, ours, theirs = triple.base.record, triple.ours.record, triple.theirs.record
    assert base is not None and ours is not None and theirs is not None  # noqa: S101, PT018  # all are there
    kinds = {KINDS.get(record.dtype) for record in (base, ours, theirs)}
    dtypes = {record.dtype for record in (base, ours, theirs)}
    if None in kinds or len(kinds) > 1 or (kinds != {FLOAT} and len(dtypes) > 1):
        what = "/".join(dict.fromkeys((ours.dtype, theirs.dtype)))
        return _conflict(triple, Case.CODED, f"both sides changed it, and {what} cannot be computed with", rules)
    if ours.dtype != theirs.dtype and base.dtype not in (ours.dtype, theirs.dtype):
        return _conflict(triple, Case.DTYPE, f"its dtype became {ours.dtype} and {theirs.dtype}", rules)
    rule = rules.find(triple.name, KINDS[ours.dtype])
    if rule is None or rule.strategy in COPIES:
        return _conflict(triple, Case.BOTH, "both sides changed it", rules)
    if {base.strides, ours.strides, theirs.strides} != {base.strides}:
        return _conflict(triple, Case.SHAPE, "its elements stand in another order on one side", rules)
    result = ours if ours.dtype != base.dtype else theirs
    case = Case.DTYPE if len(dtypes) > 1 else Case.RENAMED if name != triple.name else Case.BOTH
    if {ours.shape, theirs.shape} != {base.shape}:
        grown = _grown(base, ours, theirs) if rule.grown else None
        if grown is None or views:
            what = f"{list(ours.shape)} and {list(theirs.shape)}, from {list(base.shape)}"
            return _conflict(triple, Case.SHAPE, f"both sides changed it, and its shape: {what}", rules)
        return _by(rule, triple, name, Case.SHAPE, replace(result, shape=grown.shape), views)
    return _by(rule, triple, name, case, result, views)


def _by(rule: Rule, triple: _Triple, name: str, case: Case, result: Record, views: tuple[View, ...]) -> Decision:
    """The decision to merge by a rule, into a value of the dtype and shape of `result`."""
    return replace(
        _made(triple, name, Action.MERGE, case, views),
        strategy=rule.strategy,
        options=rule.parsed().values,
        files=rule.files,
        dtype=result.dtype,
        shape=result.shape,
    )


def _grown(base: Record, ours: Record, theirs: Record) -> Record | None:
    """The side that added rows to a value, where the other has those of the base; None otherwise."""
    side, other = (ours, theirs) if theirs.shape == base.shape else (theirs, ours)
    longer = base.shape and side.shape and side.shape[0] > base.shape[0] and side.shape[1:] == base.shape[1:]
    return side if longer and other.shape == base.shape else None


_Row = tuple[_Triple, Decision]


def _together(rows: list[_Row], rules: Rules) -> list[_Row]:
    """The rows, where values that only mean something together are of one side or in conflict."""
    places: dict[str, set[int]] = defaultdict(set)
    for index, (triple, _) in enumerate(rows):
        for name in (triple.name, triple.base.name, triple.ours.name, triple.theirs.name):
            if name is not None:
                places[name].add(index)
    for group in groups(places):
        indexes = sorted({index for name in group for index in places[name]})
        triples = [rows[index][0] for index in indexes]
        ours = any(_content(triple.ours) != _content(triple.base) for triple in triples)
        theirs = any(_content(triple.theirs) != _content(triple.base) for triple in triples)
        if ours and theirs:
            reason = "both sides changed it, or what it is read with: codes and their scales are of one side"
            for index, triple in zip(indexes, triples, strict=True):
                if _content(triple.ours) != _content(triple.theirs):
                    rows[index] = (triple, _conflict(triple, Case.CODED, reason, rules))
    return rows


def _content(match: Match) -> object:
    return None if match.record is None else content(match.record)


def _apart(rows: list[_Row], rules: Rules) -> list[_Row]:
    """The rows, where two that sides gave one name are conflicts that keep ours, or of the side that rules name."""
    claims = [_claims(triple, one) for triple, one in rows]
    counts = Counter(name for names in claims for name in names)
    reason = "one side renamed a parameter to this name, and the other gave it to another one"

    def told(rules: Rules) -> list[_Row]:
        return [
            (triple, _conflict(triple, Case.RENAMED, reason, rules) if any(counts[name] > 1 for name in names) else one)
            for (triple, one), names in zip(rows, claims, strict=True)
        ]

    settled = told(rules)
    given = Counter(one.name for _, one in settled if _has_value(one))
    return told(_NO_RULES) if any(count > 1 for count in given.values()) else settled


def _claims(triple: _Triple, decision: Decision) -> set[str]:
    """The names that a parameter of the result has on either side."""
    if decision.action is Action.DROP:
        return set()
    names = {side.name for side in (triple.ours, triple.theirs) if side.name is not None and side.tied is None}
    return names | {decision.name} if _has_value(decision) else names


def _has_value(decision: Decision) -> bool:
    """Whether the result has a parameter for it."""
    return decision.ours is not None if decision.action is Action.CONFLICT else decision.action is not Action.DROP


def _layout(base: Manifest | None, ours: Manifest, theirs: Manifest, decisions: Sequence[Decision]) -> Action | None:
    """Whose layout places the result's parameters, with the skeleton that a three-way merge of the whole would take."""
    result = {one.name: _place(one, base, ours, theirs) for one in decisions if _has_value(one)}
    digests = (base.layout.digest if base else None, ours.layout.digest, theirs.layout.digest)
    if digests[2] in (digests[0], digests[1]):
        side, manifest = Action.OURS, ours
    elif digests[1] == digests[0]:
        side, manifest = Action.THEIRS, theirs
    else:
        return None
    return side if result == {name: _placed(row, row.views) for name, row in manifest.parameters.items()} else None


def _placed(record: Record, views: tuple[View, ...]) -> tuple[object, ...]:
    return record.dtype, record.shape, record.size, record.strides, views


def _place(decision: Decision, base: Manifest | None, ours: Manifest, theirs: Manifest) -> tuple[object, ...]:
    """What a layout must know of a parameter of the result."""
    if decision.action is Action.MERGE:
        like = ours.parameters[decision.ours or ""]
        size = nbytes(decision.dtype, decision.shape)
        return decision.dtype, decision.shape, size, like.strides, decision.views
    if decision.action is Action.THEIRS:
        record = theirs.parameters[decision.theirs or ""]
    elif decision.action is Action.BASE and base is not None:
        record = base.parameters[decision.base or ""]
    else:
        record = ours.parameters[decision.ours or ""]
    return _placed(record, decision.views)
