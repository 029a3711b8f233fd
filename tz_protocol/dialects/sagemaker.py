"""SageMaker endpoints whose container speaks OpenAI's chat format.

The one rule: SageMaker is an envelope. What goes to the container and what it answers
is ``openai_chat``'s business; here is only where it is sent, and the event stream
around the container's own bytes, whose pieces are cut without regard to lines.

TGI's container takes three formats at the one path and tells them apart by their
members (``SagemakerRequest`` of its OpenAPI description): chat is one of them, since
version 3; so what differs between containers is the provider's deviations.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/
API_runtime_InvokeEndpointWithResponseStream.html.
"""

from __future__ import annotations

from collections import deque

import msgspec

from tz_protocol.dialects.base import Decoder, Losses
from tz_protocol.dialects.bedrock_errors import error_in_stream, parse_error
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_chat_stream import chat_decoder
from tz_protocol.dialects.openai_fields import JsonResponse
from tz_protocol.dialects.outbound import outbound_dialect
from tz_protocol.dialects.streaming import unreadable
from tz_protocol.errors import InvalidRequest, RemoteProtocolError
from tz_protocol.types.chat import ChatRequest
from tz_protocol.types.http import Headers, HttpRequest, ResponseHead
from tz_protocol.types.request import Target
from tz_protocol.types.stream import (
    StreamDone,
    StreamEvent,
    StreamFailed,
    StreamSkipped,
)
from tz_protocol.wire.eventstream import EventMessage, EventStreamDecoder
from tz_protocol.wire.sigv4 import escape_segment

__all__ = ["ENDPOINT_OPTION", "HOSTED_OPTION", "HOSTED_PROVIDERS", "SAGEMAKER"]

ENDPOINT_OPTION = "endpoint_name"
"""Key of the provider's table: which endpoint of the account."""

HOSTED_OPTION = "hosted_provider"
"""Key of the provider's table: whose format the container speaks."""

HOSTED_PROVIDERS = ("openai", "tgi")
"""Values of it."""

_EVENT_STREAM = "application/vnd.amazon.eventstream"

_WHOLE_HEADERS: Headers = (
    ("content-type", "application/json"),
    ("accept", "application/json"),
)
_STREAM_HEADERS: Headers = (
    ("content-type", "application/json"),
    ("x-amzn-sagemaker-accept", "text/event-stream"),
)


def render_request(parsed: ChatRequest, target: Target) -> tuple[HttpRequest, Losses]:
    """Return what goes to the endpoint; see ``Dialect.render_request``."""
    hosted = target.options.get(HOSTED_OPTION)
    if hosted not in HOSTED_PROVIDERS:
        words = " or ".join(HOSTED_PROVIDERS)
        message = f"The {HOSTED_OPTION} of {target.provider} must be {words}."
        raise InvalidRequest(message, code="invalid_value")
    request, losses = OPENAI_CHAT.render_request(parsed, target)
    operation = "invocations-response-stream" if request.is_stream else "invocations"
    endpoint = escape_segment(target.options.get(ENDPOINT_OPTION, ""))
    placed = msgspec.structs.replace(
        request,
        path=f"endpoints/{endpoint}/{operation}",
        headers=_STREAM_HEADERS if request.is_stream else _WHOLE_HEADERS,
    )
    return placed, losses


def parse_response(head: ResponseHead, body: bytes) -> JsonResponse:
    """Return the container's whole answer; see ``Dialect.parse_response``."""
    return OPENAI_CHAT.parse_response(head, body)


def stream_decoder(head: ResponseHead, limit: int) -> Decoder:
    """Return a decoder for one stream, of whose events none is over *limit* bytes.

    What stands in for SageMaker (a container that is reached directly) may send the
    container's bytes without the envelope.
    """
    kind = (head.get("content-type") or _EVENT_STREAM).partition(";")[0].strip()
    decoder = chat_decoder(head, limit)
    if kind.lower() == _EVENT_STREAM:
        decoder = PayloadStream(decoder, limit)
    return decoder


class PayloadStream:
    """Takes the envelope off: a ``Decoder`` around the container's own.

    Args:
        inner: Fresh; decodes what the container sent.
        limit: Bytes of one envelope.
    """

    __slots__ = ("_envelope", "_inner", "_is_at_end", "_is_over", "_out")

    def __init__(self, inner: Decoder, limit: int) -> None:
        self._inner = inner
        self._envelope = EventStreamDecoder(limit)
        self._out: deque[StreamEvent] = deque()
        self._is_at_end = False
        self._is_over = False

    @property
    def is_finished(self) -> bool:
        """True once the container has said all but usage and terminator."""
        return self._inner.is_finished

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came; call ``next_event`` until it returns None."""
        if not self._is_over:
            self._envelope.receive_data(data)

    def receive_eof(self) -> None:
        """Take the end of the stream; call ``next_event`` until it returns None."""
        self._envelope.receive_eof()
        self._is_at_end = True

    def next_event(self) -> StreamEvent | None:
        """Return the next event, or None when more bytes are needed."""
        while not self._is_over:
            event = self._out.popleft() if self._out else self._inner.next_event()
            if event is not None:
                is_last = type(event) is StreamDone or type(event) is StreamFailed
                self._is_over = is_last
                return event
            if not self._open_next():
                return None
        return None

    def _open_next(self) -> bool:
        """Open the next envelope; False if there is none and none will be."""
        try:
            message = self._envelope.next_event()
        except RemoteProtocolError as error:
            if error.code == "incomplete":
                self._inner.receive_eof()
            else:
                self._out.append(StreamFailed(unreadable(error)))
            return True
        if message is None:
            if not self._is_at_end:
                return False
            self._inner.receive_eof()
            return True
        self._take(message)
        return True

    def _take(self, message: EventMessage) -> None:
        kind = message.text(":message-type")
        if kind in ("exception", "error"):
            self._out.append(StreamFailed(error_in_stream(message)))
        elif message.text(":event-type") == "PayloadPart":
            self._inner.receive_data(message.payload)
        else:
            self._out.append(StreamSkipped("an event is of an unknown type"))


SAGEMAKER = outbound_dialect(
    "aws_sagemaker",
    render_request=render_request,  # type: ignore[arg-type]  # chat requests only
    parse_response=parse_response,
    parse_error=parse_error,
    table=OPENAI_CHAT.table,
    stream_decoder=stream_decoder,
)
"""Chat with the container behind an endpoint."""
