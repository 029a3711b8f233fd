"""Plays the scripts of the conformance suite over real, blocking sockets.

The one rule: every wait is bounded and ends on bytes or on a fact, never on time.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from tz_protocol.machine import Event
from tz_protocol.testing import (
    AwaitFact,
    Close,
    Facts,
    HalfClose,
    Receive,
    ReceiveBytes,
    ReceiveEof,
    ReceiveResponse,
    Reset,
    Send,
    Step,
    Tell,
    take_message,
)
from tz_protocol.testing.conformance import Observed, Scenario

BOUND = 20.0
"""Seconds after which a wait is taken for one that never ends."""

KERNEL_BYTES = 32 * 1024 * 1024
"""More than the kernel's automatic buffers of both ends of a loopback connection."""


class FactWaiter:
    """Lets client threads wait for what the server's thread records."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._condition = threading.Condition()
        facts.listeners.append(self._recorded)

    def _recorded(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def wait(self, name: str, count: int = 1) -> bool:
        """Return False if the fact has not been recorded within the bound."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._facts.count(name) >= count, BOUND
            )


class ScriptedClient:
    """One client of one scenario; call :meth:`play` in a thread of its own."""

    def __init__(
        self,
        address: tuple[str, int],
        scenario: Scenario,
        waiter: FactWaiter,
        tell: Callable[[Event], None],
    ) -> None:
        self._address = address
        self._scenario = scenario
        self._waiter = waiter
        self._tell = tell
        self._buffer = bytearray()
        self._is_eof = False
        self.segments: list[bytes] = []
        self.unfinished: tuple[Step, ...] = scenario.client
        self.problem: BaseException | None = None

    def play(self) -> None:
        """Play the script; what went wrong is kept in ``problem``."""
        steps = self._scenario.client
        try:
            with socket.create_connection(self._address, BOUND) as self._socket:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for index, step in enumerate(steps):
                    self.unfinished = steps[index:]
                    if not self._perform(step):
                        return
                self.unfinished = ()
        except BaseException as error:
            self.problem = error

    def observed(self, facts: Facts) -> Observed:
        """Return what this client saw, for the scenario's check."""
        return Observed(
            received=b"".join(self.segments),
            segments=tuple(self.segments),
            unfinished=self.unfinished,
            facts=facts,
            kernel_bytes=KERNEL_BYTES,
            methods=self._scenario.methods,
        )

    def _perform(self, step: Step) -> bool:
        match step:
            case Send():
                self._send(step)
            case Receive() | ReceiveBytes() | ReceiveResponse():
                return self._read_until(step)
            case ReceiveEof():
                while self._receive():
                    pass
            case HalfClose():
                self._socket.shutdown(socket.SHUT_WR)
            case Close():
                self._socket.close()
            case Reset():
                linger = struct.pack("ii", 1, 0)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self._socket.close()
            case AwaitFact(name, count):
                return self._waiter.wait(name, count)
            case Tell(event):
                self._tell(event)
            case _:
                raise TypeError(f"{step!r} cannot be played over a socket")
        return True

    def _send(self, step: Send) -> None:
        size = step.piece or len(step.data)
        # A server that refuses a body early may close before it has all of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for start in range(0, len(step.data), size):
                self._socket.sendall(step.data[start : start + size])

    def _receive(self) -> bool:
        if self._is_eof:
            return False
        try:
            data = self._socket.recv(65_536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._is_eof = True
            return False
        self.segments.append(data)
        self._buffer += data
        return True

    def _read_until(self, step: Receive | ReceiveBytes | ReceiveResponse) -> bool:
        while (count := self._whole(step)) is None:
            if not self._receive() and self._whole(step) is None:
                return False
        del self._buffer[:count]
        return True

    def _whole(self, step: Receive | ReceiveBytes | ReceiveResponse) -> int | None:
        """Return how many bytes *step* takes, None if they are not there yet."""
        match step:
            case Receive(until):
                at = self._buffer.find(until)
                return at + len(until) if at >= 0 else None
            case ReceiveBytes(count):
                return count if len(self._buffer) >= count else None
            case ReceiveResponse(method):
                found = take_message(
                    self._buffer, is_response=True, method=method, is_eof=self._is_eof
                )
                return found[1] if found is not None else None


def play(
    scenario: Scenario,
    address: tuple[str, int],
    facts: Facts,
    tell: Callable[[Event], None],
) -> list[Observed]:
    """Play *scenario* against a server; return what each client saw.

    Args:
        scenario: What to play.
        address: Of the server.
        facts: That the server's handlers record in.
        tell: Has the server tell an event to its machines; any thread may call it.
    """
    waiter = FactWaiter(facts)
    clients = [
        ScriptedClient(address, scenario, waiter, tell) for _ in range(scenario.clients)
    ]
    threads = [threading.Thread(target=client.play) for client in clients]
    for thread in threads:
        thread.start()
    for step in scenario.control:
        if isinstance(step, AwaitFact):
            assert waiter.wait(step.name, step.count), f"no fact {step.name!r}"
        elif isinstance(step, Tell):
            tell(step.event)
    for thread in threads:
        thread.join(2 * BOUND)
        assert not thread.is_alive(), "a client never ended"
    for client in clients:
        if client.problem is not None:
            raise client.problem
    return [client.observed(facts) for client in clients]
