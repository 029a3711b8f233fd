"""What a Cohere answer is made of, whole or streamed: usage, ends, citations, errors.

The one rule: here is everything that both forms must read alike.

Sources: https://docs.cohere.com/v2/reference/chat and .../chat-stream;
https://docs.cohere.com/reference/errors.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tz_protocol.dialects import openai_errors
from tz_protocol.errors import UpstreamGarbled, UpstreamRefused
from tz_protocol.types.conversation import Citation, Finish, Finished, Opaque
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.usage import Usage, both_of, count_of
from tz_protocol.wire.json import value_of

__all__ = [
    "AROUND",
    "ORIGIN",
    "CohereUsage",
    "failure_of",
    "finish_of",
    "parse_error",
    "read_citation",
    "stated_error",
    "usage_of",
]

ORIGIN = "cohere"
"""Name of the format in which blocks that only it knows are kept."""


# -- usage ----------------------------------------------------------------------


class _Counts(msgspec.Struct):
    input_tokens: float | None = None
    output_tokens: float | None = None
    reasoning_tokens: float | None = None


class CohereUsage(msgspec.Struct):
    """The vendor's ``usage``, of which any member may be missing or null."""

    tokens: _Counts | None = None
    """What the model read and wrote, the vendor's own template and reasoning
    included."""
    billed_units: _Counts | None = None
    """What is charged for: the caller's text only."""
    cached_tokens: float | None = None
    """Within ``tokens.input_tokens``."""


def usage_of(usage: CohereUsage | None) -> Usage | None:
    """Return the neutral usage, None if the vendor did not say."""
    if usage is None:
        return None
    for counts in (usage.tokens, usage.billed_units):
        if counts is None:
            continue
        halves = both_of(count_of(counts.input_tokens), count_of(counts.output_tokens))
        if halves is not None:
            return Usage(
                input_tokens=halves[0],
                output_tokens=halves[1],
                quality=halves[2],
                cache_read_tokens=count_of(usage.cached_tokens),
                reasoning_tokens=count_of(counts.reasoning_tokens),
            )
    return None


AROUND = frozenset({"usage"})
"""Members that say something about the answer: if they are not what they should be, it
is an answer all the same."""


# -- ends -----------------------------------------------------------------------

_FINISHES: dict[str, Finish] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    # Of the first version of the API, which private deployments still serve.
    "ERROR_LIMIT": "length",
    "ERROR_TOXIC": "content_filter",
}
_SAID_BY_FINISH = frozenset({"COMPLETE", "MAX_TOKENS", "TOOL_CALL"})
"""Reasons that OpenAI's word for them says in full."""


def finish_of(reason: str | None, *, has_calls: bool) -> Finished:
    """Return why the answer ended.

    Args:
        reason: ``finish_reason``; unknown ones are ends like any other.
        has_calls: Whether there is a call for the caller to answer: one of the
            gateway's own answer tool is none.
    """
    finish = _FINISHES.get(reason or "", "stop")
    if finish == "stop" and has_calls:
        finish = "tool_calls"
    elif finish == "tool_calls" and not has_calls:
        finish = "stop"
    if reason is None or reason in _SAID_BY_FINISH:
        return Finished(finish=finish)
    return Finished(finish=finish, native_finish=reason)


_FAILURES = {"ERROR": 500, "TIMEOUT": 504}


def failure_of(reason: str | None, error: str | None = None) -> UpstreamRefused | None:
    """Return the error that an answer ended with, None if it is a whole answer.

    Args:
        reason: ``finish_reason``.
        error: What ``message-end`` says of it.
    """
    status = _FAILURES.get(reason or "")
    if status is None:
        return None
    return openai_errors.refusal(
        {
            "error": {
                "message": error or f"The answer ended with {reason}.",
                "code": "timeout" if status == 504 else None,
                "type": "timeout_error" if status == 504 else "server_error",
                "status": status,
            }
        }
    )


# -- citations ------------------------------------------------------------------


class _Source(msgspec.Struct):
    document: dict[str, Any] | None = None
    tool_output: dict[str, Any] | None = None


class _Citation(msgspec.Struct):
    start: int = 0
    end: int = 0
    type: str = "TEXT_CONTENT"
    content_index: int | None = None
    sources: list[_Source] | None = None


_CITATION = msgspec.json.Decoder(_Citation)


def read_citation(
    raw: Raw | bytes, offsets: dict[int, int], current: int
) -> Citation | Opaque:
    """Return the citation *raw*.

    Args:
        raw: The vendor's object.
        offsets: Number of each block of text -> characters of the answer before it.
        current: Number of the block that it is about if it does not say.

    Returns:
        An ``Opaque`` for a citation of something that is not text of the answer:
        plans and thoughts.
    """
    raw = Raw(raw).copy()
    try:
        value = _CITATION.decode(raw)
    except msgspec.DecodeError:
        return Opaque(ORIGIN, "citation", raw)
    index = current if value.content_index is None else value.content_index
    offset = offsets.get(index)
    if value.type != "TEXT_CONTENT" or offset is None:
        return Opaque(ORIGIN, "citation", raw)
    url = title = ""
    for source in value.sources or ():
        content = source.document or source.tool_output or {}
        address = content.get("url")
        if type(address) is str and address.startswith(("http://", "https://")):
            url = address
        name = content.get("title")
        title = name if type(name) is str else ""
        if url:
            break
    return Citation(
        start=offset + value.start,
        end=offset + value.end,
        url=url or UNSET,
        title=title or UNSET,
        native=raw,
    )


# -- errors ---------------------------------------------------------------------

_BY_STATUS: dict[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", None),
    401: ("authentication_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "model_not_found"),
    422: ("invalid_request_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    # https://docs.cohere.com/reference/errors: 498, a blocked word in in- or output.
    498: ("invalid_request_error", "content_filter"),
    504: ("timeout_error", "timeout"),
}
"""Status -> OpenAI's type and code: the vendor's errors have a message and no more."""

_BY_TYPE = {"TOO_MANY_TOKENS": "context_length_exceeded"}
"""The vendor's ``error_type``, which few errors have -> OpenAI's code."""


def parse_error(head: ResponseHead, body: bytes) -> UpstreamRefused:
    """Return what an answer that is not 2xx stands for."""
    return _in_our_words(openai_errors.parse_error(head, body), value_of(body))


def stated_error(data: bytes) -> UpstreamRefused | UpstreamGarbled:
    """Return what *data*, which was sent instead of an answer, stands for."""
    value = value_of(data)
    if isinstance(value, dict) and (
        isinstance(value.get("message"), str) or value.get("error")
    ):
        found = openai_errors.refusal(value, is_error=True)
        if found is not None:
            return _in_our_words(found, value)
    return UpstreamGarbled("it is not a chat answer")


def _in_our_words(error: UpstreamRefused, value: Any) -> UpstreamRefused:
    kind, code = _BY_STATUS.get(error.status, ("server_error", None))
    own = value.get("error_type") if isinstance(value, dict) else None
    if isinstance(own, str):
        code = _BY_TYPE.get(own, code)
    return UpstreamRefused(
        error.status,
        error.message,
        kind=kind,
        code=code,
        retry_after=error.retry_after,
    )
