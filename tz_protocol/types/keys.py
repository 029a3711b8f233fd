"""API keys as the gateway knows them: by digest, never the key itself.

The one rule: everything here is immutable and holds no key, so that it may be printed,
logged and compared. Reading a key from a request is ``routing/keys.py``'s business,
Redis ``flows/keymirror.py``'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from tz_protocol.types.secret import Secret

if TYPE_CHECKING:
    from tz_protocol.types.settings import Model

__all__ = [
    "WEAK_BELOW",
    "Access",
    "Grant",
    "KeyLimits",
    "KeyTable",
    "ModelReader",
    "Principal",
    "digest_of",
]

WEAK_BELOW = 20
"""Characters: a key that is shorter can be guessed; loading one warns."""

KeyTable: TypeAlias = "Mapping[bytes, Principal]"
"""By SHA-256 digest of the key."""

ModelReader: TypeAlias = "Callable[[str, bytes], Model]"
"""(id in the model table, JSON of one model) -> model; raises ``ValueError``."""


class Grant(msgspec.Struct, frozen=True, gc=False):
    """What one public model name means to the holder of a key."""

    endpoint_id: str
    """Id in the model table: a name of ``[models]``, or an entry of ``model_table:*``,
    or ``type::model``."""
    model_id: str = ""
    """For the record only."""
    project_id: str = ""
    """For the record only."""


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one key may use; None: as much as there is."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    budget_per_day: Decimal | None = None
    """In the currency of the prices; days are UTC."""
    budget_per_month: Decimal | None = None
    """Calendar months, UTC."""

    @property
    def has_budget(self) -> bool:
        """True if money is counted."""
        return self.budget_per_day is not None or self.budget_per_month is not None


NO_LIMITS = KeyLimits()


class Principal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who calls: what one key may do."""

    digest: bytes
    """What it is looked up by; not a credential."""
    models: Mapping[str, Grant]
    """By public name."""
    limits: KeyLimits = NO_LIMITS
    expires_at: float | None = None
    """Unix seconds; from then on the key is none."""
    is_disabled: bool = False
    note: str = ""

    @property
    def key_id(self) -> str:
        """Sixteen hexadecimal digits, for people and records; not a credential."""
        return self.digest[:8].hex()

    def reaches(self, table_id: str) -> bool:
        """Return True if some public name of this key means that model."""
        return any(grant.endpoint_id == table_id for grant in self.models.values())


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Authentication is on, and this is how."""

    keys: KeyTable = {}
    """From ``[api_keys]``; they do not depend on Redis."""
    redis_url: Secret | None = None
    """None: there are no other keys, and nothing is shared."""
    read_model: ModelReader | None = None
    """Reads what ``model_table:*`` holds; None: no model comes from Redis."""
    on_unavailable: Literal["cached", "deny"] = "cached"
    cached_for: float = 300.0
    """Seconds for which known keys work while Redis is away."""
    processes: int = 1
    """Among how many of this machine each limit is divided; 1 with Redis, which
    shares the figures instead."""


def digest_of(key: bytes) -> bytes:
    """Return what a key is looked up by."""
    return hashlib.sha256(key).digest()
