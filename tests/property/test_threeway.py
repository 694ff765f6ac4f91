"""Laws of a three-way plan, over any manifests: renames, ties, casts, codes and all of it at once."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from git_theta.manifest import Manifest, Record
from git_theta.matching import content
from git_theta.rules import Rule, Rules
from git_theta.tensor import View
from git_theta.threeway import Action, Case, Decision, plan
from tests.manifests import manifest, record

LAW = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

NAMES = ["a", "b.weight", "b.weight_scale", "c.b.weight", "d.qweight", "d.scales", "e", "f"]
"""Few, so that sides meet; some belong together."""

RULES = st.sampled_from(
    [
        Rules(),
        Rules((Rule("*", "ties", grown=True),)),
        Rules((Rule("b*", "average", added=True),)),
        Rules((Rule("*", "theirs"),)),
    ]
)


@st.composite
def versions(draw: st.DrawFn) -> Manifest:
    rows: dict[str, object] = {}
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=6))
    free = [name for name in NAMES if name not in names]
    for name in names:
        dtype = draw(st.sampled_from(["F32", "F32", "F32", "BF16", "I64", "U8", "F8_E4M3"]))
        shape = draw(st.sampled_from([(2, 3), (2, 3), (2, 3), (4, 3), (6,)]))
        tied = {free.pop(): None} if free and draw(st.integers(0, 4)) == 0 else {}
        strides = draw(st.sampled_from([None, None, None, (1, 2)])) if shape == (2, 3) else None
        rows[name] = record(draw(st.integers(0, 3)), dtype, shape, tied, strides)
    return manifest(draw(st.sampled_from(["", "x"])), **rows)


def taken(decision: Decision, base: Manifest | None, ours: Manifest, theirs: Manifest) -> Record | None:
    """The record that a decision takes from one of the versions."""
    if decision.action is Action.OURS:
        return ours.parameters[decision.ours or ""]
    if decision.action is Action.THEIRS:
        return theirs.parameters[decision.theirs or ""]
    if decision.action is Action.BASE and base is not None:
        return base.parameters[decision.base or ""]
    return None


Places = dict[str, tuple[object, tuple[View, ...]]]


def places(one: Manifest) -> Places:
    return {name: (content(row), row.views) for name, row in one.parameters.items()}


@given(versions(), versions(), RULES)
@LAW
def test_with_an_unchanged_side_the_plan_is_the_other_side(base: Manifest, side: Manifest, rules: Rules) -> None:
    for ours, theirs in ((base, side), (side, base)):
        made = plan(base, ours, theirs, rules)
        assert not made.conflicts
        assert not made.merged
        found: Places = {}
        for one in made.decisions:
            row = taken(one, base, ours, theirs)
            if row is not None:
                found[one.name] = (content(row), one.views)
        assert found == places(side)
        wanted = Action.OURS if side.layout.digest == base.layout.digest or side is ours else Action.THEIRS
        assert made.layout is wanted


@given(versions(), versions(), RULES)
@LAW
def test_a_version_merged_with_its_like_is_itself(base: Manifest, side: Manifest, rules: Rules) -> None:
    for old in (base, None):
        made = plan(old, side, side, rules)
        assert not made.conflicts
        assert not made.merged
        assert {one.name for one in made.decisions if one.action is not Action.DROP} == side.parameters.keys()
        assert made.layout is Action.OURS


_SWAPPED = {Action.OURS: Action.THEIRS, Action.THEIRS: Action.OURS}


def _kinds(decisions: tuple[Decision, ...], *, swapped: bool) -> Counter[object]:
    """What is decided, without what depends on which side is called ours: the name of a conflict, a side for equals."""
    found: Counter[object] = Counter()
    for one in decisions:
        action = _SWAPPED.get(one.action, one.action) if swapped else one.action
        equal = one.case in (Case.UNCHANGED, Case.SAME, Case.RENAMED) and one.action in _SWAPPED
        conflict = one.action is Action.CONFLICT
        found[
            None if conflict else one.name, "equal" if equal else action, one.case, one.base, one.dtype, one.shape
        ] += 1
    return found


@given(st.one_of(st.none(), versions()), versions(), versions())
@LAW
def test_the_sides_may_change_places(base: Manifest | None, ours: Manifest, theirs: Manifest) -> None:
    there, back = plan(base, ours, theirs), plan(base, theirs, ours)
    assert _kinds(there.decisions, swapped=False) == _kinds(back.decisions, swapped=True)


@given(st.one_of(st.none(), versions()), versions(), versions(), RULES)
@LAW
def test_nothing_that_a_side_changed_is_lost_without_a_word(
    base: Manifest | None, ours: Manifest, theirs: Manifest, rules: Rules
) -> None:
    """What a side changed is in the result, is merged, or is in a conflict; no name stands for two values."""
    made = plan(base, ours, theirs, rules)
    names = Counter(one.name for one in made.decisions if one.action not in (Action.DROP, Action.CONFLICT))
    names.update(one.ours for one in made.conflicts if one.ours is not None)
    assert all(count == 1 for count in names.values()), "one name, one value"
    for side, of in ((ours, "ours"), (theirs, "theirs")):
        seen = {getattr(one, of) for one in made.decisions}
        assert side.parameters.keys() <= seen
    if rules.rules and rules.rules[0].strategy == "theirs":
        return
    for one in made.decisions:
        old = base.parameters.get(one.base or "") if base else None
        for side, name in ((ours, one.ours), (theirs, one.theirs)):
            row = side.parameters.get(name or "")
            if row is None or one.action in (Action.MERGE, Action.CONFLICT) or (old and content(row) == content(old)):
                continue
            found = taken(one, base, ours, theirs)
            assert found is not None, f"{one} drops a change"
            assert content(found) == content(row), f"{one} takes the other's value over a change"
    assert all(one.reason.isprintable() and one.reason for one in made.conflicts)
