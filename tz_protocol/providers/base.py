"""What a provider is: a vendor as a row, with its deviations as data.

The one rule: no provider knows another, and none converts; both are the dialects'
business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tz_protocol.dialects.base import AnyDialect
from tz_protocol.machine import Context
from tz_protocol.operations import Flow
from tz_protocol.types.http import Headers, HttpRequest, ResponseHead
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import ProviderSettings

__all__ = ["Authorize", "Deviations", "Provider", "Reply", "Responder"]

Authorize = Callable[[HttpRequest, Secret | None, float], Headers]
"""(request, key, wall time in Unix seconds) -> the headers that authorise it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a provider that lives in the core (``dummy``)."""

    head: ResponseHead
    body: Callable[[float], Flow[bytes]]
    """(deadline) -> flow of the next piece, ``b""`` at the end. It may sleep, and may
    raise ``UpstreamError``."""


Responder = Callable[
    [HttpRequest, ProviderSettings, Secret | None, float, Context], Flow[Reply]
]
"""(request, settings, key, deadline, context) -> the reply, without any socket.

The context says what time it is, without which nothing could sleep for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviations:
    """How a vendor's OpenAI differs from OpenAI's."""

    renames: Mapping[str, str] = field(default_factory=dict)
    """Our parameter's name -> theirs."""
    unsupported: frozenset[str] = frozenset()
    """Parameters they refuse; dropped and reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One vendor."""

    name: str
    """``type`` in the configuration."""
    base_url: str | None
    """None: the table must say ``api_base`` (or, for azure, ``endpoint``)."""
    credential: str | None
    """Default location of the key, such as ``env::OPENAI_API_KEY``."""
    is_key_optional: bool = False
    """True: ``none`` is allowed, and meant if the default variable is not set."""
    authorize: Authorize
    dialects: Mapping[str, AnyDialect]
    """By capability. A capability is supported if and only if it is here."""
    required: tuple[str, ...] = ("model_name",)
    """Keys that the table must have."""
    optional: tuple[str, ...] = ()
    """Keys that the table may have beyond the common ones."""
    has_shorthand: bool = True
    """True: ``name::model`` works without a table."""
    deviations: Deviations = Deviations()
    paths: Mapping[str, str] = field(default_factory=dict)
    """Relative request path -> theirs, with ``{deployment_id}`` and other options
    filled in (azure)."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """What ``paths`` takes for options that the table does not set."""
    responder: Responder | None = None
    """Set for a provider that answers in the core."""
