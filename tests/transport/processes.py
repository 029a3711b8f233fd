"""Gateways as processes of their own, and the upstream that they call."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BOUND = 30.0
"""Seconds after which a process is taken for one that never answers."""

LISTENING = re.compile(r"listening on \S*?:(\d+)")


class Running:
    """A command that runs; its output is collected as it comes."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None):
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._is_ended = False
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """Everything that has been written so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """Return the first match of *pattern* in the output, once it is there."""
        found: re.Match[str] | None = None

        def is_there() -> bool:
            nonlocal found
            found = re.search(pattern, "".join(self._lines))
            return found is not None or self._is_ended

        with self._changed:
            self._changed.wait_for(is_there, BOUND)
        assert found is not None, f"no {pattern!r} in:\n{self.output}"
        return found

    @property
    def port(self) -> int:
        """The port that the gateway listens on."""
        return int(self.wait_for(LISTENING)[1])

    def stop(self) -> int:
        """Ask the process to end, see to it, and return its status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(BOUND)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(BOUND)
            raise
        self._reader.join(BOUND)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextlib.contextmanager
def running(
    *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[Running]:
    """Run ``python -m`` with *arguments* for as long as the block lasts."""
    process = Running(*arguments, environment=environment)
    try:
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def gateway(transport: str, config: Path, *options: str) -> Iterator[Running]:
    """Run a gateway of *transport* with this configuration on a free port."""
    module = f"tz_transport_{transport}"
    arguments = (module, "--config-file", str(config), "--port", "0", *options)
    with running(*arguments) as process:
        assert process.port
        yield process


class _Refuser(BaseHTTPRequestHandler):
    """Answers with the status that the request's model names."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        request: dict[str, Any] = json.loads(self.rfile.read(length))
        status = int(request["model"])
        error = {"message": f"refused with {status}", "type": "t", "code": f"c{status}"}
        body = json.dumps({"error": error}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


class _Claude(BaseHTTPRequestHandler):
    """Speaks Anthropic's format; each answer counts on from a number of its own."""

    protocol_version = "HTTP/1.1"
    numbers = itertools.count()

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        request: dict[str, Any] = json.loads(self.rfile.read(length))
        number = next(self.numbers)
        words = [f"{number}.{place} " for place in range(request["max_tokens"])]
        usage = {"input_tokens": 3, "output_tokens": len(words)}
        if not request.get("stream"):
            content = [{"type": "text", "text": "".join(words)}]
            message = {"id": f"m{number}", "content": content, "usage": usage}
            body = json.dumps({**message, "stop_reason": "end_turn"}).encode()
            self._begin("application/json", ("content-length", str(len(body))))
            self.wfile.write(body)
            return
        self._begin("text/event-stream", ("transfer-encoding", "chunked"))
        self._say("message_start", message={"id": f"m{number}", "usage": usage})
        self._say("content_block_start", index=0, content_block={"type": "text"})
        for word in words:
            delta = {"type": "text_delta", "text": word}
            self._say("content_block_delta", index=0, delta=delta)
        self._say("content_block_stop", index=0)
        end = {"stop_reason": "end_turn"}
        self._say("message_delta", delta=end, usage={"output_tokens": len(words)})
        self._say("message_stop")
        self.wfile.write(b"0\r\n\r\n")

    def _begin(self, content_type: str, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in (("content-type", content_type), *headers):
            self.send_header(name, value)
        self.end_headers()

    def _say(self, kind: str, **members: Any) -> None:
        data = f"data: {json.dumps({'type': kind, **members})}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def refuser() -> Iterator[int]:
    """Serve an upstream that refuses as it is told; yields its port."""
    with _serving(_Refuser) as port:
        yield port


@contextlib.contextmanager
def claude() -> Iterator[int]:
    """Serve an upstream that speaks Anthropic's format; yields its port."""
    with _serving(_Claude) as port:
        yield port


@contextlib.contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(BOUND)
