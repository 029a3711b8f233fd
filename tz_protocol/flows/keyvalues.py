"""What Redis holds under one name -> the keys and models that it stands for.

The one rule: a value is used whole or not at all. A key is seen in clear only between
the bytes that it came in and its digest, here. Which names are read when is
``keymirror.py``'s business.

    api_key:ANYTHING      {"KEY": {"PUBLIC MODEL": {"endpoint_id", …}}}
    api_key_hash:HEX      {"models": {…}, "limits", "expires_at", "disabled", "note"}
    model_table:ANYTHING  {"ENDPOINT ID": {"routing", "providers", "endpoints"}}

The first and the third are the reference's. The second is what ``tz-gateway keys``
writes: HEX is the key's SHA-256 digest, so that the store holds no key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from tz_protocol.types.keys import (
    NO_LIMITS,
    WEAK_BELOW,
    Grant,
    KeyLimits,
    ModelReader,
    Principal,
    digest_of,
)
from tz_protocol.types.settings import Model

__all__ = [
    "CLEAR",
    "HASHED",
    "MODELS",
    "Reader",
    "Value",
    "family_of",
    "name_for_log",
    "parse_hashed",
]

CLEAR = b"api_key:"
HASHED = b"api_key_hash:"
MODELS = b"model_table:"

_FAMILIES = (HASHED, CLEAR, MODELS)

_HEX = re.compile(rb"[0-9a-fA-F]{64}")

_UNKNOWN = re.compile(r"(?s)(Object contains unknown field) `(.*?)`( - at `[^`]*`)?\Z")
"""What the reader says of a member that it does not know."""

_MOST_SHARED = 4_096
"""Grants and lists of models that are remembered in order to be shared."""

Count = Annotated[int, Meta(ge=0, le=2**53)]


class _LimitsShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent_requests: Count | None = None
    budget_per_day: Decimal | None = None
    budget_per_month: Decimal | None = None


class _KeyShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    # A key that says something unknown is refused: it may be a restriction.
    models: dict[str, Grant] | list[str]
    limits: _LimitsShape | None = None
    expires_at: float | datetime | None = None
    disabled: bool = False
    note: str = ""


_MEMBERS = tuple(
    name
    for shape in (_KeyShape, _LimitsShape, Grant)
    for name in shape.__struct_fields__
)

_read_clear = msgspec.json.Decoder(dict[str, Raw]).decode
_read_grants = msgspec.json.Decoder(dict[str, Grant]).decode
_read_hashed = msgspec.json.Decoder(_KeyShape).decode
_read_models = msgspec.json.Decoder(dict[str, Raw]).decode


class Value(msgspec.Struct, frozen=True, gc=False):
    """What one name stands for."""

    keys: tuple[Principal, ...] = ()
    models: tuple[tuple[str, Model], ...] = ()
    weak: int = 0
    """Keys that are shorter than they should be."""


NOTHING = Value()


def family_of(name: bytes) -> bytes | None:
    """Return the prefix by which *name* is read; None if it is no name of ours."""
    for prefix in _FAMILIES:
        if name.startswith(prefix):
            return prefix
    return None


def name_for_log(name: bytes) -> str:
    """Return *name* as the log may show it: what follows ``api_key:`` is a key.

    So may be what stands where a digest was expected.
    """
    for prefix in (CLEAR, HASHED):
        rest = name[len(prefix) :]
        if not name.startswith(prefix) or (prefix == HASHED and _HEX.fullmatch(rest)):
            continue
        digest = hashlib.sha256(rest).hexdigest()[:16]
        return f"{prefix.decode()}(sha256 {digest})"
    return name[:200].decode("ascii", "backslashreplace")


class Reader:
    """Reads values; equal grants and lists of models become one object.

    Args:
        read_model: Makes a model of its JSON; None: no model may come from Redis.
    """

    __slots__ = ("_grants", "_lists", "read_model")

    def __init__(self, read_model: ModelReader | None) -> None:
        self.read_model = read_model
        self._grants: dict[Grant, Grant] = {}
        self._lists: dict[bytes, Mapping[str, Grant]] = {}

    def forget(self) -> None:
        """Forget what might be shared: no more is coming soon."""
        self._grants.clear()
        self._lists.clear()

    def read(self, name: bytes, data: bytes) -> Value:
        """Return what *data*, found under *name*, stands for.

        Raises:
            ValueError: It cannot be used; the sentence holds no part of it.
        """
        if name.startswith(HASHED):
            hexadecimal = name[len(HASHED) :]
            if not _HEX.fullmatch(hexadecimal):
                message = "the name must end with 64 hexadecimal digits"
                raise ValueError(message)
            principal = parse_hashed(bytes.fromhex(hexadecimal.decode()), data)
            return Value((self._shared(principal),))
        if name.startswith(CLEAR):
            return self._clear(data)
        return self._models(data)

    def _clear(self, data: bytes) -> Value:
        found = []
        weak = 0
        for key, raw in _decoded(_read_clear, data).items():
            if not key:
                message = "an API key must not be empty"
                raise ValueError(message)
            weak += len(key) < WEAK_BELOW
            digest = digest_of(key.encode())
            found.append(Principal(digest=digest, models=self._list(bytes(raw))))
        return Value(tuple(found), weak=weak)

    def _models(self, data: bytes) -> Value:
        read_model = self.read_model
        if read_model is None:
            message = "models from Redis are not read"
            raise ValueError(message)
        return Value(
            models=tuple(
                (table_id, read_model(table_id, bytes(raw)))
                for table_id, raw in _decoded(_read_models, data).items()
            )
        )

    def _list(self, data: bytes) -> Mapping[str, Grant]:
        known = self._lists.get(data)
        if known is None:
            known = self._share(_decoded(_read_grants, data))
            if len(self._lists) >= _MOST_SHARED:
                self._lists.clear()
            self._lists[data] = known
        return known

    def _shared(self, principal: Principal) -> Principal:
        models = self._share(principal.models)
        return msgspec.structs.replace(principal, models=models)

    def _share(self, models: Mapping[str, Grant]) -> Mapping[str, Grant]:
        if len(self._grants) >= _MOST_SHARED:
            self._grants.clear()
        grants = self._grants
        return {name: grants.setdefault(g, g) for name, g in models.items()}


def parse_hashed(digest: bytes, data: bytes) -> Principal:
    """Return the key that the JSON of ``api_key_hash:`` describes.

    Raises:
        ValueError: It cannot be used; the sentence holds no part of it.
    """
    shape: _KeyShape = _decoded(_read_hashed, data)
    models = shape.models
    if isinstance(models, list):
        models = {name: Grant(name) for name in models}
    expires_at = shape.expires_at
    if isinstance(expires_at, datetime):
        if expires_at.tzinfo is None:
            message = "expires_at needs a time zone, such as Z"
            raise ValueError(message)
        expires_at = expires_at.timestamp()
    return Principal(
        digest=digest,
        models=models,
        limits=_limits(shape.limits),
        expires_at=expires_at,
        is_disabled=shape.disabled,
        note=shape.note,
    )


def _limits(shape: _LimitsShape | None) -> KeyLimits:
    if shape is None:
        return NO_LIMITS
    for name in ("budget_per_day", "budget_per_month"):
        budget = getattr(shape, name)
        if budget is not None and not (budget.is_finite() and budget >= 0):
            message = f"limits.{name} must be a number of at least 0"
            raise ValueError(message)
    return KeyLimits(**msgspec.structs.asdict(shape))


def _decoded(read: Any, data: bytes) -> Any:
    try:
        return read(data)
    except msgspec.ValidationError as error:
        raise ValueError(_UNKNOWN.sub(_without_name, str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = "it is not valid JSON"
        raise ValueError(message) from None


def _without_name(found: re.Match[str]) -> str:
    """Return the sentence without the member's name, unless it is one of ours but for
    a slip: it may be a key, where the form in clear stands under the other's name."""
    said, name, place = found.groups()
    near = get_close_matches(name, _MEMBERS, n=1, cutoff=0.8)
    shown = f" `{name}` (did you mean `{near[0]}`?)" if near else ""
    return f"{said}{shown}{place or ''}"
