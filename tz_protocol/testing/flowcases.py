"""Flows that a driver is put through, with what each must return.

The one rule: a case runs against four simple peers and the driver's own clock, and
returns plain data, the same with every driver. It closes what it opens, so that a
runner can cancel it at every step and then look whether each peer saw an end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from tz_protocol.errors import (
    Cancelled,
    OperationBroken,
    OperationError,
    OperationTimeout,
)
from tz_protocol.machine import Context
from tz_protocol.notices import Close
from tz_protocol.operations import (
    All,
    Connect,
    Flow,
    Handle,
    IsQuiet,
    Operation,
    Print,
    Race,
    Read,
    Resolve,
    ResolveSecret,
    Signal,
    Sleep,
    Wait,
    Write,
    WriteRead,
)
from tz_protocol.testing.worlds import Facts

__all__ = ["FLOW_CASES", "NOBODY", "Address", "FlowCase", "Peers", "observed"]

Address = tuple[str, int]

NOBODY = ("nobody.invalid", "a..b")
"""A name that nobody has (RFC 6761, section 6.4), and what is no name."""

_FAR = 30.0
_SHORT = 0.05
_LARGE = bytes(range(256)) * 4_096


@dataclass(frozen=True, slots=True)
class Peers:
    """Where a runner has put the four peers: (host, port) each."""

    echo: Address
    """Sends back what it gets, as it gets it; closes when its peer has."""
    silent: Address
    """Accepts, reads, and never says anything."""
    closing: Address
    """Accepts and closes at once."""
    refusing: Address
    """Nobody listens there."""


@dataclass(frozen=True, slots=True)
class FlowCase:
    """One flow and its result."""

    name: str
    make: Callable[[Run], Flow[object]]
    expected: object


class Run:
    """What a case's flow works with: the time, the peers, and its own handles."""

    def __init__(self, context: Context, peers: Peers, facts: Facts) -> None:
        self.context = context
        self.peers = peers
        self.facts = facts

    def within(self, seconds: float = _FAR) -> float:
        """Return the deadline that lies *seconds* ahead."""
        return self.context.now + seconds

    def connect(self, address: Address) -> Flow[Handle]:
        """Return an open handle; the caller hands it to :meth:`close`."""
        handle = yield from Connect(self.within(), *address)
        self.facts.record("opened")
        return handle

    def close(self, handle: Handle) -> None:
        """Close the handle, by notice."""
        self.context.tell(Close(handle))

    def outcome(self, operation: Operation[object]) -> Flow[str]:
        """Perform *operation* and return in one word how it went."""
        try:
            yield from operation
        except OperationTimeout:
            return "timeout"
        except OperationBroken as error:
            return error.kind
        return "done"

    def outcomes(self, operations: Iterable[Operation[object]]) -> Flow[list[str]]:
        """Perform one after the other; return how each went."""
        words = []
        for operation in operations:
            word = yield from self.outcome(operation)
            words.append(word)
        return words

    def read_exactly(self, handle: Handle, count: int) -> Flow[bytes]:
        """Read *count* bytes, or fewer if the stream ends."""
        pieces: list[bytes] = []
        while count:
            data = yield from Read(self.within(), handle)
            if not data:
                break
            pieces.append(data)
            count -= len(data)
        return b"".join(pieces)

    def exchange(self, handle: Handle, data: bytes) -> Flow[bytes]:
        """Write *data* and read as many bytes."""
        first = yield from WriteRead(self.within(), handle, data)
        rest = yield from self.read_exactly(handle, len(data) - len(first))
        return first + rest

    def forever(self) -> Flow[str]:
        """Wait for what never happens; records the end of the wait."""
        try:
            yield from Wait(self.within(), Signal())
        except Cancelled:
            self.facts.record("arm cancelled")
            raise
        return "woken"

    def pause(self, seconds: float, value: str = "") -> Flow[str]:
        """Sleep, then return *value*."""
        yield from Sleep(self.within(seconds))
        return value


def observed(
    flow: Flow[object], on_operation: Callable[[int, Operation[object]], None]
) -> Flow[object]:
    """Return *flow* with *on_operation* called before each of its operations.

    The callback gets the operation's number, from 1. A runner cancels from there, at
    every step in turn, without a clock.

    Args:
        flow: A flow that has not been started. Operations of arms are not counted.
        on_operation: Called synchronously by the machine that is being stepped.
    """
    count = 0
    step: Callable[[], Operation[object]] = partial(next, flow)
    while True:
        try:
            operation = step()
        except StopIteration as stop:
            return stop.value
        count += 1
        on_operation(count, operation)
        try:
            value = yield operation
        except BaseException as error:
            step = partial(flow.throw, error)
        else:
            step = partial(flow.send, value)


# -- the cases ------------------------------------------------------------------


def _echo(run: Run) -> Flow[object]:
    handle = yield from run.connect(run.peers.echo)
    try:
        first = yield from run.exchange(handle, b"one")
        yield from Write(run.within(), handle, b"two")
        second = yield from run.read_exactly(handle, 3)
        return first + second
    finally:
        run.close(handle)


def _large(run: Run) -> Flow[object]:
    """More than any buffer on the way holds, both ways at once."""
    handle = yield from run.connect(run.peers.echo)

    def write() -> Flow[None]:
        for start in range(0, len(_LARGE), 50_000):
            yield from Write(run.within(), handle, _LARGE[start : start + 50_000])

    try:
        flows = (write(), run.read_exactly(handle, len(_LARGE)))
        _, received = yield from All(run.within(), flows)
        return received == _LARGE
    finally:
        run.close(handle)


def _past_deadlines(run: Run) -> Flow[object]:
    handle = yield from run.connect(run.peers.echo)
    past = run.within(-1.0)
    try:
        operations: tuple[Operation[object], ...] = (
            Read(past, handle),
            Wait(past, Signal()),
            Connect(past, *run.peers.silent),
            Race(past, (run.forever(), run.pause(0.0))),
            All(past, (run.forever(),)),
            Sleep(past),
        )
        words = yield from run.outcomes(operations)
        answer = yield from run.exchange(handle, b"alive")
        return words, answer
    finally:
        run.close(handle)


def _read_timeout(run: Run) -> Flow[object]:
    """No byte may be lost to a read that timed out, however often."""
    handle = yield from run.connect(run.peers.echo)
    try:
        reads = (Read(run.within(0.01), handle) for _ in range(3))
        words = yield from run.outcomes(reads)
        first = yield from WriteRead(run.within(), handle, b"a")
        words.append((yield from run.outcome(Read(run.within(0.01), handle))))
        second = yield from WriteRead(run.within(), handle, b"b")
        return words, first + second
    finally:
        run.close(handle)


def _alternating_deadlines(run: Run) -> Flow[object]:
    """A driver's one timer, armed early, must not end a later deadline's operation."""
    handle = yield from run.connect(run.peers.echo)
    try:
        received = b""
        for seconds in (5.0, _FAR) * 5:
            received += yield from WriteRead(run.within(seconds), handle, b"x")
            yield from run.outcome(Read(run.within(0.001), handle))
            yield from Sleep(run.within(0.002))
        return received
    finally:
        run.close(handle)


def _stages(run: Run) -> Flow[object]:
    """A peer that is silent is to blame for reading, not for writing."""
    handle = yield from run.connect(run.peers.silent)
    try:
        yield from WriteRead(run.within(_SHORT), handle, b"x")
    except OperationTimeout as error:
        return error.stage
    finally:
        run.close(handle)
    return "no timeout"


def _resolved(run: Run) -> Flow[object]:
    """Connect to the address that a name had when it was asked for."""
    host, port = run.peers.echo
    addresses = yield from Resolve(run.within(), host, port)
    handle = yield from run.connect((addresses[0], port))
    try:
        return (yield from run.exchange(handle, b"pinned"))
    finally:
        run.close(handle)


def _unresolved(run: Run) -> Flow[object]:
    return (yield from run.outcomes(Resolve(run.within(), host, 80) for host in NOBODY))


def _refused(run: Run) -> Flow[object]:
    return (yield from run.outcome(Connect(run.within(), *run.peers.refusing)))


def _closed(run: Run) -> Flow[object]:
    handle = yield from run.connect(run.peers.closing)
    try:
        data = yield from Read(run.within(), handle)
        again = yield from Read(run.within(), handle)
        is_quiet = yield from IsQuiet(run.within(), handle)
        return data, again, is_quiet
    finally:
        run.close(handle)


def _quiet(run: Run) -> Flow[object]:
    handle = yield from run.connect(run.peers.echo)
    try:
        before = yield from IsQuiet(run.within(), handle)
        answer = yield from WriteRead(run.within(), handle, b"x")
        after = yield from IsQuiet(run.within(), handle)
        return before, answer, after
    finally:
        run.close(handle)


def _race(run: Run) -> Flow[object]:
    flows = (run.forever(), run.pause(0.01, "won"), run.forever())
    result = yield from Race(run.within(), flows)
    return result, run.facts.count("arm cancelled")


def _race_keeps_bytes(run: Run) -> Flow[object]:
    """A read that lost a race leaves the stream as it was."""
    handle = yield from run.connect(run.peers.echo)
    try:
        for _ in range(3):
            index, _ = yield from Race(
                run.within(), (iter(Read(run.within(), handle)), run.pause(0.01))
            )
            if index != 1:
                return "read something"
        return (yield from run.exchange(handle, b"whole"))
    finally:
        run.close(handle)


def _race_nested(run: Run) -> Flow[object]:
    def inner() -> Flow[object]:
        flows = (run.forever(), run.pause(0.02, "inner"))
        return (yield from Race(run.within(), flows))

    def both() -> Flow[object]:
        return (yield from All(run.within(), (inner(), run.pause(0.0, "outer"))))

    return (yield from Race(run.within(), (run.forever(), both())))


def _race_error(run: Run) -> Flow[object]:
    def failing() -> Flow[object]:
        yield from Sleep(run.within(0.01))
        raise OperationBroken("tls", "told as it is")

    words = yield from run.outcomes(
        kind(run.within(), (run.forever(), failing())) for kind in (Race, All)
    )
    return words, run.facts.count("arm cancelled")


def _race_timeout(run: Run) -> Flow[object]:
    words = yield from run.outcomes(
        kind(run.within(_SHORT), (run.forever(), run.forever())) for kind in (Race, All)
    )
    yield from Sleep(run.within(0.0))
    return words, run.facts.count("arm cancelled")


def _all(run: Run) -> Flow[object]:
    flows = tuple(run.pause(n / 100, str(n)) for n in (3, 0, 2))
    values = yield from All(run.within(), flows)
    none = yield from All(run.within(), ())
    return values, none


def _all_connections(run: Run) -> Flow[object]:
    """Arms own what they open."""
    flows = tuple(_echo(run) for _ in range(4))
    return (yield from All(run.within(), flows))


def _meeting(run: Run) -> Flow[object]:
    signal = Signal()

    def setter() -> Flow[str]:
        yield from Sleep(run.within(0.01))
        signal.set()
        return "set"

    waiting = [iter(Wait(run.within(), signal)) for _ in range(3)]
    values = yield from All(run.within(), (*waiting, setter()))
    yield from Wait(run.within(), signal)
    return values


def _missing(run: Run) -> Flow[object]:
    location = "env::TZ_CONFORMANCE_NO_SUCH_VARIABLE"
    word = yield from run.outcome(ResolveSecret(run.within(), location))
    yield from Print(run.within(), "")
    return word


def _caught(run: Run) -> Flow[object]:
    """An error of one operation is over once it was caught."""
    words = []
    for address in (run.peers.refusing, run.peers.echo, run.peers.refusing):
        try:
            handle = yield from run.connect(address)
        except OperationError:
            words.append("no")
            continue
        try:
            answer = yield from run.exchange(handle, b"yes")
            words.append(answer.decode())
        finally:
            run.close(handle)
    return words


FLOW_CASES: tuple[FlowCase, ...] = (
    FlowCase("echo", _echo, b"onetwo"),
    FlowCase("large, both ways at once", _large, expected=True),
    FlowCase(
        "operations past their deadlines",
        _past_deadlines,
        ([*["timeout"] * 5, "done"], b"alive"),
    ),
    FlowCase("read that times out", _read_timeout, (["timeout"] * 4, b"ab")),
    FlowCase("alternating deadlines", _alternating_deadlines, b"x" * 10),
    FlowCase("stage of a timeout", _stages, "read"),
    FlowCase("refused", _refused, "refused"),
    FlowCase("resolved and pinned", _resolved, b"pinned"),
    FlowCase("names that are none", _unresolved, ["dns", "dns"]),
    FlowCase("closed by the peer", _closed, (b"", b"", False)),
    FlowCase("quiet", _quiet, (True, b"x", True)),
    FlowCase("Race of flows", _race, ((1, "won"), 2)),
    FlowCase("Race that a read loses", _race_keeps_bytes, b"whole"),
    FlowCase("Race inside All inside Race", _race_nested, (1, ((1, "inner"), "outer"))),
    FlowCase("arm that fails", _race_error, (["tls", "tls"], 2)),
    FlowCase("Race and All that time out", _race_timeout, (["timeout"] * 2, 4)),
    FlowCase("All of flows", _all, (("3", "0", "2"), ())),
    FlowCase("All over connections", _all_connections, (b"onetwo",) * 4),
    FlowCase("Wait", _meeting, (None, None, None, "set")),
    FlowCase("secret that is missing", _missing, "missing"),
    FlowCase("errors that were caught", _caught, ["no", "yes", "no"]),
)
"""Everything that a driver of lone machines is put through."""
