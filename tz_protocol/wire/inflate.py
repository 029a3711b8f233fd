"""Content encodings of a provider's answer undone, within a bound.

The one rule: no call decodes more than a piece and no body more than its limit, so
that a small answer can fill neither the memory nor the time. One encoding at a time: a
stack of them is refused, since nobody sends one and each layer multiplies what a byte
can become. Which encodings are asked for is not decided here.
"""

from __future__ import annotations

import zlib

from tz_protocol.errors import RemoteProtocolError

__all__ = ["PIECE_BYTES", "Inflater"]

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ENCODINGS = {"gzip": _GZIP_WINDOW, "x-gzip": _GZIP_WINDOW, "deflate": zlib.MAX_WBITS}
"""Encoding -> zlib's name for its container. RFC 9110, section 8.4.1."""


PIECE_BYTES = 1_048_576
"""Most that one call decodes. A read of 64 KiB can decode to a thousand times as much,
which would hold up everything else for a tenth of a second."""


class Inflater:
    """Undoes one content encoding, piece by piece.

    Call :meth:`receive_data` with what came, again with ``b""`` while :attr:`has_more`,
    and :meth:`receive_eof` at the end.

    Args:
        encoding: Value of ``content-encoding``.
        limit: Most bytes that are decoded in all.

    Raises:
        RemoteProtocolError: The encoding is not known, or is more than one.
    """

    __slots__ = (
        "_decoder",
        "_has_begun",
        "_is_raw_possible",
        "_remaining",
        "_rest",
        "_window",
        "has_more",
    )

    def __init__(self, encoding: str, limit: int) -> None:
        window = _ENCODINGS.get(encoding.strip().lower())
        if window is None:
            message = "the content encoding is not gzip or deflate, alone"
            raise RemoteProtocolError(message, code="unknown_content_encoding")
        self._window = window
        self._remaining = limit
        self._is_raw_possible = window == zlib.MAX_WBITS
        """True until it is known whether a deflate stream has zlib's container."""
        self._rest = b""
        """What came and was not decoded."""
        self._has_begun = False
        """False: the body is empty, which stands for itself in any encoding."""
        self._decoder: zlib._Decompress | None = zlib.decompressobj(window)
        """None after a gzip member, until another one begins."""
        self.has_more = False
        """True if what came decodes to more than was returned."""

    def receive_data(self, data: bytes) -> bytes:
        """Return what comes next of the body, at most :data:`PIECE_BYTES`.

        Raises:
            RemoteProtocolError: The data is corrupt, goes on after its end, or is over
                the limit when decoded.
        """
        rest = self._rest + data
        if rest:
            self._has_begun = True
        if self._is_raw_possible:
            if len(rest) < 2:
                self._rest = rest
                return b""
            self._choose_container(rest)
        # One byte more than allowed shows that there is more.
        room = min(PIECE_BYTES, self._remaining + 1)
        pieces: list[bytes] = []
        while room and (rest or self.has_more):
            piece, rest = self._inflate(rest, room)
            pieces.append(piece)
            room -= len(piece)
            self._remaining -= len(piece)
            # zlib may hold back output for which there was no room.
            self.has_more = not room and (bool(rest) or self._decoder is not None)
        if self._remaining < 0:
            message = "the body is over the limit when it is decompressed"
            raise RemoteProtocolError(message, code="upstream_too_large")
        self._rest = rest
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _choose_container(self, data: bytes) -> None:
        """Take a deflate stream without zlib's two bytes for a raw one.

        Many servers send raw data as ``deflate``: RFC 9110, section 8.4.1.2. Two bytes
        are zlib's if they name method 8 and are a multiple of 31 (RFC 1950, section
        2.2); a raw stream that begins so would begin with bits set in a padding that
        every encoder leaves clear.
        """
        self._is_raw_possible = False
        is_zlib = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
        if not is_zlib:
            self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)

    def _inflate(self, data: bytes, room: int) -> tuple[bytes, bytes]:
        """Decode one member as far as *data* and *room* go; return what is left."""
        decoder = self._decoder
        if decoder is None:
            if self._window != _GZIP_WINDOW:
                message = "bytes follow the end of the compressed body"
                raise RemoteProtocolError(message, code="bad_content_encoding")
            decoder = self._decoder = zlib.decompressobj(self._window)
        try:
            piece = decoder.decompress(data, room)
        except zlib.error:
            message = "the compressed body is corrupt"
            raise RemoteProtocolError(message, code="bad_content_encoding") from None
        if not decoder.eof:
            return piece, decoder.unconsumed_tail
        self._decoder = None
        return piece, decoder.unused_data

    def receive_eof(self) -> None:
        """The body is over.

        Raises:
            RemoteProtocolError: The compressed stream is not: it was cut.
        """
        if self._decoder is not None and self._has_begun:
            message = "the compressed body ends before its end"
            raise RemoteProtocolError(message, code="bad_content_encoding")
