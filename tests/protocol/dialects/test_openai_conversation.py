from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from tests.protocol.dialects.recordings import not_accepted, recordings, replay
from tests.protocol.dialects.saying import answered, call
from tests.protocol.dialects.strategies import REQUESTS, parsed
from tz_protocol.dialects.openai_conversation import (
    conversation_of,
    read_conversation,
)
from tz_protocol.dialects.openai_rendering import render_fields
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.conversation import (
    Audio,
    CacheHint,
    Conversation,
    CustomTool,
    Document,
    FileId,
    FunctionTool,
    Image,
    Inline,
    Message,
    Opaque,
    PlainText,
    ProviderTool,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolResult,
    Url,
)

HELLO = [{"role": "user", "content": "Hello"}]


def read(**members):
    return read_conversation(parsed({"messages": HELLO, **members}))


def read_message(message):
    """Return what *message* says, among those that it cannot be without."""
    before: list[Any] = HELLO
    after: list[Any] = []
    if message["role"] == "tool":
        before = [{"role": "assistant", "tool_calls": [call(message["tool_call_id"])]}]
    elif "tool_calls" in message:
        _, *after = answered(message)
    return read(messages=[*before, message, *after]).messages[1]


def read_part(part):
    (block,) = read_message({"role": "user", "content": [part]}).content
    return block


# -- messages and parts ---------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "text", "text": "a"}, Text("a")),
        (
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
            Text("a", CacheHint()),
        ),
        (
            {"type": "text", "text": "a", "cache_control": {"ttl": "1h"}},
            Text("a", CacheHint("1h")),
        ),
        (
            {
                "type": "text",
                "text": "a",
                "prompt_cache_breakpoint": {"mode": "explicit"},
            },
            Text("a", CacheHint()),
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://e.org/a"}},
            Image(Url("https://e.org/a")),
        ),
        (
            {"type": "image_url", "image_url": "https://e.org/a"},
            Image(Url("https://e.org/a")),
        ),
        (
            {
                "type": "image_url",
                "image_url": {"url": "data:image/PNG;base64,AA==", "detail": "low"},
            },
            Image(Inline("image/png", "AA=="), "low"),
        ),
        (
            {"type": "input_audio", "input_audio": {"format": "wav", "data": "AA=="}},
            Audio("wav", "AA=="),
        ),
        (
            {"type": "file", "file": {"file_id": "file-1"}},
            Document(FileId("file-1")),
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "AA=="}},
            Document(Inline("application/pdf", "AA=="), "a.pdf"),
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;base64,AA=="}},
            Document(Inline("text/plain", "AA==")),
        ),
        (
            {"type": "file", "file": {"file_data": "https://e.org/a.pdf"}},
            Document(Url("https://e.org/a.pdf")),
        ),
        (
            {"type": "video_url", "video_url": {"url": "x"}},
            Opaque(
                "openai_chat",
                "video_url",
                Raw(b'{"type":"video_url","video_url":{"url":"x"}}'),
            ),
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else None,
)
def test_part_of_each_kind_becomes_its_block(part, block):
    assert read_part(part) == block


def test_message_without_parts_is_one_text():
    assert read_message(HELLO[0]) == Message("user", (Text("Hello"),))


def test_assistant_says_thoughts_then_text_then_refusal_then_calls():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    message = {
        "role": "assistant",
        "content": "text",
        "refusal": "no",
        "tool_calls": [
            {**call, "extra_content": {"google": {"thought_signature": "s"}}},
            {"id": "d", "type": "custom", "custom": {"name": "g", "input": "free"}},
        ],
        "reasoning_content": "thought",
        "annotations": [],
        "audio": None,
    }
    assert read_message(message).content == (
        Thinking(text="thought"),
        Text("text"),
        Refusal("no"),
        ToolCall(id="c", name="f", arguments="", signature="s"),
        ToolCall(id="d", name="g", arguments="free", is_custom=True),
    )
    assert read(messages=answered(message)).unread == ()


@pytest.mark.parametrize(
    ("members", "thoughts"),
    [
        (
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "t", "signature": "s"},
                    {"type": "reasoning.encrypted", "data": "d", "format": "f"},
                    {"type": "reasoning.summary", "summary": "u", "id": "i"},
                ],
                "reasoning_content": "t",
            },
            (
                Thinking(text="t", signature="s"),
                Thinking(data="d", format="f"),
                Thinking(text="u", id="i"),
            ),
        ),
        (
            {
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "redacted_thinking", "data": "d"},
                ]
            },
            (
                Thinking(text="t", signature="s", format="anthropic-claude-v1"),
                Thinking(data="d", format="anthropic-claude-v1"),
            ),
        ),
        ({"reasoning": "r"}, (Thinking(text="r"),)),
        ({"reasoning_content": ""}, ()),
    ],
    ids=["openrouter", "litellm", "plain", "empty"],
)
def test_thoughts_are_read_in_each_form(members, thoughts):
    message = {"role": "assistant", "content": "x", **members}
    assert read_message(message).content == (*thoughts, Text("x"))


def test_provider_content_of_an_answer_is_read_again():
    entry = {"dialect": "anthropic", "type": "compaction", "value": {"a": 1}}
    message = {"role": "assistant", "content": "x", "provider_content": [entry]}
    block = Opaque("anthropic", "compaction", Raw(b'{"a":1}'))
    assert read_message(message).content == (block, Text("x"))


def test_tool_result_of_text_and_of_parts():
    message: dict[str, Any] = {"role": "tool", "tool_call_id": "c", "content": "ok"}
    result = ToolResult(call_id="c", content=(Text("ok"),))
    assert read_message(message) == Message("tool", (result,))
    message = {**message, "content": [{"type": "text", "text": "ok"}]}
    assert read_message(message) == Message("tool", (result,))


def test_functions_of_old_are_tools_with_ids_that_agree():
    conversation = read(
        messages=[
            *HELLO,
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "f", "arguments": "{}"},
            },
            {"role": "function", "name": "f", "content": "ok"},
        ],
        functions=[{"name": "f", "parameters": {"type": "object"}}],
        function_call={"name": "f"},
    )
    _, call, result = conversation.messages
    assert call.content == (ToolCall(id="call_1", name="f", arguments="{}"),)
    assert result.content == (ToolResult(call_id="call_1", content=(Text("ok"),)),)
    assert conversation.tool_choice == ToolChoice("named", "f")
    (tool,) = conversation.tools
    assert isinstance(tool, FunctionTool)


def test_members_that_nobody_knows_are_recorded_as_unread():
    conversation = read(
        messages=[
            {"role": "user", "content": "a", "mood": "good"},
            {"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "https://e", "y": 1}}
                ],
            },
        ],
        tools=[{"type": "function", "function": {"name": "f", "z": 1}, "w": 1}],
    )
    assert sorted(conversation.unread) == [
        "messages[0].mood",
        "messages[1].content[0].x",
        "messages[2].content[0].image_url.y",
        "tools[0].function.z",
        "tools[0].w",
    ]


# -- parameters -----------------------------------------------------------------


def test_numbers_stay_as_the_client_wrote_them():
    fields = {
        "messages": Raw(b'[{"role":"user","content":"a"}]'),
        "temperature": Raw(b"0.70"),
        "seed": Raw(b"123456789012345678901234567890"),
        "top_p": Raw(b"1E-1"),
    }
    request = parsed({})
    request.fields = fields
    parameters = read_conversation(request).parameters
    assert bytes(parameters["temperature"]) == b"0.70"
    assert bytes(parameters["seed"]) == b"123456789012345678901234567890"
    assert bytes(parameters["top_p"]) == b"1E-1"


def test_null_parameters_are_not_given():
    conversation = read(temperature=None, stop=None, tools=None, response_format=None)
    assert conversation.given == frozenset()
    assert conversation.parameters == {}


@pytest.mark.parametrize(
    ("members", "limit"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 5),
        ({"max_completion_tokens": 4, "max_tokens": 5}, 4),
        ({}, UNSET),
    ],
)
def test_max_tokens_under_both_names_is_the_stricter(members, limit):
    assert read(**members).max_tokens == limit


@pytest.mark.parametrize(
    ("value", "choice", "given_name"),
    [
        ("auto", ToolChoice("auto"), "tool_choice"),
        ("none", ToolChoice("none"), "tool_choice.none"),
        ("required", ToolChoice("required"), "tool_choice"),
        (
            {"type": "function", "function": {"name": "f"}},
            ToolChoice("named", "f"),
            "tool_choice.named",
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            },
            ToolChoice("required", allowed=("f",)),
            "tool_choice.allowed_tools",
        ),
    ],
    ids=["auto", "none", "required", "named", "allowed"],
)
def test_tool_choice_in_each_form(value, choice, given_name):
    tools = [{"type": "function", "function": {"name": "f"}}]
    conversation = read(tool_choice=value, tools=tools)
    assert conversation.tool_choice == choice
    assert conversation.given == {given_name, "tools"}


def test_tools_of_each_kind():
    search = {"type": "web_search_20250305", "name": "web_search"}
    custom = {"name": "g", "format": {"type": "text"}}
    function = {"name": "f", "description": "d", "parameters": {"a": 1.50}}
    tools = read(
        tools=[
            {"type": "function", "function": {**function, "strict": True}},
            {"type": "custom", "custom": custom},
            search,
        ]
    ).tools
    assert tools == (
        FunctionTool(
            name="f", description="d", parameters=Raw(b'{"a":1.5}'), is_strict=True
        ),
        CustomTool(name="g", value=Raw(msgspec.json.encode(custom))),
        ProviderTool("web_search_20250305", Raw(msgspec.json.encode(search))),
    )


@pytest.mark.parametrize(
    ("members", "reasoning"),
    [
        ({"reasoning_effort": "low"}, Reasoning(effort="low")),
        ({"reasoning": {"effort": "high"}}, Reasoning(effort="high")),
        ({"reasoning": {"max_tokens": 9}}, Reasoning(budget_tokens=9)),
        ({"reasoning": {"enabled": False}}, Reasoning(budget_tokens=0)),
        ({"reasoning": {"enabled": True}}, Reasoning()),
        ({"reasoning": {"enabled": True, "effort": "low"}}, Reasoning(effort="low")),
        ({"reasoning": {"enabled": None}}, UNSET),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 9}},
            Reasoning(budget_tokens=9),
        ),
        ({"thinking": {"type": "enabled"}}, Reasoning()),
        ({"thinking": {"type": "disabled"}}, Reasoning(budget_tokens=0)),
        ({"thinking": {"type": "adaptive"}}, Reasoning(is_adaptive=True)),
        ({}, UNSET),
    ],
)
def test_reasoning_in_each_form(members, reasoning):
    assert read(**members).reasoning == reasoning


def test_response_format_in_each_form():
    assert read(response_format={"type": "text"}).response_format is UNSET
    assert read(response_format={"type": "json_object"}).response_format == (
        ResponseFormat(kind="json_object")
    )
    shape = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert read(
        response_format={"type": "json_schema", "json_schema": shape}
    ).response_format == ResponseFormat(
        kind="json_schema", name="n", schema=Raw(b'{"type":"object"}'), is_strict=True
    )


# -- faults ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [*HELLO, {"role": "user"}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"text": "a"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "data:x"}}
                        ],
                    }
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "c", "function": {}}]}
                ]
            },
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {"messages": [{"role": "assistant", "reasoning_details": ["x"]}]},
            "messages[0].reasoning_details[0]",
        ),
        (
            {"messages": [{"role": "assistant", "reasoning_details": [{"data": 1}]}]},
            "messages[0].reasoning_details[0].data",
        ),
        (
            {"messages": [{"role": "assistant", "reasoning_details": "x"}]},
            "messages[0].reasoning_details",
        ),
        (
            {"messages": [{"role": "assistant", "thinking_blocks": [1]}]},
            "messages[0].thinking_blocks[0]",
        ),
        (
            {"messages": [{"role": "assistant", "thinking_blocks": [{"data": 1}]}]},
            "messages[0].thinking_blocks[0].data",
        ),
        (
            {"messages": [{"role": "assistant", "provider_content": "x"}]},
            "messages[0].provider_content",
        ),
        (
            {"messages": [{"role": "assistant", "provider_content": [1]}]},
            "messages[0].provider_content[0]",
        ),
        (
            {"messages": [{"role": "assistant", "provider_content": [{}]}]},
            "messages[0].provider_content[0].value",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": {}}]},
            "messages[0].tool_calls",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [1]}]},
            "messages[0].tool_calls[0]",
        ),
        (
            {"messages": [{"role": "assistant", "function_call": 1}]},
            "messages[0].function_call",
        ),
        (
            {"messages": [{"role": "tool", "tool_call_id": "c", "is_error": 1}]},
            "messages[0].is_error",
        ),
        (
            {"messages": [{"role": "user", "content": "a", "cache_control": 1}]},
            "messages[0].cache_control",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
            "messages[0].content[0].file.file_data",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {}}],
                    }
                ]
            },
            "messages[0].content[0].input_audio.format",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": 1}]}
                ]
            },
            "messages[0].content[0].image_url",
        ),
        ({"function_call": 1}, "function_call"),
        ({"function_call": "maybe"}, "function_call"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
            "tool_choice.allowed_tools",
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [1]},
                }
            },
            "tool_choice.allowed_tools.tools",
        ),
        ({"messages": "a"}, "messages"),
        ({"messages": [1]}, "messages"),
        ({"stop": 5}, "stop"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"tools": {}}, "tools"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
    ],
)
def test_fault_is_refused_and_named(members, param):
    with pytest.raises(InvalidRequest) as caught:
        read(**members)
    assert caught.value.param == param
    assert caught.value.status == 400
    assert repr(param) in caught.value.message


def test_missing_messages_are_refused():
    with pytest.raises(InvalidRequest) as caught:
        read_conversation(parsed({}))
    assert caught.value.param == "messages"


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "function", "name", "id", "url"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "messages",
                "tools",
                "tool_choice",
                "response_format",
                "stop",
                "functions",
                "function_call",
                "reasoning",
                "thinking",
            ]
        ),
        _ANYTHING,
    ),
    st.sampled_from(["user", "assistant", "tool", "system"]),
    _ANYTHING,
)
def test_anything_is_read_or_refused(members, role, content):
    members = {"messages": [{"role": role, "content": content}], **members}
    with contextlib.suppress(InvalidRequest):
        read_conversation(parsed(members))


# -- the way back ---------------------------------------------------------------

EVERYTHING = Conversation(
    messages=(
        Message("system", (Text("s", CacheHint()),), "sys"),
        Message(
            "user",
            (
                Text("a"),
                Image(Inline("image/png", "AA=="), "low"),
                Audio("wav", "AA=="),
                Document(FileId("file-1"), "a"),
                Document(Url("https://e.org/a.pdf")),
                Document(PlainText("plain")),
                Opaque("openai_chat", "video_url", Raw(b'{"type":"video_url"}')),
                Opaque("gemini", "other", Raw(b"{}")),
            ),
        ),
        Message(
            "assistant",
            (
                Thinking(text="t", signature="s"),
                Thinking(data="d", format="f", id="i"),
                Opaque("anthropic", "k", Raw(b'{"a":1}')),
                Text("b"),
                ToolCall(id="c", name="f", arguments="{}", signature="g"),
                ToolCall(id="d", name="g", arguments="free", is_custom=True),
            ),
        ),
        Message("tool", (ToolResult(call_id="c", is_error=True, cache=CacheHint()),)),
        Message("assistant", (Refusal("no"),)),
        Message("assistant", ()),
    ),
    tools=(
        FunctionTool(name="f", is_strict=True, cache=CacheHint()),
        CustomTool(name="g", value=Raw(b'{"name":"g"}')),
        ProviderTool("search", Raw(b'{"type":"search"}')),
    ),
    tool_choice=ToolChoice("required", allowed=("f",)),
    response_format=ResponseFormat(kind="json_object"),
    reasoning=Reasoning(budget_tokens=5),
    is_stream=True,
)


def test_everything_that_can_be_said_is_rendered_or_named_as_lost():
    fields, losses = render_fields(EVERYTHING)
    assert msgspec.json.decode(msgspec.json.encode(fields)) == {
        "messages": [
            {"role": "system", "name": "sys", "content": "s"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {
                        "type": "image_url",
                        "image_url": {
                            "url": "data:image/png;base64,AA==",
                            "detail": "low",
                        },
                    },
                    {
                        "type": "input_audio",
                        "input_audio": {"data": "AA==", "format": "wav"},
                    },
                    {"type": "file", "file": {"filename": "a", "file_id": "file-1"}},
                    {"type": "file", "file": {"file_data": "https://e.org/a.pdf"}},
                    {
                        "type": "file",
                        "file": {"file_data": "data:text/plain;base64,cGxhaW4="},
                    },
                    {"type": "video_url"},
                ],
            },
            {
                "role": "assistant",
                "content": "b",
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "t", "signature": "s"},
                    {
                        "type": "reasoning.encrypted",
                        "data": "d",
                        "format": "f",
                        "id": "i",
                    },
                ],
                "provider_content": [
                    {"dialect": "anthropic", "type": "k", "value": {"a": 1}}
                ],
                "tool_calls": [
                    {
                        "id": "c",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                        "extra_content": {"google": {"thought_signature": "g"}},
                    },
                    {
                        "id": "d",
                        "type": "custom",
                        "custom": {"name": "g", "input": "free"},
                    },
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": "", "is_error": True},
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "assistant", "content": ""},
        ],
        "stream": True,
        "tools": [
            {"type": "function", "function": {"name": "f", "strict": True}},
            {"type": "custom", "custom": {"name": "g"}},
            {"type": "search"},
        ],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
        },
        "response_format": {"type": "json_object"},
    }
    assert losses == (
        "messages[0].content[0].cache_control",
        "messages[1].content[7]",
        "messages[3].cache_control",
        "reasoning",
        "tools.cache_control",
    )


def again(conversation):
    fields, losses = render_fields(conversation)
    return read_conversation(parsed(fields)), losses


def without_losses(conversation, losses):
    """Return *conversation* without the marks for caching that are named as lost."""
    if not any(name.endswith("cache_control") for name in losses):
        return conversation
    messages = tuple(
        msgspec.structs.replace(
            message, content=tuple(unmarked(block) for block in message.content)
        )
        for message in conversation.messages
    )
    return msgspec.structs.replace(conversation, messages=messages)


def unmarked(block):
    if isinstance(block, ToolResult):
        inner = tuple(unmarked(part) for part in block.content)
        return msgspec.structs.replace(block, content=inner)
    if getattr(block, "cache", UNSET) is UNSET:
        return block
    return msgspec.structs.replace(block, cache=UNSET)


@given(REQUESTS)
def test_request_there_and_back_is_the_same_but_for_named_losses(body):
    conversation = read_conversation(parsed(body))
    back, losses = again(conversation)
    # max_tokens goes back under its newer name.
    renamed = {
        "max_completion_tokens" if name == "max_tokens" else name
        for name in conversation.given
    }
    expected = msgspec.structs.replace(
        without_losses(conversation, losses), given=frozenset(renamed), unread=()
    )
    assert back == expected


def test_conversation_is_read_once_for_all_candidates():
    request = parsed({"messages": HELLO})
    assert conversation_of(request) is conversation_of(request)


@replay(recordings("openai", "chat.completions"), not_accepted)
def test_corpus_openai_request_there_and_back_is_the_same(recording):
    sent = recording.request.items()
    body = {name: value for name, value in sent if name != "model"}
    conversation = read_conversation(parsed(body))
    back, losses = again(conversation)
    assert back.messages == without_losses(conversation, losses).messages
    assert back.tools == conversation.tools
    assert back.parameters == conversation.parameters
