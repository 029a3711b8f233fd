"""What is held, skipped and sent around a stream, as the policy says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.protocol.flows.serving import (
    EVENTS,
    JSON,
    WORDS,
    Served,
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
from tz_protocol.machine import ClientGone, Shutdown
from tz_protocol.notices import LogLine
from tz_protocol.operations import SendHead
from tz_protocol.testing import (
    HalfClose,
    Pause,
    ReceiveEof,
    ReceiveResponse,
    Reset,
    Script,
    ScriptedRequest,
    Send,
    Stall,
    http_request,
    sse,
)
from tz_protocol.types.policy import Hedge, HedgeShare, Policy, StreamPolicy
from tz_protocol.types.settings import ServerTimeouts, Timeouts

TWO = ("a.test", "b.test")


def served_with(*upstreams, timeouts=None, policy=None, seed=0, **stream):
    policy = policy or Policy(stream=StreamPolicy(**stream))
    config = snapshot(
        TWO[: len(upstreams)],
        policy=policy,
        timeouts=timeouts,
        hedge_share=HedgeShare(share=1.0),
    )
    return Served(*upstreams, config=config, repeat=True, seed=seed)


def broken_after(words, then=None, every=0.0):
    """Return a stream that breaks after so many words."""
    steps = sse(*EVENTS[: 1 + words], end=b"", every=every)[:-1]
    return (*steps, then or Reset())


def seconds(outcome):
    return outcome.finished_at - outcome.started_at


# -- the hold window --------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "hold", "provider"),
    [(1, 0, "a"), (1, 1, "b"), (2, 1, "a"), (2, 2, "b"), (3, 3, "b"), (3, 2, "a")],
)
def test_hold_of_events_makes_a_failure_among_them_invisible(words, hold, provider):
    served = served_with(
        [broken_after(words, every=0.1)], [good_stream()], hold_events=hold
    )
    outcome = served.ask(stream=True)
    assert header(outcome, "x-tz-provider") == provider
    found = events(outcome)
    assert (found[-1] == "[DONE]") == (provider == "b")
    if provider == "b":
        assert text_of(found) == "".join(WORDS)


@pytest.mark.parametrize(("hold", "provider"), [(0.15, "a"), (0.5, "b")])
def test_hold_of_time_makes_a_failure_in_it_invisible(hold, provider):
    served = served_with(
        [(*broken_after(4, every=0.1)[:-1], Pause(0.05), Reset())],
        [good_stream()],
        hold=hold,
    )
    outcome = served.ask(stream=True)
    assert header(outcome, "x-tz-provider") == provider
    last = events(outcome)[-1]
    assert (last == "[DONE]") == (provider == "b")


def test_hold_ends_when_its_time_is_over_though_nothing_comes():
    steps = (*sse(*EVENTS[:2], end=b"")[:-1], Stall())
    served = served_with([steps], hold_events=5, hold=2.0)
    outcome = served.ask(stream=True)
    assert outcome.response.head_at == pytest.approx(outcome.started_at + 2.0)
    assert text_of(events(outcome)) == WORDS[0]


def test_hold_loses_nothing_of_a_good_stream():
    served = served_with([good_stream(every=0.5)], hold_events=2)
    outcome = served.ask(stream=True)
    assert text_of(events(outcome)) == "".join(WORDS)
    assert outcome.response.head_at == pytest.approx(outcome.started_at + 2.0)
    assert served.record.attempts[0].first_content == pytest.approx(1.0)


def test_hold_ends_with_the_stream():
    served = served_with([good_stream()], hold_events=100)
    outcome = served.ask(stream=True)
    assert events(outcome)[-1] == "[DONE]"
    assert text_of(events(outcome)) == "".join(WORDS)


def test_hold_that_stalls_is_given_up_at_the_idle_deadline():
    served = served_with(
        [(*broken_after(1)[:-1], Stall())],
        [good_stream()],
        timeouts=Timeouts(idle=3.0),
        hold_events=2,
    )
    outcome = served.ask(stream=True)
    assert header(outcome, "x-tz-provider") == "b"
    assert served.record.attempts[0].error == "timeout_idle"
    assert seconds(outcome) == pytest.approx(3.0)


def test_hold_of_the_dummy_loses_no_piece():
    spacing = {"spacing_ms": "300"}
    have: dict[str, Any] = {"type": "dummy", "model": "good", "options": spacing}
    config = snapshot(
        ("a.test",),
        policy=Policy(stream=StreamPolicy(hold=0.4)),
        providers_have={"a": have},
    )
    held = Served(config=config).ask(stream=True)
    plain = Served(config=snapshot(("a.test",), providers_have={"a": have}))
    assert text_of(events(held)) == text_of(events(plain.ask(stream=True)))


# -- malformed events -------------------------------------------------------------

GARBLED = b'{"choices": [{'


def test_malformed_event_after_content_ends_the_stream_if_the_policy_says_so():
    steps = sse(*EVENTS[:3], GARBLED, *EVENTS[3:], every=0.1)
    served = served_with([steps], [good_stream()], on_malformed_event="error")
    found = events(served.ask(stream=True))
    assert found[-1]["error"]["code"] == "upstream_malformed_event"
    assert "[DONE]" not in found
    assert text_of(found) == "".join(WORDS[:2])
    assert served.record.outcome == "partial"


def test_malformed_event_before_content_tries_the_next_if_the_policy_says_so():
    steps = sse(EVENTS[0], GARBLED, *EVENTS[1:], every=0.1)
    served = served_with([steps], [good_stream()], on_malformed_event="error")
    outcome = served.ask(stream=True)
    assert header(outcome, "x-tz-provider") == "b"
    assert served.record.attempts[0].error == "upstream_malformed_event"


# -- pings ------------------------------------------------------------------------


def pings(outcome):
    return outcome.response.body.count(b": ping\n\n")


def told(outcome):
    """Return the events of an answer, without its comments."""
    blocks = outcome.response.body.decode().split("\n\n")
    data = [block for block in blocks if block and not block.startswith(":")]
    found = [block.removeprefix("data: ") for block in data]
    return [one if one == "[DONE]" else json.loads(one) for one in found]


def test_ping_keeps_a_waiting_client_company():
    served = served_with([good_stream(first=3.5)], ping_after=1.0)
    outcome = served.ask(stream=True)
    assert outcome.response.head_at == pytest.approx(outcome.started_at + 1.0)
    assert pings(outcome) == 3
    assert text_of(told(outcome)) == "".join(WORDS)
    assert told(outcome)[-1] == "[DONE]"
    assert header(outcome, "content-type").startswith("text/event-stream")
    assert (served.record.outcome, served.record.status) == ("ok", 200)
    assert served.record.bytes_out == len(outcome.response.body)


def test_ping_keeps_the_fallback():
    served = served_with([refusal(500, after=2.5)], [good_stream()], ping_after=1.0)
    outcome = served.ask(stream=True)
    assert pings(outcome) == 2
    assert told(outcome)[-1] == "[DONE]"
    assert served.record.provider == "b"
    heads = [op for _, op in outcome.operations if isinstance(op, SendHead)]
    assert len(heads) == 1


def test_ping_gives_up_the_status_of_what_fails_later():
    served = served_with([refusal(503, after=2.5)], ping_after=1.0)
    outcome = served.ask(stream=True)
    assert outcome.response.status == 200
    (last,) = told(outcome)
    assert last["error"]["message"] == "no"
    assert outcome.response.is_complete
    assert served.record.outcome == "shed"
    assert served.record.error == "their"


def test_ping_is_not_sent_to_one_that_fails_before_it():
    served = served_with([refusal(422)], ping_after=1.0)
    outcome = served.ask(stream=True)
    assert error_of(outcome)[0] == 422


def test_ping_goes_on_within_the_stream():
    served = served_with([good_stream(every=2.5)], ping_after=1.0)
    outcome = served.ask(stream=True)
    assert pings(outcome) > 10
    assert text_of(told(outcome)) == "".join(WORDS)
    assert told(outcome)[-1] == "[DONE]"


def test_ping_does_not_hide_a_stall():
    served = served_with(
        [(*broken_after(2)[:-1], Stall())],
        timeouts=Timeouts(idle=5.0),
        ping_after=1.0,
    )
    outcome = served.ask(stream=True)
    assert told(outcome)[-1]["error"]["code"] == "upstream_timeout"
    assert pings(outcome) == 4
    assert seconds(outcome) == pytest.approx(5.0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_ping_is_for_streams_only(stream):
    steps = good_stream(first=3.5) if stream else good(after=3.5)
    served = served_with([steps], ping_after=1.0)
    outcome = served.ask(stream=stream)
    assert pings(outcome) == (3 if stream else 0)
    assert outcome.response.status == 200


def test_ping_beside_a_hedge():
    policy = Policy(hedge=Hedge(after=1.5), stream=StreamPolicy(ping_after=1.0))
    served = served_with(
        [good_stream(first=9.0)], [good_stream(first=1.0)], policy=policy
    )
    outcome = served.ask(stream=True)
    assert pings(outcome) == 2
    assert told(outcome)[-1] == "[DONE]"
    assert served.record.provider == "b"
    assert seconds(outcome) == pytest.approx(2.5)


def test_shutdown_after_a_ping_is_told_in_band():
    served = served_with([good_stream(first=9.0)], ping_after=1.0)
    outcome = served.ask(stream=True, run=False)
    served.sim.run_until(outcome.started_at + 2.5)
    assert outcome.tell(Shutdown())
    served.sim.run_until_idle()
    assert told(outcome)[-1]["error"]["code"] == "gateway_shutdown"
    assert served.record.outcome == "shutdown"
    assert served.sim.open_handles == []


@pytest.mark.parametrize("at", [0.5, 1.0, 2.5])
def test_client_that_leaves_between_pings_closes_the_upstream(at):
    served = served_with([good_stream(first=9.0)], ping_after=1.0)
    body = json.dumps(chat(stream=True)).encode()
    served.ask(request=ScriptedRequest((body,), gone_after=at))
    assert served.record.outcome == "client_gone"
    assert served.sim.open_handles == []


def test_answer_that_comes_while_a_ping_is_sent_waits_for_it():
    served = served_with([good_stream(first=1.2)], ping_after=1.0)
    body = json.dumps(chat(stream=True)).encode()
    outcome = served.ask(request=ScriptedRequest((body,), takes=0.5))
    assert pings(outcome) >= 1
    assert outcome.response.body.startswith(b": ping\n\ndata: ")
    assert told(outcome)[-1] == "[DONE]"


# -- over bytes -------------------------------------------------------------------


READS_IT = (ReceiveResponse(), HalfClose(), ReceiveEof())


def bugs(served):
    """Return what the log says of unexpected exceptions."""
    lines = (line for line in served.sim.notices if isinstance(line, LogLine))
    return [line.fields for line in lines if "unexpected" in line.message]


def converse(served, *, steps=READS_IT, window=None, **options):
    """Ask for a stream over a client's bytes; return what became of it."""
    body = json.dumps(chat(stream=True)).encode()
    request = http_request("POST", "/v1/chat/completions", JSON, body)
    script = Script((Send(request), *steps), window=window)
    client = served.sim.accept(script)
    connection = served.gateway.connection(client, "client")
    return served.sim.spawn(
        connection.run(), listener=connection.tell, client=client, **options
    )


def test_connection_pings_over_bytes():
    served = served_with([good_stream(first=3.5)], ping_after=1.0)
    outcome = converse(served)
    served.sim.run_until_idle()
    (message,) = outcome.client.messages
    assert message.status == 200
    assert message.body.count(b": ping\n\n") == 3
    assert message.body.endswith(b"data: [DONE]\n\n")
    assert served.gateway.connections == 0


def test_connection_pings_and_hedges_over_bytes():
    policy = Policy(hedge=Hedge(after=1.5), stream=StreamPolicy(ping_after=1.0))
    served = served_with(
        [good_stream(first=9.0)], [good_stream(first=1.0)], policy=policy
    )
    outcome = converse(served)
    served.sim.run_until_idle()
    (message,) = outcome.client.messages
    assert message.body.endswith(b"data: [DONE]\n\n")
    assert served.record.provider == "b"


def silent(write):
    """Return a gateway whose one provider is silent for a day; its clients too."""
    config = snapshot(
        ("a.test",),
        policy=Policy(stream=StreamPolicy(ping_after=1.0)),
        server=ServerTimeouts(write=write),
        timeouts=Timeouts(first_content=1e5, stream_total=1e5),
    )
    served = Served([Script((Stall(),))], config=config)
    return served, converse(served, steps=(Pause(1e5),), window=100)


@pytest.mark.parametrize("event", [ClientGone(), Shutdown()], ids=repr)
@pytest.mark.parametrize("at", [60.0, 20_000.0], ids=["between", "within"])
def test_connection_event_around_a_ping_ends_it(event, at):
    served, outcome = silent(write=5e4)
    served.sim.run_until(served.sim.now + at)
    outcome.tell(event)
    served.sim.run_until_idle()
    assert outcome.is_done
    assert served.gateway.connections == 0
    assert served.sim.open_handles == []
    said = "client_gone" if isinstance(event, ClientGone) else "shutdown"
    assert served.record.outcome in (said, "client_stalled")


def test_connection_of_a_client_that_does_not_read_its_pings_is_given_up():
    served, outcome = silent(write=5.0)
    served.sim.run_until_idle()
    assert outcome.is_done
    assert served.record.outcome == "client_stalled"
    assert served.sim.open_handles == []


@pytest.mark.parametrize("event", [ClientGone(), Shutdown()], ids=repr)
def test_connection_event_at_any_step_of_a_pinged_stream_is_no_bug(event):
    def run(**options):
        served = served_with([good_stream(first=2.5, every=0.1)], ping_after=1.0)
        outcome = converse(served, **options)
        served.sim.run_until_idle()
        return served, outcome

    _, whole = run()
    for step in range(1, len(whole.operations) + 1):
        served, outcome = run(interrupt_at=(step, event))
        assert outcome.is_done
        assert bugs(served) == [], step
        assert served.gateway.pool.counts()[0] == 0
        assert len(served.sim.records) <= 1
        for record in served.sim.records:
            assert record.outcome in ("client_gone", "shutdown", "ok"), step
