"""End to end: CPU per request and added latency of both transports.

    python -m benchmarks.load [--requests 3000] [--connections 8]

Starts the mock upstream and one gateway per transport as processes, then sends whole
and streamed chat requests directly and through each gateway, interleaved in rounds.
CPU seconds are the gateway process's own (user and system). Wall times on a shared
machine are noise; read them as ratios to the direct run.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.payloads import chat_request

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
CONFIG = """
[gateway]
bind_address = "127.0.0.1:0"
[models.bench]
routing = ["up"]
[models.bench.providers.up]
type = "openai"
model_name = "gpt-4.1-mini"
api_base = "http://127.0.0.1:{port}/v1/"
api_key_location = "none"
"""


@contextmanager
def process(*arguments: str, pattern: str) -> Iterator[tuple[int, int]]:
    """Start a Python module; yield its process id and the port that it prints."""
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if match := re.search(pattern, line):
                break
        else:
            message = f"{arguments[0]} ended before it listened"
            raise RuntimeError(message)
        yield child.pid, int(match[1])
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()


def cpu_seconds(pid: int) -> float:
    """Return a process's CPU time so far, from the kernel's books."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Client:
    """A blocking keep-alive client that reads as little as it can."""

    def __init__(self, port: int, body: bytes) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        ) + body

    def exchange(self) -> float:
        """Send one request, read its answer, return the seconds it took."""
        start = time.perf_counter()
        self._socket.sendall(self._request)
        data = self._socket.recv(65_536)
        if not data.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(data[:300].decode("latin-1"))
        end = data.find(b"\r\n\r\n")
        head = data[:end].lower()
        if (at := head.find(b"content-length:")) >= 0:
            size = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
            while len(data) < size:
                data += self._socket.recv(65_536)
        else:
            while not data.endswith(b"0\r\n\r\n"):
                data = data[-8:] + self._socket.recv(65_536)
        return time.perf_counter() - start


def main() -> None:
    """Run the rounds and print one line per route."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3_000)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    with ExitStack() as stack:
        _, upstream = stack.enter_context(
            process("benchmarks.upstream", pattern=r"^(\d+)$")
        )
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        config = Path(folder) / "bench.toml"
        config.write_text(CONFIG.format(port=upstream))
        routes = {"direct": (0, upstream)}
        for transport in ("asyncio", "trio"):
            routes[transport] = stack.enter_context(
                process(
                    f"tz_transport_{transport}",
                    "--config-file",
                    str(config),
                    "--log-level",
                    "error",
                    pattern=r"127\.0\.0\.1:(\d+)",
                )
            )
        for is_stream in (False, True):
            measure(routes, options.requests, options.connections, is_stream=is_stream)


def measure(
    routes: dict[str, tuple[int, int]],
    requests: int,
    connections: int,
    *,
    is_stream: bool,
) -> None:
    """Measure every route in interleaved rounds and print the figures."""
    count = requests // 10 if is_stream else requests
    body = chat_request(is_stream=is_stream)
    clients = {
        name: [Client(port, body) for _ in range(connections)]
        for name, (_, port) in routes.items()
    }
    times: dict[str, list[float]] = {name: [] for name in routes}
    cpu: dict[str, float] = dict.fromkeys(routes, 0.0)
    for group in clients.values():
        for client in group * 5:
            client.exchange()
    rounds = 10
    for _ in range(rounds):
        for name, (pid, _) in routes.items():
            before = cpu_seconds(pid) if pid else 0.0
            for number in range(count // rounds):
                times[name].append(clients[name][number % connections].exchange())
            cpu[name] += cpu_seconds(pid) - before if pid else 0.0
    kind = "streams of 100 chunks" if is_stream else "whole answers"
    print(f"{kind}, {count} per route")
    direct = statistics.quantiles(times["direct"], n=100)
    for name, values in times.items():
        marks = statistics.quantiles(values, n=100)
        added = (marks[49] - direct[49], marks[98] - direct[98])
        print(
            f"  {name:8} cpu {cpu[name] / len(values) * 1e3:6.3f} ms"
            f"   added p50 {added[0] * 1e3:6.3f} ms   p99 {added[1] * 1e3:6.3f} ms"
        )


if __name__ == "__main__":
    main()
