"""The gateway inside other people's applications: ASGI and httpx, both transports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import socket
import threading
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
import trio
import uvicorn

from tests.transport.loops import BOUND, NAMES, FakePeers, Transport
from tz_protocol.endpoints import ENDPOINTS
from tz_protocol.gateway import Gateway
from tz_protocol.operations import ReceiveBody, SendBody, SendHead, Sleep
from tz_protocol.records.record import Outcome
from tz_protocol.types.http import ResponseHead
from tz_protocol.types.settings import Model, ProviderSettings, Snapshot, Url

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


@pytest.fixture(params=NAMES)
def transport(request):
    return Transport(request.param)


@pytest.fixture
def gateway(transport):
    return make_gateway(transport)


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


# -- identifiers ----------------------------------------------------------------


def test_gateway_has_a_real_clock_and_fresh_identifiers(transport):
    gateway = transport.embed.make_gateway(snapshot("good"))
    first, second = gateway.new_id(), gateway.new_id()
    assert first != second
    assert first[14] == "7"
    assert first[19] in "89ab"
    assert first[:8] <= second[:8]
    assert gateway.wall_clock() > 1_700_000_000
    assert 0 <= gateway.jitter() < 1


def test_gateway_takes_what_it_is_given_instead(transport):
    gateway = transport.embed.make_gateway(
        snapshot(), new_id=lambda: "one", endpoints=ENDPOINTS[:1]
    )
    assert gateway.new_id() == "one"


# -- httpx, sync ----------------------------------------------------------------


@pytest.fixture
def client(transport, gateway):
    with (
        transport.embed.SyncGatewayTransport(gateway) as inside,
        httpx.Client(transport=inside, base_url="http://gateway") as client,
    ):
        yield client


def test_sync_client_gets_a_whole_answer(client, gateway):
    answer = client.post(CHAT, json=chat())
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["role"] == "assistant"
    assert answer.headers["x-tz-provider"] == "dummy"
    assert [record.outcome for record in gateway.records] == [Outcome.OK]


def test_sync_client_gets_a_stream_piece_by_piece(client, gateway):
    with client.stream("POST", CHAT, json=chat(stream=True)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        pieces = list(answer.iter_raw())
    assert len(pieces) > 1
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
    assert [record.outcome for record in gateway.records] == [Outcome.OK]


def test_sync_client_that_leaves_a_stream_ends_the_exchange(client, gateway):
    with client.stream("POST", CHAT, json=chat(stream=True)) as answer:
        next(answer.iter_raw())
    assert [record.outcome for record in gateway.records] == [Outcome.CLIENT_GONE]


def test_sync_client_gets_errors_as_over_a_socket(client):
    answer = client.post(CHAT, json=chat("no such model"))
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert client.get("/nowhere").status_code == 404
    assert client.get("/livez").status_code == 200
    assert client.head("/livez").status_code == 200


def test_openai_client_talks_to_an_embedded_gateway(transport, gateway):
    with transport.embed.SyncGatewayTransport(gateway) as inside:
        http_client: Any = httpx.Client(transport=inside)  # newer SDKs type a fork
        with openai.OpenAI(
            base_url="http://gateway/v1", api_key="unused", http_client=http_client
        ) as client:
            whole = client.chat.completions.create(**chat())
            pieces = list(client.chat.completions.create(**chat(stream=True)))
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(**chat("no such model"))
    assert whole.choices[0].message.content
    assert len(pieces) > 1


def test_sync_client_works_from_many_threads(client):
    statuses = []

    def ask():
        statuses.append(client.post(CHAT, json=chat()).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert statuses == [200] * 8


# -- httpx, async ---------------------------------------------------------------


def with_async_client(transport, gateway, function):
    async def main():
        inside = transport.embed.GatewayTransport(gateway)
        async with httpx.AsyncClient(
            transport=inside, base_url="http://gateway"
        ) as client:
            return await function(client)

    return transport.run(main)


def test_async_client_gets_whole_answers_and_streams(transport, gateway):
    async def ask(client):
        whole = await client.post(CHAT, json=chat())
        async with client.stream("POST", CHAT, json=chat(stream=True)) as answer:
            pieces = [piece async for piece in answer.aiter_raw()]
        return whole, pieces

    whole, pieces = with_async_client(transport, gateway, ask)
    assert whole.status_code == 200
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
    assert [record.outcome for record in gateway.records] == [Outcome.OK] * 2


def test_async_client_sends_a_body_made_as_it_goes(transport, gateway):
    async def body():
        for byte in json.dumps(chat()).encode():
            yield bytes((byte,))

    async def ask(client):
        headers = {"content-type": "application/json"}
        return await client.post(CHAT, content=body(), headers=headers)

    answer = with_async_client(transport, gateway, ask)
    assert answer.status_code == 200


def test_async_client_that_is_cancelled_ends_the_exchange(transport, gateway):
    async def ask(client):
        if transport.name == "asyncio":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.post(CHAT, json=chat("slow"))
        else:
            with trio.move_on_after(0.05):
                await client.post(CHAT, json=chat("slow"))

    with_async_client(transport, gateway, ask)
    assert [record.outcome for record in gateway.records] == [Outcome.CANCELLED]


def test_async_client_that_leaves_closes_the_upstream(transport):
    with FakePeers() as peers:
        host, port = peers.addresses.silent
        gateway = make_gateway(transport, url=Url("http", host, port))

        async def ask(client):
            call = client.post(CHAT, json=chat("up"))
            if transport.name == "asyncio":
                task = asyncio.ensure_future(call)
                await asyncio.sleep(0.05)
                task.cancel()
            else:
                with trio.move_on_after(0.05):
                    await call
            assert await wait_for(transport, lambda: peers.ended == peers.opened == 1)

        with_async_client(transport, gateway, ask)
    assert [record.outcome for record in gateway.records] == [Outcome.CANCELLED]


async def wait_for(transport, condition):
    """Let the loop go on until *condition* holds; False if it never does."""
    for _ in range(1_000):
        if condition():
            return True
        await transport.sleep(0.005)
    return False


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_bug_in_a_handler_is_told_and_answered_once(
    transport, gateway, caplog, is_late
):
    broken = buggy(gateway, is_late=is_late)

    async def ask(client):
        try:
            return await client.get("/")
        except httpx.RemoteProtocolError as error:
            return str(error)

    with caplog.at_level(logging.ERROR, "tz_gateway"):
        answer = with_async_client(transport, broken, ask)
    if is_late:
        assert answer == "answer cut off"
    else:
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
    assert [record.name for record in caplog.records] == ["tz_gateway"]
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


# -- ASGI -----------------------------------------------------------------------


@contextlib.contextmanager
def under_uvicorn(app):
    """Serve *app* in a thread; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="on", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(BOUND)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def uvicorn_served():
    transport = Transport("asyncio")
    gateway = make_gateway(transport)
    with under_uvicorn(transport.embed.asgi(gateway)) as url:
        yield SimpleNamespace(url=url, gateway=gateway)


def test_asgi_under_uvicorn_answers(uvicorn_served):
    with httpx.Client(base_url=uvicorn_served.url) as client:
        whole = client.post(CHAT, json=chat())
        stream = client.post(CHAT, json=chat(stream=True))
        missing = client.get("/nowhere?x=%2F")
        page = client.head("/livez")
    assert whole.status_code == 200
    assert whole.headers["content-length"] == str(len(whole.content))
    assert stream.content.endswith(b"data: [DONE]\n\n")
    assert missing.status_code == 404
    assert page.status_code == 200


def test_asgi_under_uvicorn_sees_its_client_leave(uvicorn_served):
    gateway = uvicorn_served.gateway
    gateway.records.clear()
    gateway.settled.clear()
    body = json.dumps(chat("slow")).encode()
    host, port = uvicorn_served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as stream:
        stream.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"
            b"content-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        stream.sendall(body)
        threading.Event().wait(0.05)
    assert gateway.settled.wait(2.0), "the model takes 5 s, and nobody is left to wait"
    assert [record.outcome for record in gateway.records] == [Outcome.CLIENT_GONE]


class Server:
    """A plain ASGI server for one call, on either loop."""

    def __init__(self, transport, app, scope, messages):
        self.transport = transport
        self.app = app
        self.scope = scope
        self.messages = list(messages)
        self.sent = []
        self.is_blocked = False

    async def receive(self):
        while not self.messages:
            await self.transport.sleep(0.001)
        return self.messages.pop(0)

    async def send(self, message):
        while self.is_blocked:
            await self.transport.sleep(0.001)
        self.sent.append(message)

    async def call(self):
        await self.app(self.scope, self.receive, self.send)

    @property
    def body(self):
        return b"".join(m.get("body", b"") for m in self.sent)


def http_scope(path=CHAT, **more):
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
    }
    return {**scope, **more}


def request_of(body, pieces=1):
    size = -(-len(body) // pieces)
    return [
        {
            "type": "http.request",
            "body": body[start : start + size],
            "more_body": start + size < len(body),
        }
        for start in range(0, len(body), size)
    ]


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_asgi_call_is_answered(transport, gateway, pieces, stream):
    body = json.dumps(chat(stream=stream)).encode()
    app = transport.embed.asgi(gateway)
    server = Server(transport, app, http_scope(), request_of(body, pieces))
    transport.run(server.call)
    start, *rest = server.sent
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert [message["more_body"] for message in rest][-1] is False
    assert (len(rest) > 1) is stream
    assert [record.outcome for record in gateway.records] == [Outcome.OK]


def test_asgi_call_below_a_root_path_is_answered(transport, gateway):
    app = transport.embed.asgi(gateway)
    scope = http_scope("/sub/livez", root_path="/sub", method="GET")
    del scope["raw_path"]
    server = Server(transport, app, scope, request_of(b" "))
    transport.run(server.call)
    assert server.sent[0]["status"] == 200


@pytest.mark.parametrize("when", ["in its body", "while waiting"])
def test_asgi_client_that_leaves_ends_the_exchange(transport, gateway, when):
    body = json.dumps(chat("slow")).encode()
    messages = request_of(body, 2)
    if when == "in its body":
        del messages[1]
    messages.append({"type": "http.disconnect"})
    server = Server(transport, transport.embed.asgi(gateway), http_scope(), messages)
    transport.run(server.call)
    assert [record.outcome for record in gateway.records] == [Outcome.CLIENT_GONE]


def test_asgi_client_that_does_not_read_is_given_up(transport, gateway):
    """The deadline of a piece holds while the server's ``send`` waits."""

    class Impatient(Watched):
        def handle(self, head):
            yield from SendHead(math.inf, ResponseHead(200))
            while True:
                yield from SendBody(self.context.now + 0.02, b"x")

    impatient = Impatient(
        gateway.snapshot, wall_clock=lambda: 0.0, new_id=str, jitter=lambda: 0.0
    )
    app = transport.embed.asgi(impatient)
    server = Server(transport, app, http_scope(), request_of(b"{}"))
    server.is_blocked = True
    transport.run(server.call)
    assert server.sent == []


def test_asgi_body_that_does_not_come_is_given_up(transport, gateway):
    class Impatient(Watched):
        def handle(self, head):
            try:
                yield from ReceiveBody(self.context.now + 0.02)
            finally:
                self.settled.set()

    impatient = Impatient(
        gateway.snapshot, wall_clock=lambda: 0.0, new_id=str, jitter=lambda: 0.0
    )
    server = Server(transport, transport.embed.asgi(impatient), http_scope(), [])
    transport.run(server.call)
    assert impatient.settled.is_set()


def test_asgi_bug_is_answered_with_500(transport, gateway):
    app = transport.embed.asgi(buggy(gateway))
    server = Server(transport, app, http_scope(), request_of(b"{}"))
    transport.run(server.call)
    assert server.sent[0]["status"] == 500


def test_asgi_bug_after_the_head_leaves_the_answer_incomplete(transport, gateway):
    app = transport.embed.asgi(buggy(gateway, is_late=True))
    server = Server(transport, app, http_scope(), request_of(b"{}"))
    transport.run(server.call)
    assert server.body == b"begun"
    assert all(message.get("more_body", True) for message in server.sent)


def test_asgi_lifespan_runs_the_services(transport, gateway):
    ended = []

    class Serving(Watched):
        def services(self):
            return (("watched", self._service),)

        def _service(self):
            try:
                yield from Sleep(math.inf)
            finally:
                ended.append("service")

        def close_idle(self):
            ended.append("idle")
            super().close_idle()

    serving = Serving(
        gateway.snapshot, wall_clock=lambda: 0.0, new_id=str, jitter=lambda: 0.0
    )
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    app = transport.embed.asgi(serving)
    server = Server(transport, app, {"type": "lifespan"}, messages)
    transport.run(server.call)
    assert [message["type"] for message in server.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert sorted(ended) == ["idle", "service"]


def test_asgi_scope_of_another_kind_is_refused(transport, gateway):
    app = transport.embed.asgi(gateway)
    server = Server(transport, app, {"type": "websocket"}, [])
    with pytest.raises(ValueError, match="websocket"):
        transport.run(server.call)


def test_only_log_lines_are_logged_by_an_embedded_gateway(transport, gateway, caplog):
    async def ask(client):
        return await client.post(CHAT, json=chat())

    with caplog.at_level(logging.DEBUG, "tz_gateway"):
        with_async_client(transport, gateway, ask)
    assert len(gateway.records) == 1
    assert [record for record in caplog.records if record.name == "tz_gateway"] == []
