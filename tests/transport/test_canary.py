"""What may not be kept is nowhere: processes, sockets, the real engine and disk."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

import pytest

from tests.protocol.flows import test_canary as canary
from tests.protocol.flows.stored import CANARY
from tests.transport.engine import SECONDS, engine, engine_of_the_session
from tests.transport.loops import BOUND, NAMES
from tests.transport.processes import running
from tests.transport.redisserver import eventually
from tests.transport.test_records import prepared
from tz_protocol.recordops import ClickHouseQuery

__all__ = ["engine", "engine_of_the_session"]  # fixtures

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock")

CONFIG = """
[gateway]
debug = true
[gateway.observability]
capture = "{capture}"
durability = "spool"
spool = {{ folder = "{spool}" }}
[models.m]
routing = ["p"]
[models.m.providers.p]
type = "vllm"
model_name = "u"
api_base = "http://127.0.0.1:{port}/v1/"
api_key_location = "none"
"""

CHUNKS = (
    canary.said(delta=canary.DELTA, finish_reason=None),
    canary.said(delta={}, finish_reason="tool_calls"),
)


class Provider(BaseHTTPRequestHandler):
    """Says the canary in every way; ``seed`` says how it ends."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers["content-length"])
        request = json.loads(self.rfile.read(length))
        seed = request["seed"]
        if seed == 400:
            self.answer(400, canary.REFUSED)
        elif seed == 0:
            self.answer(200, b"{" + CANARY.encode())
        elif request.get("stream"):
            events = b"".join(b"data: %b\n\n" % json.dumps(c).encode() for c in CHUNKS)
            if seed == 2:
                events = events[:-40]  # it breaks off
            else:
                events += b"data: [DONE]\n\n"
            self.answer(200, events, "text/event-stream")
        else:
            message = canary.said(message=canary.SAID, finish_reason="stop")
            self.answer(200, json.dumps(message).encode())

    def answer(self, status, body, content_type="application/json"):
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def provider():
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(BOUND)


def ask(port, **members):
    """Ask; return (status, cache, body)."""
    body = {"model": "m", **canary.ASKED, **canary.MORE, **members}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND)
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    try:
        return response.status, response.headers["x-tz-cache"], response.read()
    finally:
        connection.close()


def everything(engine):
    """Return every row of every table, as text, by table."""
    tables = engine.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        "AND engine NOT LIKE '%View'"
    )
    names = [table["name"] for table in tables]
    assert {"Exchange", "ChatInference", "ModelInference"} <= set(names)
    found = {}
    for name in names:
        sql = f"SELECT * FROM {name} FORMAT JSONEachRow"
        rows = engine.perform(ClickHouseQuery(monotonic() + SECONDS, engine.url, sql))
        found[name] = repr(rows)  # states of aggregates are no text
    return found


@pytest.mark.parametrize("capture", ["none", "redacted", "full"])
@pytest.mark.parametrize("name", NAMES)
def test_canary_is_kept_nowhere_but_where_it_may_be(
    name, capture, engine, provider, tmp_path
):
    spool, config = tmp_path / "spool", tmp_path / "gateway.toml"
    config.write_text(CONFIG.format(capture=capture, spool=spool, port=provider))
    module = (f"tz_transport_{name}", "--config-file", str(config), "--port", "0")
    cached = {"tensorzero::cache_options": {"enabled": "on"}}
    away = {"TENSORZERO_CLICKHOUSE_URL": "http://127.0.0.1:1/test"}
    found = {}
    with running(*module, environment=away) as process:
        for is_stream in (False, True):
            for seed in (400, 0, 1, 2):
                ask(process.port, stream=is_stream, seed=seed)
        status, hit, body = ask(process.port, seed=3, **cached)
        assert (status, hit) == (200, "miss")
        assert CANARY.encode() in body
        assert ask(process.port, seed=3, stream=True, **cached)[:2] == (200, "hit")
        assert process.stop() == 0
        found["log"] = process.output
    segments = list(spool.rglob("*.seg"))
    assert segments
    found["spool"] = repr([path.read_bytes() for path in segments])
    prepared(engine)
    engine.ask("ALTER TABLE ChatInference ADD CONSTRAINT no CHECK ttft_ms IS NULL")
    there = {"TENSORZERO_CLICKHOUSE_URL": engine.url.reveal()}
    with running(*module, environment=there) as process:
        assert process.port
        eventually(lambda: not list(spool.rglob("*.seg")))
        assert ask(process.port, seed=4, **cached)[:2] == (200, "miss")
        if capture == "full":
            sql = "SELECT count() AS n FROM ModelInferenceCache"
            eventually(lambda: engine.query(sql) == [{"n": 1}])
        assert process.stop() == 0, process.output
        found["second log"] = process.output
    found["dead letters"] = (spool / "dead.jsonl").read_text()
    tables = everything(engine)
    assert tables["Exchange"].count('"request_id"') == 11
    places = {place for place, text in (found | tables).items() if CANARY in text}
    expected = {"spool", "dead letters", "ModelInference", "ChatInference"}
    assert places == (
        {*expected, "ModelInferenceCache"} if capture == "full" else set()
    )
