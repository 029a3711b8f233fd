"""The dummy's embeddings and moderations, in OpenAI's wire format.

The one rule: an answer says nothing about its input but how much of it there was and
which of three words it held.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from tz_protocol.dialects.openai_moderations import CATEGORIES
from tz_protocol.providers.base import Reply
from tz_protocol.providers.dummy_replies import Call, Failure, json_reply, read_json

__all__ = ["answer_embeddings", "answer_moderations"]

DIMENSIONS = 1536
"""As OpenAI's text-embedding-3-small."""

MOST_DIMENSIONS = 8_192
"""Bounds the answer; vendors' own models stay under it."""

PROMPT_TOKENS = 10

_SEEN_IN_IMAGES = frozenset(
    {
        "self-harm",
        "self-harm/instructions",
        "self-harm/intent",
        "sexual",
        "violence",
        "violence/graphic",
    }
)
"""The others apply to text alone: https://platform.openai.com/docs/guides/moderation."""

_FLAGGED_WORDS = (
    ("harmful", "self-harm", 0.75),
    ("violent", "violence", 0.85),
    ("hate", "hate", 0.95),
)
"""(word, category, score)"""

_HARMLESS = 0.01


class _EmbeddingRequest(msgspec.Struct):
    input: str | list[Any]
    encoding_format: str | None = None
    dimensions: int | None = None


class _ModerationRequest(msgspec.Struct):
    input: str | list[Any]


_EMBEDDING = msgspec.json.Decoder(_EmbeddingRequest)
_MODERATION = msgspec.json.Decoder(_ModerationRequest)


def _count(value: str | list[Any]) -> int:
    """Return how many inputs there are; a list of token numbers is one.

    Raises:
        Failure: 400, if there is none.
    """
    if isinstance(value, str):
        return 1
    if not value:
        message = "input must not be empty"
        raise Failure(400, message, kind="invalid_request_error", param="input")
    return 1 if isinstance(value[0], int) else len(value)


def answer_embeddings(call: Call) -> Reply:
    """Return one vector of zeros for each input of ``embeddings``.

    Raises:
        Failure: The request is not one.
    """
    request = read_json(call, _EMBEDDING, "an embedding request")
    count = _count(request.input)
    dimensions = DIMENSIONS if request.dimensions is None else request.dimensions
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        message = f"dimensions must be from 1 to {MOST_DIMENSIONS}"
        raise Failure(400, message, kind="invalid_request_error", param="dimensions")
    vector: str | list[float] = [0.0] * dimensions
    if request.encoding_format == "base64":
        # Little-endian float32: four zero bytes a number.
        vector = base64.b64encode(bytes(4 * dimensions)).decode()
    return json_reply(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index in range(count)
            ],
            "model": call.name,
            "usage": {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS},
        }
    )


def answer_moderations(call: Call) -> Reply:
    """Return one result for each text of ``moderations``, one for a list of parts.

    Raises:
        Failure: The request is not one.
    """
    request = read_json(call, _MODERATION, "a moderation request")
    _count(request.input)
    if isinstance(request.input, str):
        results = [_result(request.input, ["text"])]
    elif isinstance(request.input[0], dict):
        results = [_multimodal_result(request.input)]
    else:
        results = [_result(str(text), ["text"]) for text in request.input]
    return json_reply(
        {
            "id": "modr-" + call.digest(12).hex(),
            "model": call.name,
            "results": results,
        }
    )


def _multimodal_result(parts: list[Any]) -> dict[str, Any]:
    items = [part for part in parts if isinstance(part, dict)]
    text = "\n".join(str(part.get("text", "")) for part in items)
    kinds = {"image" if part.get("type") == "image_url" else "text" for part in items}
    return _result(text, sorted(kinds))


def _result(text: str, kinds: list[str]) -> dict[str, Any]:
    lowered = text.lower()
    flagged = {
        category: score for word, category, score in _FLAGGED_WORDS if word in lowered
    }
    return {
        "flagged": bool(flagged),
        "categories": {category: category in flagged for category in CATEGORIES},
        "category_scores": {
            category: flagged.get(category, _HARMLESS) for category in CATEGORIES
        },
        "category_applied_input_types": {
            category: [
                kind for kind in kinds if kind == "text" or category in _SEEN_IN_IMAGES
            ]
            for category in CATEGORIES
        },
    }
