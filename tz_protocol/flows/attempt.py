"""One try at one candidate, up to the commit boundary.

The one rule: until :func:`attempt` returns, nothing has reached the caller, so every
failure is invisible and the next candidate may be tried. Lifecycle frames that come
before the first content are held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tz_protocol.dialects.base import Decoder, Response
from tz_protocol.errors import (
    InvalidRequest,
    OperationTimeout,
    UpstreamError,
    UpstreamGarbled,
    UpstreamTimeout,
)
from tz_protocol.flows.upstream import (
    Call,
    UpstreamResponse,
    open_reply,
    open_upstream,
    read_all,
)
from tz_protocol.operations import Flow
from tz_protocol.records.record import AttemptRecord, Stage
from tz_protocol.routing.candidates import Candidate, key_of
from tz_protocol.routing.verdict import code_of
from tz_protocol.types.http import Headers, HttpRequest, ResponseHead
from tz_protocol.types.request import ParsedRequest, Target
from tz_protocol.types.settings import Timeouts
from tz_protocol.types.stream import StreamDone, StreamEvent, StreamFailed, StreamPart

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = ["Answered", "OpenStream", "attempt"]

ERROR_BODY_LIMIT = 65_536
"""Bytes of a provider's error body that are read; vendors' own stay under 10 KiB."""

_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
"""OpenAI's and most others', Anthropic's, AWS's, Azure's."""

HELD_PARTS_LIMIT = 1_000
"""Parts without content before the first content; real streams have one or two."""


@dataclass(slots=True)
class OpenStream:
    """A stream that has been opened; its first content is among ``events``."""

    response: UpstreamResponse
    decoder: Decoder
    events: list[StreamEvent]
    """Everything decoded so far, in order."""


@dataclass(slots=True)
class Answered:
    """A candidate has answered: the exchange is committed to it."""

    candidate: Candidate
    record: AttemptRecord
    response: Response | None
    """The whole, decoded answer; None for a stream."""
    stream: OpenStream | None
    timeouts: Timeouts
    started: float
    """On the driver's clock."""


def attempt(exchange: Exchange, candidate: Candidate) -> Flow[Answered]:
    """Try *candidate* once.

    Raises:
        UpstreamError: It failed; the record says how, nothing is left open.
        InvalidRequest: The request cannot be expressed in its dialect.
    """
    context = exchange.gateway.context
    started = context.now
    record = AttemptRecord(
        provider=candidate.settings.name,
        provider_type=candidate.settings.type,
        model=candidate.model.name,
        upstream_model=candidate.settings.model,
        started=started - exchange.record.started,
    )
    exchange.record.attempts.append(record)
    try:
        return (yield from _attempt(exchange, candidate, record, started))
    except UpstreamError as error:
        record.error = code_of(error)
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


def _attempt(
    exchange: Exchange, candidate: Candidate, record: AttemptRecord, started: float
) -> Flow[Answered]:
    parsed = exchange.parsed
    timeouts = _timeouts(exchange, candidate)
    total = min(exchange.deadline, started + _total(parsed, timeouts))
    first = min(total, started + timeouts.first_content)
    request, dropped = candidate.dialect.render_request(parsed, target_of(candidate))
    exchange.record.stage = Stage.OPEN
    response = yield from _open(exchange, candidate, request, timeouts, first, total)
    record.is_reused = response.is_reused
    record.status = status = response.head.status
    record.request_id = _request_id(response.head)
    now = exchange.gateway.context.now
    record.head = now - exchange.record.started
    try:
        if not 200 <= status < 300:
            yield from _refused(candidate, response, first)
        exchange.record.stage = Stage.FIRST_CONTENT
        answered = Answered(candidate, record, None, None, timeouts, started)
        if exchange.is_relayed:
            phase = "total" if first >= total else "first_content"
            decoder = candidate.dialect.stream_decoder
            if decoder is None:
                message = "the provider's format has no streams"
                raise InvalidRequest(message, param="stream")
            stream = OpenStream(response, decoder(response.head), [])
            yield from _first_content(stream, first, phase)
            answered.stream = stream
            record.first_content = exchange.seconds()
        else:
            limit = exchange.gateway.snapshot.gateway.limits.response_bytes
            body = yield from read_all(response, total, "total", limit)
            answered.response = candidate.dialect.parse_response(response.head, body)
            record.first_content = record.ended = exchange.seconds()
            response.close()
    except BaseException:
        response.close()
        raise
    exchange.record.dropped = dropped
    return answered


def _request_id(head: ResponseHead) -> str | None:
    """Return the provider's own id of the request, whatever it calls it."""
    for name in _REQUEST_IDS:
        if (value := head.get(name)) is not None:
            return value
    return None


def _timeouts(exchange: Exchange, candidate: Candidate) -> Timeouts:
    return (
        candidate.settings.timeouts
        or candidate.model.timeouts
        or exchange.settings.timeouts
    )


def _total(parsed: ParsedRequest, timeouts: Timeouts) -> float:
    return timeouts.stream_total if parsed.is_stream else timeouts.total


def target_of(candidate: Candidate) -> Target:
    """Return whom the candidate's dialect renders for."""
    settings, deviations = candidate.settings, candidate.provider.deviations
    return Target(
        provider=settings.type,
        model=settings.model,
        options=settings.options,
        renames=dict(deviations.renames),
        unsupported=deviations.unsupported,
        extra_body=settings.extra_body,
    )


def _open(
    exchange: Exchange,
    candidate: Candidate,
    request: HttpRequest,
    timeouts: Timeouts,
    first: float,
    total: float,
) -> Flow[UpstreamResponse]:
    gateway = exchange.gateway
    settings, provider = candidate.settings, candidate.provider
    key = key_of(candidate, exchange.parsed)
    if provider.responder is not None:
        try:
            reply = yield from provider.responder(
                request, settings, key, first, gateway.context
            )
        except OperationTimeout:
            raise UpstreamTimeout("first_content") from None
        return open_reply(reply)
    call = Call(
        request=_placed(candidate, request),
        headers=_headers(exchange, candidate, request),
        settings=settings,
        connect_deadline=min(first, gateway.context.now + timeouts.connect),
        head_deadline=first,
        total_deadline=total,
    )
    return (
        yield from open_upstream(
            call, gateway.pool, gateway.context, exchange.settings.limits
        )
    )


def _placed(candidate: Candidate, request: HttpRequest) -> HttpRequest:
    """Return the request with the path that this vendor uses for it."""
    path = candidate.provider.paths.get(request.path)
    if path is None:
        return request
    defaults, options = candidate.provider.defaults, candidate.settings.options
    path = path.format_map({**defaults, **options})
    return HttpRequest(
        method=request.method,
        path=path,
        headers=request.headers,
        body=request.body,
        is_stream=request.is_stream,
    )


def _headers(exchange: Exchange, candidate: Candidate, request: HttpRequest) -> Headers:
    """Return everything that goes upstream: built from scratch, nothing forwarded but
    the trace context."""
    settings = candidate.settings
    key = key_of(candidate, exchange.parsed)
    wall = exchange.gateway.wall_clock()
    headers = (
        *request.headers,
        ("accept-encoding", "identity"),
        ("user-agent", exchange.gateway.user_agent),
        *candidate.provider.authorize(request, key, wall),
        *exchange.trace_headers,
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


def _first_content(stream: OpenStream, deadline: float, phase: str) -> Flow[None]:
    """Read until there is content, or the stream ended without any."""
    decoder, events = stream.decoder, stream.events
    while True:
        data = yield from stream.response.read(deadline, phase)
        if data:
            decoder.receive_data(data)
        else:
            decoder.receive_eof()
        is_open = True
        while (event := decoder.next_event()) is not None:
            events.append(event)
            if type(event) is StreamPart:
                is_open = is_open and not event.has_content
            elif type(event) is StreamFailed and is_open:
                raise event.error
        if not is_open or not data or _is_done(events):
            return
        if len(events) > HELD_PARTS_LIMIT:
            raise UpstreamGarbled("the provider's stream has no content")


def _is_done(events: list[StreamEvent]) -> bool:
    return bool(events) and type(events[-1]) is StreamDone
