"""What comes of a merge: a file that its own library reads, with the values that the table of 009-merging.md says."""

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from git_theta import manyway, outcome
from git_theta.config import Settings
from git_theta.depot import Depot
from git_theta.errors import DamagedObjectError, MissingObjectError
from git_theta.outcome import Outcome, Versions
from git_theta.rules import SKELETON, Rule, Rules
from git_theta.tensor import Tensor
from git_theta.threeway import Action, plan
from tests.checkpoints import content_of, objects, opened, take

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Library:
    """What writes checkpoints of a format, and reads them."""

    save: Callable[[Arrays], bytes]
    load: Callable[[bytes], Arrays]


def _save_torch(arrays: Arrays, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, buffer, **options)
    return buffer.getvalue()


def _load_torch(content: bytes) -> Arrays:
    if zipfile.is_zipfile(io.BytesIO(content)):
        assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    return {name: tensor.numpy() for name, tensor in torch.load(io.BytesIO(content)).items()}


def _save_npz(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stubs mix the arrays up with allow_pickle
    return buffer.getvalue()


def _load_npz(content: bytes) -> Arrays:
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    with np.load(io.BytesIO(content)) as file:
        return dict(file)


SAFETENSORS = Library(lambda arrays: safetensors.numpy.save(dict(arrays)), safetensors.numpy.load)
TORCH = Library(_save_torch, _load_torch)
LEGACY = Library(lambda arrays: _save_torch(arrays, _use_new_zipfile_serialization=False), _load_torch)
NPZ = Library(_save_npz, _load_npz)
ALL = pytest.mark.parametrize(
    "library", [SAFETENSORS, TORCH, LEGACY, NPZ], ids=["safetensors", "torch", "legacy", "npz"]
)
GROWING = pytest.mark.parametrize("library", [SAFETENSORS, NPZ], ids=["safetensors", "npz"])

STEPS = [np.float32(step) for step in (0, 1, 2)]
LARGE = np.random.default_rng(0).standard_normal((200, 300)).astype("<f4")
BASE: Arrays = {
    "a": LARGE,
    "b": np.arange(6, dtype="<f4").reshape(2, 3),
    "c": np.arange(4, dtype="<f4"),
    "d": np.zeros((0, 2), "<f4"),
}


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    with opened(tmp_path / "theta") as made:
        yield made


def merged(
    library: Library, depot: Depot, base: Arrays, ours: Arrays, theirs: Arrays, *rules: Rule
) -> tuple[Outcome, Arrays]:
    """What comes of a merge of three files, and the arrays in its file."""
    made = outcome_of(depot, library.save(base), library.save(ours), library.save(theirs), rules)
    return made, library.load(content_of(made.manifest, depot))


def outcome_of(depot: Depot, base: bytes, ours: bytes, theirs: bytes, rules: tuple[Rule, ...] = ()) -> Outcome:
    old = take(base, depot)
    mine, other = (take(content, depot, [old]) for content in (ours, theirs))
    versions = Versions(old, mine, other)
    return outcome.apply(plan(old, mine, other, Rules(rules)), versions, Rules(rules), depot)


def metadata(content: bytes) -> object:
    """The metadata of a safetensors file; its writer gives the keys in any order."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]


def assert_same(found: Arrays, wanted: Arrays) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@ALL
def test_both_sides_are_averaged_and_one_side_is_taken(library: Library, depot: Depot) -> None:
    ours = {**BASE, "a": LARGE + 1, "b": BASE["b"] + 1}
    theirs = {**BASE, "a": LARGE + 4, "c": BASE["c"] * 2}
    made, found = merged(library, depot, BASE, ours, theirs)
    assert made.conflicts == ()
    mean = (ours["a"] + theirs["a"]) * np.float32(0.5)
    assert_same(found, {**ours, "a": mean, "c": theirs["c"]})


@ALL
def test_sides_are_alike_whatever_the_order(library: Library, depot: Depot) -> None:
    ours, theirs = {**BASE, "a": LARGE + 1, "b": BASE["b"] + 1}, {**BASE, "a": LARGE + 4}
    one, other = (merged(library, depot, BASE, *sides)[1] for sides in ((ours, theirs), (theirs, ours)))
    assert_same(one, other)


@ALL
def test_what_one_side_added_is_in_the_file(library: Library, depot: Depot) -> None:
    theirs = {**BASE, "new": np.arange(3, dtype="<f8"), "b": BASE["b"] + 1}
    made, found = merged(library, depot, BASE, {**BASE, "a": LARGE + 1}, theirs)
    assert made.conflicts == ()
    assert_same(found, {**theirs, "a": LARGE + 1})


@ALL
def test_what_one_side_deleted_is_gone(library: Library, depot: Depot) -> None:
    ours = {name: array for name, array in BASE.items() if name != "b"}
    made, found = merged(library, depot, BASE, ours, {**BASE, "a": LARGE + 1})
    assert made.conflicts == ()
    assert_same(found, {**ours, "a": LARGE + 1})


@GROWING
def test_what_both_sides_added_is_in_the_file(library: Library, depot: Depot) -> None:
    added = {"x": np.arange(3, dtype="<f8"), "y": np.arange(5, dtype="<i2"), "z": np.ones(3, "?")}
    ours, theirs = {**BASE, "x": added["x"], "a": LARGE + 1}, {**BASE, "y": added["y"], "z": added["z"]}
    made, found = merged(library, depot, BASE, ours, theirs)
    assert made.conflicts == ()
    assert_same(found, {**BASE, "a": LARGE + 1, **added})


@pytest.mark.parametrize("library", [TORCH, LEGACY], ids=["torch", "legacy"])
def test_what_both_sides_added_to_a_pickle_is_a_conflict_that_a_side_settles(library: Library, depot: Depot) -> None:
    ours = {**BASE, "x": np.arange(3, dtype="<f8"), "a": LARGE + 1}
    theirs = {**BASE, "y": np.arange(5, dtype="<i2"), "a": LARGE + 2}
    mean = {"a": (ours["a"] + theirs["a"]) * np.float32(0.5)}
    made, found = merged(library, depot, BASE, ours, theirs)
    assert [one.name for one in made.conflicts] == [SKELETON]
    assert made.conflicts[0].reason.endswith("; the merge has the parameters that ours has")
    assert_same(found, {**ours, **mean})
    for side, whole in (("ours", ours), ("theirs", theirs), ("base", BASE)):
        made, found = merged(library, depot, BASE, ours, theirs, Rule(SKELETON, side))
        assert made.conflicts == ()
        assert_same(found, {**whole, **mean})
        made, found = merged(library, depot, BASE, ours, theirs, Rule("*", side))
        assert made.conflicts == ()
        assert_same(found, whole)


@pytest.mark.parametrize("library", [TORCH, LEGACY], ids=["torch", "legacy"])
def test_a_side_settles_what_one_reshaped_and_the_other_added_to_a_pickle(library: Library, depot: Depot) -> None:
    ours = {**BASE, "b": np.ones((7, 3), "<f4"), "a": LARGE + 1}
    theirs = {**BASE, "y": np.arange(5, dtype="<i2"), "a": LARGE + 2}
    mean = {"a": (ours["a"] + theirs["a"]) * np.float32(0.5)}
    for side, whole in (("ours", ours), ("theirs", theirs)):
        made, found = merged(library, depot, BASE, ours, theirs, Rule(SKELETON, side))
        assert made.conflicts == ()
        assert_same(found, {**whole, **mean})
        decided = {one.name: one.action for one in made.decisions}
        assert decided["y"] is (Action.DROP if side == "ours" else Action.THEIRS)


@ALL
def test_a_conflict_keeps_ours_beside_what_is_merged(library: Library, depot: Depot) -> None:
    integers = {**BASE, "n": np.array([1, 2, 3], "<i8")}
    ours = {**integers, "n": np.array([5, 2, 3], "<i8"), "a": LARGE + 1}
    theirs = {**integers, "n": np.array([6, 2, 9], "<i8"), "a": LARGE + 3, "c": BASE["c"] + 1}
    made, found = merged(library, depot, integers, ours, theirs)
    assert [(one.name, one.action) for one in made.conflicts] == [("n", Action.CONFLICT)]
    assert_same(found, {**ours, "a": (ours["a"] + theirs["a"]) * np.float32(0.5), "c": theirs["c"]})
    made, found = merged(library, depot, integers, ours, theirs, Rule("n", "max"))
    assert made.conflicts == ()
    assert_same({"n": found["n"]}, {"n": np.array([6, 2, 9], "<i8")})


def test_grown_rows_are_kept_and_shared_ones_merged(depot: Depot) -> None:
    grown = np.concatenate([LARGE + 2, np.full((3, 300), 7, "<f4")])
    rule = Rule("a", "average", grown=True)
    made, found = merged(SAFETENSORS, depot, BASE, {**BASE, "a": LARGE + 4}, {**BASE, "a": grown}, rule)
    assert made.conflicts == ()
    mean = ((LARGE + 4) + (LARGE + 2)) * np.float32(0.5)
    assert_same(found, {**BASE, "a": np.concatenate([mean, grown[200:]])})


def test_a_cast_on_one_side_is_followed(depot: Depot) -> None:
    made, found = merged(SAFETENSORS, depot, BASE, {**BASE, "a": LARGE.astype("<f2")}, {**BASE, "a": LARGE + 1})
    assert made.conflicts == ()
    assert_same(found, {**BASE, "a": (LARGE + 1).astype("<f2")})


@pytest.mark.parametrize("size", [(200, 300), (4, 5)], ids=["large", "small"])
@pytest.mark.parametrize("dtype", ["<f2", "<f8"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_cast_on_both_sides_is_no_change_on_one(
    depot: Depot, size: tuple[int, int], dtype: str, swapped: bool
) -> None:
    old = LARGE[: size[0], : size[1]].copy()
    trained = (old + 1).astype(dtype)
    trained[0, 0] = np.nan  # taken bit for bit, whatever it is
    ours, theirs = [old.astype(dtype), trained][:: -1 if swapped else 1]
    made, found = merged(SAFETENSORS, depot, {**BASE, "a": old}, {**BASE, "a": ours}, {**BASE, "a": theirs})
    assert made.conflicts == ()
    assert_same(found, {**BASE, "a": trained})


def test_casts_of_two_trained_values_are_merged_in_their_dtype(depot: Depot) -> None:
    one, other = ((LARGE + step).astype("<f8") for step in (1, 3))
    made, found = merged(SAFETENSORS, depot, BASE, {**BASE, "a": one}, {**BASE, "a": other})
    assert made.conflicts == ()
    assert_same(found, {**BASE, "a": (one + other) * 0.5})


def test_a_cast_of_other_values_is_merged_in_its_dtype(depot: Depot) -> None:
    half = (LARGE + 3).astype("<f2")
    made, found = merged(SAFETENSORS, depot, BASE, {**BASE, "a": half}, {**BASE, "a": LARGE + 1})
    assert made.conflicts == ()
    mean = (half.astype("<f4") + (LARGE + 1)) * np.float32(0.5)
    assert_same(found, {**BASE, "a": mean.astype("<f2")})


def test_a_number_that_the_new_dtype_cannot_hold_is_a_conflict(depot: Depot) -> None:
    large = LARGE + np.float32(1e6)
    made, found = merged(SAFETENSORS, depot, BASE, {**BASE, "a": large}, {**BASE, "a": LARGE.astype("<f2")})
    assert [one.name for one in made.conflicts] == ["a"]
    assert "goes beyond what F16 can hold" in made.conflicts[0].reason
    assert_same(found, {**BASE, "a": large})


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (2, 0, 1)], ids=str)
def test_further_files_are_read_in_the_order_of_the_elements(depot: Depot, axes: tuple[int, ...]) -> None:
    values = np.arange(24, dtype="<f4").reshape(2, 3, 4)

    def save(array: "np.ndarray[Any, Any]") -> bytes:
        buffer = io.BytesIO()
        back = [axes.index(axis) for axis in range(3)]
        stored = torch.from_numpy(np.ascontiguousarray(array.transpose(axes))).permute(*back)
        assert not stored.is_contiguous()
        torch.save({"w": stored}, buffer)
        return buffer.getvalue()

    old, mine, other = (take(save(array), depot) for array in (values, values + 1, values + 3))
    weights = {"f": values + 1, "g": values[::-1] + 1}
    rules = Rules((Rule("*", "fisher", files={"fisher": ("f", "g")}),))

    def files(path: str, name: str) -> Tensor:
        assert name == "w"
        return Tensor("F32", (2, 3, 4), weights[path].tobytes())

    versions = Versions(old, mine, other)
    made = outcome.apply(plan(old, mine, other, rules), versions, rules, depot, files=files)
    assert made.conflicts == ()
    found = torch.load(io.BytesIO(content_of(made.manifest, depot)))["w"].numpy()
    total = weights["f"] + weights["g"]
    wanted = (weights["f"] / total) * (values + 1) + (weights["g"] / total) * (values + 3)
    assert np.allclose(found, wanted, rtol=1e-6, atol=0)


def test_grams_of_a_transposed_weight_are_a_conflict(depot: Depot) -> None:
    def save(array: "np.ndarray[Any, Any]") -> bytes:
        buffer = io.BytesIO()
        torch.save({"w": torch.from_numpy(array).t()}, buffer)
        return buffer.getvalue()

    values = np.arange(12, dtype="<f4").reshape(3, 4)
    old, mine, other = (take(save(array), depot) for array in (values, values + 1, values * 2))
    rules = Rules((Rule("*", "regmean", files={"gram": ("f", "g")}),))
    gram = Tensor("F32", (3, 3), np.eye(3, dtype="<f4").tobytes())
    made = outcome.apply(
        plan(old, mine, other, rules), Versions(old, mine, other), rules, depot, files=lambda _path, _name: gram
    )
    assert [one.name for one in made.conflicts] == ["w"]
    assert "do not stand in C order" in made.conflicts[0].reason


def test_metadata_is_merged_key_by_key(depot: Depot) -> None:
    def save(metadata: dict[str, str], step: float) -> bytes:
        return safetensors.numpy.save({**BASE, "a": LARGE + np.float32(step)}, metadata)

    base = save({"format": "pt", "step": "1"}, 0)
    both = outcome_of(depot, base, save({"format": "pt", "step": "2"}, 1), save({"format": "np", "step": "1"}, 2))
    assert both.conflicts == ()
    assert metadata(content_of(both.manifest, depot)) == {"format": "np", "step": "2"}
    ours, theirs = save({"format": "pt", "step": "2"}, 1), save({"format": "pt", "step": "3"}, 2)
    made = outcome_of(depot, base, ours, theirs)
    [conflict] = made.conflicts
    assert (conflict.name, conflict.reason) == ("~skeleton/step", "both sides changed it, from '1' to '2' and to '3'")
    content = content_of(made.manifest, depot)
    assert metadata(content) == {"format": "pt", "step": "2"}
    assert_same(safetensors.numpy.load(content), {**BASE, "a": ((LARGE + 1) + (LARGE + 2)) * np.float32(0.5)})
    made = outcome_of(depot, base, ours, theirs, (Rule(SKELETON, "theirs"),))
    assert made.conflicts == ()
    assert metadata(content_of(made.manifest, depot)) == {"format": "pt", "step": "3"}


def _training(step: float, **scalars: object) -> bytes:
    buffer = io.BytesIO()
    torch.save({"epoch": 1, **scalars, "a": torch.from_numpy(LARGE + np.float32(step))}, buffer)
    return buffer.getvalue()


def test_a_rule_for_everything_leaves_what_one_side_says_beside_its_parameters(depot: Depot) -> None:
    ours, theirs = _training(1), _training(2, epoch=2, b=torch.ones(3))
    made = outcome_of(depot, _training(0), ours, theirs, (Rule("*", "ours"),))
    assert made.conflicts == ()
    found = torch.load(io.BytesIO(content_of(made.manifest, depot)))
    assert found["epoch"] == 2
    assert found["a"].numpy().tobytes() == (LARGE + 1).tobytes()
    assert found["b"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("strategy", "epoch"), [("ours", 2), ("theirs", 3), ("base", 1)])
def test_a_rule_settles_what_both_sides_say_beside_their_parameters(depot: Depot, strategy: str, epoch: int) -> None:
    sides = _training(1, epoch=2), _training(2, epoch=3)
    made = outcome_of(depot, _training(0), *sides, (Rule(SKELETON, strategy),))
    assert made.conflicts == ()
    assert torch.load(io.BytesIO(content_of(made.manifest, depot)))["epoch"] == epoch


@ALL
def test_a_header_above_a_mebibyte_is_no_parameter(library: Library, depot: Depot) -> None:
    names = [
        f"a.parameter.with.a.name.as.long.as.those.of.real.models.are.{'x' * 800}.{index}" for index in range(1300)
    ]
    base = {name: np.full(2, index, "<f4") for index, name in enumerate(names)}
    ours = {**base, names[0]: base[names[0]] + 1, names[1]: base[names[1]] + 1}
    theirs = {**base, names[0]: base[names[0]] + 3, names[2]: base[names[2]] + 1}
    made, found = merged(library, depot, base, ours, theirs)
    assert made.conflicts == ()
    assert [name for name in made.manifest.parameters if name not in base]
    assert_same(found, {**ours, names[0]: base[names[0]] + 2, names[2]: theirs[names[2]]})


@GROWING
def test_what_is_added_beside_a_long_header(library: Library, depot: Depot) -> None:
    base = {f"{'x' * 800}.{index}": np.full(2, index, "<f4") for index in range(1300)}
    made, found = merged(library, depot, base, {**base, "new": np.ones(3)}, {**base, "other": np.ones(2)})
    assert made.conflicts == ()
    assert_same(found, {**base, "new": np.ones(3), "other": np.ones(2)})


def test_tied_weights_are_merged_once(depot: Depot) -> None:
    def save(step: float) -> bytes:
        weight = torch.from_numpy(LARGE + np.float32(step))
        buffer = io.BytesIO()
        torch.save({"embedding": weight, "head": weight, "other": torch.ones(3)}, buffer)
        return buffer.getvalue()

    made = outcome_of(depot, save(0), save(1), save(2))
    assert made.conflicts == ()
    found = torch.load(io.BytesIO(content_of(made.manifest, depot)))
    assert found["embedding"].data_ptr() == found["head"].data_ptr()
    assert found["head"].numpy().tobytes() == (((LARGE + 1) + (LARGE + 2)) * np.float32(0.5)).tobytes()


def test_only_what_both_sides_changed_is_loaded(depot: Depot, tmp_path: Path) -> None:
    base, ours, theirs = (
        take(SAFETENSORS.save(arrays), depot)
        for arrays in (BASE, {**BASE, "b": BASE["b"] + 1}, {**BASE, "a": LARGE + 2})
    )
    decided = plan(base, ours, theirs)
    versions = Versions(base, ours, theirs)
    kept = outcome.needed(decided, versions)
    for oid in objects(tmp_path / "theta"):
        if oid not in kept:
            depot.store.path(oid).unlink()
    made = outcome.apply(decided, versions, Rules(), depot)
    assert made.conflicts == ()
    assert made.manifest.parameters["a"] == theirs.parameters["a"]
    assert made.manifest.parameters["b"] == ours.parameters["b"]


def test_a_missing_or_damaged_value_is_named(depot: Depot) -> None:
    base, ours, theirs = (take(SAFETENSORS.save({**BASE, "a": LARGE + step}), depot) for step in STEPS)
    versions, decided = Versions(base, ours, theirs), plan(base, ours, theirs)
    piece = theirs.parameters["a"].store[0].pieces[0]
    path = depot.store.path(piece.oid)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(MissingObjectError, match="parameter 'a'"):
        outcome.apply(decided, versions, Rules(), depot)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedObjectError, match="parameter 'a'"):
        outcome.apply(decided, versions, Rules(), depot)


def test_not_a_number_is_a_conflict_of_its_parameter(depot: Depot) -> None:
    bad = np.array(LARGE)
    bad[1, 1] = np.nan
    made, found = merged(
        SAFETENSORS, depot, BASE, {**BASE, "a": bad, "b": BASE["b"] + 1}, {**BASE, "a": LARGE + 1, "b": BASE["b"] + 3}
    )
    assert [(one.name, one.reason) for one in made.conflicts] == [("a", "ours has NaN or infinite values; take a side")]
    assert_same(found, {**BASE, "a": bad, "b": BASE["b"] + 2})


def test_the_same_merge_gives_the_same_text(depot: Depot) -> None:
    rules = (Rule("*", "dare-linear"),)
    base, ours, theirs = [SAFETENSORS.save({**BASE, "a": LARGE + step}) for step in STEPS]
    made = [outcome_of(depot, base, ours, theirs, rules).manifest for _ in range(2)]
    assert made[0] == made[1]


STEP = np.random.default_rng(1).standard_normal((2, *LARGE.shape)).astype("<f4") * np.float32(1e-5)
TUNED: Arrays = {**BASE, "a": LARGE + STEP[0]}
TUNED_TOO: Arrays = {**BASE, "a": LARGE + STEP[1]}


def updates(made: Outcome) -> list[tuple[str, tuple[int, ...]]]:
    """The steps of the large value."""
    return [(step.update, step.bases) for step in made.manifest.parameters["a"].store]


def test_a_mean_is_stored_as_its_recipe(depot: Depot, tmp_path: Path) -> None:
    """Nothing is stored for it but the manifest's layout, which is that of the sides."""
    base, ours, theirs = (SAFETENSORS.save(arrays) for arrays in (BASE, TUNED, TUNED_TOO))
    before: set[str] = set()
    for content in (ours, theirs):
        take(content, depot, [take(base, depot)])
        before |= objects(tmp_path / "theta").keys()
    made = outcome_of(depot, base, ours, theirs)
    assert updates(made) == [("dense", ()), ("delta", (0,)), ("delta", (0,)), ("average", (1, 2))]
    assert objects(tmp_path / "theta").keys() == before
    found = SAFETENSORS.load(content_of(made.manifest, depot))
    assert_same(found, {**BASE, "a": TUNED["a"] * np.float32(0.5) + TUNED_TOO["a"] * np.float32(0.5)})
    record = made.manifest.parameters["a"]
    assert record.store in depot.catalogue.find(record.digest, record.dtype, record.shape)


def test_what_a_recipe_takes_into_use_is_young(depot: Depot) -> None:
    """`git theta prune` leaves young objects alone, whatever branch it does not see yet."""
    base, ours, theirs = (SAFETENSORS.save(arrays) for arrays in (BASE, TUNED, TUNED_TOO))
    old = take(base, depot)
    mine, other = (take(content, depot, [old]) for content in (ours, theirs))
    for path in depot.store.objects():
        os.utime(path, (0, 0))
    made = outcome.apply(plan(old, mine, other), Versions(old, mine, other), Rules(), depot)
    record = made.manifest.parameters["a"]
    assert len(record.store) == 4
    for piece in (piece for step in record.store for piece in step.pieces):
        assert depot.store.path(piece.oid).stat().st_mtime > 0


def test_weights_are_part_of_a_recipe(depot: Depot) -> None:
    rules = (Rule("*", "average", {"weights": (1.0, 3.0)}),)
    made, found = merged(SAFETENSORS, depot, BASE, TUNED, TUNED_TOO, *rules)
    assert_same(found, {**BASE, "a": TUNED["a"] * np.float32(0.25) + TUNED_TOO["a"] * np.float32(0.75)})
    last = made.manifest.parameters["a"].store[-1]
    assert (last.update, last.size) == ("average", 16)


def test_a_recipe_of_recipes_and_what_is_trained_on_it(depot: Depot) -> None:
    small = STEP / 64
    first, _ = merged(SAFETENSORS, depot, BASE, {**BASE, "a": LARGE + small[0]}, {**BASE, "a": LARGE + small[1]})
    version, mean = first.manifest, SAFETENSORS.load(content_of(first.manifest, depot))["a"]
    assert updates(first) == [("dense", ()), ("delta", (0,)), ("delta", (0,)), ("average", (1, 2))]
    for recipe in (True, False):  # a third one would make the chain too long, and is stored as a difference, or whole
        texts = [SAFETENSORS.save({**BASE, "a": mean + step}) for step in small]
        ours, theirs = (take(text, depot, [version]) for text in texts)
        made = outcome.apply(plan(version, ours, theirs), Versions(version, ours, theirs), Rules(), depot)
        if recipe:
            assert updates(made)[4:] == [("delta", (3,)), ("delta", (3,)), ("average", (4, 5))]
        assert (updates(made)[-1][0] == "average") == recipe
        mean = (mean + small[0]) * np.float32(0.5) + (mean + small[1]) * np.float32(0.5)
        assert_same(SAFETENSORS.load(content_of(made.manifest, depot)), {**BASE, "a": mean})
        version = made.manifest


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (Settings(updates=("delta",)), ["dense", "delta"]),
        (Settings(updates=("dense",)), ["dense"]),
        (Settings(compression="none"), ["dense"]),
    ],
)
def test_no_recipe_is_written_where_the_settings_want_none(
    tmp_path: Path, settings: Settings, wanted: list[str]
) -> None:
    with opened(tmp_path, settings) as depot:
        made, found = merged(SAFETENSORS, depot, BASE, TUNED, TUNED_TOO)
        assert [update for update, _ in updates(made)] == wanted
        assert_same(found, {**BASE, "a": TUNED["a"] * np.float32(0.5) + TUNED_TOO["a"] * np.float32(0.5)})


@pytest.mark.parametrize("strategy", ["task-arithmetic", "slerp"])
def test_what_is_no_mean_is_stored_as_a_difference(depot: Depot, strategy: str) -> None:
    made, _ = merged(SAFETENSORS, depot, BASE, TUNED, TUNED_TOO, Rule("*", strategy))
    assert updates(made) == [("dense", ()), ("delta", (0,))]


def test_sides_that_are_stored_whole_have_a_recipe(depot: Depot) -> None:
    numbers = np.random.default_rng(3)
    base, ours, theirs = (numbers.standard_normal((200, 300)).astype("<f4") for _ in range(3))
    made, found = merged(SAFETENSORS, depot, {"a": base}, {"a": ours}, {"a": theirs})
    assert [update for update, _ in updates(made)] == ["dense", "dense", "average"]
    assert_same(found, {"a": ours * np.float32(0.5) + theirs * np.float32(0.5)})


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_mean_of_what_is_not_finite_is_a_conflict(depot: Depot, side: str, bad: float, dtype: str) -> None:
    base, ours, theirs = (np.full(100_000, value, dtype) for value in (1, 3e4, 6e4))
    made, found = merged(SAFETENSORS, depot, {"a": base}, {"a": ours}, {"a": theirs})
    assert made.conflicts == ()
    assert found["a"][0] == 45_000
    (ours if side == "ours" else theirs)[7] = bad
    made, found = merged(SAFETENSORS, depot, {"a": base}, {"a": ours}, {"a": theirs})
    assert [one.reason for one in made.conflicts] == [f"{side} has NaN or infinite values; take a side"]
    assert_same(found, {"a": ours})


@pytest.mark.parametrize("megabytes", [15, 17], ids=["in memory", "through a file"])
def test_large_values_are_merged_whatever_they_build_on(depot: Depot, megabytes: int) -> None:
    """Chains of deltas share the values that they build on, unless those are too large to be held."""
    rng = np.random.default_rng(2)
    shape = (megabytes, 2**18)

    def step(size: float) -> "np.ndarray[Any, Any]":
        drawn: np.ndarray[Any, Any] = rng.standard_normal(shape).astype("<f4") * np.float32(size)
        return drawn

    base = step(0.02)
    ours, theirs = base + step(1e-5), base + step(1e-5)
    later = ours + step(1e-9)
    old = take(SAFETENSORS.save({"a": base}), depot)
    mine = take(SAFETENSORS.save({"a": ours}), depot, [old])
    mine = take(SAFETENSORS.save({"a": later}), depot, [mine])
    other = take(SAFETENSORS.save({"a": theirs}), depot, [old])
    assert [len(version.parameters["a"].store) for version in (old, mine, other)] == [1, 3, 2]
    made = outcome.apply(plan(old, mine, other), Versions(old, mine, other), Rules(), depot)
    found = SAFETENSORS.load(content_of(made.manifest, depot))
    assert_same(found, {"a": (later + theirs) * np.float32(0.5)})
    made_of = ["dense", "delta", "delta", "delta", "average"]
    assert [one.update for one in made.manifest.parameters["a"].store] == made_of
    # As a difference from the base, by a strategy that makes the same of it.
    rules = Rules((Rule("*", "task-arithmetic", {"weights": (0.5, 0.5)}),))
    made = outcome.apply(plan(old, mine, other, rules), Versions(old, mine, other), rules, depot)
    found = SAFETENSORS.load(content_of(made.manifest, depot))
    assert np.allclose(found["a"], (later + theirs) * np.float32(0.5), rtol=0, atol=1e-8)
    assert [one.update for one in made.manifest.parameters["a"].store] == ["dense", "delta"]


def test_a_base_that_nobody_needs_may_be_missing(depot: Depot) -> None:
    base, ours, theirs = (take(SAFETENSORS.save({**BASE, "a": LARGE + step}), depot) for step in STEPS)
    depot.store.path(base.parameters["a"].store[0].pieces[0].oid).unlink()
    made = outcome.apply(plan(base, ours, theirs), Versions(base, ours, theirs), Rules(), depot)
    assert made.conflicts == ()
    found = SAFETENSORS.load(content_of(made.manifest, depot))
    assert_same(found, {**BASE, "a": (LARGE + STEPS[1] + (LARGE + STEPS[2])) * np.float32(0.5)})


def test_versions_of_two_formats_are_a_conflict_that_keeps_ours(depot: Depot) -> None:
    ours, theirs = SAFETENSORS.save({**BASE, "a": LARGE + 1}), NPZ.save({**BASE, "a": LARGE + 2})
    made = outcome_of(depot, SAFETENSORS.save(BASE), ours, theirs)
    assert [one.name for one in made.conflicts] == [SKELETON]
    assert content_of(made.manifest, depot) == ours


def many(depot: Depot, base: bytes, *sides: bytes, rules: tuple[Rule, ...] = ()) -> Outcome:
    old = take(base, depot)
    ours, theirs, *others = (take(side, depot, [old]) for side in sides)
    versions = Versions(old, ours, theirs, tuple(others))
    return outcome.apply(manyway.plan(old, versions.sides, Rules(rules)), versions, Rules(rules), depot)


@ALL
def test_several_sides_are_averaged_at_once(library: Library, depot: Depot) -> None:
    steps = [np.float32(step) for step in (1, 2, 6)]
    sides = [{**BASE, "a": LARGE + step} for step in steps]
    sides[1]["b"] = BASE["b"] + 1
    sides[2]["c"] = BASE["c"] * 2
    made = many(depot, library.save(BASE), *map(library.save, sides))
    assert made.conflicts == ()
    third = np.float32(1 / 3)
    mean = sides[0]["a"] * third + sides[1]["a"] * third + sides[2]["a"] * third
    found = library.load(content_of(made.manifest, depot))
    assert np.allclose(found["a"], mean, rtol=1e-6, atol=0)
    assert_same({**found, "a": mean}, {**BASE, "a": mean, "b": sides[1]["b"], "c": sides[2]["c"]})


@ALL
def test_equal_changes_count_each(library: Library, depot: Depot) -> None:
    sides = [{**BASE, "b": BASE["b"] + step} for step in (np.float32(3), np.float32(3), np.float32(9))]
    made = many(depot, library.save(BASE), *map(library.save, sides))
    found = library.load(content_of(made.manifest, depot))
    assert np.allclose(found["b"], BASE["b"] + 5, rtol=1e-6, atol=0)


def test_the_skeleton_of_the_one_side_that_changed_it_is_taken(depot: Depot) -> None:
    def save(step: str, plus: float) -> bytes:
        return safetensors.numpy.save({**BASE, "a": LARGE + np.float32(plus)}, {"step": step})

    made = many(depot, save("1", 0), save("1", 1), save("1", 2), save("4", 3))
    assert made.conflicts == ()
    assert metadata(content_of(made.manifest, depot)) == {"step": "4"}
    made = many(depot, save("1", 0), save("1", 1), save("3", 2), save("4", 3))
    assert [one.name for one in made.conflicts] == [SKELETON]
    assert metadata(content_of(made.manifest, depot)) == {"step": "1"}


@ALL
def test_what_one_of_several_sides_added_is_in_the_file(library: Library, depot: Depot) -> None:
    sides = [{**BASE, "a": LARGE + STEPS[1]}, {**BASE, "b": BASE["b"] + 1}, {**BASE, "x": np.arange(3, dtype="<f8")}]
    made = many(depot, library.save(BASE), *map(library.save, sides))
    assert made.conflicts == ()
    found = library.load(content_of(made.manifest, depot))
    assert_same(found, {**BASE, "a": sides[0]["a"], "b": sides[1]["b"], "x": sides[2]["x"]})
