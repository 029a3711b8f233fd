"""Operation type -> coroutine, on trio: byte streams, time, files and httpx.

The one rule: a method performs one operation and judges nothing; what fails leaves as
an ``OSError`` or an ``OperationBroken``. None looks at a deadline, and each may be
cancelled at any ``await``: what was received stays received, and a connection that
nobody was given is closed. What an operation means is in ``tz_protocol.operations``.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpx
import trio

from tz_protocol import operations as ops
from tz_protocol.drivers import Timer, Timers, performers, traced
from tz_protocol.errors import OperationBroken, kind_of
from tz_protocol.notices import Notice
from tz_protocol.types.secret import Secret
from tz_stores import surroundings
from tz_transport_trio.stores import Stores

__all__ = ["Backend", "HttpStream", "Stream"]

T = TypeVar("T")

_RACE_DELAY = 0.25
"""Seconds between two addresses (RFC 8305, section 5)."""

_FLUSH_SECONDS = 30.0
"""For a peer that does not take the last bytes before its connection is closed."""

_POLL_SECONDS = 0.1
"""How often leaving clients are looked for where there is no epoll."""

_OPTIONS: Any = {
    "timeout": None,
    "limits": httpx.Limits(max_connections=None),
    "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
}
"""For httpx: deadlines and bounds are the core's, and nobody's cookies are kept."""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""


class _Watcher:
    """One system task that sees deadlines pass and clients leave, for all machines.

    Moving a scope's deadline for each operation, or parking a second task on each
    client, costs ten times as much.
    """

    def __init__(self) -> None:
        self._timers = Timers()
        self._scope = trio.CancelScope()
        self._gone: dict[int, Callable[[], object]] = {}
        self._poller: Any = getattr(select, "epoll", select.poll)()
        self._mask = getattr(select, "EPOLLRDHUP", 0)  # a hang-up is always told
        trio.lowlevel.spawn_system_task(self._watch)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call *callback* after some seconds."""
        when = trio.current_time() + seconds
        if when < self._scope.deadline:
            self._scope.deadline = when
        return self._timers.add(when, callback)

    def add(self, fd: int, gone: Callable[[], object]) -> None:
        """Call *gone*, once, when the peer of *fd* ends or resets its stream."""
        self._gone[fd] = gone
        self._poller.register(fd, self._mask)

    def forget(self, fd: int) -> Callable[[], object]:
        """Watch *fd* no longer, before it is closed; return what was to be called."""
        if fd in self._gone:
            self._poller.unregister(fd)
        return self._gone.pop(fd, bool)  # which does nothing

    async def _watch(self) -> None:
        fileno = getattr(self._poller, "fileno", None)
        while True:
            deadline = self._timers.run(trio.current_time())
            with trio.CancelScope(deadline=deadline) as self._scope:
                if fileno is None:  # no epoll: look now and then
                    await trio.sleep(_POLL_SECONDS)
                else:
                    await trio.lowlevel.wait_readable(fileno())
            for fd, _ in self._poller.poll(0):
                self.forget(fd)()


_WATCHER: trio.lowlevel.RunVar[_Watcher | None] = trio.lowlevel.RunVar("watcher", None)


class Stream:
    """One byte stream: what ``Connect`` returns and what a listener accepts.

    Args:
        sock: Connected and not blocking.
        watcher: Told when the stream is closed.
    """

    is_client = False
    """True makes ``Close`` a reset: no client takes an answer that was broken off for
    a whole one."""
    _has_written = False
    _unread = b""

    def __init__(self, sock: socket.socket, watcher: _Watcher) -> None:
        self.socket = sock
        self._watcher = watcher

    async def read(self) -> bytes:
        """Return what has come, ``b""`` at the end of the stream."""
        data, self._unread = self._unread, b""
        return data or await self._receive()

    async def _receive(self) -> bytes:
        # After a write no answer can be there yet: it is not even looked for.
        if self._has_written:
            await self._park(trio.lowlevel.wait_readable)
        while True:
            try:
                return self.socket.recv(ops.CHUNK_LIMIT)
            except BlockingIOError:
                await self._park(trio.lowlevel.wait_readable)

    async def _park(self, wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        self._has_written = False
        await _unwrapped(wait(self.socket))

    def unread(self, data: bytes) -> None:
        """Take back what an abandoned read has received."""
        self._unread = data + self._unread

    async def write(self, data: bytes) -> None:
        """Send *data*; return when none of it is unsent."""
        rest = memoryview(data)
        while True:
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                pass
            if not rest:
                self._has_written = True
                return
            await self._park(trio.lowlevel.wait_writable)

    async def write_eof(self) -> None:
        """End our direction, where there is such a thing."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    async def is_quiet(self) -> bool:
        """Return True if the stream is open and nothing waits to be read."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return not (self._unread or poll.poll(0))

    def close(self) -> None:
        """Close at once, whatever is unsent."""
        fd = self.socket.fileno()
        if fd >= 0:
            if self.is_client:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._watcher.forget(fd)
            trio.lowlevel.notify_closing(fd)
            self.socket.close()

    async def finish(self) -> None:
        """Close once everything is sent, which it is."""
        self.is_client = False
        self.close()


class _TlsStream(Stream):
    """A stream secured by TLS; the first read or write makes the handshake."""

    def secure(self, context: ssl.SSLContext, **options: Any) -> _TlsStream:
        """Call once, before anything else; return the stream itself."""
        raw = trio.SocketStream(trio.socket.from_stdlib_socket(self.socket))
        self._tls = trio.SSLStream(raw, context, https_compatible=True, **options)
        return self

    async def handshake(self) -> None:
        await _unwrapped(self._tls.do_handshake())

    async def _receive(self) -> bytes:
        return bytes(await _unwrapped(self._tls.receive_some(ops.CHUNK_LIMIT)))

    async def write(self, data: bytes) -> None:
        await _unwrapped(self._tls.send_all(data))

    async def write_eof(self) -> None:
        """Do nothing: TLS has no such thing."""

    async def finish(self) -> None:
        with trio.move_on_after(_FLUSH_SECONDS):
            await _unwrapped(self._tls.aclose())
        await super().finish()


class HttpStream:
    """The raw body of what httpx fetched; ``Read`` it, then ``Close`` it.

    httpx breaks off a body whose read is cancelled, so none is: a task of its own
    reads, one piece ahead, and whoever wants one waits for that.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._scope = trio.CancelScope()
        self._sender, self._pieces = trio.open_memory_channel[bytes](0)
        self._error: Exception | None = None
        trio.lowlevel.spawn_system_task(self._pump)

    async def read(self) -> bytes:
        """Return the next piece, ``b""`` at the end of the body."""
        async for piece in self._pieces:
            return piece
        if self._error is not None:
            raise self._error
        return b""

    def close(self) -> None:
        """Close in the background."""
        self._scope.cancel()

    async def _pump(self) -> None:
        with self._scope, self._sender:
            try:
                pieces = self._response.aiter_raw()
                while piece := await _told(anext(pieces, b"")):
                    await self._sender.send(piece)
            except Exception as error:  # it would end the whole run
                self._error = error
        with suppress(Exception):  # nobody could be told
            await self._response.aclose()


class Backend(Stores):
    """Performs what every machine may ask for; see ``tz_protocol.drivers.Loop``.

    Make it inside the loop; :meth:`aclose` it at the end.

    Args:
        sink: Takes every notice but ``Close``; must not block.
    """

    def __init__(self, sink: Callable[[Notice], object]) -> None:
        self._watcher = _WATCHER.get() or _Watcher()
        _WATCHER.set(self._watcher)
        self.now = trio.lowlevel.current_clock().current_time
        self.call_later = self._watcher.call_later
        self.operations = performers(self)
        self.notice = sink
        self._contexts: dict[object, ssl.SSLContext] = {}
        self._clients: dict[object, Any] = {}

    def watch(self, stream: Stream, gone: Callable[[], object]) -> None:
        """Call *gone* once the end of *stream*, or its loss, is seen."""
        self._watcher.add(stream.socket.fileno(), gone)

    def accepted(self, sock: socket.socket, tls: ssl.SSLContext | None) -> Stream:
        """Return the stream of a client; with TLS, its first read is the handshake."""
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = Stream(sock, self._watcher)
        if tls is not None:
            stream = _TlsStream(sock, self._watcher).secure(tls, server_side=True)
        stream.is_client = True
        return stream

    async def aclose(self) -> None:
        """Close the HTTP clients, and the stores' connections."""
        for held in (*self._clients.values(), self.kept, *self.pools):
            await held.aclose()

    # -- byte streams -------------------------------------------------------------

    async def connect(self, operation: ops.Connect) -> Stream:
        """Resolve, race the addresses, handshake."""
        found = await trio.open_tcp_stream(
            operation.host, operation.port, happy_eyeballs_delay=_RACE_DELAY
        )
        sock = socket.socket(fileno=found.socket.detach())
        sock.setblocking(False)
        if operation.tls is None:
            return Stream(sock, self._watcher)
        try:
            name, context = operation.tls.server_name, self._context(operation.tls)
            stream = _TlsStream(sock, self._watcher)
            await stream.secure(context, server_hostname=name).handshake()
        except BaseException:
            sock.close()
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
        await trio.sleep_forever()

    async def wait(self, operation: ops.Wait) -> None:
        """Wait for the signal."""
        if not operation.signal.is_set:
            event = trio.Event()
            operation.signal.on_set(event.set)
            try:
                await event.wait()
            finally:
                operation.signal.forget(event.set)

    # -- the surroundings ---------------------------------------------------------

    async def resolve_secret(self, operation: ops.ResolveSecret) -> Secret:
        """Look up a variable, or read a file."""
        return await _in_thread(surroundings.resolve_secret, operation)

    async def read_files(self, operation: ops.ReadFiles) -> tuple[tuple[str, str], ...]:
        """Read every file that matches."""
        return await _in_thread(surroundings.read_files, operation)

    async def write_file(self, operation: ops.WriteFile) -> None:
        """Replace a file."""
        await _in_thread(surroundings.write_file, operation)

    async def print(self, operation: ops.Print) -> None:
        """Write to standard output or standard error."""
        await _in_thread(surroundings.print_text, operation)


async def _in_thread(call: Callable[[Any], T], operation: ops.Operation[Any]) -> T:
    return await trio.to_thread.run_sync(call, operation, abandon_on_cancel=True)


async def _told(call: Awaitable[T]) -> T:
    """Await what httpx does; its errors lose their text, which may name the proxy."""
    try:
        return await call
    except httpx.HTTPError as error:
        raise OperationBroken(kind_of(error), type(error).__name__)


async def _unwrapped(call: Awaitable[T]) -> T:
    """Await what trio does; its errors become the ``OSError`` behind them."""
    try:
        return await call
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        cause = error.__cause__
        raise cause if isinstance(cause, OSError) else ConnectionResetError("lost")
