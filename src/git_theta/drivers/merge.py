"""The merge driver that Git starts for a tracked file that both sides changed, in a merge, a rebase, a cherry-pick, ...

Source: gitattributes(5), "Defining a custom merge driver". %O, %A and %B are files with what Git stores: manifests, or
content from before the path was tracked. The result is left in %A; exit 0 says that all is merged, 1 that there are
conflicts. An error leaves ours there, and is a conflict too. Nothing is asked, and of two merges of the same versions
the second changes nothing: `git merge-tree` and `git show --remerge-diff` start the driver as well.

With --bases (`merge.theta.recursive`) it merges two common ancestors, to be the base of the merge that follows. What
conflicts there is taken from their own base, as Git does with binary files: by ours, one side would seem unchanged.
"""

import os
import sys

# All else is imported within `main`, which answers an interruption: imports take a while, `typing` included.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType
    from typing import NoReturn

    from git_theta.depot import Depot
    from git_theta.manifest import Manifest

__all__ = ["main"]

_CONFLICT = 1
_STOPPED = 128


def main() -> int:
    """Merge the files named by the arguments %O %A %B %P, and perhaps Git's names for the sides; the exit code."""
    try:
        import signal

        for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), _terminate)
        return _run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("git-theta: not merged, ours is kept: it was stopped\n")
        return _STOPPED


def _run(words: list[str]) -> int:
    import shutil

    from git_theta.errors import InputError, ThetaError
    from git_theta.names import shown_path

    of_bases = words[:1] == ["--bases"]
    words = words[of_bases:]
    try:
        if len(words) < 4:
            raise InputError("a merge driver is started with %O %A %B %P; run: git theta install")
        return _merge(words[0], words[1], words[2], words[3], of_bases=of_bases)
    except ThetaError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or ''}: {error.strerror or error}"
    except Exception:  # noqa: BLE001  # a bug: ours is kept, and there is something to report
        message = f"a bug in git-theta; please report it with {_log()}"
    path = shown_path(words[3]) if len(words) > 3 else "?"
    sys.stderr.write(f"git-theta: {path}: not merged, {'the base' if of_bases else 'ours'} is kept: {message}\n")
    if of_bases and len(words) > 1:
        shutil.copyfile(words[0], words[1])
    return _CONFLICT


def _terminate(_number: int, _frame: "FrameType | None") -> "NoReturn":
    """Leave by way of every `finally`, so that temporary files are removed."""
    sys.exit(_STOPPED)


def _merge(base: str, ours: str, theirs: str, path: str, *, of_bases: bool) -> int:
    from contextlib import closing, suppress
    from pathlib import Path

    from git_theta import idle, manifest, moves, reconciliation, rulebook
    from git_theta.config import SECTIONS, read_settings
    from git_theta.depot import open_depot
    from git_theta.drivers.meter import Meter
    from git_theta.errors import InputError, ThetaError
    from git_theta.git import discover
    from git_theta.merges.arrays import torch_backend
    from git_theta.names import shown_path
    from git_theta.outcome import Versions
    from git_theta.overrides import Overrides

    repository = discover()
    config = repository.config(*SECTIONS)
    settings = read_settings(config, os.environ)
    name = os.fsencode(path)
    rules = rulebook.read(repository, [name], config, os.environ)[name]
    backend = torch_backend(settings.merge_device) if settings.merge_device else None
    depot = open_depot(repository.theta_dir, settings)
    with closing(depot.catalogue):
        mine, other = (_read(Path(place), depot) for place in (ours, theirs))
        if mine is None or other is None:
            raise InputError("one side is an empty file")
        versions = Versions(_read(Path(base), depot), mine, other)
        overrides = Overrides(repository, settings, config, os.environ)
        merger = reconciliation.Merger(repository, depot, overrides, backend)
        with Meter(shown_path(path), versions.ours.size) as meter:
            made = merger.merge(name, versions, rules, meter.add)
            if of_bases and made.conflicts:
                rules = reconciliation.with_base(rules, made.conflicts)
                made = merger.merge(name, versions, rules, meter.add)
    with suppress(ThetaError):  # a merge does not fail for a warning
        for line in [] if of_bases else idle.warnings(repository, [(versions, rules)]):
            sys.stderr.write(f"git-theta: warning: {line}\n")
    if made.conflicts and not of_bases:
        with suppress(ThetaError):  # nor for a line that says less
            made = moves.told(repository, name, versions, made, os.environ)
    if not of_bases and (made.conflicts or reconciliation.report_place(repository, name).exists()):
        reconciliation.write_report(repository, name, versions, rules, made)
    if made.conflicts and not of_bases:
        # git(1): GIT_PREFIX is where in the worktree the user stands; the driver is started at the top of it.
        for line in reconciliation.remedies(name, made, os.environ.get("GIT_PREFIX", "")):
            sys.stderr.write(f"git-theta: {line}\n")
    Path(ours).write_bytes(manifest.format(made.manifest))
    return _CONFLICT if made.conflicts else 0


def _read(place: "Path", depot: "Depot") -> "Manifest | None":
    """The manifest in a file of Git's; that of the checkpoint that lies there instead; None for an empty file."""
    from git_theta import checkpoint, tracked
    from git_theta.errors import InputError
    from git_theta.manifest import MAX_MANIFEST_BYTES
    from git_theta.names import shown_path
    from git_theta.source import FileSource
    from git_theta.tracked import Kind

    fd = os.open(place, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        source = FileSource(fd, shown_path(str(place)))
        if source.size <= MAX_MANIFEST_BYTES:
            kind, found, problem = tracked.read(source.read(0, source.size))
            if kind is Kind.INVALID:
                raise InputError(problem)
            if kind is not Kind.PLAIN:
                return found
        return checkpoint.take(source, depot)
    finally:
        os.close(fd)


def _log() -> str:
    from git_theta import git
    from git_theta.buglog import write_log

    return write_log(git.theta_dir())
