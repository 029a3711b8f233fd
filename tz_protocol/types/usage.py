"""Tokens as known, estimated or unknown: never a bare zero."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Usage"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer cost, in tokens, in OpenAI's sense of the words.

    A missing :class:`Usage` (None) means that the provider did not say.
    """

    input_tokens: int
    """Prompt tokens, cached ones included."""
    output_tokens: int
    """Completion tokens, reasoning included."""
    cache_read_tokens: int | None = None
    """Of the input, those read from the provider's cache; None if not said."""
    cache_write_tokens: int | None = None
    """Of the input, those written to the provider's cache; None if not said."""
    reasoning_tokens: int | None = None
    """Of the output, those spent on reasoning; None if not said."""
    quality: Literal["known", "estimated"] = "known"
    """Whether the provider said so or the gateway counted."""

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens
