"""Errors in OpenAI's words: told to clients, and heard from providers.

The one rule: what a provider says of its failure is read here, whatever shape it has,
and what a caller is told leaves from here. Which status a failure becomes is
``routing``'s business.

Providers that speak OpenAI's format say their errors in a dozen shapes; the ones read
here are those of the vendors in ``providers/openai_family.py``. Nothing that looks like
a key leaves with a provider's message, nor any
address that could be the one that was called.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from tz_protocol.dialects.base import Answer
from tz_protocol.errors import GatewayError, UpstreamRefused
from tz_protocol.types.http import Headers, ResponseHead
from tz_protocol.wire.json import value_of

__all__ = [
    "JSON_HEADERS",
    "error_value",
    "parse_error",
    "refusal",
    "render_error",
    "retry_after",
]

JSON_HEADERS: Headers = (("content-type", "application/json"),)

MESSAGE_LIMIT = 2_000
"""Characters of a provider's message that are kept."""

TEXT_LIMIT = 300
"""Characters of an error body that is not JSON; longer ones are pages."""

RETRY_AFTER_LIMIT = 86_400.0
"""Seconds; clients wait as long as they are told, however long that is."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


# -- told to clients ------------------------------------------------------------


def error_value(error: GatewayError) -> dict[str, Any]:
    """Return OpenAI's error object: all four members are always there."""
    return {
        "message": error.message,
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }


def render_error(error: GatewayError, debug: bool) -> Answer:
    """Return the answer that tells a client of *error*.

    Args:
        error: What happened.
        debug: True adds the attempts at providers, if there were any.
    """
    value = error_value(error)
    if debug and error.attempts:
        value["attempts"] = error.attempts
    headers = (*JSON_HEADERS, *_retry_headers(error.retry_after), *error.headers)
    return ResponseHead(error.status, headers), _encode({"error": value})


def _retry_headers(seconds: float | None) -> Headers:
    if seconds is None or not math.isfinite(seconds):
        return ()
    seconds = max(0.0, seconds)
    return (
        ("retry-after", str(math.ceil(seconds))),
        ("retry-after-ms", str(math.ceil(seconds * 1000))),
    )


# -- heard from providers -------------------------------------------------------


def parse_error(head: ResponseHead, body: bytes) -> UpstreamRefused:
    """Return what a provider's answer that is not 2xx stands for."""
    wait = retry_after(head)
    error = _members(value_of(body), is_error=True)
    if error is None:
        return UpstreamRefused(head.status, _text(head, body), retry_after=wait)
    return _refused(error, head.status, wait)


def refusal(value: Any, *, is_error: bool = False) -> UpstreamRefused | None:
    """Return the error that a decoded JSON value in a 2xx answer states, if it does.

    Args:
        value: The decoded JSON.
        is_error: True if it is known from elsewhere to state one.
    """
    error = _members(value, is_error=is_error)
    return None if error is None else _refused(error, None, None)


def _members(value: Any, *, is_error: bool) -> Mapping[str, Any] | None:
    """Return the members that describe the error in *value*, None if there is none.

    Args:
        value: Decoded JSON.
        is_error: True if the status says that it is one: then a bare ``message`` or
            ``detail`` counts too.
    """
    if isinstance(value, list) and value:
        # Google's OpenAI-compatible endpoint sends [{"error": ...}].
        value = value[0]
    if isinstance(value, str):
        return {"message": value} if is_error and value else None
    if not isinstance(value, dict):
        return None
    inner = value.get("error")
    if inner:
        if isinstance(inner, dict):
            return inner
        # xAI: {"code": "...", "error": "text"}; TGI: {"error", "error_type"};
        # Hugging Face: {"error": ["text", ...]}.
        return {
            **value,
            "message": _sentence(inner),
            "type": value.get("error_type"),
        }
    # vLLM's older releases and Mistral: {"object": "error", "message": ...}.
    is_error = (
        is_error or value.get("object") == "error" or value.get("type") == "error"
    )
    if not is_error:
        return None
    for name in _MESSAGES:
        if text := _sentence(value.get(name)):
            return {**value, "message": text}
    return value


_MESSAGES = ("message", "detail", "errors", "error_msg", "msg", "title")
"""Members that say what is wrong, the most telling first."""


def _sentence(value: Any, depth: int = 4) -> str:
    """Return a message in words: FastAPI's ``detail`` is a list of objects, say.

    Args:
        value: Decoded JSON.
        depth: How far down words are looked for.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth:
        texts = [_sentence(item, depth - 1) for item in value]
        return "; ".join(filter(None, texts))
    if isinstance(value, dict) and depth:
        found = (value.get(name) for name in (*_MESSAGES, "error"))
        text = next(filter(None, (_sentence(one, depth - 1) for one in found)), "")
        place = value.get("loc")
        if text and isinstance(place, list):
            words = [part for item in place if (part := _word(item))]
            return f"{'.'.join(words)}: {text}"
        return text
    return ""


def _refused(
    error: Mapping[str, Any], status: int | None, wait: float | None
) -> UpstreamRefused:
    message = _sentence(error.get("message") or error.get("error"))
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        # OpenRouter: its own message says only that the vendor behind it said no.
        message = f"{message}: {_inner(metadata['raw'])}"
    kind, code, param = (_word(error.get(name)) for name in ("type", "code", "param"))
    if status is None:
        status = _status_of(error, kind, code)
    if status == 400 and _BAD_KEY.search(message):
        # xAI and Google's endpoint say 400 for a key that is not valid.
        status = 401
    return UpstreamRefused(
        status,
        _clean(message) or _unexplained(status),
        kind=kind,
        # OpenRouter, Azure and vLLM repeat the status as the code.
        code=None if code == str(status) else code,
        param=param,
        retry_after=wait,
    )


def _inner(raw: str) -> str:
    """Return what an error within an error says; it may be JSON itself."""
    error = _members(value_of(raw.encode()), is_error=True)
    return _sentence(error.get("message")) if error else raw


def _word(value: Any) -> str | None:
    """Return a code or type as text; numbers are codes at Mistral."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 1_000_000 else None
    return _clean(value)[:128] if isinstance(value, str) and value else None


_STATUSES = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded_error": 503,
    "timeout_error": 504,
    "BadRequestError": 400,
    "NotFoundError": 404,
    "RateLimitError": 429,
}
"""By error code or type: the status that an error in a 2xx answer stands for."""


def _status_of(error: Mapping[str, Any], kind: str | None, code: str | None) -> int:
    for name in ("status", "code", "status_code", "raw_status_code"):
        text = _word(error.get(name))
        if text is not None and re.fullmatch("[45][0-9]{2}", text):
            return int(text)
    return _STATUSES.get(code or "") or _STATUSES.get(kind or "") or 500


def _unexplained(status: int) -> str:
    return f"The provider answered with status {status} and no explanation."


def _text(head: ResponseHead, body: bytes) -> str:
    """Return the words of an error body that is not JSON, if it has any."""
    kind = (head.get("content-type") or "text/plain").partition(";")[0].strip().lower()
    if kind == "text/plain" and len(body) <= TEXT_LIMIT * 4:
        text = " ".join(body.decode("utf-8", "replace").split())
        if text and text.isprintable() and text[0] not in "<{[":
            return _clean(text[:TEXT_LIMIT])
    return _unexplained(head.status)


# -- nothing secret leaves ------------------------------------------------------

_BAD_KEY = re.compile(
    r"(?i)\b(?:incorrect|invalid)\b.{0,20}\bapi key\b|\bapi key not valid\b"
)

_SECRET = re.compile(
    r"(?i)\bbearer\s+\S+"
    r"|\b(?:sk|pk|rk|gsk|xai|fw|hf|nvapi|pplx|r8|tgp|csk|AKIA|ASIA|AIza)"
    r"[-_A-Za-z0-9*]{12,}"
    r"|(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[0-9A-Za-z]{32,}(?![\w-])"
)
"""Keys as vendors make them, also with stars in the middle; and any long word of
letters and digits, as Azure's and Mistral's are."""

_ADDRESS = re.compile(r"(?i)\b(?:https?|wss?)://[^\s'\"<>)\]]+")
_PRIVATE = re.compile(
    # User information; a host that is a number or has no dot or a local name; and the
    # paths under which these APIs are served.
    r"(?i)\w+://(?:[^/?#]*@|\[|[\d.]+(?:[:/?#]|$)|[^./?#]+(?:[:/?#]|$)"
    r"|[^/?#]*\.(?:internal|local|localhost|lan|svc|test)\b"
    r"|.*/v\d\w*/|.*/openai/|.*/(?:completions|embeddings)\b)"
)


def _clean(message: str) -> str:
    """Return *message* cut to size, without keys and without our own addresses.

    Addresses of help pages stay, and so does that of a picture that the provider could
    not load: the caller sent it.
    """
    message = _SECRET.sub("[removed]", message[:MESSAGE_LIMIT])
    return _ADDRESS.sub(_address, message)


def _address(found: re.Match[str]) -> str:
    return "[address removed]" if _PRIVATE.match(found[0]) else found[0]


# -- when to come back ----------------------------------------------------------

_DATE = re.compile(
    r"[A-Z][a-z]{2}, (\d{2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT"
)
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


def retry_after(head: ResponseHead) -> float | None:
    """Return after how many seconds a provider wants to be asked again.

    ``retry-after-ms`` (OpenAI's, finer) before ``retry-after``, whose date counts from
    the ``date`` of the same answer, since the core has no clock (RFC 9110, 10.2.3).
    """
    milliseconds = _number(head.get("retry-after-ms"))
    if milliseconds:
        return min(milliseconds / 1000, RETRY_AFTER_LIMIT)
    value = head.get("retry-after")
    seconds = _number(value)
    if seconds is None and value is not None:
        until, now = _date(value), _date(head.get("date") or "")
        if until is not None and now is not None:
            seconds = max(0.0, (until - now) / timedelta(seconds=1))
    if seconds is None:
        # Azure sends "retry-after-ms: 0" beside the seconds that it means.
        return milliseconds
    return min(seconds, RETRY_AFTER_LIMIT)


def _number(value: str | None) -> float | None:
    if value is None or not re.fullmatch(r"\s*[0-9]{1,15}(?:\.[0-9]{0,15})?\s*", value):
        return None
    return float(value)


def _date(value: str) -> datetime | None:
    """Return the moment that an IMF-fixdate (RFC 9110, 5.6.7) is."""
    found = _DATE.fullmatch(value.strip())
    if found is None:
        return None
    day, name, year, hour, minute, second = found.groups()
    month = _MONTHS.find(name) // 3 + 1
    try:
        return datetime(
            int(year), month, int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except ValueError:
        return None
