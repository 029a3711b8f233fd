"""Who calls, and what a model's name means to them.

The one rule: there is one way from a request's head to a :class:`Principal`, and every
request takes all of it: a key that is missing, malformed, ambiguous, unknown, expired
or disabled is the same error, byte for byte. Nothing waits here: Redis is mirrored by
``flows/keymirror.py``, which hands in whole tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from tz_protocol.errors import GatewayError, ModelNotFound, Overloaded, Unauthenticated
from tz_protocol.routing.candidates import NAME_PREFIXES, resolve
from tz_protocol.types.http import RequestHead
from tz_protocol.types.keys import Access, KeyTable, Principal, digest_of
from tz_protocol.types.settings import Model, Snapshot

if TYPE_CHECKING:
    from tz_protocol.providers.base import Provider

__all__ = ["CURRENT_FOR", "KeyBook", "is_loopback_peer", "model_for", "models_of"]

CURRENT_FOR = 5.0
"""Seconds after the last word from Redis in which its tables count as current. It is
asked every second; this is what a slow loop may add."""

_AGAIN_AFTER = 1.0

_CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key"})

_NOBODY: KeyTable = MappingProxyType({})
_NO_MODELS: Mapping[str, Model] = MappingProxyType({})


class KeyBook:
    """The keys and models of the process that come from Redis, and their age."""

    __slots__ = ("_heard", "_is_away", "keys", "models")

    def __init__(self) -> None:
        self.keys: KeyTable | None = None
        """None until the first load."""
        self.models: Mapping[str, Model] = _NO_MODELS
        """By id; beside those of the configuration, which win."""
        self._heard = float("-inf")
        self._is_away = True

    def replace(self, keys: KeyTable, models: Mapping[str, Model]) -> None:
        """Use these tables, neither of which changes any more, from now on."""
        self.keys = keys
        self.models = models

    def heard(self, now: float) -> None:
        """Redis has answered: the tables are as current as they can be."""
        self._heard = now
        self._is_away = False

    def lost(self) -> None:
        """Redis does not answer, or not with what is needed."""
        self._is_away = True

    def is_current(self, now: float) -> bool:
        """Return True if what the tables do not have does not exist."""
        return (
            self.keys is not None
            and not self._is_away
            and now - self._heard <= CURRENT_FOR
        )

    def age(self, now: float) -> float:
        """Return the seconds since Redis last answered; infinity if it never did."""
        return now - self._heard

    def problem(self, access: Access | None) -> str | None:
        """Return why no key from Redis can work yet, or None."""
        if access is None or access.redis_url is None or self.keys is not None:
            return None
        return "the API keys have not been loaded yet"

    def authenticate(
        self, head: RequestHead, access: Access, now: float, wall: float
    ) -> Principal:
        """Return who calls.

        Args:
            head: The request's.
            access: The configuration's.
            now: On the driver's clock.
            wall: Unix seconds.

        Raises:
            Unauthenticated: There is no such key.
            Overloaded: Whether there is one cannot be known now (503).
        """
        key = _key_in(head)
        digest = digest_of(key)
        mirrored, is_current = self._usable(access, now)
        principal = mirrored.get(digest) or access.keys.get(digest)
        if principal is None:
            if key and not is_current:
                raise _unavailable()
            raise _refused()
        expires_at = principal.expires_at
        if principal.is_disabled or (expires_at is not None and wall >= expires_at):
            raise _refused()
        return principal

    def _usable(self, access: Access, now: float) -> tuple[KeyTable, bool]:
        """Return the mirrored keys that may be used, and whether they are all."""
        if access.redis_url is None:
            return _NOBODY, True
        if self.keys is None:
            return _NOBODY, False
        if self.is_current(now):
            return self.keys, True
        if access.on_unavailable == "deny" or self.age(now) > access.cached_for:
            return _NOBODY, False
        return self.keys, False


def _key_in(head: RequestHead) -> bytes:
    """Return the one key that the head carries; empty if it has none, or several.

    Every header that may carry a key must carry the same one: a proxy and this gateway
    must never take one request for two callers'. ``Authorization`` carries a key only
    with the scheme Bearer (RFC 6750, section 2.1), in any case.
    """
    key: str | None = None
    for name, value in head.headers:
        if name not in _CREDENTIALS:
            continue
        value = value.strip(" \t")
        if name == "authorization":
            scheme, _, value = value.partition(" ")
            value = value.lstrip(" ") if scheme.lower() == "bearer" else ""
        if not value or (key is not None and key != value):
            return b""
        key = value
    if key is None:
        return b""
    try:
        return key.encode("latin-1")
    except UnicodeEncodeError:
        return b""


def _refused() -> Unauthenticated:
    message = (
        "The API key is missing or is not valid. Send it as `Authorization: Bearer "
        "KEY`, or as `x-api-key` or `api-key`."
    )
    return Unauthenticated(message, headers=(("www-authenticate", "Bearer"),))


def _unavailable() -> GatewayError:
    message = "API keys cannot be checked at the moment. Try again."
    return Overloaded(message, code="auth_unavailable", retry_after=_AGAIN_AFTER)


def is_loopback_peer(peer: str) -> bool:
    """Return True if the client's address is this machine's own."""
    address = peer.removeprefix("::ffff:")
    return address == "::1" or (
        address.startswith("127.") and address.count(".") == 3  # 127.0.0.0/8
    )


# -- models ---------------------------------------------------------------------


def model_for(
    principal: Principal,
    name: str,
    snapshot: Snapshot,
    dynamic: Mapping[str, Model],
    providers: Mapping[str, Provider],
) -> Model:
    """Return the model that *name* means to *principal*, under that name.

    Raises:
        ModelNotFound: Nothing; the message is the same whether there is such a model
            for others or not.
    """
    public = name
    grant = principal.models.get(name)
    if grant is None:
        for prefix in NAME_PREFIXES:
            if name.startswith(prefix):
                public = name.removeprefix(prefix)
                grant = principal.models.get(public)
                break
    if grant is None:
        raise _unknown(name)
    table_id = grant.endpoint_id
    try:
        model = snapshot.models.get(table_id) or dynamic.get(table_id)
        if model is None:
            model = resolve(snapshot, table_id, providers)
    except GatewayError:
        raise _unknown(name) from None
    if model.name == public and model.table_id == table_id:
        return model
    return msgspec.structs.replace(model, name=public, table_id=table_id)


def models_of(
    principal: Principal,
    snapshot: Snapshot,
    dynamic: Mapping[str, Model],
    providers: Mapping[str, Provider],
) -> list[Model]:
    """Return what *principal* may use and what exists, in the order of its key."""
    found = []
    for name in principal.models:
        try:
            found.append(model_for(principal, name, snapshot, dynamic, providers))
        except ModelNotFound:
            continue
    return found


def _unknown(name: str) -> ModelNotFound:
    message = f"The model {name!r} does not exist, or this API key may not use it."
    return ModelNotFound(message, param="model")
