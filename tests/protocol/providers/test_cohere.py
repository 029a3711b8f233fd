"""A caller that speaks OpenAI's formats, a provider that speaks Cohere's."""

from __future__ import annotations

import msgspec

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
from tz_protocol.providers.cohere import COHERE
from tz_protocol.testing import refuse, reply, sse
from tz_protocol.types.http import HttpRequest

WHOLE = (
    b'{"id":"x","message":{"role":"assistant","content":[{"type":"text","text":'
    b'"Hello"}]},"finish_reason":"COMPLETE","usage":{"tokens":{"input_tokens":7,'
    b'"output_tokens":1},"cached_tokens":4}}'
)
EVENTS = (
    '{"type":"message-start","id":"x","delta":{"message":{"role":"assistant"}}}',
    (
        '{"type":"content-start","index":0,"delta":{"message":{"content":'
        '{"type":"text","text":""}}}}'
    ),
    '{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hel"}}}}',
    '{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"lo"}}}}',
    '{"type":"content-end","index":0}',
    (
        '{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"tokens":'
        '{"input_tokens":3,"output_tokens":2}}}}'
    ),
)


def serve(*upstreams):
    """Return a gateway whose first provider is Cohere."""
    config = snapshot(("a.test", "b.test")[: len(upstreams)])
    table = config.models["m"]
    first = msgspec.structs.replace(
        table.providers["a"], type="cohere", model="command-a-03-2025"
    )
    models = {
        "m": msgspec.structs.replace(table, providers={**table.providers, "a": first})
    }
    served = Served(*upstreams, config=msgspec.structs.replace(config, models=models))
    served.gateway.providers = {**PROVIDERS, "cohere": COHERE}
    return served


def test_row_needs_a_key_and_takes_an_address():
    assert COHERE.credential == "env::COHERE_API_KEY"
    assert "api_base" in COHERE.optional
    assert COHERE.authorize(HttpRequest(path="chat"), None, 0.0) == ()


def test_whole_answer_is_converted_and_stamped():
    served = serve([reply(200, JSON, WHOLE)])
    outcome = served.ask(chat(temperature=0.5, store=True))
    body = answer(outcome)
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    assert (body["id"], body["model"]) == (served.record.id, "m")
    assert header(outcome, "x-tz-dropped-params") == "store"
    ((_, _, message),) = served.sim.requests
    assert message.start == "POST /v1/chat HTTP/1.1"
    assert dict(message.headers)["authorization"] == f"Bearer {KEY}"
    assert msgspec.json.decode(message.body) == {
        "model": "command-a-03-2025",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
    }


def test_stream_is_converted_piece_by_piece_and_ends_with_done():
    served = serve([sse(*EVENTS, end=b"")])
    options = {"include_usage": True}
    found = events(served.ask(chat(stream=True, stream_options=options)))
    assert text_of(found) == "Hello"
    assert found[-1] == "[DONE]"
    assert found[-2]["usage"]["total_tokens"] == 5


def test_stream_that_is_cut_is_never_ended_cleanly():
    served = serve([sse(*EVENTS[:4], end=b"")])
    found = events(served.ask(chat(stream=True)))
    assert found[-1]["error"]["code"] == "upstream_stream_interrupted"


def test_request_that_the_vendor_cannot_express_goes_to_the_next_provider():
    served = serve([refuse()], [good()])
    body = answer(served.ask(chat(logprobs=True)))
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert len(served.sim.requests) == 1


def test_error_of_the_vendor_is_told_in_openais_words():
    body = b'{"id":"x","message":"model \'x\' not found"}'
    status, error = error_of(serve([reply(404, JSON, body)]).ask())
    assert (status, error["code"]) == (404, "model_not_found")
