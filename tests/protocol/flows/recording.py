"""A recorder in a simulated world, fed by hand."""

from __future__ import annotations

import itertools
import json

from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.flows.recorder import Recorder
from tz_protocol.operations import Flow
from tz_protocol.records.entry import Entry
from tz_protocol.records.metrics import Metrics
from tz_protocol.records.record import Outcome, Record, Stage
from tz_protocol.testing import ScriptedClickHouse, ScriptedDisk, Simulator, World
from tz_protocol.types.records import RecordSettings, SpoolSettings
from tz_protocol.types.secret import Secret

URL = "http://store.test:8123/tensorzero"
FOLDER = "/spool"

_serial = itertools.count(1)


def uuid() -> str:
    """Return the next id, in the order of time."""
    return f"01890000-0000-7000-8000-{next(_serial):012x}"


def entry(size: int = 0, *, is_chat: bool = False) -> Entry:
    """Return an exchange that went well, of at least so many bytes."""
    number = uuid()
    inference_id = uuid() if is_chat else ""
    record = Record(
        id=number,
        request_id=number,
        endpoint="POST /v1/embeddings",
        config_id="c",
        started_at=1_750_000_000.0,
        started=0.0,
        stage=Stage.DONE,
        outcome=Outcome.OK,
        status=200,
        duration=0.1,
        tags={"pad": "x" * size} if size else {},
    )
    return Entry(record=record, inference_id=inference_id)


class Recording:
    """A simulator with a recorder that runs.

    Args:
        disk: Of an earlier process.
        server: Of an earlier process.
        spool: Settings of the spool; None: there is none.
        settings: Of the recorder.
    """

    def __init__(
        self,
        *,
        disk: ScriptedDisk | None = None,
        server: ScriptedClickHouse | None = None,
        spool: dict | None = None,
        start: float = 1_000.0,
        **settings,
    ) -> None:
        self.server = server or ScriptedClickHouse()
        self.disk = disk or ScriptedDisk()
        world = World(clickhouse={URL: self.server}, disk=self.disk)
        self.sim = Simulator(world, start=start)
        if spool is not None:
            settings["spool"] = SpoolSettings(**{"folder": FOLDER, **spool})
        self.metrics = Metrics()
        context = self.sim.context
        self.recorder = Recorder(
            RecordSettings(url=Secret(URL), **settings),
            ClickHouse(Secret(URL), context),
            context,
            uuid,
            self.metrics,
        )
        self.offered: list[str] = []
        self.running = self.sim.spawn(self.recorder.run())
        self.wait(0.01)

    @property
    def counts(self):
        """Where the records are."""
        return self.recorder.queue.counts

    def offer(self, count: int = 1, size: int = 0, *, is_chat: bool = False) -> None:
        """Hand over records, now."""
        for _ in range(count):
            one = entry(size, is_chat=is_chat)
            self.offered.append(one.record.id)
            self.recorder.offer(one)
        self.check()

    def offer_at_rate(self, rate: float, seconds: float) -> None:
        """Hand over *rate* records a second for so long."""
        for _ in range(round(rate * seconds)):
            self.offer()
            self.wait(1 / rate)

    def keep(self, kept: list[str] | None = None):
        """Hand over a record as a request does that waits; return the machine."""
        one = entry()
        self.offered.append(one.record.id)

        def flow() -> Flow[None]:
            unsafe = yield from self.recorder.keep(one)
            if kept is not None and not unsafe:
                kept.append(one.record.id)

        return self.sim.spawn(flow())

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.sim.run_until(self.sim.now + seconds)
        self.check()

    def finish(self, seconds: float = 5.0) -> None:
        """End as SIGTERM does."""
        outcome = self.sim.spawn(self.recorder.finish(self.sim.now + seconds))
        self.sim.run_until_done(outcome)
        self.running.cancel()
        self.check()

    def check(self) -> None:
        """Every record is accounted for, at any time."""
        assert self.counts.difference() == 0, vars_of(self.counts)
        assert self.counts.queued >= 0
        assert self.counts.spooled >= 0
        assert self.recorder.queue.disk_bytes >= 0

    def written(self) -> list[str]:
        """Return the ids in the table, each as often as it is there."""
        return [row["id"] for row in self.server.rows("Exchange")]

    def disk_bytes_kept(self) -> int:
        """Return the bytes of all segments."""
        files = self.disk.files.items()
        return sum(len(data) for path, data in files if path.endswith(".seg"))

    def is_empty(self) -> bool:
        """Return whether nothing waits anywhere, nor is thought to."""
        counts, known = self.counts, self.recorder.queue.disk_bytes
        return not any((counts.queued, counts.spooled, known, self.disk_bytes_kept()))

    def dead(self) -> list[dict]:
        """Return what was set aside."""
        lines = self.disk.files.get(f"{FOLDER}/dead.jsonl", b"").splitlines()
        return [json.loads(line) for line in lines]


def vars_of(counts) -> dict:
    """Return the counts, for messages."""
    return {name: getattr(counts, name) for name in counts.__slots__}
