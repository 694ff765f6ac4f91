"""The report on a comparison: its groups, its words, and how much it says."""

from dataclasses import replace

import pytest

from git_theta import report
from git_theta.changes import compare
from git_theta.comparison import Comparison, Rest
from git_theta.errors import MissingObjectError
from git_theta.grouping import Sort, groups
from git_theta.ledger import Pair
from git_theta.manifest import Manifest, Piece, Step
from git_theta.report import Style
from git_theta.scalars import Difference
from git_theta.statistics import Statistics
from git_theta.tensor import View
from tests.manifests import manifest, record

SOME = Statistics(6, 3, 2, 1, 3.0, 4.0, 1.5, 0.5)


def compared(before: Manifest | None, after: Manifest | None, **found: Statistics | MissingObjectError) -> Comparison:
    """A comparison with these statistics of changes, by name."""
    changes = compare(before, after)
    pairs: dict[str, Pair] = {item.name: item.pair for item in changes.items if item.pair}
    return Comparison(
        before,
        after,
        changes,
        {pairs[name]: item for name, item in found.items()},
        (),
        Rest.SAME,
        (),
        {},
        0,
        is_kept=False,
    )


def text(one: Comparison, *, full: bool = False) -> list[str]:
    return [line.text for line in report.lines("m.pt", one, full=full)]


def test_a_line_for_the_file() -> None:
    old, new = manifest(w=1, k=0), manifest(w=2, k=0)
    assert text(compared(old, new))[0] == (
        f"m.pt  {old.digest[:7]}..{new.digest[:7]}   2 parameters: 1 changed, 1 unchanged"
    )
    kept = replace(compared(old, new), is_kept=True)
    assert text(kept)[0].endswith("1 unchanged   +24 B stored of 48 B")
    assert text(compared(None, new))[0].startswith(f"m.pt  0000000..{new.digest[:7]}   2 parameters: 2 added")
    other = replace(new, format="torch")
    assert text(compared(old, other))[0].endswith("   safetensors -> torch")


def test_statistics_of_a_group_are_those_of_all_together() -> None:
    old = manifest(**{f"l.{number}": number for number in range(3)})
    new = manifest(**{f"l.{number}": number + 10 for number in range(3)})
    one = compared(old, new, **{f"l.{number}": replace(SOME, change=0.5 * number) for number in range(3)})
    [group] = groups(one)
    assert (group.name, len(group.changes), group.size) == ("l.{0-2}", 3, 72)
    assert group.total is not None
    assert group.total.change == pytest.approx((0.25 + 1) ** 0.5)
    assert group.total.before == pytest.approx(27**0.5)
    assert (group.total.elements, group.total.changed, group.total.rows, group.total.changed_rows) == (18, 9, 6, 3)
    detail = text(one)[2].strip()
    assert detail.startswith("|change|/|weight| 21.5% (max 33.3% at l.2)   50% of elements   3 of 6 rows   ")
    part = compared(old, new, **{"l.0": SOME})
    assert "max 50" not in text(part)[2], "whose is the largest is not known"
    assert len(groups(one, full=True)) == 3


def trained_layers(*changes: float) -> Comparison:
    """Layers of a norm of 1, each with its change."""
    names = [f"l.{number}" for number in range(len(changes))]
    old, new = (manifest(**{name: f"{side}{name}" for name in names}) for side in ("old", "new"))
    rows = {name: replace(SOME, before=1.0, change=change) for name, change in zip(names, changes, strict=True)}
    return compared(old, new, **rows)


def test_what_changed_far_more_than_the_others_has_a_line_of_its_own() -> None:
    one = trained_layers(0.01, 0.02, 0.5, 0.01, 0.012, 0.2)
    [group] = groups(one)
    assert group.outliers == (("l.2", 0.5), ("l.5", 0.2))
    assert [line.strip() for line in text(one) if "far more" in line] == [
        "far more than the others: l.2   50%",
        "far more than the others: l.5   20%",
    ]
    many = trained_layers(*[0.01] * 20, *[0.3] * 5)
    assert text(many)[-1].strip() == "2 more changed far more than the others; --full lists all"
    assert "far more" not in "".join(text(many, full=True))


@pytest.mark.parametrize(
    "changes",
    [(0.01, 0.02, 0.9), (0.01, 0.02, 0.03, 0.07), (0.5,) * 9, (0.0, 0.0, 0.0, 0.0)],
    ids=["too few to tell", "not far", "all alike", "none"],
)
def test_what_is_in_line_has_none(changes: tuple[float, ...]) -> None:
    assert groups(trained_layers(*changes))[0].outliers == ()


def test_weights_that_were_zero_changed_infinitely() -> None:
    one = trained_layers(0.1, 0.2, 0.3, 0.4, 0.5)
    change = one.changes.items[1]
    assert change.pair
    one = replace(one, found={**one.found, change.pair: replace(SOME, before=0.0)})
    [group] = groups(one)
    assert group.outliers == (("l.1", None),)
    assert "(max inf at l.1)" in text(one)[2]
    assert [item.name for item in groups(one, full=True, sort=Sort.REL)] == ["l.1", "l.4", "l.3", "l.2", "l.0"]


def test_what_differs_in_kind_is_not_folded() -> None:
    old = manifest(**{"l.0": 0, "l.1": 1, "l.2": record(2, "BF16"), "l.3": record(3, shape=(4, 3))})
    new = manifest(**{"l.0": 9, "l.1": 8, "l.2": record(7, "BF16"), "l.3": record(6, shape=(4, 3)), "l.4": 5})
    assert [group.name for group in groups(compared(old, new))] == ["l.{0-1}", "l.2", "l.3", "l.4"]


def test_renames_are_folded_with_their_old_names() -> None:
    old = manifest(**{f"old.{number}.w": number for number in range(3)}, other=7)
    new = manifest(**{f"new.{number}.w": number for number in range(3)}, fresh=7)
    assert [line.split("   ")[0] for line in text(compared(old, new))[1:]] == [
        "  > other -> fresh",
        "  > old.{0-2}.w -> new.{0-2}.w",
    ]


def test_by_which_updates_the_values_are_stored() -> None:
    old = manifest(**{f"l.{number}": number for number in range(3)})
    rows = {f"l.{number}": record(number + 10) for number in range(3)}
    sparse = Step("sparse", (Piece("ab" * 32, 7, 0, 7),))
    rows["l.2"] = replace(rows["l.2"], store=(*old.parameters["l.2"].store, sparse))
    one = compared(old, replace(old, digest="0" * 64, parameters=rows))
    assert text(one)[1].endswith("   3x [2, 3] F32   dense (2), sparse (1)")
    assert text(replace(one, notes={sparse: "k=4"}))[1].endswith("   dense (2), sparse k=4 (1)")


def test_order() -> None:
    old = manifest(a=1, b=record(2, shape=(9, 9)), c=3)
    new = manifest(a=4, b=record(5, shape=(9, 9)), c=6)
    one = compared(old, new, a=SOME, c=replace(SOME, change=9.0))

    def names(sort: Sort) -> list[str]:
        return [group.name for group in groups(one, full=True, sort=sort)]

    assert names(Sort.NAME) == ["a", "b", "c"]
    assert names(Sort.REL) == ["c", "a", "b"]
    assert names(Sort.SIZE) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("old", "new", "found", "said"),
    [
        (record(1), record(2, shape=(4, 3)), None, "[2, 3] -> [4, 3] F32   2 rows added"),
        (record(1), record(2, shape=(1, 3)), replace(SOME, changed=0), "1 row removed, no other row changed"),
        (record(1), record(2, shape=(4, 3)), SOME, "2 rows added, 1 other row changed"),
        (record(1, shape=(4,)), record(2, shape=(9,)), replace(SOME, rows=0), "5 rows added, 3 other rows changed"),
        (record(1), record(2, "BF16"), None, "[2, 3] F32 -> BF16"),
        (record(1), record(2, shape=(3, 2)), None, "[2, 3] -> [3, 2] F32"),
        (record(1, strides=(1, 2)), record(2), None, "its elements stand in another order"),
        (record(1, views={"v": View("v", "F32", (3,))}), record(1), None, "other views of the same value"),
        (record(1, "opaque", (9,)), record(2, "opaque", (9,)), Statistics(9, 9), "opaque [9]"),
    ],
)
def test_what_happened_is_said(old: object, new: object, found: Statistics | None, said: str) -> None:
    statistics = {"w": found} if found else {}
    assert said in text(compared(manifest(w=old), manifest(w=new), **statistics))[1]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (SOME, "|change|/|weight| 50%   50% of elements   1 of 2 rows   max |change| 0.5   cosine 0.9479"),
        (replace(SOME, before=0.0), "|change|/|weight| inf   50% of elements   1 of 2 rows   max |change| 0.5"),
        (replace(SOME, elements=10_000, changed=9_999), "9,999 of 10,000 elements"),
        (replace(SOME, elements=10_000, changed=1), "1 of 10,000 elements"),
        (replace(SOME, elements=10_000, changed=10_000), "100% of elements"),
        (replace(SOME, before=1.0, after=1.0, change=1e-4), "cosine 0.999999995"),
        (replace(SOME, before=1.0, after=1.0, change=2.0), "cosine -1.0000"),
        (replace(SOME, change=0.0, largest=0.0), "50% of elements   1 of 2 rows   but no finite number"),
        (Statistics(900, 9), "1% of bytes"),
    ],
)
def test_statistics_in_words(found: Statistics, said: str) -> None:
    assert said in text(compared(manifest(w=1), manifest(w=2), w=found))[2]


def test_a_histogram_in_words() -> None:
    def said(**bins: int) -> str:
        counts = tuple(bins.get(f"b{number}", 0) for number in range(24))
        return text(compared(manifest(w=1), manifest(w=2), w=replace(SOME, histogram=counts)))[3].strip()

    begin = "changed elements by |change|/|weight|   "
    assert said(b14=3, b15=2) == begin + "1e-1: 100%"
    assert said(b0=1, b9=996, b23=3) == begin + "below 1e-7: 0.1%   1e-4: 99.6%   from 1e3: 0.3%"


def test_nan_is_alarming_and_not_endless() -> None:
    names = [f"l.{number}" for number in range(30)]
    old, new = (manifest(**{name: f"{side}{name}" for name in names}) for side in ("old", "new"))
    one = compared(old, new, **dict.fromkeys(names, replace(SOME, nans=(1, 2), infinities=(0, 0))))
    alarms = [line.text for line in report.lines("m.pt", one) if line.style is Style.ALARM]
    assert alarms[0] == "  ! l.0   NaN: 1 -> 2"
    assert len(alarms) == 21
    assert alarms[-1] == "  ! 10 more have NaN or Inf; --full lists all"
    assert len([line for line in report.lines("m.pt", one, full=True) if line.style is Style.ALARM]) == 30


def test_why_there_are_no_statistics() -> None:
    old, new = manifest(a=1, b=2, c=3), manifest(a=4, b=5, c=6)
    gone = MissingObjectError("object ab is not on this machine")
    one = compared(old, new, a=gone, b=gone)
    assert text(one)[-1] == (
        "  no statistics of 2 parameters: object ab is not on this machine; run: git theta fetch REVISION"
    )
    left = tuple(item.pair for item in one.changes.items if item.pair)
    assert text(replace(one, left=left, found={}))[-1] == (
        "  statistics of 3 parameters (72 B) not computed; --stats computes them"
    )


@pytest.mark.parametrize("rest", [Rest.ORDER, Rest.SKELETON, Rest.UNKNOWN])
def test_what_changed_beside_the_parameters(rest: Rest) -> None:
    lines = text(replace(compared(manifest("a", w=1), manifest("b", w=1)), rest=rest))
    assert len(lines) == 2
    assert lines[1].startswith("  * the ")


def test_numbers_and_strings_beside_the_parameters() -> None:
    one = compared(manifest("a", w=1), manifest("b", w=1))
    rows = (
        Difference("epoch", 3, 4, was_there=True, is_there=True),
        Difference("lr\x1b", 2e-5, None, was_there=True, is_there=False),
        Difference("note", None, "\x1b[31m", was_there=False, is_there=True),
        Difference("text", "x" * 99, 10**5000, was_there=True, is_there=True),
        Difference("none", None, True, was_there=True, is_there=True),
    )
    assert text(replace(one, scalars=rows))[1:] == [
        "  * epoch   3 -> 4",
        "  * lr\\u001b   - 2e-05",
        '  * note   + "\\u001b[31m"',
        '  * text   "' + "x" * 59 + "... -> an integer of 16,610 bits",
        "  * none   None -> True",
    ]
    many = tuple(replace(rows[0], name=f"{number}") for number in range(30))
    assert len(text(replace(one, scalars=many))) == 22
    assert text(replace(one, scalars=many))[-1] == "  * 10 more numbers and strings differ; --full lists all"
    assert len(text(replace(one, scalars=many), full=True)) == 31


def test_a_hundred_thousand_parameters_are_a_few_lines() -> None:
    old = manifest(**{f"layers.{number}.{word}": 1 for number in range(10_000) for word in "qkvo"})
    one = replace(old, digest="0" * 64, parameters={name: record(2) for name in old.parameters})
    assert len(text(compared(old, one))) == 2
