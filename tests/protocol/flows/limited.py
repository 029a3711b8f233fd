"""A gateway whose keys have limits, and whose providers have prices."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from tests.protocol.flows.keyed import (
    KEY,
    bearer,
    principal,
    with_keys,
)
from tests.protocol.flows.serving import (
    JSON,
    Served,
    good,
    snapshot,
)
from tz_protocol.types.keys import KeyLimits
from tz_protocol.types.prices import Price

PRICES = (Price("input", Decimal("0.01")), Price("output", Decimal("0.1")))
"""An answer of ``good()`` costs 0.13."""


def priced(config):
    """Return *config* with prices for every provider."""
    models = {}
    for name, model in config.models.items():
        providers = {
            key: msgspec.structs.replace(entry, prices=PRICES)
            for key, entry in model.providers.items()
        }
        models[name] = msgspec.structs.replace(model, providers=providers)
    return msgspec.structs.replace(config, models=models)


def served(*upstreams, limits=None, keys=None, **options):
    config = priced(snapshot(("a.test", "b.test")[: len(upstreams) or 1]))
    if keys is None:
        keys = (principal(limits=KeyLimits(**(limits or {}))),)
    upstreams = upstreams or ([good()],)
    return Served(*upstreams, config=with_keys(config, *keys), repeat=True, **options)


def ask(gateway, key=KEY, body=None, **options):
    headers = JSON if key is None else bearer(key)
    return gateway.ask(body, headers=options.pop("headers", headers), **options)
