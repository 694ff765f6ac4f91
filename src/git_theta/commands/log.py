"""`git theta log`: the history of a checkpoint, a line for each commit that changed it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from git_theta.commands import output
from git_theta.commands.place import open_place
from git_theta.errors import InputError, ManifestError
from git_theta.names import shown, shown_path

if TYPE_CHECKING:
    from git_theta.commands.comparer import Comparer
    from git_theta.comparison import Comparison
    from git_theta.statistics import Statistics
    from git_theta.trail import Touch

__all__ = ["command"]

_SHORT = 10  # characters of a commit's id; Git abbreviates either those of blobs as well, or none
_MOST_UPDATES = 4


@click.command(short_help="Show the history of a checkpoint, a line for each commit.")
@click.option("--param", "patterns", metavar="GLOB", multiple=True, help="Only commits that changed such parameters.")
@click.option("--max-count", "-n", type=click.IntRange(min=1), help="At most so many commits.")
@click.option("--stats/--no-stats", default=None, help="Compute statistics whatever they cost, or none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--html", "page", metavar="FILE", type=click.Path(path_type=Path), help="Write a page with everything.")
@click.option("--open", "opens", is_flag=True, help="Show that page in the browser.")
@click.argument("words", metavar="[REV] PATH", nargs=-1, required=True, type=click.Path())
def command(
    patterns: tuple[str, ...],
    max_count: int | None,
    stats: bool | None,
    as_json: bool,
    page: Path | None,
    opens: bool,
    words: tuple[str, ...],
) -> int:
    """Show the commits that changed the checkpoint at PATH, the newest first, back from REV or HEAD.

    Each has a line: what became of how many parameters, the bytes that it added to the store, how they are stored, and
    how much changed, relative to the weights.
    """
    from git_theta import trail
    from git_theta.commands.comparer import Comparer
    from git_theta.depot import make_ready

    if len(words) > 2:
        raise click.UsageError("At most a REV and a PATH.")
    if as_json + (opens or page is not None) > 1:
        raise click.UsageError("One of --json, and --html or --open.")
    make_ready()
    place = open_place()
    path = place.repository.path_of(words[-1], place.cwd)
    revision = words[0] if len(words) == 2 else "HEAD"
    if place.repository.head() is None and revision == "HEAD":
        raise InputError("there is no commit yet")
    rows: list[tuple[Touch, Comparison | None]] = []
    with Comparer(place, patterns, stats) as comparer:
        for touch in trail.trail(place.repository, revision, path):
            compared = _compared(comparer, touch, always=not patterns)
            if compared is not None or not patterns:
                rows.append((touch, compared))
            if len(rows) == max_count:
                break
    if not rows:
        raise InputError(f"{shown_path(words[-1])}: no commit changed it; look at its name, or give a REV")
    _show(shown_path(path), rows, page, as_json=as_json, opens=opens)
    return 0


def _show(
    path: str, rows: "Sequence[tuple[Touch, Comparison | None]]", page: Path | None, *, as_json: bool, opens: bool
) -> None:
    headers, right = ("commit", "date", "parameters", "stored", "as", "|change|", ""), (3, 5)
    document = {"path": path, "commits": [_document(*row) for row in rows]}
    table = [_row(*row) for row in rows]
    if opens or page is not None:
        from git_theta.commands import html_output

        lines = output.aligned(headers, table, right)
        content = html_output.page(html_output.HISTORY, {"version": output.VERSION, **document}, lines)
        html_output.show(content, page, opens=opens)
    elif as_json:
        output.print_json(document)
    else:
        output.print_table(headers, table, right)


class _Taken:
    """Keeps the comparison that it is shown; a `Show`."""

    def __init__(self) -> None:
        self.found = False
        self.compared: Comparison | None = None

    def one(self, paths: Sequence[bytes], compared: "Comparison") -> None:
        self.found = True
        self.compared = compared

    def end(self) -> None:
        """There is nothing to end."""


def _compared(comparer: "Comparer", touch: "Touch", *, always: bool) -> "Comparison | None":
    """What a commit changed; None where that is nothing, unless `always`, or where it has no manifest."""
    taken = _Taken()
    try:
        before, after = (comparer.of_blob(oid) if oid else None for oid in (touch.before, touch.after))
    except ManifestError:
        return None
    comparer.compare(before, after, [touch.path], taken, always=always)
    return taken.compared


def _row(touch: "Touch", compared: "Comparison | None") -> tuple[str, ...]:
    head = touch.commit[:_SHORT], touch.date
    if compared is None:
        return *head, "stored as it is", "", "", "", shown(touch.subject)
    stored = output.size(compared.changes.added_bytes) if compared.after else ""
    found = _total(compared)
    relative = None if found is None else found.relative
    amount = "" if relative is None else f"{100 * relative:.3g}%"
    return (
        *head,
        _counts(touch, compared),
        f"+{stored}" if stored else "",
        _updates(compared),
        amount,
        shown(touch.subject),
    )


def _counts(touch: "Touch", compared: "Comparison") -> str:
    counts = Counter(change.kind.value for change in compared.changes.items)
    words = [f"{number:,} {kind}" for kind, number in counts.most_common()]
    if touch.origin:
        words.append(f"{touch.origin} from {shown_path(touch.old_path)}")
    return ", ".join(words) or "only beside them"


def _updates(compared: "Comparison") -> str:
    """How the new values are stored, the most frequent first."""
    counts = Counter(step.update for change in compared.changes.items for step in change.steps)
    return ", ".join(f"{number:,} {update}" for update, number in counts.most_common(_MOST_UPDATES))


def _total(compared: "Comparison") -> "Statistics | None":
    """The statistics of all changed values together; None unless all of them are known."""
    from git_theta.statistics import total

    changes = [change for change in compared.changes.items if change.pair]
    found = [one for one in map(compared.statistics, changes) if one is not None]
    return total(found) if found and len(found) == len(changes) else None


def _document(touch: "Touch", compared: "Comparison | None") -> dict[str, object]:
    row: dict[str, object] = {
        "commit": touch.commit,
        "date": touch.date,
        "author": touch.author,
        "subject": touch.subject,
        "is_manifest": compared is not None,
    }
    if touch.origin:
        row[f"{touch.origin}_from"] = shown_path(touch.old_path)
    if compared is not None:
        found = _total(compared)
        row["counts"] = dict(Counter(change.kind.name.lower() for change in compared.changes.items))
        row["updates"] = dict(Counter(step.update for change in compared.changes.items for step in change.steps))
        row["added_bytes"] = compared.changes.added_bytes if compared.after else 0
        row["size_bytes"] = compared.after.size if compared.after else 0
        row["relative_change"] = None if found is None else found.relative
    return row
