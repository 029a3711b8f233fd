"""Byte streams between a flow and scripted peers, in virtual time.

The one rule: nothing here calls a machine. A change wakes whoever waits by way of the
simulator's queue, so that every step happens at the top level and in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from tz_protocol.operations import CHUNK_LIMIT, TlsOptions
from tz_protocol.testing.messages import Message, take_message
from tz_protocol.testing.worlds import (
    AwaitFact,
    Close,
    Echo,
    HalfClose,
    Pause,
    Receive,
    ReceiveBytes,
    ReceiveEof,
    ReceiveRequest,
    ReceiveResponse,
    Reset,
    Script,
    Send,
    Stall,
    Step,
    Tell,
)

if TYPE_CHECKING:
    from tz_protocol.testing.simulator import Simulator

__all__ = ["Peer", "Stream"]

_Need: TypeAlias = float | Callable[[], bool]
"""What a script waits for: some seconds, or a condition to become true."""


class Stream:
    """The flow's end of a connection: the opaque handle that operations carry."""

    def __init__(
        self, sim: Simulator, name: str, script: Script, tls: TlsOptions | None = None
    ) -> None:
        self.sim = sim
        self.name = name
        self.tls = tls
        self.opened_at = sim.now
        self.closed_at: float | None = None
        self.writes: list[tuple[float, bytes]] = []
        """(time, data) of every ``Write``, as the flow asked for them."""
        self.inbox = bytearray()
        """Arrived and not yet read by the flow."""
        self.unsent = bytearray()
        """Written by the flow and not yet taken by the network."""
        self.reads = 0
        """How many reads it has answered."""
        self.is_eof = False
        self.is_write_ended = False
        """True once the flow has ended its own direction."""
        self.error: OSError | None = None
        self.on_readable: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.on_gone: Callable[[], None] | None = None
        """For a client's stream: called when its end of stream or a reset is seen."""
        self.peer = Peer(self, script)

    def __repr__(self) -> str:
        """Return the stream's name, which is the same in every run."""
        return f"<{self.name}>"

    # -- for the driver -----------------------------------------------------------

    @property
    def is_readable(self) -> bool:
        """True if a read would not wait."""
        return bool(self.inbox) or self.is_eof or self.closed_at is not None

    @property
    def is_writable(self) -> bool:
        """True if a write would be done: little is unsent, or all is lost."""
        return len(self.unsent) < CHUNK_LIMIT or self.error is not None

    def read(self, limit: int) -> bytes:
        """Return at most *limit* arrived bytes, ``b""`` at the end of the stream.

        Raises:
            OSError: The connection was reset and everything before that was read, or
                another machine has closed it meanwhile.
        """
        if self.closed_at is not None:
            raise ConnectionAbortedError("closed while it was being read")
        if not self.inbox and self.error is not None:
            raise self.error
        data = bytes(self.inbox[:limit])
        del self.inbox[:limit]
        self.peer.poke()
        return data

    def write(self, data: bytes) -> None:
        """Give *data* to the network, as far as the peer's window lets it.

        Raises:
            OSError: The peer has closed or reset the connection.
        """
        if self.error is not None:
            raise self.error
        assert not self.is_write_ended, f"{self!r} is written after WriteEof"
        self.writes.append((self.sim.now, data))
        if self.peer.is_closed:
            raise ConnectionResetError("the peer has closed the connection")
        self.unsent += data
        self.transmit()

    def write_eof(self) -> None:
        """End the flow's own direction; what is unsent still reaches the peer."""
        self.is_write_ended = True
        self.peer.poke()

    def close(self, *, is_graceful: bool) -> None:
        """Close; unsent bytes still reach the peer only if *is_graceful*."""
        if self.closed_at is not None:
            return
        self.closed_at = self.sim.now
        self.inbox.clear()
        if not is_graceful:
            self.unsent.clear()
        if self.on_readable is not None:
            self.on_readable()
        self.peer.poke()

    # -- for the peer -------------------------------------------------------------

    def transmit(self) -> None:
        """Move unsent bytes into the peer's window; wake a writer that waited."""
        taken = self.peer.accept(self.unsent)
        del self.unsent[:taken]
        if self.on_writable is not None and self.is_writable:
            self.on_writable()

    def deliver(self, data: bytes) -> None:
        """Let *data* arrive; wake a reader that waited."""
        self.inbox += data
        if self.on_readable is not None:
            self.on_readable()

    def end(self, error: OSError | None = None) -> None:
        """Let the end of the stream arrive, or a reset if *error* is given."""
        self.is_eof = True
        self.error = error
        if error is not None:
            self.unsent.clear()
            if self.on_writable is not None:
                self.on_writable()
        if self.on_readable is not None:
            self.on_readable()
        if self.on_gone is not None:
            self.on_gone()


class Peer:
    """The other end: plays one script over one stream."""

    def __init__(self, stream: Stream, script: Script) -> None:
        self.stream = stream
        self.script = script
        self.is_closed = False
        """True once the peer has closed both directions or reset."""
        self.received = bytearray()
        """Every byte that reached the peer's network window."""
        self.messages: list[Message] = []
        """What ``ReceiveRequest`` and ``ReceiveResponse`` read, in order."""
        self.bytes_sent = 0
        self.unfinished: tuple[Step, ...] = script.steps
        """Steps not yet done; the current one first. Empty at the script's end."""
        self._window = bytearray()
        self._buffer = bytearray()
        self._is_reading = False
        self._is_poked = False
        self._need: _Need | None = None
        self._play: Iterator[_Need] | None = self._steps()

    def poke(self) -> None:
        """Have the script looked at again, at this instant but not inside this call."""
        if not self._is_poked:
            self._is_poked = True
            self.stream.sim.soon(self._advance)

    def accept(self, data: bytearray) -> int:
        """Take what fits into the window; return how many bytes that was."""
        window = self.script.window
        room = len(data) if window is None else max(0, window - len(self._window))
        taken = data[:room]
        self._window += taken
        self.received += taken
        if taken:
            self.poke()
        return len(taken)

    # -- playing ------------------------------------------------------------------

    def _advance(self) -> None:
        self._is_poked = False
        if self._is_reading and self._window:
            self._buffer += self._window
            self._window.clear()
            self.stream.transmit()
        while self._play is not None:
            need = self._need
            if need is not None and (isinstance(need, float) or not need()):
                return
            try:
                need = self._need = next(self._play)
            except StopIteration:
                self._play = None
                return
            if isinstance(need, float):
                self.stream.sim.after(need, self._slept)
                return

    def _slept(self) -> None:
        self._need = None
        self._advance()

    def _steps(self) -> Iterator[_Need]:
        steps = self.script.steps
        while True:
            for index, step in enumerate(steps):
                self.unfinished = steps[index:]
                yield from self._perform(step)
            if not self.script.repeat or self.is_closed or self._is_abandoned:
                break
        self.unfinished = ()
        if not self.is_closed:
            yield from self._read_until(lambda: self._is_abandoned)

    @property
    def _is_abandoned(self) -> bool:
        """True once the flow's direction has ended and all its bytes are here."""
        stream = self.stream
        has_ended = stream.is_write_ended or stream.closed_at is not None
        return has_ended and not stream.unsent

    def _perform(self, step: Step) -> Iterator[_Need]:
        stream = self.stream
        match step:
            case Send():
                yield from self._send(step)
            case Pause(seconds):
                yield float(seconds)
            case Receive() | ReceiveBytes() | ReceiveRequest() | ReceiveResponse():
                yield from self._read_until(lambda: self._take(step))
            case ReceiveEof():
                yield from self._read_until(lambda: self._is_abandoned)
                self._buffer.clear()
            case Echo():
                yield from self._echo()
            case HalfClose():
                stream.end()
            case Close():
                self.is_closed = True
                stream.end()
            case Reset():
                self.is_closed = True
                stream.end(ConnectionResetError("connection reset by peer"))
            case Stall():
                yield lambda: False
            case AwaitFact(name, count):
                facts = stream.sim.facts
                facts.listeners.append(self.poke)
                yield lambda: facts.count(name) >= count
                facts.listeners.remove(self.poke)
            case Tell(event):
                stream.sim.tell(event)

    def _send(self, step: Send) -> Iterator[_Need]:
        stream, data = self.stream, step.data
        if step.after:
            yield float(step.after)
        size = step.piece or len(data)
        for start in range(0, len(data), size or 1):
            if start and step.every:
                yield float(step.every)
            at, end = start, min(start + size, len(data))
            while at < end and stream.closed_at is None:
                room = CHUNK_LIMIT - len(stream.inbox)
                if room <= 0:
                    yield (
                        lambda: (
                            len(stream.inbox) < CHUNK_LIMIT
                            or stream.closed_at is not None
                        )
                    )
                    continue
                part = data[at : min(end, at + room)]
                at += len(part)
                self.bytes_sent += len(part)
                stream.deliver(part)

    def _echo(self) -> Iterator[_Need]:
        buffer = self._buffer
        while True:
            yield from self._read_until(lambda: bool(buffer) or self._is_abandoned)
            data = bytes(buffer)
            buffer.clear()
            if not data:
                return
            yield from self._send(Send(data))

    def _read_until(self, is_done: Callable[[], bool]) -> Iterator[_Need]:
        """Read while waiting; gives the script up if the bytes can never come."""
        self._is_reading = True
        self.poke()
        satisfied = False

        def is_over() -> bool:
            nonlocal satisfied
            satisfied = is_done()
            return satisfied or (self._is_abandoned and not self._window)

        yield is_over
        self._is_reading = False
        if not satisfied:
            # Leaves ``unfinished`` as it stands: the step could not be done.
            self._play = None
            yield lambda: False

    def _take(self, step: Step) -> bool:
        """Take what *step* waits for out of the buffer; False if it is not whole."""
        buffer = self._buffer
        match step:
            case Receive(until):
                at = buffer.find(until)
                count = at + len(until) if at >= 0 else -1
            case ReceiveBytes(wanted):
                count = wanted if len(buffer) >= wanted else -1
            case ReceiveRequest() | ReceiveResponse():
                count = self._take_message(step)
            case _:
                message = f"{step!r} does not read"
                raise TypeError(message)
        if count < 0:
            return False
        del buffer[:count]
        return True

    def _take_message(self, step: ReceiveRequest | ReceiveResponse) -> int:
        is_response = isinstance(step, ReceiveResponse)
        found = take_message(
            self._buffer,
            is_response=is_response,
            method=step.method if isinstance(step, ReceiveResponse) else "GET",
            is_eof=is_response and self._is_abandoned and not self._window,
        )
        if found is None:
            return -1
        self.messages.append(found[0])
        if isinstance(step, ReceiveRequest):
            self.stream.sim.record_request(self.stream, found[0])
        return found[1]
