"""``model_table:*`` of Redis -> ``Model``, by the rules of ``[models]``.

The one rule: who can write to Redis can say which models there are, and can never make
the gateway send one of its secrets where the file does not send it. So a location of a
credential may be named if the file lists it in ``redis_credentials``; or if the file
sends it itself, and then to the same origin only, over a connection that is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from tz_protocol.config.credentials import MACHINE_LOCATION, parse_location
from tz_protocol.config.entries import Building
from tz_protocol.config.keyring import location_of
from tz_protocol.config.locate import dotted
from tz_protocol.config.models import read_models
from tz_protocol.types.settings import Model, ProviderSettings

__all__ = ["RedisModels"]

Destination = tuple[str, str, str, int]
"""Location of a credential, and the origin to which it is sent."""

_MOST_PROBLEMS = 3
"""Told of one value."""


class RedisModels:
    """Reads one model at a time; a ``ModelReader``.

    Args:
        building: What the configuration was built with.
        models: Of the configuration.
        shorthand: By type.
        allowed: Locations that any model may name.
    """

    def __init__(
        self,
        building: Building,
        models: Mapping[str, Model],
        shorthand: Mapping[str, ProviderSettings],
        allowed: frozenset[str],
    ) -> None:
        self._building = building
        self._allowed = allowed
        entries = [
            *(entry for model in models.values() for entry in model.providers.values()),
            *shorthand.values(),
        ]
        self._destinations = frozenset(self._of(entries))
        self._locations = {location for location, *_origin in self._destinations}

    def __call__(self, table_id: str, data: bytes) -> Model:
        """Return the model that the JSON *data* describes under *table_id*.

        Raises:
            ValueError: It cannot be used; the sentence holds no secret.
        """
        try:
            shape = _without_nulls(msgspec.json.decode(data))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            message = "it is not valid JSON"
            raise ValueError(message) from None
        if not isinstance(shape, dict):
            message = "expected an object for each model"
            raise ValueError(message)
        fallbacks = _take_names(shape, "fallback_models")
        self._check_locations(shape)
        building = replace(self._building, problems=[], warnings=[])
        models = read_models({"models": {table_id: shape}}, building)
        if building.problems or table_id not in models:
            said = [
                f"{dotted(path)}: {message}" if path else message
                for path, message in building.problems[:_MOST_PROBLEMS]
            ]
            raise ValueError("; ".join(said) or "it describes no model")
        model = models[table_id]
        for name, settings in model.providers.items():
            self._check_destination(name, settings)
        return msgspec.structs.replace(model, fallback_models=fallbacks)

    def _check_locations(self, shape: Mapping[str, Any]) -> None:
        """Refuse locations of which the file says nothing, before they are looked at.

        Whether there is such a variable is not for a writer to find out either.
        """
        entries = shape.get("providers")
        for entry in entries.values() if isinstance(entries, dict) else ():
            location = location_of(entry)
            if location is None:
                continue
            for one in parse_location(location).locations:
                if one not in self._allowed and one not in self._locations:
                    raise ValueError(_forbidden("a credential location"))

    def _check_destination(self, name: str, settings: ProviderSettings) -> None:
        sent = set(self._of([settings]))
        is_checked = settings.verify and settings.ca_file is None
        if is_checked and sent <= self._destinations:
            return
        if {location for location, *_origin in sent} <= self._allowed:
            return
        raise ValueError(
            _forbidden(f"sending the credential of provider {name!r} there")
        )

    def _of(self, entries: Iterable[ProviderSettings]) -> Iterable[Destination]:
        """Yield what *entries* send, and where to."""
        for settings in entries:
            url, credential = settings.url, settings.credential
            location = credential.location if credential.kind == "static" else ""
            if self._building.providers[settings.type].sign is not None:
                location = location or MACHINE_LOCATION
            if location and url is not None:
                yield location, url.scheme, url.host.lower(), url.port


def _forbidden(subject: str) -> str:
    return (
        f"the configuration file does not allow {subject}; list the location in "
        "gateway.authentication.redis_credentials to allow it for every address"
    )


def _take_names(shape: dict[str, Any], key: str) -> tuple[str, ...]:
    """Remove and return a list of names: the others are not known while one is read."""
    names = shape.pop(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key}: expected an array of strings")
    return tuple(dict.fromkeys(names))


def _without_nulls(value: Any) -> Any:
    """Return *value* without members that are null: to their writer they are absent."""
    if isinstance(value, dict):
        return {
            key: _without_nulls(member)
            for key, member in value.items()
            if member is not None
        }
    if isinstance(value, list):
        return [_without_nulls(member) for member in value]
    return value
