from __future__ import annotations

import json
import struct
from base64 import b64decode
from typing import Any

import msgspec
import pytest

from tests.protocol.dialects.checking import faults, schema
from tests.protocol.dialects.gemini_reading import strange
from tests.protocol.dialects.recordings import recordings
from tests.protocol.dialects.strategies import parsed
from tz_protocol.dialects.gemini_embeddings import (
    GEMINI_EMBEDDINGS,
    VERTEX_EMBEDDINGS,
)
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.errors import InvalidRequest, UpstreamGarbled, UpstreamRefused
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Identity, Target

HEAD = ResponseHead(200)
IDENTITY = Identity(id="ours", episode_id="e", model="public", created=5)
PLACE = {"project_id": "p", "location": "l"}
DIALECTS = {"gemini": GEMINI_EMBEDDINGS, "vertex": VERTEX_EMBEDDINGS}


def render(name="gemini", options=None, **members):
    target = Target(provider=name, model="m-1", options={**PLACE, **(options or {})})
    request, losses = DIALECTS[name].render_request(parsed(members), target)
    return request.path, msgspec.json.decode(request.body), losses


def answer_of(name, body, **members):
    """Return what a client that asked with *members* gets."""
    response = DIALECTS[name].parse_response(HEAD, body)
    _, rendered = OPENAI_EMBEDDINGS.render_response(parsed(members), response, IDENTITY)
    return json.loads(rendered)


# -- requests -------------------------------------------------------------------


def test_request_to_ai_studio_golden():
    path, body, losses = render(
        input=["a", "b"],
        dimensions=256,
        encoding_format="base64",
        taskType="CLUSTERING",
    )
    assert path == "models/m-1:batchEmbedContents"
    common = {
        "model": "models/m-1",
        "outputDimensionality": 256,
        "taskType": "CLUSTERING",
    }
    assert body == {
        "requests": [
            {**common, "content": {"parts": [{"text": text}]}} for text in "ab"
        ]
    }
    assert not strange(body, "BatchEmbedContentsRequest")
    assert losses == ()


def test_request_to_vertex_golden():
    path, body, losses = render(
        "vertex", input="a", dimensions=256, title="t", user=None, taskType="X"
    )
    assert path == "projects/p/locations/l/publishers/google/models/m-1:predict"
    assert body == {
        "instances": [{"content": "a", "task_type": "X", "title": "t"}],
        "parameters": {"outputDimensionality": 256},
    }
    assert losses == ()


@pytest.mark.parametrize("name", DIALECTS)
def test_what_has_no_word_is_named(name):
    assert render(name, input="a", user="u", foo=1)[2] == ("foo", "user")
    options = {"on_unsupported_param": "drop"}
    assert render(name, options, input="a", user="u")[2] == ()
    with pytest.raises(InvalidRequest) as caught:
        render(name, {"on_unsupported_param": "error"}, input="a", user="u")
    assert caught.value.param == "user"


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("tokens", [[1, 2], [[1], [2]], ["a", 1]])
def test_tokens_of_another_model_are_refused(name, tokens):
    with pytest.raises(InvalidRequest) as caught:
        render(name, input=tokens)
    assert caught.value.param == "input"


# -- answers --------------------------------------------------------------------

GEMINI_BODY = (
    b'{"embeddings":[{"values":[0.50,-1.0e-3]},{"values":[1,2]}],'
    b'"usageMetadata":{"promptTokenCount":7}}'
)
VERTEX_BODY = (
    b'{"predictions":[{"embeddings":{"values":[0.50,-1.0e-3],"statistics":'
    b'{"token_count":3,"truncated":false}}},{"embeddings":{"values":[1,2],'
    b'"statistics":{"token_count":4}}}]}'
)


@pytest.mark.parametrize(
    ("name", "body"), [("gemini", GEMINI_BODY), ("vertex", VERTEX_BODY)]
)
def test_answer_passes_the_numbers_as_they_were_written(name, body):
    response = DIALECTS[name].parse_response(HEAD, body)
    _, rendered = OPENAI_EMBEDDINGS.render_response(
        parsed({"input": ["a", "b"]}), response, IDENTITY
    )
    assert b'"embedding":[0.50,-1.0e-3]' in rendered
    assert json.loads(rendered) == {
        "object": "list",
        "model": "public",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -0.001]},
            {"object": "embedding", "index": 1, "embedding": [1, 2]},
        ],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_answer_in_base64_is_little_endian_float32():
    value = answer_of("gemini", GEMINI_BODY, input="a", encoding_format="base64")
    packed = b64decode(value["data"][1]["embedding"])
    assert struct.unpack("<2f", packed) == (1.0, 2.0)


def test_answer_that_counts_nothing_has_no_usage():
    value = answer_of("gemini", b'{"embeddings":[{"values":[1]}]}', input="a")
    assert "usage" not in value


@pytest.mark.parametrize("name", DIALECTS)
def test_error_in_an_answer_is_told_and_nonsense_is_garbled(name):
    body = b'{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}'
    with pytest.raises(UpstreamRefused) as caught:
        DIALECTS[name].parse_response(HEAD, body)
    assert caught.value.status == 503
    for body in (b"", b"{}", b"[]"):
        with pytest.raises(UpstreamGarbled):
            DIALECTS[name].parse_response(HEAD, body)


# -- recordings -----------------------------------------------------------------


@pytest.mark.parametrize(
    "recording", recordings("google_ai_studio_gemini", "batchEmbedContents")
)
def test_corpus_gemini_embeddings_read_and_render(recording):
    check(recording, "gemini", lambda body: body["embeddings"])


@pytest.mark.parametrize("recording", recordings("gcp_vertex_gemini", "predict"))
def test_corpus_vertex_embeddings_read_and_render(recording):
    check(
        recording,
        "vertex",
        lambda body: [one["embeddings"] for one in body["predictions"]],
    )


def check(recording, name, vectors_of):
    dialect: Any = DIALECTS[name]
    if recording.head.status != 200:
        error = dialect.parse_error(recording.head, recording.body)
        assert isinstance(error, UpstreamRefused)
        assert error.status == recording.head.status
        return
    value = answer_of(name, recording.body, input="a")
    validator = schema("openai.json", "CreateEmbeddingResponse")
    allowed = [] if "usage" in value else [": 'usage' is a required property"]
    assert faults(validator, value) == allowed
    vectors = vectors_of(json.loads(recording.body))
    assert [one["embedding"] for one in value["data"]] == [v["values"] for v in vectors]
    assert [one["index"] for one in value["data"]] == list(range(len(vectors)))
