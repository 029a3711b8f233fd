"""How the simulator's driver performs what real ones do in worker threads.

The one rule: what has begun comes to its end, as a thread does, whether or not anybody
still waits for it; only the answer is then lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tz_protocol.errors import OperationBroken, StoreRefused
from tz_protocol.operations import OperationType
from tz_protocol.recordops import (
    AppendFile,
    CheckCertificate,
    ClaimSpool,
    ClickHouseInsert,
    ClickHouseQuery,
    IsOwned,
    MakeFolder,
    OpenEmbedded,
    ReadFile,
    ReadFolder,
    RemoveFile,
    RemoveFolder,
    ReplaceFile,
)
from tz_protocol.types.secret import Secret

if TYPE_CHECKING:
    from tz_protocol.testing.driving import Driver
    from tz_protocol.testing.simulator import Simulator

__all__ = ["IN_THREADS", "Working"]


class Working:
    """One operation that a thread performs for *driver*."""

    def __init__(self, driver: Driver, operation: Any) -> None:
        self._driver: Driver | None = driver
        self._sim = driver.sim
        self._operation = operation
        latency, self._perform = IN_THREADS[type(operation)](self._sim, operation)
        self._sim.after(latency, self._work)

    def end(self) -> None:
        """Wait for it no longer."""
        self._driver = None

    def _work(self) -> None:
        if self._sim.is_killed:
            return
        try:
            value = self._perform()
        except _Silence:
            return
        except (OperationBroken, StoreRefused) as error:
            if self._driver is not None:
                self._driver.fail(error)
            return
        if self._driver is not None:
            self._driver.answer(value)


class _Silence(Exception):
    """Nothing is done and nothing is answered."""


_Job = tuple[float, Callable[[], object]]
"""(seconds that it takes, what it does then)."""


def _insert(sim: Simulator, operation: ClickHouseInsert) -> _Job:
    server = sim.surroundings.clickhouse_at(operation.url)

    def perform() -> None:
        if server.state == "frozen":
            raise _Silence
        server.check()
        server.insert(operation.table, operation.data, operation.token)

    return server.latency, perform


def _query(sim: Simulator, operation: ClickHouseQuery) -> _Job:
    server = sim.surroundings.clickhouse_at(operation.url)

    def perform() -> bytes:
        if server.state == "frozen":
            raise _Silence
        server.check()
        return server.query(operation.sql, dict(operation.parameters))

    return server.latency, perform


def _open_embedded(sim: Simulator, operation: OpenEmbedded) -> _Job:
    url = f"http://embedded{operation.path}"

    server = sim.world.clickhouse.get(url)

    def perform() -> Secret:
        if server is None:
            raise OperationBroken("missing")
        if server.state == "frozen":
            raise _Silence
        server.check()
        return Secret(url)

    return 0.0 if server is None else server.latency, perform


def _claim(sim: Simulator, operation: ClaimSpool) -> _Job:
    disk = sim.world.disk

    def perform() -> tuple[tuple[str, int], ...]:
        return tuple(disk.claim(operation.folder, operation.own, sim))

    return disk.latency, perform


def _append(sim: Simulator, operation: AppendFile) -> _Job:
    disk = sim.world.disk
    path, data, limit = operation.path, operation.data, operation.limit
    return disk.latency, lambda: disk.append(path, data, limit)


def _read(sim: Simulator, operation: ReadFile) -> _Job:
    disk = sim.world.disk
    return disk.latency, lambda: disk.read(operation.path)


def _remove(sim: Simulator, operation: RemoveFile) -> _Job:
    disk = sim.world.disk
    return disk.latency, lambda: disk.remove(operation.path)


def _make_folder(sim: Simulator, operation: MakeFolder) -> _Job:
    disk = sim.world.disk
    return disk.latency, lambda: disk.make_folder(sim)


def _is_owned(sim: Simulator, operation: IsOwned) -> _Job:
    disk = sim.world.disk
    return disk.latency, lambda: disk.is_owned(operation.path)


def _check_certificate(sim: Simulator, operation: CheckCertificate) -> _Job:
    files = sim.world.files

    def perform() -> None:
        for path in (operation.cert_file, operation.key_file):
            if path is not None and path not in files:
                raise OperationBroken("missing", f"no file at {path}")

    return 0.0, perform


def _replace(sim: Simulator, operation: ReplaceFile) -> _Job:
    disk = sim.world.disk
    return disk.latency, lambda: disk.replace(operation.path, operation.data)


def _read_folder(sim: Simulator, operation: ReadFolder) -> _Job:
    disk = sim.world.disk
    return disk.latency, lambda: tuple(disk.read_folder(operation.path))


def _remove_folder(sim: Simulator, operation: RemoveFolder) -> _Job:
    disk = sim.world.disk
    return disk.latency, lambda: disk.remove_folder(operation.path)


IN_THREADS: dict[OperationType, Callable[[Simulator, Any], _Job]] = {
    AppendFile: _append,
    CheckCertificate: _check_certificate,
    ClaimSpool: _claim,
    ClickHouseInsert: _insert,
    ClickHouseQuery: _query,
    IsOwned: _is_owned,
    MakeFolder: _make_folder,
    OpenEmbedded: _open_embedded,
    ReadFile: _read,
    ReadFolder: _read_folder,
    RemoveFile: _remove,
    RemoveFolder: _remove_folder,
    ReplaceFile: _replace,
}
"""Operation type -> what a thread does for it."""
