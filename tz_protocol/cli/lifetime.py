"""What POSIX signals ask of the process, and how it ends.

The one rule: one flow takes every signal, for as long as the process lives, so that
none is lost between two operations. SIGHUP asks for a reload. The first SIGTERM or
SIGINT asks for an orderly end, the second ends at once.
"""

from __future__ import annotations

import math

from tz_protocol.machine import Context
from tz_protocol.notices import LogLine
from tz_protocol.operations import Flow, NextSignal, Signal, Wait

__all__ = ["FOREVER", "Lifetime", "interrupted_status"]

FOREVER = math.inf
"""Deadline of what ends only when the process does."""

_NUMBERS = {"SIGHUP": 1, "SIGINT": 2, "SIGTERM": 15}


def interrupted_status(name: str) -> int:
    """Return the exit status of a process that signal *name* ended, as shells do."""
    return 128 + _NUMBERS[name]


class Lifetime:
    """What was asked of one process so far.

    Args:
        context: For the log.
        ignores_interrupts: True for a worker: a terminal sends SIGINT to the whole
            process group, and its supervisor passes on what that means.
    """

    def __init__(self, context: Context, *, ignores_interrupts: bool = False) -> None:
        self.stop = Signal()
        """Set when an orderly end is asked for; anybody may set it."""
        self.is_started = False
        """False: there is nothing yet that could end in an orderly way."""
        self._context = context
        self._ignores_interrupts = ignores_interrupts
        self._hangup = Signal()

    def is_ending(self) -> bool:
        """Return True once the end was asked for."""
        return self.stop.is_set

    def watch(self) -> Flow[int]:
        """Take signals until one says to end at once; return the exit status."""
        while True:
            name = yield from NextSignal(FOREVER)
            if name == "SIGHUP":
                self._hangup.set()
            elif name == "SIGINT" and self._ignores_interrupts:
                continue
            elif self.is_ending() or not self.is_started:
                self._tell("warning", "a signal ends this process at once", name)
                return interrupted_status(name)
            else:
                self._tell("info", "a signal asks for the end", name)
                self.stop.set()

    def hangup(self) -> Flow[None]:
        """Wait for the next SIGHUP; several that came meanwhile count as one."""
        yield from Wait(FOREVER, self._hangup)
        self._hangup = Signal()

    def _tell(self, level: str, message: str, name: str) -> None:
        self._context.tell(LogLine(level, message, {"signal": name}))
