"""The operations that need no peer and no waiting: secrets, files, output, processes.

The one rule: each is a plain function of the scripted world, answered at once.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable
from typing import Any

from tz_protocol.errors import OperationBroken
from tz_protocol.operations import (
    Bind,
    Listen,
    OperationType,
    Print,
    ReadFiles,
    ResolveSecret,
    SendSignal,
    Signal,
    Spawn,
    StopListening,
    WriteFile,
)
from tz_protocol.storeops import RandomBytes
from tz_protocol.testing.clickhouse import ScriptedClickHouse
from tz_protocol.testing.redis import ScriptedRedis
from tz_protocol.testing.worlds import (
    Behaviour,
    Failure,
    ProcessScript,
    ProxiedReply,
    World,
)
from tz_protocol.types.secret import Secret

__all__ = ["AT_ONCE", "Process", "Surroundings"]

_FIRST_PORT = 40_001
_SIGNAL_NUMBERS = {"SIGHUP": 1, "SIGINT": 2, "SIGKILL": 9, "SIGTERM": 15}


class Process:
    """A scripted child: the handle that ``Spawn`` returns."""

    def __init__(self, number: int, arguments: tuple[str, ...]) -> None:
        self.number = number
        self.arguments = arguments
        self.status: int | None = None
        self.signals: list[str] = []
        """Names of the signals sent to it, in order."""
        self.ended = Signal()

    def __repr__(self) -> str:
        """Return the process's name, which is the same in every run."""
        return f"<process #{self.number}>"

    def exit(self, status: int) -> None:
        """End with *status*; the first end holds."""
        if self.status is None:
            self.status = status
            self.ended.set()


class Surroundings:
    """What a simulated process did to its surroundings, and what it finds there."""

    def __init__(self, world: World, start: float) -> None:
        self.world = world
        self.start = start
        self.output: list[tuple[str, bool]] = []
        """(text, is_error) of every ``Print``."""
        self.listened: list[Listen] = []
        self.addresses: list[str] = []
        """Bound and not yet given up by ``StopListening``."""
        self.processes: list[Process] = []
        self._ports = _FIRST_PORT
        self._signals = 0
        self._random = 0
        self._connections: dict[object, int] = {}

    def next_upstream(self, host: str, port: int) -> Behaviour:
        """Return what the next connection to ``host:port`` finds.

        Raises:
            AssertionError: The world says nothing about it.
        """
        found = self.world.upstreams.get((host, port))
        assert found is not None, f"the world has no upstream {host}:{port}"
        return found[self._count((host, port), len(found))]

    def next_proxied(self, url: str) -> ProxiedReply | Failure:
        """Return what the next ``HttpCall`` to *url* finds.

        Raises:
            AssertionError: The world says nothing about it.
        """
        found = self.world.proxied_replies.get(url)
        assert found is not None, f"the world has no proxied reply for {url}"
        return found[self._count(url, len(found))]

    def next_addresses(self, host: str) -> tuple[str, ...] | Failure:
        """Return what the next ``Resolve`` of *host* finds.

        Raises:
            AssertionError: The world says nothing about it.
        """
        found = self.world.names.get(host)
        if found is None and _is_number(host):
            return (host,)
        assert found is not None, f"the world has no name {host}"
        return found[self._count(("name", host), len(found))]

    def _count(self, key: object, length: int) -> int:
        count = self._connections.get(key, 0)
        self._connections[key] = count + 1
        return min(count, length - 1)

    def resolve_secret(self, operation: ResolveSecret) -> Secret:
        """Return the value of a variable, or the text of a file without its end."""
        kind, _, name = operation.location.partition("::")
        if kind == "env":
            return Secret(self.world.environment[name])
        if kind == "path":
            return Secret(self.world.files[name].strip())
        raise OperationBroken("missing", f"no such kind of location: {kind}")

    def redis_at(self, url: Secret) -> ScriptedRedis:
        """Return the server at *url*.

        Raises:
            AssertionError: The world has none there.
        """
        found = self.world.redis.get(url.reveal())
        assert found is not None, "the world has no Redis at this URL"
        return found

    def clickhouse_at(self, url: Secret) -> ScriptedClickHouse:
        """Return the server at *url*.

        Raises:
            AssertionError: The world has none there.
        """
        found = self.world.clickhouse.get(url.reveal())
        assert found is not None, "the world has no ClickHouse at this URL"
        return found

    def random_bytes(self, operation: RandomBytes) -> bytes:
        """Return bytes that differ with each call and are the same in every run."""
        self._random += 1
        return hashlib.shake_256(b"%d" % self._random).digest(operation.count)

    def read_files(self, operation: ReadFiles) -> tuple[tuple[str, str], ...]:
        """Return the files whose paths match; ``*`` and ``?`` stop at a slash."""
        pattern = re.compile(
            "".join(_GLOB.get(c) or re.escape(c) for c in operation.pattern)
        )
        files = sorted(self.world.files.items())
        return tuple(pair for pair in files if pattern.fullmatch(pair[0]))

    def write_file(self, operation: WriteFile) -> None:
        """Keep the text in the world's files."""
        self.world.files[operation.path] = operation.text

    def print_text(self, operation: Print) -> None:
        """Keep the text in :attr:`output`."""
        self.output.append((operation.text, operation.is_error))

    def listen(self, operation: Listen) -> tuple[str, ...]:
        """Record the operation; port 0 becomes 40001, 40002 and so on."""
        self.listened.append(operation)
        bound = []
        for address in operation.addresses:
            host, _, port = address.rpartition(":")
            real = address
            if port == "0" and host not in ("fd", "unix"):
                real = f"{host}:{self._ports}"
                self._ports += 1
            if real in self.addresses:
                raise OSError(f"{real} is already bound")
            bound.append(real)
        self.addresses += bound
        return tuple(bound)

    def stop_listening(self, operation: StopListening) -> None:
        """Forget the bound addresses."""
        self.addresses.clear()

    def bind(self, operation: Bind) -> tuple[str, ...]:
        """Return ``fd:3`` and so on."""
        return tuple(f"fd:{3 + n}" for n in range(len(operation.addresses)))

    def spawn(self, operation: Spawn) -> Process:
        """Return a new process; the driver schedules its scripted end."""
        process = Process(len(self.processes) + 1, operation.arguments)
        self.processes.append(process)
        return process

    def script_of(self, process: Process) -> ProcessScript:
        """Return what the world says about this process."""
        scripts = self.world.processes
        if not scripts:
            return ProcessScript()
        return scripts[min(process.number, len(scripts)) - 1]

    def send_signal(self, operation: SendSignal) -> None:
        """End the process as that signal does, unless it ignores that one."""
        process = operation.process
        assert isinstance(process, Process), "SendSignal to what is not a process"
        process.signals.append(operation.name)
        ignored = ("SIGHUP", *self.script_of(process).ignores)
        if operation.name not in ignored:
            process.exit(-_SIGNAL_NUMBERS[operation.name])

    def next_signal_at(self) -> float | None:
        """Return when the next scripted signal arrives; None: never."""
        signals = self.world.signals
        if self._signals >= len(signals):
            return None
        return self.start + signals[self._signals][0]

    def take_signal(self) -> str:
        """Return the name of the signal that has arrived."""
        name = self.world.signals[self._signals][1]
        self._signals += 1
        return name


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_GLOB = {"*": "[^/]*", "?": "[^/]"}

AT_ONCE: dict[OperationType, Callable[[Surroundings, Any], object]] = {
    Bind: Surroundings.bind,
    Listen: Surroundings.listen,
    Print: Surroundings.print_text,
    RandomBytes: Surroundings.random_bytes,
    ReadFiles: Surroundings.read_files,
    ResolveSecret: Surroundings.resolve_secret,
    SendSignal: Surroundings.send_signal,
    StopListening: Surroundings.stop_listening,
    WriteFile: Surroundings.write_file,
}
"""Operation type -> what answers it; a ``KeyError`` or an ``OSError`` breaks it."""
