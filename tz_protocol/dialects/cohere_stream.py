"""Cohere's stream -> deltas.

The one rule: blocks are the vendor's, numbers are ours: callers count tool calls and
thoughts from 0. What the vendor calls a tool plan is a thought. The answer is complete
at ``message-end``.

Source: https://docs.cohere.com/v2/reference/chat-stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.dialects.cohere_answer import (
    AROUND,
    CohereUsage,
    failure_of,
    finish_of,
    read_citation,
    stated_error,
    usage_of,
)
from tz_protocol.dialects.cohere_request import ANSWER_TOOL
from tz_protocol.dialects.deltas import content, finished, lifecycle
from tz_protocol.dialects.ids import CallIds
from tz_protocol.errors import UpstreamBroken, UpstreamGarbled
from tz_protocol.types.conversation import (
    ArgumentsDelta,
    CitationDelta,
    Opaque,
    OpaqueDelta,
    ReasoningDelta,
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

__all__ = ["CohereReader"]

Out = deque[StreamEvent]


class _Message(msgspec.Struct):
    content: Any = None
    tool_plan: str | None = None
    tool_calls: Any = None
    citations: Raw | UnsetType = UNSET


class _Delta(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    usage: CohereUsage | None = None
    error: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    id: str | None = None
    index: int | None = None
    delta: _Delta | None = None


_EVENT = msgspec.json.Decoder(_Event)
_NO_MESSAGE = _Message()


class _Call:
    """A tool call that has started."""

    __slots__ = ("has_arguments", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        """Among the calls; -1 for the gateway's own answer tool."""
        self.has_arguments = False


class CohereReader:
    """Reads the events of one stream (``streaming.Reader``)."""

    def __init__(self) -> None:
        self._id = ""
        self._thoughts = 0
        self._thought = 0
        self._plan: int | None = None
        """Numbers of the open thought and of the plan."""
        self._block = 0
        """The vendor's number of the text that was last added to."""
        self._offsets: dict[int, int] = {}
        """That number -> characters of text before it."""
        self._length = 0
        self._open: dict[int, _Call] = {}
        self._calls = 0
        self._ids = CallIds()

    def read(self, event: SseEvent, out: Out) -> None:
        """Append what *event* stands for."""
        data = event.data
        try:
            value = _event_of(data)
        except msgspec.ValidationError:
            out.append(StreamSkipped("an event has members of unknown types"))
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if data.startswith(b"[DONE]"):
                self.end(out)
            else:
                out.append(StreamFailed(UpstreamGarbled("an event is not JSON")))
            return
        reader = _EVENTS.get(value.type or event.name)
        if reader is not None:
            reader(self, value, out)
            return
        error = stated_error(data)
        if isinstance(error, UpstreamGarbled):
            out.append(StreamSkipped("an event is of an unknown type"))
        else:
            out.append(StreamFailed(error))

    def end(self, out: Out) -> None:
        """Append what the end of the bytes stands for: that it came too early."""
        out.append(StreamFailed(UpstreamBroken("cut")))

    # -- the answer ---------------------------------------------------------------

    def _message_start(self, event: _Event, out: Out) -> None:
        self._id = event.id or ""
        out.append(lifecycle(Started(id=self._id)))

    def _message_end(self, event: _Event, out: Out) -> None:
        delta = event.delta or _Delta()
        error = delta.error if isinstance(delta.error, str) else None
        failure = failure_of(delta.finish_reason, error)
        if failure is not None:
            out.append(StreamFailed(failure))
            return
        for index in list(self._open):
            self._close(index, out)
        end = finish_of(delta.finish_reason, has_calls=self._calls > 0)
        out.append(finished(end, usage_of(delta.usage)))
        out.append(StreamDone())

    # -- text and thoughts --------------------------------------------------------

    def _content_start(self, event: _Event, out: Out) -> None:
        value = _message(event).content
        if isinstance(value, dict) and value.get("type") == "thinking":
            self._thought = self._thoughts
            self._thoughts += 1
        else:
            self._block = event.index or 0
            self._offsets[self._block] = self._length
        self._content(event, out)

    def _content(self, event: _Event, out: Out) -> None:
        value = _message(event).content
        if not isinstance(value, dict):
            return
        text, thought = value.get("text"), value.get("thinking")
        if text and type(text) is str:
            index = event.index or 0
            if index not in self._offsets:
                self._offsets[index] = self._length
            self._block = index
            self._add_text(text, out)
        elif thought and type(thought) is str:
            self._thoughts = max(self._thoughts, 1)
            out.append(content(ReasoningDelta(thought, self._thought)))

    def _add_text(self, text: str, out: Out) -> None:
        self._length += len(text)
        out.append(content(TextDelta(text)))

    def _tool_plan(self, event: _Event, out: Out) -> None:
        plan = _message(event).tool_plan
        if not plan:
            return
        if self._plan is None:
            self._plan = self._thoughts
            self._thoughts += 1
        out.append(content(ReasoningDelta(plan, self._plan)))

    def _citation(self, event: _Event, out: Out) -> None:
        raw = _message(event).citations
        if raw is UNSET:
            return
        citation = read_citation(raw, self._offsets, self._block)
        if isinstance(citation, Opaque):
            out.append(content(OpaqueDelta(citation)))
        else:
            out.append(content(CitationDelta(citation)))

    # -- tool calls ---------------------------------------------------------------

    def _call_start(self, event: _Event, out: Out) -> None:
        value = _message(event).tool_calls
        function = value.get("function") if isinstance(value, dict) else None
        if not isinstance(function, dict):
            out.append(StreamSkipped("a tool call has no function"))
            return
        name = str(function.get("name", ""))
        index = event.index or 0
        self._close(index, out)
        if name == ANSWER_TOOL:
            self._open[index] = _Call(-1)
        else:
            number = self._calls
            self._calls += 1
            self._open[index] = _Call(number)
            stated = value.get("id")
            own = str(stated) if stated else ""
            call_id = self._ids.own(own, self._id, 0, number, name)
            started = ToolCallStarted(index=number, id=call_id, name=name)
            out.append(content(started))
        self._arguments(index, function.get("arguments"), out)

    def _call_delta(self, event: _Event, out: Out) -> None:
        value = _message(event).tool_calls
        function = value.get("function") if isinstance(value, dict) else None
        if isinstance(function, dict):
            self._arguments(event.index or 0, function.get("arguments"), out)

    def _arguments(self, index: int, text: Any, out: Out) -> None:
        call = self._open.get(index)
        if call is None:
            out.append(StreamSkipped("a delta belongs to no tool call"))
        elif text and type(text) is str:
            call.has_arguments = True
            if call.number < 0:
                self._add_text(text, out)
            else:
                out.append(content(ArgumentsDelta(call.number, text)))

    def _call_end(self, event: _Event, out: Out) -> None:
        self._close(event.index or 0, out)

    def _close(self, index: int, out: Out) -> None:
        call = self._open.get(index)
        if call is not None and not call.has_arguments:
            self._arguments(index, "{}", out)
        self._open.pop(index, None)

    def _nothing(self, event: _Event, out: Out) -> None:
        """Nothing: it says that something ended, as what follows does."""


def _event_of(data: bytes) -> _Event:
    try:
        return _EVENT.decode(data)
    except msgspec.ValidationError:
        return _EVENT.decode(without_nulls(data, dropped=AROUND))


def _message(event: _Event) -> _Message:
    delta = event.delta
    return _NO_MESSAGE if delta is None or delta.message is None else delta.message


_EVENTS: dict[str, Callable[[CohereReader, _Event, Out], None]] = {
    "message-start": CohereReader._message_start,
    "content-start": CohereReader._content_start,
    "content-delta": CohereReader._content,
    "content-end": CohereReader._nothing,
    "tool-plan-delta": CohereReader._tool_plan,
    "tool-call-start": CohereReader._call_start,
    "tool-call-delta": CohereReader._call_delta,
    "tool-call-end": CohereReader._call_end,
    "citation-start": CohereReader._citation,
    "citation-end": CohereReader._nothing,
    "message-end": CohereReader._message_end,
    "debug": CohereReader._nothing,
}
