"""AWS event streams: bytes -> messages, and messages -> bytes for tests and peers.

The one rule: framing only. Lengths and both checksums are verified before anything of
a message is looked at; what its headers and payload mean is the dialects' business.
Bytes may be cut anywhere, and the messages do not depend on where.

A message is: its whole length and the length of its headers (32 bits each), a CRC-32 of
these eight bytes, headers, payload, a CRC-32 of all before it; big-endian throughout.

Source: https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html,
"Event stream encoding"; https://smithy.io/2.0/aws/amazon-eventstream.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, TypeAlias
from zlib import crc32

import msgspec

from tz_protocol.errors import RemoteProtocolError

__all__ = [
    "HEADERS_LIMIT",
    "MESSAGE_LIMIT",
    "EventMessage",
    "EventStreamDecoder",
    "HeaderType",
    "HeaderValue",
    "encode_message",
]

MESSAGE_LIMIT = 25_165_824
"""Bytes of one message: 24 MiB is the most that the format's specification allows."""

HEADERS_LIMIT = 131_072
"""Bytes of one message's headers, from the same place."""

HeaderValue: TypeAlias = bool | int | bytes | str
"""Timestamps are milliseconds since 1970, UUIDs their 16 bytes."""

_PRELUDE = Struct(">III")
_CHECKSUM = Struct(">I")
_LENGTHS = Struct(">II")
_SIZE = Struct(">H")
_OVERHEAD = _PRELUDE.size + _CHECKSUM.size

_KNOWN_LIMIT = 64
"""Different header blocks that one stream remembers; a real one has about six."""

_COMPACT_AT = 65_536
"""Bytes of taken messages after which the buffer is cut."""


class HeaderType(IntEnum):
    """How a header's value is written."""

    TRUE = 0
    FALSE = 1
    BYTE = 2
    SHORT = 3
    INTEGER = 4
    LONG = 5
    BYTES = 6
    STRING = 7
    TIMESTAMP = 8
    UUID = 9


_NUMBERS: Mapping[int, Struct] = {
    HeaderType.BYTE: Struct(">b"),
    HeaderType.SHORT: Struct(">h"),
    HeaderType.INTEGER: Struct(">i"),
    HeaderType.LONG: Struct(">q"),
    HeaderType.TIMESTAMP: Struct(">q"),
}
_UUID_SIZE = 16


class EventMessage(msgspec.Struct, frozen=True, gc=False):
    """One message."""

    headers: Mapping[str, HeaderValue]
    """By name; those that the format itself knows begin with a colon."""
    payload: bytes

    def text(self, name: str) -> str:
        """Return the header *name* if it is a string, else an empty one."""
        value = self.headers.get(name)
        return value if type(value) is str else ""


class EventStreamDecoder:
    """Feed with ``receive_data``, drain with ``next_event``, feed again.

    Args:
        limit: Bytes that one message may have before it is refused; the format's own
            limit holds as well.
    """

    __slots__ = ("_buffer", "_error", "_is_at_end", "_known", "_limit", "_start")

    def __init__(self, limit: int = MESSAGE_LIMIT) -> None:
        self._limit = min(limit, MESSAGE_LIMIT)
        self._buffer = bytearray()
        self._start = 0
        """Where the next message begins in the buffer."""
        self._is_at_end = False
        self._error: RemoteProtocolError | None = None
        self._known: dict[bytes, Mapping[str, HeaderValue]] = {}
        """Header blocks seen: a stream repeats the same few in nearly every message."""

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came; call ``next_event`` until it returns None."""
        if self._error is None:
            self._buffer += data

    def receive_eof(self) -> None:
        """Take the end of the stream; call ``next_event`` until it returns None."""
        self._is_at_end = True

    def next_event(self) -> EventMessage | None:
        """Return the next message, None if more bytes are needed.

        Raises:
            RemoteProtocolError: The bytes are no message, now and at every further
                call; with the code ``incomplete`` if the stream ended within one.
        """
        if self._error is not None:
            raise self._error
        try:
            return self._next()
        except RemoteProtocolError as error:
            self._error = error
            self._buffer.clear()
            raise

    def _next(self) -> EventMessage | None:
        buffer, start = self._buffer, self._start
        available = len(buffer) - start
        if available < _PRELUDE.size:
            self._check_end(available)
            return None
        size, header_size, checksum = _PRELUDE.unpack_from(buffer, start)
        if crc32(buffer[start : start + _LENGTHS.size]) != checksum:
            raise _illegal("the checksum of a message's lengths is wrong")
        if size > self._limit or header_size > HEADERS_LIMIT:
            message = (
                f"a message of the stream is over the limit of {self._limit} bytes"
            )
            raise RemoteProtocolError(message, code="event_too_large")
        if size < _OVERHEAD + header_size:
            raise _illegal("the lengths of a message contradict each other")
        if available < size:
            self._check_end(available)
            return None
        end = start + size
        body_end = end - _CHECKSUM.size
        data = bytes(buffer[start:body_end])
        (checksum,) = _CHECKSUM.unpack_from(buffer, body_end)
        if crc32(data) != checksum:
            raise _illegal("the checksum of a message is wrong")
        self._start = end
        if end == len(buffer):
            buffer.clear()
            self._start = 0
        elif end >= _COMPACT_AT:
            del buffer[:end]
            self._start = 0
        headers_end = _PRELUDE.size + header_size
        block = data[_PRELUDE.size : headers_end]
        return EventMessage(self._headers(block), data[headers_end:])

    def _check_end(self, available: int) -> None:
        """Raise if a message has begun and no more bytes will come."""
        if available and self._is_at_end:
            message = "the stream ends within a message"
            raise RemoteProtocolError(message, code="incomplete")

    def _headers(self, block: bytes) -> Mapping[str, HeaderValue]:
        headers = self._known.get(block)
        if headers is None:
            headers = _read_headers(block)
            if len(self._known) < _KNOWN_LIMIT and len(block) <= 1_024:
                self._known[block] = headers
        return headers


def _illegal(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, code="bad_event_stream")


# -- headers --------------------------------------------------------------------


class _Headers:
    """Reads one block of headers from its beginning to its end."""

    __slots__ = ("_block", "_place")

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._place = 0

    def has_more(self) -> bool:
        return self._place < len(self._block)

    def take(self, size: int) -> bytes:
        start = self._place
        end = self._place = start + size
        if end > len(self._block):
            raise _illegal("a header of a message reaches beyond its headers")
        return self._block[start:end]

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise _illegal("a header of a message is not UTF-8") from None

    def size(self) -> int:
        (size,) = _SIZE.unpack(self.take(_SIZE.size))
        return int(size)

    def value(self, kind: int) -> HeaderValue:
        number = _NUMBERS.get(kind)
        if number is not None:
            (found,) = number.unpack(self.take(number.size))
            return int(found)
        reader = _READERS.get(kind)
        if reader is None:
            raise _illegal("a header of a message has an unknown type")
        return reader(self)


_READERS: Mapping[int, Callable[[_Headers], HeaderValue]] = {
    HeaderType.TRUE: lambda _: True,
    HeaderType.FALSE: lambda _: False,
    HeaderType.BYTES: lambda headers: headers.take(headers.size()),
    HeaderType.STRING: lambda headers: headers.text(headers.size()),
    HeaderType.UUID: lambda headers: headers.take(_UUID_SIZE),
}


def _read_headers(block: bytes) -> Mapping[str, HeaderValue]:
    found: dict[str, HeaderValue] = {}
    headers = _Headers(block)
    while headers.has_more():
        name = headers.text(headers.take(1)[0])
        if not name or name in found:
            raise _illegal("a header of a message has no name, or one given before")
        found[name] = headers.value(headers.take(1)[0])
    return found


# -- the way back ---------------------------------------------------------------


def encode_message(
    headers: Iterable[tuple[str, HeaderType, Any]], payload: bytes
) -> bytes:
    """Return the bytes of one message.

    Args:
        headers: Name, type and value of each; true and false need no value.
        payload: Anything.

    Raises:
        ValueError: It is over the format's limits.
        struct.error: A number does not fit its type, or a text its length.
    """
    block = b"".join(_header(*header) for header in headers)
    size = _OVERHEAD + len(block) + len(payload)
    if size > MESSAGE_LIMIT or len(block) > HEADERS_LIMIT:
        message = f"the message is over the limit of {MESSAGE_LIMIT} bytes"
        raise ValueError(message)
    lengths = _LENGTHS.pack(size, len(block))
    data = b"".join((lengths, _CHECKSUM.pack(crc32(lengths)), block, payload))
    return data + _CHECKSUM.pack(crc32(data))


def _header(name: str, kind: HeaderType, value: Any) -> bytes:
    encoded = name.encode("utf-8")
    head = bytes((len(encoded),)) + encoded + bytes((kind,))
    number = _NUMBERS.get(kind)
    if number is not None:
        return head + number.pack(value)
    if kind is HeaderType.UUID:
        return head + bytes(value)
    if kind is HeaderType.STRING:
        text = str(value).encode("utf-8")
        return head + _SIZE.pack(len(text)) + text
    if kind is HeaderType.BYTES:
        return head + _SIZE.pack(len(value)) + bytes(value)
    return head
