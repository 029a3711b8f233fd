"""OpenAI's embeddings in the words of the models at Bedrock."""

from __future__ import annotations

import base64
import json
import struct

import msgspec
import pytest
from msgspec import Raw

from tests.protocol.dialects.recordings import recordings, replay
from tz_protocol.dialects.bedrock_embeddings import BEDROCK_EMBEDDINGS
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.errors import InvalidRequest, UpstreamGarbled, UpstreamRefused
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Identity, ParsedRequest, Target
from tz_protocol.types.usage import Usage

TITAN = "amazon.titan-embed-text-v2:0"
TITAN_1 = "amazon.titan-embed-text-v1"
COHERE = "cohere.embed-english-v3"
COHERE_4 = "us.cohere.embed-v4:0"


def render(model, *, options=None, extra=None, **members):
    fields = msgspec.json.decode(msgspec.json.encode(members), type=dict[str, Raw])
    target = Target(
        provider="aws_bedrock",
        model=model,
        options=options or {},
        extra_body=extra or {},
    )
    request = ParsedRequest(model="m", fields=fields)
    return BEDROCK_EMBEDDINGS.render_request(request, target)


def refusal(*args, **members):
    with pytest.raises(InvalidRequest) as caught:
        render(*args, **members)
    return caught.value


@pytest.mark.parametrize("text", ["a", ["a"]])
def test_titan_takes_one_text(text):
    rendered, losses = render(
        TITAN, input=text, dimensions=256, encoding_format="float"
    )
    assert rendered.path == "model/amazon.titan-embed-text-v2%3A0/invoke"
    assert json.loads(rendered.body) == {"inputText": "a", "dimensions": 256}
    assert losses == ()


def test_titan_does_not_take_several():
    assert refusal(TITAN, input=["a", "b"]).param == "input"
    assert refusal(TITAN, input=[]).param == "input"


@pytest.mark.parametrize("model", [TITAN_1, COHERE])
def test_model_without_a_choice_of_dimensions_refuses_one(model):
    assert refusal(model, input="a", dimensions=256).param == "dimensions"


def test_cohere_takes_several_and_is_told_what_for():
    rendered, losses = render(COHERE, input=["a", "b"], user="u")
    expected = {"texts": ["a", "b"], "input_type": "search_document"}
    assert json.loads(rendered.body) == expected
    assert losses == ("user",)
    rendered, _ = render(COHERE, input="a", options={"input_type": "search_query"})
    assert json.loads(rendered.body)["input_type"] == "search_query"
    rendered, _ = render(COHERE_4, input="a", input_type="clustering", dimensions=512)
    body = json.loads(rendered.body)
    assert (body["input_type"], body["output_dimension"]) == ("clustering", 512)


def test_base64_is_made_of_the_numbers():
    request = ParsedRequest(
        model="m", fields={"encoding_format": Raw(b'"base64"'), "input": Raw(b'"a"')}
    )
    target = Target(provider="aws_bedrock", model=TITAN)
    assert BEDROCK_EMBEDDINGS.render_request(request, target)[1] == ()
    body = b'{"embedding":[0.5,-2],"inputTextTokenCount":1}'
    response = BEDROCK_EMBEDDINGS.parse_response(ResponseHead(200), body)
    identity = Identity(id="i", episode_id="e", model="m", created=1)
    _, answer = OPENAI_EMBEDDINGS.render_response(request, response, identity)
    (entry,) = json.loads(answer)["data"]
    assert struct.unpack("<2f", base64.b64decode(entry["embedding"])) == (0.5, -2.0)


def test_parameters_that_the_model_does_not_know_are_dropped_and_named():
    assert render(TITAN, input="a", user="u")[1] == ("user",)
    assert render(TITAN_1, input="a", user="u", normalize=True)[1] == (
        "normalize",
        "user",
    )
    options = {"on_unsupported_param": "drop"}
    assert render(TITAN, input="a", user="u", options=options)[1] == ()
    options = {"on_unsupported_param": "error"}
    assert refusal(TITAN, input="a", user="u", options=options).param == "user"


@pytest.mark.parametrize("tokens", [[1, 2], [[1]], {"a": 1}, 3])
def test_tokens_are_refused(tokens):
    assert refusal(COHERE, input=tokens).param == "input"


def test_model_of_another_family_is_refused():
    assert refusal("amazon.nova-2-multimodal-embeddings-v1:0", input="a").param == (
        "model"
    )


def test_extra_body_of_the_config_counts():
    rendered, _ = render(COHERE, input="a", extra={"truncate": Raw(b'"END"')})
    assert json.loads(rendered.body)["truncate"] == "END"


@pytest.mark.parametrize(
    ("body", "headers", "vectors", "tokens"),
    [
        ('{"embedding":[0.10,2e-3],"inputTextTokenCount":5}', (), "[[0.10,2e-3]]", 5),
        ('{"embeddings":[[1],[2]],"id":"x"}', ("7",), "[[1],[2]]", 7),
        ('{"embeddings":{"float":[[1],[2]]}}', ("x",), "[[1],[2]]", None),
        ('{"embeddings":{}}', (), "[]", None),
    ],
    ids=["titan", "cohere", "cohere by type", "none"],
)
def test_answer_of_each_form(body, headers, vectors, tokens):
    pairs = tuple(("x-amzn-bedrock-input-token-count", value) for value in headers)
    response = BEDROCK_EMBEDDINGS.parse_response(
        ResponseHead(200, pairs), body.encode()
    )
    assert numbers_of(response) == json.loads(vectors)
    if tokens is None:
        assert response.usage is None
    else:
        assert response.usage == Usage(input_tokens=tokens, output_tokens=0)
    if "0.10" in body:
        assert response.vectors == [Raw(b"[0.10,2e-3]")]


def numbers_of(response):
    return [json.loads(bytes(vector)) for vector in response.vectors]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"embedding":null}', b"\xff"])
def test_answer_without_vectors_is_garbled(body):
    with pytest.raises(UpstreamGarbled):
        BEDROCK_EMBEDDINGS.parse_response(ResponseHead(200), body)


def without_embeddings(recording):
    """Say why a recording is of another model of the service."""
    request = recording.request
    if not isinstance(request, dict) or not {"inputText", "texts"} & request.keys():
        return "no request for embeddings"
    if recording.head.status != 200 or b'"embedding' in recording.body:
        return None
    return "no answer with embeddings"


@replay(recordings("aws_bedrock", "invoke"), without_embeddings)
def test_corpus_bedrock_embeddings_read_and_render(recording):
    if recording.head.status != 200:
        error = BEDROCK_EMBEDDINGS.parse_error(recording.head, recording.body)
        assert isinstance(error, UpstreamRefused)
        return
    body = json.loads(recording.body)
    response = BEDROCK_EMBEDDINGS.parse_response(recording.head, recording.body)
    vectors = body.get("embeddings", [body.get("embedding")])
    if isinstance(vectors, dict):
        vectors = vectors["float"]
    assert vectors == numbers_of(response)
    assert response.usage is not None
    if "inputTextTokenCount" in body:
        assert response.usage.input_tokens == body["inputTextTokenCount"]
