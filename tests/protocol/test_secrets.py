"""Whatever a provider quotes of our credential and address, no caller sees it."""

from __future__ import annotations

import json
from urllib.parse import quote

import msgspec
import pytest

from tests.protocol.dialects.eventstreams import error, event, exception
from tests.protocol.flows.serving import JSON, chat
from tests.protocol.pairs import PAIRS, ask, is_remote, is_streaming_remote, pairs
from tests.protocol.providers.test_aws_served import serve as serve_aws
from tests.protocol.samples import FRAMES, Body, sample
from tz_protocol.testing import reply
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Credential
from tz_protocol.wire.sigv4 import AwsCredentials

KEY = "kQ3v/Zp8+Ws5=Xy1-Rt7_Bn9.Mc2"
HOST = "a.test"

QUOTED = (
    KEY,
    f"Bearer {KEY}",
    quote(KEY, safe=""),
    f"{KEY[:8]}...{KEY[-4:]}",
    f"{KEY[:3]}{'*' * 20}{KEY[-4:]}",
    f"ending in {KEY[-5:]}",
    json.dumps({"key": KEY}),
    f"http://{HOST}/b/chat",
    f"https%3A%2F%2F{HOST}%2Fb",
    f"{HOST}:80",
    HOST.upper(),
)
SAID = "No way. "


def assert_told_nothing(outcome, served):
    told = outcome.response.body.decode()
    head = outcome.response.head
    assert head is not None
    told += repr(head.headers)
    told += msgspec.json.encode([a.request_id for a in served.record.attempts]).decode()
    shapes = (told, told.replace("\\", ""))
    for text in shapes:
        lowered = text.lower()
        assert HOST not in lowered
        for at in range(len(KEY) - 5):
            piece = KEY[at : at + 6]
            assert piece.lower() not in lowered
            assert quote(piece, safe="").lower() not in lowered
        assert KEY[-4:].lower() not in lowered


def quoting(value, quoted):
    """Return a sample of an error that quotes us, wherever it has words of its own."""
    if isinstance(value, dict):
        made = {name: quoting(one, quoted) for name, one in value.items()}
        if "message" in made:
            made = {"code": quoted, "param": quoted, **made}
        return made
    return f"{SAID}{quoted}" if value == "No way." else value


def refusal_of(dialect, quoted, status):
    found = sample(dialect).error
    value = quoting(json.loads(found.data), quoted)
    return Body(found.content_type, json.dumps(value).encode(), status)


def failing(dialect, quoted):
    """Return events that state an error, in the framing of the format."""
    stream = sample(dialect).stream
    if stream.content_type == FRAMES:
        message = f"{SAID}{quoted}"
        return (
            exception("validationException", message=message),
            error("InternalStreamFailure", message),
        )
    data = refusal_of(dialect, quoted, 400).data
    named = b"event: error\ndata: " + data + b"\n\n"
    if "error" not in json.loads(data):
        return (named,)
    return (named, b"data: " + data + b"\n\n")


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
@pairs(is_remote)
def test_error_tells_nothing_of_us(endpoint, row, status):
    dialect = row.dialects[endpoint.capability]
    for quoted in QUOTED:
        answer = refusal_of(dialect, quoted, status)
        outcome, served = ask(endpoint, row, answer, key=KEY)
        assert outcome.response.head.status >= 400
        assert_told_nothing(outcome, served)
        if status in (400, 429, 500):
            assert b"No way." in outcome.response.body


@pairs(is_remote)
def test_error_in_words_only_tells_nothing_of_us(endpoint, row):
    for quoted in QUOTED:
        for kind in ("text/plain", "text/html", "application/json"):
            body = Body(kind, f"No way. {quoted}".encode(), 400)
            assert_told_nothing(*ask(endpoint, row, body, key=KEY))


@pairs(is_streaming_remote)
@pytest.mark.parametrize("is_begun", [False, True])
def test_error_in_a_stream_tells_nothing_of_us(endpoint, row, is_begun):
    dialect = row.dialects[endpoint.capability]
    stream = sample(dialect).stream
    for quoted in QUOTED:
        for failure in failing(dialect, quoted):
            begun = stream.body(stream.begun).data if is_begun else b""
            answer = Body(stream.content_type, begun + failure)
            outcome, served = ask(endpoint, row, answer, stream=True, key=KEY)
            assert served.record.outcome == ("partial" if is_begun else "error")
            assert_told_nothing(outcome, served)
            if not outcome.response.is_aborted:
                assert b"No way." in outcome.response.body


def test_container_s_error_within_an_envelope_tells_nothing_of_us():
    endpoint, row = next(pair for pair in PAIRS if pair[1].name == "aws_sagemaker")
    said = {"error": {"message": SAID + KEY, "code": KEY}}
    data = b"data: " + json.dumps(said).encode() + b"\n\n"
    begun = sample(row.dialects["chat"]).stream.events[0]
    answer = Body(FRAMES, begun + event("PayloadPart", data))
    outcome, served = ask(endpoint, row, answer, stream=True, key=KEY)
    assert b"No way." in outcome.response.body
    assert_told_nothing(outcome, served)


ACCESS, SECRET = "AKIAQ7ZT3WXY5VUB8RSN", "s3/Kd9+Lq2Vx7Rw1Tz8Yb4Nc6Mf5Pg0Jh"
SESSION = "IQoJb3JpZ2luX2VjEJ3//////////wEaCXVzLWVhc3QtMSJHMEUCIQ"


@pytest.mark.parametrize("secret", [ACCESS, SECRET, SESSION])
@pytest.mark.parametrize(
    "shape",
    [str, lambda one: quote(one, safe=""), lambda one: f"{one[:6]}***{one[-4:]}"],
)
def test_error_tells_nothing_of_credentials_that_signed(secret, shape):
    body = json.dumps({"message": f"No way. {shape(secret)} is bad"}).encode()
    served = serve_aws([reply(400, JSON, body)], row=SIGNED)
    served.gateway.aws.store(AwsCredentials(ACCESS, Secret(SECRET), Secret(SESSION)))
    outcome = served.ask(chat())
    told = outcome.response.body.decode()
    assert "No way. [removed] is bad" in told
    ((_, _, sent),) = served.sim.requests
    assert f"Credential={ACCESS}/" in dict(sent.headers)["authorization"]


SIGNED = {
    "type": "aws_bedrock",
    "model": "amazon.nova-lite-v1:0",
    "credential": Credential("none"),
    "options": {"region": "us-east-1"},
}


def test_request_id_that_quotes_us_is_not_kept():
    endpoint, row = next(pair for pair in PAIRS if pair[1].name == "openai")
    answer = Body("application/json", b"{}", 400)
    outcome, served = ask(
        endpoint, row, answer, key=KEY, headers=(("x-request-id", f"r-{KEY}"),)
    )
    assert served.record.attempts[0].request_id == "r-[removed]"
    assert_told_nothing(outcome, served)
