"""How the simulator's driver performs the operations on a store.

The one rule: one :class:`Asking` for one outstanding operation; it ends with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tz_protocol.errors import OperationBroken
from tz_protocol.storeops import RedisCommands, RedisMessages
from tz_protocol.testing.redis import ScriptedRedis, Subscription

if TYPE_CHECKING:
    from tz_protocol.testing.driving import Driver

__all__ = ["Asking"]


class Asking:
    """An operation that *store* has not answered yet."""

    def __init__(
        self,
        driver: Driver,
        store: ScriptedRedis,
        operation: RedisCommands | RedisMessages,
    ) -> None:
        self._driver = driver
        self._store = store
        self._operation = operation
        self._subscription: Subscription | None = None
        store.now = lambda: driver.sim.now
        store.watchers.append(self._soon)
        if isinstance(operation, RedisCommands) and store.latency:
            driver.park(driver.sim.after(store.latency, self._ask))
        else:
            self._soon()

    def end(self) -> None:
        """Stop; the operation is over."""
        self._store.watchers.remove(self._soon)

    def _soon(self) -> None:
        self._driver.park(self._driver.sim.soon(self._ask))

    def _ask(self) -> None:
        store, operation, driver = self._store, self._operation, self._driver
        if store.state == "frozen":
            return
        try:
            store.check()
            if isinstance(operation, RedisCommands):
                driver.resume(store.carry_out(operation.commands))
                return
            if self._subscription is None:
                self._subscription = store.subscription(operation.patterns)
            elif not store.has(self._subscription):
                raise OperationBroken("reset")
        except OperationBroken as error:
            driver.fail(error)
            return
        messages = self._subscription.take()
        if messages is not None:
            driver.resume(messages)
