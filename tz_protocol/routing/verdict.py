"""What the caller is told when every candidate failed.

The one rule: what is told depends on what the failure means (``classify``), never on
the status alone. The failure that says most to the caller wins: a fault of the request
before a full provider, that before a timeout, and all of them before a broken provider;
among equals the last. What only one candidate cannot do counts for much if it was the
first, whom the caller asked for, and else for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tz_protocol.errors import (
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    ProvidersExhausted,
    RateLimited,
    UpstreamBroken,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamTimeout,
)
from tz_protocol.routing.classify import Kind, classify

__all__ = ["code_of", "told"]

_BROKEN_CODES = {
    "tls": "upstream_tls_error",
    "dns": "upstream_unreachable",
    "refused": "upstream_unreachable",
    "missing": "upstream_unreachable",
    "pool_exhausted": "upstream_pool_exhausted",
    "cut": "upstream_stream_interrupted",
}
_CALLERS_FAULT = frozenset({400, 404, 409, 413, 415, 422})
"""Statuses that are the caller's to see as they are."""
_FULL = frozenset({429, 503, 529})


def code_of(error: UpstreamError) -> str:
    """Return the one-word code of a failed attempt, for records and metrics."""
    if isinstance(error, UpstreamRefused):
        return f"status_{error.status}"
    if isinstance(error, UpstreamTimeout):
        return f"timeout_{error.phase}"
    if isinstance(error, UpstreamBroken):
        return _BROKEN_CODES.get(error.kind, "upstream_disconnected")
    if isinstance(error, UpstreamGarbled):
        return error.code
    return "upstream_error"


def told(errors: Sequence[UpstreamError], attempts: tuple[Any, ...]) -> GatewayError:
    """Return the error for the caller after the attempts that failed with *errors*.

    Args:
        errors: At least one, in the order of the attempts.
        attempts: What a debugging caller may see of each.
    """
    kinds = [classify(error).kind for error in errors]
    worst = max(
        range(len(errors)), key=lambda at: (_weight(errors[at], kinds[at], at), at)
    )
    error = _tell(errors[worst], kinds[worst])
    error.headers = (*error.headers, ("x-should-retry", "false"))
    error.attempts = attempts
    return error


_OF_REQUEST = frozenset({Kind.MALFORMED, Kind.CONTENT_POLICY})
_OF_CANDIDATE = frozenset({Kind.CONTEXT_LENGTH, Kind.UNSUPPORTED, Kind.MISSING})
_SLOW = frozenset({Kind.TIMEOUT, Kind.SLOW})


def _weight(error: UpstreamError, kind: Kind, place: int) -> int:
    if kind in _OF_REQUEST:
        return 4
    if kind in _OF_CANDIDATE:
        return 0 if place else 3
    if kind is Kind.RATE_LIMIT or _is_full(error):
        return 3
    return 2 if kind in _SLOW else 1


def _is_full(error: UpstreamError) -> bool:
    return isinstance(error, UpstreamRefused) and error.status in _FULL


def _tell(error: UpstreamError, kind: Kind) -> GatewayError:
    if isinstance(error, UpstreamRefused):
        return _tell_refused(error, kind)
    if isinstance(error, UpstreamTimeout):
        message = f"The provider did not answer in time ({error.phase})."
        code = (
            "timeout" if error.phase == "total" else f"upstream_{error.phase}_timeout"
        )
        return DeadlineExceeded(message, code=code)
    code = code_of(error)
    if code == "upstream_pool_exhausted":
        message = "Every connection to the provider is in use. Try again later."
        return Overloaded(message, code=code, retry_after=1.0)
    if isinstance(error, UpstreamGarbled):
        message = f"The provider's answer could not be used: {error.message}."
        return ProvidersExhausted(message, code=code)
    return ProvidersExhausted("The provider could not be reached.", code=code)


def _tell_refused(error: UpstreamRefused, kind: Kind) -> GatewayError:
    status = error.status
    if kind is Kind.AUTH:
        # Vendors quote the key, and it is not the caller's.
        message = "The provider refused the gateway's credentials."
        return ProvidersExhausted(message, code="upstream_auth_error")
    if status == 404 or (kind is Kind.MISSING and status in _CALLERS_FAULT):
        return ModelNotFound(error.message, param=error.param, code=error.code)
    if kind in _DEFAULT_CODES or kind is Kind.MALFORMED:
        return InvalidRequest(
            error.message,
            param=error.param,
            code=error.code or _DEFAULT_CODES.get(kind),
            status=status if status in _CALLERS_FAULT or status == 451 else 400,
        )
    if kind is Kind.RATE_LIMIT or status == 429:
        return RateLimited(
            error.message,
            code=error.code,
            kind=error.kind,
            retry_after=error.retry_after,
        )
    if status in _CALLERS_FAULT:
        return InvalidRequest(
            error.message, param=error.param, code=error.code, status=status
        )
    if status in _FULL:
        return Overloaded(
            error.message,
            code=error.code or "upstream_overloaded",
            status=status,
            retry_after=error.retry_after,
        )
    if kind is Kind.SLOW:
        return DeadlineExceeded(error.message, code="upstream_timeout")
    code = error.code or "upstream_error"
    return ProvidersExhausted(error.message, code=code)


_DEFAULT_CODES: dict[Kind, str] = {
    Kind.CONTEXT_LENGTH: "context_length_exceeded",
    Kind.CONTENT_POLICY: "content_policy_violation",
    Kind.UNSUPPORTED: "unsupported_value",
}
"""OpenAI's codes, where the provider named none."""
