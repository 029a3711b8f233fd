"""Chunks add up to the completion that they were made of."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.dialects.checking import LIMIT
from tests.protocol.dialects.recordings import recordings
from tz_protocol.dialects.openai_chat_fold import fold_chunks
from tz_protocol.dialects.openai_chat_stream import ChatDecoder
from tz_protocol.dialects.openai_chat_whole import events_of_whole
from tz_protocol.dialects.openai_replay import chunks_of, members_of, parts_of, whole_of
from tz_protocol.types.stream import StreamPart

TEXT = st.text(max_size=20)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text("abc123", min_size=1, max_size=8),
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": TEXT, "arguments": TEXT}),
        }
    ),
    min_size=1,
    max_size=3,
    # One id twice is no regular answer, and is mended.
    unique_by=lambda call: str(call["id"]),
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT},
    optional={
        "refusal": TEXT,
        "reasoning_content": TEXT,
        "tool_calls": CALLS,
        "annotations": st.lists(st.fixed_dictionaries({"url": TEXT}), min_size=1),
    },
)
CHOICES = st.lists(
    st.fixed_dictionaries(
        {
            "message": MESSAGES,
            "finish_reason": st.sampled_from(["stop", "length", "tool_calls"]),
        }
    ),
    min_size=1,
    max_size=3,
)


def decoded(fields):
    return {name: json.loads(bytes(value)) for name, value in fields.items()}


@given(CHOICES)
def test_whole_taken_apart_adds_up_to_itself(choices):
    for index, choice in enumerate(choices):
        choice |= {"index": index, "logprobs": None}
    body = json.dumps({"choices": choices, "service_tier": "default"}).encode()
    parts = [e for e in events_of_whole(body) if isinstance(e, StreamPart)]
    found = decoded(fold_chunks(part.value.data for part in parts))
    assert found == {"choices": choices, "service_tier": "default"}


@given(st.lists(TEXT, min_size=1, max_size=20))
def test_texts_are_joined_however_they_were_cut(pieces):
    chunks = [
        json.dumps({"choices": [{"index": 0, "delta": {"content": piece}}]}).encode()
        for piece in pieces
    ]
    (choice,) = decoded(fold_chunks(chunks))["choices"]
    assert choice["message"]["content"] == "".join(pieces)
    assert choice["finish_reason"] == "stop"


def test_arguments_are_joined_by_number_and_names_are_not():
    deltas = [
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g"}}]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 1, "id": "b", "function": {"arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
    ]
    chunks = [
        json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()
        for delta in deltas
    ]
    (choice,) = decoded(fold_chunks(chunks))["choices"]
    calls = {call["id"]: call["function"] for call in choice["message"]["tool_calls"]}
    assert calls == {
        "a": {"name": "f", "arguments": '{"x":1}'},
        "b": {"name": "g", "arguments": "{}"},
    }
    assert all("index" not in call for call in choice["message"]["tool_calls"])


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"{}", b"[]", b"null"])))
def test_anything_can_be_folded(chunks):
    assert decoded(fold_chunks(chunks))["choices"] == []


ANSWERS = [
    param
    for vendor in ("openai", "groq")
    for param in recordings(vendor, "chat.completions")
    if param.values[0] is None or param.values[0].head.status == 200
]


@pytest.mark.parametrize("recording", ANSWERS)
def test_recorded_answer_is_given_again_in_both_forms(recording):
    if recording.is_stream:
        decoder = ChatDecoder(LIMIT)
        decoder.receive_data(recording.body)
        decoder.receive_eof()
        values = []
        while (event := decoder.next_event()) is not None:
            if isinstance(event, StreamPart):
                values.append(event.value)
        members, chunks = b"", chunks_of(values)
    else:
        members, chunks = members_of(recording.body), ()
    whole = decoded(whole_of(members, chunks).fields)
    parts = parts_of(members, chunks)
    again = decoded(fold_chunks(part.value.data for part in parts[:-1]))
    assert [choice["message"] for choice in again["choices"]] == [
        {"content": None, **choice["message"]} for choice in whole["choices"]
    ]
    assert all("usage" not in json.loads(part.value.data) for part in parts[:-1])
