from __future__ import annotations

import json

import msgspec
import pytest

from tests.protocol.dialects.checking import (
    byte_by_byte,
    chunk_objects,
    collected,
    comparable,
    decoded,
    decoder_of,
    faults,
    message_of_chunks,
    message_of_whole,
    schema,
    whole_object,
)
from tests.protocol.dialects.recordings import recordings
from tests.protocol.dialects.strategies import parsed
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.dialects.vertex_anthropic import VERTEX_ANTHROPIC
from tz_protocol.errors import UpstreamRefused
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Target
from tz_protocol.types.stream import StreamFailed

MODEL = "claude-sonnet-4-5@20250929"
PLACE = {"project_id": "p-1", "location": "us-east5"}
BODY = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


def render(dialect, *, is_stream=False):
    target = Target(provider="gcp_vertex_anthropic", model=MODEL, options=PLACE)
    request, losses = dialect.render_request(parsed(BODY, is_stream=is_stream), target)
    assert losses == ()
    return request


@pytest.mark.parametrize(
    ("is_stream", "method"), [(False, "rawPredict"), (True, "streamRawPredict")]
)
def test_request_is_anthropics_in_another_envelope(is_stream, method):
    rendered = render(VERTEX_ANTHROPIC, is_stream=is_stream)
    place = "projects/p-1/locations/us-east5/publishers/anthropic/models"
    assert rendered.path == f"{place}/{MODEL}:{method}"
    assert rendered.is_stream is is_stream
    assert [name for name, _ in rendered.headers] == ["content-type"]
    body = msgspec.json.decode(rendered.body)
    theirs = msgspec.json.decode(render(ANTHROPIC, is_stream=is_stream).body)
    assert body.pop("anthropic_version") == "vertex-2023-10-16"
    assert theirs.pop("model") == MODEL
    assert body == theirs


@pytest.mark.parametrize(
    ("status", "value", "facts"),
    [
        (
            429,
            {"error": {"code": 429, "message": "q", "status": "RESOURCE_EXHAUSTED"}},
            (429, "rate_limit_error", "rate_limit_exceeded"),
        ),
        (
            403,
            [{"error": {"code": 403, "message": "p", "status": "PERMISSION_DENIED"}}],
            (403, "permission_error", "permission_denied"),
        ),
        (
            529,
            {"type": "error", "error": {"type": "overloaded_error", "message": "o"}},
            (529, "server_error", "overloaded"),
        ),
    ],
    ids=["google", "google's list", "anthropic"],
)
def test_errors_of_both_vendors_are_translated(status, value, facts):
    body = json.dumps(value).encode()
    error = VERTEX_ANTHROPIC.parse_error(ResponseHead(status), body)
    assert isinstance(error, UpstreamRefused)
    assert (error.status, error.kind, error.code) == facts


@pytest.mark.parametrize(
    "recording",
    recordings("gcp_vertex_anthropic", "rawPredict", "streamRawPredict"),
)
def test_corpus_vertex_anthropic_answer_reads_and_renders(recording):
    body, head = recording.body, recording.head
    if head.status != 200:
        assert isinstance(VERTEX_ANTHROPIC.parse_error(head, body), UpstreamRefused)
        return
    if not recording.is_stream:
        completion = VERTEX_ANTHROPIC.parse_response(head, body)
        value = whole_object(completion)
        validator = schema("openai.json", "CreateChatCompletionResponse")
        assert not faults(validator, value)
        text = "".join(
            block["text"] or ""
            for block in json.loads(body)["content"]
            if block["type"] == "text"
        )
        assert message_of_whole(value)["content"] == text
        assert completion.model == json.loads(body)["model"]
        return
    events = decoded(decoder_of(VERTEX_ANTHROPIC, head), [body])
    split = decoded(decoder_of(VERTEX_ANTHROPIC, head), byte_by_byte(body))
    assert comparable(events) == comparable(split)
    if isinstance(events[-1], StreamFailed):
        # An error, or cut by whoever recorded it.
        assert b'"error"' in body or b'"message_stop"' not in body
        return
    chunks = chunk_objects(events)
    validator = schema("openai.json", "CreateChatCompletionStreamResponse")
    assert not [fault for chunk in chunks for fault in faults(validator, chunk)]
    whole = message_of_whole(whole_object(collected(events)))
    assert message_of_chunks(chunks)["content"] == whole["content"]
    assert message_of_chunks(chunks)["tool_calls"] == whole["tool_calls"]
