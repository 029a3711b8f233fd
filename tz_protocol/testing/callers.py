"""The client of a bare exchange machine: performs a handler's four operations.

The one rule: it asserts what every connection may rely on: at most one head, no body
before it, nothing after the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tz_protocol.operations import (
    AbortBody,
    Operation,
    OperationType,
    ReceiveBody,
    SendBody,
    SendHead,
)
from tz_protocol.testing.worlds import Arrival, ScriptedRequest
from tz_protocol.types.http import ResponseHead

if TYPE_CHECKING:
    from tz_protocol.testing.driving import Driver
    from tz_protocol.testing.simulator import Simulator

__all__ = ["Caller", "ScriptedResponse"]


@dataclass(slots=True)
class ScriptedResponse:
    """What a bare exchange machine answered, and when."""

    head: ResponseHead | None = None
    head_at: float | None = None
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    """(time, data) of every ``SendBody``."""
    is_complete: bool = False
    is_aborted: bool = False

    @property
    def status(self) -> int:
        """Status of the head; there must be one."""
        assert self.head is not None, "nothing was answered"
        return self.head.status

    @property
    def body(self) -> bytes:
        """All pieces of the body together."""
        return b"".join(data for _, data in self.pieces)


class Caller:
    """One scripted request and what was answered to it."""

    def __init__(self, sim: Simulator, request: ScriptedRequest) -> None:
        self.sim = sim
        self.request = request
        self.response = ScriptedResponse()
        self._pieces = [
            piece if isinstance(piece, Arrival) else Arrival(piece)
            for piece in request.body
        ]
        self._reads = 0

    def perform(self, driver: Driver, operation: Operation[Any]) -> None:
        """Perform one of the handler's operations for *driver*."""
        _PERFORM[type(operation)](self, driver, operation)

    def receive_body(self, driver: Driver, operation: ReceiveBody) -> None:
        """Answer with the next piece, in its time."""
        if self._pieces:
            driver.park(
                self.sim.after(
                    self._pieces[0].after, lambda: driver.resume(self._take())
                )
            )
        elif self.request.is_cut:
            driver.fail(ConnectionResetError("the client's connection was lost"))
        else:
            driver.answer(b"")

    def _take(self) -> bytes:
        limit = self.sim.split(self._reads)
        self._reads += 1
        data = self._pieces[0].data
        if len(data) > limit:
            self._pieces[0] = Arrival(data[limit:])
        else:
            del self._pieces[0]
        return data[:limit]

    def send_head(self, driver: Driver, operation: SendHead) -> None:
        """Keep the head."""
        response = self.response
        assert response.head is None, "a second head"
        response.head = operation.head
        response.head_at = self.sim.now
        driver.answer(None)

    def send_body(self, driver: Driver, operation: SendBody) -> None:
        """Keep the piece; answer when the client has taken it."""
        response = self.response
        assert response.head is not None, "a body before the head"
        assert not response.is_complete, "a body after its end"
        assert not response.is_aborted, "a body after AbortBody"
        response.pieces.append((self.sim.now, operation.data))

        def taken() -> None:
            response.is_complete = operation.end
            driver.resume(None)

        driver.park(self.sim.after(self.request.takes, taken))

    def abort_body(self, driver: Driver, operation: AbortBody) -> None:
        """Note that the body was broken off."""
        response = self.response
        assert not response.is_complete, "AbortBody after the end of the body"
        response.is_aborted = True
        driver.answer(None)


_PERFORM: dict[OperationType, Callable[[Caller, Driver, Any], None]] = {
    AbortBody: Caller.abort_body,
    ReceiveBody: Caller.receive_body,
    SendBody: Caller.send_body,
    SendHead: Caller.send_head,
}
