"""What an outage is made of: a way to the store that can be cut, and a steady load.

The one rule: nothing here knows what a record is. The relay passes bytes on, and the
load says which answers arrived whole and how long they took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import Self

BOUND = 30.0
"""Seconds after which an answer is taken for one that never comes."""

_ID = re.compile(rb'"id":\s*"([0-9a-f-]{36})"')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST = b"data: [DONE]\n\n\r\n0\r\n\r\n"
"""How a stream ends that is whole: its last event, and the end of the chunked body."""


class Relay:
    """A TCP port that leads to another one, until it is cut.

    Args:
        target: The port that it leads to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._listen()

    def __enter__(self) -> Self:
        """Be there until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Be there no more."""
        self.cut()

    def _listen(self) -> None:
        threading.Thread(
            target=self._accept, args=(self._listener,), daemon=True
        ).start()

    def cut(self) -> None:
        """Break every connection, wherever it is, and refuse new ones."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._guard:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Lead to the target again, at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listen()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._guard:
                self._open |= {near, far}
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._guard:
            for end in (source, target):
                if end in self._open:
                    self._open.discard(end)
                else:
                    end.close()


@dataclass
class Heard:
    """What a stretch of load came to."""

    ids: list[str] = field(default_factory=list)
    """Of the answers whose last byte arrived."""
    seconds: list[float] = field(default_factory=list)
    """Of those that are no stream, from the moment at which each was due to be asked:
    a stream takes the time that its provider takes."""
    failed: int = 0
    """Requests that were not answered whole."""


class Load:
    """So many requests a second, whatever becomes of them.

    Args:
        port: Of the gateway.
        rate: Requests a second; every fourth asks for a stream.
    """

    def __init__(self, port: int, rate: int) -> None:
        self.port = port
        self._rate = rate
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._bodies = [_request(is_stream=number == 0) for number in range(4)]

    async def run(self, seconds: float) -> Heard:
        """Ask for so long, and wait for the answers."""
        loop, heard = asyncio.get_running_loop(), Heard()
        begin, asked = loop.time(), set()
        for number in range(round(seconds * self._rate)):
            due = begin + number / self._rate
            await asyncio.sleep(due - loop.time())
            asked.add(asyncio.create_task(self._ask(number, due, heard)))
        await asyncio.gather(*asked)
        return heard

    async def close(self) -> None:
        """Close the connections that are kept."""
        idle, self._idle = self._idle, []
        for _, writer in idle:
            writer.close()

    async def _ask(self, number: int, due: float, heard: Heard) -> None:
        try:
            async with asyncio.timeout(BOUND):
                answer = await self._exchange(self._bodies[number % 4])
        except (OSError, EOFError, TimeoutError):
            heard.failed += 1
            return
        found = _ID.search(answer)
        assert found, answer
        heard.ids.append(found[1].decode())
        if number % 4:
            heard.seconds.append(asyncio.get_running_loop().time() - due)

    async def _exchange(self, request: bytes) -> bytes:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            answer = bytearray()
            while not _is_whole(answer):
                piece = await reader.read(65_536)
                if not piece:
                    raise EOFError
                answer += piece
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return bytes(answer)


def _request(*, is_stream: bool) -> bytes:
    body = json.dumps(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": is_stream,
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _is_whole(answer: bytearray) -> bool:
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    assert answer.startswith(b"HTTP/1.1 200 "), bytes(answer)
    length = _LENGTH.search(answer, 0, end + 2)
    if length is None:
        return answer.endswith(_LAST)
    return len(answer) == end + 4 + int(length[1])
