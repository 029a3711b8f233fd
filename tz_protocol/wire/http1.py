"""HTTP/1.1 for both faces: a server's codec and a client's codec, over h11.

The one rule: this is the only module that knows h11, and nobody outside sees it, so
that a faster codec can take its place behind the same two classes.

Who does what. h11 keeps the state of each connection: who may send what now, how a
response is framed for this request, and whether the connection can be used again. It
renders status lines, request lines and framing headers. ``guard`` reads heads and
``inbound`` reads bodies, because h11 is lenient where we are strict, and its bounds
depend on read sizes. So h11 is not shown the peer's bytes but a digest of each head
that passed: its method or status, version, whether there is a body, and ``connection``.
To h11, every body that comes is an empty chunked one, ended when ours ends. That leaves
h11 nothing to be lenient about, and costs some 40 % less than whole heads do. Header
lines that mean nothing to h11 are spliced into what it renders, after the same check
that incoming ones pass. The tests compare our reading of heads with h11's.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NoReturn

import h11

from tz_protocol.errors import LocalProtocolError, RemoteProtocolError
from tz_protocol.types.http import Headers, RequestHead, ResponseHead
from tz_protocol.types.settings import Limits
from tz_protocol.wire.guard import (
    FIELDS,
    UNTIL_CLOSE,
    GuardedHead,
    RequestGrammar,
    ResponseGrammar,
)
from tz_protocol.wire.inbound import BodyChunk, EndOfBody, Inbound
from tz_protocol.wire.scanner import HeadBounds

__all__ = ["BodyChunk", "ClientCodec", "EndOfBody", "ServerCodec"]

GENEROSITY = 4
"""A provider's head may be so many times as large as a client's: it is configured,
and some put their whole policy into headers."""

INFORMATIONAL_LIMIT = 8
"""Responses below 200 that are skipped before the final one."""

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_LAST_CHUNK = b"0\r\n\r\n"
_END_OF_MESSAGE = h11.EndOfMessage()

_FRAMING = frozenset({"transfer-encoding", "connection", "keep-alive", "upgrade"})
"""Headers that only the codec itself sends."""

_CONTINUE = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")


def _block(lines: list[str]) -> bytes:
    """Return *lines* as they are sent.

    Raises:
        LocalProtocolError: One is not exactly one legal header line.
    """
    try:
        block = "".join(lines).encode("latin-1")
    except UnicodeEncodeError:
        message = "a header holds a character that is not latin-1"
        raise LocalProtocolError(message) from None
    if FIELDS.fullmatch(block) is None or block.count(b"\n") != len(lines):
        message = "a header's name or value holds a character that is not allowed"
        raise LocalProtocolError(message)
    return block


def _splice(wire: bytes, block: bytes) -> bytes:
    """Return h11's head *wire* with the lines of *block* at its end."""
    return b"%b%b\r\n" % (wire[:-2], block)


def _send(connection: h11.Connection, event: Any) -> bytes:
    try:
        return connection.send(event) or b""
    except h11.LocalProtocolError as error:
        raise LocalProtocolError(str(error)) from None


class ServerCodec:
    """One client's connection, from the server's side.

    Feed it with :meth:`receive_data` and :meth:`receive_eof`, then call
    :meth:`next_event` until it returns None. Answer with :meth:`send_head`,
    :meth:`send_data` and :meth:`send_end`, which return the bytes to write. When
    :attr:`can_reuse` is true call :meth:`start_next_cycle`.

    Args:
        limits: Bounds of a request's head.
        peer: The client's address, for ``RequestHead.peer``.
    """

    __slots__ = (
        "_connection",
        "_expects_continue",
        "_has_body",
        "_inbound",
        "_is_chunked",
        "_is_sending",
        "_sends_body",
        "_wants_close",
        "_was_head",
    )

    def __init__(self, limits: Limits, peer: str = "") -> None:
        bounds = HeadBounds(limits.head_bytes, limits.line_bytes, limits.headers)
        self._inbound = Inbound(RequestGrammar(peer), bounds)
        self._connection = h11.Connection(h11.SERVER)
        self._wants_close = False
        self._reset()

    def _reset(self) -> None:
        self._expects_continue = False
        self._has_body = False
        self._was_head = False
        self._is_sending = False
        self._sends_body = False
        self._is_chunked = False

    # -- receiving ----------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take bytes that have come; call :meth:`next_event` afterwards.

        Args:
            data: Not empty.
        """
        self._inbound.receive_data(data)

    def receive_eof(self) -> None:
        """The client sends nothing more; call :meth:`next_event` afterwards."""
        self._inbound.receive_eof()

    def next_event(self) -> RequestHead | BodyChunk | EndOfBody | None:
        """Return what the client sent next.

        Returns:
            None if more bytes are needed, if the request is complete and
            :meth:`start_next_cycle` was not called, or if the client is at its end.

        Raises:
            RemoteProtocolError: The client broke the protocol, also on further calls.
                Only an error response may be sent. The code is ``incomplete`` if the
                stream ended within a request.
        """
        event = self._inbound.next_event()
        if event is None or isinstance(event, BodyChunk):
            return event
        if isinstance(event, GuardedHead):
            return self._begin(event)
        if self._has_body:
            self._connection.receive_data(_LAST_CHUNK)
        self._connection.next_event()
        return event

    def _begin(self, guarded: GuardedHead[RequestHead]) -> RequestHead:
        head = guarded.head
        self._has_body = guarded.body != 0
        self._expects_continue = guarded.wants_continue
        self._was_head = head.method == "HEAD"
        self._connection.receive_data(
            b"%b / HTTP/1.%b\r\nHost: a\r\n%b%b\r\n"
            % (
                b"HEAD" if self._was_head else b"POST",
                b"0" if guarded.is_http10 else b"1",
                b"Transfer-Encoding: chunked\r\n" if self._has_body else b"",
                b"Connection: close\r\n" if guarded.wants_close else b"",
            )
        )
        self._connection.next_event()
        return head

    @property
    def is_expecting_continue(self) -> bool:
        """True if the client waits for a 100 before it sends its body."""
        inbound = self._inbound
        return (
            self._expects_continue
            and not inbound.has_buffered
            and not inbound.has_body_bytes
        )

    @property
    def is_request_complete(self) -> bool:
        """True once the whole request was taken by :meth:`next_event`."""
        return self._inbound.is_complete

    @property
    def has_buffered(self) -> bool:
        """True if bytes have come that no event has taken."""
        return self._inbound.has_buffered

    @property
    def is_at_eof(self) -> bool:
        """True once the client sends nothing more."""
        return self._inbound.is_at_eof

    # -- sending ------------------------------------------------------------------

    def close_after_response(self) -> None:
        """Let the next response be the last; call before :meth:`send_head`."""
        self._wants_close = True

    def send_continue(self) -> bytes:
        """Return the 100 response that the client waits for.

        Raises:
            LocalProtocolError: A response has begun, or there is no request.
        """
        self._expects_continue = False
        return _send(self._connection, _CONTINUE)

    def send_head(self, head: ResponseHead) -> bytes:
        """Return the head of the response, framed for this request.

        The body is as long as ``content-length`` says. Without one it is chunked for a
        client that speaks HTTP/1.1 and ends with the connection for an older one. The
        answer to HEAD, a 204 and a 304 have none. Call :meth:`send_data` and
        :meth:`send_end` next.

        Raises:
            LocalProtocolError: A header cannot be sent, or a response has begun.
        """
        length: str | None = None
        lines = []
        for name, value in head.headers:
            if name == "content-length" and length is None:
                length = value
            elif name == "content-length" or name in _FRAMING:
                message = f"the header {name} is the codec's to send"
                raise LocalProtocolError(message)
            else:
                lines.append(f"{name}: {value}\r\n")
        block = _block(lines)
        digest = []
        if length is not None and head.status != 204:
            # RFC 9110, section 8.6: a 204 must not have one.
            digest.append(("content-length", length))
        if self._wants_close or self._inbound.has_failed:
            digest.append(("connection", "close"))
        reason = _REASONS.get(head.status, b"")
        wire = _respond(self._connection, head.status, digest, reason)
        self._expects_continue = False
        self._is_sending = True
        self._sends_body = not self._was_head and head.status not in (204, 304)
        is_http11 = self._connection.their_http_version == b"1.1"
        self._is_chunked = length is None and is_http11
        return _splice(wire, block)

    def send_data(self, data: bytes) -> bytes:
        """Return a piece of the body, framed; ``b""`` if the response has none.

        Raises:
            LocalProtocolError: It is more than content-length said, or there is no
                response that it may belong to.
        """
        if not self._is_sending:
            message = "body bytes are sent outside of a response"
            raise LocalProtocolError(message)
        if not data or not self._sends_body:
            return b""
        if self._is_chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        return _send(self._connection, h11.Data(data=data))

    def send_end(self) -> bytes:
        """Return what ends the body.

        Raises:
            LocalProtocolError: It is less than content-length said, or there is no
                response to end.
        """
        self._is_sending = False
        return _send(self._connection, _END_OF_MESSAGE)

    # -- the next request ---------------------------------------------------------

    @property
    def can_reuse(self) -> bool:
        """True if request and response are whole and neither side wants to close."""
        connection = self._connection
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    def start_next_cycle(self) -> None:
        """Expect the next request, which may have come already.

        Raises:
            LocalProtocolError: :attr:`can_reuse` is false.
        """
        if not self.can_reuse:
            message = "the connection cannot be used for another request"
            raise LocalProtocolError(message)
        self._connection.start_next_cycle()
        self._inbound.start_next()
        self._reset()


def _respond(
    connection: h11.Connection,
    status: int,
    headers: list[tuple[str, str]],
    reason: bytes,
) -> bytes:
    try:
        response = h11.Response(status_code=status, headers=headers, reason=reason)
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise LocalProtocolError(str(error)) from None
    return _send(connection, response)


class ClientCodec:
    """One connection to a provider, from the client's side.

    Write what :meth:`send_request` returns, feed it with :meth:`receive_data` and
    :meth:`receive_eof`, and call :meth:`next_event` until it returns None. After
    :class:`EndOfBody`, if :attr:`is_reusable`, call :meth:`start_next_cycle`.

    Args:
        limits: Bounds of a client's head; those of a response's are wider.
    """

    __slots__ = ("_connection", "_ending", "_inbound", "_informational", "_was_head")

    def __init__(self, limits: Limits) -> None:
        bounds = HeadBounds(
            limits.head_bytes * GENEROSITY,
            limits.line_bytes * GENEROSITY,
            limits.headers * GENEROSITY,
        )
        self._inbound = Inbound(ResponseGrammar(), bounds)
        self._connection = h11.Connection(h11.CLIENT)
        self._reset()

    def _reset(self) -> None:
        self._ending: bytes | None = None
        """What tells h11 that the body ended; None if there is none."""
        self._informational = 0
        self._was_head = False

    def send_request(
        self, method: str, target: str, headers: Headers, body: bytes
    ) -> bytes:
        """Return the whole request as one piece.

        Args:
            method: Any but CONNECT.
            target: Path and query, or what the method needs.
            headers: With ``host``, without framing.
            body: May be empty.

        Raises:
            LocalProtocolError: The request cannot be sent, or one is under way.
        """
        digest: list[tuple[str, str]] = []
        lines = []
        for name, value in headers:
            if name == "host":
                digest.append((name, value))
            elif name == "content-length" or name in _FRAMING:
                message = f"the header {name} is the codec's to send"
                raise LocalProtocolError(message)
            else:
                lines.append(f"{name}: {value}\r\n")
        if body or method not in ("GET", "HEAD"):
            digest.append(("content-length", str(len(body))))
        if method == "CONNECT":
            message = "the method CONNECT would end HTTP on the connection"
            raise LocalProtocolError(message)
        try:
            request = h11.Request(method=method, target=target, headers=digest)
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise LocalProtocolError(str(error)) from None
        block = _block(lines)
        connection = self._connection
        wire = _splice(_send(connection, request), block)
        if body:
            wire += _send(connection, h11.Data(data=body))
        _send(connection, _END_OF_MESSAGE)
        self._was_head = method == "HEAD"
        return wire

    def receive_data(self, data: bytes) -> None:
        """Take bytes that have come; call :meth:`next_event` afterwards.

        Args:
            data: Not empty.
        """
        if self._connection.our_state is h11.IDLE:
            # RFC 9112, section 9.2: a response before any request is not one to it.
            message = "the server sent bytes without a request"
            error = RemoteProtocolError(message, code="unsolicited")
            self._inbound.fail(error)
        self._inbound.receive_data(data)

    def receive_eof(self) -> None:
        """The server sends nothing more; call :meth:`next_event` afterwards."""
        self._inbound.receive_eof()

    def next_event(self) -> ResponseHead | BodyChunk | EndOfBody | None:
        """Return what the server sent next; informational responses are skipped.

        Returns:
            None if more bytes are needed, or after :class:`EndOfBody`.

        Raises:
            RemoteProtocolError: The server broke the protocol, also on further calls.
                The code is ``incomplete`` if the stream ended too early.
        """
        inbound = self._inbound
        while True:
            event = inbound.next_event()
            if isinstance(event, BodyChunk):
                return event
            if event is None:
                if inbound.is_at_eof and not inbound.is_complete:
                    self._fail("the connection ended before a response", "incomplete")
                return None
            if isinstance(event, EndOfBody):
                self._end()
                return event
            if self._begin(event):
                return event.head

    def _fail(self, message: str, code: str) -> NoReturn:
        error = RemoteProtocolError(message, code=code)
        self._inbound.fail(error)
        raise error

    def _begin(self, guarded: GuardedHead[ResponseHead]) -> bool:
        """Take a head; returns whether it is the final response's."""
        status = guarded.head.status
        if status < 200:
            if status == 101:
                self._fail("the server switched to a protocol not asked for", "upgrade")
            self._informational += 1
            if self._informational > INFORMATIONAL_LIMIT:
                message = f"over {INFORMATIONAL_LIMIT} informational responses"
                self._fail(message, "informational")
            self._inbound.start_next()
            return False
        body = guarded.body
        if self._was_head:
            body = 0
            self._inbound.expect_body(body)
        if body == UNTIL_CLOSE:
            framing, self._ending = b"", b""
        elif body:
            framing, self._ending = b"Transfer-Encoding: chunked\r\n", _LAST_CHUNK
        else:
            framing, self._ending = b"Content-Length: 0\r\n", None
        self._connection.receive_data(
            b"HTTP/1.%b 200 OK\r\n%b%b\r\n"
            % (
                b"0" if guarded.is_http10 else b"1",
                framing,
                b"Connection: close\r\n" if guarded.wants_close else b"",
            )
        )
        self._connection.next_event()
        return True

    def _end(self) -> None:
        if self._ending is not None:
            self._connection.receive_data(self._ending)
        self._connection.next_event()

    # -- the next request ---------------------------------------------------------

    @property
    def is_reusable(self) -> bool:
        """True if the response is whole, nothing followed it and nobody closes."""
        connection, inbound = self._connection, self._inbound
        return (
            connection.our_state is h11.DONE
            and connection.their_state is h11.DONE
            and not (inbound.has_buffered or inbound.is_at_eof or inbound.has_failed)
        )

    def start_next_cycle(self) -> None:
        """Make ready for another request.

        Raises:
            LocalProtocolError: :attr:`is_reusable` is false.
        """
        if not self.is_reusable:
            message = "the connection cannot be used for another request"
            raise LocalProtocolError(message)
        self._connection.start_next_cycle()
        self._inbound.start_next()
        self._reset()
