"""``[models]`` and ``[embedding_models]`` -> ``Model``.

The one rule: a model that loads can be routed: every name in ``routing`` is a provider,
every provider is in ``routing``, and every capability has a provider that speaks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tz_protocol.config.entries import (
    Building,
    built_in,
    drop_ignored,
    effective_timeouts,
    entry_settings,
)
from tz_protocol.config.fallbacks import check_fallbacks
from tz_protocol.config.locate import Path
from tz_protocol.config.policy import merge_policy
from tz_protocol.config.refusals import (
    did_you_mean,
    ignored,
    kind_word,
    validated,
)
from tz_protocol.config.schema import EmbeddingModelTable, ModelTable
from tz_protocol.providers.base import Provider
from tz_protocol.types.settings import Model, ProviderSettings

__all__ = ["ALIASES", "CAPABILITIES", "read_models"]

CAPABILITIES = (
    "chat",
    "embedding",
    "moderation",
    "audio_transcription",
    "audio_translation",
    "audio_speech",
    "realtime_session",
    "realtime_transcription",
    "responses",
    "batch",
    "image_generation",
    "image_edit",
    "image_variation",
)
"""Words of ``endpoints``; those that no provider speaks yet have no effect."""

ALIASES: Mapping[str, str] = {"text_to_speech": "audio_speech"}
"""The reference's word -> ours."""

_OWN = "tensorzero"

_SECTIONS: tuple[tuple[str, type[ModelTable | EmbeddingModelTable]], ...] = (
    ("models", ModelTable),
    ("embedding_models", EmbeddingModelTable),
)


def read_models(data: Mapping[str, Any], building: Building) -> dict[str, Model]:
    """Return the models by name, in the order of the file; what is wrong is collected.

    Args:
        data: The root of the configuration.
        building: Collects what is wrong.
    """
    problems = building.problems
    models: dict[str, Model] = {}
    names: set[str] = set()
    fallbacks: dict[Path, Sequence[str]] = {}
    for section, table_class in _SECTIONS:
        tables = data.get(section, {})
        if not isinstance(tables, dict):
            message = f"expected a table, found {kind_word(tables)}"
            problems.append(((section,), message))
            continue
        for name, raw in tables.items():
            path = (section, name)
            before = len(problems)
            if name in names:
                message = "this name is used in both [models] and [embedding_models]"
                problems.append((path, message))
            _check_name(name, path, building)
            reader = _Reader(building, path, table_class)
            model = reader.read(raw)
            fallbacks[path] = reader.fallbacks
            if model is not None and len(problems) == before:
                models[name] = model
        names = set(tables)
    check_fallbacks(fallbacks, models, building)
    return models


def _check_name(name: str, path: Path, building: Building) -> None:
    kind, separator, _ = name.partition("::")
    if not name.strip() or not name.isprintable():
        message = "the name of a model is some text without control characters"
    elif separator and kind == _OWN:
        message = f"the name begins with {_OWN}::, which is reserved"
    elif separator and kind in building.providers:
        message = (
            f"the name begins with {kind}::, which is reserved: {kind}::NAME is that "
            "provider's model NAME"
        )
    else:
        return
    building.problems.append((path, message))


class _Reader:
    """Reads one model; its steps share where it is and what was found."""

    def __init__(
        self,
        building: Building,
        path: Path,
        table_class: type[ModelTable | EmbeddingModelTable],
    ) -> None:
        self._building = building
        self._path = path
        self._class = table_class
        self._settings: dict[str, ProviderSettings | None] = {}
        """By name; None for an entry that is wrong."""
        self._rows: dict[str, Provider | None] = {}
        """By name; None if the type is unknown."""
        self.fallbacks: Sequence[str] = ()
        """Models to fall back to, not checked yet."""

    def read(self, raw: object) -> Model | None:
        """Return the model, or None if it is wrong."""
        building, path = self._building, self._path
        if not isinstance(raw, dict):
            self._refuse((), f"expected a table, found {kind_word(raw)}")
            return None
        raw = drop_ignored(raw, path, building.warnings)
        table = validated(self._class, raw, path, building.problems)
        timeouts, policy = building.timeouts, building.policy
        if table is not None:
            self.fallbacks = table.fallback_models
            policy = merge_policy(policy, table, path, building.problems)
            timeouts = effective_timeouts(building, path, table, timeouts)
        entries = raw.get("providers")
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            self._settings[name] = self._rows[name] = None
            self._check_provider_name(name)
            if isinstance(entry, dict):
                kind = entry.get("type")
                if isinstance(kind, str):
                    self._rows[name] = building.providers.get(kind)
                self._settings[name] = entry_settings(
                    building, (*path, "providers", name), entry, timeouts, policy
                )
        if table is None:
            return None
        self._route(table.routing)
        capabilities = self._capabilities(table)
        settings = {name: found for name, found in self._settings.items() if found}
        if len(settings) < len(self._settings):
            return None
        return Model(
            name=str(path[1]),
            capabilities=capabilities,
            routing=tuple(table.routing),
            providers=settings,
            timeouts=None if timeouts is building.timeouts else timeouts,
            policy=None if policy is building.policy else policy,
            fallback_models=tuple(table.fallback_models),
            context_tokens=table.context_tokens,
        )

    def _refuse(self, suffix: Path, message: str) -> None:
        self._building.problems.append(((*self._path, *suffix), message))

    def _check_provider_name(self, name: str) -> None:
        if not name.strip() or not name.isprintable():
            message = "the name of a provider is some text without control characters"
        elif name.startswith(f"{_OWN}::"):
            message = f"the name of a provider cannot start with {_OWN}::"
        else:
            return
        self._refuse(("providers", name), message)

    def _route(self, routing: Sequence[str]) -> None:
        """Check every entry of *routing*, and make the providers without a table."""
        if not routing:
            self._refuse(("routing",), "must not be empty: name at least one provider")
        tables = set(self._settings)
        seen: set[str] = set()
        for index, name in enumerate(routing):
            place = ("routing", index)
            if name in seen:
                self._refuse(place, "duplicate entry: the same name stands before it")
            elif name not in tables:
                self._route_to_type(place, name)
            seen.add(name)
        for name in self._settings:
            if name not in seen:
                message = "not listed in routing, so that it would never be tried"
                self._refuse(("providers", name), message)

    def _route_to_type(self, place: Path, name: str) -> None:
        """Make the provider that an entry without a table means."""
        building = self._building
        row = building.providers.get(name)
        if row is None:
            choices = [*self._settings, *building.providers]
            message = (
                f"no such provider{did_you_mean(name, choices)}: expected a key of "
                "providers, or a provider type"
            )
            self._refuse(place, message)
            return
        self._rows[name] = row
        self._settings[name] = None
        needs = [key for key in row.required if key != "model_name"]
        if needs:
            message = (
                f"{name} needs {' and '.join(needs)}: add a table of this name to "
                "providers"
            )
            self._refuse(place, message)
            return
        try:
            credential = building.keyring.pick(row, None)
        except ValueError as error:
            path = building.keyring.place(row, (*self._path, *place), None)
            building.problems.append((path, str(error)))
        else:
            model = str(self._path[1])
            self._settings[name] = built_in(building, row, model, credential)

    # -- capabilities -----------------------------------------------------------

    def _capabilities(self, table: ModelTable | EmbeddingModelTable) -> frozenset[str]:
        """Return what the model can do, without what no provider can do yet."""
        if isinstance(table, EmbeddingModelTable):
            self._require((), "embedding")
            return frozenset({"embedding"})
        is_said = "endpoints" in table.model_fields_set
        if not table.endpoints:
            message = "must not be empty: name a capability such as chat"
            self._refuse(("endpoints",), message)
        spoken = self._building.spoken
        found: set[str] = set()
        for index, word in enumerate(table.endpoints):
            place: Path = ("endpoints", index)
            capability = ALIASES.get(word, word)
            if capability in spoken:
                self._require(place if is_said else (), capability)
                found.add(capability)
            elif capability in CAPABILITIES:
                path = (*self._path, *place)
                self._building.warnings.append(
                    (path, ignored(f"the capability {capability}"))
                )
            else:
                choices = (*CAPABILITIES, *ALIASES, *spoken)
                hint = did_you_mean(word, choices)
                message = f"unknown capability{hint}"
                if not hint:
                    message += f": expected one of {', '.join(CAPABILITIES)}"
                self._refuse(place, message)
        return frozenset(found)

    def _require(self, place: Path, capability: str) -> None:
        """Refuse *capability* if none of the model's providers speaks it."""
        lacking = []
        for name, row in self._rows.items():
            if row is None or capability in row.dialects:
                return
            lacking.append(name if name == row.name else f"{name} (type {row.name})")
        if not lacking:
            return
        rows = self._building.providers.values()
        able = ", ".join(row.name for row in rows if capability in row.dialects)
        self._refuse(
            place,
            f"no provider of this model supports {capability}: {', '.join(lacking)}; "
            f"types that do: {able}",
        )
