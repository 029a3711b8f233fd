from __future__ import annotations

import gc
import weakref

import pytest

from tests.protocol.providers.running import START, ask, chat, step, stream
from tz_protocol.errors import OperationTimeout, UpstreamBroken
from tz_protocol.machine import Context, Machine
from tz_protocol.operations import Sleep
from tz_protocol.providers.dummy import MOST_NAMES, Dummy, make_dummy
from tz_protocol.types.http import HttpRequest
from tz_protocol.types.settings import ProviderSettings

EMBEDDING = {"model": "x", "input": "y"}


def error(answer):
    return answer.json()["error"]


# -- failures by name -----------------------------------------------------------


@pytest.mark.parametrize("name", ["error", "error_whatever"])
@pytest.mark.parametrize("path", ["chat/completions", "embeddings", "audio/speech"])
def test_error_is_a_connection_that_is_refused(name, path):
    with pytest.raises(UpstreamBroken) as caught:
        ask(name, EMBEDDING, path=path)
    assert caught.value.kind == "refused"
    assert name in caught.value.detail


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("chat/completions", "Error from Dummy provider with raw response"),
        ("embeddings", "Error from Dummy embedding provider with raw response"),
    ],
)
def test_error_with_raw_response_is_a_500(path, message):
    answer = ask("error_with_raw_response", EMBEDDING, path=path)
    assert answer.status == 500
    assert error(answer)["message"] == message
    assert answer.json()["raw_response"] == "dummy error raw response"


def test_error_of_judge_is_a_500():
    answer = chat("llm_judge::error")
    assert answer.status == 500
    assert error(answer)["message"] == "Dummy error in inference"


def test_error_before_a_stream_is_no_stream():
    answer = stream("error_with_raw_response")
    assert answer.status == 500
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["chat/completions", "embeddings"])
@pytest.mark.parametrize("key", [None, "bad_key"])
def test_test_key_without_the_good_one_is_refused(path, key):
    answer = ask("test_key", EMBEDDING, path=path, key=key)
    assert answer.status == 401
    assert error(answer)["code"] == "invalid_api_key"


def test_test_key_with_the_good_one_is_answered():
    assert chat("test_key", key="good_key").status == 200


def test_other_name_with_any_key_is_answered():
    assert chat("anything", key="bad_key").status == 200


def test_unknown_path_is_not_found():
    answer = ask("anything", {}, path="images/generations")
    assert answer.status == 404


# -- flaky ----------------------------------------------------------------------


def test_flaky_fails_every_second_call_whole_and_streamed():
    dummy, context = Dummy(), Context()
    asks = [chat, stream, stream, chat, chat]
    answers = [ask("flaky_x", dummy=dummy, context=context) for ask in asks]
    assert [answer.status for answer in answers] == [200, 500, 200, 500, 200]
    expected = "Flaky model 'flaky_x' failed on call number 4"
    assert error(answers[3])["message"] == expected


def test_flaky_counts_each_name_apart():
    dummy, context = Dummy(), Context()
    names = ["flaky_a", "flaky_b", "flaky_a", "flaky_b"]
    statuses = [chat(name, dummy=dummy, context=context).status for name in names]
    assert statuses == [200, 200, 500, 500]


def test_flaky_counts_each_gateway_apart():
    dummy, first, second = Dummy(), Context(), Context()
    assert chat("flaky_x", dummy=dummy, context=first).status == 200
    assert chat("flaky_x", dummy=dummy, context=second).status == 200
    assert chat("flaky_x", dummy=dummy, context=first).status == 500


def test_flaky_counts_are_forgotten_with_the_gateway():
    dummy, context = Dummy(), Context()
    chat("flaky_x", dummy=dummy, context=context)
    seen = weakref.ref(context)
    del context
    gc.collect()
    assert seen() is None
    assert len(dummy._calls) == 0


def test_flaky_names_without_end_are_bounded():
    dummy, context = Dummy(), Context()
    for number in range(MOST_NAMES + 10):
        dummy._count(context, f"flaky_{number}")
    assert len(dummy._calls[context]) == MOST_NAMES
    assert dummy._count(context, f"flaky_{MOST_NAMES + 9}") == 2
    assert dummy._count(context, "flaky_0") == 1


def test_flaky_rate_limit_is_a_429_with_retry_after():
    dummy, context = Dummy(), Context()
    chat("flaky_rate_limit", dummy=dummy, context=context)
    answer = chat("flaky_rate_limit", dummy=dummy, context=context)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "1"
    assert error(answer)["code"] == "rate_limit_exceeded"


def test_flaky_raw_response_has_one():
    dummy, context = Dummy(), Context()
    chat("flaky_raw_response", dummy=dummy, context=context)
    answer = chat("flaky_raw_response", dummy=dummy, context=context)
    assert answer.json()["raw_response"] == "dummy flaky error raw response"


# -- time -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "seconds"),
    [
        ("slow", "chat/completions", 5.0),
        ("slow", "moderations", 5.0),
        ("slowly", "chat/completions", 0.0),
        ("a_slow_one", "embeddings", 30.0),
    ],
)
def test_slow_waits_before_anything(name, path, seconds):
    body = {"model": name, "messages": [], "input": "x"}
    assert ask(name, body, path=path).times == [seconds]


def test_slow_past_the_deadline_times_out_at_it():
    context = Context()
    context.now = START
    settings = ProviderSettings(name="d", type="dummy", model="slow")
    request = HttpRequest(path="chat/completions", body=b"{}")
    flow = Dummy().respond(request, settings, None, START + 2.0, context)
    machine = Machine(flow, context)
    assert machine.start(START) == Sleep(START + 2.0)
    with pytest.raises(OperationTimeout):
        machine.resume(None, START + 2.0)


def test_fatal_stream_error_is_silent_for_five_seconds():
    context = Context()
    context.now = START
    settings = ProviderSettings(
        name="d", type="dummy", model="fatal_stream_error", options={"spacing_ms": "0"}
    )
    body = b'{"messages":[],"stream":true}'
    request = HttpRequest(path="chat/completions", body=body)
    deadline = START + 60
    flow = Dummy().respond(request, settings, None, deadline, context)
    reply, _ = step(Machine(flow, context), START)
    for _ in range(3):
        piece, now = step(Machine(reply.body(deadline), context), START)
        assert piece
        assert now == START
    last = step(Machine(reply.body(deadline), context), START)
    assert last == (b"", START + 5.0)


@pytest.mark.parametrize("spacing", ["", "fast", "-1", "nan", "inf", "60001"])
def test_spacing_that_is_no_duration_is_refused(spacing):
    answer = stream("anything", spacing=spacing)
    assert answer.status == 400
    assert "spacing_ms" in error(answer)["message"]


# -- the row --------------------------------------------------------------------


def test_row_speaks_every_capability_without_key_or_address():
    row = make_dummy()
    assert set(row.dialects) == {
        "chat",
        "embedding",
        "moderation",
        "audio_transcription",
        "audio_speech",
    }
    assert row.base_url is None
    assert row.credential is None
    assert row.is_key_optional
    assert row.has_shorthand
    assert row.responder is not None
    assert row.authorize(HttpRequest(path="x"), None, 0.0) == ()


def test_rows_have_states_of_their_own():
    assert make_dummy().responder is not make_dummy().responder
