"""A headless Chromium that shows one page, spoken to in the DevTools protocol over a pipe: no port, and no package.

https://chromedevtools.github.io/devtools-protocol/: each message is JSON that ends with a NUL.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Browser", "browser"]

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
_FIRST_FREE = 10  # the shell takes 3 and 4


class Browser:
    """A page; `complaints` are what its console, its log and its policy said, `asked` the addresses that it loaded."""

    def __init__(self, to: int, back: int) -> None:
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self._to = to
        self._back = back
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None

    def show(self, path: Path, width: int = 1000, height: int = 1200, *, dark: bool = False) -> None:
        """Load a file, until it is loaded."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for name in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{name}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._call("Page.navigate", url=path.as_uri())
        while self._take().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """The value of an expression in JavaScript, awaited if it is a promise."""
        done = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self) -> str:
        """What is to be seen, as a PNG in base64."""
        data: str = self._call("Page.captureScreenshot", format="png")["data"]
        return data

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._take()).get("id") != number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _take(self) -> dict[str, Any]:
        """The next message; what it complains of is kept."""
        while b"\0" not in self._buffer:
            data = os.read(self._back, 2**16)
            assert data, "the browser has ended"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(text.decode())
        if message.get("method") == "Network.requestWillBeSent":
            self.asked.append(message["params"]["request"]["url"])
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile in a folder; skips the test where there is none, and none is to be had."""
    if sys.platform != "linux":
        pytest.skip("pipes by number are made for Linux alone")
    import fcntl

    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None and os.environ.get("CI"):
        pytest.fail("CI must have a Chromium: apt-get install chromium-headless-shell")
    if found is None:
        pytest.skip("there is no Chromium")
    pipes = [os.pipe() for _ in range(2)]
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, _FIRST_FREE) for end in (pipes[0][0], pipes[1][1])]
    command = ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}', "-", found, *_OPTIONS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={profile}"],
        pass_fds=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (*theirs, pipes[0][0], pipes[1][1]):
        os.close(end)
    try:
        yield Browser(pipes[0][1], pipes[1][0])
    finally:
        process.kill()
        process.wait()
        os.close(pipes[0][1])
        os.close(pipes[1][0])
