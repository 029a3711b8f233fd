"""What an exchange owes to who asks: the key, its models, its limits.

The one rule: these are steps of ``exchange.py``, in its order, and none of them waits.
What is decided is ``routing/keys.py``'s and ``routing/limits.py``'s.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from tz_protocol.dialects.parameters import Handling
from tz_protocol.errors import ModelNotFound, RateLimited
from tz_protocol.routing.candidates import resolve
from tz_protocol.routing.estimate import choices_of, estimate
from tz_protocol.routing.keys import model_for
from tz_protocol.types.prices import Price, cost_of
from tz_protocol.types.settings import Model
from tz_protocol.types.usage import Usage
from tz_protocol.wire.json import scan_object, value_of

if TYPE_CHECKING:
    from tz_protocol.flows.exchange import Exchange

__all__ = [
    "attribute",
    "identify",
    "model_in",
    "reserve",
    "resolve_for",
    "settle",
    "unreachable",
]

_ZERO = Decimal(0)


def identify(exchange: Exchange) -> None:
    """Find out who calls, and take a place within its limits.

    Raises:
        GatewayError: The caller may not, or not now.
    """
    gateway = exchange.gateway
    principal = exchange.principal = gateway.authenticate(exchange.head)
    if principal is None:
        return
    exchange.record.key_id = principal.key_id
    try:
        lease = gateway.limiter.enter(principal, gateway.wall_clock())
    except RateLimited as error:
        gateway.metrics.add("tz_limited_total", limit=error.kind)
        raise
    if lease is not None:
        exchange.lease = lease
        exchange.response_headers = (*exchange.response_headers, *lease.headers)


def model_in(body: bytes) -> str | None:
    """Return the model that a JSON body names which is no request, None if none."""
    members = scan_object(body)
    found = None if members is None else value_of(members.get("model", b"null"))
    return found if isinstance(found, str) else None


def resolve_for(exchange: Exchange, name: str) -> Model:
    """Return the model that the caller means by *name*.

    Raises:
        ModelNotFound: There is none that the caller may know of.
    """
    gateway, principal = exchange.gateway, exchange.principal
    if principal is None:
        return resolve(exchange.snapshot, name, gateway.providers)
    dynamic = gateway.keys.models
    model = model_for(principal, name, exchange.snapshot, dynamic, gateway.providers)
    attribute(exchange, model)
    return model


def attribute(exchange: Exchange, model: Model) -> None:
    """Put into the record what the caller's key says of *model*, which it may use."""
    principal, record = exchange.principal, exchange.record
    if principal is None:
        return
    grant = principal.models[model.name]
    record.endpoint_id = grant.endpoint_id
    record.model_id, record.project_id = grant.model_id, grant.project_id


def reserve(exchange: Exchange, model: Model, body: bytes) -> None:
    """Take from the key's limits what the request may use.

    Raises:
        RateLimited: It does not fit.
    """
    lease = exchange.lease
    if lease is None:
        return
    gateway, limits = exchange.gateway, lease.limits
    if limits.tokens_per_minute is None and not limits.has_budget:
        return
    expected = estimate(body, exchange.parsed.fields)
    usages = {
        name: _usage_at(exchange, model, name, expected) for name in model.routing
    }
    tokens, cost = max(usage.total_tokens for usage in usages.values()), _ZERO
    if limits.has_budget:
        costs = (_cost(model, name, usage) for name, usage in usages.items())
        cost = max((c for c in costs if c is not None), default=_ZERO)
    headers = exchange.response_headers[: -len(lease.headers) or None]
    try:
        lease.reserve(tokens, cost, gateway.wall_clock())
    except RateLimited as error:
        gateway.metrics.add("tz_limited_total", limit=error.kind)
        exchange.response_headers = headers  # the error has them
        raise
    exchange.response_headers = (*headers, *lease.headers)


def settle(exchange: Exchange) -> None:
    """Put the key's limits right, however the exchange ended; never fails.

    What a provider did not say stays as it was reserved; what no provider answered is
    given back, but for what was used in vain.
    """
    record, lease = exchange.record, exchange.lease
    usage, tokens = record.usage, None
    if record.provider is None or record.cache == "hit":
        tokens, record.cost = 0, _ZERO
    elif usage is not None:
        tokens = usage.total_tokens
        record.cost = _cost_of(exchange.prices, usage)
    if record.cost is not None:
        record.cost += record.spent_cost
    if lease is not None:
        if tokens is not None:
            tokens += record.spent_tokens
        lease.settle(tokens, record.cost, exchange.gateway.wall_clock())


def unreachable(model: Model) -> ModelNotFound:
    """Return the error for a model of which the caller may use no provider."""
    message = (
        f"The model {model.name!r} does not exist, or this API key may not use it."
    )
    return ModelNotFound(message, param="model")


def _usage_at(exchange: Exchange, model: Model, name: str, expected: Usage) -> Usage:
    """Return the usage to expect at one provider: one without ``n`` is asked again."""
    count = choices_of(exchange.parsed.fields)
    if count == 1:
        return expected
    settings = model.providers[name]
    provider = exchange.gateway.providers[settings.type]
    dialect = provider.dialect_of(exchange.endpoint.capability, settings.options)
    table = None if dialect is None else dialect.table
    if table is None or table.get("n") is not Handling.EMULATED:
        return expected
    tokens = expected.input_tokens * count
    return msgspec.structs.replace(expected, input_tokens=tokens)


def _cost(model: Model, name: str, usage: Usage) -> Decimal | None:
    return _cost_of(model.providers[name].prices, usage)


def _cost_of(prices: tuple[Price, ...] | None, usage: Usage) -> Decimal | None:
    return None if prices is None else cost_of(prices, usage)
