"""Recorded answers, played back through the gateway as a user's test would."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.dialects.recordings import CORPUS
from tests.protocol.flows.serving import (
    COMPLETION,
    EVENTS,
    JSON,
    Served,
    answer,
    error_of,
    events,
    text_of,
)
from tz_protocol.testing import read_recording, replay
from tz_protocol.testing.replays import Recording

SSE = (("content-type", "text/event-stream"),)


def recorded(status=200, headers=JSON, **body):
    response = {"status": status, "headers": dict(headers), **body}
    return read_recording(json.dumps({"id": "x", "response": response}))


def stream_text(end="\n\n"):
    lines = [f"data: {event.decode()}" for event in EVENTS]
    return end.join([*lines, "data: [DONE]", ""])


def test_whole_answer_is_played_back():
    served = Served([replay(recorded(body_text=json.dumps(COMPLETION)), first=2.0)])
    outcome = served.ask()
    assert answer(outcome)["choices"] == COMPLETION["choices"]
    assert outcome.finished_at - outcome.started_at == pytest.approx(2.0)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"], ids=["lf", "crlf"])
def test_stream_is_played_back_event_by_event(end):
    recording = recorded(headers=SSE, body_text=stream_text(end))
    outcome = Served([replay(recording, every=1.0)]).ask(stream=True)
    assert text_of(events(outcome)) == "Hello there, you"
    assert len({time for time, _ in outcome.response.pieces}) > len(EVENTS) - 2


def test_error_is_played_back():
    body = base64.b64encode(b'{"error":{"message":"no","code":"their"}}').decode()
    outcome = Served([replay(recorded(status=400, body_b64=body))]).ask()
    assert error_of(outcome)[0] == 400


def test_framing_of_the_recording_is_left_out():
    headers = {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip", "X-A": "b"}
    recording = recorded(headers=headers.items(), body_text="{}")
    assert recording.headers == (("x-a", "b"),)


def test_headers_may_be_pairs_and_lists():
    pairs = {"response": {"status": 200, "headers": [["A", "1"], ["A", "2"]]}}
    lists = {"response": {"status": 200, "headers": {"A": ["1", "2"]}}}
    expected = (("a", "1"), ("a", "2"))
    for value in (pairs, lists):
        assert read_recording(json.dumps(value)).headers == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "one JSON object"),
        ("[]", "an object `response`"),
        ('{"response":{"status":"200"}}', "a number from 200 to 599"),
        ('{"response":{"status":200,"headers":3}}', "`response.headers`"),
        ('{"response":{"status":200,"body_b64":"?"}}', "base64 in `body_b64`"),
    ],
)
def test_what_is_no_recording_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_recording(text)


@given(st.binary(max_size=200))
def test_stream_of_any_bytes_is_sent_whole(body):
    recording = Recording(status=200, headers=SSE, body=body)
    steps = replay(recording)
    sent = b"".join(step.data for step in steps[1:])
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"0\r\n\r\n")


def test_real_recording_is_read_and_played_back():
    path = CORPUS / "groq.jsonl"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    lines = path.read_text(encoding="utf-8").splitlines()
    chats = [line for line in lines if '"endpoint": "chat.completions"' in line]
    line = next(one for one in chats or lines if json.loads(one)["stream"])
    outcome = Served([replay(read_recording(line))]).ask(stream=True)
    assert events(outcome)[-1] == "[DONE]"
