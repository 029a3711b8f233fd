"""From a failed attempt to what follows: one table.

The one rule: what follows depends on the class of the failure alone, and the class on
what the provider said: its error code, then words that only one thing can mean, then
its status. Here is no count, no time and no candidate; ``plan`` holds those.

The codes are those that vendors document or were seen to send. Some lie with their
status (xAI and Gemini answer 400 to a bad key, Mistral and OpenRouter 400 to a model
that does not exist, Groq 413 to a rate limit), hence the order above.
"""

from __future__ import annotations

import enum
import re

import msgspec

from tz_protocol.errors import (
    InvalidRequest,
    UpstreamBroken,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamTimeout,
)

__all__ = ["FOLLOWS", "Failure", "Follow", "Kind", "Rule", "classify"]


class Follow(enum.StrEnum):
    """What the exchange does next."""

    RETRY_HERE = "retry_here"
    """Go on to the other candidates; this one may be tried again in a later round."""
    NEXT = "next"
    """Go on to the other candidates; this one is done with."""
    STOP = "stop"
    """Tell the caller: no candidate would do better."""


class Kind(enum.StrEnum):
    """Class of a failure; also a metric's label."""

    SERVER = "server"
    """The provider failed or is full: 5xx, 529, overload codes."""
    CONFLICT = "conflict"
    """409 and 425: a moment later may do."""
    MODEL_FAILED = "model_failed"
    """The model wrote what its own server could not use."""
    UNREACHABLE = "unreachable"
    """No connection, or it was lost before an answer."""
    TLS = "tls"
    """The provider's certificate or handshake; it will not change in a moment."""
    TIMEOUT = "timeout"
    """Silence until a deadline of ours."""
    SLOW = "slow"
    """The provider says itself that it timed out: 408, 504."""
    GARBLED = "garbled"
    """An answer that its protocol does not allow."""
    REDIRECT = "redirect"
    """Never followed."""
    RATE_LIMIT = "rate_limit"
    """Too many requests or tokens for now."""
    QUOTA = "quota"
    """No money or no quota: time alone does not help."""
    AUTH = "auth"
    """The gateway's key is refused, or may not use the model."""
    MISSING = "missing"
    """No such model or deployment at this provider: a fault of the configuration."""
    CONTEXT_LENGTH = "context_length"
    """The request is longer than the model's context."""
    CONTENT_POLICY = "content_policy"
    """The provider will not answer this content."""
    UNSUPPORTED = "unsupported"
    """This model or provider lacks a feature that the request uses."""
    MALFORMED = "malformed"
    """The request itself is wrong."""
    UNEXPRESSIBLE = "unexpressible"
    """The request cannot be said in this provider's format; nothing was sent."""
    LOCAL = "local"
    """The gateway's own connections to the provider are all in use."""


class Rule(msgspec.Struct, frozen=True):
    """What follows from one class of failure."""

    follow: Follow
    counts: bool = False
    """True: a failure of the target's health, for its breaker."""
    is_loud: bool = False
    """True: the operator has to act; logged at once and counted apart."""
    demotes: bool = False
    """True: the target stands behind the others for a while."""


_AGAIN = Rule(Follow.RETRY_HERE)
_SICK = Rule(Follow.RETRY_HERE, counts=True)
_SICK_HERE = Rule(Follow.NEXT, counts=True)

FOLLOWS: dict[Kind, Rule] = {
    Kind.SERVER: _SICK,
    Kind.CONFLICT: _AGAIN,
    Kind.MODEL_FAILED: _AGAIN,
    Kind.UNREACHABLE: _SICK,
    Kind.TLS: Rule(Follow.NEXT, counts=True, is_loud=True),
    # No second try at a silent route: it would cost the caller the same time again.
    Kind.TIMEOUT: _SICK_HERE,
    Kind.SLOW: _SICK,
    Kind.GARBLED: _SICK,
    Kind.REDIRECT: Rule(Follow.NEXT, counts=True, is_loud=True),
    Kind.RATE_LIMIT: Rule(Follow.RETRY_HERE, demotes=True),
    Kind.QUOTA: Rule(Follow.NEXT, is_loud=True, demotes=True),
    Kind.AUTH: Rule(Follow.NEXT, is_loud=True, demotes=True),
    Kind.MISSING: Rule(Follow.NEXT, is_loud=True),
    Kind.CONTEXT_LENGTH: Rule(Follow.NEXT),
    Kind.CONTENT_POLICY: Rule(Follow.STOP),
    Kind.UNSUPPORTED: Rule(Follow.NEXT),
    Kind.MALFORMED: Rule(Follow.STOP),
    Kind.UNEXPRESSIBLE: Rule(Follow.NEXT),
    Kind.LOCAL: Rule(Follow.NEXT),
}
"""The table."""


class Failure(msgspec.Struct, frozen=True):
    """A failed attempt, classified."""

    kind: Kind
    rule: Rule
    retry_after: float | None = None
    """Seconds for which the provider asks to be left alone, if it said so."""

    @property
    def follow(self) -> Follow:
        """What the exchange does next."""
        return self.rule.follow


def classify(
    error: UpstreamError | InvalidRequest, *, is_committed: bool = False
) -> Failure:
    """Return what *error* is and what follows from it.

    Args:
        error: What ended the attempt; ``InvalidRequest`` if it could not be rendered.
        is_committed: True after the first content: whatever it is, the caller is told.
    """
    kind = _kind(error)
    rule = FOLLOWS[kind]
    if is_committed and rule.follow is not Follow.STOP:
        rule = msgspec.structs.replace(rule, follow=Follow.STOP)
    retry_after = None
    if isinstance(error, UpstreamRefused) and error.retry_after is not None:
        retry_after = max(0.0, error.retry_after)
    return Failure(kind, rule, retry_after)


def _kind(error: UpstreamError | InvalidRequest) -> Kind:
    if isinstance(error, UpstreamRefused):
        return _refused(error)
    if isinstance(error, UpstreamTimeout):
        return Kind.TIMEOUT
    if isinstance(error, UpstreamBroken):
        return _BROKEN.get(error.kind, Kind.UNREACHABLE)
    if isinstance(error, UpstreamGarbled):
        return Kind.REDIRECT if error.code == "upstream_redirect" else Kind.GARBLED
    if isinstance(error, InvalidRequest):
        return Kind.UNEXPRESSIBLE
    return Kind.UNREACHABLE


_BROKEN = {"tls": Kind.TLS, "pool_exhausted": Kind.LOCAL, "timeout": Kind.TIMEOUT}
"""Words of ``kind_of`` that are not simply a lost connection."""


def _refused(error: UpstreamRefused) -> Kind:
    names = [
        name.casefold().replace("_", "") for name in (error.code, error.kind) if name
    ]
    for name in names:
        kind = _CODES.get(name)
        if kind is not None:
            return kind
    status = error.status
    if status in _WORDY:
        said = error.message[:_MESSAGE_PREFIX].casefold()
        for pattern, kind in _PHRASES:
            if pattern.search(said):
                return kind
    kind = _STATUSES.get(status)
    if kind is not None:
        return kind
    if 400 <= status < 500:
        return Kind.MISSING
    if status < 400:
        # An error inside a success: only its type can tell.
        for name in names:
            kind = _TYPES.get(name)
            if kind is not None:
                return kind
    return Kind.SERVER


_MESSAGE_PREFIX = 2_000
"""Characters of a message that are searched; vendors' own are shorter, and what
follows may be the caller's prompt."""

_STATUSES: dict[int, Kind] = {
    400: Kind.MALFORMED,
    401: Kind.AUTH,
    402: Kind.QUOTA,
    403: Kind.AUTH,
    404: Kind.MISSING,
    # A path or a method that is not there is a base URL that is wrong.
    405: Kind.MISSING,
    408: Kind.SLOW,
    409: Kind.CONFLICT,
    410: Kind.MISSING,
    411: Kind.MALFORMED,
    413: Kind.MALFORMED,
    414: Kind.MALFORMED,
    415: Kind.MALFORMED,
    422: Kind.MALFORMED,
    # Bedrock's ModelErrorException, TGI's generation error.
    424: Kind.MODEL_FAILED,
    425: Kind.CONFLICT,
    429: Kind.RATE_LIMIT,
    431: Kind.MALFORMED,
    451: Kind.CONTENT_POLICY,
    # llama.cpp: not_supported_error.
    501: Kind.UNSUPPORTED,
    504: Kind.SLOW,
    # Cloudflare: a timeout behind it.
    522: Kind.SLOW,
    524: Kind.SLOW,
    525: Kind.TLS,
    526: Kind.TLS,
}
"""What a status means if nothing else says more. Other 4xx: ``MISSING``; the rest:
``SERVER``."""


def _names(kind: Kind, *names: str) -> dict[str, Kind]:
    return {name.casefold().replace("_", ""): kind for name in names}


_CODES: dict[str, Kind] = {
    **_names(
        Kind.CONTEXT_LENGTH,
        "context_length_exceeded",  # OpenAI, Azure, Groq, Fireworks, DeepSeek
        "context_window_exceeded",
        "exceed_context_size_error",  # llama.cpp
        "too_many_prompt_tokens",  # Perplexity
        "TOO_MANY_TOKENS",  # Cohere
    ),
    **_names(
        Kind.CONTENT_POLICY,
        "content_filter",  # Azure
        "content_policy_violation",  # OpenAI and Azure images
        "ResponsibleAIPolicyViolation",  # Azure
        "moderation_blocked",  # OpenAI images
        "data_inspection_failed",  # Alibaba
        "DataInspectionFailed",
    ),
    **_names(
        Kind.QUOTA,
        "insufficient_quota",  # OpenAI
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",  # Anthropic
        "exceeded_current_quota_error",  # Moonshot
        "ServiceQuotaExceededException",  # Bedrock
        "Arrearage",  # Alibaba
    ),
    **_names(
        Kind.RATE_LIMIT,
        "rate_limit_exceeded",  # OpenAI, Groq (also with 413)
        "rate_limit_error",  # Anthropic
        "rate_limit_reached_error",  # Moonshot
        "RateLimitReached",  # Azure
        "RESOURCE_EXHAUSTED",  # Google
        "ThrottlingException",  # Bedrock
        "ModelNotReadyException",
    ),
    **_names(
        Kind.AUTH,
        "invalid_api_key",  # OpenAI, Groq, Perplexity
        "API_KEY_INVALID",  # Google, with 400
        "authentication_error",  # Anthropic, DeepSeek, llama.cpp
        "invalid_authentication_error",  # Moonshot
        "UNAUTHENTICATED",  # Google
        "UnrecognizedClientException",  # Bedrock
        "ExpiredTokenException",
        "AccessDeniedException",
        "InvalidSignatureException",
    ),
    **_names(
        Kind.MISSING,
        "model_not_found",  # OpenAI, Groq
        "model_decommissioned",  # Groq, with 400
        "model_not_available",  # Together
        "invalid_model",  # Mistral, with 400
        "DeploymentNotFound",  # Azure
        "ResourceNotFoundException",  # Bedrock
    ),
    **_names(
        Kind.UNSUPPORTED,
        "unsupported_parameter",  # OpenAI
        "unsupported_value",
        "not_supported_error",  # llama.cpp
    ),
    # Groq: the model called a tool with what is not JSON, or none at all.
    **_names(Kind.MODEL_FAILED, "tool_use_failed", "json_validate_failed"),
    **_names(Kind.MODEL_FAILED, "ModelErrorException", "ModelStreamErrorException"),
    **_names(
        Kind.SERVER,
        "overloaded_error",  # Anthropic
        "engine_overloaded_error",  # Moonshot
        "server_is_overloaded",  # OpenAI
        "slow_down",
        "ServiceUnavailableException",  # Bedrock
    ),
    **_names(Kind.SLOW, "ModelTimeoutException", "DEADLINE_EXCEEDED"),
}
"""Codes and types that mean one thing whatever the status; without underscores."""

_TYPES: dict[str, Kind] = {
    **_names(Kind.AUTH, "permission_error", "PERMISSION_DENIED"),
    **_names(Kind.MISSING, "not_found_error", "NOT_FOUND"),
    **_names(
        Kind.MALFORMED,
        "invalid_request_error",
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "ValidationException",
        "request_too_large",
        "BadRequestError",  # vLLM
    ),
    **_names(Kind.SLOW, "timeout_error"),
}
"""Types that vendors use broadly: consulted where the status says nothing."""

_WORDY = frozenset({400, 403, 413, 422, 500})
"""Statuses that stand for many things, so that only the words tell them apart."""


def _phrase(kind: Kind, pattern: str) -> tuple[re.Pattern[str], Kind]:
    return re.compile(pattern), kind


_PHRASES = (
    _phrase(
        Kind.CONTEXT_LENGTH,
        # OpenAI, OpenRouter, vLLM, Together, Mistral · Anthropic · Google · Bedrock ·
        # Cohere · OpenAI Responses · llama.cpp · xAI
        r"maximum context length|prompt is too long"
        r"|exceeds the maximum number of tokens|input is too long for requested"
        r"|too many tokens: |exceeds the context window|available context size"
        r"|maximum prompt length",
    ),
    _phrase(
        Kind.CONTENT_POLICY,
        # Azure · Anthropic · OpenAI · OpenAI images · OpenRouter
        r"content management policy|content filtering policy"
        r"|violating our usage policy|our safety system"
        r"|requires moderation|input was flagged",
    ),
    _phrase(
        Kind.AUTH,
        # xAI and Google, with 400 · Google, by country
        r"incorrect api key|api key not valid|api key is invalid"
        r"|location is not supported",
    ),
    _phrase(
        Kind.MISSING,
        # xAI · Bedrock · OpenRouter · Databricks, with 422 · Bedrock, without profile
        r"model not found|model identifier is invalid"
        r"|\bmodel\b[^.]{0,100}(?:does not exist|doesn['\u2019]t exist)"
        r"|on-demand throughput isn",
    ),
    _phrase(
        Kind.UNSUPPORTED,
        # Anthropic, Bedrock, llama.cpp, OpenAI
        r"does not support|doesn['\u2019]t support|not supported (?:with|by|for) this",
    ),
)
"""Words of vendors that have no code for it. Case-folded; the first match holds."""
