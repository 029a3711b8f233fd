"""Kept connections to providers, as a decision object over handles.

The one rule: the pool decides and never closes; what it wants closed it returns. Its
state changes are synchronous, so that no cancellation can tear them.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from tz_protocol.operations import Handle, Signal
from tz_protocol.types.settings import Limits, ProviderSettings, Url

__all__ = ["Origin", "Pool", "PooledConnection", "origin_of"]

Origin = tuple[str, str, int, bool, str | None]
"""(scheme, host, port, verify, CA file): what two uses must share to share a socket."""


def origin_of(settings: ProviderSettings, url: Url) -> Origin:
    """Return the origin of a provider that is reached at *url*."""
    return (url.scheme, url.host, url.port, settings.verify, settings.ca_file)


class PooledConnection:
    """One connection to a provider: its handle and its codec."""

    __slots__ = ("codec", "handle", "idle_since", "is_reused", "origin")

    def __init__(self, origin: Origin, handle: Handle, codec: Any) -> None:
        self.origin = origin
        self.handle = handle
        self.codec = codec
        self.idle_since = 0.0
        self.is_reused = False


class _Slots:
    __slots__ = ("busy", "idle", "waiting")

    def __init__(self) -> None:
        self.busy = 0
        self.idle: deque[PooledConnection] = deque()
        self.waiting: deque[Signal] = deque()


class Pool:
    """Bounded connections per origin; idle ones are used last in, first out."""

    __slots__ = ("_origins", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._origins: dict[Origin, _Slots] = {}

    def reserve(self, origin: Origin) -> bool:
        """Take one of the origin's places; False if all are busy.

        After True, end with exactly one of :meth:`keep` and :meth:`leave`.
        """
        slots = self._origins.get(origin)
        if slots is None:
            slots = self._origins[origin] = _Slots()
        if slots.busy >= self.limits.pool_per_origin:
            return False
        slots.busy += 1
        return True

    def queue(self, origin: Origin) -> Signal:
        """Return a signal that is set when a place has been handed to its owner."""
        signal = Signal()
        self._origins[origin].waiting.append(signal)
        return signal

    def give_up(self, origin: Origin, signal: Signal) -> None:
        """Stop waiting for *signal*; a place handed over meanwhile is passed on."""
        if signal.is_set:
            self.leave(origin)
        else:
            self._origins[origin].waiting.remove(signal)

    def take(self, origin: Origin, now: float) -> PooledConnection | None:
        """Return the most recently used idle connection of *origin*, if any is fresh.

        The caller must hold a place (:meth:`reserve`).
        """
        idle = self._origins[origin].idle
        if not idle or now - idle[-1].idle_since > self.limits.pool_idle_timeout:
            return None
        connection = idle.pop()
        connection.is_reused = True
        return connection

    def keep(self, connection: PooledConnection, now: float) -> list[Handle]:
        """Give the place back and keep the connection; returns handles to close."""
        slots = self._origins[connection.origin]
        connection.idle_since = now
        slots.idle.append(connection)
        surplus = []
        while len(slots.idle) > self.limits.pool_idle:
            surplus.append(slots.idle.popleft().handle)
        self.leave(connection.origin)
        return surplus

    def leave(self, origin: Origin) -> None:
        """Give the place back; the longest waiting owner gets it."""
        slots = self._origins[origin]
        if slots.waiting:
            slots.waiting.popleft().set()
            return
        slots.busy -= 1
        if not slots.busy and not slots.idle:
            del self._origins[origin]

    def expire(self, now: float, *, everything: bool = False) -> list[Handle]:
        """Forget idle connections that are too old; returns handles to close."""
        handles = []
        for origin, slots in list(self._origins.items()):
            idle = slots.idle
            limit = self.limits.pool_idle_timeout
            while idle and (everything or now - idle[0].idle_since > limit):
                handles.append(idle.popleft().handle)
            if not slots.busy and not idle and not slots.waiting:
                del self._origins[origin]
        return handles

    def counts(self) -> tuple[int, int]:
        """Return (busy, idle) over all origins."""
        slots = self._origins.values()
        return sum(s.busy for s in slots), sum(len(s.idle) for s in slots)
