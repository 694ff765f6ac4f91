"""The side ref that keeps objects alive on a host: `refs/theta/pointers`, commits of LFS pointers.

Hosts delete LFS objects that no pointer in the repository names (GitLab's housekeeping, Gitea's and Forgejo's optional
collection). Our manifests are no pointers, so what was pushed is also named there, a file for each object. The ref
lives on the remote alone: a local one would make `git lfs fetch --all` fetch every object of ours a second time.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from git_theta import git
from git_theta.errors import RepositoryError, TransferError
from git_theta.git import Repository
from git_theta.lfs import advised, pointer
from git_theta.names import shown_path

__all__ = ["REF", "keep", "listed"]

REF = "refs/theta/pointers"
_TRIES = 5
_OID = re.compile(r"[0-9a-f]{2}/[0-9a-f]{62}\Z")
_FETCH = (
    "--quiet",
    "--no-tags",
    "--refmap=",
    "--no-recurse-submodules",
    "--no-auto-gc",
)
_WHO = {
    "GIT_AUTHOR_NAME": "git-theta",
    "GIT_AUTHOR_EMAIL": "git-theta@localhost",
    "GIT_COMMITTER_NAME": "git-theta",
    "GIT_COMMITTER_EMAIL": "git-theta@localhost",
}


def keep(repository: Repository, remote: str, objects: Mapping[str, int]) -> None:
    """Add pointers for these objects (oid to size in bytes) to what the remote's side ref names.

    Two people who push at once both win: whose push is refused starts anew from what the other has written. Raises
    TransferError where the remote refuses the ref.
    """
    refused = ""
    for _ in range(_TRIES):
        parent = _remote_commit(repository, remote)
        commit = _commit(repository, parent, objects)
        if commit is None:
            return
        try:
            # --no-verify: git-lfs' own hook would look for the pointers' objects in its store, where they are not.
            # And a remote that is a mirror takes no refspecs.
            plain = ("-c", f"remote.{remote}.mirror=false") if remote in repository.remotes() else ()
            repository.git(*plain, "push", "--no-verify", "--quiet", remote, f"{commit}:{REF}")
        except RepositoryError as error:
            refused = str(error)
            if _remote_commit(repository, remote) == parent:
                break
        else:
            return
    raise TransferError(f"{shown_path(remote)}: it refuses {REF} ({refused})")


def listed(repository: Repository, remote: str) -> set[str] | None:
    """The oids of the objects that the remote's side ref names; None where it has none, as a host may refuse it.

    Raises TransferError where the remote cannot be asked.
    """
    commit = _remote_commit(repository, remote)
    if commit is None:
        return None
    names = repository.git("ls-tree", "-r", "--name-only", "-z", commit).decode("utf-8", "replace").split("\0")
    return {name.replace("/", "") for name in names if _OID.match(name)}


def _remote_commit(repository: Repository, remote: str) -> str | None:
    """The side ref's commit on the remote, fetched without leaving a ref behind; None where there is none yet."""
    try:
        listed = repository.git("ls-remote", remote, REF).split()
        if not listed:
            return None
        commit = listed[0].decode()
        # What this machine has pushed last is here, and another connection may cost a second.
        if not repository.has_tree(commit):
            # --refmap= keeps a refspec of the user's that covers every ref from writing this one here as well.
            # Before Git 2.29, a dry run was what fetched objects and wrote nothing else.
            unseen = "--no-write-fetch-head" if git.version() >= (2, 29) else "--dry-run"
            repository.git("fetch", unseen, *_FETCH, remote, REF)
    except RepositoryError as error:
        raise TransferError(advised(str(error))) from error
    return commit


def _commit(repository: Repository, parent: str | None, objects: Mapping[str, int]) -> str | None:
    """A commit that adds the pointers to its parent's; None where nothing is to be added."""
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        environ = {**_WHO, "GIT_INDEX_FILE": str(Path(folder) / "index")}

        def run(*arguments: str, stdin: bytes = b"") -> str:
            # A split index would leave its shared half in the Git directory.
            plain = ("-c", "core.splitIndex=false", "-c", "core.fsmonitor=false")
            return git.run([*plain, *arguments], cwd=repository.base, stdin=stdin, environ=environ).decode().strip()

        run("read-tree", f"{parent}^{{tree}}" if parent else "--empty")
        blobs = repository.write_blobs(pointer(oid, size) for oid, size in objects.items())
        rows = [f"100644 {blob} 0\t{oid[:2]}/{oid[2:]}\n" for oid, blob in zip(objects, blobs, strict=True)]
        run("update-index", "--index-info", stdin="".join(rows).encode())
        tree = run("write-tree")
        if parent and tree == run("rev-parse", f"{parent}^{{tree}}"):
            return None
        parents = ["-p", parent] if parent else []
        return run("commit-tree", tree, *parents, "-m", "objects kept by git-theta")
