"""Anthropic's stream -> deltas.

The one rule: blocks are the vendor's, numbers are ours: it numbers all blocks through,
callers count tool calls and thoughts from 0. A block is complete at its stop, the
answer at ``message_stop``; what usage says last counts, for it is the sum so far.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.dialects.anthropic_answer import (
    AROUND,
    AnthropicUsage,
    StopDetails,
    finish_of,
    read_citation,
    tier_of,
    usage_of,
)
from tz_protocol.dialects.anthropic_errors import error_of
from tz_protocol.dialects.anthropic_messages import FORMAT, ORIGIN
from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.deltas import content, finished, lifecycle
from tz_protocol.dialects.ids import CallIds
from tz_protocol.errors import UpstreamBroken, UpstreamGarbled
from tz_protocol.types.conversation import (
    ArgumentsDelta,
    CitationDelta,
    Opaque,
    OpaqueDelta,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallStarted,
)
from tz_protocol.types.stream import (
    StreamDone,
    StreamEvent,
    StreamFailed,
    StreamSkipped,
)
from tz_protocol.wire.json import without_nulls
from tz_protocol.wire.sse import SseEvent

__all__ = ["AnthropicReader"]

Out = deque[StreamEvent]


class _Message(msgspec.Struct):
    id: str = ""
    model: str = ""
    usage: AnthropicUsage | None = None


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    input: Raw | UnsetType = UNSET


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str = ""
    citation: Raw | UnsetType = UNSET
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: Raw | UnsetType = UNSET
    delta: _Delta | None = None
    usage: AnthropicUsage | None = None


_EVENT = msgspec.json.Decoder(_Event)
_BLOCK = msgspec.json.Decoder(_Block)


class _Open:
    """A block that has started and not stopped."""

    __slots__ = ("citations", "kind", "number", "pieces", "seal", "start", "value")

    def __init__(self, kind: str, number: int = 0) -> None:
        self.kind = kind
        """``text``, ``thinking``, ``call``, ``answer`` or ``opaque``."""
        self.number = number
        """Among the calls or the thoughts."""
        self.pieces: list[str] = []
        self.start = 0
        """Characters of the answer before this text."""
        self.seal = ""
        self.citations: list[Raw] = []
        self.value: Any = None
        """The vendor's block, for what is kept unread; its input, for a call."""


class AnthropicReader:
    """Reads the events of one stream (``streaming.Reader``)."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._id = ""
        self._calls = 0
        self._ids = CallIds()
        self._thoughts = 0
        self._length = 0
        """Characters of text so far."""
        self._start_usage: AnthropicUsage | None = None
        self._usage: list[AnthropicUsage] = []
        self._reason: str | None = None
        self._has_reason = False

    def read(self, event: SseEvent, out: Out) -> None:
        """Append what *event* stands for."""
        data = event.data
        try:
            value = _event_of(data)
        except msgspec.ValidationError:
            out.append(StreamSkipped("an event has members of unknown types"))
            return
        except (msgspec.DecodeError, RecursionError):
            if data.startswith(b"[DONE]"):
                # The vendor never says so; servers that imitate it do.
                self.end(out)
            else:
                out.append(StreamFailed(UpstreamGarbled("an event is not JSON")))
            return
        reader = _EVENTS.get(value.type)
        if reader is None:
            out.append(StreamSkipped("an event is of an unknown type"))
        else:
            reader(self, value, data, out)

    def end(self, out: Out) -> None:
        """Append what the end of the bytes stands for."""
        if self._has_reason:
            self._finish(out)
        else:
            out.append(StreamFailed(UpstreamBroken("cut")))

    # -- the answer ---------------------------------------------------------------

    def _message_start(self, event: _Event, data: bytes, out: Out) -> None:
        if self._length or self._calls or self._thoughts:
            # A server-side fallback that begins anew: what was said cannot be unsaid,
            # and two answers in one are none.
            fault = UpstreamGarbled("a second message began within the answer")
            out.append(StreamFailed(fault))
            return
        message = event.message or _Message()
        if message.usage is not None:
            self._usage.append(message.usage)
        self._id = message.id
        started = Started(
            id=message.id, model=message.model, service_tier=tier_of(message.usage)
        )
        out.append(lifecycle(started, usage_of(*self._usage)))

    def _message_delta(self, event: _Event, data: bytes, out: Out) -> None:
        if event.usage is not None:
            self._usage.append(event.usage)
        delta = event.delta
        if delta is None or delta.stop_reason is None:
            return
        self._reason, self._has_reason = delta.stop_reason, True
        details = delta.stop_details
        if details is not None and details.explanation:
            out.append(content(RefusalDelta(details.explanation)))

    def _message_stop(self, event: _Event, data: bytes, out: Out) -> None:
        self._finish(out)

    def _finish(self, out: Out) -> None:
        for index in sorted(self._open):
            self._close(self._open.pop(index), out)
        end = finish_of(self._reason, has_calls=self._calls > 0)
        out.append(finished(end, usage_of(*self._usage)))
        out.append(StreamDone())

    def _ping(self, event: _Event, data: bytes, out: Out) -> None:
        """Nothing: it only keeps the connection alive."""

    def _error(self, event: _Event, data: bytes, out: Out) -> None:
        out.append(StreamFailed(error_of(data)))

    # -- blocks -------------------------------------------------------------------

    def _block_start(self, event: _Event, data: bytes, out: Out) -> None:
        if (unclosed := self._open.pop(event.index, None)) is not None:
            self._close(unclosed, out)
        raw = Raw(b"{}") if event.content_block is UNSET else event.content_block
        block = _block_of(raw)
        kind = block.type
        if kind == "text":
            opened = _Open("text")
            opened.start = self._length
            if block.text:
                self._add_text(block.text, out)
        elif kind == "thinking":
            opened = _Open("thinking", self._thoughts)
            self._thoughts += 1
            opened.seal = block.signature
            if block.thinking:
                opened.pieces.append(block.thinking)
                out.append(content(ReasoningDelta(block.thinking, opened.number)))
        elif kind == "redacted_thinking":
            opened = _Open("thinking", self._thoughts)
            self._thoughts += 1
            sealed = ReasoningSealed(
                index=opened.number, data=block.data, format=FORMAT
            )
            # Callers hand it back and do not see it.
            out.append(lifecycle(sealed))
        elif kind == "tool_use":
            opened = self._start_call(block, out)
        else:
            opened = _Open("opaque")
            opened.value = _decoded(raw)
        self._open[event.index] = opened

    def _start_call(self, block: _Block, out: Out) -> _Open:
        if block.name == ANSWER_TOOL:
            opened = _Open("answer")
        else:
            opened = _Open("call", self._calls)
            self._calls += 1
            call_id = self._ids.own(block.id, self._id, 0, opened.number, block.name)
            started = ToolCallStarted(index=opened.number, id=call_id, name=block.name)
            out.append(content(started))
        # Servers that do not stream arguments give them here, whole.
        opened.value = "{}" if block.input is UNSET else bytes(block.input).decode()
        return opened

    def _block_delta(self, event: _Event, data: bytes, out: Out) -> None:
        opened, delta = self._open.get(event.index), event.delta
        if opened is None or delta is None:
            out.append(StreamSkipped("a delta belongs to no block"))
            return
        kind = opened.kind
        if kind == "text":
            if delta.text:
                self._add_text(delta.text, out)
            elif delta.citation is not UNSET:
                opened.citations.append(delta.citation.copy())
        elif kind == "call":
            if delta.partial_json:
                opened.pieces.append(delta.partial_json)
                arguments = ArgumentsDelta(opened.number, delta.partial_json)
                out.append(content(arguments))
        elif kind == "thinking":
            if delta.thinking:
                opened.pieces.append(delta.thinking)
                out.append(content(ReasoningDelta(delta.thinking, opened.number)))
            opened.seal += delta.signature
        elif kind == "answer":
            if delta.partial_json:
                opened.pieces.append(delta.partial_json)
                self._add_text(delta.partial_json, out)
        elif delta.type == "input_json_delta":
            opened.pieces.append(delta.partial_json)
        else:
            _merge(opened.value, _decoded(data).get("delta"))

    def _add_text(self, text: str, out: Out) -> None:
        self._length += len(text)
        out.append(content(TextDelta(text)))

    def _block_stop(self, event: _Event, data: bytes, out: Out) -> None:
        opened = self._open.pop(event.index, None)
        if opened is None:
            out.append(StreamSkipped("a block stops that never started"))
        else:
            self._close(opened, out)

    def _close(self, opened: _Open, out: Out) -> None:
        kind = opened.kind
        if kind == "text":
            for raw in opened.citations:
                citation = read_citation(raw, opened.start, self._length)
                out.append(content(CitationDelta(citation)))
        elif kind == "thinking":
            if opened.seal:
                sealed = ReasoningSealed(
                    index=opened.number,
                    text="".join(opened.pieces),
                    signature=opened.seal,
                    format=FORMAT,
                )
                out.append(lifecycle(sealed))
        elif kind == "call":
            if not opened.pieces:
                out.append(content(ArgumentsDelta(opened.number, opened.value)))
        elif kind == "answer":
            if not opened.pieces:
                self._add_text(opened.value, out)
        else:
            value = opened.value
            if opened.pieces and (text := "".join(opened.pieces).strip()):
                value["input"] = _input(text)
            raw = Raw(msgspec.json.encode(value))
            block = Opaque(ORIGIN, str(value.get("type", "")), raw)
            out.append(content(OpaqueDelta(block)))


_INPUT = frozenset({"input"})
"""The member in which a null is the model's."""


def _event_of(data: bytes) -> _Event:
    try:
        return _EVENT.decode(data)
    except msgspec.ValidationError:
        pass
    try:
        return _EVENT.decode(without_nulls(data, _INPUT))
    except msgspec.ValidationError:
        return _EVENT.decode(without_nulls(data, _INPUT, AROUND))


def _block_of(raw: Raw) -> _Block:
    try:
        return _BLOCK.decode(raw)
    except msgspec.DecodeError:
        raw = Raw(without_nulls(raw, _INPUT))
    try:
        return _BLOCK.decode(raw)
    except msgspec.DecodeError:
        return _Block()


def _decoded(raw: Raw | bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if type(value) is dict else {}


def _input(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        # Cut off by the limit of tokens: kept as the text that it is.
        return text


def _merge(block: dict[str, Any], delta: Any) -> None:
    """Add an unknown delta to a block that is kept unread."""
    if type(delta) is not dict:
        return
    for name, value in delta.items():
        if name == "type":
            continue
        old = block.get(name)
        both_text = type(old) is str and type(value) is str
        block[name] = f"{old}{value}" if both_text else value


_EVENTS: dict[str, Callable[[AnthropicReader, _Event, bytes, Out], None]] = {
    "message_start": AnthropicReader._message_start,
    "content_block_start": AnthropicReader._block_start,
    "content_block_delta": AnthropicReader._block_delta,
    "content_block_stop": AnthropicReader._block_stop,
    "message_delta": AnthropicReader._message_delta,
    "message_stop": AnthropicReader._message_stop,
    "ping": AnthropicReader._ping,
    "error": AnthropicReader._error,
}
