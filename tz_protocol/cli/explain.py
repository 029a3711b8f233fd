"""``explain``: what would become of a request, without sending it.

The one rule: it decides nothing by itself. It asks the functions that the server asks,
with a gateway that nobody can reach, and prints what they say. Keys are replaced before
a header is made, so that there is nothing to hide afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw

from tz_protocol.cli.arguments import USAGE_ERROR
from tz_protocol.cli.explained import render
from tz_protocol.cli.loading import load
from tz_protocol.cli.options import Explain
from tz_protocol.cli.output import print_error, print_problems, say
from tz_protocol.endpoints import ENDPOINTS, Endpoint
from tz_protocol.errors import (
    ConfigError,
    GatewayError,
    InvalidRequest,
    OperationError,
    UpstreamBroken,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamTimeout,
)
from tz_protocol.flows.attempt import target_of, timeouts_of
from tz_protocol.flows.calls import headers_of, placed
from tz_protocol.flows.exchange import Exchange
from tz_protocol.flows.fetching import check_link, links_for
from tz_protocol.flows.trying import make_plan, sort_out
from tz_protocol.gateway import Gateway
from tz_protocol.machine import Context
from tz_protocol.operations import Flow, ReadFiles
from tz_protocol.routing.breaker import Breakers
from tz_protocol.routing.candidates import Candidate, require, resolve
from tz_protocol.routing.classify import FOLLOWS, Kind
from tz_protocol.routing.options import fallbacks_of, has_provider_state, policy_of
from tz_protocol.routing.plan import SleepUntil, Try
from tz_protocol.routing.reach import named
from tz_protocol.types.conversation import Inline
from tz_protocol.types.http import HttpRequest, RequestHead
from tz_protocol.types.request import ParsedRequest
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Model, Snapshot

__all__ = ["SAMPLES", "explain"]

REDACTED = "[redacted]"

_SECONDS = 10.0
"""For the file with the request."""

_LONGEST = 1 - 2**-53
"""The draw for which a pause is as long as it can be."""

_JSON = "application/json"
_BOUNDARY = "explain"


def explain(command: Explain, context: Context) -> Flow[int]:
    """Print what would become of the request; return the exit status."""
    try:
        loaded = yield from load(command.source, context)
    except ConfigError as error:
        yield from print_problems(context, error)
        return USAGE_ERROR
    body: bytes | None = None
    if command.request is not None:
        body = yield from _read(command.request, context)
        if body is None:
            message = f"{command.request} cannot be read, or there is no such file"
            yield from print_error(context, message)
            return 1
    found = _explain(loaded.snapshot, command.model, body)
    if command.is_json:
        text = msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
    else:
        text = render(found)
    yield from say(context, text.rstrip("\n") + "\n")
    return 0 if "refused" not in found else 1


def _read(path: str, context: Context) -> Flow[bytes | None]:
    # A path is a pattern in which nothing may stand for anything else.
    pattern = "".join(f"[{sign}]" if sign in "[*?" else sign for sign in path)
    try:
        files = yield from ReadFiles(context.now + _SECONDS, pattern)
    except OperationError:
        return None
    return files[0][1].encode() if files else None


def _explain(snapshot: Snapshot, name: str, body: bytes | None) -> dict[str, Any]:
    found: dict[str, Any] = {"asked": name, "config_id": snapshot.config_id}
    mind = _Mind(snapshot)
    try:
        model = resolve(snapshot, name, mind.gateway.providers)
        found["model"] = _model(model, snapshot)
        exchange = mind.exchange(model, name, body)
        found["endpoint"] = exchange.endpoint.route
        found["capability"] = exchange.endpoint.capability
        require(model, exchange.endpoint.capability)
        _, dropped = sort_out(exchange, model)
        found["dropped"] = [
            {**_named(one.candidate), "why": one.error.message} for one in dropped
        ] + list(_unable(exchange, model))
        mind.draw = 0.0
        plan = make_plan(exchange, model)
        plan.close()
        order = [option.candidate for option in plan.options]
        found["candidates"] = [_candidate(exchange, one) for one in order]
        found["timers"] = _timers(exchange, model)
        found["failures"] = [mind.follow(exchange, model, kind) for kind in SAMPLES]
    except GatewayError as error:
        found["refused"] = _told(error)
    return found


def _model(model: Model, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "name": model.name,
        "is_configured": model.name in snapshot.models,
        "capabilities": sorted(model.capabilities),
        "routing": model.routing,
        "fallback_models": model.fallback_models,
    }


def _told(error: GatewayError) -> dict[str, Any]:
    return {
        "status": error.status,
        "code": error.code,
        "message": error.message,
        "retry_after": error.retry_after,
    }


def _unable(exchange: Exchange, model: Model) -> Iterator[dict[str, Any]]:
    """Yield the providers that do not speak what the endpoint needs, and why."""
    gateway, capability = exchange.gateway, exchange.endpoint.capability
    models = [
        model,
        *fallbacks_of(model, None, exchange.snapshot, {}, gateway.providers),
    ]
    for one in models:
        for name, settings in one.providers.items():
            row = gateway.providers[settings.type]
            if capability not in one.capabilities:
                why = f"the model is not configured for {capability}"
            elif row.dialect_of(capability, settings.options) is None:
                why = f"providers of type {settings.type} do not support {capability}"
            else:
                continue
            yield {
                "model": one.name,
                "provider": name,
                "type": settings.type,
                "upstream_model": settings.model,
                "why": why,
            }


# -- candidates -----------------------------------------------------------------


def _named(candidate: Candidate) -> dict[str, Any]:
    settings = candidate.settings
    return {
        "model": candidate.model.name,
        "provider": settings.name,
        "type": settings.type,
        "upstream_model": settings.model,
    }


def _candidate(exchange: Exchange, candidate: Candidate) -> dict[str, Any]:
    settings, model = candidate.settings, candidate.model
    policy = policy_of(model, exchange.snapshot)
    credential = settings.credential
    return {
        **_named(candidate),
        "dialect": candidate.dialect.name,
        "key": credential.location or credential.kind,
        "weight": settings.weight,
        "context_tokens": settings.context_tokens or model.context_tokens,
        "retry_count": settings.retry_count,
        "timeouts": timeouts_of(candidate, exchange.settings),
        "breaker": settings.breaker or policy.breaker,
        **_rendered(exchange, candidate),
    }


def _rendered(exchange: Exchange, candidate: Candidate) -> dict[str, Any]:
    """Return the request as it would be sent, or why it cannot be."""
    try:
        parsed, links = _with_links(exchange, candidate)
        request, losses = candidate.dialect.render_request(
            parsed, target_of(candidate, exchange.settings)
        )
    except InvalidRequest as error:
        return {"request": None, "why": error.message}
    url = candidate.settings.url
    if candidate.provider.responder is not None or url is None:
        return {"request": None, "why": "this process answers it"}
    request = placed(candidate, request)
    headers = headers_of(
        candidate,
        request,
        _authorization(candidate, request),
        user_agent=exchange.gateway.user_agent,
    )
    extra = {name for name, _ in candidate.settings.extra_headers}
    sent = {
        "method": request.method,
        "url": f"{url.scheme}://{url.authority}{url.path}{request.path}"
        + (f"?{REDACTED}" if url.query else ""),
        "headers": [
            # What the operator adds may be a key.
            (name, REDACTED if name in extra else value)
            for name, value in (("host", url.authority), *headers)
        ],
        "body": _shown(request.body),
    }
    found: dict[str, Any] = {"request": sent, "dropped_parameters": losses}
    if request.others:
        # ``n``, of which the format knows nothing.
        sent["times"] = 1 + len(request.others)
    if links:
        found["fetched_links"] = links
    return found


def _with_links(
    exchange: Exchange, candidate: Candidate
) -> tuple[ParsedRequest, list[str]]:
    """Return the request with words for what is fetched, and what that would be.

    Raises:
        InvalidRequest: A link would not be followed whatever is behind it.
    """
    parsed, links = exchange.parsed, candidate.dialect.links
    wanted = links_for(exchange, candidate, parsed)
    if links is None or not wanted:
        return parsed, []
    for link in wanted:
        check_link(link, exchange.settings.fetch)
    contents = {
        link.path: Inline(
            "image/png" if link.is_image else "application/pdf",
            f"[what is at {named(link.url)}]",
        )
        for link in wanted
    }
    return links.place(parsed, contents), [named(link.url) for link in wanted]


def _obstacle(exchange: Exchange, candidate: Candidate) -> InvalidRequest | None:
    """Return why the request cannot be said in the candidate's format, if so."""
    try:
        parsed, _ = _with_links(exchange, candidate)
        candidate.dialect.render_request(
            parsed, target_of(candidate, exchange.settings)
        )
    except InvalidRequest as error:
        return error
    return None


def _authorization(
    candidate: Candidate, request: HttpRequest
) -> tuple[tuple[str, str], ...]:
    """Return the headers that authorise, made of no key."""
    provider, settings = candidate.provider, candidate.settings
    if provider.sign is not None and settings.credential.kind == "none":
        return (("authorization", f"AWS4-HMAC-SHA256 {REDACTED}"),)
    has_key = settings.credential.kind != "none"
    return provider.authorize(request, Secret(REDACTED) if has_key else None, 0.0)


def _shown(body: bytes) -> Any:
    """Return JSON as it is, and of anything else the size."""
    try:
        return msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"{len(body)} bytes that are not JSON"


def _timers(exchange: Exchange, model: Model) -> dict[str, Any]:
    policy = policy_of(model, exchange.snapshot)
    timeouts = model.timeouts or exchange.settings.timeouts
    is_stream = exchange.parsed.is_stream
    hedge = policy.hedge
    if hedge is not None and has_provider_state(exchange.parsed):
        hedge = None
    return {
        "is_stream": is_stream,
        "total": timeouts.stream_total if is_stream else timeouts.total,
        "retries": policy.retries,
        "hedge_after": None if hedge is None else hedge.after,
        "stream": policy.stream if is_stream else None,
    }


# -- a gateway that nobody can reach --------------------------------------------


class _Mind:
    """A gateway and its clock, both standing still unless they are moved."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.draw = 0.0
        numbers = itertools.count(1)
        self.gateway = Gateway(
            snapshot,
            wall_clock=lambda: 0.0,
            new_id=lambda: f"00000000-0000-7000-8000-{next(numbers):012x}",
            jitter=lambda: self.draw,
            context=Context(),
        )

    def exchange(self, model: Model, name: str, body: bytes | None) -> Exchange:
        """Return the exchange that would begin.

        Without a body the least one that the endpoint takes; with one, the first of
        the model's endpoints that can read it.

        Raises:
            GatewayError: None can.
        """
        able = [one for one in ENDPOINTS if one.capability in model.capabilities]
        able = [one for one in able if body is not None or one.capability in _LEAST]
        refusal: GatewayError = InvalidRequest(
            f"Model `{model.name}` can do nothing that has an endpoint."
        )
        for endpoint in able:
            try:
                exchange = self._begin(endpoint, name, body)
            except GatewayError as error:
                if endpoint is able[0]:
                    refusal = error
            else:
                exchange.limit_time(model)
                return exchange
        raise refusal

    def _begin(self, endpoint: Endpoint, name: str, body: bytes | None) -> Exchange:
        if body is None:
            kind, data = _least(endpoint.capability)
        else:
            kind, data = _JSON, _renamed(body, name)
        method, _, path = endpoint.route.partition(" ")
        head = RequestHead(method=method, path=path, headers=(("content-type", kind),))
        exchange = Exchange(self.gateway, endpoint, head, "explain", ())
        exchange.convert(data)
        return exchange

    def follow(self, exchange: Exchange, model: Model, kind: Kind) -> dict[str, Any]:
        """Return what happens if every attempt fails in this way."""
        gateway = self.gateway
        gateway.breakers = Breakers()
        self.draw, now = 0.0, exchange.record.started
        plan = make_plan(exchange, model)
        self.draw = _LONGEST
        steps: list[dict[str, Any]] = []
        try:
            while True:
                step = plan.next(now)
                if isinstance(step, Try):
                    candidate = step.option.candidate
                    error = _obstacle(exchange, candidate) or SAMPLES[kind]
                    is_sent = isinstance(error, UpstreamError)
                    steps.append({"try": _label(candidate), "is_sent": is_sent})
                    if isinstance(error, UpstreamTimeout):
                        now += timeouts_of(candidate, exchange.settings).first_content
                    plan.failed(step, error, now)
                elif isinstance(step, SleepUntil):
                    steps.append({"pause": round(step.at - now, 3)})
                    now = step.at
                else:
                    told = _told(step.error)
                    break
        finally:
            plan.close()
        rule = FOLLOWS[kind]
        return {
            "kind": kind.value,
            "follow": rule.follow.value,
            "counts": rule.counts,
            "is_loud": rule.is_loud,
            "demotes": rule.demotes,
            "steps": steps,
            "told": {"status": told["status"], "code": told["code"]},
        }


def _label(candidate: Candidate) -> str:
    return f"{candidate.model.name}/{candidate.settings.name}"


# -- samples --------------------------------------------------------------------

_WORDS = "the provider's own words"

SAMPLES: dict[Kind, UpstreamError | InvalidRequest] = {
    Kind.SERVER: UpstreamRefused(500, _WORDS),
    Kind.CONFLICT: UpstreamRefused(409, _WORDS),
    Kind.MODEL_FAILED: UpstreamRefused(424, _WORDS),
    Kind.UNREACHABLE: UpstreamBroken("refused"),
    Kind.TLS: UpstreamBroken("tls"),
    Kind.TIMEOUT: UpstreamTimeout("first_content"),
    Kind.SLOW: UpstreamRefused(504, _WORDS),
    Kind.GARBLED: UpstreamGarbled(_WORDS),
    Kind.REDIRECT: UpstreamGarbled(_WORDS, "upstream_redirect"),
    Kind.RATE_LIMIT: UpstreamRefused(429, _WORDS),
    Kind.QUOTA: UpstreamRefused(429, _WORDS, code="insufficient_quota"),
    Kind.AUTH: UpstreamRefused(401, _WORDS),
    Kind.MISSING: UpstreamRefused(404, _WORDS),
    Kind.CONTEXT_LENGTH: UpstreamRefused(400, _WORDS, code="context_length_exceeded"),
    Kind.CONTENT_POLICY: UpstreamRefused(400, _WORDS, code="content_filter"),
    Kind.UNSUPPORTED: UpstreamRefused(400, _WORDS, code="unsupported_parameter"),
    Kind.MALFORMED: UpstreamRefused(400, _WORDS),
    Kind.UNEXPRESSIBLE: InvalidRequest(_WORDS),
    Kind.LOCAL: UpstreamBroken("pool_exhausted"),
}
"""One failure of each class, as the server meets it."""

_LEAST: dict[str, dict[str, Any]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "Hello"}]},
    "embedding": {"model": "m", "input": "Hello"},
    "moderation": {"model": "m", "input": "Hello"},
    "audio_transcription": {"model": "m"},
    "audio_speech": {"model": "m", "input": "Hello", "voice": "alloy"},
}
"""By capability: the least request that can be made of it."""


def _least(capability: str) -> tuple[str, bytes]:
    """Return (content type, body) of the least request."""
    members = _LEAST[capability]
    if capability != "audio_transcription":
        return _JSON, msgspec.json.encode(members)
    part = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="'
    model = f'{part}model"\r\n\r\n{members["model"]}\r\n'
    file = f'{part}file"; filename="hello.wav"\r\n\r\nRIFF\r\n--{_BOUNDARY}--\r\n'
    return f"multipart/form-data; boundary={_BOUNDARY}", (model + file).encode()


def _renamed(body: bytes, name: str) -> bytes:
    """Return a request for the model *name*, whatever it asked for."""
    try:
        members = msgspec.json.decode(body, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body  # the endpoint says what is wrong with it
    members["model"] = Raw(msgspec.json.encode(name))
    return msgspec.json.encode(members)
