"""The least that each format can say: a request, an answer, a stream, an error."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec

from tests.protocol.dialects.eventstreams import event

MODEL = "m"
"""The public name in every sample of a request."""

JSON = "application/json"
EVENTS = "text/event-stream"
FRAMES = "application/vnd.amazon.eventstream"


@dataclass(frozen=True)
class Body:
    """One body and what it is."""

    content_type: str
    data: bytes
    status: int = 200


@dataclass(frozen=True)
class Stream:
    """One streamed answer, complete."""

    content_type: str
    events: tuple[bytes, ...]
    begun: int
    """How many of the events have content in them and do not complete it."""

    def body(self, count=None):
        """Return the stream, or its first *count* events."""
        return Body(self.content_type, b"".join(self.events[:count]))


@dataclass(frozen=True)
class Sample:
    """The least that one format can say. Requests name the model ``m``."""

    request: Body | None = None
    """None for a format that no client speaks."""
    stream_request: Body | None = None
    """None if it has no streams, or if every answer is one."""
    answer: Body = field(kw_only=True)
    stream: Stream | None = None
    """None if it has no streams."""
    error: Body = field(kw_only=True)
    """A refusal, with the message ``No way.``"""


def as_json(value, status=200):
    return Body(JSON, json.dumps(value).encode(), status)


def as_events(*values, begun=1, named=False):
    pieces = []
    for value in values:
        name = f"event: {value['type']}\n" if named else ""
        data = value if isinstance(value, str) else json.dumps(value)
        pieces.append(f"{name}data: {data}\n\n".encode())
    return Stream(EVENTS, tuple(pieces), begun)


def as_frames(*pairs, begun=1):
    """Return a stream in AWS's framing; each pair is an event's name and payload."""
    return Stream(FRAMES, tuple(event(*pair) for pair in pairs), begun)


def as_form(**fields):
    pieces = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    file = (
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        "\r\nRIFF\r\n--b--\r\n"
    )
    return Body("multipart/form-data; boundary=b", "".join((*pieces, file)).encode())


OPENAI_ERROR = as_json({"error": {"message": "No way.", "type": "t"}}, 400)
GOOGLE_ERROR = as_json(
    {"error": {"code": 400, "message": "No way.", "status": "INVALID_ARGUMENT"}}, 400
)
AWS_ERROR = as_json({"message": "No way."}, 400)

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hello"}}
CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "x"}
SPEECH = {"model": MODEL, "input": "Hi", "voice": "alloy"}
CLAUDE = {"id": "1", "type": "message", "role": "assistant", "model": "x"}
GEMINI_PART = {"role": "model", "parts": [{"text": "Hello"}]}
GEMINI = {
    "candidates": [{"index": 0, "content": GEMINI_PART, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 1, "totalTokenCount": 1},
}

OPENAI_SAMPLES = {
    "openai_chat": Sample(
        request=as_json(CHAT),
        stream_request=as_json({**CHAT, "stream": True}),
        answer=as_json(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "x",
                "choices": [{**CHOICE, "finish_reason": "stop"}],
            }
        ),
        stream=as_events(
            {**CHUNK, "choices": [{"index": 0, "delta": {"content": "Hello"}}]},
            {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            "[DONE]",
        ),
        error=OPENAI_ERROR,
    ),
    "openai_embeddings": Sample(
        request=as_json({"model": MODEL, "input": "Hi"}),
        answer=as_json(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
                "model": "x",
            }
        ),
        error=OPENAI_ERROR,
    ),
    "openai_moderations": Sample(
        request=as_json({"model": MODEL, "input": "Hi"}),
        answer=as_json({"id": "1", "model": "x", "results": [{"flagged": False}]}),
        error=OPENAI_ERROR,
    ),
    "openai_transcription": Sample(
        request=as_form(model=MODEL),
        stream_request=as_form(model=MODEL, stream="true"),
        answer=as_json({"text": "Hi"}),
        stream=as_events(
            {"type": "transcript.text.delta", "delta": "Hi"},
            {"type": "transcript.text.done", "text": "Hi"},
        ),
        error=OPENAI_ERROR,
    ),
    "openai_speech": Sample(
        request=as_json(SPEECH),
        stream_request=as_json({**SPEECH, "stream_format": "sse"}),
        answer=Body("audio/mpeg", b"ID3"),
        stream=as_events(
            {"type": "speech.audio.delta", "audio": "AAAA"},
            {"type": "speech.audio.done"},
        ),
        error=OPENAI_ERROR,
    ),
}

OTHER_SAMPLES = {
    "anthropic": Sample(
        answer=as_json(
            {
                **CLAUDE,
                "content": [{"type": "text", "text": "Hello"}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 1, "output_tokens": 1},
            }
        ),
        stream=as_events(
            {
                "type": "message_start",
                "message": {
                    **CLAUDE,
                    "content": [],
                    "usage": {"input_tokens": 1, "output_tokens": 1},
                },
            },
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            },
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "Hello"},
            },
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 1},
            },
            {"type": "message_stop"},
            begun=3,
            named=True,
        ),
        error=as_json(
            {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": "No way."},
            },
            400,
        ),
    ),
    "mistral_moderations": Sample(
        answer=as_json(
            {
                "id": "1",
                "model": "x",
                "results": [
                    {"categories": {"pii": True}, "category_scores": {"pii": 0.9}}
                ],
            }
        ),
        error=OPENAI_ERROR,
    ),
    "cohere": Sample(
        answer=as_json(
            {
                "id": "1",
                "message": {"content": [{"type": "text", "text": "Hello"}]},
                "finish_reason": "COMPLETE",
            }
        ),
        stream=as_events(
            {"type": "message-start", "id": "1"},
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"content": {"text": "Hello"}}},
            },
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
            begun=2,
            named=True,
        ),
        error=as_json({"message": "No way."}, 400),
    ),
    "cohere_embeddings": Sample(
        answer=as_json({"id": "1", "embeddings": {"float": [[0.5]]}}),
        error=as_json({"message": "No way."}, 400),
    ),
    "gemini": Sample(
        answer=as_json(GEMINI),
        stream=as_events(
            {"candidates": [{"index": 0, "content": GEMINI_PART}]},
            {"candidates": [{"index": 0, "finishReason": "STOP"}]},
        ),
        error=GOOGLE_ERROR,
    ),
    "gemini_embeddings": Sample(
        answer=as_json({"embeddings": [{"values": [0.5]}]}), error=GOOGLE_ERROR
    ),
    "vertex_embeddings": Sample(
        answer=as_json({"predictions": [{"embeddings": {"values": [0.5]}}]}),
        error=GOOGLE_ERROR,
    ),
    "bedrock": Sample(
        answer=as_json(
            {
                "output": {
                    "message": {"role": "assistant", "content": [{"text": "Hello"}]}
                },
                "stopReason": "end_turn",
                "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
            }
        ),
        stream=as_frames(
            ("messageStart", {"role": "assistant"}),
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}}),
            ("contentBlockStop", {"contentBlockIndex": 0}),
            ("messageStop", {"stopReason": "end_turn"}),
            ("metadata", {"usage": {"inputTokens": 1, "outputTokens": 1}}),
            begun=2,
        ),
        error=AWS_ERROR,
    ),
    "bedrock_embeddings": Sample(
        answer=as_json({"embedding": [0.5], "inputTextTokenCount": 1}),
        error=AWS_ERROR,
    ),
}


def in_frames(stream):
    """Return *stream* as SageMaker sends it, a piece of the container's an event."""
    return as_frames(*(("PayloadPart", piece) for piece in stream.events))


SAMPLES = {
    **OPENAI_SAMPLES,
    **OTHER_SAMPLES,
    # formats within another one's envelope, or at another one's address
    "vertex_gemini": OTHER_SAMPLES["gemini"],
    "vertex_anthropic": OTHER_SAMPLES["anthropic"],
    "aws_sagemaker": Sample(
        answer=OPENAI_SAMPLES["openai_chat"].answer,
        stream=in_frames(OPENAI_SAMPLES["openai_chat"].stream),
        error=AWS_ERROR,
    ),
}
"""By the dialect's name."""


def sample(dialect):
    """Return the sample of a format; a format without one fails.

    One that is not above is ``SAMPLE`` in the module of the format's own tests.
    """
    found = SAMPLES.get(dialect.name)
    if found is None:
        place = f"tests.protocol.dialects.test_{dialect.name}"
        assert find_spec(place), f"there is no {place}, and no sample in it"
        found = import_module(place).SAMPLE
    assert isinstance(found, Sample), f"no sample of the format {dialect.name!r}"
    return found


def client_request(endpoint, *, stream=False):
    """Return the least request of a client."""
    found = sample(endpoint.dialect)
    body = found.stream_request if stream else found.request
    what = "streamed request" if stream else "request"
    assert body is not None, f"add a {what} in the format {endpoint.dialect.name!r}"
    return body
