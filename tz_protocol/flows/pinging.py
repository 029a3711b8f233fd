"""Comments to a client that waits for a stream, before there is any content.

The one rule: a comment goes out whole or not at all. The first one commits the status
200; from then on what goes wrong is told in the stream. Everything else goes on as if
there were none: candidates are tried, fail and are replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tz_protocol.dialects.base import Encoder
from tz_protocol.errors import GatewayError
from tz_protocol.flows.relay import PING, STREAM_HEADERS
from tz_protocol.flows.trying import LEEWAY
from tz_protocol.operations import Flow, Race, SendBody, Signal, Sleep, Wait

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = ["Pinger", "can_ping"]

T = TypeVar("T")


def can_ping(encoder: Encoder) -> bool:
    """Return True if the client's format has comments: server-sent events."""
    return encoder.content_type.startswith("text/event-stream")


class Pinger:
    """Sends comments while a flow runs.

    Args:
        exchange: Whose client waits.
        after: Seconds without content.
        encoder: Tells the client in its own format of what goes wrong.
    """

    def __init__(self, exchange: Exchange, after: float, encoder: Encoder) -> None:
        self.encoder = encoder
        self._exchange = exchange
        self._after = after
        # Attempts are over by then, and so is the last comment.
        goodbye = exchange.settings.server.goodbye
        self._deadline = exchange.deadline + goodbye + LEEWAY
        self._sent: Signal | None = None
        """Set when the comment on its way has gone out; None if none is."""

    @property
    def is_sending(self) -> bool:
        """True while a comment is on its way: nothing may be sent after it."""
        return self._sent is not None

    def run(self, flow: Flow[T]) -> Flow[T]:
        """Return what *flow* comes to.

        Raises:
            GatewayError: The flow did.
        """
        arms = (self._outcome(flow), self._pings())
        _, outcome = yield from Race(self._deadline, arms)
        if isinstance(outcome, GatewayError):
            raise outcome
        result: T = outcome
        return result

    def _outcome(self, flow: Flow[T]) -> Flow[T | GatewayError]:
        """Run the flow; its end waits for a comment that is on its way."""
        outcome: T | GatewayError
        try:
            outcome = yield from flow
        except GatewayError as error:
            outcome = error
        if self._sent is not None:
            yield from Wait(self._deadline, self._sent)
        return outcome

    def _pings(self) -> Flow[None]:
        exchange = self._exchange
        while True:
            yield from Sleep(exchange.gateway.context.now + self._after)
            self._sent = sent = Signal()
            if not exchange.is_begun:
                headers = (("content-type", "text/event-stream"), *STREAM_HEADERS)
                yield from exchange.begin(200, headers)
            exchange.record.bytes_out += len(PING)
            yield from SendBody(exchange.send_deadline(), PING)
            self._sent = None
            sent.set()
