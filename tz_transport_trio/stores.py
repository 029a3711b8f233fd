"""Redis and random bytes for a backend, on trio: the library's blocking client.

The one rule: as in ``backend.py``: a method performs one operation, judges nothing and
looks at no deadline. Connections are the library's, used by one worker thread at a time
and without its pool, whose clock and retries are its own; one whose operation did not
end well is closed. What is to be decided is decided in ``tz_protocol.storedrivers``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from importlib import import_module
from time import monotonic
from typing import Any, TypeVar

import trio

from tz_protocol import storedrivers as rules
from tz_protocol.storeops import RandomBytes, RedisCommands, RedisMessages, Reply
from tz_protocol.types.secret import Secret
from tz_transport_trio.records import InThreads

__all__ = ["Kept", "Stores"]

T = TypeVar("T")


class Kept:
    """What outlasts an operation: idle connections and subscriptions."""

    def __init__(self) -> None:
        self.slots = trio.CapacityLimiter(rules.CONNECTION_LIMIT)
        self.threads = trio.CapacityLimiter(rules.CONNECTION_LIMIT)
        self.idle: dict[Secret, list[_Link]] = {}
        self.inboxes = rules.Inboxes()

    async def aclose(self) -> None:
        """Close every connection; those of subscriptions as soon as a thread does."""
        self.inboxes.close()
        for links in self.idle.values():
            while links:
                links.pop().close()


class Stores(InThreads):
    """What a backend offers beside byte streams; it closes :attr:`kept` at the end."""

    @cached_property
    def kept(self) -> Kept:
        """Return what is kept; made when it is first wanted."""
        return Kept()

    async def random_bytes(self, operation: RandomBytes) -> bytes:
        """Return bytes that nobody can guess."""
        return os.urandom(operation.count)

    async def redis_commands(self, operation: RedisCommands) -> tuple[Reply, ...]:
        """Send a pipeline on a connection that nobody else uses meanwhile."""
        idle = self.kept.idle.setdefault(operation.url, [])
        async with self.kept.slots:
            link = idle.pop() if idle else _Link()
            ask = partial(_ask, operation.commands)
            use = partial(link.use, operation.url, _seconds(operation), ask)
            try:
                replies = await trio.to_thread.run_sync(
                    use, abandon_on_cancel=True, limiter=self.kept.threads
                )
            except BaseException as error:
                link.close()
                raise rules.broken(error)
            if rules.is_reusable(replies):
                idle.append(link)
            else:
                link.close()
            return replies

    async def redis_messages(self, operation: RedisMessages) -> tuple[Any, ...]:
        """Wait for what arrives on a subscription, which goes on without us."""
        inbox, event = self.kept.inboxes.get(operation, _begin), trio.Event()
        try:
            while not inbox.changed.is_set:
                event = trio.Event()
                inbox.changed.on_set(event.set)
                await event.wait()
            # Nothing may be taken for an operation that was abandoned meanwhile.
            await trio.lowlevel.checkpoint_if_cancelled()
            return inbox.take()
        finally:
            self.kept.inboxes.settle(inbox, event.set)


def _begin(operation: RedisMessages, inbox: rules.Inbox) -> Callable[[], object]:
    in_loop: Any = trio.lowlevel.current_trio_token().run_sync_soon
    follow = partial(_follow, operation.patterns, partial(in_loop, inbox.receive))

    def end(outcome: Any) -> None:
        with suppress(trio.RunFinishedError):
            in_loop(inbox.lose, outcome.error)

    link = _Link()
    use = partial(link.use, operation.url, _seconds(operation), follow)
    trio.lowlevel.start_thread_soon(use, end)
    return link.close


def _seconds(operation: RedisCommands | RedisMessages) -> float:
    return operation.deadline - trio.current_time()


class _Link:
    """A connection that one thread uses, and that the loop can take away from it."""

    def __init__(self) -> None:
        self._connection: Any = rules.NoConnection()
        self._is_idle, self._is_closed = True, False

    def close(self) -> None:
        """Close it; a thread that uses it ends with an error.

        The thread itself closes the socket then: its number must not be given away
        under the thread's hands.
        """
        self._is_closed = True
        with suppress(OSError, AttributeError):  # there may be none
            self._connection._sock.shutdown(socket.SHUT_RDWR)
        if self._is_idle:
            self._connection.disconnect()

    # -- in the thread ------------------------------------------------------------

    def use(self, url: Secret, seconds: float, work: Callable[[Any], T]) -> T:
        """Return what *work* makes of the connection; connects first if need be."""
        self._is_idle, is_quiet = False, False
        try:
            with suppress(Exception):  # it was lost meanwhile
                is_quiet = not self._connection.can_read(0)
            if not is_quiet:
                self._open(url, monotonic() + seconds)
            return work(self._connection)
        finally:
            self._is_idle = True
            if self._is_closed:
                self._connection.disconnect()

    def _open(self, url: Secret, deadline: float) -> None:
        library = import_module("redis.connection")
        for step in rules.steps(url):
            self._connection.disconnect()
            # Until there is a socket that close() can end, only the limit ends it.
            limit = step.seconds(deadline, monotonic())
            self._connection = step.connection(library, limit, self._shake_hands)
            try:
                self._connection.connect()
                step.check(_ask(step.commands, self._connection))
            except Exception as error:
                step.fail(error)

    def _shake_hands(self, connection: Any) -> None:
        connection.socket_timeout = None
        connection._sock.settimeout(None)
        if self._is_closed:
            raise ConnectionAbortedError
        connection.on_connect()


def _ask(commands: Any, connection: Any) -> tuple[Reply, ...]:
    connection.send_packed_command(connection.pack_commands(commands))
    return tuple(rules.received(connection.read_response) for _ in commands)


def _follow(patterns: Any, tell: Callable[[Any], object], connection: Any) -> Any:
    connection.send_command("PSUBSCRIBE", *patterns)
    while True:
        tell(connection.read_response())
