"""How many tokens a request may use, before anybody has counted them.

The one rule: a guess that is cheap and errs towards too many for text; ``limits.py``
puts it right when the provider has counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Raw

from tz_protocol.types.usage import Usage

__all__ = ["choices_of", "estimate"]

BYTES_PER_TOKEN = 4
"""English text; OpenAI's rule of thumb
(https://help.openai.com/en/articles/4936856-what-are-tokens-and-how-to-count-them)."""

BLOB_TOKENS = 1_000
"""For a file within the request; an image of 1024 by 1024 pixels is 765 to OpenAI's
gpt-4o (https://platform.openai.com/docs/guides/images-vision) and about 1,400 to
Anthropic (https://docs.anthropic.com/en/docs/build-with-claude/vision)."""

_BLOB = re.compile(rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{1024,}+")
"""Base64: no text has so many such characters in a row. Begins only where a run does,
or looking for it would take the square of a run's length."""

_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def estimate(body: bytes, fields: Mapping[str, Raw]) -> Usage:
    """Return the usage to expect.

    Args:
        body: As the client sent it.
        fields: Its top-level JSON members; empty for a body that is not JSON, of which
            nothing is guessed.
    """
    if not fields:
        return Usage(input_tokens=0, output_tokens=0, quality="estimated")
    blobs = [match.end() - match.start() for match in _BLOB.finditer(body)]
    text = len(body) - sum(blobs)
    output = next((n for name in _OUTPUT_LIMITS if (n := _number(fields, name))), 0)
    return Usage(
        input_tokens=-(-text // BYTES_PER_TOKEN) + BLOB_TOKENS * len(blobs),
        output_tokens=output * choices_of(fields),
        quality="estimated",
    )


def choices_of(fields: Mapping[str, Raw]) -> int:
    """Return how many answers are asked for."""
    return max(1, _number(fields, "n"))


def _number(fields: Mapping[str, Raw], name: str) -> int:
    """Return the whole number of a member; 0 if it has none, or one beyond reason."""
    raw = fields.get(name)
    text = b"" if raw is None else bytes(raw).strip()
    return int(text) if len(text) <= 9 and text.isdigit() else 0
