"""The receiving half of a connection: bytes in, one message after the other out.

The one rule: framing is decided here and nowhere else, from a head that ``guard`` let
pass. What a message means for the connection, and everything sent, is ``http1``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

import msgspec

from tz_protocol.errors import RemoteProtocolError
from tz_protocol.wire.chunks import ChunkDecoder
from tz_protocol.wire.guard import (
    CHUNKED,
    Grammar,
    GuardedHead,
    Head,
)
from tz_protocol.wire.scanner import HeadBounds, HeadScanner

__all__ = ["BodyChunk", "EndOfBody", "Inbound"]

BLANK_LINES = 4
"""Empty lines before a message that are skipped. RFC 9112, section 2.2 asks for one,
for old clients that end a body with a CRLF too many."""


class BodyChunk(msgspec.Struct, frozen=True):
    """A piece of a body, without its framing; never empty."""

    data: bytes


class EndOfBody(msgspec.Struct, frozen=True):
    """The body is complete, also where there is none."""


_END = EndOfBody()


class Inbound(Generic[Head]):
    """Messages of one direction.

    Args:
        grammar: What the heads are.
        bounds: Past them a head is refused.
    """

    __slots__ = (
        "_blank_lines",
        "_buffer",
        "_decoder",
        "_error",
        "_remaining",
        "_scanner",
        "_step",
        "has_body_bytes",
        "is_at_eof",
    )

    def __init__(self, grammar: Grammar[Head], bounds: HeadBounds) -> None:
        self._scanner = HeadScanner(grammar, bounds)
        self._buffer = b""
        self._error: RemoteProtocolError | None = None
        self._decoder: ChunkDecoder  # set before chunks are read
        self.is_at_eof = False
        self.start_next()

    def start_next(self) -> None:
        """Expect the head of another message."""
        self._step: Callable[[Any], GuardedHead[Head] | BodyChunk | EndOfBody | None]
        self._step = Inbound._read_head
        self._blank_lines = 0
        self._remaining = 0
        self.has_body_bytes = False
        """True once a byte of the current body was taken."""

    @property
    def has_buffered(self) -> bool:
        """True if there are bytes that no event has taken."""
        return bool(self._buffer)

    @property
    def has_failed(self) -> bool:
        """True once the peer broke the protocol."""
        return self._error is not None

    @property
    def is_complete(self) -> bool:
        """True from the end of a message until :meth:`start_next`."""
        return self._step is Inbound._read_nothing

    def receive_data(self, data: bytes) -> None:
        """Take bytes that have come; call :meth:`next_event` until it returns None."""
        if self._error is None:
            self._buffer = self._buffer + data if self._buffer else data

    def receive_eof(self) -> None:
        """No more bytes will come; call :meth:`next_event`."""
        self.is_at_eof = True

    def next_event(self) -> GuardedHead[Head] | BodyChunk | EndOfBody | None:
        """Return what comes next, None if more bytes or :meth:`start_next` is needed.

        Raises:
            RemoteProtocolError: The peer broke the protocol, also on further calls.
        """
        if self._error is not None:
            raise self._error
        try:
            return self._step(self)
        except RemoteProtocolError as error:
            self.fail(error)
            raise

    def fail(self, error: RemoteProtocolError) -> None:
        """Take nothing more; :meth:`next_event` raises *error*."""
        self._error = error
        self._buffer = b""

    def _incomplete(self, what: str) -> RemoteProtocolError:
        message = f"the connection ended within {what}"
        return RemoteProtocolError(message, code="incomplete")

    # -- steps: one for each thing that may come next -----------------------------

    def _read_head(self) -> GuardedHead[Head] | None:
        while self._buffer.startswith(b"\r\n") and self._blank_lines < BLANK_LINES:
            self._blank_lines += 1
            self._buffer = self._buffer[2:]
        if not self._buffer:
            return None
        found = self._scanner.scan(self._buffer)
        if found is None:
            if self.is_at_eof:
                raise self._incomplete("a message's head")
            return None
        guarded, end = found
        self._buffer = self._buffer[end:]
        self.expect_body(guarded.body)
        return guarded

    def expect_body(self, body: int) -> None:
        """Read a body next that is framed as ``GuardedHead.body`` says."""
        if body > 0:
            self._remaining = body
            self._step = Inbound._read_length
        elif body == CHUNKED:
            self._decoder = ChunkDecoder()
            self._step = Inbound._read_chunks
        elif body == 0:
            self._step = Inbound._read_end
        else:
            self._step = Inbound._read_until_close

    def _read_length(self) -> BodyChunk | None:
        data, remaining = self._buffer, self._remaining
        if not data:
            if self.is_at_eof:
                raise self._incomplete("a body, before its content-length")
            return None
        if len(data) < remaining:
            self._buffer = b""
            self._remaining = remaining - len(data)
        else:
            self._buffer = data[remaining:]
            data = data[:remaining]
            self._step = Inbound._read_end
        self.has_body_bytes = True
        return BodyChunk(data)

    def _read_chunks(self) -> BodyChunk | EndOfBody | None:
        """Return all that the buffer holds of the body as one chunk."""
        decoder = self._decoder
        pieces: list[bytes] = []
        try:
            if self._buffer:
                self.has_body_bytes = True
                used = decoder.decode(self._buffer, pieces)
                self._buffer = self._buffer[used:]
        except RemoteProtocolError as error:
            if not pieces:
                raise
            self.fail(error)  # told after what came before it
        else:
            if decoder.is_done:
                self._step = Inbound._read_end
                if not pieces:
                    return self._read_end()
            elif not pieces and self.is_at_eof:
                raise self._incomplete("a body, before its last chunk")
        if not pieces:
            return None
        return BodyChunk(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _read_until_close(self) -> BodyChunk | EndOfBody | None:
        data, self._buffer = self._buffer, b""
        if data:
            self.has_body_bytes = True
            return BodyChunk(data)
        return self._read_end() if self.is_at_eof else None

    def _read_end(self) -> EndOfBody:
        self._step = Inbound._read_nothing
        return _END

    def _read_nothing(self) -> None:
        return None
