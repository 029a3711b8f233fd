"""Counters and histograms, and their Prometheus text.

The one rule: labels come from fixed sets (routes, configured models, provider names,
our own codes), so that no caller can make the process remember new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tz_protocol.records.record import Outcome, Record

__all__ = ["BUCKETS", "Metrics"]

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""Upper bounds in seconds; Prometheus' defaults, continued for long generations."""

Labels = tuple[tuple[str, str], ...]

_HELP: dict[str, tuple[str, str]] = {
    "tensorzero_requests_total": ("counter", "Requests settled, by route and model."),
    "tz_exchanges_total": ("counter", "Exchanges settled, by outcome and status."),
    "tz_attempts_total": ("counter", "Attempts at providers, by result."),
    "tz_exchange_seconds": ("histogram", "Time from head to settlement."),
    "tz_first_content_seconds": ("histogram", "Time from head to first content."),
    "tz_overhead_seconds": ("histogram", "Time spent outside providers."),
    "tensorzero_input_tokens_total": ("counter", "Prompt tokens, as known."),
    "tensorzero_output_tokens_total": ("counter", "Completion tokens, as known."),
    "tz_usage_unknown_total": ("counter", "Answers whose usage is not known."),
    "tz_skipped_events_total": ("counter", "Stream events that were not understood."),
    "tz_http_bad_requests_total": ("counter", "Requests refused by the HTTP layer."),
    "tz_provider_faults_total": (
        "counter",
        "Failures of providers that the operator has to mend, by kind.",
    ),
    "tz_media_fetches_total": ("counter", "Links of callers followed, by outcome."),
    "tz_hedges_total": ("counter", "Attempts begun beside a slow one."),
    "tz_exchanges_retrying": ("gauge", "Exchanges in a further round of tries."),
    "tz_breaker_state": ("gauge", "0 closed, 1 half open, 2 open; by target."),
    "tz_breaker_opened_total": ("counter", "Times a breaker opened, by target."),
    "tz_services_restarted_total": ("counter", "Restarts of long-lived flows."),
    "tz_config_reloads_total": ("counter", "Configuration reloads, by result."),
    "tz_auth_total": ("counter", "Callers identified, by result."),
    "tz_limited_total": ("counter", "Requests refused by a key's limits."),
    "tz_redis_bad_values_total": ("counter", "Values in Redis that cannot be used."),
    "tz_redis_failures_total": ("counter", "Redis operations that failed, by purpose."),
    "tz_redis_reloads_total": ("counter", "Whole loads of keys and models."),
    "tz_redis_up": ("gauge", "1 while the tables from Redis are current."),
    "tz_redis_models": ("gauge", "Models from Redis."),
    "tz_api_keys": ("gauge", "API keys from Redis."),
    "tz_cache_lookups_total": ("counter", "Lookups in the cache, by result and tier."),
    "tz_cache_writes_total": ("counter", "Answers for the cache's store, by result."),
    "tz_cache_entries": ("gauge", "Answers remembered by this process."),
    "tz_cache_bytes": ("gauge", "Bytes of them."),
    "tz_records_accepted_total": ("counter", "Records taken."),
    "tz_records_recovered_total": ("counter", "Records found in the spool."),
    "tz_records_written_total": ("counter", "Records that ClickHouse has."),
    "tz_records_dropped_total": ("counter", "Records that nobody will see, by reason."),
    "tz_records_unsafe_total": ("counter", "Answers sent before a record was safe."),
    "tz_records_queued": ("gauge", "Records in memory only."),
    "tz_records_spooled": ("gauge", "Records on disk."),
    "tz_spool_bytes": ("gauge", "Bytes of the spool."),
    "tz_spool_damage_total": ("counter", "Stretches of the spool that are no record."),
    "tz_spool_failures_total": ("counter", "Operations on the spool that failed."),
    "tz_spool_segments_dropped_total": ("counter", "Unread segments given up."),
    "tz_clickhouse_up": ("gauge", "1 while ClickHouse takes records."),
    "tz_clickhouse_failures_total": ("counter", "Writes of records that failed."),
    "tz_cost_total": ("counter", "What answers cost, in the currency of the prices."),
    "tz_connections": ("gauge", "Client connections open."),
    "tz_requests_in_flight": ("gauge", "Exchanges past admission."),
    "tz_requests_queued": ("gauge", "Exchanges waiting for admission."),
    "tz_body_bytes": ("gauge", "Bytes of bodies held in memory."),
    "tz_pool_connections": ("gauge", "Connections to providers, by state."),
    "tz_bugs_total": ("counter", "Unexpected exceptions."),
}


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


class Metrics:
    """One process's figures; :meth:`render` gives Prometheus text format 0.0.4."""

    __slots__ = ("_counters", "_histograms")

    def __init__(self) -> None:
        self._counters: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], list[float]] = {}

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add *amount* to the counter *name* with these labels."""
        key = (name, tuple(labels.items()))
        self._counters[key] = self._counters.get(key, 0) + amount

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Put one observation into the histogram *name*."""
        key = (name, tuple(labels.items()))
        row = self._histograms.get(key)
        if row is None:
            # One cell per bucket, then +Inf's cell, then the sum.
            row = self._histograms[key] = [0.0] * (len(BUCKETS) + 2)
        for index, bound in enumerate(BUCKETS):
            if seconds <= bound:
                row[index] += 1
                break
        else:
            row[-2] += 1
        row[-1] += seconds

    def settle(
        self, record: Record, label: Callable[[str], str] = lambda model: model
    ) -> None:
        """Count one settled exchange.

        Args:
            record: Settled.
            label: Makes a model's name one of a fixed set.
        """
        model = label(record.model) if record.model else "none"
        outcome = record.outcome or Outcome.CANCELLED
        self.add("tensorzero_requests_total", endpoint=record.endpoint, model=model)
        self.add(
            "tz_exchanges_total",
            endpoint=record.endpoint,
            outcome=outcome.value,
            status=str(record.status or 0),
        )
        upstream = 0.0
        for attempt in record.attempts:
            self.add(
                "tz_attempts_total",
                model=label(attempt.model),
                provider=attempt.provider,
                result=attempt.error or "ok",
            )
            upstream += (attempt.ended or attempt.started) - attempt.started
        duration = record.duration or 0.0
        self.observe("tz_exchange_seconds", duration, endpoint=record.endpoint)
        if record.first_content is not None:
            self.observe("tz_first_content_seconds", record.first_content, model=model)
        if outcome is Outcome.OK:
            overhead = max(0.0, duration - upstream)
            self.observe("tz_overhead_seconds", overhead, endpoint=record.endpoint)
            self._count_tokens(record, model)
        if record.skipped_events:
            self.add("tz_skipped_events_total", record.skipped_events, model=model)

    def _count_tokens(self, record: Record, model: str) -> None:
        if record.cache == "hit":
            return
        if record.cost is not None:
            self.add("tz_cost_total", float(record.cost), model=model)
        usage = record.usage
        if usage is None:
            self.add("tz_usage_unknown_total", model=model)
            return
        self.add("tensorzero_input_tokens_total", usage.input_tokens, model=model)
        self.add("tensorzero_output_tokens_total", usage.output_tokens, model=model)

    def render(self, gauges: Mapping[tuple[str, Labels], float]) -> str:
        """Return Prometheus text of every counter, histogram and the given gauges."""
        samples: dict[str, list[str]] = {}
        for (name, labels), value in sorted([*self._counters.items(), *gauges.items()]):
            samples.setdefault(name, []).append(f"{name}{_labels(labels)} {value:.15g}")
        for (name, labels), row in sorted(self._histograms.items()):
            samples.setdefault(name, []).extend(_histogram(name, labels, row))
        lines: list[str] = []
        for name, rows in samples.items():
            kind, text = _HELP.get(name, ("untyped", name))
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *rows]
        return "\n".join(lines) + "\n"


def _histogram(name: str, labels: Labels, row: list[float]) -> Iterable[str]:
    total = 0.0
    for bound, count in zip((*BUCKETS, "+Inf"), row[:-1], strict=True):
        total += count
        le = _labels((*labels, ("le", str(bound))))
        yield f"{name}_bucket{le} {total:.15g}"
    yield f"{name}_sum{_labels(labels)} {row[-1]:.15g}"
    yield f"{name}_count{_labels(labels)} {total:.15g}"
