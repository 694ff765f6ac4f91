"""Rows: versions of one checkpoint have most lines of their manifests in common, and each is parsed once.

A canonical manifest (docs/format.md) has a line for each parameter, and a line is a parameter in no other place: there
is no line break in a string of JSON, and no key of version 1 but `parameters` has objects whose first key is `dtype`.
"""

from collections.abc import Mapping
from dataclasses import replace

from git_theta import jsontext, manifest
from git_theta.errors import ManifestError
from git_theta.manifest import Manifest, Record

__all__ = ["Rows"]

_HEAD_LINES = 4
_BEGIN, _END = b'"parameters": {', [b"}}", b""]


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
        """The manifest, where it has lines of the last one; None where that cannot be told, or something is wrong.

        Without these lines it is a manifest, too. If each line of that is one row, then so is each line of all.
        """
        lines = _lines(text)
        known = self._known() if lines else {}
        own = [line for line in lines if line not in known]
        if len(own) == len(lines) or not _is_in_bounds(text, lines):
            return None
        head = text.split(b"\n", _HEAD_LINES)[:_HEAD_LINES]
        try:
            left = manifest.parse(b"\n".join([*head, *([b",\n".join(own)] if own else []), *_END]))
            if not _are_rows(own, left.parameters):
                return None
            rows = dict(zip(own, left.parameters.items(), strict=True))
            parameters = dict(known[line] if line in known else rows[line] for line in lines)
            if len(parameters) != len(lines):
                return None
            manifest.check_objects([left.layout, *parameters.values()])
        except ManifestError:
            return None
        return replace(left, parameters=parameters)

    def _known(self) -> dict[bytes, tuple[str, Record]]:
        """The rows of the last manifest by their lines; none where these are not one for each, as is canonical."""
        if self._records is None:
            parameters = self._manifest.parameters if self._manifest else {}
            lines = _lines(self._text)
            self._records = dict(zip(lines, parameters.items(), strict=True)) if _are_rows(lines, parameters) else {}
        return self._records


def _are_rows(lines: list[bytes], parameters: Mapping[str, Record]) -> bool:
    """Whether each line of a manifest is one of its parameters, in this order."""
    return len(lines) == len(parameters) and all(
        line.startswith(manifest.row_start(name)) for line, name in zip(lines, parameters, strict=True)
    )


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
