"""Outages in virtual time: how often a dead target is touched, when it is used again,
and how everything that can happen ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.routing.planning import Process, script
from tz_protocol.errors import (
    DeadlineExceeded,
    InvalidRequest,
    UpstreamBroken,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamTimeout,
)
from tz_protocol.routing.breaker import State
from tz_protocol.routing.classify import Kind
from tz_protocol.routing.plan import GiveUp, SleepUntil, Try
from tz_protocol.types.policy import BreakerPolicy, Hedge, Retries

FAILURES = {
    "refused": (0.001, UpstreamBroken("refused")),
    "reset": (0.1, UpstreamBroken("reset")),
    "500": (0.2, UpstreamRefused(500, "their words")),
    "503": (0.2, UpstreamRefused(503, "their words")),
    "garbled": (0.2, UpstreamGarbled("not JSON")),
    "silent": (2.0, UpstreamTimeout("first_content")),
}


def outage(begin, end, seconds, error):
    """Return a behaviour: ``primary`` is dead in [begin, end), all else answers."""

    def behave(name, now):
        if name == "primary" and begin <= now < end:
            return seconds, error
        return 0.5, None

    return behave


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("offset", [0.0, 0.7, 1.9, 2.9])
def test_outage_of_a_minute_touches_the_dead_one_six_times_at_most(failure, offset):
    process = Process()
    begin = offset + 0.1
    end = begin + 60.0
    behaviour = outage(begin, end, *FAILURES[failure])
    answers, touched, closed_at = [], [], None
    breaker = process.breakers.get("primary", process.policy, None)
    for number in range(50):
        process.now = max(process.now, begin + 3.0 * number)
        served = process.serve(["primary", "backup"], behaviour)
        answers.append(served.answer)
        touched += [
            now for name, now in served.tries if name == "primary" and now < end
        ]
        assert served.slept == 0.0
        is_closed = breaker.state(process.now) is State.CLOSED
        if closed_at is None and process.now >= end and is_closed:
            closed_at = process.now
    assert None not in answers
    assert 2 <= len(touched) <= 6
    assert closed_at is not None
    assert closed_at - end <= 30.0
    assert answers[-1] == "primary"


def test_outage_without_any_other_target_costs_few_tries():
    process = Process()
    behaviour = outage(0.0, 60.0, 5.0, UpstreamRefused(500, "their words"))
    tries, errors = 0, []
    for _ in range(11):
        served = process.serve(["primary"], behaviour)
        tries += len(served.tries)
        errors.append(served.error)
    assert tries == 5
    assert [error.status for error in errors if error] == [502] * 2 + [503] * 9


def test_outage_under_load_lets_one_probe_through_at_a_time():
    process = Process()
    behaviour = outage(0.0, 60.0, 1.0, UpstreamRefused(503, "their words"))
    for _ in range(2):
        process.serve(["primary", "backup"], behaviour)
    process.now = 30.0
    plans = [process.plan("primary", "backup") for _ in range(50)]
    steps = [plan.next(30.0) for plan in plans]
    first = [step.option.candidate for step in steps if isinstance(step, Try)]
    assert first == ["primary"] + ["backup"] * 49


def test_outage_of_every_target_keeps_the_last_one_longest():
    process = Process()
    behaviour = script(
        primary=UpstreamRefused(500, "x"), backup=UpstreamRefused(500, "x")
    )
    served = process.serve(["primary", "backup"], behaviour)
    # The primary opens at its second failure, the backup has nobody behind it.
    assert [name for name, _ in served.tries] == [
        *["primary", "backup"] * 2,
        "backup",
    ]


def test_outage_under_load_bounds_the_retries_of_the_process():
    process = Process(breaker=BreakerPolicy(is_enabled=False))
    plans = [process.plan("primary") for _ in range(100)]
    now, again = 0.0, 0
    sleeping = []
    for plan in plans:
        step = plan.next(now)
        assert isinstance(step, Try)
        plan.failed(step, UpstreamRefused(500, "x"), now)
        step = plan.next(now)
        if isinstance(step, SleepUntil):
            again += 1
            sleeping.append(plan)
    assert again == 20
    for plan in plans:
        plan.close()
    assert (process.retry_budget.exchanges, process.retry_budget.retrying) == (0, 0)


# -- anything at all --------------------------------------------------------------

ERRORS = st.sampled_from(
    [
        *(UpstreamRefused(s, "x") for s in (400, 401, 404, 408, 409, 422, 500, 529)),
        UpstreamRefused(429, "x"),
        UpstreamRefused(429, "x", retry_after=0.0),
        UpstreamRefused(429, "x", retry_after=4.0),
        UpstreamRefused(503, "x", retry_after=90.0),
        UpstreamRefused(400, "x", code="context_length_exceeded"),
        UpstreamRefused(400, "x", code="content_filter"),
        UpstreamRefused(200, "x", kind="overloaded_error"),
        UpstreamTimeout("connect"),
        UpstreamTimeout("first_content"),
        UpstreamBroken("reset"),
        UpstreamBroken("tls"),
        UpstreamGarbled("x"),
        InvalidRequest("x"),
    ]
)
OUTCOMES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.01, 1.0, 20.0]), st.none() | ERRORS),
    max_size=40,
)
OPTIONS = st.lists(
    st.tuples(
        st.sampled_from(["m", "n"]),
        st.none() | st.sampled_from([1_000, 2_000]),
        st.none() | st.integers(0, 3),
    ),
    min_size=1,
    max_size=4,
)
POLICIES = st.builds(
    Retries,
    count=st.integers(0, 4),
    base=st.sampled_from([0.001, 0.1, 3.0]),
    cap=st.sampled_from([0.1, 2.0]),
    retry_after_cap=st.sampled_from([0.0, 5.0, 100.0]),
    within=st.sampled_from([0.0, 1.0, 30.0, 1e6]),
)


@given(
    options=OPTIONS,
    retries=POLICIES,
    outcomes=st.lists(OUTCOMES, min_size=1, max_size=4),
    jitter=st.sampled_from([0.0, 0.3, 0.999]),
    total=st.sampled_from([0.005, 1.5, 60.0, 1e6]),
    is_enabled=st.booleans(),
)
def test_plan_any_outcomes_end_within_their_bounds(
    options, retries, outcomes, jitter, total, is_enabled
):
    process = Process(
        retries=retries,
        jitter=jitter,
        total=total,
        breaker=BreakerPolicy(is_enabled=is_enabled),
    )
    names = [f"p{number}" for number in range(len(options))]
    for script_ in outcomes:
        left = list(script_)
        allowed = [
            process.option(name, model=model, context_tokens=tokens, retry_count=count)
            for name, (model, tokens, count) in zip(names, options, strict=True)
        ]
        plan = process.plan(*allowed)
        deadline, budget, tried = process.now + total, plan.budget + 1, []
        in_round: set[str] = set()
        is_outgrown = False
        while True:
            asked_at, round_before = process.now, plan.round
            step = plan.next(process.now)
            assert plan.budget < budget or isinstance(step, GiveUp)
            budget = plan.budget
            if plan.round != round_before:
                in_round.clear()
            if isinstance(step, GiveUp):
                break
            assert asked_at < deadline
            if isinstance(step, SleepUntil):
                assert asked_at < step.at < deadline
                # Nobody pauses while somebody untried, and large enough, is ready.
                for option in allowed:
                    name = option.candidate
                    is_ready = option.breaker.rank(asked_at, jitter) == 0
                    assert not is_ready or name in tried or is_outgrown
                process.now = step.at
                continue
            name = step.option.candidate
            assert step.option in allowed
            assert name not in in_round
            in_round.add(name)
            tried.append(name)
            seconds, error = left.pop(0) if left else (0.0, None)
            process.now += seconds
            if error is None:
                plan.answered(step, process.now)
                plan.completed(step)
                break
            failure = plan.failed(step, error, process.now)
            is_outgrown = is_outgrown or failure.kind is Kind.CONTEXT_LENGTH
        plan.close()
        assert len(tried) <= len(options) * (1 + retries.count)
        for name, (_, _, count) in zip(names, options, strict=True):
            assert count is None or tried.count(name) <= 1 + count
        assert process.retry_budget.exchanges == process.retry_budget.retrying == 0


MOVES = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["next", "hedge", "answer", "fail", "cancel", "close"]),
        ERRORS,
        st.sampled_from([0.0, 0.2, 5.0, 40.0]),
    ),
    max_size=60,
)


def play(moves, jitter):
    """Run several exchanges at a time; returns everything that was decided."""
    process = Process(jitter=jitter, hedge=Hedge(after=0.1), total=100.0)
    plans = [process.plan("a", "b", "c") for _ in range(3)]
    running: dict[int, list[Try[str]]] = {index: [] for index in range(3)}
    closed: set[int] = set()
    seen: list[object] = []
    for which, move, error, wait in moves:
        process.now += wait
        index, tries = which % 3, running[which % 3]
        plan = plans[index]
        if index in closed:
            continue
        if move == "next" and not tries:
            step = plan.next(process.now)
            if isinstance(step, Try):
                tries.append(step)
                seen.append((index, step.option.candidate, step.number))
            elif isinstance(step, SleepUntil):
                seen.append((index, step))
            else:
                seen.append((index, step.error.status, str(step.error)))
        elif move == "hedge" and (hedged := plan.hedge(process.now)):
            tries.append(hedged)
            seen.append((index, "hedge", hedged.option.candidate))
        elif move in ("answer", "fail", "cancel") and tries:
            attempt = tries.pop(which % len(tries))
            if move == "answer":
                plan.answered(attempt, process.now)
                plan.completed(attempt)
            elif move == "fail":
                seen.append(plan.failed(attempt, error, process.now))
            else:
                plan.released(attempt)
        elif move == "close":
            plan.close()
            closed.add(index)
            tries.clear()
        probing = [
            attempt
            for attempts in running.values()
            for attempt in attempts
            if attempt.tag % 2
            and attempt.option.breaker.state(process.now) is State.HALF_OPEN
        ]
        assert len(probing) <= len({id(a.option.breaker) for a in probing})
        assert all(len(attempts) <= 2 for attempts in running.values())
        seen.append(process.breakers.facts(process.now))
    for plan in plans:
        plan.close()
    budget = process.retry_budget
    assert (budget.exchanges, budget.retrying) == (0, 0)
    for facts in process.breakers.facts(process.now + 1_000.0):
        breaker = process.breakers.get(facts.target, process.policy, None)
        assert breaker.rank(process.now + 1_000.0, 0.0) == 0
    return seen


@given(MOVES, st.sampled_from([0.0, 0.5, 0.999]))
def test_plan_exchanges_together_release_all_and_repeat_exactly(moves, jitter):
    assert play(moves, jitter) == play(moves, jitter)


def test_plan_deadline_without_any_failure_says_so():
    process = Process(total=1.0)
    plan = process.plan("a", "b")
    step = plan.next(0.0)
    assert isinstance(step, Try)
    plan.released(step)
    step = plan.next(1.0)
    assert isinstance(step, GiveUp)
    assert isinstance(step.error, DeadlineExceeded)
