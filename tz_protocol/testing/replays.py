"""Recorded answers of real providers, played back as scripted upstreams.

The one rule: the bytes are the recording's own; only their framing is made anew. So
people test their prompts and configurations against what a provider really sent::

    world.upstream("api.openai.com", 443, replay(read_recording(line)))

One JSON object is one recording: ``{"response": {"status": 200, "headers": {...},
"body_text": "..."}}``, with ``body_b64`` for a body that is not text, and headers as an
object or as pairs. Everything else in it is for whoever keeps it.
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import pairwise
from typing import Any

import msgspec

from tz_protocol.testing.messages import LAST_CHUNK, chunk, http_response
from tz_protocol.testing.worlds import ReceiveRequest, Send, Step, reply
from tz_protocol.types.http import Headers

__all__ = ["Recording", "read_recording", "replay"]

_FRAMING = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "keep-alive",
        "transfer-encoding",
    }
)
"""Headers that told how the bytes travelled, which they do no more."""

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider answered once."""

    status: int
    headers: Headers = ()
    """Lower-case names, without framing."""
    body: bytes = b""
    """Decoded: neither chunked nor compressed."""

    @property
    def is_stream(self) -> bool:
        """True for server-sent events and AWS's event streams."""
        kinds = (value for name, value in self.headers if name == "content-type")
        return any("event-stream" in kind or "eventstream" in kind for kind in kinds)


def read_recording(text: str | bytes) -> Recording:
    """Return the recording that one JSON object describes; next, :func:`replay` it.

    Raises:
        ValueError: It is not one; the sentence says what is missing or wrong.
    """
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        message = f"a recording is one JSON object: {error}"
        raise ValueError(message) from None
    response = value.get("response") if isinstance(value, dict) else None
    if not isinstance(response, dict):
        message = "a recording has an object `response`"
        raise ValueError(message)
    status = response.get("status")
    if not isinstance(status, int) or not 200 <= status <= 599:
        message = "`response.status` is a number from 200 to 599"
        raise ValueError(message)
    return Recording(
        status=status,
        headers=_headers(response.get("headers") or {}),
        body=_body(response),
    )


def _headers(found: Any) -> Headers:
    pairs = found.items() if isinstance(found, dict) else found
    try:
        named = [(str(name).lower(), value) for name, value in pairs]
    except (TypeError, ValueError):
        message = "`response.headers` is an object, or an array of pairs"
        raise ValueError(message) from None
    return tuple(
        (name, str(value))
        for name, values in named
        if name not in _FRAMING
        for value in (values if isinstance(values, list) else [values])
    )


def _body(response: dict[str, Any]) -> bytes:
    text, encoded = response.get("body_text"), response.get("body_b64")
    if isinstance(text, str):
        return text.encode()
    if text is None and encoded is None:
        return b""
    message = "a body is text in `body_text` or base64 in `body_b64`"
    if not isinstance(encoded, str):
        raise ValueError(message)
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError(message) from None


def replay(
    recording: Recording, *, first: float = 0.0, every: float = 0.0
) -> tuple[Step, ...]:
    """Return the steps of a server that reads one request and answers as recorded.

    Args:
        recording: A stream's events leave one by one, anything else whole.
        first: Seconds between the request and the head.
        every: Seconds before each event of a stream.
    """
    if not recording.is_stream:
        return reply(recording.status, recording.headers, recording.body, after=first)
    head = http_response(recording.status, recording.headers, framing="chunked")
    sent: list[Step] = [Send(head[: -len(LAST_CHUNK)], first)]
    sent += [Send(chunk(piece), every) for piece in _events(recording.body)]
    return (ReceiveRequest(), *sent, Send(LAST_CHUNK))


def _events(body: bytes) -> list[bytes]:
    """Return *body* in pieces that end where an event of text does."""
    ends = [match.end() for match in _EVENT_END.finditer(body)]
    edges = [0, *ends, len(body)]
    return [body[start:end] for start, end in pairwise(edges) if start < end]
