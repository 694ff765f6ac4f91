"""The catalogue: what it remembers, and that a damaged one is never worse than an empty one."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from git_theta.catalogue import Catalogue
from git_theta.manifest import Piece, Record, Step
from tests.checkpoints import content_of, objects, opened, record, safetensors, take, weights

DIGEST, OID = "d" * 64, "e" * 64
STORE = (Step("dense", (Piece(OID, 9, 1, 8), Piece(DIGEST, 4, 0, 4))), Step("mean", (), (), "F16", (2,)))
RECORD = Record("F32", (3,), 12, DIGEST, STORE)
CONTENT = safetensors({"large": ("F32", [40_000], weights(40_000)), "small": ("U8", [3], b"abc")})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "theta" / "catalogue.sqlite"


@pytest.fixture
def catalogue(path: Path) -> Iterator[Catalogue]:
    made = Catalogue(path)
    yield made
    made.close()


def _find(path: Path) -> list[tuple[Step, ...]]:
    with closing(Catalogue(path)) as catalogue:
        return catalogue.find(DIGEST, "F32", (3,))


def test_what_is_vouched_for_is_found_by_other_processes(catalogue: Catalogue, path: Path) -> None:
    other = Record("F32", (3,), 12, DIGEST, (Step("dense", ()),))
    catalogue.vouch([RECORD, other, RECORD])
    catalogue.vouch([RECORD])
    assert sorted(catalogue.find(DIGEST, "F32", (3,)), key=len) == [other.store, STORE]
    assert sorted(_find(path), key=len) == [other.store, STORE]


def test_several_are_found_at_once(catalogue: Catalogue) -> None:
    unknown = Record("F32", (3,), 12, OID, ())
    catalogue.vouch([RECORD])
    assert catalogue.find_at_once([unknown, RECORD, unknown]) == [[], [STORE], []]
    assert catalogue.find_at_once([]) == []
    catalogue.vouch([unknown])  # no transaction was left open
    catalogue.close()
    assert catalogue.find_at_once([unknown, RECORD]) == [[], []]


def test_its_state_tells_that_others_have_added_to_it(catalogue: Catalogue, path: Path) -> None:
    before = catalogue.state()
    catalogue.vouch([RECORD])
    assert catalogue.state() == before
    with closing(Catalogue(path)) as other:
        assert other.find(DIGEST, "F32", (3,)) == [STORE]
        assert catalogue.state() == before
        other.vouch([Record("F32", (4,), 16, DIGEST, STORE)])
        assert catalogue.state() != before


@pytest.mark.parametrize(
    ("digest", "dtype", "shape"),
    [(OID, "F32", (3,)), (DIGEST, "I32", (3,)), (DIGEST, "F32", (1, 3)), (DIGEST, "F32", ())],
    ids=["digest", "dtype", "shape", "rank"],
)
def test_another_value_is_not_found(catalogue: Catalogue, digest: str, dtype: str, shape: tuple[int, ...]) -> None:
    catalogue.vouch([RECORD])
    assert catalogue.find(digest, dtype, shape) == []


def _write(path: Path, text: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)


def _flip(path: Path) -> None:
    """Damage every page behind the first."""
    with closing(Catalogue(path)) as catalogue:
        catalogue.vouch([Record("F32", (i,), 4 * i, DIGEST, STORE) for i in range(500)])
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(byte ^ 0xA5 for byte in content[4096:]))


def _sql(path: Path, *statements: str) -> None:
    with closing(Catalogue(path)) as catalogue:
        catalogue.vouch([RECORD])
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    ("damage", "mended"),
    [
        pytest.param(lambda path: _write(path, b""), True, id="empty"),
        pytest.param(lambda path: _write(path, b"no database" * 1000), True, id="text"),
        pytest.param(lambda path: _write(path, bytes(100_000)), True, id="zeros"),
        pytest.param(lambda path: _write(path, b"SQLite format 3\0" + b"\xff" * 8000), True, id="only a header"),
        pytest.param(_flip, False, id="damaged pages"),
        pytest.param(lambda path: _sql(path, "PRAGMA user_version = 99"), True, id="later version"),
        pytest.param(lambda path: _sql(path, "DROP TABLE vouched"), True, id="no table"),
        pytest.param(
            lambda path: _sql(path, "DROP TABLE vouched", "CREATE TABLE vouched (other)"), False, id="another table"
        ),
        pytest.param(lambda path: path.mkdir(parents=True), False, id="directory"),
        pytest.param(lambda path: _write(path.parent, b""), False, id="no directory to lie in"),
    ],
)
def test_a_damaged_catalogue_is_made_anew_or_done_without(
    path: Path, damage: Callable[[Path], None], mended: bool
) -> None:
    path.parent.parent.mkdir(exist_ok=True)
    damage(path)
    with closing(Catalogue(path)) as catalogue:
        assert catalogue.find(DIGEST, "F32", (3,)) == []
        catalogue.vouch([RECORD])
        assert catalogue.find(DIGEST, "F32", (3,)) in ([STORE], [])
    assert _find(path) == ([STORE] if mended else [])


@pytest.mark.parametrize("damage", [_flip, lambda path: _write(path, b"no database")], ids=["pages", "text"])
def test_a_checkpoint_is_taken_with_a_damaged_catalogue(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    with opened(path.parent) as depot:
        made = take(CONTENT, depot)
        assert take(CONTENT, depot) == made
        assert content_of(made, depot) == CONTENT


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has other permissions")
def test_a_catalogue_that_cannot_be_written_is_read_and_not_added_to() -> None:
    program = """
import os, sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from git_theta.catalogue import Catalogue
from tests.test_catalogue import DIGEST, RECORD, STORE
if os.geteuid() == 0:  # root may write everywhere
    os.setgid(65534)
    os.setuid(65534)
with closing(Catalogue(Path(sys.argv[1]))) as catalogue:
    assert catalogue.find(DIGEST, "F32", (3,)) == [STORE]
    catalogue.vouch([replace(RECORD, digest="0" * 64)])
    assert catalogue.find("0" * 64, "F32", (3,)) == []
"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.sqlite"
        _sql(path)
        path.chmod(0o444)
        path.parent.chmod(0o555)
        subprocess.run([sys.executable, "-c", program, path], check=True, cwd=Path(__file__).parents[1])
        path.parent.chmod(0o755)
        assert _find(path) == [STORE]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("no JSON", id="no JSON"),
        pytest.param("[]", id="no steps"),
        pytest.param('[["dense"]]', id="no pieces"),
        pytest.param(f'[["dense", [["{OID}", 5, 4, 2]]]]', id="piece that leaves its object"),
        pytest.param('[["dense", [["../../x", 5]]]]', id="path"),
        pytest.param("[" * 5000, id="nesting bomb"),
    ],
)
def test_a_row_that_makes_no_sense_is_not_used(path: Path, text: str) -> None:
    with opened(path.parent) as depot:
        made = take(CONTENT, depot)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE vouched SET store = ?", (text,))
        connection.commit()
    with opened(path.parent) as depot:
        assert take(CONTENT, depot) == made
        assert content_of(made, depot) == CONTENT


@pytest.mark.parametrize("what", ["text that is no UTF-8", "blob"])
def test_a_row_of_another_type_is_not_used(path: Path, what: str) -> None:
    with closing(Catalogue(path)) as catalogue:
        catalogue.vouch([RECORD])
        with closing(sqlite3.connect(path)) as connection:
            cast = "CAST(x'ff5b5d' AS TEXT)" if what.startswith("text") else "x'ff5b5d'"
            connection.execute(f"UPDATE vouched SET store = {cast}")  # noqa: S608 - one of two constants
            connection.commit()
        assert catalogue.find(DIGEST, "F32", (3,)) == []


@pytest.mark.parametrize("damage", ["gone", "shorter", "longer"])
def test_a_row_whose_object_is_not_here_is_not_used(tmp_path: Path, damage: str) -> None:
    with opened(tmp_path) as depot:
        made = take(CONTENT, depot)
        stored = objects(tmp_path)
        for oid in made.objects():
            path = depot.store.path(oid)
            path.chmod(0o644)
            if damage == "gone":
                path.unlink()
            else:
                os.truncate(path, path.stat().st_size + (1 if damage == "longer" else -1))
        assert take(CONTENT, depot) == made
        assert objects(tmp_path) == stored
        assert content_of(made, depot) == CONTENT


def test_a_row_is_preferred_that_needs_no_new_object(tmp_path: Path) -> None:
    """The same value stored in two ways: what is whole is used, be it in another manifest or not."""
    value = weights(40_000)
    content = safetensors({"large": ("F32", [40_000], value)})
    with opened(tmp_path) as depot:
        made = take(content, depot)
        raw = record(depot, value, dtype="F32", shape=(40_000,))
        depot.catalogue.vouch([raw])
        depot.store.path(made.parameters["large"].store[0].pieces[0].oid).unlink()
        again = take(content, depot)
        assert again.parameters["large"].store == raw.store
        assert content_of(again, depot) == content


def test_two_processes_use_one_catalogue(path: Path) -> None:
    program = """
import sys
from contextlib import closing
from pathlib import Path
from git_theta.catalogue import Catalogue
from git_theta.manifest import Record
from tests.test_catalogue import DIGEST, STORE
for i in range(40):
    with closing(Catalogue(Path(sys.argv[1]))) as catalogue:
        catalogue.vouch([Record("F32", (int(sys.argv[2]), i), 4, DIGEST, STORE)])
"""
    run = [sys.executable, "-c", program, str(path)]
    processes = [subprocess.Popen([*run, str(i)], cwd=Path(__file__).parents[1]) for i in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with closing(Catalogue(path)) as catalogue:
        found = [catalogue.find(DIGEST, "F32", (i, j)) for i in range(3) for j in range(40)]
    assert found == [[STORE]] * 120


def test_an_object_that_rots_under_the_catalogue_is_found_when_it_is_read(tmp_path: Path) -> None:
    """Only sizes are looked at when a file is taken: the bytes are checked when they are rebuilt, and mended when the
    object is written again, which it is as soon as the damaged one is removed."""
    with opened(tmp_path) as depot:
        made = take(CONTENT, depot)
        path = depot.store.path(made.parameters["large"].store[0].pieces[0].oid)
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(b"\xff")
        assert take(CONTENT, depot) == made
        assert not depot.store.is_intact(path.name)
        path.unlink()
        assert take(CONTENT, depot) == made
        assert depot.store.is_intact(path.name)
