"""Figures of limits among processes: said too late, or in no form of ours."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.protocol.flows.keyed import Keyed, hashed, principal, value
from tests.protocol.flows.serving import good, snapshot
from tz_protocol.flows.limitsync import SYNC_SECONDS
from tz_protocol.testing import ScriptedRedis

TURN = 1_751_328_000.0
"""2025-07-01T00:00:00Z, where a minute, a day and a month begin at once."""
LIMITS = {"requests_per_minute": 100, "budget_per_day": 9, "budget_per_month": 9}


class Odd(ScriptedRedis):
    """A server whose hashes are read as something else."""

    reply: object = None

    def run(self, *command):
        if command[0] == "HGETALL":
            return self.reply
        return super().run(*command)


def keyed_with(redis=None, seconds_before_turn=1_000.0):
    """Return a gateway with a key that has limits, some time before :data:`TURN`."""
    redis = ScriptedRedis() if redis is None else redis
    redis.run("SET", hashed(), value(limits=LIMITS))
    keyed = Keyed([good()], redis=redis, config=snapshot(("a.test",)))
    start = keyed.sim.start
    keyed.gateway.wall_clock = lambda: (
        TURN - seconds_before_turn + keyed.sim.now - start
    )
    keyed.wait(2)
    return keyed


def account_of(keyed):
    return keyed.gateway.limiter.accounts[principal().key_id]


@pytest.mark.parametrize("reply", [None, b"OK", 7], ids=repr)
def test_answer_that_is_no_hash_counts_as_nothing(reply):
    redis = Odd()
    redis.reply = reply
    keyed = keyed_with(redis)
    for _ in range(3):
        keyed.status()
        keyed.wait(SYNC_SECONDS)
    account = account_of(keyed)
    assert (account.requests.others, account.day.others) == (0, 0)
    assert [line for line in keyed.log() if line.level == "warning"] == []


def test_figures_that_come_after_their_window_has_ended_do_not_count_in_the_next():
    keyed = keyed_with(seconds_before_turn=21.3)
    keyed.status()
    account = account_of(keyed)
    windows = {
        f"minute:{account.requests.start}": "50 50",
        f"day:{account.day.start}": "5000000000",
        f"month:{account.month.start}": "5000000000",
    }
    for name, figures in windows.items():
        keyed.redis.run("HSET", f"tz:limit:{account.key_id}:{name}", "other", figures)
    keyed.wait(2)
    assert (account.requests.others, account.day.others) == (50, Decimal(5))
    # The last question of the old month is answered in the new one.
    keyed.wait(20.0 + keyed.sim.start - keyed.sim.now)
    keyed.redis.latency = 0.9
    keyed.wait(1.5)
    keyed.status()
    assert keyed.gateway.wall_clock() > TURN
    keyed.wait(0.5)
    assert account.requests.start >= TURN
    assert (account.requests.others, account.day.others) == (0, 0)
    assert account.month.others == 0
