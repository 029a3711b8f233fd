"""Audio and transcripts that are relayed as they come: events, or plain bytes.

The one rule: what the provider sends is what the client gets, under the content type
that the provider gave it, if that is one of those that may pass. Events are read only
for what they say about themselves: content, usage, the end, an error.

A provider that does not stream answers a request for events with one whole body
(OpenAI's ``whisper-1`` does); that body passes too, as what it is.

Plain bytes have no terminator and no in-band error. Their end is the end of the HTTP
body, whose framing tells a cut one; a failure on the way breaks the client's body off.

Source: https://platform.openai.com/docs/api-reference/audio.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tz_protocol.dialects.base import Decoder
from tz_protocol.dialects.openai_errors import error_value, parse_error, refusal
from tz_protocol.dialects.openai_fields import parse_usage, refusal_in
from tz_protocol.dialects.streaming import SseStream
from tz_protocol.errors import GatewayError, UpstreamBroken, UpstreamGarbled
from tz_protocol.types.audio import BodyOpened
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.request import Identity, ParsedRequest
from tz_protocol.types.stream import (
    StreamDone,
    StreamEvent,
    StreamFailed,
    StreamPart,
    StreamSkipped,
)
from tz_protocol.types.usage import Usage, count_of
from tz_protocol.wire.json import NULL
from tz_protocol.wire.sse import SseEvent

__all__ = [
    "BodyEncoder",
    "audio_usage",
    "is_speech",
    "is_transcript",
    "kind_of_body",
    "safe_content_type",
    "speech_decoder",
    "transcription_decoder",
    "wrong_kind",
]

EVENTS = "text/event-stream"
BYTES = "application/octet-stream"

UNEXPECTED_LIMIT = 65_536
"""Bytes of an answer of the wrong kind that are read for the error it may state."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


# -- content types --------------------------------------------------------------

_SAFE = re.compile(r"[!-~](?:[ -~]{0,198}[!-~])?")
_AUDIO = re.compile(r"audio/[a-z0-9.+-]{1,64}")
_TRANSCRIPTS = frozenset(
    {"application/json", "text/plain", "text/vtt", "text/srt", "application/x-subrip"}
)


def kind_of_body(head: ResponseHead) -> str:
    """Return an answer's media type in lower case, empty if it is not said."""
    return (head.get("content-type") or "").partition(";")[0].strip().lower()


def safe_content_type(head: ResponseHead) -> str:
    """Return a provider's content type as it may go to the client.

    One that is absent means bytes of any kind (RFC 9110, section 8.3).
    """
    value = (head.get("content-type") or "").strip()
    return value if _SAFE.fullmatch(value) else kind_of_body(head) or BYTES


def is_transcript(kind: str) -> bool:
    """Return whether a whole transcript may have the media type *kind*."""
    return kind in _TRANSCRIPTS


def is_speech(kind: str) -> bool:
    """Return whether a recording may have the media type *kind*."""
    return kind in ("", BYTES) or _AUDIO.fullmatch(kind) is not None


# -- from a provider ------------------------------------------------------------


def transcription_decoder(head: ResponseHead, limit: int) -> Decoder:
    """Return the decoder for a provider's answer to a request for events."""
    return _decoder(head, limit, is_expected=is_transcript(kind_of_body(head)))


def speech_decoder(head: ResponseHead, limit: int) -> Decoder:
    """Return the decoder for a provider's answer to a request for speech."""
    return _decoder(head, limit, is_expected=is_speech(kind_of_body(head)))


def _decoder(head: ResponseHead, limit: int, *, is_expected: bool) -> Decoder:
    if kind_of_body(head) == EVENTS:
        return SseStream(_AudioEvents(), limit)
    return BytesDecoder(head) if is_expected else UnexpectedDecoder()


class BytesDecoder:
    """A body that is relayed as it is -> :class:`BodyOpened`, then ``bytes``."""

    __slots__ = ("_has_content", "_is_over", "_out")

    is_finished = False

    def __init__(self, head: ResponseHead) -> None:
        opened = BodyOpened(safe_content_type(head))
        self._out: deque[StreamEvent] = deque([StreamPart(opened, False)])
        self._has_content = False
        self._is_over = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came."""
        if data and not self._is_over:
            self._has_content = True
            self._out.append(StreamPart(data, True))

    def receive_eof(self) -> None:
        """Take the end of the body; without any byte it was no answer."""
        if self._is_over:
            return
        self._is_over = True
        if self._has_content:
            self._out.append(StreamDone())
        else:
            self._out.append(StreamFailed(UpstreamGarbled("the answer is empty")))

    def next_event(self) -> StreamEvent | None:
        """Return the next event, or None when more bytes are needed."""
        return self._out.popleft() if self._out else None


class UnexpectedDecoder:
    """A body of a kind that may not pass -> the failure that it is."""

    __slots__ = ("_body", "_is_eof", "_is_over")

    is_finished = False

    def __init__(self) -> None:
        self._body = bytearray()
        self._is_eof = False
        self._is_over = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came."""
        if len(self._body) <= UNEXPECTED_LIMIT:
            self._body += data

    def receive_eof(self) -> None:
        """Take the end of the body."""
        self._is_eof = True

    def next_event(self) -> StreamEvent | None:
        """Return the failure, once the body is whole or over the limit."""
        is_ready = self._is_eof or len(self._body) > UNEXPECTED_LIMIT
        if self._is_over or not is_ready:
            return None
        self._is_over = True
        return StreamFailed(refusal_in(bytes(self._body)) or wrong_kind())


def wrong_kind() -> UpstreamGarbled:
    """Return the error for an answer whose content type may not pass."""
    return UpstreamGarbled("the answer's content-type is not one of this endpoint's")


class _Event(msgspec.Struct, gc=False):
    """What is read of an event; the audio in it stays as it was written."""

    type: Any = None
    delta: Raw | UnsetType = UNSET
    audio: Raw | UnsetType = UNSET
    text: Raw | UnsetType = UNSET
    usage: Any = None
    error: Any = None


_read_event = msgspec.json.Decoder(_Event).decode
_NOTHING = (UNSET, NULL, Raw(b'""'))

_LAST = frozenset({"transcript.text.done", "speech.audio.done", "transcription.done"})
"""The events that complete an answer; the last one is Mistral's."""


class _AudioEvents:
    """What the events of transcriptions and of speech mean: a ``Reader``.

    OpenAI sends ``[DONE]`` after the last event and does not document it; it passes if
    it comes, and the end of the body will do.
    """

    __slots__ = ("_has_finished",)

    def __init__(self) -> None:
        self._has_finished = False

    def read(self, event: SseEvent, out: deque[StreamEvent]) -> None:
        """Append what *event* stands for to *out*."""
        if event.data.strip() == b"[DONE]":
            out += (StreamPart(event, False), StreamDone())
            return
        try:
            event.data.decode()
            value = _read_event(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if event.name == "error":
                out.append(_failed(event))
            else:
                out.append(StreamSkipped("an event that is not a JSON object"))
            return
        if value.error or "error" in (event.name, value.type):
            out.append(_failed(event))
            return
        is_finish = isinstance(value.type, str) and value.type in _LAST
        self._has_finished = self._has_finished or is_finish
        has_content = any(
            text not in _NOTHING for text in (value.delta, value.audio, value.text)
        )
        usage = audio_usage(value.usage)
        out.append(StreamPart(event, has_content, usage, is_finish))

    def end(self, out: deque[StreamEvent]) -> None:
        """Append what the end of the bytes stands for."""
        if self._has_finished:
            out.append(StreamDone())
        else:
            out.append(StreamFailed(UpstreamBroken("cut")))


def _failed(event: SseEvent) -> StreamFailed:
    """Return the error that an event states."""
    try:
        error = refusal(_decode(event.data), is_error=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = None
    return StreamFailed(error or parse_error(ResponseHead(500), event.data))


def audio_usage(value: Any) -> Usage | None:
    """Return what a decoded ``usage`` says in tokens, None if it does not.

    OpenAI counts some models' audio in seconds instead. Mistral and others use the
    names of chat completions.
    """
    if not isinstance(value, dict):
        return None
    given, made = value.get("input_tokens"), value.get("output_tokens")
    for count in (given, made):
        if type(count) is not int or count_of(count) is None:
            return parse_usage(value)
    return Usage(input_tokens=given, output_tokens=made)  # type: ignore[arg-type]


# -- to a client ----------------------------------------------------------------


class BodyEncoder:
    """Parts -> the client's body: the provider's events or its bytes.

    ``content_type`` is right as soon as the first part has been encoded.
    """

    __slots__ = ("content_type",)

    def __init__(self, request: ParsedRequest, identity: Identity) -> None:
        del request, identity
        self.content_type = EVENTS

    def encode(self, part: StreamPart) -> bytes:
        """Return the client's bytes for *part*; may be empty."""
        value = part.value
        if isinstance(value, bytes):
            return value
        if isinstance(value, SseEvent):
            return _framed(value)
        opened: BodyOpened = value
        self.content_type = opened.content_type
        return b""

    def finish(self, usage: Usage | None) -> bytes:
        """Return nothing: whatever ends the body, the provider has sent."""
        del usage
        return b""

    def fail(self, error: GatewayError) -> bytes | None:
        """Return the error as an event; None if the body is not one of events."""
        if self.content_type != EVENTS:
            return None
        return b"data: " + _encode({"error": error_value(error)}) + b"\n\n"


def _framed(event: SseEvent) -> bytes:
    """Return *event* as it stands in a stream."""
    data = event.data.replace(b"\n", b"\ndata: ")
    name = f"event: {event.name}\n" if event.name else ""
    mark = f"id: {event.id}\n" if event.id else ""
    return (name + mark).encode() + b"data: " + data + b"\n\n"
