"""The arbiter of what both sides changed beside the parameters: of scalars in a pickle, and of keys of metadata.

Each has a name, "~skeleton/epoch", by which rules speak of it. A number is merged as a tensor of one element would be,
but only by a rule that names it so: a rule for "*" is meant for parameters, and at most says whose value to take. What
no rule settles is a conflict that keeps ours.
"""

import struct
from collections.abc import Mapping
from dataclasses import replace

from git_theta.errors import ConflictError
from git_theta.formats.base import NOTHING
from git_theta.merges import running
from git_theta.merges.base import BOOLEAN, FLOAT, INTEGER
from git_theta.merges.running import Operand, Task
from git_theta.names import shown
from git_theta.rules import COPIES, SKELETON, Rule, Rules
from git_theta.threeway import Action, Case, Decision

__all__ = ["Arbiter"]

_MOST_SHOWN = 40
_MOST_BITS = 1024
_LAYOUTS = {FLOAT: ("F64", "<d"), INTEGER: ("I64", "<q"), BOOLEAN: ("BOOL", "<?")}
_KINDS: Mapping[frozenset[type], str] = {
    frozenset({bool}): BOOLEAN,
    frozenset({int}): INTEGER,
    frozenset({float}): FLOAT,
    frozenset({int, float}): FLOAT,
}


class Arbiter:
    """Settles by rules, a `formats.base.Settle`, and notes what it decided."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.decisions: list[Decision] = []

    def settle(self, name: str, base: object, ours: object, theirs: object) -> object:
        """What becomes of it; ours where that is a conflict."""
        named = f"{SKELETON}/{name}"
        kind = _KINDS.get(frozenset(type(value) for value in (base, ours, theirs) if value is not NOTHING))
        rule = self._rules.find_beside(named, kind)
        decision = Decision(named, Action.CONFLICT, Case.SKELETON, reason=_reason(base, ours, theirs))
        value = ours
        if rule is not None and rule.strategy in COPIES:
            decision = replace(decision, action=Action(rule.strategy), reason="")
            value = {"ours": ours, "theirs": theirs, "base": base}[rule.strategy]
        elif rule is not None and kind is not None:
            try:
                value = _computed(named, rule, kind, base, (ours, theirs))
                options = rule.parsed().values
                decision = replace(decision, action=Action.MERGE, reason="", strategy=rule.strategy, options=options)
            except (ConflictError, struct.error, OverflowError) as error:
                decision = replace(decision, reason=f"{decision.reason}: {error}")
        self.decisions.append(decision)
        return value


def _computed(name: str, rule: Rule, kind: str, base: object, sides: tuple[object, object]) -> object:
    """The number that a strategy makes; raises an error of `struct` for one that no tensor could hold."""
    dtype, layout = _LAYOUTS[kind]

    def operand(value: object) -> Operand:
        data = struct.pack(layout, value)
        return running.held(dtype, (), data.hex(), data)

    merge = rule.merge
    used = (merge.needs_base or merge.uses_base) and base is not NOTHING
    task = Task(name, dtype, (), (operand(sides[0]), operand(sides[1])), operand(base) if used else None)
    made: object
    (made,) = struct.unpack(layout, b"".join(running.run(merge, rule.parsed(), task)))
    return made


def _reason(base: object, ours: object, theirs: object) -> str:
    if NOTHING in (ours, theirs):
        away, there = ("ours", "theirs") if ours is NOTHING else ("theirs", "ours")
        return f"{away} deleted it, and {there} changed it"
    if not all(value is NOTHING or value is None or type(value) in (bool, int, float, str) for value in (base, ours)):
        return "both sides changed it"
    if base is NOTHING:
        return f"both sides added it, {_shown(ours)} and {_shown(theirs)}"
    return f"both sides changed it, from {_shown(base)} to {_shown(ours)} and to {_shown(theirs)}"


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:  # Python may refuse to write it in decimal
        return "a long number"
    text = repr(value[:_MOST_SHOWN] if isinstance(value, str) else value)
    return shown(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")
