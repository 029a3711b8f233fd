"""A provider's framed events -> stream events, whatever the vendor.

The one rule: the vendor's module says what one event means (``Reader``); that nothing
follows an end, that a broken framing is a failure and that bytes may be cut anywhere
is seen to here, once.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

from tz_protocol.errors import RemoteProtocolError, UpstreamGarbled
from tz_protocol.types.stream import StreamDone, StreamEvent, StreamFailed, StreamPart
from tz_protocol.wire.eventstream import EventMessage, EventStreamDecoder
from tz_protocol.wire.sse import SseDecoder, SseEvent

__all__ = ["AwsStream", "FramedStream", "Reader", "SseStream", "unreadable"]

E = TypeVar("E")
E_in = TypeVar("E_in", contravariant=True)
E_out = TypeVar("E_out", covariant=True)


class Reader(Protocol[E_in]):
    """What one vendor's events mean."""

    def read(self, event: E_in, out: deque[StreamEvent]) -> None:
        """Append what *event* stands for to *out*; raise for nothing."""

    def end(self, out: deque[StreamEvent]) -> None:
        """Append what the end of the bytes stands for: at least one event, the last
        of them ``StreamDone`` or ``StreamFailed``."""


class Framing(Protocol[E_out]):
    """A codec of ``wire``: bytes -> events."""

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came."""

    def receive_eof(self) -> None:
        """Take the end of the stream."""

    def next_event(self) -> E_out | None:
        """Return the next event, None if more bytes are needed."""


def unreadable(error: RemoteProtocolError) -> UpstreamGarbled:
    """Return what *error* of a framing stands for; an event over the limit has the
    code of every answer that is too large."""
    code = "upstream_too_large" if error.code == "event_too_large" else error.code
    return UpstreamGarbled(error.message, code)


class FramedStream(Generic[E]):
    """A ``Decoder`` (``dialects/base.py``) over the events of a codec.

    Args:
        reader: Fresh; keeps the state of this one stream.
        framing: Fresh.
    """

    __slots__ = (
        "_begun",
        "_finished",
        "_framing",
        "_is_at_end",
        "_is_over",
        "_out",
        "_reader",
    )

    def __init__(self, reader: Reader[E], framing: Framing[E]) -> None:
        self._reader = reader
        self._framing = framing
        self._out: deque[StreamEvent] = deque()
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        """Indexes of the choices that have begun, and of those that are complete."""
        self._is_at_end = False
        self._is_over = False

    @property
    def is_finished(self) -> bool:
        """True once every choice that has begun has its finish reason."""
        return bool(self._finished) and self._finished >= self._begun

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came; call ``next_event`` until it returns None."""
        if not self._is_over:
            self._framing.receive_data(data)

    def receive_eof(self) -> None:
        """Take the end of the stream; call ``next_event`` until it returns None."""
        if not self._is_at_end:
            self._is_at_end = True
            self._framing.receive_eof()

    def next_event(self) -> StreamEvent | None:
        """Return the next event, or None when more bytes are needed."""
        out = self._out
        while not out:
            if self._is_over:
                return None
            try:
                event = self._framing.next_event()
            except RemoteProtocolError as error:
                if error.code == "incomplete":
                    self._reader.end(out)
                else:
                    out.append(StreamFailed(unreadable(error)))
                break
            if event is not None:
                self._reader.read(event, out)
            elif self._is_at_end:
                self._reader.end(out)
            else:
                return None
        made = out.popleft()
        if type(made) is StreamPart:
            choice = getattr(made.value, "choice", 0)
            (self._finished if made.is_finish else self._begun).add(choice)
        elif type(made) is StreamDone or type(made) is StreamFailed:
            self._is_over = True
            out.clear()
        return made


class SseStream(FramedStream[SseEvent]):
    """Over server-sent events."""

    __slots__ = ()

    def __init__(self, reader: Reader[SseEvent], limit: int) -> None:
        super().__init__(reader, SseDecoder(limit))


class AwsStream(FramedStream[EventMessage]):
    """Over an AWS event stream."""

    __slots__ = ()

    def __init__(self, reader: Reader[EventMessage], limit: int) -> None:
        super().__init__(reader, EventStreamDecoder(limit))
