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
    UpstreamBroken,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamTimeout,
)
from tz_protocol.flows.attempt import Answered, OpenStream
from tz_protocol.machine import Shutdown
from tz_protocol.operations import AbortBody, Flow, SendBody
from tz_protocol.records.record import Outcome, Record, Stage
from tz_protocol.routing.verdict import code_of
from tz_protocol.types.stream import StreamDone, StreamEvent, StreamFailed, StreamPart

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = ["relay"]

_STREAM_HEADERS = (
    ("cache-control", "no-cache"),
    # Without it nginx, as shipped, holds events back.
    ("x-accel-buffering", "no"),
)


_Encoded = tuple[bytes, StreamDone | StreamFailed | None]


def relay(exchange: Exchange, answered: Answered, encoder: Encoder) -> Flow[None]:
    """Send the stream of *answered* to the client until it ends, however it does."""
    stream = answered.stream
    if stream is None:
        return
    record = exchange.record
    record.stage = Stage.RELAY
    events, stream.events = stream.events, []
    first = _encoded(record, events, encoder)
    # Only now does the encoder know what it sends: see Encoder.content_type.
    headers = (("content-type", encoder.content_type), *_STREAM_HEADERS)
    yield from exchange.begin(200, (*headers, *exchange.facts(answered)))
    try:
        failure = yield from _pump(exchange, answered, stream, encoder, first)
    except Interrupted as interrupt:
        if isinstance(interrupt.event, Shutdown):
            exchange.conclude(Outcome.SHUTDOWN)
            record.error = "gateway_shutdown"
            message = "The gateway is shutting down; the answer is not complete."
            goodbye = Overloaded(message, code="gateway_shutdown")
            yield from _fail(exchange, encoder, b"", goodbye)
            return
        raise
    if failure is not None:
        answered.record.error = code_of(failure)
        record.error = answered.record.error
        exchange.conclude(Outcome.PARTIAL)


def _pump(
    exchange: Exchange,
    answered: Answered,
    stream: OpenStream,
    encoder: Encoder,
    first: _Encoded,
) -> Flow[UpstreamError | None]:
    """Relay until the end; returns what broke the stream, None if it is complete."""
    context, record = exchange.gateway.context, exchange.record
    total = exchange.deadline
    idle = answered.timeouts.idle
    data, end = first
    while True:
        if end is not None:
            if isinstance(end, StreamFailed):
                yield from _fail(exchange, encoder, data, _told(end.error))
                return end.error
            data += encoder.finish(record.usage)
            record.bytes_out += len(data)
            yield from SendBody(total, data, end=True)
            exchange.conclude(Outcome.OK)
            return None
        if data:
            record.bytes_out += len(data)
            yield from SendBody(total, data)
        events = yield from _next_events(stream, context.now, idle, total)
        data, end = _encoded(record, events, encoder)


def _encoded(record: Record, events: list[StreamEvent], encoder: Encoder) -> _Encoded:
    """Return the client's bytes for *events*, and the end if it is among them."""
    out: list[bytes] = []
    end: StreamDone | StreamFailed | None = None
    for event in events:
        if type(event) is StreamPart:
            if event.usage is not None:
                record.usage = event.usage
            out.append(encoder.encode(event))
        elif isinstance(event, (StreamDone, StreamFailed)):
            end = event
            break
        else:
            record.skipped_events += 1
    return (out[0] if len(out) == 1 else b"".join(out)), end


def _next_events(
    stream: OpenStream, now: float, idle: float, total: float
) -> Flow[list[StreamEvent]]:
    """Read once and return what it decodes to, perhaps nothing; errors are events."""
    deadline = now + idle
    phase = "idle"
    if deadline >= total:
        deadline, phase = total, "total"
    decoder = stream.decoder
    try:
        data = yield from stream.response.read(deadline, phase)
    except UpstreamError as error:
        return [StreamFailed(error)]
    if data:
        decoder.receive_data(data)
    else:
        decoder.receive_eof()
    events = []
    while (event := decoder.next_event()) is not None:
        events.append(event)
    if not data and not events:
        # A decoder that says nothing at the end would make us read for ever.
        events.append(StreamFailed(UpstreamBroken("cut")))
    return events


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


def _fail(
    exchange: Exchange, encoder: Encoder, data: bytes, error: GatewayError
) -> Flow[None]:
    """Send what there is and the in-band error, or break the body off."""
    last_words = encoder.fail(error)
    deadline = exchange.goodbye_deadline()
    if last_words is None:
        if data:
            yield from SendBody(deadline, data)
        yield from AbortBody(deadline)
        return
    data += last_words
    exchange.record.bytes_out += len(data)
    yield from SendBody(deadline, data, end=True)
