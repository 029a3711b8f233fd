"""Bedrock's and SageMaker's errors -> what they stand for.

The one rule: the type decides, wherever it is said: in a header beside a status, in the
headers of a message within a stream. One table translates it into OpenAI's type and
code and into the status that it comes with.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/
troubleshooting-api-error-codes.html; .../bedrock/latest/APIReference/
API_runtime_ConverseStream.html, "Errors"; .../sagemaker/latest/APIReference/
API_runtime_InvokeEndpoint.html, "Errors"; .../IAM/latest/APIReference/
CommonErrors.html.
"""

from __future__ import annotations

from typing import Any

from tz_protocol.dialects import openai_errors
from tz_protocol.errors import UpstreamRefused
from tz_protocol.types.http import ResponseHead
from tz_protocol.wire.eventstream import EventMessage
from tz_protocol.wire.json import value_of

__all__ = ["error_in_stream", "parse_error"]

_INVALID = (400, "invalid_request_error", None)
_BAD_KEY = (401, "authentication_error", "invalid_api_key")
_DENIED = (403, "permission_error", "permission_denied")
_UNKNOWN = (404, "invalid_request_error", "model_not_found")
_THROTTLED = (429, "rate_limit_error", "rate_limit_exceeded")
_FAILED = (424, "api_error", "model_error")
_BROKEN = (500, "server_error", None)
_FULL = (503, "server_error", "overloaded")

_WORDS: dict[str, tuple[int, str, str | None]] = {
    "validationexception": _INVALID,
    "validationerror": _INVALID,
    "malformedhttprequestexception": _INVALID,
    "serializationexception": _INVALID,
    "unrecognizedclientexception": _BAD_KEY,
    "invalidclienttokenid": _BAD_KEY,
    "expiredtokenexception": _BAD_KEY,
    "expiredtoken": _BAD_KEY,
    "requestexpired": _BAD_KEY,
    "invalidsignatureexception": _BAD_KEY,
    "signaturedoesnotmatch": _BAD_KEY,
    "incompletesignature": _BAD_KEY,
    "incompletesignatureexception": _BAD_KEY,
    "missingauthenticationtoken": _BAD_KEY,
    "missingauthenticationtokenexception": _BAD_KEY,
    "notauthorized": _DENIED,
    "optinrequired": _DENIED,
    "accessdenied": _DENIED,
    "accessdeniedexception": _DENIED,
    "resourcenotfoundexception": _UNKNOWN,
    "modeltimeoutexception": (408, "timeout_error", "timeout"),
    "modelerror": _FAILED,
    "modelerrorexception": _FAILED,
    "modelstreamerror": _FAILED,
    "modelstreamerrorexception": _FAILED,
    "throttling": _THROTTLED,
    "throttlingexception": _THROTTLED,
    "toomanyrequestsexception": _THROTTLED,
    "modelnotreadyexception": (429, "server_error", "overloaded"),
    "servicequotaexceededexception": (429, "insufficient_quota", "insufficient_quota"),
    "internalfailure": _BROKEN,
    "internalserverexception": _BROKEN,
    "internalstreamfailure": _BROKEN,
    "internaldependencyexception": (530, "server_error", None),
    "serviceunavailable": _FULL,
    "serviceunavailableexception": _FULL,
}
"""The type in lower case -> its own status, OpenAI's type and code. In a stream the
first letter is small, elsewhere it is not."""

_BY_STATUS: dict[int, tuple[int, str, str | None]] = {
    400: _INVALID,
    403: _DENIED,
    404: _UNKNOWN,
    408: _WORDS["modeltimeoutexception"],
    424: _FAILED,
    429: _THROTTLED,
    500: _BROKEN,
    503: _FULL,
}
"""For errors without a type: proxies lose the header."""

_TOO_LONG = (
    "input is too long",
    "prompt is too long",
    "too many input tokens",
    "maximum context length",
    "expected maxlength",
)
"""How models say, in lower case, what OpenAI calls context_length_exceeded."""


def parse_error(head: ResponseHead, body: bytes) -> UpstreamRefused:
    """Return what an answer that is not 2xx stands for."""
    value = value_of(body)
    members = value if isinstance(value, dict) else {}
    kind = head.get("x-amzn-errortype") or members.get("__type") or ""
    if (inner := _of_container(members, head)) is not None:
        return inner
    if "Message" in members and "message" not in members:
        # SageMaker's spelling, and that of the services before both.
        heard = openai_errors.refusal({"message": members["Message"]}, is_error=True)
    else:
        heard = openai_errors.parse_error(head, body)
    wait = openai_errors.retry_after(head)
    return _in_our_words(heard, str(kind), head.status, wait)


def error_in_stream(message: EventMessage) -> UpstreamRefused:
    """Return what *message* stands for, which is not an event.

    Exceptions are of the service's model and have a type; other errors of the
    connection have a code and say the rest in a header too.
    """
    kind = message.text(":exception-type") or message.text(":error-code")
    value = value_of(message.payload)
    members = value if isinstance(value, dict) else {}
    text = (
        members.get("message")
        or members.get("Message")
        or message.text(":error-message")
        or "The provider broke the stream off without an explanation."
    )
    heard = openai_errors.refusal({"message": text}, is_error=True)
    return _in_our_words(heard, kind, None, None)


def _in_our_words(
    heard: UpstreamRefused | None, kind: str, status: int | None, wait: float | None
) -> UpstreamRefused:
    """Return *heard* translated.

    Args:
        heard: Its message counts.
        kind: The vendor's type; a namespace before and an address after it are left
            out.
        status: As it came; None if it came within an answer of 200.
        wait: Seconds after which to come back, if it was said.
    """
    name = kind.partition(":")[0].rpartition("#")[2].strip().lower()
    words = _WORDS.get(name)
    if words is None:
        words = _BY_STATUS.get(status or 500, (status or 500, "server_error", None))
    own, told, code = words
    # The vendor says 403 for keys that are not valid.
    is_own = status is None or own == 401
    message = "" if heard is None else heard.message
    lowered = message.lower()
    if told == "invalid_request_error" and any(text in lowered for text in _TOO_LONG):
        code = "context_length_exceeded"
    return UpstreamRefused(
        own if is_own or status is None else status,
        message,
        kind=told,
        code=code,
        retry_after=wait,
    )


def _of_container(
    members: dict[str, Any], head: ResponseHead
) -> UpstreamRefused | None:
    """Return the error of the container behind a SageMaker endpoint, if it is one."""
    status, text = members.get("OriginalStatusCode"), members.get("OriginalMessage")
    if type(status) is not int or not 400 <= status < 600 or type(text) is not str:
        return None
    return openai_errors.parse_error(ResponseHead(status, head.headers), text.encode())
