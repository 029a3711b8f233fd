"""A provider's stream that is open: bytes in, events out, and when it is over.

The one rule: every failure is an event, and the same bytes mean the same before the
commit boundary and after it. Who is told, and what is tried next, is ``attempt``'s and
``relay``'s.
"""

from __future__ import annotations

from typing import Literal, Protocol

from tz_protocol.dialects.base import Decoder
from tz_protocol.errors import UpstreamBroken, UpstreamError, UpstreamGarbled
from tz_protocol.flows.upstream import UpstreamResponse
from tz_protocol.machine import Context
from tz_protocol.operations import Flow
from tz_protocol.routing.redaction import Redaction
from tz_protocol.types.stream import (
    StreamDone,
    StreamEvent,
    StreamFailed,
    StreamPart,
    StreamSkipped,
)

__all__ = ["GRACE_SECONDS", "EventSource", "OpenStream"]

GRACE_SECONDS = 1.0
"""After the finish reasons of all choices: for the usage and the terminator. Both come
with the finish, or at once after it, where they come at all."""


class EventSource(Protocol):
    """What an exchange may be committed to: one stream, or several as one."""

    events: list[StreamEvent]
    """Received, and held back until the exchange is committed to this stream."""

    @property
    def is_finished(self) -> bool:
        """True once all is said, and only usage and the terminator may follow."""

    def receive(self, deadline: float, phase: str) -> Flow[list[StreamEvent]]:
        """Read once; see :meth:`OpenStream.receive`."""

    def close(self) -> None:
        """Break off what was not read whole."""


class OpenStream:
    """One stream; :meth:`receive` its events until one of them is an end.

    Args:
        response: Its head was good.
        decoder: Fresh.
        context: For the time.
        on_malformed: Of the policy.
        redaction: Of the attempt: nothing is told of a failure without it.
    """

    __slots__ = (
        "_context",
        "_decoder",
        "_finish_by",
        "_has_finish",
        "_on_malformed",
        "_redaction",
        "events",
        "response",
    )

    def __init__(
        self,
        response: UpstreamResponse,
        decoder: Decoder,
        context: Context,
        on_malformed: Literal["skip", "error"],
        redaction: Redaction,
    ) -> None:
        self.response = response
        self.events: list[StreamEvent] = []
        """Received, and held back until the exchange is committed to this stream."""
        self._decoder = decoder
        self._context = context
        self._on_malformed = on_malformed
        self._redaction = redaction
        self._has_finish = False
        self._finish_by: float | None = None
        """When a stream of which all is said counts as complete."""

    @property
    def is_finished(self) -> bool:
        """True once all is said, and only usage and the terminator may follow."""
        return self._finish_by is not None

    def receive(self, deadline: float, phase: str) -> Flow[list[StreamEvent]]:
        """Read once; return what that decodes to, perhaps nothing.

        Args:
            deadline: Absolute.
            phase: What to call it if the deadline passes.

        Returns:
            ``StreamDone`` or ``StreamFailed`` only as the last; nothing follows it.
        """
        finish_by = self._finish_by
        if finish_by is not None and finish_by < deadline:
            deadline = finish_by
        decoder = self._decoder
        try:
            data = yield from self.response.read(deadline, phase)
        except UpstreamError as error:
            if finish_by is None:
                return [StreamFailed(error)]
            # Whatever happened to the terminator: all was said before.
            data = b""
        if data:
            decoder.receive_data(data)
        else:
            decoder.receive_eof()
        events: list[StreamEvent] = []
        while (event := decoder.next_event()) is not None:
            kind = type(event)
            if kind is StreamPart:
                if event.is_finish:  # type: ignore[union-attr]  # a StreamPart
                    self._has_finish = True
            elif kind is StreamSkipped and self._on_malformed == "error":
                events.append(StreamFailed(_malformed()))
                return events
            elif kind is StreamFailed:
                self._redaction.clean(event.error)  # type: ignore[union-attr]  # as above
            events.append(event)
        if self._has_finish and finish_by is None and decoder.is_finished:
            self._finish_by = self._context.now + GRACE_SECONDS
        if not data and not (events and _is_end(events[-1])):
            # A decoder that says nothing at the end would make us read for ever.
            events.append(StreamFailed(UpstreamBroken("cut")))
        return events

    def close(self) -> None:
        """Give the connection back; breaks it off if the body was not read whole."""
        self.response.close()


def _is_end(event: StreamEvent) -> bool:
    return type(event) is StreamDone or type(event) is StreamFailed


def _malformed() -> UpstreamGarbled:
    message = "an event of the provider's stream could not be understood"
    return UpstreamGarbled(message, "upstream_malformed_event")
