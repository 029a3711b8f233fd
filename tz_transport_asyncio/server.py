"""Listening, accepting, child processes and signals, on asyncio.

The one rule: a stream that is accepted becomes one machine of the gateway, and what
goes wrong with one stays with that one. Who may be accepted, how long a drain takes and
what a signal means is the core's.
"""

from __future__ import annotations

import asyncio
import errno
import math
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tz_protocol import drivers
from tz_protocol import operations as ops
from tz_protocol.gateway import Gateway
from tz_protocol.notices import Notice
from tz_transport_asyncio.backend import Backend, Stream
from tz_transport_asyncio.driver import Driver

__all__ = ["Server", "open_server"]

_BACKLOG = 1_024
"""Connections that wait to be accepted; the kernel allows fewer (somaxconn)."""

_PAUSE = 0.2
"""Seconds after an accept that failed: descriptors (EMFILE) come back in time."""

_LAST_SECONDS = 5.0
"""For what is still on its way when the server ends."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@asynccontextmanager
async def open_server(sink: Callable[[Notice], object]) -> AsyncIterator[Server]:
    """Yield a server; what it still serves afterwards is cancelled.

    Args:
        sink: As for ``Backend``.
    """
    async with asyncio.TaskGroup() as group:
        server = Server(sink, group)
        try:
            yield server
        finally:
            await server.finish()


class Server(Backend):
    """A backend that can also listen, start processes and hear of signals.

    Args:
        sink: As for ``Backend``.
        group: Where accepting and serving go on.
    """

    def __init__(
        self, sink: Callable[[Notice], object], group: asyncio.TaskGroup
    ) -> None:
        super().__init__(sink)
        self._group = group
        self._bound: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._serving: dict[asyncio.Task[None], Driver[None]] = {}
        self._signals: asyncio.Queue[str] | None = None

    async def listen(self, operation: ops.Listen) -> tuple[str, ...]:
        """Bind, and accept in the background."""
        tls = None
        if operation.cert_file is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(operation.cert_file, operation.key_file)
        bound = [_bind(address) for address in operation.addresses]
        self._bound += bound
        for sock in bound:
            accepting = self._accept(sock, operation.gateway, tls)
            self._accepting.append(self._group.create_task(accepting))
        return tuple(drivers.bound_address(sock.getsockname()) for sock in bound)

    async def stop_listening(self, operation: ops.StopListening | None = None) -> None:
        """Close every listener."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for sock in self._bound:
            sock.close()
        self._bound.clear()

    async def bind(self, operation: ops.Bind) -> tuple[str, ...]:
        """Bind without accepting."""
        self._bound += (_bind(address) for address in operation.addresses)
        return tuple(f"fd:{sock.fileno()}" for sock in self._bound)

    async def _accept(
        self, sock: socket.socket, gateway: Gateway, tls: ssl.SSLContext | None
    ) -> None:
        is_failing = False
        while True:
            if not gateway.admits():
                await self.wait(ops.Wait(math.inf, gateway.room))
                continue
            try:
                client, address = await self._loop.sock_accept(sock)
                stream = self.accepted(client, tls)
            except OSError as error:
                if not is_failing:
                    self.notice(drivers.accept_failure(error))
                is_failing = True
                await asyncio.sleep(_PAUSE)
                continue
            is_failing = False
            self._serve(gateway, stream, address)
            await asyncio.sleep(0)

    def _serve(self, gateway: Gateway, stream: Stream, address: object) -> None:
        driver = drivers.begin_connection(Driver[None], self, gateway, stream, address)

        def ended(task: asyncio.Task[None]) -> None:
            del self._serving[task]
            drivers.end_connection(driver, gateway, stream)

        task = self._group.create_task(_drive(driver, stream))
        self._serving[task] = driver
        task.add_done_callback(ended)

    async def finish(self) -> None:
        """Cancel every machine that is left; let what has been said be sent."""
        await self.stop_listening()
        for task, driver in self._serving.items():
            if not driver.machine.done:
                task.cancel()
        if self._serving:
            await asyncio.wait(self._serving, timeout=_LAST_SECONDS)
        for task in self._serving:
            task.cancel()
        await self.aclose()

    # -- processes and signals ----------------------------------------------------

    async def next_signal(self, operation: ops.NextSignal) -> str:
        """Wait for a signal; from the first call on, none ends the process."""
        if self._signals is None:
            self._signals = asyncio.Queue()
            for number in _SIGNALS:
                put = self._signals.put_nowait
                self._loop.add_signal_handler(number, put, number.name)
        return await self._signals.get()

    async def spawn(self, operation: ops.Spawn) -> asyncio.subprocess.Process:
        """Start this package again; it inherits what ``bind`` bound."""
        command = (sys.executable, "-m", __package__, *operation.arguments)
        inherited = [sock.fileno() for sock in self._bound]
        return await asyncio.create_subprocess_exec(*command, pass_fds=inherited)

    async def process_exit(self, operation: Any) -> int:
        """Wait for the end of a child."""
        return int(await operation.process.wait())

    async def send_signal(self, operation: Any) -> None:
        """Send a signal to a child, if there still is one."""
        with suppress(ProcessLookupError):
            operation.process.send_signal(signal.Signals[operation.name])


def _bind(address: str) -> socket.socket:
    kind, place, number = drivers.split_address(address)
    if kind == "fd":
        sock = socket.socket(fileno=number)
    elif kind == "unix":
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            is_refused = probe.connect_ex(place) == errno.ECONNREFUSED
        if is_refused and Path(place).is_socket():
            Path(place).unlink()  # left behind by a process that is gone
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(place)
        except OSError:
            sock.close()
            raise
    else:
        family = socket.AF_INET6 if kind == "ipv6" else socket.AF_INET
        sock = socket.create_server((place, number), family=family)
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


async def _drive(driver: Driver[None], stream: Stream) -> None:
    await driver.drive()
    await stream.finish()
