"""Who asks a real Redis: flows, pipelines, and the threads that work for them."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.transport.redisserver import (
    eventually,
)
from tz_protocol.errors import OperationBroken
from tz_protocol.machine import Context
from tz_protocol.operations import Sleep
from tz_protocol.storeops import (
    RedisCommands,
    RedisMessages,
)
from tz_protocol.types.secret import Secret

LONG = 15.0
"""Seconds for what is expected to come to an end of its own."""
SHORT = 0.15
"""Seconds for what is expected to be ended."""


class Asking:
    """What flows say to one server, in seconds from now.

    Args:
        context: Of the machine that runs them.
        url: Of the server.
    """

    def __init__(self, context, url):
        self.context = context
        self.url = Secret(url)

    def commands(self, *commands, seconds=LONG):
        return RedisCommands(self.context.now + seconds, self.url, commands)

    def messages(self, *patterns, seconds=LONG):
        return RedisMessages(self.context.now + seconds, self.url, patterns)

    def pause(self, seconds=0.005):
        """Let the loop go on, however long the flow has held it up."""
        yield from Sleep(self.context.now)
        yield from Sleep(self.context.now + seconds)


def run(transport, url, make):
    """Return what a flow returns that has an ``Asking``; nothing may be left over."""
    context = Context()
    result = transport.run_flow(lambda: make(Asking(context, url)), context)
    eventually(lambda: not busy_threads())
    return result


def ask(transport, url, *commands, seconds=LONG):
    """Return the replies to one pipeline."""

    def flow(asking):
        return (yield from asking.commands(*commands, seconds=seconds))

    return run(transport, url, flow)


def broken_kind(transport, url, *commands):
    """Return the kind of the failure of one pipeline."""
    with pytest.raises(OperationBroken) as caught:
        ask(transport, url, *commands)
    return caught.value.kind


def busy_threads():
    """Return the threads in which a store is at work; an idle one may wait for more."""
    found = []
    for ident, innermost in sys._current_frames().items():
        frame: Any = innermost
        while frame is not None and ident != threading.get_ident():
            if Path(frame.f_code.co_filename).name == "stores.py":
                found.append(ident)
            frame = frame.f_back
    return found
