"""Figures: what was measured beside what it should be, as a table and as JSON."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

__all__ = ["Figure", "format_figure", "machine", "ratio"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value that should be at most `limit`, if there is one; `detail` says what it was made of."""

    group: str
    name: str
    measured: float
    limit: float | None
    unit: str = ""
    detail: str = ""
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.limit is None or self.measured <= self.limit

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"ok": self.ok}


def ratio(group: str, name: str, ours_s: Sequence[float], theirs_s: Sequence[float], limit: float) -> Figure:
    """The ratio of two medians, ours over git-lfs'."""
    ours, theirs = median(ours_s), median(theirs_s)
    detail = f"git-theta {ours:.2f} s, git-lfs {theirs:.2f} s"
    return Figure(group, name, ours / theirs, limit, "x", detail, {"git-theta": ours_s, "git-lfs": theirs_s})


def format_figure(figure: Figure, before: Sequence[Figure] = (), *, judge: bool = True) -> str:
    """A line of a table; a heading comes first unless the last figure of `before` is of the same group.

    With `judge`, the line says whether the figure is within its target.
    """
    lines: list[str] = []
    if not before or before[-1].group != figure.group:
        lines += ["", f"{figure.group:<42}{'measured':>13}{'target':>15}"]
    target = "" if figure.limit is None else f"<= {_number(figure.limit)} {figure.unit}"
    measured = f"{_number(figure.measured)} {figure.unit}"
    verdict = ("ok  " if figure.ok else "MISS") if judge and figure.limit is not None else ""
    lines.append(f"  {figure.name:<40}{measured:>13}{target:>15}  {verdict}  {figure.detail}".rstrip())
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    load = f"{os.getloadavg()[0]:.1f} when it began" if hasattr(os, "getloadavg") else "unknown"
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": memory or "unknown",
        "load": load,
        "system": platform.platform(),
        "python": platform.python_version(),
        "git": _version("git", "--version"),
        "git-lfs": _version("git-lfs", "--version"),
    }


def _number(value: float) -> str:
    if isinstance(value, int) or value >= 10:
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
