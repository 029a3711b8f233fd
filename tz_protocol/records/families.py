"""The table of everything that ``/metrics`` shows.

The one rule: a family is declared here, with its labels in the order in which they are
counted, or it does not exist. Labels come from fixed sets (routes, configured models,
providers' names, our own codes), never from what a caller wrote. What is counted is
``metrics.py``'s business, what becomes of it among several workers ``figures.py``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

__all__ = ["FAMILIES", "LONG", "SHORT", "Family"]

LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""Bounds in seconds; Prometheus' defaults, continued for long generations."""

SHORT = (0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Bounds in seconds, for what should take a millisecond."""


class Family(NamedTuple):
    """One family of figures."""

    kind: Literal["counter", "gauge", "histogram"]
    text: str
    """What is said of it, with its unit where that is not in the name."""
    labels: tuple[str, ...] = ()
    merge: Literal["sum", "max", "min"] = "sum"
    """What a gauge is over several workers."""
    left: str = ""
    """Of a gauge: the counter that takes its value when its worker is gone."""
    bounds: tuple[float, ...] = ()
    """Of a histogram: the upper bounds of its buckets, in seconds."""


def _counter(text: str, *labels: str) -> Family:
    return Family("counter", text, labels)


def _gauge(
    text: str,
    *labels: str,
    merge: Literal["sum", "max", "min"] = "sum",
    left: str = "",
) -> Family:
    return Family("gauge", text, labels, merge, left)


def _histogram(text: str, *labels: str, bounds: tuple[float, ...] = LONG) -> Family:
    return Family("histogram", text, labels, bounds=bounds)


_TENSORZERO = ("endpoint", "function_name", "model_name")
_LEFT = "tz_records_left_total"

FAMILIES: Mapping[str, Family] = {
    # -- requests: the first four as TensorZero names and labels them
    "tensorzero_requests_total": _counter("Requests, however they ended", *_TENSORZERO),
    "tensorzero_inferences_total": _counter("The same here", *_TENSORZERO),
    "tensorzero_input_tokens_total": _counter("Prompt tokens"),
    "tensorzero_output_tokens_total": _counter("Completion tokens"),
    "tz_exchanges_total": _counter(
        "Requests, by how they ended", "endpoint", "model", "outcome", "status"
    ),
    "tz_exchange_seconds": _histogram("From the head to the end", "endpoint"),
    "tz_first_content_seconds": _histogram(
        "From the head to a stream's first content", "model"
    ),
    "tz_overhead_seconds": _histogram(
        "Of a request that went well, outside providers", "endpoint", bounds=SHORT
    ),
    "tz_http_bad_requests_total": _counter(
        "What was no HTTP request, by code", "reason"
    ),
    "tz_connections": _gauge("Connections of clients"),
    "tz_requests_in_flight": _gauge("Requests past admission"),
    "tz_requests_queued": _gauge("Requests that wait for admission"),
    "tz_body_bytes": _gauge("Bytes of bodies held in memory"),
    # -- providers
    "tz_attempts_total": _counter(
        "Attempts at providers; result is ok or a code", "model", "provider", "result"
    ),
    "tz_media_fetches_total": _counter("Links of callers followed", "outcome"),
    "tz_hedges_total": _counter("Attempts begun beside a slow one"),
    "tz_exchanges_retrying": _gauge("Requests in a further round of attempts"),
    "tz_provider_faults_total": _counter(
        "Failures that the operator has to mend", "provider", "kind"
    ),
    "tz_breaker_state": _gauge(
        "0 closed, 1 half open, 2 open; the worst of the workers'",
        *("model", "provider"),
        merge="max",
    ),
    "tz_breaker_opened_total": _counter("Times a breaker opened", "model", "provider"),
    "tz_pool_connections": _gauge("Connections to providers, busy or idle", "state"),
    "tz_skipped_events_total": _counter(
        "Events of streams that could not be read", "model"
    ),
    # -- what it comes to
    "tz_tokens_total": _counter(
        "Tokens: input, output; of them cache_read, cache_write, reasoning",
        *("model", "type"),
    ),
    "tz_usage_unknown_total": _counter(
        "Answers that did not say their tokens", "model"
    ),
    "tz_cost_total": _counter("Cost, in the currency of the prices", "model"),
    # -- who may
    "tz_auth_total": _counter("Callers identified; ok or a code", "result"),
    "tz_limited_total": _counter("Requests refused by a key's limit", "limit"),
    "tz_api_keys": _gauge("API keys from Redis", merge="max"),
    "tz_redis_models": _gauge("Models from Redis", merge="max"),
    "tz_redis_up": _gauge("1 while the tables from Redis are current", merge="min"),
    "tz_redis_reloads_total": _counter("Whole loads of keys and models"),
    "tz_redis_bad_values_total": _counter("Values in Redis that cannot be used"),
    "tz_redis_failures_total": _counter(
        "Operations on Redis that failed", "purpose", "reason"
    ),
    # -- the cache
    "tz_cache_lookups_total": _counter("Lookups, by result", "result", "tier"),
    "tz_cache_writes_total": _counter("Answers for the store, by result", "result"),
    "tz_cache_entries": _gauge("Answers in memory"),
    "tz_cache_bytes": _gauge("Bytes of them"),
    # -- records: accepted + recovered = written + queued + spooled + dropped + left
    "tz_records_accepted_total": _counter("Records taken"),
    "tz_records_recovered_total": _counter("Records found in a spool"),
    "tz_records_written_total": _counter("Records that ClickHouse has"),
    "tz_records_dropped_total": _counter("Records that nobody will see", "reason"),
    "tz_records_queued": _gauge("Records in memory only", left=_LEFT),
    "tz_records_spooled": _gauge("Records on disk", left=_LEFT),
    _LEFT: _counter(
        "Records that workers had when they ended; those on disk are recovered"
    ),
    "tz_records_unsafe_total": _counter(
        "Answers that could not wait until their record was safe", "reason"
    ),
    "tz_spool_bytes": _gauge("Bytes of the spool"),
    "tz_spool_damage_total": _counter("Stretches of the spool that are no record"),
    "tz_spool_failures_total": _counter(
        "Operations on the spool that failed", "reason"
    ),
    "tz_spool_segments_dropped_total": _counter("Unread segments given up"),
    "tz_clickhouse_up": _gauge("1 while ClickHouse takes records", merge="min"),
    "tz_clickhouse_failures_total": _counter("Writes that failed", "purpose"),
    # -- the process
    "tz_workers": _gauge("Processes that serve"),
    "tz_worker_ends_total": _counter("Workers that ended and were replaced", "reason"),
    "tz_services_restarted_total": _counter("Restarts of long-lived flows", "service"),
    "tz_config_reloads_total": _counter("Reloads, ok or refused", "result"),
    "tz_bugs_total": _counter("Unexpected exceptions, by type", "kind"),
}
"""By name."""
