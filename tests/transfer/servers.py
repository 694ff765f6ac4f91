"""LFS servers on the loopback for tests: giftless (PyPI) in a process, and a small one that fails on demand.

Source: docs/api/batch.md and docs/api/basic-transfers.md of git-lfs.
"""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Fault", "FaultyServer", "faulty", "giftless"]

_JSON = "application/vnd.git-lfs+json"
_GIFTLESS = """
import sys, warnings
warnings.simplefilter("ignore")
from giftless.app import init_app
from werkzeug.serving import make_server
app = init_app(additional_config={
    "AUTH_PROVIDERS": ["giftless.auth.allow_anon:read_write"],
    "LEGACY_ENDPOINTS": True,
    "TRANSFER_ADAPTERS": {"basic": {
        "factory": "giftless.transfer.basic_streaming:factory",
        "options": {
            "storage_class": "giftless.storage.local_storage:LocalStorage",
            "storage_options": {"path": sys.argv[1]},
            "action_lifetime": 900,
        },
    }},
})
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.port, flush=True)
server.serve_forever()
"""


@contextmanager
def giftless(folder: Path) -> Iterator[str]:
    """The URL of a giftless that keeps its objects in `folder`."""
    argv = [sys.executable, "-c", _GIFTLESS, str(folder)]
    with (folder.parent / "giftless.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, cwd=folder.parent)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield f"http://127.0.0.1:{port}/an-org/a-repo"
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@dataclass(slots=True)
class Fault:
    """What is to go wrong: at the next `times` requests of a kind, "batch", "get" or "put" (negative: at all of them).

    `status` answers with that; `cut` closes the connection after so many bytes of an object; `wrong` sends other bytes
    of the right length; `object_error` is a code that a batch gives for each object; `expired` has a batch give actions
    whose time is over; `silent` has a proxy give the status, without a reason.
    """

    kind: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    wrong: bool = False
    object_error: int = 0
    expired: bool = False
    silent: bool = False
    times: int = -1


class FaultyServer(ThreadingHTTPServer):
    """Objects in memory, requests counted by kind."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.latency_s = 0.0
        self.counts: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.held: set[str] = set()  # objects that are not given out before `released` is set
        self.released = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/lfs"

    def fault(self, kind: str) -> Fault:
        """The fault that is due; one that does nothing otherwise. Counts the request."""
        with self.lock:
            self.counts[kind] += 1
            for fault in self.faults:
                if fault.kind == kind and fault.times:
                    fault.times -= 1
                    return fault
        return Fault(kind)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that have gone are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def log_message(self, format: str, *args: object) -> None:  # the name is the base class's
        pass

    def do_POST(self) -> None:
        body = self._body()
        if not self.path.endswith("/objects/batch"):
            self._answer(404, b"{}")  # locks
            return
        fault = self._begin("batch")
        if fault.status:
            self._refuse(fault)
            return
        request = json.loads(body)
        upload = request["operation"] == "upload"
        rows = [self._row(item, upload, fault) for item in request["objects"]]
        self._answer(200, json.dumps({"transfer": "basic", "objects": rows}).encode())

    def _row(self, item: dict[str, Any], upload: bool, fault: Fault) -> dict[str, object]:
        row: dict[str, object] = {"oid": item["oid"], "size": item["size"], "authenticated": True}
        here = item["oid"] in self.server.objects
        if fault.object_error:
            row["error"] = {"code": fault.object_error, "message": f"refused with {fault.object_error}"}
        elif not upload and not here:
            row["error"] = {"code": 404, "message": "no such object"}
        elif not (upload and here):
            action: dict[str, object] = {"href": f"{self.server.url}/{item['oid']}"}
            if fault.expired:
                action["expires_at"] = "2016-11-10T15:29:07Z"
            row["actions"] = {"upload" if upload else "download": action}
        return row

    def do_GET(self) -> None:
        fault = self._begin("get")
        oid = self.path.rpartition("/")[2]
        content = self.server.objects.get(oid)
        if oid in self.server.held:
            self.server.released.wait(60)
        if fault.status or content is None:
            self._refuse(fault if fault.status else Fault("get", 404))
            return
        if fault.wrong:
            content = bytes(byte ^ 0xFF for byte in content)
        start = 0
        asked = self.headers.get("Range")
        if asked:
            self.server.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + fault.cut] if fault.cut else content[start:])
        if fault.cut:
            self.close_connection = True

    def do_PUT(self) -> None:
        fault = self._begin("put")
        if fault.cut:
            self.rfile.read(min(fault.cut, int(self.headers["Content-Length"])))
            self.close_connection = True
            self.connection.close()
            return
        body = self._body()
        if fault.status:
            self._refuse(fault)
            return
        self.server.objects[self.path.rpartition("/")[2]] = body
        self._answer(200, b"")

    def _begin(self, kind: str) -> Fault:
        if self.server.latency_s:
            time.sleep(self.server.latency_s)  # what is tested, not a wait for something
        return self.server.fault(kind)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            runs = []
            while size := int(self.rfile.readline(), 16):
                runs.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(runs)
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionError("the client went away")
        return body

    def _refuse(self, fault: Fault) -> None:
        if fault.silent:
            self._answer(fault.status, b"<html></html>", {"Content-Type": "text/html", **fault.headers})
            return
        body = json.dumps({"message": f"refused with {fault.status}"}).encode()
        self._answer(fault.status, body, fault.headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": _JSON, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def faulty() -> Iterator[FaultyServer]:
    """A running server without faults."""
    with FaultyServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
