"""A comparison as lines of text: a line for the file, one or two for each group of parameters, and what is alarming."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from git_theta.changes import Kind, rows
from git_theta.comparison import Comparison, Rest
from git_theta.errors import MissingObjectError
from git_theta.grouping import Group, Sort, groups, relative_change
from git_theta.manifest import Record
from git_theta.measuring import size_bytes
from git_theta.names import shown
from git_theta.scalars import Scalar
from git_theta.statistics import LOWEST
from git_theta.tensor import OPAQUE
from git_theta.wording import count, size

__all__ = ["Line", "Style", "lines"]

_NONE = "0" * 7
_INDENT = "        "
_WIDEST_NAME = 60
_MOST_ALARMS = 20
_MOST_OUTLIERS = 3
_MOST_SCALARS = 20
_LONGEST_SCALAR = 60
_MOST_BITS = 1024


class Style(Enum):
    """What a line is about, for those who colour it."""

    HEAD = "head"
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    DETAIL = "detail"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class Line:
    """A line, with no newline; names in it are escaped."""

    text: str
    style: Style


def lines(path: str, compared: Comparison, *, full: bool = False, sort: Sort = Sort.NAME) -> Iterator[Line]:
    """The report on a file, whose `path` is shown as it is."""
    yield Line(_head(path, compared), Style.HEAD)
    made = groups(compared, full=full, sort=sort)
    width = min(_WIDEST_NAME, max((len(shown(group.name)) for group in made), default=0))
    for group in made:
        yield from _group_lines(group, width)
    yield from _alarms(compared, full=full)
    yield from _scalars(compared, full=full)
    if compared.rest is not Rest.SAME:
        yield Line(f"  * {_REST[compared.rest]}", Style.CHANGED)
    yield from _unmeasured(compared)


_REST = {
    Rest.ORDER: "the parameters stand in another order in the file",
    Rest.SKELETON: "the file changed beside its parameters: header, metadata or pickle",
    Rest.UNKNOWN: "the file changed beside its parameters; its layout is not on this machine, run: git theta fetch",
}
_SIGNS = {
    Kind.ADDED: ("+", Style.ADDED),
    Kind.REMOVED: ("-", Style.REMOVED),
    Kind.TIED: ("=", Style.CHANGED),
    Kind.UNTIED: ("=", Style.CHANGED),
    Kind.RENAMED: (">", Style.CHANGED),
}


def _head(path: str, compared: Comparison) -> str:
    digests = [side.digest[:7] if side else _NONE for side in (compared.before, compared.after)]
    changes = compared.changes
    counts = Counter(change.kind for change in changes.items)
    words = [f"{counts[kind]:,} {kind.value}" for kind in Kind if counts[kind]]
    words.append(f"{changes.unchanged:,} unchanged")
    parameters = count(changes.parameters, "parameter")
    text = f"{path}  {digests[0]}..{digests[1]}   {parameters}: {', '.join(words)}"
    if compared.before and compared.after and compared.before.format != compared.after.format:
        text += f"   {compared.before.format} -> {compared.after.format}"
    if compared.is_kept and compared.after:
        text += f"   +{size(changes.added_bytes)} stored of {size(compared.after.size)}"
    return text


def _group_lines(group: Group, width: int) -> Iterator[Line]:
    sign, style = _SIGNS.get(group.kind, ("~", Style.CHANGED))
    name = shown(group.name)
    if group.was:
        name = f"{shown(group.was)} -> {name}"
    facts = [fact for fact in (_what(group), _said(group), _updates(group)) if fact]
    yield Line(f"  {sign} {name.ljust(width)}   {'   '.join(facts)}", style)
    details = list(_details(group))
    if details:
        yield Line(_INDENT + "   ".join(details), Style.DETAIL)
    for name, relative in group.outliers[:_MOST_OUTLIERS]:
        yield Line(f"{_INDENT}far more than the others: {shown(name)}   {_percent(relative)}", Style.ALARM)
    if len(group.outliers) > _MOST_OUTLIERS:
        more = len(group.outliers) - _MOST_OUTLIERS
        yield Line(f"{_INDENT}{more:,} more changed far more than the others; --full lists all", Style.ALARM)
    histogram = group.total.histogram if group.total else None
    if histogram and any(histogram):
        yield Line(_INDENT + _histogram(histogram), Style.DETAIL)


def _what(group: Group) -> str:
    """How many there are, and their dtype and shape, before and after where these differ."""
    change = group.changes[0]
    before = change.before.record if change.before else None
    after = change.after.record if change.after else before
    before = before or after
    if before is None or after is None:
        return ""
    shape = _arrow(_shape(before), _shape(after))
    dtype = _arrow(before.dtype, after.dtype)
    times = f"{len(group.changes):,}x " if len(group.changes) > 1 else ""
    return f"{times}{dtype} {shape}" if OPAQUE in (before.dtype, after.dtype) else f"{times}{shape} {dtype}"


def _shape(record: Record) -> str:
    return f"[{', '.join(map(str, record.shape))}]"


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"


def _said(group: Group) -> str:
    """What the sign and the shapes do not say."""
    if group.kind in (Kind.ADDED, Kind.REMOVED):
        return size(group.size)
    if group.kind is Kind.TIED:
        return f"now another name of {shown(group.owner)}"
    if group.kind is Kind.UNTIED:
        return f"no longer another name of {shown(group.owner)}"
    if group.kind is Kind.REORDERED:
        return "its elements stand in another order"
    if group.kind is Kind.VIEWS:
        return "other views of the same value"
    return _rows(group) if group.kind is Kind.RESIZED else ""


def _rows(group: Group) -> str:
    """How many rows came or went, and whether the others changed."""
    pair = group.changes[0].pair
    more = rows(*pair) if pair else None
    if more is None:
        return ""
    said = f"{count(abs(more), 'row')} {'added' if more > 0 else 'removed'}"
    found = group.total
    if found is None or len(group.statistics) < len(group.changes):
        return said
    changed = found.changed_rows if found.rows else found.changed
    return said + (", no other row changed" if not found.changed else f", {count(changed, 'other row')} changed")


def _updates(group: Group) -> str:
    """By which updates the new values are stored, the most frequent first."""
    if group.kind is Kind.RENAMED:
        return ""
    chains = Counter(group.chains)
    found = [(chain, number) for chain, number in chains.most_common(4) if chain]
    if len(found) == 1 and len(chains) == 1:
        return found[0][0]
    return ", ".join(f"{chain} ({number:,})" for chain, number in found)


def _details(group: Group) -> Iterator[str]:
    """The statistics in words."""
    found = group.total
    if found is None:
        return
    if not found.changed:
        if group.kind is Kind.CONVERTED:
            yield "every number is the same"
        return
    if found.change is None:
        yield _share(found.changed, found.elements, "byte")
        return
    if found.change:
        yield f"|change|/|weight| {_percent(found.relative)}{_most(group)}"
    yield _share(found.changed, found.elements, "element")
    if found.changed_rows < found.rows:
        yield f"{found.changed_rows:,} of {count(found.rows, 'row')}"
    if not found.change:
        yield "but no finite number"
        return
    yield f"max |change| {found.largest:.3g}"
    if found.cosine is not None:
        yield f"cosine {_cosine(found.cosine)}"
    if group.ranks is not None:
        yield f"effective rank {' to '.join(dict.fromkeys(f'{rank:.4g}' for rank in group.ranks))}"


def _percent(relative: float | None) -> str:
    return "inf" if relative is None else f"{100 * relative:.3g}%"


def _histogram(bins: Sequence[int]) -> str:
    """The shares of the changed elements by decades of |change|/|weight|; "1e-4" is up to 1e-3."""
    decades = [sum(bins[at : at + 2]) for at in range(0, len(bins), 2)]
    labels = [f"1e{power}" for power in range(LOWEST, LOWEST + len(decades))]
    labels[0], labels[-1] = f"below {labels[1]}", f"from {labels[-1]}"
    shares = [f"{label}: {100 * n / sum(bins):.3g}%" for label, n in zip(labels, decades, strict=True) if n]
    return f"changed elements by |change|/|weight|   {'   '.join(shares)}"


def _most(group: Group) -> str:
    """The largest relative change among several, and whose it is."""
    if len(group.statistics) < 2 or len(group.statistics) < len(group.changes):
        return ""
    rows_ = zip(group.statistics, group.changes, strict=True)
    most, name = max((relative_change(found), change.name) for found, change in rows_)
    return f" (max {_percent(most if math.isfinite(most) else None)} at {shown(name)})"


def _share(part: int, whole: int, noun: str) -> str:
    """A share, which is a percentage unless it would be rounded to all or none of them."""
    share = 100 * part / whole
    if share < 0.1 or 99.9 < share < 100:
        return f"{part:,} of {count(whole, noun)}"
    return f"{share:.3g}% of {noun}s"


def _cosine(value: float) -> str:
    """With as many nines as there are, and one digit more."""
    text = f"{value:.12f}"
    nines = re.match(r"-?0\.9*", text)
    digits = max(4, len(nines[0].lstrip("-0.")) + 1) if nines else 4
    return f"{value:.{min(digits, 12)}f}"


def _alarms(compared: Comparison, *, full: bool) -> Iterator[Line]:
    """NaN and infinities, each parameter by itself."""
    rows_ = [(change.name, compared.statistics(change)) for change in compared.changes.items]
    broken = [(name, found) for name, found in rows_ if found and any((*found.nans, *found.infinities))]
    for name, found in broken if full else broken[:_MOST_ALARMS]:
        words = [("NaN", found.nans), ("Inf", found.infinities)]
        said = "   ".join(f"{word}: {before} -> {after}" for word, (before, after) in words if before or after)
        yield Line(f"  ! {shown(name)}   {said}", Style.ALARM)
    if not full and len(broken) > _MOST_ALARMS:
        yield Line(f"  ! {len(broken) - _MOST_ALARMS:,} more have NaN or Inf; --full lists all", Style.ALARM)


def _scalars(compared: Comparison, *, full: bool) -> Iterator[Line]:
    """Metadata and the like, a line for each."""
    for item in compared.scalars if full else compared.scalars[:_MOST_SCALARS]:
        before, after = _scalar(item.before), _scalar(item.after)
        said = (
            f"{before} -> {after}"
            if item.was_there and item.is_there
            else f"+ {after}"
            if item.is_there
            else f"- {before}"
        )
        yield Line(f"  * {shown(item.name)}   {said}", Style.CHANGED)
    if not full and len(compared.scalars) > _MOST_SCALARS:
        more = len(compared.scalars) - _MOST_SCALARS
        yield Line(f"  * {more:,} more numbers and strings differ; --full lists all", Style.CHANGED)


def _scalar(value: Scalar) -> str:
    """A number as Python writes it, or a string in quotes, not too long."""
    text = (
        json.dumps(value) if isinstance(value, str) else repr(value) if not isinstance(value, int) else _integer(value)
    )
    return text if len(text) <= _LONGEST_SCALAR else f"{text[:_LONGEST_SCALAR]}..."


def _integer(value: int) -> str:
    """A whole number; Python refuses to write long ones in decimal."""
    return str(value) if value.bit_length() <= _MOST_BITS else f"an integer of {value.bit_length():,} bits"


def _unmeasured(compared: Comparison) -> Iterator[Line]:
    """What was not computed, and how it would be."""
    if compared.left:
        values = count(len(compared.left), "parameter")
        changed = size(sum(map(size_bytes, compared.left)))
        yield Line(f"  statistics of {values} ({changed}) not computed; --stats computes them", Style.DETAIL)
    errors = compared.errors
    for message, number in Counter(map(str, errors)).most_common(3):
        remedy = (
            "; run: git theta fetch REVISION"
            if any(isinstance(error, MissingObjectError) and str(error) == message for error in errors)
            else ""
        )
        yield Line(f"  no statistics of {count(number, 'parameter')}: {message}{remedy}", Style.ALARM)
