"""Finds heads in bytes that come in pieces of any size, within bounds.

The one rule: what ``guard`` calls legal is found, anything else refused, and both
depend on the bytes alone. The usual head, come in one piece, is matched by one
expression; any other is read line by line, which also finds the words for a refusal.
"""

from __future__ import annotations

import re
from typing import Generic, NoReturn, cast

import msgspec

from tz_protocol.errors import RemoteProtocolError
from tz_protocol.types.http import Headers
from tz_protocol.wire.guard import SPECIAL, Grammar, GuardedHead, Head, field_name

__all__ = ["HeadBounds", "HeadScanner"]

_CR, _LF = 0x0D, 0x0A


class HeadBounds(msgspec.Struct, frozen=True):
    """How much of a head we read before we refuse it."""

    head_bytes: int
    line_bytes: int
    """Without the CRLF."""
    headers: int


class HeadScanner(Generic[Head]):
    """Finds the end of a head in a buffer that grows, or what is illegal in it.

    Args:
        grammar: What the heads are.
        bounds: Past them the head is refused.
    """

    __slots__ = ("_bounds", "_count", "_grammar", "_line", "_seen", "_short")

    def __init__(self, grammar: Grammar[Head], bounds: HeadBounds) -> None:
        self._grammar = grammar
        self._bounds = bounds
        self._short = min(bounds.head_bytes, bounds.line_bytes)
        """A head of so many bytes has no line and is itself not over the bounds."""
        self._line = 0
        """Where the first line begins that is not known to be legal."""
        self._seen = 0
        """Up to here that line holds no control byte."""
        self._count = 0
        """Lines that are known to be legal."""

    def scan(self, buffer: bytes) -> tuple[GuardedHead[Head], int] | None:
        """Return the head at the start of *buffer* and where it ends.

        Call again with the same bytes and more after them until it returns a head;
        the next call may then be for another one.

        Returns:
            None if the head is not complete.

        Raises:
            RemoteProtocolError: It is not legal.
        """
        bounds = self._bounds
        if not self._seen:
            end = buffer.find(b"\r\n\r\n") + 4
            if 4 <= end <= self._short:
                match = self._grammar.head.fullmatch(buffer, 0, end)
                if match is not None:
                    lines = _pairs(match)
                    if len(lines) <= bounds.headers:
                        return self._grammar.parse(match, lines), end
        end = self._scan_lines(buffer)
        if not end:
            return None
        # What is legal line by line is so as a whole.
        match = cast("re.Match[bytes]", self._grammar.head.fullmatch(buffer, 0, end))
        self._line = self._seen = self._count = 0
        return self._grammar.parse(match, _pairs(match)), end

    def _scan_lines(self, buffer: bytes) -> int:
        """Return where the head ends, 0 if its end is not there."""
        bounds, size = self._bounds, len(buffer)
        while True:
            special = SPECIAL.search(buffer, self._seen)
            stop = size if special is None else special.start()
            if stop - self._line > bounds.line_bytes:
                self._refuse_line()
            if stop > bounds.head_bytes:
                message = f"the head is over the limit of {bounds.head_bytes} bytes"
                raise RemoteProtocolError(message, status=431, code="head_too_large")
            self._seen = stop
            if not _is_line_end(buffer, stop):
                return 0
            line = buffer[self._line : stop]
            self._line = self._seen = stop + 2
            if not line and self._count:
                return stop + 2
            self._check_line(line)

    def _refuse_line(self) -> NoReturn:
        limit = self._bounds.line_bytes
        if self._count:
            message = f"a header line is over the limit of {limit} bytes"
            raise RemoteProtocolError(message, status=431, code="line_too_long")
        message = f"the {self._grammar.name} is over the limit of {limit} bytes"
        status = self._grammar.too_long
        raise RemoteProtocolError(message, status=status, code="line_too_long")

    def _check_line(self, line: bytes) -> None:
        if not self._count:
            if self._grammar.first_line.fullmatch(line) is None:
                self._grammar.refuse(line)
        else:
            field_name(line)
            if self._count > self._bounds.headers:
                message = f"there are more than {self._bounds.headers} header lines"
                raise RemoteProtocolError(message, status=431, code="too_many_headers")
        self._count += 1


def _is_line_end(buffer: bytes, stop: int) -> bool:
    """Return whether a line ends at *stop*; False if the bytes to tell are missing.

    Raises:
        RemoteProtocolError: A control byte stands there that ends no line.
    """
    size = len(buffer)
    if stop == size:
        return False
    if buffer[stop] == _CR:
        if stop + 1 == size:
            return False
        if buffer[stop + 1] == _LF:
            return True
        message = "a CR is not followed by LF; lines end with CRLF"
        raise RemoteProtocolError(message, code="bare_cr")
    if buffer[stop] == _LF:
        message = "an LF is not preceded by CR; lines end with CRLF"
        raise RemoteProtocolError(message, code="bare_lf")
    message = f"control byte 0x{buffer[stop]:02x} where only text may stand"
    raise RemoteProtocolError(message, code="control_byte")


def _pairs(match: re.Match[bytes]) -> Headers:
    """Return the names and values of a head that matched."""
    block = match[match.re.groups].decode("latin-1")
    pairs = []
    for line in block.split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        pairs.append((name, value.strip(" \t")))
    return tuple(pairs)
