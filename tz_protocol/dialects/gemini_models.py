"""What the generations of Gemini differ in, by name.

The one rule: only what a request must be built around is here, and a name that is not
known is taken for a new model: aliases and private names must not cost capabilities.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

__all__ = ["Generation", "generation_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a model takes."""

    thinking: Literal["none", "budget", "level"]
    """Whether it thinks, and whether it is told in tokens or in words for how long."""
    min_budget: int = 0
    """Its least ``thinkingBudget``; 0 means that thinking can be switched off."""
    max_budget: int = 24_576
    levels: tuple[str, ...] = ()
    """What it takes as ``thinkingLevel``, from little to much."""
    has_json_with_tools: bool = False
    """True if it takes functions and a response format together."""
    has_signatures: bool = False
    """True if it refuses calls of its own in the history without their signature, and
    takes media within the response of a function."""


# https://ai.google.dev/gemini-api/docs/thinking, "Thinking budgets" and "Thinking
# levels"; .../structured-output, "Structured outputs with tools";
# .../thought-signatures; .../function-calling, "Multimodal function responses".
_SILENT = Generation(thinking="none")
_FLASH_2_5 = Generation(thinking="budget")
_PRO_2_5 = Generation(thinking="budget", min_budget=128, max_budget=32_768)
_PRO_3_0 = Generation(
    thinking="level",
    levels=("LOW", "HIGH"),
    has_json_with_tools=True,
    has_signatures=True,
)
_PRO_3 = Generation(
    thinking="level",
    levels=("LOW", "MEDIUM", "HIGH"),
    has_json_with_tools=True,
    has_signatures=True,
)
_FLASH_3 = Generation(
    thinking="level",
    levels=("MINIMAL", "LOW", "MEDIUM", "HIGH"),
    has_json_with_tools=True,
    has_signatures=True,
)

_NAME = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_MUTE = re.compile(r"gemma|learnlm|-image\b|-tts\b")
"""Open models, and those of the second generation that draw or speak."""


@lru_cache(maxsize=1_024)
def generation_of(model: str) -> Generation:
    """Return what the model of this name takes.

    Args:
        model: As the vendor spells it, with or without a path before it.
    """
    found = _NAME.search(model)
    version = (int(found[1]), int(found[2] or 0)) if found else (99, 0)
    if version < (3, 0) or found is None:
        if version < (2, 5) or _MUTE.search(model):
            return _SILENT
        if found is not None:
            return _PRO_2_5 if "-pro" in model else _FLASH_2_5
    if "-pro" not in model:
        return _FLASH_3
    return _PRO_3_0 if version == (3, 0) else _PRO_3
