"""What an Anthropic answer is made of, whole or streamed: usage, ends, citations.

The one rule: here is everything that both forms must read alike.

Sources: https://platform.claude.com/docs/en/api/messages, "Returns";
.../build-with-claude/streaming; .../build-with-claude/handling-stop-reasons.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.types.conversation import Citation, Finish, Finished
from tz_protocol.types.usage import Usage, both_of, count_of

__all__ = [
    "AROUND",
    "AnthropicUsage",
    "StopDetails",
    "finish_of",
    "read_citation",
    "tier_of",
    "usage_of",
]


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class AnthropicUsage(msgspec.Struct):
    """The vendor's ``usage``, of which any member may be missing or null."""

    input_tokens: int | None = None
    """Without the cached ones."""
    output_tokens: int | None = None
    """Thinking included."""
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: str | None = None


class StopDetails(msgspec.Struct):
    """Why the vendor refused to go on."""

    explanation: str | None = None


def usage_of(*stated: AnthropicUsage | None) -> Usage | None:
    """Return the usage that *stated* add up to, None if nobody said anything.

    Args:
        stated: In the order of the stream; a later value replaces an earlier one, for
            each is the sum so far, and null or missing leaves it.
    """
    values: dict[str, int] = {}
    for usage in stated:
        if usage is not None:
            for name in _COUNTS:
                value = count_of(getattr(usage, name))
                if value is not None:
                    values[name] = value
            details = usage.output_tokens_details
            thoughts = None if details is None else count_of(details.thinking_tokens)
            if thoughts is not None:
                values["thinking"] = thoughts
    halves = both_of(values.get("input_tokens"), values.get("output_tokens"))
    if halves is None:
        return None
    given, made, quality = halves
    read = values.get("cache_read_input_tokens")
    written = values.get("cache_creation_input_tokens")
    return Usage(
        input_tokens=given + (read or 0) + (written or 0),
        output_tokens=made,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=values.get("thinking"),
        quality=quality,
    )


_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)

AROUND = frozenset({"usage", "stop_details"})
"""Members that say something about the answer: if they are not what they should be, it
is an answer all the same."""

_TIERS = {"standard": "default", "priority": "priority"}


def tier_of(usage: AnthropicUsage | None) -> str | UnsetType:
    """Return the service tier in OpenAI's words; unset if there is no such word."""
    if usage is None or usage.service_tier is None:
        return UNSET
    return _TIERS.get(usage.service_tier, UNSET)


_FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "pause_turn": "stop",
}
_SAID_BY_FINISH = frozenset({"end_turn", "tool_use", "max_tokens"})
"""Reasons that OpenAI's word for them says in full."""


def finish_of(reason: str | None, *, has_calls: bool) -> Finished:
    """Return why the answer ended.

    Args:
        reason: ``stop_reason``; None and unknown ones are ends like any other.
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


class _Citation(msgspec.Struct):
    url: str | None = None
    source: str | None = None
    title: str | None = None
    document_title: str | None = None
    cited_text: str | None = None


_CITATION = msgspec.json.Decoder(_Citation)


def read_citation(raw: Raw, start: int, end: int) -> Citation:
    """Return the neutral citation of a stretch of text."""
    try:
        value = _CITATION.decode(raw)
    except msgspec.DecodeError:
        value = _Citation()
    url = value.url
    if url is None and (value.source or "").startswith(("http://", "https://")):
        url = value.source
    title = value.title if value.title is not None else value.document_title
    return Citation(
        start=start,
        end=end,
        url=UNSET if url is None else url,
        title=UNSET if title is None else title,
        quote=UNSET if value.cited_text is None else value.cited_text,
        native=raw.copy(),
    )
