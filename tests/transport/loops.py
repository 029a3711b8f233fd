"""Both transports under one roof: their modules, their loops, and servers in threads.

The one rule: nothing here is a test, and nothing here knows what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import queue
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import trio

from tz_protocol.machine import Context, Event, Machine
from tz_protocol.notices import Notice
from tz_protocol.operations import Flow, Listen, Race, Signal, StopListening, Wait
from tz_protocol.testing.flowcases import Peers

NAMES = ("asyncio", "trio")
BOUND = 20.0
"""Seconds after which a wait is taken for one that never ends."""
FAR = 1e12
"""A deadline that never comes."""


class Transport:
    """One of our packages, and how its loop is run.

    Args:
        name: One of ``NAMES``, or ``uvloop``: asyncio's package on that loop.
    """

    def __init__(self, name: str) -> None:
        self._make_loop: Any = None
        if name == "uvloop":
            uvloop = pytest.importorskip("uvloop", reason="the extra is not installed")
            self._make_loop, name = uvloop.new_event_loop, "asyncio"
        self.name = name
        self.backend = importlib.import_module(f"tz_transport_{name}.backend")
        self.driver = importlib.import_module(f"tz_transport_{name}.driver")
        self.server = importlib.import_module(f"tz_transport_{name}.server")
        self.embed = importlib.import_module(f"tz_transport_{name}.embed")

    def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine function in a loop of its own, within the bound."""

        async def on_asyncio() -> Any:
            async with asyncio.timeout(BOUND):
                return await function()

        async def on_trio() -> Any:
            with trio.fail_after(BOUND):
                return await function()

        return self.run_unbound(on_asyncio if self.name == "asyncio" else on_trio)

    def run_unbound(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine function in a loop of its own."""
        if self.name == "trio":
            return trio.run(function)
        with asyncio.Runner(loop_factory=self._make_loop) as runner:
            return runner.run(function())

    def run_flow(
        self,
        make: Callable[[], Flow[Any]],
        context: Context,
        *,
        notices: list[Notice] | None = None,
    ) -> Any:
        """Drive one flow from start to end; return its result."""

        async def main() -> Any:
            sink = (lambda _: None) if notices is None else notices.append
            async with self.server.open_server(sink) as server:
                context.now = server.now()
                driver = self.driver.Driver(Machine(make(), context), server)
                driver.start()
                await driver.drive()
            if driver.error is not None:
                raise driver.error
            return driver.machine.result

        return self.run(main)

    def in_loop(self) -> Callable[[Callable[[], object]], object]:
        """Return what runs a function in the running loop, from any thread."""
        if self.name == "asyncio":
            return asyncio.get_running_loop().call_soon_threadsafe
        return trio.lowlevel.current_trio_token().run_sync_soon

    async def sleep(self, seconds: float) -> None:
        """Let the loop go on."""
        await (
            asyncio.sleep(seconds) if self.name == "asyncio" else trio.sleep(seconds)
        )


class Served:
    """A listener in a thread of its own, and how to reach into its loop."""

    def __init__(
        self,
        transport: Transport,
        gateway: Any,
        services: tuple[Callable[[], Flow[None]], ...] = (),
    ) -> None:
        self.transport = transport
        self.gateway = gateway
        self.services = services
        self.notices: list[Notice] = []
        self.addresses: tuple[str, ...] = ()
        self.server: Any = None
        self._in_loop: Callable[[Callable[[], object]], object] | None = None
        self._stop = Signal()

    @property
    def address(self) -> tuple[str, int]:
        """Of the first listener, for TCP."""
        host, _, port = self.addresses[0].rpartition(":")
        return host.strip("[]"), int(port)

    def call(self, function: Callable[[], Any]) -> Any:
        """Return what *function* returns in the loop."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        assert self._in_loop is not None
        self._in_loop(lambda: answer.put(function()))
        return answer.get(timeout=BOUND)

    def tell(self, event: Event) -> None:
        """Tell every connection."""
        self.call(lambda: [tell(event) for tell in tuple(self.gateway.live)])

    def stop(self) -> None:
        """End the listener, and what it serves."""
        self.call(self._stop.set)

    def flow(self, listen: Listen, ready: Callable[[], object]) -> Flow[None]:
        self.addresses = yield from listen
        ready()
        services = [make() for make in self.services]
        yield from Race(FAR, (self._until_stopped(), *services))
        yield from StopListening(FAR)

    def _until_stopped(self) -> Flow[None]:
        yield from Wait(FAR, self._stop)

    async def main(self, listen: Listen, ready: Callable[[], object]) -> None:
        self._in_loop = self.transport.in_loop()
        context = self.gateway.context
        async with self.transport.server.open_server(self.notices.append) as server:
            self.server = server
            context.now = server.now()
            machine = Machine(self.flow(listen, ready), context)
            driver = self.transport.driver.Driver(machine, server)
            driver.start()
            await driver.drive()
        if driver.error is not None:
            raise driver.error


@contextlib.contextmanager
def served(
    transport: Transport,
    gateway: Any,
    addresses: tuple[str, ...] = ("127.0.0.1:0",),
    *,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    services: tuple[Callable[[], Flow[None]], ...] = (),
) -> Iterator[Served]:
    """Serve *gateway*, or what has its connections, for as long as the block lasts.

    Args:
        transport: With which.
        gateway: What is served.
        addresses: As for ``Listen``, and so are the next two.
        cert_file: For TLS.
        key_file: Its key.
        services: What makes the flows that run beside it.
    """
    running = Served(transport, gateway, services)
    listen = Listen(
        FAR,
        gateway,
        addresses,
        None if cert_file is None else str(cert_file),
        None if key_file is None else str(key_file),
    )
    is_ready = threading.Event()
    problems: list[BaseException] = []

    async def main() -> None:
        await running.main(listen, is_ready.set)

    def run() -> None:
        try:
            transport.run_unbound(main)
        except BaseException as error:
            problems.append(error)
        finally:
            is_ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert is_ready.wait(BOUND)
        if problems:
            raise problems[0]
        yield running
    finally:
        if thread.is_alive():
            running.stop()
        thread.join(BOUND)
        assert not thread.is_alive(), "the server does not end"
    if problems:
        raise problems[0]


class FakePeers:
    """The four peers of the flow cases, over blocking sockets; counts ended streams."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listeners: list[socket.socket] = []
        self._condition = threading.Condition()
        self.opened = 0
        self.ended = 0

    def __enter__(self) -> Self:
        """Listen."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            refusing = free.getsockname()
        self.addresses = Peers(
            self._serve(_echo), self._serve(_swallow), self._serve(_close), refusing
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        assert self.all_ended()

    def all_ended(self) -> bool:
        """Wait until every stream has ended; False if one never does."""
        with self._condition:
            return self._condition.wait_for(lambda: self.ended == self.opened, BOUND)

    def _serve(self, play: Callable[[socket.socket], None]) -> tuple[str, int]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listeners.append(listener)
        thread = threading.Thread(
            target=self._accept, args=(listener, play), daemon=True
        )
        thread.start()
        address: tuple[str, int] = listener.getsockname()
        return address

    def _accept(
        self, listener: socket.socket, play: Callable[[socket.socket], None]
    ) -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            with self._condition:
                self.opened += 1
            threading.Thread(
                target=self._play, args=(stream, play), daemon=True
            ).start()

    def _play(
        self, stream: socket.socket, play: Callable[[socket.socket], None]
    ) -> None:
        try:
            with stream:
                if self._tls is not None:
                    stream = self._tls.wrap_socket(stream, server_side=True)
                with stream:
                    play(stream)
        except OSError:
            pass
        finally:
            with self._condition:
                self.ended += 1
                self._condition.notify_all()


def _echo(stream: socket.socket) -> None:
    while data := stream.recv(65_536):
        stream.sendall(data)


def _swallow(stream: socket.socket) -> None:
    while stream.recv(65_536):
        pass


def _close(stream: socket.socket) -> None:
    del stream
