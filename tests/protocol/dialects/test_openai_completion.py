from __future__ import annotations

import msgspec
import pytest
from msgspec import UNSET, Raw

from tests.protocol.dialects.checking import faults, schema, whole_object
from tz_protocol.dialects.base import AnyDialect
from tz_protocol.dialects.deltas import content, finished, lifecycle
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_completion import chunk_of, render_usage
from tz_protocol.types.chat import ChatChunk, ChatRequest
from tz_protocol.types.conversation import (
    ArgumentsDelta,
    Choice,
    Citation,
    CitationDelta,
    Completion,
    Finished,
    Image,
    Opaque,
    OpaqueDelta,
    ReasoningDelta,
    ReasoningSealed,
    Refusal,
    RefusalDelta,
    Started,
    Text,
    TextDelta,
    ToolCall,
    ToolCallStarted,
    Url,
)
from tz_protocol.types.request import Identity
from tz_protocol.types.stream import StreamPart
from tz_protocol.types.usage import Usage

IDENTITY = Identity(id="ours", episode_id="episode", model="public", created=77)
USAGE = Usage(input_tokens=3, output_tokens=4, cache_read_tokens=0)

DELTAS = [
    Started(id="x", model="y"),
    TextDelta('a"\n'),
    TextDelta("b", 1, Raw(b'{"content":[],"refusal":null}')),
    ReasoningDelta("t"),
    ReasoningSealed(text="t", signature="s", format="f"),
    ToolCallStarted(index=0, id="c", name="f"),
    ToolCallStarted(index=1, id="d", name="g", arguments="{}", signature="s"),
    ArgumentsDelta(0, '{"a"'),
    RefusalDelta("no"),
    CitationDelta(Citation(start=0, end=1, url="https://e.org", title="t")),
    CitationDelta(Citation(start=0, end=1, quote="q")),
    OpaqueDelta(Opaque("anthropic", "k", Raw(b'{"a":1}'))),
    Finished(finish="stop"),
    Finished(finish="content_filter", native_finish="refusal", choice=2),
]


@pytest.mark.parametrize("delta", DELTAS, ids=lambda delta: type(delta).__name__)
def test_chunk_of_each_delta_is_legal(delta):
    chunk = msgspec.json.decode(chunk_of(delta).data)
    validator = schema("openai.json", "CreateChatCompletionStreamResponse")
    assert not faults(validator, chunk)
    (choice,) = chunk["choices"]
    assert choice["index"] == delta.choice


def run(parts, *, include_usage):
    request = ChatRequest(model="public", is_stream=True, include_usage=include_usage)
    assert OPENAI_CHAT.stream_encoder is not None
    encoder = OPENAI_CHAT.stream_encoder(request, IDENTITY)
    usage = [part.usage for part in parts if part.usage][-1]
    return [encoder.encode(part) for part in parts] + [encoder.finish(usage)]


PARTS = [
    lifecycle(Started(id="x", model="y"), Usage(input_tokens=3, output_tokens=1)),
    content(TextDelta("a")),
    finished(Finished(finish="stop"), USAGE),
]
STAMPS = (
    b'data: {"id":"ours","episode_id":"episode","object":"chat.completion.chunk",'
    b'"model":"public",'
)


def test_encoder_stamps_converted_parts_like_a_providers_own():
    began, text, finish, end = run(PARTS, include_usage=False)
    for data in (began, text, finish):
        assert data.startswith(STAMPS)
        assert data.endswith(b"\n\n")
        assert msgspec.json.decode(data[6:])["created"] == 77
    assert text.endswith(
        b'"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
    )
    assert end == b"data: [DONE]\n\n"


def test_encoder_tells_the_usage_of_converted_parts_once_and_at_the_end():
    *chunks, end = run(PARTS, include_usage=True)
    assert not any(b'"prompt_tokens"' in data for data in chunks)
    told, done, rest = end.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    chunk = msgspec.json.decode(told[6:])
    assert chunk["choices"] == []
    assert chunk["usage"] == render_usage(USAGE)
    assert chunk["id"] == "ours"


def test_encoder_passes_a_providers_own_chunks_as_before():
    data = (
        b'{"id":"theirs","object":"chat.completion.chunk","created":1,"model":"m",'
        b'"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}'
    )
    (first, _) = run([StreamPart(ChatChunk(data), True, USAGE)], include_usage=False)
    assert (
        msgspec.json.decode(first[6:])["choices"]
        == (msgspec.json.decode(data)["choices"])
    )


def test_render_response_stamps_a_converted_answer():
    completion = Completion(
        choices=(Choice(content=(Text("a"),)),), usage=USAGE, id="x", model="y"
    )
    dialect: AnyDialect = OPENAI_CHAT
    request = ChatRequest(model="public")
    head, body = dialect.render_response(request, completion, IDENTITY)
    assert head.status == 200
    value = msgspec.json.decode(body)
    assert (value["id"], value["model"], value["created"]) == ("ours", "public", 77)
    assert value["choices"] == whole_object(completion)["choices"]
    assert value["usage"] == render_usage(USAGE)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ((), ""),
        ((Text("a"), ToolCall(id="c", name="f", arguments="{}"), Text("b")), "ab"),
        ((ToolCall(id="c", name="f", arguments="{}"),), None),
        ((Refusal("no"),), None),
    ],
    ids=["nothing", "text around a call", "call", "refusal"],
)
def test_content_of_a_message_is_null_only_beside_calls_and_refusals(blocks, expected):
    value = whole_object(Completion(choices=(Choice(content=blocks),)))
    assert value["choices"][0]["message"]["content"] == expected


def test_several_choices_keep_their_numbers():
    choices = tuple(Choice(index=place, content=(Text("x"),)) for place in (0, 1))
    value = whole_object(Completion(choices=choices))
    assert [choice["index"] for choice in value["choices"]] == [0, 1]


def test_block_that_no_answer_may_hold_is_a_bug():
    choice = Choice(content=(Image(Url("https://e.org")),))
    with pytest.raises(TypeError):
        whole_object(Completion(choices=(choice,)))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            Usage(input_tokens=1, output_tokens=2),
            {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        ),
        (
            Usage(
                input_tokens=9,
                output_tokens=2,
                cache_read_tokens=5,
                cache_write_tokens=0,
                reasoning_tokens=1,
            ),
            {
                "prompt_tokens": 9,
                "completion_tokens": 2,
                "total_tokens": 11,
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
        ),
    ],
    ids=["bare", "full"],
)
def test_usage_says_only_what_is_known(usage, expected):
    assert render_usage(usage) == expected


def test_native_finish_of_a_choice_is_said_beside_openais_word():
    choice = Choice(finish="content_filter", native_finish="refusal")
    (value,) = whole_object(Completion(choices=(choice,)))["choices"]
    assert value["finish_reason"] == "content_filter"
    assert value["native_finish_reason"] == "refusal"
    plain = Choice(finish="stop", native_finish=UNSET)
    (value,) = whole_object(Completion(choices=(plain,)))["choices"]
    assert "native_finish_reason" not in value
