from __future__ import annotations

import json

import msgspec
import pytest
from openai.types import Moderation

from tests.protocol.dialects.strategies import parsed
from tests.protocol.flows.serving import (
    HOSTS,
    JSON,
    KEY,
    Served,
    answer,
    error_of,
    refusal,
    snapshot,
)
from tests.protocol.samples import Sample, as_json
from tz_protocol.dialects.azure_moderations import AZURE_MODERATIONS
from tz_protocol.dialects.openai_moderations import OPENAI_MODERATIONS
from tz_protocol.errors import InvalidRequest, UpstreamGarbled
from tz_protocol.testing import reply
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Identity, ParsedRequest, Target
from tz_protocol.types.settings import Url

HEAD = ResponseHead(200)
TARGET = Target(provider="azure", model="d", emulated_choices=3)


def analysis(**severities):
    found = [{"category": name, "severity": n} for name, n in severities.items()]
    return {"blocklistsMatch": [], "categoriesAnalysis": found}


SAMPLE = Sample(
    answer=as_json(analysis(Hate=0, SelfHarm=0, Sexual=0, Violence=0)),
    error=as_json({"error": {"code": "InvalidRequestBody", "message": "No way."}}, 400),
)


def rendered(value):
    response = AZURE_MODERATIONS.parse_response(HEAD, json.dumps(value).encode())
    identity = Identity(id="ours", episode_id="e", model="public", created=5)
    request = ParsedRequest(model="public")
    body = OPENAI_MODERATIONS.render_response(request, response, identity)[1]
    return json.loads(body)


@pytest.mark.parametrize(
    "value",
    ["a", ["a"], [{"type": "text", "text": "a"}]],
    ids=["text", "list", "part"],
)
def test_text_is_asked_for_with_all_levels(value):
    request, losses = AZURE_MODERATIONS.render_request(
        parsed({"input": value, "blocklistNames": ["mine"], "user": "u"}), TARGET
    )
    assert msgspec.json.decode(request.body) == {
        "text": "a",
        "outputType": "EightSeverityLevels",
        "blocklistNames": ["mine"],
    }
    assert request.path == "text:analyze"
    assert request.others == ()
    assert losses == ("user",)


def test_texts_are_asked_for_one_by_one():
    request, _ = AZURE_MODERATIONS.render_request(
        parsed({"input": ["a", "b", "c"], "categories": ["Hate"]}), TARGET
    )
    bodies = [msgspec.json.decode(body) for body in (request.body, *request.others)]
    assert [body["text"] for body in bodies] == ["a", "b", "c"]
    assert all(body["categories"] == ["Hate"] for body in bodies)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["a"] * 4, ("at most 3 times", "gateway.limits.emulated_choices")),
        ([{"type": "image_url", "image_url": {"url": "https://e.org/a"}}], ("string",)),
        ([{"type": "text", "text": "a"}] * 2, ("string",)),
        ([1], ("string",)),
    ],
    ids=["many", "picture", "parts", "number"],
)
def test_what_cannot_be_judged_is_refused_by_name(value, words):
    with pytest.raises(InvalidRequest) as caught:
        AZURE_MODERATIONS.render_request(parsed({"input": value}), TARGET)
    assert (caught.value.param, caught.value.code) == ("input", "unsupported_parameter")
    for word in ("azure", "input", *words):
        assert word in caught.value.message


@pytest.mark.parametrize(("severity", "flagged"), [(0, False), (3, False), (4, True)])
def test_category_is_true_from_the_level_at_which_azure_blocks(severity, flagged):
    value = rendered(analysis(Hate=0, SelfHarm=severity, Sexual=0, Violence=0))
    (result,) = value["results"]
    assert (value["id"], value["model"]) == ("ours", "public")
    assert result["flagged"] is flagged
    assert result["categories"]["self-harm"] is flagged
    assert result["category_scores"]["self-harm"] == severity / 7
    assert result["category_applied_input_types"]["self-harm"] == ["text"]
    assert result["category_applied_input_types"]["illicit"] == []
    Moderation.model_validate(result)


def test_text_on_a_list_of_the_operators_is_flagged():
    match = {"blocklistName": "mine", "blocklistItemId": "1", "blocklistItemText": "a"}
    (result,) = rendered({**analysis(Hate=0), "blocklistsMatch": [match]})["results"]
    assert (result["flagged"], result["categories"]["blocklist"]) == (True, True)
    assert not result["categories"]["hate"]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"\xff",
        b'{"categoriesAnalysis":[{"category":"Hate","severity":8}]}',
        b'{"categoriesAnalysis":[{"category":"Hate","severity":-1}]}',
    ],
)
def test_answer_without_its_categories_is_garbled(body):
    with pytest.raises(UpstreamGarbled):
        AZURE_MODERATIONS.parse_response(HEAD, body)


# -- served ---------------------------------------------------------------------


def served(*connections):
    azure = {
        "type": "azure",
        "model": "d",
        "url": Url("http", HOSTS[0], 80, "/"),
        "options": {"deployment_id": "d"},
    }
    config = snapshot(HOSTS[:1], providers_have={"a": azure})
    return Served(connections, config=config)


def whole(value):
    return reply(200, JSON, json.dumps(value).encode())


def moderate(gateway, texts):
    return gateway.ask({"model": "m", "input": texts}, path="/v1/moderations")


def test_texts_have_their_results_in_their_order():
    gateway = served(
        *(whole(analysis(Hate=severity, Sexual=0)) for severity in (0, 6, 2))
    )
    results = answer(moderate(gateway, ["a", "b", "c"]))["results"]
    assert [one["category_scores"]["hate"] for one in results] == [0, 6 / 7, 2 / 7]
    assert [one["flagged"] for one in results] == [False, True, False]
    paths = {message.start.split()[1] for _, _, message in gateway.sim.requests}
    assert paths == {"/contentsafety/text:analyze?api-version=2024-09-01"}
    for _, _, message in gateway.sim.requests:
        headers = dict(message.headers)
        assert headers["ocp-apim-subscription-key"] == KEY
        assert "api-key" not in headers


def test_text_that_is_refused_is_the_answer_to_all():
    gateway = served(whole(analysis(Hate=0)), refusal(400, "No way."))
    status, error = error_of(moderate(gateway, ["a", "b"]))
    assert (status, error["message"]) == (400, "No way.")
