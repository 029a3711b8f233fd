"""``serve --workers N``: one supervisor, N processes on one socket.

The one rule: the supervisor serves nobody. It checks the configuration, binds once,
starts workers that inherit the socket, replaces those that die, passes signals on and
ends when all have ended. A worker is an ordinary ``serve`` with a share of the limits.
What a dead one had counted is kept in the supervisor's own report, so that there is one
report for each place and no total falls; see ``flows/figures.py``.
"""

from __future__ import annotations

from tz_protocol.cli.arguments import USAGE_ERROR
from tz_protocol.cli.lifetime import FOREVER, Lifetime
from tz_protocol.cli.loading import load
from tz_protocol.cli.options import Serve, Worker
from tz_protocol.cli.output import print_error, print_problems
from tz_protocol.cli.serve import no_listener, share_of
from tz_protocol.errors import (
    ConfigError,
    OperationBroken,
    OperationError,
    OperationTimeout,
)
from tz_protocol.flows.figures import SUPERVISOR, Sharing
from tz_protocol.machine import Context
from tz_protocol.notices import LogLine
from tz_protocol.operations import (
    All,
    Bind,
    Flow,
    Handle,
    ProcessExit,
    Race,
    SendSignal,
    Sleep,
    Spawn,
    StopListening,
    Wait,
)
from tz_protocol.recordops import (
    CheckCertificate,
    MakeFolder,
    ReadFile,
    RemoveFile,
    RemoveFolder,
)
from tz_protocol.records.figures import Figures, Report, decode_report, merge, retired
from tz_protocol.records.metrics import Gauges, Metrics
from tz_protocol.types.settings import Snapshot

__all__ = ["CRASH_LIMIT", "FIRST_PAUSE", "GRACE", "LONGEST_PAUSE", "supervise"]

FIRST_PAUSE = 0.5
"""Seconds before a worker that died is replaced."""

LONGEST_PAUSE = 30.0
"""Seconds; the pause doubles up to here while a worker keeps dying."""

HEALTHY_AFTER = 60.0
"""Seconds after which a worker's death counts as its first again."""

CRASH_LIMIT = 5
"""Deaths in a row of every worker, while none runs, after which we give up."""

GRACE = 10.0
"""Seconds beyond the drain and the goodbye before a worker is killed."""

_SECONDS = 30.0
"""For operations that ask the operating system for something quick."""


def supervise(command: Serve, context: Context) -> Flow[int]:
    """Run ``command.workers`` workers until a signal; return the exit status."""
    supervisor = _Supervisor(command, context)
    _, status = yield from Race(FOREVER, (supervisor.watch(), supervisor.operate()))
    yield from supervisor.unshare()
    return int(status)


class _Supervisor:
    """The workers of one process, by number from 1."""

    def __init__(self, command: Serve, context: Context) -> None:
        self._command = command
        self._context = context
        self._lifetime = Lifetime(context)
        self._addresses: tuple[str, ...] = ()
        self._running: dict[int, Handle] = {}
        self._deaths: dict[int, int] = {}
        """Consecutive deaths of each worker."""
        self._patience = 0.0
        """Seconds that a worker may need to end."""
        self._status = 0
        self._metrics = Metrics()
        self._sharing: Sharing | None = None
        """None: each worker shows figures of its own."""
        self._gone = Figures()
        """What the workers had counted that have ended."""
        self._last: dict[int, str] = {}
        """The id of the report that was taken over last, by the worker's number."""

    def watch(self) -> Flow[int]:
        """Take signals; the second SIGTERM or SIGINT kills every worker."""
        self._status = yield from self._lifetime.watch()
        # The workers' ends may end the race before this returns.
        yield from self._send("SIGKILL")
        return self._status

    def operate(self) -> Flow[int]:
        command, context = self._command, self._context
        try:
            loaded = yield from load(command.source, context)
        except ConfigError as error:
            yield from print_problems(context, error)
            return USAGE_ERROR
        address = loaded.snapshot.gateway.bind_address
        try:
            if command.tls_cert is not None:
                limit = context.now + _SECONDS
                yield from CheckCertificate(limit, command.tls_cert, command.tls_key)
            self._addresses = yield from Bind(context.now + _SECONDS, (address,))
        except OperationError as error:
            yield from print_error(context, no_listener(command, address, error))
            return 1
        self._use(loaded.snapshot)
        yield from self._share()
        self._tell_start(loaded.snapshot, address)
        self._lifetime.is_started = True
        workers = All(
            FOREVER, tuple(self._keep(n) for n in range(1, command.workers + 1))
        )
        sharing = () if self._sharing is None else (self._sharing.run(),)
        arms = (iter(workers), self._end_when_told(), self._pass_hangups())
        yield from Race(FOREVER, (*arms, *sharing))
        return self._status

    def _use(self, snapshot: Snapshot) -> None:
        server = snapshot.gateway.server
        self._patience = server.drain + server.goodbye + GRACE

    def _tell_start(self, snapshot: Snapshot, address: str) -> None:
        count = self._command.workers
        limits = share_of(snapshot, Worker(1, count, ())).gateway.limits
        fields = {
            "address": address,
            "workers": count,
            "connections": limits.connections,
            "requests": limits.requests,
            "queue": limits.queue,
            "body_memory": limits.body_memory,
        }
        message = "starting workers; each has these limits"
        self._context.tell(LogLine("info", message, fields))

    # -- one worker ---------------------------------------------------------------

    def _keep(self, number: int) -> Flow[None]:
        """Keep worker *number* running until the end is asked for."""
        context, lifetime = self._context, self._lifetime
        pause = FIRST_PAUSE
        while not lifetime.is_ending():
            started = context.now
            reason = yield from self._run(number)
            if lifetime.is_ending():
                return
            yield from self._take_over(number, reason)
            if context.now - started >= HEALTHY_AFTER:
                pause, self._deaths[number] = FIRST_PAUSE, 0
            self._deaths[number] = self._deaths.get(number, 0) + 1
            if self._is_hopeless():
                message = "every worker dies as soon as it is started: giving up"
                context.tell(LogLine("error", message, {"reason": reason}))
                self._status = 1
                lifetime.stop.set()
                return
            fields = {"worker": number, "reason": reason, "pause_s": pause}
            context.tell(LogLine("error", "a worker ended and is replaced", fields))
            try:
                yield from Wait(context.now + pause, lifetime.stop)
            except OperationTimeout:
                pause = min(2 * pause, LONGEST_PAUSE)

    def _run(self, number: int) -> Flow[str]:
        """Start one process and wait for its end; return what became of it."""
        context, command = self._context, self._command
        folder = "" if self._sharing is None else self._sharing.folder
        worker = Worker(number, command.workers, self._addresses, folder)
        arguments = ("serve", "--worker", str(worker), *command.arguments)
        try:
            process = yield from Spawn(context.now + _SECONDS, arguments)
        except OperationError as error:
            return f"it could not be started: {error}"
        self._running[number] = process
        try:
            if self._lifetime.is_ending():
                # It was asked for while this process was on its way.
                yield from SendSignal(context.now + _SECONDS, process, "SIGTERM")
            status = yield from ProcessExit(FOREVER, process)
        except OperationError as error:
            return f"it cannot be watched: {error}"
        finally:
            del self._running[number]
        return f"signal {-status}" if status < 0 else f"status {status}"

    def _is_hopeless(self) -> bool:
        counts = [self._deaths.get(n, 0) for n in range(1, self._command.workers + 1)]
        return not self._running and min(counts) >= CRASH_LIMIT

    # -- figures ------------------------------------------------------------------

    def _share(self) -> Flow[None]:
        """Make the folder in which each worker leaves its figures for the others."""
        context = self._context
        try:
            folder = yield from MakeFolder(context.now + _SECONDS)
        except OperationError as error:
            fields: dict[str, object] = {"reason": str(error)}
            message = "each worker shows /metrics of its own: there is no folder"
            context.tell(LogLine("error", message, fields))
            return
        self._sharing = Sharing(folder, SUPERVISOR, context, self._report)

    def _report(self) -> Report:
        running: Gauges = {("tz_workers", ()): len(self._running)}
        figures = merge((self._gone, self._metrics.figures(running)))
        return Report(SUPERVISOR, figures, [*self._last.values()])

    def _take_over(self, number: int, reason: str) -> Flow[None]:
        """Keep what a worker had counted that has ended, before it is replaced.

        Its report goes once ours has it; whoever finds both knows by its id.
        """
        self._metrics.add("tz_worker_ends_total", reason=reason)
        sharing, context = self._sharing, self._context
        if sharing is None:
            return
        path = f"{sharing.folder}/{number}"
        try:
            data = yield from ReadFile(context.now + _SECONDS, path)
            report = decode_report(data)
            if report is not None and report.id not in self._last.values():
                self._gone = merge((self._gone, retired(report.figures)))
                self._last[number] = report.id
                if not (yield from sharing.refresh()):
                    return
            yield from RemoveFile(context.now + _SECONDS, path)
        except OperationError as error:
            if isinstance(error, OperationBroken) and error.kind == "missing":
                return  # it ended before it had counted anything
            fields: dict[str, object] = {"worker": number, "reason": str(error)}
            message = "what a worker had counted is lost"
            context.tell(LogLine("error", message, fields))

    def unshare(self) -> Flow[None]:
        """Remove the folder; a supervisor that is killed leaves it behind."""
        if self._sharing is None:
            return
        try:
            yield from RemoveFolder(self._context.now + _SECONDS, self._sharing.folder)
        except OperationError as error:
            fields: dict[str, object] = {"reason": str(error)}
            message = "the workers' folder was not removed"
            self._context.tell(LogLine("warning", message, fields))

    # -- all of them --------------------------------------------------------------

    def _send(self, name: str) -> Flow[None]:
        for process in tuple(self._running.values()):
            try:
                yield from SendSignal(self._context.now + _SECONDS, process, name)
            except OperationError as error:
                fields = {"signal": name, "reason": str(error)}
                message = "a signal did not reach a worker"
                self._context.tell(LogLine("error", message, fields))

    def _end_when_told(self) -> Flow[None]:
        """Ask every worker to end, and kill those that do not in time."""
        context = self._context
        yield from Wait(FOREVER, self._lifetime.stop)
        try:
            # While we hold the socket, clients could still connect, to nobody.
            yield from StopListening(context.now + _SECONDS)
        except OperationError as error:
            reason = {"reason": str(error)}
            context.tell(LogLine("error", "the listeners could not be closed", reason))
        yield from self._send("SIGTERM")
        yield from Sleep(context.now + self._patience)
        fields: dict[str, object] = {
            "workers": sorted(self._running),
            "seconds": self._patience,
        }
        message = "workers did not end in time and are killed"
        context.tell(LogLine("error", message, fields))
        self._status = 1
        yield from self._send("SIGKILL")
        yield from Sleep(FOREVER)  # until the workers' ends end the race

    def _pass_hangups(self) -> Flow[None]:
        """Pass SIGHUP on: each worker reloads by itself, and says how it went."""
        while True:
            yield from self._lifetime.hangup()
            yield from self._send("SIGHUP")
            try:
                loaded = yield from load(self._command.source, self._context)
            except ConfigError:
                continue  # each worker has said so
            self._use(loaded.snapshot)
