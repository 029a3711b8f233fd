"""A ClickHouse in memory, for ``Simulator``: tables, tokens, and faults.

The one rule: a test holds one of these and changes it, between steps or at a moment of
the simulated clock, as people and failures change a real one. It keeps rows as they
were sent, knows an insert by its token as the real one does, and answers those queries
that the core asks: what it has not been told the answer to is an error of the test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Literal

from tz_protocol.errors import OperationBroken, StoreRefused

__all__ = ["ScriptedClickHouse"]

State = Literal["up", "down", "frozen"]
Row = dict[str, Any]

_INSERT = re.compile(r"INSERT INTO (\w+)")
_THERE = re.compile(r"SELECT toString\(id\) AS id FROM (\w+) .* AND id IN \((.*)\)")
_QUOTED = re.compile(r"'([^']+)'")
_CREATE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")


class ScriptedClickHouse:
    """One server with one database."""

    def __init__(self) -> None:
        self.state: State = "up"
        """``down`` refuses connections, ``frozen`` says nothing."""
        self.latency = 0.0
        """Seconds before anything is carried out and answered."""
        self.tables: dict[str, list[Row]] = {}
        self.created: set[str] = set()
        self.statements: list[str] = []
        """All that were carried out, but for inserts of rows."""
        self.inserts: list[tuple[str, str, int]] = []
        """(table, token, rows) of every insert that was carried out or recognised."""
        self.functions = {"quantilesTDigest", "toUInt128", "uint_to_uuid"}
        """Those of the ones that are asked for that there are."""
        self.answers: dict[str, Callable[[dict[str, str]], list[Row]]] = {}
        """What a query holds -> its rows, made of its parameters."""
        self.is_bad: Callable[[str, Row], bool] = lambda table, row: False
        """True for a row that cannot be read (error 27)."""
        self.lacks: set[str] = set()
        """Columns that no table has: rows with them are refused (error 117)."""
        self.refuses: Callable[[str, Row], bool] = lambda table, row: False
        """True for a row with which an insert fails in a way that is unheard of."""
        self.refusals: list[str] = []
        """Codes of errors with which the next inserts are answered, in order."""
        self.lost_acks = 0
        """So many of the next inserts are carried out, and not answered."""
        self.window = 10_000
        """So many of the latest tokens of each table are remembered."""
        self._tokens: dict[str, dict[str, None]] = {}

    def rows(self, table: str) -> list[Row]:
        """Return the rows of *table*, in the order in which they came."""
        return self.tables.get(table, [])

    # -- what the simulator asks --------------------------------------------------

    def check(self) -> None:
        """Raise what a connection finds; call unless frozen."""
        if self.state == "down":
            raise OperationBroken("refused")

    def query(self, sql: str, parameters: dict[str, str]) -> bytes:
        """Carry out a statement; return its rows as JSON objects, one a line."""
        self.statements.append(sql)
        created = _CREATE.match(sql)
        if created:
            self.created.add(created[1])
            return b""
        inserted = _INSERT.match(sql)
        if inserted:
            if parameters:
                self.tables.setdefault(inserted[1], []).append(dict(parameters))
            return b""
        if sql.startswith(("ALTER ", "CREATE ")):
            return b""
        rows = self._answer(sql, parameters)
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    def _answer(self, sql: str, parameters: dict[str, str]) -> list[Row]:
        if "FROM TzMigration" in sql:
            return [{"version": row["version"]} for row in self.rows("TzMigration")]
        if "FROM system.functions" in sql:
            return [{"name": name} for name in sorted(self.functions)]
        if "FROM system.tables" in sql:
            return [
                {"name": name, "create_table_query": ""}
                for name in sorted(self.created)
            ]
        if "FROM ModelInferenceCache" in sql:
            return self._cached(parameters)
        if "FROM system.columns" in sql:
            names = _QUOTED.findall(sql.partition(" name IN ")[2])
            return [{"name": name} for name in names if name not in self.lacks]
        asked = _THERE.match(sql)
        if asked:
            if asked[1] not in self.created:
                raise StoreRefused("60")
            ids = {row["id"] for row in self.rows(asked[1])}
            return [{"id": one} for one in _QUOTED.findall(asked[2]) if one in ids]
        for part, answer in self.answers.items():
            if part in sql:
                return answer(parameters)
        message = f"the scripted ClickHouse has no answer to {sql!r}"
        raise AssertionError(message)

    def _cached(self, parameters: dict[str, str]) -> list[Row]:
        key = parameters["long"]
        found = [
            {"output": row["output"], "written": row["timestamp"]}
            for row in self.rows("ModelInferenceCache")
            if row["long_cache_key"] == key
        ]
        return found[-1:]

    def insert(self, table: str, data: bytes, token: str) -> None:
        """Insert rows, all or none.

        Raises:
            StoreRefused: The table, or a row, is not as it should be.
            OperationBroken: The rows are there and the answer is lost.
        """
        if self.refusals:
            raise StoreRefused(self.refusals.pop(0))
        if table not in self.created:
            raise StoreRefused("60")
        rows = [json.loads(line) for line in data.split(b"\n") if line]
        if any(self.lacks & row.keys() for row in rows):
            raise StoreRefused("117")
        if any(self.is_bad(table, row) for row in rows):
            raise StoreRefused("27")
        if any(self.refuses(table, row) for row in rows):
            raise StoreRefused("1001")
        self.inserts.append((table, token, len(rows)))
        tokens = self._tokens.setdefault(table, {})
        if not token or token not in tokens:
            self.tables.setdefault(table, []).extend(rows)
            tokens[token] = None
            while len(tokens) > self.window:
                del tokens[next(iter(tokens))]
        if self.lost_acks:
            self.lost_acks -= 1
            raise OperationBroken("reset")
