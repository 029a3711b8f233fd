"""What one exchange does next, for each kind of failure."""

from __future__ import annotations

import pytest

from tests.protocol.routing.planning import Process, Served, script
from tz_protocol.errors import (
    InvalidRequest,
    UpstreamBroken,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamTimeout,
)
from tz_protocol.routing.breaker import Rank, State
from tz_protocol.routing.plan import GiveUp, Plan, SleepUntil, Try
from tz_protocol.types.policy import BreakerPolicy, Hedge, Retries


def refused(status, code=None, **more):
    return UpstreamRefused(status, "their words", code=code, **more)


def names(served: Served) -> list[str]:
    return [name for name, _ in served.tries]


def test_plan_first_answer_ends_it():
    served = Process().serve(["a", "b"], script(a=None))
    assert (served.answer, names(served), served.slept) == ("a", ["a"], 0.0)


def test_plan_no_options_is_refused():
    with pytest.raises(ValueError, match="at least one option"):
        Process().plan()


@pytest.mark.parametrize(
    "error",
    [
        refused(500),
        refused(503),
        refused(529),
        refused(408),
        refused(409),
        refused(429),
        UpstreamBroken("refused"),
        UpstreamBroken("reset"),
        UpstreamGarbled("not JSON"),
    ],
    ids=str,
)
def test_plan_passing_failure_is_survived(error):
    alone = Process().serve(["a"], script(a=[error, None]))
    assert (alone.answer, names(alone)) == ("a", ["a", "a"])
    assert 0.0 < alone.slept <= 0.1
    both = Process().serve(["a", "b"], script(a=error, b=None))
    assert (both.answer, names(both), both.slept) == ("b", ["a", "b"], 0.0)


@pytest.mark.parametrize(
    "error",
    [
        UpstreamTimeout("connect"),
        UpstreamTimeout("first_content"),
        UpstreamBroken("tls"),
        UpstreamBroken("pool_exhausted"),
        refused(401),
        refused(402),
        refused(403),
        refused(404),
        UpstreamGarbled("moved", "upstream_redirect"),
        InvalidRequest("not in this format"),
    ],
    ids=str,
)
def test_plan_lasting_failure_is_not_tried_again_here(error):
    alone = Process().serve(["a"], script(a=error))
    assert (names(alone), alone.slept) == (["a"], 0.0)
    assert alone.error is not None
    both = Process().serve(["a", "b"], script(a=error, b=[refused(500), None]))
    assert (both.answer, names(both)) == ("b", ["a", "b", "b"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (refused(400), 400),
        (refused(413), 413),
        (refused(422), 422),
        (refused(400, "content_filter"), 400),
    ],
    ids=str,
)
def test_plan_fault_of_the_request_goes_back_at_once(error, status):
    served = Process().serve(["a", "b"], script(a=error, b=None))
    assert names(served) == ["a"]
    assert served.error is not None
    assert served.error.status == status


def test_plan_fault_of_the_request_hides_no_earlier_failure_of_another():
    served = Process().serve(["a", "b"], script(a=refused(404), b=refused(422)))
    assert served.error is not None
    assert served.error.status == 422


def test_plan_inexpressible_request_is_told_if_nothing_else_was_tried():
    error = InvalidRequest("no images here", param="messages")
    served = Process().serve(["a", "b"], script(a=error, b=error))
    assert served.error is error


# -- rate limits ------------------------------------------------------------------


def test_plan_rate_limit_moves_on_at_once_and_leaves_the_target_alone():
    process = Process()
    behaviour = script(a=[refused(429, retry_after=5.0), None], b=None)
    first = process.serve(["a", "b"], behaviour)
    assert (names(first), first.slept) == (["a", "b"], 0.0)
    assert names(process.serve(["a", "b"], behaviour)) == ["b"]
    process.now = 11.0
    assert names(process.serve(["a", "b"], behaviour)) == ["a"]


def test_plan_rate_limit_without_a_time_puts_the_target_behind():
    process = Process()
    behaviour = script(a=[refused(429), None], b=None)
    assert names(process.serve(["a", "b"], behaviour)) == ["a", "b"]
    assert names(process.serve(["a", "b"], behaviour)) == ["b"]
    process.now = 11.0
    assert names(process.serve(["a", "b"], behaviour)) == ["a"]


def test_plan_rate_limit_alone_waits_as_long_as_asked():
    served = Process().serve(["a"], script(a=[refused(429, retry_after=3.0), None]))
    assert served.answer == "a"
    assert served.slept == pytest.approx(3.0)


def test_plan_rate_limit_longer_than_the_cap_is_told():
    process = Process()
    behaviour = script(a=refused(429, retry_after=20.0))
    first = process.serve(["a"], behaviour)
    assert first.error is not None
    assert (first.error.status, first.error.retry_after) == (429, 20.0)
    assert (names(first), first.slept) == (["a"], 0.0)
    second = process.serve(["a"], behaviour)
    assert second.error is not None
    assert (names(second), second.error.status) == ([], 429)
    assert second.error.retry_after == pytest.approx(20.0)


def test_plan_rate_limit_another_exchange_waits_its_turn():
    process = Process()
    process.breakers.get("a", process.policy, None).cool(0.0, 4.0, "status_429")
    served = process.serve(["a"], script(a=None))
    assert served.answer == "a"
    assert served.slept == pytest.approx(4.0)


def test_plan_callers_own_key_is_not_held_against_the_target():
    process = Process()
    own = process.option("a", is_key_shared=False)
    for error in (refused(429, retry_after=9.0), refused(401)):
        process.serve([own], script(a=error), retries=Retries(count=0))
    assert own.breaker.rank(process.now, 0.9) is Rank.READY


def test_plan_overload_with_a_time_is_left_alone_too():
    process = Process()
    served = process.serve(["a"], script(a=[refused(503, retry_after=2.0), None]))
    assert served.answer == "a"
    assert served.slept == pytest.approx(2.0)


def test_plan_pause_that_was_asked_for_holds_without_a_breaker_too():
    process = Process(breaker=BreakerPolicy(is_enabled=False))
    served = process.serve(
        ["a", "b"],
        script(a=[refused(429, retry_after=3.0), None], b=refused(500)),
    )
    assert names(served) == ["a", "b", "b", "b", "a"]
    assert served.answer == "a"
    assert served.tries[-1][1] == pytest.approx(3.01)


# -- context ----------------------------------------------------------------------


def test_plan_too_long_request_goes_to_what_can_hold_it():
    process = Process()
    too_long = refused(400, "context_length_exceeded")
    options = [
        process.option("small", context_tokens=8_000),
        process.option("same", context_tokens=8_000),
        process.option("smaller", context_tokens=4_000),
        process.option("large", context_tokens=32_000),
    ]
    behaviour = script(small=too_long, same=None, smaller=None, large=None)
    assert names(process.serve(options, behaviour)) == ["small", "large"]


def test_plan_too_long_request_skips_the_same_model_elsewhere():
    process = Process()
    too_long = refused(400, "context_length_exceeded")
    options = [
        process.option("here", model="m"),
        process.option("there", model="m"),
        process.option("other", model="n"),
    ]
    behaviour = script(here=too_long, there=None, other=None)
    assert names(process.serve(options, behaviour)) == ["here", "other"]


def test_plan_too_long_for_all_is_told_as_it_is():
    process = Process()
    served = process.serve(
        [process.option("a", context_tokens=1), process.option("b", context_tokens=1)],
        script(a=refused(400, "context_length_exceeded"), b=None),
    )
    assert served.error is not None
    assert (served.error.status, served.error.code) == (400, "context_length_exceeded")


def test_plan_fallback_that_lacks_a_feature_leads_back_to_the_first():
    served = Process().serve(
        ["a", "b"], script(a=[refused(503), None], b=refused(400, "unsupported_value"))
    )
    assert (served.answer, names(served)) == ("a", ["a", "b", "a"])


# -- rounds -----------------------------------------------------------------------


def test_plan_rounds_are_bounded_and_pause_only_between():
    process = Process(breaker=BreakerPolicy(is_enabled=False))
    served = process.serve(["a", "b"], script(a=refused(500), b=refused(500)))
    assert names(served) == ["a", "b"] * 3
    assert served.slept == pytest.approx(0.05 + 0.1)
    assert served.error is not None
    assert served.error.status == 502
    assert ("x-should-retry", "false") in served.error.headers


@pytest.mark.parametrize(
    ("knob", "tries", "slept"),
    [
        ({}, 3, 0.15),
        ({"count": 0}, 1, 0.0),
        ({"count": 4}, 5, 0.75),
        ({"count": 4, "cap": 0.2}, 5, 0.35),
        ({"base": 1.0}, 3, 1.5),
        ({"within": 0.05}, 1, 0.0),
        ({"within": 0.1}, 2, 0.05),
    ],
    ids=str,
)
def test_plan_retry_knob_changes_what_happens(knob, tries, slept):
    process = Process(breaker=BreakerPolicy(is_enabled=False))
    served = process.serve(["a"], script(a=refused(500)), retries=Retries(**knob))
    assert len(served.tries) == tries
    assert served.slept == pytest.approx(slept)


def test_plan_retry_after_cap_changes_what_happens():
    behaviour = [refused(429, retry_after=3.0), None]
    process = Process()
    assert process.serve(["a"], script(a=list(behaviour))).answer == "a"
    process = Process(retries=Retries(retry_after_cap=2.0))
    assert process.serve(["a"], script(a=list(behaviour))).answer is None


def test_plan_candidate_with_its_own_count_is_tried_so_often():
    process = Process(breaker=BreakerPolicy(is_enabled=False))
    options = [process.option("a", retry_count=0), process.option("b", retry_count=1)]
    served = process.serve(options, script(a=refused(500), b=refused(500)))
    assert names(served) == ["a", "b", "b"]


def test_plan_pause_that_would_pass_the_deadline_is_not_begun():
    served = Process(total=2.0).serve(
        ["a"], script(a=[refused(429, retry_after=3.0), None])
    )
    assert (served.slept, served.answer) == (0.0, None)
    assert served.ended < 2.0


def test_plan_nothing_begins_at_the_deadline():
    plan = Process(total=5.0).plan("a")
    step = plan.next(5.0)
    assert isinstance(step, GiveUp)
    assert step.error.status == 504


def test_plan_too_early_question_gets_the_same_answer():
    process = Process()
    plan = process.plan("a")
    step = plan.next(0.0)
    assert isinstance(step, Try)
    plan.failed(step, refused(500), 0.0)
    pause = plan.next(0.0)
    assert isinstance(pause, SleepUntil)
    assert plan.next(pause.at / 2) == pause
    assert isinstance(plan.next(pause.at), Try)


def test_plan_retry_budget_used_up_ends_it_after_the_first_round():
    process = Process(breaker=BreakerPolicy(is_enabled=False))
    retrying = [process.plan("a") for _ in range(3)]
    for plan in retrying:
        step = plan.next(0.0)
        assert isinstance(step, Try)
        plan.failed(step, refused(500), 0.0)
        assert isinstance(plan.next(0.0), SleepUntil)
    assert len(process.serve(["a"], script(a=refused(500))).tries) == 1
    retrying[0].close()
    assert len(process.serve(["a"], script(a=refused(500))).tries) == 3


def test_plan_answer_gives_its_place_in_the_retry_budget_back():
    process = Process()
    plan = process.plan("a")
    step = plan.next(0.0)
    assert isinstance(step, Try)
    plan.failed(step, refused(500), 0.0)
    pause = plan.next(0.0)
    assert isinstance(pause, SleepUntil)
    assert process.retry_budget.retrying == 1
    step = plan.next(pause.at)
    assert isinstance(step, Try)
    plan.answered(step, pause.at)
    assert (process.retry_budget.retrying, process.retry_budget.exchanges) == (0, 1)
    plan.close()
    plan.close()
    assert (process.retry_budget.retrying, process.retry_budget.exchanges) == (0, 0)


# -- breakers ---------------------------------------------------------------------


def test_plan_dead_target_alone_is_refused_without_being_touched():
    process = Process()
    while process.serve(["a"], script(a=refused(500))).tries:
        pass
    served = process.serve(["a"], script(a=None))
    assert served.error is not None
    assert (served.error.status, served.error.code) == (503, "upstream_unavailable")
    assert served.slept == 0.0
    assert served.error.retry_after is not None
    assert 9.0 < served.error.retry_after <= 10.0


def test_plan_dead_target_with_a_healthy_other_is_not_touched():
    process = Process()
    behaviour = script(a=refused(500), b=None)
    tried = [names(process.serve(["a", "b"], behaviour)) for _ in range(5)]
    assert tried == [["a", "b"], ["a", "b"], ["b"], ["b"], ["b"]]


def test_plan_probe_cancelled_frees_its_place():
    process = Process()
    for _ in range(2):
        process.serve(["a", "b"], script(a=refused(500), b=None))
    process.now = 11.0
    plan = process.plan("a", "b")
    probe = plan.next(11.0)
    assert isinstance(probe, Try)
    assert probe.option.candidate == "a"
    assert names(process.serve(["a", "b"], script(b=None))) == ["b"]
    plan.close()
    assert names(process.serve(["a", "b"], script(a=None))) == ["a"]


def test_plan_ramp_sends_a_growing_part_to_the_recovered_target():
    process = Process()
    for _ in range(2):
        process.serve(["a", "b"], script(a=refused(500), b=None))
    process.now = 11.0
    process.serve(["a", "b"], script(a=None))
    breaker = process.breakers.get("a", process.policy, None)
    assert breaker.state(process.now) is State.CLOSED
    parts = []
    for wait in (1.0, 3.0, 6.0, 9.0, 11.0):
        process.now = 11.01 + wait
        first = []
        for lot in range(100):
            process.jitter = lot / 100
            first.append(names(process.serve(["a", "b"], script(a=None, b=None)))[0])
            process.now = 11.01 + wait
        parts.append(first.count("a"))
    assert parts == [10, 30, 60, 90, 100]


def test_plan_refused_key_puts_the_target_behind_for_everybody():
    process = Process()
    behaviour = script(a=refused(401), b=None)
    assert names(process.serve(["a", "b"], behaviour)) == ["a", "b"]
    assert names(process.serve(["a", "b"], behaviour)) == ["b"]
    assert names(process.serve(["a"], behaviour)) == ["a"]


def test_plan_candidate_that_is_done_with_is_no_alternative():
    served = Process().serve(["a", "b"], script(a=refused(401), b=refused(500)))
    assert names(served) == ["a", "b", "b", "b"]


def test_plan_missing_model_is_no_sign_of_ill_health():
    process = Process()
    for _ in range(50):
        process.serve(["a", "b"], script(a=refused(404), b=None))
    breaker = process.breakers.get("a", process.policy, None)
    assert breaker.rank(process.now, 0.9) is Rank.READY


def test_plan_stream_cut_after_its_first_content_counts():
    process = Process()
    for _ in range(2):
        plan = process.plan("a", "b")
        step = plan.next(0.0)
        assert isinstance(step, Try)
        plan.answered(step, 0.0)
        failure = plan.failed(step, UpstreamBroken("cut"), 1.0)
        assert failure.follow == "stop"
        plan.close()
    assert process.breakers.get("a", process.policy, None).opened == 1


def test_plan_probe_that_meets_a_fault_of_the_request_frees_its_place():
    process = Process()
    for _ in range(2):
        process.serve(["a", "b"], script(a=refused(500), b=None))
    process.now = 11.0
    for _ in range(2):
        served = process.serve(["a", "b"], script(a=refused(400), b=None))
        assert names(served) == ["a"]
    breaker = process.breakers.get("a", process.policy, None)
    assert breaker.state(process.now) is State.HALF_OPEN


def test_plan_probe_whose_stream_breaks_opens_the_breaker_again():
    process = Process()
    for _ in range(2):
        process.serve(["a", "b"], script(a=refused(500), b=None))
    plan = process.plan("a", "b", now=11.0, deadline=99.0)
    probe = plan.next(11.0)
    assert isinstance(probe, Try)
    plan.answered(probe, 12.0)
    plan.failed(probe, UpstreamBroken("cut"), 13.0)
    breaker = process.breakers.get("a", process.policy, None)
    assert breaker.state(13.0) is State.OPEN


# -- hedging ----------------------------------------------------------------------


def hedging(process: Process) -> tuple[Plan[str], Try[str]]:
    plan = process.plan("a", "b", "c")
    step = plan.next(process.now)
    assert isinstance(step, Try)
    return plan, step


def test_plan_hedge_begins_the_next_one_and_the_first_content_wins():
    process = Process(hedge=Hedge(after=2.0))
    plan, slow = hedging(process)
    assert plan.hedge_at() == 2.0
    assert plan.hedge(1.9) is None
    second = plan.hedge(2.0)
    assert second is not None
    assert second.option.candidate == "b"
    assert plan.hedge_at() is None
    plan.answered(second, 3.0)
    plan.released(slow)
    plan.completed(second)
    plan.close()
    assert plan.attempts == 2
    for name in ("a", "b"):
        facts = process.breakers.get(name, process.policy, None).facts(name, 3.0)
        assert (facts.failures, facts.opened) == (0, 0)


def test_plan_hedge_that_fails_leaves_the_slow_one_to_go_on():
    process = Process(hedge=Hedge(after=2.0))
    plan, slow = hedging(process)
    second = plan.hedge(2.0)
    assert second is not None
    plan.failed(second, refused(500), 2.5)
    assert plan.hedge_at() is None
    with pytest.raises(RuntimeError, match="under way"):
        plan.next(2.5)
    plan.failed(slow, UpstreamTimeout("first_content"), 3.0)
    third = plan.next(3.0)
    assert isinstance(third, Try)
    assert third.option.candidate == "c"


def test_plan_hedge_is_one_in_twenty():
    process = Process(hedge=Hedge(after=2.0))
    hedges = 0
    for _ in range(100):
        plan, _ = hedging(process)
        hedges += plan.hedge(2.0) is not None
        plan.close()
    assert hedges == 5


def test_plan_hedge_spent_budget_asks_for_no_timer():
    process = Process(hedge=Hedge(after=2.0))
    plan, _ = hedging(process)
    assert plan.hedge(2.0) is not None
    plan, _ = hedging(process)
    assert plan.hedge_at() is None


def test_plan_hedge_happens_once_in_an_exchange():
    process = Process(hedge=Hedge(after=2.0))
    for _ in range(100):
        process.hedge_budget.earn()
    plan = process.plan("a", "b", "c", "d")
    slow = plan.next(0.0)
    second = plan.hedge(2.0)
    assert isinstance(slow, Try)
    assert second is not None
    plan.failed(slow, refused(500), 3.0)
    plan.failed(second, refused(500), 3.0)
    assert isinstance(plan.next(3.0), Try)
    assert plan.hedge_at() is None


def test_plan_fault_of_the_request_stops_the_hedge_too():
    plan, slow = hedging(Process(hedge=Hedge(after=2.0)))
    second = plan.hedge(2.0)
    assert second is not None
    stopped = [plan.is_stopped]
    plan.failed(second, refused(400), 2.5)
    stopped.append(plan.is_stopped)
    assert stopped == [False, True]
    plan.released(slow)
    step = plan.next(2.5)
    assert isinstance(step, GiveUp)
    assert step.error.status == 400


@pytest.mark.parametrize("options", [["a"], ["a", "b"]], ids=["alone", "unasked"])
def test_plan_hedge_without_another_or_without_asking_is_none(options):
    process = Process(hedge=Hedge(after=2.0) if len(options) == 1 else None)
    plan = process.plan(*options)
    plan.next(0.0)
    assert plan.hedge_at() is None
    assert plan.hedge(5.0) is None


def test_plan_hedge_does_not_touch_a_target_at_rest():
    process = Process(hedge=Hedge(after=2.0))
    process.breakers.get("b", process.policy, None).cool(0.0, 60.0, "status_429")
    plan = process.plan("a", "b")
    plan.next(0.0)
    assert plan.hedge(2.0) is None


# -- misuse -----------------------------------------------------------------------


def test_plan_second_step_while_one_is_under_way_is_a_bug():
    plan = Process().plan("a")
    plan.next(0.0)
    with pytest.raises(RuntimeError, match="under way"):
        plan.next(0.0)


def test_plan_outcome_told_twice_is_a_bug():
    plan = Process().plan("a")
    step = plan.next(0.0)
    assert isinstance(step, Try)
    plan.failed(step, refused(500), 0.0)
    with pytest.raises(RuntimeError, match="already ended"):
        plan.failed(step, refused(500), 0.0)
    plan.released(step)
