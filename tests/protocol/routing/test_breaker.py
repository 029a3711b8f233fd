"""Whether a target is worth trying: the breaker by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.routing.breaker import Breaker, Breakers, Rank, State, TargetKey
from tz_protocol.types.policy import BreakerPolicy

POLICY = BreakerPolicy()
TARGET = TargetKey("m", "p")


def fail(breaker, now, *, has_alternative=True, error="status_500"):
    ticket = breaker.begin(now)
    return breaker.failed(ticket, now, has_alternative=has_alternative, error=error)


def succeed(breaker, now):
    breaker.completed(breaker.answered(breaker.begin(now), now))


def opened(policy=POLICY, now=0.0):
    breaker = Breaker(policy)
    while not fail(breaker, now):
        pass
    return breaker


@pytest.mark.parametrize(
    ("has_alternative", "limit"), [(True, 2), (False, 5)], ids=["others", "alone"]
)
def test_breaker_opens_after_so_many_failures_in_a_row(has_alternative, limit):
    breaker = Breaker(POLICY)
    results = [
        fail(breaker, 0.0, has_alternative=has_alternative) for _ in range(limit)
    ]
    assert results == [False] * (limit - 1) + [True]
    assert breaker.state(0.0) is State.OPEN
    assert breaker.rank(0.0, 0.0) is Rank.BLOCKED
    assert breaker.ready_at(0.0) == 10.0


def test_breaker_success_between_failures_begins_the_row_anew():
    breaker = Breaker(POLICY)
    for now in range(100):
        assert not fail(breaker, now * 1.0)
        for _ in range(2):
            succeed(breaker, now * 1.0)
    assert breaker.state(100.0) is State.CLOSED


@pytest.mark.parametrize(
    ("good", "bad", "is_open"),
    [(10, 9, False), (9, 10, False), (10, 10, True), (12, 10, False), (0, 20, True)],
)
def test_breaker_opens_at_half_of_at_least_twenty(good, bad, is_open):
    policy = BreakerPolicy(failures=1_000, failures_alone=1_000)
    breaker = Breaker(policy)
    for _ in range(good):
        succeed(breaker, 5.0)
    opening = [fail(breaker, 5.0) for _ in range(bad)]
    assert opening[-1:] == [is_open]


def test_breaker_outcomes_older_than_the_window_are_forgotten():
    policy = BreakerPolicy(failures=1_000, failures_alone=1_000)
    breaker = Breaker(policy)
    for step in range(19):
        fail(breaker, step * 0.01)
    assert not fail(breaker, 10.5)
    assert breaker.state(10.5) is State.CLOSED


def test_breaker_rest_doubles_up_to_its_maximum_and_begins_anew_when_well():
    breaker = opened()
    now, rests = 0.0, []
    for _ in range(4):
        rests.append(breaker.ready_at(now) - now)
        now = breaker.ready_at(now)
        assert breaker.state(now) is State.HALF_OPEN
        assert fail(breaker, now)
    assert rests == [10.0, 20.0, 30.0, 30.0]
    now = breaker.ready_at(now)
    succeed(breaker, now)
    now += POLICY.ramp
    fail(breaker, now)
    assert fail(breaker, now)
    assert breaker.ready_at(now) - now == 10.0


def test_breaker_half_open_lets_one_probe_through_at_a_time():
    breaker = opened()
    assert breaker.rank(10.0, 0.0) is Rank.READY
    ticket = breaker.begin(10.0)
    assert breaker.rank(10.0, 0.0) is Rank.BLOCKED
    with pytest.raises(RuntimeError, match="may not be tried"):
        breaker.begin(10.0)
    breaker.released(ticket)
    assert breaker.rank(10.0, 0.0) is Rank.READY


def test_breaker_probe_that_answers_closes_it_with_a_ramp():
    breaker = opened()
    breaker.answered(breaker.begin(10.0), 12.0)
    assert breaker.state(12.0) is State.CLOSED
    assert [breaker.part(12.0 + s) for s in (0.0, 2.0, 5.0, 10.0)] == [
        0.1,
        0.2,
        0.5,
        1.0,
    ]
    assert breaker.rank(17.0, 0.49) is Rank.READY
    assert breaker.rank(17.0, 0.5) is Rank.DEMOTED
    assert breaker.rank(22.0, 0.999) is Rank.READY


def test_breaker_failure_in_the_ramp_opens_at_once_for_longer():
    breaker = opened()
    succeed(breaker, 10.0)
    assert fail(breaker, 11.0)
    assert breaker.ready_at(11.0) == 31.0


def test_breaker_failure_in_the_ramp_of_the_last_way_out_is_one_of_five():
    breaker = opened()
    succeed(breaker, 10.0)
    assert [fail(breaker, 11.0, has_alternative=False) for _ in range(5)] == [
        *[False] * 4,
        True,
    ]


def test_breaker_outcome_from_before_it_opened_counts_for_nothing():
    breaker = Breaker(POLICY)
    old = [breaker.begin(0.0) for _ in range(3)]
    fail(breaker, 0.0)
    fail(breaker, 0.0)
    breaker.answered(old[0], 1.0)
    assert breaker.state(1.0) is State.OPEN
    succeed(breaker, 10.0)
    assert not breaker.failed(old[1], 11.0, has_alternative=True)
    breaker.released(old[2])
    assert breaker.state(11.0) is State.CLOSED
    assert breaker.facts(TARGET, 11.0).failures == 0


def test_breaker_streams_that_break_after_their_first_content_open_it():
    breaker = Breaker(POLICY)

    def cut(now):
        ticket = breaker.answered(breaker.begin(now), now)
        return breaker.failed(ticket, now, has_alternative=True, is_answered=True)

    assert not cut(0.0)
    assert cut(1.0)


def test_breaker_stream_that_completes_forgives_the_broken_ones():
    breaker = Breaker(POLICY)
    for now in range(10):
        ticket = breaker.answered(breaker.begin(now), now)
        assert not breaker.failed(ticket, now, has_alternative=True, is_answered=True)
        succeed(breaker, now * 1.0)
        succeed(breaker, now * 1.0)


def test_breaker_probe_that_breaks_after_its_first_content_opens_it_again():
    breaker = opened()
    ticket = breaker.answered(breaker.begin(10.0), 11.0)
    assert breaker.failed(ticket, 12.0, has_alternative=True, is_answered=True)
    assert breaker.state(12.0) is State.OPEN


def test_breaker_closing_forgets_the_broken_streams_and_the_window():
    policy = BreakerPolicy(failures=3, failures_alone=3, ramp=0.0, volume=4, share=0.9)
    breaker = Breaker(policy)
    for now in (0.0, 1.0, 2.0):
        assert breaker.state(now) is State.CLOSED
        ticket = breaker.answered(breaker.begin(now), now)
        breaker.failed(ticket, now, has_alternative=True, is_answered=True)
    assert breaker.state(2.0) is State.OPEN
    breaker.answered(breaker.begin(12.0), 12.0)
    ticket = breaker.answered(breaker.begin(13.0), 13.0)
    assert not breaker.failed(ticket, 13.0, has_alternative=True, is_answered=True)


def test_breaker_closing_forgets_the_window():
    policy = BreakerPolicy(
        failures=99, failures_alone=99, ramp=0.0, volume=4, window=100.0
    )
    breaker = opened(policy)
    succeed(breaker, 10.0)
    assert [fail(breaker, 11.0) for _ in range(3)] == [False, False, True]


def test_breaker_old_attempt_cancelled_does_not_free_the_probes_place():
    breaker = Breaker(POLICY)
    old = breaker.begin(0.0)
    fail(breaker, 0.0)
    fail(breaker, 0.0)
    assert breaker.part(1.0) == 0.0
    breaker.begin(10.0)
    breaker.released(old)
    breaker.completed(old)
    assert breaker.rank(10.0, 0.0) is Rank.BLOCKED


def test_breaker_old_stream_that_completes_forgives_no_new_ones():
    breaker = Breaker(BreakerPolicy(ramp=0.0))

    def cut(now):
        ticket = breaker.answered(breaker.begin(now), now)
        return breaker.failed(ticket, now, has_alternative=True, is_answered=True)

    old = breaker.answered(breaker.begin(0.0), 0.0)
    fail(breaker, 0.0)
    fail(breaker, 0.0)
    succeed(breaker, 10.0)
    assert not cut(11.0)
    breaker.completed(old)
    assert cut(12.0)


def test_breaker_cooling_blocks_and_does_not_open():
    breaker = Breaker(POLICY)
    breaker.cool(0.0, 5.0, "status_429")
    breaker.cool(0.0, 2.0, "status_503")
    assert breaker.rank(4.9, 0.0) is Rank.BLOCKED
    assert breaker.ready_at(1.0) == 5.0
    assert breaker.state(1.0) is State.CLOSED
    assert breaker.rank(5.0, 0.0) is Rank.READY
    assert breaker.cooled_by == "status_429"


def test_breaker_cooling_is_bounded_by_the_policy():
    breaker = Breaker(POLICY)
    breaker.cool(0.0, 86_400.0, "status_429")
    assert breaker.ready_at(0.0) == POLICY.cooldown_max


def test_breaker_demoted_target_comes_after_the_others_for_a_while():
    breaker = Breaker(POLICY)
    breaker.demote(0.0)
    assert breaker.rank(9.9, 0.0) is Rank.DEMOTED
    assert breaker.rank(10.0, 0.0) is Rank.READY


def test_breaker_disabled_never_blocks():
    breaker = Breaker(BreakerPolicy(is_enabled=False))
    for now in range(50):
        assert not fail(breaker, now * 1.0)
    breaker.cool(50.0, 9.0, "status_429")
    breaker.demote(50.0)
    assert breaker.rank(50.0, 0.9) is Rank.READY
    assert breaker.ready_at(50.0) == 50.0


@pytest.mark.parametrize(
    ("knob", "usual", "other"),
    [
        ({"failures": 3}, 2, 3),
        ({"rest": 3.0}, 10.0, 3.0),
        ({"ramp": 0.0}, 0.1, 1.0),
    ],
    ids=["failures", "rest", "ramp"],
)
def test_breaker_knob_changes_what_happens(knob, usual, other):
    def measured(policy):
        breaker, failures = Breaker(policy), 1
        while not fail(breaker, 0.0):
            failures += 1
        rest = breaker.ready_at(0.0)
        succeed(breaker, rest)
        values = {"failures": failures, "rest": rest, "ramp": breaker.part(rest)}
        return values[next(iter(knob))]

    assert measured(POLICY) == usual
    assert measured(BreakerPolicy(**knob)) == other


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "answer", "complete", "fail", "release", "cool"]),
        st.integers(0, 9),
        st.sampled_from([0.0, 0.4, 3.0, 11.0, 31.0]),
        st.booleans(),
    ),
    max_size=80,
)


@given(STEPS)
def test_breaker_any_outcomes_keep_its_promises(steps):
    breaker, now = Breaker(POLICY), 0.0
    running: list[tuple[int, bool, bool]] = []  # ticket, is a probe, has answered
    for step, which, wait, has_alternative in steps:
        now += wait
        state = breaker.state(now)
        if step == "begin":
            if breaker.rank(now, 0.0) is not Rank.BLOCKED:
                assert state is not State.OPEN
                running.append((breaker.begin(now), state is State.HALF_OPEN, False))
        elif step == "cool":
            breaker.cool(now, wait, "status_429")
        elif running:
            ticket, _, is_answered = running.pop(which % len(running))
            if step == "answer" and not is_answered:
                running.append((breaker.answered(ticket, now), False, True))
            elif step == "complete" and is_answered:
                breaker.completed(ticket)
            elif step == "fail":
                breaker.failed(
                    ticket,
                    now,
                    has_alternative=has_alternative,
                    is_answered=is_answered,
                )
            else:
                breaker.released(ticket)
        probes = [probe for _, probe, _ in running if probe]
        assert len(probes) <= 1
        if breaker.state(now) is State.HALF_OPEN and not probes:
            assert breaker.rank(max(now, breaker.cool_until), 0.0) is Rank.READY
        rest = breaker.ready_at(now) - now
        assert 0.0 <= rest <= max(POLICY.rest_max, POLICY.cooldown_max)
        assert 0.0 <= breaker.part(now) <= 1.0


@given(STEPS)
def test_breaker_same_outcomes_give_the_same_state(steps):
    def run():
        breaker, now, seen = Breaker(POLICY), 0.0, []
        for _, which, wait, has_alternative in steps:
            now += wait
            if breaker.rank(now, 0.0) is not Rank.BLOCKED:
                ticket = breaker.begin(now)
                if which % 2:
                    breaker.failed(ticket, now, has_alternative=has_alternative)
                else:
                    breaker.completed(breaker.answered(ticket, now))
            seen.append(breaker.facts(TARGET, now))
        return seen

    assert run() == run()


# -- the table --------------------------------------------------------------------


def test_breakers_same_target_and_settings_keep_their_state():
    table = Breakers()
    breaker = table.get(TARGET, POLICY, {"url": "a"})
    other = BreakerPolicy(rest=1.0)
    assert table.get(TARGET, other, {"url": "a"}) is breaker
    assert breaker.policy is other


def test_breakers_changed_settings_begin_anew():
    table = Breakers()
    breaker = table.get(TARGET, POLICY, {"url": "a"})
    assert table.get(TARGET, POLICY, {"url": "b"}) is not breaker
    assert len(table) == 1


def test_breakers_reload_forgets_what_is_gone_or_changed():
    table = Breakers()
    kept = table.get("kept", POLICY, 1)
    table.get("changed", POLICY, 1)
    table.get("gone", POLICY, 1)
    table.keep({"kept": 1, "changed": 2, "new": 1})
    assert list(table) == ["kept"]
    assert table.get("kept", POLICY, 1) is kept


def test_breakers_full_table_forgets_a_quiet_one_first():
    table = Breakers(limit=3)
    fail(table.get("ill", POLICY, 1), 0.0)
    for number in range(10):
        table.get(number, POLICY, 1)
        assert len(table) <= 3
    assert "ill" in list(table)


def test_breakers_full_of_ill_targets_forgets_the_oldest():
    table = Breakers(limit=2)
    for name in ("a", "b", "c"):
        fail(table.get(name, POLICY, 1), 0.0)
    assert list(table) == ["b", "c"]


def test_breakers_facts_say_what_health_shows():
    table = Breakers()
    breaker = table.get(TARGET, POLICY, 1)
    fail(breaker, 1.0, error="status_503")
    fail(breaker, 2.0, error="timeout_connect")
    (facts,) = table.facts(5.0)
    assert (facts.target, facts.state, facts.failures, facts.opened) == (
        TARGET,
        State.OPEN,
        2,
        1,
    )
    assert (facts.ready_in, facts.last_error) == (7.0, "timeout_connect")
