from __future__ import annotations

import base64
import struct

import msgspec
import pytest

from tests.protocol.providers.running import ask

# -- embeddings -----------------------------------------------------------------


def embed(value, name="good", **members):
    body = {"model": name, "input": value, **members}
    return ask(name, body, path="embeddings")


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("text", 1),
        (["a", "b", "c"], 3),
        ([1, 2, 3], 1),
        ([[1, 2], [3]], 2),
    ],
    ids=["text", "texts", "tokens", "token-lists"],
)
def test_embeddings_are_zeros_one_vector_an_input(value, count):
    got = embed(value).json()
    assert [item["index"] for item in got["data"]] == list(range(count))
    assert all(item["embedding"] == [0.0] * 1536 for item in got["data"])
    assert got["model"] == "good"
    assert got["usage"] == {"prompt_tokens": 10, "total_tokens": 10}


def test_embeddings_in_base64_are_float32():
    (item,) = embed("x", encoding_format="base64").json()["data"]
    data = base64.b64decode(item["embedding"], validate=True)
    assert struct.unpack("<1536f", data) == (0.0,) * 1536


def test_embeddings_with_dimensions_have_as_many():
    (item,) = embed("x", dimensions=8).json()["data"]
    assert item["embedding"] == [0.0] * 8


@pytest.mark.parametrize(
    ("value", "members"),
    [([], {}), (1, {}), ("x", {"dimensions": 0}), ("x", {"dimensions": 10**9})],
    ids=["empty", "number", "no-dimensions", "too-many-dimensions"],
)
def test_embeddings_of_impossible_request_are_refused(value, members):
    assert embed(value, **members).status == 400


# -- moderations ----------------------------------------------------------------


def moderate(value):
    return ask("good", {"model": "good", "input": value}, path="moderations")


@pytest.mark.parametrize(
    ("text", "flagged"),
    [
        ("nice", {}),
        ("this is harmful", {"self-harm": 0.75}),
        ("VIOLENT", {"violence": 0.85}),
        ("hate and harmful", {"hate": 0.95, "self-harm": 0.75}),
    ],
    ids=["nothing", "harmful", "violent", "two"],
)
def test_moderation_flags_three_words(text, flagged):
    (result,) = moderate(text).json()["results"]
    assert result["flagged"] is bool(flagged)
    named = {name for name, is_on in result["categories"].items() if is_on}
    assert named == set(flagged)
    scores = result["category_scores"]
    assert {name: scores[name] for name in flagged} == flagged
    assert all(score < 0.1 for name, score in scores.items() if name not in flagged)
    assert set(scores) == set(result["categories"])


def test_moderation_of_texts_has_one_result_each():
    results = moderate(["nice", "hate"]).json()["results"]
    assert [result["flagged"] for result in results] == [False, True]


def test_moderation_of_parts_has_one_result():
    parts = [
        {"type": "text", "text": "hate"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]
    (result,) = moderate(parts).json()["results"]
    assert result["flagged"]
    assert result["category_applied_input_types"]["violence"] == ["image", "text"]
    assert result["category_applied_input_types"]["hate"] == ["text"]


def test_moderation_of_nothing_is_refused():
    assert moderate([]).status == 400


# -- transcription --------------------------------------------------------------

TRANSCRIPT = "This is a dummy transcription"


def transcribe(**fields):
    pieces = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    pieces.append(
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n'
        "Content-Type: audio/mpeg\r\n\r\n\0\0\0\r\n--b--\r\n"
    )
    body = "".join(pieces).encode()
    return ask("good", body, path="audio/transcriptions")


@pytest.mark.parametrize("fields", [{}, {"response_format": "json"}])
def test_transcription_in_json_is_the_transcript(fields):
    assert transcribe(**fields).json()["text"] == TRANSCRIPT


def test_transcription_in_verbose_json_has_language_and_duration():
    got = transcribe(model="x", response_format="verbose_json").json()
    assert (got["text"], got["language"], got["duration"]) == (TRANSCRIPT, "en", 5.0)
    assert [segment["text"] for segment in got["segments"]] == [TRANSCRIPT]


@pytest.mark.parametrize("wanted", ["text", "srt", "vtt"])
def test_transcription_in_text_format_is_plain_text(wanted):
    answer = transcribe(response_format=wanted)
    assert answer.headers["content-type"].startswith("text/plain")
    assert TRANSCRIPT in answer.body.decode()


def test_transcription_in_unknown_format_is_refused():
    assert transcribe(response_format="mp3").status == 400


def test_transcription_streamed_is_words_and_a_last_event():
    *deltas, done = transcribe(stream="true").events()
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert "".join(event["delta"] for event in deltas) == TRANSCRIPT
    assert done == {"type": "transcript.text.done", "text": TRANSCRIPT}


# -- speech ---------------------------------------------------------------------


def speak(**members):
    body = {"model": "good", "input": "Hi", "voice": "alloy", **members}
    return ask("good", body, path="audio/speech", spacing=None)


@pytest.mark.parametrize(
    ("members", "content_type"),
    [
        ({}, "audio/mpeg"),
        ({"response_format": "mp3"}, "audio/mpeg"),
        ({"response_format": "wav"}, "audio/wav"),
        ({"response_format": "pcm"}, "audio/pcm"),
    ],
    ids=["default", "mp3", "wav", "pcm"],
)
def test_speech_is_a_kilobyte_of_zeros_in_pieces(members, content_type):
    answer = speak(**members)
    assert answer.headers["content-type"] == content_type
    assert answer.body == bytes(1024)
    assert answer.times == [0, 0.01, 0.02, 0.03]


def test_speech_in_unknown_format_is_refused():
    assert speak(response_format="midi").status == 400


def test_speech_as_events_is_the_same_bytes():
    *deltas, done = speak(stream_format="sse").events()
    audio = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    assert audio == bytes(1024)
    assert done["type"] == "speech.audio.done"


def test_speech_of_body_that_is_no_request_is_refused():
    answer = ask("good", b"{}", path="audio/speech")
    assert answer.status == 400
    assert msgspec.json.decode(answer.body)["error"]["type"] == "invalid_request_error"
