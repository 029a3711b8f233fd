"""What a configuration comes to, for people and for programs.

The one rule: locations, never secrets; of ``extra_headers`` the names only, because
their values may be keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tz_protocol.config.records import CLICKHOUSE_VARIABLE
from tz_protocol.types.keys import Access
from tz_protocol.types.settings import (
    GatewaySettings,
    Model,
    ProviderSettings,
    Snapshot,
    Timeouts,
)

__all__ = ["describe", "describe_json"]


def describe(snapshot: Snapshot) -> str:
    """Return the effective configuration as text, a line for each provider."""
    return "\n".join(_lines(snapshot)) + "\n"


def _lines(snapshot: Snapshot) -> Iterator[str]:
    gateway = snapshot.gateway
    yield f"configuration {snapshot.config_id}"
    base = f", under {gateway.base_path}" if gateway.base_path else ""
    yield f"address       {gateway.bind_address}{base}"
    yield f"API keys      {_keys(snapshot.access)}"
    yield f"timeouts      {_timeouts(gateway.timeouts)}"
    yield f"records       {_records(gateway)}"
    yield ""
    yield f"models ({len(snapshot.models)})"
    for model in snapshot.models.values():
        capabilities = ", ".join(sorted(model.capabilities)) or "nothing yet"
        yield f"  {model.name}: {capabilities}"
        inherited = model.timeouts or gateway.timeouts
        if model.timeouts:
            yield f"    timeouts {_timeouts(model.timeouts, gateway.timeouts)}"
        if model.fallback_models:
            yield f"    falls back to {', '.join(model.fallback_models)}"
        for number, name in enumerate(model.routing, 1):
            settings = model.providers[name]
            yield f"    {number}. {_provider(settings, inherited)}"
    yield ""
    yield "shorthand"
    for kind, settings in snapshot.shorthand.items():
        yield f"  {kind}::MODEL {_place(settings)}, key {_key(settings)}"
    for kind, variable in snapshot.missing_keys.items():
        yield f"  {kind}::MODEL if you set {variable}"
    if snapshot.warnings:
        yield ""
        yield "warnings"
        for warning in snapshot.warnings:
            yield f"  {warning}"


def _keys(access: Access | None) -> str:
    if access is None:
        return "not asked for: everybody may use everything"
    facts = [f"{len(access.keys)} in the configuration"] if access.keys else []
    if access.redis_url is not None:
        facts.append(f"those in Redis ({access.on_unavailable} while it is away)")
    return " and ".join(facts)


def _records(gateway: GatewaySettings) -> str:
    records = gateway.records
    if gateway.observability is False:
        return "not kept: gateway.observability.enabled is false"
    if records.url is None:
        return f"not kept: {CLICKHOUSE_VARIABLE} is not set"
    is_embedded = records.url.reveal().startswith("chdb:")
    facts = [
        f"in {'the embedded engine' if is_embedded else 'ClickHouse'}",
        f"durability {records.durability}",
        f"capture {records.capture}",
    ]
    if records.spool.folder:
        facts.append(f"spool {records.spool.folder}")
    if records.ttl_days is not None:
        facts.append(f"for {records.ttl_days} days")
    return "; ".join(facts)


def _provider(settings: ProviderSettings, inherited: Timeouts) -> str:
    facts = [
        f"{settings.name}: {settings.type} {settings.model} {_place(settings)}",
        f"key {_key(settings)}",
    ]
    facts += [f"{key} {value}" for key, value in settings.options.items()]
    if settings.weight is not None:
        facts.append(f"weight {settings.weight:.12g}")
    if settings.timeouts:
        facts.append(f"timeouts {_timeouts(settings.timeouts, inherited)}")
    if settings.extra_headers:
        names = ", ".join(name for name, _ in settings.extra_headers)
        facts.append(f"extra headers {names}")
    if settings.extra_body:
        facts.append(f"extra members {', '.join(settings.extra_body)}")
    if settings.ca_file is not None:
        facts.append(f"certificates of {settings.ca_file}")
    if not settings.verify:
        facts.append("certificate not checked")
    if settings.proxy is not None:
        facts.append("through a proxy")
    return "; ".join(facts)


def _place(settings: ProviderSettings) -> str:
    return "in this process" if settings.url is None else f"at {settings.url.authority}"


def _key(settings: ProviderSettings) -> str:
    credential = settings.credential
    return credential.location or credential.kind


def _timeouts(timeouts: Timeouts, base: Timeouts | None = None) -> str:
    """Return the durations as text; with *base*, those that differ from it."""
    facts = []
    for name in Timeouts.__struct_fields__:
        value = getattr(timeouts, name)
        if base is None or value != getattr(base, name):
            facts.append(f"{name} {value:.12g} s")
    return ", ".join(facts) or "as above"


def describe_json(snapshot: Snapshot) -> str:
    """Return the same as one JSON document."""
    gateway = snapshot.gateway
    document = {
        "config_id": snapshot.config_id,
        "gateway": {
            "bind_address": gateway.bind_address,
            "base_path": gateway.base_path,
            "timeouts": gateway.timeouts,
            "authentication": snapshot.access is not None,
            "records": _records_object(gateway),
        },
        "models": {
            name: _model_object(model, gateway)
            for name, model in snapshot.models.items()
        },
        "shorthand": {
            kind: _provider_object(settings, gateway.timeouts)
            for kind, settings in snapshot.shorthand.items()
        },
        "missing_keys": snapshot.missing_keys,
        "warnings": snapshot.warnings,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _records_object(gateway: GatewaySettings) -> dict[str, Any] | None:
    records = gateway.records
    if gateway.observability is False or records.url is None:
        return None
    return {
        "is_embedded": records.url.reveal().startswith("chdb:"),
        "durability": records.durability,
        "capture": records.capture,
        "spool_folder": records.spool.folder or None,
        "ttl_days": records.ttl_days,
    }


def _model_object(model: Model, gateway: GatewaySettings) -> dict[str, Any]:
    timeouts = model.timeouts or gateway.timeouts
    return {
        "capabilities": sorted(model.capabilities),
        "timeouts": timeouts,
        "policy": model.policy or gateway.policy,
        "fallback_models": model.fallback_models,
        "context_tokens": model.context_tokens,
        "routing": [
            {"name": name, **_provider_object(model.providers[name], timeouts)}
            for name in model.routing
        ],
    }


def _provider_object(settings: ProviderSettings, inherited: Timeouts) -> dict[str, Any]:
    return {
        "type": settings.type,
        "model": settings.model,
        "host": None if settings.url is None else settings.url.authority,
        "key": _key(settings),
        "options": settings.options,
        "extra_headers": [name for name, _ in settings.extra_headers],
        "extra_body": list(settings.extra_body),
        "timeouts": settings.timeouts or inherited,
        "weight": settings.weight,
        "retry_count": settings.retry_count,
        "breaker": settings.breaker,
        "context_tokens": settings.context_tokens,
        "verify": settings.verify,
        "ca_file": settings.ca_file,
        "is_proxied": settings.proxy is not None,
    }
