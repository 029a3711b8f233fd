"""Records on the real engine and disk while these fail, on both transports.

The one rule: what ``tests/protocol/flows`` shows of a scripted store and disk is shown
here of what they stand for.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
import urllib.request

import msgspec
import pytest

from tests.transport.engine import SECONDS, engine, engine_of_the_session
from tests.transport.loops import BOUND, NAMES, Transport, served
from tests.transport.redisserver import eventually
from tests.transport.test_records import ask, entry, gateway, prepared, uuid
from tz_protocol.config.load import build, parse
from tz_protocol.config.records import CLICKHOUSE_LOCATION
from tz_protocol.errors import OperationBroken
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.flows.writing import render, write
from tz_protocol.gateway import Gateway
from tz_protocol.machine import Context
from tz_stores import spool as spool_module
from tz_stores.clickhouse import Clients

__all__ = ["engine", "engine_of_the_session"]  # fixtures

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="flock and prlimit")

encode = msgspec.msgpack.Encoder().encode
TABLES = {"ModelInference": "inference_id", "ChatInference": "id", "Exchange": "id"}
"""And the column in each that holds the exchange's id."""


@pytest.fixture(params=NAMES)
def transport(request):
    return Transport(request.param)


def written(transport, engine, entries, *, is_repeat=False):
    """Write *entries* as one batch that was never heard of."""
    context = Context()
    store = ClickHouse(prepared(engine), context)

    def flow():
        rows, unread = yield from render([encode(one) for one in entries], context)
        assert not unread
        name = entries[0].record.id
        return (yield from write(store, SECONDS, name, rows, {}, is_repeat=is_repeat))

    return transport.run_flow(flow, context)


def forget(engine):
    """Have the engine know no token of an insert."""
    prepared(engine)
    for table in TABLES:
        sql = f"ALTER TABLE {table} MODIFY SETTING "
        engine.ask(sql + "non_replicated_deduplication_window = 0")


@pytest.mark.parametrize("part", [1, 5, 7], ids="{} of 7".format)
def test_batch_that_is_repeated_without_its_token_adds_what_is_missing(
    transport, engine, part
):
    forget(engine)
    entries = [entry(number=number) for number in range(7)]
    entries[3].record.started_at -= 86_400
    entries[4].record.episode_id = None
    assert written(transport, engine, entries[:part]) == []
    assert written(transport, engine, entries, is_repeat=True) == []
    ids = sorted(one.record.id for one in entries)
    for table, name in TABLES.items():
        found = [row[name] for row in engine.query(f"SELECT {name} FROM {table}")]
        assert sorted(found) == ids, table


def test_batch_that_is_repeated_without_asking_is_there_twice(transport, engine):
    # what makes the test above able to fail
    forget(engine)
    entries = [entry()]
    for _ in range(2):
        written(transport, engine, entries)
    assert engine.query("SELECT count() AS n FROM ChatInference") == [{"n": 2}]


# -- before the last byte -------------------------------------------------------

CONFIG = """
[gateway.observability]
durability = "{durability}"
spool = {{ folder = "{spool}" }}
[models.m]
routing = ["dummy"]
[models.m.providers.dummy]
type = "dummy"
model_name = "{model}"
"""


class Gate:
    """Holds back whoever comes through until it is opened."""

    def __init__(self):
        self.reached = threading.Event()
        self.opened = threading.Event()

    def pass_through(self):
        self.reached.set()
        assert self.opened.wait(BOUND)


@contextlib.contextmanager
def in_process(transport, engine, spool, durability, model="good"):
    """Serve a gateway whose records go to the real engine and disk."""
    text = CONFIG.format(durability=durability, spool=spool, model=model)
    made = Gateway(
        build(parse([("gw.toml", text)]), {CLICKHOUSE_LOCATION: prepared(engine)}),
        wall_clock=time.time,
        new_id=uuid,
        jitter=lambda: 0.5,
    )
    services = tuple(make for _, make in made.services())
    with served(transport, made, services=services) as running:
        yield running


def available(client):
    """Return what has arrived."""
    client.setblocking(False)
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while piece := client.recv(65_536):
            pieces.append(piece)
    client.settimeout(BOUND)
    return b"".join(pieces)


def request(path, **members):
    """Return the bytes of a request."""
    body = json.dumps(members).encode() if members else b""
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nhost: x\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + body


def rest_of(client):
    """Return everything until the other side closes."""
    pieces = []
    while piece := client.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def pass_a_turn(address):
    """Return after the loop has done whatever it could do."""
    for _ in range(2):
        with socket.create_connection(address, BOUND) as other:
            other.sendall(request("/livez"))
            assert b" 200 " in rest_of(other)


@pytest.mark.parametrize("durability", ["spool", "sync"])
@pytest.mark.parametrize("model", ["good", "error"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_last_byte_is_sent_after_the_record_is_safe(
    transport, engine, tmp_path, monkeypatch, durability, model, is_stream
):
    gate = Gate()
    insert, write_whole = Clients.insert, spool_module.write_whole

    def held_insert(self, operation):
        if operation.table == "Exchange" and durability == "sync":
            gate.pass_through()
        insert(self, operation)

    def held_write(handle, data):
        gate.pass_through()
        write_whole(handle, data)

    monkeypatch.setattr(Clients, "insert", held_insert)
    if durability == "spool":
        monkeypatch.setattr(spool_module, "write_whole", held_write)
    monkeypatch.setattr("tz_protocol.flows.spooling.APPEND_SECONDS", BOUND)
    spool = tmp_path / "spool"
    with (
        in_process(transport, engine, spool, durability, model) as running,
        socket.create_connection(running.address, BOUND) as client,
    ):
        client.sendall(
            request(
                "/v1/chat/completions",
                model="m",
                messages=[{"role": "user", "content": "Hi"}],
                stream=is_stream,
            )
        )
        assert gate.reached.wait(BOUND)
        pass_a_turn(running.address)
        before = available(client)
        gate.opened.set()
        after = rest_of(client)
    last = b"0\r\n\r\n" if is_stream and model == "good" else b"}"
    assert not before.endswith(last)
    assert after.endswith(last)


# -- faults -----------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, 10_000], ids=["forgotten", "known"])
def test_acknowledgements_that_are_lost_make_no_duplicate(
    transport, engine, tmp_path, monkeypatch, window
):
    prepared(engine)
    if not window:
        forget(engine)
    insert, seen = Clients.insert, []

    def lossy(self, operation):
        insert(self, operation)
        seen.append(operation.table)
        if len(seen) <= len(TABLES):
            raise OperationBroken("reset")

    monkeypatch.setattr(Clients, "insert", lossy)
    with in_process(transport, engine, tmp_path / "spool", "async") as running:
        ids = [post(running.address, number)["id"] for number in range(5)]
        counts = running.gateway.recorder.queue.counts
        eventually(lambda: counts.written == len(ids))
    assert set(seen) == set(TABLES)
    for table, name in TABLES.items():
        found = [row[name] for row in engine.query(f"SELECT {name} FROM {table}")]
        assert sorted(found) == sorted(ids), table


def post(address, number=0, **headers):
    """Ask once; return the answer."""
    body = {"model": "m", "messages": [{"role": "user", "content": f"Hi {number}"}]}
    host, port = address
    asked = urllib.request.Request(
        f"http://{host}:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", **headers},
    )
    with urllib.request.urlopen(asked, timeout=BOUND) as response:
        return json.loads(response.read())


def test_row_that_the_server_refuses_is_set_aside_and_the_others_are_written(
    transport, engine, tmp_path
):
    prepared(engine)
    engine.ask("ALTER TABLE Exchange ADD CONSTRAINT no CHECK request_id != 'bad'")
    spool = tmp_path / "spool"
    with in_process(transport, engine, spool, "spool") as running:
        names = ["a", "bad", "b", "c"]
        for name in names:
            post(running.address, **{"x-request-id": name})
        counts = running.gateway.recorder.queue.counts
        eventually(lambda: counts.written == 3)
        assert counts.dropped == {"rejected": 1}
    rows = engine.query("SELECT request_id FROM Exchange ORDER BY request_id")
    assert [row["request_id"] for row in rows] == ["a", "b", "c"]
    (line,) = (spool / "dead.jsonl").read_text().splitlines()
    assert json.loads(line)["row"]["request_id"] == "bad"
    assert not list(spool.rglob("*.seg"))


# -- processes --------------------------------------------------------------------

OBSERVED = """
[gateway.observability]
durability = "{durability}"
insert_timeout_ms = 500
spool = {{ folder = "{spool}" }}
"""


def text_of(port, path):
    """Return what is at a path."""
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}{path}", timeout=BOUND
    ) as page:
        return page.read().decode()


@contextlib.contextmanager
def frozen(engine):
    """Let the engine answer nobody for as long as the block lasts."""
    pid = json.loads((engine.folder / "endpoint.json").read_text())["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("durability", ["async", "spool"])
def test_store_that_freezes_costs_no_answer_and_no_record(
    name, durability, engine, tmp_path
):
    spool = tmp_path / "spool"
    text = OBSERVED.format(durability=durability, spool=spool)
    wanted = {"tensorzero::cache_options": {"enabled": "on"}}
    with gateway(name, tmp_path, engine.url.reveal(), text) as process:
        ids = [ask(process.port)[1]["id"]]
        eventually(lambda: "written_total 1.0" in text_of(process.port, "/metrics"))
        with frozen(engine):
            for number in range(30):
                headers, answer = ask(process.port, number, **wanted)
                assert headers["x-tz-cache"] == "miss"
                ids.append(answer["id"])
            eventually(lambda: "spooled 30.0" in text_of(process.port, "/metrics"))
            page = text_of(process.port, "/metrics")
            problem = "ClickHouse takes no records"
            eventually(lambda: problem in text_of(process.port, "/health"))
        # after five lookups that fail the store is not asked any more
        assert 'tz_cache_lookups_total{result="error",tier="store"} 5.0\n' in page
        assert 'tz_cache_lookups_total{result="miss",tier="memory"} 25.0\n' in page
        eventually(lambda: "written_total 31.0" in text_of(process.port, "/metrics"))
        assert process.stop() == 0
    for table, column in TABLES.items():
        found = [r[column] for r in engine.query(f"SELECT {column} FROM {table}")]
        assert sorted(found) == sorted(ids), table
    assert not list(spool.rglob("*.seg"))


@pytest.mark.parametrize("name", NAMES)
def test_disk_that_is_full_costs_no_answer_and_is_used_once_there_is_room(
    name, engine, tmp_path
):
    spool = tmp_path / "spool"
    text = OBSERVED.format(durability="spool", spool=spool)
    away = "http://127.0.0.1:1/test"
    with gateway(name, tmp_path, away, text) as process:
        ids = [ask(process.port)[1]["id"]]
        pid = process.process.pid
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))
        ids += [ask(process.port, number)[1]["id"] for number in range(5)]
        page = text_of(process.port, "/metrics")
        assert 'tz_records_unsafe_total{reason="full"} 5.0\n' in page
        assert "the spool cannot be written (full)" in text_of(process.port, "/health")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
        eventually(lambda: "spooled 6.0" in text_of(process.port, "/metrics"))
        process.process.send_signal(signal.SIGKILL)
        process.process.wait(SECONDS)
    with gateway(name, tmp_path, engine.url.reveal(), text) as process:
        eventually(lambda: "written_total 6.0" in text_of(process.port, "/metrics"))
    rows = engine.query("SELECT id FROM Exchange")
    assert sorted(row["id"] for row in rows) == sorted(ids)


@pytest.mark.parametrize("name", NAMES)
def test_spool_that_cannot_be_made_costs_nothing_while_the_store_is_there(
    name, engine, tmp_path
):
    text = OBSERVED.format(durability="spool", spool="/sys/tz-gateway")
    with gateway(name, tmp_path, engine.url.reveal(), text) as process:
        ids = [ask(process.port, number)[1]["id"] for number in range(5)]
        health = text_of(process.port, "/health")
        assert "the spool cannot be written (" in health
        page = text_of(process.port, "/metrics")
        assert "tz_records_unsafe_total{" in page
        assert process.stop() == 0
    rows = engine.query("SELECT id FROM Exchange")
    assert sorted(row["id"] for row in rows) == sorted(ids)
