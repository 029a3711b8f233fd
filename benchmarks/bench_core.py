"""CPU time of the core alone: no loop, no socket.

    python -m benchmarks.bench_core

Prints microseconds per exchange and per relayed chunk without any HTTP codec (the
provider answers in the core), the codec apart, and both together.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator
from typing import Any

from benchmarks.payloads import Answers, chat_request, chat_response, stream
from tz_protocol.dialects.base import AnyDialect
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.flows.connection import Connection, ConnectionSettings
from tz_protocol.gateway import Gateway
from tz_protocol.machine import Context, Machine
from tz_protocol.operations import (
    Connect,
    Flow,
    IsQuiet,
    Read,
    ReceiveBody,
    SendBody,
    Write,
    WriteRead,
)
from tz_protocol.providers.base import Provider, Reply, Responder
from tz_protocol.types.http import HttpRequest, RequestHead, ResponseHead
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import (
    GatewaySettings,
    Model,
    ProviderSettings,
    Snapshot,
    Url,
)

WHOLE = chat_response()
REQUEST_HEAD = RequestHead(
    method="POST",
    path="/v1/chat/completions",
    headers=(
        ("host", "127.0.0.1:3000"),
        ("authorization", "Bearer sk-benchmark"),
        ("content-type", "application/json"),
        ("user-agent", "OpenAI/Python 2.0.0"),
    ),
)


def _responder(answers: Answers) -> Responder:
    """Return what answers in the core, whole or as a stream, as it is asked."""
    whole_head = ResponseHead(200, (("content-type", "application/json"),))
    stream_head = ResponseHead(200, (("content-type", answers.stream_type),))

    def respond(
        request: HttpRequest,
        settings: ProviderSettings,
        key: Secret | None,
        deadline: float,
        context: Context,
    ) -> Flow[Reply]:
        del settings, key, deadline, context
        pieces = iter([*answers.stream] if request.is_stream else [answers.whole])

        def body(deadline: float) -> Generator[Any, Any, bytes]:
            del deadline
            yield from ()  # a flow that asks for nothing
            return next(pieces, b"")

        yield from ()
        return Reply(stream_head if request.is_stream else whole_head, body)

    return respond


def make_gateway(
    answers: Answers | None = None,
    *,
    dialect: AnyDialect = OPENAI_CHAT,
    settings: GatewaySettings | None = None,
    options: dict[str, str] | None = None,
) -> Gateway:
    """Return a gateway with one model.

    Args:
        answers: Given in the core, in the provider's format; None: the provider is at
            the other end of a connection.
        dialect: The provider's format.
        settings: Of the gateway.
        options: Of the provider's table.
    """
    provider = Provider(
        name="bench",
        base_url=None,
        credential=None,
        authorize=lambda request, key, wall: (("authorization", "Bearer sk-bench"),),
        dialects={"chat": dialect},
        responder=None if answers is None else _responder(answers),
    )
    target = ProviderSettings(
        name="bench",
        type="bench",
        model="gpt-4.1-mini",
        url=Url("http", "upstream.test", 80, "/v1/"),
        options=options or {},
    )
    model = Model(
        name="bench",
        capabilities=frozenset({"chat"}),
        routing=("bench",),
        providers={"bench": target},
    )
    counter = itertools.count()
    return Gateway(
        Snapshot(gateway=settings or GatewaySettings(), models={"bench": model}),
        wall_clock=time.time,
        new_id=lambda: f"01890000-0000-7000-8000-{next(counter):012x}",
        jitter=lambda: 0.5,
        providers={"bench": provider},
    )


def exchange(gateway: Gateway, body: bytes) -> int:
    """Run one exchange without any codec; return the bytes that were answered."""
    machine = Machine(gateway.handle(REQUEST_HEAD), gateway.context)
    received = iter((body, b""))
    sent = 0
    operation = machine.start(0.0)
    while operation is not None:
        value = None
        if isinstance(operation, ReceiveBody):
            value = next(received)
        elif isinstance(operation, SendBody):
            sent += len(operation.data)
        operation = machine.resume(value, 0.0)
    machine.notices()
    return sent


def connection(gateway: Gateway, requests: list[bytes], answers: list[bytes]) -> int:
    """Serve *requests* over one client stream, both codecs included."""
    client = object()
    served = Connection(
        client,
        gateway.handle,
        context=gateway.context,
        settings=ConnectionSettings(),
        wall_clock=gateway.wall_clock,
    )
    machine = Machine(served.run(), gateway.context, served.tell)
    incoming = iter(requests)
    pieces: list[bytes] = []
    sent = 0
    operation = machine.start(0.0)
    while operation is not None:
        value: object = None
        if isinstance(operation, Read):
            is_client = operation.handle is client
            value = next(incoming, b"") if is_client else pieces.pop(0)
        elif isinstance(operation, WriteRead):
            pieces = list(answers)
            value = pieces.pop(0)
        elif isinstance(operation, Write):
            sent += len(operation.data)
        elif isinstance(operation, Connect):
            value = "upstream"
        elif isinstance(operation, IsQuiet):
            value = True
        operation = machine.resume(value, 0.0)
        machine.notices()
    return sent


def best(work: Callable[[], object], repeats: int = 7) -> float:
    """Return the least CPU seconds of several runs of *work*."""
    figures = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        figures.append(time.process_time() - start)
    return min(figures)


def http_response(body: bytes) -> bytes:
    """Return *body* as a whole HTTP/1.1 answer."""
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def http_stream(events: list[bytes]) -> list[bytes]:
    """Return *events* as pieces of a chunked HTTP/1.1 answer."""
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    pieces = [b"%x\r\n%s\r\n" % (len(event), event) for event in events]
    return [head + pieces[0], *pieces[1:], b"0\r\n\r\n"]


def http_request(body: bytes) -> bytes:
    """Return *body* as a whole HTTP/1.1 request."""
    lines = [f"{name}: {value}" for name, value in REQUEST_HEAD.headers]
    head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines])
    return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def main() -> None:
    """Measure and print."""
    count, chunks = 500, 1_000
    whole, streamed = chat_request(), chat_request(is_stream=True)
    told = Answers(WHOLE, [])
    in_core, over_http = make_gateway(told), make_gateway()

    bare = best(lambda: [exchange(in_core, whole) for _ in range(count)]) / count
    told.stream = stream(0)
    empty = best(lambda: [exchange(in_core, streamed) for _ in range(20)]) / 20
    told.stream = stream(chunks)
    full = best(lambda: [exchange(in_core, streamed) for _ in range(20)]) / 20
    per_chunk = (full - empty) / chunks

    requests = [http_request(whole)] * count
    answers = [http_response(WHOLE)]
    both = best(lambda: connection(over_http, requests, answers)) / count
    one = [http_request(streamed)]
    short, long = http_stream(stream(0)), http_stream(stream(chunks))
    http_empty = best(lambda: connection(over_http, one, short))
    http_full = best(lambda: connection(over_http, one, long))
    http_chunk = (http_full - http_empty) / chunks

    print(f"core without codec, 1 kB request   {bare * 1e6:8.1f} us per exchange")
    print(f"core without codec, relayed chunk  {per_chunk * 1e6:8.2f} us per chunk")
    print(f"with h11 on both faces             {both * 1e6:8.1f} us per exchange")
    print(f"with h11 on both faces, chunk      {http_chunk * 1e6:8.2f} us per chunk")
    print(f"of which codec and pool            {(both - bare) * 1e6:8.1f} us")
    print(
        f"of which codec, per chunk          {(http_chunk - per_chunk) * 1e6:8.2f} us"
    )


if __name__ == "__main__":
    main()
