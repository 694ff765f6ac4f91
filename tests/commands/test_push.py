"""`git theta push` and `git theta pre-push`: what `git push` does first, by hand."""

import pytest

from tests.repositories import Repo, model
from tests.sites import A, Site, bare, stored


def test_objects_of_head_are_sent_and_no_commit_is(site: Site) -> None:
    assert site.repo.ok("push").startswith("8 objects (")
    assert stored(site.remote) == site.kept() == stored(site.repo)
    assert set(site.refs()) == {"refs/theta/pointers"}


def test_only_what_the_remote_does_not_have_unless_all_is_asked_for(published: Site) -> None:
    assert published.repo.ok("push", "origin") == "0 objects (0 B) on origin\n"
    published.repo.write(A, model(5))
    published.repo.commit()
    assert published.repo.ok("push", "origin").startswith("4 objects (")
    assert published.repo.ok("push", "--all", "origin").startswith("12 objects (")


def test_revisions(published: Site) -> None:
    second = bare(published.folder / "second.git")
    published.repo.write(A, model(5))
    published.repo.commit()
    assert published.repo.ok("push", str(second.path), "HEAD~1").startswith("8 objects (")
    assert stored(second) < stored(published.repo)
    assert published.repo.fails(7, "push", "origin", "no-such-revision")


def test_no_remote_is_one_line(tracked: Repo) -> None:
    assert "git remote add origin URL" in tracked.fails(7, "push")


def test_remote_that_is_none_is_one_line(tracked: Repo) -> None:
    tracked.fails(9, "push", "nowhere")


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_what_cannot_be_sent_is_one_line(site: Site, damage: str) -> None:
    victim = site.repo.objects()[0]
    victim.unlink()
    if damage == "damaged":
        victim.write_bytes(b"")
    site.repo.fails(4, "push")
    assert site.refs() == {}
