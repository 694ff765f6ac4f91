"""What a new version of a value is stored as, what keeps it from that, and that every version comes back."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from git_theta import choice, manifest, plugins
from git_theta import value as values
from git_theta.choice import MAX_CHAIN
from git_theta.config import Settings
from git_theta.depot import Depot
from git_theta.errors import ConfigError, DamagedObjectError, InputError, MissingObjectError
from git_theta.manifest import Manifest, Record, Step
from git_theta.tensor import Tensor
from git_theta.updates.base import Supplied, Supplier
from git_theta.updates.delta import DELTA
from tests import independent_reader
from tests.checkpoints import (
    changed,
    content_of,
    leftovers,
    noise,
    objects,
    opened,
    safetensors,
    take,
    trained,
    weights,
)

MIB = 2**20
ROWS = 400
BASE = weights(ROWS * 100)


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    with opened(tmp_path) as depot:
        yield depot


def model(data: bytes, dtype: str = "F32", width: int = 4) -> bytes:
    return safetensors(
        {"w": (dtype, (len(data) // (100 * width), 100), data), "fixed": ("F32", (20_000,), BASE[:80_000])}
    )


def sprinkled(data: bytes, count: int) -> bytes:
    """The data with so many of its elements being others."""
    words = np.frombuffer(data, "<u4").copy()
    numbers = np.random.default_rng(0)
    words[numbers.choice(len(words), count, replace=False)] = numbers.integers(0, 2**32, count)
    made: bytes = words.tobytes()
    return made


def stored(made: Manifest, name: str = "w") -> list[str]:
    return [step.update for step in made.parameters[name].store]


@pytest.mark.parametrize(
    ("content", "update"),
    [
        pytest.param(model(trained(BASE)), "delta", id="trained"),
        pytest.param(model(sprinkled(BASE, 200)), "sparse", id="a few elements"),
        pytest.param(model(BASE[:80_000] + noise(1200) + BASE[81_200:]), "sparse", id="a few rows"),
        pytest.param(model(BASE[: 300 * 400]), "sparse", id="rows cut off"),
        pytest.param(model(BASE + weights(300, 9)), "sparse", id="rows added"),
        pytest.param(model(trained(BASE)[: 300 * 400]), "delta", id="trained and cut"),
        pytest.param(model(np.frombuffer(BASE, "<f4").astype("<f2").tobytes(), "F16", 2), "cast", id="converted"),
        pytest.param(model(np.frombuffer(BASE, "<f4").astype("<f8").tobytes(), "F64", 8), "cast", id="widened"),
        pytest.param(model(weights(ROWS * 100, 77)), None, id="another value"),
        pytest.param(safetensors({"w": ("F32", (100, ROWS), trained(BASE))}), None, id="another shape"),
        pytest.param(
            safetensors({"w": ("F32", (ROWS, 100), trained(BASE)), "x": ("U8", (1,), b"a")}),
            "delta",
            id="another file",
        ),
        pytest.param(safetensors({"v": ("F32", (ROWS, 100), trained(BASE))}), None, id="another name"),
    ],
)
def test_a_new_version_is_stored_as_what_it_adds(tmp_path: Path, content: bytes, update: str | None) -> None:
    with opened(tmp_path) as depot:
        first = take(model(BASE), depot)
        second = take(content, depot, [first])
        name = "v" if "v" in second.parameters else "w"
        assert stored(second, name) == (["dense", update] if update else ["dense"])
        assert content_of(second, depot) == content
        assert manifest.parse(manifest.format(second)) == second
        assert independent_reader.rebuild(manifest.format(second), tmp_path / "objects") == content
        assert take(content, depot, [first]) == second
        assert take(content, depot, [second]) == second
        assert take(model(BASE), depot, [second]) == first
        assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        pytest.param(weights(3000), trained(weights(3000), 0, 1e-6), ["dense", "delta"], id="trained"),
        pytest.param(weights(3000), sprinkled(weights(3000), 3), ["dense", "sparse"], id="an element"),
        pytest.param(weights(3000), weights(3000, 9), ["dense"], id="another value"),
        pytest.param(weights(100), sprinkled(weights(100), 1), ["dense"], id="too small"),
        pytest.param(b"", b"", ["dense"], id="empty"),
    ],
)
def test_small_values_build_on_others_too(depot: Depot, old: bytes, new: bytes, steps: list[str]) -> None:
    """Their payloads lie in one object, where the same one under two names is stored once."""

    def file(first: bytes, second: bytes) -> bytes:
        shape = (len(old) // 4,)
        return safetensors({"a": ("F32", shape, first), "b": ("F32", shape, second), "c": ("F32", (1, *shape), second)})

    before = take(file(old, old), depot)
    count = len(objects(depot.store.root))
    made = take(file(new, new), depot, [before])
    assert [stored(made, name) for name in "abc"] == [steps] * 3
    assert content_of(made, depot) == file(new, new)
    assert len(objects(depot.store.root)) <= count + 2  # the bundle and the layout
    back = take(file(new, old), depot, [made])
    assert back.parameters["b"] == before.parameters["b"]


def test_very_many_small_values_are_not_compared_with_their_bases(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("git_theta.checkpoint.MAX_SMALL_BASES", 1)

    def file(data: bytes) -> bytes:
        return safetensors(dict.fromkeys("ab", ("F32", (3000,), data)))

    made = take(file(sprinkled(weights(3000), 3)), depot, [take(file(weights(3000)), depot)])
    assert stored(made, "a") == ["dense"]


def supply(update: str, tensors: Mapping[str, Tensor], like: Record) -> dict[str, Supplied]:
    supplier = plugins.update(update)
    assert isinstance(supplier, Supplier)
    return {"w": supplier.supplied(tensors, like.dtype, like.shape)}


def array(values: "np.ndarray[tuple[int, ...], np.dtype[np.floating]]") -> Tensor:
    return Tensor("F32", values.shape, values.astype("<f4").tobytes())


NUMBERS = np.random.default_rng(5)
LEFT, RIGHT = (NUMBERS.standard_normal(shape).astype("<f4") * 0.01 for shape in ((ROWS, 4), (4, 100)))
MERGED = (np.frombuffer(BASE, "<f4").reshape(ROWS, 100) + LEFT @ RIGHT).astype("<f4").tobytes()


@pytest.mark.parametrize("rows", [ROWS, 40], ids=["large", "small"])
def test_a_supplied_update_is_what_is_stored(depot: Depot, rows: int) -> None:
    """Beside others that changed by themselves, and although the same values are stored otherwise already."""
    first = take(model(BASE[: rows * 400]), depot)
    content = model(MERGED[: rows * 400]).replace(BASE[:80_000], trained(BASE[:80_000]))
    plain = take(content, depot, [first])
    assert stored(plain) == ["dense", "delta"]
    given = supply("low-rank", {"R": array(LEFT[:rows]), "C": array(RIGHT)}, first.parameters["w"])
    second = take(content, depot, [plain, first], given)
    assert (stored(second), stored(second, "fixed")) == (["dense", "low-rank"], stored(plain, "fixed"))
    assert second.parameters["w"].store[1].size < rows * 20 + 3000
    assert content_of(second, depot) == content
    assert take(content, depot, [second]) == second
    assert take(model(BASE[: rows * 400]), depot, [first], given) == first


@pytest.mark.parametrize("rows", [ROWS, 40], ids=["large", "small"])
def test_an_update_that_readers_would_refuse_is_not_written(
    depot: Depot, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two updates of rank 4 and 100 columns, of F32 and as F64."""
    first = take(model(BASE[: rows * 400]), depot)
    given = supply("low-rank", {"R": array(LEFT[:rows]), "C": array(RIGHT)}, first.parameters["w"])
    second = take(model(MERGED[: rows * 400]), depot, [first], given)
    again = (np.frombuffer(MERGED, "<f4").reshape(ROWS, 100) + LEFT @ RIGHT).astype("<f4").tobytes()
    content = model(again[: rows * 400])
    for limit, update in ((2 * 4800 - 1, "dense"), (2 * 4800, "low-rank")):
        for module in (choice, values):
            monkeypatch.setattr(module, "MAX_HELD_BYTES", limit)
        third = take(content, depot, [second], given)
        assert stored(third)[-1] == update
        assert content_of(third, depot) == content


def test_a_supplied_update_of_another_base_is_refused(depot: Depot) -> None:
    first = take(model(BASE), depot)
    given = supply("low-rank", {"R": array(LEFT), "C": array(-RIGHT)}, first.parameters["w"])
    with pytest.raises(InputError, match=r"parameter 'w': it is not what the supplied low-rank update makes"):
        take(model(MERGED), depot, [first], given)
    wide = np.frombuffer(MERGED, "<f4").astype("<f8").tobytes()
    with pytest.raises(InputError, match=r"parameter 'w': it is F64 \[400, 100\], and its base F32"):
        take(model(wide, "F64", 8), depot, [first], given)


def test_a_supplied_update_needs_its_base(depot: Depot) -> None:
    first = take(model(BASE), depot)
    given = supply("ia3", {"ia3": array(LEFT[:, :1])}, first.parameters["w"])
    _object(depot, first).unlink()
    with pytest.raises(MissingObjectError, match=r"parameter 'w': the version before is not on this machine"):
        take(model(MERGED), depot, [first], given)


@pytest.mark.parametrize("detect", [True, False])
def test_a_low_rank_difference_is_found_on_request(tmp_path: Path, detect: bool) -> None:
    with opened(tmp_path, Settings(detect_low_rank=detect)) as depot:
        second = take(model(MERGED), depot, [take(model(BASE), depot)])
        assert stored(second) == ["dense", "low-rank" if detect else "delta"]
        assert content_of(second, depot) == model(MERGED)


def test_a_large_value_is_never_held_whole(depot: Depot) -> None:
    base = weights(5 * MIB)
    for data, update in ((changed(base, 19 * MIB), "sparse"), (trained(base), "delta")):
        contents = [safetensors({"w": ("F32", (5 * MIB,), value)}) for value in (base, data)]
        second = take(contents[1], depot, [take(contents[0], depot)])
        assert stored(second) == ["dense", update]
        assert content_of(second, depot) == contents[1]


def test_every_version_of_a_chain_comes_back_and_chains_end(depot: Depot) -> None:
    data = BASE
    versions: list[tuple[bytes, Manifest]] = []
    for number in range(2 * MAX_CHAIN):
        content = model(data)
        versions.append((content, take(content, depot, [made for _, made in versions[-1:]])))
        data = changed(data, *range(number, len(data), 16_000))
    lengths = [len(made.parameters["w"].store) for _, made in versions]
    assert lengths == [*range(1, MAX_CHAIN + 1)] * 2
    for content, made in versions:
        assert content_of(made, depot) == content


def test_what_a_chain_adds_is_never_more_than_a_dense_value(depot: Depot) -> None:
    data = BASE
    known: list[Manifest] = []
    lengths = []
    for seed in range(6):
        made = take(model(data), depot, known)
        assert content_of(made, depot) == model(data)
        steps = made.parameters["w"].store
        assert sum(step.size for step in steps[1:]) <= steps[0].size * 1.05
        lengths.append(len(steps))
        data, known = trained(data, seed, 1e-4), [made]
    assert 1 < max(lengths) < 6


@pytest.mark.parametrize("updates", [(), ("dense",), ("sparse",), ("cast", "dense")], ids=str)
def test_only_the_updates_of_the_settings_are_used(tmp_path: Path, updates: tuple[str, ...]) -> None:
    with opened(tmp_path, Settings(threads=2, updates=updates)) as depot:
        second = take(model(trained(BASE)), depot, [take(model(BASE), depot)])
        assert stored(second) == ["dense"]


def test_a_setting_that_names_no_update_is_named(tmp_path: Path) -> None:
    with opened(tmp_path, Settings(updates=("row-delta",))) as depot:
        first = take(model(BASE), depot)
        with pytest.raises(ConfigError, match=r"theta.updates.*'row-delta' is not installed"):
            take(model(trained(BASE)), depot, [first])


def test_without_compression_values_are_raw(tmp_path: Path) -> None:
    with opened(tmp_path, Settings(compression="none")) as depot:
        second = take(model(trained(BASE)), depot, [take(model(BASE), depot)])
        assert [step.size for step in second.parameters["w"].store] == [len(BASE)]


def _object(depot: Depot, made: Manifest) -> Path:
    return depot.store.path(made.parameters["w"].store[0].pieces[0].oid)


def test_a_base_that_is_not_here_is_none(depot: Depot) -> None:
    first = take(model(BASE), depot)
    _object(depot, first).unlink()
    second = take(model(trained(BASE)), depot, [first])
    assert stored(second) == ["dense"]


@pytest.mark.parametrize("length", [ROWS * 100, 5 * MIB], ids=["held", "above 16 MiB"])
@pytest.mark.parametrize("last", [True, False], ids=["last byte", "first bytes"])
def test_a_damaged_base_is_none(depot: Depot, length: int, last: bool) -> None:
    base = noise(4 * length)
    first = take(safetensors({"w": ("U32", (length,), base)}), depot)
    path = _object(depot, first)
    path.chmod(0o644)
    path.write_bytes(changed(path.read_bytes(), -1 if last else 0))
    content = safetensors({"w": ("U32", (length,), changed(base, 1000))})
    second = take(content, depot, [first])
    assert stored(second) == ["dense"]
    assert content_of(second, depot) == content


def test_a_base_that_lies_is_none(depot: Depot) -> None:
    """Its objects are whole and rebuild other bytes: a chain on them would be right only as long as nobody mends it."""
    first = take(model(BASE), depot)
    lying = replace(first.parameters["w"], digest=blake3(b"other").hexdigest())
    second = take(model(trained(BASE)), depot, [replace(first, parameters={"w": lying})])
    assert stored(second) == ["dense"]


@pytest.mark.parametrize("store", [(Step("row-delta", ()),), (Step("delta", ()),)], ids=["not installed", "no base"])
def test_a_base_that_cannot_be_read_is_none(depot: Depot, store: tuple[Step, ...]) -> None:
    first = take(model(BASE), depot)
    unknown = replace(first.parameters["w"], store=store)
    second = take(model(trained(BASE)), depot, [replace(first, parameters={"w": unknown})])
    assert stored(second) == ["dense"]


class _Wrong:
    """A delta that is coded wrongly, or not at all."""

    name, bases = "wrong", 1

    def __init__(self, error: bool) -> None:
        self._error = error

    def encode(self, value, bases):  # type: ignore[no-untyped-def]  # what a plugin may do
        if self._error:
            raise RuntimeError("a bug")
        return DELTA.encode(value, bases)

    def decode(self, payload, size, bases):  # type: ignore[no-untyped-def]  # what a plugin may do
        return iter([bytes(size)])


@pytest.mark.parametrize("error", [True, False], ids=["raises", "other bytes"])
def test_an_update_with_a_bug_keeps_nothing_from_being_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: bool
) -> None:
    known, wrong = plugins.update, _Wrong(error)
    monkeypatch.setattr(plugins, "update", lambda name: wrong if name == "wrong" else known(name))
    with opened(tmp_path, Settings(updates=("wrong",))) as depot, caplog.at_level(logging.WARNING):
        second = take(model(trained(BASE)), depot, [take(model(BASE), depot)])
        assert stored(second) == ["dense"]
        assert content_of(second, depot) == model(trained(BASE))
    assert len(caplog.records) == error


@pytest.mark.parametrize("index", [0, 1], ids=["base", "update"])
def test_damage_in_a_chain_is_named(depot: Depot, index: int) -> None:
    second = take(model(trained(BASE)), depot, [take(model(BASE), depot)])
    [piece] = second.parameters["w"].store[index].pieces
    path = depot.store.path(piece.oid)
    path.chmod(0o644)
    path.write_bytes(changed(path.read_bytes(), piece.size // 2))
    with pytest.raises(DamagedObjectError, match=f"'w'.*{piece.oid} is damaged"):
        content_of(second, depot)


def test_unchanged_values_keep_their_steps_and_add_no_objects(tmp_path: Path) -> None:
    with opened(tmp_path) as depot:
        second = take(model(trained(BASE)), depot, [take(model(BASE), depot)])
        before = objects(tmp_path)
        again = take(model(trained(BASE)), depot, [second])
        assert (again, objects(tmp_path)) == (second, before)
