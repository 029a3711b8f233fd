"""Pauses and the process-wide budgets."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.routing.retry import HedgeBudget, RetryBudget, backoff
from tz_protocol.types.policy import HedgeShare, Retries, RetryShare

POLICY = Retries(base=0.1, cap=2.0)


@pytest.mark.parametrize(
    ("attempt", "longest"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (5, 1.6), (6, 2.0), (5_000, 2.0)],
)
def test_backoff_doubles_up_to_the_cap(attempt, longest):
    assert backoff(attempt, POLICY, 0.0) == 0.0
    assert backoff(attempt, POLICY, 0.5) == pytest.approx(longest / 2)


def test_backoff_attempt_zero_is_refused():
    with pytest.raises(ValueError, match="counted from 1"):
        backoff(0, POLICY, 0.5)


@pytest.mark.parametrize(
    ("exchanges", "limit"),
    [(0, 3), (1, 3), (15, 3), (19, 3), (20, 4), (100, 20), (1_000, 200)],
)
def test_retry_budget_is_a_share_of_what_is_in_flight(exchanges, limit):
    budget = RetryBudget()
    for _ in range(exchanges):
        budget.enter()
    assert budget.limit == limit
    assert [budget.take() for _ in range(limit + 2)] == [True] * limit + [False] * 2
    budget.give()
    assert budget.take()


def test_retry_budget_policy_changes_the_limit():
    assert RetryBudget(RetryShare(share=0.2, minimum=0)).take() is False
    budget = RetryBudget(RetryShare(share=0.5, minimum=1))
    for _ in range(10):
        budget.enter()
    assert budget.limit == 5
    budget.leave()
    budget.leave()
    assert budget.limit == 4


@given(st.integers(1, 400), st.sampled_from([0.01, 0.05, 0.1, 0.5, 1.0]))
def test_hedge_budget_never_exceeds_its_share(requests, share):
    budget = HedgeBudget(HedgeShare(share=share))
    hedges = 0
    for count in range(1, requests + 1):
        budget.earn()
        hedges += budget.take()
        assert hedges <= ceil(round(share * count, 6))
    assert hedges >= int(share * requests + 1e-6)


def test_hedge_budget_quiet_time_saves_up_no_more_than_the_burst():
    budget = HedgeBudget(HedgeShare(share=0.05, burst=3))
    for _ in range(10_000):
        budget.earn()
    assert [budget.take() for _ in range(5)] == [True, True, True, False, False]


def test_hedge_budget_share_zero_never_hedges():
    budget = HedgeBudget(HedgeShare(share=0.0))
    budget.earn()
    assert not budget.is_open
    assert not budget.take()
