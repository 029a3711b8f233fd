from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from tests.protocol.dialects.checking import cut_pieces, faults, schema
from tests.protocol.dialects.recordings import (
    not_accepted,
    recordings,
    replay,
    without_chat,
)
from tests.protocol.dialects.saying import (
    HELLO,
    OBJECT,
    answered,
    call,
    contents_for,
    function,
    json_schema,
    members_of,
    parameters_for,
)
from tests.protocol.dialects.strategies import JSON_VALUES, PDF, PNG, REQUESTS, parsed
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.dialects.anthropic_conversation import read_conversation
from tz_protocol.dialects.anthropic_models import generation_of
from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.parameters import Handling, column
from tz_protocol.dialects.turns import turns_of
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.conversation import (
    FunctionTool,
    Image,
    Refusal,
    ResponseFormat,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from tz_protocol.types.request import Target

BUDGETED = "claude-sonnet-4-5"
ADAPTIVE = "claude-opus-4-6"
OLD = "claude-3-5-haiku-20241022"


def render(
    model=BUDGETED, *, options=None, extra=None, is_stream=False, messages=HELLO, **more
):
    target = Target(
        provider="anthropic",
        model=model,
        options=options or {},
        extra_body=extra or {},
    )
    request = parsed({"messages": messages, **more}, is_stream=is_stream)
    return ANTHROPIC.render_request(request, target)


def body_of(*args, **members):
    return msgspec.json.decode(render(*args, **members)[0].body)


def losses_of(*args, **members):
    return render(*args, **members)[1]


def refusal_of(*args, **members):
    with pytest.raises(InvalidRequest) as caught:
        render(*args, **members)
    return caught.value


# -- golden bytes ---------------------------------------------------------------


def test_request_golden_bytes():
    fields = (
        b'{"messages":[{"role":"system","content":"Be brief."},'
        b'{"role":"user","content":[{"type":"text","text":"What is this?"},'
        b'{"type":"image_url","image_url":{"url":"https://e.org/a.png"}}]},'
        b'{"role":"assistant","content":"","tool_calls":[{"id":"call_1","type":'
        b'"function","function":{"name":"look","arguments":"{\\"n\\": 1.50}"}}]},'
        b'{"role":"tool","tool_call_id":"call_1","content":"a cat"}],'
        b'"tools":[{"type":"function","function":{"name":"look","parameters":'
        b'{"type": "object", "properties": {"n": {"maximum": 1.50}}}}}],'
        b'"tool_choice":"auto","temperature":0.70,"max_tokens":100,"stop":"END",'
        b'"user":"u1"}'
    )
    request = parsed({}, is_stream=True)
    request.fields = msgspec.json.decode(fields, type=dict[str, Raw])
    target = Target(provider="anthropic", model=BUDGETED)
    rendered, losses = ANTHROPIC.render_request(request, target)
    assert losses == ()
    assert rendered.path == "messages"
    assert rendered.is_stream
    assert ("anthropic-version", "2023-06-01") in rendered.headers
    assert rendered.body == (
        b'{"model":"claude-sonnet-4-5","max_tokens":100,"system":"Be brief.",'
        b'"messages":[{"role":"user","content":[{"type":"text","text":'
        b'"What is this?"},{"type":"image","source":{"type":"url","url":'
        b'"https://e.org/a.png"}}]},{"role":"assistant","content":[{"type":'
        b'"tool_use","id":"call_1","name":"look","input":{"n": 1.50}}]},'
        b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"call_1",'
        b'"content":"a cat"}]}],"stop_sequences":["END"],"tools":[{"name":"look",'
        b'"input_schema":{"type": "object", "properties": {"n": {"maximum": 1.50}}}'
        b'}],"tool_choice":{"type":"auto"},"temperature":0.70,"metadata":'
        b'{"user_id":"u1"},"stream":true}'
    )


# -- every row of the table is what happens -------------------------------------

ROWS = column("anthropic")

SAMPLES = parameters_for("anthropic")
CONTENT_SAMPLES = contents_for("anthropic")


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
        assert "anthropic" in error.message
        return
    body, losses = body_of(**members), losses_of(**members)
    if handling is Handling.DROPPED:
        assert losses == (name,)
        assert body == body_of(**without)
        return
    assert losses == ()
    if row == "n":
        request, _ = render(**members)
        assert request.others == (request.body,)
        assert body == body_of(**without)
        return
    assert body != body_of(**without)
    if row in {"max_tokens", "temperature", "top_p", "top_k", "thinking"}:
        assert body[name] == SAMPLES[row]


@pytest.mark.parametrize("row", CONTENT_SAMPLES)
def test_content_is_handled_as_the_table_says(row):
    sample = CONTENT_SAMPLES[row]
    message = sample if "role" in sample else {"role": "user", "content": [sample]}
    # Thoughts at the very end belong to a model that is thinking.
    members = {"messages": [*HELLO, message, *HELLO]}
    handling = ROWS[row]
    if handling is Handling.REFUSED:
        assert (refusal_of(**members).param or "").startswith("messages[1]")
    elif handling is Handling.DROPPED:
        (loss,) = losses_of(**members)
        assert loss.startswith("messages[1]")
        assert loss.endswith(row.rpartition(".")[2])
    else:
        assert losses_of(**members) == ()
        assert body_of(**members) != body_of(messages=[*HELLO, *HELLO])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1),
        ("logprobs", False),
        ("frequency_penalty", 0),
        ("presence_penalty", 0.0),
        ("logit_bias", {}),
        ("store", False),
        ("modalities", ["text"]),
        ("parallel_tool_calls", True),
        ("seed", None),
        ("tools", []),
        ("response_format", {"type": "text"}),
        ("top_p", 1),
    ],
)
def test_parameter_that_says_the_default_is_neither_refused_nor_named(name, value):
    assert losses_of(**{name: value}) == ()
    assert body_of(**{name: value}) == body_of()


def test_unknown_parameter_is_dropped_and_named():
    assert losses_of(foo={"a": 1}) == ("foo",)
    assert "foo" not in body_of(foo={"a": 1})


def test_the_vendors_own_parameters_pass_as_they_are():
    own = {"container": "c", "top_k": 3, "context_management": {"edits": []}}
    body = body_of(**own)
    assert {name: body[name] for name in own} == own
    assert losses_of(**own) == ()


@pytest.mark.parametrize(
    ("policy", "losses"), [("warn", ("seed", "store")), ("drop", ())]
)
def test_policy_of_the_operator_lets_parameters_be_dropped(policy, losses):
    options = {"on_unsupported_param": policy}
    members = {"seed": 1, "store": True}
    assert losses_of(options=options, **members) == losses
    assert body_of(options=options, **members) == body_of()


def test_policy_of_the_operator_refuses_hints_as_well():
    options = {"on_unsupported_param": "error"}
    assert refusal_of(options=options, store=True).param == "store"


def test_extra_body_of_the_config_replaces_what_was_rendered():
    extra = {"max_tokens": Raw(b"9"), "speed": Raw(b'"fast"')}
    body = body_of(extra=extra, max_tokens=5)
    assert (body["max_tokens"], body["speed"]) == (9, "fast")


# -- messages -------------------------------------------------------------------


def test_messages_of_one_side_become_one_turn_with_results_first():
    body = body_of(
        messages=[
            {"role": "system", "content": "A"},
            {"role": "developer", "content": "B"},
            {"role": "user", "content": "one"},
            {"role": "user", "content": "two"},
            {"role": "assistant", "content": "x", "tool_calls": [call("a"), call("b")]},
            {"role": "tool", "tool_call_id": "a", "content": "ra"},
            {"role": "user", "content": "three"},
            {"role": "tool", "tool_call_id": "b", "content": "rb"},
        ]
    )
    assert body["system"] == [
        {"type": "text", "text": "A"},
        {"type": "text", "text": "B"},
    ]
    user, assistant, results = body["messages"]
    assert [block["text"] for block in user["content"]] == ["one", "two"]
    assert [block["type"] for block in assistant["content"]] == [
        "text",
        "tool_use",
        "tool_use",
    ]
    assert [block["type"] for block in results["content"]] == [
        "tool_result",
        "tool_result",
        "text",
    ]


def test_texts_without_a_character_are_left_out():
    body = body_of(
        messages=[
            {"role": "user", "content": [{"type": "text", "text": ""}, *parts("a")]},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "b"},
        ]
    )
    assert body["messages"] == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        }
    ]


def test_white_space_before_a_call_is_left_out():
    message = {"role": "assistant", "content": "\n\n", "tool_calls": [call()]}
    content = body_of(messages=[*HELLO, *answered(message)])["messages"][1]["content"]
    assert [block["type"] for block in content] == ["tool_use"]


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


def test_system_message_after_the_beginning_is_moved_and_named():
    messages = [*HELLO, {"role": "system", "content": "late"}]
    assert body_of(messages=messages)["system"] == "late"
    assert losses_of(messages=messages) == ("messages[1].role",)


def test_conversation_of_instructions_only_is_refused():
    error = refusal_of(messages=[{"role": "system", "content": "a"}])
    assert error.param == "messages"


def test_foreign_tool_ids_are_replaced_alike_in_call_and_result():
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call("functions.f:0")]},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "ok"},
    ]
    _, assistant, result = body_of(messages=messages)["messages"]
    made = assistant["content"][0]["id"]
    assert made == result["content"][0]["tool_use_id"]
    assert made.startswith("call_")


@pytest.mark.parametrize("arguments", ["", "  ", "null", "{}"])
def test_call_without_arguments_has_an_empty_object(arguments):
    message = {"role": "assistant", "tool_calls": [call(arguments=arguments)]}
    body = body_of(messages=[*HELLO, *answered(message)])
    assert body["messages"][1]["content"][0]["input"] == {}


@pytest.mark.parametrize("arguments", ["[1]", "nonsense", '{"a":', "3"])
def test_call_whose_arguments_are_no_object_is_refused(arguments):
    message = {"role": "assistant", "tool_calls": [call(arguments=arguments)]}
    error = refusal_of(messages=[*HELLO, *answered(message)])
    assert error.param == "messages[1].tool_calls"


def test_tool_result_of_blocks_with_an_image_and_an_error():
    content = [*parts("see"), CONTENT_SAMPLES["image_url"]]
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "c", "content": content, "is_error": True},
    ]
    (result,) = body_of(messages=messages)["messages"][2]["content"]
    assert result == {
        "type": "tool_result",
        "tool_use_id": "c",
        "content": [
            {"type": "text", "text": "see"},
            {"type": "image", "source": {"type": "url", "url": "https://e.org/a"}},
        ],
        "is_error": True,
    }


def test_thoughts_go_back_with_their_seal_and_first():
    message = {
        "role": "assistant",
        "content": "x",
        "reasoning_details": [
            {"type": "reasoning.text", "text": "t", "signature": "s"},
            {
                "type": "reasoning.encrypted",
                "data": "d",
                "format": "anthropic-claude-v1",
            },
        ],
        "tool_calls": [call()],
    }
    content = body_of(messages=[*HELLO, *answered(message)])["messages"][1]["content"]
    assert content[:2] == [
        {"type": "thinking", "thinking": "t", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
    ]
    assert [block["type"] for block in content[2:]] == ["text", "tool_use"]


@pytest.mark.parametrize(
    "members",
    [
        {"reasoning_content": "t"},
        {
            "reasoning_details": [
                {"type": "reasoning.encrypted", "data": "d", "format": "google"}
            ]
        },
    ],
    ids=["unsealed", "foreign"],
)
def test_thoughts_without_this_vendors_seal_are_dropped_and_named(members):
    messages = [*HELLO, {"role": "assistant", "content": "x", **members}]
    assert losses_of(messages=messages) == ("messages[1].reasoning_content",)
    assert body_of(messages=messages)["messages"][1]["content"] == "x"


def test_blocks_of_this_vendor_go_back_unread_and_those_of_others_are_named():
    value = {"type": "server_tool_use", "id": "s", "name": "w", "input": {"q": 1}}
    entry = {"dialect": "anthropic", "type": "server_tool_use", "value": value}
    message = {"role": "assistant", "content": "x", "provider_content": [entry]}
    body = body_of(messages=[*HELLO, message])
    assert body["messages"][1]["content"][0] == value
    foreign = {**message, "provider_content": [{**entry, "dialect": "gemini"}]}
    messages = [*HELLO, foreign]
    assert losses_of(messages=messages) == ("messages[1].provider_content",)
    assert body_of(messages=messages)["messages"][1]["content"] == "x"
    video = [{"type": "video_url", "video_url": {"url": "x"}}]
    error = refusal_of(messages=[{"role": "user", "content": video}])
    assert error.param == "messages[0].content[0]"
    assert "video_url" in error.message


def test_marks_for_caching_are_kept_everywhere():
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    tool = {**function(), **mark}
    body = body_of(
        messages=[
            {"role": "system", "content": [{"type": "text", "text": "s", **mark}]},
            {"role": "user", "content": [{"type": "text", "text": "u", **mark}]},
            {"role": "assistant", "tool_calls": [call()]},
            {"role": "tool", "tool_call_id": "c", "content": "r", **mark},
        ],
        tools=[tool],
    )
    marked = [
        body["system"][0],
        body["messages"][0]["content"][0],
        body["messages"][2]["content"][0],
        body["tools"][0],
    ]
    assert [block["cache_control"] for block in marked] == [mark["cache_control"]] * 4


@pytest.mark.parametrize(
    ("file", "block"),
    [
        (
            {"filename": "a.pdf", "file_data": PDF},
            {
                "type": "document",
                "source": {
                    "type": "base64",
                    "media_type": "application/pdf",
                    "data": PDF,
                },
                "title": "a.pdf",
            },
        ),
        (
            {"file_data": "data:text/markdown;base64,SGk="},
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "Hi"},
            },
        ),
        (
            {"file_data": f"data:application/octet-stream;base64,{PNG}"},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PNG},
            },
        ),
    ],
    ids=["pdf", "text", "image"],
)
def test_file_of_each_kind(file, block):
    content = [{"type": "file", "file": file}]
    body = body_of(messages=[{"role": "user", "content": content}])
    assert body["messages"][0]["content"] == [block]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"filename": "a.docx", "file_data": "AA=="}},
        {
            "type": "image_url",
            "image_url": {"url": "data:image/tiff;base64,AA=="},
        },
    ],
    ids=["docx", "tiff"],
)
def test_file_or_image_of_a_kind_that_the_vendor_does_not_take_is_refused(part):
    error = refusal_of(messages=[{"role": "user", "content": [part]}])
    assert (error.param or "").startswith("messages[0].content[0]")
    assert error.code == "unsupported_parameter"


# -- sizes, stops, sampling -----------------------------------------------------


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("claude-3-haiku-20240307", 4_096),
        ("claude-3-5-sonnet-latest", 8_192),
        ("claude-3-7-sonnet-20250219", 64_000),
        ("claude-sonnet-4-20250514", 32_000),
        ("anthropic.claude-opus-4-1-20250805-v1:0", 32_000),
        ("claude-haiku-4-5@20251001", 64_000),
        ("claude-opus-4-8", 64_000),
        ("claude-sonnet-5", 64_000),
        ("my-own-name", 4_096),
    ],
)
def test_max_tokens_without_a_limit_is_the_models_own(model, limit):
    assert body_of(model)["max_tokens"] == limit


def test_max_tokens_without_a_limit_is_the_operators_if_he_set_one():
    options = {"default_max_tokens": "777"}
    assert body_of(options=options)["max_tokens"] == 777
    assert body_of(options=options, max_tokens=5)["max_tokens"] == 5
    error = refusal_of(options={"default_max_tokens": "lots"})
    assert error.param == "max_tokens"


def test_stop_of_white_space_is_refused():
    assert refusal_of(stop=["\n", "x"]).param == "stop"
    assert body_of(stop=["x"])["stop_sequences"] == ["x"]
    assert "stop_sequences" not in body_of(stop=[])


def test_temperature_above_one_is_clamped_and_named():
    assert body_of(temperature=1.7)["temperature"] == 1
    assert losses_of(temperature=1.7) == ("temperature",)


def test_temperature_that_is_no_number_is_refused():
    assert refusal_of(temperature="hot").param == "temperature"


def test_temperature_and_top_p_together_are_refused_where_the_model_does():
    assert refusal_of(temperature=0.5, top_p=0.5).param == "top_p"
    body = body_of(OLD, temperature=0.5, top_p=0.5)
    assert (body["temperature"], body["top_p"]) == (0.5, 0.5)


# -- reasoning ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "members", "thinking", "effort", "losses"),
    [
        (BUDGETED, {"reasoning_effort": "low"}, 2_048, None, ()),
        (BUDGETED, {"reasoning_effort": "high"}, 16_384, None, ()),
        (
            BUDGETED,
            {"reasoning_effort": "high", "max_tokens": 4_000},
            3_000,
            None,
            (),
        ),
        (
            BUDGETED,
            {"reasoning_effort": "high", "max_tokens": 1_100},
            1_024,
            None,
            (),
        ),
        (
            BUDGETED,
            {"reasoning_effort": "high", "max_tokens": 500},
            None,
            None,
            ("reasoning_effort",),
        ),
        (BUDGETED, {"reasoning_effort": "none"}, None, None, ()),
        (BUDGETED, {"reasoning": {"max_tokens": 5_000}}, 5_000, None, ()),
        (BUDGETED, {"thinking": {"type": "enabled"}}, 8_192, None, ()),
        (ADAPTIVE, {"reasoning_effort": "medium"}, "adaptive", "medium", ()),
        (ADAPTIVE, {"reasoning_effort": "minimal"}, "adaptive", "low", ()),
        (ADAPTIVE, {"reasoning_effort": "none"}, "disabled", None, ()),
        (ADAPTIVE, {"thinking": {"type": "enabled"}}, "adaptive", None, ()),
        (OLD, {"reasoning_effort": "high"}, None, None, ("reasoning_effort",)),
        (OLD, {"thinking": {"type": "enabled"}}, None, None, ("thinking",)),
        (OLD, {"reasoning_effort": "none"}, None, None, ()),
    ],
)
def test_reasoning_on_each_generation(model, members, thinking, effort, losses):
    body = body_of(model, **members)
    found = body.get("thinking")
    if isinstance(thinking, int):
        assert found == {"type": "enabled", "budget_tokens": thinking}
        assert thinking < body["max_tokens"]
    else:
        assert found == (None if thinking is None else {"type": thinking})
    assert body.get("output_config", {}).get("effort") == effort
    assert losses_of(model, **members) == losses


def test_reasoning_effort_of_another_word_is_refused():
    assert refusal_of(reasoning_effort="huge").param == "reasoning_effort"


def test_thinking_gives_way_where_a_tool_is_forced():
    members = {
        "tools": [function()],
        "tool_choice": "required",
        "reasoning_effort": "high",
    }
    assert "thinking" not in body_of(**members)
    assert losses_of(**members) == ("reasoning_effort",)
    body = body_of(ADAPTIVE, **members)
    assert "thinking" not in body
    assert body["output_config"] == {"effort": "high"}


def test_temperature_and_top_k_give_way_to_thinking():
    members = {"reasoning_effort": "low", "temperature": 0.5, "top_k": 3}
    body = body_of(**members)
    assert "temperature" not in body
    assert "top_k" not in body
    assert losses_of(**members) == ("temperature", "top_k")


# -- tools and structured output ------------------------------------------------


def test_tool_without_parameters_or_without_a_type_gets_an_object():
    tools = [function(), function("g", parameters={"properties": {}})]
    schemas = [tool["input_schema"] for tool in body_of(tools=tools)["tools"]]
    assert schemas == [{"type": "object", "properties": {}}] * 2


def test_tool_whose_parameters_are_no_schema_is_refused():
    error = refusal_of(tools=[function(parameters=[1])])
    assert error.param == "tools[0].function.parameters"


def test_tool_with_the_gateways_own_name_is_refused():
    error = refusal_of(tools=[function(ANSWER_TOOL)])
    assert error.param == "tools[0].function.name"


def test_tool_choice_of_allowed_tools_sends_only_these():
    choice = {"mode": "required", "tools": [function("g")]}
    body = body_of(
        tools=[function("f"), function("g")],
        tool_choice={"type": "allowed_tools", "allowed_tools": choice},
    )
    assert [tool["name"] for tool in body["tools"]] == ["g"]
    assert body["tool_choice"] == {"type": "any"}


def test_parallel_calls_forbidden_need_a_tool_choice():
    tools = [function()]
    body = body_of(tools=tools, parallel_tool_calls=False)
    expected = {"type": "auto", "disable_parallel_tool_use": True}
    assert body["tool_choice"] == expected
    body = body_of(tools=tools, parallel_tool_calls=False, tool_choice="none")
    assert body["tool_choice"] == {"type": "none"}


def test_strict_tools_are_dropped_where_the_model_does_not_know_them():
    tools = [function(strict=True)]
    assert losses_of(OLD, tools=tools) == ("tools[0].function.strict",)
    assert "strict" not in body_of(OLD, tools=tools)["tools"][0]


def test_json_schema_is_the_vendors_own_format_where_the_model_has_it():
    body = body_of(response_format=json_schema(OBJECT))
    assert body["output_config"] == {
        "format": {"type": "json_schema", "schema": OBJECT}
    }
    assert "tools" not in body


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (OLD, json_schema(OBJECT)),
        (BUDGETED, json_schema({**OBJECT, "additionalProperties": True})),
        (BUDGETED, {"type": "json_object"}),
    ],
    ids=["old model", "open schema", "json_object"],
)
def test_structured_output_is_emulated_by_a_forced_tool(model, shape):
    body = body_of(model, response_format=shape)
    (tool,) = body["tools"]
    assert tool["name"] == ANSWER_TOOL
    assert body["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL}
    if "json_schema" in shape:
        assert tool["input_schema"] == shape["json_schema"]["schema"]


def test_structured_output_beside_tools_lets_the_model_call_either():
    members = {"response_format": {"type": "json_object"}, "tools": [function()]}
    body = body_of(**members)
    assert [tool["name"] for tool in body["tools"]] == ["f", ANSWER_TOOL]
    assert body["tool_choice"] == {"type": "any"}
    named = body_of(**members, tool_choice=SAMPLES["tool_choice.named"])
    assert named["tool_choice"] == {"type": "tool", "name": "f"}
    none = body_of(**members, tool_choice="none")
    assert none["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL}


# -- the way back ---------------------------------------------------------------


def readable(piece, losses):
    """Return a block as it must come back, but for what *losses* names."""
    block, path = piece.block, piece.path()
    if isinstance(block, Image):
        is_lost = f"{path}.image_url.detail" in losses or block.detail == "auto"
        return msgspec.structs.replace(block, detail=UNSET) if is_lost else block
    if isinstance(block, Refusal):
        return Text(block.text)
    if isinstance(block, ToolCall):
        return (block.name, msgspec.json.decode(block.arguments))
    if isinstance(block, ToolResult):
        return block.content
    return block


def is_blank(block):
    """White space alone is left out of a turn."""
    return isinstance(block, Text | Refusal) and not block.text.strip()


def turns(messages, losses=()):
    found = turns_of(messages)
    system = [
        readable(piece, losses)
        for piece in found.system
        if not (is_blank(piece.block) and piece.path() in losses)
    ]
    spoken = []
    for role, said in cut_pieces(found.turns, losses):
        if len(said) > 1:
            said = [piece for piece in said if not is_blank(piece.block)]
        pieces = [
            piece
            for piece in said
            if not (is_blank(piece.block) and piece.path() in losses)
            and (
                f"messages[{piece.message}].reasoning_content" not in losses
                or not isinstance(piece.block, Thinking)
            )
        ]
        spoken.append((role, [readable(piece, losses) for piece in pieces]))
    return system, spoken


def ids(messages):
    """Return which call each result belongs to, whatever their ids are."""
    calls = [
        block.id for m in messages for block in m.content if isinstance(block, ToolCall)
    ]
    return [
        calls.index(block.call_id)
        for message in messages
        for block in message.content
        if isinstance(block, ToolResult)
    ]


@given(REQUESTS)
def test_request_there_and_back_says_the_same_but_for_named_losses(body):
    stops = body.get("stop") or []
    assume(all(stop.strip() for stop in ([stops] if isinstance(stops, str) else stops)))
    request = parsed(body)
    target = Target(provider="anthropic", model=BUDGETED)
    try:
        rendered, losses = ANTHROPIC.render_request(request, target)
    except InvalidRequest as error:
        # Nothing but several blank texts, and no word is left.
        assume(error.param != "messages")
        raise
    conversation = conversation_of(request)
    fields = msgspec.json.decode(rendered.body, type=dict[str, Raw])
    back = read_conversation(fields)
    assert turns(back.messages) == turns(conversation.messages, losses)
    assert ids(back.messages) == ids(conversation.messages)
    names = {
        f"messages[{index}].name"
        for index, message in enumerate(conversation.messages)
        if message.name is not UNSET
    }
    assert names <= set(losses)
    check_parameters(conversation, back, losses)


def decoded(shape):
    return msgspec.json.decode(shape.schema)


def check_parameters(conversation, back, losses):
    if conversation.max_tokens is not UNSET:
        assert back.max_tokens == conversation.max_tokens
    assert back.stop == conversation.stop
    assert [tool.name for tool in back.tools] == [t.name for t in conversation.tools]
    assert [tool.description for tool in back.tools] == [
        tool.description for tool in conversation.tools
    ]
    if conversation.tools:
        assert back.tool_choice == conversation.tool_choice or (
            conversation.tool_choice is UNSET and conversation.is_parallel is False
        )
    if isinstance(conversation.response_format, ResponseFormat):
        assert isinstance(back.response_format, ResponseFormat)
        assert decoded(back.response_format) == decoded(conversation.response_format)
    for name, raw in conversation.parameters.items():
        if name not in losses:
            assert back.parameters.get(name, Raw(b"false")) in (raw, Raw(b"false")), (
                name
            )
            value = msgspec.json.decode(raw)
            # While it thinks the temperature is 1, and not to be said.
            is_default = value in (False, {}, None) or (name, value) == (
                "temperature",
                1,
            )
            assert name in back.parameters or is_default, name
    if conversation.reasoning is not UNSET and "reasoning_effort" not in losses:
        is_off = conversation.reasoning.effort == "none"
        assert (back.reasoning is UNSET) == is_off


# -- what the vendor's specification says ---------------------------------------


@replay(recordings("openai", "chat.completions"), without_chat)
def test_corpus_openai_request_is_a_legal_request_or_refused_by_name(recording):
    body = recording.request
    validator = schema("anthropic.yml", "CreateMessageParams")
    request = parsed({k: v for k, v in body.items() if k != "model"})
    for model in (BUDGETED, ADAPTIVE, OLD):
        target = Target(provider="anthropic", model=model)
        with contextlib.suppress(InvalidRequest):
            rendered, _ = ANTHROPIC.render_request(request, target)
            assert not faults(validator, json.loads(rendered.body))


def not_readable(recording):
    """Say why a request does not come back as it was."""
    if (reason := not_accepted(recording)) is not None:
        return reason
    if "messages" not in recording.request:
        return "the request holds no messages"
    for message in recording.request["messages"]:
        if message["role"] == "system":
            return "instructions amid the conversation, which are moved and named"
    return None


@replay(recordings("anthropic", "messages"), not_readable)
def test_corpus_anthropic_request_there_and_back_is_as_legal_as_it_was(recording):
    body = recording.request
    validator = schema("anthropic.yml", "CreateMessageParams")
    fields = msgspec.json.decode(msgspec.json.encode(body), type=dict[str, Raw])
    conversation = read_conversation(fields)
    request = parsed({})
    request.neutral = conversation
    target = Target(provider="anthropic", model=body.get("model", BUDGETED))
    rendered, losses = ANTHROPIC.render_request(request, target)
    made = json.loads(rendered.body)
    # Some requests that were accepted use what the specification does not have.
    assert not faults(validator, made) or faults(validator, body)
    again = read_conversation(msgspec.json.decode(rendered.body, type=dict[str, Raw]))
    assert turns(again.messages) == turns(conversation.messages, losses)
    assert loosely(again.tools) == loosely(conversation.tools)


def loosely(tools):
    """Return *tools* without a ``strict`` that is false, which says nothing."""
    return [
        msgspec.structs.replace(tool, is_strict=tool.is_strict or UNSET)
        if isinstance(tool, FunctionTool)
        else tool
        for tool in tools
    ]


def test_names_of_models_are_understood_in_every_spelling():
    names = [
        "claude-sonnet-4-5",
        "claude-sonnet-4-5-20250929",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "claude-sonnet-4-5@20250929",
        "anthropic/claude-sonnet-4.5",
    ]
    assert len({generation_of(name) for name in names}) == 1


_MEMBERS = st.dictionaries(
    st.sampled_from(
        ["role", "content", "type", "text", "source", "input", "name", "tool_use_id"]
    ),
    JSON_VALUES,
    max_size=4,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["system", "tools", "tool_choice", "thinking", "output_config", "metadata"]
        ),
        JSON_VALUES | _MEMBERS | st.lists(_MEMBERS, max_size=2),
        max_size=3,
    ),
    st.sampled_from(["user", "assistant", "robot"]),
    JSON_VALUES | st.lists(_MEMBERS, max_size=3),
)
def test_anything_in_the_vendors_format_is_read_or_refused(members, role, content):
    body = {"messages": [{"role": role, "content": content}], **members}
    fields = msgspec.json.decode(msgspec.json.encode(body), type=dict[str, Raw])
    with contextlib.suppress(InvalidRequest):
        read_conversation(fields)
