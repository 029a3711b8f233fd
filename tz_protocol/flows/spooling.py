"""Records -> disk: those that requests wait for, and those that memory cannot keep.

The one rule: what is on disk stays there until the store has it, and a disk that fails
is left alone for a while: it costs records their safety, never requests their answers.
One append is on its way at a time, and takes everything that waits for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tz_protocol.errors import OperationBroken, OperationError, OperationTimeout
from tz_protocol.notices import LogLine
from tz_protocol.operations import Flow, Signal, Sleep, Wait
from tz_protocol.recordops import AppendFile, ClaimSpool, RemoveFile
from tz_protocol.records.batch import Batch, Segment, frames, segment_name
from tz_protocol.records.queue import FOREVER, Queue

if TYPE_CHECKING:
    from collections.abc import Callable

    from tz_protocol.machine import Context
    from tz_protocol.records.metrics import Metrics

__all__ = ["APPEND_SECONDS", "FILE_SECONDS", "Spooler"]

FILE_SECONDS = 10.0
"""For one file; a disk that is slower is taken for broken."""

APPEND_SECONDS = 1.0
"""For the append that a request waits for."""

DISK_PAUSE = 5.0
"""Seconds before the disk is tried again after it has failed."""

CLAIM_SECONDS = 30.0
"""Between two looks at what other processes have left behind."""

DEAD = "dead.jsonl"
"""Rows that the store cannot read, a JSON object on each line, for people."""

DEAD_BYTES = 67_108_864
"""Of these: a table that refuses everything must not fill the disk. What comes after
them is counted as they are, and the log says that it is not kept."""


class _Append:
    """A payload on its way to the disk."""

    __slots__ = ("batch", "done", "failure", "payload")

    def __init__(self, batch: Batch, payload: bytes) -> None:
        self.batch = batch
        self.payload = payload
        self.done = Signal()
        self.failure = ""
        """Once it is done: why the payload is not there, in one word."""


class Spooler:
    """Keeps a queue's overflow on disk; :meth:`run` is the flow.

    Args:
        queue: Whose.
        context: Of the process.
        new_id: Makes the name of this process's folder.
        metrics: Counts failures.
    """

    def __init__(
        self,
        queue: Queue,
        context: Context,
        new_id: Callable[[], str],
        metrics: Metrics,
    ) -> None:
        self.failure = ""
        """What is wrong with the disk, in one word; empty if nothing is."""
        self._queue = queue
        self._settings = queue.settings.spool
        self._context = context
        self._own = new_id()
        self._metrics = metrics
        self._pending: list[_Append] = []
        self._again = -FOREVER
        self._claim_at = -FOREVER
        self._is_claimed = False

    # -- for requests -------------------------------------------------------------

    def keep(self, batch: Batch, payload: bytes) -> Flow[str]:
        """Wait until *payload*, of *batch*, is on disk; return why it is not."""
        append = self.begin(batch, payload)
        if append is None:
            return self.failure or "full"
        try:
            yield from Wait(self._context.now + APPEND_SECONDS, append.done)
        except OperationTimeout:
            # Whoever comes next is not to wait as long.
            self._broke("slow")
            return "slow"
        return append.failure

    def begin(self, batch: Batch, payload: bytes) -> _Append | None:
        """Have *payload* brought to disk soon; None: there is no room for it."""
        if not self.can_take(len(payload)):
            return None
        append = _Append(batch, payload)
        batch.waiting += 1
        self._pending.append(append)
        self._queue.wake_disk.set()
        return append

    def can_take(self, size: int) -> bool:
        """Return True if there is a disk that works, and room on it."""
        return self._context.now >= self._again and self.has_room(size)

    def has_room(self, size: int) -> bool:
        """Return True if there is a disk, and room on it, as far as is known."""
        settings = self._settings
        if not settings.folder:
            return False
        is_over = self._queue.disk_bytes + size > settings.bytes
        can_drop = settings.when_full == "drop_oldest" and bool(self._queue.segments)
        return can_drop or not is_over

    # -- the flow -----------------------------------------------------------------

    def run(self) -> Flow[None]:
        """Append and evict for ever; may be begun again."""
        if not self._settings.folder:
            yield from Sleep(FOREVER)
        queue = self._queue
        while True:
            queue.wake_disk = Signal()
            if self._context.now >= self._claim_at:
                yield from self._claim()
            elif self._pending:
                yield from self._append_pending()
            elif (batch := self._next_batch()) is not None:
                yield from self.evict(batch)
            else:
                again = self._again if self._again > self._context.now else FOREVER
                late = queue.late(self._context.now)
                wait = min(self._claim_at, queue.overdue, again, late)
                try:
                    yield from Wait(wait, queue.wake_disk)
                except OperationTimeout:
                    if queue.overdue <= self._context.now:
                        queue.close()

    def _next_batch(self) -> Batch | None:
        batch = self._queue.next_to_spool(self._context.now)
        return batch if batch is not None and self.can_take(batch.size) else None

    def _claim(self) -> Flow[None]:
        """Own a folder, and what others have left behind."""
        self._claim_at = self._context.now + DISK_PAUSE
        deadline = self._context.now + FILE_SECONDS
        try:
            found = yield from ClaimSpool(deadline, self._settings.folder, self._own)
        except OperationError as error:
            self._failed(error)
            return
        self._claim_at = self._context.now + CLAIM_SECONDS
        self._is_claimed = True
        self._works()
        count = self._queue.found([*found])
        if count:
            message = "records that an earlier process left behind will be written"
            fields: dict[str, object] = {"segments": count}
            self._context.tell(LogLine("info", message, fields))

    def _append_pending(self) -> Flow[None]:
        """Append everything that waits for the file of one batch."""
        pending, batch = self._pending, self._pending[0].batch
        mine = [append for append in pending if append.batch is batch]
        self._pending = [append for append in pending if append.batch is not batch]
        failure = "stopped"
        try:
            payloads = [append.payload for append in mine]
            is_there = yield from self._append(batch, payloads)
            failure = "" if is_there else self.failure or "full"
        finally:
            batch.waiting -= len(mine)
            for append in mine:
                append.failure = failure
                append.done.set()
            self._queue.wake_store.set()

    def evict(self, batch: Batch) -> Flow[None]:
        """Bring *batch* to disk, and out of memory."""
        queue = self._queue
        queue.hold(batch)
        try:
            if not batch.missing or (yield from self._append(batch, batch.missing)):
                queue.spooled(batch, self.path(batch))
        finally:
            queue.release(batch)

    def _append(self, batch: Batch, payloads: list[bytes]) -> Flow[bool]:
        """Append to the batch's file; True if it is there."""
        if not self._is_claimed:
            return False
        payloads, data = list(payloads), frames(payloads)
        yield from self._make_room(len(data))
        is_synced = self._settings.is_synced
        deadline = self._context.now + FILE_SECONDS
        try:
            yield from AppendFile(deadline, self.path(batch), data, is_synced)
        except OperationError as error:
            self._failed(error)
            return False
        self._works()
        self._queue.moved(batch, payloads, len(data))
        return True

    def path(self, batch: Batch) -> str:
        """Return the path of the batch's file."""
        return f"{self._settings.folder}/{self._own}/{segment_name(batch.name)}"

    def _make_room(self, size: int) -> Flow[None]:
        """Give up the oldest segments, if that is what is to be done."""
        queue, settings = self._queue, self._settings
        while (
            settings.when_full == "drop_oldest"
            and queue.segments
            and queue.disk_bytes + size > settings.bytes
        ):
            segment = queue.drop_oldest()
            if segment.count is None:
                self._metrics.add("tz_spool_segments_dropped_total")
            yield from self._remove(segment.path)

    # -- for the recorder ---------------------------------------------------------

    def remove(self, batch: Batch) -> Flow[None]:
        """Remove the file of a batch that the store has."""
        self._queue.disk_bytes -= batch.disk_bytes
        batch.disk_bytes = 0
        yield from self._remove(self.path(batch))

    def remove_segment(self, segment: Segment) -> Flow[None]:
        """Remove the file of a segment that the store has."""
        yield from self._remove(segment.path)

    def _remove(self, path: str) -> Flow[None]:
        # What cannot be removed is written once more, later, under the same name.
        try:
            yield from RemoveFile(self._context.now + FILE_SECONDS, path)
        except OperationError as error:
            self._failed(error)

    def set_aside(self, lines: bytes) -> Flow[bool]:
        """Keep rows that the store cannot read; False: there is no place for them."""
        if not self._settings.folder:
            return False
        deadline = self._context.now + FILE_SECONDS
        path = f"{self._settings.folder}/{DEAD}"
        try:
            yield from AppendFile(deadline, path, lines, limit=DEAD_BYTES)
        except OperationError as error:
            if not (isinstance(error, OperationBroken) and error.kind == "limit"):
                self._failed(error)
            return False
        return True

    # -- what becomes of it -------------------------------------------------------

    def _failed(self, error: OperationError) -> None:
        self._broke(error.kind if isinstance(error, OperationBroken) else "slow")

    def _broke(self, reason: str) -> None:
        self._again = self._context.now + DISK_PAUSE
        self._metrics.add("tz_spool_failures_total", reason=reason)
        if not self.failure:
            message = "the spool cannot be written"
            self._context.tell(LogLine("error", message, {"reason": reason}))
        self.failure = reason

    def _works(self) -> None:
        self._again = -FOREVER
        if self.failure:
            self.failure = ""
            self._context.tell(LogLine("info", "the spool can be written again"))
