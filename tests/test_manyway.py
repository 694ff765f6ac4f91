"""What a merge of several branches decides about each parameter, on manifests alone."""

import pytest

from git_theta.manifest import Manifest, Record
from git_theta.manyway import plan
from git_theta.rules import Rule, Rules
from git_theta.threeway import Action, Case, Decision
from tests.manifests import manifest, record

OLD = manifest(w=1, k=0)


def only(base: Manifest | None, sides: list[Manifest], *rules: Rule, name: str = "w") -> Decision:
    """The one decision that is not about a parameter that nobody touched."""
    [found] = [one for one in plan(base, sides, Rules(rules)).decisions if one.case is not Case.UNCHANGED]
    assert found.name == name
    return found


def test_what_one_side_changed_is_taken_from_it() -> None:
    for index in range(3):
        sides = [manifest(w=2, k=0) if at == index else OLD for at in range(3)]
        made = only(OLD, sides)
        assert (made.action, made.sides) == (Action.THEIRS if index else Action.OURS, (index,))


def test_what_several_changed_is_merged_from_all_that_did() -> None:
    made = only(OLD, [manifest(w=2, k=0), OLD, manifest(w=3, k=0), manifest(w=4, k=0)])
    assert (made.action, made.strategy, made.sides) == (Action.MERGE, "average", (0, 2, 3))
    assert only(OLD, [OLD, manifest(w=2, k=0), manifest(w=2, k=0)]).sides == (1,)


def test_weights_are_those_of_the_sides_that_changed_it() -> None:
    sides = [manifest(w=2, k=0), OLD, manifest(w=3, k=0)]
    made = only(OLD, sides, Rule("*", "average", {"weights": "1,2,3"}))
    assert made.options == {"weights": (1.0, 3.0)}


def test_added_and_deleted_parameters() -> None:
    assert only(OLD, [OLD, OLD, manifest(w=1, k=0, new=5)], name="new").sides == (2,)
    assert only(OLD, [OLD, manifest(k=0), OLD]).action is Action.DROP
    assert only(OLD, [manifest(w=2, k=0), manifest(k=0), OLD]).action is Action.CONFLICT
    both = [OLD, manifest(w=1, k=0, new=5), manifest(w=1, k=0, new=6)]
    assert only(OLD, both, name="new").action is Action.CONFLICT
    made = only(OLD, both, Rule("new", "average", added=True), name="new")
    assert (made.action, made.base, made.sides) == (Action.MERGE, None, (1, 2))


@pytest.mark.parametrize(
    "other",
    [record(3, "BF16"), record(3, shape=(6,)), record(3, strides=(1, 2)), record(3, views={"tied": None})],
    ids=["dtype", "shape", "strides", "views"],
)
def test_what_is_not_alike_is_a_conflict_that_keeps_ours(other: Record) -> None:
    sides = [manifest(w=2, k=0), OLD, manifest(w=other, k=0)]
    made = only(OLD, sides)
    assert (made.action, made.ours) == (Action.CONFLICT, "w")
    assert only(OLD, sides, Rule("*", "ours")).action is Action.OURS
    assert only(OLD, sides, Rule("*", "base")).action is Action.BASE
    assert only(OLD, sides, Rule("*", "theirs")).action is Action.CONFLICT


def test_codes_and_their_scales_are_of_one_side() -> None:
    old = manifest(weight=1, weight_scale=2)
    sides = [manifest(weight=5, weight_scale=2), manifest(weight=1, weight_scale=6), old]
    actions = {one.name: one.action for one in plan(old, sides, Rules()).decisions}
    assert actions == {"weight": Action.CONFLICT, "weight_scale": Action.CONFLICT}
    one_sided = plan(old, [old, old, manifest(weight=5, weight_scale=6)], Rules())
    assert one_sided.conflicts == ()
