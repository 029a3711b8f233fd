"""What the dummy's answers are made of: heads, bodies in pieces, pauses, failures.

The one rule: nothing here depends on what was asked for; ``dummy_chat``,
``dummy_embeddings`` and ``dummy_audio`` decide what is answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from tz_protocol.errors import OperationTimeout
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, Sleep
from tz_protocol.providers.base import Reply
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.settings import ProviderSettings

__all__ = [
    "DONE",
    "Call",
    "Failure",
    "Step",
    "event",
    "json_reply",
    "pause",
    "read_json",
    "streamed_reply",
    "whole_reply",
]

B = TypeVar("B")

Step = tuple[float, bytes]
"""(seconds to wait first, the next piece of the body)."""

DONE = b"data: [DONE]\n\n"
"""What ends a stream of chat completion chunks."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the dummy."""

    request: HttpRequest
    settings: ProviderSettings
    context: Context
    spacing: float
    """Seconds between two pieces of a stream."""

    @property
    def name(self) -> str:
        """The model's name at this provider: the behaviour that is asked for."""
        return self.settings.model

    def digest(self, size: int) -> bytes:
        """Return *size* bytes that are the same for the same request."""
        return hashlib.blake2b(self.request.body, digest_size=size).digest()


class Failure(Exception):
    """The dummy answers with an error status.

    Args:
        status: HTTP status.
        message: OpenAI's ``error.message``.
        kind: OpenAI's ``error.type``.
        code: OpenAI's ``error.code``.
        param: OpenAI's ``error.param``.
        raw: For the behaviours that have one, an extra member ``raw_response``.
        retry_after: Seconds, for the header of that name.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "server_error",
        code: str | None = None,
        param: str | None = None,
        raw: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.raw = raw
        self.retry_after = retry_after

    def body(self) -> bytes:
        """Return OpenAI's error JSON."""
        members: dict[str, Any] = {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }
        if self.raw is not None:
            members["raw_response"] = self.raw
        return _encode(members)

    def reply(self) -> Reply:
        """Return the whole answer."""
        reply = whole_reply("application/json", self.body(), self.status)
        if self.retry_after is None:
            return reply
        retry = ("retry-after", str(self.retry_after))
        head = ResponseHead(self.status, (*reply.head.headers, retry))
        return Reply(head, reply.body)


def read_json(call: Call, decoder: msgspec.json.Decoder[B], what: str) -> B:
    """Return the request's body as *decoder* reads it.

    Raises:
        Failure: 400, if it is not *what* was expected.
    """
    try:
        return decoder.decode(call.request.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"The body is not {what}: {error}"
        raise Failure(400, message, kind="invalid_request_error") from None


def pause(context: Context, seconds: float, deadline: float) -> Flow[None]:
    """Wait, but not beyond *deadline*.

    Raises:
        OperationTimeout: The deadline came first.
    """
    until = context.now + seconds
    yield from Sleep(min(until, deadline))
    if until > deadline:
        raise OperationTimeout("read")


class _Body:
    """The pieces of one answer, in order, each after its pause.

    A read that times out loses nothing: the next one goes on waiting.
    """

    __slots__ = ("_context", "_due", "_steps")

    def __init__(self, steps: Iterator[Step], context: Context | None) -> None:
        self._steps = steps
        self._context = context
        self._due: tuple[float, bytes] | None = None
        """The piece that is waited for, and when it comes."""

    def next_piece(self, deadline: float) -> Flow[bytes]:
        """Return the next piece, ``b""`` at the end."""
        context = self._context
        if self._due is None:
            step = next(self._steps, None)
            if step is None:
                return b""
            seconds, data = step
            if seconds <= 0 or context is None:
                return data
            self._due = (context.now + seconds, data)
        due, data = self._due
        if context is not None and due > context.now:
            yield from pause(context, due - context.now, deadline)
        self._due = None
        return data


def whole_reply(content_type: str, body: bytes, status: int = 200) -> Reply:
    """Return an answer that is there at once."""
    head = ResponseHead(
        status, (("content-type", content_type), ("content-length", str(len(body))))
    )
    return Reply(head, _Body(iter(((0.0, body),)), None).next_piece)


def json_reply(value: object) -> Reply:
    """Return *value* as a whole JSON answer."""
    return whole_reply("application/json", _encode(value))


def streamed_reply(content_type: str, steps: Iterable[Step], call: Call) -> Reply:
    """Return an answer that comes piece by piece."""
    head = ResponseHead(200, (("content-type", content_type),))
    return Reply(head, _Body(iter(steps), call.context).next_piece)


def event(value: object) -> bytes:
    """Return one server-sent event that carries *value* as JSON."""
    return b"data: " + _encode(value) + b"\n\n"
