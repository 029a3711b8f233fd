from __future__ import annotations

import json

import msgspec
import pytest

from tests.protocol.dialects.strategies import parsed
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.providers import PROVIDERS
from tz_protocol.types.http import HttpRequest, ResponseHead
from tz_protocol.types.request import Identity, ParsedRequest, Target
from tz_protocol.types.secret import Secret

HEAD = ResponseHead(200)
VOYAGE = PROVIDERS["voyage"]


def render(**members):
    deviations = VOYAGE.deviations
    target = Target(
        provider="voyage",
        model="voyage-3.5",
        renames=dict(deviations.renames),
        unsupported=deviations.unsupported,
        implied=dict(deviations.implied),
    )
    dialect = VOYAGE.dialect_of("embedding", {})
    assert dialect is OPENAI_EMBEDDINGS
    request, losses = dialect.render_request(parsed(members), target)
    return msgspec.json.decode(request.body), losses


@pytest.mark.parametrize(
    ("members", "sent", "losses"),
    [
        ({}, {}, ()),
        ({"encoding_format": "float"}, {}, ()),
        ({"encoding_format": "base64"}, {"encoding_format": "base64"}, ()),
        ({"dimensions": 256}, {"output_dimension": 256}, ()),
        ({"input_type": "query"}, {"input_type": "query"}, ()),
        ({"user": "u"}, {}, ("user",)),
    ],
    ids=["least", "float", "base64", "dimensions", "own", "user"],
)
def test_request_is_openais_but_for_what_the_row_says(members, sent, losses):
    body, lost = render(input="a", **members)
    assert body == {"model": "voyage-3.5", "input": "a", **sent}
    assert lost == losses


def test_usage_that_is_a_total_only_is_that_of_the_input():
    body = (
        b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AAAA"}],'
        b'"model":"voyage-3.5","usage":{"total_tokens":3}}'
    )
    response = OPENAI_EMBEDDINGS.parse_response(HEAD, body)
    assert response.usage is not None
    assert response.usage.input_tokens == 3
    identity = Identity(id="i", episode_id="e", model="public", created=5)
    request = ParsedRequest(model="public")
    _, rendered = OPENAI_EMBEDDINGS.render_response(request, response, identity)
    assert json.loads(rendered)["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_error_is_told_in_the_vendors_words():
    head, body = ResponseHead(400), b'{"detail":"Model x is not supported."}'
    error = OPENAI_EMBEDDINGS.parse_error(head, body)
    assert "Model x is not supported." in str(error)


def test_row_sends_the_key_as_openai_does():
    headers = VOYAGE.authorize(HttpRequest(path="embeddings"), Secret("k"), 0.0)
    assert headers == (("authorization", "Bearer k"),)
