"""What the caller is told when every candidate failed.

The one rule: one table, from the kind of failure to what is told. The failure that
says most to the caller wins: a fault of the request before a full provider, that
before a timeout, and all of them before a broken provider; among equals the last.
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
    worst = max(enumerate(errors), key=lambda pair: (_weight(pair[1]), pair[0]))[1]
    error = _tell(worst)
    error.headers = (*error.headers, ("x-should-retry", "false"))
    error.attempts = attempts
    return error


def _weight(error: UpstreamError) -> int:
    if isinstance(error, UpstreamRefused):
        if error.status in _CALLERS_FAULT:
            return 3
        if error.status in _FULL:
            return 2
    return 1 if isinstance(error, UpstreamTimeout) else 0


def _tell(error: UpstreamError) -> GatewayError:
    if isinstance(error, UpstreamRefused):
        return _tell_refused(error)
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


def _tell_refused(error: UpstreamRefused) -> GatewayError:
    status = error.status
    if status in (401, 403):
        message = "The provider refused the gateway's credentials."
        return ProvidersExhausted(message, code="upstream_auth_error")
    if status == 404:
        return ModelNotFound(error.message, param=error.param, code=error.code)
    if status in _CALLERS_FAULT:
        return InvalidRequest(
            error.message, param=error.param, code=error.code, status=status
        )
    if status == 429:
        return RateLimited(
            error.message,
            code=error.code,
            kind=error.kind,
            retry_after=error.retry_after,
        )
    if status in _FULL:
        return Overloaded(
            error.message,
            code=error.code or "upstream_overloaded",
            status=status,
            retry_after=error.retry_after,
        )
    if status in (408, 504):
        return DeadlineExceeded(error.message, code="upstream_timeout")
    code = error.code or "upstream_error"
    return ProvidersExhausted(error.message, code=code)
