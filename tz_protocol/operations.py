"""What a flow may ask of the world: one operation at a time, each with a deadline.

The one rule: an operation is data. It says what is wanted, by when, and what type the
answer has; it never performs anything. A flow writes ``data = yield from Read(...)``;
the :class:`~tz_protocol.machine.Machine` hands the operation to a driver and the
driver hands the answer back. Not here: errors (``errors.py``), stepping
(``machine.py``), anything that knows HTTP beyond the three operations of a handler.

Deadlines are absolute seconds on the driver's monotonic clock. A past deadline is
legal and means "time out at once".
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from tz_protocol.types.http import RequestHead, ResponseHead
    from tz_protocol.types.secret import Secret  # noqa: F401  # in a string below

__all__ = [
    "CHUNK_LIMIT",
    "HANDLER_OPERATIONS",
    "AbortBody",
    "All",
    "Bind",
    "Connect",
    "Flow",
    "Handle",
    "Handler",
    "HttpCall",
    "IsQuiet",
    "Listen",
    "NextSignal",
    "Operation",
    "OperationType",
    "Print",
    "ProcessExit",
    "Race",
    "Read",
    "ReadFiles",
    "ReceiveBody",
    "Resolve",
    "ResolveSecret",
    "SendBody",
    "SendHead",
    "SendSignal",
    "Signal",
    "Sleep",
    "Spawn",
    "StopListening",
    "TlsOptions",
    "Wait",
    "Write",
    "WriteEof",
    "WriteFile",
    "WriteRead",
]

T_co = TypeVar("T_co", covariant=True)

CHUNK_LIMIT = 65_536
"""Bytes: the most that one read returns and that may stay unsent after a write.

64 KiB is asyncio's own default high-water mark and one typical kernel buffer.
"""

Handle: TypeAlias = object
"""An opaque byte stream. Only the driver that made it knows what it is."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[T_co]):
    """Base of every operation; iterate it (``yield from``) to ask for it."""

    deadline: float
    """Absolute seconds on the driver's clock; required, there is no default."""

    def __iter__(self) -> Generator[Operation[Any], Any, T_co]:
        """Yield this operation once and return the driver's typed answer."""
        return (yield self)  # type: ignore[no-any-return]  # the driver's answer


Flow: TypeAlias = Generator[Operation[Any], Any, T_co]
"""A sequence of operations that returns a ``T_co``; see ``psycopg``'s ``PQGen``."""

Handler: TypeAlias = "Callable[[RequestHead], Flow[None]]"
"""Called at the request's head; answers with ``SendHead`` and ``SendBody``."""

OperationType: TypeAlias = type[Operation[Any]]


class Signal:
    """A one-way latch by which machines meet; setting it is synchronous core code.

    A driver that performs ``Wait`` registers a callback with :meth:`on_set` and
    removes it with :meth:`forget` when the wait ends in any other way.
    """

    __slots__ = ("_callbacks", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set the signal and call every registered callback once, in order."""
        self.is_set = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_set(self, callback: Callable[[], None]) -> None:
        """Call *callback* at the next :meth:`set`; at once if already set."""
        if self.is_set:
            callback()
        else:
            self._callbacks.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Drop *callback* if it still waits; harmless if it does not."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How to secure a connection that ``Connect`` opens."""

    server_name: str
    """Name for SNI and for the certificate check."""
    verify: bool = True
    """False skips the certificate check; the config spells that out."""
    ca_file: str | None = None
    """Path of a PEM bundle that replaces the system's trust store."""


# -- byte streams ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect(Operation[Handle]):
    """Resolve, connect (racing addresses) and handshake; return an open handle.

    Fails with ``OperationBroken`` (kinds ``dns``, ``refused``, ``tls``, ``reset``).
    The handle belongs to the asking flow until it emits ``Close`` for it or puts it
    into the pool.
    """

    host: str
    port: int
    tls: TlsOptions | None = None


@dataclass(frozen=True, slots=True)
class Resolve(Operation[tuple[str, ...]]):
    """Return the addresses of *host*, as numbers, in the order to try them.

    At least one, and perhaps one twice; nothing is connected. A host that is a number
    in any of the ways in which the system reads one is its address. Fails with
    ``OperationBroken`` (kind ``dns``).
    """

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Read(Operation[bytes]):
    """Return 1 to ``CHUNK_LIMIT`` received bytes, or ``b""`` at the end of stream."""

    handle: Handle


@dataclass(frozen=True, slots=True)
class Write(Operation[None]):
    """Send *data*; return when less than ``CHUNK_LIMIT`` bytes are still unsent."""

    handle: Handle
    data: bytes


@dataclass(frozen=True, slots=True)
class WriteRead(Operation[bytes]):
    """``Write`` all of *data*, then ``Read`` once, as one operation.

    Saves a round trip through the driver for request-then-response. Its errors carry
    the stage (``"write"`` or ``"read"``). A driver whose timer fires before the
    deadline goes on with what is left; it must not send *data* twice.
    """

    handle: Handle
    data: bytes


@dataclass(frozen=True, slots=True)
class WriteEof(Operation[None]):
    """End our direction of the stream after what was written; reading goes on.

    A peer that still sends would otherwise be reset at the close, and lose the answer
    that is on its way to it (RFC 9112, section 9.6). Does nothing where the stream has
    no such thing (TLS) or is already lost. Performed without parking.
    """

    handle: Handle


@dataclass(frozen=True, slots=True)
class IsQuiet(Operation[bool]):
    """Return True if the stream is open and nothing waits to be read from it.

    Performed without parking. A kept connection that is not quiet has been closed by
    the peer, or has bytes on it that belong to no request: it is not used again.
    """

    handle: Handle


# -- time and other machines ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sleep(Operation[None]):
    """Resume (not time out) when the deadline has come."""


@dataclass(frozen=True, slots=True)
class Wait(Operation[None]):
    """Resume when *signal* is set; time out at the deadline."""

    signal: Signal


@dataclass(frozen=True, slots=True)
class Race(Operation[tuple[int, Any]]):
    """Run the flows side by side; return (index, value) of the first to finish.

    Each runs as a child machine in one task group. The others are cancelled. An arm
    that fails first ends the race with its error.
    """

    flows: tuple[Flow[Any], ...]


@dataclass(frozen=True, slots=True)
class All(Operation[tuple[Any, ...]]):
    """Run the flows side by side; return every value, in the order of the flows.

    The first arm that fails cancels the others and its error is raised here.
    """

    flows: tuple[Flow[Any], ...]


# -- the surroundings -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResolveSecret(Operation["Secret"]):
    """Return the secret at a location: ``env::NAME`` or ``path::FILE``.

    Fails with ``OperationBroken`` (kind ``missing``) if there is no such thing.
    """

    location: str


@dataclass(frozen=True, slots=True)
class HttpCall(Operation[tuple[int, tuple[tuple[str, str], ...], Handle]]):
    """Send one whole HTTP request through an egress proxy (httpx does the tunnel).

    Returns (status, headers with lower-case names, handle); ``Read`` on the handle
    gives the raw, still content-encoded, body. Redirects are not followed.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    proxy: str
    tls: TlsOptions | None = None
    on_connected: Callable[[float], object] | None = None
    """Told when there was a connection to send it on: to the proxy, or through it if
    there is a tunnel. A kept one is there at once."""


@dataclass(frozen=True, slots=True)
class ReadFiles(Operation[tuple[tuple[str, str], ...]]):
    """Return (path, text) of every file that a glob pattern matches, sorted by path.

    An empty tuple if none does. Fails with ``OperationBroken`` if one is unreadable
    or is not UTF-8.
    """

    pattern: str


@dataclass(frozen=True, slots=True)
class WriteFile(Operation[None]):
    """Replace the file at *path* by *text*, atomically."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Print(Operation[None]):
    """Write *text* as it stands to standard output, or to standard error."""

    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Listen(Operation[tuple[str, ...]]):
    """Bind and begin to accept in the background; return the bound addresses.

    Every accepted stream becomes one connection machine of *gateway*
    (``gateway.connection``). Accepting pauses while ``gateway.admits()`` says no.
    Addresses read ``127.0.0.1:3000``, ``[::1]:3000``, ``unix:/path`` or ``fd:3``;
    the answer has real port numbers. Fails with ``OperationBroken``.
    """

    gateway: Any
    """A ``tz_protocol.gateway.Gateway``."""
    addresses: tuple[str, ...]
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True)
class StopListening(Operation[None]):
    """Close every listener that this process bound; live connections go on."""


@dataclass(frozen=True, slots=True)
class NextSignal(Operation[str]):
    """Return the name of the next POSIX signal: SIGTERM, SIGINT or SIGHUP."""


@dataclass(frozen=True, slots=True)
class Bind(Operation[tuple[str, ...]]):
    """Bind without accepting; return inheritable addresses of the form ``fd:3``."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spawn(Operation[Handle]):
    """Start this command again as a child with *arguments*; return its handle.

    The child inherits the sockets that ``Bind`` made and the standard streams.
    """

    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProcessExit(Operation[int]):
    """Return the child's exit status once it has ended (negative: a signal)."""

    process: Handle


@dataclass(frozen=True, slots=True)
class SendSignal(Operation[None]):
    """Send a signal, by name, to a child; harmless if it has ended."""

    process: Handle
    name: str


# -- what a handler asks of its connection --------------------------------------


@dataclass(frozen=True, slots=True)
class ReceiveBody(Operation[bytes]):
    """Return the next piece of the request's body, ``b""`` once it is complete.

    Fails with ``ClientBroken``, ``ClientTimeout`` or, past the size limit,
    ``TooLarge``.
    """


@dataclass(frozen=True, slots=True)
class SendHead(Operation[None]):
    """Begin the response. It leaves together with the first bytes of the body."""

    head: ResponseHead


@dataclass(frozen=True, slots=True)
class SendBody(Operation[None]):
    """Send a piece of the response's body; *end* completes the response."""

    data: bytes
    end: bool = False


@dataclass(frozen=True, slots=True)
class AbortBody(Operation[None]):
    """Break the response off so that the client can see that it is not whole."""


HANDLER_OPERATIONS: tuple[OperationType, ...] = (
    ReceiveBody,
    SendHead,
    SendBody,
    AbortBody,
)
"""The connection flow interprets these; a socketless driver performs them itself."""
