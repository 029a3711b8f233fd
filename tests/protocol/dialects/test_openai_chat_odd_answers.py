"""Answers in OpenAI's format at their odd ends: custom calls, choices, annotations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.protocol.dialects.checking import LIMIT, byte_by_byte, decoded
from tests.protocol.dialects.saying import HELLO
from tests.protocol.dialects.strategies import parsed
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_chat_fold import fold_chunks
from tz_protocol.dialects.openai_chat_whole import events_of_whole
from tz_protocol.types.chat import ChatChunk, ChatRequest
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.request import Identity, Target
from tz_protocol.types.stream import StreamPart

HEAD = ResponseHead(200)
IDENTITY = Identity(id="ours", episode_id="e", model="public", created=5)
REQUEST = ChatRequest(model="public", fields={})
TOP: dict[str, Any] = {"id": "x", "created": 1, "model": "m"}


def choices_of(*choices):
    """Return the choices of a whole answer as our client gets them."""
    body = json.dumps({**TOP, "choices": choices}).encode()
    response = OPENAI_CHAT.parse_response(HEAD, body)
    _, rendered = OPENAI_CHAT.render_response(REQUEST, response, IDENTITY)
    return json.loads(rendered)["choices"]


def choice(message, index=0, finish="stop"):
    said = {"role": "assistant", "content": None, **message}
    return {"index": index, "message": said, "finish_reason": finish}


def stream(*deltas, finish="tool_calls"):
    lines = []
    for number, delta in enumerate(deltas):
        end = finish if number == len(deltas) - 1 else None
        part = {"index": 0, "delta": delta, "finish_reason": end}
        value = {**TOP, "object": "chat.completion.chunk", "choices": [part]}
        lines.append(b"data: " + json.dumps(value).encode() + b"\n\n")
    return b"".join(lines) + b"data: [DONE]\n\n"


def chunks_of(data):
    """Return the chunks that the parts of a stream hold."""
    assert OPENAI_CHAT.stream_decoder is not None
    pieces = byte_by_byte(data)
    events = decoded(OPENAI_CHAT.stream_decoder(HEAD, LIMIT), [data])
    assert decoded(OPENAI_CHAT.stream_decoder(HEAD, LIMIT), pieces) == events
    return [one.value.data for one in events if isinstance(one, StreamPart)]


def message_of(chunks):
    """Return the message that the chunks add up to."""
    (one,) = json.loads(bytes(fold_chunks(chunks)["choices"]))
    return one["message"]


# -- calls of custom tools ------------------------------------------------------

CALL = {"id": "c", "type": "custom", "custom": {"name": "g", "input": "ls -l"}}

BEGUN = {"index": 0, **CALL, "custom": {"name": "g", "input": ""}}


def more(text, **members):
    return {"index": 0, "custom": {"input": text, **members}}


def calling(*calls):
    return {"tool_calls": list(calls)}


@pytest.mark.parametrize(
    "deltas",
    [
        [calling(BEGUN), calling(more("ls")), calling(more(" -l")), {}],
        [calling({"index": 0, **CALL}), {}],
        [calling(BEGUN), calling({**more("ls"), "id": "c"}), calling(more(" -l"))],
        [calling(BEGUN), calling(more("ls", name="g")), calling(more(" -l", name="g"))],
        [calling({"index": 4, **CALL})],
        [calling({**CALL})],
    ],
    ids=["pieces", "whole", "id again", "name again", "gap", "no index"],
)
def test_custom_call_of_a_stream_adds_up_to_the_call(deltas):
    chunks = chunks_of(stream(*deltas))
    assert message_of(chunks)["tool_calls"] == [CALL]
    indexes = [
        one["index"]
        for chunk in chunks
        for part in json.loads(chunk)["choices"]
        for one in part["delta"].get("tool_calls", ())
    ]
    assert set(indexes) == {0}


def test_custom_call_without_an_id_gets_one_and_keeps_its_type():
    (call,) = message_of(chunks_of(stream(calling({**BEGUN, "id": None}))))[
        "tool_calls"
    ]
    assert call["id"]
    assert call["type"] == "custom"
    (made,) = choices_of(choice(calling({**CALL, "id": ""})))
    assert made["message"]["tool_calls"][0]["id"]
    assert made["message"]["tool_calls"][0]["custom"] == CALL["custom"]


def test_custom_call_of_a_whole_answer_is_streamed_and_comes_back():
    whole = {"choices": [choice(calling(CALL), finish="tool_calls")], **TOP}
    assert choices_of(*whole["choices"]) == whole["choices"]
    events = events_of_whole(json.dumps(whole).encode())
    chunks = [
        one.value.data
        for one in events
        if isinstance(one, StreamPart) and isinstance(one.value, ChatChunk)
    ]
    assert message_of(chunks)["tool_calls"] == [CALL]


# -- choices --------------------------------------------------------------------


@pytest.mark.parametrize(
    "indexes", [(0, 0, 0), (None, None, None), (1, 1, 2)], ids=["zero", "none", "two"]
)
def test_choices_that_share_a_number_are_numbered_through(indexes):
    texts = ("a", "b", "c")
    made = choices_of(
        *(
            choice({"content": text}, index)
            for text, index in zip(texts, indexes, strict=True)
        )
    )
    assert [one["index"] for one in made] == [0, 1, 2]
    assert [one["message"]["content"] for one in made] == list(texts)


def test_choices_with_numbers_of_their_own_keep_them():
    made = choices_of(choice({"content": "b"}, 1), choice({"content": "a"}, 0))
    assert [one["index"] for one in made] == [1, 0]


# -- annotations ----------------------------------------------------------------

FILE = {
    "type": "file",
    "file": {"hash": "h", "name": "a.pdf", "content": [{"type": "text", "text": "t"}]},
}
"""OpenRouter's: what it read of a file, to be handed back instead of reading again."""


def test_annotation_of_a_kind_that_is_not_openais_passes_for_callers_hand_it_back():
    message = {"content": "a", "annotations": [FILE]}
    (made,) = choices_of(choice(message))
    assert made["message"]["annotations"] == [FILE]
    chunks = chunks_of(stream({"content": "a"}, {"annotations": [FILE]}, finish="stop"))
    assert message_of(chunks)["annotations"] == [FILE]


def test_annotations_of_an_earlier_answer_go_back_as_they_came_or_are_named():
    said = {"role": "assistant", "content": "a", "annotations": [FILE]}
    body = json.dumps({"model": "m", "messages": [*HELLO, said]}).encode()
    request = OPENAI_CHAT.parse_request(
        body, RequestHead(method="POST", path="/v1/chat/completions")
    )
    target = Target(provider="openrouter", model="m")
    rendered, losses = OPENAI_CHAT.render_request(request, target)
    assert json.loads(rendered.body)["messages"][1] == said
    assert losses == ()
    elsewhere = Target(provider="anthropic", model="claude-sonnet-4-5")
    request = parsed({"messages": [*HELLO, said]})
    _, losses = ANTHROPIC.render_request(request, elsewhere)
    assert losses == ("messages[1].annotations",)
