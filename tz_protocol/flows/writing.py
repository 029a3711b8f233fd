"""One batch of records -> rows in the store, each of them once.

The one rule: a batch is written under its name, table by table, and what has been
written once is known by that name however often it comes. The server remembers a
bounded number of names, so that whoever writes a batch for the second time asks for the
rows before. What the server cannot read is halved until the row that it cannot read
stands alone: that one is set aside, the others are written. What time may mend is the
recorder's to try again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from math import ceil, floor
from typing import TypeAlias

import msgspec

from tz_protocol.errors import StoreRefused
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, Sleep
from tz_protocol.records.batch import Rejected
from tz_protocol.records.entry import Entry
from tz_protocol.records.rows import FUNCTION, TABLES, rows_of

__all__ = ["BAD_DATA", "MISSING_TABLE", "Rows", "render", "write"]

_TURN_BYTES = 131_072
_TURN_ROWS = 25
"""After so much work the loop gets its turn: about a millisecond."""

_PAUSE = 0.001

BAD_DATA = frozenset(
    {
        "6",  # CANNOT_PARSE_TEXT
        "25",  # CANNOT_PARSE_ESCAPE_SEQUENCE
        "26",  # CANNOT_PARSE_QUOTED_STRING
        "27",  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        "33",  # CANNOT_READ_ALL_DATA
        "38",  # CANNOT_PARSE_DATE
        "41",  # CANNOT_PARSE_DATETIME
        "53",  # TYPE_MISMATCH
        "69",  # ARGUMENT_OUT_OF_BOUND
        "70",  # CANNOT_CONVERT_TYPE
        "72",  # CANNOT_PARSE_NUMBER
        "117",  # INCORRECT_DATA
        "130",  # CANNOT_READ_ARRAY_FROM_TEXT
        "190",  # SIZES_OF_ARRAYS_DONT_MATCH
        "321",  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        "349",  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        "376",  # CANNOT_PARSE_UUID
        "407",  # DECIMAL_OVERFLOW
        "467",  # CANNOT_PARSE_BOOL
        "469",  # VIOLATED_CONSTRAINT
        "691",  # UNKNOWN_ELEMENT_OF_ENUM
    }
)
"""Errors that are about a row. Source: ClickHouse's src/Common/ErrorCodes.cpp."""

MISSING_TABLE = frozenset({"16", "60", "81"})
"""NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_TABLE, UNKNOWN_DATABASE: migrations are due."""

_NO_SUCH_COLUMN = "16"
_UNKNOWN_FIELD = "117"
"""INCORRECT_DATA, which is what a member is called that the table has no column for."""

_decode = msgspec.msgpack.Decoder(Entry).decode

Row: TypeAlias = tuple[int, bytes]
"""The number of the record in its batch, and the row."""

Rows: TypeAlias = dict[str, list[Row]]
"""By table."""


def render(payloads: Sequence[bytes], context: Context) -> Flow[tuple[Rows, list[int]]]:
    """Return the rows of a batch, and the numbers of what could not be read."""
    rows: Rows = {}
    unread: list[int] = []
    size = 0
    for number, payload in enumerate(payloads):
        try:
            pairs = rows_of(_decode(payload))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unread.append(number)
            continue
        for table, row in pairs:
            rows.setdefault(table, []).append((number, row))
        size += len(payload)
        if size > _TURN_BYTES or not (number + 1) % _TURN_ROWS:
            size = 0
            yield from Sleep(context.now + _PAUSE)
    return rows, unread


def write(
    store: ClickHouse,
    seconds: float,
    name: str,
    rows: Rows,
    written: dict[str, list[Rejected]],
    *,
    is_repeat: bool,
) -> Flow[list[Rejected]]:
    """Write the rows of the batch *name*; return those that were refused.

    Args:
        store: Where.
        seconds: For each insert.
        name: Of the batch.
        rows: From :func:`render`.
        written: Tables that have them already, and what each refused; is added to.
        is_repeat: True if any of it may have been written before.

    Raises:
        StoreError: Not everything is there; call again with the same arguments.
    """
    for table in TABLES:
        if table in written:
            continue
        part, rejected = rows.get(table, []), list[Rejected]()
        if part and is_repeat:
            there = yield from _there(store, seconds, table, part)
            part = [row for row in part if _read(row[1]).id not in there]
        if part:
            whole = len(rows[table])
            rejected = yield from _insert(store, seconds, table, name, part, whole)
        written[table] = rejected
    return [refused for rejected in written.values() for refused in rejected]


class _Key(msgspec.Struct):
    """What tells a row from all others, and where it stands in its table's order."""

    id: str
    started_at: float = 0.0
    inference_id: str | None = None
    episode_id: str | None = None


_read = msgspec.json.Decoder(_Key, strict=False).decode
_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_UUID = re.compile(r"[0-9a-fA-F-]{36}")


def _there(
    store: ClickHouse, seconds: float, table: str, rows: list[Row]
) -> Flow[frozenset[str]]:
    """Return the ids of those *rows* that the table has."""
    keys = [key for _, row in rows if _UUID.fullmatch((key := _read(row)).id)]
    if not keys:
        return frozenset()
    sql = (
        f"SELECT toString(id) AS id FROM {table} WHERE {_PLACES[table](keys)} "
        f"AND id IN ({_listed(key.id for key in keys)}) FORMAT JSONEachRow"
    )
    answer = yield from store.query(seconds, sql)
    return frozenset(_read(line).id for line in answer.splitlines() if line)


def _listed(values: Iterable[str | None]) -> str:
    found = dict.fromkeys(value for value in values if value)
    return ", ".join(f"'{value}'" for value in found if _UUID.fullmatch(value))


def _around(keys: list[_Key]) -> str:
    times = [key.started_at for key in keys]
    first, last = floor(min(times)), ceil(max(times))
    return f"started_at BETWEEN {_moment(first)} AND {_moment(last)}"


def _moment(second: int) -> str:
    return f"fromUnixTimestamp64Milli({second * 1000}, 'UTC')"


_PLACES: dict[str, Callable[[list[_Key]], str]] = {
    "Exchange": _around,
    "ModelInference": lambda keys: (
        f"inference_id IN ({_listed(key.inference_id for key in keys)})"
    ),
    "ChatInference": lambda keys: (
        f"function_name = '{FUNCTION}' "
        f"AND episode_id IN ({_listed(key.episode_id for key in keys)})"
    ),
}
"""By table: a condition on the columns that it is ordered by, so that not all of it is
read."""


def _insert(
    store: ClickHouse,
    seconds: float,
    table: str,
    name: str,
    rows: list[Row],
    whole: int,
) -> Flow[list[Rejected]]:
    """Insert; halve what is refused because of a row, down to that row.

    Args:
        store: Where.
        seconds: For each insert.
        table: Whose rows they are.
        name: Of the batch.
        rows: Those that are not there yet.
        whole: How many rows the table has of the batch.
    """
    rejected: list[Rejected] = []
    parts = [rows]
    while parts:
        part = parts.pop()
        token = name
        if len(part) < whole:
            # Never the name of other rows: what is there already only grows, so that
            # as many between the same two are the same ones.
            token = f"{name}-{part[0][0]}-{part[-1][0]}-{len(part)}"
        data = b"\n".join(row for _, row in part)
        try:
            yield from store.insert(seconds, table, data, token)
        except StoreRefused as error:
            if error.code not in BAD_DATA:
                raise
            if error.code == _UNKNOWN_FIELD and part is rows:
                yield from _require_columns(store, seconds, table, rows)
            if len(part) == 1:
                number, row = part[0]
                rejected.append((number, table, row, error.code))
                continue
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]]
    return rejected


def _require_columns(
    store: ClickHouse, seconds: float, table: str, rows: list[Row]
) -> Flow[None]:
    """Check that the table is not an older version's, for which no row is at fault.

    Raises:
        StoreRefused: It is: migrations are due, and then the same rows are good.
    """
    members = dict.fromkeys(name for _, row in rows for name in _read_members(row))
    named = ", ".join(f"'{name}'" for name in members)
    sql = (
        "SELECT name FROM system.columns WHERE database = currentDatabase() "
        f"AND table = '{table}' AND name IN ({named}) FORMAT JSONEachRow"
    )
    answer = yield from store.query(seconds, sql)
    if len(answer.splitlines()) < len(members):
        raise StoreRefused(_NO_SUCH_COLUMN)
