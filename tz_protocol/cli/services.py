"""Long-lived flows, kept alive.

The one rule: a service that fails, whatever the reason, is started again after a
while and counted; it never takes the process with it. Run these beside the server and
cancel them when the drain is over.
"""

from __future__ import annotations

from collections.abc import Callable

from tz_protocol.gateway import Gateway
from tz_protocol.notices import LogLine
from tz_protocol.operations import Flow, Sleep

__all__ = ["keep_running", "supervised"]

FIRST_PAUSE = 0.5
"""Seconds before the first restart."""

LONGEST_PAUSE = 30.0
"""Seconds; the pause doubles up to here."""

HEALTHY_AFTER = 60.0
"""Seconds after which a failure counts as the first one again."""


def supervised(gateway: Gateway) -> tuple[Flow[None], ...]:
    """Return every service of *gateway* as an arm of ``Race`` or ``All``.

    None of them ends by itself: cancel them once the drain is over.
    """
    services = gateway.services()
    return tuple(keep_running(gateway, name, make) for name, make in services)


def keep_running(
    gateway: Gateway, name: str, make: Callable[[], Flow[None]]
) -> Flow[None]:
    """Run the flow that *make* returns, again whenever it ends.

    Args:
        gateway: For the clock, the metrics and the log.
        name: Of the service, from a fixed set.
        make: Returns a new flow at every call.
    """
    context = gateway.context
    pause = FIRST_PAUSE
    while True:
        started = context.now
        reason = "returned"
        try:
            yield from make()
        except Exception as error:
            reason = _describe(error)
        if context.now - started >= HEALTHY_AFTER:
            pause = FIRST_PAUSE
        gateway.metrics.add("tz_services_restarted_total", service=name)
        fields = {"service": name, "reason": reason, "pause_s": pause}
        context.tell(LogLine("error", "a service ended and is started again", fields))
        yield from Sleep(context.now + pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _describe(error: Exception) -> str:
    """Return the kind and the place of *error*; its text might hold a secret."""
    place = ""
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        place = f" in {code.co_name} ({code.co_filename}:{traceback.tb_lineno})"
        traceback = traceback.tb_next
    return type(error).__name__ + place
