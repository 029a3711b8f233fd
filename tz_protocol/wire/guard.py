"""What is legal in an HTTP/1.1 head, and what it means: a strict reading.

The one rule: a head that passes here has one meaning. Where RFC 9112 lets a recipient
repair (bare LF, line folding, a repeated Content-Length), this module refuses, because
two parties that repair differently are what request smuggling is made of.

Finding heads in a stream and bounding them is ``scanner``'s business; bodies are
``chunks``' and ``inbound``'s.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, NoReturn, TypeVar

import msgspec

from tz_protocol.errors import RemoteProtocolError
from tz_protocol.types.http import Headers, RequestHead, ResponseHead

__all__ = [
    "CHUNKED",
    "FIELDS",
    "SPECIAL",
    "TOKEN",
    "UNTIL_CLOSE",
    "Grammar",
    "GuardedHead",
    "RequestGrammar",
    "ResponseGrammar",
    "field_name",
]

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
"""RFC 9110, section 5.6.2."""

_FIELD = TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+"
_HEAD_END = rb"\r\n((?:" + _FIELD + rb"\r\n)*+)\r\n"

FIELDS = re.compile(rb"(?:" + _FIELD + rb"\r\n)*+")
"""Any number of header lines, each with its CRLF."""

_FIELD_LINE = re.compile(_FIELD)
_METHOD = re.compile(TOKEN)
SPECIAL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Control bytes; only the CR and LF of a line end are legal."""

# RFC 9112, section 3.2: VCHAR, without the number sign, since no form of a target
# has a fragment.
_REQUEST_LINE = rb"(" + TOKEN + rb") ([\x21\x22\x24-\x7e]++) HTTP/1\.([01])"
# RFC 9112, section 4. The space before an absent reason is often left out.
_STATUS_LINE = rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?"

_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")

# RFC 9110, section 7.2 and RFC 3986, section 3.2.2, without the comma, which marks two
# Host lines made into one, and without user information.
_HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)"
    r"(?::[0-9]{1,5})?"
)
_ABSOLUTE = re.compile(r"https?://([^/?]*)([^?]*)(?:\?(.*))?", re.IGNORECASE)

# RFC 9110, section 8.6 allows leading zeros and a list of equal numbers; 18 digits
# keep the number within 64 bits wherever it goes.
_LENGTH = re.compile(r"0|[1-9][0-9]{0,17}")

CHUNKED = -1
"""Instead of a length: the body ends with its last chunk."""
UNTIL_CLOSE = -2
"""Instead of a length: the body ends with the connection."""

Head = TypeVar("Head", bound=RequestHead | ResponseHead)


class GuardedHead(msgspec.Struct, Generic[Head], frozen=True):
    """A head that passed, and what of it decides about bytes."""

    head: Head
    body: int
    """The body's length, :data:`CHUNKED` or :data:`UNTIL_CLOSE`."""
    is_http10: bool
    wants_close: bool
    """True if ``connection: close`` was said."""
    wants_continue: bool
    """True if the client waits for a 100 before it sends its body."""


class Grammar(ABC, Generic[Head]):
    """What tells heads of requests from heads of responses."""

    first_line: ClassVar[re.Pattern[bytes]]
    head: ClassVar[re.Pattern[bytes]]
    """The first line, the header lines as the last group, and the empty line."""
    name: ClassVar[str]
    """The first line's name in messages."""
    too_long: ClassVar[int]
    """Status for a first line that is over the bound."""

    @abstractmethod
    def refuse(self, line: bytes) -> NoReturn:
        """Say what is wrong with a first line that does not match."""

    @abstractmethod
    def parse(self, match: re.Match[bytes], lines: Headers) -> GuardedHead[Head]:
        """Return what a head that matches means.

        Raises:
            RemoteProtocolError: It contradicts itself, or is none that we serve.
        """


def field_name(line: bytes) -> bytes:
    """Return the name of a header line, in lower case.

    Raises:
        RemoteProtocolError: The line is not legal.
    """
    if _FIELD_LINE.fullmatch(line) is None:
        _refuse_field(line)
    return line.partition(b":")[0].lower()


def _refuse_field(line: bytes) -> NoReturn:
    """Say what is wrong with a header line that is not legal."""
    if line[:1] in (b" ", b"\t"):
        # RFC 9112, section 5.2: a server must reject a folded line or repair it.
        message = "a header line begins with a blank; folded lines are not accepted"
        raise RemoteProtocolError(message, code="folded_header")
    name, colon, _ = line.partition(b":")
    if not colon:
        message = "a header line has no colon"
    elif not name:
        message = "a header line has no name"
    elif name[-1:] in (b" ", b"\t"):
        # RFC 9112, section 5.1: must be rejected.
        message = "a header's name is followed by a blank instead of its colon"
    else:
        message = "a header's name holds a character that is not allowed in names"
    raise RemoteProtocolError(message, code="bad_header")


def _only(values: list[str], name: str, code: str) -> str | None:
    """Return the one value of *values*, None if there is none."""
    if not values:
        return None
    if len(values) > 1:
        message = f"there are {len(values)} {name} headers where one is allowed"
        raise RemoteProtocolError(message, code=code)
    return values[0]


def _body(lengths: list[str], codings: list[str], *, is_http10: bool) -> int | None:
    """Return the framing that the head asks for, None if it says nothing.

    Source: RFC 9112, section 6; where it leaves a choice, the refusal.
    """
    if codings:
        if lengths:
            message = "both Content-Length and Transfer-Encoding are given"
            raise RemoteProtocolError(message, code="ambiguous_length")
        if is_http10:
            message = "Transfer-Encoding in an HTTP/1.0 message"
            raise RemoteProtocolError(message, code="bad_transfer_encoding")
        coding = _only(codings, "Transfer-Encoding", "bad_transfer_encoding")
        if not coding:
            message = "Transfer-Encoding is empty"
            raise RemoteProtocolError(message, code="bad_transfer_encoding")
        if coding.lower() != "chunked":
            message = "Transfer-Encoding is not 'chunked', the only one understood"
            code = "unknown_transfer_coding"
            raise RemoteProtocolError(message, status=501, code=code)
        return CHUNKED
    length = _only(lengths, "Content-Length", "bad_content_length")
    if length is None:
        return None
    if _LENGTH.fullmatch(length) is None:
        message = (
            "Content-Length is not a decimal number of at most 18 digits without sign, "
            "blanks or leading zeros"
        )
        raise RemoteProtocolError(message, code="bad_content_length")
    return int(length)


def _has_option(values: list[str], option: str) -> bool:
    """Return whether *option* stands in a list that may span several headers."""
    for value in values:
        text = value.lower()
        if option in text:
            elements = [element.strip(" \t") for element in text.split(",")]
            if option in elements:
                return True
    return False


_SINGLE = ("authorization", "content-type")
"""Headers of which two would let two readers take different ones (RFC 9110, section
5.3), beside those that are checked where they are used."""

_DECISIVE = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "expect", *_SINGLE}
)
"""Headers that are looked at here; the rest is the endpoint's business."""


def _decisive(headers: Headers) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if name in _DECISIVE:
            found.setdefault(name, []).append(value)
    return found


_NONE: list[str] = []


class RequestGrammar(Grammar[RequestHead]):
    """Heads of requests.

    Args:
        peer: For ``RequestHead.peer``.
    """

    first_line = re.compile(_REQUEST_LINE)
    head = re.compile(_REQUEST_LINE + _HEAD_END)
    name = "request line"
    too_long = 414  # RFC 9112, section 3

    def __init__(self, peer: str = "") -> None:
        self._peer = peer

    def refuse(self, line: bytes) -> NoReturn:
        parts = line.split(b" ")
        if len(parts) != 3 or not all(parts):
            message = (
                "the request line is not a method, a target and a version with one "
                "space between them"
            )
            raise RemoteProtocolError(message, code="bad_request_line")
        method, _, version = parts
        if _METHOD.fullmatch(method) is None:
            message = "the method holds a character that is not allowed in methods"
            raise RemoteProtocolError(message, code="bad_method")
        if _VERSION.fullmatch(version) is None:
            message = "the request line does not end with HTTP/1.1 or HTTP/1.0"
            raise RemoteProtocolError(message, code="bad_request_line")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            message = "only HTTP/1.1 and HTTP/1.0 are served"
            raise RemoteProtocolError(message, status=505, code="http_version")
        message = "the target holds a fragment or a character that must be encoded"
        raise RemoteProtocolError(message, code="bad_target")

    def parse(self, match: re.Match[bytes], lines: Headers) -> GuardedHead[RequestHead]:
        method, target, minor = match[1].decode(), match[2].decode(), match[3]
        headers = tuple([(name.lower(), value) for name, value in lines])
        found = _decisive(headers)
        is_http10 = minor == b"0"
        if method in ("CONNECT", "TRACE"):
            # RFC 9110, section 9.1: 501 for a method that is not implemented.
            message = f"the method {method} is not implemented"
            code = "method_not_implemented"
            raise RemoteProtocolError(message, status=501, code=code)
        host = _host(found.get("host", _NONE), is_http10=is_http10)
        path, query = _split_target(method, target, host)
        body = _body(
            found.get("content-length", _NONE),
            found.get("transfer-encoding", _NONE),
            is_http10=is_http10,
        )
        for name in _SINGLE:
            if name in found:
                _only(found[name], name, "bad_header")
        wants_continue = False
        if body and "expect" in found and not is_http10:
            wants_continue = _has_option(found["expect"], "100-continue")
        head = RequestHead(
            method=method,
            path=path,
            query=query,
            headers=headers,
            lines=lines,
            version="1.0" if is_http10 else "1.1",
            peer=self._peer,
        )
        return GuardedHead(
            head,
            body or 0,
            is_http10,
            _has_option(found.get("connection", _NONE), "close"),
            wants_continue,
        )


def _host(hosts: list[str], *, is_http10: bool) -> str | None:
    """Return the Host header, checked.

    Source: RFC 9112, section 3.2: a request without exactly one valid Host is a 400.
    """
    host = _only(hosts, "Host", "bad_host")
    if host is None:
        if is_http10:
            return None
        raise RemoteProtocolError("the Host header is missing", code="bad_host")
    if _HOST.fullmatch(host) is None:
        message = "the Host header is not a name or address with an optional port"
        raise RemoteProtocolError(message, code="bad_host")
    return host


def _split_target(method: str, target: str, host: str | None) -> tuple[str, str]:
    """Return path and query, of a target in origin or absolute form."""
    if target.startswith("/"):
        path, _, query = target.partition("?")
        return path, query
    if target == "*" and method == "OPTIONS":
        return target, ""
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        message = "the target is neither a path nor an http or https URL"
        raise RemoteProtocolError(message, code="bad_target")
    authority, path, query = match.groups()
    if _HOST.fullmatch(authority) is None:
        message = "the target's authority is not a name or address with a port"
        raise RemoteProtocolError(message, code="bad_target")
    if host is not None and authority.lower() != host.lower():
        # RFC 9112, section 3.2.2: they must be identical when sent.
        message = "the target's authority and the Host header differ"
        raise RemoteProtocolError(message, code="bad_host")
    return path or "/", query or ""


class ResponseGrammar(Grammar[ResponseHead]):
    """Heads of responses."""

    first_line = re.compile(_STATUS_LINE)
    head = re.compile(_STATUS_LINE + _HEAD_END)
    name = "status line"
    too_long = 431

    def refuse(self, line: bytes) -> NoReturn:
        del line
        message = "the status line is not HTTP/1.1 or HTTP/1.0 and a status to 599"
        raise RemoteProtocolError(message, code="bad_status_line")

    def parse(
        self, match: re.Match[bytes], lines: Headers
    ) -> GuardedHead[ResponseHead]:
        status = int(match[2])
        headers = tuple([(name.lower(), value) for name, value in lines])
        found = _decisive(headers)
        is_http10 = match[1] == b"0"
        body = _body(
            found.get("content-length", _NONE),
            found.get("transfer-encoding", _NONE),
            is_http10=is_http10,
        )
        if status < 200 or status in (204, 304):
            body = 0
        elif body is None:
            body = UNTIL_CLOSE
        close = _has_option(found.get("connection", _NONE), "close")
        return GuardedHead(ResponseHead(status, headers), body, is_http10, close, False)
