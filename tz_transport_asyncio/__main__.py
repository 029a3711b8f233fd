"""The command ``tz-gateway``: arguments, the log, and the root flow on asyncio.

The one rule: what a command does is a flow of ``tz_protocol.cli``; here it is driven.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module, util
from queue import SimpleQueue

from tz_protocol.cli.logs import Backlog
from tz_protocol.cli.main import parse_arguments, run
from tz_protocol.cli.options import Invocation, LogSettings
from tz_protocol.machine import Context, Machine
from tz_protocol.notices import Notice
from tz_transport_asyncio.driver import Driver
from tz_transport_asyncio.embed import make_gateway
from tz_transport_asyncio.server import open_server

__all__ = ["LogWriter", "main"]

_PATIENCE = 2.0
"""Seconds, at the end, for a log that nobody reads."""


class LogWriter:
    """Writes the log to standard error from a thread, so that nobody waits for it."""

    def __init__(self, settings: LogSettings) -> None:
        self._backlog = Backlog(settings)
        self._news = SimpleQueue[bool]()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def take(self, notice: Notice) -> None:
        """Take a notice; never waits."""
        if self._backlog.add(notice, time.time()):
            self._news.put(True)

    def close(self) -> None:
        """Write what is left, as long as somebody reads it."""
        self._news.put(False)
        self._thread.join(_PATIENCE)

    def _write(self) -> None:
        is_going = True
        while is_going:
            is_going = self._news.get()
            with suppress(OSError, ValueError):
                sys.stderr.write(self._backlog.take())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    On uvloop, if that is installed and the variable ``TZ_UVLOOP`` is not 0.
    """
    invocation = parse_arguments(sys.argv[1:] if argv is None else argv)
    log = LogWriter(invocation.log)
    try:
        use_uvloop = os.getenv("TZ_UVLOOP") != "0" and util.find_spec("uvloop")
        factory = import_module("uvloop").new_event_loop if use_uvloop else None
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(_run(invocation, log))
    except KeyboardInterrupt:
        return 130
    finally:
        log.close()


async def _run(invocation: Invocation, log: LogWriter) -> int:
    context = Context()
    flow = run(invocation, context, partial(make_gateway, context=context))
    async with open_server(log.take) as server:
        status = await Driver(Machine(flow, context), server).run()
    return status or 0


if __name__ == "__main__":
    sys.exit(main())
