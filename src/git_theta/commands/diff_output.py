"""What `git theta diff` prints: text, in Git's colours on a terminal, or JSON."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from git_theta import report
from git_theta.changes import Change, Face, Kind
from git_theta.commands import output
from git_theta.commands.place import Place
from git_theta.comparison import Comparison
from git_theta.grouping import Group, Sort, groups
from git_theta.manifest import Manifest
from git_theta.measuring import size_bytes
from git_theta.names import shown_path
from git_theta.report import Style
from git_theta.scalars import Scalar
from git_theta.statistics import Statistics

__all__ = ["Json", "JsonLines", "Show", "Text", "document", "title"]

_SLOTS = {
    Style.HEAD: ("meta", "bold"),
    Style.ADDED: ("new", "green"),
    Style.REMOVED: ("old", "red"),
    Style.CHANGED: ("frag", "cyan"),
    Style.DETAIL: ("context", "normal"),
    Style.ALARM: ("whitespace", "normal red"),
}
"""Git's slots of `color.diff`, and their defaults."""
_MOST_BITS = 1024
_RESET = "\033[m"


class Show(Protocol):
    """Takes comparisons; `found` says whether there were any."""

    found: bool

    def one(self, paths: Sequence[bytes], compared: Comparison) -> None:
        """A file that differs, by its path, or its old and its new one."""
        ...

    def end(self) -> None:
        """There are no more."""
        ...


class Text:
    """Prints each comparison as it comes."""

    def __init__(self, place: Place | None, full: bool, sort: Sort, told: bool | None = None) -> None:
        self.found = False
        self._full = full
        self._sort = sort
        self._colours = _colours(place, told)

    def one(self, paths: Sequence[bytes], compared: Comparison) -> None:
        if self.found:
            print()
        self.found = True
        for line in report.lines(title(paths), compared, full=self._full, sort=self._sort):
            colour = self._colours.get(line.style, "")
            print(f"{colour}{line.text}{_RESET}" if colour else line.text)

    def end(self) -> None:
        pass


def _colours(place: Place | None, told: bool | None) -> Mapping[Style, str]:
    """The escape sequences that Git would use; none where it would use no colours, or NO_COLOR is set.

    `told`: what the command line says, which counts for more.
    """
    is_terminal = sys.stdout.isatty()
    if told is False or (told is None and (os.environ.get("NO_COLOR") or (place is None and not is_terminal))):
        return {}
    if place is None:
        return {Style.HEAD: "\033[1m", Style.ADDED: "\033[32m", Style.REMOVED: "\033[31m", Style.ALARM: "\033[41m"}
    git = place.repository.git
    asked = ("config", "--get-colorbool", "color.diff", "true" if is_terminal else "false")
    if told is None and git(*asked, accept=(0, 1)).strip() != b"true":
        return {}
    return {
        style: git("config", "--get-color", f"color.diff.{slot}", default).decode("ascii", "ignore")
        for style, (slot, default) in _SLOTS.items()
    }


class Json:
    """Keeps every comparison for one document (docs/reference/cli.md)."""

    def __init__(self, full: bool, sort: Sort) -> None:
        self.found = False
        self._full = full
        self._sort = sort
        self._files: list[dict[str, object]] = []

    def one(self, paths: Sequence[bytes], compared: Comparison) -> None:
        self.found = True
        self._files.append(document(paths, compared, full=self._full, sort=self._sort))

    def end(self) -> None:
        output.print_json({"files": self._files})


class JsonLines:
    """Prints a document of one line for each comparison as it comes."""

    def __init__(self, full: bool, sort: Sort) -> None:
        self.found = False
        self._full = full
        self._sort = sort

    def one(self, paths: Sequence[bytes], compared: Comparison) -> None:
        self.found = True
        output.print_json_line(document(paths, compared, full=self._full, sort=self._sort))

    def end(self) -> None:
        pass


def title(paths: Sequence[bytes]) -> str:
    """The path of a file as it is shown, or its old and its new one."""
    return " -> ".join(map(shown_path, dict.fromkeys(paths)))


def document(paths: Sequence[bytes], compared: Comparison, *, full: bool, sort: Sort) -> dict[str, object]:
    """A comparison as it stands in JSON (docs/reference/cli.md); names in it are as they are."""
    changes = compared.changes
    return {
        "path": os.fsdecode(paths[-1]),
        "path_before": os.fsdecode(paths[0]),
        "before": _side(compared.before),
        "after": _side(compared.after),
        "counts": {kind.name.lower(): len(changes.of(kind)) for kind in Kind} | {"unchanged": changes.unchanged},
        "beside_parameters": compared.rest.value or None,
        "scalars": [
            {"name": item.name, "before": _scalar(item.before), "after": _scalar(item.after)}
            for item in compared.scalars
        ],
        "added_bytes": changes.added_bytes if compared.is_kept else None,
        "groups": [_group(group) for group in groups(compared, full=full, sort=sort)],
        "alarms": [
            {"name": change.name, **_specials(found)}
            for change in changes.items
            if (found := compared.statistics(change)) and any((*found.nans, *found.infinities))
        ],
        "not_computed": {"count": len(compared.left), "size_bytes": sum(map(size_bytes, compared.left))},
        "errors": list(dict.fromkeys(map(str, compared.errors))),
    }


def _side(manifest: Manifest | None) -> dict[str, object] | None:
    if manifest is None:
        return None
    return {
        "digest": manifest.digest,
        "format": manifest.format,
        "size_bytes": manifest.size,
        "parameters": len(manifest.parameters),
    }


def _group(group: Group) -> dict[str, object]:
    change = group.changes[0]
    found = group.total
    return {
        "name": group.name,
        "name_before": group.was or None,
        "owner": group.owner or None,
        "count": len(group.changes),
        "kind": group.kind.name.lower(),
        "before": _face(change.before),
        "after": _face(change.after),
        "size_bytes": group.size,
        "updates": _updates(group.changes),
        "outliers": [{"name": name, "relative_change": relative} for name, relative in group.outliers],
        "statistics": None if found is None else {"of": len(group.statistics), **_statistics(found, group.ranks)},
    }


def _face(face: Face | None) -> dict[str, object] | None:
    return {"dtype": face.record.dtype, "shape": face.record.shape} if face else None


def _updates(changes: Sequence[Change]) -> list[str]:
    return list(dict.fromkeys(step.update for change in changes for step in change.steps))


def _statistics(found: Statistics, ranks: tuple[float, float] | None) -> dict[str, object]:
    return {
        "elements": found.elements,
        "changed": found.changed,
        "rows": found.rows,
        "changed_rows": found.changed_rows,
        "norm_before": _finite(found.before),
        "norm_after": _finite(found.after),
        "norm_change": _finite(found.change),
        "relative_change": found.relative,
        "largest_change": _finite(found.largest),
        "cosine": found.cosine,
        "effective_rank": ranks,
        "histogram": found.histogram,
        **_specials(found),
    }


def _finite(number: float | None) -> float | None:
    """The number, or None where JSON has none for it: a norm of float64 that is too large for float64."""
    return number if number is not None and math.isfinite(number) else None


def _scalar(value: Scalar) -> Scalar:
    """A value that JSON has, and every reader of it reads: others as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return hex(value) if isinstance(value, int) and value.bit_length() > _MOST_BITS else value


def _specials(found: Statistics) -> dict[str, object]:
    return {"nan": found.nans, "infinite": found.infinities}
