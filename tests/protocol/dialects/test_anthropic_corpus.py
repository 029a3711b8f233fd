"""What Anthropic really sent, read by the dialect and, independently, by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.protocol.dialects.checking import (
    byte_by_byte,
    chunk_objects,
    collected,
    comparable,
    decoded,
    decoder_of,
    faults,
    message_of_chunks,
    message_of_whole,
    schema,
    usage_object,
    whole_object,
)
from tests.protocol.dialects.recordings import recordings, replay
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.errors import UpstreamError, UpstreamRefused
from tz_protocol.types.stream import (
    StreamDone,
    StreamFailed,
    StreamPart,
)

FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
"""All others are ends like any other."""

RECORDINGS = [
    *recordings("anthropic", "messages"),
    # The same format in another envelope.
    *recordings("gcp_vertex_anthropic", "rawPredict", "streamRawPredict"),
]


def reading_of_blocks(blocks, reason, explanation):
    """Read an answer's blocks with nothing but the vendor's documentation."""
    texts = [b["text"] or "" for b in blocks if b["type"] == "text"]
    thoughts = [b["thinking"] or "" for b in blocks if b["type"] == "thinking"]
    return {
        "content": "".join(texts),
        "reasoning": "".join(thoughts),
        "refusal": explanation or "",
        "tool_calls": [
            {"id": b["id"], "name": b["name"], "arguments": b["input"]}
            for b in blocks
            if b["type"] == "tool_use"
        ],
        "finish": FINISHES.get(reason, "stop"),
    }


def blocks_of_stream(text):
    """Put a stream together as the vendor's documentation says; also usage, end."""
    blocks: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    reason = explanation = None
    for line in text.splitlines():
        if not line.startswith("data:") or "[DONE]" in line:
            continue
        event = json.loads(line[5:])
        kind = event["type"]
        if kind == "message_start":
            usage.update(event["message"].get("usage") or {})
        elif kind == "content_block_start":
            blocks[event["index"]] = {**event["content_block"], "json": ""}
        elif kind == "content_block_delta":
            delta, block = event["delta"], blocks[event["index"]]
            if delta["type"] == "text_delta":
                block["text"] = (block["text"] or "") + delta["text"]
            elif delta["type"] == "thinking_delta":
                block["thinking"] += delta["thinking"]
            elif delta["type"] == "input_json_delta":
                block["json"] += delta["partial_json"]
        elif kind == "message_delta":
            counts = (event.get("usage") or {}).items()
            usage.update({k: v for k, v in counts if v is not None})
            reason = event["delta"].get("stop_reason") or reason
            details = event["delta"].get("stop_details") or {}
            explanation = details.get("explanation")
    ordered = [blocks[index] for index in sorted(blocks)]
    for block in ordered:
        if block["type"] == "tool_use" and block["json"]:
            block["input"] = loads(block["json"])
    return ordered, usage, reason, explanation


def expected_usage(usage):
    prompt = sum(
        usage.get(name) or 0
        for name in (
            "input_tokens",
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
        )
    )
    return prompt, usage["output_tokens"]


def loads(text):
    """Return the JSON in *text*, or the text itself if the limit cut it off."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def with_arguments_read(message):
    for call in message["tool_calls"]:
        call["arguments"] = loads(call["arguments"])
        assert isinstance(call["arguments"], dict) or message["finish"] == "length"
    return message


def essentials(message):
    names = ("content", "reasoning", "refusal", "tool_calls", "finish")
    return {name: message[name] for name in names}


@pytest.mark.parametrize("recording", RECORDINGS)
def test_corpus_anthropic_answer_reads_and_renders(recording):
    if recording.head.status != 200:
        check_error(recording)
    elif recording.is_stream:
        check_stream(recording)
    else:
        check_whole(recording)


def check_error(recording):
    error = ANTHROPIC.parse_error(recording.head, recording.body)
    assert isinstance(error, UpstreamRefused)
    assert recording.head.status == error.status
    if b'"error"' in recording.body:
        stated = json.loads(recording.body)["error"]["message"]
        assert stated[:50] == error.message[:50]


def check_whole(recording):
    if b'"content"' not in recording.body:
        with pytest.raises(UpstreamError):
            ANTHROPIC.parse_response(recording.head, recording.body)
        return
    completion = ANTHROPIC.parse_response(recording.head, recording.body)
    value = whole_object(completion)
    validator = schema("openai.json", "CreateChatCompletionResponse")
    assert not faults(validator, value)
    body = json.loads(recording.body)
    details = body.get("stop_details") or {}
    expected = reading_of_blocks(
        body["content"], body["stop_reason"], details.get("explanation")
    )
    message = with_arguments_read(essentials(message_of_whole(value)))
    expect_calls(expected)
    assert expected == message
    usage = usage_object(completion.usage)
    prompt, output = expected_usage(body["usage"])
    assert (prompt, output) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (body["id"], body["model"]) == (completion.id, completion.model)


def expect_calls(expected):
    """The reason follows from what is there for the caller to answer."""
    if expected["finish"] in ("stop", "tool_calls"):
        expected["finish"] = "tool_calls" if expected["tool_calls"] else "stop"


def check_stream(recording):
    body = recording.body
    events = decoded(decoder_of(ANTHROPIC, recording.head), [body])
    split = decoded(decoder_of(ANTHROPIC, recording.head), byte_by_byte(body))
    assert comparable(events) == comparable(split)
    if isinstance(events[-1], StreamFailed):
        is_restarted = body.count(b"event: message_start") > 1
        is_error = b"event: error" in body or b'"type": "error"' in body
        # Cut by whoever recorded it.
        is_cut = b'"message_stop"' not in body
        assert is_restarted or is_error or is_cut
        return
    assert isinstance(events[-1], StreamDone)
    chunks = chunk_objects(events)
    validator = schema("openai.json", "CreateChatCompletionStreamResponse")
    assert not [fault for chunk in chunks for fault in faults(validator, chunk)]
    blocks, usage, reason, explanation = blocks_of_stream(body.decode())
    message = message_of_chunks(chunks)
    expected = reading_of_blocks(blocks, reason, explanation)
    expect_calls(expected)
    assert expected == with_arguments_read(essentials(message))
    completion = collected(events)
    whole = message_of_whole(whole_object(completion))
    assert essentials(message_of_chunks(chunks)) == essentials(whole)
    last = [e.usage for e in events if isinstance(e, StreamPart) and e.usage][-1]
    shown = usage_object(last)
    assert expected_usage(usage) == (
        shown["prompt_tokens"],
        shown["completion_tokens"],
    )


STREAMS = [r for r in RECORDINGS if r.values[0] is None or r.values[0].is_stream]


def without_end(recording):
    """Say why a stream has no end to cut off."""
    if recording.head.status != 200 or b"event: message_delta" not in recording.body:
        return "an error has no stream"
    return None


@replay(STREAMS, without_end)
def test_corpus_anthropic_stream_cut_short_never_ends_cleanly(recording):
    body = recording.body
    place = body.rfind(b"event: message_delta")
    events = decoded(decoder_of(ANTHROPIC, recording.head), [body[:place]])
    assert isinstance(events[-1], StreamFailed)
