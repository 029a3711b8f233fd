"""The commands as processes: what a user types, on both transports."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transport.processes import BOUND, LISTENING, gateway, running
from tests.transport.test_load import ask, http_post, resident, words

TICKS = os.sysconf("SC_CLK_TCK")
CONFIG = """
[models.m]
routing = ["dummy"]
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(params=["asyncio", "trio"])
def transport(request):
    return request.param


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG)
    return path


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def get(port, path="/status"):
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    return asyncio.run(ask(port, request.encode()))


def run(transport, *arguments):
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", f"tz_transport_{transport}", *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


def test_gateway_is_ready_soon_and_small(transport, config):
    with gateway(transport, config) as process:
        pid = process.process.pid
        assert get(process.port, "/readyz").status == 200
        assert cpu_seconds(pid) <= 1.2
        assert resident(pid) <= 60_000_000


@pytest.mark.parametrize("package", ["tz_protocol", "tz_transport_{}"])
def test_package_is_typed(transport, package):
    root = Path(__file__).parents[2] / package.format(transport)
    assert (root / "py.typed").exists()


def test_sigterm_lets_a_stream_end_and_exits_with_zero(transport, config):
    with gateway(transport, config, "--log-level", "error") as process:
        port = process.port

        async def main():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(http_post("m", stream=True))
            first = await reader.readuntil(b"Wally,")
            process.process.send_signal(signal.SIGTERM)
            rest = await reader.read()
            writer.close()
            await writer.wait_closed()
            return first + rest

        data = asyncio.run(main())
        assert b"[DONE]" in data
        assert process.process.wait(BOUND) == 0


def test_sighup_reloads_and_a_bad_file_keeps_the_old(transport, config):
    with gateway(transport, config, "--log-format", "json") as process:
        port = process.port
        config.write_text(CONFIG + '[models.n]\nrouting = ["dummy"]\n')
        process.process.send_signal(signal.SIGHUP)
        process.wait_for("the configuration was reloaded")
        names = {row["id"] for row in json.loads(get(port, "/v1/models").body)["data"]}
        assert names == {"m", "n"}
        config.write_text("[models.n]\nrouting = []\n")
        process.process.send_signal(signal.SIGHUP)
        process.wait_for("the configuration was not reloaded")
        names = {row["id"] for row in json.loads(get(port, "/v1/models").body)["data"]}
        assert names == {"m", "n"}


def test_bad_configuration_is_refused_with_its_place(transport, config):
    config.write_text('[models.m]\nrouting = ["dummy"]\nrotuing = 1\n')
    done = run(transport, "check", "--config-file", str(config))
    assert done.returncode != 0
    assert "gateway.toml:3: models.m.rotuing" in done.stderr
    assert "did you mean routing?" in done.stderr


def test_check_prints_the_effective_routes(transport, config):
    done = run(transport, "check", "--config-file", str(config))
    assert done.returncode == 0
    assert "m" in done.stdout
    assert "dummy" in done.stdout


def test_demo_streams_its_own_answer_and_ends(transport):
    done = run(transport, "demo", "--once")
    assert done.returncode == 0, done.stderr
    assert "golden retriever" in done.stdout
    assert "curl -N http" in done.stdout


def test_version_is_printed(transport):
    done = run(transport, "--version")
    assert re.fullmatch(r"tz-gateway\S* \d+\.\d+\.\d+\S*\n", done.stdout)


def children(pid):
    """Return the ids of the children of a process."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return {int(child) for text in texts for child in text.split()}


def test_workers_serve_are_replaced_and_end_together(transport, config):
    arguments = (f"tz_transport_{transport}", "--config-file", str(config))
    with running(*arguments, "--port", "0", "--workers", "2") as process:
        port = int(process.wait_for(LISTENING)[1])
        statuses = {get(port).status for _ in range(10)}
        assert statuses == {200}
        pid = process.process.pid
        before = children(pid)
        assert len(before) == 2
        victim = before.pop()
        os.kill(victim, signal.SIGKILL)
        process.wait_for(r"(?i)worker.*(ended|died|exit|replac)")
        request = http_post("m", stream=True)
        message = asyncio.run(ask(port, request))
        assert words(message.body)[0] == "Wally,"
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(BOUND) == 0
        assert all(not Path(f"/proc/{child}").exists() for child in before)


def test_unix_socket_serves(transport, config, tmp_path):
    path = tmp_path / "gateway.sock"
    arguments = (f"tz_transport_{transport}", "--config-file", str(config))
    with running(*arguments, "--bind-address", f"unix:{path}") as process:
        process.wait_for(r"listening on unix:")

        async def main():
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            data = await reader.read()
            writer.close()
            await writer.wait_closed()
            return data

        assert asyncio.run(main()).startswith(b"HTTP/1.1 200 ")
