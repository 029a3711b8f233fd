"""The pool of kept connections: decisions only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.routing.pool import Pool, PooledConnection
from tz_protocol.types.settings import Limits

ORIGIN = ("http", "a.test", 80, True, None)
LIMITS = Limits(pool_per_origin=2, pool_idle=1, pool_idle_timeout=30.0)


def connection(handle="h"):
    return PooledConnection(ORIGIN, handle, None)


def test_pool_kept_connection_is_taken_again():
    pool = Pool(LIMITS)
    assert pool.reserve(ORIGIN)
    assert pool.take(ORIGIN, 0.0) is None
    kept = connection()
    assert pool.keep(kept, 1.0) == []
    assert pool.reserve(ORIGIN)
    taken = pool.take(ORIGIN, 2.0)
    assert taken is kept
    assert taken.is_reused


def test_pool_too_old_connection_is_not_taken():
    pool = Pool(LIMITS)
    pool.reserve(ORIGIN)
    pool.keep(connection(), 0.0)
    pool.reserve(ORIGIN)
    assert pool.take(ORIGIN, 31.0) is None
    assert pool.expire(31.0) == ["h"]


def test_pool_surplus_idle_is_closed_oldest_first():
    pool = Pool(LIMITS)
    pool.reserve(ORIGIN)
    pool.reserve(ORIGIN)
    assert pool.keep(connection("old"), 0.0) == []
    assert pool.keep(connection("new"), 1.0) == ["old"]


def test_pool_full_origin_queues_and_hands_over():
    pool = Pool(LIMITS)
    assert pool.reserve(ORIGIN)
    assert pool.reserve(ORIGIN)
    assert not pool.reserve(ORIGIN)
    place = pool.queue(ORIGIN)
    pool.leave(ORIGIN)
    assert place.is_set
    assert pool.counts() == (2, 0)


def test_pool_given_up_after_handover_passes_the_place_on():
    pool = Pool(LIMITS)
    pool.reserve(ORIGIN)
    pool.reserve(ORIGIN)
    first, second = pool.queue(ORIGIN), pool.queue(ORIGIN)
    pool.leave(ORIGIN)
    pool.give_up(ORIGIN, first)
    assert second.is_set
    pool.give_up(ORIGIN, second)
    assert pool.counts() == (1, 0)


@given(st.lists(st.sampled_from(["reserve", "keep", "leave", "expire", "take"])))
def test_pool_any_sequence_stays_within_its_bounds(steps):
    pool, busy, now = Pool(LIMITS), 0, 0.0
    for number, step in enumerate(steps):
        now += 10.0
        if step == "reserve":
            busy += pool.reserve(ORIGIN)
        elif step == "keep" and busy:
            pool.keep(connection(number), now)
            busy -= 1
        elif step == "leave" and busy:
            pool.leave(ORIGIN)
            busy -= 1
        elif step == "take" and busy:
            pool.take(ORIGIN, now)
        elif step == "expire":
            pool.expire(now)
        counts = pool.counts()
        assert counts[0] == busy <= LIMITS.pool_per_origin
        assert counts[1] <= LIMITS.pool_idle
    for _ in range(busy):
        pool.leave(ORIGIN)
    pool.expire(now, everything=True)
    assert pool.counts() == (0, 0)
