"""Checkpoints that were committed before their path was tracked."""

import pytest

from git_theta import manifest
from tests.git.kinds import layers
from tests.git.test_round_trip import touched
from tests.repositories import Repo, model

CONTENTS = {"small": model(), "large": layers(), "empty": b"", "text": b'{"parameters": {\n "layers": 3\n}}\n'}


@pytest.fixture
def plain(repo: Repo) -> Repo:
    """A repository whose checkpoints are plain blobs, and tracked only now."""
    for name, content in CONTENTS.items():
        repo.write(f"{name}.st", content)
    repo.commit("plain")
    repo.theta("track", "*.st")
    repo.git("commit", "--quiet", "-m", "track", "--", ".gitattributes")
    return repo


def test_they_are_checked_out_as_they_are(plain: Repo) -> None:
    for name in CONTENTS:
        (plain.path / f"{name}.st").unlink()
    plain.git("checkout", "--quiet", "--", ".")
    for name, content in CONTENTS.items():
        assert plain.read(f"{name}.st") == content


def test_renormalising_converts_them(plain: Repo) -> None:
    plain.git("add", "--renormalize", ".")
    plain.commit("converted")
    for name, content in CONTENTS.items():
        stored = plain.blob(f"{name}.st")
        assert manifest.parse(stored).size == len(content) if content else stored == b""
    plain.git("checkout", "--quiet", "HEAD~1")
    # Git may call the plain files modified, see below.
    plain.git("checkout", "--quiet", "--force", "main")
    for name, content in CONTENTS.items():
        assert plain.read(f"{name}.st") == content
    assert plain.git("status", "--porcelain") == ""


def test_touching_shows_them_as_modified_until_they_are_converted(plain: Repo) -> None:
    """As with any filter: Git compares what clean gives with the blob that was made without it."""
    for name in CONTENTS:
        touched(plain.path / f"{name}.st")
    assert plain.git("status", "--porcelain") == " M large.st\n M small.st\n M text.st\n"
    plain.git("add", "--update")
    plain.git("commit", "--quiet", "-m", "converted")
    assert plain.git("status", "--porcelain") == ""
    assert manifest.parse(plain.blob("large.st")).format == "safetensors"


def test_untracking_converts_back(plain: Repo) -> None:
    plain.git("add", "--renormalize", ".")
    plain.commit("converted")
    assert plain.theta("untrack", "*.st").code == 0
    plain.git("add", "--renormalize", ".")
    for name, content in CONTENTS.items():
        assert plain.blob(f"{name}.st") == content
