"""Cohere's v2 chat, as the vendor speaks it: the row, and whole answers.

The one rule: an answer means the same whole and streamed; both are read with
``cohere_answer``, requests are rendered by ``cohere_request``.

Source: https://docs.cohere.com/v2/reference/chat.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects.base import Decoder, Losses
from tz_protocol.dialects.cohere_answer import (
    AROUND,
    ORIGIN,
    CohereUsage,
    failure_of,
    finish_of,
    parse_error,
    read_citation,
    stated_error,
    usage_of,
)
from tz_protocol.dialects.cohere_request import ANSWER_TOOL, NATIVE, RequestRenderer
from tz_protocol.dialects.cohere_stream import CohereReader
from tz_protocol.dialects.deltas import joined
from tz_protocol.dialects.ids import CallIds
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.outbound import encode_body, encode_others, outbound_dialect
from tz_protocol.dialects.parameters import told
from tz_protocol.dialects.streaming import SseStream
from tz_protocol.types.conversation import (
    Block,
    Choice,
    Citation,
    Completion,
    Opaque,
    Text,
    Thinking,
    ToolCall,
)
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.wire.json import without_nulls

__all__ = ["COHERE_CHAT"]

_HEADERS = (("content-type", "application/json"), ("accept", "application/json"))
_STREAM_HEADERS = (
    ("content-type", "application/json"),
    ("accept", "text/event-stream"),
)


def _render_request(
    parsed: ParsedRequest, target: Target
) -> tuple[HttpRequest, Losses]:
    conversation = conversation_of(parsed)
    renderer = RequestRenderer(conversation, target)
    fields = {"model": target.model, **renderer.render()}
    is_stream = conversation.is_stream
    if is_stream:
        fields["stream"] = True
    body = encode_body(fields, target.extra_body)
    count = renderer.report.choices
    request = HttpRequest(
        path="chat",
        headers=_STREAM_HEADERS if is_stream else _HEADERS,
        body=body,
        is_stream=is_stream,
        others=encode_others(body, fields, target.extra_body, count),
    )
    return request, renderer.report.losses()


# -- whole answers --------------------------------------------------------------


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str | None = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    tool_plan: str | None = None
    tool_calls: list[_Call] | None = None
    citations: list[Raw] | None = None


class _Answer(msgspec.Struct):
    message: _Message
    id: str | None = None
    finish_reason: str | None = None
    usage: CohereUsage | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


def _parse_response(head: ResponseHead, body: bytes) -> Completion:
    del head
    try:
        answer = _answer_of(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise stated_error(body) from None
    failure = failure_of(answer.finish_reason)
    if failure is not None:
        raise failure
    message, answer_id = answer.message, answer.id or ""
    blocks = _content(message)
    if message.tool_plan:
        blocks.append(Thinking(text=message.tool_plan))
    ids = CallIds()
    calls = 0
    for call in message.tool_calls or ():
        function = call.function or _Function()
        arguments = function.arguments or "{}"
        if function.name == ANSWER_TOOL:
            blocks.append(Text(arguments))
            continue
        call_id = ids.own(call.id, answer_id, 0, calls, function.name)
        blocks.append(ToolCall(id=call_id, name=function.name, arguments=arguments))
        calls += 1
    end = finish_of(answer.finish_reason, has_calls=calls > 0)
    choice = Choice(
        content=joined(blocks), finish=end.finish, native_finish=end.native_finish
    )
    return Completion(choices=(choice,), usage=usage_of(answer.usage), id=answer_id)


def _answer_of(body: bytes) -> _Answer:
    try:
        return _ANSWER.decode(body)
    except msgspec.ValidationError:
        return _ANSWER.decode(without_nulls(body, dropped=AROUND))


def _content(message: _Message) -> list[Block]:
    """Return the blocks of ``content``, the citations at the texts that they cite."""
    content = message.content
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    blocks: list[Block] = []
    offsets: dict[int, int] = {}
    length = current = 0
    for index, block in enumerate(content or ()):
        text, thought = block.get("text"), block.get("thinking")
        if isinstance(text, str):
            offsets[index], current = length, index
            length += len(text)
            if text:
                blocks.append(Text(text))
        elif isinstance(thought, str):
            blocks.append(Thinking(text=thought))
        else:
            raw = Raw(msgspec.json.encode(block))
            blocks.append(Opaque(ORIGIN, str(block.get("type", "")), raw))
    found = [read_citation(raw, offsets, current) for raw in message.citations or ()]
    cited = tuple(one for one in found if isinstance(one, Citation))
    others = [one for one in found if isinstance(one, Opaque)]
    if cited:
        for place in reversed(range(len(blocks))):
            if isinstance(last := blocks[place], Text):
                blocks[place] = Text(last.text, UNSET, cited)
                break
    return [*blocks, *others]


def _stream_decoder(head: ResponseHead, limit: int) -> Decoder:
    del head
    return SseStream(CohereReader(), limit)


COHERE_CHAT = outbound_dialect(
    "cohere",
    render_request=_render_request,
    parse_response=_parse_response,
    parse_error=parse_error,
    table=told("cohere", NATIVE),
    stream_decoder=_stream_decoder,
)
"""``/v2/chat``."""
