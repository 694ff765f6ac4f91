"""What `--html` writes: a page in one file that needs no network, the document of `--json` in it.

Names come from a repository and are hostile. They stand in the page as JSON that has no "<", ">" or "&", and its script
puts them into text nodes alone. The page's policy (https://www.w3.org/TR/CSP3/) lets run the one script, by its digest.
"""

import base64
import hashlib
import html
import json
import os
import tempfile
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path

from git_theta import report
from git_theta.commands.diff_output import document, title
from git_theta.commands.output import VERSION
from git_theta.comparison import Comparison
from git_theta.errors import InputError
from git_theta.grouping import Sort
from git_theta.names import shown_path

__all__ = ["DIFF", "HISTORY", "Html", "page", "show"]

DIFF = "git theta diff", "diff.js"
HISTORY = "git theta log", "history.js"
"""The kinds of pages: their titles, and their scripts."""
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}


class Html:
    """Keeps every comparison for one page, in a file of that path, or in a temporary one that the browser is shown."""

    def __init__(self, path: Path | None, sort: Sort, *, opens: bool) -> None:
        self.found = False
        self._path = path
        self._sort = sort
        self._opens = opens
        self._files: list[dict[str, object]] = []
        self._lines: list[str] = []

    def one(self, paths: Sequence[bytes], compared: Comparison) -> None:
        self.found = True
        self._files.append(document(paths, compared, full=True, sort=self._sort))
        if self._lines:
            self._lines.append("")
        self._lines += (line.text for line in report.lines(title(paths), compared, sort=self._sort))

    def end(self) -> None:
        show(page(DIFF, {"version": VERSION, "files": self._files}, self._lines), self._path, opens=self._opens)


def show(content: bytes, path: Path | None, *, opens: bool) -> None:
    """Put a page where it is asked for, or into a temporary file, and have the browser open it if it is to."""
    place = path or _temporary(content)
    if path is not None:
        _write(path, content)
    if opens and not webbrowser.open(place.absolute().as_uri()):
        raise InputError(f"{shown_path(str(place))}: no browser was found to open it; open it yourself")


def page(kind: tuple[str, str], document: Mapping[str, object], lines: Sequence[str]) -> bytes:
    """The page that shows a document, in ASCII; `lines` say the same where no script runs."""
    title_, own = kind
    style, script = _resource("page.css"), _resource("common.js") + _resource(own)
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    filled = _resource("page.html").format(
        policy=policy,
        title=title_,
        style=style,
        script=script,
        text=html.escape("\n".join(lines)),
        data=json.dumps(document, separators=(",", ":")).translate(_ESCAPES),
    )
    return filled.encode("ascii", "xmlcharrefreplace")


def _resource(name: str) -> str:
    return (resources.files("git_theta.commands") / "page" / name).read_text(encoding="ascii")


def _digest(text: str) -> str:
    """A source of a policy: text of this digest."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _temporary(content: bytes) -> Path:
    """A new file that this user alone can read; it stays, for the browser reads it later."""
    handle, name = tempfile.mkstemp(prefix="git-theta-diff-", suffix=".html")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return Path(name)


def _write(path: Path, content: bytes) -> None:
    """The file, all of it or none; a device such as /dev/stdout is written to."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    beside = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(content)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
