"""Records -> ClickHouse, whatever becomes of ClickHouse meanwhile.

The one rule: no record is lost silently. It waits in memory, bounded, in batches; a
batch that the store does not take goes to disk, bounded, and from there to the store
when that is back, the oldest first; what fits nowhere is counted as dropped, by reason.
A request waits for none of this unless the durability says so, and then only for its
own record. Where each record is at any time is ``records/queue.py``'s business, the
disk ``spooling.py``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tz_protocol.errors import (
    OperationBroken,
    OperationError,
    OperationTimeout,
    StoreError,
    StoreRefused,
)
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.flows.migrate import migrate
from tz_protocol.flows.spooling import FILE_SECONDS, Spooler
from tz_protocol.flows.writing import MISSING_TABLE, render, write
from tz_protocol.notices import LogLine
from tz_protocol.operations import All, Flow, Signal, Sleep, Wait
from tz_protocol.recordops import ReadFile
from tz_protocol.records.batch import Batch, Rejected, Segment
from tz_protocol.records.entry import Entry
from tz_protocol.records.queue import FOREVER, Queue
from tz_protocol.types.records import RecordSettings
from tz_protocol.wire.spool import read_segment

if TYPE_CHECKING:
    from collections.abc import Callable

    from tz_protocol.machine import Context
    from tz_protocol.records.metrics import Metrics

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Recorder"]

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
"""Seconds between tries while the store does not take anything."""

_encode = msgspec.msgpack.Encoder().encode


class Recorder:
    """Takes entries, and keeps them; :meth:`run` is the flow.

    Args:
        settings: Fixed for the life of the process.
        store: Where the records go.
        context: Of the process.
        new_id: Makes names, in the order of time.
        metrics: Counts what goes wrong.
    """

    def __init__(
        self,
        settings: RecordSettings,
        store: ClickHouse,
        context: Context,
        new_id: Callable[[], str],
        metrics: Metrics,
    ) -> None:
        self.settings = settings
        self.queue = Queue(settings, new_id)
        self.spooler = Spooler(self.queue, context, new_id, metrics)
        self._store = store
        self._context = context
        self._metrics = metrics
        self._is_segments_turn = True
        self._is_migrated = not settings.migrate
        self._is_ending = False
        self._drained = Signal()

    # -- for requests -------------------------------------------------------------

    def offer(self, entry: Entry) -> None:
        """Take *entry*; never waits, never fails."""
        payload = _encode(entry)
        batch = self.queue.take(payload, self._context.now)
        if batch is not None and self.settings.durability == "spool":
            self.spooler.begin(batch, payload)

    def keep(self, entry: Entry) -> Flow[str]:
        """Take *entry* and wait until it is as safe as the durability says.

        What cannot be made safe is no reason to withhold an answer: it is counted, and
        the entry stays in memory.

        Returns:
            Why the entry is not safe, in one word; empty if it is.
        """
        payload = _encode(entry)
        batch = self.queue.take(payload, self._context.now)
        if batch is None:
            return "dropped"
        reason = ""
        if self.settings.durability == "spool":
            reason = yield from self.spooler.keep(batch, payload)
        elif self.settings.durability == "sync":
            self.queue.close()
            try:
                limit = self._context.now + self.settings.insert_timeout
                yield from Wait(limit, batch.done)
            except OperationTimeout:
                reason = "timeout"
            else:
                reason = "" if batch.is_written else "spooled"
        if reason:
            self._metrics.add("tz_records_unsafe_total", reason=reason)
        return reason

    @property
    def rejects_requests(self) -> bool:
        """True if no record can be kept, and then no request is to be served."""
        if self.settings.spool.when_full != "reject_requests":
            return False
        if not self.queue.is_crowded:
            return False
        batch = self.queue.next_to_spool(self._context.now)
        return batch is not None and not self.spooler.can_take(batch.size)

    def problems(self) -> list[str]:
        """Return what an operator should know; empty if all is well."""
        found = []
        if self.queue.is_failing:
            found.append("ClickHouse takes no records")
        if self.spooler.failure:
            found.append(f"the spool cannot be written ({self.spooler.failure})")
        return found

    # -- the flow -----------------------------------------------------------------

    def run(self) -> Flow[None]:
        """Write for as long as the process lives; may be begun again."""
        yield from All(FOREVER, (self._write_all(), self.spooler.run()))

    def finish(self, deadline: float) -> Flow[None]:
        """Write, or spool, everything; :meth:`run` must still be running.

        Afterwards ``queue.counts.queued`` is how many records are lost with us.
        """
        self._is_ending = True
        self.queue.close()
        self.queue.hurry()
        self._look_drained()
        try:
            yield from Wait(deadline, self._drained)
        except OperationTimeout:
            for batch in self.queue.unsafe():
                # The last chance: a disk that failed a moment ago is tried once more.
                if self.spooler.has_room(batch.size):
                    yield from self.spooler.evict(batch)
                    if self.spooler.failure:
                        return

    def _look_drained(self) -> None:
        if self._is_ending and self.queue.is_drained:
            self._drained.set()

    def _write_all(self) -> Flow[None]:
        pause = FIRST_PAUSE
        while True:
            try:
                if not self._is_migrated:
                    yield from self._migrate()
                yield from self._write_next()
            except StoreError as error:
                self._failed(error)
                yield from Sleep(self._context.now + pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE
            self._look_drained()

    def _migrate(self) -> Flow[None]:
        found = yield from migrate(self._store, self.settings.ttl_days)
        self._is_migrated = True
        if found.done:
            fields: dict[str, object] = {"done": ", ".join(found.done)}
            self._context.tell(LogLine("info", "the database was migrated", fields))
        if found.left_out:
            fields = {"tables": ", ".join(found.left_out)}
            message = "some tables are left out, which this ClickHouse cannot fill"
            self._context.tell(LogLine("info", message, fields))

    def _failed(self, error: StoreError) -> None:
        code = error.code if isinstance(error, StoreRefused) else str(error)
        if isinstance(error, StoreRefused) and code in MISSING_TABLE:
            self._is_migrated = not self.settings.migrate
        self._metrics.add("tz_clickhouse_failures_total", purpose="records")
        if not self.queue.is_failing:
            self.queue.is_failing = True
            message = "ClickHouse takes no records; they are kept until it does"
            self._context.tell(LogLine("error", message, {"reason": code}))
        self.queue.poke()

    def _write_next(self) -> Flow[None]:
        """Write one batch or one segment, whoever's turn it is, or wait for one."""
        queue = self.queue
        queue.wake_store = Signal()
        batch, segment = queue.next_to_write(self._context.now)
        if batch is not None and (segment is None or not self._is_segments_turn):
            self._is_segments_turn = True
            yield from self._write_batch(batch)
        elif segment is not None:
            self._is_segments_turn = False
            yield from self._write_segment(segment)
        else:
            try:
                yield from Wait(queue.next_look(self._context.now), queue.wake_store)
            except OperationTimeout:
                return

    def _write_batch(self, batch: Batch) -> Flow[None]:
        queue = self.queue
        queue.hold(batch)
        try:
            rejected, unread = yield from self._write(
                batch, batch.payloads, batch.written
            )
            yield from self._set_aside(rejected)
            is_gone = queue.written(batch, _records_of(rejected), len(unread))
        finally:
            queue.release(batch)
        if is_gone and batch.disk_bytes:
            yield from self.spooler.remove(batch)

    def _write_segment(self, segment: Segment) -> Flow[None]:
        queue = self.queue
        try:
            data = yield from ReadFile(self._context.now + FILE_SECONDS, segment.path)
        except OperationError as error:
            if isinstance(error, OperationBroken) and error.kind == "missing":
                queue.gone(segment)  # somebody has taken it away
                return
            queue.put_off(segment, self._context.now + FILE_SECONDS)
            yield from Sleep(self._context.now + FIRST_PAUSE)
            return
        found = read_segment(data)
        # An append that came late, after it was given up and repeated, is there twice.
        payloads = list(dict.fromkeys(found.payloads))
        queue.read(segment, len(payloads))
        if found.damage:
            self._metrics.add("tz_spool_damage_total", found.damage)
        rejected, unread = yield from self._write(segment, payloads, {})
        yield from self._set_aside(rejected)
        queue.gone(segment, len(payloads), _records_of(rejected), len(unread))
        yield from self.spooler.remove_segment(segment)

    def _write(
        self,
        one: Batch | Segment,
        payloads: list[bytes],
        written: dict[str, list[Rejected]],
    ) -> Flow[tuple[list[Rejected], list[int]]]:
        rows, unread = yield from render(payloads, self._context)
        is_repeat, one.is_tried = one.is_tried, True
        try:
            rejected = yield from write(
                self._store,
                self.settings.insert_timeout,
                one.name,
                rows,
                written,
                is_repeat=is_repeat,
            )
        except StoreError:
            self.queue.failed(one, self._context.now)
            raise
        if self.queue.is_failing:
            self.queue.is_failing = False
            message = "ClickHouse takes records again"
            self._context.tell(LogLine("info", message))
        return rejected, unread

    def _set_aside(self, rejected: list[Rejected]) -> Flow[None]:
        """Put refused rows where a person can look at them."""
        if not rejected:
            return
        is_kept = yield from self.spooler.set_aside(
            b"".join(
                b'{"table":"%b","code":"%b","row":%b}\n'
                % (table.encode(), code.encode(), row)
                for _, table, row, code in rejected
            )
        )
        _, table, _, code = rejected[0]
        fields: dict[str, object] = {
            "rows": len(rejected),
            "table": table,
            "code": code,
        }
        fate = "they are set aside" if is_kept else "they are lost"
        message = f"ClickHouse cannot read some rows; {fate}"
        self._context.tell(LogLine("error", message, fields))


def _records_of(rejected: list[Rejected]) -> int:
    """Return of how many records rows were refused."""
    return len({number for number, *_ in rejected})
