"""What is wrong with a set-up or a repository, each with the command that mends it."""

import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from git_theta import git, hooks, installation, lfs, plugins, pointers, tracked, transfer
from git_theta.config import SECTIONS, read_settings
from git_theta.errors import ManifestError, RepositoryError, TransferError
from git_theta.git import Repository
from git_theta.names import shown_path
from git_theta.store import Store
from git_theta.tracked import Kind

__all__ = ["OLDEST_GIT", "Finding", "examine"]

OLDEST_GIT = (2, 25)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, and the command or deed that mends it."""

    problem: str
    remedy: str


def examine(repository: Repository | None, store: Store | None) -> Iterator[Finding]:
    """Everything that is found wrong, the set-up first; without a repository, the set-up alone."""
    yield from _programs()
    yield from _settings(repository)
    if repository is not None and store is not None:
        yield from _hook(repository)
        yield from _updates(repository)
        yield from _remotes(repository)
        if repository.worktree is not None:
            yield from _files(repository, store)
            yield from _attributes(repository)


def _programs() -> Iterator[Finding]:
    found = git.version()
    if found < OLDEST_GIT:
        yield Finding(f"Git {_dotted(found)} is older than {_dotted(OLDEST_GIT)}", "update Git")
    version = lfs.version()
    if version is None:
        yield Finding("git-lfs is not installed: nothing can be pushed or fetched", "install it: https://git-lfs.com")
    elif version < lfs.OLDEST:
        yield Finding(f"git-lfs {_dotted(version)} is older than {_dotted(lfs.OLDEST)}", "update git-lfs")


def _settings(repository: Repository | None) -> Iterator[Finding]:
    cwd = repository.base if repository else Path.cwd()

    def value(key: str, *options: str) -> str:
        return git.run(["config", *options, "--get", key], cwd=cwd, accept=(0, 1, 128)).decode().strip()

    process = value(installation.PROCESS_KEY)
    if not process:
        yield Finding("Git does not start git-theta: filter.theta.process is not set", "git theta install")
        return
    yield from _program("filter.theta.process", process)
    if value("filter.theta.required", "--type=bool") != "true":
        yield Finding(
            "Git stores whole checkpoints where git-theta fails: filter.theta.required is not true", "git theta install"
        )
    if not value("merge.theta.driver"):
        yield Finding("Git merges manifests as text: merge.theta.driver is not set", "git theta install")
    elif "git-theta" not in value("merge.theta.driver"):
        yield Finding("Git does not start git-theta to merge: merge.theta.driver is another's", "git theta install")
    else:
        yield from _program("merge.theta.driver", value("merge.theta.driver"))
        if not value("merge.theta.recursive"):
            yield Finding(
                "Git takes a side where common ancestors conflict: merge.theta.recursive is not set",
                "git theta install",
            )


def _program(key: str, command: str) -> Iterator[Finding]:
    """A setting whose program is not there."""
    try:
        program = shlex.split(command)[0]
    except ValueError:  # a quotation mark without its other
        program = command
    if shutil.which(program) is None:
        yield Finding(f"{key} names {shown_path(program)}, which cannot be run", "git theta install")


def _updates(repository: Repository) -> Iterator[Finding]:
    """Updates that the settings name and that nobody has installed; settings that mean nothing end every command."""
    for name in read_settings(repository.config(*SECTIONS), os.environ).updates:
        try:
            plugins.update(name)
        except ManifestError as error:
            yield Finding(f"theta.updates: {error}", "git config --unset theta.updates, or install what is missing")


def _hook(repository: Repository) -> Iterator[Finding]:
    if not repository.remotes() or not (repository.theta_dir / "objects").is_dir():
        return
    if not hooks.is_added(repository):
        try:
            hooks.add(repository)
        except RepositoryError as error:
            yield Finding("the pre-push hook does not send objects", str(error))
        else:
            yield Finding("the pre-push hook did not send objects", "nothing: it does now")
    elif os.name != "nt" and not os.access(hooks.path(repository), os.X_OK):
        hook = shlex.quote(str(hooks.path(repository)))
        yield Finding("the pre-push hook cannot be run", f"chmod +x {hook}")


def _remotes(repository: Repository) -> Iterator[Finding]:
    """What was pushed without its objects, and what a remote has no reason to keep."""
    for remote in repository.remotes():
        pushed = repository.remote_tracking(remote)
        needed = transfer.objects_of(repository, pushed, []) if pushed else {}
        if not needed:
            continue
        name = shown_path(remote)
        try:
            found = transfer.holding(repository, remote, needed)
        except TransferError as error:
            yield Finding(f"{name} cannot be asked what it has: {error}", "git remote -v, and look at its address")
        else:
            remedy = f"git theta push --all {shlex.quote(name)}"
            if found.lacking:
                number = f"{len(found.lacking)} " if found.are_all else ""
                what = f"{number}object{'' if number == '1 ' else 's'}"
                yield Finding(f"{name} lacks {what} of what was pushed there", remedy)
            elif not found.is_kept:
                yield Finding(
                    f"{name} has the objects of what was pushed there, but no {pointers.REF}, and may clean them up",
                    f"{remedy}; if it refuses that ref, have its owner allow it",
                )


def _files(repository: Repository, store: Store) -> Iterator[Finding]:
    missing: dict[str, int] = {}
    for file in tracked.find(repository, tracked.entries(repository)):
        path = shlex.quote(shown_path(file.path))
        if file.kind is Kind.PLAIN:
            yield Finding(
                f"{path} is tracked, but Git has it as a whole", f"git add --renormalize -- {path}, and commit"
            )
        elif file.kind is Kind.INVALID:
            yield Finding(f"{path}: {file.problem}", f"git checkout <a good commit> -- {path}")
        elif file.manifest and not file.entry.sparse:
            missing |= store.missing(file.manifest.objects())
    if missing:
        what = (
            "1 object of what is checked out is"
            if len(missing) == 1
            else f"{len(missing)} objects of what is checked out are"
        )
        yield Finding(f"{what} not here", "git theta pull")


def _attributes(repository: Repository) -> Iterator[Finding]:
    """Files that another line of a `.gitattributes` has taken away: diff=theta is left, filter is not."""
    paths = [entry.path for entry in repository.index() if entry.mode.startswith("100")]
    if not paths:
        return
    filters, diffs = repository.attributes(paths, "filter"), repository.attributes(paths, "diff")
    for path in paths:
        if diffs[path] == tracked.FILTER and filters[path] != tracked.FILTER:
            name = shlex.quote(shown_path(path))
            yield Finding(
                f"{name}: another line gives it filter={shown_path(filters[path])}",
                f"git check-attr -a -- {name}, and take that line out of .gitattributes",
            )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
