"""Each strategy on numbers worked out by hand from its paper's formula, and beside other people's implementations."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from peft.utils import merge_utils

from git_theta.errors import ConflictError
from git_theta.merges.arrays import encode, numpy_backend
from git_theta.merges.averages import AVERAGE, FISHER, REGMEAN
from git_theta.merges.base import Inputs, Merge, read_options
from git_theta.merges.copies import BASE, MAX, OURS, THEIRS
from git_theta.merges.diloco import DILOCO, momentum
from git_theta.merges.dropping import BREADCRUMBS, DARE_LINEAR, DARE_TIES, DELLA
from git_theta.merges.elements import NEARSWAP, THREE_WAY
from git_theta.merges.masks import uniform
from git_theta.merges.signs import SCE, TIES
from git_theta.merges.spherical import NUSLERP, SLERP
from git_theta.merges.task_vectors import MODEL_STOCK, TASK_ARITHMETIC
from tests.merges.arithmetic import Numbers, merged, task


def single(*values: float) -> list[float]:
    """The values as float32 has them."""
    return [float(np.float32(value)) for value in values]


def test_copies() -> None:
    for strategy, expected in ((OURS, [2, 9]), (THEIRS, [3, 8]), (BASE, [1, 1]), (MAX, [3, 9])):
        for dtype in ("I64", "U8", "BF16"):
            assert merged(strategy, task([1, 1], [2, 9], [3, 8], dtype=dtype)) == expected


def test_the_mean_of_2_and_4_is_3() -> None:
    """The first Git-Theta gave 1.5: it divided twice."""
    assert merged(AVERAGE, task([0], [2], [4])) == [3]
    assert merged(AVERAGE, task(None, [1], [2], [6])) == [3]


def test_an_average_by_weights_goes_by_their_ratio() -> None:
    for weights in ("3,1", [0.75, 0.25], (300, 100)):
        assert merged(AVERAGE, task(None, [2], [4]), weights=weights) == [2.5]
    assert merged(AVERAGE, task(None, [2], [4]), weights="0,5") == [4]


def test_an_average_leaves_what_the_sides_agree_on() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype("<f4").tolist()
    assert merged(AVERAGE, task(None, values, values), weights="0.3,0.7") == values
    assert merged(AVERAGE, task(None, values, values, values)) == values


def test_a_mean_of_brain_floats_is_rounded_once() -> None:
    """0.3 * 1 + 0.7 * (1 + 1/128) is nearer to 1 + 1/128; 0.3 and 0.7 in BF16 already add up to something else."""
    assert merged(AVERAGE, task(None, [1, 1], [1 + 1 / 128, 3], dtype="BF16"), weights="0.3,0.7") == [
        1 + 1 / 128,
        2.40625,
    ]


def test_task_arithmetic_adds_what_the_sides_added() -> None:
    given: Sequence[Numbers] = ([1, 1, 1], [3, 2, 1], [0, 2, 5])
    assert merged(TASK_ARITHMETIC, task(*given)) == [2, 3, 5]
    assert merged(TASK_ARITHMETIC, task(*given), lambda_=0.5) == [1.5, 2, 3]
    assert merged(TASK_ARITHMETIC, task(*given), weights="1,2") == [1, 4, 9]
    assert merged(TASK_ARITHMETIC, task(*given), weights="1,-1") == [4, 1, -3]


def test_task_arithmetic_takes_what_one_side_alone_changed() -> None:
    """1 + (1e-10 - 1) is 0 in float32."""
    assert merged(TASK_ARITHMETIC, task([1, 1], [1e-10, 1], [1, -1e-12])) == single(1e-10, -1e-12)


def test_slerp_goes_along_the_arc() -> None:
    assert merged(SLERP, task(None, [1, 0], [0, 1])) == single(math.sqrt(0.5), math.sqrt(0.5))
    assert merged(SLERP, task(None, [1, 0], [0, 1]), t=1 / 3) == pytest.approx([math.sqrt(3) / 2, 0.5], rel=1e-7)


def test_slerp_takes_the_line_where_there_is_no_arc() -> None:
    assert merged(SLERP, task(None, [1, 0], [1, 0.001])) == single(1, 0.0005)
    assert merged(SLERP, task(None, [1, 0], [-1, 0]), t=0.25) == [0.5, 0]
    assert merged(SLERP, task(None, [0, 0], [1, 2])) == [0.5, 1]
    assert merged(SLERP, task(None, [1, 0], [0, 1]), t=0) == [1, 0]
    assert merged(SLERP, task(None, [1, 0], [0, 1]), t=1) == pytest.approx([0, 1], abs=1e-7)


def test_nuslerp_turns_changes_where_there_is_a_base() -> None:
    half, third = math.sqrt(0.5), math.sqrt(3) / 2
    assert merged(NUSLERP, task([1, 1], [2, 1], [1, 2])) == pytest.approx([1 + half, 1 + half], rel=1e-7)
    assert merged(NUSLERP, task([1, 1], [2, 1], [1, 2]), weights="2,1") == pytest.approx([1 + third, 1.5], rel=1e-7)
    assert merged(NUSLERP, task(None, [3, 0], [0, 3])) == pytest.approx([3 * half, 3 * half], rel=1e-7)


def test_ties_trims_elects_and_averages_those_who_agree() -> None:
    ours, theirs = [5, -4, 1, 0.5, 0.1], [-3, -2, 0.1, 4, 0]
    assert merged(TIES, task([0] * 5, ours, theirs), density=0.4) == [5, -4, 0, 4, 0]
    assert merged(TIES, task([0] * 5, ours, theirs), density=0.4, lambda_=0.5) == [2.5, -2, 0, 2, 0]
    assert merged(TIES, task([1] * 5, [6, 1, 1, 1, 1], [4, 1, 1, 1, 1])) == [5, 1, 1, 1, 1]
    assert merged(TIES, task([0] * 2, [1, 3], [-1, 1]), density=1) == [0, 2]  # the sign of 0 is nobody's


def test_ties_is_that_of_peft() -> None:
    base, ours, theirs = (np.random.default_rng(seed).standard_normal(500).astype("<f4") for seed in range(3))
    changes = [torch.from_numpy(side - base) for side in (ours, theirs)]
    expected = base + merge_utils.ties(changes, torch.ones(2), 0.2).numpy()
    assert merged(TIES, task(base.tolist(), ours.tolist(), theirs.tolist())) == expected.tolist()


def test_a_density_that_is_not_given_is_not_1() -> None:
    """Elsewhere it is 1, and strategies that are all about dropping drop nothing until someone sets it."""
    base, ours, theirs = (np.random.default_rng(seed).standard_normal(200).tolist() for seed in range(3))
    for strategy in (TIES, DARE_LINEAR, DARE_TIES, BREADCRUMBS):
        rest = {"gamma": 0} if strategy is BREADCRUMBS else {}
        assert merged(strategy, task(base, ours, theirs)) != merged(
            strategy, task(base, ours, theirs), density=1, **rest
        )


def philox(counter: int, key: tuple[int, int]) -> list[int]:
    """Philox 4x64-10 in plain Python; the test below holds it to the authors' known answer."""
    lanes = [counter >> shift & 2**64 - 1 for shift in (0, 64, 128, 192)]
    for turn in range(10):
        left, right = (
            (k + turn * bump) % 2**64 for k, bump in zip(key, (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B), strict=True)
        )
        one, two = 0xD2E7470EE14C6C93 * lanes[0], 0xCA5A826395121157 * lanes[2]
        lanes = [two >> 64 ^ lanes[1] ^ left, two % 2**64, one >> 64 ^ lanes[3] ^ right, one % 2**64]
    return lanes


def test_masks_are_philox_keyed_by_name_and_content() -> None:
    assert philox(0, (0, 0)) == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    from blake3 import blake3

    options = read_options(DARE_LINEAR, {"seed": 7})
    side = np.zeros(20, "<f4")
    found = uniform(numpy_backend(), Inputs("é.weight", (side, side), digests=("ours", "theirs"), offset=3), 1, options)
    text = b"".join(
        len(part).to_bytes(8, "little") + part
        for part in (b"git-theta merge mask 1", b"7", "é.weight".encode(), b"theirs")
    )
    hashed = blake3(text).digest(length=16)
    key = (int.from_bytes(hashed[:8], "little"), int.from_bytes(hashed[8:], "little"))
    words = [lane >> shift & 2**32 - 1 for counter in (1, 2, 3) for lane in philox(counter, key) for shift in (0, 32)]
    assert found.tolist() == [(word >> 8) / 2**24 for word in words[3:23]]


def test_dare_keeps_a_share_and_scales_it_up() -> None:
    count = 20_000
    given = task([0] * count, [1] * count, [10] * count)
    found = merged(DARE_LINEAR, given, density=0.25)
    assert {*found} == {0, 4, 40, 44}
    assert [found.count(value) / count for value in (0, 4, 40, 44)] == pytest.approx(
        [9 / 16, 3 / 16, 3 / 16, 1 / 16], abs=0.02
    )


def test_dare_by_a_density_of_1_is_task_arithmetic() -> None:
    given: Sequence[Numbers] = ([1, 1], [3, 2], [0, 2])
    assert merged(DARE_LINEAR, task(*given), density=1) == [2, 3]
    assert merged(DARE_LINEAR, task(*given), density=1, weights="1,2", lambda_=0.5) == [1, 2.5]


def test_dare_ties_elects_a_sign_among_what_is_left() -> None:
    count = 20_000
    found = merged(DARE_TIES, task([0] * count, [1] * count, [-10] * count))
    assert {*found} == {0, 2, -20}
    assert [found.count(value) / count for value in (0, 2, -20)] == pytest.approx([0.25, 0.25, 0.5], abs=0.02)


def test_masks_depend_on_name_content_and_seed_and_not_on_the_side() -> None:
    ours, theirs = np.random.default_rng(0).standard_normal((2, 100)).tolist()
    first = merged(DARE_LINEAR, task([0] * 100, ours, theirs))
    assert merged(DARE_LINEAR, task([0] * 100, theirs, ours)) == first
    assert merged(DARE_LINEAR, task([0] * 100, ours, theirs), seed=1) != first
    assert merged(DARE_LINEAR, task([0] * 100, ours, theirs, name="other")) != first
    swapped = merged(DARE_LINEAR, task([0] * 100, [*ours[:99], 9], theirs))
    assert swapped[:99] != first[:99]


def test_della_keeps_large_changes_more_often_in_each_row() -> None:
    rows = 20_000
    found = np.array(merged(DELLA, task([[0] * 3] * rows, [[2, -3, 1]] * rows, [[0] * 3] * rows)))
    for column, (change, chance) in enumerate(((2, 0.5), (-3, 0.65), (1, 0.35))):
        kept = found[:, column][found[:, column] != 0]
        assert np.unique(kept).tolist() == pytest.approx([change / chance], rel=1e-6)
        assert len(kept) / rows == pytest.approx(chance, abs=0.02)


def test_breadcrumbs_drop_the_largest_and_the_many() -> None:
    changes = [*range(1, 101)]
    expected = [change if 90 <= change <= 99 else 0 for change in changes]
    assert merged(BREADCRUMBS, task([0] * 100, changes, [0] * 100)) == expected
    assert merged(BREADCRUMBS, task([0] * 100, changes, changes), weights="1,2") == [3 * change for change in expected]
    assert merged(BREADCRUMBS, task([0], [5], [0])) == [5]  # one element is not nothing


def test_model_stock_goes_as_far_as_the_changes_agree() -> None:
    share = 2 * math.sqrt(0.5) / (1 + math.sqrt(0.5))
    assert merged(MODEL_STOCK, task([0, 0], [1, 0], [1, 1])) == pytest.approx([share, share / 2], rel=1e-7)
    assert merged(MODEL_STOCK, task([1, 1], [2, 1], [1, 2])) == [1, 1]
    assert merged(MODEL_STOCK, task([1, 1], [2, 1], [0, 1])) == [1, 1]
    assert merged(MODEL_STOCK, task([1, 1], [2, 1], [4, 1])) == [3, 1]
    third = 3 * 0.5 / (1 + 2 * 0.5)  # three sides, each pair at 60 degrees
    sides: Sequence[Numbers] = ([1, 1, 0], [1, 0, 1], [0, 1, 1])
    assert merged(MODEL_STOCK, task([0] * 3, *sides)) == pytest.approx([third * 2 / 3] * 3, rel=1e-6)


def test_sce_weighs_sides_by_the_square_of_their_change() -> None:
    given: Sequence[Numbers] = ([0] * 3, [1, -1, 2], [3, 3, 0])
    assert merged(SCE, task(*given)) == [2.5, 3, 2]  # 6/24 and 18/24
    assert merged(SCE, task(*given), select=1 / 3) == pytest.approx([0, 3, 0], rel=1e-6)
    tiny = [[value * 2**-20 for value in side] for side in ([1, -1, 2], [3, 3, 0])]
    assert merged(SCE, task([0] * 3, *tiny)) == [2.5 / 2**20, 3 / 2**20, 2 / 2**20]


def test_three_way_merges_elements_as_git_merges_lines() -> None:
    given: Sequence[Numbers] = ([0, 0, 0, 0, 7], [1, 0, 2, 3, 7], [0, 5, 2, 5, 7])
    assert merged(THREE_WAY, task(*given)) == [1, 5, 2, 4, 7]
    for inner, fourth in (("ours", 3), ("theirs", 5), ("base", 0), ("max", 5), ("task-arithmetic", 8)):
        assert merged(THREE_WAY, task(*given), inner=inner) == [1, 5, 2, fourth, 7]
    with pytest.raises(ConflictError, match="both sides changed the same elements"):
        merged(THREE_WAY, task(*given), inner="conflict")
    assert merged(THREE_WAY, task([0] * 3, [1, 0, 0], [0, 2, 0], [1, 0, 3])) == [1, 2, 3]


def test_three_way_keeps_the_sign_of_zero_and_nans() -> None:
    nan = float("nan")
    found = merged(THREE_WAY, task([0, nan, 1, nan], [-0.0, nan, 2, nan], [0, nan, 1, 3]))
    assert str(found) == "[-0.0, nan, 2.0, 3.0]"
    with pytest.raises(ConflictError, match="NaN"):
        merged(THREE_WAY, task([1], [nan], [2]))


@pytest.mark.parametrize("dtype", ["BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"])
def test_integers_are_merged_one_by_one_and_never_averaged(dtype: str) -> None:
    assert merged(THREE_WAY, task([1, 0, 1], [0, 0, 1], [1, 1, 1], dtype=dtype)) == [0, 1, 1]
    for inner in ("average", "task-arithmetic", "conflict"):
        with pytest.raises(ConflictError, match="take a side"):
            merged(THREE_WAY, task([7], [0], [1], dtype=dtype), inner=inner)
    assert merged(THREE_WAY, task([7], [0], [1], dtype=dtype), inner="max") == [1]
    with pytest.raises(ConflictError, match="does not merge values of dtype"):
        merged(AVERAGE, task(None, [0], [1], dtype=dtype))


def test_large_integers_stay_exact() -> None:
    big = 2**63 - 1
    assert merged(THREE_WAY, task([0, 1], [big, 1], [0, big - 1], dtype="I64")) == [big, big - 1]


def test_nearswap_moves_ours_by_at_most_t() -> None:
    assert merged(NEARSWAP, task(None, [0, 0, 0, 4], [0.5, 1, -2, 4]), t=1) == [0.5, 1, -1, 4]


def test_fisher_weighs_each_element_by_its_information() -> None:
    given: Sequence[Numbers] = ([1, 2], [5, 4])
    assert merged(FISHER, task(None, *given, files={"fisher": [[3, 0], [1, 0]]})) == [2, 3]
    assert merged(FISHER, task(None, *given, files={"fisher": [[3, 0], [1, 2]]}), weights="1,3") == [3, 4]
    for files, message in (
        ({}, "0 of the 2 'fisher' files"),
        ({"fisher": [[1, 1]]}, "1 of the 2 'fisher' files"),
        ({"fisher": [[1, -1], [1, 1]]}, "negative"),
        ({"fisher": [[1], [1]]}, r"F32 \[1\]"),
        ({"fisher": [[1, float("nan")], [1, 1]]}, "NaN"),
    ):
        with pytest.raises(ConflictError, match=message):
            merged(FISHER, task(None, *given, files=files))  # type: ignore[arg-type]  # of several shapes


def test_regmean_solves_for_what_the_layers_were_fed() -> None:
    diagonal = {"gram": [[[1, 0], [0, 3]], [[3, 0], [0, 1]]]}
    assert merged(REGMEAN, task(None, [[1, 2]], [[5, 6]], files=diagonal)) == [[4, 3]]
    mixed = {"gram": [[[2, 1], [1, 2]], [[1, 0], [0, 1]]]}
    [found] = merged(REGMEAN, task(None, [[1, 0]], [[0, 1]], files=mixed))
    assert found == pytest.approx([11 / 21, 10 / 21], rel=1e-6)
    assert merged(REGMEAN, task(None, [2], [4])) == [3]
    with pytest.raises(ConflictError, match="singular"):
        merged(REGMEAN, task(None, [[1, 0]], [[0, 1]], files={"gram": [[[0, 0], [0, 0]]] * 2}))
    with pytest.raises(ConflictError, match="Gram"):
        merged(REGMEAN, task(None, [[1, 0]], [[0, 1]], files={"gram": [[[1]]] * 2}))


def test_regmean_is_least_squares() -> None:
    """W minimises sum |X_i W_i - X_i W|^2, which NumPy solves directly."""
    numbers = np.random.default_rng(0)
    inputs, weights = numbers.standard_normal((2, 50, 4)), numbers.standard_normal((2, 3, 4))
    outputs = np.concatenate([x @ w.T for x, w in zip(inputs, weights, strict=True)])
    expected = np.linalg.lstsq(np.concatenate(inputs), outputs, rcond=None)[0].T
    files = {"gram": [(x.T @ x).tolist() for x in inputs]}
    found = merged(REGMEAN, task(None, *(w.tolist() for w in weights), files=files), scale=1)
    assert np.allclose(np.array(found), expected, atol=1e-5)


def test_diloco_is_a_step_of_nesterov_momentum() -> None:
    assert merged(DILOCO, task([1], [0], [1])) == pytest.approx([0.335], rel=1e-6)
    assert merged(DILOCO, task([1], [0], [1], files={"momentum": [[1]]})) == pytest.approx([-0.232], rel=1e-6)


def test_diloco_is_the_optimizer_of_torch() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.7, momentum=0.9, nesterov=True)
    options = read_options(DILOCO, {})
    kept: list[float] | None = None
    for mean in ([0.5, 1.0], [0.25, 3.0], [0.0, 2.5]):
        base = weight.detach().tolist()
        weight.grad = weight.detach() - torch.tensor(mean)
        optimizer.step()
        files = {} if kept is None else {"momentum": [kept]}
        found = merged(DILOCO, task(base, mean, mean, files=files))
        assert found == pytest.approx(weight.detach().tolist(), rel=1e-6)
        sides = tuple(np.array(side, "<f4") for side in (mean, mean))
        given = {} if kept is None else {"momentum": (np.array(kept, "<f4"),)}
        kept = momentum(numpy_backend(), Inputs("", sides, np.array(base, "<f4"), files=given), options).tolist()


@pytest.mark.parametrize("strategy", [AVERAGE, TASK_ARITHMETIC, TIES, BREADCRUMBS, SLERP], ids=lambda one: one.name)
def test_a_value_of_one_element_is_merged(strategy: Merge) -> None:
    assert merged(strategy, task([1], [3], [3])) in ([3], [5])


def test_what_leaves_the_range_of_its_dtype_is_a_conflict() -> None:
    for dtype, most in (("F16", 65504.0), ("F32", 3e38), ("BF16", 3e38), ("F64", 1.5e308)):
        with pytest.raises(ConflictError, match=f"beyond what {dtype} can hold"):
            merged(TASK_ARITHMETIC, task([0, 0], [1, most], [1, most], dtype=dtype))


def test_float64_is_rounded_to_brain_floats_once() -> None:
    """By way of float32 a number just above a tie would become the tie, and then the even neighbour."""
    for value, expected in (
        (1 + 2**-8 + 2**-40, 1 + 2**-7),
        (1 + 2**-8 - 2**-40, 1.0),
        (1 + 2**-8, 1.0),
        (1 + 3 * 2**-8, 1 + 2**-6),
        (1 + 3 * 2**-8 - 2**-40, 1 + 2**-7),
        (2**-133 * (0.5 + 2**-30), 2**-133),
        (2**-133 * (0.5 - 2**-30), 0.0),
        (1e-300, 0.0),
        (3.4e38, float("inf")),
        (1e300, float("inf")),
    ):
        for sign in (1, -1):
            words = np.frombuffer(encode(np.array([sign * value]), "BF16"), "<u2").astype("<u4") << 16
            assert words.view("<f4").tolist() == [sign * expected], value
            assert math.copysign(1, words.view("<f4")[0]) == sign


def test_neighbours_of_every_brain_float_are_rounded_as_fractions_are() -> None:
    values = (np.arange(0x0001, 0x7F80, dtype="<u4") << 16).view("<f4").astype("<f8")
    middles = (values[1:] + values[:-1]) / 2
    for given, places in ((np.nextafter(middles, np.inf), 1), (np.nextafter(middles, 0), 0)):
        expected = np.arange(0x0001, 0x7F7F, dtype="<u2") + places
        assert encode(given, "BF16") == expected.astype("<u2").tobytes()
    assert all(low < high for low, high in pairwise(values.tolist()))
