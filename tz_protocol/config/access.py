"""``[gateway.authentication]``, ``[api_keys]`` and Redis's address -> ``Access``.

The one rule: a gateway that other machines can reach has keys, or says in so many
words that it wants none. No message repeats a key, nor a name that may be one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tz_protocol.config.addresses import is_loopback_bind
from tz_protocol.config.credentials import parse_location
from tz_protocol.config.entries import Building
from tz_protocol.config.gateway import Problems, pick_seconds
from tz_protocol.config.locate import Path
from tz_protocol.config.redismodels import RedisModels
from tz_protocol.config.refusals import did_you_mean, kind_word, validated
from tz_protocol.config.schema import AuthenticationTable
from tz_protocol.flows.keyvalues import parse_hashed
from tz_protocol.types.keys import WEAK_BELOW, Access, Grant, Principal, digest_of
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import GatewaySettings, Model, ProviderSettings

__all__ = [
    "HASH_PREFIX",
    "KEYS_ROOT",
    "REDIS_LOCATION",
    "REDIS_VARIABLE",
    "access_locations",
    "read_access",
]

KEYS_ROOT = "api_keys"

HASH_PREFIX = "sha256:"
"""Begins a name in ``[api_keys]`` that is a key's digest instead of the key."""

REDIS_VARIABLE = "TENSORZERO_REDIS_URL"
REDIS_LOCATION = f"env::{REDIS_VARIABLE}"

_SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://")

_HOW = (
    "write [api_keys] (tz-gateway keys create --toml prints what to write), or set "
    f"{REDIS_VARIABLE} to the Redis that has the keys"
)


def access_locations(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the locations that authentication needs, and those it allows to Redis."""
    yield REDIS_LOCATION
    for value in _allowed(data):
        try:
            yield from parse_location(value).locations
        except ValueError:
            continue  # ``read_access`` reports it


def read_access(
    data: Mapping[str, Any],
    gateway: GatewaySettings,
    models: Mapping[str, Model],
    shorthand: Mapping[str, ProviderSettings],
    secrets: Mapping[str, Secret | None],
    building: Building,
) -> Access | None:
    """Return who may use what; None if everybody may use everything.

    Args:
        data: The root of the configuration.
        gateway: The settings; their address is the one that will be bound.
        models: Of the configuration.
        shorthand: By type.
        secrets: By location.
        building: Collects what is wrong.
    """
    problems = building.problems
    found = len(problems)
    path, table = _table(data)
    allowed = _read_allowed(data, building)
    redis_url = _redis_url(secrets, problems)
    keys = _read_keys(data.get(KEYS_ROOT, {}), building)
    if gateway.authentication is False:
        if keys:
            message = "has no effect: authentication is switched off"
            building.warnings.append(((KEYS_ROOT,), message))
        return None
    if not keys and redis_url is None:
        is_doubtful = len(problems) > found or any(
            part[:2] in (("gateway", "authentication"), ("gateway", "auth"))
            for part, _message in problems
        )
        if not is_doubtful:
            _require_none(gateway, path, problems)
        return None
    read_model = None
    if redis_url is None:
        _check_endpoints(keys, _names(data), shorthand, problems)
    else:
        read_model = RedisModels(building, models, shorthand, allowed)
    defaults = Access()
    cached_for = pick_seconds(table, "cached_for", path, problems)
    return Access(
        keys=keys,
        redis_url=redis_url,
        read_model=read_model,
        on_unavailable=table.on_unavailable,
        cached_for=defaults.cached_for if cached_for is None else cached_for,
    )


def _require_none(gateway: GatewaySettings, path: Path, problems: Problems) -> None:
    """Refuse to go without keys where keys are wanted."""
    address = gateway.bind_address
    if gateway.authentication:
        problems.append(((*path, "enabled"), f"there are no API keys: {_HOW}"))
    elif not is_loopback_bind(address):
        message = (
            f"{address} can be reached from other machines, which requires "
            f"authentication, and there are no API keys: {_HOW}; or bind to 127.0.0.1 "
            "(or another loopback address); or write [gateway.authentication] with "
            "enabled = false to let everybody in"
        )
        problems.append((("gateway", "bind_address"), message))


def _table(data: Mapping[str, Any]) -> tuple[Path, AuthenticationTable]:
    """Return the table that counts; what is wrong with it was said elsewhere."""
    gateway = data.get("gateway")
    if isinstance(gateway, dict):
        for name in ("authentication", "auth"):
            path: Path = ("gateway", name)
            if name in gateway:
                table = validated(AuthenticationTable, gateway[name], path, [])
                return path, table or AuthenticationTable()
    return ("gateway", "authentication"), AuthenticationTable()


# -- Redis ----------------------------------------------------------------------


def _redis_url(
    secrets: Mapping[str, Secret | None], problems: Problems
) -> Secret | None:
    secret = secrets.get(REDIS_LOCATION)
    text = "" if secret is None else secret.reveal().strip()
    if not text:
        return None
    if not text.startswith(_SCHEMES):
        message = (
            f"the environment variable {REDIS_VARIABLE} must hold a URL that begins "
            f"with {', '.join(_SCHEMES)}"
        )
        problems.append(((), message))
        return None
    return Secret(text)


def _allowed(data: Mapping[str, Any]) -> list[Any]:
    _path, table = _table(data)
    return table.redis_credentials


def _read_allowed(data: Mapping[str, Any], building: Building) -> frozenset[str]:
    """Return the locations that any model from Redis may name, wherever it is."""
    path, _ = _table(data)
    found: set[str] = set()
    for index, value in enumerate(_allowed(data)):
        place: Path = (*path, "redis_credentials", index)
        try:
            source = parse_location(value)
        except ValueError as error:
            building.problems.append((place, str(error)))
            continue
        if source.kind != "static":
            message = "expected env::NAME, path::FILE or path_from_env::NAME"
            building.problems.append((place, message))
            continue
        reason = building.keyring.find(source).reason
        if reason:
            building.problems.append((place, reason))
        found.update(source.locations)
    return frozenset(found)


# -- keys -----------------------------------------------------------------------


def _read_keys(raw: object, building: Building) -> dict[bytes, Principal]:
    """Return ``[api_keys]`` by digest; of a key's own name nothing is said."""
    root: Path = (KEYS_ROOT,)
    problems = building.problems
    if not isinstance(raw, dict):
        problems.append((root, f"expected a table, found {kind_word(raw)}"))
        return {}
    keys: dict[bytes, Principal] = {}
    for name, value in raw.items():
        path = (*root, name)
        try:
            principal = _read_key(name, value)
        except ValueError as error:
            problems.append((path, str(error)))
            continue
        if principal.digest in keys:
            message = "this key stands here twice, as itself and as its digest"
            problems.append((path, message))
        if not name.startswith(HASH_PREFIX) and len(name) < WEAK_BELOW:
            message = (
                f"this key is shorter than {WEAK_BELOW} characters and can be guessed; "
                "tz-gateway keys create makes one that cannot"
            )
            building.warnings.append((path, message))
        keys[principal.digest] = principal
    return keys


def _read_key(name: str, value: object) -> Principal:
    if not isinstance(value, dict):
        message = f"expected a table, found {kind_word(value)}"
        raise ValueError(message)
    if name.startswith(HASH_PREFIX):
        hexadecimal = name.removeprefix(HASH_PREFIX)
        try:
            digest = bytes.fromhex(hexadecimal)
        except ValueError:
            digest = b""
        if len(digest) != 32 or len(hexadecimal) != 64:
            message = f"expected 64 hexadecimal digits after {HASH_PREFIX}"
            raise ValueError(message)
        try:
            data = msgspec.json.encode(value)
        except TypeError:
            message = "holds a value that is not for a key, such as a time of day"
            raise ValueError(message) from None
        return parse_hashed(digest, data)
    if not name:
        message = "an API key must not be empty"
        raise ValueError(message)
    try:
        models = msgspec.convert(value, dict[str, Grant])
    except msgspec.ValidationError as error:
        message = f"expected models with their endpoint_id: {error}"
        raise ValueError(message) from None
    return Principal(digest=digest_of(name.encode()), models=models)


def _names(data: Mapping[str, Any]) -> set[str]:
    """Return the names of the file's models, those that are wrong included."""
    tables = (data.get("models"), data.get("embedding_models"))
    return {name for table in tables if isinstance(table, dict) for name in table}


def _check_endpoints(
    keys: Mapping[bytes, Principal],
    models: set[str],
    shorthand: Mapping[str, ProviderSettings],
    problems: Problems,
) -> None:
    """Refuse endpoint ids that nothing stands behind, where none can come later."""
    unknown: dict[str, None] = {}
    for principal in keys.values():
        for grant in principal.models.values():
            table_id = grant.endpoint_id
            kind, separator, rest = table_id.partition("::")
            is_shorthand = separator and rest and kind in shorthand
            if table_id not in models and not is_shorthand:
                unknown[table_id] = None
    for table_id in unknown:
        hint = did_you_mean(table_id, models)
        message = (
            f"the endpoint_id {table_id!r} is no model of [models]{hint}, and no Redis "
            "is configured from which it might come"
        )
        problems.append(((KEYS_ROOT,), message))
