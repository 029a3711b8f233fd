from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.providers.running import ask, chat, stream
from tz_protocol.providers.dummy_chat import ALTERNATE, TEXT

WORDS = "Wally, the golden retriever, wagged his tail excitedly as he devoured a slice"
PIZZA = f"{WORDS} of cheese pizza."


def message(answer):
    (choice,) = answer.json()["choices"]
    return choice["message"]


# -- whole ----------------------------------------------------------------------


def test_chat_of_unknown_name_is_the_default_sentence():
    answer = chat("anything")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    value = answer.json()
    assert value["object"] == "chat.completion"
    assert value["model"] == "anything"
    assert value["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": TEXT,
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert value["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 1,
        "total_tokens": 11,
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("alternate", ALTERNATE),
        ("empty", ""),
        ("null", None),
        ("json", '{"answer":"Hello"}'),
        ("json_goodbye", '{"answer":"Goodbye"}'),
        ("json_cot", '{"thinking":"hmmm", "response": {"answer":"tokyo!"}}'),
        ("json_diff_schema", '{"response":"Hello"}'),
        ("json_beatles_1", '{"names":["John", "George"]}'),
        ("json_beatles_2", '{"names":["Paul", "Ringo"]}'),
        ("best_of_n_0", '{"thinking": "hmmm", "answer_choice": 0}'),
        ("best_of_n_1", '{"thinking": "hmmm", "answer_choice": 1}'),
        ("best_of_n_big", '{"thinking": "hmmm", "answer_choice": 100}'),
        ("flaky_best_of_n_judge", '{"thinking": "hmmm", "answer_choice": 0}'),
        ("llm_judge::true", '{"score": true}'),
        ("llm_judge::false", '{"score": false}'),
        ("llm_judge::zero", '{"score": 0}'),
        ("llm_judge::one", '{"score": 1}'),
        ("echo", "Hello"),
    ],
)
def test_chat_of_named_text_is_that_text(name, text):
    assert message(chat(name))["content"] == text


@pytest.mark.parametrize(
    ("name", "function", "arguments"),
    [
        ("tool", "get_temperature", '{"location":"Brooklyn","units":"celsius"}'),
        ("bad_tool", "get_temperature", '{"location":"Brooklyn","units":"Celsius"}'),
        (
            "good_tool",
            "output_schema_tool",
            '{"sentiment":"positive","confidence":0.95}',
        ),
        ("invalid_tool_arguments", "get_temperature", "Not valid 'JSON'"),
    ],
)
def test_chat_of_tool_is_a_call_and_no_text(name, function, arguments):
    answer = chat(name)
    assert message(answer)["content"] is None
    assert message(answer)["tool_calls"] == [
        {
            "id": "0",
            "type": "function",
            "function": {"name": function, "arguments": arguments},
        }
    ]
    assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("reasoner", TEXT),
        ("reasoner_with_signature", TEXT),
        ("json_reasoner", '{"answer":"Hello"}'),
    ],
)
def test_chat_of_reasoner_has_reasoning_beside_the_text(name, text):
    answer = chat(name)
    assert message(answer)["reasoning_content"] == "hmmm"
    assert message(answer)["content"] == text
    assert answer.json()["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("name", "prompt", "completion"),
    [
        ("null", 10, 0),
        ("input_tokens_zero", 0, 1),
        ("output_tokens_zero", 10, 0),
        ("input_tokens_output_tokens_zero", 0, 0),
        ("input_five_output_six", 5, 6),
    ],
)
def test_chat_usage_is_what_the_name_says(name, prompt, completion):
    usage = chat(name).json()["usage"]
    assert usage["prompt_tokens"] == prompt
    assert usage["completion_tokens"] == completion
    assert usage["total_tokens"] == prompt + completion


def test_chat_with_n_has_that_many_choices():
    value = chat("tool", members={"n": 3}).json()
    assert [choice["index"] for choice in value["choices"]] == [0, 1, 2]
    assert value["usage"]["completion_tokens"] == 3


def test_chat_of_same_request_is_the_same_bytes():
    assert chat("random_answer").body == chat("random_answer").body


def test_chat_of_random_answer_differs_with_the_request():
    first = json.loads(message(chat("random_answer", "a"))["content"])["answer"]
    second = json.loads(message(chat("random_answer", "b"))["content"])["answer"]
    assert first != second
    assert first[14] == "7"
    assert first[19] in "89ab"


# -- what echoes the request ----------------------------------------------------

PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
PDF = {
    "type": "file",
    "file": {"filename": "a.bin", "file_data": "data:application/pdf;base64,AA=="},
}


def parts(*items):
    return [{"role": "user", "content": list(items)}]


def text(value):
    return {"type": "text", "text": value}


def test_echo_of_parts_is_the_last_user_messages_first_text():
    messages = [
        {"role": "user", "content": "no"},
        *parts(PNG, text("yes"), text("no")),
        {"role": "assistant", "content": "no"},
    ]
    assert message(chat("echo", messages=messages))["content"] == "yes"


def test_echo_without_user_message_is_empty():
    messages = [{"role": "system", "content": "x"}]
    assert message(chat("echo", messages=messages))["content"] == ""


def test_echo_request_messages_tells_system_and_messages_apart():
    user = {"role": "user", "content": "hi"}
    messages = [{"role": "developer", "content": "be brief"}, user]
    content = message(chat("echo_request_messages", messages=messages))["content"]
    assert json.loads(content) == {"system": "be brief", "messages": [user]}


def test_echo_request_messages_without_system_is_null():
    content = message(chat("echo_request_messages"))["content"]
    assert json.loads(content)["system"] is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "echo_extra_info",
            {
                "extra_body": {"a": 1},
                "extra_headers": [{"name": "x-a", "value": "b"}],
            },
        ),
        (
            "echo_injected_data",
            {"injected_body": {"a": 1}, "injected_headers": [["x-a", "b"]]},
        ),
    ],
)
def test_echo_of_extras_is_what_its_table_says(name, expected):
    answer = chat(name, extra_body={"a": Raw(b"1")}, extra_headers=(("x-a", "b"),))
    assert json.loads(message(answer)["content"]) == expected


def test_extract_images_lists_files_of_every_message():
    answer = chat("extract_images", messages=parts(text("x"), PNG) + parts(PDF))
    assert json.loads(message(answer)["content"]) == [PNG, PDF]


def test_require_pdf_with_pdf_lists_files():
    answer = chat("require_pdf", messages=parts(PNG, PDF))
    assert json.loads(message(answer)["content"]) == [PNG, PDF]


def test_require_pdf_without_pdf_is_refused():
    answer = chat("require_pdf", messages=parts(PNG))
    assert answer.status == 400
    message = answer.json()["error"]["message"]
    assert message == "PDF must be provided for require_pdf model"


def test_multiple_text_blocks_with_two_is_answered():
    system = {"role": "system", "content": "x"}
    messages = [system, *parts(text("a"), text("b"))]
    assert message(chat("multiple-text-blocks", messages=messages))["content"] == TEXT


def test_multiple_text_blocks_with_one_is_refused():
    answer = chat("multiple-text-blocks")
    assert answer.status == 400
    message = answer.json()["error"]["message"]
    assert message == "First message must have exactly two text blocks"


# -- streamed -------------------------------------------------------------------


def collected(events, member="content"):
    """Return what the deltas' *member* comes to."""
    deltas = [
        choice["delta"]
        for event in events
        if event != "[DONE]"
        for choice in event["choices"]
    ]
    return "".join(delta[member] for delta in deltas if delta.get(member))


def arguments(events):
    calls = [
        event["choices"][0]["delta"]["tool_calls"][0]["function"]
        for event in events
        if event != "[DONE]"
        and event["choices"]
        and "tool_calls" in event["choices"][0]["delta"]
    ]
    names = "".join(call.get("name", "") for call in calls)
    return names, "".join(call["arguments"] for call in calls)


@pytest.mark.parametrize("name", ["anything", "null", "echo", "alternate"])
def test_stream_of_other_names_is_sixteen_words(name):
    answer = stream(name)
    assert answer.headers["content-type"] == "text/event-stream"
    events = answer.events()
    assert len(events) == 1 + 16 + 3
    assert events[-1] == "[DONE]"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert collected(events) == PIZZA
    assert events[-3]["choices"][0]["finish_reason"] == "stop"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 16,
        "total_tokens": 26,
    }
    assert all(event["usage"] is None for event in events[:-2])
    assert len({event["id"] for event in events[:-1]}) == 1


def test_stream_without_include_usage_has_no_usage():
    events = stream("anything", usage=False).events()
    assert len(events) == 1 + 16 + 2
    assert not any("usage" in event for event in events)


@pytest.mark.parametrize(
    ("name", "function", "expected"),
    [
        ("tool", "get_temperature", '{"location":"Brooklyn","units":"celsius"}'),
        (
            "tool_split_name",
            "get_temperature",
            '{"location":"Brooklyn","units":"celsius"}',
        ),
        (
            "good_tool",
            "output_schema_tool",
            '{"sentiment":"positive","confidence":0.95}',
        ),
    ],
)
def test_stream_of_tool_is_one_call_in_five_pieces(name, function, expected):
    events = stream(name).events()
    assert arguments(events) == (function, expected)
    first = events[1]["choices"][0]["delta"]["tool_calls"][0]
    assert (first["index"], first["id"], first["type"]) == (0, "0", "function")
    later = [event["choices"][0]["delta"]["tool_calls"][0] for event in events[2:6]]
    assert not any("id" in call for call in later)
    assert events[-3]["choices"][0]["finish_reason"] == "tool_calls"
    assert events[-2]["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reasoner", PIZZA),
        ("reasoner_with_signature", PIZZA),
        ("json_reasoner", '{"name":"John","age":30}'),
    ],
)
def test_stream_of_reasoner_thinks_first(name, expected):
    events = stream(name).events()
    assert collected(events, "reasoning_content") == "hmmmhmmm"
    assert "reasoning_content" in events[1]["choices"][0]["delta"]
    assert collected(events) == expected


def test_stream_of_json_is_five_pieces():
    events = stream("json").events()
    assert collected(events) == '{"name":"John","age":30}'
    assert events[-2]["usage"]["completion_tokens"] == 5


def test_stream_of_named_usage_has_it():
    usage = stream("input_five_output_six").events()[-2]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 6)


def test_stream_with_n_has_every_choice_in_every_chunk():
    events = stream("json", members={"n": 2}).events()
    indexes = [event["choices"][0]["index"] for event in events[:-2]]
    assert indexes == [0, 1] * 7


def test_stream_by_default_is_spaced_by_ten_milliseconds():
    answer = stream("anything", spacing=None)
    assert len(answer.pieces) == 17
    assert answer.times == [round(index * 0.01, 6) for index in range(17)]


def test_stream_with_spacing_of_its_table_waits_that_long():
    assert stream("json", spacing="1500").times == [0, 1.5, 3.0, 4.5, 6.0, 7.5]


def test_stream_of_slow_second_chunk_waits_before_it():
    answer = stream("slow_second_chunk", spacing=None)
    assert answer.times[:3] == [0, 2.01, 2.02]


@pytest.mark.parametrize(
    ("name", "chunks", "text"),
    [
        ("err_in_stream", 3, "Dummy error in stream"),
        (
            "err_in_stream_with_raw_response",
            3,
            "Dummy error in stream with raw response",
        ),
        ("fatal_stream_error", 2, "Dummy fatal error"),
        (
            "fatal_stream_error_with_raw_response",
            2,
            "Dummy fatal error with raw response",
        ),
    ],
)
def test_stream_that_fails_ends_with_an_error_and_no_terminator(name, chunks, text):
    events = stream(name).events()
    assert len(events) == 1 + chunks + 1
    assert events[-1]["error"]["message"] == text
    assert collected(events[:-1]) == "".join(
        ["Wally,", " the", " golden", " retriever,"][:chunks]
    )


# -- requests that are none -----------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"messages":1}', b'{"messages":["x"]}', b"\xff"],
    ids=["empty", "cut", "list", "number", "string", "no-utf8"],
)
def test_chat_of_body_that_is_no_request_is_refused(body):
    answer = ask("anything", body)
    assert answer.status == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("count", [0, 129])
def test_chat_with_impossible_n_is_refused(count):
    answer = chat("anything", members={"n": count})
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "n"


@given(
    name=st.sampled_from(
        ["x", "echo", "echo_request_messages", "extract_images", "require_pdf"]
    ),
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "text", "file"]), inner)
        ),
        max_leaves=6,
    ),
    is_stream=st.booleans(),
)
def test_chat_of_any_content_is_answered_or_refused(name, content, is_stream):
    messages = [{"role": "user", "content": content}]
    answer = chat(name, messages=messages, members={"stream": is_stream})
    assert answer.status in (200, 400)
