"""A note from `git theta checkout` to the filter that Git starts for it: which files were just written and verified.

Git can note how a file lies on the disk only by having its content cleaned. What was hashed a moment ago, and has the
same inode, size and modification time since, need not be hashed again: the filter drains it and answers with the
manifest.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from git_theta.source import Stamp

__all__ = ["Notes", "left", "read"]

_VARIABLE = "GIT_THETA_WRITTEN"

Notes = Mapping[str, tuple[Stamp, str]]
"""The stamp of each file, and the oid of the blob that is its manifest, by the path in the repository."""


@contextmanager
def left(notes: Notes) -> Iterator[dict[str, str]]:
    """The environment in which a filter finds these notes."""
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        path = Path(folder) / "written.json"
        path.write_text(json.dumps(notes), "ascii")
        yield {_VARIABLE: str(path)}


def read(environ: Mapping[str, str]) -> Notes:
    """The notes that were left for this process; none where there are none."""
    path = environ.get(_VARIABLE)
    if not path or not os.path.exists(path):  # noqa: PTH110  # a variable of someone else's may be no path at all
        return {}
    rows = json.loads(Path(path).read_text("ascii"))
    return {name: (tuple(stamp), blob) for name, (stamp, blob) in rows.items()}
