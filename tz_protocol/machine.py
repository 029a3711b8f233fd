"""The outside of a flow: one object with an explicit ``now``.

The driver contract
===================

A driver performs the operations of one machine until there are none left. It decides
nothing; ``drivers.py`` keeps everything of this contract that does not wait. In full:

1. One operation is outstanding. Perform it, then call exactly one of ``resume``,
   ``timed_out``, ``broken``, ``interrupted`` or ``cancel``. Each but the last returns
   the next operation, or None when the machine is done. The arms of ``Race`` and
   ``All`` are child machines (:meth:`Machine.child`) in one task group; the arms that
   lose are ended with ``cancel``.
2. Every call takes ``now``, read from one monotonic clock: the clock of the
   deadlines. The core reads no clock of its own.
3. A past deadline is legal: time out at once. A timeout must not poison the next
   operation, and the core's deadline is the only clock: no second timeout anywhere.
   (``Sleep`` alone resumes at its deadline instead of timing out.)
4. ``Connect`` returns an opaque handle. It belongs to its machine until the core
   emits a ``Close`` notice for it or keeps it in the pool. A driver that is cancelled
   between the connection and ``resume`` closes it.
5. One reader per client socket is always on, into at most ``CHUNK_LIMIT`` bytes, then
   paused. When the client's end of stream, or a reset, is seen, call
   ``tell(ClientGone())``, whatever operation is outstanding.
6. On cancellation call ``machine.cancel(now)``, synchronously, then deal with the
   notices.
7. Re-arm a machine's one timer only for an earlier deadline; when it fires too early,
   re-arm it for the current one and go on with what was being done.
8. ``Write`` returns when less than ``CHUNK_LIMIT`` is unsent; ``Read`` returns at most
   ``CHUNK_LIMIT`` and nothing is read from an upstream in between.
9. Machines meet only in ``Wait(signal)``; ``signal.set()`` is synchronous core code.
10. Trying first and parking only when nothing is ready must still yield to the loop
    now and then. An exception that is not an ``OSError`` and escapes an operation, or
    escapes the machine, is a bug: log it, count it, end this machine only.
11. After every call drain ``notices()``. Perform each ``Close``; hand the others to a
    bounded sink that never blocks.

``TimeoutError`` is an ``OSError``: look for it first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from tz_protocol.errors import (
    Cancelled,
    ClientBroken,
    ClientError,
    ClientTimeout,
    GatewayError,
    Interrupted,
    OperationBroken,
    OperationError,
    OperationTimeout,
    kind_of,
)
from tz_protocol.notices import Notice
from tz_protocol.operations import HANDLER_OPERATIONS, Flow, Operation

__all__ = [
    "ClientGone",
    "Context",
    "Drain",
    "Event",
    "Listener",
    "Machine",
    "Shutdown",
]

T = TypeVar("T")


class Event:
    """Something that happens to a machine while an operation is outstanding."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the event's name."""
        return f"{type(self).__name__}()"


class ClientGone(Event):
    """The client closed its sending side or the connection was reset."""

    __slots__ = ()


class Drain(Event):
    """Take no new request; finish what runs."""

    __slots__ = ()


class Shutdown(Event):
    """The drain's time is over: say goodbye and end."""

    __slots__ = ()


Listener = Callable[[Event], bool]
"""Decides whether an event ends the outstanding operation; must not yield."""


class Context:
    """What the machines of one process share: the latest time, and their notices.

    Every call of a machine sets ``now``, so a flow that needs the time reads it here
    and the core needs no clock.
    """

    __slots__ = ("__weakref__", "notices", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.notices: list[Notice] = []

    def tell(self, notice: Notice) -> None:
        """Queue *notice* for whoever drives; callable in cleanup, never blocks."""
        self.notices.append(notice)


def _interrupt_unless_drain(event: Event) -> bool:
    """Return True for events that a lone exchange cannot survive."""
    return not isinstance(event, Drain)


class Machine(Generic[T]):
    """Steps one flow; see the module's docstring for the driver's side.

    Args:
        flow: The generator to step. It must not have been started.
        context: Shared with every other machine of the process.
        listener: Asked by :meth:`tell`. By default every event but ``Drain`` ends
            the outstanding operation.
    """

    __slots__ = (
        "_context",
        "_event",
        "_flow",
        "_listener",
        "done",
        "operation",
        "result",
    )

    def __init__(
        self, flow: Flow[T], context: Context, listener: Listener | None = None
    ) -> None:
        self._flow = flow
        self._context = context
        self._listener = listener or _interrupt_unless_drain
        self._event: Event | None = None
        self.operation: Operation[Any] | None = None
        """The outstanding operation; None before ``start`` and when done."""
        self.done = False
        """True once the flow returned, raised or was cancelled."""
        self.result: T | None = None
        """What the flow returned, once it has."""

    def child(self, flow: Flow[Any]) -> Machine[Any]:
        """Return a machine for one arm of ``Race`` or ``All``."""
        return Machine(flow, self._context)

    def start(self, now: float) -> Operation[Any] | None:
        """Return the first operation; call once, then perform it."""
        return self.resume(None, now)

    def resume(self, value: object, now: float) -> Operation[Any] | None:
        """Answer the outstanding operation with *value*; return the next one."""
        self._context.now = now
        try:
            self.operation = operation = self._flow.send(value)
        except StopIteration as stop:
            self._end(stop.value)
            return None
        except BaseException:
            self._end(None)
            raise
        return operation

    def timed_out(self, now: float, stage: str = "") -> Operation[Any] | None:
        """Say that the operation's deadline passed; return what to do instead.

        Args:
            now: The clock's time.
            stage: For ``WriteRead``: the half that was not finished.
        """
        error: OperationError = OperationTimeout(stage)
        if isinstance(self.operation, HANDLER_OPERATIONS):
            error = ClientTimeout("the client was too slow")
        return self._throw(error, now)

    def broken(
        self, error: BaseException, now: float, stage: str = ""
    ) -> Operation[Any] | None:
        """Say that the operation failed with *error*; return what to do instead.

        An error of the core (from an arm of ``Race`` or ``All``, say) is thrown as
        it is; any other becomes ``OperationBroken`` with the word of ``kind_of``.
        """
        if not isinstance(error, (OperationError, GatewayError)):
            if isinstance(self.operation, HANDLER_OPERATIONS):
                error = ClientBroken("the client's connection was lost")
            else:
                error = OperationBroken(kind_of(error), str(error), stage)
        elif isinstance(self.operation, HANDLER_OPERATIONS) and not isinstance(
            error, (ClientError, GatewayError)
        ):
            error = ClientBroken("the client's connection was lost")
        return self._throw(error, now)

    def tell(self, event: Event, now: float) -> bool:
        """Tell what happened while the operation is outstanding.

        Returns:
            True: abandon the operation and call :meth:`interrupted` next. False: go
            on as if nothing had happened.
        """
        if self.done:
            return False
        self._context.now = now
        if not self._listener(event):
            return False
        self._event = event
        return True

    def interrupted(self, now: float) -> Operation[Any] | None:
        """Say that the operation was abandoned after ``tell`` returned True."""
        event, self._event = self._event, None
        return self._throw(Interrupted(event), now)

    def cancel(self, now: float) -> None:
        """End the flow here and now; it settles its books and asks for nothing."""
        if self.done:
            return
        self._context.now = now
        try:
            operation = self._flow.throw(Cancelled())
        except (StopIteration, Cancelled):
            self._end(None)
        except BaseException:
            self._end(None)
            raise
        else:
            self._flow.close()
            self._end(None)
            message = f"a cancelled flow asked for {type(operation).__name__}"
            raise RuntimeError(message)

    def notices(self) -> list[Notice]:
        """Return the notices since the last call; deal with every one of them."""
        notices = self._context.notices
        if notices:
            self._context.notices = []
        return notices

    def _throw(self, error: BaseException, now: float) -> Operation[Any] | None:
        self._context.now = now
        try:
            self.operation = operation = self._flow.throw(error)
        except StopIteration as stop:
            self._end(stop.value)
            return None
        except Interrupted:
            self._end(None)
            return None
        except BaseException:
            self._end(None)
            raise
        finally:
            del error  # its traceback may hold this frame: a cycle
        return operation

    def _end(self, value: T | None) -> None:
        self.done = True
        self.operation = None
        self.result = value
