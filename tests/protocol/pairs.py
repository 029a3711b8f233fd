"""Every endpoint with every provider that has its capability, and how to ask one.

Rows, not names: what is tested with these is tested for a new row as well.
"""

from __future__ import annotations

import pytest
from msgspec import Raw

from tests.protocol.flows.serving import Served
from tests.protocol.samples import JSON, MODEL, Body, client_request
from tz_protocol.endpoints import ENDPOINTS
from tz_protocol.providers import ROWS
from tz_protocol.testing import reply
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import (
    Credential,
    GatewaySettings,
    Limits,
    Model,
    ProviderSettings,
    Snapshot,
    Url,
)

KEY = "sk-registry-canary"
UPSTREAM_MODEL = "good"
"""The name at the provider; the dummy answers to it."""
UPSTREAM_MODELS = {("aws_bedrock", "embedding"): "amazon.titan-embed-text-v2:0"}
"""The name at providers that take none but their own, by type and capability."""

PAIRS = [
    (endpoint, row)
    for endpoint in ENDPOINTS
    for row in ROWS
    if endpoint.capability in row.dialects
]


def is_streaming(endpoint, row):
    """Return whether both sides have streams."""
    dialects = endpoint.dialect, row.dialects[endpoint.capability]
    return dialects[0].stream_encoder is not None and (
        dialects[1].stream_decoder is not None
    )


def pairs(condition=lambda endpoint, row: True):
    return pytest.mark.parametrize(
        ("endpoint", "row"),
        [
            pytest.param(endpoint, row, id=f"{endpoint.route}-{row.name}")
            for endpoint, row in PAIRS
            if condition(endpoint, row)
        ],
    )


def is_remote(endpoint, row):
    """Return whether the provider is asked over a connection."""
    return row.responder is None


def is_streaming_remote(endpoint, row):
    return is_remote(endpoint, row) and is_streaming(endpoint, row)


def options_of(row):
    """Return something for each key that the provider's table must have."""
    wanted = {key: f"the-{key}" for key in row.required if key not in PLACED}
    return {**wanted, **{key: WORDS[key] for key in WORDS.keys() & wanted.keys()}}


def model_of(endpoint, row):
    """Return a name of a model that the provider takes."""
    return UPSTREAM_MODELS.get((row.name, endpoint.capability), UPSTREAM_MODEL)


PLACED = ("model_name", "api_base")
"""Keys that have fields of their own in the settings."""

WORDS = {"hosted_provider": "openai"}
"""Options of which not every word is taken."""

EXTRA = {"x_extra": Raw(b'"given"')}


def ask(endpoint, row, answer=None, *, stream=False, limits=None, key=KEY, headers=()):
    """Return (what a client gets, the run) of a gateway with one provider of *row*."""
    settings = ProviderSettings(
        name="only",
        type=row.name,
        model=model_of(endpoint, row),
        url=Url("http", "a.test", 80, "/b/") if row.responder is None else None,
        credential=Credential("static", Secret(key)),
        options=options_of(row),
        extra_body=EXTRA,
    )
    model = Model(
        name=MODEL,
        capabilities=frozenset({endpoint.capability}),
        routing=("only",),
        providers={"only": settings},
    )
    answer = answer or Body(JSON, b"{}")
    gateway = GatewaySettings(limits=limits or Limits())
    sent = (("content-type", answer.content_type), *headers)
    served = Served(
        [reply(answer.status, sent, answer.data)],
        config=Snapshot(gateway=gateway, models={MODEL: model}),
        repeat=True,
    )
    body = client_request(endpoint, stream=stream)
    method, _, path = endpoint.route.partition(" ")
    outcome = served.ask(
        body.data,
        path=path,
        method=method,
        headers=(("content-type", body.content_type),),
    )
    if outcome.error is not None:
        raise outcome.error
    return outcome, served
