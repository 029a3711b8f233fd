"""From a failure to what follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.errors import (
    InvalidRequest,
    UpstreamBroken,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamTimeout,
)
from tz_protocol.routing.classify import FOLLOWS, Follow, Kind, classify

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"


def refused(status, message="their words", code=None, kind=None, **more):
    return UpstreamRefused(status, message, code=code, kind=kind, **more)


@pytest.mark.parametrize(
    ("error", "follow"),
    [
        (refused(400), Follow.STOP),
        (refused(413), Follow.STOP),
        (refused(422), Follow.STOP),
        (refused(401), Follow.NEXT),
        (refused(402), Follow.NEXT),
        (refused(403), Follow.NEXT),
        (refused(404), Follow.NEXT),
        (refused(408), Follow.RETRY_HERE),
        (refused(409), Follow.RETRY_HERE),
        (refused(429), Follow.RETRY_HERE),
        (refused(500), Follow.RETRY_HERE),
        (refused(502), Follow.RETRY_HERE),
        (refused(503), Follow.RETRY_HERE),
        (refused(504), Follow.RETRY_HERE),
        (refused(529), Follow.RETRY_HERE),
        (refused(599), Follow.RETRY_HERE),
        (UpstreamBroken("refused"), Follow.RETRY_HERE),
        (UpstreamBroken("reset"), Follow.RETRY_HERE),
        (UpstreamBroken("dns"), Follow.RETRY_HERE),
        (UpstreamBroken("cut"), Follow.RETRY_HERE),
        (UpstreamBroken("tls"), Follow.NEXT),
        (UpstreamBroken("pool_exhausted"), Follow.NEXT),
        (UpstreamTimeout("connect"), Follow.NEXT),
        (UpstreamTimeout("first_content"), Follow.NEXT),
        (UpstreamTimeout("total"), Follow.NEXT),
        (UpstreamGarbled("not JSON"), Follow.RETRY_HERE),
        (UpstreamGarbled("moved", "upstream_redirect"), Follow.NEXT),
        (InvalidRequest("not in this format"), Follow.NEXT),
        (UpstreamError("another"), Follow.RETRY_HERE),
    ],
    ids=lambda value: f"{type(value).__name__}-{value}"[:50],
)
def test_classify_failure_decides_what_follows(error, follow):
    assert classify(error).follow is follow


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        # OpenAI and Azure
        (refused(400, code="context_length_exceeded"), Kind.CONTEXT_LENGTH),
        (refused(400, code="content_filter"), Kind.CONTENT_POLICY),
        (refused(400, code="content_policy_violation"), Kind.CONTENT_POLICY),
        (refused(400, code="model_not_found"), Kind.MISSING),
        (refused(400, code="unsupported_parameter"), Kind.UNSUPPORTED),
        (refused(400, code="invalid_value"), Kind.MALFORMED),
        (refused(401, code="invalid_api_key"), Kind.AUTH),
        (refused(429, code="insufficient_quota"), Kind.QUOTA),
        (refused(429, code="rate_limit_exceeded"), Kind.RATE_LIMIT),
        (refused(503, code="slow_down"), Kind.SERVER),
        (refused(404, code="DeploymentNotFound"), Kind.MISSING),
        (refused(429, code="RateLimitReached"), Kind.RATE_LIMIT),
        # Anthropic
        (refused(529, kind="overloaded_error"), Kind.SERVER),
        (refused(200, kind="overloaded_error"), Kind.SERVER),
        (refused(200, kind="rate_limit_error"), Kind.RATE_LIMIT),
        (refused(200, kind="invalid_request_error"), Kind.MALFORMED),
        (refused(200, kind="timeout_error"), Kind.SLOW),
        (refused(200, kind="permission_error"), Kind.AUTH),
        (refused(200, kind="not_found_error"), Kind.MISSING),
        (refused(200, kind="api_error"), Kind.SERVER),
        (refused(402, kind="billing_error"), Kind.QUOTA),
        (refused(400, "prompt is too long: 9 tokens > 8 maximum"), Kind.CONTEXT_LENGTH),
        (
            refused(400, "Output blocked by content filtering policy"),
            Kind.CONTENT_POLICY,
        ),
        (
            refused(400, "This model does not support assistant message prefill."),
            Kind.UNSUPPORTED,
        ),
        # Google
        (refused(400, code="API_KEY_INVALID"), Kind.AUTH),
        (refused(400, "API key not valid. Please pass a valid API key."), Kind.AUTH),
        (refused(400, kind="RESOURCE_EXHAUSTED"), Kind.RATE_LIMIT),
        (refused(504, kind="DEADLINE_EXCEEDED"), Kind.SLOW),
        # Bedrock
        (refused(400, "Input is too long for requested model."), Kind.CONTEXT_LENGTH),
        (refused(403, kind="ExpiredTokenException"), Kind.AUTH),
        (refused(429, kind="ThrottlingException"), Kind.RATE_LIMIT),
        (refused(424, kind="ModelErrorException"), Kind.MODEL_FAILED),
        (refused(408, kind="ModelTimeoutException"), Kind.SLOW),
        (refused(400, "The provided model identifier is invalid."), Kind.MISSING),
        # Groq, Mistral, Together, xAI, OpenRouter, DeepSeek, Perplexity, Moonshot
        (refused(413, code="rate_limit_exceeded", kind="tokens"), Kind.RATE_LIMIT),
        (refused(400, code="tool_use_failed"), Kind.MODEL_FAILED),
        (refused(400, code="model_decommissioned"), Kind.MISSING),
        (refused(400, code="1500", kind="invalid_model"), Kind.MISSING),
        (refused(404, code="model_not_available"), Kind.MISSING),
        (refused(400, "Incorrect API key provided."), Kind.AUTH),
        (refused(400, "Model not found: grok-9"), Kind.MISSING),
        (refused(400, "Model no-such/model does not exist", code="400"), Kind.MISSING),
        (refused(402, "Insufficient credits", code="402"), Kind.QUOTA),
        (refused(403, "The model requires moderation, …"), Kind.CONTENT_POLICY),
        (
            refused(401, code="invalid_request_error", kind="authentication_error"),
            Kind.AUTH,
        ),
        (refused(402, "Insufficient Balance"), Kind.QUOTA),
        (refused(400, kind="too_many_prompt_tokens"), Kind.CONTEXT_LENGTH),
        (refused(403, kind="exceeded_current_quota_error"), Kind.QUOTA),
        (refused(400, code="DataInspectionFailed"), Kind.CONTENT_POLICY),
        (refused(400, kind="exceed_context_size_error"), Kind.CONTEXT_LENGTH),
        # Proxies in between
        (refused(405), Kind.MISSING),
        (refused(418), Kind.MISSING),
        (refused(501), Kind.UNSUPPORTED),
        (refused(520), Kind.SERVER),
        (refused(524), Kind.SLOW),
        (refused(526), Kind.TLS),
        (refused(999), Kind.SERVER),
    ],
    ids=lambda value: str(value)[:60],
)
def test_classify_vendor_error_is_recognised(error, kind):
    assert classify(error).kind is kind


@pytest.mark.parametrize(
    "kind", [Kind.AUTH, Kind.MISSING, Kind.QUOTA, Kind.TLS, Kind.REDIRECT]
)
def test_classify_fault_of_the_configuration_is_loud(kind):
    assert FOLLOWS[kind].is_loud


def test_classify_breaker_counts_only_what_is_the_targets_health():
    counted = {kind for kind, rule in FOLLOWS.items() if rule.counts}
    assert counted == {
        Kind.SERVER,
        Kind.UNREACHABLE,
        Kind.TLS,
        Kind.TIMEOUT,
        Kind.SLOW,
        Kind.GARBLED,
        Kind.REDIRECT,
    }


def test_classify_every_kind_has_a_rule():
    assert set(FOLLOWS) == set(Kind)


@pytest.mark.parametrize(
    ("given", "kept"), [(None, None), (2.5, 2.5), (0.0, 0.0), (-3.0, 0.0)]
)
def test_classify_retry_after_is_kept_and_never_negative(given, kept):
    assert classify(refused(429, retry_after=given)).retry_after == kept


def test_classify_words_behind_a_long_message_are_not_searched():
    error = refused(400, "x" * 5_000 + " maximum context length")
    assert classify(error).kind is Kind.MALFORMED


@given(
    st.sampled_from(
        [
            *(refused(status) for status in (400, 401, 404, 429, 500, 529)),
            UpstreamTimeout("idle"),
            UpstreamBroken("reset"),
            UpstreamGarbled("cut in half"),
        ]
    )
)
def test_classify_after_the_commit_everything_stops_and_health_still_counts(error):
    before, after = classify(error), classify(error, is_committed=True)
    assert after.follow is Follow.STOP
    assert (after.kind, after.rule.counts) == (before.kind, before.rule.counts)


@given(
    st.integers(-1, 1_000),
    st.text(max_size=200),
    st.none() | st.text(max_size=40),
    st.none() | st.text(max_size=40),
)
def test_classify_any_answer_is_classified(status, message, code, kind):
    failure = classify(refused(status, message, code, kind))
    assert failure.rule is FOLLOWS[failure.kind]


def _recorded():
    """Yield (provider, status, message, code, type) of every recorded error."""
    for path in sorted(CORPUS.glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            response = json.loads(line)["response"]
            status, text = response.get("status"), response.get("body_text") or ""
            if not status or status < 400:
                continue
            try:
                body = json.loads(text)
            except ValueError:
                body = {}
            inner = body.get("error", body)
            if not isinstance(inner, dict):
                inner = {"message": inner, "code": body.get("code")}
            yield (
                path.stem,
                status,
                str(inner.get("message") or inner.get("detail") or text),
                _text(inner.get("code")),
                _text(inner.get("type") or inner.get("status") or _error_type(body)),
            )


def _text(value):
    return None if value is None else str(value)


def _error_type(body):
    return body.get("error_type")


_USUAL = {
    401: {Kind.AUTH},
    402: {Kind.QUOTA},
    403: {Kind.AUTH},
    404: {Kind.MISSING},
    429: {Kind.RATE_LIMIT, Kind.QUOTA},
    500: {Kind.SERVER},
    501: {Kind.UNSUPPORTED},
}


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the recorded traffic is not here")
def test_classify_recorded_errors_are_what_their_words_say():
    seen = 0
    for provider, status, message, code, kind in _recorded():
        seen += 1
        found = classify(UpstreamRefused(status, message, code=code, kind=kind)).kind
        about = f"{provider} {status} {code} {kind} {message[:200]}"
        if status in _USUAL:
            assert found in _USUAL[status], about
        words = message.casefold()
        if "api key" in words and "valid" in words and status == 400:
            assert found is Kind.AUTH, about
        if "too long" in words or ("context" in words and "exceed" in words):
            assert found is Kind.CONTEXT_LENGTH, about
        if "invalid model" in words or "does not exist" in words:
            assert found is Kind.MISSING, about
    assert seen > 100
