"""Which candidates are tried, when, and what the process remembers of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.protocol.flows.serving import (
    JSON,
    Served,
    answer,
    chat,
    error_of,
    events,
    good,
    good_stream,
    header,
    refusal,
    snapshot,
    text_of,
)
from tz_protocol.machine import ClientGone, Machine
from tz_protocol.notices import LogLine
from tz_protocol.operations import Connect, Race, ReceiveBody, Sleep
from tz_protocol.routing.breaker import TargetKey
from tz_protocol.testing import Script, Stall, refuse, sse
from tz_protocol.types.http import RequestHead
from tz_protocol.types.policy import BreakerPolicy, Hedge, HedgeShare, Policy, Retries
from tz_protocol.types.settings import Credential, Timeouts

TWO = ("a.test", "b.test")
HEDGED = Policy(hedge=Hedge(after=1.0))
FREELY = HedgeShare(share=1.0)


def tried(record):
    """Return (provider, error) of every attempt."""
    return [(attempt.provider, attempt.error) for attempt in record.attempts]


def lines(served):
    return [notice for notice in served.sim.notices if isinstance(notice, LogLine)]


def shorthand():
    """Return what ``openai::MODEL`` means."""
    settings = snapshot().models["m"].providers["a"]
    return msgspec.structs.replace(settings, name="openai", model="")


# -- the knobs --------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 4])
def test_retries_count_is_the_rounds_after_the_first(count):
    policy = Policy(retries=Retries(count=count), breaker=BreakerPolicy(failures=9))
    served = Served(
        [refusal(500)],
        [refusal(500)],
        config=snapshot(TWO, policy=policy),
        repeat=True,
    )
    assert error_of(served.ask())[0] == 502
    assert tried(served.record) == [("a", "status_500"), ("b", "status_500")] * (
        count + 1
    )


def test_retry_count_of_a_provider_is_its_own():
    have = {"a": {"retry_count": 0}}
    served = Served(
        [refusal(500)],
        [refusal(500)],
        config=snapshot(TWO, providers_have=have),
        repeat=True,
    )
    served.ask()
    assert [name for name, _ in tried(served.record)] == ["a", "b", "b"]


def test_breaker_of_a_provider_is_its_own():
    have = {"a": {"breaker": BreakerPolicy(failures=1)}}
    config = snapshot(TWO, providers_have=have)
    served = Served([refuse()], [good()], config=config, repeat=True)
    served.ask()
    served.ask()
    assert tried(served.sim.records[-1]) == [("b", None)]


def test_breaker_that_is_off_lets_everything_through():
    policy = Policy(breaker=BreakerPolicy(is_enabled=False))
    served = Served(
        [refuse()], [good()], config=snapshot(TWO, policy=policy), repeat=True
    )
    for _ in range(5):
        served.ask()
    assert {one.attempts[0].provider for one in served.sim.records} == {"a"}


@pytest.mark.parametrize(("lot", "first"), [(0.5, "b"), (0.1, "a")])
def test_weights_decide_who_is_first_and_the_rest_stays_behind(lot, first):
    have = {"a": {"weight": 1.0}, "b": {"weight": 3.0}}
    served = Served(
        [refusal(500)],
        [refusal(500)],
        [good()],
        config=snapshot(providers_have=have),
        repeat=True,
    )
    served.gateway.jitter = lambda: lot
    served.ask()
    order = [name for name, _ in tried(served.record)]
    assert (order[0], order[-1]) == (first, "c")
    assert sorted(order) == ["a", "b", "c"]


def test_models_to_fall_back_to_come_after_every_provider():
    served = Served(
        [refusal(500)],
        [refusal(500)],
        [good()],
        config=snapshot(fallback=1),
        repeat=True,
    )
    outcome = served.ask()
    assert answer(outcome)["model"] == "n"
    assert [name for name, _ in tried(served.record)] == ["a", "b", "c"]


def test_fallback_that_cannot_do_it_is_no_candidate():
    config = snapshot(TWO, fallback=1)
    other = type(config.models["n"])(
        name="n",
        capabilities=frozenset({"embedding"}),
        routing=("b",),
        providers=config.models["n"].providers,
    )
    config.models["n"] = other
    served = Served([refusal(500)], [good()], config=config, repeat=True)
    assert error_of(served.ask())[0] == 502
    assert {name for name, _ in tried(served.record)} == {"a"}


def test_candidate_without_its_key_is_never_opened():
    have = {"b": {"credential": Credential("dynamic", name="theirs")}}
    config = snapshot(TWO, providers_have=have)
    served = Served([refusal(500)], [good()], config=config, repeat=True)
    outcome = served.ask()
    assert error_of(outcome)[0] == 502
    assert {name for name, _ in tried(served.record)} == {"a"}
    hosts = {op.host for _, op in outcome.operations if isinstance(op, Connect)}
    assert hosts == {"a.test"}


def test_key_of_the_caller_that_is_full_is_not_held_against_the_target():
    have = {"a": {"credential": Credential("dynamic", name="theirs")}}
    config = snapshot(("a.test",), providers_have=have)
    full = refusal(429, "slow down", (("retry-after", "60"),))
    served = Served([full], config=config, repeat=True)
    theirs: dict[str, Any] = {"tensorzero::credentials": {"theirs": "sk-x"}}
    assert error_of(served.ask(chat(**theirs)))[0] == 429
    served.ask(chat(**theirs))
    assert [len(record.attempts) for record in served.sim.records] == [1, 1]
    assert not lines(served)


# -- what the operator sees -------------------------------------------------------


def test_refused_key_is_said_loudly_and_tried_after_the_others():
    served = Served([refusal(401, "Incorrect API key: sk-1")], [good()], repeat=True)
    served.ask()
    served.ask()
    (line,) = lines(served)
    assert (line.level, line.message) == (
        "error",
        "a provider refused the gateway's key",
    )
    assert line.fields["provider"] == "a"
    assert "sk-1" not in json.dumps(line.fields)
    text = served.gateway.metrics.render({})
    assert 'tz_provider_faults_total{kind="auth",provider="a"} 1' in text
    assert [name for name, _ in tried(served.sim.records[-1])] == ["b"]


def test_health_and_metrics_show_every_target():
    served = Served([refuse()], [good()], repeat=True)
    for _ in range(3):
        served.ask()
    health = answer(served.ask(method="GET", path="/health"))
    assert health["gateway"] == "ok"
    assert [(one["provider"], one["state"]) for one in health["targets"]] == [
        ("a", "open"),
        ("b", "closed"),
    ]
    text = served.ask(method="GET", path="/metrics").response.body.decode()
    assert 'tz_breaker_state{model="m",provider="a"} 2' in text
    assert 'tz_breaker_opened_total{model="m",provider="a"} 1' in text
    assert 'tz_breaker_state{model="m",provider="b"} 0' in text


def test_names_that_callers_choose_grow_nothing_that_is_shown():
    config = snapshot(("a.test",))
    config.shorthand["openai"] = shorthand()
    served = Served([good()], config=config, repeat=True)
    for number in range(3):
        outcome = served.ask(chat(model=f"openai::x{number}"))
        assert outcome.response.status == 200
    assert len(served.gateway.breakers) == 3
    assert served.gateway.targets() == []
    text = served.gateway.metrics.render(served.gateway.gauges())
    assert "openai::x" not in text
    assert (
        'tz_attempts_total{model="openai::*",provider="openai",result="ok"} 3' in text
    )


def test_reload_keeps_the_breakers_of_targets_that_stay_the_same():
    served = Served([refuse()], [good()], repeat=True)
    served.gateway.snapshot.shorthand["openai"] = shorthand()
    for _ in range(3):
        served.ask()
        served.ask(chat(model="openai::x"))
    again = snapshot(TWO)
    again.shorthand["openai"] = shorthand()
    served.gateway.replace(again)
    served.ask()
    assert tried(served.sim.records[-1]) == [("b", None)]
    assert len(served.gateway.breakers) == 3
    mended = snapshot(TWO, providers_have={"a": {"model": "other"}})
    served.gateway.replace(mended)
    assert [target.provider for target, _ in served.gateway.targets()] == ["b"]
    served.ask()
    assert tried(served.sim.records[-1])[0][0] == "a"


def test_retry_budget_is_the_process():
    served = Served([refusal(500)], repeat=True)
    outcomes = [served.ask(run=False) for _ in range(10)]
    served.sim.run_until_idle()
    assert all(outcome.response.status in (502, 503) for outcome in outcomes)
    retried = [len(record.attempts) > 1 for record in served.sim.records]
    assert sum(retried) <= 3
    assert served.gateway.retry_budget.retrying == 0


# -- hedging ----------------------------------------------------------------------


def hedged(*upstreams, stream=False, body=None, config=None, **options):
    config = config or snapshot(
        TWO[: len(upstreams)], policy=HEDGED, hedge_share=FREELY
    )
    served = Served(*upstreams, config=config, repeat=True, **options)
    return served, served.ask(body, stream=stream)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_hedge_begins_beside_a_slow_one_and_wins(stream):
    slow = good_stream(first=9.0) if stream else good(after=9.0)
    served, outcome = hedged(
        [slow], [good_stream() if stream else good()], stream=stream
    )
    assert outcome.finished_at - outcome.started_at == pytest.approx(1.0)
    assert header(outcome, "x-tz-provider") == "b"
    assert tried(served.record) == [("a", "cancelled"), ("b", None)]
    assert [one.is_hedge for one in served.record.attempts] == [False, True]
    (loser, _) = served.sim.opened
    assert loser.closed_at == pytest.approx(outcome.started_at + 1.0)
    assert served.gateway.pool.counts() == (0, 1)
    assert "tz_hedges_total 1" in served.gateway.metrics.render({})
    for _, facts in served.gateway.targets():
        assert (facts.state, facts.failures) == ("closed", 0)


def test_hedge_that_is_slower_loses():
    served, outcome = hedged([good(after=2.0)], [good(after=5.0)])
    assert header(outcome, "x-tz-provider") == "a"
    assert tried(served.record) == [("a", None), ("b", "cancelled")]
    assert served.record.usage.total_tokens == 4
    assert outcome.finished_at - outcome.started_at == pytest.approx(2.0)


def test_hedge_is_not_begun_beside_one_that_is_fast():
    served, _ = hedged([good(after=0.9)], [good()])
    assert tried(served.record) == [("a", None)]


def test_first_that_fails_while_the_hedge_runs_waits_for_it():
    served, outcome = hedged([refusal(500, after=2.0)], [good(after=5.0)])
    assert outcome.response.status == 200
    assert tried(served.record) == [("a", "status_500"), ("b", None)]
    assert outcome.finished_at - outcome.started_at == pytest.approx(6.0)


def test_hedge_that_fails_leaves_the_first_alone():
    served, outcome = hedged([good(after=5.0)], [refusal(500)])
    assert tried(served.record) == [("a", None), ("b", "status_500")]
    assert outcome.finished_at - outcome.started_at == pytest.approx(5.0)


def test_both_failing_go_on_to_the_next_round():
    served, outcome = hedged([refusal(500, after=2.0)], [refusal(500, after=3.0)])
    assert error_of(outcome)[0] == 502
    assert [name for name, _ in tried(served.record)][:2] == ["a", "b"]
    assert served.gateway.retry_budget.exchanges == 0


def test_failure_before_the_hedge_tries_the_next_at_once():
    served, outcome = hedged([refusal(500, after=0.5)], [good(after=0.2)])
    assert tried(served.record) == [("a", "status_500"), ("b", None)]
    assert outcome.finished_at - outcome.started_at == pytest.approx(0.7)


@pytest.mark.parametrize(
    "member",
    [
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"conversation": {"id": "conv_1"}},
        {"background": True},
        {"container": "container_1"},
    ],
    ids=lambda member: next(iter(member)),
)
def test_request_with_state_at_the_provider_is_not_hedged(member):
    served, _ = hedged([good(after=5.0)], [good()], body=chat(**member))
    assert tried(served.record) == [("a", None)]


@pytest.mark.parametrize("member", [{"store": False}, {"store": None}], ids=str)
def test_request_that_says_it_leaves_no_state_is_hedged(member):
    served, _ = hedged([good(after=5.0)], [good()], body=chat(**member))
    assert tried(served.record)[-1] == ("b", None)


def test_hedges_are_five_in_a_hundred_at_most():
    config = snapshot(TWO, policy=HEDGED)
    served = Served([good(after=2.0)], [good()], config=config, repeat=True)
    for _ in range(60):
        served.ask()
    extra = sum(len(record.attempts) - 1 for record in served.sim.records)
    assert extra == 3


@pytest.mark.parametrize("at", [0.5, 1.0, 3.0])
def test_client_that_leaves_a_contest_closes_both(at):
    config = snapshot(TWO, policy=HEDGED, hedge_share=FREELY)
    served = Served(
        [Script((Stall(),))], [Script((Stall(),))], config=config, repeat=True
    )
    outcome = served.ask(run=False)
    served.sim.run_until(outcome.started_at + at)
    outcome.tell(ClientGone())
    served.sim.run_until_idle()
    assert served.record.outcome == "client_gone"
    assert served.sim.open_handles == []
    assert {error for _, error in tried(served.record)} == {"cancelled"}
    assert served.gateway.pool.counts() == (0, 0)


def test_contest_of_silent_ones_ends_at_the_total_time():
    timeouts = Timeouts(first_content=60.0, total=10.0)
    config = snapshot(TWO, policy=HEDGED, hedge_share=FREELY, timeouts=timeouts)
    served, outcome = hedged([Script((Stall(),))], [Script((Stall(),))], config=config)
    assert error_of(outcome)[0] == 504
    assert outcome.finished_at - outcome.started_at == pytest.approx(10.0)
    assert len(served.record.attempts) == 2


def test_both_answers_at_one_instant_leave_nothing_open():
    for seed in range(8):
        served, outcome = hedged(
            [good_stream(first=2.0)], [good_stream(first=1.0)], stream=True, seed=seed
        )
        assert text_of(events(outcome)) == "Hello there, you"
        winners = [error for _, error in tried(served.record)]
        assert sorted(winners, key=str) == [None, "cancelled"]
        assert served.gateway.pool.counts()[0] == 0
        idle = served.gateway.pool.counts()[1]
        assert len(served.sim.open_handles) == idle


def test_stream_without_any_content_is_no_answer():
    served = Served([sse(b'{"choices":[]}', end=b"")], [good_stream()], repeat=True)
    outcome = served.ask(stream=True)
    assert header(outcome, "x-tz-provider") == "b"


def test_hedge_for_which_nobody_is_ready_is_not_begun():
    policy = Policy(hedge=Hedge(after=1.0), breaker=BreakerPolicy(failures=1))
    config = snapshot(TWO, policy=policy, hedge_share=FREELY)
    served = Served([good(after=3.0)], [good()], config=config, repeat=True)
    settings = config.models["m"].providers["b"]
    target = TargetKey("m", "b")
    breaker = served.gateway.breakers.get(target, policy.breaker, settings)
    ticket = breaker.begin(served.sim.now)
    breaker.failed(ticket, served.sim.now, has_alternative=True)
    served.ask()
    assert tried(served.record) == [("a", None)]


def test_both_answers_before_the_race_is_over_settle_once():
    """A driver may finish the second arm before it comes back to the race."""
    have = {name: {"type": "dummy", "model": "slow"} for name in "ab"}
    config = snapshot(TWO, policy=HEDGED, hedge_share=FREELY, providers_have=have)
    served = Served(config=config)
    context = served.gateway.context
    head = RequestHead(method="POST", path="/v1/chat/completions", headers=JSON)
    machine = Machine(served.gateway.handle(head), context)
    body = iter((json.dumps(chat()).encode(), b""))
    operation = machine.start(0.0)
    while not isinstance(operation, Race):
        assert isinstance(operation, ReceiveBody)
        operation = machine.resume(next(body), 0.0)
    arms = [machine.child(flow) for flow in operation.flows]
    for arm in arms:
        assert isinstance(arm.start(0.0), Sleep)
    arms[1].resume(None, 1.0)
    for arm in arms:
        while arm.operation is not None:
            arm.resume(None, 90.0)
    operation = machine.resume((0, arms[0].result), 90.0)
    while operation is not None:
        operation = machine.resume(None, 90.0)
    (record,) = [one.record for one in machine.notices() if hasattr(one, "record")]
    assert (record.outcome, record.provider) == ("ok", "a")
    assert tried(record) == [("a", None), ("b", "cancelled")]
    assert served.gateway.retry_budget.exchanges == 0


def test_fallback_that_is_gone_is_passed_over():
    config = snapshot(TWO, fallback=1)
    config.models["m"] = msgspec.structs.replace(
        config.models["m"], fallback_models=("groq::gone", "n")
    )
    served = Served([refusal(500)], [good()], config=config, repeat=True)
    assert answer(served.ask())["model"] == "n"


def test_fallback_keeps_its_own_number_of_tries():
    config = snapshot(TWO, fallback=1)
    config.models["n"] = msgspec.structs.replace(
        config.models["n"], policy=Policy(retries=Retries(count=0))
    )
    served = Served([refusal(500)], [refusal(500)], config=config, repeat=True)
    served.ask()
    assert [name for name, _ in tried(served.record)].count("b") == 1
