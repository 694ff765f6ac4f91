"""Measure git-theta side by side with git-lfs: python benchmarks/run.py [--quick] [--only add,memory] [--json FILE]

The targets are the project's own. Times are compared as ratios of medians, from one run with the two
tools by turns and the files in the system's cache. Data is made on first use and kept for the next run.
"""

import argparse
import compileall
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import git_theta
from diffs import diffs
from figures import Figure, format_figure, machine
from memory import anonymous_memory
from merging import merge, one_sided
from repository import installed
from speed import add, checkout
from startup import startup
from storage import small, store
from tasks import tasks
from transfer import fsck, hook, transfer
from updates import tuned, updates, workflow
from workplace import FULL, QUICK, Workplace

CASES: dict[str, Callable[[Workplace], Iterator[Figure]]] = {
    "add": add,
    "checkout": checkout,
    "memory": anonymous_memory,
    "store": store,
    "small": small,
    "startup": startup,
    "transfer": transfer,
    "hook": hook,
    "fsck": fsck,
    "updates": updates,
    "workflow": workflow,
    "tuned": tuned,
    "diff": diffs,
    "merge": merge,
    "one-sided": one_sided,
    "tasks": tasks,
}


def main() -> None:
    arguments = _arguments()
    _compute_in_one_thread()
    scale = QUICK if arguments.quick else FULL
    if arguments.repetitions:
        scale = replace(scale, repetitions=arguments.repetitions)
    for program in ("git", "git-lfs", "git-theta", "git-theta-filter"):
        if not installed(program):
            raise SystemExit(f"{program} is not on PATH; run: make bench")
    # As pip does when it installs a wheel; where PYTHONDONTWRITEBYTECODE is set, each start would compile all anew.
    compileall.compile_dir(Path(git_theta.__file__).parent, quiet=1)
    folder: Path = arguments.directory
    folder.mkdir(parents=True, exist_ok=True)
    _check_space(folder, scale.disk_bytes)

    about = machine()
    print("\n".join(f"{key:<10} {value}" for key, value in about.items()))
    scratch = Path(tempfile.mkdtemp(prefix="repositories-", dir=folder))
    workplace = Workplace(folder / "models", scratch, scale, _say)
    figures: list[Figure] = []
    try:
        for name in arguments.only:
            for figure in CASES[name](workplace):
                _say("")
                print(format_figure(figure, figures[-1:], judge=not arguments.quick), flush=True)
                figures.append(figure)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        _say("")
    print(f"\nrepetitions: {scale.repetitions}; data kept in {folder}")
    if arguments.quick:
        print("The data was small and measured once: this shows that it works, not how fast it is.")
    else:
        judged = [figure for figure in figures if figure.limit is not None]
        print(f"{sum(figure.ok for figure in judged)} of {len(judged)} figures are within their target.")
    if arguments.json:
        report = {"machine": about, "scale": scale.name, "figures": [figure.as_json() for figure in figures]}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def _compute_in_one_thread() -> None:
    """Start again without NumPy's threads, as git-theta works: NumPy has read that when it was imported."""
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606  # there is no shell, which is as it should be


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure git-theta side by side with git-lfs.")
    parser.add_argument("--only", type=_names, default=list(CASES), help=f"some of {','.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="small data, once: to see whether it works")
    parser.add_argument("--repetitions", type=int, help=f"how often (default: {FULL.repetitions})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and samples to a file, too")
    cache = os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()
    parser.add_argument("--directory", type=Path, default=Path(cache, "git-theta-bench"), help="default: %(default)s")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(CASES):
        raise argparse.ArgumentTypeError(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    return names


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise SystemExit(
            f"{folder}: {free / 2**30:.1f} GiB are free, and data and repositories may take "
            f"{needed_bytes / 2**30:.0f} GiB; choose another folder with --directory, or try --quick"
        )


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
