"""What each key has used and may still use: requests, tokens, places, money.

The one rule: what is taken for a request is taken before it is served, in full or not
at all, and is put right exactly once when it ends. Nothing waits and nothing is
rounded. In one process the figures are exact. What other processes used is added as
``flows/limitsync.py`` last heard it.

A minute, a day and a month are those of the calendar, in UTC: a key may use its whole
limit in each, and its figures begin anew with the next. A request that fails is
counted as a request; its tokens and its money are given back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from tz_protocol.errors import RateLimited
from tz_protocol.types.http import Headers
from tz_protocol.types.keys import KeyLimits, Principal

__all__ = [
    "NANO",
    "Account",
    "Lease",
    "Limiter",
    "Window",
    "day",
    "minute",
    "month",
    "nanos",
]

NANO = Decimal("1e-9")
"""The unit in which money is told to other processes."""

_ZERO = Decimal(0)
_PLACE_AGAIN = 1.0
"""Seconds after which a place may have come free."""

Span = tuple[int, int]
"""Unix seconds: the first of a window, and the first after it."""


def minute(wall: float) -> Span:
    """Return the minute that *wall* is in."""
    start = int(wall // 60) * 60
    return start, start + 60


def day(wall: float) -> Span:
    """Return the day that *wall* is in."""
    start = int(wall // 86_400) * 86_400
    return start, start + 86_400


def month(wall: float) -> Span:
    """Return the month that *wall* is in."""
    first = datetime.fromtimestamp(wall, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    following = (first + timedelta(days=31)).replace(day=1)
    return int(first.timestamp()), int(following.timestamp())


class Window:
    """What one key used of one thing in the current span of time."""

    __slots__ = ("_span_of", "end", "others", "start", "used")

    def __init__(self, span_of: Callable[[float], Span]) -> None:
        self._span_of = span_of
        self.start = self.end = 0
        self.used = _ZERO
        """By this process, what is reserved included; whole numbers but for money."""
        self.others = _ZERO
        """By all other processes, as last heard."""

    def at(self, wall: float) -> Window:
        """Return this window, begun anew if its time is over.

        A clock that is put back a little does not begin it anew; one that is put back
        by more than the window is long does.
        """
        if wall >= self.end or wall < 2 * self.start - self.end:
            self.start, self.end = self._span_of(wall)
            self.used = self.others = _ZERO
        return self

    @property
    def total(self) -> Decimal:
        """What all processes used."""
        return self.used + self.others

    def settle(self, start: int, reserved: Decimal, actual: Decimal) -> None:
        """Put *reserved*, taken in the window that began at *start*, right.

        If that window is over, what was used beyond it counts in this one.
        """
        difference = actual - reserved
        if self.start == start or difference > 0:
            self.used += difference


class Account:
    """The windows of one key; those without a limit stay empty."""

    __slots__ = (
        "day",
        "has_budget",
        "key_id",
        "month",
        "others_running",
        "requests",
        "running",
        "tokens",
        "touched",
    )

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.requests = Window(minute)
        self.tokens = Window(minute)
        self.day = Window(day)
        self.month = Window(month)
        self.running = 0
        self.others_running = 0
        self.has_budget = False
        """True if its money is counted."""
        self.touched = 0.0
        """Unix seconds of the last request."""

    @property
    def windows(self) -> tuple[Window, ...]:
        """All of them."""
        return self.requests, self.tokens, self.day, self.month


class Limiter:
    """The accounts of the process.

    Args:
        processes: Among how many each limit is divided; see ``Access.processes``.
    """

    __slots__ = ("accounts", "processes")

    def __init__(self, processes: int = 1) -> None:
        self.processes = processes
        self.accounts: dict[str, Account] = {}

    def enter(self, principal: Principal | None, wall: float) -> Lease | None:
        """Take a place and count a request; settle the lease exactly once.

        None for a caller without limits.

        Raises:
            RateLimited: There is no place, or the minute's requests are used up;
                nothing was taken.
        """
        if principal is None:
            return None
        limits = principal.limits
        if not any(limit is not None for limit in _limits_of(limits)):
            return None
        account = self.accounts.get(principal.key_id)
        if account is None:
            account = self.accounts[principal.key_id] = Account(principal.key_id)
        account.has_budget = limits.has_budget
        lease = Lease(account, limits, self.processes)
        lease._enter(wall)
        return lease

    def sweep(self, wall: float) -> None:
        """Forget the accounts in which nothing is left to remember."""
        idle = [
            key_id
            for key_id, account in self.accounts.items()
            if not account.running and all(w.end <= wall for w in account.windows)
        ]
        for key_id in idle:
            del self.accounts[key_id]

    def live(self, wall: float, within: float) -> Iterator[Account]:
        """Yield the accounts with a request that runs or began within some seconds."""
        for account in list(self.accounts.values()):
            if account.running or wall - account.touched <= within:
                yield account


class Lease:
    """What one request holds of its key's limits."""

    __slots__ = (
        "_account",
        "_cost",
        "_day_start",
        "_is_settled",
        "_limits",
        "_minute_start",
        "_month_start",
        "_processes",
        "_tokens",
        "headers",
    )

    def __init__(self, account: Account, limits: KeyLimits, processes: int) -> None:
        self._account = account
        self._limits = limits
        self._processes = processes
        self._tokens = _ZERO
        self._cost = _ZERO
        self._minute_start = self._day_start = self._month_start = 0
        self._is_settled = False
        self.headers: Headers = ()
        """OpenAI's ``x-ratelimit-*``, as of the last step."""

    @property
    def limits(self) -> KeyLimits:
        """Those of the key at the beginning of the request."""
        return self._limits

    def _enter(self, wall: float) -> None:
        account, limits = self._account, self._limits
        requests = account.requests.at(wall)
        account.tokens.at(wall)
        places = self._share(limits.concurrent_requests)
        if places is not None and account.running + account.others_running >= places:
            self._tell(wall)
            message = (
                f"This API key has as many requests running as it may: "
                f"{limits.concurrent_requests}."
            )
            raise RateLimited(message, headers=self.headers, retry_after=_PLACE_AGAIN)
        most = self._share(limits.requests_per_minute)
        if most is not None and requests.total + 1 > most:
            self._tell(wall)
            message = (
                f"This API key may make {limits.requests_per_minute} requests per "
                "minute, and has made them."
            )
            raise self._limited(message, requests.end - wall)
        self._require_money(_ZERO, wall)
        account.running += 1
        account.touched = wall
        requests.used += 1
        self._tell(wall)

    def reserve(self, tokens: int, cost: Decimal, wall: float) -> None:
        """Take what the request is expected to use, once, before it is served.

        Args:
            tokens: Estimated input, and the most output that was asked for.
            cost: What those tokens cost.
            wall: Unix seconds.

        Raises:
            RateLimited: It does not fit; nothing was taken.
        """
        account, limits = self._account, self._limits
        window = account.tokens.at(wall)
        most = self._share(limits.tokens_per_minute)
        if most is not None and tokens > most:
            message = (
                f"This request asks for about {tokens} tokens and this API key may "
                f"use {limits.tokens_per_minute} per minute: shorten it, or lower its "
                "limit of output tokens."
            )
            headers = (*self.headers, ("x-should-retry", "false"))
            raise RateLimited(message, kind="tokens", headers=headers)
        if most is not None and window.total + tokens > most:
            message = (
                f"This request asks for about {tokens} tokens and this API key has "
                f"{max(0, int(most - window.total))} of {limits.tokens_per_minute} "
                "left in this minute."
            )
            raise self._limited(message, window.end - wall, kind="tokens")
        self._require_money(cost, wall)
        self._tokens, self._cost = Decimal(tokens), cost
        self._minute_start = window.start
        window.used += tokens
        for money in (account.day.at(wall), account.month.at(wall)):
            money.used += cost
        self._day_start, self._month_start = account.day.start, account.month.start
        self._tell(wall)

    def settle(self, tokens: int | None, cost: Decimal | None, wall: float) -> None:
        """Give the place back and put right what was reserved; once, never fails.

        Args:
            tokens: What was really used; None: as reserved.
            cost: What it really cost; None: as reserved.
            wall: Unix seconds.
        """
        if self._is_settled:
            return
        self._is_settled = True
        account = self._account
        account.running -= 1
        account.touched = wall
        if tokens is not None:
            window = account.tokens.at(wall)
            window.settle(self._minute_start, self._tokens, Decimal(tokens))
        if cost is not None:
            account.day.at(wall).settle(self._day_start, self._cost, cost)
            account.month.at(wall).settle(self._month_start, self._cost, cost)

    def _share(self, limit: int | None) -> int | None:
        """Return this process's part of a limit; nothing that is allowed is 0."""
        if limit is None or self._processes == 1:
            return limit
        return max(min(1, limit), limit // self._processes)

    def _require_money(self, cost: Decimal, wall: float) -> None:
        account, limits = self._account, self._limits
        for budget, window, word in (
            (limits.budget_per_day, account.day, "day"),
            (limits.budget_per_month, account.month, "month"),
        ):
            total = window.at(wall).total
            if budget is None:
                continue
            share = budget / self._processes
            if total >= share or total + cost > share:
                message = (
                    f"This API key has used its budget for this {word}, or this "
                    "request would."
                )
                raise self._limited(
                    message,
                    window.end - wall,
                    kind="insufficient_quota",
                    code="insufficient_quota",
                )

    def _limited(
        self, message: str, wait: float, kind: str = "requests", code: str | None = None
    ) -> RateLimited:
        return RateLimited(
            message,
            kind=kind,
            code=code,
            headers=self.headers,
            retry_after=max(0.001, wait),
        )

    def _tell(self, wall: float) -> None:
        account, limits = self._account, self._limits
        self.headers = tuple(
            (f"x-ratelimit-{figure}-{word}", text)
            for word, limit, window in (
                ("requests", limits.requests_per_minute, account.requests),
                ("tokens", limits.tokens_per_minute, account.tokens),
            )
            if limit is not None
            for figure, text in (
                ("limit", str(limit)),
                ("remaining", str(self._left(limit, window))),
                ("reset", f"{max(0.0, window.end - wall):.3f}s"),
            )
        )

    def _left(self, limit: int, window: Window) -> int:
        share = self._share(limit) or 0
        return max(0, math.floor(share - window.total))


def _limits_of(limits: KeyLimits) -> tuple[object, ...]:
    return (
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.concurrent_requests,
        limits.budget_per_day,
        limits.budget_per_month,
    )


def nanos(money: Decimal) -> int:
    """Return *money* in the unit that other processes are told."""
    return int((money / NANO).to_integral_value(ROUND_HALF_EVEN))
