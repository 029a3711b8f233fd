"""``[gateway.observability]``, ``[gateway.cache]``, ClickHouse's address -> settings.

The one rule: as in ``gateway.py``: what is not set keeps the default of
``types/records.py``. No message repeats the address, which may hold a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tz_protocol.config.entries import Building
from tz_protocol.config.gateway import Problems, pick_seconds
from tz_protocol.config.locate import Path
from tz_protocol.config.schema import CacheTable, GatewayTable, ObservabilityTable
from tz_protocol.flows.clickhouse import store_fault
from tz_protocol.types.records import CacheSettings, RecordSettings, SpoolSettings
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import GatewaySettings

__all__ = ["CLICKHOUSE_LOCATION", "CLICKHOUSE_VARIABLE", "with_records"]

CLICKHOUSE_VARIABLE = "TENSORZERO_CLICKHOUSE_URL"
CLICKHOUSE_LOCATION = f"env::{CLICKHOUSE_VARIABLE}"

_PREFIX: Path = ("gateway", "observability")


def with_records(
    settings: GatewaySettings,
    table: GatewayTable,
    secrets: Mapping[str, Secret | None],
    building: Building,
) -> GatewaySettings:
    """Return *settings* with what *table* says of records and of the cache.

    Args:
        settings: So far.
        table: ``[gateway]``.
        secrets: By location.
        building: Collects what is wrong.
    """
    observability, problems = table.observability, building.problems
    url = _url(secrets, problems)
    if observability.enabled and url is None and not problems:
        message = (
            f"records need a store: set {CLICKHOUSE_VARIABLE} to http(s)://... of a "
            "ClickHouse, or to chdb:///FOLDER for the embedded engine"
        )
        problems.append(((*_PREFIX, "enabled"), message))
    records = _records(observability, url, problems)
    cache = _cache(table.cache, problems)
    return msgspec.structs.replace(settings, records=records, cache=cache)


def _url(secrets: Mapping[str, Secret | None], problems: Problems) -> Secret | None:
    secret = secrets.get(CLICKHOUSE_LOCATION)
    text = "" if secret is None else secret.reveal().strip()
    if not text:
        return None
    reason = store_fault(text)
    if reason:
        message = f"the environment variable {CLICKHOUSE_VARIABLE} {reason}"
        problems.append(((), message))
        return None
    return Secret(text)


def _records(
    table: ObservabilityTable, url: Secret | None, problems: Problems
) -> RecordSettings:
    batches = table.batch_writes
    found: dict[str, Any] = {
        "durability": _durability(table, problems),
        "capture": table.capture,
        "content_bytes": table.content_bytes,
        "batch_rows": batches.max_rows,
        "batch_bytes": batches.max_bytes,
        "queue_rows": batches.write_queue_capacity,
        "queue_bytes": batches.queue_bytes,
        "flush": pick_seconds(batches, "flush_interval", _BATCHES, problems),
        "insert_timeout": pick_seconds(table, "insert_timeout", _PREFIX, problems),
        "ttl_days": table.ttl_days,
    }
    settings = RecordSettings(
        url=url,
        migrate=not table.disable_automatic_migrations,
        spool=_spool(table, problems),
        **{name: value for name, value in found.items() if value is not None},
    )
    if settings.durability == "spool" and not settings.spool.folder:
        message = "needs a folder: set gateway.observability.spool.folder"
        problems.append(((*_PREFIX, "durability"), message))
    return settings


_BATCHES: Path = (*_PREFIX, "batch_writes")


def _durability(table: ObservabilityTable, problems: Problems) -> str | None:
    if table.async_writes and table.durability not in (None, "async"):
        message = f"contradicts durability = {table.durability!r}: give only one"
        problems.append(((*_PREFIX, "async_writes"), message))
    return table.durability


def _spool(table: ObservabilityTable, problems: Problems) -> SpoolSettings:
    spool = table.spool
    if spool.folder is not None and not spool.folder.startswith("/"):
        message = "expected a path from the root, such as /var/lib/tz-gateway/spool"
        problems.append(((*_PREFIX, "spool", "folder"), message))
    found = {name: getattr(spool, name) for name in spool.model_fields_set}
    return SpoolSettings(**found)


def _cache(table: CacheTable, problems: Problems) -> CacheSettings:
    prefix: Path = ("gateway", "cache")
    timeout = pick_seconds(table, "lookup_timeout", prefix, problems)
    found: dict[str, Any] = {
        "is_enabled": table.enabled,
        "memory_bytes": table.memory_bytes,
        "entry_bytes": table.entry_bytes,
        "scope": table.scope,
        "lookup_timeout": timeout,
    }
    return CacheSettings(**{k: v for k, v in found.items() if v is not None})
