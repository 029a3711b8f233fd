"""The operations that block, each as a function: both transports call them in threads.

The one rule: as in a transport's ``backend.py``: a function performs one operation,
judges nothing, and what fails leaves as an ``OperationBroken`` or a ``StoreRefused``.
There is no event loop here. A thread cannot be taken back, so every wait in one has an
end of its own, a little after the operation's deadline.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from tz_protocol.errors import OperationTimeout
from tz_protocol.operations import OperationType, Resolve
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
from tz_stores import folder
from tz_stores.clickhouse import Clients
from tz_stores.embedded import Embedded
from tz_stores.spool import Spool

__all__ = ["THREADS", "Threads", "Workers"]

THREADS = 8
"""Threads that one process has for these, however many wait: a server that hangs must
not take the threads that everything else needs."""


class Threads:
    """What outlasts an operation, and the function for each; :meth:`close` at the end.

    Args:
        now: The clock of the deadlines.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._clients = Clients(now)
        self._embedded = Embedded(now)
        self._folders = folder.Folders()
        self._spool = Spool()
        self.calls: dict[OperationType, Callable[[Any], Any]] = {
            AppendFile: self._spool.append,
            CheckCertificate: check_certificate,
            ClaimSpool: self._spool.claim,
            ClickHouseInsert: self._clients.insert,
            ClickHouseQuery: self._clients.query,
            IsOwned: folder.is_owned,
            MakeFolder: self._folders.make,
            OpenEmbedded: self._embedded.open,
            ReadFile: self._spool.read,
            ReadFolder: folder.read,
            RemoveFile: self._spool.remove,
            RemoveFolder: self._folders.remove,
            ReplaceFile: folder.replace,
            Resolve: self._resolve,
        }

    def close(self) -> None:
        """Give up what is kept; may be called again."""
        self._clients.close()
        self._embedded.close()
        self._folders.close()
        self._spool.close()

    def _resolve(self, operation: Resolve) -> tuple[str, ...]:
        """Ask the system for a name's addresses, if somebody still waits for them."""
        if operation.deadline <= self._now():
            raise OperationTimeout
        found = socket.getaddrinfo(
            operation.host, operation.port, type=socket.SOCK_STREAM
        )
        return tuple(str(address[0]) for *_, address in found)


def check_certificate(operation: CheckCertificate) -> None:
    """Load a certificate and its key."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(operation.cert_file, operation.key_file)


Job = tuple[Callable[[Any], Any], Any, Callable[[Any, BaseException | None], object]]


class Workers:
    """Daemon threads: one that hangs does not keep the process from ending.

    For a loop whose own threads would; at most ``THREADS``, begun as they are needed.
    """

    def __init__(self) -> None:
        self._jobs = SimpleQueue[Job | None]()
        self._count = 0
        self._idle = threading.Semaphore(0)

    def submit(
        self,
        call: Callable[[Any], Any],
        operation: Any,
        done: Callable[[Any, BaseException | None], object],
    ) -> None:
        """Have *call* made; *done* is called in the thread with what came of it."""
        if not self._idle.acquire(blocking=False) and self._count < THREADS:
            self._count += 1
            threading.Thread(target=self._work, daemon=True, name="tz-store").start()
        self._jobs.put((call, operation, done))

    def close(self) -> None:
        """End every thread once its job is done."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, operation, done = job
            value, failure = None, None
            try:
                value = call(operation)
            except BaseException as error:  # whoever waits raises it
                failure = error
            done(value, failure)
            self._idle.release()
