"""What a merge decides: every row of the table in docs/design/009-merging.md, on manifests alone."""

from dataclasses import replace

import pytest

from git_theta.manifest import Manifest
from git_theta.rules import Rule, Rules
from git_theta.tensor import View
from git_theta.threeway import Action, Case, Decision, Plan, plan
from tests.manifests import manifest, record

OURS, THEIRS, MERGE, DROP, CONFLICT = Action.OURS, Action.THEIRS, Action.MERGE, Action.DROP, Action.CONFLICT
OLD = manifest(w=1, k=0)


def only(made: Plan, name: str = "w") -> Decision:
    """The one decision that is not about a parameter that nobody touched."""
    [found] = [one for one in made.decisions if one.case is not Case.UNCHANGED]
    assert found.name == name
    return found


def kinds(made: Plan) -> list[tuple[str, Action, Case]]:
    return [(one.name, one.action, one.case) for one in made.decisions]


def test_what_nobody_changed_is_ours() -> None:
    made = plan(OLD, OLD, OLD)
    assert kinds(made) == [("k", OURS, Case.UNCHANGED), ("w", OURS, Case.UNCHANGED)]
    assert made.layout is OURS


def test_what_one_side_changed_is_taken_without_being_loaded() -> None:
    made = plan(OLD, manifest(w=2, k=0), manifest(w=1, k=5))
    assert kinds(made) == [("k", THEIRS, Case.ONE_SIDED), ("w", OURS, Case.ONE_SIDED)]
    assert made.layout is OURS
    assert made.merged == ()


def test_the_same_change_on_both_sides_is_no_conflict() -> None:
    assert only(plan(OLD, manifest(w=2, k=0), manifest(w=2, k=0))).action is OURS
    both = manifest(w=2, k=0, new=3)
    assert only(plan(manifest(w=2, k=0), both, both), "new").action is OURS
    assert only(plan(None, manifest(w=1), manifest(w=1))).case is Case.SAME


def test_floats_that_both_sides_changed_are_merged() -> None:
    made = plan(OLD, manifest(w=2, k=0), manifest(w=3, k=0))
    assert only(made) == Decision("w", MERGE, Case.BOTH, "w", "w", "w", "average", {"weights": ()}, "F32", (2, 3))
    assert made.merged == (only(made),)
    assert made.layout is OURS


@pytest.mark.parametrize("dtype", ["I64", "U8", "BOOL"])
def test_integers_that_both_sides_changed_are_merged_element_by_element(dtype: str) -> None:
    old, mine, other = (manifest(w=record(content, dtype)) for content in (1, 2, 3))
    made = only(plan(old, mine, other))
    assert (made.action, made.strategy, made.options, made.dtype) == (MERGE, "three-way", {"inner": "conflict"}, dtype)
    made = only(plan(old, mine, other, Rules((Rule("*", "ties"),))))
    assert made.strategy == "three-way", "a strategy for floats is never given integers"
    assert only(plan(old, mine, other, Rules((Rule("w", "max"),)))).strategy == "max"


def test_counters_of_batches_take_the_larger() -> None:
    old, mine, other = (manifest(bn__num_batches_tracked=record(content, "I64", ())) for content in (1, 2, 3))
    assert only(plan(old, mine, other), "bn.num_batches_tracked").strategy == "max"


def test_what_one_side_added_or_deleted_is_taken() -> None:
    made = plan(OLD, manifest(w=1, k=0, new=3), manifest(k=0))
    assert kinds(made) == [("k", OURS, Case.UNCHANGED), ("new", OURS, Case.ONE_SIDED), ("w", DROP, Case.DELETED)]
    assert made.layout is None, "a layout of neither side: both added or took away"
    made = plan(OLD, OLD, manifest(w=1, k=0, new=3))
    assert only(made, "new").action is THEIRS
    assert made.layout is THEIRS
    made = plan(OLD, manifest(k=0), OLD)
    assert (only(made).action, made.layout) == (DROP, OURS)
    assert only(plan(OLD, manifest(k=0), manifest(k=0))).action is DROP


def test_what_both_sides_added_differently_is_a_conflict_and_no_deletion() -> None:
    made = plan(manifest(k=0), manifest(w=1, k=0), manifest(w=2, k=0))
    assert (only(made).action, only(made).case) == (CONFLICT, Case.ADDED)
    assert made.conflicts == (only(made),)
    assert only(made).reason
    assert made.layout is OURS, "both have one layout"


def test_what_both_sides_added_is_merged_where_a_rule_says_so() -> None:
    rules = Rules((Rule("w", "average", added=True),))
    made = only(plan(manifest(k=0), manifest(w=1, k=0), manifest(w=2, k=0), rules))
    assert (made.action, made.case, made.base, made.strategy) == (MERGE, Case.ADDED, None, "average")
    assert only(plan(None, manifest(w=1), manifest(w=2), rules)).action is MERGE
    for other in (record(2, shape=(3, 2)), record(2, "F16"), record(2, strides=(1, 2))):
        assert only(plan(None, manifest(w=1), manifest(w=other), rules)).action is CONFLICT
    needs_base = Rules((Rule("w", "ties", added=True),))
    assert only(plan(None, manifest(w=1), manifest(w=2), needs_base)).action is CONFLICT


def test_without_a_common_ancestor_everything_is_added() -> None:
    made = plan(None, manifest(w=1, k=0, mine=3), manifest(w=2, k=0, other=4))
    assert kinds(made) == [
        ("k", OURS, Case.SAME), ("mine", OURS, Case.ONE_SIDED), ("other", THEIRS, Case.ONE_SIDED),
        ("w", CONFLICT, Case.ADDED),
    ]  # fmt: skip
    assert made.layout is None


def test_deleted_on_one_side_and_changed_on_the_other_is_a_conflict() -> None:
    made = only(plan(OLD, manifest(k=0), manifest(w=2, k=0)))
    assert (made.action, made.case, made.ours, made.theirs) == (CONFLICT, Case.DELETED, None, "w")
    assert made.reason.startswith("ours deleted it, and theirs changed")
    made = only(plan(OLD, manifest(w=2, k=0), manifest(k=0)))
    assert (made.action, made.ours, made.theirs) == (CONFLICT, "w", None)
    assert made.reason.startswith("theirs deleted it, and ours changed")


def test_another_shape_on_one_side() -> None:
    wide = manifest(w=record(2, shape=(4, 3)), k=0)
    assert only(plan(OLD, wide, OLD)).action is OURS
    made = plan(OLD, wide, manifest(w=3, k=0))
    assert (only(made).action, only(made).case, made.layout) == (CONFLICT, Case.SHAPE, OURS)
    assert only(made).reason == "both sides changed it, and its shape: [4, 3] and [2, 3], from [2, 3]"


def test_rows_that_one_side_added_are_kept_where_a_rule_says_so() -> None:
    rules = Rules((Rule("*", "average", grown=True),))
    grown = manifest(w=record(2, shape=(4, 3)), k=0)
    for mine, other in ((grown, manifest(w=3, k=0)), (manifest(w=3, k=0), grown)):
        made = plan(OLD, mine, other, rules)
        assert (only(made).action, only(made).shape, only(made).case) == (MERGE, (4, 3), Case.SHAPE)
        assert made.layout is (OURS if mine is grown else THEIRS)
    for shape in ((1, 3), (4, 2), (2, 4), (6,), (2, 3, 1)):
        assert only(plan(OLD, manifest(w=record(2, shape=shape), k=0), manifest(w=3, k=0), rules)).action is CONFLICT
    both = manifest(w=record(4, shape=(5, 3)), k=0)
    assert only(plan(OLD, grown, both, rules)).action is CONFLICT
    same = manifest(w=record(4, shape=(4, 3)), k=0)
    assert only(plan(OLD, grown, same, rules)).action is CONFLICT


def test_another_dtype_on_one_side() -> None:
    half = manifest(w=record(2, "BF16"), k=0)
    made = plan(OLD, half, OLD)
    assert (only(made).action, made.layout) == (OURS, OURS)
    for mine, other, layout in ((half, manifest(w=3, k=0), OURS), (manifest(w=3, k=0), half, THEIRS)):
        made = plan(OLD, mine, other)
        assert (only(made).action, only(made).case, only(made).dtype) == (MERGE, Case.DTYPE, "BF16")
        assert made.layout is layout
    made = plan(OLD, half, manifest(w=record(3, "BF16"), k=0))
    assert (only(made).action, only(made).dtype) == (MERGE, "BF16")
    made = plan(OLD, half, manifest(w=record(3, "F16"), k=0))
    assert (only(made).action, only(made).reason) == (CONFLICT, "its dtype became BF16 and F16")


@pytest.mark.parametrize("dtype", ["I32", "F8_E4M3", "QI8", "C64", "opaque"])
def test_floats_that_became_something_else_are_a_conflict_if_both_changed(dtype: str) -> None:
    other = manifest(w=record(2, dtype), k=0)
    assert only(plan(OLD, OLD, other)).action is THEIRS
    made = only(plan(OLD, manifest(w=3, k=0), other))
    assert (made.action, made.case) == (CONFLICT, Case.CODED)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "QU8", "F4", "C64", "opaque"])
def test_codes_are_never_computed_with(dtype: str) -> None:
    old, mine, other = (manifest(w=record(content, dtype)) for content in (1, 2, 3))
    assert only(plan(old, mine, old)).action is OURS
    made = only(plan(old, mine, other, Rules((Rule("*", "average"),))))
    assert (made.action, made.case) == (CONFLICT, Case.CODED)


@pytest.mark.parametrize(
    ("codes", "scales"),
    [
        ("l.weight", "l.weight_scale_inv"), ("l.weight", "l.weight.absmax"), ("l.qweight", "l.scales"),
        ("weight_packed", "weight_scale"), ("m/l.weight", "m/l.SCB"), ("l.qzeros", "l.qweight"),
    ],
)  # fmt: skip
def test_codes_and_their_scales_are_of_one_side(codes: str, scales: str) -> None:
    def version(code: int, scale: int) -> Manifest:
        named = {codes: record(code, "U8"), scales: record(scale, "F32", (2,))}
        return replace(manifest(), parameters=named)

    old = version(1, 11)
    made = plan(old, version(2, 11), version(1, 13))
    assert [one.action for one in made.decisions] == [CONFLICT, CONFLICT]
    assert {one.case for one in made.decisions} == {Case.CODED}
    made = plan(old, version(2, 12), old)
    assert [one.action for one in made.decisions] == [OURS, OURS]
    made = plan(old, version(2, 12), version(2, 12))
    assert [one.action for one in made.decisions] == [OURS, OURS]
    made = plan(old, version(2, 12), version(3, 13), Rules((Rule("*", "theirs"),)))
    assert [one.action for one in made.decisions] == [THEIRS, THEIRS]


def test_a_scale_without_codes_is_a_number_like_any_other() -> None:
    old, mine, other = (manifest(norm__scales=content) for content in (1, 2, 3))
    assert only(plan(old, mine, other), "norm.scales").action is MERGE


def test_a_rename_is_followed_and_the_others_edit_goes_with_it() -> None:
    for mine, other, action in (
        (manifest(new=1, k=0), manifest(w=2, k=0), THEIRS),
        (manifest(w=2, k=0), manifest(new=1, k=0), OURS),
    ):
        made = plan(OLD, mine, other)
        assert (only(made, "new").action, only(made, "new").case, only(made, "new").base) == (action, Case.RENAMED, "w")
        assert made.layout is (OURS if action is THEIRS else THEIRS)
    one = only(plan(OLD, manifest(new=1, k=0), OLD), "new")
    assert (one.action, one.case, one.ours, one.theirs) == (OURS, Case.RENAMED, "new", "w")
    both = manifest(new=1, k=0)
    assert only(plan(OLD, both, both), "new").action is OURS


def test_renames_that_disagree_are_conflicts() -> None:
    made = only(plan(OLD, manifest(new=1, k=0), manifest(other=1, k=0)), "new")
    assert (made.action, made.case, made.theirs) == (CONFLICT, Case.RENAMED, "other")
    made = only(plan(OLD, manifest(new=1, k=0), manifest(k=0)), "new")
    assert (made.action, made.case) == (CONFLICT, Case.DELETED)


def test_a_name_that_one_side_renamed_to_and_the_other_added_is_a_conflict() -> None:
    made = plan(OLD, manifest(new=1, k=0), manifest(w=1, new=9, k=0))
    assert [(one.name, one.action) for one in made.decisions] == [("k", OURS), ("new", CONFLICT), ("new", CONFLICT)]
    assert [(one.ours, one.theirs) for one in made.conflicts] == [(None, "new"), ("new", "w")]


def test_two_renames_to_one_name_leave_ours_as_it_is() -> None:
    old = manifest(a=1, b=2)
    made = plan(old, manifest(n=1, b=2), manifest(a=1, n=2))
    assert {(one.name, one.ours, one.theirs, one.action) for one in made.decisions} == {
        ("n", "n", "a", CONFLICT), ("b", "b", "n", CONFLICT),
    }  # fmt: skip


@pytest.mark.parametrize(("strategy", "names"), [("ours", ["b", "n"]), ("theirs", ["a", "n"]), ("base", ["a", "b"])])
def test_a_rule_settles_two_renames_to_one_name(strategy: str, names: list[str]) -> None:
    for pattern in ("n", "*"):
        made = plan(manifest(a=1, b=2), manifest(n=1, b=2), manifest(a=1, n=2), Rules((Rule(pattern, strategy),)))
        assert not made.conflicts
        assert [one.name for one in made.decisions] == names


def test_rules_that_give_two_parameters_one_name_settle_nothing() -> None:
    rules = Rules((Rule("a", "ours"), Rule("b", "theirs")))
    made = plan(manifest(a=1, b=2), manifest(n=1, b=2), manifest(a=1, n=2), rules)
    assert [one.name for one in made.conflicts] == ["b", "n"]


def test_a_rule_settles_a_rename_by_the_name_that_the_user_is_told() -> None:
    sides = manifest(new=1, k=0), manifest(other=1, k=0)
    [told] = plan(OLD, *sides).conflicts
    made = plan(OLD, *sides, Rules((Rule(told.name, "theirs"),)))
    assert not made.conflicts
    assert [one.name for one in made.decisions] == ["k", "other"]


def test_values_that_are_alike_are_told_apart_by_the_ends_of_their_names() -> None:
    old = manifest(model__0__norm=1, model__1__norm=1, model__0__bias=1, k=0)
    new = {"0.norm": "0.norm", "1.norm": "1.norm", "0.bias": "0.bias"}
    mine = replace(manifest(), parameters={name: old.parameters[f"model.{name}"] for name in new} | {"k": record(0)})
    made = plan(old, mine, manifest(model__0__norm=1, model__1__norm=7, model__0__bias=1, k=0))
    assert [(one.name, one.base, one.action) for one in made.decisions] == [
        ("0.bias", "model.0.bias", OURS), ("0.norm", "model.0.norm", OURS), ("1.norm", "model.1.norm", THEIRS),
        ("k", "k", OURS),
    ]  # fmt: skip


def test_values_that_cannot_be_told_apart_are_deleted_and_added() -> None:
    old, mine = manifest(a=1, b=1), manifest(c=1, d=1)
    assert kinds(plan(old, mine, old)) == [
        ("a", DROP, Case.DELETED), ("b", DROP, Case.DELETED), ("c", OURS, Case.ONE_SIDED), ("d", OURS, Case.ONE_SIDED),
    ]  # fmt: skip
    assert [one.name for one in plan(old, mine, manifest(a=2, b=1)).conflicts] == ["a"]


def test_a_copy_is_no_rename() -> None:
    made = plan(OLD, manifest(w=1, k=0, copy=1), manifest(w=2, k=0))
    assert kinds(made) == [
        ("copy", OURS, Case.ONE_SIDED), ("k", OURS, Case.UNCHANGED), ("w", THEIRS, Case.ONE_SIDED),
    ]  # fmt: skip


def tied(content: int, *names: str) -> Manifest:
    return manifest(embed=record(content, views=dict.fromkeys(names)), k=0)


def test_tied_weights_are_merged_once() -> None:
    made = only(plan(tied(1, "head"), tied(2, "head"), tied(3, "head")), "embed")
    assert (made.action, made.views) == (MERGE, (View("head", "F32", (2, 3)),))


def test_a_tie_of_one_side_and_a_value_of_the_other_are_both_taken() -> None:
    apart = manifest(embed=1, head=1, k=0)
    made = plan(apart, tied(1, "head"), manifest(embed=3, head=1, k=0))
    assert kinds(made) == [
        ("embed", THEIRS, Case.ONE_SIDED), ("head", DROP, Case.TIED), ("k", OURS, Case.UNCHANGED),
    ]  # fmt: skip
    assert made.decisions[0].views == (View("head", "F32", (2, 3)),)
    assert made.layout is OURS
    made = plan(apart, tied(1, "head"), manifest(embed=1, head=3, k=0))
    assert [(one.name, one.ours) for one in made.conflicts] == [("head", None)]


def test_a_weight_that_one_side_unties_goes_on_from_the_value_it_was_tied_to() -> None:
    made = plan(tied(1, "head"), manifest(embed=1, head=5, k=0), tied(3, "head"))
    assert [(one.name, one.action, one.ours, one.theirs, one.base) for one in made.decisions] == [
        ("embed", THEIRS, "embed", "embed", "embed"),
        ("head", MERGE, "head", "embed", "embed"),
        ("k", OURS, "k", "k", "k"),
    ]
    assert (made.decisions[0].views, made.layout) == ((), OURS)
    made = plan(tied(1, "head"), manifest(embed=1, head=1, k=0), tied(3, "head"))
    assert [one.action for one in made.decisions] == [THEIRS, THEIRS, OURS], "what was tied is not left behind"
    made = plan(tied(1, "head"), manifest(embed=1, head=5, k=0), tied(1))
    assert [one.name for one in made.conflicts] == ["head"]


def test_ties_that_both_sides_made_differently_are_a_conflict() -> None:
    made = only(plan(tied(1), tied(1, "a"), tied(1, "b")), "embed")
    assert (made.action, made.case) == (CONFLICT, Case.TIED)
    resized = manifest(embed=record(2, shape=(4, 3)), k=0)
    assert only(plan(tied(1), tied(1, "a"), resized), "embed").case is Case.TIED


def test_another_order_of_elements_is_a_conflict_if_both_changed() -> None:
    turned = manifest(w=record(2, strides=(1, 2)), k=0)
    assert only(plan(OLD, turned, OLD)).action is OURS
    made = only(plan(OLD, turned, manifest(w=3, k=0)))
    assert (made.action, made.case) == (CONFLICT, Case.SHAPE)


def test_the_layout_is_that_of_the_side_that_changed_it() -> None:
    old, mine = manifest("old", w=1), manifest("mine", w=1)
    assert plan(old, mine, manifest("old", w=2)).layout is OURS
    assert plan(old, manifest("old", w=2), mine).layout is THEIRS
    assert plan(old, mine, mine).layout is OURS
    assert plan(old, mine, manifest("other", w=1)).layout is None


def test_the_layout_of_a_side_is_not_used_for_other_parameters_than_it_has() -> None:
    made = plan(OLD, manifest(w=1, k=0, new=2), manifest(k=5), Rules((Rule("k", "ours"),)))
    assert made.layout is None
    deleted = plan(OLD, OLD, manifest(k=0))
    assert deleted.layout is THEIRS
    kept = plan(OLD, manifest(w=2, k=0), manifest(k=0))
    assert [one.name for one in kept.conflicts] == ["w"]
    assert kept.layout is None, "theirs has no place for what the conflict keeps"


@pytest.mark.parametrize(("strategy", "action"), [("ours", OURS), ("theirs", THEIRS), ("base", Action.BASE)])
def test_a_rule_that_names_a_side_settles_everything(strategy: str, action: Action) -> None:
    rules = Rules((Rule("w", strategy),))
    for mine, other in (
        (2, 3),
        (record(2, "I64"), record(3, "opaque")),
        (record(2, shape=(7,)), record(3, shape=(9,))),
        (record(2, strides=(1, 2)), 3),
    ):
        made = only(plan(OLD, manifest(w=mine, k=0), manifest(w=other, k=0), rules))
        assert (made.action, made.strategy) == (action, "")
    [made] = plan(None, manifest(w=1), manifest(w=2), rules).decisions
    assert made.action is (DROP if strategy == "base" else action)
    made = only(plan(OLD, manifest(k=0), manifest(w=2, k=0), rules))
    assert made.action is (DROP if strategy == "ours" else action)


def test_a_rule_never_changes_what_is_one_sided() -> None:
    rules = Rules((Rule("*", "ours"),))
    assert only(plan(OLD, OLD, manifest(w=2, k=0), rules)).action is THEIRS


def test_the_first_rule_that_matches_and_fits_counts() -> None:
    rules = Rules((Rule("layer.?.*", "ties", {"density": 0.5}), Rule("*", "slerp"), Rule("layer*", "ours")))
    old, mine, other = (manifest(layer__1__w=content, w=content) for content in (1, 2, 3))
    made = plan(old, mine, other, rules)
    assert [(one.name, one.strategy) for one in made.decisions] == [("layer.1.w", "ties"), ("w", "slerp")]
    assert made.decisions[0].options["density"] == 0.5
