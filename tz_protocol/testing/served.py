"""The application that a conformance suite serves: one route for each behaviour.

The one rule: a handler records what it saw and how it ended, in ``Facts``, so that a
scenario waits for facts and never for time. It is also a small example of handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tz_protocol.errors import (
    Interrupted,
    OperationError,
    OperationTimeout,
)
from tz_protocol.machine import Context, Shutdown
from tz_protocol.operations import (
    AbortBody,
    All,
    Flow,
    Handler,
    Operation,
    Race,
    ReceiveBody,
    SendBody,
    SendHead,
    Signal,
    Sleep,
    Wait,
)
from tz_protocol.testing.worlds import Facts
from tz_protocol.types.http import RequestHead, ResponseHead

__all__ = ["FAR", "PIECES", "STALL_TIMEOUT", "application"]

FAR = 60.0
"""Seconds: a deadline that no scenario reaches; past a runner's own bound."""

STALL_TIMEOUT = 0.5
"""Seconds that ``/stalled`` gives its client to take one piece."""

PIECES = tuple(b"piece %d\n" % n for n in range(10))
"""Body of ``/stream``."""

_PIECE_PAUSE = 0.01
_ENDLESS_PIECE = bytes(16_384)


class _Call:
    """One request to the application, and what its handler needs."""

    def __init__(self, context: Context, facts: Facts, head: RequestHead) -> None:
        self.context = context
        self.facts = facts
        self.head = head
        self.bytes_out = 0

    def within(self, seconds: float) -> float:
        """Return the deadline that lies *seconds* ahead."""
        return self.context.now + seconds

    def body(self) -> Flow[bytes]:
        """Return the whole body of the request."""
        pieces = []
        while piece := (yield from ReceiveBody(self.within(FAR))):
            pieces.append(piece)
        return b"".join(pieces)

    def answer(self, status: int, body: bytes) -> Flow[None]:
        """Send a whole response."""
        headers = (("content-type", "text/plain"), ("content-length", str(len(body))))
        yield from SendHead(self.within(FAR), ResponseHead(status, headers))
        yield from SendBody(self.within(FAR), body, end=True)

    def begin(self) -> Flow[None]:
        """Send the head of a response whose length is not known."""
        headers = (("content-type", "text/plain"),)
        yield from SendHead(self.within(FAR), ResponseHead(200, headers))

    def send(
        self, data: bytes, seconds: float = FAR, *, end: bool = False
    ) -> Flow[None]:
        """Send a piece of the body and count it once it is gone."""
        yield from SendBody(self.within(seconds), data, end=end)
        self.bytes_out += len(data)


def application(context: Context, facts: Facts) -> Handler:
    """Return the handler; every call ends with one fact ``ended``.

    The value of ``ended`` is (path, how, bytes sent), where *how* is ``returned``,
    the name of the exception, or ``Interrupted`` and the name of the event.
    """

    def handler(head: RequestHead) -> Flow[None]:
        call = _Call(context, facts, head)
        how = "returned"
        try:
            yield from _ROUTES.get(head.path, _not_found)(call)
        except Interrupted as interrupt:
            how = f"Interrupted {type(interrupt.event).__name__}"
            raise
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            facts.record("ended", (head.path, how, call.bytes_out))

    return handler


# -- routes ---------------------------------------------------------------------


def _not_found(call: _Call) -> Flow[None]:
    yield from call.answer(404, b"no such path")


def _ok(call: _Call) -> Flow[None]:
    yield from call.answer(200, b"OK")


def _echo(call: _Call) -> Flow[None]:
    body = yield from call.body()
    yield from call.answer(200, body)


def _relay(call: _Call) -> Flow[None]:
    """Send each piece of the body on as it comes."""
    yield from call.begin()
    while piece := (yield from ReceiveBody(call.within(FAR))):
        yield from call.send(piece)
    yield from call.send(b"", end=True)


def _late(call: _Call) -> Flow[None]:
    """Leave the body alone for a while, then count it."""
    yield from Sleep(call.within(0.05))
    body = yield from call.body()
    yield from call.answer(200, str(len(body)).encode())


def _refuse(call: _Call) -> Flow[None]:
    """Answer without looking at the body."""
    yield from call.answer(401, b"who are you?")


def _stream(call: _Call) -> Flow[None]:
    yield from call.begin()
    for piece in PIECES:
        yield from call.send(piece)
        if piece is PIECES[0]:
            call.facts.record("streaming")
        yield from Sleep(call.within(_PIECE_PAUSE))
    yield from call.send(b"", end=True)


def _wait(call: _Call) -> Flow[None]:
    """Wait for what never happens."""
    call.facts.record("waiting")
    yield from Wait(call.within(FAR), Signal())


def _goodbye(call: _Call) -> Flow[None]:
    """Begin to answer, wait, and say goodbye when the server goes down."""
    yield from call.begin()
    yield from call.send(b"begun\n")
    call.facts.record("streaming")
    try:
        yield from Wait(call.within(FAR), Signal())
    except Interrupted as interrupt:
        if not isinstance(interrupt.event, Shutdown):
            raise
        yield from call.send(b"goodbye\n", end=True)


def _endless(call: _Call) -> Flow[None]:
    yield from call.begin()
    while True:
        yield from call.send(_ENDLESS_PIECE)
        if call.bytes_out == len(_ENDLESS_PIECE):
            call.facts.record("streaming")


def _dripping(call: _Call) -> Flow[None]:
    """Stream for ever, mostly asleep."""
    yield from call.begin()
    while True:
        yield from call.send(b"drip\n")
        call.facts.record("streaming")
        yield from Sleep(call.within(_PIECE_PAUSE))


def _stalled(call: _Call) -> Flow[None]:
    """Stream for ever to a client that may not take it."""
    yield from call.begin()
    while True:
        yield from call.send(_ENDLESS_PIECE, STALL_TIMEOUT)


def _race(call: _Call) -> Flow[None]:
    def winner() -> Flow[str]:
        yield from Sleep(call.within(0.01))
        return "winner"

    def loser() -> Flow[str]:
        try:
            yield from Wait(call.within(FAR), Signal())
        except BaseException as error:
            call.facts.record("loser", type(error).__name__)
            raise
        return "loser"

    index, value = yield from Race(call.within(FAR), (loser(), winner(), loser()))
    yield from call.answer(200, f"{index} {value}".encode())


def _all(call: _Call) -> Flow[None]:
    def arm(number: int, seconds: float) -> Flow[int]:
        yield from Sleep(call.within(seconds))
        return number

    arms = (arm(1, 0.03), arm(2, 0.0), arm(3, 0.01))
    values = yield from All(call.within(FAR), arms)
    yield from call.answer(200, " ".join(map(str, values)).encode())


def _past(call: _Call) -> Flow[None]:
    """Ask for everything a handler may ask for, with a deadline in the past."""
    past = call.within(-1.0)
    signal = Signal()

    def arm() -> Flow[None]:
        yield from Sleep(call.within(FAR))

    flows: tuple[Operation[object], ...] = (
        Wait(past, signal),
        Race(past, (arm(),)),
        All(past, (arm(), arm())),
    )
    for operation in flows:
        try:
            yield from operation
        except OperationTimeout:
            call.facts.record("timed out", type(operation).__name__)
    yield from Sleep(past)
    yield from call.answer(200, b"still here")


def _timeouts(call: _Call) -> Flow[None]:
    """Time out again and again; each next operation must do as if nothing was."""
    signal = Signal()

    def slow() -> Flow[None]:
        yield from Sleep(call.within(FAR))

    def setter() -> Flow[None]:
        yield from Sleep(call.within(0.0))
        signal.set()

    for _ in range(5):
        for operation in (
            Wait(call.within(0.005), Signal()),
            Race(call.within(0.005), (slow(), slow())),
        ):
            try:
                yield from operation
            except OperationTimeout:
                call.facts.record("timed out", type(operation).__name__)
    yield from All(
        call.within(FAR), (Wait(call.within(FAR), signal).__iter__(), setter())
    )
    yield from call.answer(200, b"still here")


def _patient(call: _Call) -> Flow[None]:
    """Lose patience with the body twice, and then take it after all."""
    for seconds in (-1.0, 0.02):
        try:
            yield from ReceiveBody(call.within(seconds))
        except OperationError as error:
            call.facts.record("timed out", type(error).__name__)
    body = yield from call.body()
    yield from call.answer(200, body)


def _bug(call: _Call) -> Flow[None]:
    yield from Sleep(call.within(0.0))
    raise ZeroDivisionError("a bug in a handler")


def _late_bug(call: _Call) -> Flow[None]:
    yield from call.begin()
    yield from call.send(b"begun\n")
    raise ZeroDivisionError("a bug in a handler")


def _abort(call: _Call) -> Flow[None]:
    yield from call.begin()
    yield from call.send(b"begun\n")
    yield from AbortBody(call.within(FAR))


_Route: TypeAlias = Callable[[_Call], Flow[None]]

_ROUTES: dict[str, _Route] = {
    "/": _ok,
    "/abort": _abort,
    "/all": _all,
    "/bug": _bug,
    "/dripping": _dripping,
    "/echo": _echo,
    "/endless": _endless,
    "/goodbye": _goodbye,
    "/late": _late,
    "/late-bug": _late_bug,
    "/past": _past,
    "/patient": _patient,
    "/race": _race,
    "/refuse": _refuse,
    "/relay": _relay,
    "/stalled": _stalled,
    "/stream": _stream,
    "/timeouts": _timeouts,
    "/wait": _wait,
}
