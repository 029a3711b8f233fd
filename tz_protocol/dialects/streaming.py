"""A provider's server-sent events -> stream events, whatever the vendor.

The one rule: the vendor's module says what one event means (``Reader``); that nothing
follows an end, that a broken framing is a failure and that bytes may be cut anywhere
is seen to here, once.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from tz_protocol.errors import RemoteProtocolError, UpstreamGarbled
from tz_protocol.types.stream import StreamDone, StreamEvent, StreamFailed
from tz_protocol.wire.sse import SseDecoder, SseEvent

__all__ = ["Reader", "SseStream"]


class Reader(Protocol):
    """What one vendor's events mean."""

    def read(self, event: SseEvent, out: deque[StreamEvent]) -> None:
        """Append what *event* stands for to *out*; raise for nothing."""

    def end(self, out: deque[StreamEvent]) -> None:
        """Append what the end of the bytes stands for: at least one event, the last
        of them ``StreamDone`` or ``StreamFailed``."""


class SseStream:
    """A ``Decoder`` (``dialects/base.py``) over server-sent events.

    Args:
        reader: Fresh; keeps the state of this one stream.
    """

    __slots__ = ("_is_at_end", "_is_over", "_out", "_reader", "_sse")

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._sse = SseDecoder()
        self._out: deque[StreamEvent] = deque()
        self._is_at_end = False
        self._is_over = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came; call ``next_event`` until it returns None."""
        if not self._is_over:
            self._sse.receive_data(data)

    def receive_eof(self) -> None:
        """Take the end of the stream; call ``next_event`` until it returns None."""
        if not self._is_at_end:
            self._is_at_end = True
            self._sse.receive_eof()

    def next_event(self) -> StreamEvent | None:
        """Return the next event, or None when more bytes are needed."""
        out = self._out
        while not out:
            if self._is_over:
                return None
            try:
                event = self._sse.next_event()
            except RemoteProtocolError as error:
                out.append(StreamFailed(UpstreamGarbled(error.message, error.code)))
                break
            if event is not None:
                self._reader.read(event, out)
            elif self._is_at_end:
                self._reader.end(out)
            else:
                return None
        made = out.popleft()
        if type(made) is StreamDone or type(made) is StreamFailed:
            self._is_over = True
            out.clear()
        return made
