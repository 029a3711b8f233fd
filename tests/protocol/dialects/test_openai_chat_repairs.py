"""What vendors say otherwise than OpenAI, whole and streamed: the same comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.dialects.checking import (
    LIMIT,
    byte_by_byte,
    comparable,
    decoded,
    splits,
)
from tests.protocol.dialects.strategies import JSON_VALUES
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_chat_repairs import (
    QUIRKS,
    REASONING,
    THINK_BLOCKS,
    WEAK_IDS,
)
from tz_protocol.errors import UpstreamBroken, UpstreamGarbled, UpstreamRefused
from tz_protocol.types.chat import ChatRequest
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Identity
from tz_protocol.types.stream import StreamDone, StreamFailed, StreamPart

HEAD = ResponseHead(200)
IDENTITY = Identity(id="ours", episode_id="e", model="public", created=5)
REQUEST = ChatRequest(model="public", is_stream=True, include_usage=True)
TOP: dict[str, Any] = {"id": "x", "created": 1, "model": "m"}
DONE = b"data: [DONE]\n\n"


def dialect_with(*quirks):
    assert set(quirks) <= set(QUIRKS)
    assert OPENAI_CHAT.adapted is not None
    return OPENAI_CHAT.adapted(frozenset(quirks)) if quirks else OPENAI_CHAT


def whole(choice, *quirks, **members):
    """Return the one choice of a whole answer as our client gets it."""
    body = json.dumps({**TOP, **members, "choices": [choice]}).encode()
    return choice_of(body, *quirks)


def choice_of(body, *quirks):
    dialect = dialect_with(*quirks)
    response = dialect.parse_response(HEAD, body)
    _, rendered = dialect.render_response(REQUEST, response, IDENTITY)
    (choice,) = json.loads(rendered)["choices"]
    return choice


def message_of(message, *quirks, finish="stop"):
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return whole(choice, *quirks)["message"]


def event(delta, finish=None, index=0, **members):
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    value = {**TOP, "choices": [choice], **members}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def events_of(data, *quirks):
    make = dialect_with(*quirks).stream_decoder
    assert make is not None
    events = decoded(make(HEAD, LIMIT), [data])
    assert comparable(decoded(make(HEAD, LIMIT), byte_by_byte(data))) == comparable(
        events
    )
    return events


def chunks_of(data, *quirks):
    """Return the chunks of a complete stream as our client gets them."""
    events = events_of(data, *quirks)
    assert isinstance(events[-1], StreamDone)
    make = OPENAI_CHAT.stream_encoder
    assert make is not None
    encoder = make(REQUEST, IDENTITY)
    parts = [item for item in events if isinstance(item, StreamPart)]
    out = b"".join(encoder.encode(part) for part in parts) + encoder.finish(None)
    return [
        json.loads(block[6:])
        for block in out.split(b"\n\n")
        if block and block != b"data: [DONE]"
    ]


def deltas_of(data, *quirks):
    return [
        choice["delta"]
        for chunk in chunks_of(data, *quirks)
        for choice in chunk["choices"]
    ]


def joined(deltas, name):
    return "".join(delta.get(name) or "" for delta in deltas)


def call(call_id, name="f", arguments="{}", **members):
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function, **members}


# -- nothing to repair ----------------------------------------------------------


@pytest.mark.parametrize("quirks", [(), tuple(QUIRKS)], ids=["none", "all"])
def test_answer_that_needs_no_repair_is_the_bytes_that_it_was(quirks):
    text = (
        '[ {"index":0, "message":{"role":"assistant","content":"\\u00e9", "x":1e0,'
        '"tool_calls":null},"logprobs":{"content":[{"token":"e","logprob":-0.10,'
        '"bytes":null,"top_logprobs":[]}]},'
        '"finish_reason":"stop"} ]'
    )
    if THINK_BLOCKS in quirks:
        text = text.replace('"\\u00e9"', "null")
    body = f'{{"id":"a","choices":{text},"service_tier":"default"}}'.encode()
    response = dialect_with(*quirks).parse_response(HEAD, body)
    assert bytes(response.fields["choices"]) == text.encode()


def test_stream_that_needs_no_repair_is_the_bytes_that_it_was():
    line = (
        b'{"id":"a", "choices":[ {"index":0,"delta":{"content":"\\u00e9"},'
        b'"finish_reason":null}],"service_tier":"default","x":1e0}'
    )
    data = b"data: " + line + b"\n\n"
    for quirks in ((), (REASONING, WEAK_IDS)):
        part, *_ = events_of(data, *quirks)
        assert part.value.data == line


# -- words ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("eos", "stop"),
        ("model_length", "length"),
        ("MAX_TOKENS", "length"),
        ("insufficient_system_resource", "length"),
        ("model_context_window_exceeded", "length"),
        ("sensitive", "content_filter"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_finish_reason_is_openais_word_and_keeps_the_vendors(word, finish):
    message = {"role": "assistant", "content": "a"}
    choice = whole({"index": 0, "message": message, "finish_reason": word})
    assert choice["finish_reason"] == finish
    assert choice["native_finish_reason"] == word
    *_, last = chunks_of(event({"content": "a"}) + event({}, word) + DONE)
    assert last["choices"][0]["finish_reason"] == finish
    assert last["choices"][0]["native_finish_reason"] == word


@pytest.mark.parametrize("finish", ["", None])
def test_whole_answer_without_a_finish_reason_gets_one(finish):
    message: dict[str, Any] = {"content": "a"}
    choice: dict[str, Any] = {"message": message, "finish_reason": finish}
    assert whole(choice)["finish_reason"] == "stop"
    message["tool_calls"] = [call("c")]
    made = whole(choice)
    assert made["finish_reason"] == "tool_calls"
    assert (made["index"], made["message"]["role"]) == (0, "assistant")


def test_empty_finish_reason_of_a_chunk_is_none():
    chunks = chunks_of(event({"content": "a"}, "") + event({}, "stop") + DONE)
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None, "stop"]


@pytest.mark.parametrize(
    ("tier", "expected"),
    [("on_demand", "default"), ("flex", "flex"), ("", None), ("new", None)],
)
def test_service_tier_is_openais_word_or_left_out(tier, expected):
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
    body = json.dumps({"service_tier": tier, "choices": [choice]}).encode()
    response = OPENAI_CHAT.parse_response(HEAD, body)
    _, rendered = OPENAI_CHAT.render_response(REQUEST, response, IDENTITY)
    assert json.loads(rendered).get("service_tier") == expected
    data = event({"content": "a"}, "stop", service_tier=tier) + DONE
    assert chunks_of(data)[0].get("service_tier") == expected


@pytest.mark.parametrize("word", ["error", "network_error"])
def test_answer_that_ended_with_an_error_is_refused(word):
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": word}
    with pytest.raises(UpstreamRefused):
        whole(choice)
    last = events_of(event({"content": "a"}) + event({}, word))[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamRefused)


# -- around the message ---------------------------------------------------------


def around(**members):
    """Return both forms of an answer with *members* as a client gets them."""
    message = {"role": "assistant", "content": "a"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], **members}).encode()
    response = OPENAI_CHAT.parse_response(HEAD, body)
    _, rendered = OPENAI_CHAT.render_response(REQUEST, response, IDENTITY)
    data = event({"content": "a"}, "stop", **members) + DONE
    chunks = [
        json.loads(line.removeprefix(b"data: "))
        for line in streamed(data, shows=True).split(b"\n\n")
        if line.startswith(b"data: {")
    ]
    return response.usage, json.loads(rendered), chunks


@pytest.mark.parametrize(
    ("created", "expected"),
    [(17.9, 17), ("17", 17), (17, 17), ("yesterday", 5), (None, 5)],
)
def test_time_of_an_answer_is_a_number_of_seconds(created, expected):
    _, value, chunks = around(created=created)
    assert value["created"] == expected
    assert chunks[0]["created"] == expected


@pytest.mark.parametrize(
    ("stated", "counts"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4, 7)),
        ({"prompt_tokens": 3, "total_tokens": 7}, (3, 4, 7)),
        ({"prompt_tokens": 3.0, "completion_tokens": 4.0, "x": 1}, (3, 4, 7)),
    ],
)
def test_usage_that_lacks_a_count_is_completed(stated, counts):
    usage, value, chunks = around(usage=stated)
    assert (usage.input_tokens, usage.output_tokens) == counts[:2]
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    for found in (value["usage"], chunks[-1]["usage"]):
        assert tuple(found[name] for name in names) == counts
        assert found.get("x") == stated.get("x")


@pytest.mark.parametrize("stated", [{}, {"prompt_tokens": None}, [], "x"])
def test_usage_that_counts_nothing_is_none(stated):
    usage, value, chunks = around(usage=stated)
    assert (usage, value["usage"]) == (None, None)
    assert not any(chunk.get("usage") for chunk in chunks)


TOKEN = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}
OTHER = {"token": "b", "logprob": -2.5, "bytes": None}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"content": [{"token": "a", "logprob": -0.5}]}, [TOKEN]),
        (
            {
                "content": [
                    {
                        "token": "a",
                        "logprob": -0.5,
                        "top_logprobs": [{"token": "b", "logprob": -2.5}],
                    }
                ]
            },
            [{**TOKEN, "top_logprobs": [OTHER]}],
        ),
        (
            {"tokens": ["x", "a"], "token_logprobs": [None, -0.5]},
            [{**TOKEN, "bytes": [97]}],
        ),
        (
            {
                "tokens": ["a"],
                "token_logprobs": [-0.5],
                "top_logprobs": [{"b": -2.5}],
                "text_offset": [0],
            },
            [{**TOKEN, "bytes": [97], "top_logprobs": [{**OTHER, "bytes": [98]}]}],
        ),
        ([], None),
        (-0.5, None),
        ({"content": [5]}, None),
    ],
    ids=["short", "short tops", "flat", "flat tops", "list", "number", "odd"],
)
def test_log_probabilities_are_those_of_a_chat(stated, expected):
    message = {"role": "assistant", "content": "a"}
    choice = whole({"index": 0, "message": message, "logprobs": stated})
    line = {"index": 0, "delta": {"content": "a"}, "logprobs": stated}
    data = b"data: " + json.dumps({"choices": [line]}).encode() + b"\n\n"
    (chunk,) = chunks_of(data + DONE)
    for found in (choice["logprobs"], chunk["choices"][0]["logprobs"]):
        assert (found and found["content"]) == expected


@pytest.mark.parametrize("role", ["", "model", 5, []])
def test_role_of_a_delta_that_openai_does_not_have_is_left_out(role):
    (delta,) = deltas_of(event({"role": role, "content": "a"}) + DONE)
    assert delta == {"content": "a"}


def test_choice_of_a_chunk_without_an_index_is_the_first():
    data = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    (chunk,) = chunks_of(data + DONE)
    assert chunk["choices"][0]["index"] == 0


def test_message_that_was_filtered_and_left_out_is_empty():
    choice = whole({"index": 0, "finish_reason": "content_filter"})
    assert choice["message"] == {"role": "assistant", "content": None}


def test_half_of_a_surrogate_pair_costs_no_more_than_itself():
    text = b'"a\\ud83d \\ud83d\\ude00 \\\\ud83d"'
    expected = "a\ufffd \U0001f600 \\ud83d"
    data = b'data: {"choices":[{"index":0,"delta":{"content":' + text + b"}}]}\n\n"
    (delta,) = deltas_of(data + DONE)
    assert delta["content"] == expected
    body = b'{"choices":[{"message":{"role":"assistant","content":' + text + b"}}]}"
    response = OPENAI_CHAT.parse_response(HEAD, body)
    _, rendered = OPENAI_CHAT.render_response(REQUEST, response, IDENTITY)
    assert json.loads(rendered)["choices"][0]["message"]["content"] == expected


@pytest.mark.parametrize(
    "beat",
    [
        b'data: {"type":"keepalive"}\n\n',
        b"event: ping\ndata: {}\n\n",
        b"event: ping\ndata: 2026-01-01 00:00:00\n\n",
        b"data: {}\n\n",
    ],
)
def test_event_that_keeps_the_connection_alive_is_nothing(beat):
    assert events_of(beat + event({"content": "a"}, "stop") + DONE) == events_of(
        event({"content": "a"}, "stop") + DONE
    )


def test_stream_that_says_only_that_it_is_done_is_no_answer():
    (failed,) = events_of(DONE)
    assert isinstance(failed, StreamFailed)
    assert isinstance(failed.error, UpstreamBroken)


def test_whole_answer_behind_a_byte_order_mark_is_one():
    choice = {"message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    body = b"\xef\xbb\xbf" + json.dumps({"choices": [choice]}).encode()
    assert "".join(d.get("content") or "" for d in deltas_of(body)) == "a"


# -- content --------------------------------------------------------------------

PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Let "}]},
    {"type": "thinking", "thinking": "me see."},
    {"type": "text", "text": "Hel"},
    {"type": "text", "text": "lo"},
]


def test_parts_are_thoughts_and_content():
    made = message_of({"role": "assistant", "content": PARTS})
    assert (made["reasoning_content"], made["content"]) == ("Let me see.", "Hello")
    data = b"".join(event({"content": [part]}) for part in PARTS)
    deltas = deltas_of(data + event({"content": "!"}, "stop") + DONE)
    assert joined(deltas, "reasoning_content") == "Let me see."
    assert joined(deltas, "content") == "Hello!"


def test_parts_that_nobody_knows_are_kept_unread():
    part = {"type": "reference", "reference_ids": [1]}
    kept = [{"dialect": "openai_chat", "type": "reference", "value": part}]
    made = message_of({"role": "assistant", "content": ["a", part]})
    assert (made["content"], made["provider_content"]) == ("a", kept)


def test_content_that_is_json_is_its_text():
    body = b'{"choices":[{"message":{"content":{"a": 1.50}},"finish_reason":"stop"}]}'
    assert choice_of(body)["message"]["content"] == '{"a": 1.50}'


# -- thoughts -------------------------------------------------------------------


def test_think_block_is_told_from_the_content_if_the_row_says_so():
    text = "<think>\nHm.</think>\n\nHello <think>"
    made = message_of({"role": "assistant", "content": text}, THINK_BLOCKS)
    assert (made["reasoning_content"], made["content"]) == ("Hm.", "Hello <think>")
    plain = message_of({"role": "assistant", "content": text})
    assert plain == {"role": "assistant", "content": text}


THINKING = (
    event({"role": "assistant", "content": ""})
    + b"".join(event({"content": letter}) for letter in "\n<think>\nHm</think>\n\nOk")
    + event({"content": "!"}, "stop")
    + DONE
)


def test_think_block_is_told_from_the_content_of_a_stream():
    deltas = deltas_of(THINKING, THINK_BLOCKS)
    assert joined(deltas, "reasoning_content") == "Hm"
    assert joined(deltas, "content") == "Ok!"
    assert deltas[0] == {"role": "assistant", "content": ""}
    parts = [e for e in events_of(THINKING, THINK_BLOCKS) if isinstance(e, StreamPart)]
    first = next(part for part in parts if part.has_content)
    assert b'"reasoning_content":"H"' in first.value.data


@given(splits(THINKING))
def test_think_block_in_any_pieces_is_the_same(pieces):
    make = dialect_with(THINK_BLOCKS).stream_decoder
    assert make is not None
    assert decoded(make(HEAD, LIMIT), pieces) == decoded(make(HEAD, LIMIT), [THINKING])


@pytest.mark.parametrize(
    ("content", "said", "thought"),
    [(["<thi"], "<thi", ""), (["<think>a</thi"], "", "a</thi"), ([" "], " ", "")],
    ids=["opening", "closing", "blank"],
)
@pytest.mark.parametrize("finish", ["length", None])
def test_what_was_held_back_is_told_at_the_end(content, said, thought, finish):
    data = b"".join(event({"content": text}) for text in content)
    data += event({}, finish) if finish else b""
    deltas = deltas_of(data + DONE, THINK_BLOCKS)
    assert joined(deltas, "content") == said
    assert joined(deltas, "reasoning_content") == thought


def test_think_block_ends_where_a_call_begins():
    data = event({"content": "<think>a"}) + event(
        {"tool_calls": [call("c", index=0)]}, "tool_calls"
    )
    deltas = deltas_of(data + DONE, THINK_BLOCKS)
    assert joined(deltas, "reasoning_content") == "a"
    assert [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]


def test_choices_think_for_themselves():
    data = (
        event({"content": "<think>a"})
        + event({"content": "<think>b"}, index=1)
        + event({"content": "</think>c"}, "stop")
        + event({"content": "</think>d"}, "stop", index=1)
    )
    chunks = chunks_of(data + DONE, THINK_BLOCKS)
    for index, (thought, said) in enumerate([("a", "c"), ("b", "d")]):
        deltas = [
            choice["delta"]
            for chunk in chunks
            for choice in chunk["choices"]
            if choice["index"] == index
        ]
        assert joined(deltas, "reasoning_content") == thought
        assert joined(deltas, "content") == said


def test_reasoning_gets_its_usual_name_if_the_row_says_so():
    message = {"role": "assistant", "content": "a", "reasoning": "Hm"}
    made = message_of(message, REASONING)
    assert made == {"role": "assistant", "content": "a", "reasoning_content": "Hm"}
    assert message_of(message) == message
    both = {**message, "reasoning_content": "Hm"}
    assert message_of(both, REASONING) == both
    data = event({"reasoning": "Hm"}) + event({"content": "a"}, "stop") + DONE
    assert deltas_of(data, REASONING) == [{"reasoning_content": "Hm"}, {"content": "a"}]


# -- tool calls -----------------------------------------------------------------


def calls_of(deltas):
    """Return the calls as a client puts them together."""
    calls: dict[int, dict[str, str]] = {}
    for delta in deltas:
        for one in delta.get("tool_calls") or ():
            made = calls.setdefault(one["index"], {"id": "", "arguments": ""})
            made["id"] += one.get("id") or ""
            made["arguments"] += one["function"].get("arguments") or ""
    return [calls[index] for index in sorted(calls)]


def test_calls_without_an_index_are_numbered():
    for missing in ({}, {"index": None}):
        data = event({"tool_calls": [call("a", **missing), call("b", **missing)]})
        data += event({"tool_calls": [call("c", **missing)]}, "tool_calls")
        made = calls_of(deltas_of(data + DONE))
        assert [one["id"] for one in made] == ["a", "b", "c"]


def test_another_id_at_an_index_is_another_call():
    data = b"".join(
        event({"tool_calls": [call(name, arguments=text, index=0)]})
        for name, text in [("a", '{"x"'), ("b", '{"y"')]
    )
    more = {"index": 0, "function": {"arguments": ":1}"}}
    data += event({"tool_calls": [more]}) + event({}, "tool_calls")
    assert calls_of(deltas_of(data + DONE)) == [
        {"id": "a", "arguments": '{"x"'},
        {"id": "b", "arguments": '{"y":1}'},
    ]


def test_id_that_is_repeated_is_said_once():
    data = b"".join(
        event({"tool_calls": [call("0", arguments=text, index=0)]})
        for text in ("{", "}")
    )
    made = calls_of(deltas_of(data + event({}, "stop") + DONE))
    assert made == [{"id": "0", "arguments": "{}"}]


@pytest.mark.parametrize("quirks", [(), (WEAK_IDS,)], ids=["missing", "weak"])
def test_ids_are_made_where_there_are_none_worth_having(quirks):
    own = "0" if quirks else ""
    calls = [call(own, index=0), call(own, "g", index=1)]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    made = message_of(message, *quirks, finish="tool_calls")["tool_calls"]
    ids = [one["id"] for one in made]
    assert len({*ids, own}) == 3
    data = event({"tool_calls": calls}) + event({}, "tool_calls") + DONE
    assert [one["id"] for one in calls_of(deltas_of(data, *quirks))] == ids
    later = {**TOP, "created": 2}
    body = json.dumps({**later, "choices": [{"index": 0, "message": message}]})
    again = choice_of(body.encode(), *quirks)["message"]["tool_calls"]
    assert not {one["id"] for one in again} & set(ids)


def test_ids_that_are_there_twice_are_told_apart():
    calls = [call("a", index=0), call("a", "g", index=1)]
    made = message_of({"content": None, "tool_calls": calls}, finish="tool_calls")
    ids = [one["id"] for one in made["tool_calls"]]
    assert ids[0] == "a"
    assert len(set(ids)) == 2
    data = event({"tool_calls": calls}) + event({}, "tool_calls") + DONE
    assert [one["id"] for one in calls_of(deltas_of(data))] == ids


def test_ids_of_two_choices_may_be_the_same():
    data = event({"tool_calls": [call("a", index=0)]}, "tool_calls")
    data += event({"tool_calls": [call("a", index=0)]}, "tool_calls", index=1)
    chunks = chunks_of(data + DONE)
    ids = [chunk["choices"][0]["delta"]["tool_calls"][0]["id"] for chunk in chunks]
    assert ids == ["a", "a"]


@pytest.mark.parametrize("indexes", [(1, 2), (0, 5)])
def test_calls_with_gaps_between_their_indexes_are_numbered_through(indexes):
    pieces = [
        event({"tool_calls": [{"index": index, **call(f"c{index}")}]})
        for index in indexes
    ]
    deltas = deltas_of(b"".join(pieces) + event({}, "tool_calls") + DONE)
    made = [one for delta in deltas for one in delta.get("tool_calls", ())]
    assert [one["index"] for one in made] == [0, 1]


def test_name_that_is_repeated_is_said_once():
    first = {"index": 0, **call("c", arguments="{")}
    again = {"index": 0, **call("c", arguments="}")}
    without_id = {"index": 0, "function": {"name": "f", "arguments": " "}}
    data = b"".join(event({"tool_calls": [one]}) for one in (first, again, without_id))
    made = [one for delta in deltas_of(data + DONE) for one in delta["tool_calls"]]
    assert [one["function"].get("name") for one in made] == ["f", None, None]
    assert "".join(one["function"]["arguments"] for one in made) == "{} "


@pytest.mark.parametrize("function", [{"name": "f"}, {"name": "f", "arguments": None}])
def test_whole_call_without_arguments_gets_none(function):
    message = {"tool_calls": [{"id": "c", "type": "function", "function": function}]}
    (made,) = message_of(message, finish="tool_calls")["tool_calls"]
    assert made["function"] == {"name": "f", "arguments": "{}"}


def test_arguments_that_are_json_are_its_text():
    calls = [call("a", arguments={"x": 1}, index=0)]
    made = message_of({"content": None, "tool_calls": calls}, finish="tool_calls")
    assert json.loads(made["tool_calls"][0]["function"]["arguments"]) == {"x": 1}
    data = event({"tool_calls": calls}) + event({}, "tool_calls") + DONE
    (one,) = calls_of(deltas_of(data))
    assert json.loads(one["arguments"]) == {"x": 1}


# -- usage ----------------------------------------------------------------------


def streamed(data, *, shows):
    make = OPENAI_CHAT.stream_encoder
    assert make is not None
    request = ChatRequest(model="public", is_stream=True, include_usage=shows)
    encoder, usage, out = make(request, IDENTITY), None, b""
    for item in events_of(data):
        if isinstance(item, StreamPart):
            usage = item.usage or usage
            out += encoder.encode(item)
    return out + encoder.finish(usage)


def test_usage_that_is_said_elsewhere_is_shown_at_its_place():
    counts = {"prompt_tokens": 3, "completion_tokens": 4}
    data = event({"content": "a"}) + event({}, "stop", x_groq={"usage": counts}) + DONE
    *_, last, done, rest = streamed(data, shows=True).split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    told = json.loads(last[6:])
    assert (told["choices"], told["model"]) == ([], "public")
    assert told["usage"]["total_tokens"] == 7
    assert b'"total_tokens"' not in streamed(data, shows=False)


# -- a whole answer where a stream was asked for --------------------------------


def test_whole_answer_instead_of_a_stream_is_repaired_too():
    message = {"role": "assistant", "content": "<think>a</think>b"}
    choice = {"index": 0, "message": message, "finish_reason": "eos"}
    body = json.dumps({**TOP, "choices": [choice]}).encode()
    chunks = chunks_of(body, THINK_BLOCKS)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert joined(deltas, "reasoning_content") == "a"
    assert joined(deltas, "content") == "b"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


# -- anything -------------------------------------------------------------------

_MEMBERS = st.dictionaries(
    st.sampled_from(["content", "tool_calls", "reasoning", "role", "type", "text"]),
    JSON_VALUES
    | st.lists(
        st.dictionaries(
            st.sampled_from(["index", "id", "type", "function", "thinking", "text"]),
            JSON_VALUES,
            max_size=4,
        ),
        max_size=3,
    ),
    max_size=4,
)
_CHOICES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": JSON_VALUES | st.integers(0, 2),
            "delta": _MEMBERS | JSON_VALUES,
            "message": _MEMBERS | JSON_VALUES,
            "finish_reason": JSON_VALUES | st.sampled_from(["stop", "error", "eos"]),
        },
    ),
    max_size=2,
)
_SETS = st.sets(st.sampled_from(sorted(QUIRKS)))


@given(st.lists(_CHOICES, max_size=4), JSON_VALUES, _SETS)
def test_stream_of_anything_ends_and_can_be_relayed(values, tier, quirks):
    data = b"".join(
        b"data: "
        + json.dumps({**TOP, "service_tier": tier, "choices": choices}).encode()
        + b"\n\n"
        for choices in values
    )
    events = events_of(data + DONE, *quirks)
    assert isinstance(events[-1], StreamDone | StreamFailed)
    make = OPENAI_CHAT.stream_encoder
    assert make is not None
    encoder = make(REQUEST, IDENTITY)
    for item in events:
        if isinstance(item, StreamPart):
            for block in encoder.encode(item).split(b"\n\n"):
                assert not block or json.loads(block[6:])


@given(_CHOICES | JSON_VALUES, JSON_VALUES, _SETS)
def test_whole_answer_of_anything_is_read_or_refused(choices, tier, quirks):
    body = json.dumps({**TOP, "service_tier": tier, "choices": choices}).encode()
    dialect = dialect_with(*quirks)
    try:
        response = dialect.parse_response(HEAD, body)
    except (UpstreamGarbled, UpstreamRefused):
        return
    _, rendered = dialect.render_response(REQUEST, response, IDENTITY)
    json.loads(rendered)
