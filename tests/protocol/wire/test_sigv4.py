"""Signatures, held against AWS's own published ones and against botocore."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.types.secret import Secret
from tz_protocol.wire.sigv4 import AwsCredentials, Scope, escape_segment, sign

# The "aws-sig-v4-test-suite" of AWS's documentation: its keys, its moment, its scope.
KEYS = AwsCredentials("AKIDEXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
WALL = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
SUITE = Scope("us-east-1", "service")
HOST = ("host", "example.amazonaws.com")
FORM = ("content-type", "application/x-www-form-urlencoded")
UNRESERVED = "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAe"
    "MicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phU"
    "ZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38x"
    "Vqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2"
    "ICCR/oLxBA=="
)
VANILLA = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"


def signed(method, path, query="", headers=(), body=b"", keys=KEYS, scope=SUITE):
    """Return the added headers as a dictionary."""
    added = sign(
        method,
        path,
        query,
        (HOST, *headers),
        body,
        credentials=keys,
        scope=scope,
        wall=WALL,
    )
    return dict(added)


def signature(*args, **more):
    return signed(*args, **more)["authorization"].rpartition("Signature=")[2]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (("GET", "/"), VANILLA),
        (("GET", "//./"), VANILLA),
        (("GET", "/example1/example2/../.."), VANILLA),
        (
            ("GET", "/", "Param2=value2&Param1=value1"),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            ("GET", "/", "Param1=value1"),
            "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        ),
        (
            ("GET", UNRESERVED),
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            ("GET", "/\u1234"),
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        ),
        (
            ("POST", "/"),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            ("POST", "/", "", (FORM,), b"Param1=value1"),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            (
                "GET",
                "/",
                "",
                (("my-header1", " value1"), ("my-header2", ' "a   b   c"')),
            ),
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            (
                "GET",
                "/",
                "",
                tuple(("my-header1", f"value{n}") for n in (2, 2, 1)),
            ),
            "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        ),
    ],
    ids=[
        "get-vanilla",
        "get-slash-dot-slash",
        "get-relative-relative",
        "get-vanilla-query-order-key-case",
        "get-vanilla-empty-query-key",
        "get-unreserved",
        "get-utf8",
        "post-vanilla",
        "post-x-www-form-urlencoded",
        "get-header-value-trim",
        "get-header-key-duplicate",
    ],
)
def test_signature_is_that_of_awss_own_suite(request_, expected):
    assert expected == signature(*request_)


def test_signature_with_a_session_token_covers_it():
    keys = AwsCredentials(KEYS.access_key, KEYS.secret_key, Secret(TOKEN))
    headers = signed("POST", "/", keys=keys)
    assert headers["x-amz-security-token"] == TOKEN
    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/"
        "aws4_request, SignedHeaders=host;x-amz-date;x-amz-security-token, Signature="
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
    )


def test_signature_of_the_documentations_worked_example():
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/signing-elements.html
    headers = sign(
        "GET",
        "/",
        "Action=ListUsers&Version=2010-05-08",
        (
            ("host", "iam.amazonaws.com"),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ),
        b"",
        credentials=KEYS,
        scope=Scope("us-east-1", "iam"),
        wall=WALL,
    )
    assert headers[0] == ("x-amz-date", "20150830T123600Z")
    assert headers[-1][1].endswith(
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


def test_model_ids_are_escaped_once_on_the_wire():
    assert escape_segment("anthropic.claude-3-v1:0") == "anthropic.claude-3-v1%3A0"
    arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0"
    assert "/" not in escape_segment(arn)


def test_secret_is_in_no_header_and_no_representation():
    headers = signed("GET", "/")
    assert "wJalr" not in repr(headers)
    assert "wJalr" not in repr(KEYS)


SEGMENTS = st.lists(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=8)
    | st.sampled_from([".", "..", "", "a.b-c_d~e:1"]),
    max_size=4,
)
WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=8)


def by_botocore(method, path, query, headers, body, keys):
    auth, requests, credentials = (
        pytest.importorskip(f"botocore.{name}", reason="botocore is not installed")
        for name in ("auth", "awsrequest", "credentials")
    )
    token = keys.session_token
    given = credentials.Credentials(
        keys.access_key,
        keys.secret_key.reveal(),
        None if token is None else token.reveal(),
    )
    signer = auth.SigV4Auth(given, SUITE.service, SUITE.region)
    url = f"https://{HOST[1]}{path}"
    request = requests.AWSRequest(method, f"{url}?{query}" if query else url, data=body)
    for name, value in headers:
        request.headers[name] = value
    request.headers["X-Amz-Date"] = request.context["timestamp"] = "20150830T123600Z"
    if token is not None:
        request.headers["X-Amz-Security-Token"] = token.reveal()
    canonical = signer.canonical_request(request)
    text = signer.string_to_sign(request, canonical)
    return signer.signature(text, request)


@given(
    st.sampled_from(["GET", "POST", "PUT"]),
    SEGMENTS,
    st.lists(st.tuples(WORDS.filter(bool), WORDS), max_size=3),
    st.dictionaries(
        st.sampled_from(["content-type", "x-amz-one", "x-amz-two"]), WORDS, max_size=3
    ),
    st.binary(max_size=20),
    st.booleans(),
)
def test_signature_is_botocores(method, segments, pairs, headers, body, has_token):
    path = "/" + "/".join(map(escape_segment, segments))
    query = "&".join(f"{name}={value}" for name, value in pairs)
    token = Secret("token") if has_token else None
    keys = AwsCredentials(KEYS.access_key, KEYS.secret_key, token)
    lines = tuple(headers.items())
    expected = by_botocore(method, path, query, lines, body, keys)
    assert expected == signature(method, path, query, lines, body, keys)


@pytest.mark.parametrize(
    "model",
    [
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-v1:0",
    ],
)
def test_signature_of_a_model_with_a_colon_is_botocores(model):
    path = f"/model/{escape_segment(model)}/converse"
    headers = (("content-type", "application/json"),)
    expected = by_botocore("POST", path, "", headers, b"{}", KEYS)
    assert expected == signature("POST", path, "", headers, b"{}")
