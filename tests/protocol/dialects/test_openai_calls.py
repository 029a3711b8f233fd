"""Which result belongs to which call, in OpenAI's format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.dialects.saying import HELLO, call
from tests.protocol.dialects.strategies import parsed
from tz_protocol.dialects.openai_conversation import read_conversation
from tz_protocol.errors import InvalidRequest
from tz_protocol.types.conversation import ToolCall, ToolResult


def read(*messages):
    return read_conversation(parsed({"messages": [*HELLO, *messages]})).messages


def refusal_of(*messages):
    with pytest.raises(InvalidRequest) as caught:
        read(*messages)
    return caught.value


def calls(*ids):
    return {"role": "assistant", "tool_calls": [call(one) for one in ids]}


def result(call_id):
    return {"role": "tool", "tool_call_id": call_id, "content": f"of {call_id}"}


SYSTEM = {"role": "system", "content": "s"}
USER = {"role": "user", "content": "u"}
SAID = {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "messages",
    [
        [calls("a", "b"), result("b"), result("a")],
        [calls("a"), USER, result("a"), SAID],
        [calls("a"), SAID, result("a")],
        [calls("a"), SYSTEM, result("a"), USER],
        [calls("a"), calls("b"), result("a"), result("b")],
    ],
    ids=["any order", "user between", "more said", "instructions", "one turn"],
)
def test_results_in_the_turn_after_their_calls_are_taken_as_they_are(messages):
    blocks = [block for message in read(*messages) for block in message.content]
    made = [block.id for block in blocks if isinstance(block, ToolCall)]
    answered = [block.call_id for block in blocks if isinstance(block, ToolResult)]
    assert sorted(made) == sorted(answered)
    assert set(made) <= {"a", "b"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([calls("a", "b"), result("a")], "messages[1].tool_calls"),
        ([calls("a")], "messages[1].tool_calls"),
        ([calls("a"), USER, SAID], "messages[1].tool_calls"),
        ([result("a")], "messages[1].tool_call_id"),
        ([calls("a"), result("b")], "messages[2].tool_call_id"),
        ([calls("a"), result("a"), result("a")], "messages[3].tool_call_id"),
        ([calls("a"), result("a"), SAID, result("a")], "messages[4].tool_call_id"),
    ],
    ids=["one of two", "last", "never", "no call", "other id", "twice", "later"],
)
def test_call_without_a_result_and_result_without_a_call_are_refused(messages, param):
    assert refusal_of(*messages).param == param


def test_refusal_names_the_call_that_was_not_answered():
    error = refusal_of(calls("a", "b"), result("a"), USER)
    assert "'b'" in error.message


def test_ids_that_were_used_before_are_replaced_and_still_belong_together():
    turn = [calls("0", "0"), result("0"), result("0")]
    made = [
        block
        for message in read(*turn, *turn)
        for block in message.content
        if isinstance(block, ToolCall | ToolResult)
    ]
    ids = [block.id for block in made if isinstance(block, ToolCall)]
    assert len(set(ids)) == 4
    assert ids[0] == "0"
    answered = [block.call_id for block in made if isinstance(block, ToolResult)]
    assert answered == ids


def test_ids_do_not_depend_on_who_asks():
    turn = [calls("0"), result("0")]
    assert read(*turn, *turn) == read(*turn, *turn)


@given(
    st.lists(
        st.sampled_from([SYSTEM, USER, SAID])
        | st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(
            lambda ids: calls(*ids)
        )
        | st.sampled_from("abc").map(result),
        max_size=8,
    )
)
def test_what_is_taken_is_paired_one_to_one_and_in_the_next_turn(messages):
    param = None
    try:
        found = read(*messages)
    except InvalidRequest as error:
        param = error.param or ""
    if param is not None:
        assert param.rpartition(".")[2] in {"tool_calls", "tool_call_id"}
        return
    waiting: set[str] = set()
    seen: set[str] = set()
    is_over = False
    for message in found:
        if message.role == "assistant" and is_over:
            assert not waiting
            is_over = False
        is_over = is_over or message.role in {"user", "tool"}
        for block in message.content:
            if isinstance(block, ToolCall):
                assert block.id not in seen
                seen.add(block.id)
                waiting.add(block.id)
            elif isinstance(block, ToolResult):
                waiting.remove(block.call_id)
    assert not waiting
