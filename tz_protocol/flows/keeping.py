"""What an exchange leaves behind: its record, and an answer that may serve again.

The one rule: an exchange leaves one record, whatever becomes of it: before its last
byte if the durability says so, else when it settles; and an answer in the cache only if
it was whole and the caller asked for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tz_protocol.dialects.openai_replay import chunks_of, members_of
from tz_protocol.operations import Flow
from tz_protocol.records.entry import Content, Entry, make_content, stricter
from tz_protocol.records.record import Outcome, Record, Stage
from tz_protocol.records.rows import CHAT_ROUTE, price_id
from tz_protocol.routing.cache import Answer
from tz_protocol.types.chat import ChatChunk
from tz_protocol.types.prices import cost_of
from tz_protocol.types.records import Capture
from tz_protocol.types.stream import StreamPart

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = ["Said", "capture_of", "keep", "leave"]


class Said:
    """What was said in one exchange, as far as somebody wants to keep it.

    Args:
        limit: Bytes of a stream that are held at most; 0: none are.
    """

    __slots__ = ("body", "is_kept", "key", "limit", "model", "size", "values")

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.values: list[Any] = []
        """The parts of the stream."""
        self.size = 0
        """Bytes of these, about; past the limit nothing is held."""
        self.body = b""
        """The whole answer as it went to the caller."""
        self.key: bytes | None = None
        """Where the answer is to be stored; None: it is not."""
        self.model = ""
        """Name of the model whose answer belongs there: no other one's does."""
        self.is_kept = False
        """True once the record has been handed over."""

    def hear(self, part: StreamPart) -> None:
        """Hold a part of the stream that is going out."""
        size, limit, value = self.size, self.limit, part.value
        if size > limit:
            return
        if type(value) is ChatChunk:
            size += len(value.data)
        else:
            data = getattr(value, "data", None) or getattr(value, "text", None)
            size += 100 if data is None else len(data)
        self.size = size
        if size > limit:
            self.values = []
        else:
            self.values.append(value)

    @property
    def is_whole(self) -> bool:
        """False if the stream was longer than is held."""
        return self.size <= self.limit


# -- before the last byte, and afterwards ---------------------------------------


def keep(exchange: Exchange, outcome: Outcome) -> Flow[None]:
    """Hand the record over before the last byte goes, if the durability says so.

    Args:
        exchange: Its record is complete but for how it ends.
        outcome: How it ends if the last byte arrives.
    """
    recorder = exchange.gateway.recorder
    if (
        recorder is None
        or recorder.settings.durability == "async"
        or exchange.record.is_dryrun
        or exchange.said.is_kept
    ):
        return
    record = msgspec.structs.replace(exchange.record)
    if record.outcome is None:
        record.outcome = outcome
    if record.outcome is Outcome.OK:
        record.stage = Stage.DONE
    record.duration = exchange.seconds()
    answered = exchange.answered
    if answered is not None and answered.record.ended is None:
        answered.record.ended = exchange.seconds()
    _price(exchange, record)
    exchange.said.is_kept = True
    yield from recorder.keep(_entry(exchange, record))


def leave(exchange: Exchange) -> None:
    """Hand the record over if nobody has, and the answer to the cache; never fails."""
    record, said = exchange.record, exchange.said
    _price(exchange, record)
    recorder = exchange.gateway.recorder
    if recorder is not None and not said.is_kept and not record.is_dryrun:
        said.is_kept = True
        recorder.offer(_entry(exchange, record))
    if said.key is not None and record.outcome is Outcome.OK:
        _store(exchange, said.key)


def _price(exchange: Exchange, record: Record) -> None:
    """Say what the answer cost, by which prices."""
    prices, usage = exchange.prices, record.usage
    if prices is not None and usage is not None and record.cache != "hit":
        record.cost = cost_of(prices, usage)
        record.price_id = price_id(prices)
        if record.cost is not None:
            record.cost += record.spent_cost
    elif record.cache == "hit" or record.provider is None:
        record.cost = record.spent_cost


def _store(exchange: Exchange, key: bytes) -> None:
    """Remember the answer."""
    record, said = exchange.record, exchange.said
    if record.model != said.model:
        return  # another model stood in, for as long as the one asked for is away
    members, chunks = b"", tuple[bytes, ...]()
    if exchange.is_relayed:
        if not said.is_whole or record.skipped_events:
            return
        chunks = chunks_of(said.values)
    else:
        members = members_of(said.body)
    if not members and not chunks:
        return
    answer = Answer(
        members=members,
        chunks=chunks,
        model=record.model or "",
        provider=record.provider or "",
        usage=record.usage,
        written=exchange.gateway.wall_clock(),
    )
    is_private = capture_of(exchange) != "full"
    exchange.gateway.cache.put(key, answer, is_private=is_private)


def capture_of(exchange: Exchange) -> Capture:
    """Return how much of the exchange's content may be kept."""
    records, wanted = exchange.settings.records, exchange.parsed.extensions.capture
    return stricter(records.capture, wanted)


def _entry(exchange: Exchange, record: Record) -> Entry:
    """Return what is written of the exchange."""
    is_chat = exchange.endpoint.route == CHAT_ROUTE
    if not is_chat or record.outcome is not Outcome.OK:
        return Entry(record=record)
    inference_id = exchange.gateway.new_id()
    return Entry(
        record=record, inference_id=inference_id, content=_content(exchange, record)
    )


def _content(exchange: Exchange, record: Record) -> Content | None:
    said, answered = exchange.said, exchange.answered
    capture = capture_of(exchange)
    if capture == "none":
        return None
    sent, answer = b"", b""
    received: bytes | list[bytes] = said.body
    if exchange.is_relayed:
        received = [*chunks_of(said.values)]
    elif answered is not None and record.cache != "hit":
        received = answered.received
        if answered.candidate.dialect is not exchange.endpoint.dialect:
            answer = said.body
    if answered is not None:
        sent = answered.sent
    content = make_content(
        capture,
        exchange.settings.records.content_bytes,
        members=exchange.parsed.fields,
        sent=sent,
        received=received,
        answer=answer,
    )
    if content is not None and exchange.is_relayed and not said.is_whole:
        content.cut = (*content.cut, "received")
    return content
