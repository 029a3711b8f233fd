"""Hostile requests, seeded: the same ones in the core and over sockets.

Each is meant to be at most one request for ``/echo``; what follows it, if anything
does, is smuggled or broken and must never be served.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

__all__ = ["hostile_requests"]

BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
VALID = (
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
) + BODY


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 400))


def _tls_hello(rng: random.Random) -> bytes:
    return b"\x16\x03\x01" + rng.randbytes(rng.randrange(1, 300))


def _truncated(rng: random.Random) -> bytes:
    return VALID[: rng.randrange(1, len(VALID))]


def _flipped(rng: random.Random) -> bytes:
    """Damage the head of a valid request."""
    data = bytearray(VALID)
    end = data.index(b"\r\n\r\n")
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(end)] = rng.randrange(256)
    return bytes(data)


def _inserted(rng: random.Random) -> bytes:
    at = rng.randrange(VALID.index(b"\r\n\r\n"))
    bad = rng.choice(
        (b"\0", b"\r", b"\n", b"\x0b", b"\x7f", b"\r\n ", b"\n\t", b"\xff")
    )
    return VALID[:at] + bad + VALID[at:]


def _long_line(rng: random.Random) -> bytes:
    size = rng.choice((8_193, 20_000, 40_000, 100_000))
    return rng.choice(
        (
            b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * size + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * size + b": x\r\n\r\n",
            b"A" * size + b" / HTTP/1.1\r\nHost: a\r\n\r\n",
        )
    )


def _many_headers(rng: random.Random) -> bytes:
    count = rng.choice((101, 500, 3_000))
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(count))
    return b"GET /echo HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"


def _both_lengths(rng: random.Random) -> bytes:
    encoding = rng.choice(
        (
            b"chunked",
            b" chunked",
            b"Chunked",
            b"chunked, identity",
            b"xchunked",
            b"chunked\x0b",
            b"\tchunked",
            b"chunked,",
            b"gzip, chunked",
        )
    )
    lines = [
        b"Content-Length: " + rng.choice((b"0", b"5", b"6", b"44")),
        b"Transfer-Encoding: " + encoding,
    ]
    rng.shuffle(lines)
    return (
        b"POST /echo HTTP/1.1\r\nHost: a\r\n"
        + b"\r\n".join(lines)
        + b"\r\n\r\n0\r\n\r\n"
        + SMUGGLED
    )


def _bad_length(rng: random.Random) -> bytes:
    length = rng.choice(
        (b"+5", b"-1", b"5 5", b"5, 5", b"0x5", b"05", b"5.0", b"", b"9" * 30, b"\xb2")
    )
    return (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %s\r\n\r\nhello" % length
        + SMUGGLED
    )


def _two_lengths(rng: random.Random) -> bytes:
    first, second = rng.sample((b"0", b"5", b"10"), 2)
    return (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %s\r\n"
        b"Content-Length: %s\r\n\r\nhello" % (first, second)
    ) + SMUGGLED


def _bad_chunk(rng: random.Random) -> bytes:
    size = rng.choice(
        (
            b"5;\r\n",
            b"5 \r\n",
            b"0x5\r\n",
            b"+5\r\n",
            b"-5\r\n",
            b"5\n",
            b"5\r",
            b"5;a=\x00\r\n",
            b"FFFFFFFFFFFFFFFFF\r\n",
            b"5;" + b"a" * 10_000 + b"\r\n",
            b"\r\n",
            b"g\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
        )
    )
    return (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + size
        + b"hello\r\n0\r\nHost: evil\r\n\r\n"
        + SMUGGLED
    )


def _bad_start(rng: random.Random) -> bytes:
    return rng.choice(
        (
            b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
            b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
            b"GET /#fragment HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n" * rng.randrange(1, 5_000),
        )
    )


def _endless_trailer(rng: random.Random) -> bytes:
    lines = b"X: y\r\n" * rng.choice((10, 10_000))
    return (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n" + lines
    )


def _tiny_chunks(rng: random.Random) -> bytes:
    return (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * rng.randrange(1, 2_000)
        + rng.choice((b"0\r\n\r\n", b"", b"zz\r\n"))
    )


def _huge_body(rng: random.Random) -> bytes:
    length = rng.choice((2_000_000, 10**12, 10**17))
    return (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length
        + b"x" * rng.randrange(1, 3_000)
    )


_KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    _noise,
    _tls_hello,
    _truncated,
    _flipped,
    _flipped,
    _inserted,
    _inserted,
    _long_line,
    _many_headers,
    _both_lengths,
    _bad_length,
    _two_lengths,
    _bad_chunk,
    _bad_start,
    _endless_trailer,
    _tiny_chunks,
    _huge_body,
)


def hostile_requests(count: int, seed: int = 1) -> Iterator[bytes]:
    """Yield *count* hostile requests, the same ones for the same seed."""
    rng = random.Random(seed)
    for number in range(count):
        yield _KINDS[number % len(_KINDS)](rng)
