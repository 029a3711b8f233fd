"""A gateway with API keys, mirrored from a scripted Redis, in a simulated world."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tests.protocol.flows.serving import JSON, Served, good, snapshot
from tz_protocol.flows.keyvalues import parse_hashed
from tz_protocol.notices import LogLine
from tz_protocol.testing import ScriptedRedis
from tz_protocol.types.keys import Access, Grant, Principal, digest_of
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Model, Snapshot

URL = "redis://:redis-password-canary@redis.test:6379/0"
SERVICES = ("key_mirror", "limit_sync")
KEY = "sk-client-canary-0123456789"
OTHER = "sk-client-canary-9876543210"


def grants(**models: str) -> dict[str, Grant]:
    """Return what a key may use: public name -> endpoint id."""
    return {name: Grant(table_id) for name, table_id in models.items()}


def principal(key: str = KEY, **fields: Any) -> Principal:
    """Return the holder of *key*; by default of the model ``m``."""
    fields.setdefault("models", grants(m="m"))
    return Principal(digest=digest_of(key.encode()), **fields)


def hashed(key: str = KEY) -> str:
    """Return the name under which the hashed form of *key* is stored."""
    return f"api_key_hash:{digest_of(key.encode()).hex()}"


def value(*names: str, **fields: Any) -> str:
    """Return the hashed form's value: each name is its own endpoint id."""
    models = {name: {"endpoint_id": name} for name in names or ("m",)}
    return json.dumps({"models": models, **fields})


def clear(key: str = KEY, **models: str) -> str:
    """Return the value of ``api_key:*`` for one key."""
    models = models or {"m": "m"}
    ids = {"model_id": "mod-1", "project_id": "prj-1"}
    return json.dumps(
        {key: {name: {"endpoint_id": e, **ids} for name, e in models.items()}}
    )


def bearer(key: str = KEY) -> tuple[tuple[str, str], ...]:
    """Return a request's headers with *key*."""
    return (*JSON, ("authorization", f"Bearer {key}"))


def read_model(table_id: str, data: bytes) -> Model:
    """Return the model ``m`` of the configuration under another id."""
    shape = msgspec.json.decode(data)
    if shape.get("api_key_location") == "env::FORBIDDEN":
        message = "the file does not allow this credential location"
        raise ValueError(message)
    model = snapshot(("a.test",)).models["m"]
    return msgspec.structs.replace(model, name=table_id)


def with_keys(config: Snapshot, *keys: Principal, **access: Any) -> Snapshot:
    """Return *config* with authentication on."""
    table = {one.digest: one for one in keys}
    return msgspec.structs.replace(config, access=Access(keys=table, **access))


class Keyed(Served):
    """A gateway whose keys are in Redis; its services run."""

    def __init__(
        self,
        *upstreams: Any,
        redis: ScriptedRedis | None = None,
        config: Snapshot | None = None,
        keys: tuple[Principal, ...] = (),
        seed: int = 0,
        serve: bool = True,
        **access: Any,
    ) -> None:
        upstreams = upstreams or ([good()],)
        base = snapshot(("a.test",)) if config is None else config
        access.setdefault("read_model", read_model)
        super().__init__(
            *upstreams,
            config=with_keys(base, *keys, redis_url=Secret(URL), **access),
            seed=seed,
            repeat=True,
        )
        self.redis = ScriptedRedis() if redis is None else redis
        self.sim.world.redis[URL] = self.redis
        self.services = [
            self.sim.spawn(make(), name=name)
            for name, make in self.gateway.services()
            if serve and name in SERVICES
        ]

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.sim.run_until(self.sim.now + seconds)
        for service in self.services:
            if service.is_done:
                assert service.result is None, "a service ended"

    def status(self, key: str | None = KEY, model: str = "m", **options: Any) -> int:
        """Return what a chat request with *key* is answered."""
        outcome = self.request(key, model, **options)
        status: int = outcome.response.status
        return status

    def request(self, key: str | None = KEY, model: str = "m", **options: Any) -> Any:
        """Return a chat request with *key*, run to its end."""
        headers = JSON if key is None else bearer(key)
        body = options.pop("body", None)
        if body is None:
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        outcome = self.ask(body, headers=headers, run=False, **options)
        self.sim.run_until_done(outcome)
        return outcome

    def log(self) -> list[LogLine]:
        """Return every line of the log so far."""
        return [n for n in self.sim.notices if isinstance(n, LogLine)]

    def metric(self, text: str) -> bool:
        """Return True if the metrics have this line, which ends in a whole number."""
        rendered = self.gateway.metrics.render(self.gateway.gauges())
        return f"{text}.0" in rendered.splitlines()


def hashed_principal(key: str, text: str) -> Principal:
    """Return the principal that the hashed form of *key* describes."""
    return parse_hashed(digest_of(key.encode()), text.encode())


def redis(**options: Any) -> ScriptedRedis:
    """Return a server with one key in the hashed form."""
    server = ScriptedRedis(**options)
    server.run("SET", hashed(), value())
    return server


def loaded(server: ScriptedRedis | None = None, **options: Any) -> Any:
    """Return a gateway that has loaded its keys; by default the one of ``redis``."""
    keyed = Keyed(redis=redis() if server is None else server, **options)
    keyed.wait(2)
    return keyed
