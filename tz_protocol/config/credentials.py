"""Credential locations: the strings and tables that say where a key is.

The one rule: a location is read here and resolved by the driver; no message ever
repeats one that could not be understood, because it may be the key itself, pasted in
the wrong place.

Source: TensorZero's ``api_key_location`` (https://www.tensorzero.com/docs/operations/manage-credentials).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from tz_protocol.providers.google_tokens import MACHINE
from tz_protocol.types.secret import Secret

__all__ = [
    "FORMS",
    "MACHINE_LOCATION",
    "SDK_LOCATIONS",
    "Resolved",
    "Source",
    "explain_missing",
    "find",
    "parse_location",
]

FORMS = "env::NAME, path::FILE, path_from_env::NAME, dynamic::NAME or none"
"""What an ``api_key_location`` may be, for messages."""

_STATIC = ("env", "path", "path_from_env")
MACHINE_LOCATION = "sdk::machine"
"""Not a place: the credential is that of the machine itself."""

SDK_LOCATIONS = ("path_from_env::GOOGLE_APPLICATION_CREDENTIALS", MACHINE_LOCATION)
"""Where Google's own libraries look, in this order."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SENDABLE = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class Source:
    """One credential as the configuration describes it."""

    kind: Literal["static", "dynamic", "none"]
    locations: tuple[str, ...] = ()
    """If static: where to look, in this order; the first that exists counts."""
    name: str = ""
    """If dynamic: the key of the request's ``tensorzero::credentials``."""

    @property
    def text(self) -> str:
        """The location as ``check`` prints it; it holds no secret."""
        if self.kind == "static":
            return " or ".join(self.locations)
        return f"dynamic::{self.name}" if self.kind == "dynamic" else "none"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the driver found: a secret, or the sentence that says why not."""

    secret: Secret | None
    reason: str = ""
    location: str = ""
    """Where the secret was."""


def parse_location(value: object) -> Source:
    """Return the credential that *value*, a string or a table, describes.

    Raises:
        ValueError: With a sentence that says what was expected.
    """
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, dict):
        return _parse_table(value)
    message = f"expected {FORMS}"
    raise ValueError(message)


def _parse_text(text: str) -> Source:
    if text == "none":
        return Source("none")
    if text == "sdk":
        return Source("static", SDK_LOCATIONS)
    kind, separator, name = text.partition("::")
    if not separator or kind not in (*_STATIC, "dynamic"):
        message = (
            f"expected {FORMS}; a key itself does not belong in the file: put it into "
            "an environment variable and write env::NAME"
        )
        raise ValueError(message)
    return _source(kind, name)


def _source(kind: str, name: str) -> Source:
    if not name or not name.isprintable():
        message = f"expected a name after {kind}::"
        raise ValueError(message)
    if kind == "dynamic":
        return Source("dynamic", name=name)
    if kind != "path" and not _VARIABLE.fullmatch(name):
        message = f"expected the name of an environment variable after {kind}::"
        raise ValueError(message)
    return Source("static", (f"{kind}::{name}",))


def _parse_table(table: Mapping[str, object]) -> Source:
    keys = set(table)
    if keys == {"default", "fallback"}:
        first, second = (
            parse_location(table["default"]),
            parse_location(table["fallback"]),
        )
        if first.kind != "static" or second.kind != "static":
            message = (
                "default and fallback must both be env::, path:: or path_from_env:: "
                "locations; others are not supported yet"
            )
            raise ValueError(message)
        return Source("static", first.locations + second.locations)
    if len(keys) == 1:
        ((kind, name),) = table.items()
        if kind in (*_STATIC, "dynamic") and isinstance(name, str):
            return _source(kind, name)
    message = (
        'expected a table such as { env = "NAME" }, { path = "FILE" }, '
        '{ dynamic = "NAME" } or { default = "...", fallback = "..." }'
    )
    raise ValueError(message)


def find(source: Source, secrets: Mapping[str, Secret | None]) -> Resolved:
    """Return the secret of a static *source*, stripped and fit for a header."""
    for location in source.locations:
        if location == MACHINE_LOCATION:
            return Resolved(MACHINE, location=location)
        secret = secrets.get(location)
        value = "" if secret is None else _one_line(secret.reveal().strip())
        if not value:
            continue
        if not _SENDABLE.fullmatch(value):
            reason = (
                f"what is at {location} holds a character that no HTTP header can "
                "carry (a line break or something that is not ASCII)"
            )
            return Resolved(None, reason)
        return Resolved(Secret(value), location=location)
    return Resolved(None, explain_missing(source))


def _one_line(text: str) -> str:
    """Return *text* without the line breaks of a credential that is JSON."""
    if not text.startswith("{"):
        return text
    try:
        return msgspec.json.format(text, indent=-1)
    except msgspec.DecodeError:
        return text  # told by whoever reads it


def explain_missing(source: Source) -> str:
    """Return the sentence that says what is not there."""
    return "; ".join(_missing(location) for location in source.locations)


def _missing(location: str) -> str:
    kind, _, name = location.partition("::")
    if kind == "env":
        return f"the environment variable {name} is not set"
    if kind == "path":
        return f"the file {name} is empty or cannot be read"
    return (
        f"the environment variable {name} is not set, or the file that it names is "
        "empty or cannot be read"
    )
