"""The gateway as an ASGI application, on both transports."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
from types import SimpleNamespace

import httpx
import pytest
import uvicorn

from tests.transport.embedded import (
    CHAT,
    Watched,
    buggy,
    chat,
    make_gateway,
)
from tests.transport.loops import BOUND, NAMES, Transport
from tz_protocol.operations import ReceiveBody, SendBody, SendHead, Sleep
from tz_protocol.records.record import Outcome
from tz_protocol.types.http import ResponseHead


@pytest.fixture(params=NAMES)
def transport(request):
    return Transport(request.param)


@pytest.fixture
def gateway(transport):
    return make_gateway(transport)


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
