"""What an attempt does at its candidate: one call, or several as if they were.

The one rule: a call is what is sent and the answer to it, with its head judged: what
comes out is open and good, or an ``UpstreamError`` that says what the provider meant.
What is sent is built here from scratch. When there must be content, and what follows
a failure, is ``attempt``'s and ``trying``'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from tz_protocol.errors import (
    OperationTimeout,
    UpstreamError,
    UpstreamGarbled,
    UpstreamTimeout,
)
from tz_protocol.flows.choices import Choices, Whole
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
from tz_protocol.routing.redaction import Redaction
from tz_protocol.types.http import Headers, HttpRequest, ResponseHead
from tz_protocol.types.policy import StreamPolicy
from tz_protocol.types.settings import Timeouts

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = ["Calls", "headers_of", "placed"]

ERROR_BODY_LIMIT = 65_536
"""Bytes of a provider's error body that are read; vendors' own stay under 10 KiB."""

_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
"""OpenAI's and most others', Anthropic's, AWS's, Azure's."""


@dataclass(slots=True)
class Calls:
    """The calls of one attempt: ask :meth:`whole` or :meth:`stream`, once."""

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
        exchange = self.exchange
        response = yield from self._send(request, note)
        try:
            note.is_reused = response.is_reused
            note.status = status = response.head.status
            note.request_id = _request_id(response.head)
            note.head = exchange.seconds()
            if not 200 <= status < 300:
                yield from _refused(self.candidate, response, self.first)
        except BaseException:
            response.close()
            raise
        exchange.record.stage = Stage.FIRST_CONTENT
        return response

    def _send(
        self, request: HttpRequest, note: AttemptRecord | CallRecord
    ) -> Flow[UpstreamResponse]:
        exchange, candidate = self.exchange, self.candidate
        gateway, context = exchange.gateway, exchange.gateway.context
        settings, responder = candidate.settings, candidate.provider.responder
        key = key_of(candidate, exchange.parsed)
        if responder is not None:
            try:
                reply = yield from responder(
                    request, settings, key, self.first, context
                )
            except OperationTimeout:
                raise UpstreamTimeout("first_content") from None
            return open_reply(reply)
        connect = min(self.first, context.now + self.timeouts.connect)
        request = placed(candidate, request)
        proof = yield from prove(gateway, candidate, request, key, connect)
        self.redaction.add(proof.secrets)

        def connected(moment: float | None) -> None:
            began = exchange.record.started
            note.connected = None if moment is None else moment - began

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
            head_deadline=self.first,
            total_deadline=self.total,
            on_connected=connected,
        )
        response = yield from open_upstream(
            call, gateway.pool, context, exchange.settings.limits
        )
        if response.head.status == 401:
            proof.refused()
        return response

    def _choices(self, request: HttpRequest, record: AttemptRecord) -> Choices:
        exchange = self.exchange
        context, began = exchange.gateway.context, exchange.record.started
        join = self.candidate.dialect.join
        return Choices(request, record, self.open, context, began, join)

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
