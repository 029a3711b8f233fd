"""The scripted Redis answers as a real one would, as far as the core asks."""

from __future__ import annotations

import pytest

from tz_protocol.errors import OperationBroken, OperationTimeout, StoreRefused
from tz_protocol.storeops import RandomBytes, RedisCommands, RedisMessages
from tz_protocol.testing import ScriptedRedis, Simulator, World
from tz_protocol.types.secret import Secret

URL = Secret("redis://h")


def simulator(redis, **options):
    world = World()
    world.redis[URL.reveal()] = redis
    return Simulator(world, **options)


def ask(*commands, seconds=1.0):
    def flow(sim):
        return (yield from RedisCommands(sim.now + seconds, URL, commands))

    return flow


def listen(*patterns, seconds=10.0):
    def flow(sim):
        return (yield from RedisMessages(sim.now + seconds, URL, patterns))

    return flow


def run(redis, make):
    sim = simulator(redis)
    return sim.run(make(sim)).result


def test_pipeline_is_answered_in_order_and_errors_stand_in_their_place():
    redis = ScriptedRedis()
    redis.run("HSET", "h", "a", "1")
    replies = run(
        redis,
        ask(
            ("SET", "s", "x"), ("GET", "h"), ("GET", "s"), ("GET", "none"), ("DEL", "s")
        ),
    )
    assert replies[0] == b"OK"
    assert isinstance(replies[1], StoreRefused)
    assert replies[1].code == "WRONGTYPE"
    assert replies[2:] == (b"x", None, 1)


def test_values_and_hashes_are_bytes():
    redis = ScriptedRedis()
    replies = run(
        redis,
        ask(
            ("INCR", "n"),
            ("INCR", "n"),
            ("MGET", "n", "none", "h"),
            ("HSET", "h", "a", 1, "b", 2),
            ("HGETALL", "h"),
            ("HGETALL", "none"),
            ("RENAME", "n", "m"),
            ("GET", "m"),
        ),
    )
    assert replies == (
        1,
        2,
        [b"2", None, None],
        2,
        [b"a", b"1", b"b", b"2"],
        [],
        b"OK",
        b"2",
    )


def test_scan_finds_what_stays_whatever_changes():
    redis = ScriptedRedis()
    redis.page = 2
    for name in "abcdef":
        redis.run("SET", f"k:{name}", "x")
    found, cursor = set(), b"0"
    while True:
        cursor, names = redis.run("SCAN", cursor, "MATCH", "k:[a-e]", "COUNT", 1)
        found.update(names)
        redis.run("DEL", "k:a")
        redis.run("SET", "k:aa", "x")
        if cursor == b"0":
            break
    assert found >= {b"k:b", b"k:c", b"k:d", b"k:e"}
    assert b"k:f" not in found


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ("KEA", {b"__keyspace@0__:k", b"__keyevent@0__:set"}),
        ("KA", {b"__keyspace@0__:k"}),
        ("EA", {b"__keyevent@0__:set"}),
        ("", set()),
    ],
)
def test_subscriber_is_told_as_far_as_the_server_is_set_to(events, expected):
    redis = ScriptedRedis(events=events)
    sim = simulator(redis)
    assert sim.run(listen("__key*")(sim)).result == ()
    redis.run("SET", "k", "x")
    outcome = sim.spawn(listen("__key*")(sim))
    sim.run_until(sim.now + 20)
    if expected:
        assert {channel for channel, _ in outcome.result} == expected
    else:
        assert isinstance(outcome.error, OperationTimeout)


def test_messages_are_kept_between_two_asks_and_lost_with_the_subscription():
    redis = ScriptedRedis()
    sim = simulator(redis)
    sim.run(listen("c")(sim))
    assert redis.run("PUBLISH", "c", "1") == 1
    redis.run("PUBLISH", "other", "2")
    assert sim.run(listen("c")(sim)).result == ((b"c", b"1"),)
    redis.run("PUBLISH", "c", "3")
    redis.cut()
    assert sim.run(listen("c")(sim)).result == ()


def test_lost_subscription_ends_what_waits_on_it():
    redis = ScriptedRedis()
    sim = simulator(redis)
    sim.run(listen("c")(sim))
    outcome = sim.spawn(listen("c")(sim))
    sim.after(1.0, redis.cut)
    sim.run_until(sim.now + 2)
    assert isinstance(outcome.error, OperationBroken)


@pytest.mark.parametrize(("state", "kind"), [("down", "refused"), ("denied", "denied")])
def test_state_breaks_the_operation(state, kind):
    redis = ScriptedRedis()
    redis.state = state
    sim = simulator(redis)
    for make in (ask(("GET", "k")), listen("c")):
        error = sim.run(make(sim)).error
        assert isinstance(error, OperationBroken)
        assert error.kind == kind


def test_frozen_server_is_a_timeout_and_a_thawed_one_answers():
    redis = ScriptedRedis()
    redis.state = "frozen"
    sim = simulator(redis)
    assert isinstance(sim.run(ask(("GET", "k"))(sim)).error, OperationTimeout)
    sim.after(0.5, lambda: setattr(redis, "state", "up"))
    outcome = sim.run(ask(("GET", "k"))(sim))
    assert outcome.result == (None,)
    assert outcome.finished_at - outcome.started_at == pytest.approx(0.5)


def test_latency_delays_the_doing_too():
    redis = ScriptedRedis()
    redis.latency = 0.3
    sim = simulator(redis)
    outcome = sim.spawn(ask(("GET", "k"))(sim))
    sim.after(0.2, lambda: redis.run("SET", "k", "x"))
    sim.run_until_done(outcome)
    assert outcome.result == (b"x",)


def test_name_expires_on_the_simulated_clock():
    redis = ScriptedRedis()
    sim = simulator(redis)
    sim.run(ask(("SET", "k", "x"), ("EXPIRE", "k", 5))(sim))
    assert sim.run(ask(("GET", "k"))(sim)).result == (b"x",)
    sim.run_until(sim.now + 5)
    assert sim.run(ask(("GET", "k"))(sim)).result == (None,)


def test_operations_do_not_show_what_they_carry():
    operation = RedisCommands(1.0, Secret("redis://:canary@h"), (("GET", "canary"),))
    assert "canary" not in repr(operation)


def test_random_bytes_differ_and_are_the_same_in_every_run():
    def flow(sim):
        first = yield from RandomBytes(sim.now + 1, 32)
        second = yield from RandomBytes(sim.now + 1, 32)
        return first, second

    def once():
        sim = Simulator()
        return sim.run(flow(sim)).result

    first, second = once()
    assert first != second
    assert len(first) == len(second) == 32
    assert once() == (first, second)
