"""OpenAI's chat in SageMaker's envelope."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.dialects.checking import (
    byte_by_byte,
    comparable,
    decoded,
    decoder_of,
    facts_of,
    splits,
)
from tests.protocol.dialects.eventstreams import event, exception
from tests.protocol.dialects.recordings import recordings
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.dialects.openai_fields import JsonResponse
from tz_protocol.dialects.sagemaker import HOSTED_PROVIDERS, SAGEMAKER
from tz_protocol.errors import (
    InvalidRequest,
    UpstreamBroken,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRefused,
)
from tz_protocol.types.chat import ChatRequest
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.request import Target
from tz_protocol.types.stream import (
    StreamDone,
    StreamFailed,
    StreamPart,
    StreamSkipped,
)
from tz_protocol.types.usage import Usage

HEAD = ResponseHead(200, (("content-type", "application/vnd.amazon.eventstream"),))
PLAIN = ResponseHead(200, (("content-type", "text/event-stream"),))


def parsed(**members) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **members}
    head = RequestHead(method="POST", path="/v1/chat/completions")
    request = OPENAI_CHAT.parse_request(msgspec.json.encode(body), head)
    assert isinstance(request, ChatRequest)
    return request


def target(hosted="openai", **more):
    options = {"endpoint_name": "my-endpoint", "hosted_provider": hosted}
    return Target(
        provider="aws_sagemaker",
        model="llama",
        options=options,
        renames={"max_completion_tokens": "max_tokens"},
        **more,
    )


# -- requests -------------------------------------------------------------------


@pytest.mark.parametrize("hosted", HOSTED_PROVIDERS)
@pytest.mark.parametrize(
    ("is_stream", "operation"),
    [(False, "invocations"), (True, "invocations-response-stream")],
)
def test_request_goes_to_the_endpoint_as_openais(hosted, is_stream, operation):
    request = parsed(stream=is_stream, max_completion_tokens=5)
    rendered, losses = SAGEMAKER.render_request(request, target(hosted))
    assert rendered.path == f"endpoints/my-endpoint/{operation}"
    assert rendered.is_stream is is_stream
    assert losses == ()
    body = json.loads(rendered.body)
    assert body["model"] == "llama"
    assert body["max_tokens"] == 5
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    accept = "x-amzn-sagemaker-accept" if is_stream else "accept"
    assert accept in dict(rendered.headers)


@pytest.mark.parametrize("options", [{}, {"hosted_provider": "other"}])
def test_request_to_a_container_of_another_kind_is_refused(options):
    wrong = Target(provider="aws_sagemaker", model="m", options=options)
    with pytest.raises(InvalidRequest, match="openai or tgi"):
        SAGEMAKER.render_request(parsed(), wrong)


# -- answers --------------------------------------------------------------------


def chunk(**choice):
    value = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {}, "finish_reason": None, **choice}],
    }
    return b"data: %b\n\n" % msgspec.json.encode(value)


CONTAINER = b"".join(
    [
        chunk(delta={"role": "assistant", "content": ""}),
        chunk(delta={"content": "Häl"}),
        chunk(delta={"content": "lo"}),
        chunk(finish_reason="stop"),
        (
            b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
            b'"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,'
            b'"total_tokens":5}}\n\n'
        ),
        b"data: [DONE]\n\n",
    ]
)


def payload(data):
    return event("PayloadPart", data)


def enveloped(pieces):
    """Return a container's bytes as SageMaker sends them on, piece by piece."""
    return b"".join(payload(piece) for piece in pieces)


def read(data, head=HEAD):
    return decoded(decoder_of(SAGEMAKER, head), [data])


EXPECTED = decoded(decoder_of(OPENAI_CHAT, PLAIN), [CONTAINER])


def test_expected_stream_is_whole():
    assert EXPECTED[-1] == StreamDone()
    usages = [e.usage for e in EXPECTED if isinstance(e, StreamPart) and e.usage]
    assert usages == [Usage(input_tokens=3, output_tokens=2)]


@given(splits(CONTAINER))
def test_stream_is_the_containers_however_sagemaker_cuts_it(pieces):
    assert read(enveloped(pieces)) == EXPECTED


ENVELOPED = enveloped([CONTAINER[:100], b"", CONTAINER[100:117], CONTAINER[117:]])


@given(splits(ENVELOPED))
def test_stream_is_the_containers_however_the_network_cuts_it(pieces):
    assert decoded(decoder_of(SAGEMAKER, HEAD), pieces) == EXPECTED


def test_stream_byte_by_byte_gives_the_same():
    pieces = byte_by_byte(ENVELOPED)
    assert decoded(decoder_of(SAGEMAKER, HEAD), pieces) == EXPECTED


@pytest.mark.parametrize("head", [PLAIN, ResponseHead(200, (("content-type", "x"),))])
def test_stream_of_a_container_without_the_envelope_is_read_too(head):
    assert read(CONTAINER, head) == EXPECTED


def test_stream_without_a_content_type_is_taken_for_an_envelope():
    assert read(ENVELOPED, ResponseHead(200)) == EXPECTED


def test_stream_knows_when_only_usage_may_follow():
    decoder = decoder_of(SAGEMAKER, HEAD)
    cut = CONTAINER.rindex(b"data: {")
    decoder.receive_data(payload(CONTAINER[:cut]))
    assert not decoder.is_finished
    while decoder.next_event() is not None:
        pass
    assert decoder.is_finished


@pytest.mark.parametrize(
    "data",
    [
        b"",
        enveloped([CONTAINER[:150]]),
        ENVELOPED[:300],
        ENVELOPED[:5],
    ],
    ids=["nothing", "cut by the container", "cut in an envelope", "cut in its lengths"],
)
def test_stream_cut_short_fails(data):
    last = read(data)[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamBroken)


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("ModelStreamError", 424, "api_error"),
        ("InternalStreamFailure", 500, "server_error"),
    ],
)
def test_error_within_a_stream_fails_it(name, status, kind):
    data = payload(CONTAINER[:300]) + exception(name, Message="No.", ErrorCode="x")
    last = read(data + payload(CONTAINER[300:]))[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamRefused)
    assert facts_of(last.error)[:3] == (status, "No.", kind)


def test_stream_with_a_damaged_envelope_fails():
    data = bytearray(ENVELOPED)
    data[200] ^= 1
    last = read(bytes(data))[-1]
    assert isinstance(last, StreamFailed)
    assert isinstance(last.error, UpstreamGarbled)


def test_stream_events_that_are_not_known_are_skipped_and_counted():
    found = read(event("News", b"x") + ENVELOPED)
    assert found[0] == StreamSkipped("an event is of an unknown type")
    assert found[1:] == EXPECTED


def test_whole_answer_is_the_containers():
    body = (
        b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{'
        b'"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":'
        b'"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}'
    )
    response = SAGEMAKER.parse_response(ResponseHead(200), body)
    assert isinstance(response, JsonResponse)
    assert response.usage == Usage(input_tokens=3, output_tokens=1)
    with pytest.raises(UpstreamGarbled):
        SAGEMAKER.parse_response(ResponseHead(200), b'[{"generated_text":"x"}]')


# -- errors ---------------------------------------------------------------------


def model_error(status, message):
    return msgspec.json.encode(
        {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL",
            "LogStreamArn": "arn:aws:logs:x",
            "Message": "Received client error (422) from primary with message ...",
            "OriginalMessage": message,
            "OriginalStatusCode": status,
        }
    )


def test_error_of_the_container_is_told_as_its_own():
    head = ResponseHead(424, (("x-amzn-errortype", "ModelError"),))
    body = model_error(422, '{"error":"too long","error_type":"validation"}')
    refused = SAGEMAKER.parse_error(head, body)
    assert isinstance(refused, UpstreamRefused)
    assert facts_of(refused)[:3] == (422, "too long", "validation")


@pytest.mark.parametrize("status", [None, "422", 200, 700, True])
def test_error_of_the_container_without_a_status_is_sagemakers(status):
    head = ResponseHead(424, (("x-amzn-errortype", "ModelError"),))
    refused = SAGEMAKER.parse_error(head, model_error(status, "x"))
    assert isinstance(refused, UpstreamRefused)
    assert (refused.status, refused.code) == (424, "model_error")
    assert refused.message.startswith("Received client error")


@pytest.mark.parametrize(
    ("name", "status", "told", "kind"),
    [
        ("ValidationError", 400, 400, "invalid_request_error"),
        ("InternalFailure", 500, 500, "server_error"),
        ("ServiceUnavailable", 503, 503, "server_error"),
        ("ExpiredTokenException", 403, 401, "authentication_error"),
        ("InternalDependencyException", 530, 530, "server_error"),
    ],
)
def test_error_of_each_type(name, status, told, kind):
    head = ResponseHead(status, (("x-amzn-errortype", name),))
    refused = SAGEMAKER.parse_error(head, b'{"Message":"No."}')
    assert isinstance(refused, UpstreamRefused)
    assert facts_of(refused)[:3] == (told, "No.", kind)


# -- what containers really sent ------------------------------------------------

STREAMED = [
    *recordings("tgi", "chat.completions"),
    *recordings("vllm", "chat.completions"),
]


@pytest.mark.parametrize("recording", STREAMED)
def test_corpus_container_answer_in_the_envelope_is_read_as_without(recording):
    if recording.head.status != 200:
        pytest.skip("an error has no envelope")
    if not recording.is_stream:
        try:
            OPENAI_CHAT.parse_response(recording.head, recording.body)
        except UpstreamError as error:
            with pytest.raises(type(error)):
                SAGEMAKER.parse_response(recording.head, recording.body)
            return
        without = OPENAI_CHAT.parse_response(recording.head, recording.body)
        within = SAGEMAKER.parse_response(recording.head, recording.body)
        assert without.fields == within.fields
        return
    without = decoded(decoder_of(OPENAI_CHAT, recording.head), [recording.body])
    data = enveloped(byte_by_byte(recording.body))
    assert comparable(without) == comparable(read(data))


@given(
    st.lists(
        st.binary(max_size=20).filter(lambda data: not data.startswith(b"\0"))
        | st.builds(
            event,
            st.sampled_from(["PayloadPart", "ModelStreamError", "x"]),
            st.binary(max_size=30),
            st.sampled_from(["event", "exception", "other"]),
        ),
        max_size=8,
    )
)
def test_stream_decoder_fed_with_anything_ends_and_never_raises(pieces):
    got = decoded(decoder_of(SAGEMAKER, HEAD), pieces)
    assert isinstance(got[-1], StreamDone | StreamFailed)
    whole = decoded(decoder_of(SAGEMAKER, HEAD), [b"".join(pieces)])
    assert comparable(got) == comparable(whole)
