"""Scripted worlds: what a flow finds outside, written down as data.

The one rule: a script says what a peer does and when, in virtual seconds; it performs
nothing. ``peers.py`` plays a script inside the :class:`Simulator`, and the runner of a
conformance suite may play the same script over a real socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tz_protocol.machine import Event
from tz_protocol.testing.clickhouse import ScriptedClickHouse
from tz_protocol.testing.disk import ScriptedDisk
from tz_protocol.testing.messages import (
    LAST_CHUNK,
    chunk,
    http_response,
    sse_event,
)
from tz_protocol.testing.redis import ScriptedRedis
from tz_protocol.types.http import Headers

__all__ = [
    "Arrival",
    "AwaitFact",
    "Behaviour",
    "Close",
    "Echo",
    "Facts",
    "Failure",
    "HalfClose",
    "Pause",
    "ProcessScript",
    "ProxiedReply",
    "Receive",
    "ReceiveBytes",
    "ReceiveEof",
    "ReceiveRequest",
    "ReceiveResponse",
    "Reset",
    "Script",
    "ScriptedRequest",
    "Send",
    "Stall",
    "Step",
    "Tell",
    "World",
    "cut",
    "dns_error",
    "garbage",
    "hang",
    "refuse",
    "reply",
    "sse",
    "tls_error",
]


# -- the steps of a script ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send *data*; the next step begins when the other side has taken all of it."""

    data: bytes
    after: float = 0.0
    """Seconds to wait before the first byte."""
    piece: int = 0
    """Bytes that travel together; 0 means all of them."""
    every: float = 0.0
    """Seconds between two pieces."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing, not even read, for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Receive:
    """Read until the bytes *until* have come; what follows them stays unread."""

    until: bytes


@dataclass(frozen=True, slots=True)
class ReceiveBytes:
    """Read exactly *count* bytes."""

    count: int


@dataclass(frozen=True, slots=True)
class ReceiveRequest:
    """Read one whole HTTP request."""


@dataclass(frozen=True, slots=True)
class ReceiveResponse:
    """Read one whole HTTP response; an informational one counts as one."""

    method: str = "GET"
    """Of the request; ``HEAD`` means that no body follows."""


@dataclass(frozen=True, slots=True)
class ReceiveEof:
    """Read everything until the other side has closed."""


@dataclass(frozen=True, slots=True)
class Echo:
    """Send back everything that comes, as it comes, until the other side closes."""


@dataclass(frozen=True, slots=True)
class HalfClose:
    """End the own sending side; go on reading."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close both directions in an orderly way."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Break the connection off (RST)."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Do nothing, not even read, for ever."""


@dataclass(frozen=True, slots=True)
class AwaitFact:
    """Go on once a fact of this *name* has been recorded *count* times."""

    name: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Tell:
    """Have the driver tell *event* (``Drain()``, ``Shutdown()``) to its machines."""

    event: Event


Step: TypeAlias = (
    Send
    | Pause
    | Receive
    | ReceiveBytes
    | ReceiveRequest
    | ReceiveResponse
    | ReceiveEof
    | Echo
    | HalfClose
    | Close
    | Reset
    | Stall
    | AwaitFact
    | Tell
)


@dataclass(frozen=True, slots=True)
class Script:
    """What one peer does on one connection.

    After its last step a peer goes on reading for ever, unless that step ended the
    connection or was ``Stall``.
    """

    steps: tuple[Step, ...]
    connect_after: float = 0.0
    """Seconds until ``Connect`` succeeds."""
    window: int | None = None
    """Bytes that the network holds for a peer that does not read; None: any number."""
    repeat: bool = False
    """True: begin again after the last step, for ever (a keep-alive server)."""

    def __post_init__(self) -> None:
        """Refuse steps that need the connection after one that ended it.

        Raises:
            ValueError: Something other than ``AwaitFact``, ``Tell`` or ``Pause``
                follows ``Close`` or ``Reset``.
        """
        is_ended = False
        for step in self.steps:
            if is_ended and not isinstance(step, (AwaitFact, Tell, Pause)):
                message = f"{step!r} follows the end of the connection"
                raise ValueError(message)
            is_ended = is_ended or isinstance(step, (Close, Reset))


@dataclass(frozen=True, slots=True)
class Failure:
    """``Connect`` fails with this kind; see ``OperationBroken``."""

    kind: str
    """``refused``, ``dns``, ``tls``, ``reset``, or ``hang``: never an answer."""
    after: float = 0.0
    """Seconds until it fails."""


Behaviour: TypeAlias = Script | Failure


def refuse(after: float = 0.0) -> Failure:
    """Return a port that nobody listens on."""
    return Failure("refused", after)


def hang() -> Failure:
    """Return a host that never answers."""
    return Failure("hang")


def dns_error(after: float = 0.0) -> Failure:
    """Return a name that cannot be resolved."""
    return Failure("dns", after)


def tls_error(after: float = 0.0) -> Failure:
    """Return a server whose certificate does not hold."""
    return Failure("tls", after)


# -- what servers say -----------------------------------------------------------


def reply(
    status: int = 200,
    headers: Headers = (),
    body: bytes = b"",
    *,
    after: float = 0.0,
    framing: str = "length",
) -> tuple[Step, ...]:
    """Return the steps of a server that reads one request and answers it whole.

    Args:
        status: See ``http_response``, as for *headers*, *body* and *framing*.
        headers: Header lines without framing.
        body: The response's body.
        after: Seconds between the request and the answer.
        framing: ``length``, ``chunked`` or ``close``.
    """
    data = http_response(status, headers, body, framing=framing)
    steps: tuple[Step, ...] = (ReceiveRequest(), Send(data, after))
    return (*steps, Close()) if framing == "close" else steps


def sse(
    *events: bytes | str,
    first: float = 0.0,
    every: float = 0.0,
    end: bytes = b"data: [DONE]\n\n",
    headers: Headers = (("content-type", "text/event-stream"),),
) -> tuple[Step, ...]:
    """Return the steps of a server that reads one request and streams its answer.

    Args:
        events: What each event carries; each leaves as a chunk of its own.
        first: Seconds between the request and the response's head.
        every: Seconds before each event.
        end: The stream's last bytes before the last chunk; may be empty.
        headers: Of the response, without framing.
    """
    head = http_response(200, headers, framing="chunked")[: -len(LAST_CHUNK)]
    steps: list[Step] = [ReceiveRequest(), Send(head, first)]
    steps += [Send(chunk(sse_event(event)), every) for event in events]
    steps.append(Send((chunk(end) if end else b"") + LAST_CHUNK))
    return tuple(steps)


def cut(
    steps: Iterable[Step], count: int, then: Step | None = None
) -> tuple[Step, ...]:
    """Return *steps* up to the *count*-th byte sent, then *then* (default ``Close``).

    ``cut(reply(), 0, Reset())`` resets before the head.
    """
    last = Close() if then is None else then
    kept: list[Step] = []
    for step in steps:
        if isinstance(step, Send):
            if count < len(step.data):
                if count:
                    kept.append(replace(step, data=step.data[:count]))
                break
            count -= len(step.data)
        kept.append(step)
    return (*kept, last)


def garbage(data: bytes = b"\x16\x03\x01\x00\xff\r\n\r\n") -> tuple[Step, ...]:
    """Return the steps of a server that answers with bytes that are not HTTP."""
    return (ReceiveRequest(), Send(data), Close())


# -- a request without a socket -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrival:
    """A piece of a scripted request's body."""

    data: bytes
    after: float = 0.0
    """Seconds since the piece before, or since the start."""


@dataclass(frozen=True, slots=True)
class ScriptedRequest:
    """The client of a bare exchange machine: its body, and how it takes the answer."""

    body: tuple[Arrival | bytes, ...] = ()
    is_cut: bool = False
    """True: the client is lost where the body should end (``ClientBroken``)."""
    takes: float = 0.0
    """Seconds that each ``SendBody`` needs."""
    gone_after: float | None = None
    """Seconds after the start at which ``ClientGone`` is told; None: never."""


# -- the world ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProxiedReply:
    """What ``HttpCall`` finds at a URL."""

    status: int
    headers: Headers
    script: Script
    """Its ``Send`` steps are the raw body."""
    head_after: float = 0.0
    """Seconds from the connection, which is there as the script says, to the head."""


@dataclass(frozen=True, slots=True)
class ProcessScript:
    """A child process: it exits with *status* by itself, or when it is signalled."""

    after: float | None = None
    """Seconds until it exits by itself; None: never."""
    status: int = 0
    ignores: tuple[str, ...] = ()
    """Names of signals that do not end it; ``SIGHUP`` never does."""


class Facts:
    """What servers and handlers saw, in order, for scripts and tests to look at."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, object]] = []
        """(name, value) of everything recorded."""
        self.listeners: list[Callable[[], None]] = []
        """Called after each new entry, in the thread that recorded it."""

    def record(self, name: str, value: object = None) -> None:
        """Add a fact and call the listeners."""
        self.entries.append((name, value))
        for listener in list(self.listeners):
            listener()

    def count(self, name: str) -> int:
        """Return how many facts of this name were recorded."""
        return sum(entry[0] == name for entry in self.entries)

    def values(self, name: str) -> list[object]:
        """Return the values of every fact of this name, in order."""
        return [value for key, value in self.entries if key == name]


@dataclass(slots=True)
class World:
    """Everything that flows can reach. Fill it, then give it to a ``Simulator``."""

    environment: dict[str, str] = field(default_factory=dict)
    """Variables for ``ResolveSecret``."""
    files: dict[str, str] = field(default_factory=dict)
    """Text by path; ``WriteFile`` adds to it."""
    signals: list[tuple[float, str]] = field(default_factory=list)
    """(seconds after the start, name) for ``NextSignal``, in order."""
    processes: list[ProcessScript] = field(default_factory=list)
    """What successive ``Spawn`` operations start; the last one repeats."""
    upstreams: dict[tuple[str, int], tuple[Behaviour, ...]] = field(
        default_factory=dict
    )
    proxied_replies: dict[str, tuple[ProxiedReply | Failure, ...]] = field(
        default_factory=dict
    )
    names: dict[str, tuple[tuple[str, ...] | Failure, ...]] = field(
        default_factory=dict
    )
    """By host: what successive ``Resolve`` operations find; see :meth:`name`."""

    redis: dict[str, ScriptedRedis] = field(default_factory=dict)
    """Servers for ``RedisCommands`` and ``RedisMessages``, by URL."""
    clickhouse: dict[str, ScriptedClickHouse] = field(default_factory=dict)
    """Servers for ``ClickHouseQuery`` and ``ClickHouseInsert``, by URL; what
    ``OpenEmbedded`` opens at ``/path`` is ``http://embedded/path``."""
    disk: ScriptedDisk = field(default_factory=ScriptedDisk)
    """For the spool."""

    def upstream(
        self,
        host: str,
        port: int,
        *connections: Behaviour | Sequence[Step],
        repeat: bool = False,
    ) -> None:
        """Say what successive connections to ``host:port`` find.

        Args:
            host: As ``Connect`` names it.
            port: As ``Connect`` names it.
            connections: One for each connection; the last one holds for all that
                follow. Bare steps are a ``Script`` of them.
            repeat: True: bare steps begin again after the last, so that one
                connection serves any number of requests.
        """
        if not connections:
            message = f"no behaviour given for {host}:{port}"
            raise ValueError(message)
        self.upstreams[host, port] = tuple(
            behaviour
            if isinstance(behaviour, (Script, Failure))
            else Script(tuple(behaviour), repeat=repeat)
            for behaviour in connections
        )

    def name(self, host: str, *answers: Sequence[str] | Failure) -> None:
        """Say what successive ``Resolve`` operations for *host* find.

        Args:
            host: As ``Resolve`` names it. A number needs no answer: it is its own.
            answers: Addresses each; the last holds for all that follow.
        """
        if not answers:
            message = f"no answer given for {host}"
            raise ValueError(message)
        self.names[host] = tuple(
            answer if isinstance(answer, Failure) else tuple(answer)
            for answer in answers
        )

    def proxied(self, url: str, *replies: ProxiedReply | Failure) -> None:
        """Say what successive ``HttpCall`` operations to *url* find."""
        if not replies:
            message = f"no reply given for {url}"
            raise ValueError(message)
        self.proxied_replies[url] = replies
