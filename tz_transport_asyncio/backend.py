"""Operation type -> coroutine, on asyncio: byte streams, time, files and httpx.

The one rule: a method performs one operation and judges nothing; what fails leaves as
an ``OSError`` or an ``OperationBroken``. None looks at a deadline, and each may be
cancelled at any ``await``: what was received stays received, and a connection that
nobody was given is closed. What an operation means is in ``tz_protocol.operations``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import monotonic
from typing import Any, TypeVar

import httpx

from tz_protocol import operations as ops
from tz_protocol.drivers import performers, traced
from tz_protocol.errors import OperationBroken, kind_of
from tz_protocol.notices import Notice
from tz_protocol.types.secret import Secret
from tz_stores import surroundings
from tz_transport_asyncio.stores import Stores

__all__ = ["Backend", "HttpStream", "Stream"]

T = TypeVar("T")

_RACE_DELAY = 0.25
"""Seconds between two addresses (RFC 8305, section 5)."""

_FLUSH_SECONDS = 30.0
"""For a peer that does not take the last bytes before its connection is closed."""

_NEVER = 86_400.0
"""Seconds: asyncio wants a timeout for TLS; the core's deadlines come long before."""

_OPTIONS: Any = {
    "timeout": None,
    "limits": httpx.Limits(max_connections=None),
    "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
}
"""For httpx: deadlines and bounds are the core's, and nobody's cookies are kept."""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""

_SCRATCH = memoryview(bytearray(ops.CHUNK_LIMIT))
"""Where every stream receives; copied out before the next one can."""


class Stream(asyncio.BufferedProtocol):
    """One byte stream: what ``Connect`` returns and what a listener accepts.

    It reads on its own into at most ``CHUNK_LIMIT`` bytes, so that the end of a client
    is seen whatever its machine is doing.

    Args:
        accepted: A client's socket and what secures it. The first read opens it, so
            that its handshake has the deadline of that read. ``Close`` then is a
            reset: no client takes an answer that was broken off for a whole one.
    """

    _is_full = _is_paused = _is_eof = _is_lost = False
    _error: BaseException | None = None
    _transport: Any = None
    _reader: asyncio.Future[None] | None = None
    _writer: asyncio.Future[None] | None = None
    on_gone: Callable[[], object] | None = None
    """Called when the end of the stream, or its loss, is seen."""

    def __init__(
        self, accepted: tuple[socket.socket, ssl.SSLContext | None] | None = None
    ) -> None:
        self._accepted = accepted
        self._is_client = accepted is not None
        self._loop = asyncio.get_running_loop()
        self._chunks: list[bytes] = []
        self._size = 0

    # -- for the driver -----------------------------------------------------------

    async def read(self) -> bytes:
        """Return what has come, ``b""`` at the end of the stream."""
        if self._accepted is not None:
            await self._open(*self._accepted)
        while not self._size:
            if self._is_eof or self._is_lost:
                if self._error is not None:
                    raise self._error
                return b""
            self._reader = self._loop.create_future()
            await self._reader
        chunks, self._chunks, self._size = self._chunks, [], 0
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _open(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._accepted = None
        limit = None if tls is None else _NEVER
        await self._loop.connect_accepted_socket(
            lambda: self, sock, ssl=tls, ssl_handshake_timeout=limit
        )

    async def write(self, data: bytes) -> None:
        """Send *data*; return when less than ``CHUNK_LIMIT`` is unsent."""
        self._require_open()
        self._transport.write(data)
        while self._is_full:
            self._writer = self._loop.create_future()
            await self._writer
        self._require_open()

    def _require_open(self) -> None:
        if self._is_lost or self._transport.is_closing():
            raise self._error or ConnectionResetError("the connection was lost")

    async def write_eof(self) -> None:
        """End our direction, where there is such a thing."""
        if self._transport.can_write_eof() and not self._is_lost:
            with suppress(OSError):
                self._transport.write_eof()

    async def is_quiet(self) -> bool:
        """Return True if the stream is open and nothing waits to be read."""
        return not (self._size or self._is_eof or self._is_lost)

    def close(self) -> None:
        """Close at once, whatever is unsent."""
        if self._accepted is not None:
            self._accepted[0].close()
        elif self._transport is not None and not self._is_lost:
            if self._is_client:
                raw = self._transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
        self.connection_lost(ConnectionAbortedError("the connection was closed"))

    async def finish(self) -> None:
        """Close once everything is sent; gives up on a peer that does not read."""
        if self._transport is not None:
            self._transport.close()
            timer = self._loop.call_later(_FLUSH_SECONDS, self._transport.abort)
            while not self._is_lost:
                self._reader = self._loop.create_future()
                await self._reader
            timer.cancel()

    # -- for the loop -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        self._transport = transport
        limit = ops.CHUNK_LIMIT - 1
        self._transport.set_write_buffer_limits(high=limit, low=limit)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to receive: never more than there is room for."""
        return _SCRATCH[: ops.CHUNK_LIMIT - self._size] if self._size else _SCRATCH

    def buffer_updated(self, nbytes: int) -> None:
        """Keep what was received."""
        self._chunks.append(bytes(_SCRATCH[:nbytes]))
        self._size += nbytes
        if self._size >= ops.CHUNK_LIMIT:
            self._is_paused = True
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        """Note the end; our own direction stays open where it can."""
        self._is_eof = True
        self._gone()
        return bool(self._transport.can_write_eof())

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note the loss."""
        if not self._is_lost:
            self._is_lost, self._error = True, exc
            self.resume_writing()
            self._gone()

    def _gone(self) -> None:
        _wake(self._reader)
        if self.on_gone is not None:
            self.on_gone()

    def pause_writing(self) -> None:
        """Hold the next write back."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Let the held write go on."""
        self._is_full = False
        _wake(self._writer)


class HttpStream:
    """The raw body of what httpx fetched; ``Read`` it, then ``Close`` it.

    httpx breaks off a body whose read is cancelled, so none is: one that was given up
    goes on, and the next read has what it brings.
    """

    _reading: asyncio.Task[bytes] | None = None

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces = response.aiter_raw()

    async def read(self) -> bytes:
        """Return the next piece, ``b""`` at the end of the body."""
        if self._reading is None:
            self._reading = asyncio.create_task(_told(anext(self._pieces, b"")))
        piece = await asyncio.shield(self._reading)
        self._reading = None
        return piece

    def close(self) -> None:
        """Close in the background."""
        self._closing = asyncio.create_task(self._close())

    async def _close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
        with suppress(Exception):  # nobody could be told
            await self._response.aclose()


class Backend(Stores):
    """Performs what every machine may ask for; see ``tz_protocol.drivers.Loop``.

    Make it inside the loop; :meth:`aclose` it at the end.

    Args:
        sink: Takes every notice but ``Close``; must not block.
    """

    def __init__(self, sink: Callable[[Notice], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = monotonic
        self.call_later = self._loop.call_later
        self.operations = performers(self)
        self.notice = sink
        self._contexts: dict[object, ssl.SSLContext] = {}
        self._clients: dict[object, Any] = {}

    def watch(self, stream: Stream, gone: Callable[[], object]) -> None:
        """Call *gone* once the end of *stream*, or its loss, is seen."""
        stream.on_gone = gone

    def accepted(self, sock: socket.socket, tls: ssl.SSLContext | None) -> Stream:
        """Return the stream of a client; with TLS, its first read is the handshake."""
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Stream((sock, tls))

    async def aclose(self) -> None:
        """Close the HTTP clients, and the stores' connections."""
        for held in (*self._clients.values(), self.kept, *self.pools):
            await held.aclose()

    # -- byte streams -------------------------------------------------------------

    async def connect(self, operation: ops.Connect) -> Stream:
        """Resolve, race the addresses, handshake."""
        stream, options = Stream(), dict[str, Any]()
        if (tls := operation.tls) is not None:
            options = {"ssl": self._context(tls), "server_hostname": tls.server_name}
            options["ssl_handshake_timeout"] = _NEVER
        if isinstance(self._loop, asyncio.BaseEventLoop):  # uvloop cannot race
            options["happy_eyeballs_delay"] = _RACE_DELAY
        try:
            await self._loop.create_connection(
                lambda: stream, operation.host, operation.port, **options
            )
        except BaseException as error:
            stream.close()
            if type(error) is OSError and error.errno is None:  # several, as one text
                raise ConnectionRefusedError(*error.args)
            raise
        return stream

    def _context(self, tls: ops.TlsOptions) -> ssl.SSLContext:
        key = (tls.verify, tls.ca_file)
        if key not in self._contexts:
            context = ssl.create_default_context(cafile=tls.ca_file)
            context.set_alpn_protocols(["http/1.1"])
            context.check_hostname = tls.verify
            context.verify_mode = ssl.CERT_REQUIRED if tls.verify else ssl.CERT_NONE
            self._contexts[key] = context
        return self._contexts[key]

    async def http_call(self, call: ops.HttpCall) -> tuple[int, Any, HttpStream]:
        """Send one request through an egress proxy."""
        verify = True if call.tls is None else self._context(call.tls)
        key = (call.proxy, verify)
        if key not in self._clients:
            self._clients[key] = httpx.AsyncClient(
                proxy=call.proxy, verify=verify, trust_env=False, **_OPTIONS
            )
        request = httpx.Request(
            call.method, call.url, headers=call.headers, content=call.body
        )

        async def trace(event: str, info: Any) -> None:
            traced(call, event, info, self.now())

        request.extensions["trace"] = trace
        response = await _told(self._clients[key].send(request, stream=True))
        headers = tuple((name.lower(), v) for name, v in response.headers.multi_items())
        return response.status_code, headers, HttpStream(response)

    # -- time and other machines --------------------------------------------------

    async def sleep(self, operation: ops.Sleep) -> None:
        """Wait for the driver's timer, which ends this."""
        await self._loop.create_future()

    async def wait(self, operation: ops.Wait) -> None:
        """Wait for the signal."""
        if not operation.signal.is_set:
            waiter = self._loop.create_future()
            wake = partial(_wake, waiter)
            operation.signal.on_set(wake)
            try:
                await waiter
            finally:
                operation.signal.forget(wake)

    # -- the surroundings ---------------------------------------------------------

    async def resolve_secret(self, operation: ops.ResolveSecret) -> Secret:
        """Look up a variable, or read a file."""
        return await asyncio.to_thread(surroundings.resolve_secret, operation)

    async def read_files(self, operation: ops.ReadFiles) -> tuple[tuple[str, str], ...]:
        """Read every file that matches."""
        return await asyncio.to_thread(surroundings.read_files, operation)

    async def write_file(self, operation: ops.WriteFile) -> None:
        """Replace a file."""
        await asyncio.to_thread(surroundings.write_file, operation)

    async def print(self, operation: ops.Print) -> None:
        """Write to standard output or standard error."""
        await asyncio.to_thread(surroundings.print_text, operation)


async def _told(call: Awaitable[T]) -> T:
    """Await what httpx does; its errors lose their text, which may name the proxy."""
    try:
        return await call
    except httpx.HTTPError as error:
        raise OperationBroken(kind_of(error), type(error).__name__)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
