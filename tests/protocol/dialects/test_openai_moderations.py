"""Moderations: what is judged and the judgement pass."""

from __future__ import annotations

import json

import pytest

from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS
from tz_protocol.errors import InvalidRequest, UpstreamGarbled
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.request import Identity, Target

HEAD = RequestHead(method="POST", path="/v1/moderations")
IDENTITY = Identity(id="ours", episode_id="episode", model="public", created=5)
PARTS = [
    {"type": "text", "text": "a"},
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
]


def parse(**members):
    return OPENAI_MODERATIONS.parse_request(json.dumps(members).encode(), HEAD)


@pytest.mark.parametrize("value", ["text", ["one", "two"], PARTS])
def test_request_passes(value):
    parsed = parse(model="m", input=value)
    target = Target(provider="openai", model="omni-moderation-latest")
    request, losses = OPENAI_MODERATIONS.render_request(parsed, target)
    assert request.path == "moderations"
    assert json.loads(request.body) == {
        "model": "omni-moderation-latest",
        "input": value,
    }
    assert losses == ()


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": "x"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": 5}, "input"),
        ({"model": "m", "input": []}, "input"),
    ],
)
def test_request_that_is_wrong_names_the_member(members, param):
    with pytest.raises(InvalidRequest) as caught:
        parse(**members)
    assert caught.value.param == param


def test_answer_passes_with_our_identity():
    answer = (
        b'{"id":"modr-1","model":"omni","results":[{"flagged":true,'
        b'"category_scores":{"violence":1.0e-5}}],"extra":1}'
    )
    response = OPENAI_MODERATIONS.parse_response(ResponseHead(200), answer)
    parsed = parse(model="m", input="x")
    head, body = OPENAI_MODERATIONS.render_response(parsed, response, IDENTITY)
    assert head == ResponseHead(200, (("content-type", "application/json"),))
    assert json.loads(body) == {**json.loads(answer), "id": "ours", "model": "public"}
    assert b"1.0e-5" in body
    assert response.usage is None


def test_answer_without_results_is_garbled():
    with pytest.raises(UpstreamGarbled, match="no results"):
        OPENAI_MODERATIONS.parse_response(ResponseHead(200), b'{"id":"modr-1"}')
