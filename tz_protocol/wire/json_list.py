"""A stream of JSON objects, as server-sent events or as one list: bytes -> events.

The one rule: framing only. Which of the two it is the first byte says: no event begins
with a bracket. Google's APIs send the list where nobody asks for events, and proxies
before them may forget to.

Sources: WHATWG HTML, section 9.2; RFC 8259, sections 2 and 7.
"""

from __future__ import annotations

import re
from collections import deque

from tz_protocol.errors import RemoteProtocolError
from tz_protocol.wire.sse import SseDecoder, SseEvent

__all__ = ["EventsOrList", "JsonListDecoder"]

_BEGINS = re.compile(rb"[^ \t\r\n]")
_BETWEEN = re.compile(rb"[^ \t\r\n,\[\]]")
_MARKS = re.compile(rb'["{}]')
_QUOTES = re.compile(rb'["\\]')


class JsonListDecoder:
    """Feed with ``receive_data``, drain with ``next_event``, feed again.

    Brackets and commas between the objects are not looked at closely: who cuts or
    garbles the list does not get past the objects' own end.

    Args:
        limit: Bytes that an object may hold before it is refused.
    """

    __slots__ = (
        "_buffer",
        "_depth",
        "_error",
        "_events",
        "_is_text",
        "_limit",
        "_place",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        """From the start of the object that has not ended."""
        self._place = 0
        """Up to where it has been looked at."""
        self._depth = 0
        self._is_text = False
        self._error: RemoteProtocolError | None = None
        self._events: deque[SseEvent] = deque()

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came."""
        if self._error is not None:
            return
        self._buffer += data
        while self._error is None and (
            self._skip_text() if self._is_text else self._step()
        ):
            pass
        if len(self._buffer) > self._limit:
            self._refuse_size()

    def receive_eof(self) -> None:
        """Take the end; an object that has not ended is handed on as it is."""
        if self._depth and self._error is None:
            self._events.append(SseEvent(bytes(self._buffer)))
            self._buffer.clear()
            self._depth = 0

    def next_event(self) -> SseEvent | None:
        """Return the next object, None if more bytes are needed.

        Raises:
            RemoteProtocolError: These are not JSON objects, or one is over the limit.
        """
        if self._events:
            return self._events.popleft()
        if self._error is not None:
            raise self._error
        return None

    def _step(self) -> bool:
        """Go to the next mark; False if more bytes are needed."""
        buffer = self._buffer
        if not self._depth:
            found = _BETWEEN.search(buffer)
            if found is None:
                buffer.clear()
                return False
            del buffer[: found.start()]
            if buffer[:1] != b"{":
                self._refuse("the stream is not a list of JSON objects", "bad_list")
                return False
            self._place, self._depth = 1, 1
        mark = _MARKS.search(buffer, self._place)
        if mark is None:
            self._place = len(buffer)
            return False
        self._place = mark.end()
        if mark[0] == b'"':
            self._is_text = True
        elif mark[0] == b"{":
            self._depth += 1
        else:
            self._depth -= 1
            if not self._depth:
                if self._place > self._limit:
                    self._refuse_size()
                    return False
                self._events.append(SseEvent(bytes(buffer[: self._place])))
                del buffer[: self._place]
        return True

    def _skip_text(self) -> bool:
        """Go to the end of the string; False if more bytes are needed."""
        mark = _QUOTES.search(self._buffer, self._place)
        if mark is None:
            self._place = len(self._buffer)
            return False
        if mark[0] == b'"':
            self._place, self._is_text = mark.end(), False
        elif mark.end() == len(self._buffer):
            # What the backslash escapes has not come.
            self._place = mark.start()
            return False
        else:
            self._place = mark.end() + 1
        return True

    def _refuse_size(self) -> None:
        message = f"an object of the stream is over the limit of {self._limit} bytes"
        self._refuse(message, "event_too_large")

    def _refuse(self, message: str, code: str) -> None:
        """Hold nothing more: the stream cannot be understood from here on."""
        self._error = RemoteProtocolError(message, code=code)
        self._buffer.clear()


class EventsOrList:
    """Either framing, found out by the first byte that is not white space.

    Args:
        limit: Bytes that an event or object may hold before it is refused.
    """

    __slots__ = ("_before", "_inner", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._before = b""
        self._inner: SseDecoder | JsonListDecoder | None = None

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came."""
        inner = self._inner
        if inner is None:
            data = self._before + data
            begin = _BEGINS.search(data)
            if begin is None:
                # Only white space so far: it says nothing in either framing.
                self._before = data[-1:]
                return
            is_list = begin[0] in (b"[", b"{")
            make = JsonListDecoder if is_list else SseDecoder
            inner = self._inner = make(self._limit)
        inner.receive_data(data)

    def receive_eof(self) -> None:
        """Take the end of the stream."""
        if self._inner is not None:
            self._inner.receive_eof()

    def next_event(self) -> SseEvent | None:
        """Return the next event, None if more bytes are needed.

        Raises:
            RemoteProtocolError: The bytes are neither.
        """
        return None if self._inner is None else self._inner.next_event()
