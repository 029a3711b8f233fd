"""One call to one provider, from the connection to the last byte of the body.

The one rule: this module moves bytes and heads and judges nothing. It turns every
failure into an ``UpstreamError``; what follows is ``routing``'s business. A kept
connection that dies before the first byte of an answer is dialled again once, and
that is not a second attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tz_protocol.errors import (
    OperationBroken,
    OperationError,
    OperationTimeout,
    RemoteProtocolError,
    UpstreamBroken,
    UpstreamError,
    UpstreamGarbled,
    UpstreamTimeout,
)
from tz_protocol.machine import Context
from tz_protocol.notices import Close
from tz_protocol.operations import (
    Connect,
    Flow,
    Handle,
    HttpCall,
    IsQuiet,
    Read,
    TlsOptions,
    Wait,
    WriteRead,
)
from tz_protocol.providers.base import Reply
from tz_protocol.routing.pool import Pool, PooledConnection, origin_of
from tz_protocol.types.http import Headers, HttpRequest, ResponseHead
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Limits, ProviderSettings, Url
from tz_protocol.wire.http1 import BodyChunk, ClientCodec, EndOfBody
from tz_protocol.wire.inflate import Inflater

__all__ = ["Call", "UpstreamResponse", "open_reply", "open_upstream", "read_all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What to send, and by when what must have come."""

    request: HttpRequest
    """With its path relative to the provider's URL."""
    headers: Headers
    """Everything but Host and framing: the dialect's, credentials, tracing."""
    settings: ProviderSettings
    connect_deadline: float
    head_deadline: float
    """When the response's head must be there."""
    total_deadline: float
    on_connected: Callable[[float | None], object] = lambda moment: None
    """Told when there was a connection, which may be a kept one. None: that one was
    dead, and another is being made."""


class UpstreamResponse(Protocol):
    """An open answer: its head is there, its body is read piece by piece."""

    head: ResponseHead

    @property
    def is_reused(self) -> bool:
        """True if a kept connection was used."""

    def read(self, deadline: float, phase: str) -> Flow[bytes]:
        """Return the next decoded piece of the body, ``b""`` at its end.

        Args:
            deadline: Absolute.
            phase: What to call it if the deadline passes: ``first_content``,
                ``idle`` or ``total``.

        Raises:
            UpstreamError: The body cannot be had; call :meth:`close`.
        """

    def close(self) -> None:
        """Give the connection back; breaks it off if the body was not read whole."""


def read_all(
    response: UpstreamResponse, deadline: float, phase: str, limit: int
) -> Flow[bytes]:
    """Return the whole body of *response*, at most *limit* bytes.

    Raises:
        UpstreamError: As ``read``; ``UpstreamGarbled`` (``upstream_too_large``) past
            the limit.
    """
    pieces = []
    size = 0
    while piece := (yield from response.read(deadline, phase)):
        size += len(piece)
        if size > limit:
            message = f"the provider's answer is over {limit} bytes"
            raise UpstreamGarbled(message, "upstream_too_large")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def open_upstream(
    call: Call, pool: Pool, context: Context, limits: Limits
) -> Flow[UpstreamResponse]:
    """Send the call's request and return its answer once the head is there.

    Raises:
        UpstreamError: No answer could be had; nothing is left open.
    """
    url, proxy = call.settings.url, call.settings.proxy
    if url is None:
        raise UpstreamBroken("missing", "no URL")
    if proxy is not None:
        return (yield from _open_proxied(call, url, proxy, context, limits))
    connection = yield from _acquire(call, url, pool, context, limits)
    call.on_connected(context.now)
    try:
        response = _PooledResponse(connection, pool, context, limits)
        yield from _request(call, url, response)
    except BaseException:
        response.close()
        raise
    return response


def open_reply(reply: Reply) -> UpstreamResponse:
    """Return the answer of a provider that lives in the core."""
    return _ReplyResponse(reply)


# -- connections ----------------------------------------------------------------


def _acquire(
    call: Call, url: Url, pool: Pool, context: Context, limits: Limits
) -> Flow[PooledConnection]:
    """Return a connection whose place in the pool the caller then owns."""
    origin = origin_of(call.settings, url)
    if not pool.reserve(origin):
        place = pool.queue(origin)
        try:
            yield from Wait(call.connect_deadline, place)
        except OperationTimeout:
            pool.give_up(origin, place)
            raise UpstreamBroken("pool_exhausted") from None
        except BaseException:
            pool.give_up(origin, place)
            raise
    try:
        while (kept := pool.take(origin, context.now)) is not None:
            try:
                if (yield from IsQuiet(call.head_deadline, kept.handle)):
                    return kept
            except OperationTimeout:
                context.tell(Close(kept.handle))
                raise _too_slow(call) from None
            except OperationBroken:
                pass
            except BaseException:
                context.tell(Close(kept.handle))
                raise
            context.tell(Close(kept.handle))
        handle = yield from _connect(call, url)
    except BaseException:
        pool.leave(origin)
        raise
    return PooledConnection(origin, handle, ClientCodec(limits))


def _connect(call: Call, url: Url) -> Flow[Handle]:
    try:
        return (
            yield from Connect(
                call.connect_deadline, url.host, url.port, _tls(call.settings, url)
            )
        )
    except OperationError as error:
        phase = "connect" if call.connect_deadline < call.total_deadline else "total"
        raise _lost(error, UpstreamTimeout(phase)) from None


def _tls(settings: ProviderSettings, url: Url) -> TlsOptions | None:
    if url.scheme != "https":
        return None
    return TlsOptions(url.host, settings.verify, settings.ca_file)


def _target(call: Call, url: Url) -> str:
    target = url.path + call.request.path
    return f"{target}?{url.query}" if url.query else target


def _request(call: Call, url: Url, response: _PooledResponse) -> Flow[None]:
    """Write the request and read until the head; dial a dead kept connection anew."""
    headers = (("host", url.authority), *call.headers)
    method, target = call.request.method, _target(call, url)
    body = call.request.body
    while True:
        connection = response.connection
        wire = connection.codec.send_request(method, target, headers, body)
        try:
            data = yield from _first_bytes(call, connection.handle, wire)
        except UpstreamBroken:
            if not connection.is_reused:
                raise
            data = b""
        if data or not connection.is_reused:
            break
        response.context.tell(Close(connection.handle))
        connection.codec = ClientCodec(response.limits)
        connection.handle = None
        connection.is_reused = False
        call.on_connected(None)
        connection.handle = yield from _connect(call, url)
        call.on_connected(response.context.now)
    yield from response.receive_head(data, call)


def _first_bytes(call: Call, handle: Handle, wire: bytes) -> Flow[bytes]:
    try:
        return (yield from WriteRead(call.head_deadline, handle, wire))
    except OperationTimeout:
        raise _too_slow(call) from None
    except OperationBroken as error:
        if error.stage != "write":
            raise UpstreamBroken(error.kind, error.detail) from None
    # The provider may have answered and closed before it read the whole request.
    try:
        return (yield from Read(call.head_deadline, handle))
    except OperationError as error:
        raise _lost(error, _too_slow(call)) from None


def _too_slow(call: Call) -> UpstreamTimeout:
    is_total = call.head_deadline >= call.total_deadline
    return UpstreamTimeout("total" if is_total else "first_content")


class _PooledResponse:
    """An answer over a connection of the pool."""

    __slots__ = (
        "_ended",
        "_inflater",
        "_is_body_over",
        "_pool",
        "connection",
        "context",
        "head",
        "limits",
    )

    def __init__(
        self, connection: PooledConnection, pool: Pool, context: Context, limits: Limits
    ) -> None:
        self.connection = connection
        self.context = context
        self.limits = limits
        self.head = ResponseHead(0)
        self._pool = pool
        self._inflater: Inflater | None = None
        self._is_body_over = False
        """True once the codec has nothing more to give."""
        self._ended = False
        """True once the connection was given back."""

    @property
    def is_reused(self) -> bool:
        return self.connection.is_reused

    def receive_head(self, data: bytes, call: Call) -> Flow[None]:
        codec = self.connection.codec
        try:
            while True:
                if data:
                    codec.receive_data(data)
                else:
                    codec.receive_eof()
                event = codec.next_event()
                if isinstance(event, ResponseHead):
                    break
                data = yield from Read(call.head_deadline, self.connection.handle)
        except RemoteProtocolError as error:
            if not data:
                raise UpstreamBroken("reset", "closed before an answer") from None
            raise _failure_of(error) from None
        except OperationError as error:
            raise _lost(error, _too_slow(call)) from None
        self.head = event
        self._inflater = _inflater(event, self.limits)

    def read(self, deadline: float, phase: str) -> Flow[bytes]:
        codec = self.connection.codec
        try:
            while not self._ended:
                piece = self._take()
                if piece or self._is_body_over:
                    return piece
                data = yield from Read(deadline, self.connection.handle)
                if data:
                    codec.receive_data(data)
                else:
                    codec.receive_eof()
        except RemoteProtocolError as error:
            raise _failure_of(error) from None
        except OperationError as error:
            raise _lost(error, UpstreamTimeout(phase)) from None
        return b""

    def _take(self) -> bytes:
        """Return what has come and was not taken, decoded; end with its last piece."""
        inflater = self._inflater
        if inflater is not None and inflater.has_more:
            piece = inflater.receive_data(b"")
        else:
            next_event = self.connection.codec.next_event
            pieces: list[bytes] = []
            while type(event := next_event()) is BodyChunk:
                pieces.append(event.data)
            self._is_body_over = type(event) is EndOfBody
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if inflater is not None:
                piece = inflater.receive_data(piece)
        if self._is_body_over and (inflater is None or not inflater.has_more):
            if inflater is not None:
                inflater.receive_eof()
            self._end()
        return piece

    def _end(self) -> None:
        """The body is whole: keep the connection if the protocol lets us."""
        self._ended = True
        connection = self.connection
        if connection.codec.is_reusable:
            connection.codec.start_next_cycle()
            for handle in self._pool.keep(connection, self.context.now):
                self.context.tell(Close(handle))
        else:
            self._break_off()

    def _break_off(self) -> None:
        if self.connection.handle is not None:
            self.context.tell(Close(self.connection.handle))
        self._pool.leave(self.connection.origin)

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._break_off()


# -- through an egress proxy ----------------------------------------------------


def _open_proxied(
    call: Call, url: Url, proxy: Secret, context: Context, limits: Limits
) -> Flow[UpstreamResponse]:
    try:
        status, headers, handle = yield from HttpCall(
            call.head_deadline,
            call.request.method,
            f"{url.scheme}://{url.authority}{_target(call, url)}",
            call.headers,
            call.request.body,
            proxy.reveal(),
            _tls(call.settings, url),
            call.on_connected,
        )
    except OperationError as error:
        raise _lost(error, _too_slow(call)) from None
    try:
        return _ProxiedResponse(ResponseHead(status, headers), handle, context, limits)
    except BaseException:
        context.tell(Close(handle))
        raise


class _ProxiedResponse:
    """An answer whose framing httpx has taken off."""

    __slots__ = ("_context", "_handle", "_inflater", "head", "is_reused")

    def __init__(
        self, head: ResponseHead, handle: Handle, context: Context, limits: Limits
    ) -> None:
        self.head = head
        self.is_reused = False
        self._inflater = _inflater(head, limits)
        self._handle: Handle | None = handle
        self._context = context

    def read(self, deadline: float, phase: str) -> Flow[bytes]:
        inflater = self._inflater
        while self._handle is not None:
            is_end = False
            try:
                if inflater is not None and inflater.has_more:
                    # May be nothing: zlib cannot tell before it is asked.
                    data = inflater.receive_data(b"")
                else:
                    data = yield from Read(deadline, self._handle)
                    is_end = not data
                    if inflater is not None and is_end:
                        inflater.receive_eof()
                    elif inflater is not None:
                        data = inflater.receive_data(data)
            except RemoteProtocolError as error:
                raise _failure_of(error) from None
            except OperationError as error:
                raise _lost(error, UpstreamTimeout(phase)) from None
            if is_end:
                self.close()
            if data or is_end:
                return data
        return b""

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._context.tell(Close(handle))


class _ReplyResponse:
    """An answer of a provider that lives in the core."""

    __slots__ = ("_reply", "head", "is_reused")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.head = reply.head
        self.is_reused = False

    def read(self, deadline: float, phase: str) -> Flow[bytes]:
        try:
            return (yield from self._reply.body(deadline))
        except OperationTimeout:
            raise UpstreamTimeout(phase) from None

    def close(self) -> None:
        """Nothing is held."""


def _inflater(head: ResponseHead, limits: Limits) -> Inflater | None:
    """Return what undoes the answer's content encoding; None for identity.

    Raises:
        UpstreamGarbled: The encoding is not one that we asked for or can undo.
    """
    encoding = (head.get("content-encoding") or "identity").strip().lower()
    if encoding in ("", "identity"):
        return None
    try:
        return Inflater(encoding, limits.response_bytes)
    except RemoteProtocolError as error:
        raise UpstreamGarbled(error.message) from None


def _lost(error: OperationError, late: UpstreamTimeout) -> UpstreamError:
    """Return what a failed operation stands for: *late*, or a lost connection."""
    if isinstance(error, OperationBroken):
        return UpstreamBroken(error.kind, error.detail)
    return late


def _failure_of(error: RemoteProtocolError) -> UpstreamError:
    """Return what illegal bytes of a provider stand for: a cut, or nonsense."""
    if error.code == "incomplete":
        return UpstreamBroken("cut", error.message)
    if error.code == "upstream_too_large":
        return UpstreamGarbled(error.message, error.code)
    return UpstreamGarbled(error.message)
