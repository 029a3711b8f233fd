"""ConverseStream's events -> deltas.

The one rule: blocks are the vendor's, numbers are ours: it numbers all blocks through,
callers count tool calls and thoughts from 0. Only some kinds of block have a start of
their own, texts and thoughts begin with their first delta. The answer is complete at
``messageStop``, the stream at ``metadata`` after it, which holds the usage.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/
API_runtime_ConverseStreamOutput.html.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.bedrock_answer import (
    CLAUDE_FORMAT,
    ORIGIN,
    BedrockUsage,
    ServiceTier,
    finish_of,
    read_citation,
    redacted_of,
    usage_of,
)
from tz_protocol.dialects.bedrock_errors import error_in_stream
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
from tz_protocol.wire.eventstream import EventMessage

__all__ = ["BedrockReader"]

Out = deque[StreamEvent]


class _ToolUse(msgspec.Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    type: str = ""


class _Start(msgspec.Struct, rename="camel"):
    tool_use: _ToolUse | None = None


class _BlockStart(msgspec.Struct, rename="camel"):
    content_block_index: int = 0
    start: Raw = Raw(b"{}")


class _Input(msgspec.Struct):
    input: str = ""


class _Reasoning(msgspec.Struct, rename="camel"):
    text: str = ""
    signature: str = ""
    redacted_content: str = ""


class _Delta(msgspec.Struct, rename="camel"):
    text: str = ""
    tool_use: _Input | None = None
    reasoning_content: _Reasoning | None = None
    citation: Raw | UnsetType = UNSET


class _BlockDelta(msgspec.Struct, rename="camel"):
    content_block_index: int = 0
    delta: _Delta | None = None


class _UnknownDelta(msgspec.Struct, rename="camel"):
    delta: dict[str, Any] = {}


class _BlockStop(msgspec.Struct, rename="camel"):
    content_block_index: int = 0


class _MessageStop(msgspec.Struct, rename="camel"):
    stop_reason: str | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    usage: BedrockUsage | None = None
    service_tier: ServiceTier | None = None


_START = msgspec.json.Decoder(_Start)
_BLOCK_START = msgspec.json.Decoder(_BlockStart)
_BLOCK_DELTA = msgspec.json.Decoder(_BlockDelta)
_UNKNOWN_DELTA = msgspec.json.Decoder(_UnknownDelta)
_BLOCK_STOP = msgspec.json.Decoder(_BlockStop)
_MESSAGE_STOP = msgspec.json.Decoder(_MessageStop)
_METADATA = msgspec.json.Decoder(_Metadata)
_OBJECT = msgspec.json.Decoder(dict[str, dict[str, Any]])


class _Open:
    """A block that has begun and not stopped."""

    __slots__ = ("citations", "kind", "number", "pieces", "redacted", "seal", "start")

    def __init__(self, kind: str, number: int = 0) -> None:
        self.kind = kind
        """``text``, ``thinking``, ``call``, ``answer`` or the vendor's own word."""
        self.number = number
        """Among the calls or the thoughts."""
        self.pieces: list[Any] = []
        """Of a thought or of arguments; of an unknown block, its deltas."""
        self.start: Any = 0
        """Characters of the answer before this text; an unknown block's start."""
        self.seal = ""
        self.redacted: list[str] = []
        self.citations: list[Raw] = []


class BedrockReader:
    """Reads the messages of one stream (``streaming.Reader``).

    Args:
        request_id: The vendor's id of the answer, which no event repeats.
    """

    def __init__(self, request_id: str) -> None:
        self._id = request_id
        self._is_started = False
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._ids = CallIds()
        self._thoughts = 0
        self._length = 0
        """Characters of text so far."""
        self._usage: BedrockUsage | None = None
        self._reason: str | None = None
        self._has_reason = False
        self._has_metadata = False

    def read(self, event: EventMessage, out: Out) -> None:
        """Append what *event* stands for."""
        headers = event.headers
        kind = headers.get(":message-type")
        if kind != "event":
            if kind in ("exception", "error"):
                out.append(StreamFailed(error_in_stream(event)))
            else:
                out.append(StreamSkipped("a message is of an unknown type"))
            return
        name = headers.get(":event-type")
        reader = _EVENTS.get(name) if type(name) is str else None
        if reader is None:
            out.append(StreamSkipped("an event is of an unknown type"))
            return
        try:
            reader(self, event.payload, out)
        except msgspec.ValidationError:
            out.append(StreamSkipped("an event has members of unknown types"))
        except (msgspec.DecodeError, RecursionError):
            out.append(StreamFailed(UpstreamGarbled("an event is not JSON")))

    def end(self, out: Out) -> None:
        """Append what the end of the bytes stands for."""
        if self._has_reason:
            self._finish(out)
        else:
            out.append(StreamFailed(UpstreamBroken("cut")))

    # -- the answer ---------------------------------------------------------------

    def _start(self, out: Out) -> None:
        self._is_started = True
        out.append(lifecycle(Started(id=self._id)))

    def _message_start(self, payload: bytes, out: Out) -> None:
        if not self._is_started:
            self._start(out)

    def _message_stop(self, payload: bytes, out: Out) -> None:
        self._reason = _MESSAGE_STOP.decode(payload).stop_reason
        self._has_reason = True
        if self._has_metadata:
            self._finish(out)

    def _metadata(self, payload: bytes, out: Out) -> None:
        with contextlib.suppress(msgspec.ValidationError):
            self._usage = _METADATA.decode(payload).usage
        self._has_metadata = True
        if self._has_reason:
            self._finish(out)

    def _finish(self, out: Out) -> None:
        if not self._is_started:
            self._start(out)
        for index in sorted(self._open):
            self._close(self._open.pop(index), out)
        end = finish_of(self._reason, has_calls=self._calls > 0)
        out.append(finished(end, usage_of(self._usage)))
        out.append(StreamDone())

    # -- blocks -------------------------------------------------------------------

    def _block_start(self, payload: bytes, out: Out) -> None:
        event = _BLOCK_START.decode(payload)
        use = _START.decode(event.start).tool_use
        if not self._is_started:
            self._start(out)
        if (unclosed := self._open.pop(event.content_block_index, None)) is not None:
            self._close(unclosed, out)
        if use is None:
            value = _OBJECT.decode(event.start)
            if not value:
                # Some servers announce texts as well.
                return
            opened = _Open(next(iter(value)))
            opened.start = value
        elif use.type == "server_tool_use":
            opened = _Open("toolUse")
            opened.start = _OBJECT.decode(event.start)
        elif use.name == ANSWER_TOOL:
            opened = _Open("answer")
        else:
            opened = _Open("call", self._calls)
            self._calls += 1
            number = opened.number
            call_id = self._ids.own(use.tool_use_id, self._id, 0, number, use.name)
            call = ToolCallStarted(index=number, id=call_id, name=use.name)
            out.append(content(call))
        self._open[event.content_block_index] = opened

    def _block_delta(self, payload: bytes, out: Out) -> None:
        event = _BLOCK_DELTA.decode(payload)
        delta = event.delta
        if delta is None:
            return
        if not self._is_started:
            self._start(out)
        opened = self._open.get(event.content_block_index)
        if opened is None:
            opened = self._begin(delta)
            self._open[event.content_block_index] = opened
        _DELTAS.get(opened.kind, BedrockReader._add_unknown)(
            self, opened, delta, payload, out
        )

    def _begin(self, delta: _Delta) -> _Open:
        """Return the block that begins with its first delta."""
        if delta.reasoning_content is not None:
            opened = _Open("thinking", self._thoughts)
            self._thoughts += 1
        elif delta.text or delta.citation is not UNSET or delta.tool_use is None:
            opened = _Open("text")
            opened.start = self._length
        else:
            # Arguments of a call that was never announced.
            opened = _Open("toolUse")
            opened.start = {}
        return opened

    def _add_text(self, opened: _Open, delta: _Delta, payload: bytes, out: Out) -> None:
        if delta.text:
            self._say(delta.text, out)
        elif delta.citation is not UNSET:
            opened.citations.append(delta.citation.copy())
        elif delta.reasoning_content is None and delta.tool_use is None:
            # A kind of delta that is not known, or an empty text.
            return
        else:
            out.append(StreamSkipped("a delta is not of its block's kind"))

    def _say(self, text: str, out: Out) -> None:
        self._length += len(text)
        out.append(content(TextDelta(text)))

    def _add_thought(
        self, opened: _Open, delta: _Delta, payload: bytes, out: Out
    ) -> None:
        thought = delta.reasoning_content
        if thought is None:
            out.append(StreamSkipped("a delta is not of its block's kind"))
            return
        if thought.text:
            opened.pieces.append(thought.text)
            out.append(content(ReasoningDelta(thought.text, opened.number)))
        opened.seal += thought.signature
        if thought.redacted_content:
            opened.redacted.append(thought.redacted_content)

    def _add_arguments(
        self, opened: _Open, delta: _Delta, payload: bytes, out: Out
    ) -> None:
        if delta.tool_use is None:
            out.append(StreamSkipped("a delta is not of its block's kind"))
        elif text := delta.tool_use.input:
            opened.pieces.append(text)
            if opened.kind == "call":
                out.append(content(ArgumentsDelta(opened.number, text)))
            else:
                self._say(text, out)

    def _add_unknown(
        self, opened: _Open, delta: _Delta, payload: bytes, out: Out
    ) -> None:
        opened.pieces.append(_UNKNOWN_DELTA.decode(payload).delta)

    def _block_stop(self, payload: bytes, out: Out) -> None:
        opened = self._open.pop(_BLOCK_STOP.decode(payload).content_block_index, None)
        if opened is not None:
            self._close(opened, out)

    def _close(self, opened: _Open, out: Out) -> None:
        kind = opened.kind
        if kind == "text":
            for raw in opened.citations:
                citation = read_citation(raw, opened.start, self._length)
                out.append(content(CitationDelta(citation)))
        elif kind == "thinking":
            self._seal(opened, out)
        elif kind == "call":
            if not opened.pieces:
                out.append(content(ArgumentsDelta(opened.number, "{}")))
        elif kind == "answer":
            if not opened.pieces:
                self._say("{}", out)
        else:
            value = Raw(msgspec.json.encode(_whole(kind, opened.start, opened.pieces)))
            out.append(content(OpaqueDelta(Opaque(ORIGIN, kind, value))))

    def _seal(self, opened: _Open, out: Out) -> None:
        if opened.redacted:
            thought = redacted_of(opened.redacted)
            sealed = ReasoningSealed(
                index=opened.number, data=thought.data, format=thought.format
            )
            # Callers hand it back and do not see it.
            out.append(lifecycle(sealed))
        elif opened.seal:
            sealed = ReasoningSealed(
                index=opened.number,
                text="".join(opened.pieces),
                signature=opened.seal,
                format=CLAUDE_FORMAT,
            )
            out.append(lifecycle(sealed))


def _whole(kind: str, start: Any, deltas: list[Any]) -> dict[str, Any]:
    """Return the block that a start and its deltas add up to, as a whole answer has it.

    Args:
        kind: Name of the block's one member.
        start: Object with that member.
        deltas: Objects with that member.
    """
    value: dict[str, Any] = dict(start.get(kind) or {})
    for delta in deltas:
        found = delta.get(kind)
        if type(found) is list:
            # The result of a tool: a list of pieces of its content.
            value.setdefault("content", []).extend(found)
        elif type(found) is dict:
            for name, more in found.items():
                old = value.get(name)
                is_text = type(old) is str and type(more) is str
                value[name] = f"{old}{more}" if is_text else more
    if kind == "toolUse" and type(value.get("input")) is str:
        value["input"] = _input(value["input"])
    return {kind: value}


def _input(text: str) -> Any:
    try:
        return msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError):
        # Cut off by the limit of tokens: kept as the text that it is.
        return text


_DELTAS: dict[str, Callable[[BedrockReader, _Open, _Delta, bytes, Out], None]] = {
    "text": BedrockReader._add_text,
    "thinking": BedrockReader._add_thought,
    "call": BedrockReader._add_arguments,
    "answer": BedrockReader._add_arguments,
}

_EVENTS: dict[str, Callable[[BedrockReader, bytes, Out], None]] = {
    "messageStart": BedrockReader._message_start,
    "contentBlockStart": BedrockReader._block_start,
    "contentBlockDelta": BedrockReader._block_delta,
    "contentBlockStop": BedrockReader._block_stop,
    "messageStop": BedrockReader._message_stop,
    "metadata": BedrockReader._metadata,
}
