"""Redis -> tables while Redis fails, is replaced, or refuses to say something."""

from __future__ import annotations

import msgspec
import pytest

from tests.protocol.flows.keyed import (
    KEY,
    OTHER,
    Keyed,
    clear,
    hashed,
    loaded,
    principal,
    redis,
    value,
)
from tests.protocol.flows.serving import error_of, header
from tz_protocol.errors import StoreRefused
from tz_protocol.flows.keymirror import RECONCILE_SECONDS
from tz_protocol.testing import ScriptedRedis
from tz_protocol.types.secret import Secret


def test_redis_down_at_start_is_not_ready_and_answers_503():
    server = redis()
    server.state = "down"
    keyed = loaded(server)
    assert keyed.ask(method="GET", path="/readyz", run=False) is not None
    assert "the API keys have not been loaded yet" in keyed.gateway.problems()
    outcome = keyed.request()
    status, error = error_of(outcome)
    assert (status, error["code"]) == (503, "auth_unavailable")
    assert header(outcome, "retry-after") == "1"
    assert keyed.status(OTHER) == 503
    server.state = "up"
    keyed.wait(5)
    assert not keyed.gateway.problems()
    assert (keyed.status(), keyed.status(OTHER)) == (200, 401)


@pytest.mark.parametrize("state", ["down", "frozen", "denied"])
def test_redis_away_later_serves_known_keys_for_the_time_set(state):
    keyed = loaded(cached_for=60.0)
    keyed.redis.state = state
    keyed.wait(10)
    assert (keyed.status(), keyed.status(OTHER)) == (200, 503)
    keyed.wait(60)
    assert (keyed.status(), keyed.status(OTHER)) == (503, 503)
    keyed.redis.state = "up"
    keyed.wait(5)
    assert (keyed.status(), keyed.status(OTHER)) == (200, 401)
    assert len([line for line in keyed.log() if line.level == "error"]) == 1


def test_redis_away_later_may_deny_everybody():
    keyed = loaded(on_unavailable="deny", keys=(principal(OTHER),))
    keyed.redis.state = "down"
    keyed.wait(5)
    assert keyed.status() == 503
    assert keyed.status(OTHER) == 200  # stands in the file


def test_request_without_a_key_is_refused_whether_redis_is_there_or_not():
    keyed = loaded()
    keyed.redis.state = "down"
    keyed.wait(5)
    assert keyed.status(None) == 401


@pytest.mark.parametrize("state", ["down", "frozen"])
def test_key_disabled_while_redis_was_away_is_refused_after_it_is_back(state):
    keyed = loaded()
    keyed.redis.state = state
    keyed.wait(5)
    keyed.redis.run("SET", hashed(), value(disabled=True))
    keyed.redis.state = "up"
    keyed.wait(5)
    assert keyed.status() == 401


@pytest.mark.parametrize("command", ["SCAN", "MGET", "GET"])
@pytest.mark.parametrize("code", ["LOADING", "NOPERM", "NOAUTH"])
def test_refused_command_leaves_the_tables_alone(command, code):
    keyed = loaded(cached_for=1_000.0)
    keyed.redis.refusals[command] = code
    keyed.redis.flush()
    keyed.redis.run("HSET", hashed(OTHER), "a", "b")
    keyed.wait(2 * RECONCILE_SECONDS)
    assert keyed.status(OTHER) == 503
    assert keyed.status() == 200
    keyed.redis.refusals.clear()
    keyed.wait(RECONCILE_SECONDS + 5)
    assert keyed.status() == 401


class Forbidding(ScriptedRedis):
    """A server that lets nobody read values one by one, but the version."""

    def run(self, *command):
        if command[0] == "GET" and command[1] != "tz:keys:version":
            return StoreRefused("NOPERM")
        return super().run(*command)


def test_value_of_another_type_that_may_not_be_read_leaves_the_tables_alone():
    server = Forbidding()
    server.run("SET", hashed(), value())
    keyed = loaded(server, cached_for=1_000.0)
    server.run("HSET", hashed(OTHER), "a", "b")
    server.run("DEL", hashed())
    keyed.wait(2 * RECONCILE_SECONDS)
    reasons = [line.fields.get("reason") for line in keyed.log()]
    assert "NOPERM" in reasons
    assert keyed.status(OTHER) == 503


@pytest.mark.parametrize("page", [1, 1_000], ids=["page by page", "at once"])
def test_change_during_the_first_load_is_not_missed(page):
    server = redis()
    for number in range(20):
        server.run("SET", f"api_key:{number}", clear(f"{KEY}{number}"))
    server.page, server.latency = page, 0.05
    keyed = Keyed(redis=server)
    for _ in range(12):
        keyed.wait(0.1)
        if keyed.gateway.keys.keys is None:
            server.run("DEL", hashed())
            server.run("SET", "api_key:", clear(OTHER))
    keyed.wait(5)
    assert (keyed.status(), keyed.status(OTHER)) == (401, 200)


def test_config_command_may_be_forbidden():
    server = redis()
    server.refusals["CONFIG"] = "NOPERM"
    keyed = loaded(server)
    keyed.redis.run("DEL", hashed())
    keyed.wait(0.1)
    assert keyed.status() == 401


def test_lost_subscription_compares_everything():
    keyed = loaded()
    keyed.redis.drops_events = True
    keyed.redis.run("DEL", hashed())
    keyed.redis.cut()
    keyed.wait(3.5)
    assert keyed.status() == 401


def test_no_operation_of_a_request_concerns_redis():
    keyed = loaded()
    for key in (KEY, OTHER, None):
        outcome = keyed.request(key)
        names = {type(operation).__name__ for _, operation in outcome.operations}
        assert not {name for name in names if "Redis" in name}


def test_mirror_sleeps_while_no_redis_is_configured():
    keyed = loaded()
    without = msgspec.structs.replace(keyed.gateway.snapshot, access=None)
    keyed.gateway.replace(without)
    keyed.wait(40)
    before = len(keyed.redis.pipelines)
    keyed.wait(40)
    assert len(keyed.redis.pipelines) == before
    assert keyed.status(None) == 200


def test_other_redis_is_followed_as_soon_as_it_is_configured():
    keyed = loaded()
    other = ScriptedRedis()
    other.run("SET", hashed(OTHER), value())
    keyed.sim.world.redis["redis://other"] = other
    snapshot = keyed.gateway.snapshot
    access = msgspec.structs.replace(snapshot.access, redis_url=Secret("redis://other"))
    keyed.gateway.replace(msgspec.structs.replace(snapshot, access=access))
    keyed.wait(2)
    assert (keyed.status(), keyed.status(OTHER)) == (401, 200)
    keyed.redis.run("SET", hashed(), value())
    other.run("DEL", hashed(OTHER))
    keyed.wait(0.1)
    assert (keyed.status(), keyed.status(OTHER)) == (401, 401)


def test_redis_that_is_configured_no_more_while_it_is_asked_changes_nothing():
    keyed = loaded()
    without = msgspec.structs.replace(keyed.gateway.snapshot, access=None)
    keyed.redis.latency = 0.5
    keyed.redis.run("INCR", "tz:keys:version")
    keyed.wait(1.2)  # within the answer
    assert keyed.sim.now > keyed.sim.start + 3
    keyed.gateway.replace(without)
    keyed.wait(60)
    assert len(keyed.gateway.keys.keys) == 1


def test_version_of_the_wrong_type_is_none():
    keyed = loaded(ScriptedRedis(events=""))
    keyed.redis.run("HSET", "tz:keys:version", "a", "b")
    keyed.wait(RECONCILE_SECONDS + 2)
    keyed.redis.run("SET", hashed(), value())
    keyed.wait(RECONCILE_SECONDS + 2)
    assert keyed.status() == 200


def test_page_without_a_key_of_ours_is_passed_over():
    server = redis()
    for number in range(30):
        server.run("SET", f"aaa_{number}:foreign", "x")
    server.page = 5
    assert loaded(server).status() == 200
