"""A caller of OpenAI's chat, a provider at AWS, and all between."""

from __future__ import annotations

import msgspec
import pytest

from tests.protocol.dialects.eventstreams import event, exception
from tests.protocol.flows.serving import (
    EVENTS,
    JSON,
    KEY,
    Served,
    answer,
    chat,
    error_of,
    events,
    good,
    header,
    snapshot,
    text_of,
)
from tz_protocol.providers import PROVIDERS
from tz_protocol.providers.aws import AWS_BEDROCK, AWS_SAGEMAKER
from tz_protocol.testing import reply

STREAM = (("content-type", "application/vnd.amazon.eventstream"),)
MESSAGE = (
    b'{"output":{"message":{"role":"assistant","content":[{"text":"Hello"}]}},'
    b'"stopReason":"end_turn","usage":{"inputTokens":3,"outputTokens":1,'
    b'"totalTokens":8,"cacheReadInputTokens":4}}'
)
PIECES = (
    event("messageStart", {"role": "assistant"}),
    event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hel"}}),
    event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "lo"}}),
    event("contentBlockStop", {"contentBlockIndex": 0}),
    event("messageStop", {"stopReason": "end_turn"}),
    event("metadata", {"usage": {"inputTokens": 3, "outputTokens": 2}}),
)
THROTTLED = exception("throttlingException", message="Slow down.")
BEDROCK = {"type": "aws_bedrock", "model": "amazon.nova-lite-v1:0"}
SAGEMAKER = {
    "type": "aws_sagemaker",
    "model": "llama",
    "options": {"endpoint_name": "mine", "hosted_provider": "tgi"},
}


def serve(*upstreams, row=BEDROCK):
    """Return a gateway whose first provider is *row*."""
    config = snapshot(("a.test", "b.test")[: len(upstreams)])
    table = config.models["m"]
    first = msgspec.structs.replace(table.providers["a"], **row)
    providers = {**table.providers, "a": first}
    models = {"m": msgspec.structs.replace(table, providers=providers)}
    served = Served(*upstreams, config=msgspec.structs.replace(config, models=models))
    rows = {row.name: row for row in (AWS_BEDROCK, AWS_SAGEMAKER)}
    served.gateway.providers = {**PROVIDERS, **rows}
    return served


def streamed(*pieces):
    return reply(200, STREAM, b"".join(pieces), framing="chunked")


def test_whole_answer_is_converted_and_stamped():
    served = serve([reply(200, JSON, MESSAGE)])
    outcome = served.ask(chat(temperature=0.5, store=True))
    body = answer(outcome)
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["prompt_tokens"] == 7
    assert (body["id"], body["model"]) == (served.record.id, "m")
    assert header(outcome, "x-tz-dropped-params") == "store"
    ((_, _, message),) = served.sim.requests
    path = "/v1/model/amazon.nova-lite-v1%3A0/converse"
    assert message.start == f"POST {path} HTTP/1.1"
    assert dict(message.headers)["authorization"] == f"Bearer {KEY}"
    assert msgspec.json.decode(message.body) == {
        "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
        "inferenceConfig": {"temperature": 0.5},
    }


def test_stream_is_converted_piece_by_piece_and_ends_with_done():
    served = serve([streamed(*PIECES)])
    options = {"include_usage": True}
    found = events(served.ask(chat(stream=True, stream_options=options)))
    assert text_of(found) == "Hello"
    assert found[-1] == "[DONE]"
    assert found[-2]["usage"]["total_tokens"] == 5
    assert served.record.outcome == "ok"


def test_stream_that_is_throttled_before_content_falls_back_unseen():
    served = serve([streamed(PIECES[0], THROTTLED)], [good()])
    found = events(served.ask(chat(stream=True)))
    assert [attempt.error for attempt in served.record.attempts] == ["status_429", None]
    assert text_of(found) == "Hello"


def test_stream_that_is_throttled_after_content_ends_with_the_error():
    served = serve([streamed(*PIECES[:2], THROTTLED)], [good()])
    found = events(served.ask(chat(stream=True)))
    assert text_of(found) == "Hel"
    assert found[-1]["error"]["code"] == "rate_limit_exceeded"
    assert "[DONE]" not in found


def test_stream_that_ends_without_its_last_event_is_never_ended_cleanly():
    served = serve([streamed(*PIECES[:3])])
    found = events(served.ask(chat(stream=True)))
    assert found[-1]["error"]["code"] == "upstream_stream_interrupted"
    assert "[DONE]" not in found


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, "ValidationException", (400, "invalid_request_error")),
        (429, "ThrottlingException", (429, "rate_limit_error")),
        (408, "ModelTimeoutException", (504, "timeout_error")),
    ],
)
def test_error_is_told_in_openais_words(status, kind, told):
    headers = (*JSON, ("x-amzn-errortype", f"{kind}:http://internal/"))
    served = serve([reply(status, headers, b'{"message":"No."}')])
    found, error = error_of(served.ask(chat()))
    assert (found, error["type"]) == told


def test_stream_of_a_container_passes_through_its_envelope():
    data = b"".join(b"data: %b\n\n" % chunk for chunk in (*EVENTS, b"[DONE]"))
    parts = [data[start : start + 37] for start in range(0, len(data), 37)]
    pieces = [event("PayloadPart", part) for part in parts]
    served = serve([streamed(*pieces)], row=SAGEMAKER)
    found = events(served.ask(chat(stream=True, max_completion_tokens=9)))
    assert text_of(found) == "Hello there, you"
    assert found[-1] == "[DONE]"
    ((_, _, message),) = served.sim.requests
    path = "/v1/endpoints/mine/invocations-response-stream"
    assert message.start == f"POST {path} HTTP/1.1"
    assert msgspec.json.decode(message.body)["max_tokens"] == 9
