"""Drives machines in a scripted world, with a virtual clock and no I/O.

The one rule: the same flows, world, seed and splits give the same trace, byte for
byte. Time stands still while anything can happen and then jumps to the earliest
deadline or scripted moment. What breaks the driver contract or the core's own rules
(a handle used after ``Close``, cleanup that asks for something, a second head) raises
``AssertionError`` out of ``run``.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from tz_protocol.machine import Context, Event, Listener, Machine
from tz_protocol.notices import Close, Notice, RecordNotice
from tz_protocol.operations import CHUNK_LIMIT, Flow, Operation, TlsOptions
from tz_protocol.testing.callers import ScriptedResponse
from tz_protocol.testing.driving import Driver
from tz_protocol.testing.messages import Message
from tz_protocol.testing.peers import Peer, Stream
from tz_protocol.testing.surroundings import Surroundings
from tz_protocol.testing.worlds import Facts, Script, ScriptedRequest, Step, World

__all__ = ["Outcome", "Simulator", "Timer"]

T = TypeVar("T")

_STEP_LIMIT = 1_000_000
"""Moments after which a run is taken for one that never ends."""


class Timer:
    """One scheduled moment; :meth:`cancel` takes it back."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback; harmless once it was called."""
        self.callback = None


class Simulator:
    """One process in virtual time: a world, a context, and any number of machines.

    Args:
        world: What the flows find outside. It may be filled further at any time.
        context: Shared with the gateway under test; None makes one.
        seed: 0 keeps things that happen at one instant in their natural order; any
            other number shuffles them, always in the same way.
        splits: Sizes of the pieces in which received bytes are read, over and over;
            empty: as they come. Each stream and each request's body begins anew.
        start: The clock's first time. Not zero, so that a flow that takes a timeout
            for a deadline is found out.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        context: Context | None = None,
        seed: int = 0,
        splits: Sequence[int] = (),
        start: float = 1_000.0,
    ) -> None:
        if any(size < 1 for size in splits):
            message = "a split must be at least one byte"
            raise ValueError(message)
        self.world = world or World()
        self.context = context or Context()
        self.context.now = start
        self.facts = Facts()
        self.start = start
        self.now = start
        self.splits = tuple(splits)
        self.surroundings = Surroundings(self.world, start)
        self.notices: list[Notice] = []
        """Every notice but ``Close``, in order."""
        self.opened: list[Stream] = []
        """Every handle that ``Connect`` and ``HttpCall`` opened, in order."""
        self.requests: list[tuple[float, Stream, Message]] = []
        """(time, handle, message) of each request that an upstream read whole."""
        self.drivers: list[Driver] = []
        """Of every spawned machine, in order; not of the arms."""
        self.trace: list[str] = []
        """A line for each operation and each answer; see :meth:`trace_text`."""
        self.is_killed = False
        """True from :meth:`kill` on."""
        self._seed = seed
        self._sequence = 0
        self._queue: list[tuple[float, int, int, Timer]] = []
        self._streams = 0

    # -- running ------------------------------------------------------------------

    def accept(self, script: Script | Sequence[Step]) -> Stream:
        """Return the handle of a new client; give it to a connection flow.

        The client's script begins when the machine is spawned with ``client=``.
        """
        if not isinstance(script, Script):
            script = Script(tuple(script))
        return self._stream("client", script, None)

    def spawn(
        self,
        flow: Flow[T],
        *,
        listener: Listener | None = None,
        name: str = "",
        client: Stream | None = None,
        request: ScriptedRequest | None = None,
        cancel_at: int | None = None,
        interrupt_at: tuple[int, Event] | None = None,
    ) -> Outcome[T]:
        """Start a machine; it runs in :meth:`run_until_idle` and its like.

        Args:
            flow: A flow that has not been started.
            listener: As for ``Machine``.
            name: For the trace; empty: ``machine 1`` and so on.
            client: From :meth:`accept`. Its end of stream is told as ``ClientGone``
                and it is closed when the machine ends.
            request: For a bare exchange machine: who answers ``ReceiveBody`` and
                takes the response.
            cancel_at: Cancel at this operation, counted from 1, arms included.
            interrupt_at: (n, event): tell the event at the n-th operation.
        """
        machine: Machine[Any] = Machine(flow, self.context, listener)
        driver = Driver(
            self,
            machine,
            name or f"machine {len(self.drivers) + 1}",
            client=client,
            request=request,
            cancel_at=cancel_at,
            interrupt_at=interrupt_at,
        )
        self.drivers.append(driver)
        driver.start()
        return Outcome(self, driver)

    def run(self, flow: Flow[T], **options: Any) -> Outcome[T]:
        """Spawn *flow*, run until it is done and until nothing more happens then.

        Args:
            flow: A flow that has not been started.
            options: As for :meth:`spawn`.

        Raises:
            AssertionError: A rule was broken, or the flow waits for ever.
        """
        outcome = self.spawn(flow, **options)
        self.run_until_done(outcome)
        return outcome

    def run_until_done(self, *outcomes: Outcome[Any]) -> None:
        """Run until these machines are done, then to the end of that instant."""
        self._run(lambda: all(outcome.is_done for outcome in outcomes))
        waiting = [o.driver.describe() for o in outcomes if not o.is_done]
        assert not waiting, f"waits for ever: {'; '.join(waiting)}"
        self.run_until(self.now)

    def run_until_idle(self) -> None:
        """Run until nothing is scheduled; machines may still wait for ever."""
        self._run(lambda: False)

    def run_until(self, time: float) -> None:
        """Run everything up to and including *time*; the clock then shows it."""
        self._run(lambda: self._next_time() > time)
        self.now = max(self.now, time)

    def kill(self) -> None:
        """End the process as SIGKILL does: nothing happens in it any more.

        What it did to the world stays; give that to another simulator.
        """
        self.is_killed = True
        self._queue.clear()
        self.world.disk.killed(self)

    def tell(self, event: Event) -> None:
        """Tell *event* to every machine that runs, as a driver does on a signal."""
        for driver in self.drivers:
            driver.tell(event)

    # -- what was seen ------------------------------------------------------------

    @property
    def open_handles(self) -> list[Stream]:
        """Handles that were opened and not closed: those kept in a pool, or leaks."""
        return [stream for stream in self.opened if stream.closed_at is None]

    @property
    def records(self) -> list[Any]:
        """The record of every ``RecordNotice``, in order."""
        return [n.record for n in self.notices if isinstance(n, RecordNotice)]

    def trace_text(self) -> str:
        """Return the whole trace, a line for each operation and each answer."""
        return "\n".join(self.trace)

    # -- for drivers and peers ----------------------------------------------------

    def at(self, time: float, callback: Callable[[], None]) -> Timer:
        """Call *callback* at *time*, or as soon as possible if that has passed."""
        timer = Timer(callback)
        if time < math.inf:
            self._sequence += 1
            entry = (max(time, self.now), self._tie(), self._sequence, timer)
            heapq.heappush(self._queue, entry)
        return timer

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call *callback* after some seconds."""
        return self.at(self.now + seconds, callback)

    def soon(self, callback: Callable[[], None]) -> Timer:
        """Call *callback* at this instant, from the top level."""
        return self.at(self.now, callback)

    def open_stream(self, name: str, script: Script, tls: TlsOptions | None) -> Stream:
        """Return a new stream whose peer begins its script now."""
        stream = self._stream(name, script, tls)
        self.opened.append(stream)
        stream.peer.poke()
        return stream

    def split(self, driver_reads: int) -> int:
        """Return how many bytes the n-th read (from 0) of a source may return."""
        if not self.splits:
            return CHUNK_LIMIT
        return min(CHUNK_LIMIT, self.splits[driver_reads % len(self.splits)])

    def drain(self, machine: Machine[Any]) -> None:
        """Deal with the notices that a machine's call left behind."""
        for notice in machine.notices():
            if isinstance(notice, Close):
                handle = notice.handle
                assert isinstance(handle, Stream), "Close of what is not a handle"
                handle.close(is_graceful=False)
                self.trace.append(f"{self.now:.6f} close {handle!r}")
            else:
                self.notices.append(notice)

    def record_request(self, stream: Stream, message: Message) -> None:
        """Note that an upstream has read a whole request."""
        self.requests.append((self.now, stream, message))

    # -- private ------------------------------------------------------------------

    def _stream(self, name: str, script: Script, tls: TlsOptions | None) -> Stream:
        self._streams += 1
        return Stream(self, f"{name} #{self._streams}", script, tls)

    def _tie(self) -> int:
        if not self._seed:
            return 0
        # SplitMix64's finaliser (Steele, Lea and Flood, 2014): a hash that is the
        # same in every process, which the built-in one and its salt are not.
        mixed = (self._seed * 0x9E3779B97F4A7C15 + self._sequence) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def _next_time(self) -> float:
        queue = self._queue
        while queue and queue[0][3].callback is None:
            heapq.heappop(queue)
        return queue[0][0] if queue else math.inf

    def _run(self, is_over: Callable[[], bool]) -> None:
        steps = 0
        while not is_over() and self._next_time() < math.inf:
            time, _, _, timer = heapq.heappop(self._queue)
            callback, timer.callback = timer.callback, None
            self.now = time
            steps += 1
            assert steps < _STEP_LIMIT, "a run that never ends"
            if callback is not None:
                callback()


_MASK = 0xFFFF_FFFF_FFFF_FFFF


class Outcome(Generic[T]):
    """What became of one spawned machine, for as long as it runs and afterwards."""

    def __init__(self, sim: Simulator, driver: Driver) -> None:
        self.sim = sim
        self.driver = driver

    @property
    def is_done(self) -> bool:
        """True once the flow returned, raised, or was cancelled."""
        return self.driver.is_done

    @property
    def result(self) -> T:
        """What the flow returned; raises what it raised."""
        assert self.driver.is_done, f"still runs: {self.driver.describe()}"
        if self.driver.error is not None:
            raise self.driver.error
        result: T = self.driver.result
        return result

    @property
    def error(self) -> BaseException | None:
        """What the flow raised, if it did."""
        return self.driver.error

    @property
    def is_cancelled(self) -> bool:
        """True if the machine was ended by ``cancel``."""
        return self.driver.is_cancelled

    @property
    def started_at(self) -> float:
        """When the machine was started."""
        return self.driver.started_at

    @property
    def finished_at(self) -> float:
        """When the machine was done."""
        assert self.driver.finished_at is not None, "still runs"
        return self.driver.finished_at

    @property
    def operations(self) -> list[tuple[float, Operation[Any]]]:
        """(time, operation) of all that the machine and its arms asked for."""
        return self.driver.operations

    @property
    def response(self) -> ScriptedResponse:
        """What a bare exchange machine answered."""
        assert self.driver.caller is not None, "this machine has no request"
        return self.driver.caller.response

    @property
    def client(self) -> Peer:
        """The scripted client of a connection machine; see ``Peer.received``."""
        assert self.driver.client is not None, "this machine has no client"
        return self.driver.client.peer

    @property
    def writes(self) -> list[tuple[float, bytes]]:
        """(time, data) of every write to the client."""
        assert self.driver.client is not None, "this machine has no client"
        return self.driver.client.writes

    def cancel(self) -> None:
        """Cancel the machine now; it must ask for nothing afterwards."""
        self.driver.cancel()

    def tell(self, event: Event) -> bool:
        """Tell the machine *event*; True if that ended its operation."""
        return self.driver.tell(event)
