"""The half of a transport's stores that never waits, the same on every event loop.

The one rule: what is to be decided about Redis's addresses, errors, replies and
messages is decided here, on what the ``redis`` library hands over; nothing here waits,
and nothing imports the library: it is handed in. What the operations promise is in
``storeops.py``, what they are for in ``flows/``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tz_protocol.errors import OperationBroken, OperationError, StoreRefused, kind_of
from tz_protocol.operations import Signal
from tz_protocol.storeops import MESSAGE_LIMIT, RedisMessages, Reply
from tz_protocol.types.secret import Secret

__all__ = [
    "CONNECTION_LIMIT",
    "REPLY_TURN",
    "Inbox",
    "Inboxes",
    "NoConnection",
    "Step",
    "StoreAddress",
    "broken",
    "is_reusable",
    "parse_address",
    "plain",
    "received",
    "refused",
    "steps",
]

CONNECTION_LIMIT = 8
"""Connections for commands that one backend has to one or more servers at a time.

A gateway's operations are few and pipelined; more connections would only let a burst
of them crowd out whoever else uses the server.
"""

REPLY_TURN = 64
"""Replies after which the loop gets its turn, however many have already come."""

_SENTINEL_PORT = 26_379
"""What sentinels listen on unless told otherwise (redis.io, "Sentinel")."""

_SHORTEST = 0.001
_LONGEST = 3_600.0
"""Seconds; a socket's timeout can be neither nothing nor infinite."""

_OPTIONS: dict[str, Any] = {
    "protocol": 2,  # RESP2 knows bytes, int, None and list only, as Reply does
    "decode_responses": False,
    "retry": None,
    "retry_on_timeout": False,
    "retry_on_error": (),
    "health_check_interval": 0,
    "driver_info": None,  # CLIENT SETINFO would cost two round trips
}
"""What no URL may set: time is the core's, and replies come as they were sent."""

_POOL_OPTIONS = ("max_connections", "timeout")
"""What a URL may say to a pool of the library's, which nobody uses."""

_REASONS = {
    "AuthenticationError": "denied",
    "AuthorizationError": "denied",
    "BusyLoadingError": "refused",
    "MasterDownError": "refused",
    "ResponseError": "denied",
}
"""The library's error for an answer that refuses the connection -> our word for it."""


# -- where it is ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where a server is, or who knows it. See :func:`parse_address`."""

    url: str = field(repr=False)
    """What the library takes; with sentinels, what comes before the host."""
    rest: str = field(default="", repr=False)
    """With sentinels: what comes after the port."""
    sentinels: tuple[str, ...] = field(default=(), repr=False)
    """The URL of each, in the order in which they are to be asked."""
    service: str = ""
    """What the sentinels call the server."""


def parse_address(url: str) -> StoreAddress:
    """Return where *url* points to.

    ``redis://``, ``rediss://`` and ``unix://`` are the library's own.
    ``redis+sentinel://user:password@host:port,host:port/service/db?options`` has the
    credentials and the database of the server; ``sentinel_username`` and
    ``sentinel_password`` among the options are for the sentinels. With
    ``rediss+sentinel://`` both speak TLS.

    Raises:
        OperationBroken: If it points nowhere (kind ``url``).
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix"):
        return StoreAddress(url)
    if scheme not in ("redis+sentinel", "rediss+sentinel"):
        message = "a store's URL begins with redis://, rediss://, unix:// or "
        raise OperationBroken("url", message + "redis+sentinel://")
    scheme = scheme.removesuffix("+sentinel")
    rest, _, query = rest.partition("?")
    place, _, path = rest.partition("/")
    service, _, database = path.partition("/")
    login, at, hosts = place.rpartition("@")
    if not service or not all(hosts.split(",")):
        message = "a sentinel URL reads redis+sentinel://host:port,host:port/service"
        raise OperationBroken("url", message)
    options = dict(parse_qsl(query))
    user = options.pop("sentinel_username", "")
    password = options.pop("sentinel_password", "")
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    tail = {"username": user, "password": password} if user or password else {}
    return StoreAddress(
        f"{scheme}://{login}{at}",
        f"/{database}?{urlencode(options)}",
        tuple(
            f"{scheme}://{_with_port(host)}?{urlencode(tls | tail)}"
            for host in hosts.split(",")
        ),
        service,
    )


def _with_port(host: str) -> str:
    return host if host.rpartition(":")[2].isdigit() else f"{host}:{_SENTINEL_PORT}"


def steps(url: Secret) -> Iterator[Step]:
    """Yield one step after the other; the last leaves the connection that is wanted.

    Sentinels are asked one by one, as redis.io says in "Sentinel clients"; whoever one
    names is connected to and asked whether it is the master still.

    Raises:
        OperationBroken: If there is no next one.
    """
    address = parse_address(url.reveal())
    if not address.sentinels:
        yield Step(address.url, is_last=True)
        return
    question = (("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service),)
    for number, sentinel in enumerate(address.sentinels):
        step = Step(sentinel, question, len(address.sentinels) - number + 1)
        yield step
        if step.host:
            place = f"{address.url}{step.host}{address.rest}"
            yield Step(place, (("ROLE",),), is_last=True)
            return
    raise OperationBroken("refused", "no sentinel names a master")


class Step:
    """One connection to be opened, and what is asked on it.

    Args:
        url: What the library takes.
        commands: What to ask.
        parts: How many steps share the time that is left.
        is_last: True for the connection that is wanted; False for a sentinel's, which
            is closed.
    """

    __slots__ = ("_parts", "_url", "commands", "host", "is_last")

    def __init__(
        self,
        url: str,
        commands: tuple[tuple[str, ...], ...] = (),
        parts: int = 1,
        *,
        is_last: bool = False,
    ) -> None:
        self._url = url
        self._parts = parts
        self.commands = commands
        self.is_last = is_last
        self.host = ""
        """Host and port of the master, once a sentinel has named it."""

    def connection(
        self,
        library: Any,
        limit: float | None = None,
        begin: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Return the connection, which is not yet open.

        Args:
            library: ``redis.connection`` or ``redis.asyncio.connection``.
            limit: Seconds for each thing it does, if nothing else can end it.
            begin: Called with it once the last one has a socket, to shake hands.

        Raises:
            OperationBroken: If the library does not take the URL (kind ``url``).
        """
        options = _OPTIONS | {"socket_timeout": limit, "socket_connect_timeout": limit}
        if self.is_last:
            options["redis_connect_func"] = begin
        try:
            found = dict(library.parse_url(self._url))
            for name in _POOL_OPTIONS:
                found.pop(name, None)
            make = found.pop("connection_class", library.Connection)
            return make(**found | options)
        except (ValueError, TypeError) as error:  # neither quotes more than a name
            message = f"a store's URL cannot be used: {error}"
            raise OperationBroken("url", message) from None

    def seconds(self, deadline: float, now: float) -> float:
        """Return the time it has: a sentinel that is frozen must not take it all."""
        return min(max(deadline - now, _SHORTEST) / self._parts, _LONGEST)

    def check(self, replies: Sequence[Reply]) -> None:
        """Take the answers to :attr:`commands`; what may not be asked is believed.

        Raises:
            OperationBroken: If this is no master (kind ``refused``).
        """
        if not replies or not isinstance(reply := replies[0], list):
            return
        if not self.is_last:
            host, port = (str(part, "utf-8") for part in reply)
            self.host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        elif reply[0] != b"master":
            raise OperationBroken("refused", "the server is no master any more")

    def fail(self, error: BaseException) -> None:
        """Say that it failed; returns if that is the next sentinel's chance.

        Raises:
            BaseException: *error*, or what the core is told of it.
        """
        told = broken(error)
        if self.is_last or (isinstance(told, OperationBroken) and told.kind == "url"):
            raise told


# -- what it answers ------------------------------------------------------------


class NoConnection:
    """Stands where none is yet: there is nothing to be read from it, or to close."""

    def can_read(self, timeout: float) -> bool:
        """Return True, as a connection does that was lost."""
        return True

    def disconnect(self) -> None:
        """Do nothing."""


def received(read: Callable[[], Any]) -> Reply:
    """Return what *read* returns, or what it raises, as an answer to one command.

    Raises:
        Exception: What is no such answer.
    """
    try:
        return plain(read())
    except Exception as error:
        return refused(error)


def plain(reply: Any) -> Reply:
    """Return *reply* with a ``StoreRefused`` for each error inside it."""
    if type(reply) is list:
        return [plain(item) for item in reply]
    return refused(reply) if isinstance(reply, Exception) else reply


def refused(error: Exception) -> StoreRefused:
    """Return what stands in the place of a command that was answered with *error*.

    Raises:
        Exception: *error*, if it is no answer to one command.
    """
    if not _is_a(error, "ResponseError"):
        raise error
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    # A script may answer with any text, which is not to be repeated.
    return StoreRefused(code if code.isalnum() and code.isupper() else "ERR")


def broken(error: BaseException) -> OperationError:
    """Return what the core is told of a failure, whose own text may name the server.

    Raises:
        BaseException: *error*, if it is a bug, or nobody's failure.
    """
    if isinstance(error, OperationError):
        return error
    if not isinstance(error, (OSError, ValueError)) and not _is_a(error, "RedisError"):
        raise error
    if _is_a(error, "DataError"):  # an argument of a type that is no RedisArgument
        raise error
    for cls in type(error).__mro__:
        if cls.__name__ in _REASONS:
            return OperationBroken(_REASONS[cls.__name__], type(error).__name__)
    return OperationBroken(kind_of(error), type(error).__name__)


def _is_a(error: BaseException, name: str) -> bool:
    """Return True if *error* has a class of the library's, by name; see ``kind_of``."""
    return any(cls.__name__ == name for cls in type(error).__mro__)


def is_reusable(replies: Sequence[Reply]) -> bool:
    """Return False if the server was demoted: its successor is to be looked for."""
    return not any(
        isinstance(reply, StoreRefused) and reply.code == "READONLY"
        for reply in replies
    )


class Inbox:
    """What has arrived on one subscription and was not asked for yet.

    Args:
        patterns: How many confirmations it takes to begin.
    """

    __slots__ = ("_error", "_is_told", "_messages", "_missing", "changed", "close")

    def __init__(self, patterns: int) -> None:
        self.changed = Signal()
        """Set once :meth:`take` has an answer; another one after each answer."""
        self.close: Callable[[], object] = bool
        """Ends the subscription; set by who began it."""
        self._missing = patterns
        self._is_told = False
        self._messages: list[tuple[bytes, bytes]] = []
        self._error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """True if it was lost, or has not begun: nobody else can want it."""
        return self._error is not None or self._missing > 0

    def receive(self, reply: list[Any]) -> None:
        """Take what the server sent, in vain if it is lost."""
        if reply[0] == b"psubscribe":
            self._missing -= 1
        elif reply[0] == b"pmessage" and self._error is None:
            self._messages.append((reply[2], reply[3]))
            if len(self._messages) > MESSAGE_LIMIT:
                self.lose(OperationBroken("overflow", "too many messages wait"))
        self._tell()

    def lose(self, error: BaseException) -> None:
        """End it with what the core is told of *error*; the first one counts."""
        if self._error is None:
            try:
                self._error = broken(error)
            except BaseException as bug:  # raised where it is asked for
                self._error = bug
            self._messages.clear()
            self._tell()

    def take(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return what has arrived, nothing the first time; only after ``changed``.

        Raises:
            BaseException: What it was lost with.
        """
        if self._error is not None:
            raise self._error
        self.changed, messages = Signal(), self._messages
        if self._is_told:
            self._messages = []
            return tuple(messages)
        self._is_told = True
        self._tell()
        return ()

    def _tell(self) -> None:
        has_begun = self._missing <= 0 and not self._is_told
        if has_begun or self._messages or self._error is not None:
            self.changed.set()


class Inboxes:
    """The subscriptions of one backend."""

    __slots__ = ("_inboxes",)

    def __init__(self) -> None:
        self._inboxes: dict[tuple[Secret, tuple[str, ...]], Inbox] = {}

    def get(
        self,
        operation: RedisMessages,
        begin: Callable[[RedisMessages, Inbox], Callable[[], object]],
    ) -> Inbox:
        """Return the one that *operation* is about; call :meth:`settle` afterwards.

        Args:
            operation: What is asked.
            begin: Makes something fill a new one; returns what ends that.
        """
        key = (operation.url, operation.patterns)
        if key not in self._inboxes:
            self._inboxes[key] = inbox = Inbox(len(operation.patterns))
            inbox.close = begin(operation, inbox)
        return self._inboxes[key]

    def settle(self, inbox: Inbox, wake: Callable[[], None]) -> None:
        """Wake nobody any more; close and forget *inbox* if it is over."""
        inbox.changed.forget(wake)
        if inbox.is_over:
            inbox.close()
            self._inboxes = {k: v for k, v in self._inboxes.items() if v is not inbox}

    def close(self) -> None:
        """Close every one."""
        for inbox in self._inboxes.values():
            inbox.close()
