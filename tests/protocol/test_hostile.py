"""Ten thousand hostile requests through the core: nothing crashes, nothing is served
twice, and nothing is held without a bound."""

from __future__ import annotations

import random
import tracemalloc

from tests.hostile import hostile_requests
from tz_protocol.flows.connection import Connection, ConnectionSettings
from tz_protocol.machine import Context, Machine
from tz_protocol.notices import LogLine
from tz_protocol.operations import Read, ReceiveBody, SendBody, SendHead, Write
from tz_protocol.testing import take_responses
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.settings import Limits

COUNT = 10_000
FAR = 1e9
LIMITS = Limits(body_bytes=1_000_000)


class Run:
    """One connection, fed with given pieces and then the end of the stream."""

    def __init__(self, pieces):
        self.paths = []
        self.written = bytearray()
        self.context = Context()
        client = object()
        connection = Connection(
            client,
            self.handler,
            context=self.context,
            settings=ConnectionSettings(limits=LIMITS),
            wall_clock=lambda: 1_750_000_000.0,
        )
        machine = Machine(connection.run(), self.context, connection.tell)
        incoming = iter(pieces)
        operation = machine.start(0.0)
        while operation is not None:
            value = None
            if type(operation) is Read:
                value = next(incoming, b"")
            elif type(operation) is Write:
                self.written += operation.data
            operation = machine.resume(value, 0.0)
        self.bugs = [n for n in machine.notices() if isinstance(n, LogLine)]

    def handler(self, head):
        self.paths.append(head.path)
        size = 0
        while piece := (yield from ReceiveBody(FAR)):
            size += len(piece)
        body = str(size).encode()
        headers = (("content-length", str(len(body))),)
        yield from SendHead(FAR, ResponseHead(200, headers))
        yield from SendBody(FAR, body, end=True)


def split(data, rng):
    """Return *data* in pieces as a network might deliver it."""
    step = 65_536 if rng.random() < 0.5 else rng.randrange(1, 3_000)
    return [data[start : start + step] for start in range(0, len(data), step)]


def test_hostile_requests_are_refused_or_served_once():
    rng = random.Random(2)
    statuses: dict[int, int] = {}
    for data in hostile_requests(COUNT):
        run = Run(split(data, rng))
        assert not run.bugs, data[:200]
        assert "/smuggled" not in run.paths, data[:200]
        assert len(run.paths) <= 1, data[:200]
        messages, rest = take_responses(bytes(run.written), (), is_eof=False)
        assert not rest, data[:200]
        final = [message.status for message in messages if message.status >= 200]
        assert len(final) <= 2, data[:200]
        assert final[1:] == [] or (final[0] == 200 and final[1] >= 400), data[:200]
        for status in final:
            statuses[status] = statuses.get(status, 0) + 1
    assert statuses.keys() >= {200, 400, 413, 414, 431, 501, 505}


def test_hostile_requests_leave_nothing_behind():
    """One that is never ended holds no more than the limits allow."""
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nX: "
    tracemalloc.start()
    try:
        Run([head, *[b"a" * 60_000] * 200])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_server_still_answers_after_hostile_requests():
    run = Run([b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"])
    assert run.written.startswith(b"HTTP/1.1 200 ")
