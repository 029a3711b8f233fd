"""A seeded day of traffic: what happened, and the entries that a gateway makes of it.

The one rule: the facts of a request are drawn once, from the seed; the entry is made of
them for the recorder, and figures are computed from them by whoever checks, so that
neither is derived from the other.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from msgspec import Raw

from tz_protocol.records.entry import Entry, make_content
from tz_protocol.records.record import AttemptRecord, Outcome, Record, Stage
from tz_protocol.types.usage import Usage

__all__ = ["DAY", "DAY_START", "Request", "day", "entry_of"]

DAY_START = 1_773_446_400
"""2026-03-14 00:00:00 UTC, a Saturday."""

DAY = "2026-03-14"

_MODELS = {
    "gpt-4.1": (("openai", "azure"), Decimal("0.000002"), Decimal("0.000008")),
    "claude": (("anthropic", "bedrock"), Decimal("0.000003"), Decimal("0.000015")),
    "small": (("vllm",), Decimal("0.0000000001"), Decimal("0.0000000003")),
    "ünpriced::modèl": (("tgi",), None, None),
}
"""By name: its providers in order, and what an input and an output token cost."""

_TEXTS = ("Hi", "Grüße, 世界 \U0001f980", 'a "quoted" \\ line\n\ttab', "x" * 20_000)


@dataclass
class Request:
    """What happened to one request; times are milliseconds."""

    number: int
    at: int
    """Unix time of its start."""
    id: str
    inference_id: str
    """Of the later moment at which it was answered."""
    episode_id: str
    model: str
    provider: str
    tries: tuple[str, ...]
    """Providers that failed before that."""
    endpoint: str = "POST /v1/chat/completions"
    outcome: Outcome = Outcome.OK
    is_stream: bool = False
    is_cached: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read: int | None = None
    cost: Decimal | None = None
    duration: int = 0
    response_time: int = 0
    ttft: int | None = None
    """Of the provider, after the attempt's start."""
    first_content: int | None = None
    """For the caller."""
    key: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    text: str = ""
    finish: str = "stop"

    @property
    def is_inference(self) -> bool:
        """True if it has rows in TensorZero's tables."""
        is_chat = self.endpoint == "POST /v1/chat/completions"
        return is_chat and self.outcome is Outcome.OK

    @property
    def answered(self) -> int:
        """Unix milliseconds of the inference's id."""
        return self.at + self.duration


def day(seed: int = 20_260_314, count: int = 3_000) -> list[Request]:
    """Return the requests of one day, in the order of their starts."""
    rng = random.Random(seed)
    starts = sorted(rng.randrange(86_390_000) for _ in range(count))
    episodes: list[str] = []
    found = []
    for number, start in enumerate(starts):
        at = DAY_START * 1000 + start
        if not episodes or rng.random() < 0.4:
            episodes.append(_uuid(rng, at))
        found.append(_request(rng, number, at, rng.choice(episodes[-20:])))
    return found


def _uuid(rng: random.Random, millis: int) -> str:
    value = millis << 80 | 7 << 76 | rng.getrandbits(12) << 64
    value |= 2 << 62 | rng.getrandbits(62)
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _request(rng: random.Random, number: int, at: int, episode_id: str) -> Request:
    model = rng.choices(list(_MODELS), (5, 3, 4, 1))[0]
    providers, input_price, output_price = _MODELS[model]
    is_second = len(providers) > 1 and rng.random() < 0.15
    response_time = int(rng.lognormvariate(6, 0.7)) + 5
    before = rng.randrange(20, 400) if is_second else rng.randrange(2, 8)
    made = Request(
        number=number,
        at=at,
        id=_uuid(rng, at),
        inference_id=_uuid(rng, at + before + response_time + 3),
        episode_id=episode_id,
        model=model,
        provider=providers[1] if is_second else providers[0],
        tries=providers[:1] if is_second else (),
        is_stream=rng.random() < 0.4,
        duration=before + response_time + 3,
        response_time=response_time,
        key=rng.choice((None, "00000000000000aa", "00000000000000bb")),
        text=rng.choices(_TEXTS, (60, 30, 20, 1))[0],
        finish=rng.choice(("stop", "stop", "length")),
    )
    if rng.random() < 0.6:
        made.tags = {"user": f"u{rng.randrange(12)}", "größe": rng.choice("ab")}
    if made.is_stream:
        made.ttft = max(1, response_time // 3)
        made.first_content = before + made.ttft
    if rng.random() < 0.95:
        made.input_tokens = 0 if rng.random() < 0.02 else rng.randrange(4_000)
        made.output_tokens = rng.randrange(900)
        if rng.random() < 0.3:
            made.cache_read = made.input_tokens // 2
        if input_price is not None and output_price is not None:
            made.cost = input_price * made.input_tokens
            made.cost += output_price * made.output_tokens
    _vary(rng, made)
    return made


def _vary(rng: random.Random, made: Request) -> None:
    """Make something less usual of some requests."""
    chance = rng.random()
    if chance < 0.08:  # from the cache, which costs nothing
        made.is_cached, made.tries, made.cost = True, (), Decimal(0)
        made.response_time, made.ttft = 0, None
        made.duration, made.first_content = 1, 1 if made.is_stream else None
        made.inference_id = _uuid(rng, made.answered)
    elif chance < 0.14:
        made.outcome = rng.choice((Outcome.ERROR, Outcome.TIMEOUT, Outcome.SHED))
        made.tries = _MODELS[made.model][0]
        made.provider, made.first_content, made.ttft = "", None, None
        made.input_tokens = made.output_tokens = made.cache_read = None
        made.cost = Decimal(0)
    elif chance < 0.17:
        made.outcome = rng.choice((Outcome.CLIENT_GONE, Outcome.PARTIAL))
    elif chance < 0.22:
        made.endpoint, made.is_stream = "POST /v1/embeddings", False
        made.ttft = made.first_content = None


# -- as the gateway has it ------------------------------------------------------


def entry_of(request: Request) -> Entry:
    """Return what the gateway hands to its recorder."""
    before = (request.duration - 3 - request.response_time) / 1000
    attempts = [
        AttemptRecord(
            provider=name,
            provider_type="openai",
            model=request.model,
            upstream_model="upstream",
            started=0.001,
            status=500,
            error="provider_error",
            head=0.002,
            ended=0.002,
        )
        for name in request.tries
    ]
    if request.provider and not request.is_cached:
        attempts.append(_answering(request, before))
    usage = None
    if request.input_tokens is not None and request.output_tokens is not None:
        usage = Usage(
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
            cache_read_tokens=request.cache_read,
        )
    is_failed = request.outcome in (Outcome.ERROR, Outcome.TIMEOUT, Outcome.SHED)
    record = Record(
        id=request.id,
        request_id=f"r{request.number}",
        endpoint=request.endpoint,
        config_id="c",
        started_at=request.at / 1000,
        started=0.0,
        stage=Stage.DONE,
        outcome=request.outcome,
        status=503 if is_failed else 200,
        error="overloaded" if is_failed else None,
        episode_id=request.episode_id,
        asked_model=request.model,
        model=None if is_failed else request.model,
        provider=request.provider or None,
        is_stream=request.is_stream,
        attempts=attempts,
        usage=usage,
        first_content=_seconds(request.first_content),
        duration=request.duration / 1000,
        tags=request.tags,
        key_id=request.key,
        cost=request.cost,
        cache="hit" if request.is_cached else "",
    )
    return Entry(
        record=record,
        inference_id=request.inference_id if request.is_inference else "",
        content=_content(request) if request.is_inference else None,
    )


def _answering(request: Request, before: float) -> AttemptRecord:
    return AttemptRecord(
        provider=request.provider,
        provider_type="openai",
        model=request.model,
        upstream_model="upstream",
        started=before,
        status=200,
        head=before,
        first_content=None if request.ttft is None else before + request.ttft / 1000,
        ended=before + request.response_time / 1000,
    )


def _seconds(millis: int | None) -> float | None:
    return None if millis is None else millis / 1000


def _content(request: Request) -> Any:
    messages = [
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": request.text},
    ]
    choice: dict[str, Any] = {"index": 0, "finish_reason": request.finish}
    if request.is_stream:
        chunks = [
            {"choices": [{"index": 0, "delta": {"content": "Hel"}}]},
            {"choices": [{**choice, "delta": {"content": f"lo {request.text}"}}]},
        ]
        received: Any = [json.dumps(chunk).encode() for chunk in chunks]
    else:
        message = {"role": "assistant", "content": f"Hello {request.text}"}
        answer = {"choices": [{**choice, "message": message}]}
        received = json.dumps(answer).encode()
    return make_content(
        "full",
        1_000_000,
        members={
            "messages": Raw(json.dumps(messages).encode()),
            "temperature": Raw(b"0.5"),
        },
        sent=b'{"model":"upstream"}',
        received=received,
    )
