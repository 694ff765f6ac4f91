"""What a change amounts to, held against plain NumPy in float64, and what is verified on the way."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta import statistics, value
from git_theta.elements import Elements
from git_theta.errors import DamagedObjectError, MissingObjectError
from git_theta.manifest import Record
from git_theta.spectrum import effective_rank, has_rank
from git_theta.statistics import Statistics, are_comparable, measure
from git_theta.store import Store
from tests.checkpoints import opened, record
from tests.manifests import record as named

TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": ml_dtypes.bfloat16,
    "I64": "<i8",
    "I32": "<i4",
    "I8": "i1",
    "U8": "u1",
    "U16": "<u2",
    "BOOL": "u1",
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}
Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Held:
    """Values in memory, given in runs of an awkward length."""

    data: bytes
    run: int = 1001

    def runs(self, record: Record) -> Iterator[bytes | memoryview]:
        for start in range(0, len(self.data), self.run):
            yield memoryview(self.data)[start : start + self.run]


@dataclass(frozen=True, slots=True)
class Stored:
    """Values in a store."""

    store: Store

    def runs(self, record: Record) -> Iterator[bytes | memoryview]:
        return value.runs(record, self.store)


def of(array: Array, dtype: str) -> Record:
    data = array.tobytes()
    return Record(dtype, array.shape, len(data), blake3(data).hexdigest(), ())


def compared(old: Array, new: Array, before: str = "F32", after: str = "") -> Statistics:
    records = of(old, before), of(new, after or before)
    assert are_comparable(*records)
    return measure(*records, Held(old.tobytes()), Held(new.tobytes()))


def values(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    if "F" in dtype:
        return rng.standard_normal(shape).astype(TYPES[dtype])
    return rng.integers(0, 2 if dtype == "BOOL" else 100, shape).astype(TYPES[dtype])


def expected(old: Array, new: Array) -> Statistics:
    """The same by the plainest means; float64 holds all of these numbers."""
    wide = [array.astype("<f8") for array in (old, new)]
    change = wide[1] - wide[0]
    differ = old.view(f"<u{old.dtype.itemsize}") != new.view(f"<u{new.dtype.itemsize}")
    rows = len(old) if old.ndim > 1 else 0
    changed_rows = int(differ.any(axis=tuple(range(1, old.ndim))).sum()) if old.ndim > 1 else 0
    before, after, by = (float(np.sqrt((array**2).sum())) for array in (*wide, change))
    largest = float(np.abs(change).max(initial=0))
    return Statistics(old.size, int(differ.sum()), rows, changed_rows, before, after, by, largest)


def close(found: Statistics, wanted: Statistics) -> None:
    counts = ("elements", "changed", "rows", "changed_rows", "nans", "infinities", "largest")
    assert [getattr(found, name) for name in counts] == [getattr(wanted, name) for name in counts]
    for name in ("before", "after", "change"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-12)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(300, 7), (1000,), (3, 70_000), (2, 2, 5), (), (0, 4)], ids=str)
def test_numbers_are_those_of_numpy(dtype: str, shape: tuple[int, ...]) -> None:
    old, new = values(shape, dtype), values(shape, dtype, 1)
    if old.size > 20:
        kept = old.size // 3
        new.reshape(-1)[:kept] = old.reshape(-1)[:kept]
    close(compared(old, new, dtype), expected(old, new))


@given(st.integers(1, 9), st.integers(1, 9), st.sets(st.integers(0, 80)), st.integers(1, 7))
@settings(deadline=None)
def test_rows_that_changed_however_the_blocks_fall(rows: int, row: int, places: set[int], block: int) -> None:
    old = values((rows, row), "F32")
    new = old.copy()
    for place in places:
        new.reshape(-1)[place % new.size] += 1
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(statistics, "BLOCK", block)
        close(compared(old, new), expected(old, new))


def test_cosine_and_relative_change() -> None:
    old = np.array([[3, 0], [0, 4]], "<f4")
    found = compared(old, -old)
    assert (found.relative, found.cosine) == (2.0, -1.0)
    found = compared(old, np.array([[0, 4], [-3, 0]], "<f4"))
    assert found.cosine == pytest.approx(0, abs=1e-15)
    assert found.relative == pytest.approx(math.sqrt(2))
    found = compared(old, old * 2)
    assert (found.relative, found.cosine) == (1.0, 1.0)
    found = compared(old, old)
    assert (found.relative, found.cosine, found.changed) == (0.0, 1.0, 0)
    found = compared(old * 0, old)
    assert (found.relative, found.cosine) == (None, None), "there is no angle to zero"
    assert compared(old * 0, old * 0).relative == 0.0


def test_a_small_turn_is_not_lost_to_rounding() -> None:
    old = np.zeros((2, 1000), "<f4")
    old[0] = 1
    new = old.copy()
    new[1] = 1e-6
    cosine = compared(old, new).cosine
    assert cosine is not None
    assert 1 - cosine == pytest.approx(0.5e-12, rel=1e-3)


def test_signs_of_zero_and_payloads_of_nan_are_bits() -> None:
    found = compared(np.array([0.0], "<f4"), np.array([-0.0], "<f4"))
    assert (found.changed, found.change) == (1, 0.0)
    nans = [np.array([bits], "<u4").view("<f4") for bits in (0x7FC00000, 0x7FC00001)]
    found = compared(nans[0], nans[1])
    assert (found.changed, found.nans) == (1, (1, 1))


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_what_is_not_finite_is_counted_and_left_out_of_the_sums(dtype: str) -> None:
    old, new = values((4, 5), dtype), values((4, 5), dtype, 1)
    old[0, 0], old[1, 1] = np.nan, np.inf
    new[2, 2] = new[2, 3] = new[3, 0] = np.nan
    new[1, 1] = -np.inf
    found = compared(old, new, dtype)
    assert (found.nans, found.infinities) == ((1, 3), (1, 1))
    finite = np.isfinite(old.astype("<f8")) & np.isfinite(new.astype("<f8"))
    wanted = expected(old[finite], new[finite])
    assert found.change == pytest.approx(wanted.change)
    assert found.largest == wanted.largest
    assert found.changed == 20


def test_nan_that_stays_where_it_was_is_counted_on_both_sides() -> None:
    old = np.array([np.nan, 1, 2], "<f4")
    assert compared(old, old).nans == (1, 1)


@pytest.mark.parametrize(("before", "after"), [("F32", "BF16"), ("BF16", "F32"), ("F16", "F64"), ("U8", "I32")])
def test_another_dtype_is_compared_by_number(before: str, after: str) -> None:
    old = values((40, 3), before)
    new = old.astype(TYPES[after])
    back = new.astype("<f8") != old.astype("<f8")
    found = compared(old, new, before, after)
    assert found.changed == int(back.sum())
    assert (found.changed == 0) == (before != "F32")
    assert found.change == pytest.approx(float(np.sqrt(((new.astype("<f8") - old.astype("<f8")) ** 2).sum())))


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_rows_that_both_have_are_compared(dtype: str) -> None:
    old = values((50, 6), dtype)
    more = np.concatenate([old, values((3, 6), dtype, 5)])
    more[52, 0], more[7, 2] = np.nan, 9
    found = compared(old, more, dtype)
    wanted = expected(old, more[:50])
    close(found, replace(wanted, nans=(0, 1)))
    assert (found.rows, found.changed_rows) == (50, 1)
    assert compared(more, old, dtype).nans == (1, 0)


def test_what_is_no_number_is_counted_in_bytes() -> None:
    old, new = np.arange(90, dtype="u1"), np.arange(90, dtype="u1")
    new[::3] ^= 1
    assert compared(old, new, "QI8") == Statistics(90, 30)
    assert compared(old, new, "opaque") == Statistics(90, 30)


@pytest.mark.parametrize(
    ("before", "after", "can"),
    [
        (named(1), named(2), True),
        (named(1), named(2, shape=(5, 3)), True),
        (named(1), named(2, shape=(3, 2)), False),
        (named(1), named(2, shape=(6,)), False),
        (named(1), named(2, shape=(2, 3, 1)), False),
        (named(1, shape=(1,)), named(2, shape=()), False),
        (named(1), named(2, "BF16"), True),
        (named(1), named(2, "F8_E4M3"), True),
        (named(1, "F8_E4M3"), named(2, "F8_E4M3", (4, 3)), True),
        (named(1), named(2, "QI8"), False),
        (named(1, "QI8"), named(2, "QI8"), True),
        (named(1, "QI8"), named(2, "QI8", (4, 3)), False),
        (named(1, "C64"), named(2, "C128"), True),
        (named(1, "C64"), named(2, "C64", (4, 3)), True),
        (named(1, "C64"), named(2), False),
        (named(1), named(2, strides=(1, 2)), False),
        (named(1, strides=(1, 2)), named(2, strides=(1, 2)), True),
        (replace(named(1), dtype="Q4_K"), replace(named(2), dtype="Q4_K"), True),
        (replace(named(1), dtype="Q4_K"), replace(named(2), dtype="Q4_K", size=30), False),
        (named(1), replace(named(2), size=23), False),
    ],
)
def test_what_can_be_compared(before: Record, after: Record, can: bool) -> None:
    assert are_comparable(before, after) is can
    assert are_comparable(after, before) is can


COMPLEX = {"C64": ("<c8", "<f4"), "C128": ("<c16", "<f8"), "C32": (None, "<f2")}


def complex_values(dtype: str, shape: tuple[int, ...], seed: int = 0) -> tuple[npt.NDArray[np.complex128], Array]:
    """Numbers, and how they are stored: each a pair."""
    pairs = np.random.default_rng(seed).standard_normal((*shape, 2)).astype(COMPLEX[dtype][1])
    return pairs.astype("<f8").view("<c16")[..., 0], pairs


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("shape", [(300, 7), (1000,), (3, 70_000), ()], ids=str)
def test_a_complex_number_is_one_element_of_its_modulus(dtype: str, shape: tuple[int, ...]) -> None:
    old, old_pairs = complex_values(dtype, shape)
    new, new_pairs = complex_values(dtype, shape, 1)
    kept = old.size // 3
    new.reshape(-1)[:kept], new_pairs.reshape(-1, 2)[:kept] = old.reshape(-1)[:kept], old_pairs.reshape(-1, 2)[:kept]
    if old.size > 20:  # of the last one, the imaginary part alone
        new.reshape(-1)[-1] = complex(old.reshape(-1)[-1].real, new.reshape(-1)[-1].imag)
        new_pairs.reshape(-1)[-2] = old_pairs.reshape(-1)[-2]
    before, after = (replace(of(pairs, dtype), shape=shape) for pairs in (old_pairs, new_pairs))
    assert are_comparable(before, after)
    found = measure(before, after, Held(old_pairs.tobytes()), Held(new_pairs.tobytes()), histogram=True)
    change = np.abs(new - old)
    assert (found.elements, found.changed) == (old.size, int(np.count_nonzero(change)))
    if len(shape) > 1:
        assert (found.rows, found.changed_rows) == (len(old), int(np.count_nonzero(change.any(axis=1))))
    assert found.largest == pytest.approx(change.max(), rel=1e-12)
    for norm, wanted in ((found.before, old), (found.after, new), (found.change, change)):
        assert norm == pytest.approx(np.sqrt((np.abs(wanted) ** 2).sum()), rel=1e-12)
    cosine = np.vdot(old, new).real / np.sqrt((np.abs(old) ** 2).sum() * (np.abs(new) ** 2).sum())
    assert found.cosine == pytest.approx(cosine, abs=1e-9)
    assert found.histogram is not None
    assert sum(found.histogram) == found.changed


def test_a_complex_number_is_not_finite_where_a_part_is_not() -> None:
    old = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], "<f4")
    new = np.array([[1, np.nan], [np.inf, 4], [-np.inf, np.nan], [7, 9]], "<f4")
    before, after = (replace(of(side, "C64"), shape=(4,)) for side in (old, new))
    found = measure(before, after, Held(old.tobytes()), Held(new.tobytes()))
    assert (found.changed, found.nans, found.infinities) == (4, (0, 2), (0, 2))
    assert (found.change, found.largest) == (1.0, 1.0)
    assert found.before == pytest.approx(math.hypot(7, 8))


@pytest.mark.parametrize(
    ("dtype", "reference"),
    [
        ("F8_E4M3", ml_dtypes.float8_e4m3fn),
        ("F8_E5M2", ml_dtypes.float8_e5m2),
        ("F8_E4M3FNUZ", ml_dtypes.float8_e4m3fnuz),
        ("F8_E5M2FNUZ", ml_dtypes.float8_e5m2fnuz),
        ("F8_E8M0", ml_dtypes.float8_e8m0fnu),
    ],
)
def test_every_float_of_8_bits_is_its_number(dtype: str, reference: npt.DTypeLike) -> None:
    codes = np.arange(256, dtype="u1")
    side = Elements(dtype, 256)
    found = side.numbers(side.words(memoryview(codes.tobytes())))
    wanted = codes.view(reference).astype("<f8")
    nan = np.isnan(wanted)
    assert np.array_equal(np.isnan(found), nan)
    assert found[~nan].tobytes() == wanted[~nan].tobytes()


def test_a_model_that_was_quantised_to_floats_of_8_bits() -> None:
    old = values((64, 40), "F32")
    new = old.astype(ml_dtypes.float8_e4m3fn)
    found = compared(old, new, "F32", "F8_E4M3")
    change = old.astype("<f8") - new.astype("<f8")
    assert found.change == pytest.approx(np.sqrt((change**2).sum()))
    assert found.relative == pytest.approx(0.026, abs=0.004)
    assert found.changed == np.count_nonzero(change)


def test_elements_in_another_order_have_no_rows() -> None:
    old, new = values((6, 4), "F32"), values((6, 4), "F32", 1)
    records = [replace(of(array, "F32"), strides=(1, 6)) for array in (old, new)]
    found = measure(records[0], records[1], Held(old.tobytes()), Held(new.tobytes()))
    assert (found.elements, found.changed, found.rows, found.changed_rows) == (24, 24, 0, 0)


def test_values_from_the_store_are_verified_to_their_end(tmp_path: Path) -> None:
    with opened(tmp_path) as depot:
        store = Stored(depot.store)
        data = [bytes(100), bytes(99) + b"\1"]
        before, after = (record(depot, item) for item in data)
        assert measure(before, after, store, store) == Statistics(100, 1)
        lying = replace(after, digest=before.digest)
        with pytest.raises(DamagedObjectError):
            measure(before, lying, store, store)
        depot.store.path(after.store[0].pieces[0].oid).unlink()
        with pytest.raises(MissingObjectError, match="is not on this machine"):
            measure(before, after, store, store)


def test_a_histogram_counts_changed_elements_by_relative_change() -> None:
    old = np.array([1, 1, 1, 1, 0, -2, np.nan, 1, np.inf], "<f4")
    new = np.array([1, 1 + 2e-3, 1 - 5e-3, 1e9, 1, -2.04, 1, np.inf, np.inf], "<f4")
    found = measure(of(old, "F32"), of(new, "F32"), Held(old.tobytes()), Held(new.tobytes()), histogram=True)
    bins = {at: count for at, count in enumerate(found.histogram or ()) if count}
    assert bins == {10: 1, 11: 1, 12: 1, 23: 2}, "2e-3, 5e-3 and 2e-2; what grew beyond the last, or out of 0"
    assert found.histogram is not None
    assert len(found.histogram) == 24
    assert replace(found, histogram=None) == compared(old, new)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16", "I32"])
def test_a_histogram_over_many_blocks_is_that_of_numpy(dtype: str) -> None:
    old, new = values((3, 70_001), dtype, 1), values((3, 70_001), dtype, 2)
    found = measure(of(old, dtype), of(new, dtype), Held(old.tobytes()), Held(new.tobytes()), histogram=True)
    wide = [array.astype("<f8").ravel() for array in (old, new)]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(np.abs(wide[1] - wide[0])) - np.log10(np.abs(wide[0]))
    places = np.clip(np.floor((logs[wide[0] != wide[1]] + 8) * 2), 0, 23)
    assert found.histogram == tuple(int((places == at).sum()) for at in range(24))


def rank_of(old: Array, new: Array, dtype: str = "F64") -> float | None:
    records = of(old, dtype), of(new, dtype)
    assert has_rank(*records)
    return effective_rank(*records, Held(old.tobytes()), Held(new.tobytes()))


@pytest.mark.parametrize(("rows", "columns"), [(40, 30), (30, 40), (300, 400)])
def test_an_effective_rank_is_exp_of_the_entropy_of_singular_values(rows: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((length, 5)))[0] for length in (rows, columns))
    zero = np.zeros((rows, columns))
    for scale in (1.0, 1e-200, 1e200):
        assert rank_of(zero, scale * left @ right.T) == pytest.approx(5), "five equal singular values"
    assert rank_of(zero, left[:, :1] @ right[:, :1].T) == pytest.approx(1)
    uneven = left @ np.diag([8.0, 4, 2, 1, 1]) @ right.T
    parts = np.array([8, 4, 2, 1, 1]) / 16
    assert rank_of(zero, uneven) == pytest.approx(float(np.exp(-(parts * np.log(parts)).sum())))


def test_what_has_no_effective_rank() -> None:
    old = np.ones((3, 4), "<f4")
    assert rank_of(old, old, "F32") is None
    broken = old.copy()
    broken[0, 0] = np.nan
    assert rank_of(old, broken, "F32") is None
    matrix = of(old, "F32")
    assert not has_rank(matrix, of(np.ones((4, 4), "<f4"), "F32")), "rows were added"
    assert not has_rank(of(old.ravel(), "F32"), of(old.ravel(), "F32"))
    large = replace(matrix, shape=(2**12 + 1, 2**12), size=4 * (2**12 + 1) * 2**12)
    assert not has_rank(large, large)
    assert not has_rank(of(np.ones((0, 4), "<f4"), "F32"), of(np.ones((0, 4), "<f4"), "F32"))


def test_a_rank_is_of_values_that_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    with opened(tmp_path) as depot:
        store = Stored(depot.store)
        arrays = [np.zeros((5, 5), "<f4"), np.ones((5, 5), "<f4")]
        made = [record(depot, array.tobytes()) for array in arrays]
        before, after = (replace(item, dtype="F32", shape=(5, 5)) for item in made)
        assert effective_rank(before, after, store, store) == pytest.approx(1)
        with pytest.raises(DamagedObjectError):
            effective_rank(before, replace(after, digest=before.digest), store, store)
