"""Rows: versions of one checkpoint have most lines of their manifests in common, and each is parsed once.

A canonical manifest (docs/format.md) has a line for each parameter, and a line is a parameter in no other place: there
is no line break in a string of JSON, and no key of version 1 but `parameters` has objects whose first key is `dtype`.
"""

from git_theta import jsontext, manifest
from git_theta.errors import ManifestError
from git_theta.manifest import Manifest, Record

__all__ = ["Rows"]

_HEAD_LINES = 4
_BEGIN, _END = b'"parameters": {', [b"}}", b""]
_SHARE = 4
"""The lines that differ are read one by one, which takes longer for each: so where more than one of four does, all
are read at once."""


class Rows:
    """Parses manifests, each with the help of the one before it; the same manifests and errors as `manifest.parse`."""

    def __init__(self) -> None:
        self._text = b""
        self._manifest: Manifest | None = None
        self._records: dict[bytes, tuple[str, Record]] | None = None

    def parse(self, text: bytes) -> Manifest:
        """The manifest that this text holds; raises ManifestError where it holds none."""
        if self._manifest is not None and text == self._text:
            return self._manifest
        found = self._parse(text) or manifest.parse(text)
        self._text, self._manifest, self._records = text, found, None
        return found

    def _parse(self, text: bytes) -> Manifest | None:
        """The manifest, where it is much like the last one; None where that cannot be told, or something is wrong."""
        lines = _lines(text)
        known = self._known() if lines else {}
        own = [line for line in lines if line not in known]
        if not lines or len(own) * _SHARE > len(lines) or not _is_in_bounds(text, lines):
            return None
        try:
            head = manifest.parse(b"\n".join([*text.split(b"\n", _HEAD_LINES)[:_HEAD_LINES], *_END]))
            read = {line: _row(line) for line in own}
        except (ManifestError, ValueError):
            return None
        parameters = dict(known[line] if line in known else read[line] for line in lines)
        if len(parameters) != len(lines) or head.parameters:
            return None
        try:
            manifest.check_objects([head.layout, *parameters.values()])
        except ManifestError:
            return None
        return Manifest(head.format, head.size, head.digest, head.layout, parameters)

    def _known(self) -> dict[bytes, tuple[str, Record]]:
        """The rows of the last manifest by their lines; none where these are not one for each, as is canonical."""
        if self._records is None:
            rows = self._manifest.parameters.items() if self._manifest else ()
            lines = _lines(self._text)
            are_canonical = len(lines) == len(rows) and all(
                line.startswith(manifest.row_start(name)) for line, (name, _) in zip(lines, rows, strict=True)
            )
            self._records = dict(zip(lines, rows, strict=True)) if are_canonical else {}
        return self._records


def _lines(text: bytes) -> list[bytes]:
    """The lines of the parameters without the commas between them; none where the text is not laid out by line."""
    lines = text.split(b"\n")
    if lines[_HEAD_LINES - 1 : _HEAD_LINES] != [_BEGIN] or lines[-2:] != _END:
        return []
    rows = lines[_HEAD_LINES:-2]
    if not rows or not all(line.endswith(b",") for line in rows[:-1]):
        return []
    return [*(line[:-1] for line in rows[:-1]), rows[-1]]


def _is_in_bounds(text: bytes, lines: list[bytes]) -> bool:
    is_short = len(text) <= manifest.MAX_MANIFEST_BYTES and len(lines) <= manifest.MAX_PARAMETERS
    return is_short and jsontext.has_few_items(text)


def _row(line: bytes) -> tuple[str, Record]:
    """The name and the record of a line; raises ValueError where it is not one row, ManifestError as `parse` does."""
    row = jsontext.parse(b"{%b}" % line)
    if not isinstance(row, dict) or len(row) != 1:
        raise ValueError("a line that is not one row")
    [found] = manifest.parse_rows(row).items()
    return found
