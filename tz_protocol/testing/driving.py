"""The simulator's driver: performs the operations of one machine in virtual time.

The one rule: it keeps the driver contract (``machine.py``) to the letter, and asserts
that the flow keeps its side. Reference for anybody who writes a transport.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tz_protocol.errors import GatewayError, OperationBroken, OperationError
from tz_protocol.machine import ClientGone, Event, Machine
from tz_protocol.operations import (
    AbortBody,
    All,
    Connect,
    HttpCall,
    IsQuiet,
    NextSignal,
    Operation,
    OperationType,
    ProcessExit,
    Race,
    Read,
    ReceiveBody,
    Resolve,
    SendBody,
    SendHead,
    Signal,
    Sleep,
    Spawn,
    Wait,
    Write,
    WriteEof,
    WriteRead,
)
from tz_protocol.storeops import RedisCommands, RedisMessages
from tz_protocol.testing.callers import Caller
from tz_protocol.testing.peers import Stream
from tz_protocol.testing.stores import Asking
from tz_protocol.testing.surroundings import AT_ONCE, Process
from tz_protocol.testing.working import IN_THREADS, Working
from tz_protocol.testing.worlds import Failure, ProxiedReply, ScriptedRequest

if TYPE_CHECKING:
    from tz_protocol.testing.simulator import Simulator, Timer

__all__ = ["Driver"]


class Driver:
    """One machine, or one arm of a ``Race`` or ``All``; made by ``Simulator.spawn``."""

    def __init__(
        self,
        sim: Simulator,
        machine: Machine[Any],
        name: str,
        *,
        parent: Driver | None = None,
        client: Stream | None = None,
        request: ScriptedRequest | None = None,
        cancel_at: int | None = None,
        interrupt_at: tuple[int, Event] | None = None,
    ) -> None:
        self.sim = sim
        self.machine = machine
        self.name = name
        self.parent = parent
        self.root: Driver = self if parent is None else parent.root
        self.client = client
        self.caller = None if request is None else Caller(sim, request)
        self.operations: list[tuple[float, Operation[Any]]] = []
        self.started_at = sim.now
        self.finished_at: float | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_cancelled = False
        self._cancel_at = cancel_at
        self._interrupt_at = interrupt_at
        self._timers: list[Timer] = []
        self._arms: list[Driver] = []
        self._stage = ""
        self._reading: Stream | None = None
        self._writing: Stream | None = None
        self._signal: Signal | None = None
        self._asking: Asking | Working | None = None

    @property
    def is_done(self) -> bool:
        """True once the machine is done and dealt with."""
        return self.finished_at is not None

    def describe(self) -> str:
        """Return what this driver is doing, for messages."""
        return f"{self.name} in {_text(self.machine.operation)}"

    # -- the calls of the contract ------------------------------------------------

    def start(self) -> None:
        """Schedule the machine's start, and what its client will do."""
        self.park(self.sim.soon(lambda: self._call("start", self.machine.start)))
        if self.client is not None:
            self.client.on_gone = self._client_gone
            self.client.peer.poke()
            if self.client.is_eof:
                self._client_gone()
        gone_after = None if self.caller is None else self.caller.request.gone_after
        if gone_after is not None:
            self.sim.after(gone_after, self._tell_gone)

    def cancel(self) -> None:
        """End the machine here and now; its arms first."""
        if self.is_done:
            return
        self._abandon()
        self._note("cancel")
        self.is_cancelled = True
        try:
            self.machine.cancel(self.sim.now)
        except RuntimeError as error:
            raise AssertionError(f"{self.name}: {error}") from error
        self.sim.drain(self.machine)
        self._finish(None)

    def tell(self, event: Event) -> bool:
        """Tell the machine *event*; True if that ended its operation."""
        if self.is_done or self.machine.operation is None:
            return False
        if not self.machine.tell(event, self.sim.now):
            self._note(f"not interrupted by {event!r}")
            return False
        self._call(f"interrupted by {event!r}", self.machine.interrupted)
        return True

    def _client_gone(self) -> None:
        self.sim.soon(self._tell_gone)

    def _tell_gone(self) -> None:
        if self.machine.operation is None and not self.is_done:
            self.sim.soon(self._tell_gone)  # the machine has not been started yet
        else:
            self.tell(ClientGone())

    def resume(self, value: object) -> None:
        self._call(f"= {_text(value)}", lambda now: self.machine.resume(value, now))

    def _broken(self, error: BaseException) -> None:
        stage = self._stage
        word = getattr(error, "kind", type(error).__name__)
        self._call(
            f"! {word}", lambda now: self.machine.broken(error, now, stage=stage)
        )

    def _timed_out(self) -> None:
        stage = self._stage
        if isinstance(self.machine.operation, Sleep):
            self.resume(None)
            return
        self._call("timed out", lambda now: self.machine.timed_out(now, stage=stage))

    def _call(self, note: str, call: Callable[[float], Operation[Any] | None]) -> None:
        """Abandon what is outstanding, call the machine, begin what it asks for."""
        self._abandon()
        self._note(note)
        error: BaseException | None = None
        operation: Operation[Any] | None = None
        try:
            operation = call(self.sim.now)
        except BaseException as raised:  # kept: a test looks at it
            error = raised
        self.sim.drain(self.machine)
        if operation is None:
            self._finish(error)
        else:
            self._begin(operation)

    def _finish(self, error: BaseException | None) -> None:
        self.finished_at = self.sim.now
        self.result = self.machine.result
        self.error = error
        if self.client is not None:
            self.client.on_gone = None
            self.client.close(is_graceful=True)
        if self.parent is not None and not self.is_cancelled:
            self.parent._arm_done(self)

    def _note(self, text: str) -> None:
        self.sim.trace.append(f"{self.sim.now:.6f} {self.name}: {text}")

    # -- the outstanding operation ------------------------------------------------

    def _begin(self, operation: Operation[Any]) -> None:
        sim, root = self.sim, self.root
        root.operations.append((sim.now, operation))
        self._note(f"{_text(operation)} by {operation.deadline:.6f}")
        count = len(root.operations)
        if count == root._cancel_at:
            root.cancel()
            return
        at, event = root._interrupt_at or (0, None)
        if event is not None and count == at and root.tell(event):
            return
        perform = _PERFORM.get(type(operation))
        if perform is None and type(operation) not in AT_ONCE:
            message = f"{type(operation).__name__} is not an operation of the core"
            raise AssertionError(message)
        handle = getattr(operation, "handle", None)
        if handle is not None:
            assert isinstance(handle, Stream), "an operation on what is not a handle"
            assert handle.closed_at is None, f"{handle!r} is used after Close"
        if isinstance(operation, (Race, All)):
            self._arms = [
                Driver(sim, self.machine.child(flow), f"{self.name}.{n}", parent=self)
                for n, flow in enumerate(operation.flows)
            ]
        self.park(sim.at(operation.deadline, self._timed_out))
        if operation.deadline <= sim.now:
            return
        if perform is not None:
            perform(self, operation)
        else:
            self._at_once(operation)

    def park(self, timer: Timer) -> None:
        """Keep *timer* for as long as the operation is outstanding."""
        self._timers.append(timer)

    def _abandon(self) -> None:
        """Leave the outstanding operation: forget its timers, cancel its arms."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.on_readable = None
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.on_writable = None
        signal, self._signal = self._signal, None
        if signal is not None:
            signal.forget(self._signalled)
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.end()
        self._stage = ""
        arms, self._arms = self._arms, []
        for arm in arms:
            arm.cancel()

    def answer(self, value: object) -> None:
        """Resume with *value*, at this instant; the deadline is met."""
        for timer in self._timers:
            timer.cancel()
        self.park(self.sim.soon(lambda: self.resume(value)))

    def fail(self, error: BaseException, after: float = 0.0) -> None:
        self.park(self.sim.after(after, lambda: self._broken(error)))

    def _at_once(self, operation: Operation[Any]) -> None:
        try:
            value = AT_ONCE[type(operation)](self.sim.surroundings, operation)
        except (OSError, KeyError, OperationBroken) as error:
            self.fail(error)
        else:
            self.answer(value)

    # -- byte streams -------------------------------------------------------------

    def _connect(self, operation: Connect) -> None:
        name = f"{operation.host}:{operation.port}"
        behaviour = self.sim.surroundings.next_upstream(operation.host, operation.port)
        if isinstance(behaviour, Failure):
            self._meet(behaviour)
            return

        def connected() -> None:
            self.resume(self.sim.open_stream(name, behaviour, operation.tls))

        self.park(self.sim.after(behaviour.connect_after, connected))

    def _resolve(self, operation: Resolve) -> None:
        found = self.sim.surroundings.next_addresses(operation.host)
        if isinstance(found, Failure):
            self._meet(found)
        else:
            self.answer(found)

    def _http_call(self, operation: HttpCall) -> None:
        found = self.sim.surroundings.next_proxied(operation.url)
        if isinstance(found, Failure):
            self._meet(found)
            return
        reply: ProxiedReply = found

        def connected() -> None:
            (operation.on_connected or bool)(self.sim.now)
            self.park(self.sim.after(reply.head_after, answered))

        def answered() -> None:
            stream = self.sim.open_stream(operation.url, reply.script, operation.tls)
            self.resume((reply.status, reply.headers, stream))

        self.park(self.sim.after(reply.script.connect_after, connected))

    def _meet(self, failure: Failure) -> None:
        if failure.kind != "hang":
            self.fail(OperationBroken(failure.kind), failure.after)

    def _read(self, operation: Read | WriteRead) -> None:
        stream = _stream_of(operation)
        assert stream.on_readable is None, f"{stream!r} is read twice at once"
        self._stage = "read" if isinstance(operation, WriteRead) else ""
        self._reading = stream
        stream.on_readable = lambda: self.park(self.sim.soon(self._finish_read))
        if stream.is_readable:
            stream.on_readable()

    def _finish_read(self) -> None:
        stream = self._reading
        if stream is None or not stream.is_readable:
            return
        stream.reads += 1
        try:
            data = stream.read(self.sim.split(stream.reads - 1))
        except OSError as error:
            self._broken(error)
        else:
            self.resume(data)

    def _write(self, operation: Write | WriteRead) -> None:
        stream = _stream_of(operation)
        assert stream.on_writable is None, f"{stream!r} is written twice at once"
        self._stage = "write" if isinstance(operation, WriteRead) else ""
        try:
            stream.write(operation.data)
        except OSError as error:
            self.fail(error)
            return
        self._writing = stream
        stream.on_writable = self._finish_write
        if stream.is_writable:
            self._finish_write()

    def _finish_write(self) -> None:
        operation, stream = self.machine.operation, self._writing
        if stream is None:
            return
        self._writing = stream.on_writable = None
        if stream.error is not None:
            self.fail(stream.error)
        elif isinstance(operation, WriteRead):
            self._read(operation)
        else:
            self.answer(None)

    def _write_eof(self, operation: WriteEof) -> None:
        _stream_of(operation).write_eof()
        self.answer(None)

    def _is_quiet(self, operation: IsQuiet) -> None:
        self.answer(not _stream_of(operation).is_readable)

    # -- time and other machines --------------------------------------------------

    def _sleep(self, operation: Sleep) -> None:
        """The timer of the deadline does it all."""

    def _wait(self, operation: Wait) -> None:
        self._wait_for(operation.signal)

    def _wait_for(self, signal: Signal) -> None:
        self._signal = signal
        signal.on_set(self._signalled)

    def _signalled(self) -> None:
        self.park(self.sim.soon(self._finish_wait))

    def _finish_wait(self) -> None:
        operation = self.machine.operation
        if isinstance(operation, ProcessExit):
            process = operation.process
            self.resume(process.status if isinstance(process, Process) else None)
        else:
            self.resume(None)

    def _start_arms(self, operation: Race | All) -> None:
        for arm in self._arms:
            arm.start()
        if not self._arms and isinstance(operation, All):
            self.answer(())

    def _arm_done(self, arm: Driver) -> None:
        operation, error = self.machine.operation, arm.error
        if error is None:
            if isinstance(operation, Race):
                self.resume((self._arms.index(arm), arm.result))
            elif all(other.is_done for other in self._arms):
                self.resume(tuple(other.result for other in self._arms))
        elif isinstance(error, (OperationError, GatewayError, OSError)):
            self._broken(error)
        else:
            # A bug ends the machine; its flow is only told to settle.
            self._abandon()
            self.machine.cancel(self.sim.now)
            self.sim.drain(self.machine)
            self._finish(error)

    # -- stores -------------------------------------------------------------------

    def _ask_redis(self, operation: RedisCommands | RedisMessages) -> None:
        store = self.sim.surroundings.redis_at(operation.url)
        self._asking = Asking(self, store, operation)

    def _work(self, operation: Operation[Any]) -> None:
        self._asking = Working(self, operation)

    # -- processes and signals ----------------------------------------------------

    def _next_signal(self, operation: NextSignal) -> None:
        surroundings = self.sim.surroundings
        time = surroundings.next_signal_at()
        if time is not None:
            take = surroundings.take_signal
            self.park(self.sim.at(time, lambda: self.resume(take())))

    def _spawn(self, operation: Spawn) -> None:
        process = self.sim.surroundings.spawn(operation)
        script = self.sim.surroundings.script_of(process)
        if script.after is not None:
            self.sim.after(script.after, lambda: process.exit(script.status))
        self.answer(process)

    def _process_exit(self, operation: ProcessExit) -> None:
        assert isinstance(operation.process, Process), "exit of what is no process"
        self._wait_for(operation.process.ended)

    # -- what a handler asks for --------------------------------------------------

    def _handler_operation(self, operation: Operation[Any]) -> None:
        caller = self.root.caller
        assert caller is not None, f"{self.name} has no request= to answer"
        caller.perform(self, operation)


def _stream_of(operation: Read | Write | WriteEof | WriteRead | IsQuiet) -> Stream:
    handle = operation.handle
    assert isinstance(handle, Stream), "an operation on what is not a handle"
    return handle


def _text(value: object) -> str:
    """Return a description that is the same in every run and holds no payload."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes {zlib.crc32(value):08x}"
    if isinstance(value, (Write, WriteRead)):
        return f"{type(value).__name__}({value.handle!r}, {_text(value.data)})"
    if isinstance(value, (Read, IsQuiet, WriteEof)):
        return f"{type(value).__name__}({value.handle!r})"
    if isinstance(value, Connect):
        return f"Connect({value.host}:{value.port})"
    if isinstance(value, SendBody):
        return f"SendBody({_text(value.data)}{', end' if value.end else ''})"
    if isinstance(value, SendHead):
        return f"SendHead({value.head.status})"
    if isinstance(value, (Race, All)):
        return f"{type(value).__name__}({len(value.flows)} flows)"
    if isinstance(value, (Stream, Process, bool, int, float)) or value is None:
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    return type(value).__name__


_PERFORM: dict[OperationType, Callable[[Driver, Any], None]] = {
    AbortBody: Driver._handler_operation,
    All: Driver._start_arms,
    Connect: Driver._connect,
    HttpCall: Driver._http_call,
    IsQuiet: Driver._is_quiet,
    NextSignal: Driver._next_signal,
    ProcessExit: Driver._process_exit,
    Race: Driver._start_arms,
    Read: Driver._read,
    RedisCommands: Driver._ask_redis,
    RedisMessages: Driver._ask_redis,
    ReceiveBody: Driver._handler_operation,
    Resolve: Driver._resolve,
    SendBody: Driver._handler_operation,
    SendHead: Driver._handler_operation,
    Sleep: Driver._sleep,
    Spawn: Driver._spawn,
    Wait: Driver._wait,
    Write: Driver._write,
    WriteEof: Driver._write_eof,
    WriteRead: Driver._write,
    **dict.fromkeys(IN_THREADS, Driver._work),
}
