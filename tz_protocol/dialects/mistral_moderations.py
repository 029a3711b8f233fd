"""OpenAI's moderations, as Mistral answers them.

The one rule: what Mistral judges is said in OpenAI's categories where they mean the
same, and in Mistral's own words beside them; nothing is said of what it does not judge.
The request is OpenAI's, text only.

Source: https://docs.mistral.ai/capabilities/guardrailing, "Moderation".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from tz_protocol.dialects.openai_fields import JsonResponse, read_answer
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS, judged
from tz_protocol.dialects.outbound import outbound_dialect
from tz_protocol.errors import UpstreamGarbled
from tz_protocol.types.http import ResponseHead

__all__ = ["MISTRAL_MODERATIONS"]

_CATEGORIES: Mapping[str, str] = {
    "sexual": "sexual",
    "hate_and_discrimination": "hate",
    "violence_and_threats": "violence",
    "dangerous_and_criminal_content": "illicit",
    "dangerous": "illicit/violent",
    "criminal": "illicit",
    "selfharm": "self-harm",
}
"""Mistral's -> OpenAI's, of both versions of the model. The others, such as health and
pii, have no counterpart."""


class _Result(msgspec.Struct):
    categories: dict[str, bool]
    category_scores: dict[str, Raw]


_RESULTS = msgspec.json.Decoder(list[_Result])


def _parse_response(head: ResponseHead, body: bytes) -> JsonResponse:
    del head
    fields = read_answer(body, "results")
    try:
        results = _RESULTS.decode(fields["results"])
    except (msgspec.DecodeError, RecursionError):
        message = "the answer's results have no categories"
        raise UpstreamGarbled(message) from None
    made = [
        judged(_renamed(one.categories), _renamed(one.category_scores))
        for one in results
    ]
    fields["results"] = Raw(msgspec.json.encode(made))
    return JsonResponse(fields=fields)


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_CATEGORIES.get(name, name): value for name, value in values.items()}


MISTRAL_MODERATIONS = outbound_dialect(
    "mistral_moderations",
    render_request=OPENAI_MODERATIONS.render_request,
    parse_response=_parse_response,
    parse_error=OPENAI_MODERATIONS.parse_error,
    table=OPENAI_MODERATIONS.table,
)
"""``/v1/moderations``."""
