"""Redis -> tables: every way a change can come, and every way Redis can fail."""

from __future__ import annotations

import gc
import json
import tracemalloc

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
    read_model,
    redis,
    value,
)
from tests.protocol.flows.serving import answer
from tz_protocol.flows.keymirror import RECONCILE_SECONDS
from tz_protocol.testing import ScriptedRedis

# -- changes --------------------------------------------------------------------


@pytest.mark.parametrize("name", [hashed(), f"api_key:{KEY}", "api_key:any"])
def test_key_is_loaded_at_start(name):
    server = ScriptedRedis()
    server.run("SET", name, value() if "hash" in name else clear())
    assert loaded(server).status() == 200


@pytest.mark.parametrize("events", ["KEA", "E$gx", "KA", ""])
def test_change_by_anybody_is_seen_in_time(events):
    keyed = loaded(ScriptedRedis(events=events))
    seconds = 0.1 if events else RECONCILE_SECONDS + 2
    assert keyed.status() == 401
    keyed.redis.run("SET", f"api_key:{KEY}", clear())
    keyed.wait(seconds)
    assert keyed.status() == 200
    keyed.redis.run("DEL", f"api_key:{KEY}")
    keyed.wait(seconds)
    assert keyed.status() == 401


@pytest.mark.parametrize("is_told", [True, False], ids=["published", "version only"])
def test_change_by_our_command_line_is_seen_within_a_second(is_told):
    keyed = loaded(ScriptedRedis(events=""))
    keyed.redis.run("SET", hashed(), value())
    keyed.redis.run("INCR", "tz:keys:version")
    if is_told:
        keyed.redis.run("PUBLISH", "tz:keys:changed", hashed())
    keyed.wait(0.1 if is_told else 1.01)
    assert keyed.status() == 200


def _flush(server):
    server.flush()


def _evict(server):
    server.evict(hashed())


def _rename(server):
    server.run("RENAME", hashed(), "elsewhere")


def _expire(server):
    server.run("EXPIRE", hashed(), 0)


def _empty(server):
    server.run("SET", "api_key:any", "{}")


def _fail_over(server):
    server.flush()
    server.state = "down"
    server.state = "up"


@pytest.mark.parametrize("is_lost", [True, False], ids=["event lost", "event told"])
@pytest.mark.parametrize("change", [_flush, _evict, _rename, _expire, _fail_over])
def test_key_that_is_gone_is_refused_whatever_took_it(change, is_lost):
    keyed = loaded()
    assert keyed.status() == 200
    keyed.redis.drops_events = is_lost
    change(keyed.redis)
    keyed.wait(RECONCILE_SECONDS + 2)
    assert keyed.status() == 401


@pytest.mark.parametrize("is_lost", [True, False], ids=["event lost", "event told"])
def test_entry_removed_from_inside_a_value_is_refused(is_lost):
    both = json.dumps(json.loads(clear()) | json.loads(clear(OTHER)))
    server = ScriptedRedis()
    server.run("SET", "api_key:any", both)
    keyed = loaded(server)
    assert (keyed.status(), keyed.status(OTHER)) == (200, 200)
    keyed.redis.drops_events = is_lost
    keyed.redis.run("SET", "api_key:any", clear(OTHER))
    keyed.wait(RECONCILE_SECONDS + 2)
    assert (keyed.status(), keyed.status(OTHER)) == (401, 200)


def test_key_under_two_names_stays_until_both_are_gone():
    server = ScriptedRedis()
    server.run("SET", "api_key:one", clear())
    server.run("SET", "api_key:two", clear())
    keyed = loaded(server)
    for name, status in (("one", 200), ("two", 401)):
        keyed.redis.run("DEL", f"api_key:{name}")
        keyed.wait(0.1)
        assert keyed.status() == status


def test_key_disabled_in_its_hashed_form_is_refused_though_it_stands_in_clear():
    server = redis()
    server.run("SET", "api_key:any", clear())
    keyed = loaded(server)
    keyed.redis.run("SET", hashed(), value(disabled=True))
    keyed.wait(0.1)
    assert keyed.status() == 401


def test_key_disabled_in_redis_is_refused_though_the_file_has_it():
    keyed = loaded(keys=(principal(),))
    keyed.redis.run("SET", hashed(), value(disabled=True))
    keyed.wait(0.1)
    assert keyed.status() == 401


def test_key_expires_by_the_wall_clock():
    server = ScriptedRedis()
    server.run("SET", hashed(), value(expires_at=1_750_000_100))
    keyed = loaded(server)
    assert keyed.status() == 200
    keyed.wait(100)
    assert keyed.status() == 401


def test_many_keys_are_all_loaded_page_by_page():
    server = ScriptedRedis()
    for number in range(700):
        server.run("SET", f"api_key:{number}", clear(f"{KEY}{number}"))
    server.page = 256
    keyed = loaded(server)
    assert len(keyed.gateway.keys.keys) == 700
    assert keyed.status(f"{KEY}699") == 200


def test_deletion_during_a_comparison_is_not_undone_by_it():
    keyed = loaded()
    keyed.redis.page = 1
    for number in range(30):
        keyed.redis.run("SET", f"api_key:{number}", clear(f"{KEY}{number}"))
    keyed.wait(1)
    keyed.redis.latency = 0.2
    keyed.redis.run("SET", "api_key:new", clear(OTHER))
    keyed.redis.run("INCR", "tz:keys:version")
    keyed.wait(3)  # in the middle of it
    keyed.redis.run("DEL", hashed())
    keyed.redis.run("DEL", "api_key:new")
    keyed.wait(0.5)
    assert (keyed.status(), keyed.status(OTHER)) == (401, 401)
    for _ in range(30):
        keyed.wait(0.5)
        assert (keyed.status(), keyed.status(OTHER)) == (401, 401)


# -- models ---------------------------------------------------------------------


def with_model(endpoint="ep-9", **members):
    server = ScriptedRedis()
    server.run("SET", f"api_key:{KEY}", clear(KEY, gpt=endpoint))
    server.run("SET", f"model_table:{endpoint}", json.dumps({endpoint: members}))
    return server


def test_model_from_redis_answers_under_its_public_name():
    keyed = loaded(with_model())
    outcome = keyed.request(model="gpt")
    assert answer(outcome)["model"] == "gpt"
    (record,) = keyed.sim.records
    assert (record.endpoint_id, record.model_id, record.project_id) == (
        "ep-9",
        "mod-1",
        "prj-1",
    )
    keyed.redis.run("DEL", "model_table:ep-9")
    keyed.wait(0.1)
    assert keyed.status(model="gpt") == 404


def test_model_from_redis_with_a_forbidden_credential_is_not_used():
    keyed = loaded(with_model(api_key_location="env::FORBIDDEN"))
    assert keyed.status(model="gpt") == 404
    assert keyed.metric("tz_redis_bad_values_total 1")


def test_new_configuration_decides_anew_about_models():
    keyed = loaded(with_model())
    assert keyed.status(model="gpt") == 200
    access = keyed.gateway.snapshot.access

    def refuse(table_id, data):
        raise ValueError("no more")

    new = msgspec.structs.replace(access, read_model=refuse)
    keyed.gateway.replace(msgspec.structs.replace(keyed.gateway.snapshot, access=new))
    keyed.wait(2)
    assert keyed.status(model="gpt") == 404
    again = msgspec.structs.replace(access, read_model=read_model)
    keyed.gateway.replace(msgspec.structs.replace(keyed.gateway.snapshot, access=again))
    keyed.wait(2)
    assert keyed.status(model="gpt") == 200


# -- bad values -----------------------------------------------------------------


BAD = {
    "not json": "{",
    "not utf-8": b"\xff\xfe",
    "a list": "[]",
    "a string": '"x"',
    "no models": "{}",
    "a grant without an endpoint": '{"models": {"m": {}}}',
    "an unknown restriction": value(only_on_sundays=True),
    "a limit below zero": value(limits={"requests_per_minute": -1}),
    "an unknown limit": value(limits={"rpm": 1}),
    "an infinite budget": value(limits={"budget_per_day": "Infinity"}),
    "a time without a zone": value(expires_at="2025-01-01T00:00:00"),
    "deeply nested": "[" * 100_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_bad_value_leaves_the_old_one_in_use_and_is_logged_once(text):
    keyed = loaded()
    keyed.redis.run("SET", hashed(), text)
    keyed.wait(3 * RECONCILE_SECONDS)
    assert keyed.status() == 200
    (line,) = [line for line in keyed.log() if line.level == "error"]
    assert line.fields["key"] == hashed()
    assert keyed.metric("tz_redis_bad_values_total 1")
    keyed.redis.run("SET", hashed(), value(disabled=True))
    keyed.wait(0.1)
    assert keyed.status() == 401


def test_value_of_the_wrong_type_leaves_the_old_one_in_use():
    keyed = loaded()
    keyed.redis.run("DEL", hashed())
    keyed.redis.run("HSET", hashed(), "a", "b")
    keyed.wait(0.1)
    # deleted and made a hash in one instant: only the hash is there to be seen
    assert keyed.status() == 200
    assert keyed.metric("tz_redis_bad_values_total 1")


def test_name_of_a_bad_value_does_not_give_the_key_away():
    keyed = loaded()
    keyed.redis.run("SET", f"api_key:{OTHER}", "{")
    keyed.wait(1)
    (line,) = [line for line in keyed.log() if line.level == "error"]
    assert OTHER not in str(line)
    assert line.fields["key"].startswith("api_key:(sha256 ")


def test_short_key_is_warned_of():
    server = ScriptedRedis()
    server.run("SET", "api_key:1", clear("sk-1"))
    (line,) = [line for line in loaded(server).log() if line.level == "warning"]
    assert line.fields == {"keys": 1}


def test_foreign_names_are_not_read():
    keyed = loaded()
    keyed.redis.run("SET", "session:1", "{")
    keyed.redis.run("HSET", "api_keys", "a", "b")
    keyed.wait(RECONCILE_SECONDS + 2)
    read = {c[1] for p in keyed.redis.pipelines for c in p if c[0] in ("GET", "MGET")}
    assert read == {"tz:keys:version", hashed().encode()}


# -- size -----------------------------------------------------------------------


def test_key_takes_less_than_a_kilobyte():
    count, sizes = 2_000, []
    for number in (0, count):
        server = ScriptedRedis()
        for one in range(number):
            ids = {
                name: f"0190a0a0-0000-7000-8000-{kind}{one:011d}"
                for kind, name in enumerate(("endpoint_id", "model_id", "project_id"))
            }
            key = f"sk-tz-{one:043d}"
            server.run("SET", f"api_key:{key}", json.dumps({key: {"gpt-4o": ids}}))
        server.page = 250
        keyed = Keyed(redis=server)
        gc.collect()
        tracemalloc.start()
        keyed.wait(1.5)
        assert len(keyed.gateway.keys.keys or ()) == number
        keyed.sim.trace.clear()
        server.pipelines.clear()
        for service in keyed.services:
            service.operations.clear()
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert (sizes[1] - sizes[0]) / count < 1_000
