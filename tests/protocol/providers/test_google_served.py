"""Google's models behind OpenAI's endpoints, in a simulated world."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.protocol.flows.serving import JSON, answer, error_of, events
from tz_protocol.gateway import Gateway
from tz_protocol.providers import PROVIDERS
from tz_protocol.providers.base import Provider
from tz_protocol.providers.google import GOOGLE
from tz_protocol.testing import ScriptedRequest, Simulator, World, reply
from tz_protocol.types.http import RequestHead
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import (
    Credential,
    Model,
    ProviderSettings,
    Snapshot,
    Url,
)

PART = {"parts": [{"text": "Hello"}], "role": "model"}
RESPONSE = {
    "candidates": [{"content": PART, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {
        "promptTokenCount": 3,
        "candidatesTokenCount": 1,
        "totalTokenCount": 4,
    },
    "modelVersion": "gemini-2.5-flash",
    "responseId": "r",
}
VECTORS = {"embeddings": [{"values": [0.5]}], "usageMetadata": {"promptTokenCount": 2}}
CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
ROWS: dict[str, Provider] = {**PROVIDERS, **{row.name: row for row in GOOGLE}}


def body_of(value):
    return json.dumps(value).encode()


def serve(kind, steps, request, path="/v1/chat/completions"):
    """Ask a gateway whose one model is a provider's of type *kind*."""
    world = World()
    world.upstream("a.test", 80, steps)
    sim = Simulator(world)
    settings = ProviderSettings(
        name="a",
        type=kind,
        model="the-model",
        url=Url("http", "a.test", 80, "/base/"),
        credential=Credential("static", Secret("key-1")),
        options={"project_id": "p", "location": "l"},
    )
    model = Model(
        name="m",
        capabilities=frozenset({"chat", "embedding"}),
        routing=("a",),
        providers={"a": settings},
    )
    counter = itertools.count(1)
    gateway = Gateway(
        Snapshot(models={"m": model}),
        wall_clock=lambda: 1_750_000_000.0,
        new_id=lambda: f"01890000-0000-7000-8000-{next(counter):012x}",
        jitter=lambda: 0.5,
        context=sim.context,
        providers=ROWS,
    )
    head = RequestHead(method="POST", path=path, headers=JSON)
    outcome = sim.spawn(
        gateway.handle(head), request=ScriptedRequest((body_of(request),))
    )
    sim.run_until_done(outcome)
    ((_, _, message), *_) = sim.requests
    return outcome, repr(message)


ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("kind", "value", "place", "header"),
    [
        (
            "google_ai_studio_gemini",
            RESPONSE,
            "/base/models/the-model:generateContent",
            "x-goog-api-key",
        ),
        (
            "gcp_vertex_gemini",
            RESPONSE,
            "/base/projects/p/locations/l/publishers/google/models/the-model:generate",
            "Bearer key-1",
        ),
        (
            "gcp_vertex_anthropic",
            CLAUDE,
            "/base/projects/p/locations/l/publishers/anthropic/models/the-model:raw",
            "Bearer key-1",
        ),
    ],
)
def test_chat_is_asked_and_answered(kind, value, place, header):
    outcome, sent = serve(kind, reply(200, JSON, body_of(value)), ASK)
    made = answer(outcome)
    assert made["choices"][0]["message"]["content"] == "Hello"
    assert made["choices"][0]["finish_reason"] == "stop"
    assert made["usage"]["total_tokens"] == 4
    assert place in sent
    assert header in sent


def test_chat_is_streamed():
    body = b"data: " + body_of(RESPONSE) + b"\r\n\r\n"
    steps = reply(200, (("content-type", "text/event-stream"),), body)
    outcome, sent = serve(
        "google_ai_studio_gemini",
        steps,
        {**ASK, "stream": True, "stream_options": {"include_usage": True}},
    )
    *chunks, end = events(outcome)
    assert end == "[DONE]"
    text = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
    assert "".join(filter(None, text)) == "Hello"
    assert chunks[-1]["usage"]["total_tokens"] == 4
    assert ":streamGenerateContent?alt=sse" in sent


def test_embeddings_are_asked_and_answered():
    outcome, sent = serve(
        "google_ai_studio_gemini",
        reply(200, JSON, body_of(VECTORS)),
        {"model": "m", "input": "a"},
        "/v1/embeddings",
    )
    assert answer(outcome)["data"][0]["embedding"] == [0.5]
    assert ":batchEmbedContents" in sent


def test_error_of_the_provider_is_told_in_openais_words():
    error = {"code": 404, "message": "models/x is not found", "status": "NOT_FOUND"}
    steps = reply(404, JSON, body_of({"error": error}))
    outcome, _ = serve("google_ai_studio_gemini", steps, ASK)
    status, told = error_of(outcome)
    assert status in (404, 502)
    assert told["code"] == "model_not_found"
