"""Moving checkpoints' objects: which ones a push must send and where a missing one may come from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from git_theta import history, lfs, pointers
from git_theta.errors import MissingObjectError, RepositoryError, TransferError
from git_theta.git import Repository
from git_theta.names import shown_path
from git_theta.store import Store

__all__ = [
    "Holding",
    "PushedRef",
    "fetch",
    "holding",
    "objects_of",
    "objects_to_push",
    "objects_to_send",
    "parse_pushed",
    "push",
    "push_target",
    "remotes",
    "vouched",
]


@dataclass(frozen=True, slots=True)
class PushedRef:
    """A line that Git gives to pre-push: githooks(5). An oid of zeros stands for nothing."""

    local_oid: str
    remote_ref: str
    remote_oid: str

    @property
    def deletes(self) -> bool:
        return not self.local_oid.strip("0")

    @property
    def creates(self) -> bool:
        return not self.remote_oid.strip("0")


@dataclass(frozen=True, slots=True)
class Holding:
    """What a remote has of some objects: whether it has a side ref, and those that it lacks, or some of those.

    `doubt` says why its LFS server could not be asked, where the side ref alone stands for it.
    """

    is_kept: bool
    lacking: set[str]
    are_all: bool
    doubt: str = ""


def parse_pushed(text: str) -> list[PushedRef]:
    """The refs of pre-push's standard input; raises RepositoryError for a line that is none."""
    refs = []
    for line in filter(None, text.splitlines()):
        words = line.split(" ")
        if len(words) != 4:
            raise RepositoryError("git gave the pre-push hook a line that it does not know")
        refs.append(PushedRef(words[1], words[2], words[3]))
    return refs


def objects_to_push(
    repository: Repository, remote: str, refs: Sequence[PushedRef], url: str | None = None
) -> dict[str, int]:
    """The objects (oid to size in bytes) of manifests in the pushed commits that the remote does not have.

    What it has is told by its remote-tracking refs and by the oids that are overwritten, as far as they are known here.
    It is asked for its refs where those tell nothing: a remote that was never fetched from, or only a URL, or one that
    is pushed to elsewhere than it is fetched from. One that keeps no pointers was pushed to without our hook, or is a
    fork that has none of its own, and is sent everything.
    Raises RepositoryError for a push that deletes the side ref; of what `git push --mirror` deletes, no hook is told.
    """
    if any(ref.deletes and ref.remote_ref == pointers.REF for ref in refs):
        raise RepositoryError(
            f"this push deletes {pointers.REF}, which keeps the objects of checkpoints alive on {shown_path(remote)}; "
            f"to do so, push with --no-verify, and have it made again: git theta push --all {shown_path(remote)}"
        )
    include = [ref.local_oid for ref in refs if not ref.deletes]
    if not include:
        return {}
    known = repository.existing([ref.remote_oid for ref in refs if not ref.creates])
    elsewhere = url is not None and bool(repository.push_urls(remote))
    if not elsewhere:
        known += repository.remote_tracking(remote)
    if url is not None and (elsewhere or not known):
        there = repository.listed_refs(url)
        known += repository.existing(list(there.values())) if pointers.REF in there else []
    return objects_to_send(repository, include, known)


def objects_to_send(repository: Repository, include: Sequence[str], exclude: Sequence[str]) -> dict[str, int]:
    """`objects_of`, less what the last commits that `exclude` reaches name as well: of a checkpoint few are new."""
    objects = objects_of(repository, include, exclude)
    trees = [f"{commit}^{{tree}}" for commit in repository.boundary(include, exclude)] if objects and exclude else []
    there = objects_of(repository, trees, []) if trees else {}
    return {oid: size for oid, size in objects.items() if oid not in there}


def push_target(repository: Repository, remote: str, url: str | None) -> str:
    """What git-lfs is to be told of a push to `url`: the remote's name, unless that stands for several places."""
    return url if url is not None and len(repository.push_urls(remote)) > 1 else remote


def objects_of(repository: Repository, include: Sequence[str], exclude: Sequence[str]) -> dict[str, int]:
    """The objects (oid to size in bytes) of the manifests in what `include` reaches and `exclude` does not."""
    objects: dict[str, int] = {}
    for found in history.manifests_of(repository, include, exclude):
        if found.manifest is not None:
            objects |= found.manifest.objects()
    return objects


def holding(repository: Repository, remote: str, objects: Mapping[str, int]) -> Holding:
    """What a remote has of these objects (oid to size in bytes), as its side ref and its LFS server tell.

    A side ref that came there with a mirror names objects that did not. Who may not push cannot ask the server: for
    them, the ref stands. Raises TransferError where neither can be asked.
    """
    kept = pointers.listed(repository, remote)
    if not objects:
        return Holding(kept is not None, set(), are_all=True)
    if kept is None:
        return Holding(False, lfs.lacks(repository, remote, objects), are_all=False)
    if unnamed := objects.keys() - kept:
        return Holding(True, unnamed, are_all=True)
    try:
        return Holding(True, lfs.lacks(repository, remote, objects), are_all=False)
    except (TransferError, RepositoryError) as error:  # there may be no git-lfs
        return Holding(True, set(), are_all=True, doubt=str(error))


def vouched(repository: Repository, remote: str, objects: Mapping[str, int]) -> dict[str, int]:
    """Those of the objects (oid to size in bytes) that a remote's side ref names; none if its server lacks one of them.

    Raises TransferError where the remote or its server cannot be asked.
    """
    kept = pointers.listed(repository, remote) or set()
    named = {oid: size for oid, size in objects.items() if oid in kept}
    return {} if named and lfs.lacks(repository, remote, named) else named


def push(repository: Repository, remote: str, objects: Mapping[str, int], store: Store) -> str | None:
    """Send objects and keep them alive on the remote; a warning where the remote refuses the latter."""
    if not objects:
        return None
    lfs.push(repository, remote, objects, store)
    try:
        pointers.keep(repository, remote, objects)
    except (TransferError, RepositoryError) as error:
        return str(error)
    return None


def fetch(
    repository: Repository,
    objects: Mapping[str, int],
    store: Store,
    remote: str | None = None,
    sources: Sequence[str] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Fetch what is missing of these objects, from `remote` or from any that has it; `sources` are `remotes`, if known.

    `meanwhile` is called when git-lfs is about to be waited for.
    Raises TransferError or MissingObjectError where some are still missing.
    """
    missing = store.missing(dict(objects))
    if not missing:
        return
    sources = [remote] if remote else remotes(repository) if sources is None else sources
    if not sources:
        raise MissingObjectError(
            f"{_count(missing)} not {store.where(missing)}, and the repository has no remote to fetch from; "
            "to name one: git remote add origin URL"
        )
    problems: list[str] = []
    for source in sources:
        try:
            missing = lfs.fetch(repository, source, missing, store, meanwhile)
        except TransferError as error:
            problems.append(str(error))
            missing = store.missing(missing)
        if not missing:
            return
    if problems:
        raise TransferError(f"{_count(missing)} not {store.where(missing)} and could not be fetched: {problems[0]}")
    raise MissingObjectError(f"{_count(missing)} neither {store.where(missing)} nor on {', '.join(sources)}")


def remotes(repository: Repository) -> list[str]:
    """The remotes in the order in which they are asked: the branch's own, origin, the others."""
    names = repository.remotes()
    first = [repository.branch_remote(), "origin"]
    return [*dict.fromkeys(name for name in first if name in names), *(name for name in names if name not in first)]


def _count(missing: Iterable[str]) -> str:
    oids = list(missing)
    return f"object {oids[0]} is" if len(oids) == 1 else f"{len(oids)} objects (the first is {oids[0]}) are"
