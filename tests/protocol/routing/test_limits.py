"""Limits of a key: exact, taken whole or not at all, put right exactly once."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.errors import RateLimited
from tz_protocol.routing.estimate import BLOB_TOKENS, estimate
from tz_protocol.routing.limits import Limiter, Window, day, minute, month, nanos
from tz_protocol.types.keys import Grant, KeyLimits, Principal, digest_of
from tz_protocol.types.prices import Price, cost_of
from tz_protocol.types.usage import Usage

NOON = 1_750_000_020.0  # a minute's first second
ZERO = Decimal(0)


def caller(**limits):
    models = {"m": Grant("m")}
    digest = digest_of(b"k")
    return Principal(digest=digest, models=models, limits=KeyLimits(**limits))


def headers(lease_or_error):
    return dict(lease_or_error.headers)


# -- windows --------------------------------------------------------------------


def test_windows_are_those_of_the_calendar():
    assert minute(61.5) == (60, 120)
    assert day(86_400.0) == (86_400, 172_800)
    assert month(1_709_164_800.0) == (1_706_745_600, 1_709_251_200)  # February 2024
    assert month(1_735_689_599.0)[1] == 1_735_689_600  # December 2024


@given(st.floats(0, 4e9))
def test_windows_hold_the_moment_and_follow_each_other(wall):
    for span_of in (minute, day, month):
        start, end = span_of(wall)
        assert start <= wall < end
        assert span_of(end)[0] == end


def test_clock_put_back_a_little_does_not_begin_a_window_anew():
    window = Window(minute).at(120.0)
    window.used += 5
    assert window.at(119.0).used == 5
    assert window.at(61.0).used == 5
    assert window.at(59.0).used == 0


# -- requests -------------------------------------------------------------------


def test_caller_without_limits_has_no_lease():
    assert Limiter().enter(None, NOON) is None
    assert Limiter().enter(caller(), NOON) is None


def test_requests_are_counted_exactly_and_anew_each_minute():
    limiter, key = Limiter(), caller(requests_per_minute=2)
    for left in ("1", "0"):
        lease = limiter.enter(key, NOON)
        lease.settle(0, None, NOON)
        assert headers(lease)["x-ratelimit-remaining-requests"] == left
    with pytest.raises(RateLimited) as info:
        limiter.enter(key, NOON + 20)
    assert info.value.retry_after == 40
    assert info.value.kind == "requests"
    assert headers(info.value) == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "40.000s",
    }
    assert limiter.enter(key, NOON + 60)


def test_limit_of_nothing_lets_nothing_in():
    with pytest.raises(RateLimited):
        Limiter().enter(caller(requests_per_minute=0), NOON)


def test_running_requests_are_bounded_and_a_place_comes_free():
    limiter, key = Limiter(), caller(concurrent_requests=1)
    lease = limiter.enter(key, NOON)
    with pytest.raises(RateLimited) as info:
        limiter.enter(key, NOON)
    assert info.value.retry_after == 1.0
    lease.settle(None, None, NOON)
    lease.settle(None, None, NOON)  # again: nothing
    assert limiter.enter(key, NOON)
    with pytest.raises(RateLimited):
        limiter.enter(key, NOON)


def test_refused_request_takes_nothing():
    limiter = Limiter()
    key = caller(concurrent_requests=1, requests_per_minute=2)
    lease = limiter.enter(key, NOON)
    for _ in range(5):
        with pytest.raises(RateLimited):
            limiter.enter(key, NOON)
    lease.settle(0, None, NOON)
    assert limiter.enter(key, NOON)


def test_limits_of_the_key_now_count_not_those_of_before():
    limiter = Limiter()
    limiter.enter(caller(requests_per_minute=1), NOON)
    assert limiter.enter(caller(requests_per_minute=2), NOON)


def test_each_of_several_processes_has_its_part():
    limiter, key = Limiter(processes=4), caller(requests_per_minute=9)
    assert [limiter.enter(key, NOON) is not None for _ in range(2)] == [True, True]
    with pytest.raises(RateLimited):
        limiter.enter(key, NOON)
    assert Limiter(processes=4).enter(caller(requests_per_minute=1), NOON)


# -- tokens ---------------------------------------------------------------------


def reserved(limiter, key, tokens, cost=ZERO, wall=NOON):
    lease = limiter.enter(key, wall)
    try:
        lease.reserve(tokens, cost, wall)
    except RateLimited:
        lease.settle(0, ZERO, wall)
        raise
    return lease


def test_tokens_are_reserved_settled_and_refunded():
    limiter, key = Limiter(), caller(tokens_per_minute=100)
    first = reserved(limiter, key, 60)
    with pytest.raises(RateLimited) as info:
        reserved(limiter, key, 60, wall=NOON + 15)
    assert info.value.retry_after == 45
    assert info.value.kind == "tokens"
    assert "has 40 of 100 left" in info.value.message
    first.settle(30, None, NOON)
    second = reserved(limiter, key, 60)
    second.settle(0, None, NOON)
    third = reserved(limiter, key, 70)
    assert headers(third)["x-ratelimit-remaining-tokens"] == "0"
    third.settle(None, None, NOON)  # unknown: as reserved
    with pytest.raises(RateLimited):
        reserved(limiter, key, 1)


def test_request_over_the_whole_limit_says_so_and_is_not_to_be_repeated():
    limiter, key = Limiter(), caller(tokens_per_minute=100)
    with pytest.raises(RateLimited) as info:
        reserved(limiter, key, 101)
    assert info.value.retry_after is None
    assert headers(info.value)["x-should-retry"] == "false"


def test_tokens_beyond_the_estimate_count_even_in_the_next_minute():
    limiter, key = Limiter(), caller(tokens_per_minute=100)
    lease = reserved(limiter, key, 10)
    lease.settle(95, None, NOON + 60)
    with pytest.raises(RateLimited):
        reserved(limiter, key, 20, wall=NOON + 61)


def test_refund_of_a_minute_that_is_over_gives_nothing_in_the_next():
    limiter, key = Limiter(), caller(tokens_per_minute=100)
    lease = reserved(limiter, key, 100)
    other = reserved(limiter, key, 100, wall=NOON + 60)
    lease.settle(0, None, NOON + 61)
    with pytest.raises(RateLimited):
        reserved(limiter, key, 1, wall=NOON + 62)
    other.settle(0, None, NOON + 62)
    assert reserved(limiter, key, 100, wall=NOON + 62)


# -- money ----------------------------------------------------------------------


@pytest.mark.parametrize("field", ["budget_per_day", "budget_per_month"])
def test_budget_is_spent_to_the_last_unit(field):
    limiter, key = Limiter(), caller(**{field: Decimal("0.3")})
    for _ in range(3):
        reserved(limiter, key, 0, Decimal("0.1")).settle(0, Decimal("0.1"), NOON)
    with pytest.raises(RateLimited) as info:
        limiter.enter(key, NOON)
    assert (info.value.code, info.value.kind) == ("insufficient_quota",) * 2
    span = day if field.endswith("day") else month
    assert info.value.retry_after == span(NOON)[1] - NOON
    assert limiter.enter(key, span(NOON)[1])


def test_budget_holds_what_runs():
    limiter, key = Limiter(), caller(budget_per_day=Decimal(1))
    lease = reserved(limiter, key, 0, Decimal("0.6"))
    with pytest.raises(RateLimited):
        reserved(limiter, key, 0, Decimal("0.6"))
    lease.settle(0, ZERO, NOON)
    assert reserved(limiter, key, 0, Decimal("0.6"))


def test_account_is_forgotten_when_nothing_is_left_to_remember():
    limiter = Limiter()
    lease = reserved(limiter, caller(budget_per_month=Decimal(1)), 0, Decimal("0.5"))
    limiter.sweep(month(NOON)[1])
    assert limiter.accounts
    lease.settle(0, Decimal("0.5"), NOON)
    limiter.sweep(NOON + 61)
    assert limiter.accounts
    limiter.sweep(month(NOON)[1])
    assert not limiter.accounts


STEPS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.integers(0, 60),
        st.sampled_from(["settle", "refund", "unknown", "leave"]),
        st.integers(0, 90),
    ),
    max_size=30,
)


@given(STEPS)
def test_nothing_is_ever_admitted_beyond_a_limit(steps):
    limits = {"requests_per_minute": 5, "tokens_per_minute": 100}
    limiter = Limiter()
    key = caller(**limits, concurrent_requests=3, budget_per_day=Decimal(1))
    wall = NOON
    running: list = []
    admitted: dict[float, list] = {}
    for tokens, actual, end, seconds in steps:
        cost = Decimal(tokens) / 100
        try:
            lease = limiter.enter(key, wall)
        except RateLimited:
            wall += seconds
            continue
        requests, _ = admitted.setdefault(minute(wall)[0], [0, 0])
        admitted[minute(wall)[0]][0] = requests + 1
        assert requests + 1 <= 5
        running.append(lease)
        assert len(running) <= 3
        account = limiter.accounts[key.key_id]
        try:
            lease.reserve(tokens, cost, wall)
        except RateLimited:
            running.remove(lease)
            lease.settle(0, ZERO, wall)
        else:
            assert account.tokens.total <= 100
            assert account.day.total <= 1
            if end != "leave":
                running.remove(lease)
                used = {"settle": min(actual, tokens), "refund": 0, "unknown": None}
                tokens_used = used[end]
                money = None if tokens_used is None else Decimal(tokens_used) / 100
                lease.settle(tokens_used, money, wall)
        wall += seconds
    last = limiter.accounts.get(key.key_id)
    for lease in running:
        lease.settle(0, ZERO, wall)
    if last is not None:
        assert last.running == 0
        assert all(window.used >= 0 for window in last.windows)


def test_money_is_told_in_whole_units():
    assert nanos(Decimal("0.0000000015")) == 2
    assert nanos(Decimal("12.5")) == 12_500_000_000


# -- estimates ------------------------------------------------------------------


def test_estimate_is_text_by_four_and_the_output_asked_for():
    fields = {"max_tokens": msgspec.Raw(b"50"), "n": msgspec.Raw(b"2")}
    usage = estimate(b"x y " * 100, fields)
    assert (usage.input_tokens, usage.output_tokens) == (100, 100)
    assert usage.quality == "estimated"


def test_estimate_of_a_file_is_a_flat_one():
    body = b'{"a": "' + b"A" * 4_000_000 + b'", "b": "' + b"B" * 2_000 + b'"}'
    usage = estimate(body, {"a": msgspec.Raw(b"1")})
    assert 2 * BLOB_TOKENS < usage.input_tokens < 2 * BLOB_TOKENS + 20


@pytest.mark.parametrize("raw", [b'"5"', b"-5", b"1e9", b"null", b"9999999999", b"{}"])
def test_estimate_takes_no_output_from_what_is_no_plain_number(raw):
    assert estimate(b"", {"max_tokens": msgspec.Raw(raw)}).output_tokens == 0


def test_estimate_of_what_is_not_json_is_nothing():
    assert estimate(b"RIFF" * 100, {}).total_tokens == 0


# -- prices ---------------------------------------------------------------------


def usage(**figures):
    return Usage(input_tokens=1_000, output_tokens=100, **figures)


def test_cost_is_the_exact_sum():
    prices = (
        Price("input", Decimal("1e-6")),
        Price("output", Decimal("3e-6")),
        Price("cache_read", Decimal("-5e-7")),
    )
    assert cost_of(prices, usage()) == Decimal("0.0013")
    assert cost_of(prices, usage(cache_read_tokens=400)) == Decimal("0.0011")
    assert cost_of((), usage()) == 0


def test_cost_without_a_required_figure_is_unknown():
    prices = (Price("cache_read", Decimal(1), True),)
    assert cost_of(prices, usage()) is None
    assert cost_of(prices, usage(cache_read_tokens=2)) == 2


def test_cost_of_uncached_input_leaves_the_cache_out():
    prices = (Price("uncached_input", Decimal(1)),)
    figures = {"cache_read_tokens": 300, "cache_write_tokens": 200}
    assert cost_of(prices, usage(**figures)) == 500
    assert cost_of(prices, usage()) == 1_000


def test_cost_is_never_below_nothing():
    assert cost_of((Price("input", Decimal(-1)),), usage()) == 0
