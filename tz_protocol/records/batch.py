"""Records on their way to the store, counted: in memory, on disk, gone.

The one rule: every record that was accepted is in exactly one place at any time, and
the sum of the places is what was accepted::

    accepted + recovered = written + queued + spooled + dropped

``recovered`` are those that an earlier process left behind. A batch is written under
its name, which the store takes for the same batch once more however often it comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TypeAlias

from tz_protocol.operations import Signal
from tz_protocol.wire.spool import frame

__all__ = ["Batch", "Counts", "Rejected", "Segment", "frames", "segment_name"]

SUFFIX = ".seg"

Rejected: TypeAlias = tuple[int, str, bytes, str]
"""The number of the record in its batch, the table, the row, the error's code."""


class Counts:
    """How many records are where; :meth:`check` says whether the sum is right."""

    __slots__ = (
        "accepted",
        "dropped",
        "queued",
        "recovered",
        "spooled",
        "written",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.recovered = 0
        self.written = 0
        self.queued = 0
        """In memory only."""
        self.spooled = 0
        """On disk, whether or not they are in memory too."""
        self.dropped: dict[str, int] = {}
        """By reason: ``queue_full``, ``spool_full``, ``rejected``, ``damaged``."""

    def drop(self, reason: str, count: int = 1) -> None:
        """Count records that nobody will see."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def difference(self) -> int:
        """Return how many records are not accounted for: zero, always."""
        found = self.written + self.queued + self.spooled + sum(self.dropped.values())
        return self.accepted + self.recovered - found


class Batch:
    """Records that are written together, and the file that holds those on disk.

    Args:
        name: Unique, and in the order of time.
        opened: When it began.
    """

    __slots__ = (
        "again",
        "disk_bytes",
        "done",
        "failed_at",
        "failures",
        "is_tried",
        "is_written",
        "missing",
        "name",
        "opened",
        "payloads",
        "size",
        "waiting",
        "written",
    )

    def __init__(self, name: str, opened: float) -> None:
        self.name = name
        self.opened = opened
        self.payloads: list[bytes] = []
        self.size = 0
        self.missing: list[bytes] = []
        """Those that are not on disk."""
        self.disk_bytes = 0
        """Of its file."""
        self.waiting = 0
        """Those that are on their way to the disk; until they are there the batch is
        not written, or it would begin anew afterwards."""
        self.written: dict[str, list[Rejected]] = {}
        """Tables that have its rows, each with those that it refused."""
        self.is_tried = False
        """True: some of it may be in the store although nobody said so."""
        self.is_written = False
        """True once the store has all of it that it can have."""
        self.failures = 0
        """How often the store took others, and not this."""
        self.failed_at = -inf
        """When the store last did not take it."""
        self.again = -inf
        """Before then it is not tried once more."""
        self.done = Signal()
        """Set once it is in the store or on disk."""

    def add(self, payload: bytes) -> None:
        """Take one more."""
        self.payloads.append(payload)
        self.missing.append(payload)
        self.size += len(payload)

    @property
    def on_disk(self) -> int:
        """How many are on disk."""
        return len(self.payloads) - len(self.missing)


class Segment:
    """Records that are on disk only."""

    __slots__ = ("again", "count", "failed_at", "failures", "is_tried", "path", "size")

    def __init__(
        self, path: str, size: int, count: int | None, *, is_tried: bool = True
    ) -> None:
        self.path = path
        self.size = size
        """Bytes of the file."""
        self.count = count
        """None until it was read: an earlier process left it."""
        self.is_tried = is_tried
        self.failures = 0
        self.failed_at = -inf
        self.again = -inf

    @property
    def name(self) -> str:
        """The name of the batch that it is."""
        return self.path.rpartition("/")[2].removesuffix(SUFFIX)


def segment_name(name: str) -> str:
    """Return the file name of the batch *name*."""
    return name + SUFFIX


def frames(payloads: Iterable[bytes]) -> bytes:
    """Return *payloads* as they stand in a segment."""
    return b"".join(map(frame, payloads))
