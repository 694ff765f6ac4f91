"""`git theta diff`: what changed in checkpoints, between commits, the index, the worktree, or any two files."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from git_theta import git, revisions, worktree
from git_theta.commands import output
from git_theta.commands.place import Place, find_place
from git_theta.errors import InputError, ThetaError
from git_theta.names import shown_path
from git_theta.revisions import Difference, Side

if TYPE_CHECKING:
    from git_theta.commands.comparer import Comparer
    from git_theta.commands.diff_output import Show
    from git_theta.versions import Version

__all__ = ["command"]

_DASHED = "git_theta.dashed"


class _Command(click.Command):
    """A command that knows which arguments stand behind "--": they are paths, whatever else they could be."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[_DASHED] = tuple(args[at + 1 :]) if at < len(args) else None
        return super().parse_args(ctx, args[:at])


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is compared: two files or blobs (`operands`), or revisions, the index and the worktree."""

    operands: tuple[str, ...] = ()
    revisions: tuple[str, ...] = ()
    paths: tuple[bytes, ...] = ()


@click.command(cls=_Command, short_help="Show what changed in checkpoints.")
@click.option("--cached", "--staged", is_flag=True, help="Compare the index with HEAD, or with A.")
@click.option("--no-index", is_flag=True, help="Compare two files, be they tracked or not.")
@click.option("--stats/--no-stats", default=None, help="Compute statistics whatever they cost, or none.")
@click.option("--histogram", is_flag=True, help="Count elements by how much they changed.")
@click.option("--rank", is_flag=True, help="Compute the effective rank of the changes of matrices.")
@click.option("--param", "patterns", metavar="GLOB", multiple=True, help="Only parameters whose name matches.")
@click.option("--full", is_flag=True, help="A line for every parameter; otherwise similar names are folded.")
@click.option(
    "--sort", type=click.Choice(["name", "rel", "size"]), default="name", help="By name, relative change or size."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--ndjson", "as_lines", is_flag=True, help="Print a JSON document a line, for each file as it is done.")
@click.option("--html", "page", metavar="FILE", type=click.Path(path_type=Path), help="Write a page with everything.")
@click.option("--open", "opens", is_flag=True, help="Show that page in the browser.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are differences.")
@click.argument("words", metavar="[A [B]] [PATH]...", nargs=-1, type=click.Path())
@click.pass_context
def command(
    ctx: click.Context,
    cached: bool,
    no_index: bool,
    stats: bool | None,
    histogram: bool,
    rank: bool,
    patterns: tuple[str, ...],
    full: bool,
    sort: str,
    as_json: bool,
    as_lines: bool,
    page: Path | None,
    opens: bool,
    exit_code: bool,
    words: tuple[str, ...],
) -> int:
    """Show which parameters changed: between the index and the worktree, between revision A and the worktree, or
    between revisions A and B; or between two files of any format.
    """
    from git_theta.commands.comparer import Comparer
    from git_theta.depot import make_ready
    from git_theta.measuring import Extras

    if as_json + as_lines + (opens or page is not None) > 1:
        raise click.UsageError("One of --json, --ndjson, and --html or --open.")
    make_ready()
    place = find_place()
    asked = _asked(place, words, ctx.meta[_DASHED], no_index=no_index, cached=cached)
    show = _show(place, page, sort, full=full, as_json=as_json, as_lines=as_lines, opens=opens)
    code = 0
    extras = Extras(histogram or opens or page is not None, rank)
    with Comparer(place, patterns, stats, extras) as comparer:
        if asked.operands:
            _compare_files(comparer, asked.operands, show)
        elif place is not None:
            code = _compare_revisions(comparer, place, asked, show, cached=cached)
    show.end()
    return code or int(exit_code and show.found)


def _show(
    place: Place | None, page: Path | None, sort: str, *, full: bool, as_json: bool, as_lines: bool, opens: bool
) -> "Show":
    """What shows the comparisons."""
    from git_theta.commands.diff_output import Json, JsonLines, Text
    from git_theta.grouping import Sort

    if opens or page is not None:
        from git_theta.commands.html_output import Html

        return Html(page, Sort(sort), opens=opens)
    if as_lines:
        return JsonLines(full, Sort(sort))
    return Json(full, Sort(sort)) if as_json else Text(place, full, Sort(sort))


def _asked(
    place: Place | None, words: Sequence[str], dashed: Sequence[str] | None, *, no_index: bool, cached: bool
) -> _Asked:
    """What the arguments mean, as Git reads its own: revisions first, then paths."""
    if no_index or place is None:
        operands = (*words, *(dashed or ()))
        if len(operands) != 2:
            raise InputError("two files are compared here: git theta diff OLD NEW")
        return _Asked(operands)
    if dashed is None and len(words) == 2 and _are_operands(place, words):
        return _Asked(tuple(words))
    found: list[str] = []
    rest = list(words)
    while rest and len(found) < 2 and (dashed is not None or _means_revision(place, rest[0])):
        found += _revisions(place, rest.pop(0))
    if len(found) > (1 if cached else 2) or (dashed is not None and rest):
        raise InputError("at most two revisions are compared, and one with --cached")
    for word in rest:
        _check_path(place, word)
    return _Asked(
        (), tuple(found), tuple(place.repository.path_of(word, place.cwd) for word in (*rest, *(dashed or ())))
    )


def _are_operands(place: Place, words: Sequence[str]) -> bool:
    """Whether two arguments are files to compare with each other: one is of a revision, or not in the index."""
    if any(revisions.is_revision(place.repository, word) for word in words):
        return False
    named = [_blob_named(place, word) is not None for word in words]
    if not all(is_blob or Path(word).is_file() for word, is_blob in zip(words, named, strict=True)):
        return False
    return any(named) or not all(_is_in_index(place, word) for word in words)


def _blob_named(place: Place, word: str) -> str | None:
    """The oid of what REV:PATH names; None for another word, and for that of a file here."""
    return git.blob_named(word, place.cwd) if ":" in word and not os.path.lexists(word) else None


def _is_in_index(place: Place, word: str) -> bool:
    try:
        return bool(place.repository.index([place.repository.path_of(word, place.cwd)]))
    except ThetaError:
        return False


def _means_revision(place: Place, word: str) -> bool:
    """Whether an argument is a revision, or a range of them; raises InputError where it is a path as well."""
    ends = _ends(word)
    if not all(revisions.is_revision(place.repository, end) for end in ends):
        return False
    # A bare repository has no paths.
    if place.repository.worktree is not None and os.path.lexists(word):
        raise InputError(f"{shown_path(word)}: a revision and a path have this name; put -- behind it, or before it")
    return True


def _ends(word: str) -> list[str]:
    """The revision that an argument may be, or both ends of the range; ".." is a path, and not HEAD twice."""
    if word in ("..", "...") or ".." not in word:
        return [word]
    before, _, after = word.partition("...") if "..." in word else word.partition("..")
    return [before or "HEAD", after or "HEAD"]


def _revisions(place: Place, word: str) -> list[str]:
    """The revisions of an argument: one, or the two that a range is about."""
    ends = _ends(word)
    if not all(revisions.is_revision(place.repository, end) for end in ends):
        raise InputError(f"{shown_path(word)}: no such revision")
    if "..." in word:
        ends[0] = place.repository.git("merge-base", *ends, accept=(0, 1)).decode().strip()
        if not ends[0]:
            raise InputError(f"{shown_path(word)}: these have no common ancestor")
    return ends


def _check_path(place: Place, word: str) -> None:
    if not os.path.lexists(word) and not _is_in_index(place, word):
        raise InputError(f"{shown_path(word)}: no such revision or path; to name a path that is gone, put -- before it")


def _compare_files(comparer: "Comparer", operands: Sequence[str], show: "Show") -> None:
    """Compare two files, or blobs of revisions."""
    with ExitStack() as stack:
        versions = []
        for word in operands:
            try:
                versions.append(_operand(comparer, word, stack))
            except ThetaError as error:
                raise type(error)(f"{shown_path(word)}: {error}") from error
        comparer.compare(versions[0], versions[1], [os.fsencode(word) for word in operands], show)


def _operand(comparer: "Comparer", word: str, stack: ExitStack) -> "Version | None":
    oid = _blob_named(comparer.place, word) if comparer.place else None
    return comparer.of_blob(oid) if oid else stack.enter_context(comparer.of_file(Path(word)))


def _compare_revisions(comparer: "Comparer", place: Place, asked: _Asked, show: "Show", *, cached: bool) -> int:
    """Compare the files that differ; where one cannot be, the others are. The exit code of the first that cannot."""
    if len(asked.revisions) < 2 and not cached:
        place.repository.top()
    code = 0
    found = revisions.differing(place.repository, asked.revisions, asked.paths, cached=cached)
    for item in revisions.checkpoints(place.repository, found):
        try:
            _compare_difference(comparer, place, item, show)
        except ThetaError as error:
            output.complain(item.path, error)
            code = code or error.exit_code
    return code


def _compare_difference(comparer: "Comparer", place: Place, item: Difference, show: "Show") -> None:
    if item.unmerged:
        raise InputError("it is in conflict; take a side: git checkout --ours (or --theirs), then git add")
    with ExitStack() as stack:
        before, after = (_side(comparer, place, side, stack) if side else None for side in (item.before, item.after))
        comparer.compare(before, after, [side.path for side in (item.before, item.after) if side], show)


def _side(comparer: "Comparer", place: Place, side: Side, stack: ExitStack) -> "Version | None":
    if side.oid:
        return comparer.of_blob(side.oid)
    return stack.enter_context(comparer.of_file(worktree.locate(place.repository, side.path)))
