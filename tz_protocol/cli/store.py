"""``tail``, ``usage`` and ``--run-clickhouse-migrations``: what is in the store.

The one rule: these read the tables and nothing of a running gateway, so that they say
the same whichever process wrote a row, here or on another machine. What they print is
made in ``cli/reports.py``.
"""

from __future__ import annotations

from tz_protocol.cli.arguments import USAGE_ERROR
from tz_protocol.cli.lifetime import FOREVER
from tz_protocol.cli.loading import load_records
from tz_protocol.cli.options import Migrate, Tail, Usage
from tz_protocol.cli.output import print_error, print_problems, say
from tz_protocol.cli.reports import FIELDS, line_of, report, rows_in, usage_query
from tz_protocol.errors import (
    ConfigError,
    OperationBroken,
    OperationError,
    StoreError,
    StoreRefused,
)
from tz_protocol.flows.clickhouse import ClickHouse, store_fault
from tz_protocol.flows.migrate import migrate
from tz_protocol.flows.writing import MISSING_TABLE
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, NextSignal, Print, Race, ResolveSecret, Sleep

__all__ = ["run_migrations", "tail", "usage"]

VARIABLE = "TENSORZERO_CLICKHOUSE_URL"

_SECONDS = 30.0
"""For each answer."""

_LOOK_SECONDS = 1.0
"""Between two looks at what is new."""

_OVERLAP = 10
"""Seconds that two looks have in common: inserts are not seen in the order of their
times, and what was printed is known."""

_MOST = 5_000
"""Rows of one answer; a look takes as many as it needs."""

_NIL = "00000000-0000-0000-0000-000000000000"


_REASONS = {
    "dns": "its host has no address",
    "no_clickhouse": "what answers there is no ClickHouse",
    "refused": "the connection was refused",
    "reset": "the connection was lost",
    "timeout": "there was no answer in time",
    "tls": "there is no TLS connection to it",
}
"""A driver's word -> what is told; other words are told as they are."""


class _Failed(Exception):
    """The command cannot go on; the message says why."""


def run_migrations(command: Migrate, context: Context) -> Flow[int]:
    """Carry out what is missing and end; return the exit status."""
    try:
        ttl_days = yield from _ttl_days(command, context)
        store = yield from _open(context)
        found = yield from migrate(store, ttl_days)
    except ConfigError as error:
        yield from print_problems(context, error)
        return USAGE_ERROR
    except _Failed as error:
        yield from print_error(context, str(error))
        return 1
    except StoreError as error:
        yield from print_error(context, _sentence(error))
        return 1
    text = f"carried out: {', '.join(found.done)}\n" if found.done else ""
    if found.left_out:
        text += f"left out, as this server cannot: {', '.join(found.left_out)}\n"
    yield from say(context, text or "nothing was to be done\n")
    return 0


def _ttl_days(command: Migrate, context: Context) -> Flow[int | None]:
    """Return what the files say.

    Raises:
        ConfigError: They cannot be read, or what they say of records is wrong.
    """
    if not command.source.patterns:
        return None
    records = yield from load_records(command.source, context)
    return records.ttl_days


def usage(command: Usage, context: Context) -> Flow[int]:
    """Print what was used; return the exit status."""
    sql, parameters = usage_query(command)
    try:
        store = yield from _open(context)
        answer = yield from store.query(_SECONDS, sql, parameters)
    except _Failed as error:
        yield from print_error(context, str(error))
        return 1
    except StoreError as error:
        yield from print_error(context, _sentence(error))
        return 1
    yield from say(context, report(rows_in(answer), command))
    return 0


def tail(command: Tail, context: Context) -> Flow[int]:
    """Print requests as their records arrive, until a signal."""
    signal = NextSignal(FOREVER)
    _, status = yield from Race(FOREVER, (iter(signal), _follow(command, context)))
    return status if isinstance(status, int) else 0


def _follow(command: Tail, context: Context) -> Flow[int]:
    told = ""
    shown: dict[str, int] = {}
    seconds = max(command.seconds, _OVERLAP)
    try:
        store = yield from _open(context)
    except _Failed as error:
        yield from print_error(context, str(error))
        return 1
    has_answered = False
    while True:
        began = context.now
        try:
            yield from _look(store, command, seconds, shown)
        except OperationBroken:  # nobody reads it any more
            return 0
        except StoreError as error:
            is_empty = isinstance(error, StoreRefused) and error.code in MISSING_TABLE
            if not (has_answered or is_empty):
                yield from print_error(context, _sentence(error))
                return 1
            # A store that is made anew, or was there a moment ago, is waited for.
            if str(error) != told:
                told = str(error)
                yield from print_error(context, f"{_sentence(error)}; waiting for it")
        else:
            has_answered, told = True, ""
            seconds = _OVERLAP
        yield from Sleep(began + _LOOK_SECONDS)
        seconds += round(context.now - began)


def _look(
    store: ClickHouse, command: Tail, seconds: int, shown: dict[str, int]
) -> Flow[None]:
    """Print what was written in the last *seconds* and is not in *shown*.

    Raises:
        StoreError: The store does not say what there is.
        OperationBroken: It cannot be printed.
    """
    sql = (
        f"SELECT {', '.join(FIELDS)} FROM Exchange "
        "WHERE written_at > now64(3) - toIntervalSecond({seconds:UInt32}) "
        "AND (written_at > fromUnixTimestamp64Milli({after:Int64}) "
        "OR (written_at = fromUnixTimestamp64Milli({after:Int64}) "
        "AND Exchange.id > {id:UUID})) "
        "ORDER BY written_at, Exchange.id "
        f"LIMIT {_MOST} FORMAT JSONEachRow"
    )
    after, last = 0, _NIL
    while True:
        parameters = (("seconds", str(seconds)), ("after", str(after)), ("id", last))
        answer = yield from store.query(_SECONDS, sql, parameters)
        rows = rows_in(answer)
        new = [row for row in rows if row["id"] not in shown]
        new.sort(key=lambda row: (row["started_at"], row["id"]))
        shown.update((row["id"], int(row["written"])) for row in new)
        lines = [line_of(row, command) for row in new if _is_wanted(command, row)]
        if lines:
            # A pager may take as long as it likes.
            yield from Print(FOREVER, "".join(lines))
        if len(rows) < _MOST:
            break
        after, last = int(rows[-1]["written"]), rows[-1]["id"]
    oldest = max(shown.values(), default=0) - 1000 * (seconds + _OVERLAP)
    for number in [number for number, written in shown.items() if written < oldest]:
        del shown[number]


def _is_wanted(command: Tail, row: dict[str, object]) -> bool:
    if command.model and command.model not in (row["model"], row["asked_model"]):
        return False
    if command.key_id and command.key_id != row["key_id"]:
        return False
    return not command.is_failures or row["outcome"] != "ok"


def _open(context: Context) -> Flow[ClickHouse]:
    """Return the store that the environment names.

    Raises:
        _Failed: It names none.
    """
    try:
        secret = yield from ResolveSecret(context.now + _SECONDS, f"env::{VARIABLE}")
    except OperationError:
        raise _Failed(f"set {VARIABLE} to the store that the gateway writes to")
    fault = store_fault(secret.reveal())
    if fault:
        raise _Failed(f"the environment variable {VARIABLE} {fault}")
    return ClickHouse(secret, context)


def _sentence(error: StoreError) -> str:
    if isinstance(error, StoreRefused):
        if error.code in MISSING_TABLE:
            return (
                "the store has no tables yet: no gateway has written to it "
                f"(is {VARIABLE} the gateway's?)"
            )
        return f"ClickHouse answered with its error {error.code}"
    reason = str(error)
    if reason == "denied":
        return f"ClickHouse does not accept the user or the password in {VARIABLE}"
    return f"ClickHouse cannot be reached: {_REASONS.get(reason, reason)}"
