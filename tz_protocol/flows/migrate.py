"""Brings a database to the tables that this version writes.

The one rule: it may be run at any time, by any number of processes at once, and again
after it was cut off anywhere. What is to be done stands in ``records/schema.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import msgspec

from tz_protocol import __version__
from tz_protocol.errors import StoreRefused
from tz_protocol.flows.clickhouse import EMBEDDED, ClickHouse
from tz_protocol.operations import Flow
from tz_protocol.records.schema import (
    CREATE_VERSIONS,
    MIGRATIONS,
    TTL_COLUMNS,
    VERSIONS,
    Migration,
    ttl_statement,
)
from tz_protocol.records.views import FUNCTIONS

__all__ = ["DATABASE", "STATEMENT_SECONDS", "Migrated", "migrate"]

DATABASE = "tensorzero"
"""Of the embedded engine, and TensorZero's own default."""

STATEMENT_SECONDS = 60.0

FIRST_SECONDS = 10.0
"""For the first statement, which shows whether there is a server at all."""

_ACCESS_DENIED = "497"


@dataclass(frozen=True, slots=True)
class Migrated:
    """What :func:`migrate` came to."""

    done: tuple[str, ...]
    """Names of what was carried out."""
    left_out: tuple[str, ...]
    """What this server cannot have, and why; a later one may."""


class _Version(msgspec.Struct):
    version: int


class _Function(msgspec.Struct):
    name: str


class _Table(msgspec.Struct):
    name: str
    create_table_query: str


_read_versions = msgspec.json.Decoder(_Version, strict=False).decode_lines
_read_functions = msgspec.json.Decoder(_Function).decode_lines
_read_tables = msgspec.json.Decoder(_Table)


def migrate(store: ClickHouse, ttl_days: int | None) -> Flow[Migrated]:
    """Carry out what is missing.

    Raises:
        StoreError: Something was not carried out; run it again.
    """
    yield from _create_database(store)
    yield from store.query(STATEMENT_SECONDS, CREATE_VERSIONS)
    sql = f"SELECT DISTINCT version FROM {VERSIONS} FORMAT JSONEachRow"
    answer = yield from store.query(STATEMENT_SECONDS, sql)
    versions = {row.version for row in _read_versions(answer)}
    due = [migration for migration in MIGRATIONS if migration.version not in versions]
    done: list[str] = []
    left_out: list[str] = []
    functions = yield from _functions(store, due, left_out)
    for migration in due:
        if migration.needs and migration.needs not in functions:
            tables = " and ".join(migration.tables)
            left_out.append(f"{tables} (no function {migration.needs})")
            continue
        yield from _apply(store, migration)
        done.append(migration.name)
    if ttl_days is not None:
        done += yield from _set_ttl(store, ttl_days)
    return Migrated(tuple(done), tuple(left_out))


def _functions(
    store: ClickHouse, due: list[Migration], left_out: list[str]
) -> Flow[set[str]]:
    """Return which functions there are, of those that are needed; make our own.

    They are the server's and not the database's, so that no version knows of them.
    """
    wanted = (*FUNCTIONS, *(m.needs for m in due if m.needs))
    names = ", ".join(f"'{name}'" for name in wanted)
    sql = f"SELECT name FROM system.functions WHERE name IN ({names})"
    answer = yield from store.query(STATEMENT_SECONDS, f"{sql} FORMAT JSONEachRow")
    found = {row.name for row in _read_functions(answer)}
    for name, statement in FUNCTIONS.items():
        if name in found:
            continue
        try:
            yield from store.query(STATEMENT_SECONDS, statement)
        except StoreRefused as error:
            if error.code != _ACCESS_DENIED:
                raise
            left_out.append(f"function {name} (no right to make it)")
    return found


def _create_database(store: ClickHouse) -> Flow[None]:
    text = store.url.reveal()
    name = DATABASE
    if not text.startswith(EMBEDDED):
        name = unquote(urlsplit(text).path.strip("/"))
    if not name:
        return
    quoted = name.replace("\\", "\\\\").replace("`", "\\`")
    try:
        yield from store.query(
            FIRST_SECONDS,
            f"CREATE DATABASE IF NOT EXISTS `{quoted}`",
            settings=(("database", "system"),),
        )
    except StoreRefused as error:
        if error.code != _ACCESS_DENIED:
            raise
        # Whoever may not make databases may well have been given one.


def _apply(store: ClickHouse, migration: Migration) -> Flow[None]:
    for statement in migration.statements:
        yield from store.query(STATEMENT_SECONDS, statement)
    yield from store.query(
        STATEMENT_SECONDS,
        f"INSERT INTO {VERSIONS} (version, name, gateway) "
        "SELECT {version:UInt32}, {name:String}, {gateway:String}",
        (
            ("version", str(migration.version)),
            ("name", migration.name),
            ("gateway", __version__),
        ),
    )


def _set_ttl(store: ClickHouse, days: int) -> Flow[list[str]]:
    sql = (
        "SELECT name, create_table_query FROM system.tables "
        "WHERE database = currentDatabase() FORMAT JSONEachRow"
    )
    answer = yield from store.query(STATEMENT_SECONDS, sql)
    done: list[str] = []
    for table in _read_tables.decode_lines(answer):
        if table.name not in TTL_COLUMNS:
            continue
        statement = ttl_statement(table.name, days, table.create_table_query)
        if statement is not None:
            yield from store.query(STATEMENT_SECONDS, statement)
            done.append(f"{table.name}'s rows go after {days} days")
    return done
