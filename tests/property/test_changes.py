"""Laws of comparing two versions, over any manifests."""

from hypothesis import given, settings

from git_theta.changes import Change, Kind, compare
from git_theta.manifest import Manifest
from git_theta.matching import content, ties
from tests.property.test_threeway import versions

LAW = settings(deadline=None, max_examples=200)


@given(versions())
@LAW
def test_a_version_differs_in_nothing_from_itself(one: Manifest) -> None:
    made = compare(one, one)
    assert (made.items, made.unchanged, made.is_layout_new, made.added_bytes) == ((), len(one.parameters), False, 0)


@given(versions(), versions())
@LAW
def test_the_way_back_is_the_same_changes_reversed(before: Manifest, after: Manifest) -> None:
    there, back = compare(before, after), compare(after, before)

    def key(item: Change) -> str:
        return repr(item)

    assert sorted(map(key, there.items)) == sorted(key(item.reversed()) for item in back.items)
    assert len(there.of(Kind.ADDED)) == len(back.of(Kind.REMOVED))
    assert there.is_layout_new == back.is_layout_new


@given(versions(), versions())
@LAW
def test_every_name_is_accounted_for(before: Manifest, after: Manifest) -> None:
    """What is not said to have changed is the same; what a version has or lacks is said."""
    made = compare(before, after)
    new = {item.after.name for item in made.items if item.after}
    old = {item.before.name for item in made.items if item.before}
    turned = {name for name, owner in ties(after).items() if ties(before).get(owner) == name}
    for name, row in after.parameters.items():
        if name not in new and name in before.parameters:
            assert content(before.parameters[name]) == content(row)
        elif name not in new:
            assert ties(before)[name] in turned
    for name in before.parameters.keys() - after.parameters.keys():
        assert name in old | turned
    assert made.unchanged + len({item.after.name for item in made.items if item.after and not item.after.owner}) == len(
        after.parameters
    )
