"""Chat in OpenAI's own format, as far as the gateway interprets it.

The one rule: this is the pass-through form, in which a provider's bytes stay what they
are; what every vendor's format can say is in ``types/conversation.py``.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from tz_protocol.types.request import ParsedRequest

__all__ = ["ChatChunk", "ChatRequest"]


class ChatRequest(ParsedRequest, kw_only=True):
    """A request for a chat completion."""

    stream_options: dict[str, Raw] = {}
    """The members of ``stream_options``."""
    include_usage: bool = False
    """True if the client wants the final chunk of a stream that holds the usage."""
    is_usage_continuous: bool = False
    """True if the client wants usage in every chunk (vLLM's extension)."""


class ChatChunk(msgspec.Struct, frozen=True, gc=False):
    """One chunk of a provider's stream, unread."""

    data: bytes
    """The JSON object as the provider wrote it, without line breaks."""
    has_choices: bool = True
    """False for a chunk that holds something about the answer and nothing of it."""
    states_usage: bool | None = None
    """Whether it has the member ``usage``, and there is more in it than null: None if
    it has none."""
