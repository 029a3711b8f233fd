"""The records that wait: batches in memory and segments on disk, bounded.

The one rule: this is bookkeeping, at once and without waiting, and every method leaves
:class:`Counts` right. Two flows take from it, ``flows/recorder.py`` for the store and
``flows/spooling.py`` for the disk; each says what it holds, so that neither takes what
the other has in its hands.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tz_protocol.operations import Signal
from tz_protocol.records.batch import Batch, Counts, Segment
from tz_protocol.types.records import RecordSettings

__all__ = ["Queue"]

FAILURES = 3
"""Times that a batch fails, where others do not, before it is put off."""

PUT_OFF = 30.0
"""Seconds for which it is."""

LONGEST_OPEN = 1.0
"""Seconds after which a batch is closed while nothing can be written anyway: longer
than in good times, so that a long outage makes fewer files."""

LATE = 2.0
"""Seconds after its time in which a batch is written or else brought to disk."""

SHARE = 4
"""No batch takes more than one part in so many of what memory may hold: something can
leave it whenever half is full."""

FOREVER = math.inf

_One = TypeVar("_One", Batch, Segment)


class Queue:
    """What waits.

    Args:
        settings: Its bounds.
        new_id: Makes names of batches, in the order of time.
    """

    def __init__(self, settings: RecordSettings, new_id: Callable[[], str]) -> None:
        self.settings = settings
        self.counts = Counts()
        self.is_failing = False
        """True while the store takes nothing."""
        self.segments: deque[Segment] = deque()
        """On disk only, the oldest first."""
        self.disk_bytes = 0
        """Of all files of the spool that this process knows of."""
        self.wake_store = Signal()
        self.wake_disk = Signal()
        self._new_id = new_id
        self._open: Batch | None = None
        self._ready: deque[Batch] = deque()
        self._held: dict[Batch, None] = {}
        """In the hands of one of the flows."""
        self._rows = 0
        self._bytes = 0

    # -- in -----------------------------------------------------------------------

    def take(self, payload: bytes, now: float) -> Batch | None:
        """Take a record; return the batch that it goes with, None if it is dropped."""
        counts, settings, size = self.counts, self.settings, len(payload)
        counts.accepted += 1
        if self.is_full(size):
            counts.drop("spool_full" if settings.spool.folder else "queue_full")
            return None
        batch = self._open
        if batch is None:
            batch = self._open = Batch(self._new_id(), now)
            self.poke()
        batch.add(payload)
        counts.queued += 1
        self._rows += 1
        self._bytes += size
        rows = min(settings.batch_rows, settings.queue_rows // SHARE)
        most = min(settings.batch_bytes, settings.queue_bytes // SHARE)
        if len(batch.payloads) >= rows or batch.size >= most:
            self.close()
        return batch

    def is_full(self, size: int) -> bool:
        """Return True if a record of *size* bytes has no place in memory."""
        settings = self.settings
        is_over = self._bytes + size > settings.queue_bytes
        return is_over or self._rows >= settings.queue_rows

    @property
    def is_crowded(self) -> bool:
        """True if some of it had better go to disk."""
        settings = self.settings
        is_over = 2 * self._bytes > settings.queue_bytes
        return is_over or 2 * self._rows > settings.queue_rows

    def poke(self) -> None:
        """Have both flows look again."""
        self.wake_store.set()
        self.wake_disk.set()

    # -- batches ------------------------------------------------------------------

    def close(self) -> None:
        """Let nothing more into the open batch."""
        batch, self._open = self._open, None
        if batch is not None:
            self._ready.append(batch)
            self.poke()

    @property
    def due(self) -> float:
        """When the open batch is to be written."""
        batch = self._open
        return FOREVER if batch is None else batch.opened + self.settings.flush

    @property
    def overdue(self) -> float:
        """When the open batch is to be closed although nothing can be written."""
        batch = self._open
        if batch is None:
            return FOREVER
        return batch.opened + max(LONGEST_OPEN, self.settings.flush)

    def next_to_write(self, now: float) -> tuple[Batch | None, Segment | None]:
        """Return the oldest batch and the oldest segment that can be written."""
        if self.due <= now:
            self.close()
        return _next(self._free(), now), _next(self.segments, now)

    def next_look(self, now: float) -> float:
        """Return when there will be something to write, if nothing happens before."""
        times = [self.due, *(one.again for one in self._waiting() if one.again > now)]
        return min(times)

    def _waiting(self) -> Iterator[Batch | Segment]:
        yield from self._ready
        yield from self.segments

    def failed(self, one: Batch | Segment, now: float) -> None:
        """Say that the store did not take *one*, and let the others go first.

        It may be the only one that cannot be taken. What fails again and again while
        others get through is put off for longer.
        """
        one.failed_at = now
        if not self.is_failing:
            one.failures += 1
        if one.failures >= FAILURES:
            self.put_off(one, now + PUT_OFF)

    def put_off(self, one: Batch | Segment, until: float) -> None:
        """Do not try *one* before then."""
        one.again = until

    def hurry(self) -> None:
        """Put nothing off any longer."""
        for one in self._waiting():
            one.again = -FOREVER
        self.poke()

    def next_to_spool(self, now: float) -> Batch | None:
        """Return the oldest batch that should leave the memory, None if none should."""
        if self.is_failing or self.is_crowded:
            return next(self._free(), None)
        batch = self._first_unsafe()
        return batch if batch is not None and self._late(batch) <= now else None

    def late(self, now: float) -> float:
        """Return when a batch will have waited for too long to be in memory only."""
        batch = self._first_unsafe()
        late = FOREVER if batch is None else self._late(batch)
        return late if late > now else FOREVER

    def _first_unsafe(self) -> Batch | None:
        if self.settings.durability == "sync":
            return None  # whoever waits for it waits for the store
        return next((batch for batch in self._free() if batch.missing), None)

    def _late(self, batch: Batch) -> float:
        return batch.opened + self.settings.flush + LATE

    def _free(self) -> Iterator[Batch]:
        """Return the batches that either flow may take, the oldest first."""
        for batch in self._ready:
            if not batch.waiting and batch not in self._held:
                yield batch

    def hold(self, batch: Batch) -> None:
        """Take *batch* in hand; :meth:`release` it, whatever comes of it."""
        self._held[batch] = None

    def release(self, batch: Batch) -> None:
        """Give *batch* back."""
        self._held.pop(batch, None)
        self.poke()

    @property
    def is_drained(self) -> bool:
        """True if all that came is in the store, or left to whoever comes next."""
        return self._open is None and not self._ready

    def unsafe(self) -> list[Batch]:
        """Return the batches of which something is in memory only."""
        return [batch for batch in self._ready if batch.missing]

    # -- out ----------------------------------------------------------------------

    def moved(self, batch: Batch, payloads: list[bytes], size: int) -> None:
        """Say that some of *batch* is on disk now, in *size* bytes more."""
        self.disk_bytes += size
        batch.disk_bytes += size
        if batch.done.is_set:
            return  # it was written meanwhile; the file is removed, or seen again
        ids = {id(payload) for payload in payloads}
        left = [payload for payload in batch.missing if id(payload) not in ids]
        count = len(batch.missing) - len(left)
        batch.missing = left
        self.counts.queued -= count
        self.counts.spooled += count

    def spooled(self, batch: Batch, path: str) -> None:
        """Say that all of *batch* is on disk: forget what is in memory."""
        if batch.done.is_set:
            return  # the store has it already, or it was brought to disk twice
        self._forget(batch)
        size, count = batch.disk_bytes, len(batch.payloads)
        segment = Segment(path, size, count, is_tried=batch.is_tried)
        segment.failures, segment.failed_at = batch.failures, batch.failed_at
        segment.again = batch.again
        self.segments.append(segment)
        batch.done.set()
        self.poke()

    def written(self, batch: Batch, rejected: int, unread: int) -> bool:
        """Say that *batch* is in the store, but for some that cannot be.

        Returns:
            False if it was brought to disk meanwhile, and counts as a segment.
        """
        if batch.done.is_set:
            return False
        self._forget(batch)
        self.counts.queued -= len(batch.missing)
        self.counts.spooled -= batch.on_disk
        self._settle(len(batch.payloads), rejected, unread)
        batch.is_written = True
        batch.done.set()
        return True

    def _forget(self, batch: Batch) -> None:
        self._ready.remove(batch)
        self._rows -= len(batch.payloads)
        self._bytes -= batch.size

    def found(self, segments: list[tuple[str, int]]) -> int:
        """Take (path, size) of what is on disk; return how many were not known."""
        known = {segment.path for segment in self.segments}
        new = [Segment(p, size, None) for p, size in segments if p not in known]
        if new:
            self.disk_bytes += sum(segment.size for segment in new)
            every = sorted([*self.segments, *new], key=lambda segment: segment.name)
            self.segments = deque(every)
            self.poke()
        return len(new)

    def read(self, segment: Segment, count: int) -> None:
        """Say how many records *segment* turned out to have."""
        if segment.count is None:
            segment.count = count
            self.counts.recovered += count
            self.counts.spooled += count

    def gone(
        self, segment: Segment, found: int = 0, rejected: int = 0, unread: int = 0
    ) -> None:
        """Say that *segment* is in the store, as far as it could be read.

        Args:
            segment: One of ``segments``.
            found: Records that were in it.
            rejected: Of these, refused.
            unread: Of these, not understood.
        """
        if segment not in self.segments:
            return  # dropped meanwhile, and counted then
        self.segments.remove(segment)
        self.disk_bytes -= segment.size
        count = segment.count or 0
        self.counts.spooled -= count
        lost = max(0, count - found)
        self.counts.drop("damaged", lost)
        self._settle(count - lost, rejected, unread)

    def drop_oldest(self) -> Segment:
        """Give the oldest segment up and return it; there must be one."""
        segment = self.segments.popleft()
        self.disk_bytes -= segment.size
        if segment.count is not None:
            self.counts.spooled -= segment.count
            self.counts.drop("spool_full", segment.count)
        return segment

    def _settle(self, count: int, rejected: int, unread: int) -> None:
        self.counts.drop("rejected", rejected)
        self.counts.drop("damaged", unread)
        self.counts.written += count - rejected - unread


def _next(waiting: Iterable[_One], now: float) -> _One | None:
    """Return the first that has not failed, else the one whose failure is longest ago.

    Those that were put off do not count.
    """
    best: _One | None = None
    for one in waiting:
        if one.again > now:
            continue
        if one.failed_at == -FOREVER:
            return one
        if best is None or one.failed_at < best.failed_at:
            best = one
    return best
