"""OpenAI's moderations.

The one rule: what is judged and the judgement pass unread. A request must name its
model, although OpenAI's own may leave it out: there is no default model here.

Source: https://platform.openai.com/docs/api-reference/moderations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tz_protocol.dialects.base import Answer, Dialect, Losses
from tz_protocol.dialects.losses import permitted
from tz_protocol.dialects.openai_errors import JSON_HEADERS, parse_error, render_error
from tz_protocol.dialects.openai_fields import (
    JsonResponse,
    check_input,
    json_request,
    parse_members,
    read_answer,
    render_members,
    spliced,
)
from tz_protocol.types.http import HttpRequest, RequestHead, ResponseHead
from tz_protocol.types.request import Identity, ParsedRequest, Target
from tz_protocol.wire.json import encode_object

__all__ = ["CATEGORIES", "OPENAI_MODERATIONS", "judged"]

_encode = msgspec.json.Encoder().encode


def _parse_request(body: bytes, head: RequestHead) -> ParsedRequest:
    model, fields, extensions = parse_members(body, head)
    check_input(fields)
    return ParsedRequest(model=model, fields=fields, extensions=extensions)


def _render_request(
    parsed: ParsedRequest, target: Target
) -> tuple[HttpRequest, Losses]:
    fields, losses = render_members(parsed, target)
    return json_request("moderations", fields), permitted(losses, target)


def _parse_response(head: ResponseHead, body: bytes) -> JsonResponse:
    del head
    return JsonResponse(fields=read_answer(body, "results"))


def _render_response(
    parsed: ParsedRequest, response: JsonResponse, identity: Identity
) -> Answer:
    del parsed
    stamps = {"id": _encode(identity.id), "model": _encode(identity.model)}
    body = encode_object(spliced(response.fields, stamps))
    return ResponseHead(200, JSON_HEADERS), body


CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""All of which clients expect."""


def judged(categories: Mapping[str, bool], scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result, of a text, as OpenAI says it.

    Categories that were not judged are said to apply to no kind of input, which is how
    OpenAI says that it did not judge either.

    Args:
        categories: Those that were judged, OpenAI's and others.
        scores: Of the same categories, from 0 to 1.
    """
    applied = {name: ["text"] for name in categories}
    return {
        "flagged": any(categories.values()),
        "categories": {**categories, **_without(categories, False)},
        "category_scores": {**scores, **_without(scores, 0.0)},
        "category_applied_input_types": {**applied, **_without(applied, [])},
    }


def _without(values: Mapping[str, Any], value: Any) -> dict[str, Any]:
    return {name: value for name in CATEGORIES if name not in values}


OPENAI_MODERATIONS: Dialect[ParsedRequest, JsonResponse] = Dialect(
    name="openai_moderations",
    parse_request=_parse_request,
    render_request=_render_request,
    parse_response=_parse_response,
    render_response=_render_response,
    parse_error=parse_error,
    render_error=render_error,
)
