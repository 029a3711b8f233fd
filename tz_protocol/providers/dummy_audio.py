"""The dummy's transcriptions and speech, in OpenAI's wire format.

The one rule: nothing is heard and nothing is said; only the shape of the answer
follows the request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from tz_protocol.providers.base import Reply
from tz_protocol.providers.dummy_replies import (
    Call,
    Failure,
    Step,
    event,
    json_reply,
    read_json,
    streamed_reply,
    whole_reply,
)

__all__ = ["answer_speech", "answer_transcription"]

TRANSCRIPT = "This is a dummy transcription"
LANGUAGE = "en"
SECONDS = 5.0
"""The recording's duration, whatever it is."""

SPEECH_BYTES = 1024
SPEECH_PIECES = 4

_SPEECH_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}

_FIELD = r'name="?{name}"?\r\n(?:[^\r\n]+\r\n)*\r\n([A-Za-z0-9_.-]*)\r\n'
_FORMAT = re.compile(_FIELD.format(name="response_format").encode())
_STREAM = re.compile(_FIELD.format(name="stream").encode())
"""Short form fields in the bytes of a multipart body, which the dialect rendered."""


def _field(pattern: re.Pattern[bytes], body: bytes) -> str:
    found = pattern.search(body)
    return "" if found is None else found.group(1).decode()


# -- transcription --------------------------------------------------------------


def answer_transcription(call: Call) -> Reply:
    """Return the one transcript in the format that was asked for.

    Raises:
        Failure: There is no such format.
    """
    body = call.request.body
    if _field(_STREAM, body) == "true":
        return streamed_reply("text/event-stream", _transcript_steps(call), call)
    wanted = _field(_FORMAT, body) or "json"
    if wanted == "json":
        usage = {"type": "duration", "seconds": SECONDS}
        return json_reply({"text": TRANSCRIPT, "usage": usage})
    if wanted == "verbose_json":
        return json_reply(_verbose())
    text = _TEXTS.get(wanted)
    if text is None:
        message = f"response_format must be json, verbose_json, {', '.join(_TEXTS)}"
        raise Failure(
            400, message, kind="invalid_request_error", param="response_format"
        )
    return whole_reply("text/plain; charset=utf-8", text.encode())


_TEXTS = {
    "text": TRANSCRIPT + "\n",
    "srt": f"1\n00:00:00,000 --> 00:00:05,000\n{TRANSCRIPT}\n\n",
    "vtt": f"WEBVTT\n\n00:00:00.000 --> 00:00:05.000\n{TRANSCRIPT}\n\n",
}


def _verbose() -> dict[str, Any]:
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": SECONDS,
        "text": TRANSCRIPT,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }
    return {
        "task": "transcribe",
        "language": LANGUAGE,
        "duration": SECONDS,
        "text": TRANSCRIPT,
        "segments": [segment],
        "usage": {"type": "duration", "seconds": SECONDS},
    }


def _transcript_steps(call: Call) -> Iterator[Step]:
    wait = 0.0
    for index, word in enumerate(TRANSCRIPT.split()):
        delta = f" {word}" if index else word
        yield wait, event({"type": "transcript.text.delta", "delta": delta})
        wait = call.spacing
    yield wait, event({"type": "transcript.text.done", "text": TRANSCRIPT})


# -- speech ---------------------------------------------------------------------


class _SpeechRequest(msgspec.Struct):
    input: str
    response_format: str | None = None
    stream_format: str | None = None


_SPEECH = msgspec.json.Decoder(_SpeechRequest)


def answer_speech(call: Call) -> Reply:
    """Return silence, in pieces.

    Raises:
        Failure: The request is not one, or there is no such format.
    """
    request = read_json(call, _SPEECH, "a speech request")
    content_type = _SPEECH_TYPES.get(request.response_format or "mp3")
    if content_type is None:
        message = f"response_format must be one of {', '.join(_SPEECH_TYPES)}"
        raise Failure(
            400, message, kind="invalid_request_error", param="response_format"
        )
    if request.stream_format == "sse":
        return streamed_reply("text/event-stream", _speech_events(call), call)
    return streamed_reply(content_type, _speech_steps(call), call)


def _speech_steps(call: Call) -> Iterator[Step]:
    piece = bytes(SPEECH_BYTES // SPEECH_PIECES)
    for index in range(SPEECH_PIECES):
        yield (call.spacing if index else 0.0), piece


def _speech_events(call: Call) -> Iterator[Step]:
    for wait, piece in _speech_steps(call):
        audio = base64.b64encode(piece).decode()
        yield wait, event({"type": "speech.audio.delta", "audio": audio})
    usage = {"input_tokens": 10, "output_tokens": 10, "total_tokens": 20}
    yield call.spacing, event({"type": "speech.audio.done", "usage": usage})
