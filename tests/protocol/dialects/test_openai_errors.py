"""Errors told in OpenAI's words, and heard from providers in anybody's."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.dialects.openai_errors import (
    MESSAGE_LIMIT,
    RETRY_AFTER_LIMIT,
    parse_error,
    refusal,
    render_error,
    retry_after,
)
from tz_protocol.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    RateLimited,
    UpstreamRefused,
)
from tz_protocol.records.record import AttemptRecord
from tz_protocol.types.http import ResponseHead

JSON = (("content-type", "application/json"),)


def rendered(error, debug=False):
    head, body = render_error(error, debug)
    return head, json.loads(body)["error"]


def heard(status, value, headers=JSON):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse_error(ResponseHead(status, headers), body)


# -- told -----------------------------------------------------------------------


def test_error_has_all_four_members_even_if_null():
    head, error = rendered(InvalidRequest("No.", param="messages[0]", code="bad"))
    assert error == {
        "message": "No.",
        "type": "invalid_request_error",
        "param": "messages[0]",
        "code": "bad",
    }
    assert (head.status, head.headers) == (400, JSON)
    _, bare = rendered(GatewayError("No."))
    assert bare == {
        "message": "No.",
        "type": "server_error",
        "param": None,
        "code": None,
    }


@pytest.mark.parametrize(
    ("seconds", "whole", "milliseconds"),
    [
        (1.0, "1", "1000"),
        (0.2, "1", "200"),
        (17.01, "18", "17010"),
        (0.0, "0", "0"),
        (-3.0, "0", "0"),
    ],
)
def test_error_with_retry_after_says_it_in_both_units(seconds, whole, milliseconds):
    head, _ = rendered(RateLimited("Later.", retry_after=seconds))
    assert head.get("retry-after") == whole
    assert head.get("retry-after-ms") == milliseconds


@pytest.mark.parametrize("seconds", [None, math.nan, math.inf, -math.inf])
def test_error_without_a_time_to_come_back_says_none(seconds):
    head, _ = rendered(RateLimited("Later.", retry_after=seconds))
    assert head.headers == JSON


def test_error_keeps_its_own_headers():
    head, _ = rendered(MethodNotAllowed("No.", headers=(("allow", "POST"),)))
    assert head.get("allow") == "POST"


def test_error_shows_attempts_only_in_debug_mode():
    error = GatewayError("No.")
    error.attempts = (
        AttemptRecord(
            provider="a",
            provider_type="openai",
            model="m",
            upstream_model="u",
            started=0.0,
            error="status_500",
        ),
    )
    assert "attempts" not in rendered(error)[1]
    (attempt,) = rendered(error, debug=True)[1]["attempts"]
    assert (attempt["provider"], attempt["error"]) == ("a", "status_500")
    assert "attempts" not in rendered(GatewayError("No."), debug=True)[1]


# -- heard: shapes --------------------------------------------------------------

SHAPES = {
    "openai": (
        400,
        {
            "error": {
                "message": "Unsupported parameter",
                "type": "invalid_request_error",
                "param": "stop",
                "code": "unsupported_parameter",
            }
        },
        (
            400,
            "Unsupported parameter",
            "invalid_request_error",
            "unsupported_parameter",
            "stop",
        ),
    ),
    "azure": (
        401,
        {"error": {"code": "401", "message": "Access denied"}},
        (401, "Access denied", None, None, None),
    ),
    "openrouter": (
        429,
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {"provider_name": "G", "raw": "try later"},
            },
            "user_id": "u",
        },
        (429, "Provider returned error: try later", None, None, None),
    ),
    "openrouter with JSON within": (
        400,
        {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {"raw": '{"error":{"message":"too long"}}'},
            }
        },
        (400, "Provider returned error: too long", None, None, None),
    ),
    "mistral": (
        400,
        {
            "object": "error",
            "message": "Invalid model: x",
            "type": "invalid_model",
            "param": None,
            "code": "1500",
        },
        (400, "Invalid model: x", "invalid_model", "1500", None),
    ),
    "mistral with detail": (
        422,
        {"detail": [{"loc": ["body", "n"], "msg": "extra", "type": "forbidden"}]},
        (422, "body.n: extra", None, None, None),
    ),
    "detail as text": (401, {"detail": "Unauthorized"}, (401, "Unauthorized")),
    "old vllm": (
        400,
        {
            "object": "error",
            "message": "too long",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        (400, "too long", "BadRequestError", None, None),
    ),
    "xai with another status": (
        400,
        {"code": "invalid-argument", "error": "Incorrect API key provided: xa***"},
        (401, "Incorrect API key provided: xa***", None, "invalid-argument", None),
    ),
    "tgi": (
        422,
        {"error": "too long", "error_type": "validation"},
        (422, "too long", "validation", None, None),
    ),
    "hugging face": (
        400,
        {"error": ["one", "two"]},
        (400, "one; two", None, None, None),
    ),
    "google": (
        400,
        [{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}],
        (400, "no", None, None, None),
    ),
    "bare message": (403, {"message": "Forbidden"}, (403, "Forbidden")),
    "bare text": (404, "Not Found", (404, "Not Found")),
    "nothing said": (
        500,
        {},
        (500, "The provider answered with status 500 and no explanation."),
    ),
    "null": (
        500,
        {"error": None},
        (500, "The provider answered with status 500 and no explanation."),
    ),
    "odd values": (
        500,
        {"error": {"message": 5, "type": [], "code": {}, "param": ["a"]}},
        (500, "The provider answered with status 500 and no explanation."),
    ),
}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"error": {"error": {"message": "twice"}}}, "twice"),
        ({"detail": {"error": "inside"}}, "inside"),
        ({"object": "error", "message": {"detail": [{"msg": "gone"}]}}, "gone"),
        ({"type": "about:blank", "title": "No.", "errors": {"a": ["b"]}}, "No."),
        ({"error_code": 17, "error_msg": "limit"}, "limit"),
    ],
)
def test_message_is_found_where_the_vendor_put_it(value, message):
    assert heard(400, value).message == message


def test_error_behind_a_byte_order_mark_is_read():
    body = b'\xef\xbb\xbf{"error":{"message":"no"}}'
    assert parse_error(ResponseHead(400), body).message == "no"


@pytest.mark.parametrize(
    ("status", "value", "expected"), SHAPES.values(), ids=SHAPES.keys()
)
def test_error_of_a_vendors_shape_is_read(status, value, expected):
    error = heard(status, value)
    facts = (error.status, error.message, error.kind, error.code, error.param)
    assert facts == (*expected, None, None, None)[:5]


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("text/plain", b"Not Found\n", "Not Found"),
        (None, b"upstream connect error", "upstream connect error"),
        ("text/html", b"<html>520</html>", None),
        ("text/plain", b"<html>520</html>", None),
        ("text/plain", b"x" * 5_000, None),
        ("text/plain", b"\xff\x00", None),
        ("application/json", b'{"error": {"mess', None),
        ("application/json", b"", None),
    ],
)
def test_error_that_is_not_json_is_its_text_or_its_status(content_type, body, message):
    headers = () if content_type is None else (("content-type", content_type),)
    error = heard(502, body, headers)
    assert error.status == 502
    if message is None:
        message = "The provider answered with status 502 and no explanation."
    assert error.message == message


# -- heard: nothing secret ------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456_7890",
        "sk-ant-api03-abcdefghijkl",
        "gsk_abcdefghijklmnop1234",
        "xai-abcdefghijklmnop1234",
        "AIzaSyA1234567890abcdefgh",
        "hf_abcdefghijklmnopqrst",
        "sk-abcd**************wxyz",
        "Bearer abc.def-ghi",
        "0123456789abcdef0123456789abcdef",
        "http://10.0.0.5:8000/v1/chat/completions",
        "http://localhost/x",
        "http://[::1]:80/x",
        "https://user:pass@example.com/",
        "https://vllm.internal/generate",
        "https://mine.openai.azure.com/openai/deployments/d/x",
        "https://api.openai.com/v1/chat/completions",
        "https://proxy.example.com/chat/completions",
    ],
)
def test_error_message_loses_keys_and_called_addresses(secret):
    error = heard(500, {"error": {"message": f"It was {secret}, really."}})
    assert secret not in error.message
    assert "removed]" in error.message
    assert error.message.startswith("It was ")


@pytest.mark.parametrize(
    "harmless",
    [
        "See https://platform.openai.com/docs/guides.",
        "You can find your API key at https://api.together.ai/settings/api-keys.",
        "Error while downloading https://images.example.com/8xznAGy4HcY/800.png?w=1.",
        "The model `gpt-4o-mini-2024-07-18` does not exist.",
        "messages[3].content[0].image_url is not supported",
        "risk-averse-but-long-words stay",
    ],
)
def test_error_message_keeps_what_helps(harmless):
    assert heard(400, {"error": {"message": harmless}}).message == harmless


def test_error_message_is_cut():
    error = heard(400, {"error": {"message": "no " * 10_000}})
    assert len(error.message) == MESSAGE_LIMIT


# -- heard: when to come back ---------------------------------------------------

NOW = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "17"}, 0.25),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after-ms": "0"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": NOW}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT", "date": NOW}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, None),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:30 GMT", "date": NOW}, None),
        ({"retry-after": "Wed, 21 Foo 2015 07:28:30 GMT", "date": NOW}, None),
        ({"retry-after": "999999999"}, RETRY_AFTER_LIMIT),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "9" * 5_000}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_as_seconds(headers, seconds):
    head = ResponseHead(429, tuple(headers.items()))
    assert retry_after(head) == seconds
    assert parse_error(head, b"{}").retry_after == seconds


# -- heard: within an answer of 200 ---------------------------------------------


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({"error": {"message": "m", "code": 429}}, 429),
        ({"error": {"message": "m", "code": "503"}}, 503),
        ({"error": {"message": "m", "status_code": 400}}, 400),
        ({"error": {"message": "m", "code": "rate_limit_exceeded"}}, 429),
        ({"error": {"message": "m", "type": "invalid_request_error"}}, 400),
        ({"error": {"message": "m", "code": 200}}, 500),
        ({"error": {"message": "m", "code": 10**400}}, 500),
        ({"error": "m"}, 500),
        ({"object": "error", "message": "m", "code": 404}, 404),
        ({"type": "error", "message": "m"}, 500),
        ([{"error": {"message": "m"}}], 500),
    ],
)
def test_refusal_in_a_good_answer_has_the_status_it_stands_for(value, status):
    error = refusal(value)
    assert error is not None
    assert (error.status, error.message) == (status, "m")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        5,
        "text",
        {},
        {"error": None},
        {"error": ""},
        {"error": {}},
        {"message": "m"},
        {"choices": [], "detail": "x"},
    ],
)
def test_refusal_is_none_where_no_error_is_stated(value):
    assert refusal(value) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "type", "code", "detail", "loc", "metadata", "raw"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("body", ["[", '{"error":', '{"detail":[', '{"message":'])
def test_error_nested_deeply_is_an_error_without_words(body):
    close = {"[": "]", "{": "}"}
    for depth in (5, 200, 900, 5_000):
        text = (
            body * depth
            + "1"
            + "".join(close[c] for c in body[::-1] * depth if c in close)
        )
        assert "no explanation" in heard(500, text.encode()).message


@given(VALUES)
def test_refusal_of_any_value_is_an_error_or_none(value):
    error = refusal(value, is_error=True)
    assert error is None or isinstance(error, UpstreamRefused)


@given(st.integers(400, 599), st.binary(max_size=80))
def test_parse_error_of_any_bytes_is_an_error(status, body):
    error = parse_error(ResponseHead(status), body)
    assert error.status in (status, 401)
    assert error.message
