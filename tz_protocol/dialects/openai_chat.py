"""OpenAI's chat completions: requests and whole answers; streams are next door.

The one rule: a member that the gateway does not act on is neither decoded nor judged:
it passes to the provider as the client wrote it, and the provider's answer to it passes
back. What is checked here is what the gateway must know itself, with the statuses,
codes and parameters that OpenAI answers with.

Source: https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import msgspec
from msgspec import Raw

from tz_protocol.dialects.base import Answer, Decoder, Dialect, Losses
from tz_protocol.dialects.losses import permitted
from tz_protocol.dialects.openai_chat_converted import AnyChatEncoder, members_of
from tz_protocol.dialects.openai_chat_links import PICTURE_LINKS
from tz_protocol.dialects.openai_chat_messages import (
    CLOSED_MESSAGES,
    NO_LINKS,
    fitted_messages,
    fitted_tools,
)
from tz_protocol.dialects.openai_chat_repairs import regular_whole
from tz_protocol.dialects.openai_chat_stream import ChatDecoder, chat_decoder
from tz_protocol.dialects.openai_errors import JSON_HEADERS, parse_error, render_error
from tz_protocol.dialects.openai_fields import (
    JsonResponse,
    empty_array,
    is_empty_array,
    json_request,
    missing,
    parse_members,
    parse_usage,
    read_answer,
    render_members,
    spliced,
)
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.chat import ChatRequest
from tz_protocol.types.conversation import Completion
from tz_protocol.types.http import HttpRequest, RequestHead, ResponseHead
from tz_protocol.types.request import Identity, Target
from tz_protocol.wire.json import (
    NULL,
    encode_object,
    kind_of_value,
    read_boolean,
    read_integer,
    read_object,
    value_of,
)

__all__ = ["OPENAI_CHAT"]

_encode = msgspec.json.Encoder().encode

_TRUE = Raw(b"true")
_USAGE_WANTED = b'{"include_usage":true}'


# -- from a client --------------------------------------------------------------


def _parse_request(body: bytes, head: RequestHead) -> ChatRequest:
    model, fields, extensions = parse_members(body, head)
    _check_messages(fields.get("messages"))
    count = fields.get("n", NULL)
    if count != NULL:
        read_integer(count, "n", 1)
    stream = fields.get("stream", NULL)
    is_stream = stream != NULL and read_boolean(stream, "stream")
    request = ChatRequest(
        model=model, is_stream=is_stream, fields=fields, extensions=extensions
    )
    options = fields.get("stream_options", NULL)
    if options != NULL:
        _read_stream_options(request, options)
    return request


def _check_messages(value: Raw | None) -> None:
    if value is None:
        raise missing("messages")
    kind = kind_of_value(value)
    if kind != "an array":
        message = (
            "Invalid type for 'messages': expected an array of objects, "
            f"but got {kind} instead."
        )
        raise InvalidRequest(message, param="messages", code="invalid_type")
    if is_empty_array(value):
        raise empty_array("messages")


def _read_stream_options(request: ChatRequest, value: Raw) -> None:
    request.stream_options = options = read_object(value, "stream_options")
    if not request.is_stream:
        message = "'stream_options' is only allowed when 'stream' is true."
        raise InvalidRequest(message, param="stream_options")
    wanted = options.get("include_usage", NULL)
    if wanted != NULL:
        path = "stream_options.include_usage"
        request.include_usage = read_boolean(wanted, path)
    request.is_usage_continuous = (
        request.include_usage and options.get("continuous_usage_stats") == _TRUE
    )


# -- to a provider --------------------------------------------------------------


def _render_request(
    parsed: ChatRequest, target: Target, quirks: frozenset[str] = frozenset()
) -> tuple[HttpRequest, Losses]:
    fields, losses = render_members(parsed, target)
    if quirks and "messages" not in target.extra_body:
        fitted, lost = fitted_messages(fields["messages"], quirks, target.model)
        fields["messages"] = fitted
        losses = tuple(sorted({*losses, *lost}))
    if CLOSED_MESSAGES in quirks:
        _close_members(fields, target)
    options = parsed.stream_options
    if "stream_options" in target.unsupported:
        if "stream_options" in losses and not _asks_more_than_usage(options):
            # Whether the usage is shown is settled between the client and us.
            losses = tuple(name for name in losses if name != "stream_options")
    elif parsed.is_stream and "stream_options" not in target.extra_body:
        # The usage is always counted, whoever wants to see it.
        if not options:
            fields["stream_options"] = _USAGE_WANTED
        elif not parsed.include_usage:
            wanted = encode_object({**options, "include_usage": _TRUE})
            fields["stream_options"] = wanted
    request = json_request("chat/completions", fields, is_stream=parsed.is_stream)
    return request, permitted(losses, target) if losses else ()


def _close_members(fields: dict[str, Raw | bytes], target: Target) -> None:
    """Leave out what is null, and complete the tools: a closed schema knows neither
    nulls nor functions without parameters."""
    own = target.extra_body
    for name in [n for n, value in fields.items() if value == NULL and n not in own]:
        del fields[name]
    if "tools" in fields and "tools" not in own:
        fields["tools"] = fitted_tools(fields["tools"])


def _asks_more_than_usage(options: Mapping[str, Raw]) -> bool:
    return any(
        name != "include_usage" and value != NULL for name, value in options.items()
    )


# -- whole answers --------------------------------------------------------------


def _parse_response(
    head: ResponseHead, body: bytes, quirks: frozenset[str] = frozenset()
) -> JsonResponse:
    del head
    fields = regular_whole(read_answer(body, "choices"), quirks)
    usage = parse_usage(value_of(fields.get("usage", NULL)))
    return JsonResponse(fields=fields, usage=usage)


def _render_response(
    parsed: ChatRequest, response: JsonResponse | Completion, identity: Identity
) -> Answer:
    del parsed
    fields = members_of(response)
    stamps = {
        "id": _encode(identity.id),
        "episode_id": _encode(identity.episode_id),
        "object": b'"chat.completion"',
        "model": _encode(identity.model),
    }
    if fields.get("created", NULL) == NULL:
        stamps["created"] = b"%d" % identity.created
    body = encode_object(spliced(fields, stamps))
    return ResponseHead(200, JSON_HEADERS), body


@lru_cache(maxsize=64)
def _adapted(quirks: frozenset[str]) -> Dialect[ChatRequest, JsonResponse]:
    """Return the format as a vendor with *quirks* speaks it."""

    def render_request(
        parsed: ChatRequest, target: Target
    ) -> tuple[HttpRequest, Losses]:
        return _render_request(parsed, target, quirks)

    def parse_response(head: ResponseHead, body: bytes) -> JsonResponse:
        return _parse_response(head, body, quirks)

    def stream_decoder(head: ResponseHead, limit: int) -> Decoder:
        del head
        return ChatDecoder(limit, quirks)

    return replace(
        OPENAI_CHAT,
        render_request=render_request,
        parse_response=parse_response,
        stream_decoder=stream_decoder,
        links=PICTURE_LINKS if NO_LINKS in quirks else None,
    )


OPENAI_CHAT: Dialect[ChatRequest, JsonResponse] = Dialect(
    name="openai_chat",
    parse_request=_parse_request,
    render_request=_render_request,
    parse_response=_parse_response,
    render_response=_render_response,
    parse_error=parse_error,
    render_error=render_error,
    stream_decoder=chat_decoder,
    stream_encoder=AnyChatEncoder,
    adapted=_adapted,
)
