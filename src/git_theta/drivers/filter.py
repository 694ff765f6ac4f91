"""The long-running filter process that `git add`, `checkout`, `status`, `diff`, ... start for tracked files.

Source: gitattributes(5), "Long Running Filter Process". The content of a request is drained before the answer;
`status=error` fails this one file; a second status after the content says whether that may be used.
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from git_theta.drivers.pktline import PacketReader, PacketWriter
from git_theta.errors import EXIT_BUG, RepositoryError, ThetaError
from git_theta.names import shown, shown_path

if TYPE_CHECKING:
    from git_theta.drivers.clean import Cleaner
    from git_theta.drivers.delivery import Delivery
    from git_theta.drivers.smudge import Smudger
    from git_theta.git import Repository

__all__ = ["main"]

_CAPABILITIES = ("clean", "smudge", "delay")
_TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))  # not on Windows


class _Session:
    """One repository; what cleans and what smudges is imported when it is first asked for, for it takes a while."""

    def __init__(self, repository: "Repository", environ: Mapping[str, str]) -> None:
        from git_theta.config import SECTIONS, read_settings
        from git_theta.depot import open_depot

        self._repository = repository
        self._config = repository.config(*SECTIONS, "hook", "extensions")
        self._environ = environ
        self.has_failed = False
        self._settings = read_settings(self._config, environ)
        self._depot = open_depot(repository.theta_dir, self._settings)
        self._add_hook()

    def _add_hook(self) -> None:
        """Have the pre-push hook in place, as git-lfs does: a fresh clone has none, and pushes would lack objects."""
        from git_theta import hooks

        try:
            hooks.add(self._repository, self._config)
        except RepositoryError as error:
            sys.stderr.write(f"git-theta: {error}\n")

    @property
    def theta_dir(self) -> Path:
        return self._repository.theta_dir

    @cached_property
    def cleaner(self) -> "Cleaner":
        from git_theta.drivers.clean import Cleaner
        from git_theta.overrides import Overrides

        overrides = Overrides(self._repository, self._settings, self._config, self._environ)
        return Cleaner(self._repository, self._depot, overrides)

    def is_for_driver(self, path: str) -> bool:
        """Whether a file's content is wanted for a diff driver of ours, which reads manifests as well.

        A driver that an attribute names comes before all that the user has: `git difftool`, `diff.external`.
        """
        return self._starts_driver and self._has_attribute(os.fsencode(path))

    def _has_attribute(self, path: bytes) -> bool:
        return self._repository.attributes([path], "diff")[path] == "theta"

    @cached_property
    def _starts_driver(self) -> bool:
        from git_theta.drivers import caller

        return bool(self._repository.config("diff").get("diff.theta.command")) and caller.is_diff()

    @cached_property
    def smudger(self) -> "Smudger":
        from git_theta.drivers.smudge import Smudger

        return Smudger(self._repository, self._depot, self._delivery)

    @cached_property
    def _delivery(self) -> "Delivery":
        from git_theta.drivers.delivery import Delivery

        return Delivery(self._repository, self._depot, self._config, self._environ)

    def restore(self) -> None:
        """Put back what Git has removed for files that it will not get, as it has given up."""
        if self.has_failed and "smudger" in self.__dict__ and self.smudger.unanswered:
            from git_theta.drivers.restoration import restore

            restore(self._repository, self._depot, self.smudger.unanswered)

    def close(self) -> None:
        """Leave nothing running, and nothing undelivered."""
        if "smudger" not in self.__dict__:
            return
        try:
            self.smudger.close()
        finally:
            # On Ctrl-C the terminal and then Git send a signal each; what is left takes a moment, and is to be whole.
            for number in (signal.SIGINT, *_TERMINATING):
                signal.signal(number, signal.SIG_IGN)
            self._delivery.complete()


def main() -> int:
    """Serve Git on stdin and stdout until it closes them; the exit code."""
    for number in _TERMINATING:
        signal.signal(number, _terminate)
    # Git 2.39 sets it for `checkout --recurse-submodules` in a submodule, where most of its commands refuse to run so.
    os.environ.pop("GIT_INTERNAL_SUPER_PREFIX", None)
    try:
        reader, writer = PacketReader(_binary(0)), PacketWriter(_binary(1))
        _shake_hands(reader, writer)
        session: _Session | None = None
        try:
            while request := _request(reader):
                if session is None:
                    session = _open_session()
                _serve(request, session, reader, writer)
            if session is not None:
                session.restore()
        finally:
            if session is not None:
                session.close()
        sys.stderr.flush()
        os._exit(0)  # Git waits for this process, and Python would take 40 ms to tidy up what goes anyway
    except (EOFError, BrokenPipeError):
        pass  # Git has gone; what it wanted is of no use any more
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except ThetaError as error:
        sys.stderr.write(f"git-theta: {error}\n")
        return error.exit_code
    return 0


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave by way of every `finally`, so that temporary files are removed."""
    sys.exit(128 + number)


def _binary(fd: int) -> int:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(fd, os.O_BINARY)
    return fd


def _shake_hands(reader: PacketReader, writer: PacketWriter) -> None:
    welcome = reader.lines()
    if "git-filter-client" not in welcome or "version=2" not in welcome:
        raise RepositoryError("this program is started by Git, with filter protocol 2; it has no use of its own")
    writer.lines(["git-filter-server", "version=2"])
    offered = reader.lines()
    writer.lines([f"capability={name}" for name in _CAPABILITIES if f"capability={name}" in offered])


def _request(reader: PacketReader) -> dict[str, str] | None:
    try:
        lines = reader.lines()
    except EOFError:
        return None
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def _open_session() -> _Session:
    from git_theta.git import discover

    return _Session(discover(), os.environ)


def _serve(request: dict[str, str], session: _Session, reader: PacketReader, writer: PacketWriter) -> None:
    command, path = request.get("command"), request.get("pathname", "")
    if command == "list_available_blobs":
        writer.lines([f"pathname={path}" for path in session.smudger.available()])
        writer.lines(["status=success"])
        return
    packets = reader.packets()
    begun = False
    try:
        if command == "clean":
            runs: Iterator[bytes | memoryview] = iter([session.cleaner.clean(path, packets)])
        elif command == "smudge":

            def for_diff() -> bool:
                # A checkout can be delayed, or has a commit or a tree to name; `git diff` has neither.
                return not request.keys() & {"can-delay", "ref", "treeish"} and session.is_for_driver(path)

            can_delay = request.get("can-delay") == "1"
            smudged = session.smudger.smudge(path, packets, can_delay=can_delay, for_diff=for_diff)
            if smudged is None:
                writer.lines(["status=delayed"])
                return
            runs = smudged
        else:
            raise RepositoryError(f"Git asked for '{shown(str(command))}', which was never offered")
        for _rest in packets:
            pass  # a delayed path is asked for with empty content
        writer.lines(["status=success"])
        begun = True
        writer.content(runs)
        writer.flush()
        writer.lines([])
        return
    except ThetaError as error:
        sys.stderr.write(f"git-theta: {shown(path)}: {shown_path(str(error))}\n")
    except (EOFError, BrokenPipeError):
        raise
    except OSError as error:
        where = f"{shown(str(error.filename))}: " if error.filename else ""
        sys.stderr.write(f"git-theta: {shown(path)}: it cannot be read or stored ({where}{error.strerror or error})\n")
    except Exception:  # noqa: BLE001  # a bug must fail this file alone, with something to report
        _report_bug(path, session.theta_dir)
    session.has_failed = True
    for _rest in packets:
        pass
    if begun:
        writer.flush()
    writer.lines(["status=error"])


def _report_bug(path: str, theta_dir: Path) -> None:
    from git_theta.buglog import write_log

    log = write_log(theta_dir)
    sys.stderr.write(f"git-theta: {shown(path)}: a bug in git-theta ({EXIT_BUG}); please report it with {log}\n")


if __name__ == "__main__":
    sys.exit(main())
