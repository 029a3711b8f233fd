"""The gateway inside somebody else's application, on trio.

The one rule: this module waits, and ``tz_protocol.embedding`` decides. No socket is
served here: an ASGI server or httpx brings the request. A gateway belongs to one loop.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import trio

from tz_protocol.embedding import LocalCall, asgi_call, closing, uuid7
from tz_protocol.gateway import Gateway
from tz_protocol.machine import ClientGone, Machine
from tz_protocol.notices import LogLine, Notice
from tz_protocol.types.settings import Snapshot
from tz_transport_trio.backend import Backend
from tz_transport_trio.driver import Driver

__all__ = ["GatewayTransport", "SyncGatewayTransport", "asgi", "make_gateway"]


def make_gateway(snapshot: Snapshot, **overrides: Any) -> Gateway:
    """Return a gateway with this process's clock, identifiers and randomness.

    Args:
        snapshot: The configuration.
        overrides: Arguments of ``Gateway`` to use instead.
    """
    new_id = partial(uuid7, time.time, os.urandom)
    outside = {"wall_clock": time.time, "new_id": new_id, "jitter": random.random}
    return Gateway(snapshot, **{**outside, **overrides})


def _log(notice: Notice) -> None:
    """Log as any library does, by the logger ``tz_gateway``."""
    if isinstance(notice, LogLine):
        log = getattr(logging.getLogger("tz_gateway"), notice.level)
        log("%s %s", notice.message, notice.fields)


def asgi(gateway: Gateway) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """Return an ASGI application; let it have ``lifespan`` events if you can."""
    backends: list[Backend] = []  # the one, made in the loop that serves

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not backends:
            backends.append(Backend(_log))
        inbox, outlet = trio.open_memory_channel[Any](1)
        server = SimpleNamespace(read=outlet.receive, write=send)
        flow = asgi_call(gateway, scope, server)
        driver = Driver(Machine(flow, gateway.context), backends[0])

        async def pump() -> None:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    driver.tell(ClientGone())
                await inbox.send(message)

        async with trio.open_nursery() as group:
            group.start_soon(pump)
            await driver.run()
            group.cancel_scope.cancel()
        if scope["type"] == "lifespan":
            await backends[0].aclose()

    return app


class GatewayTransport(httpx.AsyncBaseTransport):
    """Answers an ``httpx.AsyncClient`` by the gateway, on the caller's loop.

    The gateway's own deadlines hold; httpx's timeouts do not.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._backend: Backend | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer once the head is there; the body is made as it is read."""
        self._backend = self._backend or Backend(_log)
        given = (request.method, request.url.raw_path, request.headers.raw)
        call = LocalCall(self._gateway, *given, await request.aread())
        driver = Driver(Machine(call.run(), self._gateway.context), self._backend)
        driver.start()
        await driver.drive(call.has_news)
        if call.head is None:
            raise driver.error or httpx.RemoteProtocolError("there is no answer")
        stream, headers = _Stream(driver, call), call.raw_headers()
        return httpx.Response(call.head.status, headers=headers, stream=stream)

    async def aclose(self) -> None:
        """Close what was kept open to providers."""
        if self._backend is not None:
            machine = Machine(closing(self._gateway), self._gateway.context)
            await Driver(machine, self._backend).run()
            await self._backend.aclose()


class _Stream(httpx.AsyncByteStream):
    """The body of an answer; whoever reads it drives the machine that makes it."""

    def __init__(self, driver: Driver[None], call: LocalCall) -> None:
        self._driver = driver
        self._call = call

    async def next_piece(self) -> bytes:
        """Return what comes next, ``b""`` at the end."""
        while not (piece := self._call.take()) and not self._call.is_complete:
            if self._driver.machine.done:
                raise self._driver.error or httpx.RemoteProtocolError("answer cut off")
            await self._driver.drive(self._call.has_news)
        return piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.next_piece():
            yield piece

    async def aclose(self) -> None:
        if not self._call.is_complete:
            self._driver.tell(ClientGone())
        await self._driver.drive()


class SyncGatewayTransport(httpx.BaseTransport):
    """Answers an ``httpx.Client`` by the gateway, in a thread of its own."""

    def __init__(self, gateway: Gateway) -> None:
        self._inner = GatewayTransport(gateway)
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)
        self._thread.start()
        self._is_ready.wait()

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._end = trio.Event()
        self._is_ready.set()
        await self._end.wait()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer once the head is there; the body is made as it is read."""
        request.read()
        response: httpx.Response = self.call(self._inner.handle_async_request, request)
        response.stream = _SyncStream(self, response.stream)
        return response

    def close(self) -> None:
        """Close what was kept open, and end the thread; once is enough."""
        if self._thread.is_alive():
            self.call(self._inner.aclose)
            trio.from_thread.run_sync(self._end.set, trio_token=self._token)
            self._thread.join()

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """Return what *function* returns in the thread's loop."""
        return trio.from_thread.run(function, *given, trio_token=self._token)


class _SyncStream(httpx.SyncByteStream):
    def __init__(self, transport: SyncGatewayTransport, stream: Any) -> None:
        self._transport = transport
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._transport.call(self._stream.next_piece):
            yield piece

    def close(self) -> None:
        self._transport.call(self._stream.aclose)
