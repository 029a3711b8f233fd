from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.dialects.strategies import JSON_VALUES, MESSAGES
from tz_protocol.dialects.ids import short_id
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_chat_messages import (
    CLOSED_MESSAGES,
    MESSAGE_QUIRKS,
    NO_DEVELOPER,
    REASONING_ECHO,
    SHORT_IDS,
    fitted_messages,
    fitted_tools,
)
from tz_protocol.providers.openai_family import OPENAI_FAMILY
from tz_protocol.types.chat import ChatRequest
from tz_protocol.types.http import RequestHead
from tz_protocol.types.request import Target
from tz_protocol.wire.json import NULL

USER = {"role": "user", "content": "Hi"}


def fit(messages, *quirks, model="m"):
    raw = Raw(json.dumps(messages).encode())
    made, losses = fitted_messages(raw, frozenset(quirks), model)
    return json.loads(bytes(made)), losses


def call(call_id):
    function = {"name": "f", "arguments": "{}"}
    return {"id": call_id, "type": "function", "function": function}


def test_developer_is_system_where_there_is_no_such_role():
    messages = [{"role": "developer", "content": "Be brief."}, USER]
    made, losses = fit(messages, NO_DEVELOPER)
    assert made == [{"role": "system", "content": "Be brief."}, USER]
    assert losses == []
    assert fit(messages)[0] == messages


@pytest.mark.parametrize("quirk", sorted(set(MESSAGE_QUIRKS) - {CLOSED_MESSAGES}))
def test_messages_that_a_quirk_is_not_about_stay_the_bytes_that_they_were(quirk):
    raw = Raw(b'[ {"role":"user", "content":"\\u00e9", "x":1e0} ]')
    made, losses = fitted_messages(raw, frozenset({quirk}), "m")
    assert made is raw
    assert losses == []


def test_ids_are_short_in_the_call_and_in_its_result():
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call("call_1")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call("abcDEF123")]},
        {"role": "tool", "tool_call_id": "abcDEF123", "content": "b"},
    ]
    made, losses = fit(messages, SHORT_IDS)
    first, second = made[0]["tool_calls"][0]["id"], made[1]["tool_call_id"]
    assert first == second == short_id("call_1", 9)
    assert made[2:] == messages[2:]
    assert losses == []


@given(st.text(), st.integers(1, 20))
def test_short_ids_are_legal_and_repeatable(value, size):
    made = short_id(value, size)
    assert made == short_id(value, size)
    assert len(made) == size
    assert made.isalnum()
    assert made.isascii()


def test_thoughts_go_back_in_the_member_that_they_came_in():
    messages = [{"role": "assistant", "content": "a", "reasoning_content": "t"}]
    made, losses = fit(messages, REASONING_ECHO)
    assert made == [{"role": "assistant", "content": "a", "reasoning": "t"}]
    assert losses == []


ANSWER: dict[str, Any] = {
    "role": "assistant",
    "content": "a",
    "refusal": None,
    "annotations": [],
    "reasoning_content": "t",
}


def test_closed_messages_lose_what_answers_have_and_name_what_says_something():
    messages = [{**USER, "name": "n"}, ANSWER, {"role": "tool", "name": "f"}]
    made, losses = fit(messages, CLOSED_MESSAGES)
    assert made == [USER, {"role": "assistant", "content": "a"}, messages[2]]
    assert losses == ["messages[0].name", "messages[1].reasoning_content"]


def test_closed_messages_of_a_model_that_thinks_keep_its_thoughts():
    made, losses = fit([ANSWER], CLOSED_MESSAGES, model="magistral-small")
    (message,) = made
    assert message["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "t"}]},
        {"type": "text", "text": "a"},
    ]
    assert losses == []


def test_closed_messages_say_a_refusal_as_the_content():
    message = {"role": "assistant", "content": None, "refusal": "No."}
    made, losses = fit([message], CLOSED_MESSAGES)
    assert made == [{"role": "assistant", "content": "No."}]
    assert losses == []


def test_what_means_something_is_left_for_the_vendor_to_refuse():
    message = {**USER, "unknown": 1, "function_call": {"name": "f"}}
    assert fit([message], CLOSED_MESSAGES) == ([message], [])


def test_request_names_what_its_messages_lost():
    fields = msgspec.json.decode(
        json.dumps({"messages": [{**USER, "name": "n"}], "user": "u"}),
        type=dict[str, Raw],
    )
    request = ChatRequest(model="m", fields=fields)
    target = Target(provider="p", model="m", unsupported=frozenset({"user"}))
    assert OPENAI_CHAT.adapted is not None
    dialect = OPENAI_CHAT.adapted(frozenset({CLOSED_MESSAGES}))
    rendered, losses = dialect.render_request(request, target)
    assert losses == ("messages[0].name", "user")
    assert json.loads(rendered.body)["messages"] == [USER]
    extra = Target(provider="p", model="m", extra_body={"messages": Raw(b"[1]")})
    rendered, losses = dialect.render_request(request, extra)
    assert json.loads(rendered.body)["messages"] == [1]
    assert losses == ()


@given(
    MESSAGES | st.lists(st.dictionaries(st.text(max_size=9), JSON_VALUES), max_size=3),
    st.sets(st.sampled_from(sorted(MESSAGE_QUIRKS))),
)
def test_messages_of_any_kind_keep_their_number_and_their_text(messages, quirks):
    made, losses = fit(messages, *quirks)
    assert len(made) == len(messages)
    for index, (ours, theirs) in enumerate(zip(made, messages, strict=True)):
        lost = {
            loss.rpartition(".")[2]
            for loss in losses
            if loss.startswith(f"messages[{index}].")
        }
        moved = {"reasoning_content", "tool_calls", "tool_call_id", "refusal", "role"}
        for name, value in theirs.items():
            if name not in moved | lost and value not in (None, "", [], {}):
                assert name == "content" or ours[name] == value


@pytest.mark.parametrize(
    "function",
    [
        {"name": "f"},
        {"name": "f", "parameters": None, "strict": None, "description": None},
    ],
)
def test_function_without_parameters_gets_those_of_none(function):
    raw = json.dumps([{"type": "function", "function": function}]).encode()
    (made,) = json.loads(fitted_tools(raw))
    parameters = {"type": "object", "properties": {}}
    assert made["function"] == {"name": "f", "parameters": parameters}


@pytest.mark.parametrize("raw", [b"5", b"[5]", b'[{"function":5}]', b'[{"type":"x"}]'])
def test_tools_that_are_none_are_left_for_the_vendor_to_refuse(raw):
    assert fitted_tools(raw) == raw


def test_closed_request_has_no_members_that_are_null():
    row = next(one for one in OPENAI_FAMILY if one.name == "mistral")
    dialect: Any = row.dialect_of("chat", {})
    target = Target(provider="mistral", model="m", extra_body={"x": NULL})
    body: dict[str, Any] = {
        "model": "public",
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": None, "function_call": None},
        ],
        "stop": None,
        "tools": None,
        "top_p": 1,
    }
    head = RequestHead(
        method="POST", path="/", headers=(("content-type", "application/json"),)
    )
    parsed = OPENAI_CHAT.parse_request(json.dumps(body).encode(), head)
    request, losses = dialect.render_request(parsed, target)
    assert losses == ()
    made = json.loads(request.body)
    messages = [body["messages"][0], {"role": "assistant", "content": None}]
    assert made == {"model": "m", "messages": messages, "top_p": 1, "x": None}
