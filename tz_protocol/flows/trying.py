"""Steps 4 and 5 of an exchange: ask the plan, try what it says, until one answers.

The one rule: this is the only fallback loop. First tries, retries, fallbacks and hedges
all come out of one plan over what ``eligible`` kept, and every attempt's end is told to
the plan exactly once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tz_protocol.errors import InvalidRequest, UpstreamError
from tz_protocol.flows.attempt import Answered, attempt
from tz_protocol.flows.identity import unreachable
from tz_protocol.notices import LogLine
from tz_protocol.operations import Flow, Race, Signal, Sleep, Wait
from tz_protocol.routing.candidates import Candidate, Dropped, eligible
from tz_protocol.routing.classify import Failure, Kind
from tz_protocol.routing.options import (
    all_candidates,
    fallbacks_of,
    has_provider_state,
    options_of,
    policy_of,
)
from tz_protocol.routing.plan import Plan, SleepUntil, Try
from tz_protocol.routing.verdict import code_of
from tz_protocol.types.settings import Model

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = ["LEEWAY", "first_answer", "make_plan", "sort_out"]

LEEWAY = 5.0
"""Seconds after the exchange's deadline at which what runs beside an attempt is given
up: attempts keep the deadline by themselves, and this is never reached."""


def sort_out(exchange: Exchange, model: Model) -> tuple[list[Candidate], list[Dropped]]:
    """Return who of *model* and its fallbacks may be tried, and who may not and why.

    Raises:
        CapabilityNotSupported: The model cannot do what the endpoint needs.
    """
    gateway, snapshot = exchange.gateway, exchange.snapshot
    models = [model]
    if model.fallback_models:
        models += fallbacks_of(
            model,
            exchange.principal,
            snapshot,
            gateway.keys.models,
            gateway.providers,
        )
    found = all_candidates(models, exchange.endpoint.capability, gateway.providers)
    return eligible(found, exchange.parsed, exchange.principal)


def make_plan(exchange: Exchange, model: Model) -> Plan[Candidate]:
    """Return the exchange's way through the candidates of *model* and its fallbacks.

    Raises:
        GatewayError: There is none that may be tried.
    """
    gateway, snapshot = exchange.gateway, exchange.snapshot
    kept, dropped = sort_out(exchange, model)
    if not kept:
        raise dropped[0].error if dropped else unreachable(model)
    policy = policy_of(model, snapshot)
    hedge = policy.hedge
    if hedge is not None and has_provider_state(exchange.parsed):
        hedge = None
    return Plan(
        options_of(kept, snapshot, gateway.breakers, gateway.jitter),
        retries=policy.retries,
        retry_budget=gateway.retry_budget,
        hedge_budget=gateway.hedge_budget,
        draw=gateway.jitter,
        now=gateway.context.now,
        deadline=exchange.deadline,
        hedge=hedge,
    )


def first_answer(exchange: Exchange, plan: Plan[Candidate]) -> Flow[Answered]:
    """Try until one answers; the plan then waits for how the answer ends.

    Raises:
        GatewayError: Nothing more can be tried.
    """
    context = exchange.gateway.context
    while True:
        step = plan.next(context.now)
        if isinstance(step, Try):
            hedge_at = plan.hedge_at()
            if hedge_at is None:
                answered = yield from _try(exchange, plan, step)
            else:
                answered = yield from _Contest(exchange, plan, step, hedge_at).run()
            if answered is not None:
                exchange.answered = answered
                plan.answered(answered.step, context.now)
                return answered
        elif isinstance(step, SleepUntil):
            yield from Sleep(step.at)
        else:
            error = step.error
            error.attempts = tuple(exchange.record.attempts)
            try:
                raise error
            finally:
                del error, step  # the traceback holds this frame: a cycle


def _try(
    exchange: Exchange,
    plan: Plan[Candidate],
    step: Try[Candidate],
    *,
    is_hedge: bool = False,
) -> Flow[Answered | None]:
    """Try once; None if it failed, which the plan then knows."""
    try:
        return (yield from attempt(exchange, step, is_hedge=is_hedge))
    except (UpstreamError, InvalidRequest) as error:
        failure = plan.failed(step, error, exchange.gateway.context.now)
        if failure.rule.is_loud and step.option.is_key_shared:
            _announce(exchange, step.option.candidate, failure, error)
        return None
    except BaseException:
        plan.released(step)
        raise


class _Contest:
    """A slow attempt, and a second one beside it from some time on.

    Both run as arms of one race, whose end is the end of both. So an arm that failed
    waits as long as the other runs, and the one that ends the race speaks for both.
    """

    def __init__(
        self,
        exchange: Exchange,
        plan: Plan[Candidate],
        step: Try[Candidate],
        hedge_at: float,
    ) -> None:
        self._exchange = exchange
        self._plan = plan
        self._step = step
        self._hedge_at = hedge_at
        self._running = 1
        self._winner: Answered | None = None
        # Every attempt is over by then.
        self._deadline = exchange.deadline + LEEWAY

    def run(self) -> Flow[Answered | None]:
        """Return who answered first, None if nobody did."""
        yield from Race(self._deadline, (self._play(self._step), self._second()))
        return self._winner

    def _second(self) -> Flow[None]:
        yield from Sleep(self._hedge_at)
        exchange = self._exchange
        hedge = self._plan.hedge(exchange.gateway.context.now)
        if hedge is None:
            yield from self._wait()
            return
        self._running += 1
        exchange.gateway.metrics.add("tz_hedges_total")
        yield from self._play(hedge)

    def _play(self, step: Try[Candidate]) -> Flow[None]:
        is_hedge = step is not self._step
        answered = yield from _try(self._exchange, self._plan, step, is_hedge=is_hedge)
        self._running -= 1
        if answered is None:
            if self._running:
                yield from self._wait()
        elif self._winner is None:
            # Whatever ends the exchange now finds the stream and closes it.
            self._winner = self._exchange.answered = answered
        else:
            # Both answered before the loop came back to the race.
            answered.close()
            answered.record.error = "cancelled"
            self._plan.released(step)

    def _wait(self) -> Flow[None]:
        """Let the other one decide."""
        yield from Wait(self._deadline, Signal())


_LOUD: dict[Kind, str] = {
    Kind.AUTH: "a provider refused the gateway's key",
    Kind.QUOTA: "a provider's account has no quota or no money left",
    Kind.MISSING: "a provider does not have the model",
    Kind.TLS: "a provider's certificate or handshake failed",
    Kind.REDIRECT: "a provider answered with a redirect",
}


def _announce(
    exchange: Exchange,
    candidate: Candidate,
    failure: Failure,
    error: UpstreamError | InvalidRequest,
) -> None:
    """Say loudly what the operator has to mend; the caller is told other things."""
    settings, kind = candidate.settings, failure.kind
    gateway = exchange.gateway
    gateway.metrics.add(
        "tz_provider_faults_total", provider=settings.name, kind=kind.value
    )
    fields = {
        "request_id": exchange.record.request_id,
        "model": candidate.model.key,
        "provider": settings.name,
        "upstream_model": settings.model,
        "code": code_of(error) if isinstance(error, UpstreamError) else error.code,
    }
    message = _LOUD.get(kind, "a provider failed in a way that time does not mend")
    gateway.context.tell(LogLine("error", message, fields))
