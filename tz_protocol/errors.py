"""Every error of the core, and how each is told.

The one rule: an error that may reach a client is a :class:`GatewayError` and is
rendered once, in the caller's dialect. Everything else stays inside: an
:class:`OperationError` is thrown into a flow by its machine and never leaves the
core, a :class:`ProtocolError` means that a codec saw illegal bytes. A bug is not an
error class: it propagates, is logged once, and the connection answers 500.

Messages say what was wrong, where, and what was expected; never a secret, never an
upstream's URL, never the repr of a body.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "Cancelled",
    "CapabilityNotSupported",
    "ClientBroken",
    "ClientError",
    "ClientTimeout",
    "ConfigError",
    "ConfigProblem",
    "DeadlineExceeded",
    "Forbidden",
    "GatewayError",
    "Interrupted",
    "InvalidRequest",
    "LocalProtocolError",
    "MethodNotAllowed",
    "ModelNotFound",
    "OperationBroken",
    "OperationError",
    "OperationTimeout",
    "Overloaded",
    "ProtocolError",
    "ProvidersExhausted",
    "RateLimited",
    "RemoteProtocolError",
    "RouteNotFound",
    "StoreBroken",
    "StoreError",
    "StoreRefused",
    "StoreTimeout",
    "TooLarge",
    "Unauthenticated",
    "UnsupportedMediaType",
    "UpstreamBroken",
    "UpstreamError",
    "UpstreamGarbled",
    "UpstreamRefused",
    "UpstreamTimeout",
    "kind_of",
]


class GatewayError(Exception):
    """Told to the client; ``endpoint.dialect.render_error`` makes the bytes.

    Args:
        message: What was wrong and what was expected, in one or two sentences.
        param: The request's field that was wrong, as a dotted path, if one was.
        code: Machine-readable code; None takes the class's default.
        status: HTTP status; None takes the class's default.
        kind: OpenAI's ``error.type``; None takes the class's default.
        headers: Further response headers, such as ``Allow``.
        retry_after: Seconds after which to come back, or None.
    """

    default_status: ClassVar[int] = 500
    default_kind: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    attempts: tuple[Any, ...] = ()
    """What a debugging caller may see of the attempts behind this error."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        kind: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = self.default_code if code is None else code
        self.status = self.default_status if status is None else status
        self.kind = self.default_kind if kind is None else kind
        self.headers = headers
        self.retry_after = retry_after


class InvalidRequest(GatewayError):
    """The request cannot be understood or carries a value that is not allowed."""

    default_status = 400
    default_kind = "invalid_request_error"


class CapabilityNotSupported(GatewayError):
    """The model exists and cannot do what the endpoint needs."""

    default_status = 400
    default_kind = "invalid_request_error"
    default_code = "capability_not_supported"


class Unauthenticated(GatewayError):
    """No key, or one that is not known."""

    default_status = 401
    default_kind = "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(GatewayError):
    """The key is known and may not do this."""

    default_status = 403
    default_kind = "permission_error"
    default_code = "permission_denied"


class ModelNotFound(GatewayError):
    """No such model, or none that this caller may know of."""

    default_status = 404
    default_kind = "invalid_request_error"
    default_code = "model_not_found"


class RouteNotFound(GatewayError):
    """No such path."""

    default_status = 404
    default_kind = "invalid_request_error"
    default_code = "route_not_found"


class MethodNotAllowed(GatewayError):
    """The path exists and does not know this method; carries ``Allow``."""

    default_status = 405
    default_kind = "invalid_request_error"
    default_code = "method_not_allowed"


class TooLarge(GatewayError):
    """The request's body is over the limit."""

    default_status = 413
    default_kind = "invalid_request_error"
    default_code = "request_too_large"


class UnsupportedMediaType(GatewayError):
    """The request's content type or encoding is not one that we read."""

    default_status = 415
    default_kind = "invalid_request_error"
    default_code = "unsupported_media_type"


class RateLimited(GatewayError):
    """Too many requests, here or at the provider."""

    default_status = 429
    default_kind = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class ProvidersExhausted(GatewayError):
    """Every candidate failed; ``attempts`` says how."""

    default_status = 502
    default_kind = "server_error"
    default_code = "upstream_error"


class Overloaded(GatewayError):
    """The gateway itself is full or is going down; come back later."""

    default_status = 503
    default_kind = "server_error"
    default_code = "overloaded"


class DeadlineExceeded(GatewayError):
    """The exchange's total time is over."""

    default_status = 504
    default_kind = "timeout_error"
    default_code = "timeout"


# -- thrown into flows ----------------------------------------------------------


class OperationError(Exception):
    """An operation did not succeed; thrown by the machine at the ``yield``."""


class OperationTimeout(OperationError):
    """The operation's deadline passed. ``stage`` is ``"write"`` or ``"read"``."""

    def __init__(self, stage: str = "") -> None:
        super().__init__(f"timed out{' in ' + stage if stage else ''}")
        self.stage = stage


class OperationBroken(OperationError):
    """The world failed. ``kind`` is one of ``kind_of``'s words."""

    def __init__(self, kind: str, detail: str = "", stage: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail
        self.stage = stage


class UpstreamError(OperationError):
    """One attempt at one provider failed; routing decides what follows."""


class UpstreamTimeout(UpstreamError):
    """The provider was too slow. ``phase``: connect, first_content, idle, total."""

    def __init__(self, phase: str) -> None:
        super().__init__(f"the provider timed out ({phase})")
        self.phase = phase


class UpstreamBroken(UpstreamError):
    """The connection could not be made or was lost."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"the connection to the provider failed ({kind})")
        self.kind = kind
        self.detail = detail


class UpstreamRefused(UpstreamError):
    """The provider answered with an error, by status or in the body.

    Args:
        status: The provider's status, or the status that its error stands for.
        message: The provider's own words, with secrets removed.
        kind: The provider's error type, if it named one.
        code: The provider's error code, if it named one.
        param: The request field it blamed, if it named one.
        retry_after: Seconds, from ``retry-after-ms`` or ``retry-after``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"the provider answered {status}: {message}")
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after = retry_after


class UpstreamGarbled(UpstreamError):
    """The provider's answer is not what its protocol allows."""

    def __init__(self, message: str, code: str = "upstream_invalid_response") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class ClientError(OperationError):
    """The caller failed; nothing can be answered any more, or only a refusal."""


class ClientTimeout(ClientError):
    """The caller was too slow to send its body or to read its answer."""


class ClientBroken(ClientError):
    """The caller's connection was lost."""


class StoreError(OperationError):
    """Redis or ClickHouse failed; cache and records degrade, authentication not."""


class StoreTimeout(StoreError):
    """A store did not answer in time."""


class StoreBroken(StoreError):
    """A store could not be reached or answered with an error."""


class StoreRefused(StoreError):
    """A store answered one command with an error.

    Args:
        code: The error's first word, in capitals, such as ``WRONGTYPE`` or ``NOAUTH``.
            The rest of what the server says is not kept: it may quote what was sent.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"the store answered with the error {code}")
        self.code = code


class Cancelled(BaseException):
    """The exchange is over; thrown by ``Machine.cancel``. Nothing may be asked."""


class Interrupted(BaseException):
    """An event ended the outstanding operation; a goodbye may still be asked for.

    Derives from ``BaseException`` so that no fallback loop takes it for a failure of
    the provider.
    """

    def __init__(self, event: object) -> None:
        super().__init__(event)
        self.event = event


# -- codecs and configuration ---------------------------------------------------


class ProtocolError(Exception):
    """A codec saw bytes, or was asked for a step, that the protocol forbids."""


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol forbids: a bug on this side."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids.

    Args:
        message: What was wrong, without echoing what was sent.
        status: The status that a server answers with.
        code: Machine-readable reason, also the metric's label.
    """

    def __init__(
        self, message: str, *, status: int = 400, code: str = "bad_request"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code


class ConfigProblem:
    """One thing wrong in a configuration: where, what, and what was expected."""

    __slots__ = ("file", "line", "message", "path")

    def __init__(self, file: str, line: int | None, path: str, message: str) -> None:
        self.file = file
        self.line = line
        self.path = path
        self.message = message

    def __str__(self) -> str:
        """Return ``file:line: dotted.path: message``."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        parts = [part for part in (place, self.path, self.message) if part]
        return ": ".join(parts)


class ConfigError(Exception):
    """The configuration cannot be used; ``problems`` lists everything found."""

    def __init__(self, problems: list[ConfigProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


_KINDS: dict[str, str] = {
    "SSLError": "tls",
    "gaierror": "dns",
    "ConnectionRefusedError": "refused",
    "FileNotFoundError": "missing",
    "KeyError": "missing",
    "TimeoutError": "timeout",
}


def kind_of(error: BaseException) -> str:
    """Return the core's one word for a driver's exception.

    One of ``tls``, ``dns``, ``refused``, ``missing``, ``timeout`` or ``reset``.
    Classes are matched by name along the MRO, so that the core imports no library
    that performs I/O and no driver needs a table of its own. Libraries wrap what they
    were told: where a class says nothing, its cause is asked.
    """
    cause: BaseException | None = error
    while cause is not None:
        for cls in type(cause).__mro__:
            word = _KINDS.get(cls.__name__)
            if word is not None:
                return word
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        elif isinstance(cause, OSError):
            cause = cause.__cause__
        else:
            cause = cause.__cause__ or cause.__context__
    return "reset"
