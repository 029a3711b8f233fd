"""Server-sent events: bytes -> events.

The one rule: framing only; what the events mean is the dialects' business. Bytes may be
cut anywhere, and the events do not depend on where.

Source: WHATWG HTML, section 9.2 (parsing and interpreting an event stream). One
deviation: an event that the stream's end cuts off before its blank line is still an
event, because several providers leave the last blank line out.
"""

from __future__ import annotations

from collections import deque

import msgspec

from tz_protocol.errors import RemoteProtocolError

__all__ = ["SseDecoder", "SseEvent"]

_BOM = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One event."""

    data: bytes
    """Its ``data`` lines, joined by line feeds."""
    name: str = ""
    """Its ``event`` field; empty means ``message``."""
    id: str = ""
    """The last ``id`` that the stream gave."""


class SseDecoder:
    """Feed with ``receive_data``, drain with ``next_event``, feed again.

    Args:
        limit: Bytes that an unfinished event may hold before it is refused.
    """

    __slots__ = (
        "_data",
        "_error",
        "_events",
        "_id",
        "_is_after_cr",
        "_is_at_start",
        "_is_between",
        "_limit",
        "_line",
        "_name",
        "_size",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events: deque[SseEvent] = deque()
        self._error: RemoteProtocolError | None = None
        self._line = bytearray()
        """The line that has not ended."""
        self._data: list[bytes] = []
        """The data lines of the event that has not ended."""
        self._size = 0
        """Bytes in them."""
        self._name = b""
        self._id = ""
        self._is_after_cr = False
        self._is_at_start = True
        self._is_between = False
        """True if nothing of the next event has come."""

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came."""
        if (
            self._is_between
            # One whole event of one line, as nearly every read of a stream brings it.
            and data.find(b"\n") == len(data) - 2
            and data.startswith(b"data: ")
            and data.endswith(b"\n\n")
            and b"\r" not in data
            and len(data) <= self._limit
        ):
            self._events.append(SseEvent(data[6:-2], "", self._id))
        elif self._error is None:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Take any bytes."""
        if self._is_at_start:
            data = self._without_mark(data)
        if self._is_after_cr and data:
            self._is_after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._is_after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        if lines and self._line:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        for line in lines:
            self._take_line(line)
        self._line += rest
        if len(self._line) + self._size > self._limit:
            self._refuse()
        self._is_between = not (
            self._line
            or self._data
            or self._name
            or self._is_after_cr
            or self._is_at_start
            or self._error
        )

    def receive_eof(self) -> None:
        """Take the end of the stream; an event that has no blank line ends here."""
        if self._is_at_start:
            self._is_at_start = False
            self._line = bytearray(self._line.removeprefix(_BOM))
        if self._line:
            line, self._line = bytes(self._line), bytearray()
            self._take_line(line)
        self._take_line(b"")

    def next_event(self) -> SseEvent | None:
        """Return the next event, None if more bytes are needed.

        Raises:
            RemoteProtocolError: A line or an event is over the limit.
        """
        if self._events:
            return self._events.popleft()
        if self._error is not None:
            raise self._error
        return None

    def _without_mark(self, data: bytes) -> bytes:
        """Return *data* without the byte order mark that a stream may begin with."""
        data = bytes(self._line) + data
        self._line.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._line += data
            return b""
        self._is_at_start = False
        return data.removeprefix(_BOM)

    def _take_line(self, line: bytes) -> None:
        if not line:
            self._dispatch()
            return
        if len(line) + self._size > self._limit:
            self._refuse()
            return
        name, _, value = line.partition(b":")
        if not name:
            return
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == b"event":
            self._name = value
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")

    def _dispatch(self) -> None:
        data, name = self._data, self._name
        if data:
            if self._error is None:
                text = name.decode("utf-8", "replace")
                self._events.append(SseEvent(b"\n".join(data), text, self._id))
            self._data, self._size = [], 0
        self._name = b""

    def _refuse(self) -> None:
        """Hold nothing more: the stream cannot be understood from here on."""
        if self._error is None:
            message = f"an event of the stream is over the limit of {self._limit} bytes"
            self._error = RemoteProtocolError(message, code="event_too_large")
        self._line.clear()
        self._data, self._size = [], 0
