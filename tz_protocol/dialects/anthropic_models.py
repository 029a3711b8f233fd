"""What the generations of Claude differ in, by name.

The one rule: only what a request must be built around is here, and a name that is not
known is taken for a new model: proxies and private names must not cost capabilities.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

__all__ = ["Generation", "generation_of"]


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model takes."""

    max_tokens: int
    """The most that it can answer; ``max_tokens`` where the client sets none."""
    thinking: Literal["none", "budget", "adaptive"]
    """Whether it thinks, and whether it wants to be told how many tokens for."""
    has_format: bool
    """True if it takes ``output_config.format``."""
    has_strict_tools: bool
    """True if it takes ``strict`` on tools."""
    has_exclusive_sampling: bool
    """True if it refuses ``temperature`` and ``top_p`` together."""


# https://platform.claude.com/docs/en/about-claude/models/overview, "Max output";
# .../build-with-claude/structured-outputs, extended-thinking and adaptive-thinking,
# "Supported models".
_CLAUDE_3 = Generation(4_096, "none", False, False, False)
_CLAUDE_3_5 = Generation(8_192, "none", False, False, False)
_CLAUDE_3_7 = Generation(64_000, "budget", False, False, False)
_CLAUDE_4 = Generation(32_000, "budget", False, False, False)
_CLAUDE_4_1 = Generation(32_000, "budget", True, True, True)
_CLAUDE_4_5 = Generation(64_000, "budget", True, True, True)
_CLAUDE_4_6 = Generation(64_000, "adaptive", True, True, True)
_UNKNOWN = Generation(4_096, "adaptive", True, True, False)
"""4,096 is what every model that was ever served can answer."""

_BY_VERSION: tuple[tuple[tuple[int, int], Generation], ...] = (
    ((4, 6), _CLAUDE_4_6),
    ((4, 5), _CLAUDE_4_5),
    ((4, 1), _CLAUDE_4_1),
    ((4, 0), _CLAUDE_4),
    ((3, 7), _CLAUDE_3_7),
    ((3, 5), _CLAUDE_3_5),
    ((0, 0), _CLAUDE_3),
)

_NAME = re.compile(
    # claude-3-5-sonnet-20241022, anthropic.claude-3-haiku-20240307-v1:0
    r"claude-(\d)(?:[-.](\d))?-[a-z]"
    # claude-sonnet-4-5-20250929, claude-opus-4@20250514, claude-sonnet-5
    r"|claude-[a-z]+-(\d)(?:[-.](\d)(?!\d))?"
)


@lru_cache(maxsize=1_024)
def generation_of(model: str) -> Generation:
    """Return what the model of this name takes.

    Args:
        model: As the vendor, Vertex or Bedrock spell it.
    """
    found = _NAME.search(model)
    if found is None:
        return _UNKNOWN
    version = (
        int(found[1] or found[3] or 0),
        int(found[2] or found[4] or 0),
    )
    return next(kind for floor, kind in _BY_VERSION if version >= floor)
