"""What a provider charges, and what one answer therefore cost.

The one rule: money is ``Decimal`` and is never rounded here; a price that cannot be
applied is not taken for zero, its answer's cost is None. Which keys of the
configuration make a :class:`Price` is ``config/prices.py``'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from tz_protocol.types.usage import Usage

__all__ = ["Meter", "Price", "cost_of"]

Meter = Literal["input", "uncached_input", "output", "cache_read", "cache_write"]
"""What is counted: tokens of :class:`Usage`, in its sense of the words;
``uncached_input`` is the input without what was read from, or written to, a cache."""


class Price(msgspec.Struct, frozen=True):
    """So much money for each token that a meter counts; negative for a discount."""

    meter: Meter
    per_token: Decimal
    is_required: bool = False
    """True: without this figure the cost is unknown; False: the figure counts as 0."""


def cost_of(prices: Sequence[Price], usage: Usage) -> Decimal | None:
    """Return what *usage* cost, None if a required figure is missing."""
    total = Decimal(0)
    for price in prices:
        count = _count(price.meter, usage)
        if count is not None:
            total += price.per_token * count
        elif price.is_required:
            return None
    return max(total, Decimal(0))


def _count(meter: Meter, usage: Usage) -> int | None:
    if meter == "input":
        return usage.input_tokens
    if meter == "output":
        return usage.output_tokens
    if meter == "cache_read":
        return usage.cache_read_tokens
    if meter == "cache_write":
        return usage.cache_write_tokens
    cached = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    return max(0, usage.input_tokens - cached)
