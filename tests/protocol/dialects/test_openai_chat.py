"""Chat requests, to a provider and back as a whole answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.dialects.recordings import SPECS
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.errors import InvalidRequest, UpstreamGarbled, UpstreamRefused
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.request import Identity, Target
from tz_protocol.types.usage import Usage

HEAD = RequestHead(
    method="POST",
    path="/v1/chat/completions",
    headers=(("content-type", "application/json"),),
)
IDENTITY = Identity(id="ours", episode_id="episode", model="public", created=1_750)
MESSAGES = [{"role": "user", "content": "Hi"}]
OPENAI = Target(provider="openai", model="gpt-4.1")


def parse(**members):
    body = {"model": "public", "messages": MESSAGES, **members}
    return OPENAI_CHAT.parse_request(json.dumps(body).encode(), HEAD)


def rendered(target=OPENAI, **members):
    request, losses = OPENAI_CHAT.render_request(parse(**members), target)
    return json.loads(request.body), losses


def answered(body, **members):
    response = OPENAI_CHAT.parse_response(ResponseHead(200), body)
    head, out = OPENAI_CHAT.render_response(parse(**members), response, IDENTITY)
    assert head == ResponseHead(200, (("content-type", "application/json"),))
    return response, out


# -- requests -------------------------------------------------------------------


def test_request_passes_every_byte_but_the_model():
    body = (
        b'{ "messages": [ {"role":"user", "content":"\\u00e9 \xc3\xa9"} ],'
        b'"temperature":0.70,"seed":12345678901234567890123,"model":"public",'
        b'"unknown": {"a" : [1e0]},"user":null}'
    )
    request, losses = OPENAI_CHAT.render_request(
        OPENAI_CHAT.parse_request(body, HEAD), OPENAI
    )
    assert request.body == (
        b'{"model":"gpt-4.1",'
        b'"messages":[ {"role":"user", "content":"\\u00e9 \xc3\xa9"} ],'
        b'"temperature":0.70,"seed":12345678901234567890123,'
        b'"unknown":{"a" : [1e0]},"user":null}'
    )
    assert request.method == "POST"
    assert request.path == "chat/completions"
    assert request.headers == (
        ("content-type", "application/json"),
        ("accept", "application/json"),
    )
    assert losses == ()


def test_request_keeps_the_gateways_own_members_to_itself():
    parsed = parse(**{"tensorzero::tags": {"a": "b"}, "n": 2})
    request, _ = OPENAI_CHAT.render_request(parsed, OPENAI)
    assert parsed.extensions.tags == {"a": "b"}
    assert b"tensorzero" not in request.body
    assert json.loads(request.body)["n"] == 2


def test_request_for_a_model_that_needs_escapes_is_json():
    fields, _ = rendered(Target(provider="vllm", model='a"b\\č'))
    assert fields["model"] == 'a"b\\č'


def parameters():
    path = SPECS / "openai.json"
    if not path.is_file():
        mark = pytest.mark.skip(reason=f"there is no {path}")
        return [pytest.param(None, id="absent", marks=mark)]
    schemas = json.loads(path.read_bytes())["components"]["schemas"]
    found = set()

    def collect(schema):
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        found.update(schema.get("properties", ()))
        for part in schema.get("allOf", ()):
            collect(part)

    collect({"$ref": "CreateChatCompletionRequest"})
    own = {"model", "messages", "stream", "stream_options", "n"}
    assert own < found
    return sorted(found - own)


@pytest.mark.parametrize("name", parameters())
def test_request_parameter_of_the_specification_passes(name):
    value = {"any": ["value", 1.5, None]}
    fields, losses = rendered(**{name: value})
    assert fields[name] == value
    assert losses == ()


@pytest.mark.parametrize(
    ("members", "param", "code", "words"),
    [
        (
            {"messages": ...},
            "messages",
            "missing_required_parameter",
            "Missing required parameter: 'messages'",
        ),
        ({"messages": None}, "messages", "invalid_type", "got null"),
        ({"messages": "Hi"}, "messages", "invalid_type", "got a string"),
        ({"messages": {}}, "messages", "invalid_type", "got an object"),
        ({"messages": []}, "messages", "empty_array", "empty array"),
        ({"model": ...}, "model", "missing_required_parameter", "'model'"),
        ({"model": 4}, "model", "invalid_type", "got a number"),
        ({"model": ""}, "model", "empty_string", "Expected the name"),
        ({"stream": "yes"}, "stream", "invalid_type", "expected a boolean"),
        ({"stream": 1}, "stream", "invalid_type", "got a number"),
        ({"n": 0}, "n", "integer_below_min_value", "a value >= 1"),
        ({"n": "two"}, "n", "invalid_type", "expected an integer"),
        ({"n": 1.5}, "n", "invalid_type", "expected an integer"),
        (
            {"stream": True, "stream_options": True},
            "stream_options",
            "invalid_type",
            "expected an object",
        ),
        (
            {"stream": True, "stream_options": {"include_usage": "yes"}},
            "stream_options.include_usage",
            "invalid_type",
            "expected a boolean",
        ),
        (
            {"stream_options": {"include_usage": True}},
            "stream_options",
            None,
            "only allowed when 'stream' is true",
        ),
        (
            {"stream": False, "stream_options": {}},
            "stream_options",
            None,
            "only allowed when 'stream' is true",
        ),
    ],
)
def test_request_that_is_wrong_says_what_and_where(members, param, code, words):
    body = {"model": "public", "messages": MESSAGES, **members}
    body = {name: value for name, value in body.items() if value is not ...}
    with pytest.raises(InvalidRequest) as caught:
        OPENAI_CHAT.parse_request(json.dumps(body).encode(), HEAD)
    error = caught.value
    assert (error.status, error.kind) == (400, "invalid_request_error")
    assert (error.param, error.code) == (param, code)
    assert words in error.message


@pytest.mark.parametrize(
    "members",
    [
        {"stream": None},
        {"stream": False},
        {"n": None},
        {"stream": None, "stream_options": None},
    ],
)
def test_request_with_null_for_nothing_is_whole(members):
    parsed = parse(**members)
    assert not parsed.is_stream
    fields, _ = rendered(**members)
    assert fields == {"model": "gpt-4.1", "messages": MESSAGES, **members}


# -- usage of streams -----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sent", "is_shown"),
    [
        (..., {"include_usage": True}, False),
        (None, {"include_usage": True}, False),
        ({}, {"include_usage": True}, False),
        ({"include_usage": True}, {"include_usage": True}, True),
        ({"include_usage": False}, {"include_usage": True}, False),
        ({"include_usage": None}, {"include_usage": True}, False),
        (
            {"include_obfuscation": False},
            {"include_obfuscation": False, "include_usage": True},
            False,
        ),
        (
            {"include_usage": True, "x": 1},
            {"include_usage": True, "x": 1},
            True,
        ),
    ],
)
def test_stream_always_asks_for_usage_and_knows_who_wants_it(options, sent, is_shown):
    members = {"stream": True}
    if options is not ...:
        members["stream_options"] = options
    parsed = parse(**members)
    request, losses = OPENAI_CHAT.render_request(parsed, OPENAI)
    assert parsed.is_stream
    assert parsed.include_usage is is_shown
    assert request.is_stream
    assert ("accept", "text/event-stream") in request.headers
    assert json.loads(request.body)["stream_options"] == sent
    assert losses == ()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include_usage": True}, ()),
        ({"include_usage": False}, ()),
        ({"include_usage": True, "include_obfuscation": None}, ()),
        ({"include_obfuscation": False}, ("stream_options",)),
    ],
)
def test_stream_options_are_not_sent_where_they_are_refused(options, expected):
    target = Target(
        provider="mistral", model="t", unsupported=frozenset({"stream_options"})
    )
    fields, losses = rendered(target, stream=True, stream_options=options)
    assert "stream_options" not in fields
    assert losses == expected
    assert "stream_options" not in rendered(target, stream=True)[0]


def test_stream_options_of_the_config_win():
    target = Target(
        provider="vllm", model="t", extra_body={"stream_options": Raw(b'{"x":1}')}
    )
    assert rendered(target, stream=True)[0]["stream_options"] == {"x": 1}


def test_stream_with_continuous_usage_is_known():
    options = {"include_usage": True, "continuous_usage_stats": True}
    assert parse(stream=True, stream_options=options).is_usage_continuous
    options["include_usage"] = False
    assert not parse(stream=True, stream_options=options).is_usage_continuous


# -- whole answers --------------------------------------------------------------

ANSWER = (
    b'{"id":"chatcmpl-theirs","object":"chat.completion","created":1700000000,'
    b'"model":"gpt-4.1-2025","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"\\u00e9","refusal":null,"annotations":[],"reasoning_content":"h"},'
    b'"logprobs":{"content":[{"token":"e","logprob":-0.10,"bytes":null,'
    b'"top_logprobs":[]}]},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,"x":1e0},'
    b'"service_tier":"default","system_fingerprint":null}'
)


def test_answer_is_stamped_and_passes_byte_by_byte():
    response, out = answered(ANSWER)
    assert out == (
        b'{"id":"ours","episode_id":"episode","object":"chat.completion",'
        b'"model":"public",'
        + ANSWER.replace(b'"object":"chat.completion",', b"")
        .replace(b'"model":"gpt-4.1-2025",', b"")
        .partition(b'"id":"chatcmpl-theirs",')[2]
    )
    assert response.usage == Usage(input_tokens=3, output_tokens=1)


@pytest.mark.parametrize("created", [b"", b'"created":null,'])
def test_answer_without_a_time_gets_ours(created):
    _, out = answered(b"{" + created + b'"choices":[]}')
    assert json.loads(out)["created"] == 1_750


def test_answer_of_another_name_is_a_chat_completion():
    _, out = answered(b'\n\n {"object":"text_completion","choices":[],"error":null}')
    assert json.loads(out)["object"] == "chat.completion"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"choices":null}', b'{"object":"x"}', b"5"]
)
def test_answer_without_choices_is_garbled(body):
    with pytest.raises(UpstreamGarbled):
        OPENAI_CHAT.parse_response(ResponseHead(200), body)


def test_answer_that_states_an_error_is_refused():
    body = b'{"error":{"message":"slow down","code":429}}'
    with pytest.raises(UpstreamRefused) as caught:
        OPENAI_CHAT.parse_response(ResponseHead(200), body)
    assert (caught.value.status, caught.value.message) == (429, "slow down")


def test_answer_with_odd_usage_is_an_answer():
    for usage in (b"null", b"[]", b'"x"', b"{}", b'{"prompt_tokens":1e999}'):
        response, out = answered(b'{"choices":[],"usage":' + usage + b"}")
        assert response.usage is None
        assert json.loads(out)["usage"] is None


# -- anything -------------------------------------------------------------------


@given(st.binary(max_size=80))
def test_answer_of_any_bytes_raises_nothing_undocumented(body):
    try:
        OPENAI_CHAT.parse_response(ResponseHead(200), body)
    except (UpstreamGarbled, UpstreamRefused):
        pass


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["include_usage", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "model",
                "messages",
                "stream",
                "stream_options",
                "n",
                "max_tokens",
                "tensorzero::tags",
                "tensorzero::credentials",
            ]
        ),
        VALUES,
    )
)
def test_request_of_any_members_is_rendered_or_refused(members):
    body = json.dumps(members).encode()
    try:
        parsed = OPENAI_CHAT.parse_request(body, HEAD)
    except InvalidRequest:
        return
    request, _ = OPENAI_CHAT.render_request(parsed, OPENAI)
    sent = json.loads(request.body)
    assert sent.pop("model") == "gpt-4.1"
    for name in ("messages", "n", "max_tokens", "stream"):
        assert sent.get(name) == members.get(name)
