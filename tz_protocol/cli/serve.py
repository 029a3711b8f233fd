"""``serve``: load, listen, reload, drain.

The one rule: the old configuration stays in use until a whole new one is there, and no
exchange is cut while it still has time. One process; ``workers.py`` has several.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from tz_protocol.cli.arguments import USAGE_ERROR
from tz_protocol.cli.lifetime import FOREVER, Lifetime
from tz_protocol.cli.loading import Loaded, load
from tz_protocol.cli.options import Serve, Worker
from tz_protocol.cli.output import (
    announcement,
    cannot_listen,
    print_error,
    print_problems,
    say,
)
from tz_protocol.cli.services import keep_running, supervised
from tz_protocol.errors import ConfigError, OperationError
from tz_protocol.flows.figures import Sharing
from tz_protocol.gateway import Gateway
from tz_protocol.machine import Context
from tz_protocol.notices import LogLine
from tz_protocol.operations import Flow, Listen, Race, Sleep, StopListening, Wait
from tz_protocol.recordops import IsOwned
from tz_protocol.records.figures import Report
from tz_protocol.types.settings import Limits, Snapshot

__all__ = [
    "MakeGateway",
    "describe_source",
    "drain_when_told",
    "no_listener",
    "serve",
    "share_of",
]

MakeGateway: TypeAlias = Callable[[Snapshot], Gateway]
"""Given by the transport, which adds its clock, its ids and its context."""

LISTEN_SECONDS = 30.0
"""To bind and to read the certificate."""

_ORPHAN_SECONDS = 1.0
"""Between two looks at whether the supervisor is still there."""

_MOST_PROBLEMS = 20
"""Of a reload, or warnings, in the log; ``check`` lists them all."""

_SHARED = ("connections", "requests", "queue", "pool_per_origin", "pool_idle")
"""Limits of the whole gateway, which its workers divide among themselves."""


def serve(command: Serve, context: Context, make_gateway: MakeGateway) -> Flow[int]:
    """Serve until a signal; return the exit status of this one process."""
    lifetime = Lifetime(context, ignores_interrupts=command.worker is not None)
    operate = _operate(command, context, make_gateway, lifetime)
    _, status = yield from Race(FOREVER, (lifetime.watch(), operate))
    return int(status)


def _operate(
    command: Serve, context: Context, make_gateway: MakeGateway, lifetime: Lifetime
) -> Flow[int]:
    if command.is_path_positional:
        message = "a file without --config-file is deprecated: add --config-file"
        context.tell(LogLine("warning", message))
    try:
        loaded = yield from load(command.source, context)
    except ConfigError as error:
        yield from print_problems(context, error)
        return USAGE_ERROR
    snapshot = share_of(loaded.snapshot, command.worker)
    gateway = make_gateway(snapshot)
    _prepare_figures(gateway, command.worker)
    configured = snapshot.gateway.bind_address
    addresses = command.worker.addresses if command.worker else (configured,)
    try:
        bound = yield from Listen(
            context.now + LISTEN_SECONDS,
            gateway,
            addresses,
            command.tls_cert,
            command.tls_key,
        )
    except OperationError as error:
        yield from print_error(context, no_listener(command, configured, error))
        return 1
    lifetime.is_started = True
    yield from say(context, announcement(bound, _describe(loaded, command.worker)))
    _warn(snapshot, context)
    reloads = keep_running(
        gateway, "reload", lambda: _reload(command, gateway, lifetime, configured)
    )
    drained = drain_when_told(gateway, lifetime)
    orphaned = _end_when_orphaned(gateway, lifetime)
    yield from Race(FOREVER, (drained, reloads, orphaned, *supervised(gateway)))
    if gateway.sharing is not None:
        yield from gateway.sharing.write()
    return 1 if gateway.stores.lost() else 0


def no_listener(command: Serve, address: str, error: OperationError) -> str:
    """Return why there is no listener, with the files that it may be about."""
    message = cannot_listen(address, error)
    if command.tls_cert is not None:
        message += f" (with {command.tls_cert} and {command.tls_key})"
    return message


def _end_when_orphaned(gateway: Gateway, lifetime: Lifetime) -> Flow[None]:
    """End a worker in good order whose supervisor was killed.

    It would serve on with nobody to stop it, and take the address from the next one.
    """
    sharing, context = gateway.sharing, gateway.context
    while sharing is not None and not lifetime.is_ending():
        yield from Sleep(context.now + _ORPHAN_SECONDS)
        try:
            is_owned = yield from IsOwned(context.now + LISTEN_SECONDS, sharing.folder)
        except OperationError:
            continue  # the folder is gone or cannot be read, which says nothing
        if not is_owned and not lifetime.is_ending():
            message = "the supervisor was killed: this worker ends"
            context.tell(LogLine("error", message))
            lifetime.stop.set()
    yield from Sleep(FOREVER)


def _prepare_figures(gateway: Gateway, worker: Worker | None) -> None:
    """Have everything at hand for ``/metrics``, so that no scrape holds requests up."""
    from tz_protocol.records import exposition  # noqa: F401

    if worker is None or not worker.folder:
        return
    process = gateway.new_id()

    def report() -> Report:
        return Report(process, gateway.metrics.figures(gateway.gauges()))

    gateway.sharing = Sharing(
        worker.folder, str(worker.number), gateway.context, report
    )


def drain_when_told(gateway: Gateway, lifetime: Lifetime) -> Flow[None]:
    """Wait for the end to be asked for, and bring it about in order."""
    context = gateway.context
    yield from Wait(FOREVER, lifetime.stop)
    started, connections = context.now, gateway.connections
    gateway.is_draining = True
    try:
        yield from StopListening(context.now + LISTEN_SECONDS)
    except OperationError as error:
        reason = {"reason": str(error)}
        context.tell(LogLine("error", "the listeners could not be closed", reason))
    yield from gateway.drain()
    fields: dict[str, object] = {
        "connections": connections,
        "cut": gateway.connections,
        "seconds": round(context.now - started, 3),
    }
    lost = gateway.stores.lost()
    if lost:
        fields["records_lost"] = lost
    context.tell(LogLine("error" if lost else "info", "drained", fields))


# -- configuration --------------------------------------------------------------


def share_of(snapshot: Snapshot, worker: Worker | None) -> Snapshot:
    """Return *snapshot* with the limits that one of several workers may use."""
    if worker is None or worker.count == 1:
        return snapshot
    limits, count = snapshot.gateway.limits, worker.count
    # Rounded up, so that what is allowed at all is allowed in each.
    parts = {name: -(-getattr(limits, name) // count) for name in _SHARED}
    memory = max(limits.body_memory // count, limits.body_bytes)
    shared: Limits = msgspec.structs.replace(limits, body_memory=memory, **parts)
    records, cache = snapshot.gateway.records, snapshot.gateway.cache
    spool = msgspec.structs.replace(records.spool, bytes=records.spool.bytes // count)
    gateway = msgspec.structs.replace(
        snapshot.gateway,
        limits=shared,
        records=msgspec.structs.replace(
            records, queue_bytes=records.queue_bytes // count, spool=spool
        ),
        cache=msgspec.structs.replace(cache, memory_bytes=cache.memory_bytes // count),
    )
    access = snapshot.access
    if access is not None and access.redis_url is None:
        access = msgspec.structs.replace(access, processes=count)
    return msgspec.structs.replace(snapshot, gateway=gateway, access=access)


def describe_source(loaded: Loaded) -> str:
    """Return which configuration it is and how many models it has, in few words."""
    files = loaded.files
    if not files:
        return f"no config file, shorthand for {', '.join(loaded.snapshot.shorthand)}"
    name = files[0] if len(files) == 1 else f"{len(files)} files"
    count = len(loaded.snapshot.models)
    models = "1 model" if count == 1 else f"{count} models"
    return f"config {loaded.snapshot.config_id} from {name}, {models}"


def _describe(loaded: Loaded, worker: Worker | None) -> str:
    text = describe_source(loaded)
    return text if worker is None else f"{text}, worker {worker.number}/{worker.count}"


def _warn(snapshot: Snapshot, context: Context) -> None:
    """Log what works and is probably not meant."""
    for warning in snapshot.warnings[:_MOST_PROBLEMS]:
        fields = {"warning": warning}
        context.tell(LogLine("warning", "a warning of the configuration", fields))
    shorthand = snapshot.shorthand
    has_key = any(entry.credential.kind != "none" for entry in shorthand.values())
    if not snapshot.models and not has_key:
        fields = {
            "usable": ", ".join(shorthand),
            "variables": ", ".join(snapshot.missing_keys.values()),
        }
        message = "no model is configured and no provider's key is set"
        context.tell(LogLine("warning", message, fields))
    settings = snapshot.gateway
    if settings.records.url is None and settings.observability is None:
        message = (
            "no records are kept: set TENSORZERO_CLICKHOUSE_URL, or "
            "gateway.observability.enabled = false"
        )
        context.tell(LogLine("warning", message))


def _reload(
    command: Serve, gateway: Gateway, lifetime: Lifetime, bound: str
) -> Flow[None]:
    """Take a new configuration at every SIGHUP; keep the old one if it is bad."""
    context = gateway.context
    while True:
        yield from lifetime.hangup()
        try:
            loaded = yield from load(command.source, context)
        except ConfigError as error:
            gateway.metrics.add("tz_config_reloads_total", result="refused")
            _tell_refused(error, gateway)
            continue
        old = gateway.snapshot
        new = share_of(loaded.snapshot, command.worker)
        gateway.replace(new)
        gateway.metrics.add("tz_config_reloads_total", result="ok")
        fields = {
            "config_id": new.config_id,
            "previous": old.config_id,
            "models": len(new.models),
        }
        context.tell(LogLine("info", "the configuration was reloaded", fields))
        _tell_unapplied(bound, new, context)
        _warn(new, context)


def _tell_refused(error: ConfigError, gateway: Gateway) -> None:
    count, context = len(error.problems), gateway.context
    message = "the configuration was not reloaded: the old one stays in use"
    fields = {"config_id": gateway.snapshot.config_id, "problems": count}
    context.tell(LogLine("error", message, fields))
    for problem in error.problems[:_MOST_PROBLEMS]:
        fields = {"problem": str(problem)}
        context.tell(LogLine("error", "a problem of the configuration", fields))


def _tell_unapplied(bound: str, new: Snapshot, context: Context) -> None:
    """Name what a running process cannot change."""
    configured = new.gateway.bind_address
    if configured != bound:
        message = "bind_address has changed, which needs a restart"
        fields = {"listening_on": bound, "configured": configured}
        context.tell(LogLine("warning", message, fields))
