"""`git theta log`: the history of a checkpoint, a line for each commit that changed it."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from git_theta.commands import output
from git_theta.commands.place import Place, open_place
from git_theta.errors import InputError, ManifestError
from git_theta.names import shown, shown_path

if TYPE_CHECKING:
    from git_theta.commands.comparer import Comparer
    from git_theta.comparison import Comparison
    from git_theta.statistics import Statistics

__all__ = ["command"]

_FIELDS = "%x01%H%x00%ad%x00%an%x00%s%x00"
_SHORT = 10  # characters of a commit's id; Git abbreviates either those of blobs as well, or none
_MOST_UPDATES = 4


@dataclass(frozen=True, slots=True)
class _Entry:
    """A commit that changed the file, and the oids of its blobs before and after, "" for none."""

    commit: str
    date: str
    author: str
    subject: str
    before: str
    after: str


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
    rows: list[tuple[_Entry, Comparison | None]] = []
    with Comparer(place, patterns, stats) as comparer:
        for entry in _entries(place, revision, path):
            compared = _compared(comparer, path, entry)
            if compared is not None or not patterns:
                rows.append((entry, compared))
            if len(rows) == max_count:
                break
    if not rows:
        raise InputError(f"{shown_path(words[-1])}: no commit changed it; look at its name, or give a REV")
    _show(shown_path(path), rows, page, as_json=as_json, opens=opens)
    return 0


def _show(
    path: str, rows: "Sequence[tuple[_Entry, Comparison | None]]", page: Path | None, *, as_json: bool, opens: bool
) -> None:
    headers, right = ("commit", "date", "parameters", "stored", "as", "|change|", ""), (3, 5)
    document = {"path": path, "commits": [_document(*row) for row in rows]}
    table = [_row(entry, compared) for entry, compared in rows]
    if opens or page is not None:
        from git_theta.commands import html_output

        lines = output.aligned(headers, table, right)
        content = html_output.page(html_output.HISTORY, {"version": output.VERSION, **document}, lines)
        html_output.show(content, page, opens=opens)
    elif as_json:
        output.print_json(document)
    else:
        output.print_table(headers, table, right)


def _entries(place: Place, revision: str, path: bytes) -> Iterator[_Entry]:
    """The commits that changed the file, merges beside their first parent."""
    text = place.repository.git(
        "log",
        "--follow",
        "--raw",
        "-z",
        "--no-abbrev",
        "--diff-merges=first-parent",
        "--date=short",
        f"--format={_FIELDS}",
        "--end-of-options",
        revision,
        "--",
        os.fsdecode(path),
    )
    for part in text.split(b"\1")[1:]:
        fields = part.split(b"\0")
        commit, date, author, subject = (field.decode("utf-8", "replace") for field in fields[:4])
        raw = next((field for field in fields[4:] if field.lstrip(b"\n").startswith(b":")), None)
        if raw is None:
            continue
        oids = raw.lstrip(b"\n:").decode().split(" ")[2:4]
        before, after = (oid if oid.strip("0") else "" for oid in oids)
        yield _Entry(commit, date, author, subject, before, after)


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


def _compared(comparer: "Comparer", path: bytes, entry: _Entry) -> "Comparison | None":
    """What a commit changed; None where that is nothing that was asked for, or where it has no manifest."""
    taken = _Taken()
    try:
        before, after = (comparer.of_blob(oid) if oid else None for oid in (entry.before, entry.after))
    except ManifestError:
        return None
    comparer.compare(before, after, [path], taken)
    return taken.compared


def _row(entry: _Entry, compared: "Comparison | None") -> tuple[str, ...]:
    head = entry.commit[:_SHORT], entry.date
    if compared is None:
        return *head, "stored as it is", "", "", "", shown(entry.subject)
    stored = output.size(compared.changes.added_bytes) if compared.after else ""
    found = _total(compared)
    relative = None if found is None else found.relative
    amount = "" if relative is None else f"{100 * relative:.3g}%"
    return *head, _counts(compared), f"+{stored}" if stored else "", _updates(compared), amount, shown(entry.subject)


def _counts(compared: "Comparison") -> str:
    counts = Counter(change.kind.value for change in compared.changes.items)
    words = [f"{number:,} {kind}" for kind, number in counts.most_common()]
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


def _document(entry: _Entry, compared: "Comparison | None") -> dict[str, object]:
    row: dict[str, object] = {
        "commit": entry.commit,
        "date": entry.date,
        "author": entry.author,
        "subject": entry.subject,
        "is_manifest": compared is not None,
    }
    if compared is not None:
        found = _total(compared)
        row["counts"] = dict(Counter(change.kind.name.lower() for change in compared.changes.items))
        row["updates"] = dict(Counter(step.update for change in compared.changes.items for step in change.steps))
        row["added_bytes"] = compared.changes.added_bytes if compared.after else 0
        row["size_bytes"] = compared.after.size if compared.after else 0
        row["relative_change"] = None if found is None else found.relative
    return row
