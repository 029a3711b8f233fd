"""The half of a driver that never waits, the same on every event loop.

The one rule: what a driver must decide is decided here, so that two drivers can differ
in nothing but how they wait. A subclass has three coroutines: ``drive`` awaits what
:meth:`BaseDriver.perform` returns for each :meth:`BaseDriver.next_operation`, says how
it went, and sets ``halt`` to what makes the wait end; ``run_arms`` and ``write_read``
perform what concerns drivers. The contract is in ``machine.py``.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from tz_protocol import operations, recordops, storeops
from tz_protocol.errors import GatewayError, OperationBroken, OperationError
from tz_protocol.machine import ClientGone, Event, Machine
from tz_protocol.notices import Close, LogLine, Notice
from tz_protocol.operations import (
    All,
    Connect,
    HttpCall,
    IsQuiet,
    Operation,
    OperationType,
    Race,
    Read,
    Resolve,
    Sleep,
    Write,
    WriteEof,
    WriteRead,
)

__all__ = [
    "Arms",
    "BaseDriver",
    "Loop",
    "Operations",
    "Timer",
    "Timers",
    "accept_failure",
    "begin_connection",
    "bound_address",
    "end_connection",
    "performers",
    "split_address",
    "traced",
]

T = TypeVar("T")

Operations: TypeAlias = Mapping[OperationType, Callable[[Any], Awaitable[Any]]]
"""Operation type -> what performs it."""

TURNS = 32
"""Operations after which the loop gets its turn, however ready everything is."""


class Timer(Protocol):
    """One moment that is waited for."""

    def cancel(self) -> object:
        """Take it back; harmless once it has come."""


class Loop(Protocol):
    """What a backend offers its drivers, beside a method for each operation."""

    @property
    def operations(self) -> Operations:
        """Return what :func:`performers` makes of the backend."""

    @property
    def now(self) -> Callable[[], float]:
        """Return the clock of every deadline, in seconds."""

    @property
    def call_later(self) -> Callable[[float, Callable[[], object]], Timer]:
        """Return what calls back after some seconds; too early does no harm."""

    @property
    def notice(self) -> Callable[[Notice], object]:
        """Return what takes every notice but ``Close``; it never blocks."""


_Call: TypeAlias = Callable[[float], object]
"""A call of the machine that wants only the time."""


class BaseDriver(Generic[T]):
    """Keeps one machine's side of the driver contract.

    Args:
        machine: Not yet started.
        backend: Performs operations and takes notices.
        operations: What to perform instead of ``backend.operations``.
    """

    __slots__ = (
        "_now",
        "_then",
        "_timer",
        "_timer_at",
        "_turns",
        "backend",
        "error",
        "halt",
        "machine",
        "operations",
        "stage",
    )

    def __init__(
        self, machine: Machine[T], backend: Loop, operations: Operations | None = None
    ) -> None:
        self.machine = machine
        self.backend = backend
        self.operations = backend.operations if operations is None else operations
        self.error: BaseException | None = None
        """What escaped the machine, or a bug that escaped an operation."""
        self.stage = ""
        """Of a ``WriteRead``: the half that is being performed."""
        self.halt: Callable[[], object] | None = None
        """Makes the outstanding operation let go; None while none is performed."""
        self._now = backend.now
        self._then: _Call | None = None
        self._timer: Timer | None = None
        self._timer_at = math.inf
        self._turns = 0

    # -- for whoever owns the driver ----------------------------------------------

    def start(self) -> None:
        """Take the machine to its first operation; call ``drive`` next."""
        if not self.machine.done:
            self._call(self.machine.start)

    def tell(self, event: Event) -> bool:
        """Tell the machine *event*; True if that ends its operation."""
        machine = self.machine
        if machine.operation is None or self._then == machine.cancel:
            return False
        if not machine.tell(event, self._now()):
            return False
        self._abandon(machine.interrupted)
        return True

    def cancel(self) -> None:
        """End the machine: at once, or as soon as its operation lets go."""
        if self.halt is None:
            self._call(self.machine.cancel)
        else:
            self._abandon(self.machine.cancel)

    # -- for drive() --------------------------------------------------------------

    def is_abandoned(self) -> bool:
        """Return True if whatever the operation comes to is not wanted any more."""
        return self._then is not None

    def is_turn_over(self) -> bool:
        """Return True now and then: yield to the loop before the next operation."""
        self._turns += 1
        return not self._turns % TURNS

    def next_operation(
        self, until: Callable[[], bool] | None = None
    ) -> Operation[Any] | None:
        """Return what to perform now; None if the machine is done or *until* holds."""
        machine = self.machine
        while (operation := machine.operation) is not None:
            if until is not None and until():
                return None
            if self._then is not None:
                then, self._then = self._then, None
                self._call(then)
                self.stage = ""
                continue
            now, deadline = self._now(), operation.deadline
            if deadline > now:
                if deadline < self._timer_at:
                    self._arm(deadline, now)
                return operation
            self._call(self._time_out)
        return None

    def perform(self, operation: Operation[Any]) -> Awaitable[Any]:
        """Return what is to be awaited for *operation*."""
        kind = type(operation)
        perform = self.operations.get(kind)
        if perform is None:
            perform = getattr(self, _OWN[kind])
        return perform(operation)

    def resume(self, value: object) -> None:
        """Say what the operation came to."""
        self._call(self.machine.resume, value)

    def fail(self, error: BaseException) -> None:
        """Say that the operation raised *error*; a bug ends the machine.

        Raises:
            BaseException: What is no ``Exception`` is nobody's answer.
        """
        if isinstance(error, UnicodeError) and isinstance(
            self.machine.operation, (Connect, Resolve)
        ):
            # What the codec for host names says of labels that are none.
            error = OperationBroken("dns", "this is no host name")
        if isinstance(error, (OSError, OperationError, GatewayError)):
            machine, stage = self.machine, self.stage
            self._call(lambda now: machine.broken(error, now, stage))
            self.stage = ""
        elif isinstance(error, Exception):
            self._call(self.machine.cancel)
            self.error = error
        else:
            raise error

    def take_back(self, value: Any, operation: Operation[Any]) -> None:
        """Undo what was done in the moment in which it was abandoned.

        For a loop where an operation can come to its end although it was told to let
        go. Received bytes stay received, and nobody was given the connection.
        """
        if isinstance(operation, (Read, WriteRead)):
            unread = getattr(operation.handle, "unread", None)
            if unread is not None:
                unread(value)
        elif isinstance(operation, Connect):
            value.close()
        elif isinstance(operation, HttpCall):
            value[2].close()

    def rest(self, *, is_cancelled: bool = False) -> None:
        """Leave ``drive``; cancels the machine if *is_cancelled*."""
        self.halt = None
        if is_cancelled:
            self._call(self.machine.cancel)
        if self.machine.done and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- inside -------------------------------------------------------------------

    def _call(self, call: Callable[..., object], *arguments: object) -> None:
        """Call the machine, then deal with what it tells."""
        try:
            call(*arguments, self._now())
        except BaseException as error:  # told by whoever owns the driver
            self.error = error
        for notice in self.machine.notices():
            if isinstance(notice, Close):
                handle: Any = notice.handle
                handle.close()
            else:
                self.backend.notice(notice)

    def _time_out(self, now: float) -> None:
        if isinstance(self.machine.operation, Sleep):
            self.machine.resume(None, now)
        else:
            self.machine.timed_out(now, self.stage)

    def _abandon(self, then: _Call) -> None:
        """End the outstanding operation, then make this call."""
        is_first, self._then = self._then is None, then
        if is_first and self.halt is not None:
            self.halt()

    def _arm(self, deadline: float, now: float) -> None:
        """Move the one timer to an earlier deadline."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.backend.call_later(deadline - now, self._fired)

    def _fired(self) -> None:
        self._timer, self._timer_at = None, math.inf
        operation, now = self.machine.operation, self._now()
        if operation is None or self._then is not None:
            return
        if operation.deadline <= now:
            self._abandon(self._time_out)
        elif operation.deadline < math.inf:
            self._arm(operation.deadline, now)


class Arms:
    """The drivers of one ``Race`` or ``All``, and what they come to.

    Args:
        parent: Whose operation it is.
        operation: A ``Race`` or an ``All``.
    """

    __slots__ = ("_deciding", "_is_race", "drivers")

    def __init__(self, parent: BaseDriver[Any], operation: Race | All) -> None:
        make, machine = type(parent), parent.machine
        self.drivers: list[Any] = [
            make(machine.child(flow), parent.backend, parent.operations)
            for flow in operation.flows
        ]
        self._is_race = isinstance(operation, Race)
        self._deciding: BaseDriver[Any] | None = None

    def ended(self, arm: BaseDriver[Any]) -> None:
        """Say that *arm* has ended; the first of a race, or an error, ends them all."""
        if self._deciding is None and (self._is_race or arm.error is not None):
            self._deciding = arm
            for other in self.drivers:
                other.cancel()

    @property
    def is_endless(self) -> bool:
        """True for a race that nobody runs: nobody wins it."""
        return self._is_race and not self.drivers

    def answer(self) -> object:
        """Return what the operation came to, once every arm has ended.

        Raises:
            BaseException: What the deciding arm raised.
        """
        arm = self._deciding
        if arm is None:
            return tuple(driver.machine.result for driver in self.drivers)
        if arm.error is not None:
            raise arm.error
        return self.drivers.index(arm), arm.machine.result


D = TypeVar("D", bound=BaseDriver[None])


def begin_connection(
    make: Callable[[Machine[None], Any], D],
    backend: Any,
    gateway: Any,
    stream: Any,
    address: object,
) -> D:
    """Return the started driver of an accepted *stream*; ``drive`` it next.

    Args:
        make: The driver's class.
        backend: It has ``watch(stream, gone)``.
        gateway: A ``Gateway``, or what has its ``connection``, ``context``, ``live``
            and ``bug``.
        stream: The client's.
        address: The client's, as the socket's ``accept`` returned it.
    """
    peer = str(address[0]) if isinstance(address, tuple) else ""
    connection = gateway.connection(stream, peer)
    machine = Machine(connection.run(), gateway.context, connection.tell)
    driver = make(machine, backend)
    driver.start()
    gateway.live.add(driver.tell)
    backend.watch(stream, lambda: driver.tell(ClientGone()))
    return driver


def end_connection(driver: BaseDriver[None], gateway: Any, stream: Any) -> None:
    """Undo :func:`begin_connection`, however the connection has ended."""
    gateway.live.discard(driver.tell)
    if driver.error is not None:
        gateway.bug(driver.error)
    driver.cancel()
    stream.close()


def accept_failure(error: OSError) -> LogLine:
    """Return what the log says of an accept that failed; once for each series."""
    fields = {"reason": error.strerror or type(error).__name__}
    return LogLine("error", "connections cannot be accepted at the moment", fields)


def split_address(address: str) -> tuple[str, str, int]:
    """Return kind, place and number of an address that ``Listen`` and ``Bind`` take.

    ``("fd", "", 3)``, ``("unix", "/path", 0)``, ``("ipv4", "127.0.0.1", 3000)`` or
    ``("ipv6", "::1", 3000)``.
    """
    place, _, number = address.rpartition(":")
    if address.startswith("unix:"):
        return "unix", address.removeprefix("unix:"), 0
    if place == "fd":
        return "fd", "", int(number)
    return "ipv6" if ":" in place else "ipv4", place.strip("[]"), int(number)


def bound_address(name: object) -> str:
    """Return, as ``Listen`` writes it, what a socket calls its own address."""
    if not isinstance(name, tuple):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


class Timers:
    """Moments in time and what to call then, for a loop that has no such thing."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, _Moment]] = []
        self._count = 0

    def add(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call *callback* in the first :meth:`run` from *when* on."""
        moment = _Moment(callback)
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, moment))
        return moment

    def run(self, now: float) -> float:
        """Call what is due; return when to come back, infinity if never."""
        queue = self._queue
        while queue and (queue[0][0] <= now or queue[0][2].callback is None):
            callback = heapq.heappop(queue)[2].callback
            if callback is not None:
                callback()
        return queue[0][0] if queue else math.inf


class _Moment:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


_OWN: dict[OperationType, str] = {
    All: "run_arms",
    Race: "run_arms",
    WriteRead: "write_read",
}
"""Operation type -> the method of a driver that performs it."""

_OF_HANDLES: Operations = {
    IsQuiet: lambda operation: operation.handle.is_quiet(),
    Read: lambda operation: operation.handle.read(),
    Write: lambda operation: operation.handle.write(operation.data),
    WriteEof: lambda operation: operation.handle.write_eof(),
}
"""Operation type -> the method of a handle that performs it."""


def traced(call: HttpCall, event: str, info: Mapping[str, Any], now: float) -> None:
    """Take what httpcore's extension ``trace`` tells of *call*: is it connected?

    A tunnel is asked for by a request of its own, which is not the call's.
    """
    if call.on_connected is None or event != "http11.send_request_headers.started":
        return
    if info["request"].method != b"CONNECT":
        call.on_connected(now)


_TABLES = (operations, storeops)
"""The modules that define operations."""


def performers(backend: object) -> Operations:
    """Return what performs each operation: *backend*'s methods, and its handles'.

    A method has its operation's name, in lower case and with underscores; all of
    ``recordops`` have one, ``in_thread``. A handle has
    the coroutines ``read``, ``write``, ``write_eof`` and ``is_quiet``, and ``close``;
    the body of an ``HttpCall`` has ``read`` and ``close``.
    """
    found = dict(_OF_HANDLES)
    words = ((module, name) for module in _TABLES for name in module.__all__)
    for module, name in words:
        kind = getattr(module, name)
        if not isinstance(kind, type) or not issubclass(kind, Operation):
            continue
        if kind is not Operation:
            method = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            if hasattr(backend, method):
                found[kind] = getattr(backend, method)
    if hasattr(backend, "in_thread"):
        kinds = (getattr(recordops, name) for name in recordops.__all__)
        found |= dict.fromkeys(kinds, backend.in_thread)
    return found
