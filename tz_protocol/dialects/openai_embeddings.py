"""OpenAI's embeddings.

The one rule: vectors are never decoded, whether they are floats or base64: the encoding
that the client asked for is what the provider is asked for, and its answer passes.

Source: https://platform.openai.com/docs/api-reference/embeddings.
"""

from __future__ import annotations

import msgspec

from tz_protocol.dialects.base import Answer, Dialect, Losses
from tz_protocol.dialects.openai_errors import JSON_HEADERS, parse_error, render_error
from tz_protocol.dialects.openai_fields import (
    JsonResponse,
    check_input,
    json_request,
    parse_members,
    parse_usage,
    read_answer,
    render_members,
    spliced,
)
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.http import HttpRequest, RequestHead, ResponseHead
from tz_protocol.types.request import Identity, ParsedRequest, Target
from tz_protocol.wire.json import (
    NULL,
    encode_object,
    read_integer,
    read_string,
    value_of,
)

__all__ = ["OPENAI_EMBEDDINGS"]

_encode = msgspec.json.Encoder().encode


def _parse_request(body: bytes, head: RequestHead) -> ParsedRequest:
    model, fields, extensions = parse_members(body, head)
    check_input(fields)
    encoding = fields.get("encoding_format", NULL)
    if encoding != NULL:
        value = read_string(encoding, "encoding_format")
        if value not in ("float", "base64"):
            message = "Invalid 'encoding_format': expected 'float' or 'base64'."
            raise InvalidRequest(message, param="encoding_format", code="invalid_value")
    dimensions = fields.get("dimensions", NULL)
    if dimensions != NULL:
        read_integer(dimensions, "dimensions", 1)
    return ParsedRequest(model=model, fields=fields, extensions=extensions)


def _render_request(
    parsed: ParsedRequest, target: Target
) -> tuple[HttpRequest, Losses]:
    fields, losses = render_members(parsed, target)
    return json_request("embeddings", fields), losses


def _parse_response(head: ResponseHead, body: bytes) -> JsonResponse:
    del head
    fields = read_answer(body, "data")
    usage = parse_usage(value_of(fields.get("usage", NULL)))
    return JsonResponse(fields=fields, usage=usage)


def _render_response(
    parsed: ParsedRequest, response: JsonResponse, identity: Identity
) -> Answer:
    del parsed
    stamps = {"object": b'"list"', "model": _encode(identity.model)}
    if "id" in response.fields:
        # OpenAI's has none; Mistral's and vLLM's have.
        stamps["id"] = _encode(identity.id)
    body = encode_object(spliced(response.fields, stamps))
    return ResponseHead(200, JSON_HEADERS), body


OPENAI_EMBEDDINGS: Dialect[ParsedRequest, JsonResponse] = Dialect(
    name="openai_embeddings",
    parse_request=_parse_request,
    render_request=_render_request,
    parse_response=_parse_response,
    render_response=_render_response,
    parse_error=parse_error,
    render_error=render_error,
)
