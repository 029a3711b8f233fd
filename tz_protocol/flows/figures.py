"""What ``/metrics`` shows of a gateway, and of the other workers beside it.

The one rule: whoever is asked answers for all workers, and no total ever falls. Each
process keeps a report of its figures in a folder that all of them have; before one of
them shows anything its own report is brought up to date, so that nothing was ever shown
that the next one cannot read. What a worker had counted when it died is taken over by
the supervisor, in its report (``cli/workers.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tz_protocol.errors import OperationError, OperationTimeout
from tz_protocol.notices import LogLine
from tz_protocol.operations import Flow, Signal, Sleep, Wait
from tz_protocol.recordops import ReadFolder, ReplaceFile
from tz_protocol.records.figures import (
    Figures,
    Report,
    decode_report,
    encode_report,
    merge,
)
from tz_protocol.records.metrics import UNKNOWN
from tz_protocol.routing.breaker import State
from tz_protocol.routing.options import is_public

if TYPE_CHECKING:
    from tz_protocol.gateway import Gateway
    from tz_protocol.machine import Context

__all__ = ["SUPERVISOR", "Sharing", "asked", "gauges_of", "label"]

SUPERVISOR = "supervisor"
"""The name of its report; the workers' are their numbers."""

INTERVAL = 1.0
"""Seconds between two reports: what a worker that is killed may have counted in vain,
unless somebody looked."""

SECONDS = 2.0
"""For reports to be written or read; a page must not wait for a disk that hangs."""

_BREAKER_STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
"""As ``/metrics`` shows them."""

Labels = tuple[tuple[str, str], ...]


# -- one gateway ----------------------------------------------------------------


def label(gateway: Gateway, model: str) -> str:
    """Return the name of a model that was tried as a metric's label.

    Callers choose what stands after ``type::``; the process must not remember it.
    """
    kind, separator, _ = model.partition("::")
    if not separator or is_public(model, gateway.snapshot, gateway.keys.models):
        return model
    return f"{kind}::*"


def asked(gateway: Gateway, model: str) -> str:
    """Return what a caller asked for, perhaps in vain, as a metric's label."""
    if is_public(model, gateway.snapshot, gateway.keys.models):
        return model
    kind, separator, _ = model.partition("::")
    return f"{kind}::*" if separator and kind in gateway.providers else UNKNOWN


def gauges_of(gateway: Gateway) -> dict[tuple[str, Labels], float]:
    """Return what ``/metrics`` shows beside what was counted."""
    busy, idle = gateway.pool.counts()
    breakers: dict[tuple[str, Labels], float] = {}
    for target, facts in gateway.targets():
        labels = (("model", target.model), ("provider", target.provider))
        breakers["tz_breaker_state", labels] = _BREAKER_STATES[facts.state]
    found: dict[tuple[str, Labels], float] = {
        ("tz_connections", ()): gateway.connections,
        ("tz_requests_in_flight", ()): gateway.admission.in_flight,
        ("tz_requests_queued", ()): gateway.admission.queued,
        ("tz_body_bytes", ()): gateway.memory.held,
        ("tz_pool_connections", (("state", "busy"),)): busy,
        ("tz_pool_connections", (("state", "idle"),)): idle,
        ("tz_exchanges_retrying", ()): gateway.retry_budget.retrying,
        **breakers,
        **gateway.stores.gauges(),
    }
    access, keys = gateway.snapshot.access, gateway.keys
    if access is not None and access.redis_url is not None:
        found["tz_api_keys", ()] = len(keys.keys or ())
        found["tz_redis_models", ()] = len(keys.models)
        found["tz_redis_up", ()] = float(keys.is_current(gateway.context.now))
    if gateway.sharing is None:
        found["tz_workers", ()] = 1
    return found


# -- several --------------------------------------------------------------------


class Sharing:
    """One process's part in the common figures; :meth:`run` is the flow.

    Args:
        folder: Where the reports are.
        name: Of this process's report.
        context: Of the process.
        report: Returns the process's report as it is now.
    """

    def __init__(
        self, folder: str, name: str, context: Context, report: Callable[[], Report]
    ) -> None:
        self.folder = folder
        self.name = name
        self._context = context
        self._report = report
        self._written = b""
        self._is_failing = False
        self._wake = Signal()
        self._next = Signal()
        """Set once the report that is made next is written."""

    def run(self) -> Flow[None]:
        """Keep the report up to date for as long as the process lives.

        Only this flow writes, so that no report replaces a newer one.
        """
        while True:
            done, self._next, self._wake = self._next, Signal(), Signal()
            yield from self.write()
            done.set()
            try:
                yield from Wait(self._context.now + INTERVAL, self._wake)
            except OperationTimeout:
                pass

    def write(self) -> Flow[None]:
        """Write the report if it is another than before; call it when nobody runs."""
        data = encode_report(self._report())
        if data == self._written:
            return
        path = f"{self.folder}/{self.name}"
        try:
            yield from ReplaceFile(self._context.now + SECONDS, path, data)
        except OperationError as error:
            self._tell(error)
        else:
            self._written, self._is_failing = data, False

    def refresh(self) -> Flow[bool]:
        """Have everything until now written; return False if that takes too long."""
        done = self._next
        self._wake.set()
        try:
            yield from Wait(self._context.now + 2 * SECONDS, done)
        except OperationTimeout:
            return False
        return not self._is_failing

    def others(self) -> Flow[list[Report]]:
        """Return the reports of all others, after our own is up to date."""
        yield from self.refresh()
        try:
            files = yield from ReadFolder(
                self._context.now + SECONDS, self.folder, SUPERVISOR
            )
        except OperationError as error:
            self._tell(error)
            return []
        reports = []
        for name, data in files:
            report = None if name == self.name else decode_report(data)
            if report is not None:
                reports.append(report)
                yield from Sleep(self._context.now)  # others have their turn
        # One that the supervisor has taken over may still be there.
        gone = {one for report in reports for one in report.includes}
        return [report for report in reports if report.id not in gone]

    def total(self, own: Callable[[], Figures]) -> Flow[Figures]:
        """Return the figures of all processes; *own* says ours, as they are then."""
        others = yield from self.others()
        total = own()
        for report in others:
            total = merge((total, report.figures))
            yield from Sleep(self._context.now)
        return total

    def _tell(self, error: OperationError) -> None:
        if not self._is_failing:
            self._is_failing = True
            message = "/metrics may show a part only: the workers' folder fails"
            fields: dict[str, object] = {"reason": str(error)}
            self._context.tell(LogLine("error", message, fields))
