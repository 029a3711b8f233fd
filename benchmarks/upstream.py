"""A fast mock upstream: parses as little as it can, answers fixed bytes.

    python -m benchmarks.upstream [PORT]

Prints the port. ``POST`` with ``"stream": true`` in the body gets a stream of 100
chunks, anything else a whole answer; there is no delay.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.bench_core import http_response, http_stream
from benchmarks.payloads import chat_response, stream

WHOLE = http_response(chat_response())
STREAM = b"".join(http_stream(stream(100)))


class Upstream(asyncio.Protocol):
    """One connection; answers when a request's body is complete."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = 0
            if (at := head.find(b"content-length:")) >= 0:
                length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            is_stream = b'"stream":true' in body or b'"stream": true' in body
            assert self._transport is not None
            self._transport.write(STREAM if is_stream else WHOLE)


async def serve(port: int) -> None:
    """Serve until cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
