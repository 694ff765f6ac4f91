"""The object database: what Git keeps is read and written as it is, and what is damaged is one clear error."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from git_theta.config import Settings
from git_theta.errors import RepositoryError
from git_theta.git import discover
from git_theta.migration.database import Database, Entry
from git_theta.store import Store
from tests.checkpoints import leftovers
from tests.repositories import Repo


@contextmanager
def opened(repo: Repo) -> Iterator[Database]:
    repository = discover(repo.path)
    settings = Settings()
    store = Store(repository.theta_dir, max_object_bytes=settings.max_object_bytes, fsync=settings.fsync)
    with Database(repository, store) as database:
        yield database
    assert leftovers(repository.theta_dir) == []


@pytest.mark.parametrize("format_", ["sha1", "sha256"])
def test_objects_come_back(repo: Repo, format_: str) -> None:
    repo = Repo.init(repo.path / format_, f"--object-format={format_}")
    with opened(repo) as database:
        large = bytes(range(256)) * 10_000
        blobs = [database.write(content, "blob") for content in (large, b"small", b"")]
        assert [b"".join(database.stream(oid)) for oid in blobs] == [large, b"small", b""]
        assert [database.read(oid, "blob") for oid in blobs] == [large, b"small", b""]
        rows = [
            Entry(b"100644", b"new\nline \xff", blobs[0]),
            Entry(b"100664", b"a mode of old", blobs[1]),
            Entry(b"120000", b"link", blobs[1]),
            Entry(b"160000", b"submodule", "5" * len(blobs[0])),
            Entry(b"40000", b"folder", database.write_tree([])),
        ]
        tree = database.write_tree(rows)
        assert sorted(database.tree(tree), key=lambda row: row.name) == sorted(rows, key=lambda row: row.name)
        assert [row.name for row in rows if row.is_file] == [b"new\nline \xff", b"a mode of old"]
        odd = f"tree {tree}\nauthor nobody\n\nmessage".encode()
        assert database.read(database.write(odd, "commit"), "commit") == odd


def test_git_has_what_was_written(repo: Repo) -> None:
    with opened(repo) as database:
        tree = database.write_tree([Entry(b"100755", b"x", database.write(b"content", "blob"))])
    assert repo.git("cat-file", "blob", f"{tree}:x") == "content"
    repo.git("fsck", "--strict")


@pytest.mark.parametrize("kind", ["tree", "commit", "tag"])
def test_object_of_another_kind_or_none(repo: Repo, kind: str) -> None:
    repo.write("content", b"content")
    for oid in (repo.git("hash-object", "-w", "content").strip(), "0" * 40):
        with pytest.raises(RepositoryError, match=f"{kind} {oid} cannot be read"), opened(repo) as database:
            database.read(oid, kind)


def test_what_git_refuses_to_write_is_its_own_line(repo: Repo) -> None:
    with (
        pytest.raises(RepositoryError, match=r"git mktree failed: .*path x/y contains slash"),
        opened(repo) as database,
    ):
        database.write_tree([Entry(b"100644", b"x/y", database.write(b"", "blob"))])


@pytest.mark.parametrize("cut", [1, 20, 21, 25])
def test_damaged_tree(repo: Repo, cut: int) -> None:
    with opened(repo) as database:
        whole = database.read(database.write_tree([Entry(b"100644", b"x", database.write(b"", "blob"))]), "tree")
        repo.write("cut", whole[:-cut])
        oid = repo.git("hash-object", "-t", "tree", "-w", "--literally", "cut").strip()
        with pytest.raises(RepositoryError, match=f"tree {oid} is damaged"):
            database.tree(oid)
