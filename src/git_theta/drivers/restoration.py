"""What Git removed from the worktree for a checkout that then failed: put back, as the index has it.

Git removes a file before it asks for the one to come, and gives up at the first that fails: a missing object would cost
the worktree every checkpoint of the checkout.
"""

import os
from collections.abc import Collection
from contextlib import suppress

from git_theta import indexfile, manifest, tracked, worktree
from git_theta.depot import Depot
from git_theta.errors import RepositoryError, ThetaError
from git_theta.git import MAX_ARGUMENTS, Repository
from git_theta.tracked import TrackedFile
from git_theta.worktree import Presence

__all__ = ["restore"]


def restore(repository: Repository, depot: Depot, paths: Collection[str]) -> None:
    """Put back what the index has at these paths, where nothing lies there; what cannot be rebuilt is left out.

    Git, which has failed, may still hold the index: nothing is noted there, and Git will compare contents.
    """
    wanted = {os.fsencode(path) for path in paths}
    with suppress(RepositoryError):  # a clone has no index yet
        rows = [row for row in repository.index(wanted if len(wanted) <= MAX_ARGUMENTS else ()) if row.path in wanted]
        for file in tracked.find(repository, rows):
            if file.manifest is not None:
                with suppress(ThetaError, OSError):  # why Git has failed was said
                    _put_back(repository, depot, file)


def _put_back(repository: Repository, depot: Depot, file: TrackedFile) -> None:
    place = worktree.locate(repository, file.path)
    if file.manifest is None or worktree.look(place) is not Presence.MISSING:
        return
    executable = file.entry.mode == "100755"
    text = manifest.format(file.manifest)
    if indexfile.matching(repository.git_dir / "index", {file.path: (file.entry.oid, len(text))}):
        worktree.write(place, text, executable=executable, folder=depot.store.root / "tmp")  # it was left as that
        return
    worktree.check_space([(place, file.manifest.size)])
    worktree.put(file.manifest, place, depot, seen=None, executable=executable)
