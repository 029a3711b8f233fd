"""What every parsed request has, whatever its endpoint."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from tz_protocol.types.records import CacheOptions, Capture
from tz_protocol.types.secret import Secret

__all__ = ["Extensions", "Identity", "ParsedRequest", "Target"]


class Extensions(msgspec.Struct, frozen=True, kw_only=True):
    """The ``tensorzero::`` fields of a request; they never reach a provider."""

    credentials: dict[str, Secret] = {}
    """Values for ``dynamic::NAME`` credential locations."""
    episode_id: str | None = None
    """A UUIDv7 that groups exchanges; None makes a new one."""
    tags: dict[str, str] = {}
    """Free labels for the record."""
    dryrun: bool = False
    """True: leave no record."""
    cache_options: CacheOptions = CacheOptions()
    capture: Capture | None = None
    """How much of the content may be kept; None: as the configuration says."""


class ParsedRequest(msgspec.Struct, kw_only=True):
    """A client's request, decoded only as far as the gateway interprets it."""

    model: str
    """The public name that the client asked for; may be empty, never missing."""
    is_stream: bool = False
    """True if the client asked for a stream of events."""
    fields: dict[str, Raw] = {}
    """Every top-level JSON member as the client wrote it, without ``model`` and the
    ``tensorzero::`` ones; empty for bodies that are not JSON."""
    extensions: Extensions = Extensions()
    neutral: Any = None
    """The same request in neutral types, made when a candidate first needs it (a
    ``Conversation`` for chat); ``fields`` stays what it was."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a dialect renders a request for."""

    provider: str
    """The provider's type, such as ``groq``: the row's name."""
    model: str
    """The model's name at the provider."""
    options: dict[str, str] = {}
    """Further keys of the provider's table, such as ``deployment_id``."""
    renames: dict[str, str] = {}
    """Deviation: our parameter's name -> the provider's."""
    unsupported: frozenset[str] = frozenset()
    """Deviation: parameters that this provider refuses."""
    implied: dict[str, bytes] = {}
    """Deviation: parameters that this provider refuses in the one value that it means
    without them, as JSON."""
    extra_body: dict[str, Raw] = {}
    """Top-level members that the config adds or replaces."""
    emulated_choices: int = 8
    """How many answers (``n``, or one for each text) may be had by asking as often."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway stamps on every answer."""

    id: str
    """Our UUIDv7 of the exchange."""
    episode_id: str
    model: str
    """Public name of the model that answered."""
    created: int
    """Unix seconds."""
