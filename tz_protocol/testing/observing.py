"""What a scenario is, and what one client observed of it.

The one rule: a scenario names no socket, no clock and no event loop. A runner plays
its scripts, over real sockets or in the ``Simulator``, and hands what it observed to
``check``. Steps follow on facts, never on time, so nothing sleeps to synchronise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tz_protocol.testing.messages import Message, take_responses
from tz_protocol.testing.worlds import Facts, Step
from tz_protocol.types.settings import Limits, ServerTimeouts

__all__ = ["Observed", "Scenario"]


@dataclass(slots=True)
class Observed:
    """What one client saw, and the facts of the whole run."""

    received: bytes
    """Every byte, in order."""
    segments: tuple[bytes, ...]
    """The same bytes as they came: one element for each read of the client."""
    unfinished: tuple[Step, ...]
    """Steps of the script that could not be done; the current one first."""
    facts: Facts
    kernel_bytes: int = 0
    """Bytes that the network may hold on the way; 0 in a simulator."""
    methods: tuple[str, ...] = ()
    """Methods of the requests, in order; ``GET`` where they run out."""

    def responses(self, *, is_whole: bool = True) -> list[Message]:
        """Return every response, informational ones included.

        Args:
            is_whole: True: bytes that make no whole response are an error.
        """
        messages, rest = take_responses(self.received, self.methods, is_eof=False)
        assert not (is_whole and rest), f"{len(rest)} bytes after the last response"
        return messages

    def bodies(self) -> list[tuple[int, bytes]]:
        """Return (status, body) of every response."""
        return [(message.status, message.body) for message in self.responses()]

    def endings(self) -> list[tuple[str, str]]:
        """Return (path, how) of every handler that ended, in that order."""
        ended = self.facts.values("ended")
        return [entry[:2] for entry in ended if isinstance(entry, tuple)]

    def bytes_out(self) -> int:
        """Return how many body bytes the handlers got rid of."""
        ended = self.facts.values("ended")
        return sum(entry[2] for entry in ended if isinstance(entry, tuple))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One script for each of some clients, and what must come of it."""

    name: str
    client: tuple[Step, ...]
    check: Callable[[Observed], None]
    """Raises ``AssertionError``; called once for each client, at the end."""
    clients: int = 1
    """How many clients play the script side by side."""
    control: tuple[Step, ...] = ()
    """Played beside the clients, without a connection: ``AwaitFact`` and ``Tell``."""
    methods: tuple[str, ...] = ()
    half_close: Literal["abort", "answer"] = "abort"
    limits: Limits = field(default_factory=Limits)
    timeouts: ServerTimeouts = field(default_factory=ServerTimeouts)
    window: int = 65_536
    """For the simulator: bytes that the network holds for a client."""
