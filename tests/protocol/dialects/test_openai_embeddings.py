"""Embeddings: what is asked and answered passes; model and usage are ours."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        "data": [{"embedding": "AACAPw==", "index": 0}],
    }
    assert response.usage is None


def items_of(items):
    answer = json.dumps({"data": items}).encode()
    response = OPENAI_EMBEDDINGS.parse_response(ResponseHead(200), answer)
    return json.loads(bytes(response.fields["data"]))


def item(vector, **members):
    return {"object": "embedding", "embedding": vector, **members}


@pytest.mark.parametrize(
    "indexes",
    [
        [{"index": 2}, {"index": 0}, {"index": 1}],
        [{"index": 3}, {"index": 1}, {"index": 2}],
        [{"index": 2.0}, {"index": 0.0}, {"index": 1.0}],
    ],
    ids=["unsorted", "from 1", "as numbers with a point"],
)
def test_vectors_stand_in_the_order_of_their_inputs(indexes):
    third, first, second = ([7.0], [5.0], "AACAPw==")
    items = [
        item(vector, **index)
        for vector, index in zip((third, first, second), indexes, strict=True)
    ]
    found = items_of(items)
    assert [one["embedding"] for one in found] == [first, second, third]
    assert [one["index"] for one in found] == [0, 1, 2]
    assert {one["object"] for one in found} == {"embedding"}


@pytest.mark.parametrize(
    "index", [{}, {"index": None}, {"index": 0}, {"index": "x"}], ids=repr
)
def test_vectors_without_numbers_of_their_own_are_in_order(index):
    found = items_of([item([float(number)], **index) for number in range(3)])
    assert [one["index"] for one in found] == [0, 1, 2]
    assert [one["embedding"] for one in found] == [[0.0], [1.0], [2.0]]


def test_gap_between_vectors_is_not_closed():
    found = items_of([item([2.0], index=2), item([0.0], index=0)])
    assert [one["index"] for one in found] == [0, 2]


def test_vectors_in_order_are_the_bytes_that_they_were():
    data = b'[{"index": 0, "embedding": [1.50]},{"embedding":"AACAPw==","index":1 }]'
    answer = b'{"data":' + data + b"}"
    response = OPENAI_EMBEDDINGS.parse_response(ResponseHead(200), answer)
    assert bytes(response.fields["data"]) == data


@given(
    st.lists(
        st.none()
        | st.integers()
        | st.dictionaries(
            st.sampled_from(["index", "embedding", "object"]),
            st.none() | st.integers() | st.floats() | st.text() | st.lists(st.floats()),
        ),
        max_size=5,
    )
)
def test_answer_of_anything_is_an_answer(items):
    answer = msgspec.json.encode({"data": items})
    response = OPENAI_EMBEDDINGS.parse_response(ResponseHead(200), answer)
    assert len(json.loads(bytes(response.fields["data"]))) == len(items)


def test_answer_with_odd_usage_is_an_answer():
    answer = b'{"data":[],"usage":{"prompt_tokens":1e999}}'
    assert OPENAI_EMBEDDINGS.parse_response(ResponseHead(200), answer).usage is None


def test_answer_without_data_is_garbled():
    with pytest.raises(UpstreamGarbled, match="no data"):
        OPENAI_EMBEDDINGS.parse_response(ResponseHead(200), b'{"object":"list"}')


def test_format_has_no_streams():
    assert OPENAI_EMBEDDINGS.stream_decoder is None
    assert OPENAI_EMBEDDINGS.stream_encoder is None
