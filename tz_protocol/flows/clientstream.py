"""One client's stream as a handler sees it: its four operations, made into bytes.

The one rule: everything here happens because a handler asked for it. The sequence of
requests, and what events of the driver mean, are ``connection``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from tz_protocol.errors import (
    ClientBroken,
    ClientTimeout,
    InvalidRequest,
    OperationBroken,
    OperationTimeout,
    RemoteProtocolError,
    TooLarge,
)
from tz_protocol.machine import Context
from tz_protocol.notices import Close
from tz_protocol.operations import (
    AbortBody,
    Flow,
    Handle,
    Operation,
    OperationType,
    Read,
    ReceiveBody,
    SendBody,
    Write,
    WriteEof,
)
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.settings import Limits, ServerTimeouts
from tz_protocol.wire.http1 import BodyChunk, EndOfBody, ServerCodec

__all__ = ["PERFORM", "ClientStream", "ConnectionSettings", "refusal_of"]

WRITE_LIMIT = 262_144
"""Bytes of one write. Each has ``ServerTimeouts.write`` to itself, so that a large
answer to a slow but steady reader is not taken for a stall."""

LINGER_SECONDS = 2.0
"""How long what a refused client still sends is read and dropped before the close.
nginx waits for 5 s; a client that reads its refusal needs a round trip."""


class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds a connection; it keeps those it began with."""

    limits: Limits = Limits()
    timeouts: ServerTimeouts = ServerTimeouts()
    half_close: Literal["abort", "answer"] = "abort"
    """What the client's end of stream means while a handler runs."""


class ClientStream:
    """The bytes of one client, and where the current request and answer stand.

    Args:
        client: The client's stream.
        context: Shared by every machine of the process.
        settings: Limits and deadlines.
        wall_clock: Unix seconds, for the Date header.
        peer: The client's address.
    """

    __slots__ = (
        "_ahead",
        "_client",
        "_context",
        "_date",
        "_date_second",
        "_head",
        "_is_body_done",
        "_is_close_delimited",
        "_limits",
        "_out",
        "_received",
        "_requests",
        "_timeouts",
        "_wall_clock",
        "codec",
        "has_answered",
        "is_aborted",
        "is_draining",
        "is_ended",
        "is_lost",
        "is_reading",
        "is_writing",
    )

    def __init__(
        self,
        client: Handle,
        *,
        context: Context,
        settings: ConnectionSettings,
        wall_clock: Callable[[], float],
        peer: str,
    ) -> None:
        self._client = client
        self._context = context
        self._limits = settings.limits
        self._timeouts = settings.timeouts
        self._wall_clock = wall_clock
        self._date = ""
        self._date_second = -1
        self._requests = 0
        self.codec = ServerCodec(settings.limits, peer)
        self.is_draining = False
        """True: the next answer is the last."""
        self.is_reading = False
        """True while a read of the client is outstanding for a handler."""
        self.is_writing = False
        """True while a write to the client is outstanding for a handler."""
        self.is_lost = False
        """Nothing can be sent any more."""
        self._reset(None)

    def _reset(self, head: RequestHead | None) -> None:
        self._head = head
        self._out = b""
        """The head of the answer, until the first bytes of its body come."""
        self._received = 0
        self._ahead: list[bytes] = []
        """Pieces of the body that were looked at before the handler asked."""
        self._is_body_done = False
        self._is_close_delimited = False
        self.has_answered = False
        """True once a head was sent, or is on its way."""
        self.is_ended = False
        """True once the answer's last byte was sent."""
        self.is_aborted = False
        """True if the answer was broken off."""

    def begin(self, head: RequestHead) -> None:
        """Begin with the request that has this head."""
        self._requests += 1
        self._reset(head)

    # -- the handler's operations -------------------------------------------------

    def receive_body(self, operation: ReceiveBody) -> Flow[bytes]:
        """Return what has come of the body, ``b""`` once it is complete.

        Raises:
            ClientTimeout: Nothing came in time.
            ClientBroken: The client was lost within its body.
            TooLarge: The body is over the limit, by its length or as it came.
            InvalidRequest: The body's framing is malformed.
        """
        codec, now = self.codec, self._context.now
        if self._is_body_done and not self._ahead:
            return b""
        if operation.deadline <= now:
            message = "The request's body did not come in time."
            raise ClientTimeout(message)
        if not self._received:
            self._check_length()
        if codec.is_expecting_continue:
            yield from self._write(operation.deadline, codec.send_continue())
        while True:
            piece = self._next_piece()
            if piece or self._is_body_done:
                return piece
            data = yield from self._read(operation.deadline)
            if data:
                codec.receive_data(data)
            else:
                codec.receive_eof()

    def _next_piece(self) -> bytes:
        """Return all that has come and was not taken; may be empty."""
        try:
            pieces = self._ahead + self._take_pieces()
        except RemoteProtocolError as error:
            if error.code == "incomplete":
                self.is_lost = True
                message = "the client left before its body's end"
                raise ClientBroken(message)
            raise refusal_of(error)
        self._ahead = []
        if self._received > self._limits.body_bytes:
            raise self._too_large()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_pieces(self) -> list[bytes]:
        """Return the pieces of the body that the codec has."""
        pieces: list[bytes] = []
        if self._is_body_done:
            return pieces
        while type(event := self.codec.next_event()) is BodyChunk:
            pieces.append(event.data)
            self._received += len(event.data)
        self._is_body_done = type(event) is EndOfBody
        return pieces

    def _check_length(self) -> None:
        """Refuse by Content-Length, before any of the body is taken or asked for."""
        length = None if self._head is None else self._head.get("content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        limit = self._limits.body_bytes
        return TooLarge(f"The request's body is over the limit of {limit} bytes.")

    def send_head(self, head: ResponseHead) -> None:
        """Keep the head of the answer: it waits for the first bytes of the body."""
        if self.has_answered:
            message = "a handler sent a second head"
            raise RuntimeError(message)
        self.has_answered = True
        if (
            self.is_draining
            or self._requests >= self._limits.requests_per_connection
            or not self.is_request_over()
        ):
            self.codec.close_after_response()
        is_old = self._head is not None and self._head.version == "1.0"
        self._is_close_delimited = is_old and head.get("content-length") is None
        self._out = self.codec.send_head(self._dated(head))

    def _dated(self, head: ResponseHead) -> ResponseHead:
        """Return *head* with a Date (RFC 9110, section 6.6.1)."""
        second = int(self._wall_clock())
        if second != self._date_second:
            self._date_second = second
            self._date = http_date(second)
        return ResponseHead(head.status, (("date", self._date), *head.headers))

    def is_request_over(self) -> bool:
        """Return whether the next request would begin where we stand.

        What has come of the body is kept for a handler that still asks for it; a
        client that has more to send is refused the connection's reuse.
        """
        codec = self.codec
        if codec.is_request_complete or self._is_body_done:
            return True
        if not codec.is_expecting_continue:
            try:
                self._ahead += self._take_pieces()
            except RemoteProtocolError:
                return False
        return self._is_body_done

    def send_body(self, operation: SendBody) -> Flow[None]:
        """Send a piece of the body, with the head before it if that still waits.

        Raises:
            ClientTimeout: The client does not read.
            ClientBroken: The connection was lost.
        """
        data = self.codec.send_data(operation.data)
        if self._out:
            data, self._out = self._out + data, b""
        if operation.end:
            data += self.codec.send_end()
            self.is_ended = True
        if len(data) <= WRITE_LIMIT:
            if data:
                yield from self._write(operation.deadline, data)
            return
        for start in range(0, len(data), WRITE_LIMIT):
            piece = data[start : start + WRITE_LIMIT]
            yield from self._write(operation.deadline, piece)

    def abort_body(self, operation: AbortBody) -> Flow[None]:
        """Break the answer off after what was already asked to be sent."""
        out, self._out = self._out, b""
        if out and not self.is_lost:
            yield from self._write(operation.deadline, out)
        self.break_off()

    def break_off(self) -> None:
        """End the answer so that the client can see that it is not whole.

        Where the end of the connection is the end of the body, only a reset says so.
        """
        self.is_aborted = True
        if self._is_close_delimited:
            self._context.tell(Close(self._client))

    # -- bytes --------------------------------------------------------------------

    def _read(self, deadline: float) -> Flow[bytes]:
        limit = self._context.now + self._timeouts.body
        self.is_reading = True
        try:
            return (yield from Read(min(deadline, limit), self._client))
        except OperationTimeout:
            message = "The request's body did not come in time."
            raise ClientTimeout(message)
        except OperationBroken:
            self.is_lost = True
            message = "the client's connection was lost"
            raise ClientBroken(message)
        finally:
            self.is_reading = False

    def _write(self, deadline: float, data: bytes) -> Flow[None]:
        limit = self._context.now + self._timeouts.write
        self.is_writing = True
        try:
            yield Write(min(deadline, limit), self._client, data)
        except OperationTimeout:
            self.is_lost = True
            message = "the client does not read its answer"
            raise ClientTimeout(message)
        except OperationBroken:
            self.is_lost = True
            message = "the client's connection was lost"
            raise ClientBroken(message)
        finally:
            self.is_writing = False

    # -- the end ------------------------------------------------------------------

    def send_last(self, head: ResponseHead, body: bytes) -> Flow[None]:
        """Send a whole answer as the last one, and let the client read it."""
        self.has_answered = True
        codec = self.codec
        codec.close_after_response()
        if head.get("content-length") is None:
            length = ("content-length", str(len(body)))
            head = ResponseHead(head.status, (*head.headers, length))
        data = codec.send_head(self._dated(head))
        data += codec.send_data(body) + codec.send_end()
        yield Write(self._context.now + self._timeouts.goodbye, self._client, data)
        yield from self.linger()

    def linger(self) -> Flow[None]:
        """Read what the client still sends, so that it gets to read its answer.

        A close with unread bytes resets the connection, and a reset discards what the
        client has not read yet. Source: RFC 9112, section 9.6.
        """
        deadline = self._context.now + LINGER_SECONDS
        yield WriteEof(deadline, self._client)
        while (yield from Read(deadline, self._client)):
            pass


PERFORM: dict[
    OperationType, Callable[[ClientStream, Any], Generator[Operation[Any], Any, Any]]
] = {
    AbortBody: ClientStream.abort_body,
    ReceiveBody: ClientStream.receive_body,
    SendBody: ClientStream.send_body,
}
"""What a handler may ask for -> how it is done; ``SendHead`` needs no operation."""


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


def http_date(second: int) -> str:
    """Return a Unix time as an IMF-fixdate (RFC 9110, section 5.6.7).

    The standard library's own function comes with sockets, and ``strftime`` with the
    locale's names.
    """
    moment = datetime.fromtimestamp(second, UTC)
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day}, {moment.day:02} {month} {moment.year} {moment:%H:%M:%S} GMT"


def refusal_of(error: RemoteProtocolError) -> InvalidRequest:
    """Return what a client is told of its illegal bytes."""
    return InvalidRequest(error.message, code=error.code, status=error.status)
