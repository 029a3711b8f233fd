"""Anthropic's Messages API, as providers speak it: the row, and whole answers.

The one rule: an answer means the same whole and streamed; both are read with
``anthropic_answer``, requests are rendered by ``anthropic_request``. Vertex and Bedrock
serve the same format in another envelope: their dialects use ``RequestRenderer``,
``read_message`` and ``AnthropicReader``.

Source: https://platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.dialects.anthropic_answer import (
    AROUND,
    AnthropicUsage,
    StopDetails,
    finish_of,
    read_citation,
    tier_of,
    usage_of,
)
from tz_protocol.dialects.anthropic_errors import error_of, parse_error
from tz_protocol.dialects.anthropic_messages import FORMAT, ORIGIN
from tz_protocol.dialects.anthropic_request import ANSWER_TOOL, NATIVE, RequestRenderer
from tz_protocol.dialects.anthropic_stream import AnthropicReader
from tz_protocol.dialects.base import Decoder, Losses
from tz_protocol.dialects.deltas import joined
from tz_protocol.dialects.ids import CallIds
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.outbound import encode_body, encode_others, outbound_dialect
from tz_protocol.dialects.parameters import told
from tz_protocol.dialects.streaming import SseStream
from tz_protocol.errors import UpstreamGarbled
from tz_protocol.types.conversation import (
    Block,
    Choice,
    Completion,
    Opaque,
    Refusal,
    Text,
    Thinking,
    ToolCall,
)
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.wire.json import without_nulls

__all__ = ["ANTHROPIC", "ANTHROPIC_VERSION", "read_message"]

ANTHROPIC_VERSION = "2023-06-01"
"""https://platform.claude.com/docs/en/api/versioning: what all examples send."""

_HEADERS = (
    ("content-type", "application/json"),
    ("anthropic-version", ANTHROPIC_VERSION),
)


def render_request(parsed: ParsedRequest, target: Target) -> tuple[HttpRequest, Losses]:
    """Return what goes to the vendor; see ``Dialect.render_request``."""
    conversation = conversation_of(parsed)
    renderer = RequestRenderer(conversation, target)
    fields = {"model": target.model, **renderer.render()}
    if conversation.is_stream:
        fields["stream"] = True
    body = encode_body(fields, target.extra_body)
    count = renderer.report.choices
    request = HttpRequest(
        path="messages",
        headers=_HEADERS,
        body=body,
        is_stream=conversation.is_stream,
        others=encode_others(body, fields, target.extra_body, count),
    )
    return request, renderer.report.losses()


# -- whole answers --------------------------------------------------------------


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    input: Raw | UnsetType = UNSET
    citations: list[Raw] | None = None


class _Message(msgspec.Struct):
    content: list[Raw]
    id: str = ""
    model: str = ""
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: AnthropicUsage | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_BLOCK = msgspec.json.Decoder(_Block)


def parse_response(head: ResponseHead, body: bytes) -> Completion:
    """Return the whole answer in *body*.

    Raises:
        UpstreamRefused: It states an error.
        UpstreamGarbled: It is not a message.
    """
    del head
    return read_message(body)


def read_message(body: bytes) -> Completion:
    """Return the answer that *body*, a ``message`` object, says.

    Raises:
        UpstreamRefused: It states an error.
        UpstreamGarbled: It is not a message.
    """
    try:
        message = _message_of(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = error_of(body)
        if isinstance(error, UpstreamGarbled):
            error = UpstreamGarbled("it is not a message object")
        raise error from None
    blocks: list[Block] = []
    ids = CallIds()
    length = calls = 0
    for raw in message.content:
        block = _block(raw, length)
        if isinstance(block, Text):
            length += len(block.text)
        elif isinstance(block, ToolCall):
            call_id = ids.own(block.id, message.id, 0, calls, block.name)
            if call_id != block.id:
                block = msgspec.structs.replace(block, id=call_id)
            calls += 1
        blocks.append(block)
    details = message.stop_details
    if details is not None and details.explanation:
        blocks.append(Refusal(details.explanation))
    end = finish_of(message.stop_reason, has_calls=calls > 0)
    choice = Choice(
        content=joined(blocks), finish=end.finish, native_finish=end.native_finish
    )
    return Completion(
        choices=(choice,),
        usage=usage_of(message.usage),
        id=message.id,
        model=message.model,
        service_tier=tier_of(message.usage),
    )


_INPUT = frozenset({"input"})
"""The member in which a null is the model's."""


def _message_of(body: bytes) -> _Message:
    try:
        return _MESSAGE.decode(body)
    except msgspec.ValidationError:
        pass
    try:
        return _MESSAGE.decode(without_nulls(body, _INPUT))
    except msgspec.ValidationError:
        return _MESSAGE.decode(without_nulls(body, _INPUT, AROUND))


def _block(raw: Raw, length: int) -> Block:
    """Return one block.

    Args:
        raw: The vendor's block.
        length: Characters of text before it.
    """
    try:
        block = _block_members(raw)
    except msgspec.DecodeError:
        # A kind that uses the names of the known ones for other things.
        return Opaque(ORIGIN, "", raw.copy())
    kind = block.type
    if kind == "text":
        end = length + len(block.text)
        citations = (read_citation(one, length, end) for one in block.citations or ())
        return Text(block.text, UNSET, tuple(citations))
    if kind == "tool_use":
        arguments = "{}" if block.input is UNSET else bytes(block.input).decode()
        if block.name == ANSWER_TOOL:
            return Text(arguments)
        return ToolCall(id=block.id, name=block.name, arguments=arguments)
    if kind == "thinking":
        if not block.signature:
            return Thinking(text=block.thinking)
        return Thinking(text=block.thinking, signature=block.signature, format=FORMAT)
    if kind == "redacted_thinking":
        return Thinking(data=block.data, format=FORMAT)
    return Opaque(ORIGIN, kind, raw.copy())


def _block_members(raw: Raw) -> _Block:
    try:
        return _BLOCK.decode(raw)
    except msgspec.ValidationError:
        return _BLOCK.decode(without_nulls(raw, _INPUT))


def stream_decoder(head: ResponseHead, limit: int) -> Decoder:
    """Return a decoder for one stream, of whose events none is over *limit* bytes."""
    del head
    return SseStream(AnthropicReader(), limit)


ANTHROPIC = outbound_dialect(
    "anthropic",
    render_request=render_request,
    parse_response=parse_response,
    parse_error=parse_error,
    table=told("anthropic", NATIVE),
    stream_decoder=stream_decoder,
)
"""Messages, as api.anthropic.com serves it."""
