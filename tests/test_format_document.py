"""docs/format.md: a reader written from it alone reads what is written today, and what earlier releases wrote."""

import hashlib
import itertools
import json
import re
from pathlib import Path

import pytest

from git_theta import layout, manifest, rebuild
from git_theta.config import Settings
from git_theta.depot import Depot
from git_theta.jsontext import MAX_ITEMS
from git_theta.layout import MAX_LAYOUT_BYTES
from git_theta.store import Store
from git_theta.tensor import DTYPES
from tests import independent_reader
from tests.checkpoints import brain_weights, content_of, noise, opened, safetensors, take, weights

DOCUMENT = Path(__file__).parents[1] / "docs" / "format.md"
V1 = Path(__file__).parent / "data" / "v1"
EXPECTED: dict[str, str] = json.loads((V1 / "expected.json").read_text())

MIXED = safetensors(
    {
        "f64": ("F64", (2000,), b"".join(noise(6, i) + b"\x12\x3f" for i in range(2000))),
        "f32": ("F32", (100, 300), weights(30_000)),
        "bf16": ("BF16", (40_000,), brain_weights(40_000)),
        "u8": ("U8", (70_000,), bytes(70_000)),
        "i64": ("I64", (3000,), b"".join((i % 9).to_bytes(8, "little") for i in range(3000))),
        "raw": ("F16", (40_000,), noise(80_000)),
        "f4": ("F4", (3, 2), b"abc"),
        "new": ("Q4_new", (256,), noise(144)),
        "empty": ("C64", (0, 9), b""),
        "é\n~/": ("BOOL", (), b"\1"),
    }
)


@pytest.mark.parametrize(
    "content",
    [b"", b"a", noise(70_000), b"text" * 300_000, MIXED, safetensors({})],
    ids=["nothing", "a byte", "skeleton", "opaque", "safetensors", "no tensors"],
)
@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings(compression="none"), Settings(max_object_bytes=2**16)],
    ids=["coded", "raw", "small objects"],
)
def test_the_specification_is_enough_to_read_what_is_written(
    tmp_path: Path, content: bytes, settings: Settings
) -> None:
    with opened(tmp_path, settings) as depot:
        text = manifest.format(take(content, depot))
    (tmp_path / "objects").mkdir(exist_ok=True)
    assert independent_reader.rebuild(text, tmp_path / "objects") == content


@pytest.mark.parametrize("name", EXPECTED)
def test_what_version_1_wrote_is_read_for_ever(tmp_path: Path, name: str) -> None:
    text = (V1 / "manifests" / name).read_bytes()
    with opened(tmp_path) as scratch:
        depot = Depot(Store(V1, max_object_bytes=2**30, fsync=False), scratch.catalogue, Settings(threads=2))
        made = manifest.parse(text)
        content = content_of(made, depot)
        assert rebuild.read_layout(made, depot).size == len(content)
    assert _sha256(content) == EXPECTED[name]
    assert _sha256(independent_reader.rebuild(text, V1 / "objects")) == EXPECTED[name]
    assert manifest.format(made) == text


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_kept_objects_are_those_that_are_named() -> None:
    named = [manifest.parse((V1 / "manifests" / name).read_bytes()).objects() for name in EXPECTED]
    kept = {path.name: path.stat().st_size for path in (V1 / "objects").rglob("*") if path.is_file()}
    assert kept == {oid: size for objects in named for oid, size in objects.items()}
    assert {path.name for path in (V1 / "manifests").iterdir()} == set(EXPECTED)


def test_the_document_has_every_dtype() -> None:
    document = DOCUMENT.read_text()
    section = document[document.index("### Dtypes") : document.index("### Names")]
    found: dict[str, int] = {}
    for names, bits in re.findall(r"((?:`[A-Za-z0-9_]+`[ \n]*)+)\((\d+) bits\)", section):
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), int(bits))
    assert found == {name: dtype.bits for name, dtype in DTYPES.items()} == independent_reader.DTYPES


@pytest.mark.parametrize(
    ("sentence", "number"),
    [
        ("in UTF-8, of at most {} MiB and", manifest.MAX_MANIFEST_BYTES // 2**20),
        ("MiB and {} items", MAX_ITEMS),
        ("object of name to record, at most {}", manifest.MAX_PARAMETERS),
        ("the steps that rebuild the value, 1 to {}", manifest.MAX_STEPS),
        ("for a part of one; at most {}", manifest.MAX_PIECES),
        ("slices of a shared storage; 1 to {}", manifest.MAX_VIEWS),
        ("a layout above {} MiB", MAX_LAYOUT_BYTES // 2**20),
    ],
)
def test_the_document_has_the_bounds_of_the_code(sentence: str, number: int) -> None:
    assert sentence.format(f"{number:,}") in " ".join(DOCUMENT.read_text().split())


def test_the_example_of_the_document_is_canonical() -> None:
    document = DOCUMENT.read_text()
    example = document[document.index('{"git-theta": 1') : document.index("```\n\n1. Lines")]
    numbers = itertools.count()
    text = re.sub("<(digest|oid)>", lambda _: f"{next(numbers):064x}", example).encode()
    assert manifest.format(manifest.parse(text)) == text


def test_the_example_of_a_layout_is_one() -> None:
    document = DOCUMENT.read_text()
    [line] = re.findall(r'^{"git-theta-layout".*\n', document, re.MULTILINE)
    text = line.encode() + bytes(11264)
    assert layout.format(layout.parse(text)) == text
