"""The embedded engine as a process: ``python -m tz_stores.engine FOLDER``.

The one rule: one process owns a folder (the engine locks it), and speaks ClickHouse's
HTTP interface on loopback, as far as its clients use it, to whoever has the password.
It ends when nobody holds the folder's ``users`` lock any more, which the kernel sees to
whichever way they end. ``embedded.py`` starts it.

Source: https://clickhouse.com/docs/interfaces/http.
"""

from __future__ import annotations

import base64
import fcntl
import hmac
import json
import os
import re
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

__all__ = ["DATABASE", "ENDPOINT", "OWNER", "USERS", "main"]

USERS = "users"
"""Held (shared) by every process that uses the engine."""

OWNER = "owner"
"""Held by the engine itself."""

ENDPOINT = "endpoint.json"
"""Where it can be reached, for this user's eyes only."""

DATABASE = "tensorzero"

_LOOK_SECONDS = 1.0
"""Between two looks at whether anybody is left."""

_NOT_SETTINGS = frozenset(
    {
        "query",
        "query_id",
        "database",
        "default_format",
        "session_id",
        "session_timeout",
        "client_protocol_version",
        "enable_http_compression",
        "compress",
        "decompress",
        "buffer_size",
        "wait_end_of_query",
        "user",
        "password",
        "role",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
    }
)
_FINAL = "split_intersecting_parts_ranges_into_layers_final = 0"
"""For FINAL: the small engine cannot compare the 128-bit numbers that TensorZero's
tables are ordered by, and does so for that alone."""

_NAME = re.compile(r"[A-Za-z0-9_]+")
_CODE = re.compile(r"Code:\s*(\d+)")
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)


class _Handler(BaseHTTPRequestHandler):
    """One request: a statement, carried out in a session of its own."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _body(self) -> bytes:
        if self.command == "GET":
            return b""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _serve(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/ping":
            self._answer(200, b"Ok.\n")
            return
        given = self.headers.get("Authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self.server.authorization):
            # What follows is not read: any process of this machine can send it.
            self.close_connection = True
            self._answer(403, b"Code: 516. DB::Exception: no such user", 516)
            return
        options = dict(parse_qsl(url.query, keep_blank_values=True))
        try:
            self._answer(200, self.server.run(options, self._body()))
        except Exception as error:
            text = str(error)
            found = _CODE.search(text)
            code = int(found[1]) if found else 1002
            self._answer(404 if code == 60 else 500, text.encode(), code)

    def _answer(self, status: int, body: bytes, code: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: statements have content in them."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, password: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        token = base64.b64encode(f"default:{password}".encode())
        self.authorization = b"Basic " + token
        self._sessions: Any = __import__("chdb.session", fromlist=["Session"])
        self._path = str(folder / "data")
        # Keeps the engine in the process between two requests.
        self._kept = self._open()
        self._kept.query(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")

    def _open(self) -> Any:
        return self._sessions.Session(self._path)

    def run(self, options: dict[str, str], body: bytes) -> bytes:
        """Carry out one statement; return its rows."""
        query = options.get("query", "")
        statement = f"{query}\n".encode() + body if query else body
        parameters = {
            name.removeprefix("param_"): value
            for name, value in options.items()
            if name.startswith("param_")
        }
        settings = [
            f"{name} = '{_quoted(value)}'"
            for name, value in options.items()
            if name not in _NOT_SETTINGS
            and not name.startswith("param_")
            and _NAME.fullmatch(name)
        ]
        if b"FINAL" in (query.encode() or body):
            settings.insert(0, _FINAL)
        session = self._open()
        try:
            database = options.get("database", "").replace("`", "")
            session.query(f"USE `{database or DATABASE}`")
            if settings:
                session.query("SET " + ", ".join(settings))
            named = _FORMAT.search(query or body[-200:].decode("utf-8", "replace"))
            default = options.get("default_format", "TabSeparated")
            answer = session.query(
                statement, named[1] if named else default, params=parameters
            )
            return bytes(answer.bytes() or b"")
        finally:
            session.close()


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def main(folder: Path) -> None:
    """Serve the folder until nobody uses it."""
    # The descriptor was locked by whoever started us: it is ours to keep.
    os.umask(0o077)  # the folder may be one that others can look into
    password = secrets.token_urlsafe(32)
    server = _Server(folder, password)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    _publish(folder, {"port": port, "password": password, "pid": os.getpid()})
    users = os.open(folder / USERS, os.O_RDWR | os.O_CREAT, 0o600)
    leave = threading.Event()
    while True:
        leave.wait(_LOOK_SECONDS)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        # From here on nobody can begin to use us: they wait for the lock.
        (folder / ENDPOINT).unlink(missing_ok=True)
        server.shutdown()
        os._exit(0)


def _publish(folder: Path, endpoint: dict[str, object]) -> None:
    """Write where we are, in one moment and for nobody else."""
    path = folder / f"{ENDPOINT}.{os.getpid()}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(endpoint, file)
    path.rename(folder / ENDPOINT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
