"""Git's side of the long-running filter protocol, spoken by hand to a real `git-theta-filter`."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CLIENT", "FLUSH", "OFFERED", "FilterClient", "Reply", "anonymous_kib", "packet"]

FLUSH = b"0000"
CLIENT = ("git-filter-client", "version=2")
OFFERED = ("capability=clean", "capability=smudge", "capability=delay")
FULL_PACKET = 65516


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its first status, its content, and the lines that followed the content."""

    status: list[str]
    content: bytes = b""
    after: list[str] | None = None


def packet(data: bytes) -> bytes:
    """One packet line."""
    return b"%04x%s" % (len(data) + 4, data)


class FilterClient:
    """A filter process that is served its requests by a test; what it says on stderr lands in `complaints`."""

    def __init__(self, cwd: Path, *options: str, handshake: bool = True, **variables: str) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, *options, "-m", "git_theta.drivers.filter"],
            cwd=cwd,
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to, self._from = self.process.stdin, self.process.stdout
        if handshake:
            assert self.shake_hands() == list(OFFERED)

    def __enter__(self) -> "FilterClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._from.close()
        with suppress(BrokenPipeError, ValueError):  # the filter has gone, or the test has closed it
            self._to.close()
        self._stderr.close()

    def shake_hands(self, client: Sequence[str] = CLIENT, offered: Sequence[str] = OFFERED) -> list[str]:
        """The capabilities that the filter takes up."""
        self.send_lines(*client)
        assert self.lines() == ["git-filter-server", "version=2"]
        self.send_lines(*offered)
        return self.lines()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._to.write(data)
        self._to.flush()

    def send_lines(self, *lines: str) -> None:
        """Send text packets and a flush."""
        self.send(b"".join(packet(os.fsencode(line + "\n")) for line in lines) + FLUSH)

    def send_content(self, content: bytes, step: int = FULL_PACKET) -> None:
        """Send content in packets of `step` bytes and a flush."""
        for start in range(0, len(content), step):
            self.send(packet(content[start : start + step]))
        self.send(FLUSH)

    def request(self, command: str, path: str, content: bytes, *keys: str, step: int = FULL_PACKET) -> Reply:
        """Ask for one file."""
        self.send_lines(f"command={command}", f"pathname={path}", *keys)
        self.send_content(content, step)
        return self.reply()

    def reply(self) -> Reply:
        """The answer to a request for one file."""
        status = self.lines()
        if status != ["status=success"]:
            return Reply(status)
        content = b"".join(self.packets())
        return Reply(status, content, self.lines())

    def available(self) -> list[str]:
        """The paths that are ready, as Git asks for them."""
        self.send_lines("command=list_available_blobs")
        paths = self.lines()
        assert self.lines() == ["status=success"]
        assert all(path.startswith("pathname=") for path in paths)
        return [path.removeprefix("pathname=") for path in paths]

    def packets(self) -> Iterator[bytes]:
        """The data of the packets up to the next flush."""
        while (size := int(self._from.read(4), 16)) != 0:
            data = self._from.read(size - 4)
            assert 0 < len(data) == size - 4 <= FULL_PACKET
            yield data

    def lines(self) -> list[str]:
        """The text packets up to the next flush."""
        return [os.fsdecode(data).removesuffix("\n") for data in self.packets()]

    def close(self) -> int:
        """Close the filter's stdin, as Git does in the end; its exit code."""
        rest, _ = self.process.communicate(timeout=60)
        assert rest == b""
        return self.process.returncode

    def hang_up(self) -> None:
        """Close both pipes, as a Git that was killed does."""
        self._from.close()
        self._to.close()

    @property
    def complaints(self) -> str:
        """What the filter has said on stderr so far."""
        return os.pread(self._stderr.fileno(), 2**20, 0).decode()


def anonymous_kib(pid: int) -> int:
    """Anonymous memory of a process, in KiB; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields: Mapping[str, str] = dict(row.split(":", 1) for row in status.splitlines())
    return int(fields.get("RssAnon", "0 kB").split()[0])
