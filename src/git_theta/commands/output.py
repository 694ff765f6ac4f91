"""What the commands print: tables on a terminal, aligned columns elsewhere, JSON, sizes, and progress on stderr.

Names from a repository are shown by `names.shown` and `names.shown_path` before they come here; nothing is read as
terminal markup.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from git_theta.names import shown_path
from git_theta.wording import count, size

__all__ = [
    "VERSION",
    "aligned",
    "complain",
    "count",
    "object_counts",
    "print_json",
    "print_json_line",
    "print_table",
    "progress",
    "size",
    "warn_unkept",
]

VERSION = 1
_GAP = "  "


def object_counts(objects: Mapping[str, int], missing: Mapping[str, int]) -> dict[str, object]:
    """Objects as they stand in JSON; both are oid to size in bytes."""
    return {
        "count": len(objects),
        "size_bytes": sum(objects.values()),
        "missing": {"count": len(missing), "size_bytes": sum(missing.values())},
    }


def complain(path: bytes | str, message: object) -> None:
    """One line on stderr about one file."""
    sys.stderr.write(f"git-theta: {shown_path(path)}: {message}\n")


def warn_unkept(remote: str, reason: str | None) -> None:
    """One line on stderr where a remote has been sent objects, and refuses to keep them alive; none for None."""
    if reason:
        complain(remote, f"the objects were sent, but may be cleaned up by the host some day: {reason}")


def print_json(document: Mapping[str, object]) -> None:
    """One JSON document in ASCII, with the version of its shape (docs/reference/cli.md)."""
    print(json.dumps({"version": VERSION, **document}, indent=2))


def print_json_line(document: Mapping[str, object]) -> None:
    """A JSON document in a line of its own, which a reader of the pipe has at once."""
    print(json.dumps({"version": VERSION, **document}, separators=(",", ":")), flush=True)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """The rows in columns, those of the indices in `right` to the right; headers are shown where there are any."""
    if sys.stdout.isatty():
        _print_rich(headers, rows, right)
        return
    for line in aligned(headers, rows, right):
        print(line)


def aligned(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """The lines of a table that is not for a terminal."""
    table = [list(headers), *rows] if any(headers) else list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _print_rich(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD if any(headers) else None, show_header=any(headers), pad_edge=False)
    for index, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


@contextmanager
def progress(total_bytes: int) -> Iterator[Callable[[str], Callable[[int], None]]]:
    """A bar on stderr if that is a terminal: called with a label, it gives the function that takes bytes done."""
    if not sys.stderr.isatty():
        yield lambda label: lambda size_bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total_bytes)

        def begin(label: str) -> Callable[[int], None]:
            bar.update(task, description=label)
            return lambda size_bytes: bar.advance(task, size_bytes)

        yield begin
