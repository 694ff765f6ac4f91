"""The log of an unexpected error: a file with the traceback and the versions of everything that matters."""

import os
import platform
import sys
import time
import traceback
from pathlib import Path

from git_theta import __version__

__all__ = ["write_log"]

_PACKAGES = ("numpy", "zstandard", "blake3", "click", "rich")


def write_log(theta_dir: Path | None) -> str:
    """Write the exception being handled to a log below `theta_dir`; its path, or the traceback where that fails."""
    from importlib.metadata import PackageNotFoundError, version

    lines = [f"git-theta {__version__}, Python {sys.version.split()[0]}, {platform.platform()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} is not installed")
    text = "\n".join([*lines, "", traceback.format_exc()])
    if theta_dir is None:
        return text
    path = theta_dir / "logs" / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError:
        return text
    return str(path)
