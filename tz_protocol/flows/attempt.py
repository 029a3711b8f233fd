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

import msgspec

from tz_protocol.dialects.base import Losses, Response
from tz_protocol.errors import (
    InvalidRequest,
    OperationTimeout,
    UpstreamError,
    UpstreamGarbled,
    UpstreamTimeout,
)
from tz_protocol.flows.choices import Choices, Whole, total_of
from tz_protocol.flows.openstream import EventSource, OpenStream
from tz_protocol.flows.proof import prove
from tz_protocol.flows.upstream import (
    Call,
    UpstreamResponse,
    open_reply,
    open_upstream,
    read_all,
)
from tz_protocol.operations import Flow
from tz_protocol.records.record import AttemptRecord, CallRecord, Stage
from tz_protocol.routing.candidates import Candidate, key_of
from tz_protocol.routing.options import policy_of
from tz_protocol.routing.plan import Try
from tz_protocol.routing.redaction import Redaction
from tz_protocol.routing.verdict import code_of
from tz_protocol.types.http import Headers, HttpRequest, ResponseHead
from tz_protocol.types.policy import StreamPolicy
from tz_protocol.types.prices import cost_of
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.types.settings import GatewaySettings, Timeouts
from tz_protocol.types.stream import StreamDone, StreamEvent, StreamFailed, StreamPart

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = ["Answered", "attempt", "headers_of", "placed", "target_of", "timeouts_of"]

ERROR_BODY_LIMIT = 65_536
"""Bytes of a provider's error body that are read; vendors' own stay under 10 KiB."""

_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
"""OpenAI's and most others', Anthropic's, AWS's, Azure's."""

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
    calls = _Calls(exchange, candidate, timeouts, policy, first, total, redaction)
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


@dataclass(slots=True)
class _Calls:
    """What an attempt does at its candidate: one call, or several as if they were."""

    exchange: Exchange
    candidate: Candidate
    timeouts: Timeouts
    policy: StreamPolicy
    first: float
    """When there must be content; absolute, as is the next."""
    total: float
    redaction: Redaction

    def stream(self, request: HttpRequest, record: AttemptRecord) -> Flow[EventSource]:
        """Return the open stream that answers *request*."""
        if not request.others:
            response = yield from self.open(request, record)
            return self._decoded(response)
        return (
            yield from self._choices(request, record).streams(
                self._decoded,
                first=self.first,
                idle=self.timeouts.idle,
                # Of what httpx reads, a read that is given up may be the last.
                is_apart=self.candidate.settings.proxy is not None,
            )
        )

    def whole(self, request: HttpRequest, record: AttemptRecord) -> Flow[Whole]:
        """Return the whole answer to *request*."""
        if request.others:
            return (yield from self._choices(request, record).whole(self._read))
        response = yield from self.open(request, record)
        try:
            return (yield from self._read(response))
        finally:
            response.close()

    def open(
        self, request: HttpRequest, note: AttemptRecord | CallRecord
    ) -> Flow[UpstreamResponse]:
        """Return an answer whose head is good; *note* has what it says."""
        exchange, candidate, first = self.exchange, self.candidate, self.first
        response = yield from _open(
            exchange,
            candidate,
            request,
            self.timeouts,
            first,
            self.total,
            self.redaction,
        )
        try:
            note.is_reused = response.is_reused
            note.status = status = response.head.status
            note.request_id = _request_id(response.head)
            note.head = exchange.seconds()
            if not 200 <= status < 300:
                yield from _refused(candidate, response, first)
        except BaseException:
            response.close()
            raise
        exchange.record.stage = Stage.FIRST_CONTENT
        return response

    def _choices(self, request: HttpRequest, record: AttemptRecord) -> Choices:
        exchange = self.exchange
        context, began = exchange.gateway.context, exchange.record.started
        return Choices(request, record, self.open, context, began)

    def _decoded(self, response: UpstreamResponse) -> OpenStream:
        exchange = self.exchange
        decoder_of = self.candidate.dialect.stream_decoder
        if decoder_of is None:
            message = "a format without streams was asked for one"
            raise RuntimeError(message)
        decoder = decoder_of(response.head, exchange.settings.limits.event_bytes)
        return OpenStream(
            response,
            decoder,
            exchange.gateway.context,
            self.policy.on_malformed_event,
            self.redaction,
        )

    def _read(self, response: UpstreamResponse) -> Flow[Whole]:
        limit = self.exchange.settings.limits.response_bytes
        body = yield from read_all(response, self.total, "total", limit)
        dialect = self.candidate.dialect
        return dialect.parse_response(response.head, body), body


def _request_id(head: ResponseHead) -> str | None:
    """Return the provider's own id of the request, whatever it calls it."""
    for name in _REQUEST_IDS:
        if (value := head.get(name)) is not None:
            return value
    return None


def timeouts_of(candidate: Candidate, settings: GatewaySettings) -> Timeouts:
    """Return the deadlines of an attempt at *candidate*."""
    return candidate.settings.timeouts or candidate.model.timeouts or settings.timeouts


def _total(parsed: ParsedRequest, timeouts: Timeouts) -> float:
    return timeouts.stream_total if parsed.is_stream else timeouts.total


def target_of(candidate: Candidate, gateway: GatewaySettings) -> Target:
    """Return whom the candidate's dialect renders for."""
    settings, deviations = candidate.settings, candidate.provider.deviations
    return Target(
        provider=settings.type,
        model=settings.model,
        options=settings.options,
        renames=dict(deviations.renames),
        unsupported=deviations.unsupported,
        implied=dict(deviations.implied),
        extra_body=settings.extra_body,
        emulated_choices=gateway.limits.emulated_choices,
    )


def _open(
    exchange: Exchange,
    candidate: Candidate,
    request: HttpRequest,
    timeouts: Timeouts,
    first: float,
    total: float,
    redaction: Redaction,
) -> Flow[UpstreamResponse]:
    gateway = exchange.gateway
    settings, provider = candidate.settings, candidate.provider
    key = key_of(candidate, exchange.parsed)
    connect = min(first, gateway.context.now + timeouts.connect)
    if provider.responder is not None:
        try:
            reply = yield from provider.responder(
                request, settings, key, first, gateway.context
            )
        except OperationTimeout:
            raise UpstreamTimeout("first_content") from None
        return open_reply(reply)
    request = placed(candidate, request)
    proof = yield from prove(gateway, candidate, request, key, connect)
    redaction.add(proof.secrets)
    call = Call(
        request=request,
        headers=headers_of(
            candidate,
            request,
            proof.headers,
            user_agent=gateway.user_agent,
            trace=exchange.trace_headers,
        ),
        settings=settings,
        connect_deadline=connect,
        head_deadline=first,
        total_deadline=total,
    )
    response = yield from open_upstream(
        call, gateway.pool, gateway.context, exchange.settings.limits
    )
    if response.head.status == 401:
        proof.refused()
    return response


def placed(candidate: Candidate, request: HttpRequest) -> HttpRequest:
    """Return the request with the path that this vendor uses for it."""
    path = candidate.provider.paths.get(request.path)
    if path is None:
        return request
    defaults, options = candidate.provider.defaults, candidate.settings.options
    path = path.format_map({**defaults, **options})
    return msgspec.structs.replace(request, path=path)


def headers_of(
    candidate: Candidate,
    request: HttpRequest,
    authorization: Headers,
    *,
    user_agent: str,
    trace: Headers = (),
) -> Headers:
    """Return everything that goes upstream but Host and framing.

    Built from scratch: nothing of the caller's is forwarded but the trace context.

    Args:
        candidate: Whom the request is for.
        request: What its dialect rendered.
        authorization: What proves who asks; see ``proof.prove``.
        user_agent: Of this gateway.
        trace: The caller's trace context.
    """
    settings = candidate.settings
    headers = (
        *request.headers,
        ("accept-encoding", "identity"),
        ("user-agent", user_agent),
        *authorization,
        *trace,
    )
    if settings.extra_headers:
        names = {name for name, _ in settings.extra_headers}
        kept = tuple(pair for pair in headers if pair[0] not in names)
        return (*kept, *settings.extra_headers)
    return headers


def _refused(
    candidate: Candidate, response: UpstreamResponse, deadline: float
) -> Flow[None]:
    """Read the provider's error and raise what it stands for."""
    status = response.head.status
    if 300 <= status < 400:
        message = "the provider answered with a redirect, which is never followed"
        raise UpstreamGarbled(message, "upstream_redirect")
    if status < 200:
        message = "the provider answered with an informational status only"
        raise UpstreamGarbled(message)
    try:
        body = yield from read_all(
            response, deadline, "first_content", ERROR_BODY_LIMIT
        )
    except UpstreamError:
        # The status says enough; a broken error body must not hide it.
        body = b""
    raise candidate.dialect.parse_error(response.head, body)


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
