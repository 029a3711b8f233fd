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
from tz_protocol.types.tokens import Grant
from tz_protocol.wire.sigv4 import AwsCredentials

__all__ = ["Authorize", "Deviations", "Provider", "Reply", "Responder", "Sign"]

Authorize = Callable[[HttpRequest, Secret | None, float], Headers]
"""(request, key, wall time in Unix seconds) -> the headers that authorise it."""

Sign = Callable[[HttpRequest, ProviderSettings, AwsCredentials, str, float], Headers]
"""(request with the vendor's own path, settings, the process's own credentials, the
region of its surroundings or an empty text, wall time in Unix seconds) -> the headers
that authorise it. Raises ``InvalidRequest`` if it is not known for which region."""


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
    implied: Mapping[str, bytes] = field(default_factory=dict)
    """Parameters they refuse in the one value that they mean without it, as JSON."""
    quirks: frozenset[str] = frozenset()
    """What their messages say otherwise, by the dialect's names for it."""
    switches: Mapping[str, str] = field(default_factory=dict)
    """Key of the provider's table that says ``true`` or ``false`` -> the quirk that it
    states, whatever ``quirks`` says."""

    def quirks_with(self, options: Mapping[str, str]) -> frozenset[str]:
        """Return the quirks of a provider whose table has *options*."""
        quirks = self.quirks
        for key, quirk in self.switches.items():
            stated = options.get(key)
            if stated is not None:
                quirks = quirks | {quirk} if stated == "true" else quirks - {quirk}
        return quirks


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
    locate: Callable[[Mapping[str, str]], str] | None = None
    """Options of the table -> base URL, where there is no one ``base_url``."""
    grant: Callable[[Secret], Grant | None] | None = None
    """The key -> what a token is got for, None if the key is sent as it is. Raises
    ``UpstreamError``. ``authorize`` then takes the token for the key."""
    sign: Sign | None = None
    """Takes the place of ``authorize`` where there is no key: the vendor then knows us
    by the process's own credentials (AWS)."""
    responder: Responder | None = None
    """Set for a provider that answers in the core."""

    def dialect_of(
        self, capability: str, options: Mapping[str, str]
    ) -> AnyDialect | None:
        """Return how *capability* is spoken, None if it is not.

        Args:
            capability: Such as ``chat``.
            options: Of the provider's table.
        """
        dialect = self.dialects.get(capability)
        if dialect is None or dialect.adapted is None:
            return dialect
        quirks = self.deviations.quirks_with(options)
        return dialect.adapted(quirks) if quirks else dialect
