"""One try at one candidate, up to the commit boundary.

The one rule: until :func:`attempt` returns, nothing of the answer has reached the
caller, so every failure is invisible and the next candidate may be tried. Lifecycle
frames that come before the first content are held, and as much content as the policy
says. Which candidate is tried, and what follows, is ``trying``'s business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tz_protocol.dialects.base import Losses, Response
from tz_protocol.errors import (
    InvalidRequest,
    UpstreamError,
    UpstreamGarbled,
    UpstreamTimeout,
)
from tz_protocol.flows.calls import Calls
from tz_protocol.flows.choices import total_of
from tz_protocol.flows.openstream import EventSource
from tz_protocol.operations import Flow
from tz_protocol.records.record import AttemptRecord, CallRecord, Stage
from tz_protocol.routing.candidates import Candidate, key_of
from tz_protocol.routing.options import policy_of
from tz_protocol.routing.plan import Try
from tz_protocol.routing.redaction import Redaction
from tz_protocol.routing.verdict import code_of
from tz_protocol.types.http import HttpRequest
from tz_protocol.types.policy import StreamPolicy
from tz_protocol.types.prices import cost_of
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.types.settings import GatewaySettings, Timeouts
from tz_protocol.types.stream import StreamDone, StreamEvent, StreamFailed, StreamPart

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = ["Answered", "attempt", "target_of", "timeouts_of"]

HELD_PARTS_LIMIT = 1_000
"""Parts that are held: before the first content real streams have one or two."""


@dataclass(slots=True)
class Answered:
    """A candidate has answered; the exchange may be committed to it."""

    step: Try[Candidate]
    record: AttemptRecord
    response: Response | None
    """The whole, decoded answer; None for a stream."""
    stream: EventSource | None
    timeouts: Timeouts
    policy: StreamPolicy
    dropped: Losses
    sent: bytes = b""
    """The body of the request that it answered."""
    received: bytes = b""
    """The body of its whole answer."""

    @property
    def candidate(self) -> Candidate:
        """Who answered."""
        return self.step.option.candidate

    def close(self) -> None:
        """Break off what was not read whole."""
        if self.stream is not None:
            self.stream.close()


def attempt(
    exchange: Exchange, step: Try[Candidate], *, is_hedge: bool = False
) -> Flow[Answered]:
    """Try the candidate of *step* once; next, tell the plan what came of it.

    Raises:
        UpstreamError: It failed; the record says how, nothing is left open.
        InvalidRequest: The request cannot be expressed in its dialect.
    """
    candidate = step.option.candidate
    context = exchange.gateway.context
    started = context.now
    record = AttemptRecord(
        provider=candidate.settings.name,
        provider_type=candidate.settings.type,
        model=candidate.model.name,
        upstream_model=candidate.settings.model,
        started=started - exchange.record.started,
        is_hedge=is_hedge,
    )
    exchange.record.attempts.append(record)
    redaction = Redaction(candidate.settings, key_of(candidate, exchange.parsed))
    try:
        try:
            parsed = yield from exchange.fetched.request_for(exchange, candidate)
        finally:
            # Other people's servers are not the provider's time.
            started = context.now
            record.started = started - exchange.record.started
        return (yield from _attempt(exchange, step, parsed, record, started, redaction))
    except UpstreamError as error:
        redaction.clean(error)
        record.error = code_of(error)
        notes: list[AttemptRecord | CallRecord] = [record, *record.calls]
        for note in notes:
            if note.request_id is not None:
                note.request_id = redaction.text(note.request_id)
        raise
    except InvalidRequest as error:
        record.error = error.code or "invalid_request"
        raise
    except BaseException:
        record.error = "cancelled"
        raise
    finally:
        if record.error is not None:
            record.ended = context.now - exchange.record.started
            _count_spent(record, candidate)


def _count_spent(record: AttemptRecord, candidate: Candidate) -> None:
    """Note what was used for nothing: some of several calls may have been answered."""
    record.spent = total_of(call.usage for call in record.calls)
    prices = candidate.settings.prices
    if record.spent is not None and prices is not None:
        record.spent_cost = cost_of(prices, record.spent)


def _attempt(
    exchange: Exchange,
    step: Try[Candidate],
    parsed: ParsedRequest,
    record: AttemptRecord,
    started: float,
    redaction: Redaction,
) -> Flow[Answered]:
    candidate = step.option.candidate
    dialect = candidate.dialect
    if exchange.is_relayed and dialect.stream_decoder is None:
        message = "the provider's format has no streams"
        raise InvalidRequest(message, param="stream")
    timeouts = timeouts_of(candidate, exchange.settings)
    total = min(exchange.deadline, started + _total(parsed, timeouts))
    first = min(total, started + timeouts.first_content)
    target = target_of(candidate, exchange.settings)
    request, dropped = dialect.render_request(parsed, target)
    exchange.record.stage = Stage.OPEN
    policy = policy_of(candidate.model, exchange.snapshot).stream
    answered = Answered(step, record, None, None, timeouts, policy, dropped)
    answered.sent = request.body if not request.others else _all_of(request)
    calls = Calls(exchange, candidate, timeouts, policy, first, total, redaction)
    try:
        if exchange.is_relayed:
            answered.stream = yield from calls.stream(request, record)
            yield from _hold(answered, first, total, exchange)
        else:
            whole = yield from calls.whole(request, record)
            answered.response, answered.received = whole
            record.first_content = record.ended = exchange.seconds()
    except BaseException:
        answered.close()
        raise
    return answered


def _all_of(request: HttpRequest) -> bytes:
    """Return the bodies that are sent: one if they are all the same, else an array."""
    bodies = {request.body: None, **dict.fromkeys(request.others)}
    return request.body if len(bodies) == 1 else b"[%b]" % b",".join(bodies)


def timeouts_of(candidate: Candidate, settings: GatewaySettings) -> Timeouts:
    """Return the deadlines of an attempt at *candidate*."""
    return candidate.settings.timeouts or candidate.model.timeouts or settings.timeouts


def _total(parsed: ParsedRequest, timeouts: Timeouts) -> float:
    return timeouts.stream_total if parsed.is_stream else timeouts.total


def target_of(candidate: Candidate, gateway: GatewaySettings) -> Target:
    """Return whom the candidate's dialect renders for."""
    settings, deviations = candidate.settings, candidate.provider.deviations
    limits = gateway.limits
    return Target(
        provider=settings.type,
        model=settings.model,
        options=settings.options,
        renames=dict(deviations.renames),
        unsupported=deviations.unsupported,
        implied=dict(deviations.implied),
        extra_body=settings.extra_body,
        # More streams than there are places would wait for each other in vain.
        emulated_choices=min(limits.emulated_choices, limits.pool_per_origin),
    )


def _hold(
    answered: Answered, first: float, total: float, exchange: Exchange
) -> Flow[None]:
    """Read until there is content, and then as long as the policy holds it back.

    Args:
        answered: Its stream is read; its events are kept there.
        first: When there must be content.
        total: When the attempt must be over.
        exchange: For the clock.
    """
    stream, policy = answered.stream, answered.policy
    if stream is None:
        return
    held, limit = stream.events, policy.hold_events
    if policy.hold and not limit:
        limit = HELD_PARTS_LIMIT
    count, until = 0, math.inf
    deadline, phase = first, "total" if first >= total else "first_content"
    context = exchange.gateway.context
    while True:
        events = yield from stream.receive(deadline, phase)
        now = context.now
        count += _content_of(events)
        if events and type(end := events[-1]) is StreamFailed:
            if now >= until and isinstance(end.error, UpstreamTimeout):
                return  # not the provider's time was over, but ours to hold
            if now < until and count <= limit:
                raise end.error
        held += events
        if count and answered.record.first_content is None:
            answered.record.first_content = exchange.seconds()
            until = now + policy.hold if policy.hold else math.inf
        if count > limit or now >= until or stream.is_finished or _is_over(held):
            return
        if len(held) > HELD_PARTS_LIMIT + limit:
            if count:
                return
            raise UpstreamGarbled("the provider's stream has no content")
        if count:
            deadline, phase = min(total, now + answered.timeouts.idle), "idle"
            if deadline >= total:
                phase = "total"
            deadline = min(deadline, until)


def _content_of(events: list[StreamEvent]) -> int:
    return sum(type(event) is StreamPart and event.has_content for event in events)


def _is_over(events: list[StreamEvent]) -> bool:
    return bool(events) and type(events[-1]) in (StreamDone, StreamFailed)
