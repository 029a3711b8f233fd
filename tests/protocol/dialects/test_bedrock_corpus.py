"""What Bedrock really sent, read by the dialect and, independently, by hand."""

from __future__ import annotations

import base64
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
from tests.protocol.dialects.eventstreams import framed
from tests.protocol.dialects.recordings import recordings, replay
from tz_protocol.dialects.bedrock import BEDROCK
from tz_protocol.errors import UpstreamBroken, UpstreamError, UpstreamRefused
from tz_protocol.types.stream import (
    StreamDone,
    StreamFailed,
    StreamPart,
)

FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}

RECORDINGS = recordings("aws_bedrock", "converse", "converse-stream")


def body_of(recording):
    """Return the bytes that came over the wire."""
    is_unframed = recording.is_stream and recording.fidelity == "chunks"
    if is_unframed and recording.head.status == 200:
        return framed(recording.body)
    return recording.body


def reading_of_blocks(blocks, reason):
    """Read an answer's blocks with nothing but the vendor's documentation."""
    texts, thoughts, calls = [], [], []
    for block in blocks:
        if "text" in block:
            texts.append(block["text"])
        elif "citationsContent" in block:
            cited = block["citationsContent"].get("content") or ()
            texts.extend(piece["text"] for piece in cited)
        elif "reasoningContent" in block:
            thought = block["reasoningContent"].get("reasoningText") or {}
            thoughts.append(thought.get("text", ""))
        elif "toolUse" in block and block["toolUse"].get("type") != "server_tool_use":
            use = block["toolUse"]
            calls.append(
                {
                    "id": use["toolUseId"],
                    "name": use["name"],
                    "arguments": use["input"],
                }
            )
    finish = FINISHES.get(reason, "stop")
    if finish in ("stop", "tool_calls"):
        finish = "tool_calls" if calls else "stop"
    return {
        "content": "".join(texts),
        "reasoning": "".join(thoughts),
        "tool_calls": calls,
        "finish": finish,
    }


def blocks_of_stream(messages):
    """Put a stream together as the vendor's documentation says; also usage, end."""
    blocks: dict[int, dict[str, Any]] = {}
    usage = reason = None
    for name, payload in messages:
        index = payload.get("contentBlockIndex", 0)
        if name == "contentBlockStart":
            blocks[index] = {key: dict(v) for key, v in payload["start"].items()}
        elif name == "contentBlockDelta":
            add_delta(blocks.setdefault(index, {}), payload["delta"])
        elif name == "messageStop":
            reason = payload["stopReason"]
        elif name == "metadata":
            usage = payload["usage"]
    ordered = [blocks[index] for index in sorted(blocks)]
    for block in ordered:
        if "toolUse" in block:
            block["toolUse"]["input"] = loads(block["toolUse"].get("input") or "{}")
    return ordered, usage, reason


def add_delta(block, delta):
    if "text" in delta:
        block["text"] = block.get("text", "") + delta["text"]
    elif "toolUse" in delta:
        use = block["toolUse"]
        use["input"] = use.get("input", "") + delta["toolUse"]["input"]
    elif "reasoningContent" in delta:
        thought = block.setdefault("reasoningContent", {})
        for name, value in delta["reasoningContent"].items():
            if name == "redactedContent":
                thought[name] = thought.get(name, "") + value
            else:
                text = thought.setdefault("reasoningText", {})
                text[name] = text.get(name, "") + value


def messages_of(body):
    """Read the framing with botocore's own reader."""
    reader = pytest.importorskip("botocore.eventstream", reason="no botocore")
    buffer = reader.EventStreamBuffer()
    buffer.add_data(body)
    return [
        (message.headers[":event-type"], json.loads(message.payload))
        for message in buffer
    ]


def expected_usage(usage):
    prompt = sum(
        usage.get(name) or 0
        for name in ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    )
    return prompt, usage["outputTokens"]


def loads(text):
    """Return the JSON in *text*, or the text itself if the limit cut it off."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def essentials(message):
    names = ("content", "reasoning", "finish")
    calls = [
        {**call, "arguments": loads(call["arguments"])}
        for call in message["tool_calls"]
    ]
    return {**{name: message[name] for name in names}, "tool_calls": calls}


@pytest.mark.parametrize("recording", RECORDINGS)
def test_corpus_bedrock_answer_reads_and_renders(recording):
    if recording.head.status != 200:
        check_error(recording)
    elif recording.is_stream:
        check_stream(recording, body_of(recording))
    else:
        check_whole(recording)


def check_error(recording):
    error = BEDROCK.parse_error(recording.head, recording.body)
    assert isinstance(error, UpstreamRefused)
    # A key that is not valid is said with other statuses.
    assert error.status in (recording.head.status, 401)
    if b'"message": "' in recording.body or b'"message":"' in recording.body:
        assert json.loads(recording.body)["message"] == error.message


def check_whole(recording):
    if b'"stopReason"' not in recording.body:
        with pytest.raises(UpstreamError):
            BEDROCK.parse_response(recording.head, recording.body)
        return
    completion = BEDROCK.parse_response(recording.head, recording.body)
    value = whole_object(completion)
    validator = schema("openai.json", "CreateChatCompletionResponse")
    assert not faults(validator, value)
    body = json.loads(recording.body)
    blocks = body["output"]["message"]["content"]
    expected = reading_of_blocks(blocks, body["stopReason"])
    assert expected == essentials(message_of_whole(value))
    check_seals(blocks, value["choices"][0]["message"])
    if "inputTokens" in body["usage"]:
        usage = usage_object(completion.usage)
        prompt, output = expected_usage(body["usage"])
        assert (prompt, output) == (usage["prompt_tokens"], usage["completion_tokens"])


def check_seals(blocks, message):
    """What only the vendor can read is what it said."""
    thoughts = [b["reasoningContent"] for b in blocks if "reasoningContent" in b]
    seals = message.get("reasoning_details", ())
    signatures = [
        text["signature"]
        for thought in thoughts
        if "signature" in (text := thought.get("reasoningText") or {})
    ]
    assert signatures == [s["signature"] for s in seals if "signature" in s]
    redacted = [t["redactedContent"] for t in thoughts if "redactedContent" in t]
    data = [s["data"].encode() for s in seals if "data" in s]
    assert redacted == [base64.b64encode(one).decode() for one in data]


def check_stream(recording, body):
    events = decoded(decoder_of(BEDROCK, recording.head), [body])
    split = decoded(decoder_of(BEDROCK, recording.head), byte_by_byte(body))
    assert comparable(events) == comparable(split)
    if isinstance(events[-1], StreamFailed):
        # An exception, or cut by whoever recorded it.
        assert b"xception" in body or b":error" in body or b"messageStop" not in body
        return
    assert isinstance(events[-1], StreamDone)
    chunks = chunk_objects(events)
    validator = schema("openai.json", "CreateChatCompletionStreamResponse")
    assert not [fault for chunk in chunks for fault in faults(validator, chunk)]
    blocks, usage, reason = blocks_of_stream(messages_of(body))
    expected = reading_of_blocks(blocks, reason)
    assert expected == essentials(message_of_chunks(chunks))
    value = whole_object(collected(events))
    assert expected == essentials(message_of_whole(value))
    check_seals(blocks, value["choices"][0]["message"])
    shown = [e.usage for e in events if isinstance(e, StreamPart) and e.usage]
    if usage is not None:
        last = usage_object(shown[-1])
        counts = (last["prompt_tokens"], last["completion_tokens"])
        assert expected_usage(usage) == counts


STREAMS = [r for r in RECORDINGS if r.values[0] is None or r.values[0].is_stream]


def without_end(recording):
    """Say why a stream has no end to cut off."""
    if recording.head.status != 200:
        return "an error has no stream"
    return None if b"messageStop" in body_of(recording) else "the stream has no end"


@replay(STREAMS, without_end)
def test_corpus_bedrock_stream_cut_short_never_ends_cleanly(recording):
    body = body_of(recording)
    stop = body.rfind(b"messageStop")
    for size in range(0, stop, max(1, stop // 20)):
        last = decoded(decoder_of(BEDROCK, recording.head), [body[:size]])[-1]
        assert isinstance(last, StreamFailed)
        assert isinstance(last.error, UpstreamBroken)
