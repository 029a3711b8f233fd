from __future__ import annotations

import json

import pytest
from openai.types import Moderation

from tests.protocol.dialects.strategies import parsed
from tz_protocol.dialects.mistral_moderations import MISTRAL_MODERATIONS
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS
from tz_protocol.errors import UpstreamGarbled, UpstreamRefused
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Identity, ParsedRequest, Target

HEAD = ResponseHead(200)
ANSWER = (
    b'{"id":"x","model":"mistral-moderation-2603","results":[{"categories":{"sexual":'
    b'false,"hate_and_discrimination":true,"selfharm":false,"pii":true},'
    b'"category_scores":{"sexual":1.50e-3,"hate_and_discrimination":0.9,"selfharm":0.0,'
    b'"pii":0.8}},{"categories":{"criminal":false},"category_scores":{"criminal":0.1}}]}'
)


def rendered(body):
    response = MISTRAL_MODERATIONS.parse_response(HEAD, body)
    identity = Identity(id="ours", episode_id="e", model="public", created=5)
    request = ParsedRequest(model="public")
    return OPENAI_MODERATIONS.render_response(request, response, identity)[1]


def test_answer_is_in_openais_categories_and_the_vendors_beside_them():
    body = rendered(ANSWER)
    assert b"1.50e-3" in body
    value = json.loads(body)
    assert (value["id"], value["model"]) == ("ours", "public")
    first, second = value["results"]
    assert first["flagged"] is True
    said = {"sexual": False, "hate": True, "self-harm": False, "pii": True}
    assert first["categories"].items() >= said.items()
    assert first["category_scores"]["hate"] == 0.9
    assert first["category_applied_input_types"]["pii"] == ["text"]
    assert (second["flagged"], second["categories"]["illicit"]) == (False, False)


def test_category_that_the_vendor_does_not_judge_applies_to_no_input():
    (first, _) = json.loads(rendered(ANSWER))["results"]
    assert first["categories"]["sexual/minors"] is False
    assert first["category_scores"]["sexual/minors"] == 0
    inputs = first["category_applied_input_types"]
    assert (inputs["sexual/minors"], inputs["sexual"]) == ([], ["text"])
    # Clients read OpenAI's categories as attributes of an object that has them all.
    Moderation.model_validate(first)


def test_request_is_openais():
    target = Target(provider="mistral", model="mistral-moderation-latest")
    request, losses = MISTRAL_MODERATIONS.render_request(
        parsed({"input": ["a"]}), target
    )
    assert (request.path, losses) == ("moderations", ())
    assert json.loads(request.body) == {
        "model": "mistral-moderation-latest",
        "input": ["a"],
    }


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{}", UpstreamGarbled),
        (b'{"results":[{"flagged":true}]}', UpstreamGarbled),
        (b'{"results":[1]}', UpstreamGarbled),
        (b'{"object":"error","message":"no","code":"1500"}', UpstreamRefused),
    ],
)
def test_answer_without_judgement_is_refused(body, kind):
    with pytest.raises(kind):
        MISTRAL_MODERATIONS.parse_response(HEAD, body)
