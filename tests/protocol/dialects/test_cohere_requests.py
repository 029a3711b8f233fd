from __future__ import annotations

import contextlib
import json
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from msgspec import Raw

from tests.protocol.dialects.checking import faults
from tests.protocol.dialects.recordings import (
    SPECS,
    recordings,
    replay,
    without_chat,
)
from tests.protocol.dialects.saying import (
    HELLO,
    answered,
    call,
    contents_for,
    function,
    json_schema,
    members_of,
    parameters_for,
)
from tests.protocol.dialects.strategies import REQUESTS, parsed
from tz_protocol.dialects.cohere import COHERE_CHAT
from tz_protocol.dialects.cohere_request import ANSWER_TOOL
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.parameters import Handling, column
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.conversation import Refusal, Text, ToolCall, ToolResult
from tz_protocol.types.request import Target

THINKER = "command-a-reasoning-08-2025"
SILENT = "command-a-03-2025"


def render(
    model=THINKER, *, options=None, extra=None, is_stream=False, messages=HELLO, **more
):
    target = Target(
        provider="cohere", model=model, options=options or {}, extra_body=extra or {}
    )
    request = parsed({"messages": messages, **more}, is_stream=is_stream)
    return COHERE_CHAT.render_request(request, target)


def body_of(*args, **members):
    return msgspec.json.decode(render(*args, **members)[0].body)


def losses_of(*args, **members):
    return render(*args, **members)[1]


def refusal_of(*args, **members):
    with pytest.raises(InvalidRequest) as caught:
        render(*args, **members)
    return caught.value


OBJECT = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
}


# -- golden bytes ---------------------------------------------------------------


def test_request_golden_bytes():
    fields = (
        b'{"messages":[{"role":"developer","content":"Be brief."},'
        b'{"role":"user","content":[{"type":"text","text":"What is this?"},'
        b'{"type":"image_url","image_url":{"url":"https://e.org/a.png",'
        b'"detail":"low"}}]},'
        b'{"role":"assistant","content":"","reasoning_content":"Look.","tool_calls":'
        b'[{"id":"call_1","type":"function","function":{"name":"look","arguments":'
        b'"{\\"n\\": 1.50}"}}]},'
        b'{"role":"tool","tool_call_id":"call_1","content":"a cat"}],'
        b'"tools":[{"type":"function","function":{"name":"look","parameters":'
        b'{"type": "object", "properties": {"n": {"maximum": 1.50}}}}}],'
        b'"tool_choice":"auto","temperature":0.70,"top_p":0.5,"top_k":7,'
        b'"max_tokens":100,"stop":"END","seed":3,"frequency_penalty":0.50}'
    )
    request = parsed({}, is_stream=True)
    request.fields = msgspec.json.decode(fields, type=dict[str, Raw])
    target = Target(provider="cohere", model=THINKER)
    rendered, losses = COHERE_CHAT.render_request(request, target)
    assert losses == ()
    assert (rendered.path, rendered.is_stream) == ("chat", True)
    assert dict(rendered.headers) == {
        "content-type": "application/json",
        "accept": "text/event-stream",
    }
    assert rendered.body == (
        b'{"model":"command-a-reasoning-08-2025","messages":[{"role":"system",'
        b'"content":"Be brief."},{"role":"user","content":[{"type":"text","text":'
        b'"What is this?"},{"type":"image_url","image_url":{"url":'
        b'"https://e.org/a.png","detail":"low"}}]},{"role":"assistant","content":'
        b'[{"type":"thinking","thinking":"Look."}],"tool_calls":[{"id":"call_1",'
        b'"type":"function","function":{"name":"look","arguments":'
        b'"{\\"n\\": 1.50}"}}]},{"role":"tool","tool_call_id":"call_1","content":'
        b'"a cat"}],"max_tokens":100,"stop_sequences":["END"],"tools":[{"type":'
        b'"function","function":{"name":"look","parameters":{"type": "object", '
        b'"properties": {"n": {"maximum": 1.50}}}}}],"temperature":0.70,"p":0.5,'
        b'"frequency_penalty":0.50,"seed":3,"k":7,"stream":true}'
    )


# -- every row of the table is what happens -------------------------------------

ROWS = column("cohere")

SAMPLES = parameters_for("cohere")
CONTENT_SAMPLES = contents_for("cohere")


def test_samples_cover_every_row_of_the_table():
    assert set(ROWS) == set(SAMPLES) | set(CONTENT_SAMPLES)


@pytest.mark.parametrize("row", SAMPLES)
def test_parameter_is_handled_as_the_table_says(row):
    members = members_of(row, SAMPLES[row])
    name = row.partition(".")[0]
    without = {key: value for key, value in members.items() if key != name}
    handling = ROWS[row]
    if handling is Handling.REFUSED:
        error = refusal_of(**members)
        assert error.status == 400
        assert (error.param or "").startswith(name)
        assert "cohere" in error.message
        return
    body, losses = body_of(**members), losses_of(**members)
    if handling is Handling.DROPPED:
        (loss,) = losses
        assert loss.startswith(name)
        if row != "tools.strict":
            assert body == body_of(**without)
        return
    assert losses == ()
    if row == "n":
        request, _ = render(**members)
        assert request.others == (request.body,)
        assert body == body_of(**without)
        return
    assert body != body_of(**without)
    if handling is Handling.PASSED and "." not in row:
        assert body[name] == SAMPLES[row]


@pytest.mark.parametrize("row", CONTENT_SAMPLES)
def test_content_is_handled_as_the_table_says(row):
    sample = CONTENT_SAMPLES[row]
    message = sample if "role" in sample else {"role": "user", "content": [sample]}
    members = {"messages": [*HELLO, message]}
    handling = ROWS[row]
    if handling is Handling.REFUSED:
        assert (refusal_of(**members).param or "").startswith("messages[1]")
    elif handling is Handling.DROPPED:
        (loss,) = losses_of(**members)
        assert loss.startswith("messages[1]")
    else:
        assert losses_of(**members) == ()
        assert body_of(**members) != body_of()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1),
        ("logprobs", False),
        ("logit_bias", {}),
        ("store", False),
        ("modalities", ["text"]),
        ("parallel_tool_calls", True),
        ("seed", None),
        ("tools", []),
        ("response_format", {"type": "text"}),
    ],
)
def test_parameter_that_says_the_default_is_neither_refused_nor_named(name, value):
    assert losses_of(**{name: value}) == ()
    assert body_of(**{name: value}) == body_of()


def test_unknown_parameter_is_dropped_and_named():
    assert losses_of(foo={"a": 1}) == ("foo",)
    assert "foo" not in body_of(foo={"a": 1})


def test_the_vendors_own_parameters_pass_as_they_are():
    own = {
        "citation_options": {"mode": "FAST"},
        "documents": [{"data": {"text": "a"}}],
        "k": 3,
        "p": 0.5,
        "safety_mode": "STRICT",
        "strict_tools": True,
    }
    body = body_of(**own)
    assert {name: body[name] for name in own} == own
    assert losses_of(**own) == ()


@pytest.mark.parametrize(
    ("policy", "losses"), [("warn", ("logprobs", "store")), ("drop", ())]
)
def test_policy_of_the_operator_lets_parameters_be_dropped(policy, losses):
    options = {"on_unsupported_param": policy}
    members = {"logprobs": True, "store": True}
    assert losses_of(options=options, **members) == losses
    assert body_of(options=options, **members) == body_of()


def test_policy_of_the_operator_refuses_hints_as_well():
    options = {"on_unsupported_param": "error"}
    assert refusal_of(options=options, store=True).param == "store"


def test_extra_body_of_the_config_replaces_what_was_rendered():
    extra = {"max_tokens": Raw(b"9"), "priority": Raw(b"5")}
    body = body_of(extra=extra, max_tokens=5)
    assert (body["max_tokens"], body["priority"]) == (9, 5)


@pytest.mark.parametrize(
    ("name", "value", "theirs", "sent", "losses"),
    [
        ("temperature", 1.5, "temperature", 1, ("temperature",)),
        ("top_p", 1, "p", 0.99, ()),
        ("top_p", 0, "p", 0.01, ()),
        ("top_p", 2, "p", 0.99, ("top_p",)),
        ("frequency_penalty", 2, "frequency_penalty", 1, ("frequency_penalty",)),
        ("presence_penalty", -1, "presence_penalty", 0, ("presence_penalty",)),
    ],
)
def test_number_out_of_range_is_moved_into_it(name, value, theirs, sent, losses):
    assert body_of(**{name: value})[theirs] == sent
    assert losses_of(**{name: value}) == losses


def test_number_that_is_none_is_refused():
    assert refusal_of(temperature="warm").param == "temperature"


# -- messages -------------------------------------------------------------------


def test_messages_stay_in_their_order_and_apart():
    messages = [
        {"role": "user", "content": "1"},
        {"role": "user", "content": [{"type": "text", "text": "2"}]},
        {"role": "system", "content": "3"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": ""},
    ]
    assert body_of(messages=messages)["messages"] == [
        {"role": "user", "content": "1"},
        {"role": "user", "content": "2"},
        {"role": "system", "content": "3"},
        {"role": "assistant", "content": "4"},
    ]


def test_request_without_content_is_refused():
    error = refusal_of(messages=[{"role": "user", "content": ""}])
    assert error.param == "messages"


LOOP = [
    *HELLO,
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Look.",
        "tool_calls": [call("c1", arguments=""), call("c2")],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "a"},
    {
        "role": "tool",
        "tool_call_id": "c2",
        "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}],
    },
]


def test_tool_loop_of_a_model_that_does_not_think_has_its_plan():
    body = body_of(SILENT, messages=LOOP)
    assert body["messages"][1] == {
        "role": "assistant",
        "tool_plan": "Look.",
        "tool_calls": [call("c1"), call("c2")],
    }
    assert body["messages"][2:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "a"},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}],
        },
    ]
    assert losses_of(SILENT, messages=LOOP) == ()


def test_thought_without_a_call_is_lost_to_a_model_that_does_not_think():
    message = {"role": "assistant", "content": "a", "reasoning_content": "t"}
    messages = [*HELLO, message, *HELLO]
    assert losses_of(SILENT, messages=messages) == ("messages[1].reasoning_content",)
    assert body_of(SILENT, messages=messages)["messages"][1] == {
        "role": "assistant",
        "content": "a",
    }
    assert body_of(THINKER, messages=messages)["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "t"},
        {"type": "text", "text": "a"},
    ]


@pytest.mark.parametrize("arguments", ["", " ", "null", "{}"])
def test_call_without_arguments_has_an_empty_object(arguments):
    message = {"role": "assistant", "tool_calls": [call(arguments=arguments)]}
    made = body_of(messages=[*HELLO, *answered(message)])["messages"][1]
    assert made["tool_calls"][0]["function"]["arguments"] == "{}"


def test_arguments_that_are_no_object_are_refused():
    message = {"role": "assistant", "tool_calls": [call(arguments="[1]")]}
    messages = [*HELLO, *answered(message)]
    assert refusal_of(messages=messages).param == "messages[1].tool_calls"


def test_result_that_is_an_error_or_an_image_is_told():
    result = {"role": "tool", "tool_call_id": "c1", "content": "a", "is_error": True}
    messages = [*LOOP[:2], result, LOOP[3]]
    assert losses_of(messages=messages) == ("messages[2].is_error",)
    image = {"type": "image_url", "image_url": {"url": "https://e.org/a"}}
    messages[2] = {"role": "tool", "tool_call_id": "c1", "content": [image]}
    assert refusal_of(messages=messages).param == "messages[2].content[0]"


def test_what_only_the_vendor_knows_comes_back_to_it():
    citation = {"start": 0, "end": 1, "type": "PLAN"}
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "a",
        "provider_content": [
            {"dialect": "cohere", "type": "citation", "value": citation},
            {"dialect": "cohere", "type": "new", "value": {"type": "new"}},
        ],
    }
    body = body_of(messages=[*HELLO, message])
    assert body["messages"][1] == {
        "role": "assistant",
        "content": [{"type": "new"}, {"type": "text", "text": "a"}],
        "citations": [citation],
    }
    message["provider_content"][0]["dialect"] = "other"
    losses = losses_of(messages=[*HELLO, message])
    assert losses == ("messages[1].provider_content",)


def test_mark_for_the_cache_is_a_hint():
    part = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "user", "content": [part]}]
    assert losses_of(messages=messages) == ("messages[0].content[0].cache_control",)


# -- tools, shapes, thinking ----------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "names", "sent"),
    [
        ("auto", ["f", "g"], None),
        ("required", ["f", "g"], "REQUIRED"),
        ("none", ["f", "g"], "NONE"),
        (function("g"), ["g"], "REQUIRED"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [function("f")]},
            },
            ["f"],
            "REQUIRED",
        ),
    ],
    ids=["auto", "required", "none", "named", "allowed"],
)
def test_tool_choice_is_said_by_the_tools_that_are_offered(choice, names, sent):
    body = body_of(tools=[function("f"), function("g")], tool_choice=choice)
    assert [tool["function"]["name"] for tool in body["tools"]] == names
    assert body.get("tool_choice") == sent


def test_shape_is_asked_for_in_the_json_mode():
    body = body_of(response_format=json_schema(OBJECT))
    assert body["response_format"] == {"type": "json_object", "json_schema": OBJECT}
    body = body_of(response_format={"type": "json_object"})
    assert body["response_format"] == {"type": "json_object"}


def test_shape_beside_tools_is_asked_for_by_a_tool():
    body = body_of(tools=[function()], response_format=json_schema(OBJECT))
    assert "response_format" not in body
    assert body["tool_choice"] == "REQUIRED"
    assert body["tools"][1]["function"]["name"] == ANSWER_TOOL
    assert body["tools"][1]["function"]["parameters"] == OBJECT


def test_shape_beside_tools_that_must_not_be_called_is_asked_for_in_the_json_mode():
    body = body_of(
        tools=[function()], tool_choice="none", response_format=json_schema(OBJECT)
    )
    assert "tools" not in body
    assert "tool_choice" not in body
    assert body["response_format"]["json_schema"] == OBJECT


def test_structured_output_leaves_a_named_tool_the_only_one():
    named = {"type": "function", "function": {"name": "f"}}
    members = {"tools": [function()], "tool_choice": named}
    body = body_of(**members, response_format=json_schema(OBJECT))
    assert body == body_of(**members)


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [function(parameters=[])]},
        {"response_format": json_schema([1])},
        {"tools": [function(ANSWER_TOOL)]},
        {"reasoning_effort": "extreme"},
    ],
    ids=["parameters", "schema", "name", "effort"],
)
def test_value_that_is_wrong_for_everybody_is_refused(members):
    assert refusal_of(**members).code == "invalid_value"


@pytest.mark.parametrize(
    ("members", "sent"),
    [
        ({"reasoning_effort": "low"}, {"type": "enabled", "token_budget": 2_048}),
        ({"reasoning_effort": "high"}, {"type": "enabled"}),
        ({"reasoning_effort": "none"}, {"type": "disabled"}),
        ({"reasoning": {"max_tokens": 9}}, {"type": "enabled", "token_budget": 9}),
        ({"thinking": {"type": "disabled"}}, {"type": "disabled"}),
        (
            {"thinking": {"type": "enabled", "token_budget": 5}},
            {"type": "enabled", "token_budget": 5},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 5}},
            {"type": "enabled", "token_budget": 5},
        ),
    ],
)
def test_reasoning_is_said_as_thinking(members, sent):
    assert body_of(**members)["thinking"] == sent
    assert losses_of(**members) == ()


@pytest.mark.parametrize("name", ["command-r-plus", "command", SILENT])
def test_reasoning_is_lost_to_a_model_that_does_not_think(name):
    assert losses_of(name, reasoning_effort="low") == ("reasoning_effort",)
    assert losses_of(name, reasoning_effort="none") == ()
    assert "thinking" not in body_of(name, reasoning_effort="low")


@pytest.mark.parametrize("name", ["command-a-plus-05-2026", "my-own", "command-x"])
def test_model_that_is_not_known_may_think(name):
    assert body_of(name, reasoning_effort="high")["thinking"] == {"type": "enabled"}


# -- everything -----------------------------------------------------------------


@cache
def request_schema():
    """Return a validator of the vendor's own description of a request."""
    jsonschema = pytest.importorskip("jsonschema")
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    path = SPECS / "cohere.yaml"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    root = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    operation = root["paths"]["/v2/chat"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    # Plain YAML takes OFF for a boolean; the vendor's own numbers are bounded.
    body["properties"].pop("safety_mode")
    schema = overlapping({"components": root["components"], **body})
    return jsonschema.Draft202012Validator(schema)


def overlapping(node):
    """Return a description whose alternatives may overlap, as the vendor's do."""
    if isinstance(node, list):
        return [overlapping(child) for child in node]
    if not isinstance(node, dict):
        return node
    return {
        "anyOf" if name == "oneOf" else name: overlapping(child)
        for name, child in node.items()
    }


@pytest.fixture(scope="module")
def validator():
    """Read once, outside of what Hypothesis takes the time of."""
    return request_schema()


@given(members=REQUESTS)
def test_any_request_is_legal_there_and_loses_nothing_unnamed(validator, members):
    request = parsed(members)
    target = Target(provider="cohere", model=THINKER)
    try:
        rendered, losses = COHERE_CHAT.render_request(request, target)
    except InvalidRequest:
        return
    body = json.loads(rendered.body)
    assert not faults(validator, body)
    said = said_by(body["messages"])
    for index, message in enumerate(conversation_of(request).messages):
        for block in message.content:
            if isinstance(block, Text | Refusal) and block.text:
                assert block.text in said["texts"]
            elif isinstance(block, ToolCall):
                assert block.id in said["calls"]
            elif isinstance(block, ToolResult):
                assert block.call_id in said["results"]
        if any(loss.startswith(f"messages[{index}].role") for loss in losses):
            pytest.fail("the vendor takes every role anywhere")
    assert len(rendered.others) == (members.get("n") or 1) - 1
    for name in conversation_of(request).parameters.keys() - {"n"}:
        theirs = {"top_p": "p", "top_k": "k"}.get(name, name)
        is_default = members[name] in (False, {}, None, "auto")
        assert theirs in body or name in losses or is_default, name


def said_by(messages):
    """Return what *messages* in the vendor's format say, in no order."""
    found: dict[str, list[str]] = {"texts": [], "calls": [], "results": []}
    for message in messages:
        content = message.get("content") or ()
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        found["texts"] += [part["text"] for part in content if "text" in part]
        found["calls"] += [one["id"] for one in message.get("tool_calls", ())]
        if message["role"] == "tool":
            found["results"].append(message["tool_call_id"])
    return found


@replay(recordings("openai", "chat.completions"), without_chat)
def test_corpus_openai_request_is_a_legal_cohere_request_or_refused_by_name(recording):
    body = recording.request
    request = parsed({k: v for k, v in body.items() if k != "model"})
    for model in (THINKER, SILENT):
        target = Target(provider="cohere", model=model)
        with contextlib.suppress(InvalidRequest):
            rendered, _ = COHERE_CHAT.render_request(request, target)
            assert not faults(request_schema(), json.loads(rendered.body))
