"""The command line, `git theta`: a table of verbs, each loaded when it is asked for, and errors as exit codes."""

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import NoReturn

import click

from git_theta import __version__
from git_theta.errors import EXIT_BUG, RepositoryError, SpaceError, ThetaError

__all__ = ["group", "main", "run"]

EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_PIPE = 128 + 13  # SIGPIPE, which Windows has not
_VERBS = {
    "add": "add",
    "checkout": "checkout",
    "compact": "compact",
    "completion": "completion",
    "diff": "diff",
    "diff-driver": "diff_driver",
    "doctor": "doctor",
    "env": "env",
    "fetch": "fetch",
    "fsck": "fsck",
    "info": "info",
    "install": "install",
    "log": "log",
    "ls-files": "ls_files",
    "merge": "merge",
    "migrate": "migrate",
    "pre-push": "pre_push",
    "prune": "prune",
    "pull": "pull",
    "push": "push",
    "resolve": "resolve",
    "status": "status",
    "strategies": "strategies",
    "track": "track",
    "uninstall": "uninstall",
    "untrack": "untrack",
}


class _PipeClosed(Exception):  # noqa: N818  # it says what happened; nothing went wrong
    """The reader of what is printed has left; click would exit with 1 for a BrokenPipeError."""


class _LazyGroup(click.Group):
    """A group that imports a verb's module when the verb is used, or help lists them all."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosed from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = import_module(f"git_theta.commands.{_VERBS[cmd_name]}").command
        assert isinstance(command, click.Command)  # noqa: S101  # the table above is ours
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="git-theta", message="%(prog)s %(version)s")
def group() -> None:
    """Version checkpoints of machine-learning models with Git.

    After `git theta install` and `git theta track PATTERN`, plain `git add`, `commit` and `checkout` do the rest: only
    parameters that changed are stored, and files come back byte for byte.
    """


def main() -> int:
    """The console script: `run` on the arguments of this process."""
    # Leave by way of every `finally`, so that temporary files are removed.
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _terminate)
    code = run(sys.argv[1:])
    if code == 0:
        sys.stderr.flush()
        os._exit(0)  # the user waits, and Python would take 40 ms to tidy up what goes anyway
    return code


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code. Expected errors are one line on stderr, all others are logged."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = group.main(
            list(arguments), prog_name="git theta", complete_var="_GIT_THETA_COMPLETE", standalone_mode=False
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except ThetaError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except (_PipeClosed, BrokenPipeError):
        # What is still buffered has nowhere to go; Python would complain about it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", (SpaceError if full else RepositoryError).exit_code)
    except Exception:  # noqa: BLE001  # a bug: something to report instead of a traceback
        return _fail(f"a bug in git-theta; please report it with {_log()}", EXIT_BUG)


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"git-theta: {message}\n")
    return code


def _log() -> str:
    from git_theta import git
    from git_theta.buglog import write_log

    return write_log(git.theta_dir())


if __name__ == "__main__":
    sys.exit(main())
