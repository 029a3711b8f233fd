"""Realistic bytes for the benchmarks: a 1 kB chat request, its answer, its stream."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["SENTENCE", "Answers", "chat_request", "chat_response", "chunk", "stream"]

SENTENCE = "The quick brown fox jumps over the lazy dog while the gateway keeps count. "


@dataclass
class Answers:
    """What one provider answers."""

    whole: bytes
    stream: list[bytes]
    """In the pieces in which it comes."""
    stream_type: str = "text/event-stream"


def chat_request(*, model: str = "bench", is_stream: bool = False) -> bytes:
    """Return a chat request of about 1 kB."""
    body = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": SENTENCE * 11},
        ],
        "temperature": 0.7,
        "max_completion_tokens": 256,
        "user": "user-1234",
    }
    if is_stream:
        body["stream"] = True
    return json.dumps(body).encode()


def chat_response() -> bytes:
    """Return a whole answer of about 600 bytes."""
    body = {
        "id": "chatcmpl-0123456789abcdefghijABCDEFGHI",
        "object": "chat.completion",
        "created": 1750000000,
        "model": "gpt-4.1-mini-2025-04-14",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": SENTENCE * 2,
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 57,
            "completion_tokens": 17,
            "total_tokens": 74,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }
    return json.dumps(body, separators=(",", ":")).encode()


def chunk(
    content: str | None,
    *,
    is_first: bool = False,
    finish_reason: str | None = None,
) -> bytes:
    """Return one event of a stream, about 280 bytes."""
    delta: dict[str, object] = {}
    if is_first:
        delta = {"role": "assistant", "content": ""}
    elif content is not None:
        delta = {"content": content}
    body = {
        "id": "chatcmpl-0123456789abcdefghijABCDEFGHI",
        "object": "chat.completion.chunk",
        "created": 1750000000,
        "model": "gpt-4.1-mini-2025-04-14",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": [
            {
                "index": 0,
                "delta": delta,
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": None,
    }
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def stream(chunks: int) -> list[bytes]:
    """Return the events of a stream with *chunks* pieces of content."""
    usage = {
        "id": "chatcmpl-0123456789abcdefghijABCDEFGHI",
        "object": "chat.completion.chunk",
        "created": 1750000000,
        "model": "gpt-4.1-mini-2025-04-14",
        "choices": [],
        "usage": {"prompt_tokens": 57, "completion_tokens": 17, "total_tokens": 74},
    }
    return [
        chunk(None, is_first=True),
        *(chunk(f" word{number}") for number in range(chunks)),
        chunk(None, finish_reason="stop"),
        b"data: " + json.dumps(usage, separators=(",", ":")).encode() + b"\n\n",
        b"data: [DONE]\n\n",
    ]
