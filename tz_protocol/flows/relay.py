"""After the commit boundary: a provider's stream becomes the caller's.

The one rule: no provider is opened here. The stream ends in exactly one of complete,
in-band error and abort: never cleanly when it was cut, never with a terminator after
an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tz_protocol.dialects.base import Encoder
from tz_protocol.errors import (
    GatewayError,
    Interrupted,
    Overloaded,
    ProvidersExhausted,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamTimeout,
)
from tz_protocol.flows.attempt import Answered
from tz_protocol.flows.keeping import keep
from tz_protocol.flows.openstream import EventSource
from tz_protocol.machine import Shutdown
from tz_protocol.operations import AbortBody, Flow, SendBody
from tz_protocol.records.record import Outcome, Stage
from tz_protocol.routing.verdict import code_of
from tz_protocol.types.stream import StreamDone, StreamEvent, StreamFailed, StreamPart

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = ["PING", "STREAM_HEADERS", "fail", "relay"]

STREAM_HEADERS = (
    ("cache-control", "no-cache"),
    # Without it nginx, as shipped, holds events back.
    ("x-accel-buffering", "no"),
)

PING = b": ping\n\n"
"""A comment, which readers of server-sent events pass over (HTML, section 9.2.6)."""

_PAUSE = "pause"
"""Phase of a read that is only broken off to send a comment."""

_Encoded = tuple[bytes, StreamDone | StreamFailed | None]


def relay(
    exchange: Exchange, answered: Answered, encoder: Encoder
) -> Flow[UpstreamError | None]:
    """Send the stream of *answered* to the client until it ends, however it does.

    Returns:
        What broke the stream, so that the plan learns of it; None if it is complete.
    """
    stream = answered.stream
    if stream is None:
        return None
    record = exchange.record
    record.stage = Stage.RELAY
    events, stream.events = stream.events, []
    first = _encoded(exchange, events, encoder)
    # Only now does the encoder know what it sends: see Encoder.content_type.
    headers = (("content-type", encoder.content_type), *STREAM_HEADERS)
    yield from exchange.begin(200, (*headers, *exchange.facts()))
    try:
        failure = yield from _pump(exchange, answered, stream, encoder, first)
    except Interrupted as interrupt:
        if isinstance(interrupt.event, Shutdown):
            exchange.conclude(Outcome.SHUTDOWN)
            record.error = "gateway_shutdown"
            message = "The gateway is shutting down; the answer is not complete."
            goodbye = Overloaded(message, code="gateway_shutdown")
            yield from fail(exchange, encoder, b"", goodbye)
            return None
        raise
    if failure is not None:
        exchange.conclude(Outcome.PARTIAL)
    return failure


def _pump(
    exchange: Exchange,
    answered: Answered,
    stream: EventSource,
    encoder: Encoder,
    first: _Encoded,
) -> Flow[UpstreamError | None]:
    """Relay until the end; returns what broke the stream, None if it is complete."""
    context, record = exchange.gateway.context, exchange.record
    total = exchange.deadline
    data, end = first
    while True:
        if end is not None:
            if isinstance(end, StreamFailed):
                record.error = answered.record.error = code_of(end.error)
                yield from fail(exchange, encoder, data, _told(end.error))
                return end.error
            data += encoder.finish(record.usage)
            record.bytes_out += len(data)
            yield from keep(exchange, Outcome.OK)
            yield from SendBody(exchange.send_deadline(), data, end=True)
            exchange.conclude(Outcome.OK)
            return None
        if data:
            record.bytes_out += len(data)
            yield from SendBody(exchange.send_deadline(), data)
        deadline, phase = context.now + answered.timeouts.idle, "idle"
        if deadline >= total:
            deadline, phase = total, "total"
        if exchange.ping_after is None:
            events = yield from stream.receive(deadline, phase)
        else:
            events = yield from _pinged(exchange, stream, deadline, phase)
        data, end = _encoded(exchange, events, encoder)


def _pinged(
    exchange: Exchange, stream: EventSource, deadline: float, phase: str
) -> Flow[list[StreamEvent]]:
    """Receive, with a comment to the client whenever nothing came for a while."""
    context = exchange.gateway.context
    while True:
        ping_at = context.now + (exchange.ping_after or 0.0)
        if ping_at >= deadline or stream.is_finished:
            return (yield from stream.receive(deadline, phase))
        events = yield from stream.receive(ping_at, _PAUSE)
        if not (len(events) == 1 and _is_pause(events[0])):
            return events
        exchange.record.bytes_out += len(PING)
        yield from SendBody(exchange.send_deadline(), PING)


def _is_pause(event: StreamEvent) -> bool:
    return (
        type(event) is StreamFailed
        and isinstance(event.error, UpstreamTimeout)
        and event.error.phase == _PAUSE
    )


def _encoded(
    exchange: Exchange, events: list[StreamEvent], encoder: Encoder
) -> _Encoded:
    """Return the client's bytes for *events*, and the end if it is among them."""
    record, said = exchange.record, exchange.said
    out: list[bytes] = []
    end: StreamDone | StreamFailed | None = None
    for event in events:
        if type(event) is StreamPart:
            if event.usage is not None:
                record.usage = event.usage
            if said.limit:
                said.hear(event)
            out.append(encoder.encode(event))
        elif isinstance(event, (StreamDone, StreamFailed)):
            end = event
            break
        else:
            record.skipped_events += 1
    return (out[0] if len(out) == 1 else b"".join(out)), end


def _told(error: UpstreamError) -> GatewayError:
    """Return the in-band error for a stream that broke after the first content."""
    if isinstance(error, UpstreamRefused):
        return GatewayError(
            error.message,
            code=error.code or "upstream_error",
            kind=error.kind or "server_error",
            param=error.param,
        )
    if isinstance(error, UpstreamTimeout):
        message = f"The provider stopped sending ({error.phase} timeout)."
        return GatewayError(message, code="upstream_timeout", kind="timeout_error")
    if isinstance(error, UpstreamGarbled):
        message = f"The provider's stream could not be read: {error.message}."
        return ProvidersExhausted(message, code=error.code)
    message = "The provider's stream was cut off; the answer is not complete."
    return ProvidersExhausted(message, code="upstream_stream_interrupted")


def fail(
    exchange: Exchange, encoder: Encoder, data: bytes, error: GatewayError
) -> Flow[None]:
    """Send what there is and the in-band error, or break the body off."""
    last_words = encoder.fail(error)
    deadline = exchange.goodbye_deadline()
    if last_words is None:
        if data:
            exchange.record.bytes_out += len(data)
            yield from SendBody(deadline, data)
        yield from AbortBody(deadline)
        return
    data += last_words
    exchange.record.bytes_out += len(data)
    yield from keep(exchange, Outcome.PARTIAL)
    yield from SendBody(exchange.goodbye_deadline(), data, end=True)
