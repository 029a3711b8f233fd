"""The operations that block, on trio: in threads of their own.

The one rule: a thread does what ``tz_stores`` says and the loop waits for it; one that
was given up goes on, and its answer is lost. There are few threads, so that a store
that hangs cannot take those that everything else needs. Names that callers wrote have
threads apart from those of stores and of the loop: whoever serves a name can make
looking it up take as long as the system allows.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import trio

from tz_protocol.operations import Resolve
from tz_stores.threads import THREADS, Threads

__all__ = ["InThreads", "Pool"]


class Pool:
    """Threads, and what they have open."""

    def __init__(self) -> None:
        self._threads = Threads(trio.lowlevel.current_clock().current_time)
        self._limiter = trio.CapacityLimiter(THREADS)

    async def run(self, operation: Any) -> Any:
        """Perform one operation in a thread."""
        return await trio.to_thread.run_sync(
            self._threads.calls[type(operation)],
            operation,
            abandon_on_cancel=True,
            limiter=self._limiter,
        )

    async def aclose(self) -> None:
        """Give up what is open; threads end when they can."""
        self._threads.close()


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
