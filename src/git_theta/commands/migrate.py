"""`git theta migrate`: history from blobs and LFS pointers to checkpoints, and back."""

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from git_theta import installation
from git_theta.attributes import FILE_NAME
from git_theta.commands import output
from git_theta.commands.place import Place, open_place
from git_theta.errors import InputError, RepositoryError
from git_theta.names import shown_path

if TYPE_CHECKING:
    from git_theta.depot import Depot
    from git_theta.migration.conversion import Conversion
    from git_theta.migration.migrate import Files, Revisions

__all__ = ["command"]

_UNITS: dict[str, int] = {"": 1, "b": 1} | {
    unit: base**power
    for power, letter in enumerate("kmgt", start=1)
    for unit, base in ((letter, 1024), (f"{letter}ib", 1024), (f"{letter}b", 1000))
}
_MOST = 10
_SIZE = re.compile(r"([0-9]{1,15}) ?([a-z]*)\Z", re.IGNORECASE)


def _bytes(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    """A size as git-lfs takes it: "100 MB", "1gib"."""
    match = _SIZE.match(value)
    if not match or match[2].lower() not in _UNITS:
        raise click.BadParameter(f"{value!r} is no size; for instance: 100mb, 2 GiB")
    return int(match[1]) * _UNITS[match[2].lower()]


_OPTIONS: Sequence[Callable[..., Any]] = (
    click.argument("branch", nargs=-1),
    click.option(
        "--include", "-I", multiple=True, metavar="PATTERNS", help="Convert files that match, say '*.pt,*.ckpt'."
    ),
    click.option("--exclude", "-X", multiple=True, metavar="PATTERNS", help="Leave files that match as they are."),
    click.option("--include-ref", multiple=True, metavar="REF", help="Rewrite commits that REF reaches."),
    click.option("--exclude-ref", multiple=True, metavar="REF", help="Leave commits that REF reaches as they are."),
    click.option("--everything", is_flag=True, help="Rewrite all branches and tags, pushed commits included."),
    click.option("--remote", metavar="NAME", help="Where to fetch objects from; otherwise any remote that has them."),
    click.option("--skip-fetch", is_flag=True, help="Fetch no objects that are not on this machine."),
    click.option("--object-map", type=click.Path(dir_okay=False), help="Write a CSV file of old and new commits."),
    click.option("--verbose", is_flag=True, help="Print each commit and file that is converted."),
)


def _shared(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.group(short_help="Rewrite history so that its checkpoints are kept by git-theta, or no more.")
def command() -> None:
    """Rewrite the commits of the current branch, or of each BRANCH, that no remote has; ^BRANCH excepts a branch's.

    Branches and tags of commits that were rewritten move, all at once; the old ones are kept under
    refs/theta/migrated/. Files come back byte for byte. Only this repository changes: what was pushed before must be
    pushed again, with force.
    """


@command.command("import", short_help="From blobs and LFS pointers to checkpoints.")
@click.option("--above", callback=_bytes, default="0", metavar="SIZE", help="Only files that are larger, say 100mb.")
@_shared
def import_(above: int, include: tuple[str, ...], exclude: tuple[str, ...], **options: Any) -> None:
    """Convert files and LFS pointers to checkpoints, and track them in .gitattributes from their first commit on."""
    from git_theta.migration.conversion import Import
    from git_theta.migration.migrate import Files
    from git_theta.migration.selection import Selection
    from git_theta.migration.tracking import tracking

    place = open_place()
    if not include and not above:
        raise InputError("name the files that are checkpoints: --include '*.safetensors,*.pt', or --above SIZE")
    if place.repository.worktree and not installation.is_installed(place.repository):
        raise RepositoryError("Git does not know git-theta yet; run: git theta install")
    wanted, spared = _patterns(include), _patterns(exclude)
    with Selection(place.repository, wanted, spared) as selection:
        if not above and selection.has(FILE_NAME.encode()):
            raise InputError(f"with this pattern {FILE_NAME} would be a checkpoint itself; choose a narrower one")
    # By its size a file is tracked alone: the next that matches may be a small one.
    files = Files(wanted or [b"*"], spared, tracking([] if above else wanted, spared))
    _migrate(place, files, lambda depot: Import(place.repository, depot, above), **options)


@command.command("export", short_help="From checkpoints to blobs.")
@_shared
def export(include: tuple[str, ...], exclude: tuple[str, ...], **options: Any) -> None:
    """Convert checkpoints, all unless --include is given, to the files that they are, and track them no more."""
    from git_theta.migration.conversion import Export
    from git_theta.migration.migrate import Files
    from git_theta.migration.tracking import untracking

    place = open_place()
    wanted, spared = _patterns(include), _patterns(exclude)
    files = Files(wanted or [b"*"], spared, untracking(wanted, spared))
    _migrate(place, files, lambda depot: Export(place.repository, depot), **options)


def _migrate(
    place: Place,
    files: "Files",
    direction: "Callable[[Depot], Conversion]",
    *,
    branch: tuple[str, ...],
    include_ref: tuple[str, ...],
    exclude_ref: tuple[str, ...],
    everything: bool,
    remote: str | None,
    skip_fetch: bool,
    object_map: str | None,
    verbose: bool,
) -> None:
    from git_theta.depot import open_depot
    from git_theta.migration import conversion, migrate

    revisions = _revisions(branch, include_ref, exclude_ref, everything=everything)
    depot = open_depot(place.repository.theta_dir, place.settings())
    with closing(depot.catalogue):
        work = direction(depot)
        done = migrate.migrate(
            place.repository,
            depot,
            revisions,
            files,
            work,
            bar=output.progress,
            fetch=lambda: conversion.fetch(work, place.repository, remote, skip=skip_fetch),
            report=_report if verbose else lambda commit, path: None,
            object_map=Path(object_map) if object_map else None,
        )
    if not done.backup:
        print("nothing to migrate: no such file in these commits")
        return
    print(f"converted {output.count(done.files, 'version')} of files ({output.size(done.size_bytes)})")
    print(f"rewrote {output.count(len(done.commits), 'commit')}; moved {_listed(done.refs)}")
    if done.unsigned:
        print(f"{output.count(done.unsigned, 'signature')} lost: what they vouched for has changed")
    print(f"the old history is kept under {done.backup}")


def _revisions(
    branch: tuple[str, ...], include_ref: tuple[str, ...], exclude_ref: tuple[str, ...], *, everything: bool
) -> "Revisions":
    from git_theta.migration.migrate import Revisions

    if everything and (branch or include_ref or exclude_ref):
        raise InputError("--everything is all branches and tags; leave out the others")
    include = [name for name in branch if not name.startswith("^")]
    exclude = [name[1:] for name in branch if name.startswith("^")]
    chosen = bool(include_ref or exclude_ref)
    return Revisions([*include, *include_ref], [*exclude, *exclude_ref], everything, pushed=chosen)


def _patterns(values: Sequence[str]) -> list[bytes]:
    return [item.encode("utf-8", "surrogateescape") for value in values for item in value.split(",") if item]


def _report(commit: str, path: bytes) -> None:
    print(f"{commit} {shown_path(path)}")


def _listed(refs: Sequence[str]) -> str:
    names = [shown_path(ref.removeprefix("refs/heads/").removeprefix("refs/")) for ref in refs]
    return ", ".join([*names[:_MOST], *([f"and {len(names) - _MOST:,} others"] if len(names) > _MOST else [])])
