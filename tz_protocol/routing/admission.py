"""How much may run at once: places in flight, places in the queue, bytes in memory.

The one rule: what is taken is given back exactly once, by whoever took it.
"""

from __future__ import annotations

from collections import deque

from tz_protocol.errors import OperationTimeout, Overloaded
from tz_protocol.operations import Flow, Signal, Wait

__all__ = ["Admission", "Memory"]


class Admission:
    """A bounded number of places, and a bounded queue before them, first come first.

    Args:
        places: Exchanges in flight.
        queue: Exchanges that may wait; past it they are refused at once.
    """

    __slots__ = ("_waiting", "in_flight", "places", "queue")

    def __init__(self, places: int, queue: int) -> None:
        self.places = places
        self.queue = queue
        self.in_flight = 0
        self._waiting: deque[Signal] = deque()

    @property
    def queued(self) -> int:
        """Exchanges that wait."""
        return len(self._waiting)

    def enter(self, deadline: float) -> Flow[None]:
        """Take a place, waiting for one until *deadline*; then call :meth:`leave`.

        Raises:
            Overloaded: The queue is full, or no place came free in time.
        """
        if self.in_flight < self.places and not self._waiting:
            self.in_flight += 1
            return
        if len(self._waiting) >= self.queue:
            raise _overloaded()
        place = Signal()
        self._waiting.append(place)
        try:
            yield from Wait(deadline, place)
        except OperationTimeout:
            self._give_up(place)
            raise _overloaded() from None
        except BaseException:
            self._give_up(place)
            raise

    def leave(self) -> None:
        """Give a place back; the longest waiting exchange takes it over."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self.in_flight -= 1

    def _give_up(self, place: Signal) -> None:
        if place.is_set:
            # The place was handed over in the moment of giving up: pass it on.
            self.leave()
        else:
            self._waiting.remove(place)


class Memory:
    """A budget in bytes for the bodies that the process holds."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Reserve *size* bytes; give them back with :meth:`give`.

        Raises:
            Overloaded: The budget is used up.
        """
        if self.held + size > self.limit:
            message = "The gateway's memory for bodies is full. Try again later."
            raise Overloaded(message, code="overloaded", retry_after=1.0)
        self.held += size

    def give(self, size: int) -> None:
        """Give *size* bytes back."""
        self.held -= size


def _overloaded() -> Overloaded:
    message = "The gateway has as many requests as it can hold. Try again later."
    return Overloaded(message, retry_after=1.0)
