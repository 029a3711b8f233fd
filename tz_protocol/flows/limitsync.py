"""What each process used of a key's limits, told to the others through Redis.

The one rule: every process writes its own figures whole and reads the sum of the
others'; nothing is added in Redis. So a write that is repeated or lost does no harm, a
Redis that was emptied is full again after a second, and what a process used before it
ended still counts. No request waits for this.

What a key may use beyond its limit is therefore what the other processes admit between
two exchanges of figures, ``SYNC_SECONDS`` and an answer's time apart; while Redis is
away, each process keeps to the limit by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from tz_protocol.errors import OperationBroken, OperationError, StoreRefused
from tz_protocol.notices import LogLine
from tz_protocol.operations import Flow, Sleep
from tz_protocol.routing.limits import NANO, Account, Window, nanos
from tz_protocol.storeops import RedisArgument, RedisCommands, Reply
from tz_protocol.types.secret import Secret

if TYPE_CHECKING:
    from tz_protocol.gateway import Gateway

__all__ = ["SYNC_SECONDS", "sync_limits"]

SYNC_SECONDS = 1.0

ANSWER_SECONDS = 1.0

LIVE_SECONDS = 120.0
"""A key that was not used for so long is not told of; its next request does."""

BATCH = 200
"""Figures in one pipeline."""

SWEEP_SECONDS = 60.0

RUNNING_SECONDS = 10
"""A process that has not told its running requests for so long has none."""

_MINUTE_KEPT = 180
_DAY_KEPT = 3 * 86_400
_MONTH_KEPT = 40 * 86_400
_RUNNING_KEPT = 60


@dataclass(frozen=True, slots=True)
class _Figure:
    """One hash in Redis: a field for each process."""

    key: str
    value: str
    """This process's field."""
    kept: int
    """Seconds."""
    absorb: Callable[[list[bytes]], None]
    """Takes the fields of the other processes."""


def sync_limits(gateway: Gateway) -> Flow[None]:
    """Exchange figures for as long as the process lives."""
    context, limiter = gateway.context, gateway.limiter
    process = ""
    swept = context.now
    is_lost = False
    while True:
        yield from Sleep(context.now + SYNC_SECONDS)
        wall = gateway.wall_clock()
        if context.now - swept >= SWEEP_SECONDS:
            swept = context.now
            limiter.sweep(wall)
        access = gateway.snapshot.access
        if access is None or access.redis_url is None:
            continue
        figures = [
            figure
            for account in limiter.live(wall, LIVE_SECONDS)
            for figure in _figures(account, wall)
        ]
        process = process or (gateway.new_id() if figures else "")
        try:
            for start in range(0, len(figures), BATCH):
                batch = figures[start : start + BATCH]
                yield from _exchange(access.redis_url, batch, process, context.now)
        except OperationError as error:
            kind = error.kind if isinstance(error, OperationBroken) else "timeout"
            gateway.metrics.add(
                "tz_redis_failures_total", purpose="limits", reason=kind.lower()
            )
            if not is_lost:
                message = "limits are not shared: each process keeps to them by itself"
                context.tell(LogLine("warning", message, {"reason": kind}))
            is_lost = True
        else:
            is_lost = is_lost and not figures


def _exchange(
    url: Secret, figures: list[_Figure], process: str, now: float
) -> Flow[None]:
    """Write ours, read the others'.

    Raises:
        OperationError: Redis does not answer, or refuses.
    """
    commands: list[tuple[RedisArgument, ...]] = []
    for figure in figures:
        commands += (
            ("HSET", figure.key, process, figure.value),
            ("EXPIRE", figure.key, figure.kept),
            ("HGETALL", figure.key),
        )
    replies = yield from RedisCommands(now + ANSWER_SECONDS, url, tuple(commands))
    refused = None
    for figure, reply in zip(figures, replies[2::3], strict=True):
        if isinstance(reply, StoreRefused):
            refused = reply
        else:
            figure.absorb(_others(reply, process.encode()))
    if refused is not None:
        raise OperationBroken(refused.code)


def _others(reply: Reply, own: bytes) -> list[bytes]:
    """Return the values of a hash but our own."""
    if not isinstance(reply, list):
        return []
    pairs = zip(reply[::2], reply[1::2], strict=False)
    return [value for field, value in pairs if field != own]


def _figures(account: Account, wall: float) -> Iterator[_Figure]:
    """Yield what is counted of one key; what has no limit is not counted."""
    prefix = f"tz:limit:{account.key_id}"
    requests, tokens = account.requests.at(wall), account.tokens.at(wall)
    began = requests.start
    yield _Figure(
        f"{prefix}:minute:{requests.start}",
        f"{requests.used} {tokens.used}",
        _MINUTE_KEPT,
        lambda fields: _take_minute(requests, tokens, began, fields),
    )
    stamp = int(wall)
    yield _Figure(
        f"{prefix}:running",
        f"{account.running} {stamp}",
        _RUNNING_KEPT,
        lambda fields: _take_running(account, stamp, fields),
    )
    for word, window, kept in (
        ("day", account.day.at(wall), _DAY_KEPT),
        ("month", account.month.at(wall), _MONTH_KEPT),
    ):
        if account.has_budget:
            yield _Figure(
                f"{prefix}:{word}:{window.start}",
                str(nanos(window.used)),
                kept,
                _taker(window),
            )


def _taker(window: Window) -> Callable[[list[bytes]], None]:
    start = window.start

    def take(fields: list[bytes]) -> None:
        if window.start == start:
            window.others = NANO * sum(_numbers(field, 1)[0] for field in fields)

    return take


def _take_minute(
    requests: Window, tokens: Window, start: int, fields: list[bytes]
) -> None:
    if requests.start != start:
        return
    pairs = [_numbers(field, 2) for field in fields]
    requests.others = Decimal(sum(pair[0] for pair in pairs))
    tokens.others = Decimal(sum(pair[1] for pair in pairs))


def _take_running(account: Account, stamp: int, fields: list[bytes]) -> None:
    pairs = [_numbers(field, 2) for field in fields]
    account.others_running = sum(
        count for count, told in pairs if stamp - told <= RUNNING_SECONDS
    )


def _numbers(field: bytes, count: int) -> list[int]:
    """Return the numbers of a field; zeros for one that we did not write."""
    try:
        numbers = [max(0, int(part)) for part in field.split()]
    except ValueError:
        numbers = []
    return numbers if len(numbers) == count else [0] * count
