"""The operations that block, on asyncio: in threads of their own.

The one rule: a thread does what ``tz_stores`` says and the loop waits for it; one that
was given up goes on, and its answer is lost. There are few threads, so that a store
that hangs cannot take those that everything else needs. Names that callers wrote have
threads apart from those of stores and of the loop: whoever serves a name can make
looking it up take as long as the system allows.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cached_property
from time import monotonic
from typing import Any

from tz_protocol.operations import Resolve
from tz_stores.threads import Threads, Workers

__all__ = ["InThreads", "Pool"]


class Pool:
    """Threads, and what they have open."""

    def __init__(self) -> None:
        self._threads = Threads(monotonic)
        self._workers = Workers()

    async def run(self, operation: Any) -> Any:
        """Perform one operation in a thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def done(value: Any, error: BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_settle, future, value, error)

        self._workers.submit(self._threads.calls[type(operation)], operation, done)
        return await future

    async def aclose(self) -> None:
        """Give up what is open; threads end when they can."""
        self._workers.close()
        self._threads.close()


def _settle(future: asyncio.Future[Any], value: Any, error: Any) -> None:
    if not future.done():
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


class InThreads:
    """What a backend offers that blocks; it closes :attr:`pools` at the end."""

    @cached_property
    def pools(self) -> tuple[Pool, Pool]:
        """Return the threads of stores, and of names; made when first wanted."""
        return Pool(), Pool()

    async def in_thread(self, operation: Any) -> Any:
        """Perform an operation of ``tz_protocol.recordops``."""
        return await self.pools[0].run(operation)

    async def resolve(self, operation: Resolve) -> tuple[str, ...]:
        """Ask the system for the addresses of a name, which may take it long."""
        found: tuple[str, ...] = await self.pools[1].run(operation)
        return found
