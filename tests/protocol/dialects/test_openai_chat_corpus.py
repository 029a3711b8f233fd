"""Recorded answers of vendors that speak OpenAI's format: nothing of them is lost.

What a recording says is read here once more, by the plainest means, from the vendor's
bytes and from what our client gets.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.protocol.dialects.checking import comparable, decoded
from tests.protocol.dialects.recordings import recordings
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_chat_stream import (
    ChatDecoder,
    ChatEncoder,
    chat_decoder,
)
from tz_protocol.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tz_protocol.dialects.openai_errors import parse_error
from tz_protocol.errors import UpstreamBroken, UpstreamRefused
from tz_protocol.types.chat import ChatRequest
from tz_protocol.types.request import Identity, ParsedRequest
from tz_protocol.types.stream import StreamDone, StreamFailed, StreamPart

PROVIDERS = (
    "azure",
    "deepseek",
    "groq",
    "huggingface",
    "llamacpp",
    "mistral",
    "ollama",
    "openai",
    "openrouter",
    "perplexity",
    "tgi",
    "together",
    "vllm",
    "xai",
)
IDENTITY = Identity(id="ours", episode_id="episode", model="public", created=5)
REQUEST = ChatRequest(model="public", is_stream=True, include_usage=True)
OURS = {"id", "episode_id", "object", "created", "model"}


def chats(is_stream):
    """Return the recordings that were answered, or asked for, as streams or not."""
    return [
        item
        for provider in PROVIDERS
        for item in recordings(provider, "chat.completions")
        if not item.values[0] or _is_of(item.values[0], is_stream)
    ]


def _is_of(recording, is_stream):
    is_streamed = recording.is_stream and recording.head.status == 200
    return recording.body and is_streamed is is_stream


def values_of(body):
    """Return the JSON of each event, read without our decoder."""
    found = []
    for block in re.split(r"\r?\n\r?\n|\r\r", body.decode().lstrip("\ufeff")):
        lines = [line for line in block.splitlines() if line.startswith("data:")]
        data = "\n".join(line[5:] for line in lines).strip()
        if data and data != "[DONE]":
            found.append(json.loads(data))
    return found


def joined(old, new):
    """Return two values of one member of a delta, put together."""
    if isinstance(old, str) and isinstance(new, str):
        return old + new
    if isinstance(old, list) and isinstance(new, list):
        return old + new
    return old if new is None else new


def said(values):
    """Return what chunks say, by choice and by member, and the last usage."""
    choices: dict[Any, dict[str, Any]] = {}
    usage = None
    for value in values:
        usage = value.get("usage") or usage
        for choice in value.get("choices") or ():
            told = choices.setdefault(choice.get("index", 0), {})
            for name, part in (choice.get("delta") or {}).items():
                told[name] = joined(told.get(name), part)
            for name in ("finish_reason", "logprobs"):
                if choice.get(name):
                    told[name] = choice[name]
    return choices, usage


@pytest.mark.parametrize("recording", chats(is_stream=True))
def test_recorded_stream_says_the_same_to_our_client(recording):
    decoder = chat_decoder(recording.head)
    events = decoded(decoder, [recording.body])
    encoder = ChatEncoder(REQUEST, IDENTITY)
    parts = [item for item in events if isinstance(item, StreamPart)]
    out = b"".join(encoder.encode(part) for part in parts) + encoder.finish(None)
    theirs = [value for value in values_of(recording.body) if not value.get("error")]
    chunks = values_of(out)
    assert said(chunks) == said(theirs)
    assert all(chunk["id"] == "ours" for chunk in chunks)
    assert all(chunk["model"] == "public" for chunk in chunks)
    (end,) = [item for item in events if isinstance(item, StreamDone | StreamFailed)]
    if isinstance(end, StreamFailed):
        assert isinstance(end.error, UpstreamBroken | UpstreamRefused)
        is_error = any(value.get("error") for value in values_of(recording.body))
        assert is_error is isinstance(end.error, UpstreamRefused)
    told = [part.usage for part in parts if part.usage is not None]
    if told and said(theirs)[1] is not None:
        assert told[-1].input_tokens == said(theirs)[1]["prompt_tokens"]
    size = max(1, len(recording.body) // 50)
    pieces = [
        recording.body[place : place + size]
        for place in range(0, len(recording.body), size)
    ]
    assert comparable(decoded(ChatDecoder(), pieces)) == comparable(events)


@pytest.mark.parametrize("recording", chats(is_stream=False))
def test_recorded_answer_says_the_same_to_our_client(recording):
    theirs = json.loads(recording.body)
    if recording.head.status != 200:
        error = parse_error(recording.head, recording.body)
        assert error.status in (recording.head.status, 401)
        assert "no explanation" not in error.message
        return
    response = OPENAI_CHAT.parse_response(recording.head, recording.body)
    _, body = OPENAI_CHAT.render_response(REQUEST, response, IDENTITY)
    ours = json.loads(body)
    assert {name: ours[name] for name in ours.keys() - OURS} == {
        name: theirs[name] for name in theirs.keys() - OURS
    }
    assert (ours["id"], ours["model"]) == ("ours", "public")
    if theirs.get("usage"):
        assert response.usage is not None
        assert response.usage.input_tokens == theirs["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    "recording",
    [
        item
        for name in PROVIDERS
        if name != "ollama"  # its recordings are of its own format
        for item in recordings(name, "embeddings")
    ],
)
def test_recorded_embeddings_say_the_same_to_our_client(recording):
    if recording.head.status != 200:
        error = parse_error(recording.head, recording.body)
        assert error.status == recording.head.status
        return
    theirs = json.loads(recording.body)
    response = OPENAI_EMBEDDINGS.parse_response(recording.head, recording.body)
    parsed = ParsedRequest(model="public")
    _, body = OPENAI_EMBEDDINGS.render_response(parsed, response, IDENTITY)
    ours = json.loads(body)
    assert (ours["data"], ours["model"]) == (theirs["data"], "public")
    assert ours.get("usage") == theirs.get("usage")
