"""Embeddings: what is asked and answered passes; model and usage are ours."""

from __future__ import annotations

import json

import pytest

from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.errors import InvalidRequest, UpstreamGarbled
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.request import Identity, Target
from tz_protocol.types.usage import Usage

HEAD = RequestHead(method="POST", path="/v1/embeddings")
IDENTITY = Identity(id="ours", episode_id="episode", model="public", created=5)


def parse(body):
    return OPENAI_EMBEDDINGS.parse_request(body, HEAD)


@pytest.mark.parametrize(
    "rest",
    [
        b'"input":"text"',
        b'"input": ["one", "two"] ',
        b'"input":[1,2,3],"encoding_format":"base64"',
        b'"input":[[1],[2, 3]],"encoding_format":"float","dimensions":256',
        b'"input":"x","encoding_format":null,"dimensions":null,"user":"u","new":1e0',
    ],
)
def test_request_passes_as_it_was_written(rest):
    parsed = parse(b'{"model":"public",' + rest + b"}")
    request, losses = OPENAI_EMBEDDINGS.render_request(
        parsed, Target(provider="openai", model="text-embedding-3")
    )
    assert parsed.model == "public"
    assert not parsed.is_stream
    assert request.path == "embeddings"
    assert ("content-type", "application/json") in request.headers
    assert json.loads(request.body) == {
        **json.loads(b"{" + rest + b"}"),
        "model": "text-embedding-3",
    }
    assert losses == ()


def test_request_is_said_in_the_providers_words():
    request, losses = OPENAI_EMBEDDINGS.render_request(
        parse(b'{"model":"m","input":"x","dimensions":8,"user":"u"}'),
        Target(
            provider="mistral",
            model="t",
            renames={"dimensions": "output_dimension"},
            unsupported=frozenset({"user"}),
        ),
    )
    assert json.loads(request.body) == {
        "model": "t",
        "input": "x",
        "output_dimension": 8,
    }
    assert losses == ("user",)


@pytest.mark.parametrize(
    ("rest", "param", "code"),
    [
        (b'"user":"u"', "input", "missing_required_parameter"),
        (b'"input":null', "input", "invalid_type"),
        (b'"input":5', "input", "invalid_type"),
        (b'"input":{}', "input", "invalid_type"),
        (b'"input":""', "input", "empty_string"),
        (b'"input":[ ]', "input", "empty_array"),
        (b'"input":"x","encoding_format":"int8"', "encoding_format", "invalid_value"),
        (b'"input":"x","encoding_format":8', "encoding_format", "invalid_type"),
        (b'"input":"x","dimensions":"8"', "dimensions", "invalid_type"),
        (b'"input":"x","dimensions":0', "dimensions", "integer_below_min_value"),
    ],
)
def test_request_that_is_wrong_names_the_member(rest, param, code):
    with pytest.raises(InvalidRequest) as caught:
        parse(b'{"model":"m",' + rest + b"}")
    assert (caught.value.param, caught.value.code) == (param, code)


ANSWER = (
    b'{"object":"list","data":[{"object":"embedding","index":0,'
    b'"embedding":[0.10, -1e-3]}],"model":"text-embedding-3-small",'
    b'"usage":{"prompt_tokens":5,"total_tokens":5}}'
)


def test_answer_passes_with_our_name_of_the_model():
    parsed = parse(b'{"model":"m","input":"x"}')
    response = OPENAI_EMBEDDINGS.parse_response(ResponseHead(200), ANSWER)
    head, body = OPENAI_EMBEDDINGS.render_response(parsed, response, IDENTITY)
    assert response.usage == Usage(input_tokens=5, output_tokens=0)
    assert head == ResponseHead(200, (("content-type", "application/json"),))
    assert json.loads(body) == {**json.loads(ANSWER), "model": "public"}
    assert b"[0.10, -1e-3]" in body


def test_answer_in_base64_passes_and_an_id_becomes_ours():
    answer = b'{"id":"theirs","data":[{"embedding":"AACAPw=="}],"model":"x"}'
    response = OPENAI_EMBEDDINGS.parse_response(ResponseHead(200), answer)
    parsed = parse(b'{"model":"m","input":"x"}')
    _, body = OPENAI_EMBEDDINGS.render_response(parsed, response, IDENTITY)
    assert json.loads(body) == {
        "object": "list",
        "id": "ours",
        "model": "public",
        "data": [{"embedding": "AACAPw=="}],
    }
    assert response.usage is None


def test_answer_with_odd_usage_is_an_answer():
    answer = b'{"data":[],"usage":{"prompt_tokens":1e999}}'
    assert OPENAI_EMBEDDINGS.parse_response(ResponseHead(200), answer).usage is None


def test_answer_without_data_is_garbled():
    with pytest.raises(UpstreamGarbled, match="no data"):
        OPENAI_EMBEDDINGS.parse_response(ResponseHead(200), b'{"object":"list"}')


def test_format_has_no_streams():
    assert OPENAI_EMBEDDINGS.stream_decoder is None
    assert OPENAI_EMBEDDINGS.stream_encoder is None
