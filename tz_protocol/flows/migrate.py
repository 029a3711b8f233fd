"""Brings a database to the tables that this version writes.

The one rule: it may be run at any time, by any number of processes at once, and again
after it was cut off anywhere. What is to be done stands in ``records/schema.py``.
"""

from __future__ import annotations

from urllib.parse import urlsplit

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

__all__ = ["DATABASE", "STATEMENT_SECONDS", "migrate"]

DATABASE = "tensorzero"
"""Of the embedded engine, and TensorZero's own default."""

STATEMENT_SECONDS = 60.0

_ACCESS_DENIED = "497"


class _Version(msgspec.Struct):
    version: int


class _Table(msgspec.Struct):
    name: str
    create_table_query: str


_read_version = msgspec.json.Decoder(_Version, strict=False).decode
_read_tables = msgspec.json.Decoder(_Table)


def migrate(store: ClickHouse, ttl_days: int | None) -> Flow[tuple[str, ...]]:
    """Carry out what is missing; return the names of what was.

    Raises:
        StoreError: Something was not carried out; run it again.
    """
    yield from _create_database(store)
    yield from store.query(STATEMENT_SECONDS, CREATE_VERSIONS)
    sql = f"SELECT max(version) AS version FROM {VERSIONS} FORMAT JSONEachRow"
    answer = yield from store.query(STATEMENT_SECONDS, sql)
    version = _read_version(answer).version if answer else 0
    done: list[str] = []
    for migration in MIGRATIONS:
        if migration.version > version:
            yield from _apply(store, migration)
            done.append(migration.name)
    if ttl_days is not None:
        done += yield from _set_ttl(store, ttl_days)
    return tuple(done)


def _create_database(store: ClickHouse) -> Flow[None]:
    text = store.url.reveal()
    name = DATABASE
    if not text.startswith(EMBEDDED):
        name = urlsplit(text).path.strip("/")
    if not name:
        return
    quoted = name.replace("\\", "\\\\").replace("`", "\\`")
    try:
        yield from store.query(
            STATEMENT_SECONDS,
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
