"""A code host on the loopback that is as far away as one: Git over smart HTTP, and git-lfs' basic transfers.

Source: git-http-backend(1), RFC 3875 (CGI); docs/api/batch.md and docs/api/basic-transfers.md of git-lfs.
"""

import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Host", "running"]

LFS = "application/vnd.git-lfs+json"
INFO = "/info/lfs/"


class Host(ThreadingHTTPServer):
    """Bare repositories in `folder`, objects in memory, requests counted by kind; each begins `latency_s` late."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, environment: dict[str, str], latency_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.environment = environment
        self.latency_s = latency_s
        self.objects: dict[str, bytes] = {}
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    def create(self, name: str) -> str:
        """The URL of a bare repository without commits or objects, in place of all that the host has had."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        for argv in (
            ["git", "init", "--quiet", "--bare", name],
            ["git", "-C", name, "config", "http.receivepack", "true"],
        ):
            subprocess.run(argv, cwd=self.folder, env=self.environment, check=True)
        self.objects.clear()
        self.counts.clear()
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that have gone are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # what is measured is not how a small head waits for its body
    server: Host

    def log_message(self, format: str, *args: object) -> None:  # the name is the base class's
        pass

    def do_GET(self) -> None:
        if INFO not in self.path:
            self._git()
        elif (content := self.server.objects.get(self._oid())) is None:
            self._begin("get")
            self._answer(404, b"{}", LFS)
        else:
            self._begin("get")
            self._answer(200, content, "application/octet-stream")

    def do_PUT(self) -> None:
        self._begin("put")
        self.server.objects[self._oid()] = self._body()
        self._answer(200, b"", LFS)

    def do_POST(self) -> None:
        if INFO not in self.path:
            self._git()
            return
        self._begin("batch" if self.path.endswith("/objects/batch") else "locks")
        body = self._body()
        if not self.path.endswith("/objects/batch"):
            self._answer(404, b"{}", LFS)
            return
        asked = json.loads(body)
        rows = [self._row(item["oid"], item["size"], asked["operation"]) for item in asked["objects"]]
        self._answer(200, json.dumps({"transfer": "basic", "objects": rows}).encode(), LFS)

    def _row(self, oid: str, size: int, operation: str) -> dict[str, object]:
        row: dict[str, object] = {"oid": oid, "size": size, "authenticated": True}
        here = oid in self.server.objects
        if operation == "download" and not here:
            row["error"] = {"code": 404, "message": "no such object"}
        elif operation == "download" or not here:
            repository = self.path.partition(INFO)[0]
            href = f"http://127.0.0.1:{self.server.server_address[1]}{repository}{INFO}{oid}"
            row["actions"] = {operation: {"href": href}}
        return row

    def _git(self) -> None:
        """What `git http-backend` answers."""
        self._begin("git")
        body = self._body()
        url = urlsplit(self.path)
        variables = {
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        environment = self.server.environment | variables
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.get("Status", "200").split(" ")[0])
        self._answer(status, content, fields["Content-Type"])

    def _begin(self, kind: str) -> None:
        time.sleep(self.server.latency_s)
        with self.server.lock:
            self.server.counts[kind] += 1

    def _oid(self) -> str:
        return self.path.rpartition("/")[2]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        runs = []
        while size := int(self.rfile.readline(), 16):
            runs.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(runs)

    def _answer(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running(folder: Path, environment: dict[str, str], latency_s: float) -> Iterator[Host]:
    """A host whose repositories lie in `folder`; `environment` is what its Git commands run in."""
    folder.mkdir(parents=True, exist_ok=True)
    with Host(folder, environment, latency_s) as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield host
        finally:
            host.shutdown()
            thread.join()
