"""What is kept of exchanges, and how surely; and what may be answered from memory.

The one rule: as in ``settings.py``: a value that exists is legal, durations are
seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tz_protocol.types.secret import Secret

__all__ = [
    "CacheOptions",
    "CacheSettings",
    "Capture",
    "Durability",
    "RecordSettings",
    "SpoolSettings",
]

Capture = Literal["full", "redacted", "none"]
"""Whether what was asked and answered is kept: as it was; its shape, with every text
replaced by its length; not at all."""

Durability = Literal["async", "spool", "sync"]
"""When the last byte of an answer may go: at once; when the record is in the spool;
when it is in ClickHouse. A process that is killed loses what is in its memory: with
``async`` the records of the last moments, with the others none."""


class SpoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The folder that holds what ClickHouse does not take."""

    folder: str = ""
    """Empty: there is none, and what does not fit into memory is dropped."""
    bytes: int = 1_073_741_824
    """All files together."""
    when_full: Literal["drop_newest", "drop_oldest", "reject_requests"] = "drop_newest"
    is_synced: bool = False
    """True: wait for the disk, not only for the operating system, which loses some
    seconds when the power fails."""


class RecordSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[gateway.observability]`` and what belongs to it."""

    url: Secret | None = None
    """``http(s)://`` of a server, or ``chdb:///folder``; None: nothing is kept."""
    durability: Durability = "async"
    capture: Capture = "full"
    content_bytes: int = 1_048_576
    """The longest part of the content that is kept."""
    batch_rows: int = 1_000
    batch_bytes: int = 4_194_304
    flush: float = 0.2
    """How long a record waits for others to go with."""
    queue_rows: int = 100_000
    queue_bytes: int = 67_108_864
    """Records in memory; past it they are spooled or dropped."""
    insert_timeout: float = 10.0
    spool: SpoolSettings = SpoolSettings()
    ttl_days: int | None = None
    """After which rows go; None: never, or as somebody else has set it."""
    migrate: bool = True
    """False: the tables are there already, and somebody else sees to them."""


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[gateway.cache]``."""

    is_enabled: bool = True
    """False: what callers ask of it has no effect."""
    memory_bytes: int = 67_108_864
    """Of the table in the process; 0: there is none."""
    entry_bytes: int = 1_048_576
    """The longest answer that is stored."""
    lookup_timeout: float = 0.05
    """For ClickHouse; what comes later is a miss."""
    scope: Literal["tenant", "global"] = "tenant"
    """``global``: one tenant's answer may serve another."""


class CacheOptions(msgspec.Struct, frozen=True):
    """``tensorzero::cache_options`` of one request."""

    enabled: Literal["on", "off", "read_only", "write_only"] = "off"
    max_age: float | None = None
    """Seconds; None: whatever its age."""

    @property
    def reads(self) -> bool:
        """True if an answer may come from the cache."""
        return self.enabled in ("on", "read_only")

    @property
    def writes(self) -> bool:
        """True if the answer may be stored."""
        return self.enabled in ("on", "write_only")
