"""A seeded day that the recorder wrote, and figures made of its facts."""

from __future__ import annotations

import copy
import itertools
import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.transport.engine import (
    SECONDS,
    Engine,
)
from tests.transport.loops import Transport
from tests.transport.traffic import Request, day, entry_of
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.flows.recorder import Recorder
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, Race
from tz_protocol.records.metrics import Metrics
from tz_protocol.records.views import QUANTILES
from tz_protocol.types.records import RecordSettings

FUNCTION = "tensorzero::default"
REQUESTS = day()
INFERENCES = [request for request in REQUESTS if request.is_inference]
"""Those that TensorZero's tables have rows of, in the order of their starts."""
ONE = next(r for r in INFERENCES if r.tries and r.cost and r.cache_read and r.tags)

_serial = itertools.count(1)


def _name() -> str:
    return f"019ce8f0-0000-7000-8000-{next(_serial):012x}"


def _record(engine: Engine) -> None:
    """Have a recorder write the day, as a gateway's does."""
    context = Context()
    settings = RecordSettings(url=engine.url, batch_rows=500, flush=0.05)
    store = ClickHouse(engine.url, context)
    recorder = Recorder(settings, store, context, _name, Metrics())

    def offer() -> Flow[None]:
        for request in REQUESTS:
            recorder.offer(entry_of(request))
        yield from recorder.finish(context.now + SECONDS)

    def flow() -> Flow[None]:
        yield from Race(context.now + 2 * SECONDS, (recorder.run(), offer()))

    Transport("asyncio").run_flow(flow, context)
    counts = recorder.queue.counts
    assert (counts.written, counts.dropped) == (len(REQUESTS), {})


def record_day(engine: Engine) -> Engine:
    """Return the engine with a database that holds the day."""
    of_the_day = copy.copy(engine).fresh()
    _record(of_the_day)
    # Until they are merged, which happens whenever it happens, TensorZero's own figure
    # of how many episodes there are counts some twice.
    of_the_day.query("OPTIMIZE TABLE EpisodeById FINAL")
    return of_the_day


def uint(text: str) -> int:
    """Return an id as TensorZero's tables are ordered by it."""
    return int(text.replace("-", ""), 16)


def at(millis: int, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    return datetime.fromtimestamp(millis // 1000, UTC).strftime(form)


def known(values: Iterator[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def cost_of(request: Request) -> Decimal | None:
    """Return a cost in the places that TensorZero's column has."""
    cost = request.cost
    return None if cost is None else cost.quantize(Decimal("0.000000001"))


def total(values: Iterator[Any]) -> Any:
    """Return a sum as ClickHouse has it: nothing if there is nothing known."""
    found = known(values)
    return sum(found) if found else None


def grouped(
    requests: list[Request], key: Callable[[Request], Any]
) -> dict[Any, list[Request]]:
    groups: dict[Any, list[Request]] = defaultdict(list)
    for request in requests:
        groups[key(request)].append(request)
    return groups


def newest(requests: list[Request]) -> list[Request]:
    return sorted(requests, key=lambda request: uint(request.id), reverse=True)


def row_of(request: Request, **members: Any) -> dict[str, Any]:
    """Return what a lookup says of an inference."""
    return {
        "id": request.id,
        "function_name": FUNCTION,
        "variant_name": request.model,
        "episode_id": request.episode_id,
        "function_type": "chat",
        "timestamp": at(request.at),
        **members,
    }


def episodes() -> list[dict[str, Any]]:
    """Return the rows of all episodes, newest first."""
    groups = grouped(INFERENCES, lambda request: request.episode_id)
    rows = []
    for episode in sorted(groups, key=uint, reverse=True):
        ordered = newest(groups[episode])
        rows.append(
            {
                "episode_id": episode,
                "count": len(ordered),
                "start_time": at(ordered[-1].at),
                "end_time": at(ordered[0].at),
                "last_inference_id": ordered[0].id,
            }
        )
    return rows


def tags_of(request: Request) -> dict[str, str]:
    found = dict(request.tags)
    if request.key:
        found["tensorzero::api_key_public_id"] = request.key
    return found


LEVELS = [float(level) for level in QUANTILES.split(",")]
EXACT = 0.01
"""How far from its rank the value that a digest gives may be."""


def check_quantiles(found: list[Any], values: list[int]) -> None:
    """Compare a digest's quantiles with where they are among the values."""
    values = sorted(values)
    assert len(found) == len(LEVELS)
    for level, value in zip(LEVELS, found, strict=True):
        # The digest is between two neighbours, and its ends are rounded to whole ones.
        lowest = bisect_left(values, math.floor(value)) / len(values)
        highest = bisect_right(values, math.ceil(value)) / len(values)
        assert lowest - EXACT <= level <= highest + EXACT, (level, value)
