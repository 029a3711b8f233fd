"""Limits as a caller meets them, through the whole gateway and several of them."""

from __future__ import annotations

from decimal import Decimal
from functools import partial

import pytest

from tests.protocol.flows.keyed import (
    SERVICES,
    Keyed,
    hashed,
    principal,
    value,
    with_keys,
)
from tests.protocol.flows.limited import ask, priced, served
from tests.protocol.flows.serving import (
    Served,
    chat,
    error_of,
    good,
    good_stream,
    header,
    refusal,
    snapshot,
)
from tz_protocol.flows.limitsync import SYNC_SECONDS
from tz_protocol.testing import ScriptedRedis
from tz_protocol.types.keys import KeyLimits

# -- limits ---------------------------------------------------------------------


def test_answers_tell_what_is_left():
    gateway = served(limits={"requests_per_minute": 2, "tokens_per_minute": 1_000})
    outcome = ask(gateway)
    assert header(outcome, "x-ratelimit-limit-requests") == "2"
    assert header(outcome, "x-ratelimit-remaining-requests") == "1"
    assert header(outcome, "x-ratelimit-limit-tokens") == "1000"
    assert int(header(outcome, "x-ratelimit-remaining-tokens")) < 1_000
    names = [name for name, _ in outcome.response.head.headers]
    assert len(names) == len(set(names))


def test_request_over_its_minute_is_a_429_without_reading_the_body():
    gateway = served(limits={"requests_per_minute": 1})
    ask(gateway)
    outcome = ask(gateway)
    status, error = error_of(outcome)
    assert (status, error["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(header(outcome, "retry-after")) <= 60
    assert header(outcome, "x-ratelimit-remaining-requests") == "0"
    names = [type(operation).__name__ for _, operation in outcome.operations]
    assert names == ["SendHead", "SendBody"]
    gateway.sim.run_until(gateway.sim.now + 60)
    assert ask(gateway).response.status == 200


def test_tokens_are_settled_by_what_the_provider_counted():
    gateway = served(limits={"tokens_per_minute": 1_000})
    assert ask(gateway, body=chat(max_tokens=900)).response.status == 200
    account = gateway.gateway.limiter.accounts[principal().key_id]
    assert account.tokens.used == 4
    outcome = ask(gateway, body=chat(max_tokens=990))
    assert error_of(outcome)[0] == 429
    assert account.tokens.used == 4
    assert account.running == 0


@pytest.mark.parametrize("stream", [False, True])
def test_failure_gives_tokens_and_money_back(stream):
    limits = {"tokens_per_minute": 1_000, "budget_per_day": Decimal(100)}
    gateway = served([refusal(400)], limits=limits)
    outcome = ask(gateway, body=chat(max_tokens=500, stream=stream))
    assert outcome.response.status == 400
    account = gateway.gateway.limiter.accounts[principal().key_id]
    assert (account.tokens.used, account.day.used, account.running) == (0, 0, 0)
    assert account.requests.used == 1


def test_stream_is_settled_by_its_usage():
    limits = {"budget_per_month": Decimal(100), "concurrent_requests": 1}
    gateway = served([good_stream()], limits=limits)
    body = chat(stream=True, stream_options={"include_usage": True})
    assert ask(gateway, body=body).response.status == 200
    account = gateway.gateway.limiter.accounts[principal().key_id]
    assert account.month.used == Decimal("0.43")
    assert gateway.record.cost == Decimal("0.43")
    assert account.running == 0


@pytest.mark.parametrize("number", range(1, 12))
def test_cancelled_exchange_gives_its_place_back_wherever_it_is(number):
    gateway = served([good_stream()], limits={"concurrent_requests": 1})
    ask(gateway, body=chat(stream=True), cancel_at=number)
    assert gateway.gateway.limiter.accounts[principal().key_id].running == 0
    assert ask(gateway, body=chat(stream=True)).response.status == 200


def test_budget_ends_with_insufficient_quota():
    gateway = served(limits={"budget_per_day": Decimal("0.2")})
    for cost in ("0.13", "0.26"):
        assert ask(gateway).response.status in (200, 429)
        account = gateway.gateway.limiter.accounts[principal().key_id]
        assert account.day.used <= Decimal(cost)
    gateway = served(limits={"budget_per_day": Decimal("0.0001")})
    status, error = error_of(ask(gateway))
    assert (status, error["code"]) == (429, "insufficient_quota")


def test_key_with_a_budget_cannot_use_what_has_no_price():
    config = snapshot(("a.test",))
    key = principal(limits=KeyLimits(budget_per_day=Decimal(1)))
    gateway = Served([good()], config=with_keys(config, key))
    status, error = error_of(ask(gateway))
    assert (status, error["code"]) == (403, "price_unknown")


# -- limits across processes ----------------------------------------------------


class Fleet:
    """Several gateways with one Redis, in one simulated world."""

    def __init__(self, count, **limits):
        self.redis = ScriptedRedis()
        self.redis.run("SET", hashed(), value(limits=limits))
        first = Keyed(redis=self.redis, config=priced(snapshot(("a.test",))))
        self.members = [first]
        for number in range(1, count):
            member = Keyed(redis=self.redis, config=first.gateway.snapshot)
            member.sim = first.sim
            member.gateway = type(first.gateway)(
                first.gateway.snapshot,
                wall_clock=first.gateway.wall_clock,
                new_id=partial(str, f"process-{number}-{id(self)}"),
                jitter=lambda: 0.5,
                context=first.sim.context,
            )
            member.services = [
                first.sim.spawn(make(), name=f"{number} {name}")
                for name, make in member.gateway.services()
                if name in SERVICES
            ]
            self.members.append(member)
        self.wait(3)

    def wait(self, seconds):
        self.members[0].wait(seconds)

    def count(self, requests, pause):
        """Return how many of *requests*, sent in turn, are admitted."""
        admitted = 0
        for number in range(requests):
            member = self.members[number % len(self.members)]
            admitted += member.status() == 200
            self.wait(pause)
        return admitted


def test_limits_are_shared_with_a_bounded_error():
    fleet = Fleet(3, requests_per_minute=10)
    # Together they admit two in the second after which they know of each other. All
    # of it is within one minute of the clock.
    assert 10 <= fleet.count(30, 0.5) <= 13


def test_limits_hold_in_each_process_while_redis_is_away():
    fleet = Fleet(2, requests_per_minute=5)
    fleet.redis.state = "frozen"
    fleet.wait(2)
    assert fleet.count(20, 0.1) == 10


def test_figures_are_whole_again_after_redis_was_emptied():
    fleet = Fleet(2, requests_per_minute=6)
    assert fleet.count(4, 1.5) == 4
    name = hashed()
    kept = fleet.redis.run("GET", name)
    fleet.redis.flush()
    fleet.redis.run("SET", name, kept)
    fleet.wait(2 * SYNC_SECONDS)
    for member in fleet.members:
        account = member.gateway.limiter.accounts[principal().key_id]
        assert account.requests.total == 4


def test_budget_of_an_ended_process_still_counts():
    fleet = Fleet(1, budget_per_day="0.3")
    assert fleet.count(2, 1.5) == 2
    member = fleet.members[0]
    account = member.gateway.limiter.accounts.pop(principal().key_id)
    assert account.day.used == Decimal("0.26")
    for service in member.services:
        service.cancel()
    ids = iter(range(1_000, 2_000))
    member.gateway.new_id = lambda: f"again-{next(ids)}"
    member.services = [
        member.sim.spawn(make(), name=name)
        for name, make in member.gateway.services()
        if name in SERVICES
    ]
    fleet.wait(2)
    member.status()
    fleet.wait(2)
    account = member.gateway.limiter.accounts[principal().key_id]
    assert account.day.others == Decimal("0.26")
    assert member.status() == 429


def test_running_requests_of_a_dead_process_are_forgotten():
    fleet = Fleet(1, concurrent_requests=3)
    name = f"tz:limit:{principal().key_id}:running"
    wall = int(fleet.members[0].gateway.wall_clock())
    fleet.redis.run("HSET", name, "dead", f"3 {wall}")
    fleet.members[0].status()
    fleet.wait(1.5)
    assert fleet.members[0].status() == 429
    fleet.wait(15)
    assert fleet.members[0].status() == 200


@pytest.mark.parametrize("junk", ["x", "1", "1 2 3", "-5 -5", "\xff", ""])
def test_figures_that_others_wrote_wrongly_count_as_nothing(junk):
    fleet = Fleet(1, requests_per_minute=2)
    member = fleet.members[0]
    member.status()
    account = member.gateway.limiter.accounts[principal().key_id]
    name = f"tz:limit:{account.key_id}:minute:{account.requests.start}"
    fleet.redis.run("HSET", name, "other", junk)
    fleet.wait(1.5)
    assert account.requests.others == 0


def test_figures_under_a_wrong_type_are_counted_and_warned_of_once():
    fleet = Fleet(1, requests_per_minute=2)
    member = fleet.members[0]
    member.status()
    account = member.gateway.limiter.accounts[principal().key_id]
    name = f"tz:limit:{account.key_id}:minute:{account.requests.start}"
    fleet.redis.run("SET", name, "x")
    fleet.wait(5)
    lines = [line for line in member.log() if line.level == "warning"]
    assert [line.fields for line in lines] == [{"reason": "WRONGTYPE"}]
