"""What one exchange does next: try a candidate, pause, or give up.

    while True:
        step = plan.next(now)
        Try         -> attempt it; then ``answered`` and ``completed``, or ``failed``,
                       or ``released``
        SleepUntil  -> wait, then ask again
        GiveUp      -> tell the caller its error

The one rule: a round tries each candidate at most once and never pauses; only when
nothing of it can be tried is there a pause and another round. Each candidate has
``1 + retries.count`` tries and there are as many rounds, with one more for those that
a pause of their own kept out of one. So every step uses up a part of
:attr:`Plan.budget`, which never grows, and every plan ends. Nothing is returned that
was not given.

What a failure means is ``classify``'s, how ill a target is ``breaker``'s, what the
caller is told ``verdict``'s; here they meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from tz_protocol.errors import (
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    Overloaded,
    RateLimited,
    UpstreamError,
)
from tz_protocol.routing.breaker import Breaker, Rank
from tz_protocol.routing.classify import Failure, Follow, Kind, classify
from tz_protocol.routing.retry import HedgeBudget, RetryBudget, backoff
from tz_protocol.routing.verdict import code_of, told
from tz_protocol.types.policy import Hedge, Retries

__all__ = ["GiveUp", "Option", "Plan", "SleepUntil", "Step", "Try"]

T = TypeVar("T")


class Option(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One eligible candidate, with what decides about trying it."""

    candidate: T
    breaker: Breaker
    model: str = ""
    """Public name of the model that it serves."""
    context_tokens: int | None = None
    """What its model can hold; None if unknown."""
    retry_count: int | None = None
    """Tries after the first; None: as many as there are rounds."""
    is_key_shared: bool = True
    """False: the key is the caller's, so that what is due to the key (a full or a
    refused account) is not held against the target."""


class Try(Generic[T]):
    """Attempt ``option`` now; then say how it ended."""

    __slots__ = ("began", "index", "is_answered", "is_ended", "number", "option", "tag")

    def __init__(
        self, option: Option[T], index: int, number: int, began: float, tag: int
    ) -> None:
        self.option = option
        self.index = index
        self.number = number
        """Counted from 1, hedges included."""
        self.began = began
        self.tag = tag
        """The breaker's ticket."""
        self.is_answered = False
        self.is_ended = False


class SleepUntil(msgspec.Struct, frozen=True):
    """Ask again at this time; before it the answer is the same."""

    at: float


class GiveUp(msgspec.Struct, frozen=True):
    """Nothing more can be tried; the caller is told why."""

    error: GatewayError


Step = Try[T] | SleepUntil | GiveUp


class _Course:
    """How one candidate fared in this exchange."""

    __slots__ = ("is_done", "not_before", "tries")

    def __init__(self) -> None:
        self.tries = 0
        self.is_done = False
        self.not_before = float("-inf")


class Plan(Generic[T]):
    """One exchange's way through its candidates. Call :meth:`close` at its end.

    Args:
        options: The eligible candidates in the order to try them; at least one.
        retries: Rounds and pauses.
        retry_budget: The process's.
        hedge_budget: The process's.
        draw: Draws a number in [0, 1).
        now: On the driver's clock.
        deadline: By when it is all over; no attempt begins at or after it.
        hedge: None: never two attempts at one time.

    Raises:
        ValueError: There are no options.
    """

    __slots__ = (
        "_began",
        "_courses",
        "_deadline",
        "_draw",
        "_errors",
        "_hedge",
        "_hedge_budget",
        "_holds_retry",
        "_is_closed",
        "_is_hedged",
        "_lot",
        "_options",
        "_outgrown",
        "_queue",
        "_refusal",
        "_retries",
        "_retry_budget",
        "_rounds_left",
        "_stop",
        "_too_small",
        "_under_way",
        "_wake",
        "attempts",
        "round",
    )

    def __init__(
        self,
        options: Sequence[Option[T]],
        *,
        retries: Retries,
        retry_budget: RetryBudget,
        hedge_budget: HedgeBudget,
        draw: Callable[[], float],
        now: float,
        deadline: float,
        hedge: Hedge | None = None,
    ) -> None:
        if not options:
            message = "a plan needs at least one option"
            raise ValueError(message)
        self._options = options
        self._retries = retries
        self._retry_budget = retry_budget
        self._hedge_budget = hedge_budget
        self._draw = draw
        self._began = now
        self._deadline = deadline
        self._hedge = hedge
        self._courses = [_Course() for _ in options]
        self._queue = list(range(len(options)))
        self._rounds_left = retries.count + 1 if retries.count else 0
        self._wake = now
        self._lot = draw()
        self._errors: list[UpstreamError] = []
        self._refusal: InvalidRequest | None = None
        self._stop: UpstreamError | None = None
        # Context of the largest candidate that was too small, and the models of which
        # one of unknown size was.
        self._too_small = 0
        self._outgrown: set[str] = set()
        self._under_way: list[Try[T]] = []
        self._is_hedged = False
        self._holds_retry = False
        self._is_closed = False
        self.attempts = 0
        """Begun so far."""
        self.round = 1
        retry_budget.enter()
        hedge_budget.earn()

    # -- deciding -----------------------------------------------------------------

    @property
    def options(self) -> Sequence[Option[T]]:
        """What may be tried, in order."""
        return self._options

    @property
    def budget(self) -> int:
        """An upper bound of the steps before giving up; every new step lowers it."""
        return self._rounds_left * (len(self._options) + 1) + len(self._queue)

    @property
    def is_stopped(self) -> bool:
        """True if a failure was one that no candidate would survive."""
        return self._stop is not None

    def next(self, now: float) -> Step[T]:
        """Return what to do now.

        Raises:
            RuntimeError: An attempt is under way, or the plan is closed.
        """
        if self._is_closed or self._under_way:
            message = "the attempt under way must end before the next step"
            raise RuntimeError(message)
        while True:
            if self._stop is not None or now >= self._deadline:
                return GiveUp(self._told(now))
            if now < self._wake:
                return SleepUntil(self._wake)
            index = self._pick(now)
            if index is not None:
                return self._begin(index, now)
            if not self._plan_round(now):
                return GiveUp(self._told(now))

    def _pick(self, now: float) -> int | None:
        """Return the best candidate left in this round that may be tried now."""
        demoted = None
        for index in self._queue:
            course = self._courses[index]
            if now < course.not_before or not self._is_open_to(index):
                continue
            rank = self._options[index].breaker.rank(now, self._lot)
            if rank is Rank.READY:
                return index
            if rank is Rank.DEMOTED and demoted is None:
                demoted = index
        return demoted

    def _begin(self, index: int, now: float) -> Try[T]:
        self._queue.remove(index)
        option = self._options[index]
        self._courses[index].tries += 1
        self.attempts += 1
        ticket = option.breaker.begin(now)
        attempt = Try(option, index, self.attempts, now, ticket)
        self._under_way.append(attempt)
        return attempt

    def _is_open_to(self, index: int) -> bool:
        """Return True if nothing that happened in this exchange rules it out."""
        if self._courses[index].is_done:
            return False
        option = self._options[index]
        if option.context_tokens is not None:
            return option.context_tokens > self._too_small
        return option.model not in self._outgrown

    def _plan_round(self, now: float) -> bool:
        """Begin another round, which may begin with a pause; False if there is none."""
        if not self._rounds_left:
            return False
        usable = [
            index
            for index, course in enumerate(self._courses)
            if course.tries <= self._count_of(index) and self._is_open_to(index)
        ]
        if not usable:
            return False
        pause = backoff(self.round, self._retries, self._draw())
        times = [self._time_for(index, now, pause) for index in usable]
        wake = min((time for time in times if time is not None), default=None)
        latest = min(self._deadline, self._began + self._retries.within)
        if wake is None or wake >= latest:
            return False
        if not self._holds_retry:
            if not self._retry_budget.take():
                return False
            self._holds_retry = True
        self._rounds_left -= 1
        self.round += 1
        self._queue = usable
        self._wake = wake
        return True

    def _count_of(self, index: int) -> int:
        count = self._options[index].retry_count
        return self._retries.count if count is None else count

    def _time_for(self, index: int, now: float, pause: float) -> float | None:
        """Return when the candidate may be tried in the next round, None for never.

        A pause that the provider asked for is waited for, up to the cap. A breaker's
        rest is not: whoever waits for it would be one of a crowd.
        """
        breaker = self._options[index].breaker
        asked = max(self._courses[index].not_before, breaker.cool_until)
        if asked - now > self._retries.retry_after_cap:
            return None
        at = max(now + pause, asked)
        return None if breaker.ready_at(now) > at else at

    # -- hedging ------------------------------------------------------------------

    def hedge_at(self) -> float | None:
        """Return when to ask :meth:`hedge`; None if there is nothing to ask for.

        Ask after each :class:`Try`.
        """
        if (
            self._hedge is None
            or self._is_hedged
            or len(self._under_way) != 1
            or self._under_way[0].is_answered
            or not self._queue
            or not self._hedge_budget.is_open
        ):
            return None
        at = self._under_way[0].began + self._hedge.after
        return at if at < self._deadline else None

    def hedge(self, now: float) -> Try[T] | None:
        """Return the attempt to begin beside the slow one; None if there is none.

        The first content of either wins: say ``answered`` for it, and ``released`` for
        the other once it is cancelled. An exchange hedges once.
        """
        at = self.hedge_at()
        if at is None or now < at or now >= self._deadline:
            return None
        index = self._pick(now)
        if index is None or not self._hedge_budget.take():
            return None
        self._is_hedged = True
        return self._begin(index, now)

    # -- outcomes -----------------------------------------------------------------

    def answered(self, attempt: Try[T], now: float) -> None:
        """The first content of *attempt* is there: the exchange is committed to it."""
        self._require_open(attempt)
        attempt.is_answered = True
        attempt.tag = attempt.option.breaker.answered(attempt.tag, now)
        self._give_retry()

    def completed(self, attempt: Try[T]) -> None:
        """The whole answer of *attempt* came."""
        self._end(attempt)
        attempt.option.breaker.completed(attempt.tag)

    def failed(
        self, attempt: Try[T], error: UpstreamError | InvalidRequest, now: float
    ) -> Failure:
        """*attempt* failed with *error*; returns what that means.

        Be loud if the failure's rule says so. Then ask :meth:`next`, if nothing had
        been answered.
        """
        self._end(attempt)
        failure = classify(error, is_committed=attempt.is_answered)
        self._tell_breaker(attempt, error, failure, now)
        if attempt.is_answered:
            return failure
        course = self._courses[attempt.index]
        # Its traceback holds frames that hold this plan: a cycle, and a request's body.
        error = error.with_traceback(None)
        if isinstance(error, InvalidRequest):
            self._refusal = error
        else:
            self._errors.append(error)
            if failure.follow is Follow.STOP:
                self._stop = error
        if failure.follow is not Follow.RETRY_HERE:
            course.is_done = True
        elif failure.retry_after:
            course.not_before = now + failure.retry_after
        if failure.kind is Kind.CONTEXT_LENGTH:
            self._outgrow(attempt.option)
        return failure

    def released(self, attempt: Try[T]) -> None:
        """*attempt* was cancelled; nothing is said about it. May be called again."""
        if not attempt.is_ended:
            self._end(attempt)
            attempt.option.breaker.released(attempt.tag)

    def close(self) -> None:
        """End the exchange: release what is under way. May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        for attempt in list(self._under_way):
            self.released(attempt)
        self._give_retry()
        self._retry_budget.leave()

    def _tell_breaker(
        self,
        attempt: Try[T],
        error: UpstreamError | InvalidRequest,
        failure: Failure,
        now: float,
    ) -> None:
        option, rule = attempt.option, failure.rule
        breaker = option.breaker
        code = code_of(error) if isinstance(error, UpstreamError) else ""
        if rule.counts:
            breaker.failed(
                attempt.tag,
                now,
                has_alternative=self._has_alternative(attempt.index, now),
                error=code,
                is_answered=attempt.is_answered,
            )
        else:
            breaker.released(attempt.tag)
        if rule.demotes and option.is_key_shared:
            breaker.demote(now)
        is_about_key = failure.kind in (Kind.RATE_LIMIT, Kind.QUOTA)
        if failure.retry_after and (option.is_key_shared or not is_about_key):
            breaker.cool(now, failure.retry_after, code)

    def _has_alternative(self, index: int, now: float) -> bool:
        return any(
            other != index
            and self._is_open_to(other)
            and option.breaker.rank(now, self._lot) is not Rank.BLOCKED
            for other, option in enumerate(self._options)
        )

    def _outgrow(self, option: Option[T]) -> None:
        """Rule out every candidate that cannot hold what this one could not."""
        if option.context_tokens is None:
            self._outgrown.add(option.model)
        else:
            self._too_small = max(self._too_small, option.context_tokens)

    def _require_open(self, attempt: Try[T]) -> None:
        if attempt.is_ended:
            message = "the attempt has already ended"
            raise RuntimeError(message)

    def _end(self, attempt: Try[T]) -> None:
        self._require_open(attempt)
        attempt.is_ended = True
        self._under_way.remove(attempt)

    def _give_retry(self) -> None:
        if self._holds_retry:
            self._holds_retry = False
            self._retry_budget.give()

    # -- giving up ----------------------------------------------------------------

    def _told(self, now: float) -> GatewayError:
        if self._stop is not None:
            return told([self._stop], ())
        if self._errors:
            return told(self._errors, ())
        if now >= self._deadline:
            return DeadlineExceeded("The request's total time is over.")
        at_rest = [
            option.breaker
            for index, option in enumerate(self._options)
            if self._is_open_to(index)
        ]
        if at_rest or self._refusal is None:
            return _at_rest(at_rest, now)
        return self._refusal


def _at_rest(breakers: Sequence[Breaker], now: float) -> GatewayError:
    """Return the error for candidates of which none may be tried at present."""
    seconds = min((breaker.ready_at(now) - now for breaker in breakers), default=0.0)
    retry_after = max(1.0, seconds)
    if all(
        breaker.cool_until > now and breaker.cooled_by == "status_429"
        for breaker in breakers
    ):
        message = "Every provider of the model asked for a pause. Try again later."
        return RateLimited(message, retry_after=retry_after)
    message = (
        "Every provider of the model has failed repeatedly and is being left alone. "
        "Try again later."
    )
    return Overloaded(message, code="upstream_unavailable", retry_after=retry_after)
