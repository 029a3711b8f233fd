"""OpenAI's audio endpoints: transcriptions and speech.

The one rule: recordings, transcripts and voices pass unread. Of a request the gateway
reads which model is asked for and whether the answer is to be events; of an answer,
whether it is one, and its usage. The limits on files, texts and formats are the
providers' to state: they differ from model to model.

Transcriptions come as forms and answer JSON or text in the format that was asked for.
Speech is always relayed as it comes; streams are next door.

Source: https://platform.openai.com/docs/api-reference/audio.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from tz_protocol.dialects.base import Answer, Dialect, Losses, Response
from tz_protocol.dialects.losses import permitted
from tz_protocol.dialects.openai_audio_stream import (
    BodyEncoder,
    audio_usage,
    is_speech,
    is_transcript,
    kind_of_body,
    safe_content_type,
    speech_decoder,
    transcription_decoder,
    wrong_kind,
)
from tz_protocol.dialects.openai_errors import parse_error, render_error
from tz_protocol.dialects.openai_fields import (
    missing,
    parse_members,
    refusal_in,
    render_members,
    spliced,
)
from tz_protocol.dialects.openai_forms import form_request, is_true, parse_form, twice
from tz_protocol.errors import UpstreamGarbled
from tz_protocol.types.form import FormRequest
from tz_protocol.types.http import HttpRequest, RequestHead, ResponseHead
from tz_protocol.types.request import Identity, ParsedRequest, Target
from tz_protocol.wire.json import (
    NULL,
    encode_object,
    kind_of_value,
    read_string,
    scan_object,
)

__all__ = ["OPENAI_SPEECH", "OPENAI_TRANSCRIPTION"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class AudioResponse(Response):
    """A provider's whole answer: a transcript or a recording."""

    content_type: str
    """As the provider gave it, fit for a header."""
    body: bytes
    """As the provider sent it."""
    fields: dict[str, Raw] = {}
    """The members of a JSON answer; empty if it is none."""


def _render_response(
    parsed: ParsedRequest, response: AudioResponse, identity: Identity
) -> Answer:
    del parsed
    body, fields = response.body, response.fields
    if "model" in fields:
        # OpenAI's has none; Mistral's has.
        body = encode_object(spliced(fields, {"model": _encode(identity.model)}))
    return ResponseHead(200, (("content-type", response.content_type),)), body


# -- transcriptions -------------------------------------------------------------


def _parse_transcription(body: bytes, head: RequestHead) -> FormRequest:
    model, parts, extensions = parse_form(body, head)
    files = [part for part in parts if part.name == "file"]
    if not files:
        raise missing("file")
    if len(files) > 1:
        raise twice("file")
    return FormRequest(
        model=model,
        is_stream=is_true(parts, "stream"),
        extensions=extensions,
        parts=parts,
    )


def _render_transcription(
    parsed: FormRequest, target: Target
) -> tuple[HttpRequest, Losses]:
    return form_request("audio/transcriptions", parsed, target)


def _parse_transcript(head: ResponseHead, body: bytes) -> AudioResponse:
    """Return a whole transcript.

    Raises:
        UpstreamRefused: It is JSON that states an error.
        UpstreamGarbled: It is no transcript.
    """
    kind, content_type = kind_of_body(head), safe_content_type(head)
    if kind not in ("", "application/json"):
        if not is_transcript(kind):
            raise refusal_in(body) or wrong_kind()
        return AudioResponse(content_type=content_type, body=body)
    fields = scan_object(body)
    text = None if fields is None else fields.get("text")
    if fields is None or "error" in fields or text is None:
        error = refusal_in(body)
        if error is not None:
            raise error
    if fields is None:
        raise UpstreamGarbled("the answer is not a JSON object")
    if text is None or kind_of_value(text) != "a string":
        raise UpstreamGarbled("the answer has no text")
    usage = audio_usage(_decode(fields["usage"])) if "usage" in fields else None
    if not kind:
        content_type = "application/json"
    return AudioResponse(
        usage=usage, content_type=content_type, body=body, fields=fields
    )


OPENAI_TRANSCRIPTION: Dialect[FormRequest, AudioResponse] = Dialect(
    name="openai_transcription",
    parse_request=_parse_transcription,
    render_request=_render_transcription,
    parse_response=_parse_transcript,
    render_response=_render_response,
    parse_error=parse_error,
    render_error=render_error,
    stream_decoder=transcription_decoder,
    stream_encoder=BodyEncoder,
)


# -- speech ---------------------------------------------------------------------


def _parse_speech(body: bytes, head: RequestHead) -> ParsedRequest:
    model, fields, extensions = parse_members(body, head)
    text = fields.get("input")
    if text is None:
        raise missing("input")
    read_string(text, "input")
    form = fields.get("stream_format", NULL)
    is_stream = form != NULL and read_string(form, "stream_format") == "sse"
    return ParsedRequest(
        model=model, is_stream=is_stream, fields=fields, extensions=extensions
    )


def _render_speech(parsed: ParsedRequest, target: Target) -> tuple[HttpRequest, Losses]:
    fields, losses = render_members(parsed, target)
    request = HttpRequest(
        path="audio/speech",
        headers=_EVENT_HEADERS if parsed.is_stream else _AUDIO_HEADERS,
        body=encode_object(fields),
        is_stream=parsed.is_stream,
    )
    return request, permitted(losses, target)


_AUDIO_HEADERS = (("content-type", "application/json"), ("accept", "*/*"))
_EVENT_HEADERS = (("content-type", "application/json"), ("accept", "text/event-stream"))


def _parse_recording(head: ResponseHead, body: bytes) -> AudioResponse:
    """Return a whole recording.

    Raises:
        UpstreamRefused: It is JSON that states an error.
        UpstreamGarbled: It is no recording.
    """
    if not is_speech(kind_of_body(head)):
        raise refusal_in(body) or wrong_kind()
    if not body:
        raise UpstreamGarbled("the answer is empty")
    return AudioResponse(content_type=safe_content_type(head), body=body)


def _is_always_stream(parsed: ParsedRequest) -> bool:
    del parsed
    return True


OPENAI_SPEECH: Dialect[ParsedRequest, AudioResponse] = Dialect(
    name="openai_speech",
    parse_request=_parse_speech,
    render_request=_render_speech,
    parse_response=_parse_recording,
    render_response=_render_response,
    parse_error=parse_error,
    render_error=render_error,
    stream_decoder=speech_decoder,
    stream_encoder=BodyEncoder,
    is_always_stream=_is_always_stream,
)
