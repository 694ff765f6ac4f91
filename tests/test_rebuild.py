"""Rebuilding: the bytes that went in, or an error that says which part of the checkpoint is to blame."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from git_theta import layout, rebuild
from git_theta.config import Settings
from git_theta.depot import Depot
from git_theta.errors import DamagedObjectError, ManifestError, MissingObjectError, ThetaError
from git_theta.layout import Layout, Part
from git_theta.manifest import Manifest, Record, Step
from tests.checkpoints import content_of, linux_only, noise, opened, put, record, safetensors, take, weights

MIB = 2**20
MODEL = {
    "large": ("F32", (300, 200), weights(60_000)),
    "other": ("U8", (100_000,), noise(100_000)),
    "small": ("F32", (4000,), weights(4000, 1)),
    "empty": ("F32", (0, 7), b""),
}
CONTENT = safetensors(MODEL)


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    with opened(tmp_path) as depot:
        yield depot


def _manifest(depot: Depot, cut: Layout | bytes, parameters: dict[str, Record], **changes: object) -> Manifest:
    """A manifest whose digest is that of its layout and parameters, whatever these are."""
    text = cut if isinstance(cut, bytes) else layout.format(cut)
    parsed = cut if isinstance(cut, Layout) else Layout((), b"")
    row = record(depot, text)
    known = replace(parsed, parts=tuple(part for part in parsed.parts if part.name in parameters))
    digest = layout.whole_digest(row, known, parameters)
    return replace(Manifest("test", parsed.size, digest, row, parameters), **changes)  # type: ignore[arg-type]  # fields of Manifest


@pytest.mark.parametrize(
    ("parts", "skeleton"),
    [
        pytest.param([], b"", id="nothing"),
        pytest.param([(None, 5)], b"12345", id="skeleton alone"),
        pytest.param([("a", 0)], b"", id="a value without bytes"),
        pytest.param([("a", 3), ("b", 70_000), ("c", 1)], b"", id="values side by side"),
        pytest.param([(None, 2), (None, 0), (None, 3), ("a", 2), (None, 1)], b"123456", id="skeleton in runs"),
        pytest.param(
            [(None, MIB), ("a", 17 * MIB), (None, MIB), ("b", 5 * MIB), ("c", 9)], noise(2 * MIB), id="large values"
        ),
        pytest.param(
            [("b", 18 * MIB), ("a", 18 * MIB), ("c", 5 * MIB), *((str(i), 4 * MIB) for i in range(8))],
            b"",
            id="more than runs ahead",
        ),
        pytest.param([(part, 10) for i in range(800) for part in (f"p{i}", None)], noise(8000), id="many parts"),
    ],
)
@pytest.mark.parametrize("threads", [1, 8])
def test_a_file_is_its_parts(
    tmp_path: Path, parts: list[tuple[str | None, int]], skeleton: bytes, threads: int
) -> None:
    values = {name: noise(size, index) for index, (name, size) in enumerate(parts) if name}
    rest = iter(skeleton)
    content = b"".join(values[name] if name else bytes(islice(rest, size)) for name, size in parts)
    with opened(tmp_path, Settings(threads=threads)) as depot:
        records = {name: record(depot, value) for name, value in values.items()}
        made = _manifest(depot, Layout(tuple(Part(*part) for part in parts), skeleton), records)
        assert content_of(made, depot) == content


def test_progress_is_told_of_every_byte_written(depot: Depot, tmp_path: Path) -> None:
    made = take(CONTENT, depot)
    told: list[int] = []
    with (tmp_path / "file").open("w+b") as file:
        rebuild.write(made, rebuild.read_layout(made, depot), depot, file.fileno(), progress=told.append)
        assert file.read() == CONTENT
    assert sum(told) == len(CONTENT)


A = Layout((Part(None, 4), Part("a", 6)), b"head")


@pytest.mark.parametrize(
    ("cut", "changes"),
    [
        pytest.param(b"", {}, id="no layout"),
        pytest.param(b"{}\n", {}, id="empty layout"),
        pytest.param(Layout((Part(None, 4),), b"head"), {}, id="parameter left out"),
        pytest.param(Layout((Part(None, 4), Part("b", 6)), b"head"), {}, id="another parameter"),
        pytest.param(
            Layout((Part(None, 4), Part("a", 6), Part("b", 0)), b"head"), {}, id="parameter that is not there"
        ),
        pytest.param(Layout((Part(None, 4), Part("a", 5)), b"head"), {}, id="parameter of another size"),
        pytest.param(Layout((Part(None, 4), Part("a", 6), Part("a", 0)), b"head"), {}, id="parameter twice"),
        pytest.param(Layout((Part(None, 4), Part("a", 2**63 - 1)), b"head"), {}, id="parameter of 2**63 - 1 bytes"),
        pytest.param(Layout((Part(None, 5), Part("a", 6)), b"head"), {}, id="skeleton too short"),
        pytest.param(A, {"size": 9}, id="a byte less in all"),
        pytest.param(A, {"size": 11}, id="a byte more in all"),
        pytest.param(A, {"size": 2**63 - 1}, id="2**63 - 1 bytes in all"),
        pytest.param(A, {"digest": "0" * 64}, id="another digest"),
    ],
)
def test_a_layout_that_contradicts_its_manifest_is_refused(
    depot: Depot, cut: Layout | bytes, changes: dict[str, object]
) -> None:
    made = _manifest(depot, cut, {"a": record(depot, b"\0abcd\n")}, **changes)
    with pytest.raises(ManifestError) as caught:
        rebuild.read_layout(made, depot)
    assert str(caught.value).isprintable()


def test_a_sound_layout_is_read(depot: Depot) -> None:
    made = _manifest(depot, A, {"a": record(depot, b"\0abcd\n")})
    assert rebuild.read_layout(made, depot) == A
    assert content_of(made, depot) == b"head\0abcd\n"


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_order_of_the_parts_is_in_the_digest(depot: Depot, order: tuple[str, str]) -> None:
    """Swapping two parameters in the layout is noticed, even with the layout's own digest right."""
    values = {"a": b"first", "b": b"other"}
    records = {name: record(depot, data) for name, data in values.items()}
    cuts = [Layout(tuple(Part(name, 5) for name in names), b"") for names in (order, order[::-1])]
    honest, swapped = (_manifest(depot, cut, records) for cut in cuts)
    with pytest.raises(ManifestError, match="digest"):
        rebuild.read_layout(replace(swapped, digest=honest.digest), depot)


@pytest.mark.parametrize("size", [128 * MIB + 1, 2**40, 2**63 - 1])
def test_a_layout_that_claims_too_much_is_refused_unread(depot: Depot, size: int) -> None:
    row = Record("opaque", (size,), size, "0" * 64, (Step("dense", ()),))
    with pytest.raises(ManifestError, match=str(size)):
        rebuild.read_layout(Manifest("test", 0, "0" * 64, row, {}), depot)


@linux_only
def test_a_layout_of_128_mib_from_a_payload_of_a_few_bytes_takes_bounded_memory(tmp_path: Path) -> None:
    program = """
import sys
from dataclasses import replace
from pathlib import Path
from git_theta import layout, rebuild
from git_theta.errors import ManifestError
from git_theta.manifest import Manifest
from git_theta.source import BytesSource
from git_theta.updates.dense import DENSE
from git_theta.value import SourceValue
from tests.checkpoints import opened, record
with opened(Path(sys.argv[1])) as depot:
    text = b'{"git-theta-layout":1,"parts":[[null,1]]}\\n'
    text += bytes(layout.MAX_LAYOUT_BYTES - len(text))
    frames = DENSE.encode(SourceValue(BytesSource(text), 0, len(text), "opaque", (len(text),)))
    row = record(depot, text, b"".join(frames))
    del text, frames
    open("/proc/self/clear_refs", "w").write("5")  # proc(5): the peak begins anew
    try:
        rebuild.read_layout(Manifest("test", 1, "0" * 64, row, {}), depot)
    except ManifestError:
        figures = {line.split(":")[0]: line.split()[-2] for line in open("/proc/self/status") if line.endswith("kB\\n")}
        print(row.store[0].size, int(figures["VmHWM"]) // 1024)
"""
    run = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(run, check=True, cwd=Path(__file__).parents[1], capture_output=True)
    payload_bytes, peak_mib = map(int, done.stdout.split())
    assert payload_bytes < 20_000
    assert peak_mib < 512


def _flip(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 0x80]))


def _truncate(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 9)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        pytest.param(Path.unlink, MissingObjectError, id="gone"),
        pytest.param(_flip, DamagedObjectError, id="flipped"),
        pytest.param(_truncate, DamagedObjectError, id="truncated"),
    ],
)
@pytest.mark.parametrize("name", ["large", "other", "layout"])
@pytest.mark.parametrize("threads", [1, 8])
def test_the_part_and_the_object_to_blame_are_named(
    tmp_path: Path, damage: Callable[[Path], None], error: type[ThetaError], name: str, threads: int
) -> None:
    running = threading.active_count()
    with opened(tmp_path, Settings(threads=threads)) as depot:
        made = take(CONTENT, depot)
        row = made.layout if name == "layout" else made.parameters[name]
        oid = row.store[0].pieces[0].oid
        damage(depot.store.path(oid))
        for collect in (_pipe, _write):
            with pytest.raises(error, match=f"{name}.*{oid}") as caught:
                collect(made, depot, tmp_path)
            assert str(caught.value).isprintable()
            assert threading.active_count() == running


def _pipe(made: Manifest, depot: Depot, _: Path) -> bytes:
    return b"".join(rebuild.runs(made, rebuild.read_layout(made, depot), depot))


def _write(made: Manifest, depot: Depot, folder: Path) -> None:
    with (folder / "out").open("wb") as file:
        rebuild.write(made, rebuild.read_layout(made, depot), depot, file.fileno())


def test_a_name_is_escaped_in_an_error(depot: Depot) -> None:
    name = "\x1b[2J\r\n\u202e" * 20
    made = _manifest(depot, Layout((Part(name, 1),), b""), {name: record(depot, b"a", digest="0" * 64)})
    with pytest.raises(DamagedObjectError) as caught:
        _pipe(made, depot, Path())
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


@pytest.mark.parametrize("row", [0, 1], ids=["before the others", "behind the others"])
def test_an_update_that_is_not_installed_is_named_with_its_parameter(depot: Depot, row: int) -> None:
    names = ["a", "b"]
    records = {name: record(depot, noise(100_000)) for name in names}
    lost = names[row]
    records[lost] = replace(records[lost], store=(*records[lost].store, Step("row-delta", (), (0,))))
    made = _manifest(depot, Layout(tuple(Part(name, 100_000) for name in names), b""), records)
    with pytest.raises(ManifestError, match=f"'{lost}'.*'row-delta'.*install"):
        _pipe(made, depot, Path())


def test_no_byte_behind_damage_is_given_as_the_last_one(depot: Depot) -> None:
    """Who reads runs until they end without an error has the true bytes, whatever was in them before."""
    values = {name: noise(18 * MIB, index) for index, name in enumerate("abc")}
    records = {name: record(depot, value) for name, value in values.items()}
    made = _manifest(depot, Layout(tuple(Part(name, 18 * MIB) for name in "abc"), b""), records)
    _flip(depot.store.path(records["b"].store[0].pieces[0].oid))
    given: list[bytes] = []
    runs = rebuild.runs(made, rebuild.read_layout(made, depot), depot)
    with pytest.raises(DamagedObjectError, match="'b'"):
        given.extend(map(bytes, runs))
    assert b"".join(given)[: 18 * MIB] == values["a"]
    assert sum(map(len, given)) <= 36 * MIB


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_runs_that_are_no_longer_wanted_stop(depot: Depot, taken: int) -> None:
    values = {f"p{i}": noise(3 * MIB, i) for i in range(8)} | {"large": noise(20 * MIB)}
    records = {name: record(depot, value) for name, value in values.items()}
    made = _manifest(depot, Layout(tuple(Part(name, len(value)) for name, value in values.items()), b""), records)
    running = threading.active_count()
    runs = rebuild.runs(made, rebuild.read_layout(made, depot), depot)
    assert len(list(islice(runs, taken))) == taken
    assert isinstance(runs, Iterator)
    runs.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == running


def test_absurd_sizes_write_nothing(depot: Depot, tmp_path: Path) -> None:
    """A file of 2**62 bytes, for which there is a payload of a few."""
    lie = Record("opaque", (2**62,), 2**62, "0" * 64, (Step("dense", put(depot, b"a few bytes")),))
    made = _manifest(depot, Layout((Part("a", 2**62),), b""), {"a": lie})
    with pytest.raises(DamagedObjectError, match="manifest is wrong"):
        _pipe(made, depot, tmp_path)
    with pytest.raises((DamagedObjectError, OSError)):
        _write(made, depot, tmp_path)
    assert (tmp_path / "out").stat().st_blocks < 100


def test_the_text_of_a_layout_is_what_it_was(depot: Depot) -> None:
    made = take(CONTENT, depot)
    cut = rebuild.read_layout(made, depot)
    assert [(part.name, part.size) for part in cut.parts] == [
        (None, len(cut.skeleton)),
        *((name, len(value)) for name, (_, _, value) in MODEL.items()),
    ]
    assert json.loads(cut.skeleton[8:])["large"]["dtype"] == "F32"
