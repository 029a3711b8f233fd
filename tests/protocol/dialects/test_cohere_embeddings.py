from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode

import msgspec
import pytest
from msgspec import Raw

from tests.protocol.dialects.recordings import recordings
from tests.protocol.dialects.strategies import parsed
from tz_protocol.dialects.cohere_embeddings import COHERE_EMBEDDINGS
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.errors import InvalidRequest, UpstreamGarbled, UpstreamRefused
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Identity, ParsedRequest, Target
from tz_protocol.types.usage import Usage

HEAD = ResponseHead(200)
IDENTITY = Identity(id="ours", episode_id="e", model="public", created=5)


def render(options=None, extra=None, **members):
    target = Target(
        provider="cohere",
        model="embed-v4.0",
        options=options or {},
        extra_body=extra or {},
    )
    rendered, losses = COHERE_EMBEDDINGS.render_request(parsed(members), target)
    assert rendered.path == "embed"
    return msgspec.json.decode(rendered.body), losses


def answer_of(body):
    response = COHERE_EMBEDDINGS.parse_response(HEAD, body)
    request = ParsedRequest(model="public")
    _, rendered = OPENAI_EMBEDDINGS.render_response(request, response, IDENTITY)
    return json.loads(rendered)


def test_request_golden():
    body, losses = render(
        input=["a", "b"], dimensions=256, encoding_format="base64", truncate="NONE"
    )
    assert body == {
        "model": "embed-v4.0",
        "texts": ["a", "b"],
        "input_type": "search_document",
        "embedding_types": ["base64"],
        "output_dimension": 256,
        "truncate": "NONE",
    }
    assert losses == ()


@pytest.mark.parametrize("format_", [{}, {"encoding_format": "float"}])
def test_one_text_is_a_list_and_floats_are_the_default(format_):
    body, _ = render(input="a", **format_)
    assert (body["texts"], body["embedding_types"]) == (["a"], ["float"])


@pytest.mark.parametrize(
    ("options", "members", "expected"),
    [
        ({}, {}, "search_document"),
        ({"input_type": "clustering"}, {}, "clustering"),
        ({"input_type": "clustering"}, {"input_type": "search_query"}, "search_query"),
    ],
    ids=["default", "table", "client"],
)
def test_input_type_is_the_clients_the_tables_or_the_default(
    options, members, expected
):
    assert render(options, input="a", **members)[0]["input_type"] == expected


@pytest.mark.parametrize("tokens", [[1, 2], [[1], [2]], ["a", 1]])
def test_tokens_are_refused_by_name(tokens):
    with pytest.raises(InvalidRequest) as caught:
        render(input=tokens)
    assert (caught.value.param, caught.value.status) == ("input", 400)
    assert "cohere" in caught.value.message


def test_what_the_vendor_does_not_know_is_dropped_and_named():
    body, losses = render(input="a", user="u", foo=1, dimensions=None)
    assert losses == ("foo", "user")
    assert not {"user", "foo", "output_dimension"} & set(body)


def test_policy_of_the_operator_applies_to_what_is_dropped():
    options = {"on_unsupported_param": "drop"}
    assert render(options, input="a", user="u")[1] == ()
    with pytest.raises(InvalidRequest) as caught:
        render({"on_unsupported_param": "error"}, input="a", user="u")
    assert caught.value.param == "user"


def test_extra_body_of_the_config_has_the_last_word():
    extra = {"input_type": Raw(b'"image"')}
    assert render(extra=extra, input="a")[0]["input_type"] == "image"


def test_answer_has_the_vectors_as_the_vendor_wrote_them():
    body = (
        b'{"id":"x","embeddings":{"float":[[0.10, -1e-05],[2.0]]},"texts":["a","b"],'
        b'"meta":{"billed_units":{"input_tokens":7,"image_tokens":2}}}'
    )
    response = COHERE_EMBEDDINGS.parse_response(HEAD, body)
    assert b"[0.10, -1e-05]" in bytes(response.fields["data"])
    assert response.usage == Usage(input_tokens=9, output_tokens=0)
    assert answer_of(body) == {
        "object": "list",
        "model": "public",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.1, -1e-05]},
            {"object": "embedding", "index": 1, "embedding": [2.0]},
        ],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }


def test_answer_in_base64_is_openais_base64():
    vector = b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    value = {"embeddings": {"float": None, "base64": [vector]}}
    (entry,) = answer_of(msgspec.json.encode(value))["data"]
    assert struct.unpack("<2f", b64decode(entry["embedding"])) == (0.5, -2.0)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", UpstreamGarbled),
        (b'{"id":"x"}', UpstreamGarbled),
        (b'{"embeddings":7}', UpstreamGarbled),
        (b'{"id":"x","message":"no"}', UpstreamRefused),
    ],
)
def test_answer_without_vectors_is_refused(body, kind):
    with pytest.raises(kind):
        COHERE_EMBEDDINGS.parse_response(HEAD, body)


@pytest.mark.parametrize("recording", recordings("cohere", "cohere.embed"))
def test_corpus_cohere_embeddings_say_the_same_to_our_client(recording):
    theirs = json.loads(recording.body)
    if recording.head.status != 200:
        error = COHERE_EMBEDDINGS.parse_error(recording.head, recording.body)
        assert isinstance(error, UpstreamRefused)
        assert error.status == recording.head.status
        assert error.message == theirs.get("message", error.message)
        return
    ours = answer_of(recording.body)
    vectors = theirs["embeddings"]
    if isinstance(vectors, dict):
        (vectors,) = filter(None, vectors.values())
    assert [entry["embedding"] for entry in ours["data"]] == vectors
    units = (theirs.get("meta") or {}).get("billed_units") or {}
    count = units.get("input_tokens")
    assert ours.get("usage", {}).get("total_tokens") == count
