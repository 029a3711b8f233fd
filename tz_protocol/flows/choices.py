"""Several answers from a provider that gives one: as many calls at once, one answer.

The one rule: to the plan, the caller and the caches this is one attempt and one answer.
Every call has its record and its connection; the first that fails ends them all, and
nothing of theirs stays open. What one call is, and what is tried next, is ``attempt``'s
and ``trying``'s.

All heads must be good before any content goes out: a provider that takes one call and
refuses the next (a limit on requests) is found out while another can still be tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from tz_protocol.dialects.ids import minted_id
from tz_protocol.errors import UpstreamError, UpstreamTimeout
from tz_protocol.flows.openstream import OpenStream
from tz_protocol.flows.upstream import UpstreamResponse
from tz_protocol.machine import Context
from tz_protocol.operations import All, Flow, Race
from tz_protocol.records.record import AttemptRecord, CallRecord
from tz_protocol.routing.verdict import code_of
from tz_protocol.types.conversation import Choice, Completion, ToolCall, ToolCallStarted
from tz_protocol.types.http import HttpRequest
from tz_protocol.types.stream import StreamDone, StreamEvent, StreamFailed, StreamPart
from tz_protocol.types.usage import Usage

__all__ = ["Choices", "JoinedStream", "Whole", "total_of"]

T = TypeVar("T")

Opener = Callable[[HttpRequest, CallRecord], Flow[UpstreamResponse]]
"""Makes one call and returns its answer, whose head is good; fills the record."""

Whole = tuple[Any, bytes]
"""A whole answer, decoded to whatever the endpoint's are, and its bytes."""

Read = Callable[[UpstreamResponse], Flow[Whole]]

Join = Callable[[Sequence[Any]], Any]
"""Makes one answer of several."""


def total_of(usages: Iterable[Usage | None]) -> Usage | None:
    """Return the sum; None if nobody said anything, an estimate if not everybody did.

    A figure that only some have is the sum of theirs.
    """
    said = list(usages)
    known = [usage for usage in said if usage is not None]
    if not known:
        return None
    is_known = len(known) == len(said) and all(u.quality == "known" for u in known)
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in known),
        output_tokens=sum(usage.output_tokens for usage in known),
        cache_read_tokens=_sum(usage.cache_read_tokens for usage in known),
        cache_write_tokens=_sum(usage.cache_write_tokens for usage in known),
        reasoning_tokens=_sum(usage.reasoning_tokens for usage in known),
        quality="known" if is_known else "estimated",
    )


def _sum(figures: Iterable[int | None]) -> int | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known else None


class _Ids:
    """Keeps the ids of tool calls apart: callers look calls up by them."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def unique(self, call_id: str, choice: int, place: int) -> str:
        """Return *call_id*, or another if an earlier call has that one."""
        if call_id in self._seen:
            call_id = minted_id(call_id, choice, place)
        self._seen.add(call_id)
        return call_id


class Choices:
    """The calls of one attempt; ask :meth:`whole` or :meth:`streams`, once.

    Args:
        request: What is sent; its ``others`` go out beside it.
        record: The attempt's; every call is in it, and it sums them up.
        opener: Makes one call.
        context: For the time.
        began: When the exchange began, on the driver's clock.
        join: Makes one whole answer of all; see ``Dialect.join``.
    """

    def __init__(
        self,
        request: HttpRequest,
        record: AttemptRecord,
        opener: Opener,
        context: Context,
        began: float,
        join: Join | None = None,
    ) -> None:
        bodies = (request.body, *request.others)
        self._requests = [
            msgspec.structs.replace(request, body=body, others=()) for body in bodies
        ]
        record.calls = [CallRecord() for _ in bodies]
        self._record = record
        self._opener = opener
        self._context = context
        self._began = began
        self._join = join or _joined

    def whole(self, read: Read) -> Flow[Whole]:
        """Return the one answer, and an array of the answers that it is made of.

        Raises:
            UpstreamError: One of the calls failed; the others were ended.
        """
        record = self._record
        flows = tuple(
            self._told(call, self._ask(request, call, read))
            for request, call in zip(self._requests, record.calls, strict=True)
        )
        try:
            # Each call has its own deadlines.
            found = yield from All(math.inf, flows)
        finally:
            self._close()
        received = b"[%b]" % b",".join(body for _, body in found)
        return self._join([answer for answer, _ in found]), received

    def streams(
        self,
        make: Callable[[UpstreamResponse], OpenStream],
        *,
        first: float,
        idle: float,
    ) -> Flow[JoinedStream]:
        """Return the streams as one, once all their heads are there.

        Args:
            make: Makes a stream of an answer.
            first: When each of them must have content.
            idle: Seconds that none may be silent after that.

        Raises:
            UpstreamError: One of the calls failed; the others were ended.
        """
        record = self._record
        opened: dict[int, OpenStream] = {}

        def start(index: int) -> Flow[None]:
            call = record.calls[index]
            response = yield from self._opener(self._requests[index], call)
            opened[index] = make(response)

        flows = tuple(
            self._told(call, start(index)) for index, call in enumerate(record.calls)
        )
        try:
            yield from All(math.inf, flows)
        except BaseException:
            for stream in opened.values():
                stream.close()
            self._close()
            raise
        _sum_up(record)
        lanes = [
            _Lane(index, opened[index], call, first)
            for index, call in enumerate(record.calls)
        ]
        context, began = self._context, self._began
        return JoinedStream(lanes, record, context, began, idle)

    def _close(self) -> None:
        """End what has not ended, or not even begun; sum up."""
        for call in self._record.calls:
            _end(call, self._context.now - self._began, "cancelled")
        _sum_up(self._record)

    def _ask(self, request: HttpRequest, call: CallRecord, read: Read) -> Flow[Whole]:
        response = yield from self._opener(request, call)
        try:
            answer, body = yield from read(response)
        finally:
            response.close()
        call.usage = answer.usage
        call.first_content = self._context.now - self._began
        _end(call, call.first_content)
        return answer, body

    def _told(self, call: CallRecord, flow: Flow[T]) -> Flow[T]:
        """Return what *flow* comes to; how it fails is noted."""
        try:
            return (yield from flow)
        except UpstreamError as error:
            _end(call, self._context.now - self._began, code_of(error))
            raise
        except BaseException:
            _end(call, self._context.now - self._began, "cancelled")
            raise


def _end(call: CallRecord, seconds: float, error: str | None = None) -> None:
    """Note how a call ended; the first statement holds."""
    if call.ended is None:
        call.ended, call.error = seconds, error


def _sum_up(record: AttemptRecord) -> None:
    """Say of the attempt what its calls come to."""
    calls = record.calls
    told = [call for call in calls if call.error not in (None, "cancelled")]
    statuses = [call.status for call in told or calls if call.status is not None]
    record.status = statuses[0] if statuses else None
    record.connected = _last(call.connected for call in calls)
    record.head = _last(call.head for call in calls)
    record.is_reused = all(call.is_reused for call in calls)
    ids = [call.request_id for call in calls if call.request_id]
    record.request_id = ", ".join(ids) or None


def _last(moments: Iterable[float | None]) -> float | None:
    """Return the last of them, None if one has not come."""
    found = [*moments]
    known = [moment for moment in found if moment is not None]
    return max(known) if len(known) == len(found) else None


def _joined(answers: Sequence[Completion]) -> Completion:
    """Return one answer with a choice for each of *answers*."""
    first, ids = answers[0], _Ids()
    choices: list[Choice] = []
    for index, answer in enumerate(answers):
        choice = answer.choices[0]
        content = tuple(
            msgspec.structs.replace(block, id=ids.unique(block.id, index, place))
            if isinstance(block, ToolCall)
            else block
            for place, block in enumerate(choice.content)
        )
        choices.append(msgspec.structs.replace(choice, index=index, content=content))
    return Completion(
        choices=tuple(choices),
        usage=total_of(answer.usage for answer in answers),
        id=first.id,
        model=first.model,
        service_tier=first.service_tier,
    )


# -- streams --------------------------------------------------------------------


class _Lane:
    """One of the streams."""

    __slots__ = ("call", "due", "index", "is_over", "stream")

    def __init__(
        self, index: int, stream: OpenStream, call: CallRecord, due: float
    ) -> None:
        self.index = index
        self.stream = stream
        self.call = call
        self.due = due
        """When it has been silent for too long; later by whatever was spent on other
        things than waiting for it."""
        self.is_over = False


class JoinedStream:
    """Several streams, read as one: an ``EventSource``.

    Whoever has something to say is heard at once, and nobody is read while that is
    passed on. Each stream has its own patience: one that is silent is not excused by
    the others' talking.

    Args:
        lanes: At least one.
        record: The attempt's.
        context: For the time.
        began: When the exchange began.
        idle: Seconds that a stream may be silent after its first content.
    """

    __slots__ = (
        "_began",
        "_context",
        "_failure",
        "_has_heard",
        "_idle",
        "_ids",
        "_lanes",
        "_late",
        "_left_at",
        "_news",
        "_record",
        "events",
    )

    def __init__(
        self,
        lanes: list[_Lane],
        record: AttemptRecord,
        context: Context,
        began: float,
        idle: float,
    ) -> None:
        self.events: list[StreamEvent] = []
        """Received, and held back until the exchange is committed to this stream."""
        self._lanes = lanes
        self._record = record
        self._context = context
        self._began = began
        self._idle = idle
        self._ids = _Ids()
        self._left_at = context.now
        """When the last read came back."""
        self._news: list[StreamEvent] = []
        """What the read under way has brought so far; so are the next three."""
        self._has_heard = False
        self._failure: StreamFailed | None = None
        self._late: tuple[_Lane, StreamFailed] | None = None

    @property
    def is_finished(self) -> bool:
        """True once all of them have said all, but for usage and terminators."""
        return all(lane.is_over or lane.stream.is_finished for lane in self._lanes)

    def receive(self, deadline: float, phase: str) -> Flow[list[StreamEvent]]:
        """Read whatever comes first; see ``OpenStream.receive``."""
        now = self._context.now
        for lane in self._lanes:
            lane.due += now - self._left_at
        self._news, self._failure, self._late = [], None, None
        self._has_heard = False
        lanes = [lane for lane in self._lanes if not lane.is_over]
        # The first arm of a race wins if all are ready: each has its turn.
        self._lanes.append(self._lanes.pop(0))
        flows = tuple(self._read(lane, deadline, phase) for lane in lanes)
        if len(flows) == 1:
            yield from flows[0]
        else:
            yield from Race(math.inf, flows)
        self._left_at = self._context.now
        return self._outcome()

    def _outcome(self) -> list[StreamEvent]:
        events = self._news
        if self._failure is not None:
            events.append(self._failure)
        elif all(lane.is_over for lane in self._lanes):
            events.append(StreamDone())
        elif self._late is not None and not self._has_heard:
            # Else whoever is late is so at the next read, too.
            lane, late = self._late
            if self._left_at >= lane.due:
                _end(lane.call, self._left_at - self._began, code_of(late.error))
            events.append(late)
        return events

    def _read(self, lane: _Lane, deadline: float, phase: str) -> Flow[None]:
        """Read one of them once; what it says is put with the rest."""
        if lane.stream.is_finished and not self.is_finished:
            # Its grace is short; a pause of the others must not cut it shorter.
            deadline = math.inf
        if lane.due < deadline:
            deadline = lane.due
            phase = "first_content" if lane.call.first_content is None else "idle"
        events = yield from lane.stream.receive(deadline, phase)
        now = self._context.now
        end = events[-1] if events else None
        if type(end) is StreamFailed and isinstance(end.error, UpstreamTimeout):
            self._late = self._late or (lane, end)
            return
        self._has_heard = True
        for event in events:
            if type(event) is StreamPart:
                self._news.append(self._placed(lane, event))
            elif type(event) is StreamDone:
                lane.is_over = True
                _end(lane.call, now - self._began)
            elif type(event) is StreamFailed:
                _end(lane.call, now - self._began, code_of(event.error))
                self._failure = self._failure or event
            else:
                self._news.append(event)
        if lane.call.first_content is not None:
            lane.due = now + self._idle

    def _placed(self, lane: _Lane, part: StreamPart) -> StreamPart:
        """Return *part* as one of the whole answer: its choice, its sum of usage."""
        delta, usage = part.value, part.usage
        if part.has_content and lane.call.first_content is None:
            lane.call.first_content = self._context.now - self._began
        if usage is not None:
            lane.call.usage = usage
            usage = total_of(call.usage for call in self._record.calls)
        changes: dict[str, object] = {"choice": lane.index}
        if type(delta) is ToolCallStarted:
            unique = self._ids.unique(delta.id, lane.index, delta.index)
            changes["id"] = unique
        delta = msgspec.structs.replace(delta, **changes)
        return StreamPart(delta, part.has_content, usage, part.is_finish)

    def close(self) -> None:
        """Break off what was not read whole."""
        for lane in self._lanes:
            lane.stream.close()
            _end(lane.call, self._context.now - self._began, "cancelled")
        _sum_up(self._record)
