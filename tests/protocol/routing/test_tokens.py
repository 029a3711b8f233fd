from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.errors import UpstreamBroken
from tz_protocol.routing.tokens import EARLY, MARGIN, MOST_GRANTS, UNUSED, TokenTable
from tz_protocol.types.http import HttpRequest
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Url
from tz_protocol.types.tokens import Grant, Token


def grant(name):
    return Grant(
        name,
        "test",
        Url("http", "issuer.test", 80),
        lambda _: HttpRequest(path=""),
        lambda _head, _body: Token(Secret("t"), 1),
    )


A, B = grant("a"), grant("b")
FAULT = UpstreamBroken("refused")


def stored(table, one, now, lifetime=3_600.0, text="t"):
    table.store(one, Token(Secret(text), lifetime), now)


def due_of(table, now):
    """Return when something is due, which must be."""
    due = table.next_due(now)
    assert due is not None
    return due


def fetched(now=0.0, lifetime=3_600.0):
    """Return a table with a token of A."""
    table = TokenTable()
    table.want(A, now)
    assert table.take(now) == A
    stored(table, A, now, lifetime)
    return table


def test_token_is_fetched_once_however_many_want_it():
    table = TokenTable()
    assert table.get(A, 0) is None
    first, second = table.want(A, 0), table.want(A, 0)
    assert first is second
    assert table.take(0) == A
    assert table.take(0) is None
    is_early = first.is_set
    stored(table, A, 1)
    assert (is_early, first.is_set) == (False, True)
    assert table.get(A, 1) == Secret("t")


def test_demand_is_told_when_a_token_is_wanted():
    table = TokenTable()
    demand = table.demand
    assert table.next_due(0) is None
    table.want(A, 0)
    assert demand.is_set
    assert not table.demand.is_set
    assert table.next_due(0) == 0


def test_token_is_renewed_before_its_end_and_used_until_then():
    table = fetched()
    due = due_of(table, 0)
    assert due == 3_600 - EARLY
    table.get(A, due - 1)
    assert table.take(due - 0.001) is None
    assert table.take(due) == A
    assert table.get(A, due + 60) == Secret("t")
    stored(table, A, due + 60, text="u")
    assert table.get(A, due + 60) == Secret("u")


def test_token_is_not_used_at_its_very_end():
    table = fetched()
    assert table.get(A, 3_600 - MARGIN - 0.001) is not None
    assert table.get(A, 3_600 - MARGIN) is None


def test_token_that_nobody_uses_is_not_renewed_until_somebody_does():
    table = fetched(lifetime=10_000)
    late = 10_000 - EARLY
    assert late > UNUSED
    assert table.next_due(0) is None
    assert table.take(late) is None
    demand = table.demand
    assert table.get(A, late) == Secret("t")
    assert demand.is_set
    assert table.take(late) == A


def test_failure_is_told_until_the_next_try_and_tries_grow_apart():
    table = TokenTable()
    news = table.want(A, 0)
    pauses = []
    now = 0.0
    for _ in range(9):
        assert table.take(now) == A
        table.fail(A, FAULT, now, jitter=0.0)
        due = due_of(table, now)
        with pytest.raises(UpstreamBroken):
            table.get(A, due - 0.01)
        assert table.get(A, due) is None
        pauses.append(due - now)
        now = due
    assert news.is_set
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    table.want(A, now)
    assert table.take(now) == A
    stored(table, A, now)
    assert table.get(A, now) == Secret("t")


def test_failed_renewal_does_not_cost_the_token_that_still_holds():
    table = fetched()
    now = 3_600 - EARLY
    table.get(A, now)
    assert table.take(now) == A
    table.fail(A, FAULT, now, jitter=0.5)
    assert table.get(A, now) == Secret("t")


def test_token_that_a_provider_refused_is_replaced():
    table = fetched()
    table.refused(A, Secret("other"), 5)
    assert table.take(5) is None
    table.refused(A, Secret("t"), 5)
    assert table.get(A, 5) is None
    assert table.take(5) == A


def test_fetch_that_was_cancelled_leaves_the_grant_to_others():
    table = TokenTable()
    news = table.want(A, 0)
    assert table.take(0) == A
    table.release(A)
    assert news.is_set
    assert table.take(0) == A
    table.release(B)


def test_short_lived_tokens_are_not_fetched_all_the_time():
    table = fetched(lifetime=0.5)
    assert table.next_due(0) == 1.0


def test_grants_are_bounded_and_the_longest_unused_goes_first():
    table = TokenTable()
    for number in range(MOST_GRANTS):
        table.want(grant(number), number)
    news = table.want(grant(1), MOST_GRANTS)
    first = table.want(grant(0), 0.5)
    table.want(grant("new"), MOST_GRANTS)
    assert len(table) == MOST_GRANTS
    assert first.is_set
    assert not news.is_set


def test_results_for_a_grant_that_was_forgotten_are_nobodys():
    table = TokenTable()
    stored(table, A, 0)
    table.fail(A, FAULT, 0, 0.5)
    assert table.get(A, 0) is None
    assert len(table) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["want", "take", "store", "fail", "get", "refused", "release"]),
        st.sampled_from([A, B]),
        st.floats(0, UNUSED / 50),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_waiting_is_always_answered_by_the_next_fetch(steps):
    table, now = TokenTable(), 0.0
    taken: set[Grant] = set()
    waiting: dict[Grant, list] = {A: [], B: []}
    for step, one, more in steps:
        now += more
        if step == "want":
            waiting[one].append(table.want(one, now))
        elif step == "take":
            found = table.take(now)
            assert found not in taken
            if found is not None:
                taken.add(found)
        elif step in {"store", "fail", "release"} and one in taken:
            taken.remove(one)
            if step == "store":
                stored(table, one, now)
                assert table.get(one, now) == Secret("t")
            elif step == "fail":
                table.fail(one, FAULT, now, 0.5)
            else:
                table.release(one)
            assert all(signal.is_set for signal in waiting[one])
            waiting[one] = []
        elif step == "refused":
            table.refused(one, Secret("t"), now)
        for one in (A, B):
            if waiting[one] and one not in taken:
                assert table.next_due(now) is not None
