"""What a gateway has in ClickHouse: its recorder and its cache.

The one rule: without a store there is no recorder, and the cache is the process's
memory alone; whoever asks for either need not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tz_protocol.flows.caching import Cache
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.flows.recorder import Recorder
from tz_protocol.operations import Flow
from tz_protocol.types.settings import GatewaySettings

if TYPE_CHECKING:
    from tz_protocol.machine import Context
    from tz_protocol.records.metrics import Metrics

__all__ = ["Stores"]

Labels = tuple[tuple[str, str], ...]


class Stores:
    """The recorder and the cache of one process.

    Args:
        settings: Where the store is, and how it is used, for the life of the process.
        context: Of the process.
        new_id: Makes UUIDv7 strings.
        wall_clock: Unix seconds.
        metrics: Of the process.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        context: Context,
        new_id: Callable[[], str],
        wall_clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        records = settings.records
        store = None
        self.recorder: Recorder | None = None
        if records.url is not None and settings.observability is not False:
            store = ClickHouse(records.url, context)
            self.recorder = Recorder(records, store, context, new_id, metrics)
        self.cache = Cache(settings.cache, store, context, wall_clock, metrics)

    def services(self) -> tuple[tuple[str, Callable[[], Flow[None]]], ...]:
        """Return (name, what makes the flow) of what must run."""
        services: tuple[tuple[str, Callable[[], Flow[None]]], ...] = (
            ("cache", self.cache.run),
        )
        if self.recorder is not None:
            services = (*services, ("recorder", self.recorder.run))
        return services

    def finish(self, deadline: float) -> Flow[None]:
        """Bring everything to safety; the services must still be running."""
        if self.recorder is not None:
            yield from self.recorder.finish(deadline)

    def lost(self) -> int:
        """Return how many records would be lost with the process now."""
        return 0 if self.recorder is None else self.recorder.queue.counts.queued

    def problems(self) -> list[str]:
        """Return what an operator should know; requests are served all the same."""
        return [] if self.recorder is None else self.recorder.problems()

    def gauges(self) -> dict[tuple[str, Labels], float]:
        """Return what ``/metrics`` shows of them.

        ``accepted + recovered = written + queued + spooled + dropped``, always.
        """
        memory = self.cache.memory
        found: dict[tuple[str, Labels], float] = {
            ("tz_cache_entries", ()): len(memory),
            ("tz_cache_bytes", ()): memory.size,
        }
        if self.recorder is None:
            return found
        queue = self.recorder.queue
        counts = queue.counts
        for name in ("accepted", "recovered", "written"):
            found[f"tz_records_{name}_total", ()] = getattr(counts, name)
        for reason, count in counts.dropped.items():
            found["tz_records_dropped_total", (("reason", reason),)] = count
        found["tz_records_queued", ()] = counts.queued
        found["tz_records_spooled", ()] = counts.spooled
        found["tz_spool_bytes", ()] = queue.disk_bytes
        found["tz_clickhouse_up", ()] = float(not queue.is_failing)
        return found
