"""ClickHouse over HTTP, through ``clickhouse-connect``'s blocking client.

The one rule: one statement is one request, with no second try and no session. Rows come
as the bytes that the core made, and answers go to it as the bytes that the server sent:
no column is ever decoded here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from tz_protocol.errors import OperationBroken, StoreRefused, kind_of
from tz_protocol.recordops import ClickHouseInsert, ClickHouseQuery
from tz_protocol.types.secret import Secret

__all__ = ["Clients"]

_PORTS = {"http": 8123, "https": 8443}
"""ClickHouse's own (https://clickhouse.com/docs/interfaces/http)."""

_CONNECT_SECONDS = 2
_LIMITS = (1, 15, 70)
"""Seconds: how long a read may take that nobody waits for any more. A client has one
limit for all its reads, so there is one for lookups, inserts and migrations each."""

_DENIED = frozenset({"516", "194", "192"})
"""AUTHENTICATION_FAILED, REQUIRED_PASSWORD, UNKNOWN_USER."""

_ALWAYS = {
    # What a server does with an insert by itself must not outlive our knowledge of it.
    "async_insert": "0",
    # Columns that a newer gateway writes and an older table has not got are not lost
    # silently: the server refuses them, and the migrations are run.
    "input_format_skip_unknown_fields": "0",
    "date_time_input_format": "best_effort",
    # An insert that is repeated because its answer was lost reaches the views' tables
    # too, which know it by its token as the table itself does.
    "deduplicate_blocks_in_dependent_materialized_views": "1",
}


class Clients:
    """One client for each server.

    Args:
        now: The clock of the deadlines.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._found: dict[tuple[Secret, int], Any] = {}
        self._making = Lock()

    def query(self, operation: ClickHouseQuery) -> bytes:
        """Carry out a statement; return the answer's body."""
        settings = {**_database(operation.url), **dict(operation.settings)}
        parameters = dict(operation.parameters)

        def ask(client: Any) -> bytes:
            body = client.raw_query(
                operation.sql, parameters=parameters, settings=settings
            )
            return bytes(body)

        return self._ask(operation, ask)

    def insert(self, operation: ClickHouseInsert) -> None:
        """Insert rows."""
        settings = {**_database(operation.url), **_ALWAYS}
        if operation.token:
            settings["insert_deduplication_token"] = operation.token

        def ask(client: Any) -> bytes:
            client.raw_insert(
                operation.table,
                insert_block=operation.data,
                settings=settings,
                fmt="JSONEachRow",
            )
            return b""

        self._ask(operation, ask)

    def close(self) -> None:
        """Close every connection."""
        for client in self._found.values():
            with suppress(Exception):  # nobody could be told
                client.close()
        self._found.clear()

    def _ask(
        self,
        operation: ClickHouseQuery | ClickHouseInsert,
        ask: Callable[[Any], bytes],
    ) -> bytes:
        seconds = operation.deadline - self._now()
        try:
            return ask(self._client(operation.url, seconds))
        except (OSError, OperationBroken) as error:
            if isinstance(error, OperationBroken):
                raise
            raise OperationBroken(kind_of(error), type(error).__name__) from None
        except Exception as error:
            # The library's text may quote what was sent, and where it was sent to.
            raise _told(error) from None

    def _client(self, url: Secret, seconds: float) -> Any:
        limit = next((limit for limit in _LIMITS if seconds <= limit), _LIMITS[-1])
        client = self._found.get((url, limit))
        if client is None:
            with self._making:
                client = self._found.get((url, limit))
                if client is None:
                    client = self._found[url, limit] = _make(url, limit)
        return client


def _make(url: Secret, limit: int) -> Any:
    parts = urlsplit(url.reveal())
    library = import_module("clickhouse_connect")
    # It logs what it also raises; without a handler that goes to standard error.
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    options = import_module("clickhouse_connect.common")
    # What a server does not know is the server's to refuse.
    options.set_setting("invalid_setting_action", "send")
    return library.get_client(
        interface=parts.scheme,
        host=parts.hostname,
        port=parts.port or _PORTS[parts.scheme],
        username=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database="__default__",
        compress=False,
        query_limit=0,
        query_retries=0,
        connect_timeout=_CONNECT_SECONDS,
        send_receive_timeout=limit,
        autogenerate_session_id=False,
        show_clickhouse_errors=True,
        dedicated_pool=True,
    )


def _database(url: Secret) -> dict[str, str]:
    name = urlsplit(url.reveal()).path.strip("/")
    return {"database": unquote(name)} if name else {}


def _told(error: Exception) -> Exception:
    """Return what the core is told; a bug is returned as it is."""
    names = {cls.__name__ for cls in type(error).__mro__}
    code = getattr(error, "code", None)
    if code is not None:
        return StoreRefused(str(code)) if str(code) not in _DENIED else _denied()
    if "ClickHouseError" not in names and "HTTPError" not in names:
        return error
    cause: BaseException | None = error
    while cause is not None:
        for reason in (cause, *_arguments(cause)):
            if isinstance(reason, OSError):
                return OperationBroken(kind_of(reason), type(error).__name__)
        cause = cause.__cause__ or cause.__context__
    # It answered, without a code of ClickHouse's.
    return OperationBroken("no_clickhouse", type(error).__name__)


def _arguments(error: BaseException) -> list[object]:
    return [*error.args, getattr(error, "reason", None)]


def _denied() -> OperationBroken:
    return OperationBroken("denied", "the server does not know the user")
