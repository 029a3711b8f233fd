"""A caller of OpenAI's chat, a provider that speaks Anthropic's, and all between."""

from __future__ import annotations

import msgspec
import pytest

from tests.protocol.flows.serving import (
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
from tz_protocol.providers.anthropic import ANTHROPIC
from tz_protocol.testing import refuse, reply, sse
from tz_protocol.types.http import HttpRequest
from tz_protocol.types.secret import Secret

MESSAGE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":['
    b'{"type":"text","text":"Hello"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":3,"cache_read_input_tokens":4,"output_tokens":1}}'
)
EVENTS = (
    (
        '{"type":"message_start","message":{"id":"msg_1","model":"claude-x","content":[],'
        '"usage":{"input_tokens":3,"output_tokens":1}}}'
    ),
    '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
    '{"type":"ping"}',
    (
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
        '"text":"Hel"}}'
    ),
    (
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
        '"text":"lo"}}'
    ),
    '{"type":"content_block_stop","index":0}',
    (
        '{"type":"message_delta","delta":{"stop_reason":"end_turn"},'
        '"usage":{"output_tokens":2}}'
    ),
    '{"type":"message_stop"}',
)
OVERLOADED = (
    '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
)


def stream(*bodies):
    return sse(*bodies, end=b"")


def serve(*upstreams, first="anthropic", model="claude-sonnet-4-5"):
    """Return a gateway whose first provider is of the type *first*."""
    config = snapshot(("a.test", "b.test")[: len(upstreams)])
    table = config.models["m"]
    providers = {
        **table.providers,
        "a": msgspec.structs.replace(table.providers["a"], type=first, model=model),
    }
    models = {"m": msgspec.structs.replace(table, providers=providers)}
    served = Served(*upstreams, config=msgspec.structs.replace(config, models=models))
    served.gateway.providers = {**PROVIDERS, "anthropic": ANTHROPIC}
    return served


def test_row_sends_the_key_in_the_vendors_header_and_nowhere_else():
    request = HttpRequest(path="messages")
    headers = ANTHROPIC.authorize(request, Secret("k"), 0.0)
    assert headers == (("x-api-key", "k"),)
    assert ANTHROPIC.authorize(request, None, 0.0) == ()


def test_whole_answer_is_converted_and_stamped():
    served = serve([reply(200, JSON, MESSAGE)])
    outcome = served.ask(chat(temperature=0.5, store=True))
    body = answer(outcome)
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"]["prompt_tokens"] == 7
    assert (body["id"], body["model"]) == (served.record.id, "m")
    assert header(outcome, "x-tz-dropped-params") == "store"
    assert served.record.usage.cache_read_tokens == 4
    ((_, _, message),) = served.sim.requests
    sent = dict(message.headers)
    assert message.start == "POST /v1/messages HTTP/1.1"
    assert (sent["x-api-key"], sent["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in sent
    assert msgspec.json.decode(message.body) == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 64_000,
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
    }


def test_stream_is_converted_piece_by_piece_and_ends_with_done():
    served = serve([stream(*EVENTS)])
    options = {"include_usage": True}
    found = events(served.ask(chat(stream=True, stream_options=options)))
    assert text_of(found) == "Hello"
    assert found[-1] == "[DONE]"
    assert found[-2]["usage"]["total_tokens"] == 5
    finishes = [c["finish_reason"] for f in found[:-1] for c in f["choices"]]
    assert finishes == [None, None, None, "stop"]
    assert {f["id"] for f in found[:-1]} == {served.record.id}
    assert served.record.outcome == "ok"


def test_stream_that_is_overloaded_before_content_falls_back_unseen():
    served = serve([stream(*EVENTS[:3], OVERLOADED)], [good()])
    found = events(served.ask(chat(stream=True)))
    assert [attempt.error for attempt in served.record.attempts] == ["status_529", None]
    assert text_of(found) == "Hello"


def test_stream_that_is_overloaded_after_content_ends_with_the_error():
    served = serve([stream(*EVENTS[:4], OVERLOADED)], [good()])
    found = events(served.ask(chat(stream=True)))
    assert text_of(found) == "Hel"
    assert found[-1]["error"]["code"] == "overloaded"
    assert "[DONE]" not in found
    assert len(served.record.attempts) == 1


def test_stream_that_ends_without_its_last_event_is_never_ended_cleanly():
    served = serve([stream(*EVENTS[:5])])
    found = events(served.ask(chat(stream=True)))
    assert found[-1]["error"]["code"] == "upstream_stream_interrupted"
    assert "[DONE]" not in found


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, "invalid_request_error", 400),
        (401, "authentication_error", 502),
        (404, "not_found_error", 404),
        (429, "rate_limit_error", 429),
        (529, "overloaded_error", 529),
    ],
)
def test_error_of_the_vendor_is_told_in_openais_words(status, kind, told):
    body = (
        f'{{"type":"error","error":{{"type":"{kind}","message":"Why."}},'
        '"request_id":"req_1"}'
    )
    served = serve([reply(status, JSON, body.encode())])
    found, error = error_of(served.ask())
    assert found == told
    assert set(error) == {"message", "type", "param", "code"}


def test_request_that_the_vendor_cannot_express_goes_to_the_next_provider():
    served = serve([refuse()], [good()])
    body = answer(served.ask(chat(seed=7)))
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert len(served.sim.requests) == 1


def test_request_that_nobody_can_express_names_provider_and_field():
    served = serve([refuse()])
    status, error = error_of(served.ask(chat(seed=7)))
    assert (status, error["param"]) == (400, "seed")
    assert "anthropic" in error["message"]
    assert served.sim.requests == []
