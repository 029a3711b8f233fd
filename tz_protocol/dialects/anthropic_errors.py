"""Anthropic's errors -> what they stand for.

The one rule: its types are translated by one table, into OpenAI's types and codes and,
where an error comes inside an answer of 200, into the status that it would have had.

Source: https://platform.claude.com/docs/en/api/errors.
"""

from __future__ import annotations

import msgspec

from tz_protocol.dialects import openai_errors
from tz_protocol.errors import UpstreamError, UpstreamGarbled, UpstreamRefused
from tz_protocol.types.http import ResponseHead

__all__ = ["error_of", "parse_error"]

_WORDS: dict[str, tuple[int, str, str | None]] = {
    "invalid_request_error": (400, "invalid_request_error", None),
    "authentication_error": (401, "authentication_error", "invalid_api_key"),
    "billing_error": (402, "insufficient_quota", "insufficient_quota"),
    "permission_error": (403, "permission_error", "permission_denied"),
    "not_found_error": (404, "invalid_request_error", "model_not_found"),
    "request_too_large": (413, "invalid_request_error", "request_too_large"),
    "rate_limit_error": (429, "rate_limit_error", "rate_limit_exceeded"),
    "api_error": (500, "server_error", None),
    "timeout_error": (504, "timeout_error", "timeout"),
    "overloaded_error": (529, "server_error", "overloaded"),
}
"""The vendor's type -> the status it comes with, OpenAI's type and code."""

_TOO_LONG = "prompt is too long"
"""How the vendor's message begins for what OpenAI calls context_length_exceeded."""


def parse_error(head: ResponseHead, body: bytes) -> UpstreamRefused:
    """Return what an answer that is not 2xx stands for."""
    return _in_our_words(openai_errors.parse_error(head, body), head.status)


def error_of(data: bytes) -> UpstreamError:
    """Return what an error inside an answer of 200 stands for."""
    try:
        refused = openai_errors.refusal(msgspec.json.decode(data))
    except (msgspec.DecodeError, RecursionError):
        refused = None
    if refused is None:
        return UpstreamGarbled("an error that cannot be read")
    return _in_our_words(refused, None)


def _in_our_words(error: UpstreamRefused, status: int | None) -> UpstreamRefused:
    """Return *error* translated; its own status is a guess if *status* is None."""
    stated, kind, code = _WORDS.get(
        error.kind or "", (error.status, error.kind, error.code)
    )
    if error.message.startswith(_TOO_LONG):
        code = "context_length_exceeded"
    return UpstreamRefused(
        stated if status is None else error.status,
        error.message,
        kind=kind,
        code=code,
        param=error.param,
        retry_after=error.retry_after,
    )
