"""Asks a dummy as the flows do, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from tests.protocol.purity import no_io
from tz_protocol.machine import Context, Machine
from tz_protocol.operations import Sleep
from tz_protocol.providers.base import Reply
from tz_protocol.providers.dummy import Dummy
from tz_protocol.types.http import HttpRequest
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import ProviderSettings

START = 1_000.0
"""The clock's first time; not zero, so that a timeout taken for a deadline shows."""


@dataclass
class Answer:
    """A whole answer, and when each of its pieces came."""

    status: int
    headers: dict[str, str]
    pieces: list[bytes]
    times: list[float]
    """Seconds since the request."""

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def events(self) -> list[Any]:
        """Return what each event carries; the terminator as ``"[DONE]"``."""
        texts = self.body.decode().split("\n\n")
        assert texts.pop() == ""
        assert all(text.startswith("data: ") for text in texts)
        datas = [text.removeprefix("data: ") for text in texts]
        return [
            text if text == "[DONE]" else msgspec.json.decode(text) for text in datas
        ]


def step(machine, now):
    """Drive *machine* to its end; return its result and the time."""
    operation = machine.start(now)
    while operation is not None:
        assert type(operation) is Sleep
        now = max(now, operation.deadline)
        operation = machine.resume(None, now)
    return machine.result, now


def ask(
    name,
    body=None,
    *,
    path="chat/completions",
    key=None,
    dummy=None,
    context=None,
    deadline=START + 600.0,
    spacing="0",
    **settings,
):
    """Return the dummy's :class:`Answer` to one request, read to its end."""
    context = context or Context()
    context.now = START
    options = {} if spacing is None else {"spacing_ms": spacing}
    provider = ProviderSettings(
        name="dummy", type="dummy", model=name, options=options, **settings
    )
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    request = HttpRequest(path=path, body=data)
    secret = None if key is None else Secret(key)
    with no_io():
        flow = (dummy or Dummy()).respond(request, provider, secret, deadline, context)
        reply, now = step(Machine(flow, context), START)
        assert isinstance(reply, Reply)
        pieces, times = [], []
        while True:
            piece, now = step(Machine(reply.body(deadline), context), now)
            if not piece:
                break
            pieces.append(piece)
            times.append(round(now - START, 6))
    return Answer(reply.head.status, dict(reply.head.headers), pieces, times)


def chat(name, content="Hello", *, messages=None, members=None, **options):
    """Ask for a chat completion of one user message, or of *messages*."""
    if messages is None:
        messages = [{"role": "user", "content": content}]
    body = {"model": name, "messages": messages, **(members or {})}
    return ask(name, body, **options)


def stream(name, *, usage=True, members=None, **options):
    """Ask for a streamed chat completion."""
    asked = {"stream": True, **(members or {})}
    if usage:
        asked["stream_options"] = {"include_usage": True}
    return chat(name, members=asked, **options)
