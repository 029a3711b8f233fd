"""The answers of ``payloads`` as the vendors with a format of their own give them.

The words are the same in every format, and so are the pieces that a stream comes in.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.payloads import SENTENCE, Answers, chat_response, stream
from tz_protocol.dialects.anthropic import ANTHROPIC
from tz_protocol.dialects.base import AnyDialect
from tz_protocol.dialects.bedrock import BEDROCK
from tz_protocol.dialects.cohere import COHERE_CHAT
from tz_protocol.dialects.gemini import GEMINI, VERTEX_GEMINI
from tz_protocol.dialects.sagemaker import SAGEMAKER
from tz_protocol.dialects.vertex_anthropic import VERTEX_ANTHROPIC
from tz_protocol.wire.eventstream import HeaderType, encode_message

__all__ = ["VENDORS", "answers_of"]

VENDORS: dict[str, tuple[AnyDialect, dict[str, str]]] = {
    "anthropic": (ANTHROPIC, {}),
    "vertex_anthropic": (VERTEX_ANTHROPIC, {"project_id": "p", "location": "eu"}),
    "gemini": (GEMINI, {}),
    "vertex_gemini": (VERTEX_GEMINI, {"project_id": "p", "location": "eu"}),
    "bedrock": (BEDROCK, {}),
    "cohere": (COHERE_CHAT, {}),
    "aws_sagemaker": (SAGEMAKER, {"endpoint_name": "e", "hosted_provider": "openai"}),
}
"""Name -> dialect, and the options of the provider's table that it needs."""

_FRAMES = "application/vnd.amazon.eventstream"
_TEXT = SENTENCE * 2


def answers_of(name: str, chunks: int) -> Answers:
    """Return what a vendor answers, whole and in *chunks* pieces of content.

    Args:
        name: Of ``VENDORS``.
        chunks: How many.
    """
    words = [f" word{number}" for number in range(chunks)]
    if name.endswith("anthropic"):
        return _anthropic(words)
    if name.endswith("gemini"):
        return _gemini(words)
    if name == "bedrock":
        return _bedrock(words)
    if name == "cohere":
        return _cohere(words)
    pieces = [_frame("PayloadPart", piece) for piece in stream(chunks)]
    return Answers(chat_response(), pieces, _FRAMES)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), _json(value))


def _frame(name: str, payload: bytes) -> bytes:
    headers = (
        (":event-type", HeaderType.STRING, name),
        (":content-type", HeaderType.STRING, "application/json"),
        (":message-type", HeaderType.STRING, "event"),
    )
    return encode_message(headers, payload)


def _anthropic(words: list[str]) -> Answers:
    usage = {
        "input_tokens": 57,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 17,
        "service_tier": "standard",
    }
    message: dict[str, Any] = {
        "id": "msg_0123456789abcdefghijABCD",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    content = [{"type": "text", "text": _TEXT}]
    block = {"type": "text", "text": ""}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
    ]
    for word in words:
        delta = {"type": "text_delta", "text": word}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events += [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 17}},
        {"type": "message_stop"},
    ]
    whole = {**message, "content": content, "stop_reason": "end_turn"}
    return Answers(_json(whole), [_event(event) for event in events])


def _gemini(words: list[str]) -> Answers:
    def answer(text: str, **more: Any) -> bytes:
        content = {"parts": [{"text": text}], "role": "model"}
        return _json(
            {
                "candidates": [{"content": content, **more, "index": 0}],
                "usageMetadata": {
                    "promptTokenCount": 57,
                    "candidatesTokenCount": 17,
                    "totalTokenCount": 74,
                    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 57}],
                },
                "modelVersion": "gemini-2.5-flash",
                "responseId": "0123456789abcdefghijABCD",
            }
        )

    events = [*map(answer, words), answer("", finishReason="STOP")]
    pieces = [b"data: %b\r\n\r\n" % event for event in events]
    return Answers(answer(_TEXT, finishReason="STOP"), pieces)


def _bedrock(words: list[str]) -> Answers:
    usage = {"inputTokens": 57, "outputTokens": 17, "totalTokens": 74}
    metadata = {"usage": usage, "metrics": {"latencyMs": 551}}
    message = {"role": "assistant", "content": [{"text": _TEXT}]}
    whole = {"output": {"message": message}, "stopReason": "end_turn", **metadata}
    # The padding is the vendor's, against guessing at the text by its length.
    padded: dict[str, Any] = {"p": "abcdefghijklmnopqrst"}
    events: list[tuple[str, dict[str, Any]]] = [
        ("messageStart", {"role": "assistant", **padded})
    ]
    for word in words:
        delta = {"contentBlockIndex": 0, "delta": {"text": word}}
        events.append(("contentBlockDelta", {**delta, **padded}))
    events += [
        ("contentBlockStop", {"contentBlockIndex": 0, **padded}),
        ("messageStop", {"stopReason": "end_turn", **padded}),
        ("metadata", {**metadata, **padded}),
    ]
    pieces = [_frame(event, _json(value)) for event, value in events]
    return Answers(_json(whole), pieces, _FRAMES)


def _cohere(words: list[str]) -> Answers:
    tokens = {"input_tokens": 57, "output_tokens": 17}
    usage = {"billed_units": tokens, "tokens": tokens, "cached_tokens": 0}
    identity = "01234567-89ab-cdef-0123-456789abcdef"
    content = [{"type": "text", "text": _TEXT}]
    whole = {
        "id": identity,
        "message": {"role": "assistant", "content": content},
        "finish_reason": "COMPLETE",
        "usage": usage,
    }
    message: dict[str, Any] = {"role": "assistant", "content": []}
    block = {"message": {"content": {"type": "text", "text": ""}}}
    events: list[dict[str, Any]] = [
        {"type": "message-start", "id": identity, "delta": {"message": message}},
        {"type": "content-start", "index": 0, "delta": block},
    ]
    for word in words:
        delta = {"message": {"content": {"text": word}}}
        events.append({"type": "content-delta", "index": 0, "delta": delta})
    end = {"finish_reason": "COMPLETE", "usage": usage}
    events += [
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": end},
    ]
    return Answers(_json(whole), [_event(event) for event in events])
