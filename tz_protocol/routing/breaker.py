"""Whether a target is worth trying now: one breaker each, shared by all exchanges.

    closed --failures--> open --rest is over--> half open --a probe answers--> closed
                          ^------------- the probe fails -----'        (with a ramp)

The one rule: a breaker changes by the outcomes of attempts and by nothing else, and
every attempt that was begun ends in exactly one of ``answered`` (then ``completed`` or
``failed``), ``failed`` and ``released``. An outcome counts only in the period in which
its attempt began: what was sent before a target fell ill says nothing of its health
now. Time comes in as ``now``; nothing wakes up by itself.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from tz_protocol.types.policy import BreakerPolicy

__all__ = ["Breaker", "BreakerFacts", "Breakers", "Rank", "State", "TargetKey"]

_STEPS = 10
"""Parts of the window; the oldest is dropped whole, so it is 90 to 100 % of it."""


class TargetKey(NamedTuple):
    """What a breaker watches over: one provider of one model."""

    model: str
    """Public name."""
    provider: str
    """Name in the model's table."""


class State(enum.StrEnum):
    """What a breaker is, in the words of ``/health`` and the metrics."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Rank(enum.IntEnum):
    """How good a target is for one request, best first."""

    READY = 0
    DEMOTED = 1
    """May be tried, after those that are ready."""
    BLOCKED = 2
    """May not be tried before ``ready_at``."""


class BreakerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker as it is seen from outside."""

    target: Hashable
    state: State
    failures: int
    """In a row."""
    opened: int
    """Times it opened."""
    ready_in: float
    """Seconds until it may be tried; 0 if it may now."""
    last_error: str
    """Code of the last failure that counted; empty if there was none."""


class Breaker:
    """One target's health.

    Ask :meth:`rank`; if it is not ``BLOCKED`` call :meth:`begin` and keep the ticket
    for the outcome.

    Args:
        policy: May be replaced at any time.
        on_open: Called each time it opens.
    """

    __slots__ = (
        "_cool_until",
        "_cuts",
        "_demoted_until",
        "_is_probing",
        "_level",
        "_on_open",
        "_open_until",
        "_period",
        "_ramp_from",
        "_row",
        "_window",
        "cooled_by",
        "last_error",
        "opened",
        "policy",
    )

    def __init__(
        self, policy: BreakerPolicy, on_open: Callable[[], object] | None = None
    ) -> None:
        self.policy = policy
        self._on_open = on_open
        self.opened = 0
        self.last_error = ""
        self.cooled_by = ""
        """Code of the failure that asked for the last pause."""
        # Even while closed, odd from opening to the probe's success.
        self._period = 0
        self._row = 0
        self._cuts = 0
        self._window: deque[list[int]] = deque()
        self._open_until = 0.0
        self._level = 0
        self._is_probing = False
        self._ramp_from: float | None = None
        self._cool_until = float("-inf")
        self._demoted_until = float("-inf")

    # -- asking -------------------------------------------------------------------

    def state(self, now: float) -> State:
        """Return the state; a target in its ramp is closed."""
        if self._period % 2 == 0:
            return State.CLOSED
        return State.OPEN if now < self._open_until else State.HALF_OPEN

    def rank(self, now: float, lot: float) -> Rank:
        """Return how good the target is now.

        Args:
            now: On the driver's clock.
            lot: A number in [0, 1), the same for all questions of one exchange: which
                part of the requests it belongs to, during the ramp.
        """
        if not self.policy.is_enabled:
            return Rank.READY
        if now < self._cool_until:
            return Rank.BLOCKED
        if self._period % 2:
            is_at_rest = self._is_probing or now < self._open_until
            return Rank.BLOCKED if is_at_rest else Rank.READY
        if now < self._demoted_until:
            return Rank.DEMOTED
        if self._ramp_from is not None and lot >= self.part(now):
            return Rank.DEMOTED
        return Rank.READY

    def part(self, now: float) -> float:
        """Return the part of the requests that the target may take, in [0, 1]."""
        if self._period % 2:
            return 0.0
        if self._ramp_from is None:
            return 1.0
        grown = now - self._ramp_from
        if grown >= self.policy.ramp:
            return 1.0
        # From a tenth: nothing at all would teach nothing.
        return max(0.1, grown / self.policy.ramp)

    def ready_at(self, now: float) -> float:
        """Return when it may be tried, at least *now*.

        While a probe is under way that is not known, and *now* is returned.
        """
        if not self.policy.is_enabled:
            return now
        at = max(now, self._cool_until)
        return max(at, self._open_until) if self._period % 2 else at

    @property
    def cool_until(self) -> float:
        """Until when the provider asked to be left alone."""
        return self._cool_until

    def facts(self, target: Hashable, now: float) -> BreakerFacts:
        """Return what ``/health`` and the metrics show."""
        return BreakerFacts(
            target=target,
            state=self.state(now),
            failures=max(self._row, self._cuts),
            opened=self.opened,
            ready_in=self.ready_at(now) - now,
            last_error=self.last_error,
        )

    @property
    def is_quiet(self) -> bool:
        """True if forgetting this breaker would let no ill target through."""
        return self._period % 2 == 0 and not self._row and not self._cuts

    # -- outcomes -----------------------------------------------------------------

    def begin(self, now: float) -> int:
        """Count an attempt that begins; returns the ticket for its outcome.

        Raises:
            RuntimeError: The target is blocked: :meth:`rank` was not asked.
        """
        if not self.policy.is_enabled:
            return self._period
        if self.rank(now, 0.0) is Rank.BLOCKED:
            message = "an attempt at a target that may not be tried"
            raise RuntimeError(message)
        if self._period % 2:
            self._is_probing = True
        return self._period

    def answered(self, ticket: int, now: float) -> int:
        """The first content came; returns the ticket for how it goes on."""
        if ticket != self._period:
            return ticket
        if self._period % 2:
            self._close(now)
        self._row = 0
        self._count(now, 0)
        return self._period

    def completed(self, ticket: int) -> None:
        """The answer came to its end. Call it after :meth:`answered`."""
        if ticket == self._period:
            self._cuts = 0

    def failed(
        self,
        ticket: int,
        now: float,
        *,
        has_alternative: bool,
        error: str = "",
        is_answered: bool = False,
    ) -> bool:
        """The attempt failed in a way that counts; returns True if this opened it.

        Args:
            ticket: Of the attempt.
            now: On the driver's clock.
            has_alternative: True if another candidate is ready.
            error: The failure's code.
            is_answered: True after :meth:`answered`: the stream broke. Kept apart, as
                a target that begins every stream and ends none would otherwise never
                have two failures in a row.
        """
        if ticket != self._period:
            return False
        self.last_error = error
        if not self.policy.is_enabled:
            return False
        if self._period % 2:
            self._open(now)
            return True
        self._count(now, 1)
        if is_answered:
            self._cuts += 1
        else:
            self._row += 1
        policy = self.policy
        limit = policy.failures if has_alternative else policy.failures_alone
        is_in_ramp = self._ramp_from is not None and now - self._ramp_from < policy.ramp
        if not is_in_ramp:
            self._ramp_from = None
            self._level = 0
        if (
            # The last way out gets its whole number of failures in the ramp too.
            (is_in_ramp and has_alternative)
            or max(self._row, self._cuts) >= limit
            or self._is_share_reached()
        ):
            self._open(now)
            return True
        return False

    def released(self, ticket: int) -> None:
        """The attempt ended and says nothing of the target's health.

        It was cancelled, or failed by a fault of the request or of the key. The next
        request may probe.
        """
        if ticket == self._period:
            self._is_probing = False

    def cool(self, now: float, seconds: float, error: str) -> None:
        """Leave the target alone for *seconds*: the provider asked for it.

        Args:
            now: On the driver's clock.
            seconds: Of ``Retry-After``; ``cooldown_max`` bounds it.
            error: The failure's code.
        """
        until = now + min(seconds, self.policy.cooldown_max)
        if until > self._cool_until and self.policy.is_enabled:
            self._cool_until = until
            self.cooled_by = error

    def demote(self, now: float) -> None:
        """Try the target after the others for a while."""
        if self.policy.is_enabled:
            self._demoted_until = now + self.policy.demotion

    # -- inside -------------------------------------------------------------------

    def _open(self, now: float) -> None:
        policy = self.policy
        rest = min(policy.rest_max, policy.rest * 2.0 ** min(self._level, 60))
        self._level += 1
        self.opened += 1
        if self._on_open is not None:
            self._on_open()
        if self._period % 2 == 0:
            self._period += 1
        self._open_until = now + rest
        self._is_probing = False
        self._ramp_from = None

    def _close(self, now: float) -> None:
        self._period += 1
        self._is_probing = False
        self._cuts = 0
        self._window.clear()
        self._ramp_from = now

    def _count(self, now: float, failure: int) -> None:
        step = int(now * _STEPS / self.policy.window)
        window = self._window
        if window and window[-1][0] >= step:
            window[-1][1 + failure] += 1
            return
        window.append([step, 1 - failure, failure])
        while window[0][0] <= step - _STEPS:
            window.popleft()

    def _is_share_reached(self) -> bool:
        """Return True if too much of the window, as it was counted last, is bad."""
        bad = sum(failed for _, _, failed in self._window)
        total = bad + sum(good for _, good, _ in self._window)
        return total >= self.policy.volume and bad >= self.policy.share * total


class Breakers:
    """The process's breakers, by target; it survives every reload.

    Args:
        limit: Targets remembered. Names in ``type::model`` shorthand come from
            callers, who must not be able to make the process grow.
        on_open: Called with the target each time one opens.
    """

    __slots__ = ("_breakers", "_on_open", "limit")

    def __init__(
        self,
        limit: int = 4_096,
        on_open: Callable[[Hashable], object] = lambda target: None,
    ) -> None:
        self.limit = limit
        self._on_open = on_open
        self._breakers: dict[Hashable, tuple[Breaker, object]] = {}

    def get(self, target: Hashable, policy: BreakerPolicy, about: object) -> Breaker:
        """Return the target's breaker, a new one if there is none.

        Args:
            target: Whom it watches over.
            policy: Taken over by a breaker that exists.
            about: The target's settings. If they are not equal to those before, the
                operator may just have mended what was wrong: a new breaker begins.
        """
        found = self._breakers.get(target)
        if found is not None:
            breaker, before = found
            if before is about:
                breaker.policy = policy
                return breaker
            if before == about:
                breaker.policy = policy
                self._breakers[target] = (breaker, about)
                return breaker
            del self._breakers[target]
        elif len(self._breakers) >= self.limit:
            self._forget_one()
        breaker = Breaker(policy, partial(self._on_open, target))
        self._breakers[target] = (breaker, about)
        return breaker

    def keep(self, settings: Mapping[Hashable, object]) -> None:
        """Forget the targets that are not in *settings* or are another there."""
        self._breakers = {
            target: (breaker, before)
            for target, (breaker, before) in self._breakers.items()
            if target in settings and settings[target] == before
        }

    def facts(self, now: float) -> list[BreakerFacts]:
        """Return what is known of every target, in the order of their first use."""
        return [
            breaker.facts(target, now)
            for target, (breaker, _) in self._breakers.items()
        ]

    def __iter__(self) -> Iterator[Hashable]:
        """Iterate over the targets."""
        return iter(self._breakers)

    def __len__(self) -> int:
        """Return how many targets are remembered."""
        return len(self._breakers)

    def _forget_one(self) -> None:
        """Forget the oldest quiet one, or the oldest."""
        for target, (breaker, _) in self._breakers.items():
            if breaker.is_quiet:
                del self._breakers[target]
                return
        del self._breakers[next(iter(self._breakers))]
