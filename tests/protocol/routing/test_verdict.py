"""What the caller is told when every candidate failed."""

from __future__ import annotations

import pytest

from tz_protocol.errors import (
    UpstreamBroken,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamTimeout,
)
from tz_protocol.routing.verdict import told


def refused(status, **more):
    return UpstreamRefused(status, "their words", **more)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (refused(400, code="bad"), 400, "bad"),
        (refused(413), 413, None),
        (refused(422), 422, None),
        (refused(404), 404, "model_not_found"),
        (refused(401), 502, "upstream_auth_error"),
        (refused(403), 502, "upstream_auth_error"),
        (refused(429), 429, "rate_limit_exceeded"),
        (refused(503), 503, "upstream_overloaded"),
        (refused(529), 529, "upstream_overloaded"),
        (refused(500), 502, "upstream_error"),
        (refused(504), 504, "upstream_timeout"),
        (UpstreamTimeout("connect"), 504, "upstream_connect_timeout"),
        (UpstreamTimeout("first_content"), 504, "upstream_first_content_timeout"),
        (UpstreamTimeout("total"), 504, "timeout"),
        (UpstreamBroken("refused"), 502, "upstream_unreachable"),
        (UpstreamBroken("dns"), 502, "upstream_unreachable"),
        (UpstreamBroken("tls"), 502, "upstream_tls_error"),
        (UpstreamBroken("reset"), 502, "upstream_disconnected"),
        (UpstreamBroken("pool_exhausted"), 503, "upstream_pool_exhausted"),
        (UpstreamGarbled("not JSON"), 502, "upstream_invalid_response"),
        (UpstreamGarbled("moved", "upstream_redirect"), 502, "upstream_redirect"),
    ],
    ids=lambda value: str(value),
)
def test_told_one_failure_keeps_what_the_caller_can_use(error, status, code):
    answer = told([error], ())
    assert (answer.status, answer.code) == (status, code)
    assert ("x-should-retry", "false") in answer.headers


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        # xAI and Gemini say 400 to a key that is wrong.
        (UpstreamRefused(400, "Incorrect API key"), 502, "upstream_auth_error"),
        (refused(400, code="API_KEY_INVALID"), 502, "upstream_auth_error"),
        (refused(403, code="content_filter"), 400, "content_filter"),
        (
            UpstreamRefused(403, "Your input was flagged"),
            400,
            "content_policy_violation",
        ),
        (refused(451), 451, "content_policy_violation"),
        (refused(400, code="invalid_model"), 404, "invalid_model"),
        (refused(413, code="rate_limit_exceeded"), 429, "rate_limit_exceeded"),
        (refused(501), 400, "unsupported_value"),
        (refused(431), 400, None),
        (refused(402), 502, "upstream_error"),
        (refused(405), 502, "upstream_error"),
    ],
    ids=lambda value: str(value),
)
def test_told_status_that_lies_is_seen_through(error, status, code):
    answer = told([error], ())
    assert (answer.status, answer.code) == (status, code)


def test_told_retry_after_is_kept():
    assert told([refused(429, retry_after=2.5)], ()).retry_after == 2.5
    assert told([refused(503, retry_after=7.0)], ()).retry_after == 7.0


def test_told_message_of_an_auth_failure_says_nothing_of_the_provider():
    error = UpstreamRefused(401, "Incorrect API key provided: sk-prov-CANARY")
    assert "CANARY" not in told([error], ()).message


@pytest.mark.parametrize(
    ("errors", "status"),
    [
        ([refused(429), UpstreamBroken("refused")], 429),
        ([refused(500), refused(400)], 400),
        ([refused(400), refused(429)], 400),
        ([UpstreamTimeout("connect"), refused(500)], 504),
        ([refused(503), refused(429)], 429),
        ([refused(503), refused(400, code="unsupported_value")], 503),
        ([refused(503), refused(404)], 503),
        ([refused(500), refused(404)], 502),
        ([refused(503), refused(400, code="context_length_exceeded")], 503),
        ([refused(400, code="context_length_exceeded"), refused(401)], 400),
        ([refused(500), refused(401)], 502),
        ([refused(401), refused(429)], 429),
    ],
    ids=[
        "full",
        "fault",
        "fault-first",
        "timeout",
        "last-of-equals",
        "fallback-lacks-a-feature",
        "fallback-lacks-the-model",
        "fallback-lacks-the-model-of-a-broken-one",
        "fallback-is-too-small",
        "first-is-too-small",
        "our-key",
        "our-key-first",
    ],
)
def test_told_several_failures_the_most_telling_wins(errors, status):
    assert told(errors, ()).status == status
