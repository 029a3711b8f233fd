"""``cost`` of a provider -> prices.

The one rule: TensorZero points into the provider's own usage object; here a pointer is
looked up in the table of those that mean a figure which the gateway knows, and one that
means nothing is refused, because money would be lost silently.

Source: TensorZero's configuration reference, ``cost``
(https://www.tensorzero.com/docs/gateway/configuration-reference).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field

from tz_protocol.config.gateway import Problems
from tz_protocol.config.locate import Path
from tz_protocol.config.refusals import did_you_mean, kind_word, validated
from tz_protocol.config.schema import Table
from tz_protocol.types.prices import Meter, Price

__all__ = ["read_prices"]

_MILLION = 1_000_000

_OPENAI: Mapping[str, Meter] = {
    "/usage/prompt_tokens": "input",
    "/usage/input_tokens": "input",
    "/usage/completion_tokens": "output",
    "/usage/output_tokens": "output",
    "/usage/prompt_tokens_details/cached_tokens": "cache_read",
    "/usage/input_tokens_details/cached_tokens": "cache_read",
}
"""OpenAI's words, in both of its formats; its prompt includes what was cached."""

_ANTHROPIC: Mapping[str, Meter] = {
    "/usage/input_tokens": "uncached_input",
    "/usage/output_tokens": "output",
    "/usage/cache_read_input_tokens": "cache_read",
    "/usage/cache_creation_input_tokens": "cache_write",
}
"""Anthropic's words; its input is what is left beside the cache."""

_GOOGLE: Mapping[str, Meter] = {
    "/usageMetadata/promptTokenCount": "input",
    "/usageMetadata/candidatesTokenCount": "output",
    "/usageMetadata/cachedContentTokenCount": "cache_read",
}

_BY_TYPE: Mapping[str, Mapping[str, Meter]] = {
    "anthropic": _ANTHROPIC,
    "gcp_vertex_anthropic": _ANTHROPIC,
    "google_ai_studio_gemini": _GOOGLE,
    "gcp_vertex_gemini": _GOOGLE,
}

Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class _CostTable(Table):
    pointer: str | None = None
    pointer_nonstreaming: str | None = None
    pointer_streaming: str | None = None
    cost_per_million: Number | None = None
    cost_per_unit: Number | None = None
    required: bool = False


def read_prices(
    raw: Any, kind: str, path: Path, problems: Problems
) -> tuple[Price, ...] | None:
    """Return the prices that *raw* lists; None if it is not there.

    Args:
        raw: The value of ``cost``; an empty array is free of charge.
        kind: Type of the provider, whose words the pointers use.
        path: Of the provider.
        problems: Is appended to.
    """
    path = (*path, "cost")
    if raw is None:
        return None
    if not isinstance(raw, list):
        problems.append((path, f"expected an array, found {kind_word(raw)}"))
        return None
    prices = []
    for index, item in enumerate(raw):
        before = len(problems)
        table = validated(_CostTable, item, (*path, index), problems)
        if table is not None and len(problems) == before:
            price = _price(table, kind, (*path, index), problems)
            prices += [price] if price is not None else []
    return tuple(prices)


def _price(
    table: _CostTable, kind: str, path: Path, problems: Problems
) -> Price | None:
    pair = (table.pointer_nonstreaming, table.pointer_streaming)
    pointers = [text for text in (table.pointer, *pair) if text is not None]
    if len(pointers) != (1 if table.pointer is not None else 2):
        message = "give pointer, or both pointer_nonstreaming and pointer_streaming"
        problems.append((path, message))
        return None
    rates = (table.cost_per_million, table.cost_per_unit)
    if (rates[0] is None) == (rates[1] is None):
        problems.append((path, "give one of cost_per_million and cost_per_unit"))
        return None
    known = _BY_TYPE.get(kind, _OPENAI)
    meters = {known.get(pointer) for pointer in pointers}
    meter = meters.pop()
    if meter is None or meters:
        hint = did_you_mean(pointers[0], known)
        message = f"no figure that is counted{hint}: expected {', '.join(known)}"
        problems.append((path, message))
        return None
    # The shortest text that is the number, which is what was written.
    if rates[0] is not None:
        per_token = Decimal(repr(rates[0])) / _MILLION
    else:
        per_token = Decimal(repr(rates[1]))
    return Price(meter, per_token, table.required)
