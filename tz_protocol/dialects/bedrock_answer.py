"""What a Converse answer is made of, whole or streamed: usage, ends, citations, seals.

The one rule: here is everything that both forms must read alike.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/
API_runtime_Converse.html, "Response Syntax", and API_runtime_TokenUsage.html.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.types.conversation import Citation, Finish, Finished, Thinking
from tz_protocol.types.usage import Usage, both_of, count_of

__all__ = [
    "AROUND",
    "CLAUDE_FORMAT",
    "FORMAT",
    "ORIGIN",
    "BedrockUsage",
    "ServiceTier",
    "finish_of",
    "read_citation",
    "redacted_of",
    "sealed_thought",
    "tier_of",
    "usage_of",
]

ORIGIN = "bedrock"
"""Name of the format in which blocks that only it knows are kept."""

CLAUDE_FORMAT = "anthropic-claude-v1"
"""OpenRouter's name for Claude's seals. Of all models here only Claude's thoughts have
a signature, and it is good at Anthropic and Vertex as well: https://platform.claude.com/
docs/en/build-with-claude/extended-thinking, "Thinking encryption"."""

FORMAT = "aws-bedrock-v1"
"""Ours, for redacted thoughts that are not Claude's."""


class BedrockUsage(msgspec.Struct, rename="camel"):
    """The vendor's ``usage``, of which any member may be missing."""

    input_tokens: int | None = None
    """Without the cached ones."""
    output_tokens: int | None = None
    total_tokens: int | None = None
    """Cached ones included."""
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None


class ServiceTier(msgspec.Struct):
    """By whom the answer was paid for."""

    type: str | None = None


def usage_of(usage: BedrockUsage | None) -> Usage | None:
    """Return the usage in OpenAI's sense, None if nothing was said."""
    if usage is None:
        return None
    read = count_of(usage.cache_read_input_tokens)
    written = count_of(usage.cache_write_input_tokens)
    given, made = count_of(usage.input_tokens), count_of(usage.output_tokens)
    if given is not None:
        given += (read or 0) + (written or 0)
    halves = both_of(given, made, count_of(usage.total_tokens))
    if halves is None:
        return None
    return Usage(
        input_tokens=halves[0],
        output_tokens=halves[1],
        cache_read_tokens=read,
        cache_write_tokens=written,
        quality=halves[2],
    )


AROUND = frozenset({"usage", "serviceTier"})
"""Members that say something about the answer: if they are not what they should be, it
is an answer all the same."""

_TIERS = frozenset({"default", "flex", "priority"})


def tier_of(tier: ServiceTier | None) -> str | UnsetType:
    """Return the service tier in OpenAI's words; unset if there is no such word."""
    if tier is None or tier.type not in _TIERS:
        return UNSET
    return tier.type


_FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_SAID_BY_FINISH = frozenset({"end_turn", "tool_use", "max_tokens"})
"""Reasons that OpenAI's word for them says in full."""


def finish_of(reason: str | None, *, has_calls: bool) -> Finished:
    """Return why the answer ended.

    Args:
        reason: ``stopReason``; None and unknown ones are ends like any other.
        has_calls: Whether there is a call for the caller to answer.
    """
    finish = _FINISHES.get(reason or "", "stop")
    if finish == "stop" and has_calls:
        finish = "tool_calls"
    elif finish == "tool_calls" and not has_calls:
        finish = "stop"
    if reason is None or reason in _SAID_BY_FINISH:
        return Finished(finish=finish)
    return Finished(finish=finish, native_finish=reason)


# -- thoughts -------------------------------------------------------------------


def sealed_thought(text: str, signature: str) -> Thinking:
    """Return a thought that can be read."""
    if not signature:
        return Thinking(text=text)
    return Thinking(text=text, signature=signature, format=CLAUDE_FORMAT)


def redacted_of(pieces: Iterable[str]) -> Thinking:
    """Return a thought that cannot be read.

    Converse puts what Claude made, which is base64 already, into base64 once more;
    that is undone, so that Anthropic itself would take it back.

    Args:
        pieces: ``redactedContent`` as it came, each piece base64 by itself.
    """
    found = list(pieces)
    try:
        data = b"".join(b64decode(piece, validate=True) for piece in found)
        text = data.decode("ascii")
        b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return Thinking(data=_one_base64(found), format=FORMAT)
    return Thinking(data=text, format=CLAUDE_FORMAT)


def _one_base64(pieces: list[str]) -> str:
    if len(pieces) == 1:
        return pieces[0]
    try:
        data = b"".join(b64decode(piece, validate=True) for piece in pieces)
    except (binascii.Error, ValueError):
        return "".join(pieces)
    return b64encode(data).decode()


# -- citations ------------------------------------------------------------------


class _Text(msgspec.Struct):
    text: str = ""


class _Web(msgspec.Struct):
    url: str | None = None


class _Location(msgspec.Struct):
    web: _Web | None = None


class _Citation(msgspec.Struct, rename="camel"):
    title: str | None = None
    source: str | None = None
    source_content: list[_Text] | None = None
    location: _Location | None = None


_CITATION = msgspec.json.Decoder(_Citation)


def read_citation(raw: Raw, start: int, end: int) -> Citation:
    """Return the neutral citation of a stretch of text."""
    try:
        value = _CITATION.decode(raw)
    except msgspec.DecodeError:
        value = _Citation()
    location = value.location
    url = None if location is None or location.web is None else location.web.url
    if url is None and (value.source or "").startswith(("http://", "https://")):
        url = value.source
    quote = "".join(piece.text for piece in value.source_content or ())
    return Citation(
        start=start,
        end=end,
        url=UNSET if url is None else url,
        title=UNSET if value.title is None else value.title,
        quote=quote or UNSET,
        native=raw.copy(),
    )
