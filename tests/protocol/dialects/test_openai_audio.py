from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.dialects.checking import (
    byte_by_byte,
    comparable,
    decoded,
    decoder_of,
    faults,
    schema,
    splits,
)
from tests.protocol.dialects.recordings import recordings, replay
from tests.protocol.flows.serving import JSON, Served, error_of, header, refusal
from tz_protocol.dialects.openai_audio import OPENAI_SPEECH, OPENAI_TRANSCRIPTION
from tz_protocol.errors import (
    GatewayError,
    InvalidRequest,
    ProvidersExhausted,
    UnsupportedMediaType,
    UpstreamBroken,
    UpstreamGarbled,
    UpstreamRefused,
)
from tz_protocol.testing import cut, reply, sse
from tz_protocol.types.audio import BodyOpened
from tz_protocol.types.form import FormPart
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.request import Extensions, Identity, Target
from tz_protocol.types.secret import Secret
from tz_protocol.types.stream import StreamDone, StreamFailed, StreamPart, StreamSkipped
from tz_protocol.types.usage import Usage
from tz_protocol.wire.multipart import boundary_of, parse_multipart, render_multipart
from tz_protocol.wire.sse import SseEvent

IDENTITY = Identity(id="our-id", episode_id="episode", model="public", created=1)
TARGET = Target(provider="openai", model="whisper-1")
AUDIO = b"RIFF\0\r\n--\xff\xfe"
FILE = FormPart(name="file", filename="a.wav", content_type="audio/wav", data=AUDIO)


def head(content_type=None, status=200):
    headers = () if content_type is None else (("content-type", content_type),)
    return ResponseHead(status, headers)


def post(content_type=None, **headers):
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    if content_type is not None:
        pairs.append(("content-type", content_type))
    return RequestHead(method="POST", path="/", headers=tuple(pairs))


def text(name, value):
    return FormPart(name=name, data=value.encode())


def parse(*parts):
    content_type, body = render_multipart(parts)
    return OPENAI_TRANSCRIPTION.parse_request(body, post(content_type))


def transcription(*parts):
    """Parse a form of *parts* that has a model and a file besides."""
    return parse(text("model", "m"), FILE, *parts)


def rendered(parsed, target=TARGET):
    """Return (parts, losses) of what *target* gets."""
    request, losses = OPENAI_TRANSCRIPTION.render_request(parsed, target)
    assert request.path == "audio/transcriptions"
    headers = dict(request.headers)
    boundary = boundary_of(headers["content-type"])
    return parse_multipart(request.body, boundary), losses


def refused(call, *arguments, kind=InvalidRequest):
    with pytest.raises(kind) as caught:
        call(*arguments)
    return caught.value


# -- transcriptions: requests ---------------------------------------------------


def test_transcription_request_is_its_model_and_its_parts():
    parts = (
        text("language", "de"),
        text("model", "whisper"),
        FILE,
        text("timestamp_granularities[]", "word"),
        text("timestamp_granularities[]", "segment"),
    )
    parsed = parse(*parts)
    assert (parsed.model, parsed.is_stream) == ("whisper", False)
    assert parsed.parts == parts
    assert parsed.extensions == Extensions()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("True", True), ("false", False), ("False", False)],
)
def test_transcription_stream_is_asked_for_in_words(value, expected):
    assert transcription(text("stream", value)).is_stream is expected


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ((FILE,), "model", "missing_required_parameter"),
        ((text("model", ""), FILE), "model", "empty_string"),
        ((text("model", "m"),), "file", "missing_required_parameter"),
        ((text("model", "m"), FILE, FILE), "file", "duplicate_parameter"),
        (
            (text("model", "m"), text("model", "n"), FILE),
            "model",
            "duplicate_parameter",
        ),
        (
            (msgspec.structs.replace(FILE, name="model"), FILE),
            "model",
            "invalid_type",
        ),
        ((FormPart(name="model", data=b"\xff"), FILE), "model", "invalid_value"),
        ((text("model", "m"), FILE, text("stream", "1")), "stream", "invalid_type"),
        ((text("model", "m"), FILE, text("stream", "")), "stream", "invalid_type"),
        (
            (text("model", "m"), FILE, text("stream", "true"), text("stream", "true")),
            "stream",
            "duplicate_parameter",
        ),
    ],
    ids=[
        "no-model",
        "empty-model",
        "no-file",
        "two-files",
        "two-models",
        "model-is-file",
        "model-is-not-text",
        "stream-is-number",
        "stream-is-empty",
        "two-streams",
    ],
)
def test_transcription_request_with_unfit_field_is_refused(parts, param, code):
    error = refused(parse, *parts)
    assert (error.status, error.param, error.code) == (400, param, code)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content_type": ""},
        {"content_type": "application/json"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "multipart/mixed; boundary=b"},
        {"content_type": "multipart/form-data; boundary=b", "content_encoding": "gzip"},
    ],
    ids=["absent", "empty", "json", "urlencoded", "mixed", "compressed"],
)
def test_transcription_request_that_is_no_form_is_415(headers):
    parse_request = OPENAI_TRANSCRIPTION.parse_request
    error = refused(parse_request, b"--b--", post(**headers), kind=UnsupportedMediaType)
    assert error.status == 415


def test_transcription_request_without_boundary_is_400():
    parse_request = OPENAI_TRANSCRIPTION.parse_request
    error = refused(parse_request, b"--b--", post("multipart/form-data"))
    assert "boundary" in error.message


def test_transcription_extensions_are_read_and_not_sent_on():
    episode = "01890000-0000-7000-8000-000000000001"
    parsed = transcription(
        text("tensorzero::episode_id", episode),
        text("tensorzero::dryrun", "true"),
        text("tensorzero::tags[team]", "a[b]"),
        text("tensorzero::tags[cost]", "12"),
        text("tensorzero::credentials", '{"key": "sk-1"}'),
    )
    assert parsed.extensions == Extensions(
        episode_id=episode,
        dryrun=True,
        tags={"team": "a[b]", "cost": "12"},
        credentials={"key": Secret("sk-1")},
    )
    assert [part.name for part in parsed.parts] == ["model", "file"]
    assert [part.name for part in rendered(parsed)[0]] == ["model", "file"]


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([("tensorzero::unknown", "1")], "unknown_parameter"),
        ([("tensorzero::dryrun", "1")], "invalid_type"),
        ([("tensorzero::episode_id", "7")], "invalid_value"),
        ([("tensorzero::dryrun", "true")] * 2, "duplicate_parameter"),
        ([("tensorzero::tags[a]", "1")] * 2, "duplicate_parameter"),
        (
            [("tensorzero::tags[a]", "1"), ("tensorzero::tags", "{}")],
            "duplicate_parameter",
        ),
        ([("tensorzero::tags[a", "1")], "unknown_parameter"),
    ],
    ids=["unknown", "type", "value", "twice", "member-twice", "both", "open-bracket"],
)
def test_transcription_extension_that_is_unfit_is_refused(parts, code):
    fields = [text(name, value) for name, value in parts]
    assert refused(transcription, *fields).code == code


# -- transcriptions: to a provider ----------------------------------------------


def test_transcription_is_sent_on_with_the_model_replaced_in_its_place():
    parts = (
        text("prompt", "\r\n ü"),
        FormPart(name="model", data=b"public", content_type="text/plain"),
        text("include[]", "logprobs"),
        FILE,
        text("include[]", "x"),
    )
    sent, losses = rendered(parse(*parts))
    model = FormPart(name="model", data=b"whisper-1", content_type="text/plain")
    assert sent == (parts[0], model, *parts[2:])
    assert losses == ()


@pytest.mark.parametrize(
    ("stream", "accept"), [("true", "text/event-stream"), ("false", "*/*")]
)
def test_transcription_says_which_kind_of_answer_it_wants(stream, accept):
    parsed = transcription(text("stream", stream))
    request, _ = OPENAI_TRANSCRIPTION.render_request(parsed, TARGET)
    assert request.is_stream is (stream == "true")
    assert dict(request.headers)["accept"] == accept


def test_transcription_deviations_apply_to_fields():
    target = Target(
        provider="acme",
        model="m2",
        renames={"language": "lang", "keywords": "words", "prompt": "hint"},
        unsupported=frozenset({"temperature", "include"}),
    )
    parsed = transcription(
        text("language", "de"),
        text("keywords[]", "a"),
        text("temperature", "0.50"),
        text("include[]", "x"),
        text("include[]", "y"),
        text("prompt", "ours"),
        text("hint", "theirs"),
    )
    sent, losses = rendered(parsed, target)
    assert sent == (
        text("model", "m2"),
        FILE,
        text("lang", "de"),
        text("words[]", "a"),
        text("hint", "theirs"),
    )
    assert losses == ("include", "prompt", "temperature")


def test_transcription_extra_body_becomes_fields():
    extra = {
        "language": Raw(b'"d\\u0065"'),
        "temperature": Raw(b"0.50"),
        "include": Raw(b'["a", 1]'),
        "chunking_strategy": Raw(b'{"type": "server_vad"}'),
    }
    target = Target(provider="openai", model="m2", extra_body=extra)
    parsed = transcription(
        text("language", "fr"), text("include[]", "b"), text("prompt", "p")
    )
    sent, losses = rendered(parsed, target)
    assert sent == (
        text("model", "m2"),
        FILE,
        text("prompt", "p"),
        text("language", "de"),
        text("temperature", "0.50"),
        text("include[]", "a"),
        text("include[]", "1"),
        text("chunking_strategy", '{"type": "server_vad"}'),
    )
    assert losses == ()


# -- transcriptions: whole answers ----------------------------------------------

TRANSCRIPT = b'{ "text": "Hi\\u0021",\n "duration": 1.50, "usage": %s }'


def transcript(body, content_type="application/json"):
    return OPENAI_TRANSCRIPTION.parse_response(head(content_type), body)


def shown(response):
    """Return (content type, body) of what the client gets."""
    answer, body = OPENAI_TRANSCRIPTION.render_response(
        transcription(), response, IDENTITY
    )
    assert answer.status == 200
    return answer.get("content-type"), body


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", TRANSCRIPT % b"null"),
        ("application/json; charset=utf-8", b'{"text":""}'),
        ("text/plain; charset=utf-8", b"Hi\n"),
        ("text/plain", b""),
        ("text/vtt", b"WEBVTT\n\n"),
        ("application/x-subrip", b"1\n00:00:00,000 --> 00:00:01,000\nHi\n\n"),
    ],
)
def test_transcript_passes_as_it_is(content_type, body):
    assert shown(transcript(body, content_type)) == (content_type, body)


def test_transcript_without_content_type_is_read_as_json():
    assert shown(transcript(b'{"text":"a"}', None)) == (
        "application/json",
        b'{"text":"a"}',
    )


def test_transcript_that_names_a_model_names_the_public_one():
    _, body = shown(transcript(b'{"text":"a","model":"voxtral","n":1.50}'))
    assert body == b'{"model":"public","text":"a","n":1.50}'


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "type": "tokens",
                "input_tokens": 14,
                "output_tokens": 45,
                "total_tokens": 59,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
            },
            Usage(input_tokens=14, output_tokens=45),
        ),
        ({"type": "duration", "seconds": 5}, None),
        (
            {"prompt_audio_seconds": 3, "prompt_tokens": 3, "completion_tokens": 11},
            Usage(input_tokens=3, output_tokens=11),
        ),
        ({"input_tokens": -1, "output_tokens": 2}, None),
        ({"input_tokens": True, "output_tokens": 2}, None),
        ({"input_tokens": 1}, None),
        (None, None),
        ("many", None),
    ],
    ids=[
        "tokens",
        "duration",
        "mistral",
        "negative",
        "boolean",
        "half",
        "null",
        "text",
    ],
)
def test_transcript_usage_is_known_if_it_counts_tokens(usage, expected):
    assert transcript(TRANSCRIPT % json.dumps(usage).encode()).usage == expected


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("application/json", b"", "not a JSON object"),
        ("application/json", b"[]", "not a JSON object"),
        ("application/json", b'{"text":"a"', "not a JSON object"),
        ("application/json", b"{}", "no text"),
        ("application/json", b'{"text":null}', "no text"),
        ("text/html", b"<html>", "content-type"),
        ("text/event-stream", b"data: {}\n\n", "content-type"),
        ("audio/mpeg", b"ID3", "content-type"),
    ],
)
def test_transcript_that_is_none_is_garbled(content_type, body, reason):
    error = refused(transcript, body, content_type, kind=UpstreamGarbled)
    assert reason in error.message


@pytest.mark.parametrize("content_type", ["application/json", "application/problem"])
def test_transcript_that_states_an_error_is_refused(content_type):
    body = b'{"error":{"message":"no","type":"rate_limit_error"}}'
    error = refused(transcript, body, content_type, kind=UpstreamRefused)
    assert (error.status, error.message) == (429, "no")


# -- streams: decoding ----------------------------------------------------------


def event(**members):
    return SseEvent(json.dumps(members).encode())


DELTAS = [
    event(type="transcript.text.delta", delta="Hi"),
    event(type="transcript.text.delta", delta=" ü"),
]
SEGMENT = event(type="transcript.text.segment", text="Hi", speaker="A")
USAGE = {"type": "tokens", "input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
LAST = event(type="transcript.text.done", text="Hi ü", usage=USAGE)
DONE = SseEvent(b"[DONE]")
EVENTS = "text/event-stream; charset=utf-8"


def framed(*events):
    return b"".join(b"data: " + one.data + b"\n\n" for one in events)


def transcript_events(data, pieces=None, content_type=EVENTS):
    decoder = decoder_of(OPENAI_TRANSCRIPTION, head(content_type))
    return decoded(decoder, [data] if pieces is None else pieces)


def speech_events(data, pieces=None, content_type="audio/mpeg"):
    decoder = decoder_of(OPENAI_SPEECH, head(content_type))
    return decoded(decoder, [data] if pieces is None else pieces)


WHOLE = [
    *(StreamPart(delta, True) for delta in DELTAS),
    StreamPart(SEGMENT, True),
    StreamPart(LAST, True, Usage(input_tokens=3, output_tokens=4), True),
]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [((), [StreamDone()]), ((DONE,), [StreamPart(DONE, False), StreamDone()])],
    ids=["no-terminator", "terminator"],
)
def test_transcript_stream_is_complete_with_its_last_event(tail, expected):
    data = framed(*DELTAS, SEGMENT, LAST, *tail)
    assert transcript_events(data) == WHOLE + expected
    assert transcript_events(data, byte_by_byte(data)) == WHOLE + expected


@given(st.data())
def test_transcript_stream_does_not_depend_on_splits(data):
    stream = framed(*DELTAS, SEGMENT, LAST, DONE) + framed(SEGMENT)
    pieces = data.draw(splits(stream))
    assert transcript_events(stream, pieces) == transcript_events(stream)


@pytest.mark.parametrize("count", range(4))
def test_transcript_stream_without_its_last_event_is_cut(count):
    events = transcript_events(framed(*[*DELTAS, SEGMENT][:count]))
    assert comparable(events[-1:]) == comparable([StreamFailed(UpstreamBroken("cut"))])
    assert len(events) == count + 1


@pytest.mark.parametrize(
    "bad",
    [
        SseEvent(b'{"error":{"message":"over","type":"server_error","code":"503"}}'),
        SseEvent(b'{"type":"error","message":"over","code":503}'),
        SseEvent(b'{"message":"over","code":503}', "error"),
    ],
    ids=["member", "type", "name"],
)
def test_transcript_stream_error_ends_it(bad):
    name = f"event: {bad.name}\n".encode() if bad.name else b""
    data = framed(DELTAS[0]) + name + framed(bad) + framed(LAST)
    first, failed = transcript_events(data)
    assert first == WHOLE[0]
    assert isinstance(failed.error, UpstreamRefused)
    assert (failed.error.status, failed.error.message) == (503, "over")


def test_transcript_stream_error_without_words_ends_it():
    (failed,) = transcript_events(b"event: error\ndata: over\n\n")
    assert isinstance(failed.error, UpstreamRefused)
    assert failed.error.status == 500


@pytest.mark.parametrize("data", [b"x", b"[]", b"1", b'{"type":"\xff"}'])
def test_stream_event_that_is_no_object_is_left_out(data):
    events = transcript_events(b"data: " + data + b"\n\n" + framed(LAST))
    assert events == [
        StreamSkipped("an event that is not a JSON object"),
        WHOLE[-1],
        StreamDone(),
    ]


@pytest.mark.parametrize(
    "silent",
    [
        event(type="transcript.text.delta", delta=""),
        event(type="transcription.language", audio_language="de"),
        event(type="session.created", delta=None),
        event(),
    ],
    ids=["empty", "language", "null", "nothing"],
)
def test_stream_event_with_nothing_to_see_is_no_content(silent):
    assert transcript_events(framed(silent))[0] == StreamPart(silent, False)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_transcript_that_does_not_stream_passes_as_what_it_is(content_type):
    body = b'{"text":"Hi"}'
    expected = [
        StreamPart(BodyOpened(content_type), False),
        StreamPart(body, True),
        StreamDone(),
    ]
    assert transcript_events(body, content_type=content_type) == expected


def test_speech_is_its_bytes_as_they_come():
    pieces = [b"\0", b"", b"\xff" * 10]
    assert speech_events(b"", pieces, "audio/mpeg; rate=1") == [
        StreamPart(BodyOpened("audio/mpeg; rate=1"), False),
        StreamPart(b"\0", True),
        StreamPart(b"\xff" * 10, True),
        StreamDone(),
    ]


@pytest.mark.parametrize(
    ("content_type", "shown"),
    [
        ("audio/wav", "audio/wav"),
        ("Audio/MPEG", "Audio/MPEG"),
        ("application/octet-stream", "application/octet-stream"),
        (None, "application/octet-stream"),
        ("audio/ogg; codecs=\x7f", "audio/ogg"),
    ],
)
def test_speech_keeps_the_content_type(content_type, shown):
    assert speech_events(b"x", content_type=content_type)[0].value == BodyOpened(shown)


@pytest.mark.parametrize("content_type", ["audio/mpeg", "text/html", EVENTS])
def test_decoder_after_its_end_says_nothing(content_type):
    decoder = decoder_of(OPENAI_SPEECH, head(content_type))
    decoded(decoder, [b"x"])
    decoder.receive_data(b"data: {}\n\n")
    decoder.receive_eof()
    assert decoder.next_event() is None


def test_speech_without_a_byte_is_garbled():
    _, failed = speech_events(b"")
    assert isinstance(failed.error, UpstreamGarbled)


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "audio/"])
def test_speech_that_is_no_audio_is_garbled(content_type):
    for body in (b"<html>", b"x" * 100_000, b""):
        (failed,) = speech_events(body, content_type=content_type)
        assert isinstance(failed.error, UpstreamGarbled)


def test_speech_that_states_an_error_is_refused():
    body = b'{"error":{"message":"no","code":"429"}}'
    (failed,) = speech_events(body, byte_by_byte(body), content_type="application/json")
    assert (failed.error.status, failed.error.message) == (429, "no")


def test_speech_as_events_ends_with_its_last_event():
    audio = base64.b64encode(bytes(30)).decode()
    delta = event(type="speech.audio.delta", audio=audio)
    last = event(type="speech.audio.done", usage=USAGE)
    assert speech_events(framed(delta, last), content_type=EVENTS) == [
        StreamPart(delta, True),
        StreamPart(last, False, Usage(input_tokens=3, output_tokens=4), True),
        StreamDone(),
    ]


BODIES = st.lists(
    st.sampled_from([framed(one) for one in (*DELTAS, LAST, DONE)])
    | st.sampled_from([b"data: ", b"event: error\n", b"\n\n", b"\r", b'{"type":1}'])
    | st.binary(max_size=8),
    max_size=10,
).map(b"".join)
KINDS = st.sampled_from([EVENTS, "audio/mpeg", "application/json", "text/html", None])


@pytest.mark.parametrize(
    "decode", [transcript_events, speech_events], ids=["transcript", "speech"]
)
@given(BODIES, KINDS, st.data())
def test_stream_of_anything_ends_once_and_raises_nothing(decode, body, kind, data):
    events = decode(body, data.draw(splits(body)), kind)
    ends = [isinstance(one, (StreamDone, StreamFailed)) for one in events]
    assert ends == [False] * (len(events) - 1) + [True]
    content = [part.value for part in events if isinstance(part, StreamPart)]
    if content and isinstance(content[0], BodyOpened):
        assert b"".join(content[1:]) == body


# -- streams: encoding ----------------------------------------------------------


def encoder():
    assert OPENAI_SPEECH.stream_encoder is not None
    return OPENAI_SPEECH.stream_encoder(transcription(), IDENTITY)


def test_encoder_passes_events_and_invents_no_terminator():
    made = encoder()
    out = b"".join(made.encode(part) for part in WHOLE) + made.finish(None)
    assert out == framed(*DELTAS, SEGMENT, LAST)
    assert made.content_type == "text/event-stream"


def test_encoder_keeps_names_ids_and_lines_of_events():
    sent = SseEvent(b'{"a":\n1}', "x", "7")
    out = encoder().encode(StreamPart(sent, True))
    assert out == b'event: x\nid: 7\ndata: {"a":\ndata: 1}\n\n'


def test_encoder_tells_an_error_as_the_last_event():
    made = encoder()
    made.encode(WHOLE[0])
    data = made.fail(ProvidersExhausted("It broke."))
    assert data is not None
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    assert msgspec.json.decode(data[6:]) == {
        "error": {
            "message": "It broke.",
            "type": "server_error",
            "param": None,
            "code": "upstream_error",
        }
    }


def test_encoder_of_bytes_has_the_provider_s_content_type_and_no_error():
    made = encoder()
    assert made.encode(StreamPart(BodyOpened("audio/wav"), False)) == b""
    assert made.content_type == "audio/wav"
    assert made.encode(StreamPart(b"\0\1", True)) == b"\0\1"
    assert made.fail(GatewayError("It broke.")) is None
    assert made.finish(None) == b""


# -- speech: requests and whole answers -----------------------------------------


def speech(**members):
    body = {"model": "m", "input": "Hi", "voice": "alloy", **members}
    data = json.dumps({name: value for name, value in body.items() if value != ...})
    return OPENAI_SPEECH.parse_request(data.encode(), post("application/json"))


def test_speech_request_is_sent_on_as_it_was_written():
    body = b'{"voice": {"id":"v"},"model":"m","input":"H\\u0069","speed":1.0}'
    parsed = OPENAI_SPEECH.parse_request(body, post("application/json"))
    assert (parsed.model, parsed.is_stream) == ("m", False)
    request, losses = OPENAI_SPEECH.render_request(parsed, TARGET)
    assert request.path == "audio/speech"
    assert request.body == (
        b'{"model":"whisper-1","voice":{"id":"v"},"input":"H\\u0069","speed":1.0}'
    )
    assert (request.is_stream, losses) == (False, ())


@pytest.mark.parametrize(
    ("form", "expected"), [("sse", True), ("audio", False), (None, False)]
)
def test_speech_is_asked_for_as_events_in_words(form, expected):
    parsed = speech(stream_format=form)
    request, _ = OPENAI_SPEECH.render_request(parsed, TARGET)
    assert parsed.is_stream is request.is_stream is expected


def test_speech_is_relayed_as_it_comes():
    assert OPENAI_SPEECH.is_always_stream is not None
    assert OPENAI_SPEECH.is_always_stream(speech())
    assert OPENAI_TRANSCRIPTION.is_always_stream is None


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": ...}, "model"),
        ({"input": ...}, "input"),
        ({"input": 1}, "input"),
        ({"stream_format": 1}, "stream_format"),
        ({"tensorzero::x": 1}, "tensorzero::x"),
    ],
)
def test_speech_request_with_unfit_member_is_refused(members, param):
    assert refused(lambda: speech(**members)).param == param


def test_speech_deviations_apply():
    target = Target(
        provider="acme",
        model="m2",
        renames={"voice": "speaker"},
        unsupported=frozenset({"speed"}),
        extra_body={"sample_rate": Raw(b"44100")},
    )
    request, losses = OPENAI_SPEECH.render_request(speech(speed=1.5), target)
    assert msgspec.json.decode(request.body) == {
        "model": "m2",
        "input": "Hi",
        "speaker": "alloy",
        "sample_rate": 44100,
    }
    assert losses == ("speed",)


def test_recording_passes_whole_too():
    response = OPENAI_SPEECH.parse_response(head("audio/flac"), AUDIO)
    answer, body = OPENAI_SPEECH.render_response(speech(), response, IDENTITY)
    assert (answer.get("content-type"), body) == ("audio/flac", AUDIO)


@pytest.mark.parametrize(
    ("content_type", "body", "kind"),
    [
        ("audio/mpeg", b"", UpstreamGarbled),
        ("application/json", b"{}", UpstreamGarbled),
        ("application/json", b'{"error":"no"}', UpstreamRefused),
    ],
)
def test_recording_that_is_none_is_an_error(content_type, body, kind):
    refused(OPENAI_SPEECH.parse_response, head(content_type), body, kind=kind)


# -- through the gateway --------------------------------------------------------


def ask_transcription(served, *parts):
    content_type, body = render_multipart((text("model", "m"), FILE, *parts))
    return served.ask(
        body,
        path="/v1/audio/transcriptions",
        headers=(("content-type", content_type),),
    )


def ask_speech(served, **members):
    body = {"model": "m", "input": "Hi", "voice": "alloy", **members}
    return served.ask(body, path="/v1/audio/speech")


def test_gateway_transcribes_after_a_first_provider_failed():
    served = Served(
        [refusal(500)], [reply(200, JSON, TRANSCRIPT % json.dumps(USAGE).encode())]
    )
    outcome = ask_transcription(served, text("response_format", "json"))
    assert outcome.response.body == TRANSCRIPT % json.dumps(USAGE).encode()
    assert header(outcome, "content-type") == "application/json"
    assert served.record.usage == Usage(input_tokens=3, output_tokens=4)


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"], ids=["none", "done"])
def test_gateway_streams_a_transcript(end):
    events = [one.data for one in (*DELTAS, LAST)]
    served = Served([sse(*events, end=end)])
    outcome = ask_transcription(served, text("stream", "true"))
    assert outcome.response.body == framed(*DELTAS, LAST) + end
    assert header(outcome, "content-type") == "text/event-stream"
    assert served.record.usage == Usage(input_tokens=3, output_tokens=4)
    assert served.record.outcome == "ok"


def test_gateway_tells_of_a_transcript_that_was_cut():
    events = [one.data for one in DELTAS]
    served = Served([sse(*events, end=b"")])
    outcome = ask_transcription(served, text("stream", "true"))
    stream, _, error = outcome.response.body.rpartition(b"data: ")
    assert stream == framed(*DELTAS)
    told = msgspec.json.decode(error)["error"]
    assert told["code"] == "upstream_stream_interrupted"
    assert served.record.outcome == "partial"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_gateway_relays_speech_under_the_provider_s_content_type(framing):
    served = Served(
        [reply(200, (("content-type", "audio/wav"),), AUDIO * 100, framing=framing)]
    )
    outcome = ask_speech(served)
    assert outcome.response.body == AUDIO * 100
    assert header(outcome, "content-type") == "audio/wav"
    assert served.record.outcome == "ok"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_gateway_breaks_off_speech_that_was_cut(framing):
    audio = (("content-type", "audio/wav"),)
    steps = reply(200, audio, AUDIO * 100, framing=framing)
    served = Served([cut(steps, 600)])
    outcome = ask_speech(served)
    assert outcome.response.is_aborted
    assert (AUDIO * 100).startswith(outcome.response.body)
    assert outcome.response.body
    assert served.record.outcome == "partial"


def test_gateway_asks_the_next_provider_for_speech_that_is_none():
    audio = (("content-type", "audio/mpeg"),)
    served = Served(
        [reply(200, audio, b"")], [reply(200, JSON, b"{}")], [reply(200, audio, b"ID3")]
    )
    outcome = ask_speech(served)
    assert outcome.response.body == b"ID3"
    assert header(outcome, "x-tz-attempts") == "3"


def test_gateway_streams_speech_as_events():
    delta = event(type="speech.audio.delta", audio="AAAA").data
    last = event(type="speech.audio.done", usage=USAGE).data
    served = Served([sse(delta, last, end=b"")])
    outcome = ask_speech(served, stream_format="sse")
    assert outcome.response.body == b"data: %s\n\ndata: %s\n\n" % (delta, last)
    assert header(outcome, "content-type") == "text/event-stream"
    assert served.record.usage == Usage(input_tokens=3, output_tokens=4)


def test_gateway_says_415_to_a_transcription_in_json():
    served = Served([refusal(500)])
    outcome = served.ask({"model": "m"}, path="/v1/audio/transcriptions")
    status, error = error_of(outcome)
    assert (status, error["code"]) == (415, "unsupported_media_type")
    assert served.sim.requests == []


# -- recorded traffic -----------------------------------------------------------

TRANSCRIPTIONS = [
    one
    for provider in ("openai", "mistral", "openrouter", "cohere", "groq")
    for one in recordings(provider, "audio.transcriptions")
]
SPEECHES = [
    one
    for provider in ("openai", "venice")
    for one in recordings(provider, "audio.speech")
]


def without_form(recording):
    """Say why a recording has no request to read."""
    return None if recording.sent.startswith(b"--") else "the form was not kept"


def without_answer(recording):
    """Say why a recording has no answer to read."""
    is_told = recording.fidelity == "chunks" and not recording.is_stream
    if is_told and recording.head.status == 200 and b'"body"' in recording.body:
        return "the recording describes an answer instead of holding it"
    return None


@replay(TRANSCRIPTIONS, without_form)
def test_recorded_form_is_understood_and_sent_on(recording):
    parsed = OPENAI_TRANSCRIPTION.parse_request(
        recording.sent, post(recording.sent_type)
    )
    sent, losses = rendered(parsed)
    kept = [part for part in parsed.parts if part.name != "model"]
    assert [part for part in sent if part.name != "model"] == kept
    assert [part.data for part in sent if part.name == "model"] == [b"whisper-1"]
    assert losses == ()
    assert parsed.is_stream is recording.is_stream


@replay(TRANSCRIPTIONS, without_answer)
def test_recorded_transcript_is_understood(recording):
    if recording.head.status != 200:
        error = OPENAI_TRANSCRIPTION.parse_error(recording.head, recording.body)
        assert isinstance(error, UpstreamRefused)
        assert error.status == recording.head.status
        assert "response_format" in error.message
        return
    if not recording.is_stream:
        response = OPENAI_TRANSCRIPTION.parse_response(recording.head, recording.body)
        _, body = shown(response)
        answer = json.loads(body)
        assert answer["text"] == json.loads(recording.body)["text"]
        assert (response.usage is None) is ("tokens" not in str(answer.get("usage")))
        return
    events = transcript_events(
        recording.body, content_type=recording.head.get("content-type")
    )
    assert events[-1] == StreamDone()
    assert events[-2] == StreamPart(DONE, False)
    assert events[-3].is_finish
    assert events[-3].usage.output_tokens > 0
    assert events[0].has_content
    made = encoder()
    out = b"".join(made.encode(part) for part in events[:-1])
    assert out == recording.body.replace(b"\r\n", b"\n")
    validator = schema("openai.json", "CreateTranscriptionResponseStreamEvent")
    for part in events[:-2]:
        assert faults(validator, json.loads(part.value.data)) == []


@pytest.mark.parametrize("recording", SPEECHES)
def test_recorded_speech_passes_as_it_is(recording):
    body = json.dumps(recording.request).encode()
    parsed = OPENAI_SPEECH.parse_request(body, post("application/json"))
    request, _ = OPENAI_SPEECH.render_request(parsed, TARGET)
    assert msgspec.json.decode(request.body) == {
        **recording.request,
        "model": "whisper-1",
    }
    content_type = recording.head.get("content-type")
    opened, *parts, done = speech_events(recording.body, content_type=content_type)
    assert opened.value == BodyOpened(content_type)
    assert b"".join(part.value for part in parts) == recording.body
    assert done == StreamDone()
