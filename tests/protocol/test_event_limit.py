"""One event of a provider's stream is bounded by the gateway's limit, in any format."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given

from tests.protocol.dialects.checking import (
    byte_by_byte,
    decoded,
    decoder_of,
    splits,
)
from tests.protocol.dialects.eventstreams import event
from tests.protocol.pairs import PAIRS, ask, is_streaming_remote, pairs
from tests.protocol.samples import EVENTS, FRAMES, JSON, SAMPLES, Body, sample
from tz_protocol.dialects.gemini import GEMINI
from tz_protocol.dialects.sagemaker import SAGEMAKER
from tz_protocol.errors import UpstreamGarbled
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.settings import Limits
from tz_protocol.types.stream import StreamDone, StreamFailed, StreamPart

LIMIT = 2_000

DIALECTS = {
    dialect.name: dialect
    for endpoint, row in PAIRS
    if is_streaming_remote(endpoint, row)
    for dialect in (row.dialects[endpoint.capability],)
}
"""Every format in which a provider streams."""


def large(kind):
    """Return one event over the limit, in the framing of *kind*."""
    value = {"type": "x", "padding": "x" * LIMIT}
    if kind == FRAMES:
        return event("contentBlockDelta", value)
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def events_of(dialect, kind, pieces):
    head = ResponseHead(200, (("content-type", kind),))
    return decoded(decoder_of(dialect, head, LIMIT), pieces)


def assert_too_large(events):
    *before, last = events
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamGarbled)
    assert last.error.code == "upstream_too_large"
    assert str(LIMIT) in last.error.message
    assert all(isinstance(one, StreamPart) for one in before)


@pytest.mark.parametrize("name", DIALECTS)
def test_event_over_the_limit_fails_the_stream(name):
    dialect = DIALECTS[name]
    stream = sample(dialect).stream
    kind = stream.content_type
    data = stream.body(stream.begun).data + large(kind) + stream.body().data
    whole = events_of(dialect, kind, [data])
    assert_too_large(whole)
    assert len(whole) > 1, "what came before it is lost"
    assert len(events_of(dialect, kind, byte_by_byte(data))) == len(whole)
    assert_too_large(events_of(dialect, kind, byte_by_byte(data)))


@pytest.mark.parametrize("name", DIALECTS)
def test_event_that_never_ends_fails_the_stream_as_soon_as_it_is_too_large(name):
    dialect = DIALECTS[name]
    kind = sample(dialect).stream.content_type
    head = ResponseHead(200, (("content-type", kind),))
    decoder = decoder_of(dialect, head, LIMIT)
    decoder.receive_data(large(kind)[: LIMIT + 10])
    events = []
    while (found := decoder.next_event()) is not None:
        events.append(found)
    assert_too_large(events)


@pytest.mark.parametrize("name", DIALECTS)
def test_stream_of_small_events_may_be_larger_than_the_limit(name):
    dialect = DIALECTS[name]
    stream = sample(dialect).stream
    first, *rest = stream.events
    begun = stream.events[stream.begun - 1]
    many = first + begun * LIMIT + b"".join(rest[stream.begun - 1 :])
    events = events_of(dialect, stream.content_type, [many])
    assert isinstance(events[-1], StreamDone)


GEMINI_EVENTS = [
    event.removeprefix(b"data: ").strip() for event in SAMPLES["gemini"].stream.events
]
LIST = b"[" + b",\r\n".join(GEMINI_EVENTS) + b"]"


def test_element_of_a_list_over_the_limit_fails_the_stream():
    long = msgspec.json.encode({"padding": "x" * LIMIT})
    data = b"[" + GEMINI_EVENTS[0] + b"," + long + b"]"
    assert isinstance(events_of(GEMINI, JSON, [LIST])[-1], StreamDone)
    for pieces in ([data], byte_by_byte(data)):
        events = events_of(GEMINI, JSON, pieces)
        assert_too_large(events)
        assert len(events) > 1


def test_event_over_the_limit_within_small_envelopes_fails_the_stream():
    pieces = [event("PayloadPart", piece) for piece in byte_by_byte(large(EVENTS))]
    assert_too_large(events_of(SAGEMAKER, FRAMES, [b"".join(pieces)]))


PICTURE = b"A" * (3 * 1_048_576)
PICTURE_PART = {"inlineData": {"mimeType": "image/png", "data": PICTURE.decode()}}
PICTURE_EVENT = b"data: " + msgspec.json.encode(
    {"candidates": [{"index": 0, "content": {"parts": [PICTURE_PART]}}]}
)


def test_picture_of_some_megabytes_in_one_event_reaches_the_client():
    row = next(row for _, row in PAIRS if row.name == "google_ai_studio_gemini")
    endpoint = next(one for one, each in PAIRS if each is row)
    stream = sample(GEMINI).stream
    data = PICTURE_EVENT + b"\n\n" + stream.events[-1]
    outcome, served = ask(endpoint, row, Body(EVENTS, data), stream=True)
    assert served.record.outcome == "ok"
    assert PICTURE in outcome.response.body


@pairs(is_streaming_remote)
def test_limit_of_the_gateway_reaches_the_provider_s_stream(endpoint, row):
    stream = sample(row.dialects[endpoint.capability]).stream
    kind = stream.content_type
    limits = Limits(event_bytes=LIMIT)
    answer = Body(kind, stream.body(stream.begun).data + large(kind))
    outcome, served = ask(endpoint, row, answer, stream=True, limits=limits)
    assert served.record.outcome == "partial"
    assert served.record.attempts[0].error == "upstream_too_large"
    assert b"upstream_too_large" in outcome.response.body or outcome.response.is_aborted
    outcome, served = ask(
        endpoint, row, Body(kind, large(kind)), stream=True, limits=limits
    )
    assert outcome.response.head.status == 502
    assert served.record.attempts[0].error == "upstream_too_large"


@given(splits(SAMPLES["gemini"].stream.body().data + large(EVENTS)))
def test_limit_in_any_pieces_is_the_same(pieces):
    assert_too_large(events_of(GEMINI, EVENTS, pieces))
