"""``tail``, ``usage`` and ``--run-clickhouse-migrations``: what is in the store.

The one rule: these read the tables and nothing of a running gateway, so that they say
the same whichever process wrote a row, here or on another machine. What they print is
made in ``cli/reports.py``.
"""

from __future__ import annotations

from tz_protocol.cli.lifetime import FOREVER
from tz_protocol.cli.options import Migrate, Tail, Usage
from tz_protocol.cli.output import print_error, say
from tz_protocol.cli.reports import FIELDS, line_of, report, rows_in, usage_query
from tz_protocol.errors import OperationError, StoreError, StoreRefused
from tz_protocol.flows.clickhouse import ClickHouse, store_fault
from tz_protocol.flows.migrate import migrate
from tz_protocol.flows.writing import MISSING_TABLE
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, NextSignal, Race, ResolveSecret, Sleep

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
"""Rows of one look."""


class _Failed(Exception):
    """The command cannot go on; the message says why."""


def run_migrations(command: Migrate, context: Context) -> Flow[int]:
    """Carry out what is missing and end; return the exit status."""
    del command
    try:
        store = yield from _open(context)
        found = yield from migrate(store, None)
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
    seen: dict[str, None] = {}
    seconds = _OVERLAP
    sql = (
        f"SELECT {', '.join(FIELDS)} FROM Exchange "
        "WHERE written_at > now64(3) - toIntervalSecond({seconds:UInt32}) "
        "ORDER BY started_at, id "
        f"LIMIT {_MOST} FORMAT JSONEachRow"
    )
    try:
        store = yield from _open(context)
        while True:
            began = context.now
            parameters = (("seconds", str(seconds)),)
            answer = yield from store.query(_SECONDS, sql, parameters)
            new = [row for row in rows_in(answer) if row["id"] not in seen]
            seen.update(dict.fromkeys(row["id"] for row in new))
            while len(seen) > 4 * _MOST:
                del seen[next(iter(seen))]
            shown = [row for row in new if _is_wanted(command, row)]
            yield from say(context, "".join(line_of(row, command) for row in shown))
            yield from Sleep(began + _LOOK_SECONDS)
            seconds = _OVERLAP + round(context.now - began)
    except _Failed as error:
        yield from print_error(context, str(error))
    except StoreError as error:
        yield from print_error(context, _sentence(error))
    return 1


def _is_wanted(command: Tail, row: dict[str, object]) -> bool:
    wanted = (("model", command.model), ("key_id", command.key_id))
    if any(value and row[name] != value for name, value in wanted):
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
            return "the store has no tables yet: no gateway has written to it"
        return f"ClickHouse answered with its error {error.code}"
    return f"ClickHouse cannot be reached: {error}"
