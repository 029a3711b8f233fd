"""From a model to the options of a plan: candidates, fallbacks, breakers, order.

The one rule: everything that may ever be tried for a request is in the list that
:func:`options_of` makes of what ``eligible`` kept; whatever is not in it is not tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Raw

from tz_protocol.errors import CapabilityNotSupported, GatewayError, ModelNotFound
from tz_protocol.routing.breaker import Breakers, TargetKey
from tz_protocol.routing.candidates import Candidate, candidates, resolve
from tz_protocol.routing.keys import model_for
from tz_protocol.routing.order import spread
from tz_protocol.routing.plan import Option
from tz_protocol.types.keys import Principal
from tz_protocol.types.policy import Policy
from tz_protocol.types.request import ParsedRequest
from tz_protocol.types.settings import Model, ProviderSettings, Snapshot
from tz_protocol.wire.json import NULL

if TYPE_CHECKING:
    from tz_protocol.providers.base import Provider

__all__ = [
    "all_candidates",
    "fallbacks_of",
    "has_provider_state",
    "is_public",
    "options_of",
    "policy_of",
    "settings_of",
]


def policy_of(model: Model, snapshot: Snapshot) -> Policy:
    """Return how hard to try for *model*."""
    return model.policy or snapshot.gateway.policy


def fallbacks_of(
    model: Model,
    principal: Principal | None,
    snapshot: Snapshot,
    dynamic: Mapping[str, Model],
    providers: Mapping[str, Provider],
) -> list[Model]:
    """Return the models to try after *model*, in order.

    A name that means nothing any more, or nothing to this caller, is passed over.

    Args:
        model: The one asked for.
        principal: The caller, to whom models go by other names; None: everybody.
        snapshot: The configuration.
        dynamic: Further models, by id in the model table.
        providers: The vendors' rows.
    """
    found = []
    for name in model.fallback_models:
        try:
            if principal is None:
                found.append(resolve(snapshot, name, providers))
                continue
            public = _name_for(principal, name)
            if public is not None:
                found.append(model_for(principal, public, snapshot, dynamic, providers))
        except GatewayError:
            continue
    return found


def _name_for(principal: Principal, table_id: str) -> str | None:
    for name, grant in principal.models.items():
        if grant.endpoint_id == table_id:
            return name
    return None


def all_candidates(
    models: Sequence[Model], capability: str, providers: Mapping[str, Provider]
) -> list[Candidate]:
    """Return every provider of *models* that speaks *capability*, model by model.

    Args:
        models: The one asked for, then its fallbacks.
        capability: Of the endpoint.
        providers: The vendors' rows.

    Raises:
        CapabilityNotSupported: The model asked for has none.
    """
    found = candidates(models[0], capability, providers)
    for fallback in models[1:]:
        if capability not in fallback.capabilities:
            continue
        try:
            found += candidates(fallback, capability, providers)
        except CapabilityNotSupported:
            continue
    return found


def options_of(
    kept: Sequence[Candidate],
    snapshot: Snapshot,
    breakers: Breakers,
    draw: Callable[[], float],
) -> list[Option[Candidate]]:
    """Return what a plan may try, in the order to try it.

    Args:
        kept: By ``eligible``; at least one.
        snapshot: The configuration.
        breakers: The process's.
        draw: Draws a number in [0, 1) where weights decide.
    """
    ordered = kept
    if len(kept) > 1 and any(candidate.settings.weight for candidate in kept):
        ordered = spread(kept, _model_of, _weight_of, draw)
    options = []
    for candidate in ordered:
        model, settings = candidate.model, candidate.settings
        policy = model.policy or snapshot.gateway.policy
        count = settings.retry_count
        if count is None and model.policy is not None:
            count = model.policy.retries.count
        target = TargetKey(model.key, settings.name)
        breaker = breakers.get(target, settings.breaker or policy.breaker, settings)
        options.append(
            Option(
                candidate=candidate,
                breaker=breaker,
                model=model.key,
                context_tokens=settings.context_tokens or model.context_tokens,
                retry_count=count,
                is_key_shared=settings.credential.kind != "dynamic",
            )
        )
    return options


def _model_of(candidate: Candidate) -> str:
    return candidate.model.key


def _weight_of(candidate: Candidate) -> float | None:
    return candidate.settings.weight


def has_provider_state(request: ParsedRequest) -> bool:
    """Return True if the request leaves or continues something at the provider.

    Such a request is never sent twice at one time: what the loser was asked to store,
    or to go on with, would be there twice.
    """
    fields = request.fields
    if not fields:
        return False
    return any(fields.get(name, NULL) not in _NONE for name in _STATE)


_NONE = (NULL, Raw(b"false"))
_STATE = (
    *("store", "background", "previous_response_id", "conversation"),  # OpenAI
    "container",  # Anthropic
    "previous_interaction_id",  # Google
)
"""Members by which a request leaves something at the provider, or goes on with it."""


# -- what the process remembers of targets --------------------------------------


def settings_of(
    targets: Iterable[object],
    snapshot: Snapshot,
    dynamic: Mapping[str, Model],
    providers: Mapping[str, Provider],
) -> dict[object, ProviderSettings]:
    """Return the settings of those *targets* that still exist, for ``Breakers.keep``.

    Names in shorthand are in no table; they exist as long as their type's key does.
    """
    found: dict[object, ProviderSettings] = {}
    for target in targets:
        if not isinstance(target, TargetKey):
            continue
        model = snapshot.models.get(target.model) or dynamic.get(target.model)
        try:
            if model is None:
                model = resolve(snapshot, target.model, providers)
        except ModelNotFound:
            continue
        settings = model.providers.get(target.provider)
        if settings is not None:
            found[target] = settings
    return found


def is_public(name: str, snapshot: Snapshot, dynamic: Mapping[str, Model]) -> bool:
    """Return True for the name of a model that the operator chose.

    Callers choose what stands after ``type::``: a page or a metric that showed those
    would grow as they like.
    """
    return name in snapshot.models or name in dynamic
