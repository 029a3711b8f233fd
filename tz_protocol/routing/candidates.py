"""From a model's name to the ordered candidates that may answer.

The one rule: one :func:`eligible` decides for first tries, retries, fallbacks and
hedges alike; nothing is ever opened that it did not return.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import msgspec

from tz_protocol.dialects.base import AnyDialect
from tz_protocol.errors import CapabilityNotSupported, InvalidRequest, ModelNotFound
from tz_protocol.types.keys import Principal
from tz_protocol.types.request import ParsedRequest
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Model, ProviderSettings, Snapshot

if TYPE_CHECKING:
    from tz_protocol.providers.base import Provider

__all__ = [
    "NAME_PREFIXES",
    "Candidate",
    "Dropped",
    "candidates",
    "eligible",
    "require",
    "resolve",
]

NAME_PREFIXES = ("tensorzero::model_name::", "tensorzero::embedding_model_name::")
"""TensorZero's ways to say that what follows is a model's name."""


_LONGEST_TYPO = 64
_MOST_CHOICES = 50
"""A suggestion costs some 20 us for each choice: more would let callers with wrong
names take the time of others."""


class Candidate(msgspec.Struct, frozen=True):
    """One provider of one model, able to do what the endpoint needs."""

    model: Model
    settings: ProviderSettings
    provider: Provider
    dialect: AnyDialect


class Dropped(msgspec.Struct, frozen=True):
    """A candidate that may not be opened for this request, and why."""

    candidate: Candidate
    error: InvalidRequest


def resolve(snapshot: Snapshot, name: str, providers: Mapping[str, Provider]) -> Model:
    """Return the model that a caller means by *name*.

    A configured model, with or without TensorZero's ``tensorzero::model_name::``
    prefix, or ``type::model`` shorthand. Configured names win.

    Raises:
        ModelNotFound: There is none.
        InvalidRequest: The name means a TensorZero function.
    """
    model = snapshot.models.get(name)
    if model is not None:
        return model
    for prefix in NAME_PREFIXES:
        if name.startswith(prefix):
            return resolve(snapshot, name.removeprefix(prefix), providers)
    if name.startswith("tensorzero::"):
        message = (
            f"The model {name!r} names a TensorZero function; this gateway serves "
            "models only. Use a model's name."
        )
        raise InvalidRequest(message, param="model", code="unsupported_model_name")
    kind, separator, rest = name.partition("::")
    if separator and rest and kind in providers:
        return _shorthand(snapshot, name, kind, rest, providers[kind])
    if separator and rest:
        hint = f": there is no provider type {kind!r}"
        hint += _nearest(kind, providers) or "."
    else:
        hint = _nearest(name, snapshot.models)
    message = f"The model {name!r} does not exist{hint or '.'}"
    raise ModelNotFound(message, param="model")


def _nearest(word: str, choices: Collection[str]) -> str:
    """Return a suggestion, nothing if no choice is near or to look would take long."""
    if len(word) > _LONGEST_TYPO or len(choices) > _MOST_CHOICES:
        return ""
    found = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _shorthand(
    snapshot: Snapshot, name: str, kind: str, rest: str, provider: Provider
) -> Model:
    settings = snapshot.shorthand.get(kind)
    if settings is None:
        variable = snapshot.missing_keys.get(kind)
        hint = (
            f"set {variable} to use {kind}'s models by shorthand"
            if variable
            else f"{kind} has no shorthand; configure the model in [models]"
        )
        message = f"The model {name!r} does not exist: {hint}."
        raise ModelNotFound(message, param="model")
    return Model(
        name=name,
        capabilities=frozenset(provider.dialects),
        routing=(kind,),
        providers={kind: msgspec.structs.replace(settings, model=rest)},
    )


def require(model: Model, capability: str) -> None:
    """Check that *model* is configured for *capability*.

    Raises:
        CapabilityNotSupported: It is not; the message says what to add.
    """
    if capability not in model.capabilities:
        message = (
            f"Model `{model.name}` is not configured to support capability "
            f'`{capability}`. Add `endpoints = ["{capability}"]` to the model '
            "configuration."
        )
        raise CapabilityNotSupported(message, param="model")


def candidates(
    model: Model, capability: str, providers: Mapping[str, Provider]
) -> list[Candidate]:
    """Return the model's providers that speak *capability*, in routing order.

    Raises:
        CapabilityNotSupported: None of them does.
    """
    found = []
    for name in model.routing:
        settings = model.providers[name]
        provider = providers[settings.type]
        dialect = provider.dialect_of(capability, settings.options)
        if dialect is not None:
            found.append(Candidate(model, settings, provider, dialect))
    if not found:
        message = f"No provider of model `{model.name}` supports `{capability}`."
        raise CapabilityNotSupported(message, param="model")
    return found


def eligible(
    found: list[Candidate], request: ParsedRequest, principal: Principal | None = None
) -> tuple[list[Candidate], list[Dropped]]:
    """Split candidates into those that may be opened for *request* and the others.

    Args:
        found: In the order to try them.
        request: The caller's.
        principal: The caller; None: everybody may use everything. What its key does
            not reach is in neither list: nothing may tell that it exists.
    """
    kept: list[Candidate] = []
    dropped: list[Dropped] = []
    for candidate in found:
        if principal is not None and not principal.reaches(candidate.model.key):
            continue
        error = _obstacle(candidate, request, principal)
        if error is None:
            kept.append(candidate)
        else:
            dropped.append(Dropped(candidate, error))
    return kept, dropped


def key_of(candidate: Candidate, request: ParsedRequest) -> Secret | None:
    """Return the key to use for an eligible candidate, None for no key."""
    credential = candidate.settings.credential
    if credential.kind == "dynamic":
        return request.extensions.credentials.get(credential.name)
    return credential.secret


def _obstacle(
    candidate: Candidate, request: ParsedRequest, principal: Principal | None
) -> InvalidRequest | None:
    if (
        principal is not None
        and principal.limits.has_budget
        and candidate.settings.prices is None
    ):
        message = (
            f"This API key has a budget and model `{candidate.model.name}` has no "
            "price, so that its use cannot be counted. Add `cost` to its provider."
        )
        return InvalidRequest(
            message,
            param="model",
            code="price_unknown",
            status=403,
            kind="permission_error",
        )
    if request.is_stream and candidate.dialect.stream_decoder is None:
        message = (
            f"Provider `{candidate.settings.name}` of model `{candidate.model.name}` "
            "does not stream here."
        )
        return InvalidRequest(message, param="stream", code="stream_not_supported")
    credential = candidate.settings.credential
    if (
        credential.kind == "dynamic"
        and credential.name not in request.extensions.credentials
    ):
        message = (
            f"Model `{candidate.model.name}` takes its key from the request: add "
            f"`{credential.name}` to `tensorzero::credentials`."
        )
        return InvalidRequest(
            message, param="tensorzero::credentials", code="missing_credential"
        )
    return None
