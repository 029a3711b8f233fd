"""Which key a provider gets: its table's, else its type's, else the vendor's usual one.

The one rule: a key that is asked for and not there is a problem when the configuration
is built, not an error of some later request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tz_protocol.config.credentials import (
    FORMS,
    MACHINE_LOCATION,
    SDK_LOCATIONS,
    Resolved,
    Source,
    find,
    parse_location,
)
from tz_protocol.config.locate import Path
from tz_protocol.errors import UpstreamRefused
from tz_protocol.providers.base import Provider
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Credential

__all__ = [
    "DEFAULTS_ALIAS",
    "DEFAULTS_KEY",
    "SAID_TWICE",
    "Defaults",
    "Keyring",
    "location_of",
]

DEFAULTS_KEY = "api_key_location"
DEFAULTS_ALIAS = "credential_location"
"""TensorZero's name for it at Google's."""

NO_KEY = Source("none")

SAID_TWICE = f"says the same as {DEFAULTS_KEY}: give only one"


class Defaults:
    """Where each type's keys are, unless a provider's table says otherwise.

    Args:
        data: The root of the configuration, whatever is in it.
        providers: The rows by type.
    """

    def __init__(
        self, data: Mapping[str, Any], providers: Mapping[str, Provider]
    ) -> None:
        self.wrong: dict[str, str] = {}
        """By type: why its location in ``[provider_types]`` is none."""
        self._aliased: set[str] = set()
        self._usual = {
            name: parse_location(row.credential) if row.credential else NO_KEY
            for name, row in providers.items()
        }
        self._chosen = dict(self._read(data.get("provider_types")))

    def _read(self, tables: object) -> Iterator[tuple[str, Source]]:
        for name, table in _items(tables):
            found = table.get("defaults") if isinstance(table, dict) else None
            defaults: dict[str, Any] = found if isinstance(found, dict) else {}
            location = location_of(defaults)
            if location is None or name not in self._usual:
                continue
            if DEFAULTS_ALIAS in defaults:
                self._aliased.add(name)
                if DEFAULTS_KEY in defaults:
                    self.wrong[name] = SAID_TWICE
                    continue
            try:
                yield name, parse_location(location)
            except ValueError as error:
                self.wrong[name] = str(error)

    def source(self, kind: str) -> Source:
        """Return the location for the provider type *kind*."""
        return self._chosen.get(kind) or self._usual[kind]

    def is_usual(self, kind: str) -> bool:
        """Return whether the file leaves it to the vendor's usual variable."""
        return kind not in self._chosen and kind not in self.wrong

    def chosen(self) -> Iterator[tuple[str, Source]]:
        """Yield (type, location) for those that the file sets."""
        yield from self._chosen.items()

    def path(self, kind: str) -> Path:
        """Return where the file sets the default of *kind*."""
        key = DEFAULTS_ALIAS if kind in self._aliased else DEFAULTS_KEY
        return ("provider_types", kind, "defaults", key)


def _items(table: object) -> Iterator[tuple[str, Any]]:
    """Yield what is in *table*, which need not be one."""
    if isinstance(table, dict):
        yield from table.items()


def location_of(table: object) -> object:
    """Return the ``api_key_location`` of *table*, by either name; None without it."""
    if not isinstance(table, dict):
        return None
    return table.get(DEFAULTS_KEY, table.get(DEFAULTS_ALIAS))


class Keyring:
    """The secrets that were found, and the credentials made of them."""

    def __init__(
        self, secrets: Mapping[str, Secret | None], defaults: Defaults
    ) -> None:
        self.defaults = defaults
        self._secrets = secrets
        self._found: dict[Source, Resolved] = {}

    def find(self, source: Source) -> Resolved:
        """Return what is at *source*; many providers share one."""
        found = self._found.get(source)
        if found is None:
            found = self._found[source] = find(source, self._secrets)
        return found

    def pick(
        self, row: Provider, location: object, *, is_own_server: bool = False
    ) -> Credential:
        """Return the key for one provider of the type *row*.

        Args:
            row: The type.
            location: What its table says; None takes the type's default.
            is_own_server: Whether its table says where it is, so that it may well
                want no key, whoever the vendor is.

        Raises:
            ValueError: The location is wrong or nothing usable is there; the sentence
                names the variable or file.
        """
        if location is not None:
            source = parse_location(location)
        else:
            if row.name in self.defaults.wrong:
                raise ValueError(self.defaults.wrong[row.name])
            source = self.defaults.source(row.name)
            if (
                row.is_key_optional
                and self.defaults.is_usual(row.name)
                and not self.is_there(source)
            ):
                source = NO_KEY
        if MACHINE_LOCATION in source.locations:
            if row.sign is None and row.grant is None:
                message = f"sdk is for cloud vendors; use {FORMS}"
                raise ValueError(message)
            if row.sign is not None:
                source = self._signed_for(source)
        if source.kind == "none" and not (row.is_key_optional or is_own_server):
            message = (
                f"{row.name} answers nobody without a key; none is for servers of your "
                "own, at an api_base"
            )
            raise ValueError(message)
        try:
            return self._credential(source, row)
        except ValueError as error:
            if location is not None or not self.defaults.is_usual(row.name):
                raise
            message = (
                f"{error}; {row.name} takes its key from there, unless "
                f"{DEFAULTS_KEY} says otherwise"
            )
            raise ValueError(message)

    def place(self, row: Provider, path: Path, key: str | None) -> Path:
        """Return where a problem with the key of the provider at *path* lies.

        Args:
            row: The provider's type.
            path: Of its table.
            key: Of the table, which says where the key is; None if none does.
        """
        if key is not None:
            return (*path, key)
        return (
            path if self.defaults.is_usual(row.name) else self.defaults.path(row.name)
        )

    def is_there(self, source: Source) -> bool:
        """Return whether anything is at *source*, fit for a header or not."""
        secrets = (self._secrets.get(location) for location in source.locations)
        return any(secret and secret.reveal().strip() for secret in secrets)

    def _signed_for(self, source: Source) -> Source:
        """Return what is left of *source* where ``sdk`` means to sign requests."""
        others = tuple(one for one in source.locations if one not in SDK_LOCATIONS)
        left = Source("static", others)
        return left if self.is_there(left) else NO_KEY

    def _credential(self, source: Source, row: Provider) -> Credential:
        if source.kind != "static":
            return Credential(source.kind, name=source.name, location=source.text)
        found = self.find(source)
        if found.secret is None:
            raise ValueError(found.reason)
        if row.grant is not None:
            try:
                row.grant(found.secret)
            except UpstreamRefused as error:
                message = f"at {found.location}: {error.message}"
                raise ValueError(message)
        return Credential("static", found.secret, location=found.location)
