"""One ``/metrics`` for several real workers, and the folder between them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.transport.loops import NAMES, Transport
from tests.transport.processes import BOUND, LISTENING, Running, running
from tests.transport.test_load import ask, http_post
from tests.transport.test_process import children, get
from tz_protocol.errors import OperationBroken
from tz_protocol.machine import Context
from tz_protocol.operations import Listen
from tz_protocol.recordops import (
    CheckCertificate,
    IsOwned,
    MakeFolder,
    ReadFolder,
    RemoveFolder,
    ReplaceFile,
)

LONG = 15.0

COUNTED = "tz_exchanges_total"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


# -- the folder -----------------------------------------------------------------


@pytest.fixture(params=NAMES)
def transport(request):
    return Transport(request.param)


def run(transport, make):
    """Return what a flow returns that is made with a deadline's function."""
    context = Context()
    return transport.run_flow(lambda: make(lambda: context.now + LONG), context)


def test_folder_is_ours_alone_and_goes_with_what_is_in_it(transport):
    def flow(limit):
        folder = yield from MakeFolder(limit())
        mode = stat.S_IMODE(os.stat(folder).st_mode)
        yield from ReplaceFile(limit(), f"{folder}/1", b"one")
        yield from RemoveFolder(limit(), folder)
        yield from RemoveFolder(limit(), folder)
        return folder, mode

    folder, mode = run(transport, flow)
    assert mode == 0o700
    assert not Path(folder).exists()


def test_folder_is_owned_until_its_maker_ends(transport):
    def flow(limit):
        folder = yield from MakeFolder(limit())
        return folder, (yield from IsOwned(limit(), folder))

    def look(limit):
        found = yield from IsOwned(limit(), folder)
        yield from RemoveFolder(limit(), folder)
        return found

    folder, was_owned = run(transport, flow)
    assert was_owned
    assert not run(transport, look)


def test_certificate_that_is_none_fails_as_listening_does(transport, tmp_path):
    bad = tmp_path / "cert.pem"
    bad.write_text("no certificate")
    path, gateway = str(bad), None

    def check(limit):
        yield from CheckCertificate(limit(), path, path)

    def listen(limit):
        yield from Listen(limit(), gateway, ("127.0.0.1:0",), path, path)

    kinds = []
    for make in (check, listen):
        with pytest.raises(OperationBroken) as caught:
            run(transport, make)
        kinds.append((caught.value.kind, str(caught.value)))
    assert kinds[0] == kinds[1]


def test_folder_is_read_with_its_last_file_last_and_nothing_unfinished(
    transport, tmp_path
):
    def flow(limit):
        for name in ("1", "2", "last", "3"):
            path = f"{tmp_path}/{name}"
            yield from ReplaceFile(limit(), path, b"old")
            yield from ReplaceFile(limit(), path, name.encode() * 100_000)
        (tmp_path / "4.tmp").write_bytes(b"half")
        return (yield from ReadFolder(limit(), str(tmp_path), "last"))

    *files, last = run(transport, flow)
    assert dict(files) == {name: name.encode() * 100_000 for name in "123"}
    assert last == ("last", b"last" * 100_000)
    assert stat.S_IMODE((tmp_path / "1").stat().st_mode) == 0o600


def test_folder_that_is_not_there_is_missing(transport, tmp_path):
    def read(limit):
        return (yield from ReadFolder(limit(), f"{tmp_path}/none"))

    def replace(limit):
        yield from ReplaceFile(limit(), f"{tmp_path}/none/1", b"")

    for make in (read, replace):
        with pytest.raises(OperationBroken) as caught:
            run(transport, make)
        assert caught.value.kind == "missing"


# -- workers --------------------------------------------------------------------


CONFIG = """
[models.m]
routing = ["dummy"]
"""


def serving(name, tmp_path):
    """Run two workers whose temporary files are in a folder of the test's."""
    config, temporary = tmp_path / "gateway.toml", tmp_path / "tmp"
    config.write_text(CONFIG)
    temporary.mkdir()
    arguments = (f"tz_transport_{name}", "--config-file", str(config), "--port", "0")
    return running(*arguments, "--workers", "2", environment={"TMPDIR": str(temporary)})


def counted(port):
    """Return (requests, workers, text) of one scrape."""
    text = get(port, "/metrics").body.decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return int(found.get(COUNTED, 0)), found["tz_workers"], text


def burst(port, count):
    """Send requests, each on a connection of its own, side by side."""

    async def main():
        messages = await asyncio.gather(
            *(ask(port, http_post("m", stream=False)) for _ in range(count))
        )
        assert [message.status for message in messages] == [200] * count

    asyncio.run(main())


def until(port, requests, workers=2.0):
    """Scrape until that is shown; return the totals of all scrapes."""
    totals = []
    for _ in range(200):
        total, running_now, _ = counted(port)
        totals.append(total)
        if (total, running_now) == (requests, workers):
            return totals
        asyncio.run(asyncio.sleep(0.05))
    raise AssertionError(totals)


def started(process: Running) -> int:
    """Return the port, once both workers serve."""
    process.wait_for(r"worker 1/2")
    process.wait_for(r"worker 2/2")
    return int(process.wait_for(LISTENING)[1])


@pytest.mark.parametrize("name", NAMES)
def test_scrape_shows_all_workers_and_never_less_although_one_is_killed(name, tmp_path):
    with serving(name, tmp_path) as process:
        port = started(process)
        burst(port, 40)
        totals = until(port, 40)
        victim = min(children(process.process.pid))
        os.kill(victim, signal.SIGKILL)
        process.wait_for("a worker ended and is replaced")
        totals += until(port, 40)
        burst(port, 20)
        totals += until(port, 60)
        assert totals == sorted(totals)
        text = counted(port)[2]
        assert 'tz_worker_ends_total{reason="signal 9"} 1.0' in text
        os.kill(min(children(process.process.pid)), signal.SIGTERM)
        process.wait_for(r"(?s)(a worker ended and is replaced.*){2}")
        assert set(until(port, 60)) == {60}
        (folder,) = (tmp_path / "tmp").glob("tz-gateway-*")
        assert {path.name for path in folder.iterdir()} <= {"1", "2", "supervisor"}
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(BOUND) == 0
        assert not folder.exists()


@pytest.mark.parametrize("name", NAMES)
def test_scrape_speaks_openmetrics_to_whom_wants_it(name, tmp_path):
    with serving(name, tmp_path) as process:
        port = started(process)
        request = (
            b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
            b"accept: application/openmetrics-text;version=1.0.0\r\n\r\n"
        )
        message = asyncio.run(ask(port, request))
        assert message.body.endswith(b"# EOF\n")
        shown = dict(message.headers)["content-type"]
        assert re.match("application/openmetrics-text; version=1.0.0", shown)


@pytest.mark.parametrize("name", NAMES)
def test_access_line_of_a_worker_is_one_object(name, tmp_path):
    config = tmp_path / "gateway.toml"
    config.write_text(CONFIG)
    arguments = (f"tz_transport_{name}", "--config-file", str(config), "--port", "0")
    with running(*arguments, "--log-format", "json") as process:
        asyncio.run(ask(process.port, http_post("m", stream=False)))
        line = process.wait_for(r'(?m)^\{.*"message":"request".*\}$')[0]
    fields = json.loads(line)
    assert (fields["model"], fields["provider"]) == ("m", "dummy")
    assert (fields["status"], fields["outcome"]) == (200, "ok")
    assert fields["input_tokens"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_workers_end_in_good_order_when_their_supervisor_is_killed(name, tmp_path):
    with serving(name, tmp_path) as process:
        started(process)
        workers = children(process.process.pid)
        assert len(workers) == 2
        process.process.kill()
        process.wait_for(r"(?s)(\bdrained\b.*){2}")
        process.process.wait(BOUND)
        for worker in workers:
            gone = Path(f"/proc/{worker}")
            for _ in range(200):
                if not gone.exists():
                    break
                asyncio.run(asyncio.sleep(0.05))
            assert not gone.exists() or "Z" in (gone / "stat").read_text().split()[2]


@pytest.mark.parametrize("name", NAMES)
def test_workers_are_not_started_with_a_bad_certificate(name, tmp_path):
    config, bad = tmp_path / "gateway.toml", tmp_path / "cert.pem"
    config.write_text(CONFIG)
    bad.write_text("no certificate")
    arguments = (f"tz_transport_{name}", "--config-file", str(config), "--port", "0")
    files = ("--tls-cert", str(bad), "--tls-key", str(bad))
    with running(*arguments, *files, "--workers", "2") as process:
        assert process.process.wait(BOUND) == 1
        process.wait_for(r"cannot listen on .* \(with .*cert\.pem and .*\)")
    assert "starting workers" not in process.output
