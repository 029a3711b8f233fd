"""What the commands show of a seeded day that the recorder wrote."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from tests.transport.engine import (
    Engine,
    engine_of_the_session,
    full_engine_of_the_session,
)
from tests.transport.loops import NAMES
from tests.transport.processes import running
from tests.transport.recorded import (
    REQUESTS,
    at,
    cost_of,
    grouped,
    known,
    record_day,
    total,
)
from tests.transport.traffic import DAY
from tz_protocol.records.record import Outcome

__all__ = ["engine_of_the_session", "full_engine_of_the_session"]  # fixtures


@pytest.fixture(scope="module")
def small(engine_of_the_session) -> Engine:
    """Return the engine that users get."""
    return record_day(engine_of_the_session)


@pytest.fixture(scope="module")
def full(full_engine_of_the_session) -> Engine:
    """Return the engine that has everything."""
    return record_day(full_engine_of_the_session)


@pytest.fixture(params=["small", "full"])
def engine(request) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


def command(engine: Engine, transport: str, *arguments: str) -> list[dict[str, Any]]:
    """Return what a command prints as JSON: an array, or an object on each line."""
    done = subprocess.run(
        [sys.executable, "-m", f"tz_transport_{transport}", *arguments, "--json"],
        env={**os.environ, "TENSORZERO_CLICKHOUSE_URL": engine.url.reveal()},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def percentile(values: list[float], level: float) -> float | None:
    if not values:
        return None
    return round(sorted(values)[min(len(values) - 1, int(level * len(values)))], 1)


FAILED = {Outcome.ERROR, Outcome.TIMEOUT, Outcome.SHED, Outcome.PARTIAL}


@pytest.mark.parametrize("transport", NAMES)
def test_usage_is_what_was_used(engine, transport):
    found = command(
        engine,
        transport,
        "usage",
        "--since",
        "20000d",
        "--by",
        "day,model,provider,key",
    )
    groups = grouped(REQUESTS, lambda r: (DAY, r.model, r.provider, r.key or ""))
    assert len(found) == len(groups)
    for row in found:
        key = tuple(row[name] for name in ("day", "model", "provider", "key"))
        requests = groups[key]
        good = [r for r in requests if r.outcome is Outcome.OK]
        paid = [r for r in requests if not r.is_cached]
        costs = known(cost_of(r) for r in requests)
        times = [float(r.duration) for r in good]
        first = known(r.first_content for r in good)
        assert row["requests"] == len(requests)
        assert row["failed"] == sum(r.outcome in FAILED for r in requests)
        assert row["cached"] == sum(r.is_cached for r in requests)
        assert row["input_tokens"] == total(r.input_tokens for r in paid)
        assert row["output_tokens"] == total(r.output_tokens for r in paid)
        assert row["unknown_usage"] == sum(r.input_tokens is None for r in good)
        assert row["unknown_cost"] == sum(r.cost is None for r in good)
        cost = row["cost"] and Decimal(row["cost"])
        assert cost == (sum(costs) if costs else None)
        for level, name in ((0.5, "p50_ms"), (0.95, "p95_ms"), (0.99, "p99_ms")):
            assert row[name] == percentile(times, level), (key, name)
        assert row["first_p50_ms"] == percentile(first, 0.5)


@pytest.mark.parametrize("transport", NAMES)
def test_tail_shows_the_day_once_and_goes_on(engine, transport):
    with running(
        f"tz_transport_{transport}",
        "tail",
        "--since",
        "1h",
        "--model",
        "small",
        environment={"TENSORZERO_CLICKHOUSE_URL": engine.url.reveal()},
    ) as process:
        expected = sum(request.model == "small" for request in REQUESTS)
        last = [r for r in REQUESTS if r.model == "small"][-1]
        process.wait_for(
            rf"(?m)^{re.escape(at(last.at, '%Y-%m-%d %H:%M:%S'))}.* small/"
        )
        assert process.stop() == 0
        assert process.output.count(" small/") == expected
