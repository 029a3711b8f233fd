"""OpenAI's embeddings, said to the embedding models of Bedrock, and back.

The one rule: numbers pass as they came. Every vendor's models have a format of their
own behind the one operation ``invoke``; which one is told by the model's name.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/
model-parameters-titan-embed-text.html, model-parameters-embed.html (Cohere v3) and
model-parameters-embed-v4.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from msgspec import Raw

from tz_protocol.dialects.base import Losses
from tz_protocol.dialects.bedrock_errors import parse_error
from tz_protocol.dialects.losses import POLICY_OPTION, permitted
from tz_protocol.dialects.outbound import encode_body, outbound_dialect
from tz_protocol.dialects.parameters import Handling
from tz_protocol.dialects.vectors import FloatVectors, texts_of
from tz_protocol.errors import InvalidRequest, UpstreamGarbled
from tz_protocol.types.http import Headers, HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.types.usage import Usage, count_of
from tz_protocol.wire.json import NULL, encode_object
from tz_protocol.wire.sigv4 import escape_segment

__all__ = ["BEDROCK_EMBEDDINGS", "INPUT_TYPE_OPTION"]

INPUT_TYPE_OPTION = "input_type"
"""Key of the provider's table: what the texts are for, where the client does not say.
OpenAI's format has no word for it and Cohere's models demand one."""

_DEFAULT_INPUT_TYPE = "search_document"

_TOKENS = "x-amzn-bedrock-input-token-count"
"""Header with what was counted, whatever the model."""

_HEADERS: Headers = (("content-type", "application/json"),)

_encode = msgspec.json.Encoder().encode

_TABLE = {
    "input": Handling.TRANSLATED,
    "encoding_format": Handling.EMULATED,
    "dimensions": Handling.TRANSLATED,
    # Of the models' own formats: Titan's, and Cohere's.
    "normalize": Handling.PASSED,
    "input_type": Handling.PASSED,
    "truncate": Handling.PASSED,
}
"""What is not here is dropped and named, and so is what only the other model has."""

Fields = dict[str, Raw]


class _Request:
    """What a client asked of one model, as its format is being made of it."""

    def __init__(self, parsed: ParsedRequest, target: Target) -> None:
        self.target = target
        self.given: Fields = {
            name: value for name, value in parsed.fields.items() if value != NULL
        }
        self.texts = self._texts()
        self.losses: set[str] = set()

    def _texts(self) -> list[str]:
        texts = texts_of(self.given.get("input", NULL))
        if texts is None:
            reason = "It takes a string or a list of strings."
            raise self.refusal("input", reason)
        return texts

    def refusal(self, name: str, reason: str) -> InvalidRequest:
        message = f"The provider {self.target.provider} cannot express {name}. {reason}"
        return InvalidRequest(message, param=name, code="unsupported_parameter")

    def refuse_dimensions(self) -> None:
        """Refuse a choice of dimensions; returns if there is none, or if the operator
        wants what means something left out too."""
        policy = self.target.options.get(POLICY_OPTION)
        if "dimensions" in self.given and policy not in ("warn", "drop"):
            raise self.refusal("dimensions", "This model has vectors of one length.")

    def rest(self, fields: Fields, renames: dict[str, str]) -> None:
        """Add the client's other members that the model knows, and name the rest."""
        for name, value in self.given.items():
            if name == "input":
                continue
            if name in renames:
                fields[renames[name]] = value
            elif _TABLE.get(name) is not Handling.EMULATED:
                self.losses.add(name)


def _titan(request: _Request) -> Fields:
    """Titan: one text at a time; the first version has no choice of dimensions."""
    if len(request.texts) != 1:
        raise request.refusal("input", "This model takes one text at a time.")
    fields: Fields = {"inputText": Raw(_encode(request.texts[0]))}
    if "embed-text-v2" in request.target.model:
        request.rest(fields, {"dimensions": "dimensions", "normalize": "normalize"})
        return fields
    request.refuse_dimensions()
    request.rest(fields, {})
    return fields


def _cohere(request: _Request) -> Fields:
    """Cohere: up to 96 texts, and a word for what they are for."""
    stated = request.target.options.get(INPUT_TYPE_OPTION, _DEFAULT_INPUT_TYPE)
    fields: Fields = {
        "texts": Raw(_encode(request.texts)),
        "input_type": Raw(_encode(stated)),
    }
    renames = {"input_type": "input_type", "truncate": "truncate"}
    if "embed-v4" in request.target.model:
        renames["dimensions"] = "output_dimension"
    else:
        request.refuse_dimensions()
    request.rest(fields, renames)
    return fields


_FORMATS: tuple[tuple[re.Pattern[str], Callable[[_Request], Fields]], ...] = (
    (re.compile(r"titan-embed-(?:text|g1)"), _titan),
    (re.compile(r"cohere\.embed"), _cohere),
)


def _render_request(
    parsed: ParsedRequest, target: Target
) -> tuple[HttpRequest, Losses]:
    render = next(
        (found for pattern, found in _FORMATS if pattern.search(target.model)), None
    )
    if render is None:
        message = (
            f"The provider {target.provider} embeds with the models Titan Text "
            "Embeddings and Cohere Embed; the configured one is neither."
        )
        raise InvalidRequest(message, param="model", code="unsupported_model")
    request = _Request(parsed, target)
    fields = render(request)
    http = HttpRequest(
        path=f"model/{escape_segment(target.model)}/invoke",
        headers=_HEADERS,
        body=encode_body(fields, target.extra_body),
    )
    return http, permitted(request.losses, request.target)


# -- answers --------------------------------------------------------------------


class _Answer(msgspec.Struct, rename="camel"):
    embedding: Raw = NULL
    """Titan's."""
    embeddings: list[Raw] | dict[str, list[Raw]] | None = None
    """Cohere's; by type, or a list of the only type that the old form has."""
    input_text_token_count: int | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


def _parse_response(head: ResponseHead, body: bytes) -> FloatVectors:
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamGarbled("the answer has no embeddings") from None
    vectors = answer.embeddings
    if isinstance(vectors, dict):
        vectors = next((found for found in vectors.values() if found), [])
    if answer.embedding != NULL:
        vectors = [answer.embedding]
    if vectors is None:
        raise UpstreamGarbled("the answer has no embeddings")
    fields: dict[str, Raw] = {}
    usage = _usage(answer, head)
    if usage is not None:
        count = b"%d" % usage.input_tokens
        counts = {"prompt_tokens": count, "total_tokens": count}
        fields["usage"] = Raw(encode_object(counts))
    return FloatVectors(fields=fields, usage=usage, vectors=vectors)


_DIGITS = 15
"""Of the greatest count that a header may state."""


def _usage(answer: _Answer, head: ResponseHead) -> Usage | None:
    count = count_of(answer.input_text_token_count)
    if count is None:
        stated = head.get(_TOKENS) or ""
        if not stated.isascii() or not stated.isdigit() or len(stated) > _DIGITS:
            return None
        count = int(stated)
    return Usage(input_tokens=count, output_tokens=0)


BEDROCK_EMBEDDINGS = outbound_dialect(
    "bedrock_embeddings",
    render_request=_render_request,
    parse_response=_parse_response,
    parse_error=parse_error,
    table=_TABLE,
)
"""``invoke`` of an embedding model."""
