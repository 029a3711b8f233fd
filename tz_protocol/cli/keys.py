"""``keys``: make, show, disable and replace API keys.

The one rule: a key is printed once, when it is made, and is never stored, logged or
shown again; what is stored is its digest. Every change raises the version that
gateways ask for every second, and is published to those that listen.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw

from tz_protocol.cli.options import Keys
from tz_protocol.cli.output import print_error, say
from tz_protocol.errors import OperationBroken, OperationError, StoreRefused
from tz_protocol.flows.keymirror import CHANGED_CHANNEL, VERSION_KEY
from tz_protocol.flows.keyvalues import CLEAR, HASHED, Reader, family_of, name_for_log
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, ResolveSecret
from tz_protocol.storeops import RandomBytes, RedisCommands, Reply
from tz_protocol.types.keys import Principal, digest_of
from tz_protocol.types.secret import Secret

__all__ = ["KEY_BYTES", "KEY_PREFIX", "keys"]

KEY_BYTES = 32
KEY_PREFIX = "sk-tz-"
"""Lets scanners for leaked secrets find our keys."""

REDIS_VARIABLE = "TENSORZERO_REDIS_URL"

_SECONDS = 10.0
"""For each answer of Redis."""

_BATCH = 250

_encode = msgspec.json.Encoder().encode


class _Failed(Exception):
    """The command cannot go on; the message says why."""


class _Found(msgspec.Struct, frozen=True):
    """One key in Redis."""

    principal: Principal
    is_clear: bool
    value: bytes
    """The JSON, if it is the hashed form."""


def keys(command: Keys, context: Context) -> Flow[int]:
    """Do what was asked for; return the exit status."""
    try:
        if command.is_toml:
            yield from _create_toml(command, context)
        elif command.action == "create":
            yield from _create(command, context)
        elif command.action == "list":
            yield from _list(context)
        elif command.action == "disable":
            yield from _disable(command, context)
        else:
            yield from _rotate(command, context)
    except _Failed as error:
        yield from print_error(context, str(error))
        return 1
    return 0


# -- the actions ----------------------------------------------------------------


def _create(command: Keys, context: Context) -> Flow[None]:
    url = yield from _redis_url(context)
    key, digest = yield from _new_key(context)
    yield from _write(context, url, {digest: _value_of(command)})
    yield from say(context, f"{key}\n")
    text = f"the key {digest[:8].hex()} was made; it is shown only this once\n"
    yield from say(context, text, is_error=True)


def _create_toml(command: Keys, context: Context) -> Flow[None]:
    key, digest = yield from _new_key(context)
    lines = [f'[api_keys."sha256:{digest.hex()}"]']
    value = msgspec.json.decode(_value_of(command))
    lines += [f"{name} = {_toml(member)}" for name, member in value.items()]
    yield from say(context, "\n".join(lines) + "\n")
    text = f"the key {digest[:8].hex()}, which is shown only this once: {key}\n"
    yield from say(context, text, is_error=True)


def _list(context: Context) -> Flow[None]:
    url = yield from _redis_url(context)
    found = yield from _read_all(context, url)
    lines = [_line(one) for one in sorted(found, key=lambda one: one.principal.digest)]
    yield from say(context, "".join(line + "\n" for line in lines))


def _disable(command: Keys, context: Context) -> Flow[None]:
    url = yield from _redis_url(context)
    found = yield from _find(context, url, command.key_id)
    principal = found.principal
    yield from _write(context, url, {principal.digest: _disabled(found)})
    text = f"the key {principal.key_id} is refused from now on\n"
    yield from say(context, text, is_error=True)


def _rotate(command: Keys, context: Context) -> Flow[None]:
    url = yield from _redis_url(context)
    found = yield from _find(context, url, command.key_id)
    old = found.principal
    if old.is_disabled:
        raise _Failed(f"the key {old.key_id} is disabled: make a new one instead")
    key, digest = yield from _new_key(context)
    value = _hashed_form(found)
    yield from _write(context, url, {digest: value, old.digest: _disabled(found)})
    yield from say(context, f"{key}\n")
    text = (
        f"the key {digest[:8].hex()} takes the place of {old.key_id}, which is refused "
        "from now on; it is shown only this once\n"
    )
    yield from say(context, text, is_error=True)


# -- values ---------------------------------------------------------------------


def _new_key(context: Context) -> Flow[tuple[str, bytes]]:
    """Return a new key and its digest."""
    try:
        noise = yield from RandomBytes(context.now + _SECONDS, KEY_BYTES)
    except OperationError:
        raise _Failed("the system has no random bytes to make a key of") from None
    key = KEY_PREFIX + base64.urlsafe_b64encode(noise).rstrip(b"=").decode()
    return key, digest_of(key.encode())


def _value_of(command: Keys) -> bytes:
    """Return the hashed form of the key that *command* asks for."""
    ids = {"project_id": command.project_id} if command.project_id else {}
    value: dict[str, Any] = {
        "models": {
            public: {"endpoint_id": table_id, **ids}
            for public, table_id in command.models
        }
    }
    if command.limits:
        value["limits"] = dict(command.limits)
    if command.expires_at:
        value["expires_at"] = command.expires_at
    if command.note:
        value["note"] = command.note
    return _encode(value)


def _hashed_form(found: _Found) -> bytes:
    """Return the value under which the same key stands in its hashed form."""
    if not found.is_clear:
        return found.value
    return _encode({"models": found.principal.models})


def _disabled(found: _Found) -> bytes:
    """Return the value with nothing changed but that it is refused."""
    members: dict[str, Raw] = msgspec.json.decode(
        _hashed_form(found), type=dict[str, Raw]
    )
    members["disabled"] = Raw(b"true")
    return _encode(members)


def _toml(value: object) -> str:
    """Return a value as TOML, on one line; its strings are JSON's, but for DEL."""
    if isinstance(value, Mapping):
        pairs = (f"{_toml(name)} = {_toml(member)}" for name, member in value.items())
        return f"{{ {', '.join(pairs)} }}"
    return _encode(value).decode().replace("\x7f", "\\u007f")


def _date(seconds: float) -> str:
    """Return a time as ``keys create`` takes it; what no calendar has as a number."""
    try:
        time = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f}"
    return time.isoformat(timespec="seconds")


def _line(found: _Found) -> str:
    principal = found.principal
    facts = [principal.key_id, "disabled" if principal.is_disabled else "enabled"]
    if found.is_clear:
        facts.append("stored in clear")
    facts.append(f"models {', '.join(principal.models) or 'none'}")
    limits = msgspec.structs.asdict(principal.limits)
    facts += [f"{name} {limit}" for name, limit in limits.items() if limit is not None]
    if principal.expires_at is not None:
        facts.append(f"expires_at {_date(principal.expires_at)}")
    if principal.note:
        facts.append(f"note {principal.note}")
    # A note may hold anything; a line is one line.
    return "  ".join("".join(c if c.isprintable() else "?" for c in f) for f in facts)


# -- Redis ----------------------------------------------------------------------


def _redis_url(context: Context) -> Flow[Secret]:
    location = f"env::{REDIS_VARIABLE}"
    try:
        url = yield from ResolveSecret(context.now + _SECONDS, location)
    except OperationError:
        message = (
            f"{REDIS_VARIABLE} is not set: set it to the Redis that has the keys, or "
            "add --toml to keys create"
        )
        raise _Failed(message) from None
    return url


def _ask(
    context: Context, url: Secret, *commands: tuple[bytes | str | int, ...]
) -> Flow[tuple[Reply, ...]]:
    """Return the replies, none of which is an error but that of a wrong type."""
    try:
        replies = yield from RedisCommands(context.now + _SECONDS, url, commands)
    except OperationBroken as error:
        raise _Failed(f"Redis cannot be reached ({error.kind})") from None
    except OperationError:
        raise _Failed(f"Redis did not answer within {_SECONDS:.0f} s") from None
    for reply in replies:
        if isinstance(reply, StoreRefused) and reply.code != "WRONGTYPE":
            raise _Failed(f"Redis refuses ({reply.code})")
    return replies


def _write(context: Context, url: Secret, values: Mapping[bytes, bytes]) -> Flow[None]:
    """Store values by the digests of their keys, and tell every gateway."""
    names = {HASHED + digest.hex().encode(): v for digest, v in values.items()}
    yield from _ask(
        context,
        url,
        *(("SET", name, value) for name, value in names.items()),
        ("INCR", VERSION_KEY),
        *(("PUBLISH", CHANGED_CHANNEL, name) for name in names),
    )


def _read_all(context: Context, url: Secret) -> Flow[list[_Found]]:
    """Return every key in Redis, in its hashed form if it has one."""
    reader = Reader(None)
    found: dict[bytes, _Found] = {}
    names = yield from _names(context, url)
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        replies = yield from _ask(context, url, *(("GET", name) for name in batch))
        for name, data in zip(batch, replies, strict=True):
            if data is None:
                continue
            try:
                if not isinstance(data, bytes):
                    message = "it is not a string"
                    raise ValueError(message)
                value = reader.read(name, data)
            except ValueError as error:
                text = f"{name_for_log(name)} cannot be used: {error}"
                yield from print_error(context, text)
                continue
            is_clear = name.startswith(CLEAR)
            for principal in value.keys:
                if not is_clear or principal.digest not in found:
                    found[principal.digest] = _Found(principal, is_clear, data)
    return list(found.values())


def _names(context: Context, url: Secret) -> Flow[list[bytes]]:
    """Return the names of all keys, without what else is there."""
    names: dict[bytes, None] = {}
    cursor: bytes | int = 0
    while True:
        (reply,) = yield from _ask(
            context, url, ("SCAN", cursor, "MATCH", "api_key*:*", "COUNT", 1_000)
        )
        cursor, page = reply
        names.update(dict.fromkeys(n for n in page if family_of(n) in (CLEAR, HASHED)))
        if cursor in (b"0", 0):
            return list(names)


def _find(context: Context, url: Secret, key_id: str) -> Flow[_Found]:
    """Return the one key whose digest begins with *key_id*."""
    found = yield from _read_all(context, url)
    fitting = [one for one in found if one.principal.digest.hex().startswith(key_id)]
    if not fitting:
        raise _Failed(f"there is no key {key_id}: see tz-gateway keys list")
    if len(fitting) > 1:
        raise _Failed(f"{key_id} begins the ids of several keys: give more digits")
    return fitting[0]
