"""A process's routing without its flows: exchanges in virtual time, one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tz_protocol.errors import GatewayError, InvalidRequest, UpstreamError
from tz_protocol.routing.breaker import Breakers
from tz_protocol.routing.plan import Option, Plan, SleepUntil, Try
from tz_protocol.routing.retry import HedgeBudget, RetryBudget
from tz_protocol.types.policy import BreakerPolicy, Hedge, Retries

Outcome = UpstreamError | InvalidRequest | None
"""How an attempt ends; None for an answer."""
Behaviour = Callable[[str, float], tuple[float, Outcome]]
"""(name, now) -> (seconds it takes, how it ends)."""


@dataclass
class Served:
    """What one exchange did."""

    tries: list[tuple[str, float]] = field(default_factory=list)
    """(name, when it began)."""
    slept: float = 0.0
    answer: str | None = None
    error: GatewayError | None = None
    began: float = 0.0
    ended: float = 0.0


class Process:
    """The tables that exchanges share, and a clock."""

    def __init__(
        self,
        *,
        breaker: BreakerPolicy | None = None,
        retries: Retries | None = None,
        jitter: float = 0.5,
        total: float = 600.0,
        hedge: Hedge | None = None,
    ) -> None:
        self.policy = BreakerPolicy() if breaker is None else breaker
        self.retries = Retries() if retries is None else retries
        self.jitter = jitter
        self.total = total
        self.hedge = hedge
        self.breakers = Breakers()
        self.retry_budget = RetryBudget()
        self.hedge_budget = HedgeBudget()
        self.now = 0.0

    def option(self, name: str, **more) -> Option[str]:
        """Return the candidate *name*; by default each has a model of its own."""
        breaker = self.breakers.get(name, self.policy, None)
        return Option(
            candidate=name, breaker=breaker, **{"model": f"model of {name}", **more}
        )

    def plan(self, *options: str | Option[str], **more) -> Plan[str]:
        """Begin an exchange that may use *options*."""
        return Plan(
            [self.option(o) if isinstance(o, str) else o for o in options],
            **{
                "retries": self.retries,
                "retry_budget": self.retry_budget,
                "hedge_budget": self.hedge_budget,
                "draw": lambda: self.jitter,
                "now": self.now,
                "deadline": self.now + self.total,
                "hedge": self.hedge,
                **more,
            },
        )

    def serve(
        self, options: Sequence[str | Option[str]], behaviour: Behaviour, **more
    ) -> Served:
        """Run one exchange to its end, without hedging."""
        plan, served = self.plan(*options, **more), Served(began=self.now)
        try:
            while served.answer is None and served.error is None:
                step = plan.next(self.now)
                if isinstance(step, Try):
                    self.attempt(plan, step, behaviour, served)
                elif isinstance(step, SleepUntil):
                    assert step.at > self.now
                    served.slept += step.at - self.now
                    self.now = step.at
                else:
                    served.error = step.error
        finally:
            plan.close()
        served.ended = self.now
        return served

    def attempt(
        self, plan: Plan[str], step: Try[str], behaviour: Behaviour, served: Served
    ) -> None:
        """Perform one attempt."""
        name = step.option.candidate
        served.tries.append((name, self.now))
        seconds, outcome = behaviour(name, self.now)
        self.now += seconds
        if outcome is None:
            plan.answered(step, self.now)
            plan.completed(step)
            served.answer = name
        else:
            plan.failed(step, outcome, self.now)


def script(**outcomes: list[Outcome] | Outcome) -> Behaviour:
    """Return a behaviour: per candidate its outcomes in turn, the last one for ever."""
    left = {
        name: list(given) if isinstance(given, list) else [given]
        for name, given in outcomes.items()
    }

    def behave(name: str, now: float) -> tuple[float, Outcome]:
        turn = left[name]
        return 0.01, turn.pop(0) if len(turn) > 1 else turn[0]

    return behave
