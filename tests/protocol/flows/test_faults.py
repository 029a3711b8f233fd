"""What providers do wrong, one fault at a time, and what the caller sees of it.

Each fault is met by ``a``; ``b`` is well unless a test says otherwise. Time is virtual.
"""

from __future__ import annotations

import pytest

from tests.protocol.flows.serving import (
    EVENTS,
    WORDS,
    Served,
    answer,
    chat,
    chunk,
    error_of,
    events,
    good,
    good_stream,
    header,
    refusal,
    snapshot,
    text_of,
)
from tz_protocol.operations import Connect, Sleep
from tz_protocol.testing import Close, Reset, Script, Stall, cut, refuse, reply, sse
from tz_protocol.types.policy import Policy, Retries
from tz_protocol.types.settings import Timeouts

JSON = (("content-type", "application/json"),)
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def well(*, stream=False):
    """Return a provider that answers every request at once."""
    return good_stream() if stream else good()


def providers_of(record):
    """Return the providers that were tried, in order."""
    return [attempt.provider for attempt in record.attempts]


def seconds(outcome):
    return outcome.finished_at - outcome.started_at


def slept(outcome):
    """Return how often the exchange paused."""
    return sum(isinstance(operation, Sleep) for _, operation in outcome.operations)


def limited(seconds=None, name="retry-after"):
    headers = () if seconds is None else ((name, str(seconds)),)
    return refusal(429, "slow down", headers)


# -- too many requests ------------------------------------------------------------


@STREAMED
@pytest.mark.parametrize(
    "fault",
    [limited(), limited(30), limited(30_000, "retry-after-ms")],
    ids=["bare", "seconds", "milliseconds"],
)
def test_429_moves_on_at_once_while_another_is_ready(fault, stream):
    served = Served([fault], [well(stream=stream)], repeat=True)
    outcome = served.ask(stream=stream)
    assert outcome.response.status == 200
    assert providers_of(served.record) == ["a", "b"]
    assert (seconds(outcome), slept(outcome)) == (0.0, 0)


# A date is read by the provider's own clock.
DATED = (
    ("retry-after", "Sun, 15 Jun 2025 15:06:45 GMT"),
    ("date", "Sun, 15 Jun 2025 15:06:40 GMT"),
)


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        (limited(3), 3.0),
        (limited(1500, "retry-after-ms"), 1.5),
        (refusal(429, "slow down", DATED), 5.0),
    ],
    ids=["seconds", "milliseconds", "date"],
)
def test_429_of_the_only_one_is_waited_for_as_it_says(fault, waits):
    served = Served([fault + well()])
    outcome = served.ask()
    assert outcome.response.status == 200
    assert providers_of(served.record) == ["a", "a"]
    assert seconds(outcome) == pytest.approx(waits, abs=0.2)


def test_429_that_asks_for_more_than_the_cap_is_told_at_once():
    served = Served([limited(60)], repeat=True)
    outcome = served.ask()
    assert error_of(outcome)[0] == 429
    assert header(outcome, "retry-after") == "60"
    assert header(outcome, "x-should-retry") == "false"
    assert seconds(outcome) == 0.0


# -- errors of the server ---------------------------------------------------------


@STREAMED
def test_500_once_is_invisible(stream):
    served = Served([refusal(500)], [well(stream=stream)], repeat=True)
    assert served.ask(stream=stream).response.status == 200
    assert providers_of(served.record) == ["a", "b"]


def test_500_once_of_the_only_one_is_tried_again():
    served = Served([refusal(500) + well()])
    outcome = served.ask()
    assert outcome.response.status == 200
    assert providers_of(served.record) == ["a", "a"]
    assert 0 < seconds(outcome) <= 0.1


def test_503_that_lasts_is_told_with_its_status_and_pause():
    steps = refusal(503, "down", (("retry-after", "2"),))
    served = Served([steps], repeat=True)
    outcome = served.ask()
    assert error_of(outcome)[0] == 503
    assert header(outcome, "retry-after") == "2"
    assert len(served.record.attempts) == 3


@STREAMED
def test_503_that_lasts_is_left_alone_after_two_failures(stream):
    served = Served([refusal(503)], [well(stream=stream)], repeat=True)
    for _ in range(6):
        assert served.ask(stream=stream).response.status == 200
    tried = [providers_of(record) for record in served.sim.records]
    assert tried == [["a", "b"]] * 2 + [["b"]] * 4


# -- connections ------------------------------------------------------------------


@STREAMED
@pytest.mark.parametrize(
    "fault",
    [cut(good(), 0, Reset()), cut(good(), 0, Close()), cut(good(), 20, Reset())],
    ids=["reset", "closed", "reset in the head"],
)
def test_lost_connection_before_the_head_is_invisible(fault, stream):
    served = Served([fault], [well(stream=stream)], repeat=True)
    outcome = served.ask(stream=stream)
    assert outcome.response.status == 200
    assert (providers_of(served.record), seconds(outcome)) == (["a", "b"], 0.0)


@STREAMED
def test_silence_is_given_up_at_its_deadline_and_not_tried_again(stream):
    timeouts = Timeouts(first_content=7.0)
    config = snapshot(("a.test", "b.test"), timeouts=timeouts)
    served = Served(
        [Script((Stall(),))], [refusal(500), refusal(500)], repeat=True, config=config
    )
    outcome = served.ask(stream=stream)
    assert providers_of(served.record).count("a") == 1
    assert served.record.attempts[0].error == "timeout_first_content"
    assert served.record.attempts[1].started == pytest.approx(7.0)
    assert outcome.response.status in (502, 504)


def test_silence_of_all_is_a_504():
    served = Served([Script((Stall(),))])
    outcome = served.ask()
    assert error_of(outcome)[0] == 504
    assert len(served.record.attempts) == 1


# -- streams ----------------------------------------------------------------------


def test_late_first_token_is_given_up_though_the_head_came():
    head = sse(EVENTS[0], end=b"")[:-1]
    timeouts = Timeouts(first_content=4.0)
    config = snapshot(("a.test", "b.test"), timeouts=timeouts)
    served = Served([Script((*head, Stall()))], [good_stream()], config=config)
    outcome = served.ask(stream=True)
    assert text_of(events(outcome)) == "".join(WORDS)
    assert seconds(outcome) == pytest.approx(4.0)


@pytest.mark.parametrize("words", [1, 2, 3, 4])
@pytest.mark.parametrize("then", [Close(), Reset()], ids=["closed", "reset"])
def test_cut_after_some_tokens_ends_in_band_without_done(words, then):
    steps = sse(*EVENTS[: 1 + words], end=b"", every=0.1)[:-1]
    served = Served([(*steps, then)], [good_stream()])
    outcome = served.ask(stream=True)
    found = events(outcome)
    assert text_of(found) == "".join(WORDS[:words])
    assert found[-1]["error"]["message"]
    assert "[DONE]" not in found
    assert outcome.response.is_complete
    assert providers_of(served.record) == ["a"]
    assert served.record.outcome == "partial"


def test_cut_streams_open_the_breaker():
    steps = cut(good_stream(), 1_200, Close())
    served = Served([steps], [good_stream()], repeat=True)
    for _ in range(4):
        served.ask(stream=True)
    assert [providers_of(one)[0] for one in served.sim.records] == ["a", "a", "b", "b"]


def test_stall_within_a_stream_ends_in_band_at_the_idle_deadline():
    steps = cut(good_stream(), 1_200, Stall())
    config = snapshot(("a.test",), timeouts=Timeouts(idle=3.0))
    served = Served([steps], config=config)
    outcome = served.ask(stream=True)
    found = events(outcome)
    assert found[-1]["error"]["code"] == "upstream_timeout"
    assert "[DONE]" not in found
    assert seconds(outcome) == pytest.approx(3.0)


def test_malformed_event_is_left_out_and_counted():
    steps = sse(*EVENTS[:2], b'{"choices": [{', *EVENTS[2:])
    served = Served([steps])
    outcome = served.ask(stream=True)
    assert text_of(events(outcome)) == "".join(WORDS)
    assert events(outcome)[-1] == "[DONE]"
    assert (served.record.skipped_events, served.record.outcome) == (1, "ok")


MISSING_DONE = {
    "closed": (Close(), 0.0),
    "reset": (Reset(), 0.0),
    "stalled": (Stall(), 1.0),
}


@pytest.mark.parametrize(("then", "takes"), MISSING_DONE.values(), ids=MISSING_DONE)
@pytest.mark.parametrize("usage", [True, False], ids=["usage", "no usage"])
def test_missing_done_after_the_finish_is_completed_promptly(then, takes, usage):
    count = None if usage else -1
    steps = sse(*EVENTS[:count], end=b"", every=0.25)[:-1]
    served = Served([(*steps, then)])
    outcome = served.ask(stream=True)
    assert events(outcome)[-1] == "[DONE]"
    assert served.record.outcome == "ok"
    assert (served.record.usage is not None) is usage
    said = 0.25 * (len(EVENTS) - 1)
    assert seconds(outcome) <= said + 0.25 + takes
    breaker = served.gateway.targets()[0][1]
    assert (breaker.failures, breaker.state) == (0, "closed")


def test_missing_done_of_one_of_two_choices_is_waited_for():
    first = chunk("x")
    second = first.replace(b'"index": 0', b'"index": 1')
    end = chunk(None, finish="stop")
    steps = (
        *sse(first, second, end, end=b"")[:-1],
        *sse(second, end.replace(b'"index": 0', b'"index": 1'), every=5.0)[2:],
    )
    served = Served([steps])
    outcome = served.ask(chat(stream=True, n=2))
    assert events(outcome)[-1] == "[DONE]"
    assert seconds(outcome) == pytest.approx(10.0)


# -- what is wrong with the request -----------------------------------------------


TOO_LONG = refusal(400, "This model's maximum context length is 8192 tokens.")


@STREAMED
def test_context_length_goes_to_a_model_that_can_hold_it(stream):
    have = {"a": {"context_tokens": 8_192}, "b": {"context_tokens": 8_192}}
    have["c"] = {"context_tokens": 131_072}
    config = snapshot(fallback=1, providers_have=have)
    served = Served(
        [TOO_LONG], [refusal(500)], [well(stream=stream)], config=config, repeat=True
    )
    outcome = served.ask(stream=stream)
    assert outcome.response.status == 200
    assert providers_of(served.record) == ["a", "c"]
    assert served.record.model == "n"


def test_context_length_that_nobody_holds_is_told_as_it_is():
    served = Served([TOO_LONG], [refusal(401)], repeat=True)
    status, error = error_of(served.ask())
    assert status == 400
    assert "maximum context length" in error["message"]


@STREAMED
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (refusal(400, "Your input was flagged by our safety system."), 400),
        (refusal(403, "Your input was flagged."), 400),
        (refusal(400, "messages[0] is wrong"), 400),
        (refusal(422, "temperature is too high"), 422),
    ],
    ids=["policy", "policy as 403", "malformed", "unprocessable"],
)
def test_request_that_is_refused_for_what_it_is_goes_back_at_once(
    fault, status, stream
):
    served = Served([fault], [well(stream=stream)], repeat=True)
    outcome = served.ask(stream=stream)
    assert error_of(outcome)[0] == status
    assert header(outcome, "x-should-retry") == "false"
    assert providers_of(served.record) == ["a"]


def test_fallback_that_refuses_a_prefill_leads_back_to_the_first():
    refuses = refusal(400, "This model does not support assistant message prefill.")
    served = Served([refusal(503) + well()], [refuses], repeat=True)
    outcome = served.ask()
    assert outcome.response.status == 200
    assert providers_of(served.record) == ["a", "b", "a"]


def test_fallback_that_refuses_a_prefill_does_not_hide_the_outage():
    refuses = refusal(400, "This model does not support assistant message prefill.")
    served = Served([refusal(503)], [refuses], repeat=True)
    assert error_of(served.ask())[0] == 503


# -- an outage --------------------------------------------------------------------


def outage(served, request):
    """Ask every three seconds for two minutes; return when ``a`` was tried, and how."""
    sim = served.sim
    begin = sim.now
    tried = []
    for number in range(40):
        sim.run_until(begin + 3.0 * number)
        before = len(sim.records)
        outcome = request()
        assert outcome.response.status == 200
        (record,) = sim.records[before:]
        at = sim.now - begin
        tried += [(at, one.error) for one in record.attempts if one.provider == "a"]
    return tried


@STREAMED
def test_outage_costs_few_tries_and_ends_soon_after_the_recovery(stream):
    down = [refuse()] * 100
    served = Served(down, [well(stream=stream)], repeat=True)
    begin = served.sim.now

    def request():
        if served.sim.now - begin >= 60.0:
            served.sim.world.upstream("a.test", 80, well(stream=stream), repeat=True)
        return served.ask(stream=stream)

    tried = outage(served, request)
    during = [at for at, error in tried if at < 60.0]
    assert len(during) <= 6
    first_good = min(at for at, error in tried if error is None)
    assert first_good <= 90.0
    ((_, facts), _) = served.gateway.targets()
    assert facts.state == "closed"
    assert [at for at, _ in tried][-1] == 3.0 * 39


# -- accounts ---------------------------------------------------------------------


@STREAMED
def test_failover_accounts_for_the_one_that_answered_only(stream):
    config = snapshot(("a.test", "b.test"), fallback=1)
    failing = cut(good_stream(), 0) if stream else reply(200, JSON, b"{}")
    served = Served([failing], [well(stream=stream)], config=config, repeat=True)
    outcome = served.ask(stream=stream)
    record = served.record
    assert (record.model, record.provider) == ("n", "b")
    assert record.asked_model == "m"
    assert header(outcome, "x-tz-model") == "n"
    assert header(outcome, "x-tz-attempts") == "2"
    assert record.usage.total_tokens == (7 if stream else 4)
    assert [one.error is None for one in record.attempts] == [False, True]
    found = events(outcome)[:-1] if stream else [answer(outcome)]
    assert {one["model"] for one in found} == {"n"}
    text = served.gateway.metrics.render({})
    assert 'tz_tokens_total{model="n",type="output"}' in text
    assert 'tz_tokens_total{model="m"' not in text


def test_fallback_to_a_provider_of_another_dialect_is_converted():
    have = {"b": {"type": "anthropic"}}
    config = snapshot(("a.test", "b.test"), fallback=1, providers_have=have)
    body = (
        b'{"type":"message","id":"msg_1","role":"assistant","model":"claude",'
        b'"content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn",'
        b'"usage":{"input_tokens":3,"output_tokens":1}}'
    )
    served = Served([refusal(500)], [reply(200, JSON, body)], config=config)
    outcome = served.ask()
    assert answer(outcome)["choices"][0]["message"]["content"] == "Hello"
    starts = [message.start for _, _, message in served.sim.requests]
    assert starts == [
        "POST /v1/chat/completions HTTP/1.1",
        "POST /v1/messages HTTP/1.1",
    ]


def test_no_attempt_is_a_second_connection_of_the_first():
    served = Served([refusal(500)], [good()], repeat=True)
    outcome = served.ask()
    hosts = [op.host for _, op in outcome.operations if isinstance(op, Connect)]
    assert hosts == ["a.test", "b.test"]


def test_open_breaker_means_that_no_operation_touches_the_target():
    served = Served([refuse()], [good()], repeat=True)
    served.ask()
    served.ask()
    outcome = served.ask()
    assert outcome.response.status == 200
    touched = [op.host for _, op in outcome.operations if isinstance(op, Connect)]
    assert touched == []
    assert providers_of(served.sim.records[-1]) == ["b"]
    assert header(outcome, "x-tz-attempts") == "1"


def test_every_breaker_open_is_a_503_that_says_when_to_come_back():
    policy = Policy(retries=Retries(count=0))
    config = snapshot(("a.test",), policy=policy)
    served = Served([refuse()], config=config)
    statuses = [error_of(served.ask())[0] for _ in range(6)]
    assert statuses == [502] * 5 + [503]
    outcome = served.ask()
    assert error_of(outcome)[1]["code"] == "upstream_unavailable"
    assert header(outcome, "retry-after") == "10"
    assert served.sim.records[-1].attempts == []
