"""A small application over the connection flow, for HTTP conformance tools.

    python -m tests.echo asyncio|trio PORT

``GET /`` answers 200 ``OK``, ``POST /`` the body back, ``/echo`` the received header
lines as ``Name: value``, ``/cookie`` the parsed cookies a line each.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import time
from typing import Any

import trio

from tz_protocol.flows.connection import Connection, ConnectionSettings, describe_bug
from tz_protocol.machine import Context, Machine
from tz_protocol.notices import LogLine, Notice
from tz_protocol.operations import (
    Flow,
    Handle,
    Listen,
    NextSignal,
    Print,
    ReceiveBody,
    SendBody,
    SendHead,
    Signal,
    StopListening,
)
from tz_protocol.types.http import RequestHead, ResponseHead

FAR = 1e12
"""Absolute seconds that never come."""


class Echo:
    """The application, with what ``Listen`` asks of whoever serves."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.live: set[Any] = set()
        self.room = Signal()

    def admits(self) -> bool:
        """Take everybody."""
        return True

    def bug(self, error: BaseException) -> None:
        """Log what went wrong."""
        self.context.tell(describe_bug(error))

    def connection(self, client: Handle, peer: str = "") -> Connection:
        """Return what serves one client."""
        return Connection(
            client,
            self.handle,
            context=self.context,
            settings=ConnectionSettings(),
            wall_clock=time.time,
            peer=peer,
        )

    def handle(self, head: RequestHead) -> Flow[None]:
        """Answer one request."""
        pieces = []
        while piece := (yield from ReceiveBody(FAR)):
            pieces.append(piece)
        body = _ANSWERS.get(head.path, _not_found)(head, b"".join(pieces))
        status = 404 if body is None else 200
        body = b"no such path" if body is None else body
        headers = (("content-type", "text/plain"), ("content-length", str(len(body))))
        yield from SendHead(FAR, ResponseHead(status, headers))
        yield from SendBody(FAR, body, end=True)

    def serve(self, port: int) -> Flow[None]:
        """Serve until a signal comes."""
        (address,) = yield from Listen(FAR, self, (f"127.0.0.1:{port}",))
        yield from Print(FAR, f"listening on {address}\n")
        yield from NextSignal(FAR)
        yield from StopListening(FAR)


def _root(head: RequestHead, body: bytes) -> bytes:
    return body if head.method == "POST" else b"OK"


def _lines(head: RequestHead, body: bytes) -> bytes:
    lines = [f"{name}: {value}\n" for name, value in head.lines or head.headers]
    return "".join(lines).encode("latin-1")


def _cookies(head: RequestHead, body: bytes) -> bytes:
    pairs = [
        pair.strip() for value in head.get_all("cookie") for pair in value.split(";")
    ]
    return "".join(f"{pair}\n" for pair in pairs if "=" in pair).encode("latin-1")


def _not_found(head: RequestHead, body: bytes) -> None:
    return None


_ANSWERS: dict[str, Any] = {"/": _root, "/echo": _lines, "/cookie": _cookies}


def _log(notice: Notice) -> None:
    if isinstance(notice, LogLine):
        print(notice.message, notice.fields, file=sys.stderr)


def main() -> None:
    """Serve on the transport and the port that were named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=("asyncio", "trio"))
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    package = f"tz_transport_{options.transport}"
    server_module = importlib.import_module(f"{package}.server")
    driver_module = importlib.import_module(f"{package}.driver")

    async def run() -> None:
        context = Context()
        async with server_module.open_server(_log) as server:
            context.now = server.now()
            machine = Machine(Echo(context).serve(options.port), context)
            await driver_module.Driver(machine, server).run()

    if options.transport == "asyncio":
        asyncio.run(run())
    else:
        trio.run(run)


if __name__ == "__main__":
    main()
