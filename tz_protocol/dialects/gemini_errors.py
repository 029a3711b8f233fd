"""Google's errors -> what they stand for.

The one rule: the word in ``status`` decides, not the number: a key that is not valid
comes with 400, and an error inside an answer of 200 has no number of its own.

Sources: https://cloud.google.com/apis/design/errors, "Error model" and "Handling
errors"; https://ai.google.dev/gemini-api/docs/troubleshooting.
"""

from __future__ import annotations

import re
from typing import Any

from tz_protocol.dialects import openai_errors
from tz_protocol.errors import UpstreamError, UpstreamGarbled, UpstreamRefused
from tz_protocol.types.http import ResponseHead
from tz_protocol.wire.json import value_of

__all__ = ["error_of", "parse_error", "translated"]

_WORDS: dict[str, tuple[int, str, str | None]] = {
    "INVALID_ARGUMENT": (400, "invalid_request_error", None),
    "FAILED_PRECONDITION": (400, "invalid_request_error", "failed_precondition"),
    "OUT_OF_RANGE": (400, "invalid_request_error", None),
    "UNAUTHENTICATED": (401, "authentication_error", "invalid_api_key"),
    "PERMISSION_DENIED": (403, "permission_error", "permission_denied"),
    "NOT_FOUND": (404, "invalid_request_error", "model_not_found"),
    "ALREADY_EXISTS": (409, "invalid_request_error", None),
    "ABORTED": (409, "server_error", None),
    "RESOURCE_EXHAUSTED": (429, "rate_limit_error", "rate_limit_exceeded"),
    "CANCELLED": (499, "server_error", None),
    "INTERNAL": (500, "server_error", None),
    "UNKNOWN": (500, "server_error", None),
    "DATA_LOSS": (500, "server_error", None),
    "UNIMPLEMENTED": (501, "server_error", None),
    "UNAVAILABLE": (503, "server_error", "overloaded"),
    "DEADLINE_EXCEEDED": (504, "timeout_error", "timeout"),
}
"""``google.rpc.Code`` -> the status it comes with, OpenAI's type and code."""

_BAD_KEYS = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "ACCESS_TOKEN_EXPIRED"})
"""Reasons that say 400 or 401 and mean the credential."""

_TOO_LONG = re.compile(r"(?i)\btokens?\b.*\bexceeds? the maximum\b")
"""What OpenAI calls context_length_exceeded."""

_DELAY = re.compile(r"([0-9]{1,8}(?:\.[0-9]{1,9})?)s")


def parse_error(head: ResponseHead, body: bytes) -> UpstreamRefused:
    """Return what an answer that is not 2xx stands for."""
    return translated(openai_errors.parse_error(head, body), value_of(body))


def error_of(data: bytes) -> UpstreamError:
    """Return what an error inside an answer of 200 stands for."""
    value = value_of(data)
    refused = openai_errors.refusal(value)
    if refused is None:
        return UpstreamGarbled("an error that cannot be read")
    return translated(refused, value)


def translated(error: UpstreamRefused, value: Any) -> UpstreamRefused:
    """Return *error* in OpenAI's words, if *value* says it in Google's."""
    inner = _inner(value)
    word = inner.get("status")
    if not isinstance(word, str) or word not in _WORDS:
        return error
    status, kind, code = _WORDS[word]
    wait = error.retry_after
    for detail in inner.get("details") or ():
        if not isinstance(detail, dict):
            continue
        if detail.get("reason") in _BAD_KEYS:
            status, kind, code = _WORDS["UNAUTHENTICATED"]
        delay = detail.get("retryDelay")
        if wait is None and isinstance(delay, str) and (found := _DELAY.match(delay)):
            wait = min(float(found[1]), openai_errors.RETRY_AFTER_LIMIT)
    if word == "INVALID_ARGUMENT" and _TOO_LONG.search(error.message):
        code = "context_length_exceeded"
    return UpstreamRefused(
        status, error.message, kind=kind, code=code, retry_after=wait
    )


def _inner(value: Any) -> dict[str, Any]:
    """Return the error object; streams that are a list have it in their first."""
    if isinstance(value, list) and value:
        value = value[0]
    inner = value.get("error") if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}
