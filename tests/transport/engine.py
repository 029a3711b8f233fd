"""The real engine, through the child process that every user of it shares.

The one rule: one folder, and so one engine, for a test session; databases are made and
dropped as tests want them. The engine that users get is a small one; the full one is
looked for in the folder that ``TZ_FULL_ENGINE`` names (``pip install --no-deps --target
FOLDER chdb-core``), and what needs it skips without.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from decimal import Decimal
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

    def __init__(self, folder: Path, library: str = "") -> None:
        self.folder = folder
        self.threads = Threads(monotonic)
        with pytest.MonkeyPatch.context() as patch:
            if library:  # for the child, which is a process of its own
                path = os.environ.get("PYTHONPATH", "")
                patch.setenv("PYTHONPATH", os.pathsep.join((library, path)))
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
        return self.ask(sql + " FORMAT JSONEachRow", **parameters)

    def ask(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of a query that says FORMAT JSONEachRow; money is exact."""
        operation = ClickHouseQuery(
            monotonic() + SECONDS, self.url, sql, tuple(parameters.items())
        )
        lines = self.perform(operation).splitlines()
        return [json.loads(line, parse_float=Decimal) for line in lines]

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


def full_library() -> str:
    """Return where the full engine is; skip the test if it is nowhere."""
    library = os.environ.get("TZ_FULL_ENGINE", "")
    if not (library and Path(library, "chdb").is_dir()):
        pytest.skip("TZ_FULL_ENGINE names no folder with the full engine")
    pytest.importorskip("chdb", reason="the extra `embedded` is not installed")
    return library


@pytest.fixture(scope="session")
def full_engine_of_the_session(tmp_path_factory) -> Iterator[Engine]:
    """Start the full engine once."""
    engine = Engine(tmp_path_factory.mktemp("full"), full_library())
    yield engine
    engine.close()


@pytest.fixture(params=["small", "full"])
def each_engine(request) -> Engine:
    """Return one engine after the other, with a database that does not exist yet."""
    name = "engine" if request.param == "small" else "full_engine"
    engine: Engine = request.getfixturevalue(f"{name}_of_the_session")
    return engine.fresh()
