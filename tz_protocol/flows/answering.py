"""Answers from the cache, in the place of a provider's.

The one rule: this is the step between admission and routing. What is found is given in
the form that is asked for, as if it had been made now, but for its cost; what is not
found changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tz_protocol.dialects.base import Encoder
from tz_protocol.dialects.openai_chat_converted import AnyChatEncoder
from tz_protocol.dialects.openai_completion import usage_chunk
from tz_protocol.dialects.openai_replay import NOTHING_USED, parts_of, whole_of
from tz_protocol.errors import Overloaded
from tz_protocol.flows.keeping import capture_of, keep
from tz_protocol.flows.relay import STREAM_HEADERS
from tz_protocol.operations import Flow, SendBody
from tz_protocol.records.record import Outcome, Stage
from tz_protocol.records.rows import CHAT_ROUTE
from tz_protocol.routing.cache import Answer, cache_key, tenant_of
from tz_protocol.types.http import Headers, ResponseHead
from tz_protocol.types.records import CacheOptions
from tz_protocol.types.settings import Model
from tz_protocol.types.stream import StreamPart

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange
    from tz_protocol.gateway import Gateway

__all__ = ["answer_again", "require_room"]

_OFF = CacheOptions()


def require_room(gateway: Gateway) -> None:
    """Check that a record could be kept, where none is served without.

    Raises:
        Overloaded: It could not.
    """
    recorder = gateway.recorder
    if recorder is not None and recorder.rejects_requests:
        message = "The gateway cannot keep records at the moment. Try again later."
        raise Overloaded(message, code="records_unavailable", retry_after=5.0)


def answer_again(exchange: Exchange, model: Model) -> Flow[bool]:
    """Answer from the cache if that was asked for and there is one; say whether."""
    said, record = exchange.said, exchange.record
    records = exchange.settings.records
    is_chat = exchange.endpoint.route == CHAT_ROUTE
    is_recorded = is_chat and exchange.gateway.recorder is not None
    if is_recorded and capture_of(exchange) != "none":
        said.limit = records.content_bytes
    options = _options(exchange)
    if options is _OFF:
        return False
    settings = exchange.settings.cache
    tenant = "everybody"
    if settings.scope == "tenant":
        tenant = tenant_of(exchange.principal, record.project_id)
    key = cache_key(exchange.parsed, exchange.endpoint.route, model, tenant)
    if key is None:
        return False
    if options.reads:
        record.stage = Stage.CACHE
        record.cache = "miss"
        answer = yield from exchange.gateway.cache.look_up(key, options)
        if answer is not None and (yield from _serve(exchange, model.name, answer)):
            return True
    if options.writes:
        said.key, said.model = key, model.name
        said.limit = max(said.limit, settings.entry_bytes)
    return False


def _options(exchange: Exchange) -> CacheOptions:
    extensions = exchange.parsed.extensions
    options = extensions.cache_options
    if (
        options.enabled == "off"
        or not exchange.endpoint.cacheable
        or not exchange.settings.cache.is_enabled
    ):
        return _OFF
    if extensions.dryrun:
        # A rehearsal leaves nothing behind, and may look.
        enabled = "read_only" if options.reads else "off"
        options = msgspec.structs.replace(options, enabled=enabled)
    return options if options.reads or options.writes else _OFF


def _serve(exchange: Exchange, model: str, answer: Answer) -> Flow[bool]:
    """Give *answer* in the form that is asked for; False if it has none of that.

    The model is named as this caller's key names it, whoever asked first.
    """
    record, said, dialect = exchange.record, exchange.said, exchange.endpoint.dialect
    is_stream = exchange.parsed.is_stream
    headers: Headers
    if is_stream:
        encoder = exchange.encoder(model)
        body = _stream_of(encoder, answer)
        if not body:
            return False
        if said.limit:
            parts = parts_of(answer.members, answer.chunks)
            said.values = [part.value for part in parts]
        headers = (("content-type", encoder.content_type), *STREAM_HEADERS)
    else:
        response = whole_of(answer.members, answer.chunks)
        head, body = dialect.render_response(
            exchange.parsed, response, exchange.identity(model)
        )
        headers = head.headers
    said.body = body
    record.model, record.provider = model, answer.provider
    record.usage, record.cache = answer.usage, "hit"
    record.first_content = exchange.seconds()
    exchange.release_body()
    headers = (*headers, *exchange.facts())
    if is_stream:
        yield from exchange.begin(200, headers)
        record.bytes_out += len(body)
        yield from keep(exchange, Outcome.OK)
        yield from SendBody(exchange.send_deadline(), body, end=True)
    else:
        yield from exchange.send_whole(ResponseHead(200, headers), body, Outcome.OK)
    exchange.conclude(Outcome.OK)
    return True


def _stream_of(encoder: Encoder, answer: Answer) -> bytes:
    """Return the whole stream, empty if *answer* is no chat completion."""
    if answer.chunks and isinstance(encoder, AnyChatEncoder):
        body = encoder.encode_kept(answer.chunks)
        body += encoder.encode(
            StreamPart(usage_chunk(NOTHING_USED), False, NOTHING_USED)
        )
    else:
        parts = parts_of(answer.members, answer.chunks)
        if not parts:
            return b""
        body = b"".join([encoder.encode(part) for part in parts])
    return body + encoder.finish(NOTHING_USED)
