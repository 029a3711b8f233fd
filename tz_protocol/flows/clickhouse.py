"""The store as flows see it: one address, and errors that are all ``StoreError``.

The one rule: whoever asks says how long it may take, and is told in one of three words
what went wrong: too slow (``StoreTimeout``), not there (``StoreBroken``), or the
server's own refusal (``StoreRefused``). What to do about it is the asker's business.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from tz_protocol.errors import (
    OperationBroken,
    OperationTimeout,
    StoreBroken,
    StoreTimeout,
)
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, Signal, Wait
from tz_protocol.recordops import ClickHouseInsert, ClickHouseQuery, OpenEmbedded
from tz_protocol.types.secret import Secret

__all__ = ["EMBEDDED", "ClickHouse", "store_fault"]

EMBEDDED = "chdb://"
"""How the URL of a folder begins that the embedded engine owns."""

_START_SECONDS = 30.0
"""For the embedded engine, which loads 50 MB and what is in its folder."""

Pairs = tuple[tuple[str, str], ...]


def store_fault(text: str) -> str:
    """Return what is wrong with an address, to be put after it; empty: nothing is."""
    if text.startswith("chdb://"):
        if text.startswith("chdb:///") and len(text) > len("chdb:///"):
            return ""
        return "must name a folder from the root: chdb:///FOLDER"
    try:
        parts = urlsplit(text)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        parts, has_port = None, False
    if parts is None or parts.scheme not in ("http", "https") or not has_port:
        return "must hold a URL that begins with http://, https:// or chdb:///"
    return "" if parts.hostname else "must hold a URL with a host"


class ClickHouse:
    """One database; the engine behind ``chdb:///folder`` is started when it is needed.

    Args:
        url: Of a server, or of a folder.
        context: For the time.
    """

    def __init__(self, url: Secret, context: Context) -> None:
        self.url = url
        self._context = context
        self._found: Secret | None = None
        self._opening: Signal | None = None

    def query(
        self, seconds: float, sql: str, parameters: Pairs = (), settings: Pairs = ()
    ) -> Flow[bytes]:
        """Return what the server answers to *sql*.

        Raises:
            StoreError: It does not.
        """
        deadline = self._context.now + seconds
        address = yield from self._address(deadline)
        try:
            return (
                yield from ClickHouseQuery(deadline, address, sql, parameters, settings)
            )
        except OperationTimeout:
            raise StoreTimeout("timeout") from None
        except OperationBroken as error:
            raise self._lost(error) from None

    def insert(
        self, seconds: float, table: str, data: bytes, token: str = ""
    ) -> Flow[None]:
        """Insert rows; whether they are there after a ``StoreError`` is not known.

        Raises:
            StoreError: The server did not say that they are.
        """
        deadline = self._context.now + seconds
        address = yield from self._address(deadline)
        try:
            yield from ClickHouseInsert(deadline, address, table, data, token)
        except OperationTimeout:
            raise StoreTimeout("timeout") from None
        except OperationBroken as error:
            raise self._lost(error) from None

    def _lost(self, error: OperationBroken) -> StoreBroken:
        self._found = None
        return StoreBroken(error.kind)

    def _address(self, deadline: float) -> Flow[Secret]:
        text = self.url.reveal()
        if not text.startswith(EMBEDDED):
            return self.url
        while (found := self._found) is None:
            yield from self._open(text[len(EMBEDDED) :], deadline)
        return found

    def _open(self, path: str, deadline: float) -> Flow[None]:
        """Have the engine started, or wait for whoever is at it already.

        An engine that is not there in time goes on starting, and is found later.
        """
        opening = self._opening
        try:
            if opening is not None:
                yield from Wait(deadline, opening)
                return
            opening = self._opening = Signal()
            try:
                latest = self._context.now + _START_SECONDS
                self._found = yield from OpenEmbedded(min(deadline, latest), path)
            finally:
                self._opening = None
                opening.set()
        except OperationTimeout:
            raise StoreTimeout("timeout") from None
        except OperationBroken as error:
            raise StoreBroken(error.detail or error.kind) from None
