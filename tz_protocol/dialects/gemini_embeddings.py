"""OpenAI's embeddings, said in the words of Gemini's and of Vertex's APIs, and back.

The one rule: one request, whatever the number of texts; the vectors come back in their
order.

Sources: https://ai.google.dev/api/embeddings, "batchEmbedContents";
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/
text-embeddings-api.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from tz_protocol.dialects.base import Losses
from tz_protocol.dialects.gemini import model_path, vertex_path
from tz_protocol.dialects.gemini_errors import error_of, parse_error
from tz_protocol.dialects.losses import permitted
from tz_protocol.dialects.outbound import encode_body, outbound_dialect
from tz_protocol.dialects.parameters import Handling
from tz_protocol.dialects.vectors import FloatVectors, texts_of
from tz_protocol.errors import InvalidRequest, UpstreamError, UpstreamGarbled
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.types.usage import Usage, count_of
from tz_protocol.wire.json import NULL, encode_object

__all__ = ["GEMINI_EMBEDDINGS", "VERTEX_EMBEDDINGS"]

_HEADERS = (("content-type", "application/json"),)

_TABLE = {
    "input": Handling.TRANSLATED,
    "encoding_format": Handling.EMULATED,
    "dimensions": Handling.TRANSLATED,
    # Of the vendor's own format, said once for every text.
    "taskType": Handling.TRANSLATED,
    "title": Handling.TRANSLATED,
}
"""What is not here is dropped and named."""


def _render_gemini(parsed: ParsedRequest, target: Target) -> tuple[HttpRequest, Losses]:
    given, path = _given(parsed), model_path(target.model)
    common: dict[str, Any] = {"model": path}
    for name, theirs in (
        ("dimensions", "outputDimensionality"),
        ("taskType", "taskType"),
        ("title", "title"),
    ):
        if name in given:
            common[theirs] = given[name]
    requests = [
        {**common, "content": {"parts": [{"text": text}]}}
        for text in _texts(given, target)
    ]
    body = encode_body({"requests": requests}, target.extra_body)
    request = HttpRequest(
        path=f"{path}:batchEmbedContents", headers=_HEADERS, body=body
    )
    return request, permitted(given.keys() - _TABLE.keys(), target)


def _render_vertex(parsed: ParsedRequest, target: Target) -> tuple[HttpRequest, Losses]:
    given = _given(parsed)
    common: dict[str, Any] = {}
    if "taskType" in given:
        common["task_type"] = given["taskType"]
    if "title" in given:
        common["title"] = given["title"]
    fields: dict[str, Any] = {
        "instances": [{"content": text, **common} for text in _texts(given, target)]
    }
    if "dimensions" in given:
        fields["parameters"] = {"outputDimensionality": given["dimensions"]}
    request = HttpRequest(
        path=f"{vertex_path(target, 'google')}:predict",
        headers=_HEADERS,
        body=encode_body(fields, target.extra_body),
    )
    return request, permitted(given.keys() - _TABLE.keys(), target)


def _given(parsed: ParsedRequest) -> dict[str, Raw]:
    return {name: raw for name, raw in parsed.fields.items() if raw != NULL}


def _texts(given: dict[str, Raw], target: Target) -> list[str]:
    """Return the texts.

    Raises:
        InvalidRequest: They are tokens, which are another model's.
    """
    texts = texts_of(given.get("input", NULL))
    if texts is None:
        message = (
            f"The provider {target.provider} cannot express input. It takes a string "
            "or a list of strings."
        )
        raise InvalidRequest(message, param="input", code="unsupported_parameter")
    return texts


# -- answers --------------------------------------------------------------------


class _Values(msgspec.Struct):
    values: Raw


class _Counted(msgspec.Struct):
    promptTokenCount: int | None = None  # noqa: N815  # the vendor's spelling


class _Answer(msgspec.Struct):
    embeddings: list[_Values]
    usageMetadata: _Counted | None = None  # noqa: N815


class _Statistics(msgspec.Struct):
    token_count: float | None = None


class _Embeddings(msgspec.Struct):
    values: Raw
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct):
    embeddings: _Embeddings


class _Predictions(msgspec.Struct):
    predictions: list[_Prediction]


_ANSWER = msgspec.json.Decoder(_Answer)
_PREDICTIONS = msgspec.json.Decoder(_Predictions)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _parse_gemini(head: ResponseHead, body: bytes) -> FloatVectors:
    del head
    try:
        answer = _ANSWER.decode(body)
    except _UNREADABLE:
        raise _stated(body) from None
    counted = answer.usageMetadata
    count = None if counted is None else counted.promptTokenCount
    return _made([one.values for one in answer.embeddings], count)


def _parse_vertex(head: ResponseHead, body: bytes) -> FloatVectors:
    del head
    try:
        found = [one.embeddings for one in _PREDICTIONS.decode(body).predictions]
    except _UNREADABLE:
        raise _stated(body) from None
    counts = [
        one.statistics.token_count
        for one in found
        if one.statistics is not None and one.statistics.token_count is not None
    ]
    count = int(sum(counts)) if len(counts) == len(found) else None
    return _made([one.values for one in found], count)


def _made(vectors: Sequence[Raw], stated: int | None) -> FloatVectors:
    fields: dict[str, Raw] = {}
    count = count_of(stated)
    if count is not None:
        number = b"%d" % count
        counts = {"prompt_tokens": number, "total_tokens": number}
        fields["usage"] = Raw(encode_object(counts))
    usage = None if count is None else Usage(input_tokens=count, output_tokens=0)
    return FloatVectors(fields=fields, usage=usage, vectors=list(vectors))


def _stated(body: bytes) -> UpstreamError:
    error = error_of(body)
    if isinstance(error, UpstreamGarbled):
        return UpstreamGarbled("the answer has no embeddings")
    return error


GEMINI_EMBEDDINGS = outbound_dialect(
    "gemini_embeddings",
    render_request=_render_gemini,
    parse_response=_parse_gemini,
    parse_error=parse_error,
    table=_TABLE,
)
"""AI Studio's ``batchEmbedContents``."""

VERTEX_EMBEDDINGS = outbound_dialect(
    "vertex_embeddings",
    render_request=_render_vertex,
    parse_response=_parse_vertex,
    parse_error=parse_error,
    table=_TABLE,
)
"""Vertex's ``predict``."""
