"""Records and the cache against the real engine, on both transports."""

from __future__ import annotations

import base64
import contextlib
import http.server
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import pytest
from msgspec import Raw

from tests.transport.engine import SECONDS, engine, engine_of_the_session
from tests.transport.loops import NAMES, Transport
from tests.transport.processes import running
from tz_protocol.errors import OperationBroken, StoreRefused
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.flows.migrate import migrate
from tz_protocol.flows.writing import BAD_DATA, MISSING_TABLE
from tz_protocol.flows.writing import write as write_rows
from tz_protocol.machine import Context
from tz_protocol.operations import All
from tz_protocol.recordops import (
    AppendFile,
    ClaimSpool,
    ClickHouseInsert,
    ClickHouseQuery,
    OpenEmbedded,
    ReadFile,
    RemoveFile,
)
from tz_protocol.records.entry import Entry, make_content
from tz_protocol.records.record import AttemptRecord, Outcome, Record, Stage
from tz_protocol.records.rows import rows_of
from tz_protocol.records.schema import MIGRATIONS
from tz_protocol.types.secret import Secret
from tz_protocol.types.usage import Usage
from tz_protocol.wire.traceparent import TraceParent
from tz_stores.threads import Threads

__all__ = ["engine", "engine_of_the_session"]  # fixtures

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock")

_serial = itertools.count(1)


@pytest.fixture(params=NAMES)
def transport(request):
    return Transport(request.param)


TRACE = "0af7651916cd43dd8448eb211c80319c"


def uuid() -> str:
    """Return a UUIDv7 of today, in the order of time."""
    millis = int(time.time() * 1000)
    return f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7000-8000-{next(_serial):012x}"


def perform(transport, make):
    """Perform one operation on a transport; return its answer or raise its error."""
    context = Context()

    def flow():
        return (yield from make(context.now + SECONDS))

    return transport.run_flow(flow, context)


def prepared(engine):
    """Migrate the engine's database with whatever is at hand; return its URL."""
    context = Context()
    Transport("asyncio").run_flow(
        lambda: migrate(ClickHouse(engine.url, context), None), context
    )
    return engine.url


# -- the server -----------------------------------------------------------------


def test_migrations_run_at_once_and_again_do_no_harm(transport, engine):
    context = Context()
    store = ClickHouse(engine.url, context)

    def both():
        found = yield from All(
            context.now + SECONDS, tuple(migrate(store, 30) for _ in range(3))
        )
        again = yield from migrate(store, 30)
        return found, again

    _, again = transport.run_flow(both, context)
    assert again.done == ()
    versions = engine.query("SELECT DISTINCT version FROM TzMigration")
    expected = [m.version for m in MIGRATIONS if not (m.needs and again.left_out)]
    assert sorted(row["version"] for row in versions) == expected
    (table,) = engine.query(
        "SELECT create_table_query FROM system.tables "
        "WHERE database = currentDatabase() AND name = 'ModelInference'"
    )
    assert "TTL timestamp + toIntervalDay(30)" in table["create_table_query"]


def test_tables_of_the_first_version_get_the_later_columns(
    transport, engine, monkeypatch
):
    context = Context()
    store = ClickHouse(engine.url, context)
    with monkeypatch.context() as patch:
        patch.setattr("tz_protocol.flows.migrate.MIGRATIONS", MIGRATIONS[:1])
        transport.run_flow(lambda: migrate(store, None), context)
    columns = columns_of_exchange(engine)
    row = json.loads(dict(rows_of(entry()))["Exchange"])
    insert(transport, engine.url, {name: row[name] for name in columns & row.keys()})
    transport.run_flow(lambda: migrate(store, None), context)
    insert(transport, engine.url, json.loads(dict(rows_of(entry()))["Exchange"]))
    found = engine.query(
        "SELECT attempts.connect_ms AS c, attempts.input_tokens AS i, "
        "attempts.calls AS n, trace_id AS t FROM Exchange ORDER BY started_at"
    )
    assert found == [
        {"c": [None], "i": [None], "n": [0], "t": ""},
        {"c": [20.0], "i": [10], "n": [1], "t": TRACE},
    ]


@pytest.mark.parametrize("version", [1, 4])
def test_gateway_of_an_earlier_version_goes_on_writing_to_the_later_tables(
    transport, engine, monkeypatch, version
):
    context = Context()
    store = ClickHouse(engine.url, context)
    names: set[str] = set()
    for migrations in (MIGRATIONS[:1], MIGRATIONS[:version]):
        with monkeypatch.context() as patch:
            patch.setattr("tz_protocol.flows.migrate.MIGRATIONS", migrations)
            transport.run_flow(lambda: migrate(store, None), context)
        names = names or columns_of_exchange(engine)
    transport.run_flow(lambda: migrate(store, None), context)
    row = json.loads(dict(rows_of(entry()))["Exchange"])
    known = {name: row[name] for name in names & row.keys()}
    assert "attempts.provider" in known
    assert "attempts.connect_ms" not in known
    insert(transport, engine.url, known)
    insert(transport, engine.url, {**known, "id": uuid(), "attempts.calls": [3]})
    found = engine.query(
        "SELECT attempts.provider AS p, attempts.connect_ms AS c, "
        "attempts.is_hedge AS h, attempts.calls AS n, attempts.input_tokens AS i, "
        "attempts.output_tokens AS o FROM Exchange ORDER BY id"
    )
    one = {"p": ["p"], "c": [None], "h": [False], "n": [0], "i": [None], "o": [None]}
    assert found == [one, {**one, "n": [3]}]


def test_table_of_an_older_version_is_told_from_a_bad_row(
    transport, engine, monkeypatch
):
    context = Context()
    store = ClickHouse(engine.url, context)
    with monkeypatch.context() as patch:
        patch.setattr("tz_protocol.flows.migrate.MIGRATIONS", MIGRATIONS[:1])
        transport.run_flow(lambda: migrate(store, None), context)
    row = dict(rows_of(entry()))["Exchange"]
    bad = row.replace(b'"duration_ms":250.0', b'"duration_ms":"a"')
    assert bad != row

    def writing(rows, name):
        return transport.run_flow(
            lambda: write_rows(
                store, SECONDS, name, {"Exchange": rows}, {}, is_repeat=False
            ),
            context,
        )

    with pytest.raises(StoreRefused) as refused:
        writing([(0, row)], "old")
    assert refused.value.code in MISSING_TABLE
    transport.run_flow(lambda: migrate(store, None), context)
    ((number, *_),) = writing([(0, row), (1, bad)], "new")
    assert number == 1
    assert engine.query("SELECT count() AS n FROM Exchange") == [{"n": 1}]


def columns_of_exchange(engine):
    names = engine.query(
        "SELECT name FROM system.columns "
        "WHERE database = currentDatabase() AND table = 'Exchange'"
    )
    return {row["name"] for row in names}


def insert(transport, url, row):
    data = json.dumps(row).encode()
    perform(transport, lambda by: iter(ClickHouseInsert(by, url, "Exchange", data)))


def test_ttl_changes_when_the_configuration_does(transport, engine):
    context = Context()
    store = ClickHouse(engine.url, context)
    for days in (30, 60):
        found = transport.run_flow(lambda days=days: migrate(store, days), context)
        tables = engine.query(
            "SELECT name FROM system.tables WHERE database = currentDatabase() "
            f"AND create_table_query LIKE '% + toIntervalDay({days})%'"
        )
        assert sum(f"after {days} days" in text for text in found.done) == len(tables)
        assert {row["name"] for row in tables} >= {"Exchange", "EpisodeById"}


def test_insert_is_there_once_however_often_it_is_repeated(transport, engine):
    url = prepared(engine)
    data = dict(rows_of(entry()))["Exchange"]
    for _ in range(3):
        perform(
            transport, lambda by: iter(ClickHouseInsert(by, url, "Exchange", data, "t"))
        )
    other = dict(rows_of(entry()))["Exchange"]
    perform(
        transport, lambda by: iter(ClickHouseInsert(by, url, "Exchange", other, "u"))
    )
    assert engine.query("SELECT count() AS n FROM Exchange") == [{"n": 2}]


def test_row_that_cannot_be_read_is_refused_as_such(transport, engine):
    url = prepared(engine)
    good = dict(rows_of(entry()))["Exchange"]
    for bad in (
        b'{"id":"x"}',
        b'{"id":',
        b'{"duration_ms":"a"}',
        b'{"attempts.status":1}',
    ):
        with pytest.raises(StoreRefused) as info:
            perform(
                transport,
                lambda by, bad=bad: iter(
                    ClickHouseInsert(by, url, "Exchange", good + b"\n" + bad, "")
                ),
            )
        assert info.value.code in BAD_DATA, bad
    assert engine.query("SELECT count() AS n FROM Exchange") == [{"n": 0}]


@pytest.mark.parametrize(
    ("table", "row"),
    [("Nowhere", b"{}"), ("Exchange", b'{"no_such_column":1}')],
    ids=["table", "column"],
)
def test_what_a_migration_would_mend_is_refused_as_such(transport, engine, table, row):
    url = prepared(engine)
    with pytest.raises(StoreRefused) as info:
        perform(transport, lambda by: iter(ClickHouseInsert(by, url, table, row, "")))
    assert info.value.code in MISSING_TABLE | BAD_DATA


def test_database_that_does_not_exist_is_refused_as_such(transport, engine):
    with pytest.raises(StoreRefused) as info:
        perform(transport, lambda by: iter(ClickHouseQuery(by, engine.url, "SELECT 1")))
    assert info.value.code in MISSING_TABLE


def test_parameters_are_data_whatever_is_in_them(transport, engine):
    text = "it's \\ \n \t {x} ; DROP TABLE Exchange --"
    query = "SELECT {text:String} AS text FORMAT JSONEachRow"
    answer = perform(
        transport,
        lambda by: iter(ClickHouseQuery(by, engine.address, query, (("text", text),))),
    )
    assert json.loads(answer) == {"text": text}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (("default:", "default:wrong"), "denied"),
        (("127.0.0.1:", "127.0.0.1:1"), "refused"),
        (("127.0.0.1", "no-such-host.invalid"), "dns"),
    ],
    ids=["password", "port", "host"],
)
def test_server_that_cannot_be_used_is_told_in_one_word(
    transport, engine, change, kind
):
    text = engine.address.reveal()
    if kind == "refused":
        head, _, tail = text.rpartition(":")
        text = f"{head}:1/{tail.partition('/')[2]}"
    else:
        text = text.replace(*change, 1)
    with pytest.raises(OperationBroken) as info:
        perform(
            transport, lambda by: iter(ClickHouseQuery(by, Secret(text), "SELECT 1"))
        )
    assert info.value.kind == kind
    assert "wrong" not in str(info.value)


def test_deadline_ends_the_wait_and_not_the_next_one(transport, engine):
    context = Context()
    slow = "SELECT sleep(3)"

    def flow():
        started = context.now
        deadline = context.now + 0.2
        try:
            yield from ClickHouseQuery(deadline, engine.address, slow)
        except Exception as error:
            waited = context.now - started
            deadline = context.now + SECONDS
            yield from ClickHouseQuery(deadline, engine.address, "SELECT 1")
            return type(error).__name__, waited

    name, waited = transport.run_flow(flow, context)
    assert name == "OperationTimeout"
    assert waited < 2.0


# -- the engine's process -------------------------------------------------------


def test_engine_that_is_killed_is_started_again(transport, tmp_path):
    pytest.importorskip("chdb")
    context = Context()
    store = ClickHouse(Secret(f"chdb://{tmp_path}"), context)

    def flow():
        yield from migrate(store, None)
        pid = json.loads((tmp_path / "endpoint.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        failures = 0
        while True:
            try:
                sql = "SELECT count() AS n FROM Exchange FORMAT JSONEachRow"
                return failures, (yield from store.query(SECONDS, sql))
            except Exception:
                failures += 1
                assert failures < 20

    failures, answer = transport.run_flow(flow, context)
    assert failures >= 1
    assert json.loads(answer) == {"n": 0}


def test_engine_ends_with_its_last_user(tmp_path):
    pytest.importorskip("chdb")
    users = [Threads(monotonic), Threads(monotonic)]
    operation = OpenEmbedded(monotonic() + SECONDS, str(tmp_path))
    first, second = (user.calls[OpenEmbedded](operation) for user in users)
    assert first == second
    endpoint = tmp_path / "endpoint.json"
    assert endpoint.stat().st_mode & 0o077 == 0
    users[0].close()
    query = ClickHouseQuery(monotonic() + SECONDS, second, "SELECT 1")
    users[1].calls[ClickHouseQuery](query)
    users[1].close()
    until = monotonic() + SECONDS
    while endpoint.exists() and monotonic() < until:
        time.sleep(0.05)
    assert not endpoint.exists()


class Impostor(http.server.HTTPServer):
    """Has the port that an engine had, and remembers what it is asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Pretending)
        self.asked = []


class Pretending(http.server.BaseHTTPRequestHandler):
    """Says that it is there, as an engine does."""

    server: Impostor

    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"Ok.\n")

    def log_message(self, *_):
        pass


def test_port_of_a_killed_engine_is_trusted_to_nobody(tmp_path):
    """Somebody else may have it by now, and would be sent every record."""
    pytest.importorskip("chdb")
    with Impostor() as impostor:
        serving = threading.Thread(target=impostor.serve_forever, args=(0.01,))
        serving.start()
        try:
            port = impostor.server_address[1]
            left = {"port": port, "password": "canary", "pid": 1}
            (tmp_path / "endpoint.json").write_text(json.dumps(left))
            threads = Threads(monotonic)
            operation = OpenEmbedded(monotonic() + SECONDS, str(tmp_path))
            url = threads.calls[OpenEmbedded](operation).reveal()
            threads.close()
        finally:
            impostor.shutdown()
            serving.join()
        assert f":{port}/" not in url
        assert "canary" not in url
        assert impostor.asked == []


def test_engine_of_another_user_is_not_trusted(engine, monkeypatch):
    """Nobody else can read where ours is: such a file was laid out for us."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 12_345)
    threads = Threads(monotonic)
    operation = OpenEmbedded(monotonic() + 1.0, str(engine.folder))
    with pytest.raises(OperationBroken, match="another one has the folder"):
        threads.calls[OpenEmbedded](operation)
    threads.close()


def test_what_the_engine_keeps_is_for_nobody_else(tmp_path):
    pytest.importorskip("chdb")
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    threads = Threads(monotonic)
    operation = OpenEmbedded(monotonic() + SECONDS, str(folder))
    url = threads.calls[OpenEmbedded](operation)
    sql = "CREATE TABLE one (text String) ENGINE = MergeTree ORDER BY text"
    threads.calls[ClickHouseQuery](ClickHouseQuery(monotonic() + SECONDS, url, sql))
    modes = {path: path.stat().st_mode & 0o077 for path in folder.iterdir()}
    assert len(modes) == 4
    assert set(modes.values()) == {0}
    threads.close()


def test_engine_takes_no_statement_without_the_password(engine):
    """It is not even read: whoever can connect could fill the memory."""
    place = urlsplit(engine.address.reveal())
    for token in (b"", b"default:", b"default:wrong"):
        with socket.create_connection((place.hostname, place.port), SECONDS) as ours:
            ours.sendall(
                b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n"
                b"authorization: Basic %b\r\n\r\n" % base64.b64encode(token)
            )
            answer = b""
            while piece := ours.recv(65_536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 403 ")


# -- the spool ------------------------------------------------------------------


def test_file_grows_by_appends_and_goes(transport, tmp_path):
    path = str(tmp_path / "file")
    for data, is_synced in ((b"one", False), (b"two", True)):
        perform(
            transport,
            lambda by, d=data, s=is_synced: iter(AppendFile(by, path, d, s)),
        )
    assert perform(transport, lambda by: iter(ReadFile(by, path))) == b"onetwo"
    for _ in range(2):
        perform(transport, lambda by: iter(RemoveFile(by, path)))
    with pytest.raises(OperationBroken, match="missing"):
        perform(transport, lambda by: iter(ReadFile(by, path)))


def test_file_does_not_grow_beyond_its_limit(transport, tmp_path):
    path = tmp_path / "file"
    for data in (b"one", b"four"):
        perform(
            transport, lambda by, d=data: iter(AppendFile(by, str(path), d, limit=7))
        )
    with pytest.raises(OperationBroken) as info:
        perform(transport, lambda by: iter(AppendFile(by, str(path), b"x", limit=7)))
    assert info.value.kind == "limit"
    assert path.read_bytes() == b"onefour"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/dev/full", "full"), ("/proc/nowhere/x", "missing"), ("/", "disk")],
)
def test_append_that_fails_says_how(transport, path, kind):
    with pytest.raises(OperationBroken) as info:
        perform(transport, lambda by: iter(AppendFile(by, path, b"x")))
    assert info.value.kind == kind


LIMITED = """
import resource, sys
from time import monotonic
from urllib.parse import urlsplit
from tz_protocol.errors import OperationBroken
from tz_protocol.recordops import AppendFile
from tz_protocol.wire.traceparent import TraceParent
from tz_stores.threads import Threads
import signal
import socket
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
append = Threads(monotonic).calls[AppendFile]
append(AppendFile(0, sys.argv[1], b"a" * 600))
try:
    append(AppendFile(0, sys.argv[1], b"b" * 600))
except OperationBroken as error:
    print(error.kind)
"""


def test_append_that_fits_in_part_is_undone(tmp_path):
    path = tmp_path / "file"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "full\n"
    assert path.read_bytes() == b"a" * 600


OWNER = """
import sys, time
from time import monotonic
from urllib.parse import urlsplit
from tz_protocol.recordops import AppendFile, ClaimSpool
from tz_protocol.wire.traceparent import TraceParent
from tz_stores.threads import Threads
calls = Threads(monotonic).calls
calls[ClaimSpool](ClaimSpool(0, sys.argv[1], "theirs"))
calls[AppendFile](AppendFile(0, sys.argv[1] + "/theirs/1.seg", b"x"))
print("ready", flush=True)
time.sleep(60)
"""


def test_folder_of_a_process_is_its_own_until_it_is_killed(transport, tmp_path):
    root = str(tmp_path / "spool")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, root], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == "ready\n"
        claim = lambda by: iter(ClaimSpool(by, root, "ours"))  # noqa: E731
        assert perform(transport, claim) == ()
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    assert perform(transport, claim) == ((f"{root}/theirs/1.seg", 1),)
    assert Path(root).stat().st_mode & 0o077 == 0


# -- what the tables are for ----------------------------------------------------


def entry(model: str = "m", tokens: int = 10, number: int = 0) -> Entry:
    """Return a chat that was answered."""
    exchange = uuid()
    answered = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    record = Record(
        id=exchange,
        request_id=exchange,
        endpoint="POST /v1/chat/completions",
        config_id="c",
        started_at=time.time(),
        started=0.0,
        stage=Stage.DONE,
        outcome=Outcome.OK,
        status=200,
        asked_model=model,
        model=model,
        provider="p",
        episode_id=uuid(),
        duration=0.25,
        usage=Usage(input_tokens=tokens, output_tokens=2 * tokens),
        cost=Decimal("0.000000123") * tokens,
        price_id="abc",
        tags={"n": str(number)},
        trace=TraceParent(TRACE, "b7ad6b7169203331", 1),
        attempts=[
            AttemptRecord(
                provider="p",
                provider_type="openai",
                model=model,
                upstream_model="u",
                started=0.01,
                status=200,
                connected=0.03,
                head=0.1,
                first_content=0.2,
                ended=0.2,
            )
        ],
    )
    content = make_content(
        "full",
        1_000_000,
        members={
            "messages": Raw(b'[{"role":"user","content":"Hi \\"there\\" \\u0000"}]')
        },
        sent=b'{"model":"u"}',
        received=json.dumps(answered).encode(),
    )
    return Entry(record=record, inference_id=uuid(), content=content)


def write(engine, entries):
    """Insert the rows of *entries*."""
    url = prepared(engine)
    tables: dict[str, list[bytes]] = {}
    for one in entries:
        for table, row in rows_of(one):
            tables.setdefault(table, []).append(row)
    for table, rows in tables.items():
        engine.perform(
            ClickHouseInsert(monotonic() + SECONDS, url, table, b"\n".join(rows), "")
        )


def test_queries_over_a_day_of_traffic_give_the_right_figures(engine):
    entries = [entry("fast", 10, n) for n in range(30)]
    entries += [entry("slow", 100, n) for n in range(20)]
    write(engine, entries)
    by_model = engine.query(
        "SELECT model_name, count() AS n, sum(input_tokens) AS i, "
        "sum(output_tokens) AS o, sum(cost) AS cost, "
        "quantiles(0.5, 0.9)(response_time_ms) AS q, "
        "countIf(cached) AS cached FROM ModelInference "
        "WHERE timestamp > now() - INTERVAL 1 DAY "
        "GROUP BY model_name ORDER BY model_name"
    )
    assert [(r["model_name"], r["n"], r["i"], r["o"]) for r in by_model] == [
        ("fast", 30, 300, 600),
        ("slow", 20, 2_000, 4_000),
    ]
    costs = [Decimal(str(row["cost"])) for row in by_model]
    assert costs == [Decimal("0.0000369"), Decimal("0.000246")]
    assert by_model[0]["q"] == [190, 190]
    joined = engine.query(
        "SELECT ci.variant_name AS v, sum(mi.input_tokens) AS i, "
        "any(mi.finish_reason) AS f FROM ChatInference ci "
        "LEFT JOIN ModelInference mi ON ci.id = mi.inference_id "
        "WHERE ci.function_name = 'tensorzero::default' AND ci.tags['n'] = '7' "
        "GROUP BY v ORDER BY v"
    )
    assert joined == [
        {"v": "fast", "i": 10, "f": "stop"},
        {"v": "slow", "i": 100, "f": "stop"},
    ]
    (latest,) = engine.query(
        "SELECT * FROM ChatInference ORDER BY timestamp DESC, id DESC LIMIT 1"
    )
    assert json.loads(latest["output"]) == [{"type": "text", "text": "Hello"}]
    text = json.loads(latest["input"])["messages"][0]["content"][0]["text"]
    assert text == 'Hi "there" \0'
    minutes = engine.query(
        "SELECT toStartOfMinute(timestamp) AS minute, count() AS n "
        "FROM ModelInference GROUP BY minute"
    )
    assert sum(row["n"] for row in minutes) == 50
    attempts = engine.query(
        "SELECT attempts.provider AS p, attempts.total_ms AS t, cost, usage "
        "FROM Exchange FINAL LIMIT 1"
    )
    assert attempts[0]["p"] == ["p"]
    assert attempts[0]["t"] == [190]
    assert attempts[0]["usage"] == "known"


# -- the whole gateway ----------------------------------------------------------

MODEL = """
[models.m]
routing = ["dummy"]

[models.m.providers.dummy]
type = "dummy"
model_name = "good"
"""


@contextlib.contextmanager
def gateway(name, tmp_path, url, text="", *options):
    """Run a gateway as a process; it writes to *url*."""
    config = tmp_path / "gateway.toml"
    config.write_text(MODEL + text)
    environment = {"TENSORZERO_CLICKHOUSE_URL": url}
    arguments = (f"tz_transport_{name}", "--config-file", str(config), "--port", "0")
    with running(*arguments, *options, environment=environment) as process:
        assert process.port
        yield process


def ask(port, number=0, **members):
    """Ask once; return (headers, answer)."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": f"Hi {number}"}],
        **members,
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return dict(response.headers), json.loads(response.read())


def wait_for(engine, sql, expected):
    """Wait until a query gives that; the database may not exist yet."""
    until = monotonic() + SECONDS
    found = None
    while found != expected:
        assert monotonic() < until, found
        with contextlib.suppress(StoreRefused):
            found = engine.query(sql)
        time.sleep(0.05)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("workers", [1, 2])
def test_process_writes_what_it_answered_and_ends_with_nothing_left(
    name, workers, tmp_path, engine
):
    url = engine.url.reveal()
    options = ("--workers", str(workers)) if workers > 1 else ()
    with gateway(name, tmp_path, url, "", *options) as process:
        ids = [ask(process.port, n)[1]["id"] for n in range(10)]
        assert process.stop() == 0
    rows = engine.query("SELECT id, outcome FROM Exchange ORDER BY id")
    assert sorted(row["id"] for row in rows) == sorted(ids)
    assert engine.query("SELECT count() AS n FROM ChatInference") == [{"n": 10}]


@pytest.mark.parametrize("name", NAMES)
def test_process_gives_an_answer_of_another_process_again(name, tmp_path, engine):
    url = engine.url.reveal()
    wanted = {"tensorzero::cache_options": {"enabled": "on"}}
    count = "SELECT count() AS n FROM ModelInferenceCache"
    with gateway(name, tmp_path, url) as process:
        wait_for(engine, count, [{"n": 0}])  # without a table answers are given up
        headers, first = ask(process.port, **wanted)
        assert headers["x-tz-cache"] == "miss"
        wait_for(engine, count, [{"n": 1}])
    text = "[gateway.cache]\nlookup_timeout_s = 5\n"
    with gateway(name, tmp_path, url, text) as process:
        headers, second = ask(process.port, **wanted)
        assert headers["x-tz-cache"] == "hit"
    assert second["choices"] == first["choices"]
    assert second["id"] != first["id"]


@pytest.mark.parametrize("name", NAMES)
def test_process_killed_in_spool_mode_leaves_every_answered_request_once(
    name, tmp_path, engine
):
    spool = tmp_path / "spool"
    text = f"""
[gateway.observability]
durability = "spool"
spool = {{ folder = "{spool}" }}
"""
    answered: list[str] = []

    def one(port, number):
        with contextlib.suppress(OSError):
            answered.append(ask(port, number)[1]["id"])

    away = "http://127.0.0.1:1/test"
    with gateway(name, tmp_path, away, text) as process:
        with ThreadPoolExecutor(8) as pool:
            for number in range(150):
                pool.submit(one, process.port, number)
            while len(answered) < 100:
                time.sleep(0.01)
            process.process.send_signal(signal.SIGKILL)
        process.process.wait(SECONDS)
    assert len(answered) >= 100
    with gateway(name, tmp_path, engine.url.reveal(), text) as process:
        for number in range(5):
            one(process.port, number)
        until = monotonic() + SECONDS
        while any(spool.rglob("*.seg")):
            assert monotonic() < until, process.output
            time.sleep(0.05)
    rows = engine.query("SELECT id FROM Exchange")
    written = [row["id"] for row in rows]
    assert len(written) == len(set(written))
    assert set(answered) <= set(written)
    chats = engine.query("SELECT count() AS n, uniqExact(id) AS u FROM ChatInference")
    assert chats[0]["n"] == chats[0]["u"]


def test_commands_read_what_gateways_have_written(transport, engine):
    write(engine, [entry("fast", 10, n) for n in range(5)] + [entry("slow", 100)])
    environment = {**os.environ, "TENSORZERO_CLICKHOUSE_URL": engine.url.reveal()}
    command = [sys.executable, "-m", f"tz_transport_{transport.name}"]
    done = subprocess.run(
        [
            *command,
            "usage",
            "--by",
            "model,day,key,provider,project,endpoint",
            "--json",
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = {row["model"]: row for row in json.loads(done.stdout)}
    assert found["fast"]["requests"] == 5
    assert found["fast"]["input_tokens"] == 50
    assert found["fast"]["cost"] == "0.00000615"
    assert found["slow"]["p50_ms"] == 250
    with running(
        f"tz_transport_{transport.name}",
        "tail",
        "--model",
        "slow",
        environment={"TENSORZERO_CLICKHOUSE_URL": engine.url.reveal()},
    ) as process:
        process.wait_for(r" 200 ok slow/p 250ms 100>200 cost=0\.0000123")
        assert process.stop() == 0


def test_tail_ends_once_nobody_reads_what_it_prints(transport, engine):
    write(engine, [entry()])
    with subprocess.Popen(
        [sys.executable, "-m", f"tz_transport_{transport.name}", "tail", "--json"],
        env={**os.environ, "TENSORZERO_CLICKHOUSE_URL": engine.url.reveal()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert json.loads(process.stdout.readline())["outcome"] == "ok"
            process.stdout.close()
            until = monotonic() + SECONDS
            while process.poll() is None and monotonic() < until:
                write(engine, [entry()])
                time.sleep(0.2)
            assert process.poll() == 0
        finally:
            process.kill()
        assert process.stderr.read() == b""
