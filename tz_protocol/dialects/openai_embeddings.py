"""OpenAI's embeddings.

The one rule: vectors are never decoded, whether they are floats or base64: the encoding
that the client asked for is what the provider is asked for, and its answer passes. Only
a vendor of another format that has but one encoding has its answer made into the other.
What callers rely on without looking is seen to: vectors stand in the order of their
inputs, and each says whose it is.

Source: https://platform.openai.com/docs/api-reference/embeddings.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw

from tz_protocol.dialects.base import Answer, Dialect, Losses
from tz_protocol.dialects.losses import permitted
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
from tz_protocol.dialects.vectors import FloatVectors, data_of
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
    return json_request("embeddings", fields), permitted(losses, target)


def _parse_response(head: ResponseHead, body: bytes) -> JsonResponse:
    del head
    fields = read_answer(body, "data")
    stated = value_of(fields.get("usage", NULL))
    if isinstance(stated, dict) and stated.get("prompt_tokens") is None:
        # Voyage says the total only, which is that of the input.
        stated["prompt_tokens"] = stated.get("total_tokens")
        fields["usage"] = Raw(_encode(stated))
    fields["data"] = _ordered(fields["data"])
    return JsonResponse(fields=fields, usage=parse_usage(stated))


_INDEX = re.compile(rb'"index"\s*:\s*(\d{1,9})\s*[,}]')
_VECTOR = re.compile(rb'"embedding"\s*:')
_INDEX_SIZE, _VECTOR_SIZE = len('"index'), len('"embedding')

_read_items = msgspec.json.Decoder(list[dict[str, Raw]]).decode


def _ordered(data: Raw) -> Raw:
    """Return the vectors in the order of their inputs, each with its number."""
    if _is_in_order(bytes(data)):
        return data
    try:
        items = _read_items(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # No vectors that we know: the client gets what there is.
        return data
    found = [_whole_number(value_of(item.get("index", NULL))) for item in items]
    stated = [index for index in found if index is not None]
    if len(set(stated)) == len(items):
        pairs = sorted(zip(stated, items, strict=True), key=lambda pair: pair[0])
        if pairs and pairs[0][0] == 1 and pairs[-1][0] == len(pairs):
            # Counted from 1.
            pairs = [(index - 1, item) for index, item in pairs]
    else:
        # Not numbered, or all alike: they are in order.
        pairs = list(enumerate(items))
    pieces = [encode_object({**item, "index": b"%d" % index}) for index, item in pairs]
    return Raw(b"[%b]" % b",".join(pieces))


def _is_in_order(data: bytes) -> bool:
    """Return whether every vector says its own place; cheap, since most do."""
    find, end = data.find, -1
    vectors = number = 0
    # From string to string: there are few, and between them nothing but numbers.
    while (start := find(b'"', end + 1)) >= 0:
        end = find(b'"', start + 1)
        if end - start == _INDEX_SIZE and (found := _INDEX.match(data, start)):
            if int(found[1]) != number:
                return False
            number += 1
        elif end - start == _VECTOR_SIZE and _VECTOR.match(data, start):
            vectors += 1
        elif end < 0:
            return False
    return vectors == number


def _whole_number(value: Any) -> int | None:
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _render_response(
    parsed: ParsedRequest, response: JsonResponse, identity: Identity
) -> Answer:
    fields: dict[str, Raw] = response.fields
    if isinstance(response, FloatVectors):
        # Of a vendor that has numbers only.
        is_base64 = parsed.fields.get("encoding_format") == Raw(b'"base64"')
        fields = {**fields, "data": data_of(response.vectors, is_base64=is_base64)}
    stamps = {"object": b'"list"', "model": _encode(identity.model)}
    if "id" in fields:
        # OpenAI's has none; Mistral's and vLLM's have.
        stamps["id"] = _encode(identity.id)
    body = encode_object(spliced(fields, stamps))
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
