"""Finds the process that owns an embedded engine's folder, or starts it.

The one rule: whoever uses the engine holds a lock that says so for as long as it lives,
and that lock is what keeps the engine up. Nothing is remembered anywhere else, so that
neither a killed gateway nor a killed engine leaves anything to be mended.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

from tz_protocol.errors import OperationBroken
from tz_protocol.recordops import OpenEmbedded
from tz_protocol.types.secret import Secret
from tz_stores.engine import DATABASE, ENDPOINT, OWNER, USERS

__all__ = ["Embedded"]

_PAUSE = 0.05
_MARGIN = 0.5
"""Seconds before the deadline at which it is given up, so that the reason is told."""


class Embedded:
    """The engines that this process uses.

    Args:
        now: The clock of the deadlines.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._users: dict[Path, int] = {}
        self._turn = Lock()

    def open(self, operation: OpenEmbedded) -> Secret:
        """Return where the engine is, once it answers."""
        if find_spec("chdb") is None:
            message = "chdb:// needs the extra: pip install 'tz-gateway[embedded]'"
            raise OperationBroken("missing", message)
        folder = Path(operation.path)
        give_up = operation.deadline - _MARGIN
        with self._turn:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._use(folder, give_up)
                return self._find(folder, give_up)
            except OSError as error:
                reason = error.strerror or type(error).__name__
                message = f"the engine's folder cannot be used: {reason}"
                raise OperationBroken("engine", message) from None

    def close(self) -> None:
        """Use none any more."""
        for handle in self._users.values():
            os.close(handle)
        self._users.clear()

    def _use(self, folder: Path, give_up: float) -> None:
        """Hold the lock that keeps the engine up."""
        if folder in self._users:
            return
        handle = os.open(folder / USERS, os.O_RDWR | os.O_CREAT, 0o600)
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # an engine that is about to end
                if self._now() > give_up:
                    os.close(handle)
                    raise OperationBroken("engine", "an engine does not end") from None
                time.sleep(_PAUSE)
            else:
                self._users[folder] = handle
                return

    def _find(self, folder: Path, give_up: float) -> Secret:
        child: int | None = None
        while True:
            # First of all: what a killed engine has left may lead to anybody's port.
            if child is None:
                child = _start(folder)
            if (url := _endpoint(folder)) is not None:
                return url
            if child is not None and (status := _ended(child)) is not None:
                message = f"the engine ended with status {status}"
                raise OperationBroken("engine", message)
            if self._now() > give_up:
                message = "the engine does not answer, or another one has the folder"
                raise OperationBroken("engine", message)
            time.sleep(_PAUSE)


def _start(folder: Path) -> int | None:
    """Start the engine if no process owns the folder; return its process's id.

    It outlives us if somebody else uses it, so that nobody here waits for its end.
    """
    owner = os.open(folder / OWNER, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / ENDPOINT).unlink(missing_ok=True)
        # The lock goes with the descriptor, and stays until the child has ended.
        os.set_inheritable(owner, True)
        return os.posix_spawn(
            sys.executable,
            (sys.executable, "-m", "tz_stores.engine", str(folder)),
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0)
                for number in (0, 1, 2)
            ],
            setsid=True,  # a terminal's SIGINT is for the gateway
        )
    except BlockingIOError:
        return None
    finally:
        os.close(owner)


def _ended(child: int) -> int | None:
    """Return the exit status of a child that has ended, None while it runs."""
    try:
        ended, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return 1  # somebody else in this process has waited for it
    return os.waitstatus_to_exitcode(status) if ended else None


def _endpoint(folder: Path) -> Secret | None:
    """Return the URL of the engine that answers, None if none does."""
    try:
        with open(folder / ENDPOINT, "rb") as file:
            if os.geteuid() not in (0, os.fstat(file.fileno()).st_uid):
                # In a folder that anybody may write to, anybody may pose as an engine.
                return None
            found = json.loads(file.read())
        port, password = int(found["port"]), str(found["password"])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        with closing(connection):
            connection.request("GET", "/ping")
            is_there = connection.getresponse().read() == b"Ok.\n"
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None
    url = f"http://default:{password}@127.0.0.1:{port}/{DATABASE}"
    return Secret(url) if is_there else None
