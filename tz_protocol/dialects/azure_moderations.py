"""OpenAI's moderations, as Azure AI Content Safety judges texts.

The one rule: how severe it is stays to be seen. The score is the vendor's severity, of
the eight levels; a category is true from the level at which Azure's own filters block
by default. Each text is a request of its own, since the vendor takes one.

Source: https://learn.microsoft.com/rest/api/contentsafety/text-operations/analyze-text;
https://learn.microsoft.com/azure/ai-services/content-safety/concepts/harm-categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from tz_protocol.dialects.base import Losses
from tz_protocol.dialects.losses import permitted
from tz_protocol.dialects.openai_fields import JsonResponse, json_request
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS, judged
from tz_protocol.dialects.outbound import outbound_dialect
from tz_protocol.dialects.parameters import Handling
from tz_protocol.errors import InvalidRequest, UpstreamGarbled
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.wire.json import NULL, encode_object, kind_of_value

__all__ = ["ANALYZE_TEXT", "AZURE_MODERATIONS"]

ANALYZE_TEXT = "text:analyze"
"""The operation, whose path is the row's business."""

_TABLE = {
    "input": Handling.TRANSLATED,
    # Of the vendor's own format.
    "blocklistNames": Handling.PASSED,
    "categories": Handling.PASSED,
    "haltOnBlocklistHit": Handling.PASSED,
}
"""What is not here is dropped and named."""

_CATEGORIES = {
    "Hate": "hate",
    "SelfHarm": "self-harm",
    "Sexual": "sexual",
    "Violence": "violence",
}
"""Azure's -> OpenAI's; another of Azure's would keep its name."""

_BLOCKLIST = "blocklist"
"""The category of a text that is on one of the operator's own lists."""

_MEDIUM, _WORST = 4, 7
"""Of the eight levels: from where Azure's filters block by default, and the last."""


# -- requests -------------------------------------------------------------------


class _Part(msgspec.Struct, tag="text"):
    text: str


_TEXTS = msgspec.json.Decoder(list[str])
_PARTS = msgspec.json.Decoder(list[_Part])


def _render_request(
    parsed: ParsedRequest, target: Target
) -> tuple[HttpRequest, Losses]:
    given = {name: value for name, value in parsed.fields.items() if value != NULL}
    texts = _texts(given.get("input", NULL), target)
    fields: dict[str, Raw | bytes] = {
        "text": texts[0],
        "outputType": b'"EightSeverityLevels"',
    }
    losses = []
    for name, value in given.items():
        handling = _TABLE.get(name)
        if handling is None:
            losses.append(name)
        elif handling is Handling.PASSED:
            fields[name] = value
    fields.update(target.extra_body)
    others = [encode_object({**fields, "text": text}) for text in texts[1:]]
    request = msgspec.structs.replace(
        json_request(ANALYZE_TEXT, fields), others=tuple(others)
    )
    return request, permitted(losses, target)


def _texts(value: Raw, target: Target) -> list[Raw | bytes]:
    """Return what is to be judged, each text as JSON.

    Raises:
        InvalidRequest: There are pictures or too many texts.
    """
    if kind_of_value(value) == "a string":
        return [value]
    texts = _read(value)
    limit = target.emulated_choices
    if texts is None:
        hint = "It takes a string or a list of strings."
    elif len(texts) > limit:
        hint = (
            f"It is asked once for each text, and at most {limit} times "
            "(gateway.limits.emulated_choices, or pool_per_origin where that is less)."
        )
    else:
        return [msgspec.json.encode(text) for text in texts]
    message = f"The provider {target.provider} cannot express input. {hint}"
    raise InvalidRequest(message, param="input", code="unsupported_parameter")


def _read(value: Raw) -> list[str] | None:
    try:
        return _TEXTS.decode(value)
    except msgspec.DecodeError:
        pass
    try:
        # Parts are one input together; only one of them can be judged as it is meant.
        parts = _PARTS.decode(value)
    except msgspec.DecodeError:
        return None
    return [parts[0].text] if len(parts) == 1 else None


# -- answers --------------------------------------------------------------------


class _Analysis(msgspec.Struct):
    category: str
    severity: Annotated[int, Meta(ge=0, le=_WORST)] | None = None


class _Answer(msgspec.Struct, rename="camel"):
    categories_analysis: list[_Analysis]
    blocklists_match: list[Any] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


def _parse_response(head: ResponseHead, body: bytes) -> JsonResponse:
    del head
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = "the answer has no categoriesAnalysis"
        raise UpstreamGarbled(message) from None
    severities = {
        _CATEGORIES.get(one.category, one.category): one.severity or 0
        for one in answer.categories_analysis
    }
    if answer.blocklists_match:
        severities[_BLOCKLIST] = _WORST
    result = judged(
        {name: severity >= _MEDIUM for name, severity in severities.items()},
        {name: severity / _WORST for name, severity in severities.items()},
    )
    return JsonResponse(fields={"results": Raw(msgspec.json.encode([result]))})


def _join(answers: Sequence[JsonResponse]) -> JsonResponse:
    """Return the answer to all texts."""
    # Each has one result, as _parse_response made it.
    results = [bytes(answer.fields["results"])[1:-1] for answer in answers]
    return JsonResponse(fields={"results": Raw(b"[%b]" % b",".join(results))})


AZURE_MODERATIONS = outbound_dialect(
    "azure_moderations",
    render_request=_render_request,
    parse_response=_parse_response,
    parse_error=OPENAI_MODERATIONS.parse_error,
    table=_TABLE,
    join=_join,
)
"""``/contentsafety/text:analyze``."""
