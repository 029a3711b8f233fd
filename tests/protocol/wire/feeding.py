"""Runs a codec over bytes in pieces and says what it made of them.

A verdict holds everything that an observer could see and nothing of how the bytes were
split, so two splits of the same bytes must give equal verdicts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from tz_protocol.errors import RemoteProtocolError
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.settings import Limits
from tz_protocol.wire.http1 import BodyChunk, ClientCodec, EndOfBody, ServerCodec

LIMITS = Limits()
ANSWER = ResponseHead(200, (("content-length", "0"),))


@dataclass
class Verdict:
    """What became of one stream of bytes."""

    messages: list = field(default_factory=list)
    """(head, body) of each one that was complete."""
    partial: tuple = ()
    """(head, body so far) of the one that was not, if its head was."""
    status: int = 0
    """Of the refusal; 0 if nothing was refused."""
    code: str = ""
    """Of the refusal; ``incomplete`` if the stream ended within a message."""
    is_closed: bool = False
    """True if the connection is not used for what may follow the last message."""

    @property
    def is_refused(self):
        return self.status != 0 and self.code != "incomplete"

    @property
    def is_whole(self):
        """True if there are only complete messages."""
        return not self.status and bool(self.messages)


class _Watch:
    """Takes a codec's events; subclasses say what follows a complete message."""

    def __init__(self, codec):
        self.codec = codec
        self.verdict = Verdict()
        self.head = None
        self.body = []

    def take(self):
        """Take all events there are; returns False once there can be no more."""
        verdict = self.verdict
        while True:
            try:
                event = self.codec.next_event()
            except RemoteProtocolError as error:
                verdict.status, verdict.code = error.status, error.code
                return False
            if event is None:
                return True
            if isinstance(event, BodyChunk):
                assert event.data
                self.body.append(event.data)
            elif isinstance(event, EndOfBody):
                verdict.messages.append((self.head, b"".join(self.body)))
                self.head, self.body = None, []
                if not self.go_on():
                    return False
            else:
                assert isinstance(event, RequestHead | ResponseHead)
                self.head = event

    def go_on(self):
        """A message is whole; returns whether another one may follow."""
        raise NotImplementedError

    def run(self, pieces, *, is_eof):
        for piece in pieces:
            self.codec.receive_data(piece)
            if not self.take():
                break
        else:
            self.end(is_eof)
        if self.head is not None:
            self.verdict.partial = (self.head, b"".join(self.body))
        return self.verdict

    def end(self, is_eof):
        if is_eof:
            self.codec.receive_eof()
            self.take()


class _Server(_Watch):
    """Answers each request, and takes the next one if the codec lets it."""

    def go_on(self):
        codec = self.codec
        codec.send_head(ANSWER)
        codec.send_end()
        self.verdict.is_closed = not codec.can_reuse
        if codec.can_reuse:
            codec.start_next_cycle()
        return not self.verdict.is_closed


class _Client(_Watch):
    """Asks once: what follows the response is nothing that was asked for."""

    def go_on(self):
        return True

    def end(self, is_eof):
        if self.verdict.messages:
            self.verdict.is_closed = not self.codec.is_reusable
        super().end(is_eof)


def ask(codec):
    """Send a request that any response may answer."""
    return codec.send_request("POST", "/", (("host", "a"),), b"")


def serve(pieces, *, limits=LIMITS, is_eof=True):
    """Answer each request in *pieces* with 200 and return the verdict on them."""
    return _Server(ServerCodec(limits)).run(pieces, is_eof=is_eof)


def call(pieces, *, limits=LIMITS, is_eof=True):
    """Take *pieces* for responses to requests and return the verdict on them."""
    codec = ClientCodec(limits)
    ask(codec)
    return _Client(codec).run(pieces, is_eof=is_eof)


def in_bytes(data):
    """Return *data* byte by byte."""
    return [data[at : at + 1] for at in range(len(data))]


def cut(data, places):
    """Return *data* cut at *places*, without empty pieces."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]
