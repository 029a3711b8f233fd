"""API keys from a real Redis, end to end: what a request sees, whatever befalls it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transport.loops import NAMES
from tests.transport.processes import BOUND, running
from tests.transport.redisserver import RedisServer, eventually, replicated, serving

SOON = 2.0
"""Seconds: a change is seen within one; the rest is for a machine that is busy."""
RECOVERY = 5.0
"""Seconds after which all is well again once Redis is."""

CONFIG = """
[models.m]
routing = ["dummy"]
[models.n]
routing = ["dummy"]
"""

UNKNOWN = "sk-tz-unknown-unknown-unknown"
KEY = "sk-tz-canary-canary-canary"
NAME = f"api_key_hash:{hashlib.sha256(KEY.encode()).hexdigest()}"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(params=NAMES)
def transport(request):
    return request.param


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path) as server:
        yield server


class Gateway:
    """A gateway as a process, and the requests that are made to it."""

    def __init__(self, process):
        self.process = process
        self.port = process.port
        self.pid = process.process.pid

    def ask(self, path, key=None, body=None):
        """Return status, body (decoded if it is JSON) and headers of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND)
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        headers["content-type"] = "application/json"
        with contextlib.closing(connection):
            method = "GET" if body is None else "POST"
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            headers = dict(response.getheaders())
            data = response.read()
            if headers["content-type"].startswith("application/json"):
                return response.status, json.loads(data), headers
            return response.status, data, headers

    def chat(self, key, model="m"):
        """Return the status of a chat completion."""
        messages = [{"role": "user", "content": "Hi"}]
        body = json.dumps({"model": model, "messages": messages})
        return self.ask("/v1/chat/completions", key, body)[0]

    def models(self, key):
        """Return what the key may use."""
        return sorted(row["id"] for row in self.ask("/v1/models", key)[1]["data"])

    def is_ready(self):
        return self.ask("/readyz")[0] == 200

    def knows_all(self):
        """Return True if an unknown key is known to be none."""
        return self.chat(UNKNOWN) == 401

    def has_lost_redis(self):
        """Return True if whether a key is one cannot be known."""
        return self.chat(UNKNOWN) == 503

    def tasks(self):
        """Return the number of threads, and of open descriptors."""
        proc = Path(f"/proc/{self.pid}")
        return len(list(proc.glob("task/*"))), len(list(proc.glob("fd/*")))


@contextlib.contextmanager
def gateway_of(transport, url, folder, config=CONFIG):
    """Run a gateway on the keys at *url*; none of them may show in its output."""
    path = folder / "gateway.toml"
    path.write_text(config)
    arguments = ("--config-file", str(path), "--port", "0", "--log-level", "debug")
    environment = {"TENSORZERO_REDIS_URL": url}
    command = (f"tz_transport_{transport}", *arguments)
    with running(*command, environment=environment) as process:
        yield Gateway(process)
    assert KEY not in process.output
    assert UNKNOWN not in process.output
    assert "Traceback" not in process.output


def keys(transport, server, *arguments):
    """Run ``tz-gateway keys``; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tz_transport_{transport}", "keys", *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
        env={**os.environ, "TENSORZERO_REDIS_URL": server.url},
    )
    return done.stdout


def put(server, name=NAME, *, models=("m",), **members):
    """Write a key as any writer may; say so in the way that is asked for."""
    value = json.dumps({"models": list(models), **members})
    server.admin.set(name, value)


def hold(gateway, key=KEY):
    """Check what must hold at every moment: a known key works, another never does."""
    assert gateway.chat(key) == 200
    assert gateway.chat(UNKNOWN) in (401, 503)


def test_key_lives_as_long_as_the_command_line_says(transport, server, tmp_path):
    with gateway_of(transport, server.url, tmp_path) as gateway:
        eventually(gateway.is_ready)
        assert gateway.chat(UNKNOWN) == 401
        key = keys(transport, server, "create", "--model", "m").strip()
        eventually(lambda: gateway.chat(key) == 200, SOON)
        assert gateway.models(key) == ["m"]
        assert gateway.chat(key, "n") == 404
        key_id = keys(transport, server, "list").split()[0]
        new = keys(transport, server, "rotate", key_id).strip()
        eventually(lambda: gateway.chat(key) == 401, SOON)
        eventually(lambda: gateway.chat(new) == 200, SOON)
        new_id = hashlib.sha256(new.encode()).hexdigest()[:16]
        keys(transport, server, "disable", new_id)
        eventually(lambda: gateway.chat(new) == 401, SOON)
    assert key not in gateway.process.output
    assert new not in gateway.process.output


@pytest.mark.parametrize("events", ["KEA", ""], ids=["events", "version"])
def test_change_by_others_is_seen_by_events_or_by_the_version(
    transport, server, tmp_path, events
):
    def changed():
        if not events:
            server.admin.incr("tz:keys:version")

    server.admin.config_set("notify-keyspace-events", events)
    with gateway_of(transport, server.url, tmp_path) as gateway:
        eventually(gateway.is_ready)
        assert gateway.chat(KEY) == 401
        put(server)
        changed()
        eventually(lambda: gateway.chat(KEY) == 200, SOON)
        put(server, models=("m", "n"))
        changed()
        eventually(lambda: gateway.models(KEY) == ["m", "n"], SOON)
        put(server, disabled=True)
        changed()
        eventually(lambda: gateway.chat(KEY) == 401, SOON)
        put(server)
        changed()
        eventually(lambda: gateway.chat(KEY) == 200, SOON)
        server.admin.rename(NAME, "elsewhere")
        changed()
        eventually(lambda: gateway.chat(KEY) == 401, SOON)


def test_value_that_cannot_be_used_leaves_the_old_one(transport, server, tmp_path):
    put(server)
    server.admin.rpush("model_table:x", "no string")
    with gateway_of(transport, server.url, tmp_path) as gateway:
        eventually(gateway.is_ready)
        assert gateway.chat(KEY) == 200
        with server.admin.pipeline(transaction=True) as change:
            change.delete(NAME)
            change.hset(NAME, "models", "m")
            change.execute()
        gateway.process.wait_for(r"api_key_hash:[^\n]*")
        assert gateway.chat(KEY) == 200
        server.admin.delete(NAME)
        eventually(lambda: gateway.chat(KEY) == 401, SOON)


def test_flushed_database_has_no_keys(transport, server, tmp_path):
    put(server)
    server.admin.incr("tz:keys:version")
    with gateway_of(transport, server.url, tmp_path) as gateway:
        eventually(gateway.is_ready)
        assert gateway.chat(KEY) == 200
        server.admin.flushdb()
        eventually(lambda: gateway.chat(KEY) == 401, SOON)
        put(server)
        eventually(lambda: gateway.chat(KEY) == 200, SOON)


def test_gateway_starts_without_redis_and_says_what_it_cannot_know(transport, tmp_path):
    server = RedisServer(tmp_path)
    with gateway_of(transport, server.url, tmp_path) as gateway:
        assert not gateway.is_ready()
        status, body, headers = gateway.ask("/v1/models", KEY)
        assert (status, body["error"]["code"]) == (503, "auth_unavailable")
        assert int(headers["retry-after"]) >= 1
        assert gateway.ask("/v1/models")[0] == 401
        try:
            server.start()
            put(server)
            eventually(gateway.is_ready, RECOVERY)
            eventually(lambda: gateway.chat(KEY) == 200, SOON)
            assert gateway.chat(UNKNOWN) == 401
        finally:
            server.kill()


def break_by_death(server):
    server.kill()
    return server.start


def break_by_frost(server):
    server.freeze()
    return server.thaw


def break_by_password(server):
    server.admin.config_set("requirepass", "changed")
    server.admin.client_kill_filter(_type="normal", skipme=True)
    server.admin.client_kill_filter(_type="pubsub", skipme=True)
    return lambda: server.admin.config_set("requirepass", "")


BREAKS = [break_by_death, break_by_frost, break_by_password]


@pytest.mark.parametrize("break_it", BREAKS, ids=["death", "frost", "password"])
def test_known_keys_work_while_redis_is_away_and_others_wait(
    transport, server, tmp_path, break_it
):
    """Twice over: what the first time costs, no later one may add to."""
    put(server)
    server.admin.incr("tz:keys:version")
    server.admin.save()
    with gateway_of(transport, server.url, tmp_path) as gateway:
        eventually(gateway.is_ready)
        used = []
        for _ in range(2):
            mend = break_it(server)
            while not gateway.has_lost_redis():
                hold(gateway)
            for _ in range(20):
                hold(gateway)
                assert gateway.has_lost_redis()
            assert gateway.models(KEY) == ["m"]
            mend()
            eventually(gateway.knows_all, RECOVERY)
            hold(gateway)
            put(server, models=("m", "n"))
            eventually(lambda: gateway.models(KEY) == ["m", "n"], RECOVERY)
            put(server)
            eventually(lambda: gateway.models(KEY) == ["m"], RECOVERY)
            eventually(lambda: len(server.clients()) <= 3)
            used.append(gateway.tasks())
        # A thread that idles ends after some seconds; none is added by each outage.
        (threads, files), (threads_later, files_later) = used
        assert threads_later <= threads + 2
        assert files_later <= files + 2
    eventually(lambda: not server.clients())


def test_failover_is_followed(transport, tmp_path):
    with replicated(tmp_path) as (master, replica, url):
        put(master)
        eventually(lambda: replica.admin.exists(NAME))
        with gateway_of(transport, url, tmp_path) as gateway:
            eventually(gateway.is_ready)
            master.kill()
            eventually(lambda: replica.admin.role()[0] == b"master")
            hold(gateway)
            eventually(gateway.knows_all, RECOVERY)
            hold(gateway)
            put(replica, models=("m", "n"))
            eventually(lambda: gateway.models(KEY) == ["m", "n"], RECOVERY)


@pytest.mark.parametrize(
    "settings",
    ['on_unavailable = "deny"', "cached_for_s = 1"],
    ids=["deny", "cached-for"],
)
def test_known_keys_stop_when_the_configuration_says_so(
    transport, server, tmp_path, settings
):
    put(server)
    config = f"{CONFIG}[gateway.authentication]\n{settings}\n"
    with gateway_of(transport, server.url, tmp_path, config) as gateway:
        eventually(gateway.is_ready)
        assert gateway.chat(KEY) == 200
        server.freeze()
        eventually(lambda: gateway.chat(KEY) == 503)
        assert gateway.has_lost_redis()
        server.thaw()
        eventually(lambda: gateway.chat(KEY) == 200, RECOVERY)
        assert gateway.knows_all()


def test_keys_of_the_file_do_not_need_redis(transport, tmp_path):
    server = RedisServer(tmp_path)
    config = f'{CONFIG}[api_keys."{UNKNOWN}"]\nm = {{ endpoint_id = "m" }}\n'
    with gateway_of(transport, server.url, tmp_path, config) as gateway:
        assert gateway.chat(UNKNOWN) == 200
        assert gateway.chat(KEY) == 503
