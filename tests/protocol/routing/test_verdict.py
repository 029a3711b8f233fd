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
    ],
    ids=["full", "fault", "fault-first", "timeout", "last-of-equals"],
)
def test_told_several_failures_the_most_telling_wins(errors, status):
    assert told(errors, ()).status == status
