"""Bedrock's Converse and ConverseStream: the row, and whole answers.

The one rule: an answer means the same whole and streamed; both are read with
``bedrock_answer``, requests are rendered by ``bedrock_request``.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/
API_runtime_Converse.html.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.base import Decoder, Losses
from tz_protocol.dialects.bedrock_answer import (
    AROUND,
    ORIGIN,
    BedrockUsage,
    ServiceTier,
    finish_of,
    read_citation,
    redacted_of,
    sealed_thought,
    tier_of,
    usage_of,
)
from tz_protocol.dialects.bedrock_errors import parse_error
from tz_protocol.dialects.bedrock_request import NATIVE, RequestRenderer
from tz_protocol.dialects.bedrock_stream import BedrockReader
from tz_protocol.dialects.deltas import joined
from tz_protocol.dialects.ids import CallIds
from tz_protocol.dialects.links import links_unless
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.outbound import encode_body, encode_others, outbound_dialect
from tz_protocol.dialects.parameters import told
from tz_protocol.dialects.streaming import AwsStream
from tz_protocol.errors import UpstreamGarbled
from tz_protocol.types.conversation import (
    Block,
    Choice,
    Completion,
    Opaque,
    Text,
    ToolCall,
)
from tz_protocol.types.http import Headers, HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.wire.json import without_nulls
from tz_protocol.wire.sigv4 import escape_segment

__all__ = ["BEDROCK", "REQUEST_ID"]

REQUEST_ID = "x-amzn-requestid"
"""Header with the vendor's id of an answer."""

_HEADERS: Headers = (("content-type", "application/json"),)


def render_request(parsed: ParsedRequest, target: Target) -> tuple[HttpRequest, Losses]:
    """Return what goes to the vendor; see ``Dialect.render_request``."""
    conversation = conversation_of(parsed)
    renderer = RequestRenderer(conversation, target)
    fields = renderer.render()
    operation = "converse-stream" if conversation.is_stream else "converse"
    body = encode_body(fields, target.extra_body)
    count = renderer.report.choices
    request = HttpRequest(
        path=f"model/{escape_segment(target.model)}/{operation}",
        headers=_HEADERS,
        body=body,
        is_stream=conversation.is_stream,
        others=encode_others(body, fields, target.extra_body, count),
    )
    return request, renderer.report.losses()


# -- whole answers --------------------------------------------------------------


class _ToolUse(msgspec.Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    type: str = ""
    input: Raw = Raw(b"{}")


class _ReasoningText(msgspec.Struct):
    text: str = ""
    signature: str = ""


class _Reasoning(msgspec.Struct, rename="camel"):
    reasoning_text: _ReasoningText | None = None
    redacted_content: str | None = None


class _Generated(msgspec.Struct):
    text: str = ""


class _Cited(msgspec.Struct):
    content: list[_Generated] = []
    citations: list[Raw] = []


class _Block(msgspec.Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Cited | None = None


class _Message(msgspec.Struct):
    content: list[Raw]


class _Output(msgspec.Struct):
    message: _Message


class _Answer(msgspec.Struct, rename="camel"):
    output: _Output
    stop_reason: str | None = None
    usage: BedrockUsage | None = None
    service_tier: ServiceTier | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
_BLOCK = msgspec.json.Decoder(_Block)
_MEMBERS = msgspec.json.Decoder(dict[str, Raw])


def parse_response(head: ResponseHead, body: bytes) -> Completion:
    """Return the whole answer in *body*.

    Raises:
        UpstreamGarbled: It is not an answer of Converse.
    """
    try:
        answer = _answer_of(body)
        blocks = _blocks(answer.output.message.content, head.get(REQUEST_ID) or "")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = "it is not an answer of Converse"
        raise UpstreamGarbled(message) from None
    has_calls = any(type(block) is ToolCall for block in blocks)
    end = finish_of(answer.stop_reason, has_calls=has_calls)
    choice = Choice(
        content=joined(blocks), finish=end.finish, native_finish=end.native_finish
    )
    return Completion(
        choices=(choice,),
        usage=usage_of(answer.usage),
        id=head.get(REQUEST_ID) or "",
        service_tier=tier_of(answer.service_tier),
    )


_INPUT = frozenset({"input"})
"""The member in which a null is the model's."""


def _answer_of(body: bytes) -> _Answer:
    try:
        return _ANSWER.decode(body)
    except msgspec.ValidationError:
        return _ANSWER.decode(without_nulls(body, _INPUT, AROUND))


def _blocks(content: list[Raw], answer_id: str) -> list[Block]:
    blocks: list[Block] = []
    ids = CallIds()
    length = calls = 0
    for raw in content:
        block = _block(raw, length)
        if block is None:
            continue
        if isinstance(block, Text):
            length += len(block.text)
        elif isinstance(block, ToolCall):
            call_id = ids.own(block.id, answer_id, 0, calls, block.name)
            if call_id != block.id:
                block = msgspec.structs.replace(block, id=call_id)
            calls += 1
        blocks.append(block)
    return blocks


def _block(raw: Raw, length: int) -> Block | None:
    """Return one block, None if there is nothing in it.

    Args:
        raw: The vendor's block.
        length: Characters of text before it.
    """
    try:
        block = _BLOCK.decode(raw)
    except msgspec.ValidationError:
        return _opaque(raw)
    if block.text is not None:
        return Text(block.text)
    if (use := block.tool_use) is not None:
        if use.type == "server_tool_use":
            return _opaque(raw)
        arguments = bytes(use.input).decode()
        if use.name == ANSWER_TOOL:
            return Text(arguments)
        return ToolCall(id=use.tool_use_id, name=use.name, arguments=arguments)
    if (thought := block.reasoning_content) is not None:
        if thought.redacted_content is not None:
            return redacted_of([thought.redacted_content])
        text = thought.reasoning_text
        return None if text is None else sealed_thought(text.text, text.signature)
    if (cited := block.citations_content) is not None:
        stretch = "".join(piece.text for piece in cited.content)
        end = length + len(stretch)
        citations = (read_citation(one, length, end) for one in cited.citations)
        return Text(stretch, UNSET, tuple(citations))
    return _opaque(raw)


def _opaque(raw: Raw) -> Opaque | None:
    """Return a block of which only its one member's name is known."""
    kind = next((name for name in _MEMBERS.decode(raw) if name != "type"), None)
    return None if kind is None else Opaque(ORIGIN, kind, raw.copy())


def stream_decoder(head: ResponseHead, limit: int) -> Decoder:
    """Return a decoder for one stream, of whose events none is over *limit* bytes."""
    return AwsStream(BedrockReader(head.get(REQUEST_ID) or ""), limit)


BEDROCK = outbound_dialect(
    "bedrock",
    render_request=render_request,
    parse_response=parse_response,
    parse_error=parse_error,
    table=told("bedrock", NATIVE),
    stream_decoder=stream_decoder,
    # Its own object store's links are the only ones that it has a word for.
    links=links_unless(lambda url: url.startswith("s3://")),
)
"""Converse, as bedrock-runtime serves it."""
