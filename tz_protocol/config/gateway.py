"""``[gateway]`` -> ``GatewaySettings``; and timeouts, which every level may set.

The one rule: what is not set keeps the default of ``types.settings``, so that the
defaults stand in one place.
"""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel

from tz_protocol.config.addresses import parse_base_path, parse_bind_address
from tz_protocol.config.locate import Path
from tz_protocol.config.schema import GatewayTable, TimeoutsTable
from tz_protocol.types.settings import (
    Cors,
    GatewaySettings,
    Limits,
    ServerTimeouts,
    Timeouts,
)

__all__ = [
    "Problems",
    "durations",
    "gateway_settings",
    "merge_timeouts",
    "pick_seconds",
]

Problems = list[tuple[Path, str]]
"""(path, message) pairs; the document knows file and line."""


def pick_seconds(
    table: BaseModel, name: str, prefix: Path, problems: Problems
) -> float | None:
    """Return the duration *name* of *table* in seconds, or None if it is not set."""
    ms: float | None = getattr(table, f"{name}_ms")
    seconds: float | None = getattr(table, f"{name}_s", None)
    if ms is None:
        return seconds
    if seconds is not None:
        message = f"set in seconds too: give {name}_ms or {name}_s, not both"
        problems.append(((*prefix, f"{name}_ms"), message))
    return ms / 1000


def durations(
    table: BaseModel, names: tuple[str, ...], prefix: Path, problems: Problems
) -> dict[str, float]:
    """Return the durations that are set, by name, in seconds."""
    found = ((name, pick_seconds(table, name, prefix, problems)) for name in names)
    return {name: value for name, value in found if value is not None}


def merge_timeouts(
    base: Timeouts, table: TimeoutsTable, prefix: Path, problems: Problems
) -> Timeouts:
    """Return *base* with what *table* sets; *base* itself if it sets nothing."""
    if not table.model_fields_set:
        return base
    changes = durations(table, Timeouts.__struct_fields__, prefix, problems)
    theirs = (
        ("total", "non_streaming", "total_ms", table.non_streaming.total_ms),
        ("first_content", "streaming", "ttft_ms", table.streaming.ttft_ms),
        ("stream_total", "streaming", "total_ms", table.streaming.total_ms),
    )
    for name, group, key, value in theirs:
        if value is None:
            continue
        if name in changes:
            message = f"says the same as {name}_ms and {name}_s: give only one"
            problems.append(((*prefix, group, key), message))
        changes[name] = value / 1000
    return msgspec.structs.replace(base, **changes)


def _limits(table: GatewayTable, problems: Problems) -> Limits:
    prefix: Path = ("gateway", "limits")
    values: dict[str, Any] = {
        name: value
        for name in Limits.__struct_fields__
        if (value := getattr(table.limits, name, None)) is not None
    }
    values |= durations(
        table.limits, ("queue_timeout", "pool_idle_timeout"), prefix, problems
    )
    limits = Limits(**values)
    if limits.line_bytes > limits.head_bytes:
        message = f"a line cannot be longer than its head ({limits.head_bytes} bytes)"
        key = "line_bytes" if table.limits.line_bytes is not None else "head_bytes"
        problems.append(((*prefix, key), message))
    return limits


def _cors(table: GatewayTable, problems: Problems) -> Cors:
    prefix: Path = ("gateway", "cors")
    for index, origin in enumerate(table.cors.allowed_origins):
        is_origin = origin.isascii() and origin.isprintable() and "://" in origin
        if origin != "*" and (not is_origin or origin.count("/") != 2):
            message = "expected an origin such as https://app.example, or *"
            problems.append(((*prefix, "allowed_origins", index), message))
    found = durations(table.cors, ("max_age",), prefix, problems)
    return Cors(allowed_origins=tuple(table.cors.allowed_origins), **found)


def _bind_address(
    table: GatewayTable, override: str | None, problems: Problems
) -> str | None:
    """Return the address to bind, or None if the file's is wrong."""
    if override is not None:
        return override
    if table.bind_address is None:
        return GatewaySettings().bind_address
    try:
        return parse_bind_address(table.bind_address)
    except ValueError as error:
        problems.append((("gateway", "bind_address"), str(error)))
        return None


def _authentication(table: GatewayTable, problems: Problems) -> bool | None:
    if table.auth is not None and table.authentication is not None:
        message = "says the same as [gateway.authentication]: give only one"
        problems.append((("gateway", "auth"), message))
    chosen = table.authentication or table.auth
    return None if chosen is None else chosen.enabled


def gateway_settings(
    table: GatewayTable, bind_override: str | None, problems: Problems
) -> GatewaySettings:
    """Return the settings; what is wrong goes to *problems*.

    Args:
        table: The validated table.
        bind_override: The address from the command line or the environment, already
            checked; None takes the file's.
        problems: Is appended to.
    """
    prefix: Path = ("gateway",)
    timeouts = merge_timeouts(
        Timeouts(), table.timeouts, (*prefix, "timeouts"), problems
    )
    cap = table.global_outbound_http_timeout_ms
    if cap is not None:
        timeouts = msgspec.structs.replace(
            timeouts,
            total=min(timeouts.total, cap / 1000),
            stream_total=min(timeouts.stream_total, cap / 1000),
        )
    server = ServerTimeouts(
        **durations(
            table.server_timeouts,
            ServerTimeouts.__struct_fields__,
            (*prefix, "server_timeouts"),
            problems,
        )
    )
    base_path = ""
    try:
        base_path = parse_base_path(table.base_path)
    except ValueError as error:
        problems.append(((*prefix, "base_path"), str(error)))
    address = _bind_address(table, bind_override, problems)
    return GatewaySettings(
        bind_address=address or GatewaySettings().bind_address,
        base_path=base_path,
        debug=table.debug,
        limits=_limits(table, problems),
        timeouts=timeouts,
        server=server,
        cors=_cors(table, problems),
        half_close=table.half_close,
        authentication=_authentication(table, problems),
        observability=table.observability.enabled,
    )
