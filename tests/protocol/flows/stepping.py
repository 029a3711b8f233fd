"""A client's connection that is stepped by hand, and handlers that answer it."""

from __future__ import annotations

from tz_protocol.flows.connection import Connection, ConnectionSettings
from tz_protocol.machine import Context, Machine
from tz_protocol.operations import (
    Read,
    ReceiveBody,
    SendBody,
    SendHead,
    Write,
    WriteEof,
)
from tz_protocol.testing import take_responses
from tz_protocol.types.http import ResponseHead

FAR = 1e9
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CHUNKED = POST.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")


def ok(head):
    """Answer at once."""
    yield from SendHead(FAR, ResponseHead(200, (("content-length", "2"),)))
    yield from SendBody(FAR, b"OK", end=True)


def echo(head):
    """Send the body back as it comes."""
    yield from SendHead(FAR, ResponseHead(200))
    while piece := (yield from ReceiveBody(FAR)):
        yield from SendBody(FAR, piece)
    yield from SendBody(FAR, b"", end=True)


def receive(head):
    """Take the whole body, then answer."""
    while (yield from ReceiveBody(FAR)):
        pass
    yield from ok(head)


class Client:
    """Steps one connection by hand."""

    def __init__(self, handler=ok, render_error=None, **settings):
        self.context = Context()
        self.handle = object()
        self.clock = 1_750_000_000.0
        connection = Connection(
            self.handle,
            handler,
            context=self.context,
            settings=ConnectionSettings(**settings),
            wall_clock=lambda: self.clock,
            render_error=render_error,
        )
        self.machine = Machine(connection.run(), self.context, connection.tell)
        self.written = bytearray()
        self.notices = []
        self.now = 0.0
        self.machine.start(self.now)

    @property
    def operation(self):
        return self.machine.operation

    def take(self):
        """Take everything that is written; return the outstanding operation."""
        while type(self.operation) in (Write, WriteEof):
            if type(self.operation) is Write:
                self.written += self.operation.data
            self.machine.resume(None, self.now)
        self.notices += self.machine.notices()
        return self.operation

    def say(self, data):
        """Let *data* come; return the outstanding operation."""
        assert type(self.take()) is Read
        self.machine.resume(data, self.now)
        return self.take()

    def answers(self, methods=()):
        """Return (status, body) of every whole answer."""
        messages, rest = take_responses(bytes(self.written), methods, is_eof=False)
        assert not rest
        return [(message.status, message.body) for message in messages]
