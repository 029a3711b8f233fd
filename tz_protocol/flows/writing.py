"""One batch of records -> rows in the store, each of them once.

The one rule: a batch is written under its name, table by table, and what has been
written once is known by that name however often it comes. What the server cannot read
is halved until the row that it cannot read stands alone: that one is set aside, the
others are written. What time may mend is the recorder's to try again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from tz_protocol.errors import StoreRefused
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, Sleep
from tz_protocol.records.entry import Entry
from tz_protocol.records.rows import TABLES, rows_of

__all__ = ["BAD_DATA", "MISSING_TABLE", "Rejected", "Rows", "render", "write"]

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

_decode = msgspec.msgpack.Decoder(Entry).decode

Row: TypeAlias = tuple[int, bytes]
"""The number of the record in its batch, and the row."""

Rows: TypeAlias = dict[str, list[Row]]
"""By table."""

Rejected: TypeAlias = tuple[int, str, bytes, str]
"""The number of the record, the table, the row, the error's code."""


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
    store: ClickHouse, seconds: float, name: str, rows: Rows, written: set[str]
) -> Flow[list[Rejected]]:
    """Write the rows of the batch *name*; return those that were refused.

    Args:
        store: Where.
        seconds: For each insert.
        name: Of the batch.
        rows: From :func:`render`.
        written: Tables that have them already; is added to.

    Raises:
        StoreError: Not everything is there; call again with the same arguments.
    """
    rejected: list[Rejected] = []
    for table in TABLES:
        if table in written:
            continue
        if table in rows:
            rejected += yield from _insert(store, seconds, table, name, rows[table])
        written.add(table)
    return rejected


def _insert(
    store: ClickHouse, seconds: float, table: str, name: str, rows: list[Row]
) -> Flow[list[Rejected]]:
    """Insert; halve what is refused because of a row, down to that row."""
    rejected: list[Rejected] = []
    parts = [(name, rows)]
    while parts:
        token, part = parts.pop()
        data = b"\n".join(row for _, row in part)
        try:
            yield from store.insert(seconds, table, data, token)
        except StoreRefused as error:
            if error.code not in BAD_DATA:
                raise
            if len(part) == 1:
                number, row = part[0]
                rejected.append((number, table, row, error.code))
                continue
            # The halves are the same ones, and have the same names, whenever this
            # batch is tried again.
            middle = len(part) // 2
            parts.append((token + "b", part[middle:]))
            parts.append((token + "a", part[:middle]))
    return rejected
