"""What the families of models behind Converse differ in, by name.

The one rule: Converse is one format for all of them and each takes a part of it; only
what a request must be built around is here. A name that says nothing (the ARN of an
inference profile of one's own) gets what every model takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tz_protocol.dialects.anthropic_models import generation_of

__all__ = ["Family", "family_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a model takes beyond messages, tools and the four common parameters."""

    thinking: Literal["none", "budget", "adaptive", "nova", "effort", "config"] = "none"
    """How it is told to think: Claude's two ways, Nova's ``reasoningConfig``, or one
    word in ``reasoning_effort`` or ``reasoning_config``."""
    top_k: tuple[str, ...] = ()
    """Where ``top_k`` goes within ``additionalModelRequestFields``; empty: nowhere."""
    has_format: bool = False
    """True if it takes ``outputConfig.textFormat`` and ``strict`` on tools."""
    has_exclusive_sampling: bool = False
    """True if it refuses ``temperature`` and ``topP`` together."""
    caches: frozenset[str] = frozenset()
    """Of ``system``, ``messages`` and ``tools``: where it takes a ``cachePoint``."""
    has_cache_ttl: bool = False
    takes_seals: bool = False
    """True if it takes its thoughts back with their signature."""
    is_claude: bool = False
    """True if it goes on from what it is told to have begun to say, white space at
    its end aside."""


_UNKNOWN = Family(takes_seals=True)
_PLAIN = Family()

# https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html and
# prompt-caching.html, the tables of supported models.
_OPEN = Family(has_format=True)
_NOVA = Family(
    top_k=("inferenceConfig", "topK"), caches=frozenset({"system", "messages"})
)
_NOVA_2 = Family(
    thinking="nova",
    top_k=("inferenceConfig", "topK"),
    caches=frozenset({"system", "messages"}),
)

_FAMILIES: tuple[tuple[re.Pattern[str], Family], ...] = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"amazon\.nova-2", _NOVA_2),
        (r"amazon\.nova", _NOVA),
        (r"openai\.gpt-oss", Family(thinking="effort", has_format=True)),
        (r"qwen\.", Family(thinking="config", has_format=True)),
        (r"cohere\.command-r", Family(top_k=("k",))),
        (
            r"mistral\.(?:mistral-7b|mixtral|mistral-small-2402)",
            Family(top_k=("top_k",)),
        ),
        (r"mistral\.(?:mistral-large-2|pixtral)", _PLAIN),
        (r"deepseek\.r1", _PLAIN),
        (r"(?:mistral|deepseek|google|minimax|moonshotai?|nvidia|zai)\.", _OPEN),
        (r"(?:amazon|ai21|cohere|meta|writer)\.", _PLAIN),
    )
)
_CLAUDE = re.compile(r"claude-(?!v\d|instant)")
_UNCACHED_CLAUDE = re.compile(
    r"claude-3-(?:opus|sonnet|haiku)|claude-3-5-sonnet-20240620"
)
_UNSHAPED_CLAUDE = re.compile(r"claude-[a-z]+-4-1(?!\d)")


@lru_cache(maxsize=1_024)
def family_of(model: str) -> Family:
    """Return what the model of this id or ARN takes."""
    if "claude" in model:
        return _claude(model)
    for pattern, family in _FAMILIES:
        if pattern.search(model):
            return family
    return _UNKNOWN


def _claude(model: str) -> Family:
    if not _CLAUDE.search(model):
        return Family(top_k=("top_k",), is_claude=True)
    generation = generation_of(model)
    is_cached = _UNCACHED_CLAUDE.search(model) is None
    places = ("system", "messages", "tools") if is_cached else ()
    return Family(
        thinking=generation.thinking,
        top_k=("top_k",),
        has_format=generation.has_format and not _UNSHAPED_CLAUDE.search(model),
        has_exclusive_sampling=generation.has_exclusive_sampling,
        caches=frozenset(places),
        has_cache_ttl=is_cached,
        takes_seals=True,
        is_claude=True,
    )
