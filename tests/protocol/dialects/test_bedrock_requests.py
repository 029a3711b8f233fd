"""OpenAI's requests said in the words of Converse."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from msgspec import UNSET, Raw

from tests.protocol.dialects.aws_shapes import shape_faults
from tests.protocol.dialects.bedrock_reading import read_conversation
from tests.protocol.dialects.checking import cut_pieces
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
from tests.protocol.dialects.strategies import PDF, PNG, REQUESTS, parsed
from tz_protocol.dialects.anthropic_request import ANSWER_TOOL
from tz_protocol.dialects.bedrock import BEDROCK
from tz_protocol.dialects.openai_conversation import conversation_of
from tz_protocol.dialects.parameters import Handling, column
from tz_protocol.dialects.turns import turns_of
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.conversation import (
    Citation,
    Conversation,
    Document,
    FileId,
    Image,
    Message,
    Opaque,
    PlainText,
    Refusal,
    ResponseFormat,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tz_protocol.types.request import Target

BUDGETED = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ADAPTIVE = "anthropic.claude-opus-4-6-v1"
OLD = "anthropic.claude-3-haiku-20240307-v1:0"
NOVA = "us.amazon.nova-2-lite-v1:0"
PLAIN = "meta.llama3-8b-instruct-v1:0"
OSS = "openai.gpt-oss-120b-1:0"
QWEN = "qwen.qwen3-32b-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"
S3_IMAGE = "s3://bucket/a.png"


def render(
    model=BUDGETED, *, options=None, extra=None, is_stream=False, messages=HELLO, **more
):
    target = Target(
        provider="aws_bedrock",
        model=model,
        options=options or {},
        extra_body=extra or {},
    )
    request = parsed({"messages": messages, **more}, is_stream=is_stream)
    rendered, losses = BEDROCK.render_request(request, target)
    body = json.loads(rendered.body)
    if not extra:
        assert legal(body, is_stream=is_stream) == []
    return rendered, losses


def legal(body, *, is_stream=False):
    name = "ConverseStreamRequest" if is_stream else "ConverseRequest"
    return [
        fault
        for fault in shape_faults("bedrock-runtime.json", name, body)
        if not fault.endswith(".modelId: missing")
    ]


def body_of(*args, **members):
    return msgspec.json.decode(render(*args, **members)[0].body)


def losses_of(*args, **members):
    return render(*args, **members)[1]


def refusal_of(*args, **members):
    with pytest.raises(InvalidRequest) as caught:
        render(*args, **members)
    return caught.value


# -- golden bytes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_stream", "operation"), [(False, "converse"), (True, "converse-stream")]
)
def test_request_golden_bytes(is_stream, operation):
    fields = (
        b'{"messages":[{"role":"system","content":"Be brief."},'
        b'{"role":"user","content":[{"type":"text","text":"What is this?"},'
        b'{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]},'
        b'{"role":"assistant","content":"","tool_calls":[{"id":"call_1","type":'
        b'"function","function":{"name":"look","arguments":"{\\"n\\": 1.50}"}}]},'
        b'{"role":"tool","tool_call_id":"call_1","content":"a cat"}],'
        b'"tools":[{"type":"function","function":{"name":"look","parameters":'
        b'{"type": "object", "properties": {"n": {"maximum": 1.50}}}}}],'
        b'"tool_choice":"auto","temperature":0.70,"max_tokens":100,"stop":"END",'
        b'"metadata":{"team":"a"}}'
    )
    request = parsed({}, is_stream=is_stream)
    request.fields = msgspec.json.decode(fields, type=dict[str, Raw])
    target = Target(provider="aws_bedrock", model=BUDGETED)
    rendered, losses = BEDROCK.render_request(request, target)
    assert losses == ()
    assert rendered.path == (
        f"model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/{operation}"
    )
    assert rendered.is_stream is is_stream
    assert rendered.headers == (("content-type", "application/json"),)
    assert rendered.body == (
        b'{"system":[{"text":"Be brief."}],"messages":[{"role":"user","content":'
        b'[{"text":"What is this?"},{"image":{"format":"png","source":{"bytes":'
        b'"AAAA"}}}]},{"role":"assistant","content":[{"toolUse":{"toolUseId":'
        b'"call_1","name":"look","input":{"n": 1.50}}}]},{"role":"user","content":'
        b'[{"toolResult":{"toolUseId":"call_1","content":[{"text":"a cat"}]}}]}],'
        b'"toolConfig":{"tools":[{"toolSpec":{"name":"look","inputSchema":{"json":'
        b'{"type": "object", "properties": {"n": {"maximum": 1.50}}}}}}],'
        b'"toolChoice":{"auto":{}}},"requestMetadata":{"team":"a"},'
        b'"inferenceConfig":{"maxTokens":100,"temperature":0.70,"stopSequences":'
        b'["END"]}}'
    )


def test_path_of_a_model_that_is_an_arn_is_one_segment():
    path = render(ARN)[0].path
    assert path.count("/") == 2
    assert path.startswith("model/arn%3Aaws%3Abedrock")


# -- every row of the table is what happens -------------------------------------

ROWS = column("bedrock")

SAMPLES = parameters_for("bedrock")
CONTENT_SAMPLES = contents_for("bedrock")
CONTENT_SAMPLES["file.url"] = None


def test_samples_cover_every_row_of_the_table():
    assert set(ROWS) <= set(SAMPLES) | set(CONTENT_SAMPLES)


@pytest.mark.parametrize("row", [row for row in ROWS if row in SAMPLES])
def test_parameter_is_handled_as_the_table_says(row):
    members = members_of(row, SAMPLES[row])
    name = row.partition(".")[0]
    without = {key: value for key, value in members.items() if key != name}
    handling = ROWS[row]
    if handling is Handling.REFUSED:
        error = refusal_of(**members)
        assert error.status == 400
        assert (error.param or "").startswith(name)
        assert "aws_bedrock" in error.message
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


@pytest.mark.parametrize(
    "row", [row for row in ROWS if CONTENT_SAMPLES.get(row) is not None]
)
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
        assert loss.endswith(row.rpartition(".")[2])
    else:
        assert losses_of(**members) == ()
        assert body_of(**members) != body_of()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1),
        ("logprobs", False),
        ("frequency_penalty", 0),
        ("logit_bias", {}),
        ("store", False),
        ("metadata", {}),
        ("modalities", ["text"]),
        ("parallel_tool_calls", True),
        ("seed", None),
        ("tools", []),
        ("service_tier", "auto"),
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
    own = {
        "guardrailConfig": {
            "guardrailIdentifier": "abc123",
            "guardrailVersion": "DRAFT",
        },
        "performanceConfig": {"latency": "optimized"},
        "additionalModelRequestFields": {"anthropic_beta": ["x"]},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
    }
    body = body_of(**own)
    assert {name: body[name] for name in own} == own
    assert losses_of(**own) == ()


def test_the_vendors_own_parameters_count_before_what_is_made_of_others():
    own = {"thinking": {"type": "enabled", "budget_tokens": 4_000}}
    body = body_of(
        additionalModelRequestFields=own,
        outputConfig={"effort": "max"},
        reasoning_effort="low",
        response_format=json_schema(OBJECT),
    )
    assert body["additionalModelRequestFields"] == own
    assert body["outputConfig"]["effort"] == "max"
    assert body["outputConfig"]["textFormat"]["type"] == "json_schema"
    error = refusal_of(additionalModelRequestFields=[1], reasoning_effort="low")
    assert error.param == "additionalModelRequestFields"


@pytest.mark.parametrize(
    ("policy", "losses"), [("warn", ("seed", "store")), ("drop", ())]
)
def test_policy_of_the_operator_lets_parameters_be_dropped(policy, losses):
    options = {"on_unsupported_param": policy}
    members = {"seed": 1, "store": True}
    assert losses_of(options=options, **members) == losses
    assert body_of(options=options, **members) == body_of()


def test_extra_body_of_the_config_replaces_what_was_rendered():
    extra = {"inferenceConfig": Raw(b'{"maxTokens":9}')}
    body = body_of(extra=extra, max_tokens=5)
    assert body["inferenceConfig"] == {"maxTokens": 9}


# -- messages -------------------------------------------------------------------


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


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
        ],
        tools=[function()],
    )
    assert body["system"] == [{"text": "A"}, {"text": "B"}]
    user, assistant, results = body["messages"]
    assert user["content"] == [{"text": "one"}, {"text": "two"}]
    kinds = [next(iter(block)) for block in assistant["content"]]
    assert kinds == ["text", "toolUse", "toolUse"]
    kinds = [next(iter(block)) for block in results["content"]]
    assert kinds == ["toolResult", "toolResult", "text"]


def test_turns_alternate_even_if_all_between_them_was_left_out():
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "reasoning_content": "hm"},
        {"role": "user", "content": "Hello?"},
    ]
    (turn,) = body_of(messages=messages)["messages"]
    assert turn["content"] == [{"text": "Hello"}, {"text": "Hello?"}]
    assert losses_of(messages=messages) == ("messages[1].reasoning_content",)


def test_blank_texts_are_left_out_and_those_of_callers_are_named():
    messages = [
        {"role": "user", "content": parts("", " \n", "a")},
        {"role": "assistant", "content": "\n", "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
    ]
    body = body_of(messages=messages, tools=[function()])
    assert [len(turn["content"]) for turn in body["messages"]] == [1, 1, 1]
    result = body["messages"][2]["content"][0]["toolResult"]
    assert result == {"toolUseId": "c", "content": []}
    assert losses_of(messages=messages) == ("messages[0].content[1]",)


def test_system_message_after_the_beginning_is_moved_and_named():
    messages = [*HELLO, {"role": "system", "content": "late"}]
    assert body_of(messages=messages)["system"] == [{"text": "late"}]
    assert losses_of(messages=messages) == ("messages[1].role",)


def test_conversation_of_instructions_only_is_refused():
    error = refusal_of(messages=[{"role": "system", "content": "a"}])
    assert error.param == "messages"


@pytest.mark.parametrize("foreign", ["functions.f:0", "x" * 65])
def test_foreign_tool_ids_are_replaced_alike_in_call_and_result(foreign):
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call(foreign)]},
        {"role": "tool", "tool_call_id": foreign, "content": "ok"},
    ]
    _, assistant, result = body_of(messages=messages)["messages"]
    made = assistant["content"][0]["toolUse"]["toolUseId"]
    assert made == result["content"][0]["toolResult"]["toolUseId"]
    assert made.startswith("call_")


@pytest.mark.parametrize("arguments", ["", "  ", "null", "{}"])
def test_call_without_arguments_has_an_empty_object(arguments):
    message = {"role": "assistant", "tool_calls": [call(arguments=arguments)]}
    body = body_of(messages=[*HELLO, *answered(message)])
    assert body["messages"][1]["content"][0]["toolUse"]["input"] == {}


@pytest.mark.parametrize("arguments", ["[1]", "nonsense", '{"a":', "3"])
def test_call_whose_arguments_are_no_object_is_refused(arguments):
    message = {"role": "assistant", "tool_calls": [call(arguments=arguments)]}
    error = refusal_of(messages=[*HELLO, *answered(message)])
    assert error.param == "messages[1].tool_calls"


def test_tool_result_of_blocks_with_an_image_and_an_error():
    content = [*parts("see"), CONTENT_SAMPLES["image_url.data"]]
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "c", "content": content, "is_error": True},
    ]
    (result,) = body_of(messages=messages)["messages"][2]["content"]
    assert result["toolResult"] == {
        "toolUseId": "c",
        "content": [
            {"text": "see"},
            {"image": {"format": "png", "source": {"bytes": PNG}}},
        ],
        "status": "error",
    }


SEALED = {
    "role": "assistant",
    "content": "x",
    "reasoning_details": [
        {"type": "reasoning.text", "text": "t", "signature": "s"},
        {
            "type": "reasoning.encrypted",
            "data": "RXU4",
            "format": "anthropic-claude-v1",
        },
        {"type": "reasoning.encrypted", "data": "/w==", "format": "aws-bedrock-v1"},
    ],
}


@pytest.mark.parametrize("model", [BUDGETED, ARN])
def test_thoughts_go_back_with_their_seal_and_first(model):
    content = body_of(model, messages=[*HELLO, SEALED])["messages"][1]["content"]
    twice = base64.b64encode(b"RXU4").decode()
    assert content == [
        {"reasoningContent": {"reasoningText": {"text": "t", "signature": "s"}}},
        {"reasoningContent": {"redactedContent": twice}},
        {"reasoningContent": {"redactedContent": "/w=="}},
        {"text": "x"},
    ]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (BUDGETED, {"content": "x", "reasoning_content": "t"}),
        (
            BUDGETED,
            {
                "content": "x",
                "reasoning_details": [
                    {"type": "reasoning.encrypted", "data": "d", "format": "google"}
                ],
            },
        ),
        (NOVA, {**SEALED}),
    ],
    ids=["unsealed", "foreign", "another model"],
)
def test_thoughts_without_this_models_seal_are_dropped_and_named(model, message):
    messages = [*HELLO, {**message, "role": "assistant"}]
    assert losses_of(model, messages=messages) == ("messages[1].reasoning_content",)
    body = body_of(model, messages=messages)
    assert body["messages"][1]["content"] == [{"text": "x"}]


def test_blocks_of_this_vendor_go_back_unread_and_those_of_others_are_named():
    value = {
        "toolUse": {
            "toolUseId": "s",
            "name": "nova_grounding",
            "input": {"q": 1},
            "type": "server_tool_use",
        }
    }
    entry = {"dialect": "bedrock", "type": "toolUse", "value": value}
    message = {"role": "assistant", "content": "x", "provider_content": [entry]}
    body = body_of(messages=[*HELLO, message])
    assert body["messages"][1]["content"][0] == value
    foreign = {**message, "provider_content": [{**entry, "dialect": "gemini"}]}
    messages = [*HELLO, foreign]
    assert losses_of(messages=messages) == ("messages[1].provider_content",)
    assert body_of(messages=messages)["messages"][1]["content"] == [{"text": "x"}]


MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
MARKED = [
    {"role": "system", "content": [{"type": "text", "text": "s", **MARK}]},
    {"role": "user", "content": [{"type": "text", "text": "u", **MARK}]},
    {"role": "assistant", "tool_calls": [call()]},
    {"role": "tool", "tool_call_id": "c", "content": "r", **MARK},
]


def test_marks_for_caching_follow_what_they_marked():
    point = {"cachePoint": {"type": "default", "ttl": "1h"}}
    body = body_of(messages=MARKED, tools=[{**function(), **MARK}])
    assert body["system"] == [{"text": "s"}, point]
    assert body["messages"][0]["content"] == [{"text": "u"}, point]
    assert body["messages"][2]["content"][1] == point
    assert body["toolConfig"]["tools"][1] == point
    whole = body_of(cache_control={"type": "ephemeral"})
    assert whole["messages"][0]["content"][-1] == {"cachePoint": {"type": "default"}}


def test_marks_for_caching_are_named_where_the_model_does_not_know_them():
    tools = [{**function(), **MARK}]
    assert losses_of(NOVA, messages=MARKED, tools=tools) == (
        "messages[0].content[0].cache_control.ttl",
        "messages[1].content[0].cache_control.ttl",
        "messages[3].content[0].cache_control.ttl",
        "tools[0].cache_control",
    )
    losses = losses_of(PLAIN, messages=MARKED, cache_control={"type": "ephemeral"})
    assert losses == (
        "cache_control",
        "messages[0].content[0].cache_control",
        "messages[1].content[0].cache_control",
        "messages[3].content[0].cache_control",
    )
    assert b"cachePoint" not in render(PLAIN, messages=MARKED)[0].body
    assert refusal_of(cache_control=[1]).param == "cache_control"


def file_part(name, media_type, data="SGk="):
    file = {"file_data": f"data:{media_type};base64,{data}"}
    return {"type": "file", "file": {**file, "filename": name} if name else file}


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            file_part("a b.pdf", "application/pdf", PDF),
            {"document": {"format": "pdf", "name": "a b", "source": {"bytes": PDF}}},
        ),
        (
            file_part("", "text/markdown"),
            {
                "document": {
                    "format": "md",
                    "name": "document",
                    "source": {"bytes": "SGk="},
                }
            },
        ),
        (
            file_part("x.png", "application/octet-stream", PNG),
            {"image": {"format": "png", "source": {"bytes": PNG}}},
        ),
        (
            {"type": "image_url", "image_url": {"url": S3_IMAGE}},
            {
                "image": {
                    "format": "png",
                    "source": {"s3Location": {"uri": S3_IMAGE}},
                }
            },
        ),
        (
            {"type": "input_audio", "input_audio": {"format": "mp3", "data": "AA=="}},
            {"audio": {"format": "mp3", "source": {"bytes": "AA=="}}},
        ),
    ],
    ids=["pdf", "markdown", "image as a file", "s3", "audio"],
)
def test_content_of_each_kind(part, block):
    messages = [{"role": "user", "content": [part]}]
    assert body_of(messages=messages)["messages"][0]["content"] == [block]
    # Of files only documents have names there.
    is_unnamed = part["type"] == "file" and "image" in block
    losses = ("messages[0].content[0].file.filename",) if is_unnamed else ()
    assert losses_of(messages=messages) == losses


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AA=="}},
        {"type": "file", "file": {"file_data": "https://e.org/a.pdf"}},
        file_part("a.zip", "application/zip"),
        {"type": "input_audio", "input_audio": {"format": "midi", "data": "AA=="}},
        {"type": "video_url", "video_url": {"url": "x"}},
    ],
    ids=["image link", "tiff", "file link", "zip", "midi", "video"],
)
def test_content_that_the_vendor_does_not_take_is_refused_by_name(part):
    error = refusal_of(messages=[{"role": "user", "content": [part]}])
    assert (error.param or "").startswith("messages[0].content[0]")
    assert error.code == "unsupported_parameter"


def test_call_of_a_custom_tool_is_refused():
    custom = {"id": "c", "type": "custom", "custom": {"name": "g", "input": "x"}}
    message = {"role": "assistant", "content": "a", "tool_calls": [custom]}
    assert refusal_of(messages=[*HELLO, message]).param == "messages[1].tool_calls"


def test_what_a_client_of_another_format_says_is_said_or_named():
    cited = Citation(start=0, end=1)
    blocks = (
        Text("a", UNSET, (cited,)),
        Document(PlainText("hé"), "notes"),
        Image(FileId("f")),
    )
    request = parsed({})
    request.neutral = Conversation(messages=(Message("user", blocks),))
    options = {"on_unsupported_param": "warn"}
    target = Target(provider="aws_bedrock", model=BUDGETED, options=options)
    rendered, losses = BEDROCK.render_request(request, target)
    text, document = json.loads(rendered.body)["messages"][0]["content"]
    data = document["document"]["source"]["bytes"]
    assert text == {"text": "a"}
    assert base64.b64decode(data).decode() == "hé"
    assert losses == (
        "messages[0].content[0].citations",
        "messages[0].content[2].image_url",
    )


def test_marks_within_the_result_of_a_tool_are_named():
    content = [{"type": "text", "text": "r", "cache_control": {"type": "ephemeral"}}]
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "c", "content": content},
    ]
    assert losses_of(messages=messages) == ("messages[2].content[0].cache_control",)


def test_operator_who_lets_things_be_dropped_loses_only_these():
    options = {"on_unsupported_param": "warn"}
    file = {"type": "file", "file": {"file_id": "file-1"}}
    sound = {"type": "input_audio", "input_audio": {"format": "x", "data": "AA=="}}
    messages = [{"role": "user", "content": [file, sound, *parts("a")]}]
    body = body_of(options=options, messages=messages)
    assert body["messages"] == [{"role": "user", "content": [{"text": "a"}]}]
    body = body_of(
        PLAIN, options=options, temperature=0.5, top_p=0.5, top_k=3, stop=[""]
    )
    assert body["inferenceConfig"] == {"temperature": 0.5, "topP": 0.5}


def test_names_of_documents_are_made_legal_and_told_apart():
    names = ["a.pdf", "a.pdf", "é_ x?.pdf", "noextension", "y" * 300]
    content = [file_part(name, "application/pdf", PDF) for name in names]
    messages = [{"role": "user", "content": content}]
    made = [
        block["document"]["name"]
        for block in body_of(messages=messages)["messages"][0]["content"]
    ]
    assert made == ["a", "a (2)", "-- x-", "noextension", "y" * 200]
    assert losses_of(messages=messages) == (
        "messages[0].content[2].file.filename",
        "messages[0].content[4].file.filename",
    )


# -- sizes, stops, sampling -----------------------------------------------------


def test_limit_is_left_to_the_model_if_there_is_none():
    assert "inferenceConfig" not in body_of()
    assert body_of(max_completion_tokens=7)["inferenceConfig"] == {"maxTokens": 7}


def test_stop_that_is_empty_is_refused():
    assert refusal_of(stop=["", "x"]).param == "stop"
    assert body_of(stop=["\n"])["inferenceConfig"] == {"stopSequences": ["\n"]}


def test_temperature_above_one_is_clamped_and_named():
    assert body_of(temperature=1.7)["inferenceConfig"] == {"temperature": 1}
    assert losses_of(temperature=1.7) == ("temperature",)
    assert refusal_of(temperature="hot").param == "temperature"


def test_temperature_and_top_p_together_are_refused_where_the_model_does():
    assert refusal_of(temperature=0.5, top_p=0.5).param == "top_p"
    body = body_of(OLD, temperature=0.5, top_p=0.5)
    assert body["inferenceConfig"] == {"temperature": 0.5, "topP": 0.5}


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (BUDGETED, {"top_k": 5}),
        (NOVA, {"inferenceConfig": {"topK": 5}}),
        ("cohere.command-r-v1:0", {"k": 5}),
    ],
)
def test_top_k_goes_where_the_model_looks_for_it(model, fields):
    assert body_of(model, top_k=5)["additionalModelRequestFields"] == fields


def test_top_k_is_refused_where_the_model_has_none():
    assert refusal_of(PLAIN, top_k=5).param == "top_k"


@pytest.mark.parametrize("tier", ["default", "flex", "priority"])
def test_service_tier_of_each_word(tier):
    assert body_of(service_tier=tier)["serviceTier"] == {"type": tier}


def test_service_tier_of_another_word_is_dropped_and_named():
    assert losses_of(service_tier="scale") == ("service_tier",)


def test_metadata_that_the_vendor_does_not_take_is_dropped_and_named():
    metadata = {"a": "b", "é": "x", "c": "d!", "": "e"}
    assert body_of(metadata=metadata)["requestMetadata"] == {"a": "b"}
    assert losses_of(metadata=metadata) == ("metadata.", "metadata.c", "metadata.é")
    assert "requestMetadata" not in body_of(metadata={"é": "x"})
    assert refusal_of(metadata={"a": 1}).param == "metadata"


# -- reasoning ------------------------------------------------------------------


def claude(budget):
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


@pytest.mark.parametrize(
    ("model", "members", "fields", "effort", "losses"),
    [
        (BUDGETED, {"reasoning_effort": "low"}, claude(2_048), None, ()),
        (
            BUDGETED,
            {"reasoning_effort": "high", "max_tokens": 4_000},
            claude(3_000),
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
        (
            BUDGETED,
            {"reasoning": {"max_tokens": 50}},
            claude(1_024),
            None,
            ("reasoning",),
        ),
        (BUDGETED, {"thinking": {"type": "enabled"}}, claude(8_192), None, ()),
        (
            ADAPTIVE,
            {"reasoning_effort": "medium"},
            {"thinking": {"type": "adaptive"}},
            "medium",
            (),
        ),
        (
            ADAPTIVE,
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            None,
            (),
        ),
        (
            ADAPTIVE,
            {"thinking": {"type": "enabled"}},
            {"thinking": {"type": "adaptive"}},
            None,
            (),
        ),
        (
            ADAPTIVE,
            {"reasoning_effort": "none"},
            {"thinking": {"type": "disabled"}},
            None,
            (),
        ),
        (
            NOVA,
            {"reasoning_effort": "low"},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
            None,
            (),
        ),
        (
            NOVA,
            {
                "reasoning_effort": "xhigh",
                "max_tokens": 9,
                "temperature": 1,
                "top_p": 0.5,
            },
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}},
            None,
            ("max_tokens", "temperature", "top_p"),
        ),
        (
            OSS,
            {"reasoning_effort": "minimal"},
            {"reasoning_effort": "low"},
            None,
            (),
        ),
        (OSS, {"reasoning_effort": "none"}, None, None, ("reasoning_effort",)),
        (OSS, {"reasoning": {"max_tokens": 5}}, None, None, ("reasoning",)),
        (QWEN, {"reasoning_effort": "high"}, {"reasoning_config": "high"}, None, ()),
        (OLD, {"reasoning_effort": "high"}, None, None, ("reasoning_effort",)),
        ("anthropic.claude-v2", {"thinking": {"type": "x"}}, None, None, ("thinking",)),
        (
            OSS,
            {"thinking": {"type": "enabled"}},
            {"reasoning_effort": "medium"},
            None,
            (),
        ),
        (ARN, {"thinking": {"type": "enabled"}}, None, None, ("thinking",)),
    ],
)
def test_reasoning_on_each_family(model, members, fields, effort, losses):
    body = body_of(model, **members)
    assert body.get("additionalModelRequestFields") == fields
    assert body.get("outputConfig", {}).get("effort") == effort
    assert losses_of(model, **members) == losses


def test_reasoning_effort_of_another_word_is_refused():
    assert refusal_of(reasoning_effort="huge").param == "reasoning_effort"


def test_thinking_gives_way_where_a_tool_is_forced():
    members = {
        "tools": [function()],
        "tool_choice": "required",
        "reasoning_effort": "high",
    }
    assert "additionalModelRequestFields" not in body_of(**members)
    assert losses_of(**members) == ("reasoning_effort",)
    body = body_of(ADAPTIVE, **members)
    assert "additionalModelRequestFields" not in body
    assert body["outputConfig"] == {"effort": "high"}


def test_temperature_and_top_k_give_way_to_thinking():
    members = {"reasoning_effort": "low", "temperature": 0.5, "top_k": 3}
    body = body_of(**members)
    assert "inferenceConfig" not in body
    assert "top_k" not in body["additionalModelRequestFields"]
    assert losses_of(**members) == ("temperature", "top_k")


# -- tools and structured output ------------------------------------------------


def names_of(body):
    return [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]]


def test_tool_without_parameters_or_without_a_type_gets_an_object():
    tools = [function(), function("g", parameters={"properties": {}}, description="")]
    schemas = [
        tool["toolSpec"]["inputSchema"]["json"]
        for tool in body_of(tools=tools)["toolConfig"]["tools"]
    ]
    assert schemas == [{"type": "object", "properties": {}}] * 2


def test_tool_whose_parameters_are_no_schema_is_refused():
    error = refusal_of(tools=[function(parameters=[1])])
    assert error.param == "tools[0].function.parameters"


def test_tool_with_the_gateways_own_name_is_refused():
    error = refusal_of(tools=[function(ANSWER_TOOL)])
    assert error.param == "tools[0].function.name"


def test_tool_of_another_provider_is_refused():
    error = refusal_of(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert error.param == "tools[0]"


def test_tool_choice_of_each_kind():
    tools = [function("f"), function("g")]

    def chosen(choice):
        return body_of(tools=tools, tool_choice=choice)["toolConfig"]["toolChoice"]

    assert chosen("auto") == {"auto": {}}
    assert chosen("required") == {"any": {}}
    assert chosen(SAMPLES["tool_choice.named"]) == {"tool": {"name": "f"}}
    assert "toolConfig" not in body_of(tools=tools, tool_choice="none")


def test_tool_choice_of_allowed_tools_sends_only_these():
    choice = {"mode": "required", "tools": [function("g")]}
    body = body_of(
        tools=[function("f"), function("g")],
        tool_choice={"type": "allowed_tools", "allowed_tools": choice},
    )
    assert names_of(body) == ["g"]
    assert body["toolConfig"]["toolChoice"] == {"any": {}}


CALLED = [
    *HELLO,
    {"role": "assistant", "tool_calls": [call("a"), call("b", "g")]},
    {"role": "tool", "tool_call_id": "a", "content": "1"},
    {"role": "tool", "tool_call_id": "b", "content": "2"},
]


def test_tools_that_were_called_are_declared_if_the_caller_does_not():
    assert names_of(body_of(messages=CALLED)) == ["f", "g"]
    assert losses_of(messages=CALLED) == ()


def test_tools_cannot_be_forbidden_after_they_were_called():
    members = {"messages": CALLED, "tools": [function()], "tool_choice": "none"}
    assert refusal_of(**members).param == "tool_choice"
    body = body_of(options={"on_unsupported_param": "warn"}, **members)
    assert names_of(body) == ["f"]


def test_strict_tools_are_dropped_where_the_model_does_not_know_them():
    tools = [function(strict=True)]
    assert losses_of(OLD, tools=tools) == ("tools[0].function.strict",)
    assert "strict" not in body_of(OLD, tools=tools)["toolConfig"]["tools"][0]
    assert losses_of(OLD, tools=[function(strict=False)]) == ()


def test_json_schema_is_the_vendors_own_format_where_the_model_has_it():
    shape = json_schema(OBJECT)
    shape["json_schema"]["description"] = "d"
    body = body_of(response_format=shape)
    definition = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert json.loads(definition["schema"]) == OBJECT
    assert (definition["name"], definition["description"]) == ("answer", "d")
    assert "toolConfig" not in body


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (OLD, json_schema(OBJECT)),
        (NOVA, json_schema(OBJECT)),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", json_schema(OBJECT)),
        (BUDGETED, json_schema({**OBJECT, "additionalProperties": True})),
        (BUDGETED, {"type": "json_object"}),
    ],
    ids=["old model", "nova", "claude 4.1", "open schema", "json_object"],
)
def test_structured_output_is_emulated_by_a_forced_tool(model, shape):
    config = body_of(model, response_format=shape)["toolConfig"]
    (tool,) = config["tools"]
    assert tool["toolSpec"]["name"] == ANSWER_TOOL
    assert config["toolChoice"] == {"tool": {"name": ANSWER_TOOL}}
    if "json_schema" in shape:
        schema = tool["toolSpec"]["inputSchema"]["json"]
        assert schema == shape["json_schema"]["schema"]


def test_json_schema_that_is_none_is_refused():
    shape = json_schema("x")
    error = refusal_of(response_format=shape)
    assert error.param == "response_format.json_schema.schema"


def test_structured_output_beside_tools_lets_the_model_call_either():
    members = {"response_format": {"type": "json_object"}, "tools": [function()]}
    body = body_of(**members)
    assert names_of(body) == ["f", ANSWER_TOOL]
    assert body["toolConfig"]["toolChoice"] == {"any": {}}
    named = body_of(**members, tool_choice=SAMPLES["tool_choice.named"])
    assert named["toolConfig"]["toolChoice"] == {"tool": {"name": "f"}}
    none = body_of(**members, tool_choice="none")
    assert none["toolConfig"]["toolChoice"] == {"tool": {"name": ANSWER_TOOL}}
    assert names_of(none) == [ANSWER_TOOL]


# -- the way back ---------------------------------------------------------------


def readable(piece, losses):
    """Return a block as it must come back, but for what *losses* names."""
    block, path = piece.block, piece.path()
    if f"{path}.cache_control" in losses or isinstance(block, ToolResult):
        block = msgspec.structs.replace(block, cache=UNSET)
    if isinstance(block, Image):
        is_unsaid = f"{path}.image_url.detail" in losses or block.detail == "auto"
        return msgspec.structs.replace(block, detail=UNSET) if is_unsaid else block
    if isinstance(block, Document):
        return ("document", block.source)
    if isinstance(block, Refusal):
        return Text(block.text)
    if isinstance(block, ToolCall):
        return (block.name, msgspec.json.decode(block.arguments))
    if isinstance(block, ToolResult):
        return [
            msgspec.structs.replace(part, cache=UNSET)
            for part in block.content
            if not is_blank(part)
        ]
    return block


def is_blank(block):
    return isinstance(block, Text | Refusal) and not block.text.strip()


def is_lost(piece, losses):
    if isinstance(piece.block, Thinking):
        return f"messages[{piece.message}].reasoning_content" in losses
    return f"{piece.path()}.image_url" in losses


def turns(messages, losses=()):
    """Return who said what; what *losses* names and what is blank is left out."""
    found = turns_of(messages)
    system = [readable(p, losses) for p in found.system if not is_blank(p.block)]
    spoken: list[tuple[str, list[Any]]] = []
    for role, pieces in cut_pieces(found.turns, losses):
        said = [
            readable(piece, losses)
            for piece in pieces
            if not is_blank(piece.block) and not is_lost(piece, losses)
        ]
        if said and spoken and spoken[-1][0] == role:
            spoken[-1][1].extend(said)
        elif said:
            spoken.append((role, said))
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
    request = parsed(body)
    options = {"on_unsupported_param": "warn"}
    target = Target(provider="aws_bedrock", model=BUDGETED, options=options)
    try:
        rendered, losses = BEDROCK.render_request(request, target)
    except InvalidRequest as error:
        # Nothing but links to pictures and blank texts, and no word is left.
        assume(error.param != "messages")
        raise
    assert legal(json.loads(rendered.body)) == []
    conversation = conversation_of(request)
    back = read_conversation(rendered.body)
    assert turns(back.messages) == turns(conversation.messages, losses)
    assert ids(back.messages) == ids(conversation.messages)
    check_losses(conversation, losses)
    check_parameters(conversation, back, losses)


def check_losses(conversation, losses):
    """Everything that has no place there is named."""
    for index, message in enumerate(conversation.messages):
        if message.name is not UNSET:
            assert f"messages[{index}].name" in losses
        for place, block in enumerate(message.content):
            path = f"messages[{index}].content[{place}]"
            if message.role != "assistant" and is_blank(block) and block.text:
                assert path in losses


def check_parameters(conversation, back, losses):
    if conversation.max_tokens is not UNSET:
        assert back.max_tokens == conversation.max_tokens
    assert back.stop == conversation.stop
    choice = conversation.tool_choice
    if isinstance(choice, ToolChoice):
        is_said = choice.mode == "none" or "tool_choice" in losses
        assert is_said or back.tool_choice == choice
        if choice.mode != "none":
            names = [tool.name for tool in back.tools]
            assert names == [tool.name for tool in conversation.tools]
    if conversation.is_parallel is False:
        assert "parallel_tool_calls" in losses
    if isinstance(conversation.response_format, ResponseFormat):
        assert isinstance(back.response_format, ResponseFormat)
        assert decoded(back.response_format) == decoded(conversation.response_format)
    for name in ("user", "store", "something_new"):
        raw = conversation.parameters.get(name)
        assert raw is None or name in losses or raw == Raw(b"false")


def decoded(shape):
    return msgspec.json.decode(shape.schema)


# -- what the vendor's specification says ---------------------------------------


@replay(recordings("openai", "chat.completions"), without_chat)
def test_corpus_openai_request_is_a_legal_request_or_refused_by_name(recording):
    body = recording.request
    request = parsed({k: v for k, v in body.items() if k != "model"})
    for model in (BUDGETED, ADAPTIVE, OLD, NOVA, PLAIN, ARN):
        target = Target(provider="aws_bedrock", model=model)
        with contextlib.suppress(InvalidRequest):
            rendered, _ = BEDROCK.render_request(request, target)
            assert legal(json.loads(rendered.body)) == []


def not_readable(recording):
    """Say why the reading by hand knows nothing of a request."""
    if (reason := not_accepted(recording)) is not None:
        return reason
    try:
        read_conversation(msgspec.json.encode(recording.request))
    except (KeyError, IndexError):
        return "the request holds what only this vendor can say"
    return None


@replay(recordings("aws_bedrock", "converse", "converse-stream"), not_readable)
def test_corpus_bedrock_request_there_and_back_is_as_legal_as_it_was(recording):
    body = recording.request
    assert legal(body) == []
    conversation = read_conversation(msgspec.json.encode(body))
    request = parsed({})
    request.neutral = conversation
    target = Target(provider="aws_bedrock", model=BUDGETED)
    rendered, losses = BEDROCK.render_request(request, target)
    assert legal(json.loads(rendered.body)) == []
    again = read_conversation(rendered.body)
    assert turns(again.messages) == turns(conversation.messages, losses)
    assert names(again.tools) == names(conversation.tools)


def names(tools):
    return [tool.name for tool in tools]


def test_block_of_every_type_has_a_rendering():
    from tz_protocol.dialects import bedrock_messages
    from tz_protocol.types import conversation

    assert set(bedrock_messages._RENDERERS) == set(conversation.Block.__args__)
    assert Opaque in bedrock_messages._RENDERERS
