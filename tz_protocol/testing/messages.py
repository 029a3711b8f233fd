"""HTTP/1.1 messages as a test sees them: found in received bytes, or built.

The one rule: this reader shares no code with ``wire/http1``, so that a test's verdict
does not rest on what is being tested. It is strict and raises ``AssertionError`` for
framing that no correct peer sends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tz_protocol.types.http import Headers

__all__ = [
    "LAST_CHUNK",
    "Message",
    "chunk",
    "http_request",
    "http_response",
    "sse_event",
    "take_message",
    "take_responses",
]

LAST_CHUNK = b"0\r\n\r\n"
"""Ends a chunked body (RFC 9112, section 7.1)."""

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([0-9]{3})(?: .*)?")
_HEADER_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL
)
_NO_BODY = frozenset({204, 304})

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One whole request or response."""

    start: str
    """The request line or the status line."""
    headers: Headers
    """Lower-case names, in the order received."""
    body: bytes
    is_chunked: bool = False

    @property
    def status(self) -> int:
        """Return the status; for responses only."""
        return int(self.start.split(" ", 2)[1])

    @property
    def method(self) -> str:
        """Return the method; for requests only."""
        return self.start.split(" ", 1)[0]

    @property
    def target(self) -> str:
        """Return the request target as sent; for requests only."""
        return self.start.split(" ", 2)[1]

    def get(self, name: str) -> str | None:
        """Return the first value of the header with this lower-case *name*."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


def take_message(
    data: bytes | bytearray,
    *,
    is_response: bool,
    method: str = "GET",
    is_eof: bool = False,
) -> tuple[Message, int] | None:
    """Return the first whole message in *data* and its length in bytes.

    Args:
        data: What was received; begins where a message begins.
        is_response: False for a request.
        method: For a response: the request's method (``HEAD`` has no body).
        is_eof: True if no more bytes will come: it ends a response that has neither
            a length nor chunks.

    Returns:
        None if the message is not whole yet.

    Raises:
        AssertionError: The framing is not legal, or both framings are present.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    start, headers = _head(bytes(data[:end]))
    at = end + 4
    fields = dict(headers)
    status = _status(start) if is_response else 0
    if is_response and (method == "HEAD" or 100 <= status < 200 or status in _NO_BODY):
        return Message(start, headers, b""), at
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    assert length is None or coding is None, "two framings in one message"
    if coding is not None:
        assert coding.lower() == "chunked", "a transfer coding other than chunked"
        found = _chunked(data, at)
        if found is None:
            return None
        return Message(start, headers, found[0], is_chunked=True), found[1]
    if length is not None:
        end = at + int(length)
        if len(data) < end:
            return None
        return Message(start, headers, bytes(data[at:end])), end
    if not is_response:
        return Message(start, headers, b""), at
    if not is_eof:
        return None
    return Message(start, headers, bytes(data[at:])), len(data)


def take_responses(
    data: bytes, methods: Iterable[str] = (), *, is_eof: bool = True
) -> tuple[list[Message], bytes]:
    """Return every whole response in *data*, informational ones included, and the rest.

    Args:
        data: Everything that one connection received.
        methods: Methods of the requests, in order; ``GET`` where they run out.
        is_eof: True if the connection was closed after *data*.

    Raises:
        AssertionError: The framing is not legal.
    """
    messages: list[Message] = []
    asked = list(methods)
    while data:
        method = asked[0] if asked else "GET"
        found = take_message(data, is_response=True, method=method, is_eof=is_eof)
        if found is None:
            break
        messages.append(found[0])
        data = data[found[1] :]
        if found[0].status >= 200 and asked:
            del asked[0]
    return messages, data


def _status(start: str) -> int:
    match = _STATUS_LINE.fullmatch(start)
    assert match is not None, "the first line is not a status line"
    return int(match.group(1))


def _head(text: bytes) -> tuple[str, Headers]:
    first, *lines = text.split(b"\r\n")
    headers = []
    for line in lines:
        match = _HEADER_LINE.fullmatch(line)
        assert match is not None, "a line of the head is not a header"
        name, value = match.groups()
        headers.append((name.decode("ascii").lower(), value.decode("latin-1")))
    return first.decode("latin-1"), tuple(headers)


def _chunked(data: bytes | bytearray, at: int) -> tuple[bytes, int] | None:
    pieces: list[bytes] = []
    while True:
        match = _CHUNK_LINE.match(data, at)
        if match is None:
            line_end = data.find(b"\r\n", at)
            assert line_end < 0, "a chunk does not begin with its size"
            return None
        size = int(match.group(1), 16)
        at = match.end()
        if len(data) < at + size + 2:
            return None
        assert data[at + size : at + size + 2] == b"\r\n", "a chunk has no end"
        if not size:
            return b"".join(pieces), at + 2
        pieces.append(bytes(data[at : at + size]))
        at += size + 2


# -- building -------------------------------------------------------------------


def http_request(
    method: str = "GET",
    target: str = "/",
    headers: Headers = (),
    body: bytes | None = None,
    *,
    is_chunked: bool = False,
) -> bytes:
    """Return a request's bytes with ``Host`` and the framing of its body.

    Args:
        method: As it goes onto the wire.
        target: In origin form.
        headers: Further header lines.
        body: None sends no body and no framing.
        is_chunked: True frames the body as one chunk instead of by its length.
    """
    lines = [("host", "gateway.test"), *headers]
    payload = b""
    if body is not None:
        lines.append(_framing(body, is_chunked=is_chunked))
        payload = _framed(body, is_chunked=is_chunked)
    return _lines(f"{method} {target} HTTP/1.1", lines) + payload


def http_response(
    status: int = 200,
    headers: Headers = (),
    body: bytes = b"",
    *,
    framing: str = "length",
) -> bytes:
    """Return a whole response's bytes.

    Args:
        status: Any number of three digits.
        headers: Header lines without framing.
        body: Goes out as it stands.
        framing: ``length``, ``chunked`` (one chunk), or ``close`` (none: the end of
            the stream ends the body; follow it with ``Close()``).
    """
    lines = list(headers)
    if framing == "close":
        lines.append(("connection", "close"))
        payload = body
    else:
        is_chunked = framing == "chunked"
        lines.append(_framing(body, is_chunked=is_chunked))
        payload = _framed(body, is_chunked=is_chunked)
    reason = _REASONS.get(status, "Unnamed")
    return _lines(f"HTTP/1.1 {status} {reason}", lines) + payload


def chunk(data: bytes) -> bytes:
    """Return *data*, which must not be empty, as one chunk."""
    if not data:
        message = "an empty chunk ends the body: use LAST_CHUNK"
        raise ValueError(message)
    return b"%x\r\n%b\r\n" % (len(data), data)


def sse_event(data: bytes | str) -> bytes:
    """Return one server-sent event that carries *data* (no line break in it)."""
    text = data.encode() if isinstance(data, str) else data
    return b"data: %b\n\n" % text


def _lines(first: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _framing(body: bytes, *, is_chunked: bool) -> tuple[str, str]:
    if is_chunked:
        return ("transfer-encoding", "chunked")
    return ("content-length", str(len(body)))


def _framed(body: bytes, *, is_chunked: bool) -> bytes:
    if not is_chunked:
        return body
    return (chunk(body) if body else b"") + LAST_CHUNK
