"""OpenAI's embeddings, said in the words of Cohere's v2 embed, and back.

The one rule: vectors are never decoded. The encoding that the client asked for is what
the vendor is asked for: its base64 is that of little-endian float32, as OpenAI's is.

Source: https://docs.cohere.com/v2/reference/embed.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from tz_protocol.dialects.base import Losses
from tz_protocol.dialects.cohere_answer import parse_error, stated_error
from tz_protocol.dialects.losses import permitted
from tz_protocol.dialects.openai_fields import JsonResponse, json_request
from tz_protocol.dialects.outbound import outbound_dialect
from tz_protocol.dialects.parameters import Handling
from tz_protocol.errors import InvalidRequest, UpstreamGarbled
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.types.usage import Usage, count_of
from tz_protocol.wire.json import NULL, encode_object, kind_of_value

__all__ = ["COHERE_EMBEDDINGS", "INPUT_TYPE_OPTION"]

INPUT_TYPE_OPTION = "input_type"
"""Key of the provider's table: what the texts are for, where the client does not say.
OpenAI's format has no word for it and the vendor demands one."""

_DEFAULT_INPUT_TYPE = "search_document"

_TABLE = {
    "input": Handling.TRANSLATED,
    "encoding_format": Handling.TRANSLATED,
    "dimensions": Handling.TRANSLATED,
    # Of the vendor's own format.
    "input_type": Handling.PASSED,
    "max_tokens": Handling.PASSED,
    "priority": Handling.PASSED,
    "truncate": Handling.PASSED,
}
"""What is not here is dropped and named."""

_encode = msgspec.json.Encoder().encode
_TEXTS = msgspec.json.Decoder(list[str])

_FLOAT = b'["float"]'
_BASE64 = b'["base64"]'


def _render_request(
    parsed: ParsedRequest, target: Target
) -> tuple[HttpRequest, Losses]:
    given = parsed.fields
    input_type = target.options.get(INPUT_TYPE_OPTION, _DEFAULT_INPUT_TYPE)
    is_base64 = given.get("encoding_format", NULL) == Raw(b'"base64"')
    fields: dict[str, Raw | bytes] = {
        "model": _encode(target.model),
        "texts": _texts(given, target),
        "input_type": _encode(input_type),
        "embedding_types": _BASE64 if is_base64 else _FLOAT,
    }
    losses: list[str] = []
    for name, value in given.items():
        handling = _TABLE.get(name)
        if value == NULL:
            continue
        if handling is None:
            losses.append(name)
        elif handling is Handling.PASSED:
            fields[name] = value
        elif name == "dimensions":
            fields["output_dimension"] = value
    fields.update(target.extra_body)
    return json_request("embed", fields), permitted(losses, target)


def _texts(given: dict[str, Raw], target: Target) -> Raw | bytes:
    """Return the texts as a list.

    Raises:
        InvalidRequest: They are tokens, which are another model's.
    """
    value = given.get("input", NULL)
    if kind_of_value(value) == "a string":
        return b"[%b]" % value
    try:
        _TEXTS.decode(value)
    except msgspec.DecodeError:
        message = (
            f"The provider {target.provider} cannot express input. It takes a string "
            "or a list of strings."
        )
        raise InvalidRequest(
            message, param="input", code="unsupported_parameter"
        ) from None
    return value


# -- answers --------------------------------------------------------------------


class _Units(msgspec.Struct):
    input_tokens: float | None = None
    image_tokens: float | None = None


class _Meta(msgspec.Struct):
    billed_units: _Units | None = None


class _Answer(msgspec.Struct):
    embeddings: dict[str, list[Raw] | None] | list[Raw]
    """By type; a list in the first version's form, which names none."""
    meta: _Meta | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


def _parse_response(head: ResponseHead, body: bytes) -> JsonResponse:
    del head
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = stated_error(body)
        if isinstance(error, UpstreamGarbled):
            error = UpstreamGarbled("the answer has no embeddings")
        raise error from None
    vectors = answer.embeddings
    if isinstance(vectors, dict):
        vectors = next((found for found in vectors.values() if found), [])
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vector)
        for index, vector in enumerate(vectors)
    )
    fields = {"data": Raw(b"[%b]" % data)}
    usage = _usage(answer.meta)
    if usage is not None:
        count = b"%d" % usage.input_tokens
        counts = {"prompt_tokens": count, "total_tokens": count}
        fields["usage"] = Raw(encode_object(counts))
    return JsonResponse(fields=fields, usage=usage)


def _usage(meta: _Meta | None) -> Usage | None:
    units = None if meta is None else meta.billed_units
    count = None if units is None else count_of(units.input_tokens)
    if units is None or count is None:
        return None
    images = count_of(units.image_tokens) or 0
    return Usage(input_tokens=count + images, output_tokens=0)


COHERE_EMBEDDINGS = outbound_dialect(
    "cohere_embeddings",
    render_request=_render_request,
    parse_response=_parse_response,
    parse_error=parse_error,
    table=_TABLE,
)
"""``/v2/embed``."""
