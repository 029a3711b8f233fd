"""The chunked transfer coding, decoded: RFC 9112, section 7.1, read strictly.

The one rule: what is not exactly the grammar is refused at the first byte that shows
it. Chunk extensions are checked, bounded and dropped; so are trailers, of which those
that would have changed how the message is read are refused.
"""

from __future__ import annotations

import re

from tz_protocol.errors import RemoteProtocolError
from tz_protocol.wire.guard import SPECIAL, TOKEN, field_name

__all__ = ["ChunkDecoder"]

LINE_LIMIT = 4_096
"""Bytes of one chunk line or one trailer line."""

EXTENSIONS_LIMIT = 16_384
"""Bytes of all extensions of one body: without a bound, chunks of one byte would make
us read thousands of times the body that is accounted for (CVE-2023-39326)."""

TRAILERS_LIMIT = 8_192
"""Bytes of all trailers of one body."""

# RFC 9112, section 7.1.1. Blanks are allowed before and after the semicolon there, and
# only "bad", so refused here before it; after it they are common.
_EXTENSION = (
    rb";[ \t]*+" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|"
    rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"))?+'
)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})((?:" + _EXTENSION + rb")*+)\r\n")

_FORBIDDEN_TRAILERS = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"keep-alive",
        b"max-forwards",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"www-authenticate",
    }
)
"""Framing, routing, authentication and content format: RFC 9110, section 6.5.1."""

_SIZE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


class ChunkDecoder:
    """Takes one body out of its chunks."""

    __slots__ = ("_extensions", "_remaining", "_seen", "_state", "_trailers")

    def __init__(self) -> None:
        self._state = _SIZE
        self._remaining = 0
        """Bytes of the current chunk that have not come."""
        self._seen = 0
        """Bytes of an unfinished line known to hold no control byte."""
        self._extensions = 0
        self._trailers = 0

    @property
    def is_done(self) -> bool:
        """True once the body's end was taken."""
        return self._state == _DONE

    def decode(self, buffer: bytes, pieces: list[bytes]) -> int:
        """Append the data in *buffer* to *pieces*; return how many bytes were used.

        Call again with the unused bytes and more after them, until :attr:`is_done`.

        Raises:
            RemoteProtocolError: The coding is violated after what is in *pieces*.
        """
        position, size = 0, len(buffer)
        while True:
            if self._state == _DATA:
                end = position + self._remaining
                if end > size:
                    if position < size:
                        pieces.append(buffer[position:])
                        self._remaining = end - size
                    return size
                pieces.append(buffer[position:end])
                position = end
                self._state = _DATA_END
            if self._state == _DATA_END:
                if not buffer.startswith(b"\r\n", position):
                    return self._await_data_end(buffer, position)
                position += 2
                self._state = _SIZE
            if self._state == _SIZE:
                match = _CHUNK_LINE.match(buffer, position)
                if match is None or match.end() - position > LINE_LIMIT:
                    self._await_line(buffer, position, "bad_chunk")
                    return position
                position = match.end()
                self._seen = 0
                self._begin(match)
            if self._state == _TRAILERS:
                return self._read_trailers(buffer, position)

    def _begin(self, match: re.Match[bytes]) -> None:
        self._remaining = int(match[1], 16)
        self._extensions += len(match[2])
        if self._extensions > EXTENSIONS_LIMIT:
            message = f"chunk extensions are over the limit of {EXTENSIONS_LIMIT} bytes"
            raise RemoteProtocolError(message, code="bad_chunk")
        self._state = _DATA if self._remaining else _TRAILERS

    def _await_data_end(self, buffer: bytes, position: int) -> int:
        if not b"\r\n".startswith(buffer[position : position + 2]):
            message = "a chunk's data is not followed by CRLF"
            raise RemoteProtocolError(message, code="bad_chunk")
        return position

    def _await_line(self, buffer: bytes, position: int, code: str) -> int:
        """Return where the line ends that is not complete, or say what is wrong.

        Returns:
            Index of the line's CRLF, -1 if it has not come.
        """
        special = SPECIAL.search(buffer, position + self._seen)
        stop = len(buffer) if special is None else special.start()
        name = "chunk line" if code == "bad_chunk" else "trailer line"
        if stop - position > LINE_LIMIT - 2:
            message = f"a {name} is over the limit of {LINE_LIMIT} bytes"
            raise RemoteProtocolError(message, code=code)
        self._seen = stop - position
        if special is None or (buffer[stop] == 0x0D and stop + 1 == len(buffer)):
            return -1
        if not buffer.startswith(b"\r\n", stop):
            message = f"a {name} holds a control byte or a bare CR or LF"
            raise RemoteProtocolError(message, code=code)
        if code == "bad_chunk":
            message = "a chunk line is not a hexadecimal size with legal extensions"
            raise RemoteProtocolError(message, code=code)
        return stop

    def _read_trailers(self, buffer: bytes, position: int) -> int:
        while True:
            stop = self._await_line(buffer, position, "bad_trailer")
            if stop < 0:
                return position
            line = buffer[position:stop]
            position, self._seen = stop + 2, 0
            if not line:
                self._state = _DONE
                return position
            if field_name(line) in _FORBIDDEN_TRAILERS:
                message = "a trailer has a name that only a header may have"
                raise RemoteProtocolError(message, code="bad_trailer")
            self._trailers += len(line)
            if self._trailers > TRAILERS_LIMIT:
                message = f"the trailers are over the limit of {TRAILERS_LIMIT} bytes"
                raise RemoteProtocolError(message, status=431, code="bad_trailer")
