"""The store goes away under load, and the gateway is killed meanwhile.

``TZ_OUTAGE_SECONDS=30`` makes the outage as long as it is meant to be, and ``pytest
-s`` shows the figures; by itself it is a short one.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import sys
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.transport.engine import engine, engine_of_the_session
from tests.transport.loops import NAMES
from tests.transport.outage import BOUND, Heard, Load, Relay
from tests.transport.processes import Running, running

__all__ = ["engine", "engine_of_the_session"]  # fixtures

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists() or sys.platform == "win32",
    reason="reads CPU times from /proc",
)

RATE = 200
AWAY = float(os.environ.get("TZ_OUTAGE_SECONDS", "6"))
"""Seconds."""

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

CONFIG = """
[gateway.observability]
durability = "spool"
spool = {{ folder = "{spool}" }}
[models.m]
routing = ["dummy"]
[models.m.providers.dummy]
type = "dummy"
model_name = "good"
"""


def cpu_seconds(process: Running) -> float:
    """Return the CPU time of a process so far."""
    stat = Path(f"/proc/{process.process.pid}/stat").read_text()
    fields = stat.rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def figures(heard: Heard, cpu: float) -> tuple[float, float, float]:
    """Return milliseconds: the median, the 99th percentile, CPU per request."""
    marks = statistics.quantiles(heard.seconds, n=100)
    return marks[49] * 1e3, marks[98] * 1e3, cpu / len(heard.ids) * 1e3


def unsafe_answers(port: int) -> int:
    """Return how many answers the gateway counts whose record was not safe."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=BOUND) as page:
        found = re.findall(r"tz_records_unsafe_total\{.*\} (.*)", page.read().decode())
    return round(sum(map(float, found)))


def in_spool(spool: Path) -> list[str]:
    """Return the names of the segments."""
    return [path.name for path in spool.rglob("*.seg")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(10 * AWAY + 120)
def test_outage_with_a_kill_in_it_leaves_every_answer_once(name, tmp_path, engine):
    spool, config = tmp_path / "spool", tmp_path / "gateway.toml"
    config.write_text(CONFIG.format(spool=spool))
    url = engine.url.reveal()
    target = urlsplit(url).port
    assert target is not None

    async def main(relay: Relay) -> tuple[list[Heard], list[float], int]:
        address = url.replace(f":{target}/", f":{relay.port}/")
        environment = {"TENSORZERO_CLICKHOUSE_URL": address}
        module = (f"tz_transport_{name}", "--config-file", str(config))
        quiet = ("--log-level", "error")
        with running(*module, *quiet, "--port", "0", environment=environment) as first:
            load = Load(first.port, RATE)
            await load.run(1)  # whatever is loaded late is loaded now
            cpu = [cpu_seconds(first)]
            heard = [await load.run(AWAY / 3)]
            cpu.append(cpu_seconds(first))
            relay.cut()
            heard.append(await load.run(AWAY / 2))
            cpu.append(cpu_seconds(first))
            assert in_spool(spool)
            dying = asyncio.create_task(load.run(1))
            await asyncio.sleep(0.25)
            unsafe = await asyncio.to_thread(unsafe_answers, first.port)
            first.process.send_signal(signal.SIGKILL)
            heard.append(await dying)
            await load.close()
        port = ("--port", str(load.port))
        with running(*module, *quiet, *port, environment=environment) as second:
            assert second.port == load.port
            heard.append(await load.run(AWAY / 2 - 1))
            relay.mend()
            back = monotonic()
            heard.append(await load.run(1))
            while in_spool(spool):
                assert monotonic() < back + 60, second.output
                await asyncio.sleep(0.05)
            print(f"{name}: drained within {monotonic() - back:.1f} s", end=", ")
            await load.close()
            assert second.stop() == 0
        return heard, cpu, unsafe

    with Relay(target) as relay:
        heard, cpu, unsafe = asyncio.run(main(relay))
    answered = [answer for stretch in heard for answer in stretch.ids]
    failed = sum(h.failed for h in heard)
    print(f"{len(answered)} answers ({unsafe} unsafe), {failed} without")
    up = figures(heard[0], cpu[1] - cpu[0])
    away = figures(heard[1], cpu[2] - cpu[1])
    for label, value in (("up", up), ("away", away)):
        print(f"  store {label}: p50 %.2f ms, p99 %.2f ms, CPU %.2f ms" % value)

    assert heard[0].failed == heard[1].failed == heard[3].failed == 0
    assert heard[2].failed > 0
    assert heard[2].ids
    assert len(answered) == len(set(answered))
    for table in ("Exchange", "ChatInference"):
        rows = engine.query(f"SELECT id, count() AS n FROM {table} GROUP BY id")
        found = {row["id"]: row["n"] for row in rows}
        assert set(found.values()) == {1}, table
    exchanges = {row["id"] for row in engine.query("SELECT id FROM Exchange")}
    # What the disk did not take within a second was answered all the same, and counted.
    bound = unsafe + len(heard[2].ids) if unsafe else 0
    assert len(set(answered) - exchanges) <= bound
    assert not list(spool.rglob("*.jsonl"))
    # Twice as much is a change; less than that is the machine's own noise.
    assert away[2] < 2 * up[2]
