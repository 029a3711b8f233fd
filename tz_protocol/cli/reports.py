"""Rows of ``Exchange`` -> what ``tail`` and ``usage`` print.

The one rule: pure functions of rows. What a stranger wrote cannot leave its column:
names are cut, and what is not printable is escaped.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from tz_protocol.cli.logs import printable
from tz_protocol.cli.options import Tail, Usage

__all__ = ["FIELDS", "GROUPS", "line_of", "report", "rows_in", "usage_query"]

FIELDS = (
    "toString(id) AS id",
    "toString(started_at) AS started_at",
    "endpoint",
    "asked_model",
    "model",
    "provider",
    "status",
    "outcome",
    "error",
    "stage",
    "is_stream",
    "cache",
    "key_id",
    "project_id",
    "usage",
    "input_tokens",
    "output_tokens",
    "toString(cost) AS cost",
    "duration_ms",
    "first_content_ms",
    "length(attempts.provider) AS tries",
    "request_id",
    "toUnixTimestamp64Milli(written_at) AS written",
)
"""What ``tail`` reads of each row."""

GROUPS = {
    "model": "if(model = '', asked_model, model)",
    "provider": "provider",
    "key": "key_id",
    "project": "project_id",
    "day": "toString(toDate(started_at))",
    "endpoint": "endpoint",
}
"""What ``usage --by`` takes -> how it is found."""

_FIGURES = {
    "requests": "count()",
    "failed": "countIf(outcome NOT IN ('ok', 'client_gone', 'client_stalled'))",
    "cached": "countIf(cache = 'hit')",
    "input_tokens": "sumIf(input_tokens, cache != 'hit')",
    "output_tokens": "sumIf(output_tokens, cache != 'hit')",
    "unknown_usage": "countIf(outcome = 'ok' AND usage = 'unknown')",
    "cost": "toString(sum(cost))",
    "unknown_cost": "countIf(outcome = 'ok' AND cost IS NULL)",
    "p50_ms": "round(quantileExactIf(0.5)(duration_ms, outcome = 'ok'), 1)",
    "p95_ms": "round(quantileExactIf(0.95)(duration_ms, outcome = 'ok'), 1)",
    "p99_ms": "round(quantileExactIf(0.99)(duration_ms, outcome = 'ok'), 1)",
    "first_p50_ms": "round(quantileExactIf(0.5)(assumeNotNull(first_content_ms), "
    "outcome = 'ok' AND isNotNull(first_content_ms)), 1)",
}
"""What ``usage`` shows -> how it is reckoned. Percentiles are times that there were,
the same at every asking: of N in order, the one at the place N x level."""

_WIDEST = 40
"""Characters of a name."""

_decoder = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


def rows_in(answer: bytes) -> list[dict[str, Any]]:
    """Return the rows of an answer in the format JSONEachRow."""
    return _decoder.decode_lines(answer)


# -- tail -----------------------------------------------------------------------


def line_of(row: dict[str, Any], command: Tail) -> str:
    """Return one request as one line, with its end."""
    if command.is_json:
        shown = {name: _plain(value) for name, value in row.items()}
        del shown["written"]
        return _encode(shown).decode() + "\n"
    model = row["model"] or row["asked_model"] or "-"
    who = f"{_cut(model)}/{_cut(row['provider'] or '-')}"
    tokens = "-"
    if row["usage"] != "unknown":
        tokens = f"{row['input_tokens']}>{row['output_tokens']}"
    parts = [
        row["started_at"],
        str(row["status"] or "-"),
        row["outcome"],
        who,
        f"{row['duration_ms']:.0f}ms",
        tokens,
        f"cost={row['cost'] or '-'}",
    ]
    if row["cache"]:
        parts.append(f"cache={row['cache']}")
    if row["key_id"]:
        parts.append(f"key={row['key_id']}")
    if row["tries"] > 1:
        parts.append(f"attempts={row['tries']}")
    if row["error"]:
        parts.append(f"error={_cut(row['error'])}")
    return printable(" ".join(parts)) + "\n"


def _plain(value: Any) -> Any:
    # ClickHouse reads 1.515 as 1.5150000000000001.
    return round(value, 3) if isinstance(value, float) else value


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


# -- usage ----------------------------------------------------------------------


def usage_query(command: Usage) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the query, and its parameters."""
    groups = [f"{GROUPS[name]} AS `by_{name}`" for name in command.by]
    # A figure with a column's name would be taken for the column by the other figures.
    figures = [f"{sql} AS all_{name}" for name, sql in _FIGURES.items()]
    keys = ", ".join(f"`by_{name}`" for name in command.by)
    order = keys if command.by and command.by[0] == "day" else "sum(cost) DESC, 1"
    sql = (
        f"SELECT {', '.join(groups + figures)} FROM Exchange FINAL "
        "WHERE started_at > now64(3) - toIntervalSecond({seconds:UInt32})"
    )
    if keys:
        first = f"`by_{command.by[0]}`"
        sql = sql.replace(" FROM ", f", grouping({first}) AS is_total FROM ", 1)
        sql += f" GROUP BY GROUPING SETS (({keys}), ()) ORDER BY is_total, {order}"
    sql += " FORMAT JSONEachRow"
    return sql, (("seconds", str(command.seconds)),)


def report(rows: list[dict[str, Any]], command: Usage) -> str:
    """Return the whole text: a table for people, or an array of objects.

    The table ends with a line of everything, if it has more than one; who reads an
    array adds up what is wanted.
    """
    found = [_named(row, command) for row in rows if not row.get("is_total")]
    if command.is_json:
        return _encode(found).decode() + "\n"
    if not found or not any(one["requests"] for one in found):
        return f"no requests in the last {_span(command.seconds)}\n"
    columns = [*command.by, *(name for name in _FIGURES if _is_shown(found, name))]
    if len(found) > 1:
        found += [
            _named(row, command) | {command.by[0]: "total"}
            for row in rows
            if row.get("is_total")
        ]
    table = [columns, *([_cell(row[name]) for name in columns] for row in found)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    count = len(command.by)
    lines = (
        "  ".join(
            cell.ljust(width) if index < count else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )
    return "".join(line + "\n" for line in lines)


def _span(seconds: int) -> str:
    """Return a time as ``--since`` takes it."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if not seconds % size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _named(row: dict[str, Any], command: Usage) -> dict[str, Any]:
    """Return a row under the names that people know; money is text, and exact."""
    named = {name: row[f"by_{name}"] for name in command.by}
    named |= {name: row[f"all_{name}"] for name in _FIGURES}
    cost = named["cost"]
    named["cost"] = None if cost is None else f"{Decimal(cost).normalize():f}"
    return named


def _is_shown(rows: list[dict[str, Any]], name: str) -> bool:
    """Return False for what is unknown nowhere."""
    return not name.startswith("unknown_") or any(row[name] for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return printable(_cut(str(value))) or "-"
