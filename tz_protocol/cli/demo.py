"""``demo``: a gateway that needs no key and no file, and one request to show it.

The one rule: the request goes over a real connection to the own listener and through
everything that a provider's would; only the answer is made up, by ``dummy``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tz_protocol.cli.lifetime import FOREVER, Lifetime
from tz_protocol.cli.options import Demo
from tz_protocol.cli.output import announcement, cannot_listen, print_error, say
from tz_protocol.cli.serve import LISTEN_SECONDS, MakeGateway, drain_when_told
from tz_protocol.cli.services import supervised
from tz_protocol.errors import (
    OperationError,
    RemoteProtocolError,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRefused,
)
from tz_protocol.flows.upstream import Call, UpstreamResponse, open_upstream, read_all
from tz_protocol.gateway import Gateway
from tz_protocol.machine import Context
from tz_protocol.notices import Close
from tz_protocol.operations import All, Flow, Listen, Race
from tz_protocol.providers import PROVIDERS
from tz_protocol.routing.pool import Pool
from tz_protocol.types.http import HttpRequest
from tz_protocol.types.settings import (
    GatewaySettings,
    Limits,
    Model,
    ProviderSettings,
    Snapshot,
    Timeouts,
    Url,
)
from tz_protocol.wire.sse import SseDecoder, SseEvent

__all__ = ["DEFAULT_PORT", "demo", "demo_snapshot"]

DEFAULT_PORT = 3000

_HOST = "127.0.0.1"
_MODEL = "demo"
_PROVIDER = "dummy"

_SECONDS = 30.0
"""For the whole request; the answer takes less than one."""

_SPACING_MS = "40"
"""Between two words, so that one sees the answer come."""

_QUESTION = "Hello"
_BODY = msgspec.json.encode(
    {
        "model": _MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": _QUESTION}],
    }
)


def demo_snapshot(port: int) -> Snapshot:
    """Return the configuration of the demo, which listens on loopback at *port*."""
    dialects = PROVIDERS[_PROVIDER].dialects
    options = {"spacing_ms": _SPACING_MS}
    provider = ProviderSettings(
        name=_PROVIDER, type=_PROVIDER, model="good", options=options
    )
    model = Model(
        name=_MODEL,
        capabilities=frozenset(dialects),
        routing=(_PROVIDER,),
        providers={_PROVIDER: provider},
    )
    return Snapshot(
        gateway=GatewaySettings(bind_address=f"{_HOST}:{port}"),
        models={_MODEL: model},
        shorthand={_PROVIDER: msgspec.structs.replace(provider, model="")},
        config_id=_MODEL,
    )


def demo(command: Demo, context: Context, make_gateway: MakeGateway) -> Flow[int]:
    """Serve the built-in model, ask it something, and go on until a signal."""
    lifetime = Lifetime(context)
    operate = _operate(command, context, make_gateway, lifetime)
    _, status = yield from Race(FOREVER, (lifetime.watch(), operate))
    return int(status)


def _operate(
    command: Demo, context: Context, make_gateway: MakeGateway, lifetime: Lifetime
) -> Flow[int]:
    port = DEFAULT_PORT if command.port is None else command.port
    gateway = make_gateway(demo_snapshot(port))
    try:
        address = yield from _listen(gateway, port, can_move=command.port is None)
    except OperationError as error:
        message = cannot_listen(f"{_HOST}:{port}", error)
        yield from print_error(context, message)
        return 1
    lifetime.is_started = True
    yield from say(
        context, announcement((address,), f"the demo: model {_MODEL}, no provider")
    )
    show = _show(command, address, context, lifetime)
    both = All(FOREVER, (show, drain_when_told(gateway, lifetime)))
    _, results = yield from Race(FOREVER, (iter(both), *supervised(gateway)))
    return int(results[0])


def _listen(gateway: Gateway, port: int, *, can_move: bool) -> Flow[str]:
    """Return the bound address; another port's if this one is taken and may differ."""
    deadline = gateway.context.now + LISTEN_SECONDS
    try:
        (address,) = yield from Listen(deadline, gateway, (f"{_HOST}:{port}",))
    except OperationError:
        if not can_move:
            raise
        (address,) = yield from Listen(deadline, gateway, (f"{_HOST}:0",))
    return address


def _show(
    command: Demo, address: str, context: Context, lifetime: Lifetime
) -> Flow[int]:
    """Print one answer as it comes, and what to try next; return the exit status."""
    yield from say(context, f"\n{_QUESTION}\n\n")
    try:
        yield from _ask(address, context)
    except UpstreamError as error:
        # To this client the gateway is what a provider is to the gateway.
        reason = str(error).replace("the provider", "the gateway")
        yield from say(context, "\n")
        yield from print_error(context, f"the demo's own request failed: {reason}")
        lifetime.stop.set()
        return 1
    yield from say(context, _next_steps(address, is_once=command.is_once))
    if command.is_once:
        lifetime.stop.set()
    return 0


def _next_steps(address: str, *, is_once: bool) -> str:
    first = "tz-gateway demo &\n" if is_once else ""
    last = "" if is_once else "\nSIGTERM or Ctrl-C ends the gateway.\n"
    return (
        f"\n\nTry it yourself:\n\n{first}"
        f"curl -N http://{address}/v1/chat/completions "
        f"-H 'content-type: application/json' -d '{_BODY.decode()}'\n{last}"
    )


# -- the request ----------------------------------------------------------------


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: Any = None


def _ask(address: str, context: Context) -> Flow[None]:
    """Send the request and print the text of its answer, piece by piece.

    Raises:
        UpstreamError: There was no whole answer.
    """
    limits, deadline = Limits(), context.now + _SECONDS
    pool = Pool(limits)
    url = Url("http", _HOST, int(address.rpartition(":")[2]), "/v1/")
    call = Call(
        request=HttpRequest(path="chat/completions", body=_BODY, is_stream=True),
        headers=(("content-type", "application/json"), ("accept", "text/event-stream")),
        settings=ProviderSettings(name=_MODEL, type="openai", model=_MODEL, url=url),
        connect_deadline=context.now + Timeouts().connect,
        head_deadline=deadline,
        total_deadline=deadline,
    )
    response = yield from open_upstream(call, pool, context, limits)
    try:
        if response.head.status != 200:
            body = yield from read_all(response, deadline, "total", limits.event_bytes)
            raise UpstreamRefused(response.head.status, _reason(body))
        yield from _print_answer(response, deadline, limits, context)
    finally:
        response.close()
        for handle in pool.expire(context.now, everything=True):
            context.tell(Close(handle))


def _print_answer(
    response: UpstreamResponse, deadline: float, limits: Limits, context: Context
) -> Flow[None]:
    decoder, is_whole = SseDecoder(limits.event_bytes), False
    while piece := (yield from response.read(deadline, "total")):
        decoder.receive_data(piece)
        while (event := _next_event(decoder)) is not None:
            if event.data == b"[DONE]":
                is_whole = True
            else:
                yield from say(context, _text_of(event.data))
    if not is_whole:
        raise UpstreamGarbled("the stream ended before its terminator")


def _next_event(decoder: SseDecoder) -> SseEvent | None:
    try:
        return decoder.next_event()
    except RemoteProtocolError as error:
        raise UpstreamGarbled(error.message) from None


def _text_of(data: bytes) -> str:
    """Return the text that one event adds.

    Raises:
        UpstreamGarbled: It is no chunk of a chat completion.
        UpstreamRefused: It is an error.
    """
    try:
        chunk = msgspec.json.decode(data, type=_Chunk)
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = "an event of the stream is no chunk of a chat completion"
        raise UpstreamGarbled(message) from None
    if chunk.error is not None:
        raise UpstreamRefused(200, _reason(data))
    return "".join(choice.delta.content or "" for choice in chunk.choices)


class _Error(msgspec.Struct):
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


def _reason(body: bytes) -> str:
    """Return the message of an error in OpenAI's shape."""
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error.message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "without a reason"
