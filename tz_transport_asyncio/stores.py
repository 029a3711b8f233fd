"""Redis and random bytes for a backend, on asyncio: the library's asyncio client.

The one rule: as in ``backend.py``: a method performs one operation, judges nothing and
looks at no deadline. Connections are the library's, used one at a time and without its
pool, whose clock and retries are its own; one whose operation did not end well is
closed. What is to be decided is decided in ``tz_protocol.storedrivers``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from time import monotonic
from typing import Any

from tz_protocol import storedrivers as rules
from tz_protocol.errors import OperationBroken
from tz_protocol.storeops import RandomBytes, RedisCommands, RedisMessages, Reply
from tz_protocol.types.secret import Secret
from tz_transport_asyncio.records import InThreads

__all__ = ["Kept", "Stores"]


class Kept:
    """What outlasts an operation: idle connections and subscriptions."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(rules.CONNECTION_LIMIT)
        self.idle: dict[Secret, list[Any]] = {}
        self.inboxes = rules.Inboxes()

    async def aclose(self) -> None:
        """Close every connection; subscriptions end when the loop goes on."""
        self.inboxes.close()
        for connections in self.idle.values():
            while connections:
                await _close(connections.pop())


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
            connection = idle.pop() if idle else None
            try:
                if not await _is_quiet(connection):
                    await _close(connection)
                    connection = await _open(operation)
                replies = await _ask(connection, operation.commands)
            except BaseException as error:
                await _close(connection)
                raise rules.broken(error)
            if rules.is_reusable(replies):
                idle.append(connection)
            else:
                await _close(connection)
            return replies

    async def redis_messages(self, operation: RedisMessages) -> tuple[Any, ...]:
        """Wait for what arrives on a subscription, which goes on without us."""
        inbox = self.kept.inboxes.get(operation, _begin)
        event = asyncio.Event()
        try:
            while not inbox.changed.is_set:
                event.clear()
                inbox.changed.on_set(event.set)
                await event.wait()
            return inbox.take()
        finally:
            self.kept.inboxes.settle(inbox, event.set)


def _begin(operation: RedisMessages, inbox: rules.Inbox) -> Callable[[], object]:
    return asyncio.create_task(_listen(operation, inbox)).cancel


async def _listen(operation: RedisMessages, inbox: rules.Inbox) -> None:
    connection = None
    try:
        connection = await _open(operation)
        await connection.send_command("PSUBSCRIBE", *operation.patterns)
        while True:
            inbox.receive(await connection.read_response())
    except Exception as error:
        inbox.lose(error)
    finally:
        inbox.lose(OperationBroken("reset", "the subscription was closed"))
        await _close(connection)


async def _is_quiet(connection: Any) -> bool:
    with suppress(Exception):  # none, or lost meanwhile
        return not (await connection.can_read() or connection._writer.is_closing())
    return False


async def _open(operation: RedisCommands | RedisMessages) -> Any:
    library = await asyncio.to_thread(import_module, "redis.asyncio.connection")
    for step in rules.steps(operation.url):
        seconds = step.seconds(operation.deadline, monotonic())
        connection = step.connection(library, begin=_shake_hands)
        try:
            async with asyncio.timeout(None if step.is_last else seconds):
                await connection.connect()
                step.check(await _ask(connection, step.commands))
            if step.is_last:
                return connection
        except BaseException as error:
            await _close(connection)
            step.fail(error)
        await _close(connection)
    return None


async def _ask(connection: Any, commands: Any) -> tuple[Reply, ...]:
    replies: list[Reply] = []
    await connection.send_packed_command(connection.pack_commands(commands))
    for number in range(1, len(commands) + 1):
        try:
            replies.append(rules.plain(await connection.read_response()))
        except Exception as error:
            replies.append(rules.refused(error))
        if not number % rules.REPLY_TURN:
            await asyncio.sleep(0)
    return tuple(replies)


async def _shake_hands(connection: Any) -> None:
    connection.transport = connection._writer.transport
    await connection.on_connect()


async def _close(connection: Any) -> None:
    """Close at once, whatever is unsent: a server that is frozen takes nothing."""
    if (transport := getattr(connection, "transport", None)) is not None:
        transport.abort()
    if connection is not None:
        await connection.disconnect(nowait=True)
