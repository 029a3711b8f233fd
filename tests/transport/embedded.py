"""A gateway inside a test's own process, which keeps its records or has a bug."""

from __future__ import annotations

import math
import threading

from tz_protocol.gateway import Gateway
from tz_protocol.operations import SendBody, SendHead, Sleep
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.settings import Model, ProviderSettings, Snapshot

CHAT = "/v1/chat/completions"


def snapshot(*names, url=None):
    """Return a configuration with one dummy model for each name, and ``up``."""
    models = {}
    for name in names:
        provider = ProviderSettings(name="dummy", type="dummy", model=name)
        models[name] = _model(name, provider)
    if url is not None:
        provider = ProviderSettings(name="up", type="openai", model="m", url=url)
        models["up"] = _model("up", provider)
    return Snapshot(models=models)


def _model(name, provider):
    return Model(
        name=name,
        capabilities=frozenset({"chat"}),
        routing=(provider.name,),
        providers={provider.name: provider},
    )


def chat(model="good", *, stream=False):
    messages = [{"role": "user", "content": "Hello"}]
    return {"model": model, "messages": messages, "stream": stream}


class Watched(Gateway):
    """Keeps the records of its exchanges."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.records = []
        self.settled = threading.Event()

    def settle(self, record):
        super().settle(record)
        self.records.append(record)
        self.settled.set()


def make_gateway(transport, **options):
    """Return a gateway that keeps its records, as ``make_gateway`` would make it."""
    made = transport.embed.make_gateway(snapshot("good", "slow", **options))
    return Watched(
        made.snapshot,
        wall_clock=made.wall_clock,
        new_id=made.new_id,
        jitter=made.jitter,
    )


class BuggyGateway(Watched):
    """Its handler has a bug, before or after the head."""

    is_late = False

    def handle(self, head):
        yield from Sleep(0.0)
        if self.is_late:
            yield from SendHead(math.inf, ResponseHead(200))
            yield from SendBody(math.inf, b"begun")
        raise ZeroDivisionError("secret")


def buggy(gateway, *, is_late=False):
    made = BuggyGateway(
        gateway.snapshot,
        wall_clock=gateway.wall_clock,
        new_id=gateway.new_id,
        jitter=gateway.jitter,
    )
    made.is_late = is_late
    return made
