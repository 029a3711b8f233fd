"""Many streams at once, and hostile clients, against running gateways."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path

import pytest

from tests.hostile import hostile_requests
from tests.transport.processes import gateway, running
from tz_protocol.testing import take_message

STREAMS = 256
CHUNKS = 100
HOSTILE = 300
BOUND = 60.0

CONFIG = """
[models.m]
routing = ["up"]
[models.m.providers.up]
type = "openai"
model_name = "gpt-4.1-mini"
api_base = "http://127.0.0.1:{port}/v1/"
api_key_location = "none"
[models.dummy]
routing = ["dummy"]
"""

LIMITS = """
[gateway.limits]
body_bytes = 1000000
[gateway.server_timeouts]
body_ms = 1000
"""


def http_post(model, *, stream):
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": stream,
        }
    ).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        b"content-type: application/json\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body


async def ask(port, request):
    """Send one request; return the whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        data = bytearray(await reader.read())
    finally:
        writer.close()
        await writer.wait_closed()
    found = take_message(data, is_response=True, method="POST", is_eof=True)
    assert found is not None, "the answer is not whole"
    message, size = found
    assert size == len(data)
    return message


def words(body):
    """Return the content of each chunk of a stream, in order."""
    lines = [line for line in body.decode().splitlines() if line.startswith("data: {")]
    choices = [choice for line in lines for choice in json.loads(line[6:])["choices"]]
    return [c["delta"]["content"] for c in choices if c["delta"].get("content")]


@pytest.fixture(scope="module")
def upstream():
    with running("benchmarks.upstream") as process:
        yield int(process.wait_for(r"^(\d+)\n")[1])


@pytest.fixture(params=["asyncio", "trio"])
def transport(request):
    return request.param


@pytest.fixture
def config(tmp_path, upstream):
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(port=upstream))
    return path


def test_concurrent_streams_lose_and_reorder_nothing(transport, config):
    async def main(port):
        request = http_post("m", stream=True)
        asking = (ask(port, request) for _ in range(STREAMS))
        async with asyncio.timeout(BOUND):
            return await asyncio.gather(*asking)

    with gateway(transport, config, "--log-level", "error") as process:
        messages = asyncio.run(main(process.port))
    expected = [f" word{number}" for number in range(CHUNKS)]
    for message in messages:
        assert message.status == 200
        assert words(message.body) == expected
        assert message.body.endswith(b"data: [DONE]\n\n")


def resident(pid):
    """Return the resident bytes of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kilobytes) * 1024


def attack(port, data):
    """Send hostile bytes, end the stream, and return what is answered."""
    with socket.create_connection(("127.0.0.1", port), BOUND) as client:
        received = bytearray()
        try:
            client.sendall(data.replace(b"/echo", b"/v1/chat/completions"))
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(65_536):
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent
        return bytes(received)


def test_hostile_clients_harm_nobody(transport, config):
    config.write_text(config.read_text() + LIMITS)
    with gateway(transport, config, "--log-level", "error") as process:
        before = resident(process.process.pid)
        for data in hostile_requests(HOSTILE, seed=3):
            received = attack(process.port, data)
            assert received.count(b"HTTP/1.1 2") <= 1
            assert received.count(b"HTTP/1.1 ") <= 2
        after = resident(process.process.pid)
        message = asyncio.run(ask(process.port, http_post("m", stream=False)))
        assert message.status == 200
        assert after - before < 30_000_000
        assert "Traceback" not in process.output
        assert "unexpected" not in process.output
