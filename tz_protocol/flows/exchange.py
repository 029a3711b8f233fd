"""One exchange: a request, the six steps, one answer, one record.

    convert -> resolve -> require capability -> route -> call -> render

The one rule: this module is the sequence and nothing else. Conversions are the
dialects', choices are ``routing``'s, attempts are ``trying``'s, bytes ``upstream``'s.
Every path, bugs and cancellation included, settles the record exactly once, without
yielding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tz_protocol.dialects.base import Encoder
from tz_protocol.endpoints import Endpoint
from tz_protocol.errors import (
    Cancelled,
    ClientError,
    ClientTimeout,
    DeadlineExceeded,
    GatewayError,
    Interrupted,
    InvalidRequest,
    Overloaded,
    TooLarge,
)
from tz_protocol.flows.answering import answer_again, require_room
from tz_protocol.flows.attempt import Answered
from tz_protocol.flows.fetching import Fetched
from tz_protocol.flows.identity import (
    attribute,
    identify,
    model_in,
    reserve,
    resolve_for,
    settle,
)
from tz_protocol.flows.keeping import Said, keep, leave
from tz_protocol.flows.pinging import Pinger, can_ping
from tz_protocol.flows.relay import fail, relay
from tz_protocol.flows.trying import first_answer, make_plan
from tz_protocol.machine import ClientGone, Shutdown
from tz_protocol.operations import AbortBody, Flow, ReceiveBody, SendBody, SendHead
from tz_protocol.records.record import Outcome, Record, Stage
from tz_protocol.routing.candidates import Candidate, require
from tz_protocol.routing.limits import Lease
from tz_protocol.routing.options import policy_of
from tz_protocol.routing.plan import Plan
from tz_protocol.types.http import Headers, RequestHead, ResponseHead
from tz_protocol.types.keys import Principal
from tz_protocol.types.prices import Price
from tz_protocol.types.request import Identity, ParsedRequest
from tz_protocol.types.settings import Model
from tz_protocol.wire.traceparent import TraceParent, parse_traceparent

if TYPE_CHECKING:
    from tz_protocol.gateway import Gateway

__all__ = ["Exchange"]

_TRACE_HEADERS = ("traceparent", "tracestate")


def _trace_of(headers: Headers) -> TraceParent | None:
    """Return what the one ``traceparent`` says; two of them say nothing."""
    found = [value for name, value in headers if name == "traceparent"]
    return parse_traceparent(found[0]) if len(found) == 1 else None


class Exchange:
    """One request and its response; :meth:`run` is the flow.

    Args:
        gateway: Whose tables are used; its snapshot of now is kept to the end.
        endpoint: The row that the route matched.
        head: The request's head.
        request_id: For ``x-request-id`` and the record.
        response_headers: Put on every answer (version, request id, CORS).
    """

    __slots__ = (
        "_held",
        "_is_admitted",
        "_pinger",
        "_plan",
        "answered",
        "deadline",
        "endpoint",
        "fetched",
        "gateway",
        "head",
        "is_begun",
        "is_relayed",
        "lease",
        "parsed",
        "ping_after",
        "prices",
        "principal",
        "record",
        "response_headers",
        "said",
        "settings",
        "snapshot",
        "trace_headers",
    )

    def __init__(
        self,
        gateway: Gateway,
        endpoint: Endpoint,
        head: RequestHead,
        request_id: str,
        response_headers: Headers,
    ) -> None:
        now = gateway.context.now
        self.gateway = gateway
        self.endpoint = endpoint
        self.head = head
        self.response_headers = response_headers
        self.snapshot = gateway.snapshot
        self.settings = gateway.snapshot.gateway
        self.trace_headers: Headers = tuple(
            pair for pair in head.headers if pair[0] in _TRACE_HEADERS
        )
        self.principal: Principal | None = None
        """Who calls; None while unknown, or if authentication is off."""
        self.lease: Lease | None = None
        """What the exchange holds of its key's limits, if that has any."""
        self.prices: tuple[Price, ...] | None = None
        """Of the provider that answered."""
        self.parsed = ParsedRequest(model="")
        self.is_relayed = False
        """True if the answer goes out piece by piece."""
        self.is_begun = False
        """True once the head is on its way: the status cannot change any more."""
        self.answered: Answered | None = None
        """Who answered; its stream is closed with the exchange."""
        self.ping_after: float | None = None
        """Seconds after which a client that waits is sent a comment; None: never."""
        self.deadline = now + max(
            self.settings.timeouts.total, self.settings.timeouts.stream_total
        )
        """Absolute; lowered as soon as the request is known."""
        self.record = Record(
            id=gateway.new_id(),
            request_id=request_id,
            endpoint=endpoint.route,
            config_id=self.snapshot.config_id,
            started_at=gateway.wall_clock(),
            started=now,
            trace=_trace_of(self.trace_headers),
        )
        self.said = Said()
        """What the record and the cache may need of the answer."""
        self.fetched = Fetched()
        """What is behind the request's links, once somebody needed it."""
        self._held = 0
        self._is_admitted = False
        self._plan: Plan[Candidate] | None = None
        self._pinger: Pinger | None = None

    def seconds(self) -> float:
        """Return the seconds since the exchange began."""
        return self.gateway.context.now - self.record.started

    def run(self) -> Flow[None]:
        """Serve the request, answer, and settle, whatever happens."""
        record = self.record
        try:
            try:
                yield from self._serve()
            except GatewayError as error:
                yield from self._refuse(error)
            except Interrupted as interrupt:
                if not (yield from self._interrupted(interrupt.event)):
                    raise
        except ClientTimeout:
            self.conclude(Outcome.CLIENT_STALLED)
            raise
        except ClientError:
            self.conclude(Outcome.CLIENT_GONE)
            raise
        except Interrupted as interrupt:
            is_gone = isinstance(interrupt.event, ClientGone)
            self.conclude(Outcome.CLIENT_GONE if is_gone else Outcome.SHUTDOWN)
            raise
        except (Cancelled, GeneratorExit):
            self.conclude(Outcome.CANCELLED)
            raise
        except BaseException:
            record.error = "internal_error"
            self.conclude(Outcome.ERROR)
            raise
        finally:
            self._settle()

    # -- the steps ----------------------------------------------------------------

    def _serve(self) -> Flow[None]:
        record = self.record
        record.stage = Stage.AUTHENTICATE
        identify(self)
        record.stage = Stage.BODY
        body = yield from self._receive_body()
        record.stage = Stage.CONVERT
        self.convert(body)
        record.stage = Stage.RESOLVE
        model = resolve_for(self, self.parsed.model)
        record.stage = Stage.REQUIRE
        require(model, self.endpoint.capability)
        record.stage = Stage.ADMIT
        require_room(self.gateway)
        reserve(self, model, body)
        yield from self._admit(model)
        if (yield from answer_again(self, model)):
            return
        record.stage = Stage.ROUTE
        answered = yield from self._route(model)
        self._commit(answered)
        if answered.stream is not None:
            yield from self._relay(answered)
        else:
            yield from self._render(answered)

    def _receive_body(self) -> Flow[bytes]:
        """Return the whole body, within the limits and the memory budget."""
        limit = self.settings.limits.body_bytes
        pieces: list[bytes] = []
        while piece := (yield from ReceiveBody(self.deadline)):
            size = len(piece)
            self.gateway.memory.take(size)
            self._held += size
            if self._held > limit:
                message = f"The request's body is over the limit of {limit} bytes."
                raise TooLarge(message)
            pieces.append(piece)
        self.record.bytes_in = self._held
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def convert(self, body: bytes) -> None:
        """Step 1: the caller's bytes become a neutral request.

        Raises:
            GatewayError: They are none.
        """
        dialect, record = self.endpoint.dialect, self.record
        try:
            self.parsed = parsed = dialect.parse_request(body, self.head)
        except GatewayError:
            record.asked_model = model_in(body)
            raise
        always = dialect.is_always_stream
        self.is_relayed = parsed.is_stream or (always is not None and always(parsed))
        record.asked_model = parsed.model
        record.is_stream = parsed.is_stream
        record.tags = parsed.extensions.tags
        record.is_dryrun = parsed.extensions.dryrun
        record.episode_id = parsed.extensions.episode_id or self.gateway.new_id()

    def limit_time(self, model: Model) -> None:
        """Set the deadline, now that it is known what is asked for."""
        timeouts = model.timeouts or self.settings.timeouts
        is_stream = self.parsed.is_stream
        total = timeouts.stream_total if is_stream else timeouts.total
        self.deadline = self.record.started + total

    def _admit(self, model: Model) -> Flow[None]:
        self.limit_time(model)
        limits, now = self.settings.limits, self.gateway.context.now
        wait = min(self.deadline, now + limits.queue_timeout)
        yield from self.gateway.admission.enter(wait)
        self._is_admitted = True

    def _route(self, model: Model) -> Flow[Answered]:
        """Steps 4 and 5: try the eligible candidates until one answers."""
        self._plan = plan = make_plan(self, model)
        trying = first_answer(self, plan)
        after = policy_of(model, self.snapshot).stream.ping_after
        if after is not None and self.parsed.is_stream:
            encoder = self.encoder(model.name)
            if can_ping(encoder):
                self.ping_after = after
                self._pinger = Pinger(self, after, encoder)
                return (yield from self._pinger.run(trying))
        return (yield from trying)

    def _commit(self, answered: Answered) -> None:
        record = self.record
        record.model = answered.candidate.model.name
        record.provider = answered.candidate.settings.name
        self.prices = answered.candidate.settings.prices
        attribute(self, answered.candidate.model)
        record.first_content = self.seconds()
        record.dropped = answered.dropped
        if answered.stream is None and self._plan is not None:
            self._plan.completed(answered.step)
        self.release_body()

    def _render(self, answered: Answered) -> Flow[None]:
        """Step 6: the whole answer, in the caller's format, in one write."""
        record, response = self.record, answered.response
        record.stage = Stage.RENDER
        if response is None:
            message = "an attempt answered with neither a response nor a stream"
            raise RuntimeError(message)
        head, body = self.endpoint.dialect.render_response(
            self.parsed, response, self.identity(answered.candidate.model.name)
        )
        record.usage, self.said.body = response.usage, body
        head = ResponseHead(head.status, (*head.headers, *self.facts()))
        yield from self.send_whole(head, body, Outcome.OK)
        self.conclude(Outcome.OK)

    def _relay(self, answered: Answered) -> Flow[None]:
        """Step 6 for streams: pieces as they come."""
        plan, step = self._plan, answered.step
        encoder = self.encoder(answered.candidate.model.name)
        try:
            failure = yield from relay(self, answered, encoder)
        finally:
            answered.close()
            answered.record.ended = self.seconds()
        if plan is None or self.record.outcome is Outcome.SHUTDOWN:
            return
        if failure is None:
            plan.completed(step)
        else:
            plan.failed(step, failure, self.gateway.context.now)

    def encoder(self, model: str) -> Encoder:
        """Return what makes a stream's bytes of its parts."""
        encoder_of = self.endpoint.dialect.stream_encoder
        if encoder_of is None:
            raise InvalidRequest("This endpoint does not stream.", param="stream")
        return encoder_of(self.parsed, self.identity(model))

    # -- answering ----------------------------------------------------------------

    def begin(self, status: int, headers: Headers) -> Flow[None]:
        """Send the head of a relayed answer; its first bytes must follow at once.

        Does nothing if comments have gone out before the answer was there.
        """
        if self.is_begun:
            return
        self.is_begun = True
        self.record.status = status
        headers = (*headers, *self.response_headers)
        yield from SendHead(self.send_deadline(), ResponseHead(status, headers))

    def send_whole(
        self, head: ResponseHead, body: bytes, outcome: Outcome
    ) -> Flow[None]:
        """Send a whole answer; *outcome* is what it comes to if it arrives."""
        self.is_begun = True
        self.record.status = head.status
        headers = (
            *head.headers,
            ("content-length", str(len(body))),
            *self.response_headers,
        )
        self.record.bytes_out = len(body)
        yield from keep(self, outcome)
        deadline = self.send_deadline()
        yield from SendHead(deadline, ResponseHead(head.status, headers))
        yield from SendBody(deadline, body, end=True)

    def _refuse(self, error: GatewayError) -> Flow[None]:
        """Answer with *error*, or break off what has begun."""
        record = self.record
        record.error = error.code or error.kind
        self.release_body()
        if self.is_begun:
            yield from self._break_off(error)
            return
        debug = self.settings.debug
        head, body = self.endpoint.dialect.render_error(error, debug)
        self.conclude(_OUTCOMES.get(type(error), Outcome.ERROR))
        head = ResponseHead(head.status, (*head.headers, *self._attempt_facts()))
        yield from self.send_whole(head, body, Outcome.ERROR)

    def _break_off(self, error: GatewayError) -> Flow[None]:
        """Tell of *error* in what has begun, if only comments have gone out so far."""
        pinger = self._pinger
        if pinger is None or pinger.is_sending or self.record.stage is Stage.RELAY:
            self.conclude(Outcome.PARTIAL)
            yield from AbortBody(self.goodbye_deadline())
            return
        self.conclude(_OUTCOMES.get(type(error), Outcome.ERROR))
        yield from fail(self, pinger.encoder, b"", error)

    def _interrupted(self, event: object) -> Flow[bool]:
        """Say goodbye; returns False if there is nobody to say it to."""
        if not isinstance(event, Shutdown):
            return False
        self.record.error = "gateway_shutdown"
        self.conclude(Outcome.SHUTDOWN)
        if self.is_begun and self._pinger is None:
            return False
        error = Overloaded(
            "The gateway is shutting down. Try again.",
            code="gateway_shutdown",
            retry_after=1.0,
        )
        yield from self._refuse(error)
        return True

    def goodbye_deadline(self) -> float:
        """Return by when last words must have been read by the client."""
        return self.gateway.context.now + self.settings.server.goodbye

    def send_deadline(self) -> float:
        """Return by when the client must have read what is sent to it now.

        What comes at the last moment is no fault of the client's.
        """
        return max(self.deadline, self.goodbye_deadline())

    def identity(self, model: str) -> Identity:
        """Return what the answer is stamped with; *model* is who made it."""
        record = self.record
        return Identity(
            id=record.id,
            episode_id=record.episode_id or record.id,
            model=model,
            created=int(record.started_at),
        )

    def facts(self) -> Headers:
        """Return the headers that say who answered, and how."""
        record = self.record
        facts: Headers = (
            ("x-tz-model", record.model or ""),
            ("x-tz-provider", record.provider or ""),
            *self._attempt_facts(),
        )
        if record.cache:
            facts = (*facts, ("x-tz-cache", record.cache))
        if record.dropped:
            facts = (*facts, ("x-tz-dropped-params", ", ".join(record.dropped)))
        return tuple((name, _header_safe(value)) for name, value in facts)

    def _attempt_facts(self) -> Headers:
        attempts = self.record.attempts
        if not attempts:
            return ()
        upstream = sum((a.ended or self.seconds()) - a.started for a in attempts)
        own = max(0.0, self.seconds() - upstream)
        timing = f"upstream;dur={upstream * 1e3:.1f}, gateway;dur={own * 1e3:.1f}"
        return (("x-tz-attempts", str(len(attempts))), ("server-timing", timing))

    # -- settling -----------------------------------------------------------------

    def conclude(self, outcome: Outcome) -> None:
        """State how the exchange ended; the first statement holds."""
        if self.record.outcome is None:
            self.record.outcome = outcome

    def release_body(self) -> None:
        """Give back the memory that the request's body was counted with."""
        self.fetched.close(self.gateway.memory)
        held, self._held = self._held, 0
        if held:
            self.gateway.memory.give(held)

    def _settle(self) -> None:
        self.release_body()
        if self.answered is not None:
            self.answered.close()
        if self._plan is not None:
            self._plan.close()
        if self._is_admitted:
            self._is_admitted = False
            self.gateway.admission.leave()
        settle(self)
        record = self.record
        self.conclude(Outcome.OK)
        if record.outcome is Outcome.OK:
            record.stage = Stage.DONE
        record.duration = self.seconds()
        leave(self)
        self.gateway.settle(record)


def _header_safe(value: str) -> str:
    """Return *value* as a legal header value; names may hold any character."""
    if value.isascii() and value.isprintable():
        return value
    return "".join(c if " " <= c <= "~" else "?" for c in value)


_OUTCOMES: dict[type[GatewayError], Outcome] = {
    Overloaded: Outcome.SHED,
    DeadlineExceeded: Outcome.TIMEOUT,
}
