"""Retries, breakers, hedging and streams, at whatever level they are set.

The one rule: what is not set is inherited, value by value: a provider's from its
model, a model's from ``[gateway]``, and that from ``types.policy``.
"""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel

from tz_protocol.config.gateway import Problems, durations
from tz_protocol.config.locate import Path
from tz_protocol.config.schema import (
    BreakerTable,
    GatewayTable,
    PolicyTable,
    ProviderRetriesTable,
    RetriesTable,
)
from tz_protocol.types.policy import (
    BreakerPolicy,
    Hedge,
    HedgeShare,
    Policy,
    Retries,
    RetryShare,
    StreamPolicy,
)
from tz_protocol.types.settings import GatewaySettings

__all__ = [
    "merge_breaker",
    "merge_policy",
    "retry_count",
    "with_policy",
]


def with_policy(
    settings: GatewaySettings, table: GatewayTable, problems: Problems
) -> GatewaySettings:
    """Return *settings* with what ``[gateway]`` says of routing."""
    budget = table.retry_budget.model_dump(exclude_none=True)
    hedges = table.hedge_budget.model_dump(exclude_none=True)
    return msgspec.structs.replace(
        settings,
        policy=merge_policy(Policy(), table, ("gateway",), problems),
        retry_share=RetryShare(**budget),
        hedge_share=HedgeShare(**hedges),
    )


def merge_policy(
    base: Policy, table: PolicyTable, prefix: Path, problems: Problems
) -> Policy:
    """Return *base* with what *table* sets; *base* itself if it sets nothing."""
    retries = _retries(base.retries, table.retries, (*prefix, "retries"), problems)
    breaker = merge_breaker(base.breaker, table.breaker, (*prefix, "breaker"), problems)
    found = durations(table, ("hedge_after", "hold", "ping_after"), prefix, problems)
    hedge = base.hedge
    if "hedge_after" in found:
        after = found["hedge_after"]
        hedge = Hedge(after=after) if after else None
    changes: dict[str, Any] = {
        name: value
        for name in ("hold_events", "on_malformed_event")
        if (value := getattr(table, name)) is not None
    }
    if "hold" in found:
        changes["hold"] = found["hold"]
    if "ping_after" in found:
        changes["ping_after"] = found["ping_after"] or None
    stream: StreamPolicy = msgspec.structs.replace(base.stream, **changes)
    merged = Policy(retries=retries, breaker=breaker, hedge=hedge, stream=stream)
    return base if merged == base else merged


# -- retries --------------------------------------------------------------------


def retry_count(
    table: ProviderRetriesTable, prefix: Path, problems: Problems
) -> int | None:
    """Return how often something may be tried again, None if it is not said."""
    if table.count is not None and table.num_retries is not None:
        message = "says the same as count: give only one"
        problems.append(((*prefix, "num_retries"), message))
    return table.num_retries if table.count is None else table.count


def _retries(
    base: Retries, table: RetriesTable, prefix: Path, problems: Problems
) -> Retries:
    if not table.model_fields_set:
        return base
    names = ("base", "cap", "retry_after_cap", "within")
    changes: dict[str, Any] = dict(durations(table, names, prefix, problems))
    if table.max_delay_s is not None:
        if "cap" in changes:
            message = "says the same as cap_ms and cap_s: give only one"
            problems.append(((*prefix, "max_delay_s"), message))
        changes["cap"] = table.max_delay_s
    count = retry_count(table, prefix, problems)
    if count is not None:
        changes["count"] = count
    return msgspec.structs.replace(base, **changes)


# -- breakers -------------------------------------------------------------------


def merge_breaker(
    base: BreakerPolicy, table: BreakerTable, prefix: Path, problems: Problems
) -> BreakerPolicy:
    """Return *base* with what *table* sets; *base* itself if it sets nothing."""
    if not table.model_fields_set:
        return base
    names = ("window", "rest", "rest_max", "ramp", "cooldown_max", "demotion")
    changes: dict[str, Any] = dict(durations(table, names, prefix, problems))
    for name in ("failures", "failures_alone", "share", "volume"):
        value = getattr(table, name)
        if value is not None:
            changes[name] = value
    if table.enabled is not None:
        changes["is_enabled"] = table.enabled
    rest = changes.get("rest", base.rest)
    longest = changes.get("rest_max", base.rest_max)
    if rest > longest:
        if "rest_max" in changes:
            key = _key_of(table, "rest_max")
            message = f"shorter than the first rest, which is {rest:.12g} s"
            problems.append(((*prefix, key), message))
            return base
        # Whoever wants longer rests wants none of them to be shorter.
        changes["rest_max"] = rest
    return msgspec.structs.replace(base, **changes)


def _key_of(table: BaseModel, name: str) -> str:
    """Return which of the two spellings of a duration *table* uses."""
    in_ms = f"{name}_ms"
    return in_ms if in_ms in table.model_fields_set else f"{name}_s"
