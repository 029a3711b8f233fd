"""A gateway in a simulated world: three providers of one model, and who asks it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from tz_protocol.gateway import Gateway
from tz_protocol.testing import (
    Arrival,
    Behaviour,
    Outcome,
    ScriptedRequest,
    Simulator,
    Step,
    World,
    reply,
    sse,
)
from tz_protocol.types.http import RequestHead
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import (
    Credential,
    GatewaySettings,
    Limits,
    Model,
    ProviderSettings,
    ServerTimeouts,
    Snapshot,
    Timeouts,
    Url,
)

HOSTS = ("a.test", "b.test", "c.test")
KEY = "sk-provider-canary"

COMPLETION = {
    "id": "chatcmpl-theirs",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "upstream-model",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
JSON = (("content-type", "application/json"),)
WORDS = ("Hello", " there", ",", " you")


def chunk(
    content: str | None, *, finish: str | None = None, role: bool = False
) -> bytes:
    """Return one chunk of a provider's stream."""
    delta: dict[str, Any] = {"role": "assistant", "content": ""} if role else {}
    if content is not None:
        delta = {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {
        "id": "chatcmpl-theirs",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "upstream-model",
        "choices": [choice],
    }
    return json.dumps(body).encode()


USAGE_CHUNK = json.dumps(
    {
        "id": "chatcmpl-theirs",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "upstream-model",
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
).encode()

EVENTS = (
    chunk(None, role=True),
    *(chunk(word) for word in WORDS),
    chunk(None, finish="stop"),
    USAGE_CHUNK,
)


def good(**options: Any) -> tuple[Step, ...]:
    """Return a provider's whole answer."""
    return reply(200, JSON, json.dumps(COMPLETION).encode(), **options)


def refusal(
    status: int,
    message: str = "no",
    headers: tuple[tuple[str, str], ...] = (),
    **options: Any,
) -> tuple[Step, ...]:
    """Return a provider's error, in OpenAI's shape."""
    error = {"message": message, "type": "their_type", "param": None, "code": "their"}
    body = json.dumps({"error": error}).encode()
    return reply(status, (*JSON, *headers), body, **options)


def good_stream(**options: Any) -> tuple[Step, ...]:
    """Return a provider's streamed answer."""
    return sse(*EVENTS, **options)


def snapshot(
    hosts: Sequence[str] = HOSTS,
    *,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    fallback: int = 0,
    providers_have: dict[str, dict[str, Any]] | None = None,
    **gateway: Any,
) -> Snapshot:
    """Return a configuration with the model ``m`` over one provider a host.

    Args:
        hosts: Each has a provider, named by its first letter.
        timeouts: The gateway's.
        limits: The gateway's.
        fallback: How many of the last hosts serve the model ``n`` instead, to which
            ``m`` falls back.
        providers_have: Further settings, by the provider's name.
        gateway: Further settings of the gateway.
    """
    providers = {
        host[0]: ProviderSettings(
            **{
                "name": host[0],
                "type": "openai",
                "model": "upstream-model",
                "url": Url("http", host, 80, "/v1/"),
                "credential": Credential("static", Secret(KEY)),
                **(providers_have or {}).get(host[0], {}),
            }
        )
        for host in hosts
    }
    every = ("chat", "embedding", "moderation", "audio_transcription", "audio_speech")
    names = tuple(providers)
    parts = {"m": names[: len(names) - fallback], "n": names[len(names) - fallback :]}
    models = {
        name: Model(
            name=name,
            capabilities=frozenset(every),
            routing=part,
            providers={one: providers[one] for one in part},
            fallback_models=("n",) if name == "m" and fallback else (),
        )
        for name, part in parts.items()
        if part
    }
    settings = GatewaySettings(
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
        server=gateway.pop("server", ServerTimeouts()),
        **gateway,
    )
    return Snapshot(gateway=settings, models=models)


class Served:
    """A simulator with a gateway in it."""

    def __init__(
        self,
        *upstreams: Sequence[Behaviour | Sequence[Step]],
        config: Snapshot | None = None,
        seed: int = 0,
        splits: tuple[int, ...] = (),
        repeat: bool = False,
        first_id: int = 1,
    ) -> None:
        world = World()
        for host, connections in zip(HOSTS, upstreams, strict=False):
            world.upstream(host, 80, *connections, repeat=repeat)
        hosts = HOSTS[: len(upstreams)]
        self.sim = Simulator(world, seed=seed, splits=splits)
        counter = itertools.count(first_id)
        self.gateway = Gateway(
            snapshot(hosts) if config is None else config,
            wall_clock=lambda: 1_750_000_000.0 + self.sim.now - self.sim.start,
            new_id=lambda: f"01890000-0000-7000-8000-{next(counter):012x}",
            jitter=lambda: 0.5,
            context=self.sim.context,
        )

    def ask(
        self,
        body: Any = None,
        *,
        path: str = "/v1/chat/completions",
        method: str = "POST",
        headers: tuple[tuple[str, str], ...] = JSON,
        request: ScriptedRequest | None = None,
        stream: bool = False,
        run: bool = True,
        **options: Any,
    ) -> Outcome[None]:
        """Ask one bare exchange; by default for a chat completion of ``m``."""
        if body is None and method == "POST":
            body = chat(stream=stream)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        pieces: tuple[Arrival | bytes, ...] = (data,) if method == "POST" else ()
        head = RequestHead(method=method, path=path, headers=headers)
        outcome = self.sim.spawn(
            self.gateway.handle(head),
            request=request or ScriptedRequest(pieces),
            **options,
        )
        if run:
            self.sim.run_until_idle()
        return outcome

    @property
    def record(self) -> Any:
        """The one record of the run."""
        (record,) = self.sim.records
        return record


def chat(*, stream: bool = False, model: str = "m", **members: Any) -> dict[str, Any]:
    """Return a chat request."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        **members,
    }
    if stream:
        body["stream"] = True
    return body


def answer(outcome: Outcome[Any]) -> Any:
    """Return the JSON of a whole answer."""
    return msgspec.json.decode(outcome.response.body)


def error_of(outcome: Outcome[Any]) -> tuple[int, Any]:
    """Return (status, error) of a refusal."""
    head = outcome.response.head
    assert head is not None
    return head.status, answer(outcome)["error"]


def events(outcome: Outcome[Any]) -> list[Any]:
    """Return what each event of a streamed answer carries."""
    found = []
    for block in outcome.response.body.decode().split("\n\n"):
        if block:
            data = block.removeprefix("data: ")
            found.append(data if data == "[DONE]" else msgspec.json.decode(data))
    return found


def text_of(found: list[Any]) -> str:
    """Return the text of a streamed answer."""
    return "".join(
        choice["delta"].get("content") or ""
        for event in found
        if isinstance(event, dict)
        for choice in event.get("choices", ())
    )


def header(outcome: Outcome[Any], name: str) -> Any:
    """Return a header of the answer, or None."""
    head = outcome.response.head
    assert head is not None
    return head.get(name)
