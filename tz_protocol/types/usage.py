"""Tokens as known, estimated or unknown: never a bare zero."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["MOST_TOKENS", "Usage", "both_of", "count_of"]

Quality: TypeAlias = Literal["known", "estimated"]


MOST_TOKENS = 2**53 - 1
"""More than anybody uses; every reader of JSON, and Redis' Lua, can count in these."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer cost, in tokens, in OpenAI's sense of the words.

    A missing :class:`Usage` (None) means that the provider did not say. No figure is
    below zero or beyond ``MOST_TOKENS``, or one bad answer would lower totals and give
    a caller's budget back; one that was said to be makes the whole an estimate.
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
    quality: Quality = "known"
    """``estimated``: not all of it was said by the provider."""

    def __post_init__(self) -> None:
        """Bring what no answer can have used back to what one can."""
        for name in _FIGURES:
            figure = getattr(self, name)
            if figure is not None and not 0 <= figure <= MOST_TOKENS:
                bounded = min(max(0, figure), MOST_TOKENS)
                msgspec.structs.force_setattr(self, name, bounded)
                msgspec.structs.force_setattr(self, "quality", "estimated")

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


_FIGURES = tuple(name for name in Usage.__struct_fields__ if name != "quality")


def count_of(stated: float | None) -> int | None:
    """Return a count that a provider stated, None if it can be none."""
    if stated is None or not 0 <= stated <= MOST_TOKENS:
        return None
    return int(stated)


def both_of(
    given: int | None, made: int | None, total: int | None = None
) -> tuple[int, int, Quality] | None:
    """Return input, output and how sure they are; None if nothing was said.

    A half that was not said is what the total leaves for it. Without a total it is
    shown as zero, and then the whole is no more than an estimate.

    Args:
        given: Input; None if not said.
        made: Output; None if not said.
        total: Both together; None if not said.
    """
    if given is None and made is None:
        return None
    if total is not None:
        given = max(0, total - made) if given is None and made is not None else given
        made = max(0, total - given) if made is None and given is not None else made
    quality: Quality = "estimated" if given is None or made is None else "known"
    return given or 0, made or 0, quality
