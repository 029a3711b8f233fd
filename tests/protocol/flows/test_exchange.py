"""The six steps of a request, and every way in which they end."""

from __future__ import annotations

import json

import msgspec
import pytest

from tests.protocol.flows.serving import (
    COMPLETION,
    EVENTS,
    JSON,
    KEY,
    WORDS,
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
from tz_protocol.machine import Drain, Shutdown
from tz_protocol.operations import Connect
from tz_protocol.testing import (
    Close,
    HalfClose,
    Receive,
    ReceiveEof,
    ReceiveRequest,
    ReceiveResponse,
    Reset,
    Script,
    ScriptedRequest,
    Send,
    Stall,
    cut,
    dns_error,
    garbage,
    hang,
    http_request,
    http_response,
    refuse,
    reply,
    sse,
    tls_error,
)
from tz_protocol.types.policy import Policy, Retries
from tz_protocol.types.settings import Limits, Timeouts


def test_whole_answer_is_stamped_and_recorded():
    served = Served([good()])
    outcome = served.ask()
    body = answer(outcome)
    record = served.record
    assert outcome.response.status == 200
    assert body["id"] == record.id
    assert body["model"] == "m"
    assert body["episode_id"] == record.episode_id
    assert body["choices"] == COMPLETION["choices"]
    assert body["usage"] == COMPLETION["usage"]
    assert header(outcome, "x-tz-provider") == "a"
    assert header(outcome, "x-tz-attempts") == "1"
    assert header(outcome, "content-length") == str(len(outcome.response.body))
    assert (record.outcome, record.stage, record.status) == ("ok", "done", 200)
    assert (record.usage.input_tokens, record.usage.output_tokens) == (3, 1)


def test_request_to_provider_carries_model_key_and_nothing_of_the_caller():
    served = Served([good()])
    headers = (
        ("content-type", "application/json"),
        ("authorization", "Bearer sk-the-callers-own"),
        ("cookie", "session=1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-forwarded-for", "10.0.0.1"),
    )
    served.ask(headers=headers)
    ((_, _, message),) = served.sim.requests
    sent = dict(message.headers)
    assert message.start == "POST /v1/chat/completions HTTP/1.1"
    assert json.loads(message.body)["model"] == "upstream-model"
    assert sent["authorization"] == f"Bearer {KEY}"
    assert sent["host"] == "a.test"
    assert sent["traceparent"].startswith("00-0af765")
    assert "sk-the-callers-own" not in str(message.headers)
    assert not {"cookie", "x-forwarded-for", "connection"} & sent.keys()


def test_stream_is_relayed_as_it_comes():
    served = Served([good_stream(every=0.5)])
    outcome = served.ask(stream=True)
    found = events(outcome)
    assert text_of(found) == "".join(WORDS)
    assert found[-1] == "[DONE]"
    assert {event["id"] for event in found[:-1]} == {served.record.id}
    assert {event["model"] for event in found[:-1]} == {"m"}
    assert header(outcome, "content-type").startswith("text/event-stream")
    times = [time for time, data in outcome.response.pieces if data]
    assert times == sorted(set(times)), "pieces were held back"
    assert outcome.response.head_at == times[0]
    assert served.record.outcome == "ok"
    assert served.record.usage.output_tokens == 4
    assert served.record.first_content == pytest.approx(1.0)


def test_stream_usage_is_shown_only_to_those_who_asked():
    silent = events(Served([good_stream()]).ask(stream=True))
    asked = events(
        Served([good_stream()]).ask(
            chat(stream=True, stream_options={"include_usage": True})
        )
    )
    assert not any(event.get("usage") for event in silent[:-1])
    assert [e["usage"]["total_tokens"] for e in asked[:-1] if e.get("usage")] == [7]


FAILING = {
    "refused": [refuse()],
    "dns": [dns_error()],
    "tls": [tls_error()],
    "hang": [hang()],
    "reset before the head": [cut(good(), 0, Reset())],
    "closed before the head": [cut(good(), 0)],
    "closed within the head": [cut(good(), 20)],
    "closed within the body": [cut(good(), 150)],
    "silent": [Script((Stall(),))],
    "garbage": [garbage()],
    "not JSON": [reply(200, JSON, b"<html>")],
    "500": [refusal(500)],
    "429": [refusal(429)],
    "401": [refusal(401)],
    "404": [refusal(404)],
    "redirect": [reply(302, (("location", "http://evil.test/"),))],
    "error in a 200": [
        reply(
            200, (("content-type", "application/json"),), b'{"error":{"message":"x"}}'
        )
    ],
}


@pytest.mark.parametrize("failing", FAILING.values(), ids=FAILING.keys())
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_failure_before_content_tries_the_next_provider(failing, stream):
    second = [good_stream() if stream else good()]
    served = Served(failing, second)
    outcome = served.ask(stream=stream)
    assert outcome.response.status == 200
    assert header(outcome, "x-tz-provider") == "b"
    assert header(outcome, "x-tz-attempts") == "2"
    first, last = served.record.attempts
    assert first.error is not None
    assert last.error is None
    assert served.record.provider == "b"
    if stream:
        assert text_of(events(outcome)) == "".join(WORDS)


@pytest.mark.parametrize(
    ("failing", "status", "code"),
    [
        ([refusal(400, "bad tool")], 400, "their"),
        ([refusal(422)], 422, "their"),
        ([refusal(404)], 404, "their"),
        ([refusal(429)], 429, "their"),
        ([refusal(503)], 503, "their"),
        ([refusal(529)], 529, "their"),
        ([refusal(401)], 502, "upstream_auth_error"),
        ([refusal(403)], 502, "upstream_auth_error"),
        ([refusal(500)], 502, "their"),
        ([refuse()], 502, "upstream_unreachable"),
        ([dns_error()], 502, "upstream_unreachable"),
        ([tls_error()], 502, "upstream_tls_error"),
        ([garbage()], 502, "upstream_invalid_response"),
        ([cut(good(), 0, Reset())], 502, "upstream_disconnected"),
        ([reply(302, (("location", "/"),))], 502, "upstream_redirect"),
        ([hang()], 504, "upstream_connect_timeout"),
        ([Script((Stall(),))], 504, "upstream_first_content_timeout"),
    ],
)
def test_failure_of_all_is_told_by_status_and_code(failing, status, code):
    served = Served(failing, repeat=True)
    outcome = served.ask()
    found, error = error_of(outcome)
    assert (found, error["code"]) == (status, code)
    assert set(error) >= {"message", "type", "param", "code"}
    assert header(outcome, "x-should-retry") == "false"
    assert ".test" not in error["message"]
    assert served.record.outcome in ("error", "timeout", "shed")


def test_failure_of_all_keeps_retry_after():
    served = Served([refusal(429, headers=(("retry-after", "17"),))])
    assert header(served.ask(), "retry-after") == "17"


def test_failure_that_says_most_to_the_caller_wins():
    served = Served([refusal(500)], [refusal(429, "too many")], [refuse()])
    status, error = error_of(served.ask())
    assert (status, error["message"]) == (429, "too many")


def test_failure_in_debug_mode_lists_the_attempts():
    config = snapshot(("a.test", "b.test"), debug=True)
    served = Served([refusal(500)], [refuse()], config=config)
    _, error = error_of(served.ask())
    assert len(error["attempts"]) == len(served.record.attempts)
    assert {one["provider"] for one in error["attempts"]} == {"a", "b"}
    assert KEY not in json.dumps(error)


def test_stream_cut_after_content_ends_in_band_without_done():
    steps = cut(good_stream(), 1_200, Close())
    served = Served([steps], [good_stream()])
    outcome = served.ask(stream=True)
    found = events(outcome)
    assert found[-1]["error"]["code"] == "upstream_stream_interrupted"
    assert "[DONE]" not in found
    assert outcome.response.is_complete
    assert served.record.outcome == "partial"
    assert len([op for _, op in outcome.operations if isinstance(op, Connect)]) == 1


def test_stream_stalled_after_content_times_out_in_band():
    served = Served([cut(good_stream(), 1_200, Stall())])
    outcome = served.ask(stream=True)
    assert events(outcome)[-1]["error"]["code"] == "upstream_timeout"
    idle = served.gateway.snapshot.gateway.timeouts.idle
    assert outcome.finished_at - outcome.started_at == pytest.approx(idle)


def test_stream_error_event_after_content_is_told_in_band():
    steps = sse(*EVENTS[:3], b'{"error":{"message":"too hot","code":"heat"}}', end=b"")
    found = events(Served([steps]).ask(stream=True))
    assert found[-1]["error"]["code"] == "heat"
    assert "[DONE]" not in found


def test_stream_error_event_before_content_tries_the_next():
    steps = sse(EVENTS[0], b'{"error":{"message":"too hot","code":"heat"}}', end=b"")
    served = Served([steps], [good_stream()])
    assert text_of(events(served.ask(stream=True))) == "".join(WORDS)
    assert served.record.provider == "b"


def test_stream_without_done_after_finish_is_complete():
    found = events(Served([sse(*EVENTS, end=b"")]).ask(stream=True))
    assert found[-1] == "[DONE]"


def test_stream_malformed_event_is_skipped_and_counted():
    steps = sse(EVENTS[0], EVENTS[1], b"{not json", *EVENTS[2:])
    served = Served([steps])
    assert text_of(events(served.ask(stream=True))) == "".join(WORDS)
    assert served.record.skipped_events == 1


def test_first_content_deadline_holds_though_the_head_came():
    lifecycle = sse(EVENTS[0], end=b"")[:-1]
    served = Served([Script((*lifecycle, Stall()))], [good_stream()])
    outcome = served.ask(stream=True)
    first = served.gateway.snapshot.gateway.timeouts.first_content
    assert served.record.attempts[0].error == "timeout_first_content"
    assert outcome.response.head_at is not None
    assert outcome.response.head_at - outcome.started_at == pytest.approx(first)


def test_total_deadline_ends_an_exchange_between_attempts():
    timeouts = Timeouts(connect=5, first_content=6, total=10)
    config = snapshot(timeouts=timeouts)
    served = Served([Script((Stall(),))], [Script((Stall(),))], [good()], config=config)
    outcome = served.ask()
    assert error_of(outcome)[0] == 504
    assert outcome.finished_at - outcome.started_at == pytest.approx(10)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_client_that_leaves_closes_the_upstream_at_once(stream):
    served = Served([good_stream(every=1.0) if stream else good(after=50.0)])
    body = json.dumps(chat(stream=stream)).encode()
    request = ScriptedRequest((body,), gone_after=2.5)
    outcome = served.ask(request=request)
    (handle,) = served.sim.opened
    assert handle.closed_at == pytest.approx(outcome.started_at + 2.5)
    assert served.record.outcome == "client_gone"


def test_shutdown_while_streaming_says_goodbye_in_band():
    served = Served([good_stream(every=5.0)])
    outcome = served.ask(stream=True, run=False)
    served.sim.run_until(outcome.started_at + 12)
    assert not outcome.tell(Drain())
    assert outcome.tell(Shutdown())
    served.sim.run_until_idle()
    assert events(outcome)[-1]["error"]["code"] == "gateway_shutdown"
    assert served.record.outcome == "shutdown"


def test_shutdown_before_the_answer_is_a_503():
    served = Served([good(after=50)])
    outcome = served.ask(run=False)
    served.sim.run_until(outcome.started_at + 1)
    outcome.tell(Shutdown())
    served.sim.run_until_idle()
    assert error_of(outcome)[0] == 503
    assert served.sim.open_handles == []


def test_exchanges_past_the_queue_are_refused_with_retry_after():
    limits = Limits(requests=1, queue=1, queue_timeout=5.0)
    served = Served([good(after=60)], config=snapshot(("a.test",), limits=limits))
    outcomes = [served.ask(run=False) for _ in range(3)]
    served.sim.run_until_idle()
    statuses = [outcome.response.status for outcome in outcomes]
    assert statuses == [200, 503, 503]
    assert error_of(outcomes[2])[1]["code"] == "overloaded"
    assert header(outcomes[2], "retry-after") == "1"
    waited = [o.finished_at - o.started_at for o in outcomes[1:]]
    assert waited == [pytest.approx(5.0), pytest.approx(0.0)]


def test_body_past_the_memory_budget_is_a_503():
    config = snapshot(("a.test",), limits=Limits(body_memory=10))
    served = Served([good()], config=config)
    assert error_of(served.ask())[0] == 503
    assert served.gateway.memory.held == 0


def test_body_over_the_limit_is_a_413():
    config = snapshot(("a.test",), limits=Limits(body_bytes=10))
    status, error = error_of(Served([good()], config=config).ask())
    assert (status, error["code"]) == (413, "request_too_large")


def test_answer_over_the_limit_is_a_502():
    config = snapshot(("a.test",), limits=Limits(response_bytes=50))
    served = Served([good()], config=config, repeat=True)
    status, error = error_of(served.ask())
    assert (status, error["code"]) == (502, "upstream_too_large")


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("nope", 404, "model_not_found"),
        ("openai::gpt-4.1", 404, "model_not_found"),
        ("tensorzero::function_name::f", 400, "unsupported_model_name"),
        ("tensorzero::model_name::m", 200, None),
    ],
)
def test_model_is_resolved_by_name_or_refused(model, status, code):
    outcome = Served([good()]).ask(chat(model=model))
    assert outcome.response.status == status
    if code is not None:
        assert error_of(outcome)[1]["code"] == code


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mm", "The model 'mm' does not exist; did you mean 'm'?"),
        ("other", "The model 'other' does not exist."),
        (
            "opnai::gpt",
            (
                "The model 'opnai::gpt' does not exist: there is no provider type "
                "'opnai'; did you mean 'openai'?"
            ),
        ),
        ("m" * 65, f"The model {'m' * 65!r} does not exist."),
    ],
    ids=["near", "far", "type", "long"],
)
def test_wrong_name_of_a_model_suggests_the_nearest(model, message):
    outcome = Served([good()]).ask(chat(model=model))
    assert error_of(outcome)[1]["message"] == message


def test_kept_connection_is_used_again():
    served = Served([good()], repeat=True)
    for _ in range(3):
        served.ask()
    assert len(served.sim.opened) == 1
    reused = [record.attempts[0].is_reused for record in served.sim.records]
    assert reused == [False, True, True]


def test_kept_connection_that_died_is_dialled_anew_within_the_attempt():
    first = Script((*good(), Close()))
    served = Served([first, good()])
    served.ask()
    served.ask()
    assert [len(r.attempts) for r in served.sim.records] == [1, 1]
    assert [r.outcome for r in served.sim.records] == ["ok", "ok"]
    assert len(served.sim.opened) == 2


def test_kept_connection_that_dies_under_the_request_is_dialled_anew_once():
    first = Script((*good(), Receive(b"\r\n\r\n"), Reset()))
    once = Policy(retries=Retries(count=0))
    config = snapshot(("a.test",), policy=once)
    served = Served([first, cut(good(), 0, Reset()), good()], config=config)
    served.ask()
    outcome = served.ask()
    assert error_of(outcome)[1]["code"] == "upstream_disconnected"
    assert len(served.sim.opened) == 2


def test_connection_serves_the_gateway_over_bytes():
    served = Served([good()])
    body = json.dumps(chat()).encode()
    request = http_request(
        "POST",
        "/openai/v1/chat/completions",
        (("content-type", "application/json"),),
        body,
    )
    script = (Send(request), ReceiveResponse(), HalfClose(), ReceiveEof())
    client = served.sim.accept(script)
    connection = served.gateway.connection(client, "client")
    outcome = served.sim.spawn(
        connection.run(), listener=connection.tell, client=client
    )
    served.sim.run_until_idle()
    (message,) = outcome.client.messages
    assert message.status == 200
    assert json.loads(message.body)["choices"] == COMPLETION["choices"]
    assert dict(message.headers)["date"] == "Sun, 15 Jun 2025 15:06:40 GMT"
    assert served.gateway.connections == 0
    assert len(outcome.writes) == 1, "head and body left in more than one write"


# -- the end of it ----------------------------------------------------------------


def test_bug_is_recorded_once_and_passed_on(monkeypatch):
    served = Served([good()])
    monkeypatch.setattr(served.gateway, "breakers", None)
    outcome = served.ask()
    assert isinstance(outcome.error, AttributeError)
    record = served.record
    assert (record.outcome, record.error) == ("error", "internal_error")
    assert record.duration is not None
    assert served.gateway.admission.in_flight == 0
    assert served.gateway.memory.held == 0


def test_name_that_no_header_can_hold_is_shown_as_far_as_it_can():
    config = snapshot(("a.test",))
    model = msgspec.structs.replace(config.models["m"], name="mü\r\nx-evil: 1")
    config = msgspec.structs.replace(config, models={model.name: model})
    outcome = Served([good()], config=config).ask(chat(model=model.name))
    assert outcome.response.status == 200
    assert header(outcome, "x-tz-model") == "m???x-evil: 1"
    assert header(outcome, "x-evil") is None
    assert answer(outcome)["model"] == model.name


SPEECH = {"model": "m", "input": "Hi", "voice": "alloy"}
AUDIO = b"\x00\x01" * 2_000


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["cut", "reset"])
@pytest.mark.parametrize("is_together", [True, False], ids=["together", "later"])
def test_sound_that_is_cut_is_broken_off_and_what_was_sent_is_counted(end, is_together):
    sound = http_response(200, (("content-type", "audio/mpeg"),), AUDIO)
    head = sound[: -len(AUDIO)]
    first, rest = AUDIO[:1_000], AUDIO[1_000:3_000]
    last = Send(first + rest) if is_together else Send(rest, after=1.0)
    steps = (Send(head + (b"" if is_together else first)), last, end)
    served = Served([(ReceiveRequest(), *steps)])
    outcome = served.ask(SPEECH, path="/v1/audio/speech")
    assert outcome.response.status == 200
    assert outcome.response.is_aborted
    assert outcome.response.body == first + rest
    record = served.record
    assert (record.outcome, record.bytes_out) == ("partial", len(first + rest))
