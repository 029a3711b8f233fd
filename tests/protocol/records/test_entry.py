"""What may be kept is kept, and nothing else."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.flows.recording import entry
from tz_protocol.records.blocks import input_of, output_of
from tz_protocol.records.entry import Entry, make_content, stricter
from tz_protocol.records.rows import rows_of

CANARY = "canary 77"

NAMES = (
    *("messages", "content", "choices", "message", "tools", "function", "parts"),
    *("output", "arguments", "input", "args", "type", "role", "model", "metadata"),
    *("a", CANARY),
)

JSON = st.recursive(
    st.none() | st.booleans() | st.just(CANARY),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=10,
)


def content(capture="full", limit=10_000, **parts):
    given_parts = {"members": {}, "sent": b"", "received": b"", **parts}
    return make_content(capture, limit, **given_parts)


@given(JSON.filter(lambda value: value is not None))
def test_redaction_leaves_no_text_wherever_it_is(value):
    data = json.dumps(value).encode()
    found = content("redacted", members={"x": Raw(data)}, sent=data, received=[data])
    assert CANARY not in repr(found)
    assert type(json.loads(found.sent)) in (type(value), str)


TOOL = {"type": "sesame", "model": "sesame", "sesame": 4_111_111}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "sesame", "name": "sesame"}]},
        {"tools": [{"type": "function", "function": {"parameters": TOOL}}]},
        {"tools": [{"name": "f", "input_schema": TOOL}]},
        {"messages": [{"content": [{"type": "tool_use", "input": TOOL}]}]},
        {"contents": [{"parts": [{"functionCall": {"args": TOOL}}]}]},
        {"contents": [{"parts": [{"functionResponse": {"response": TOOL}}]}]},
        {"messages": [{"content": [{"toolUse": {"input": TOOL}}]}]},
        {"messages": [{"content": [{"toolResult": {"content": [{"json": TOOL}]}}]}]},
        {"response_format": {"type": "json_schema", "json_schema": TOOL}},
        {"metadata": TOOL, "logit_bias": {"4111111": 1}, "stop": ["sesame"]},
        {"choices": [{"logprobs": {"content": [{"token": "s", "bytes": [4111111]}]}}]},
        {"choices": [{"token_ids": [4_111_111]}]},
        {"messages": [{"role": "open sesame"}], "open sesame": 1},
        ["sesame", ["sesame"], 4_111_111],
    ],
    ids=lambda body: json.dumps(body)[:40],
)
def test_redaction_leaves_nothing_of_what_is_not_the_format_s(body):
    data = json.dumps(body).encode()
    found = content("redacted", sent=data, received=[data, data])
    assert "sesame" not in repr(found)
    assert "4111111" not in repr(found)


def test_redaction_leaves_the_shape_of_a_conversation():
    part = {"type": "text", "text": "Hi"}
    body = {
        "model": "m",
        "temperature": 0.5,
        "messages": [
            {"role": "user", "content": [part]},
            {"role": "assistant", "content": None, "tool_calls": [{"index": 0}]},
        ],
        "usage": {"prompt_tokens": 3},
    }
    found = content("redacted", sent=json.dumps(body).encode())
    part["text"] = "[redacted: 2 characters]"
    assert json.loads(found.sent) == body


def test_redacted_stream_tells_the_length_of_the_whole_and_of_no_piece():
    deltas = [{"content": "Wal"}, {"content": "ly "}, {"content": "barks"}]
    lines = [json.dumps({"choices": [{"index": 0, "delta": d}]}) for d in deltas]
    found = content("redacted", received=[line.encode() for line in (*lines, "junk")])
    pieces = [json.loads(line) for line in found.received.split(b"\n")]
    assert [p["choices"][0]["delta"]["content"] for p in pieces[:3]] == [
        "[redacted]"
    ] * 3
    assert pieces[3] == "[redacted]"
    (choice,) = json.loads(found.answer)["choices"]
    assert choice["message"]["content"] == "[redacted: 11 characters]"


def test_redaction_of_what_is_no_json_leaves_its_size():
    found = content("redacted", received=CANARY.encode())
    assert json.loads(found.received) == f"[redacted: {len(CANARY)} bytes]"


def test_redaction_keeps_the_words_of_the_format():
    members = {"messages": Raw(b'[{"role":"user","content":"secret"}]')}
    found = json.loads(content("redacted", members=members).members)
    assert found["messages"][0]["role"] == "user"
    assert "secret" not in str(found)


def test_nothing_is_kept_of_content_that_is_not_to_be_kept():
    assert content("none", sent=b"x") is None


def test_parts_that_are_too_long_are_left_out_and_named():
    found = content(limit=5, sent=b"123456", received=b"12345")
    assert (found.sent, found.received, found.cut) == (b"", b"12345", ("sent",))


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("full", None, "full"),
        ("full", "none", "none"),
        ("none", "full", "none"),
        ("redacted", "full", "redacted"),
        ("redacted", "none", "none"),
    ],
)
def test_stricter_of_two_counts(first, second, result):
    assert stricter(first, second) == result


def test_entry_comes_back_as_it_went():
    one = entry()
    data = msgspec.msgpack.encode(one)
    assert msgspec.msgpack.decode(data, type=Entry) == one
    assert rows_of(one) == rows_of(msgspec.msgpack.decode(data, type=Entry))


# -- TensorZero's blocks --------------------------------------------------------


def test_conversation_becomes_blocks():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                {"type": "image_url", "image_url": {"url": "https://h/x.png"}},
                {"type": "input_audio", "input_audio": {}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"id": "2", "function": {"name": "g", "arguments": "oops"}},
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    system, found = input_of(messages)
    assert system == "Be brief.\nBe kind."
    assert [message["role"] for message in found] == ["user", "assistant", "user"]
    assert [block["type"] for block in found[0]["content"]] == [
        "text",
        "file",
        "file",
        "unknown",
    ]
    first, second = found[1]["content"]
    assert (first["arguments"], first["raw_arguments"]) == ({"a": 1}, '{"a":1}')
    assert second["arguments"] is None
    (result,) = found[2]["content"]
    assert result == {"type": "tool_result", "id": "1", "name": "f", "result": "42"}


def test_answer_becomes_blocks():
    message = {
        "reasoning_content": "Hm.",
        "content": "Yes",
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
    }
    blocks, finish = output_of([{"message": message, "finish_reason": "tool_calls"}])
    assert [block["type"] for block in blocks] == ["thought", "text", "tool_call"]
    assert finish == "tool_call"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["role", "content", "type", "text", "tool_calls", "function"]
                ),
                inner,
            )
        ),
    )
)
def test_blocks_are_made_of_anything(value):
    json.dumps(input_of(value))
    json.dumps(output_of(value))
