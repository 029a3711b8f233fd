"""The real engine, through the child process that every user of it shares.

The one rule: one folder, and so one engine, for a test session; databases are made and
dropped as tests want them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tz_protocol.operations import Operation
from tz_protocol.recordops import ClickHouseQuery, OpenEmbedded
from tz_protocol.types.secret import Secret
from tz_stores.threads import Threads

SECONDS = 30.0
_serial = itertools.count(1)


class Engine:
    """The engine, and one database in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.threads = Threads(monotonic)
        deadline = monotonic() + SECONDS
        self.address = self.perform(OpenEmbedded(deadline, str(folder)))
        self.url = self.address

    def perform(self, operation: Operation[Any]) -> Any:
        """Perform an operation in this thread."""
        return self.threads.calls[type(operation)](operation)

    def fresh(self) -> Engine:
        """Use another database from now on, which does not exist yet."""
        base = self.address.reveal().rpartition("/")[0]
        self.url = Secret(f"{base}/test{next(_serial)}")
        return self

    def query(self, sql: str, **parameters: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        operation = ClickHouseQuery(
            monotonic() + SECONDS,
            self.url,
            sql + " FORMAT JSONEachRow",
            tuple(parameters.items()),
        )
        lines = self.perform(operation).splitlines()
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Use it no more."""
        self.threads.close()


@pytest.fixture(scope="session")
def engine_of_the_session(tmp_path_factory) -> Iterator[Engine]:
    """Start the engine once."""
    pytest.importorskip("chdb", reason="the extra `embedded` is not installed")
    engine = Engine(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


@pytest.fixture
def engine(engine_of_the_session: Engine) -> Engine:
    """Return the engine, with a database that does not exist yet."""
    return engine_of_the_session.fresh()
