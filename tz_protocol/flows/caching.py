"""Answers that are given again: from the process's memory, or from ClickHouse.

The one rule: the cache may forget and is never wrong. Only whole, successful answers
are stored; a store that is slow or away is a miss, and after some of those it is not
asked for a while; what waits to be stored is bounded and may be dropped. Content that
may not be kept never leaves the process's memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from tz_protocol.errors import StoreError
from tz_protocol.operations import Flow, Signal, Sleep, Wait
from tz_protocol.records.blocks import output_of
from tz_protocol.records.queue import FOREVER
from tz_protocol.routing.cache import Answer, Memory
from tz_protocol.types.records import CacheOptions, CacheSettings
from tz_protocol.types.usage import Usage
from tz_protocol.wire.json import value_of

if TYPE_CHECKING:
    from tz_protocol.flows.clickhouse import ClickHouse
    from tz_protocol.machine import Context
    from tz_protocol.records.metrics import Metrics

__all__ = ["Cache"]

TABLE = "ModelInferenceCache"

WAITING_LIMIT = 8_388_608
"""Bytes of answers that wait to be stored."""

BATCH_ROWS = 500
BATCH_PAUSE = 0.5
"""Seconds that answers are collected for before they are written."""

WRITE_SECONDS = 10.0

FAILURES = 5
"""Lookups in a row that fail before the store is not asked any more."""

REST = 5.0
"""Seconds for which it is not."""

_LOOKUP = f"""\
SELECT output, toUnixTimestamp(timestamp) AS written FROM {TABLE}
WHERE short_cache_key = {{short:UInt64}} AND long_cache_key = {{long:String}}
AND is_deleted = 0 ORDER BY timestamp DESC LIMIT 1 FORMAT JSONEachRow"""

_encode = msgspec.json.Encoder().encode


class _Stored(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An answer as the column ``output`` has it."""

    tz: int = 1
    """Version of this form; what has none was written by somebody else."""
    members: Raw = Raw(b"")
    chunks: list[Raw] = []
    model: str
    provider: str
    usage: Usage | None = None


class _Row(msgspec.Struct):
    output: str
    written: int


_read_row = msgspec.json.Decoder(_Row, strict=False).decode
_read_stored = msgspec.json.Decoder(_Stored).decode


class Cache:
    """One process's cache; :meth:`run` writes what is to be stored.

    Args:
        settings: See :attr:`settings`.
        store: None: there is only the process's memory.
        context: Of the process.
        wall_clock: Unix seconds.
        metrics: Counts what became of lookups.
    """

    def __init__(
        self,
        settings: CacheSettings,
        store: ClickHouse | None,
        context: Context,
        wall_clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self.memory = Memory(settings.memory_bytes)
        self._settings = settings
        self._store = store
        self._context = context
        self._wall_clock = wall_clock
        self._metrics = metrics
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._news = Signal()
        self._failures = 0
        self._rests_until = -FOREVER

    def use(self, settings: CacheSettings) -> None:
        """Take new settings; what is remembered stays as far as it may."""
        self._settings = settings
        self.memory.limit = settings.memory_bytes
        self.memory.shrink()

    # -- reading ------------------------------------------------------------------

    def look_up(self, key: bytes, options: CacheOptions) -> Flow[Answer | None]:
        """Return the answer to *key*, None if there is none in time."""
        now = self._wall_clock()
        answer = self.memory.get(key, now, options.max_age)
        if answer is not None:
            self._count("hit", "memory")
            return answer
        if self._store is None or self._context.now < self._rests_until:
            self._count("miss", "memory")
            return None
        answer = yield from self._ask(self._store, key)
        if answer is None:
            return None
        if options.max_age is not None and now - answer.written > options.max_age:
            self._count("miss", "store")
            return None
        self._count("hit", "store")
        self.memory.put(key, answer)
        return answer

    def _ask(self, store: ClickHouse, key: bytes) -> Flow[Answer | None]:
        keys = (("short", str(_short(key))), ("long", key.hex()))
        try:
            data = yield from store.query(self._settings.lookup_timeout, _LOOKUP, keys)
        except StoreError:
            self._count("error", "store")
            self._failures += 1
            if self._failures >= FAILURES:
                self._rests_until = self._context.now + REST
            return None
        self._failures = 0
        answer = _answer_of(data)
        if answer is None:
            self._count("miss", "store")
        return answer

    def _count(self, result: str, tier: str) -> None:
        self._metrics.add("tz_cache_lookups_total", result=result, tier=tier)

    # -- writing ------------------------------------------------------------------

    def put(self, key: bytes, answer: Answer, *, is_private: bool) -> None:
        """Store *answer*; never waits, never fails.

        Args:
            key: From ``routing.cache.cache_key``.
            answer: Whole, and successful.
            is_private: True: it must not leave this process.
        """
        settings = self._settings
        if answer.size > settings.entry_bytes:
            self._metrics.add("tz_cache_writes_total", result="too_large")
            return
        self.memory.put(key, answer)
        if self._store is None or is_private:
            return
        row = _row_of(key, answer)
        if self._bytes + len(row) > WAITING_LIMIT:
            self._metrics.add("tz_cache_writes_total", result="dropped")
            return
        self._waiting.append((len(row), row))
        self._bytes += len(row)
        self._news.set()

    def run(self) -> Flow[None]:
        """Write what waits, in batches, for ever; may be begun again."""
        store = self._store
        while store is None:
            yield from Sleep(FOREVER)
        while True:
            if not self._waiting:
                self._news = Signal()
                yield from Wait(FOREVER, self._news)
                yield from Sleep(self._context.now + BATCH_PAUSE)
            count = min(len(self._waiting), BATCH_ROWS)
            rows = [self._waiting.popleft() for _ in range(count)]
            self._bytes -= sum(size for size, _ in rows)
            data = b"\n".join(row for _, row in rows)
            result = "ok"
            try:
                yield from store.insert(WRITE_SECONDS, TABLE, data)
            except StoreError:
                result = "failed"
            self._metrics.add("tz_cache_writes_total", len(rows), result=result)
            if result == "failed":
                yield from Sleep(self._context.now + REST)


def _short(key: bytes) -> int:
    """Return the number by which ClickHouse finds a key fast."""
    return int.from_bytes(key[:8], "little")


def _row_of(key: bytes, answer: Answer) -> bytes:
    """Return the row of ModelInferenceCache, as JSON."""
    stored = _Stored(
        members=Raw(answer.members or b"null"),
        chunks=[Raw(chunk) for chunk in answer.chunks],
        model=answer.model,
        provider=answer.provider,
        usage=answer.usage,
    )
    members: Any = value_of(answer.members) if answer.members else None
    choices = members.get("choices") if isinstance(members, dict) else None
    row: dict[str, Any] = {
        "short_cache_key": _short(key),
        "long_cache_key": key.hex(),
        "timestamp": int(answer.written),
        "output": _encode(stored).decode(),
        "raw_request": "",
        "raw_response": "",
        "finish_reason": output_of(choices)[1] if choices else None,
    }
    if answer.usage is not None:
        row["input_tokens"] = answer.usage.input_tokens
        row["output_tokens"] = answer.usage.output_tokens
    return _encode(row)


def _answer_of(data: bytes) -> Answer | None:
    """Return the answer in a row, None if there is none that we can read."""
    if not data.strip():
        return None
    try:
        row = _read_row(data)
        stored = _read_stored(row.output)
    except (msgspec.DecodeError, RecursionError):
        return None
    members = bytes(stored.members)
    return Answer(
        members=b"" if members in (b"", b"null") else members,
        chunks=tuple(bytes(chunk) for chunk in stored.chunks),
        model=stored.model,
        provider=stored.provider,
        usage=stored.usage,
        written=float(row.written),
    )
