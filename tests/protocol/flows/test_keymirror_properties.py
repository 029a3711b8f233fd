"""Whatever happens to Redis, in whatever order: who is let in, and who is not.

The oracle knows what Redis held at every moment. A key that is let in was in Redis not
long ago; one that has been there for long, while Redis could be asked, is let in.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.protocol.flows.keyed import Keyed, clear, hashed, value
from tz_protocol.flows.keymirror import RECONCILE_SECONDS
from tz_protocol.testing import ScriptedRedis

KEYS = ("sk-0123456789-0123456789", "sk-abcdefghij-abcdefghij", "sk-klm-nopqrstuvwxyz0")
CACHED = 40.0
CONVERGED = RECONCILE_SECONDS + 10.0
"""Seconds after which any change is in force while Redis answers."""
RECOVERY = 5.0

NAMES = ("api_key:a", "api_key:b", *map(hashed, KEYS))


class Oracle:
    """Redis, and what it held when."""

    def __init__(self, keyed):
        self.keyed = keyed
        self.held = {}
        """name -> keys that it gives access to."""
        self.history: list[tuple[float, frozenset[str]]] = [(self.now, frozenset())]
        """(since when, keys that are valid)."""
        self.silent_since = None
        """Since when messages were lost."""
        self.up_since = self.now
        self.ever = frozenset(KEYS)
        """Keys that have been valid from the beginning."""
        self.kept = set()
        """Keys that a value which became unusable may keep in use."""

    @property
    def now(self):
        return self.keyed.sim.now

    def note(self):
        disabled = {key for key in KEYS if self.held.get(hashed(key)) == "disabled"}
        valid = {
            key for keys in self.held.values() if keys != "disabled" for key in keys
        }
        self.history.append((self.now, frozenset(valid - disabled)))
        self.ever &= self.history[-1][1]

    def valid_within(self, seconds):
        """Return (valid at some time, valid all the time) of the last seconds."""
        since = self.now - seconds
        ends = [*(when for when, _ in self.history[1:]), float("inf")]
        spans = [
            (when, end, keys)
            for (when, keys), end in zip(self.history, ends, strict=True)
            if end > since
        ]
        # What was for no longer than a moment may have been seen all the same.
        held = [keys for *_, keys in spans]
        return frozenset().union(*held), frozenset(KEYS).intersection(*held)

    # -- actions ----------------------------------------------------------------

    def put(self, name, keys, kind):
        redis = self.keyed.redis
        number = NAMES.index(name)
        is_hashed = number >= 2
        own = (KEYS[number - 2],) if is_hashed else keys
        if kind == "bad":
            self.kept |= set(self._ever(name))
            redis.run("SET", name, "{" + kind)
        elif kind == "hash":
            self.kept |= set(self._ever(name))
            redis.run("DEL", name)
            redis.run("HSET", name, "a", "b")
        elif kind == "disabled" and is_hashed:
            redis.run("SET", name, value(disabled=True))
            self.held[name] = "disabled"
        elif is_hashed:
            redis.run("SET", name, value())
            self.held[name] = own
        else:
            merged: dict[str, Any] = {}
            for key in keys:
                merged |= json.loads(clear(key))
            redis.run("SET", name, json.dumps(merged))
            self.held[name] = keys
        self.note()

    def _ever(self, name):
        number = NAMES.index(name)
        return KEYS if number < 2 else (KEYS[number - 2],)

    def delete(self, name, how):
        redis = self.keyed.redis
        if how == "rename" and name.encode() in redis.data:
            redis.run("RENAME", name, "elsewhere")
        elif how == "evict":
            redis.evict(name)
        else:
            redis.run("DEL", name)
        self.held.pop(name, None)
        self.note()

    def flush(self):
        self.keyed.redis.flush()
        self.held.clear()
        self.silent_since = self.now  # a flush is never told
        self.note()

    def lose(self, is_lost):
        self.keyed.redis.drops_events = is_lost
        self.silent_since = self.now

    def turn(self, state):
        self.keyed.redis.state = state
        self.up_since = self.now if state == "up" else None

    def bump(self):
        self.keyed.redis.run("INCR", "tz:keys:version")

    # -- the claim --------------------------------------------------------------

    def check(self, key):
        status = self.keyed.status(key)
        up_for = 0.0 if self.up_since is None else self.now - self.up_since
        is_settled = up_for >= CONVERGED
        recently, always = self.valid_within(
            CONVERGED if is_settled else CACHED + 2 * CONVERGED
        )
        if status == 200:
            assert key in recently | self.kept
        if key in self.ever and not self.kept:
            assert status != 401
        if is_settled:
            assert status in (200, 401)
            if key in always and not self.kept:
                assert status == 200
        elif up_for >= RECOVERY:
            assert status in (200, 401)
        else:
            assert status in (200, 401, 503)


ACTIONS = st.one_of(
    st.tuples(
        st.just("put"),
        st.sampled_from(NAMES),
        st.lists(st.sampled_from(KEYS), max_size=3, unique=True).map(tuple),
        st.sampled_from(["good", "good", "good", "disabled", "bad", "hash"]),
    ),
    st.tuples(
        st.just("delete"),
        st.sampled_from(NAMES),
        st.sampled_from(["del", "rename", "evict"]),
    ),
    st.tuples(st.just("flush")),
    st.tuples(st.just("bump")),
    st.tuples(st.just("lose"), st.booleans()),
    st.tuples(
        st.just("turn"), st.sampled_from(["up", "up", "up", "down", "frozen", "denied"])
    ),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 1.0, 3.0, 12.0, 35.0])),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(KEYS), max_size=3).map(tuple), max_size=5),
    st.lists(ACTIONS, max_size=20),
    st.sampled_from(["KEA", "E$gx", ""]),
    st.sampled_from([0.0, 0.05, 0.4]),
    st.integers(1, 3),
    st.integers(0, 3),
)
@example(
    [],
    [
        ("put", NAMES[0], KEYS[:1], "good"),
        ("wait", 3.0),
        ("turn", "frozen"),
        ("wait", 3.0),
        ("delete", NAMES[0], "del"),
        ("turn", "up"),
        ("wait", 35.0),
    ],
    "KEA",
    0.05,
    1,
    0,
)
@example(
    [],
    [
        ("put", NAMES[0], KEYS[:1], "good"),
        ("wait", 35.0),
        ("put", NAMES[0], (), "good"),
        ("put", NAMES[2], (), "good"),
    ],
    "KEA",
    0.0,
    1,
    0,
)
def test_nobody_is_let_in_whom_redis_did_not_know(
    initial, actions, events, latency, page, seed
):
    redis = ScriptedRedis(events=events)
    redis.latency = latency
    redis.page = page
    keyed = Keyed(redis=redis, seed=seed, cached_for=CACHED)
    oracle = Oracle(keyed)
    for name, keys in zip(NAMES, initial, strict=False):
        oracle.put(name, keys, "good")
    oracle.ever = oracle.history[-1][1]
    for name, *arguments in actions:
        if name == "wait":
            keyed.wait(*arguments)
        else:
            getattr(oracle, name)(*arguments)
        for key in KEYS:
            oracle.check(key)
    oracle.turn("up")
    keyed.wait(CONVERGED)
    for key in KEYS:
        oracle.check(key)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.lists(st.sampled_from(KEYS), max_size=3, unique=True).map(tuple),
            st.sampled_from(["good", "good", "disabled", "delete"]),
        ),
        max_size=12,
    ),
    st.integers(0, 5),
)
def test_told_changes_are_in_force_at_once_and_exactly(changes, seed):
    """With messages and without failures, the tables are Redis's own."""
    keyed = Keyed(redis=ScriptedRedis(), seed=seed)
    keyed.wait(2)
    oracle = Oracle(keyed)
    for name, keys, kind in changes:
        if kind == "delete":
            oracle.delete(name, "del")
        else:
            oracle.put(name, keys, kind)
        keyed.wait(0.001)
        _, valid = oracle.history[-1]
        assert {key for key in KEYS if keyed.status(key) == 200} == valid


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.lists(st.sampled_from(KEYS), max_size=3, unique=True).map(tuple),
            st.sampled_from(["good", "disabled", "delete", "bump", "silent"]),
            st.sampled_from([0.0, 0.05, 0.13, 0.31, 1.0, 1.9]),
        ),
        max_size=12,
    ),
    st.sampled_from([0.04, 0.11]),
    st.integers(0, 5),
)
@example(
    [
        (NAMES[0], KEYS[:1], "silent", 1.9),
        (NAMES[0], (), "delete", 1.0),
    ],
    0.11,
    0,
)
@example(
    [
        (NAMES[0], KEYS[:1], "silent", 1.9),
        (NAMES[0], KEYS[1:], "good", 1.0),
    ],
    0.11,
    0,
)
def test_comparison_under_way_undoes_no_change(changes, latency, seed):
    """What a comparison read before a change was told is older than the change."""
    redis = ScriptedRedis()
    redis.page = 1
    for number in range(8):
        redis.run("SET", f"api_key:other-{number}", clear(f"sk-other-{number}"))
    redis.latency = latency
    keyed = Keyed(redis=redis, seed=seed)
    keyed.wait(7)
    oracle = Oracle(keyed)
    for name, keys, kind, pause in changes:
        if kind == "bump":
            oracle.bump()
        elif kind == "delete":
            oracle.delete(name, "del")
        elif kind == "silent":
            redis.drops_events = True
            oracle.put(name, keys, "good")
            redis.drops_events = False
            oracle.bump()
        else:
            oracle.put(name, keys, kind)
        keyed.wait(pause)
    keyed.wait(6)  # for what is under way; the next comparison would mend all
    _, valid = oracle.history[-1]
    assert {key for key in KEYS if keyed.status(key) == 200} == valid


def test_order_of_changes_does_not_matter_to_the_table():
    tables = set()
    puts = [
        ("api_key:a", KEYS[:2], "good"),
        ("api_key:b", KEYS[1:], "good"),
        (hashed(KEYS[1]), (), "disabled"),
    ]
    for order in itertools.permutations(puts):
        keyed = Keyed(redis=ScriptedRedis())
        keyed.wait(2)
        oracle = Oracle(keyed)
        for put in order:
            oracle.put(*put)
            keyed.wait(0.001)
        tables.add(tuple(keyed.status(key) for key in KEYS))
    assert tables == {(200, 401, 200)}
