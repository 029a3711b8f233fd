"""Performs the operations of one machine on trio, until it is done.

The one rule: this module waits, and ``tz_protocol.drivers`` decides. An operation is
abandoned by cancelling the one scope around it; the cancellation of any scope further
out stays what it is, and ends the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio

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
        try:
            while self.next_operation(until) is not None:
                with trio.CancelScope() as scope:
                    self.halt = scope.cancel
                    await self._perform_many(until)
        except BaseException:
            self.rest(is_cancelled=True)
            raise
        self.rest()

    async def _perform_many(self, until: Callable[[], bool] | None) -> None:
        """Perform operations until one is abandoned, which uses up its scope."""
        while not self.is_abandoned() and (operation := self.next_operation(until)):
            try:
                if self.is_turn_over():
                    await trio.lowlevel.checkpoint()
                value = await self.perform(operation)
            except Exception as error:
                if not self.is_abandoned():  # else it was raised on the way out
                    self.fail(error)
            else:
                if self.is_abandoned():
                    self.take_back(value, operation)
                else:
                    self.resume(value)

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

        async with trio.open_nursery() as nursery:
            for arm in arms.drivers:
                nursery.start_soon(play, arm)
        if arms.is_endless:
            await trio.sleep_forever()
        return arms.answer()
