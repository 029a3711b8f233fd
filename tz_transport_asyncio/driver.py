"""Performs the operations of one machine on asyncio, until it is done.

The one rule: this module waits, and ``tz_protocol.drivers`` decides. An operation is
abandoned by cancelling the task that performs it; the task's own cancellation stays
what it is, and ends the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from tz_protocol.drivers import Arms, BaseDriver
from tz_protocol.operations import All, Race, WriteRead

__all__ = ["Driver"]

T = TypeVar("T")


class Driver(BaseDriver[T]):
    """Drives one machine: :meth:`run`, or ``start`` and then :meth:`drive`."""

    __slots__ = ()

    async def run(self) -> T | None:
        """Drive the machine from start to end; return its result.

        Raises:
            BaseException: What escaped the machine.
        """
        self.start()
        await self.drive()
        if self.error is not None:
            raise self.error
        return self.machine.result

    async def drive(self, until: Callable[[], bool] | None = None) -> None:
        """Perform operations until the machine is done; see ``error`` afterwards.

        Args:
            until: Asked before each operation; True returns early, and another call
                goes on from there.
        """
        task = asyncio.current_task()
        assert task is not None, "drive() needs a task"
        cancels = task.cancelling()
        self.halt = task.cancel
        try:
            while (operation := self.next_operation(until)) is not None:
                try:
                    if self.is_turn_over():
                        await asyncio.sleep(0)
                    value = await self.perform(operation)
                except BaseException as error:
                    if self.is_abandoned() and task.uncancel() <= cancels:
                        continue  # whatever it raised on its way out
                    self.fail(error)
                else:
                    self.resume(value)
        except BaseException:
            self.rest(is_cancelled=True)
            raise
        self.rest()

    async def write_read(self, operation: WriteRead) -> bytes:
        """Write, then read once; ``stage`` says which."""
        handle: Any = operation.handle
        self.stage = "write"
        await handle.write(operation.data)
        self.stage = "read"
        data: bytes = await handle.read()
        self.stage = ""
        return data

    async def run_arms(self, operation: Race | All) -> object:
        """Run the flows side by side, each in a machine of its own."""
        arms = Arms(self, operation)

        async def play(arm: Driver[Any]) -> None:
            arm.start()
            await arm.drive()
            arms.ended(arm)

        async with asyncio.TaskGroup() as group:
            for arm in arms.drivers:
                group.create_task(play(arm))
        if arms.is_endless:
            await asyncio.get_running_loop().create_future()
        return arms.answer()
